"""Seconds and peak memory of stages 01 and 02 as the corpus grows: does time grow with the rows, or faster?

The sample's books and paraphrases are repeated. Each copy gets a suffix of its own on every lower-case word of five or
more letters, in books and paraphrases alike: copies are no duplicates of each other, while inside a copy all
repetitions and all overlaps stay as they are. Each run is a process of its own.

example python -m bench.corpus --repeats 3 --copies 1 4 16 64 --out bench/results/corpus.json
"""

import argparse
import itertools
import json
import math
import re
import statistics
import string
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from bench import common
from cardioembed.config import Settings
from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import build_corpus
from cardioembed.errors import UserError
from cardioembed.paraphrases.merging import KEY_PAIRS, find_paraphrase_files, merge_paraphrases
from cardioembed.records import read_jsonl, write_jsonl
from cardioembed.triplets import building

PARTS = {  # column: function of building.build_triplets, or None where a stage calls one function
    "clean, segment, deduplicate": None,
    "check and join paraphrases": None,
    "group near-duplicates": "group_sentences",
    "split": "assign_splits",
    "distant negatives": "distant_negatives",
}
SUFFIXES = ["q" + "".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
# Five or more lower-case letters; not before a hyphen, where a line end may divide a word.
_WORD = re.compile(r"(?<![^\W_])[a-z]{5,}(?![^\W_]|-)")
# Cleaning and segmentation know these words.
_KEPT = frozenset("figure figures table tables chapter chapters boxes video approx shows lists gives depicts".split())


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("corpus", 1)
    copies = sorted(set(options.copies))
    if copies[-1] > len(SUFFIXES):
        raise UserError(f"--copies {copies[-1]}: there are suffixes for {len(SUFFIXES)} copies at most")

    # 1. The corpora, on disk as stage 01 reads them; then time, every size in turn.
    with common.scratch(options.out) as folder:
        for count in {1, *copies}:
            write_copies(settings, count, folder / str(count))
        sides = {
            str(count): lambda count=count: common.in_fresh_process(
                measure, settings, folder / "1", folder / str(count)
            )
            for count in copies
        }
        results = common.alternate(sides, options.repeats)
    check_growth(results)

    # 2. Report.
    table = summarise(results)
    notes = [
        "seconds are medians; all: with what lies between the parts, without the writing of files",
        "growth: seconds a triplet over those of the smallest corpus; 1.00 is linear",
        "peak memory is of the whole process, its libraries included",
    ]
    if len(copies) > 1:
        slopes = ", ".join(f"{part} {slope:.2f}" for part, slope in exponents(results).items())
        notes.append(f"exponent b of seconds = a * triplets ** b, fitted over all sizes (1 is linear): {slopes}")
    common.report(options.out, "Corpus and triplets", where, table, notes, {"copies": results})


def write_copies(settings: Settings, count: int, folder: Path) -> None:
    """Books and paraphrase files of ``count`` copies of the sample."""
    (folder / "books").mkdir(parents=True)
    for book, suffix in itertools.product(find_books(settings.merge.books), SUFFIXES[:count]):
        text = tag(book.read_text(encoding="utf-8"), suffix)
        (folder / "books" / f"{book.stem}_{suffix}.md").write_text(text, encoding="utf-8")
    keys = {key for pair in KEY_PAIRS for key in pair}
    for file in find_paraphrase_files(settings.merge.paraphrases):
        rows = read_jsonl(file)
        copied = (
            {key: tag(value, suffix) if key in keys else value for key, value in row.items()}
            for suffix in SUFFIXES[:count]
            for row in rows
        )
        write_jsonl(folder / "paraphrases" / file.name, copied)


def tag(text: str, suffix: str) -> str:
    """Adds the suffix to most words; two words that differ, differ still."""
    return _WORD.sub(lambda match: match[0] if match[0] in _KEPT else match[0] + suffix, text)


def measure(settings: Settings, warm_up: Path, corpus: Path) -> dict[str, Any]:
    """Runs the stages' functions on a small corpus, not counted, then on the one to measure."""
    run_stages(settings, warm_up)
    return {**run_stages(settings, corpus), "peak_memory_mib": common.peak_memory_mib()}


def run_stages(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each part, and counts."""
    merge, prepare = settings.merge, settings.prepare
    limits = {"min_characters": merge.min_characters, "max_characters": merge.max_characters}
    seconds = dict.fromkeys(PARTS, 0.0)
    books, files = find_books([str(folder / "books")]), find_paraphrase_files([str(folder / "paraphrases")])
    begin = time.perf_counter()
    sentences = build_corpus(books, **limits).sentences
    cleaned = time.perf_counter()
    merged = merge_paraphrases(
        files, sentences, **limits, min_length_ratio=merge.min_length_ratio, max_length_ratio=merge.max_length_ratio
    )
    joined = time.perf_counter()
    options = {**prepare.model_dump(exclude={"split"}), "negatives": "distant"}
    with clocked(building, seconds):
        splits, counts = building.build_triplets(
            sentences, merged.pairs, shares=prepare.split.model_dump(), **options, seed=settings.seed
        )
    end = time.perf_counter()
    first, second = list(PARTS)[:2]
    seconds |= {first: cleaned - begin, second: joined - cleaned, "all": end - begin}
    return {
        "seconds": seconds,
        "sentences": len(sentences),
        "triplets": sum(map(len, splits.values())),
        "groups": counts["groups"],
        "not_in_books": sum(file["not_in_books"] for file in merged.counts.values()),
    }


@contextmanager
def clocked(module: ModuleType, seconds: dict[str, float]) -> Iterator[None]:
    """Adds the time inside the module's functions of ``PARTS`` to ``seconds``."""

    def clock(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **options)
            seconds[part] += time.perf_counter() - started
            return result

        return call

    with ExitStack() as stack:
        for part, name in PARTS.items():
            if name:
                stack.enter_context(mock.patch.object(module, name, clock(part, getattr(module, name))))
        yield


def check_growth(results: dict[str, list[dict[str, Any]]]) -> None:
    """Raises unless every copy added the same sentences, triplets and groups, to within 2 %.

    Copies that are duplicates of each other would be dropped or grouped, and the sizes would not be what they say.
    """
    for key in ("sentences", "triplets", "groups"):
        each = {copies: runs[0][key] / int(copies) for copies, runs in results.items()}
        if max(each.values()) > 1.02 * min(each.values()):
            shown = json.dumps({copies: round(value, 1) for copies, value in each.items()})
            raise UserError(f"{key} a copy differ between the sizes ({shown}): the copies are not independent")


def summarise(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A line a size, with medians."""
    lines, cost = [], None
    for copies, runs in results.items():
        medians = {part: statistics.median(run["seconds"][part] for run in runs) for part in runs[0]["seconds"]}
        triplets = runs[0]["triplets"]
        cost = cost or medians["all"] / triplets
        lines.append(
            {
                "copies": copies,
                "sentences": f"{runs[0]['sentences']:,}",
                "triplets": f"{triplets:,}",
                **{f"{part}, s": f"{value:.3f}" for part, value in medians.items()},
                "triplets/s": f"{triplets / medians['all']:,.0f}",
                "growth": f"{medians['all'] / triplets / cost:.2f}",
                "peak memory, MiB": f"{statistics.median(run['peak_memory_mib'] for run in runs):,.0f}",
            }
        )
    return lines


def exponents(results: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Slope of log seconds over log triplets for each part, by least squares."""
    runs = [run for size in results.values() for run in size]
    sizes = [math.log(run["triplets"]) for run in runs]
    return {
        part: statistics.linear_regression(sizes, [math.log(run["seconds"][part]) for run in runs]).slope
        for part in runs[0]["seconds"]
    }


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--copies",
        type=common.positive,
        nargs="+",
        default=[1, 4, 16, 64],
        metavar="N",
        help="sizes, in copies of the sample of some 1,700 sentences (default: 1 4 16 64)",
    )


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
