"""What counterfactual edits find, and how many of them are right: coverage by category, rows for a reader, precision.

Sentences are drawn at random, then one edit of each as stage 02 draws it. A reader fills in, for every row, whether the
edit says something clinically different (``different``) and whether it is grammatical (``grammatical``): true or false.

example python -m bench.counterfactuals --sample 200 --seed 1 --out judged.jsonl
        python -m bench.counterfactuals --judged judged.jsonl
"""

import argparse
import gzip
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from cardioembed.errors import UserError
from cardioembed.lexicon import CATEGORIES, lexicon
from cardioembed.paraphrases.merging import KEY_PAIRS
from cardioembed.records import Row, read_jsonl, write_jsonl
from cardioembed.triplets.counterfactuals import Counterfactual, choose_counterfactual, counterfactuals

SAMPLE = sorted(Path("data/sample/paraphrases").glob("*.jsonl"))
QUESTIONS = ("different", "grammatical")


def main(options: argparse.Namespace) -> None:
    if options.judged:
        print(precision(read_jsonl(options.judged, required=("category", *QUESTIONS)), str(options.judged)))
        return
    texts = read_texts(options.texts)
    lexicon()
    started = time.process_time()
    found = [counterfactuals(text) for text in texts]
    seconds = time.process_time() - started
    print(coverage(texts, found, seconds))
    if options.out:
        rows = sample(texts, found, options.sample, np.random.default_rng(options.seed))
        print(f"{write_jsonl(options.out, rows)} rows to judge in {options.out}")


def read_texts(files: Sequence[Path]) -> dict[str, str]:
    """Distinct text -> file and column: originals and paraphrases, or the sentences of a corpus."""
    texts: dict[str, str] = {}
    columns = dict.fromkeys([*(key for pair in KEY_PAIRS for key in pair), "text"])
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
            for row in map(json.loads, stream):
                for column in columns:
                    if isinstance(text := row.get(column), str):
                        texts.setdefault(text, f"{file.name}, {column}")
    if not texts:
        raise UserError(f"no {', '.join(columns)} in {', '.join(map(str, files)) or 'no file at all'}")
    return texts


def coverage(texts: dict[str, str], found: list[list[Counterfactual]], seconds: float) -> str:
    """Share of sentences with an edit, for each source and category."""
    lines = [f"{len(texts)} sentences, {seconds / len(texts) * 1e6:.0f} microseconds of CPU time each"]
    lines.append(" ".join(f"{name:>11}" for name in ("n", "any", *CATEGORIES)) + "  source")
    for source in dict.fromkeys(texts.values()):
        edits = [one for one, origin in zip(found, texts.values(), strict=True) if origin == source]
        has = Counter(category for one in edits for category in {edit.category for edit in one})
        shares = [sum(map(bool, edits)), *(has[category] for category in CATEGORIES)]
        lines.append(
            f"{len(edits):>11} " + " ".join(f"{share / len(edits):>11.1%}" for share in shares) + f"  {source}"
        )
    return "\n".join(lines)


def sample(texts: dict[str, str], found: list[list[Counterfactual]], count: int, rng: np.random.Generator) -> list[Row]:
    """Rows to judge: sentences at random, one drawn edit each."""
    editable = [(text, source, edits) for (text, source), edits in zip(texts.items(), found, strict=True) if edits]
    rows = []
    for number, place in enumerate(rng.permutation(len(editable))[:count]):
        text, source, edits = editable[place]
        edit = choose_counterfactual(edits, rng)
        rows.append(
            {
                "id": f"c{number:04}",
                "original": text,
                "counterfactual": edit.text,
                "category": edit.category,
                "edit": edit.edit,
                "source": source,
                **dict.fromkeys(QUESTIONS),
            }
        )
    return rows


def precision(rows: list[Row], name: str) -> str:
    """Share of rows that are right, with Wilson 95 % intervals, for each category and altogether."""
    unjudged = sum(not all(isinstance(row[question], bool) for question in QUESTIONS) for row in rows)
    if unjudged or not rows:
        raise UserError(f"{name}: {unjudged} of {len(rows)} rows lack true or false for {' or '.join(QUESTIONS)}")
    lines = [f"{'category':12} {'n':>5}  {'different':>22}  {'grammatical':>22}  {'both':>22}"]
    for category in [*CATEGORIES, "all"]:
        chosen = [row for row in rows if category in ("all", row["category"])]
        if chosen:
            counts = [sum(row[question] for row in chosen) for question in QUESTIONS]
            counts.append(sum(all(row[question] for question in QUESTIONS) for row in chosen))
            lines.append(f"{category:12} {len(chosen):>5}  " + "  ".join(_share(n, len(chosen)) for n in counts))
    return "\n".join(lines)


def _share(count: int, total: int) -> str:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return f"{count / total:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", default=SAMPLE, metavar="FILE", help=".jsonl or .jsonl.gz")
    parser.add_argument("--sample", type=int, default=200, metavar="N", help="rows to judge")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the rows to judge go")
    parser.add_argument("--judged", type=Path, metavar="FILE", help="such a file, filled in: prints its precision")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main(arguments())
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
