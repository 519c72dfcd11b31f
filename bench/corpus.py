"""Seconds and peak memory of stages 01 and 02, as they are run from a shell, as the corpus grows.

Sentences of any corpus become a book, and each unique one gets one stand-in for a paraphrase: its own words, in runs of
four, in another order. It reads badly, but it keeps every number and name, so the gates have their whole work to do and
let it through, and it shares few word 3-grams with its sentence. Both stages run as commands, with the start of Python
and the writing of all files; memory is that of all their processes together.

example
    python -m bench.corpus --texts sentences.jsonl.gz --sizes 20000 80000 169886 --out bench/results/corpus.json
"""

import argparse
import gzip
import json
import math
import random
import statistics
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bench import common
from cardioembed.errors import UserError
from cardioembed.records import parse_jsonl, read_json, read_jsonl, write_jsonl

STAGES = ("01_merge_paraphrases.py", "02_prepare_training_data.py")
_PARAGRAPH = 6  # sentences


def main(options: argparse.Namespace) -> None:
    where = common.environment("corpus", 1)
    sentences = read_sentences(options.texts)
    sizes = sorted(set(options.sizes))
    if sizes[-1] > len(sentences):
        raise UserError(f"--sizes {sizes[-1]}: {options.texts} has {len(sentences):,} sentences")

    # 1. A corpus of each size, on disk; then both stages, every size in turn.
    with common.scratch(options.out) as folder:
        configs = {str(size): write_corpus(sentences[:size], folder / str(size)) for size in sizes}
        results = common.alternate(
            {size: lambda config=config: run_stages(config) for size, config in configs.items()}, options.repeats
        )

    # 2. Report.
    notes = [
        "seconds are medians, from the start of the command to its end; memory is the highest of both stages",
        "growth: seconds a sentence over those of the smallest corpus; 1.00 is linear",
    ]
    if len(sizes) > 1:
        notes.append(f"exponent b of seconds = a * sentences ** b, fitted over all sizes: {exponent(results):.2f}")
    common.report(options.out, "Corpus and triplets", where, summarise(results), notes, {"sizes": results})


def read_sentences(path: Path) -> list[str]:
    """The ``sentence`` or ``text`` of each row of a .jsonl or .jsonl.gz file."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
    else:
        rows = [row for _, row in parse_jsonl(path)]
    try:
        return [row["sentence"] if "sentence" in row else row["text"] for row in rows]
    except KeyError:
        raise UserError(f"{path}: its rows have neither 'sentence' nor 'text'") from None


def write_corpus(sentences: list[str], folder: Path) -> Path:
    """A book and its paraphrases; returns the config of a run over them."""
    (folder / "books").mkdir(parents=True)
    lines = iter(sentences)
    paragraphs = iter(lambda: " ".join(islice(lines, _PARAGRAPH)), "")
    (folder / "books" / "corpus.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    config = folder / "config.yaml"
    merge = {"books": [str(folder / "books")], "paraphrases": [], "ocr": {"engine": "none"}}
    config.write_text(yaml.safe_dump({"run_dir": str(folder / "run"), "merge": merge}))
    call(STAGES[0], config)
    rng = random.Random(0)
    unique = read_jsonl(folder / "run" / "01_sentences.jsonl", texts=("text",))
    rows = ({"original": row["text"], "paraphrase": reorder(row["text"], rng), "model": "reordered"} for row in unique)
    write_jsonl(folder / "paraphrases.jsonl", rows)
    merge["paraphrases"] = [str(folder / "paraphrases.jsonl")]
    config.write_text(yaml.safe_dump({"run_dir": str(folder / "run"), "merge": merge}))
    return config


def reorder(text: str, rng: random.Random) -> str:
    """The words in runs of four, in another order."""
    words = text.split()
    runs = [words[start : start + 4] for start in range(0, len(words), 4)]
    rng.shuffle(runs)
    return " ".join(word for run in runs for word in run)


def run_stages(config: Path) -> dict[str, Any]:
    """Seconds of each stage, peak memory of its processes together, and counts."""
    timed = [call(script, config) for script in STAGES]
    run = Path(yaml.safe_load(config.read_text())["run_dir"])
    merged, prepared = (read_json(run / f"{number}_statistics.json") for number in ("01", "02"))
    return {
        "seconds": [seconds for seconds, _ in timed],
        "peak_memory_mib": [memory for _, memory in timed],
        "sentences": merged["sentences"],
        "pairs": merged["pairs"],
        "triplets": sum(split["triplets"] for split in prepared["splits"].values()),
    }


def call(script: str, config: Path) -> tuple[float, float]:
    """Runs a stage; returns its seconds and the most MiB that it and its processes held at one time."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    _, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise UserError(f"{script} --config {config} failed: {errors[-500:]}")
    return time.perf_counter() - started, peak[0]


def watch(process: subprocess.Popen, peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(common.proportional_memory_mib, common.process_tree(process.pid))))
        time.sleep(0.2)


def summarise(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a size."""
    lines = []
    cost = None
    for size, runs in results.items():
        first, second = (statistics.median(run["seconds"][stage] for run in runs) for stage in (0, 1))
        cost = cost or (first + second) / int(size)
        lines.append(
            {
                "sentences read": f"{int(size):,}",
                "unique": f"{runs[0]['sentences']:,}",
                "pairs": f"{runs[0]['pairs']:,}",
                "triplets": f"{runs[0]['triplets']:,}",
                "stage 01, s": f"{first:.1f}",
                "stage 02, s": f"{second:.1f}",
                "both, s": f"{first + second:.1f}",
                "growth": f"{(first + second) / int(size) / cost:.2f}",
                "peak memory, MiB": f"{statistics.median(max(run['peak_memory_mib']) for run in runs):,.0f}",
            }
        )
    return lines


def exponent(results: dict[str, list[dict[str, Any]]]) -> float:
    """Slope of log seconds over log sentences, by least squares."""
    points = [(math.log(int(size)), math.log(sum(run["seconds"]))) for size, runs in results.items() for run in runs]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=Path, required=True, metavar="FILE", help=".jsonl or .jsonl.gz of sentences")
    parser.add_argument(
        "--sizes", type=common.positive, nargs="+", default=[20_000, 80_000], metavar="N", help="sentences"
    )


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
