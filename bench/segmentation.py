"""Which library divides medical textbooks best? Boundaries of a hand-made gold set, and sentences a second.

The gold set (``tests/corpus/segmentation_gold.jsonl``) has two halves, drawn by a seeded shuffle before any rule was
written: the rules were tuned on ``development``; the table is about ``test``. Peers are not needed elsewhere:
pip install blingfire==0.1.8 nupunkt==0.8.0 pysbd==0.3.4 syntok==1.4.4

example python -m bench.segmentation --repeats 3 --out bench/results/segmentation.json
"""

import argparse
import gzip
import importlib
import importlib.metadata
import itertools
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import common
from cardioembed.corpus.reading import find_books
from cardioembed.corpus.segmentation import guard, split_sentences
from cardioembed.errors import UserError
from cardioembed.records import Row, read_jsonl

GOLD = Path("tests/corpus/segmentation_gold.jsonl")
PEERS = {"blingfire": "0.1.8", "nupunkt": "0.8.0", "pysbd": "0.3.4", "syntok": "1.4.4"}
Split = Callable[[str], list[str]]


class _TooSlowError(Exception):
    pass


def main(options: argparse.Namespace) -> None:
    where = common.environment("segmentation", 1)
    where["libraries"] = {name: importlib.metadata.version(name) for name in ("sentencex", *_installed())}
    peers = {name: peer(name) for name in ("sentencex", *PEERS)}
    gold, texts = list(read_jsonl(GOLD)), passages(options.text)

    # 1. Boundaries, on either half of the gold set; the libraries with our guards, too.
    sides = {"cardioembed (sentencex + guards)": split_sentences, **peers}
    guarded = {f"{name} + guards": lambda text, split=split: guard(split(text)) for name, split in peers.items()}
    quality = {
        half: {name: score(split, [row for row in gold if row["split"] == half]) for name, split in every.items()}
        for half, every in (("test", sides), ("development", sides | guarded))
    }

    # 2. Speed, in turn.
    clocks = {name: lambda split=split: speed(split, texts, options.timeout) for name, split in sides.items()}
    speeds = common.alternate(clocks, options.repeats)

    # 3. Report.
    rows = [line(name, quality["test"][name], speeds[name]) for name in sides]
    notes = [
        f"gold set: {len(gold)} passages by the same hand as the guards; the table is about its test half",
        f"speed: {sum(map(len, texts)):,} characters in {len(texts):,} paragraphs; "
        f"a library is stopped after {options.timeout} s",
        *(
            f"development half, {name}: F1 {result['f1']:.3f}, {result['exact']} of {result['passages']} exact"
            for name, result in quality["development"].items()
        ),
    ]
    common.report(options.out, "Segmentation", where, rows, notes, {"quality": quality, "sentences/s": speeds})


def _installed() -> Iterator[str]:
    for name, version in PEERS.items():
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wanted = " ".join(f"{peer}=={version}" for peer, version in PEERS.items())
            raise UserError(f"{name} {version} is not installed; for this benchmark: pip install {wanted}") from None
        yield name


def peer(name: str) -> Split:
    """A library's own way to divide an English text into sentences."""
    module = importlib.import_module("syntok.segmenter" if name == "syntok" else name)
    if name == "sentencex":
        return lambda text: list(module.segment("en", text))
    if name == "blingfire":
        return lambda text: module.text_to_sentences(text).split("\n")
    if name == "nupunkt":
        return module.sent_tokenize
    if name == "pysbd":
        return module.Segmenter("en", clean=False).segment
    return lambda text: [
        "".join(token.spacing + token.value for token in sentence)
        for paragraph in module.process(text)
        for sentence in paragraph
    ]


def passages(source: Path | None) -> list[str]:
    """Paragraphs to time: the shipped books', or five sentences each of a JSONL file of {"sentence"}.

    Raises:
        UserError: The file does not exist.
    """
    if source is None:
        books = find_books([str(place) for place in common.laptop_settings().merge.books])
        return [text for book in books for text in book.read_text(encoding="utf-8").split("\n\n") if len(text) > 80]
    if not source.is_file():
        raise UserError(f"--text {source} does not exist; leave it out to time the shipped books")
    with (gzip.open if source.suffix == ".gz" else open)(source, "rt", encoding="utf-8") as stream:
        sentences = [json.loads(row)["sentence"] for row in stream]
    return [" ".join(sentences[start : start + 5]) for start in range(0, len(sentences), 5)]


def boundaries(sentences: list[str]) -> set[int]:
    """Where sentences end, in characters other than white space, the end of the text left out."""
    lengths = itertools.accumulate(len("".join(sentence.split())) for sentence in sentences)
    return set(list(lengths)[:-1])


def score(split: Split, rows: list[Row]) -> dict[str, Any]:
    """Precision, recall and F1 of boundaries, passages without any mistake, and the ids of the others."""
    hits = found = wanted = 0
    wrong = []
    for row in rows:
        mine, gold = boundaries([s for s in split(row["text"]) if s.strip()]), boundaries(row["sentences"])
        hits, found, wanted = hits + len(mine & gold), found + len(mine), wanted + len(gold)
        if mine != gold:
            wrong.append(row["id"])
    precision, recall = hits / found, hits / wanted
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "exact": len(rows) - len(wrong),
        "passages": len(rows),
        "wrong": wrong,
    }


def speed(split: Split, texts: list[str], timeout: int) -> tuple[float, bool]:
    """Sentences a second, and whether the library was stopped after ``timeout`` seconds."""
    split(texts[0])
    begin, sentences, stopped = time.perf_counter(), 0, False
    try:
        with _alarm(timeout):
            for text in texts:
                sentences += len(split(text))
    except _TooSlowError:
        stopped = True
    return sentences / (time.perf_counter() - begin), stopped


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def line(name: str, result: dict[str, Any], speeds: list[tuple[float, bool]]) -> dict[str, str]:
    """A row of the table."""
    rate = f"{statistics.median(rate for rate, _ in speeds):,.0f}"
    return {
        "": name,
        "precision": f"{result['precision']:.3f}",
        "recall": f"{result['recall']:.3f}",
        "F1": f"{result['f1']:.3f}",
        "exact passages": f"{result['exact']} of {result['passages']}",
        "sentences/s": f"{rate} (stopped)" if any(stopped for _, stopped in speeds) else rate,
    }


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=Path, metavar="FILE", help='JSONL of {"sentence"}, .gz or not, to time instead')
    parser.add_argument(
        "--timeout", type=common.positive, default=120, metavar="S", help="for one timing (default: 120)"
    )


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
