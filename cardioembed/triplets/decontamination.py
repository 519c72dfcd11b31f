"""What training text shares with evaluation sets: whole texts and runs of words."""

from __future__ import annotations

import gzip
import json
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from cardioembed.errors import UserError

_BLOCK = 20_000  # texts looked up at once
_NOT_TEXT = re.compile(r"(^|[_-])ids?$|^(labels?|sources?|models?|kind|topic|section|split|group|negative_kinds)$")
_BEIR = ("corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz")


@dataclass(frozen=True)
class Overlap:
    """What a text shares with another: ``reason`` is ``text`` (all of it) or ``ngram``; ``shared`` is normalised."""

    reason: str
    shared: str


class OverlapIndex:
    """Texts that can be asked which of them share something with other texts, or with each other.

    Runs of words are 64-bit hashes in sorted arrays, some 20 bytes each. A hash that is found again is compared word
    by word, so no reported overlap is wrong; one is missed only where two different runs have one hash, which among
    five million runs happens once in a million corpora. Time grows as for sorting.

    Args:
        texts: Normalised texts (``cardioembed.records.normalise``).
        ngram_words: Length of a run of words that counts as overlap.
    """

    def __init__(self, texts: Iterable[str], ngram_words: int) -> None:
        self._n = ngram_words
        self._by_text: dict[str, list[int]] = {}
        texts = list(texts)
        for index, text in enumerate(texts):
            self._by_text.setdefault(text, []).append(index)
        vocabulary: dict[str, int] = defaultdict(count().__next__)
        self._words, lengths = _numbers(texts, vocabulary)
        self._vocabulary = _Vocabulary(vocabulary)
        # A value of its own for each word; the last is that of words that are not in the vocabulary.
        self._values = np.random.default_rng(0).integers(0, 2**64, len(vocabulary) + 1, np.uint64, endpoint=False)
        hashes, starts = self._hash(self._words, lengths)
        order = np.argsort(hashes)
        self._hashes, self._starts = hashes[order], starts[order].astype(np.int32)
        self._owners = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)  # of the words
        self._spelling = list(vocabulary)

    def find(self, others: Iterable[str]) -> dict[int, Overlap]:
        """Own texts that equal one of ``others`` (normalised, too) or share a run of words with one.

        Returns:
            The overlap of each such text by its index: the equal text, else the first shared run in it.
        """
        found: dict[int, Overlap] = {}
        others = iter(others)
        while block := list(islice(others, _BLOCK)):
            for text in filter(None, block):
                for index in self._by_text.get(text, ()):
                    found[index] = Overlap("text", text)
            for index, shared in self._runs(block):
                found.setdefault(index, Overlap("ngram", shared))
        return found

    def between(self, ranks: np.ndarray) -> dict[int, tuple[int, Overlap]]:
        """Own texts that share something with an own text of a higher rank.

        Args:
            ranks: Rank of each text, shape (texts,); texts below 0 are left aside.

        Returns:
            The highest rank that each such text shares something with, and what: the text, else the first run in it.
        """
        found: dict[int, tuple[int, Overlap]] = {}
        for text, indices in self._by_text.items():
            top = max(ranks[index] for index in indices) if len(indices) > 1 else -1
            found |= {index: (int(top), Overlap("text", text)) for index in indices if 0 <= ranks[index] < top}
        if not len(self._hashes):
            return found
        rank = ranks.astype(np.int8)[self._owners[self._starts]]
        first = np.flatnonzero(np.concatenate(([True], self._hashes[1:] != self._hashes[:-1])))
        repeats = np.diff(np.append(first, len(rank)))
        top = np.repeat(np.maximum.reduceat(rank, first), repeats)
        # Of the texts with the highest rank, the first in the sorted arrays stands for the others.
        best = np.minimum.reduceat(np.where(rank == top, np.arange(len(rank)), len(rank)), first)
        hits = np.flatnonzero((rank >= 0) & (rank < top))
        same = self._same(self._starts[hits], self._words, self._starts[np.repeat(best, repeats)[hits]])
        for (index, shared), place in self._first_runs(self._starts[hits[same]], top[hits[same]]):
            found.setdefault(index, (place, Overlap("ngram", shared)))
        return found

    def _same(self, own: np.ndarray, words: np.ndarray, their: np.ndarray) -> np.ndarray:
        """Where the runs that start at ``own`` are, word by word, those of ``words`` that start at ``their``."""
        window = np.arange(self._n)
        return (self._words[own[:, None] + window] == words[their[:, None] + window]).all(axis=1)

    def _first_runs(self, starts: np.ndarray, labels: np.ndarray) -> Iterator[tuple[tuple[int, str], int]]:
        """The first run of each text among those that start at ``starts``, with its label; highest label first."""
        texts = self._owners[starts]
        order = np.lexsort((starts, -labels, texts))
        _, places = np.unique(texts[order], return_index=True)
        for place in order[places].tolist():
            run = self._words[starts[place] : starts[place] + self._n]
            yield (int(texts[place]), " ".join(self._spelling[word] for word in run)), int(labels[place])

    def _runs(self, block: list[str]) -> Iterator[tuple[int, str]]:
        words, lengths = _numbers(block, self._vocabulary)
        hashes, starts = self._hash(words, lengths)
        hashes, first = np.unique(hashes, return_index=True)
        left, right = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        counts = right - left
        total = int(counts.sum())
        if not total:
            return
        hits = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(total)
        own, their = self._starts[hits], np.repeat(starts[first], counts)
        own = own[self._same(own, words, their)]
        yield from (run for run, _ in self._first_runs(own, np.zeros(len(own), int)))

    def _hash(self, words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all runs of known words inside a text, and the places at which they start."""
        total = max(0, len(words) - self._n + 1)
        hashes = np.zeros(total, np.uint64)
        values = self._values[words]
        for offset in range(self._n):
            hashes *= np.uint64(0x9E3779B97F4A7C15)
            hashes += values[offset : offset + total]
        ends = np.repeat(np.cumsum(lengths), lengths)[:total]
        unknown = np.concatenate(([0], np.cumsum(words < 0)))
        starts = np.flatnonzero((np.arange(total) + self._n <= ends) & (unknown[self._n :][:total] == unknown[:total]))
        return hashes[starts], starts


class _Vocabulary(dict):
    """Numbers of words; -1 for a word that has none."""

    def __missing__(self, word: str) -> int:
        return -1


def _numbers(texts: list[str], vocabulary: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the words of all texts in a row, and how many words each text has."""
    words, lengths = array("i"), array("i")
    for text in texts:
        found = text.split()
        words.extend(map(vocabulary.__getitem__, found))
        lengths.append(len(found))
    return np.asarray(words, np.int32), np.asarray(lengths, np.int64)


def evaluation_texts(place: str) -> Iterator[str]:
    """All texts of an evaluation set, one after another.

    Args:
        place: A ``.jsonl`` or ``.jsonl.gz`` file of any row format (every text in it counts, but not ids, labels,
            sources and models), a ``.txt`` file with one text a line, or a folder in BEIR's layout.

    Raises:
        UserError: There is no such set, or a line of it is broken.
    """
    for path in evaluation_files(place):
        with _open(path) as stream:
            try:
                for number, line in enumerate(stream, 1):
                    if not line.strip():
                        continue
                    if path.suffix == ".txt":
                        yield line
                    else:
                        yield from _texts_of(line, path, number)
            except (OSError, UnicodeDecodeError, EOFError) as error:
                raise UserError(f"prepare.decontaminate: {path} cannot be read as UTF-8 text: {error}") from None


def evaluation_files(place: str) -> list[Path]:
    """The files of an evaluation set.

    Raises:
        UserError: There is no such set.
    """
    path = Path(place)
    if path.is_dir():
        files = [path / name for name in _BEIR if (path / name).is_file()]
        if not files:
            raise UserError(
                f"prepare.decontaminate: the folder {path} has neither corpus.jsonl nor queries.jsonl (BEIR's layout); "
                "give files of other layouts one by one"
            )
        return files
    if not path.is_file():
        raise UserError(
            f"prepare.decontaminate: {path} does not exist. Give the evaluation sets that the model will be measured "
            "on (.jsonl, .jsonl.gz, .txt or a BEIR folder), or [] if there are none"
        )
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".txt")):
        raise UserError(f"prepare.decontaminate: {path} is not .jsonl, .jsonl.gz, .txt or a folder in BEIR's layout")
    return [path]


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _texts_of(line: str, path: Path, number: int) -> Iterator[str]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"prepare.decontaminate: {path}, line {number}: {error}; one JSON object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"prepare.decontaminate: {path}, line {number}: a JSON {type(row).__name__}, not an object")
    for key, value in row.items():
        if not _NOT_TEXT.search(key.lower()):
            yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))
