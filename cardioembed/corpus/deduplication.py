"""Near duplicates among sentences: MinHash proposes, the exact Jaccard index decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np

from cardioembed.records import normalise

_PERMUTATIONS = 128
# Rows a band by threshold: a pair at the threshold agrees in no band with a probability of at most 2e-4.
_ROWS = ((0.9, 8), (0.8, 5), (0.7, 4), (0.45, 2), (0.0, 1))
_CHUNK = 4096  # texts whose signatures are made at once: their shingles stay in the processor's cache
_PAIRS = 1 << 18  # candidate pairs that are compared at once
_DEVIATIONS = 4  # an estimate so many standard deviations under the threshold rules a pair out
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Word n-grams of the normalised text; a text of fewer words is one shingle."""
    words = normalise(text).split()
    if len(words) <= size:
        return frozenset([" ".join(words)])
    return frozenset(map(" ".join, zip(*(islice(words, start, None) for start in range(size)), strict=False)))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """|A and B| / |A or B|."""
    shared = len(first & second)
    union = len(first) + len(second) - shared
    return shared / union if union else 1.0


def near_duplicates(
    texts: list[str], threshold: float, progress: Callable[[Iterable], Iterable] = iter
) -> Iterator[tuple[int, int, float]]:
    """Pairs of texts whose word 3-grams have a Jaccard index of at least ``threshold``.

    MinHash proposes candidates and the exact index decides, so no reported pair is wrong; a true pair is missed only
    where no band agrees.

    Args:
        texts: The texts to compare.
        threshold: Lowest Jaccard index, in (0, 1].
        progress: Wraps the loop over texts, as tqdm does.

    Yields:
        ``(i, j, index)`` with ``j < i``, in order of ``i``, then ``j``.
    """
    signatures = _signatures(texts, progress)
    rows = next(rows for lowest, rows in _ROWS if threshold >= lowest)
    found = [
        _plausible(signatures, later, earlier, threshold)
        for band in range(_PERMUTATIONS // rows)
        for later, earlier in _agreeing(signatures[:, band * rows : (band + 1) * rows])
    ]
    pairs = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
    recent = lru_cache(maxsize=1 << 16)(lambda place: shingles(texts[place]))
    for i, j in zip(*(part.tolist() for part in np.divmod(pairs, max(1, len(texts)))), strict=True):
        index = jaccard(recent(i), recent(j))
        if index >= threshold:
            yield i, j, index


def _signatures(texts: list[str], progress: Callable[[Iterable], Iterable]) -> np.ndarray:
    """MinHash signatures, (n, permutations) uint32: equal values are as frequent as the Jaccard index says."""
    rng = np.random.default_rng(1)
    multipliers = rng.integers(0, 1 << 63, _PERMUTATIONS, np.uint64) * np.uint64(2) + np.uint64(1)
    code = lru_cache(maxsize=None)(_word_code)
    signatures = np.empty((len(texts), _PERMUTATIONS), np.uint32)
    items = iter(progress(texts))
    start = 0
    while chunk := list(islice(items, _CHUNK)):
        codes, starts = _shingle_codes(chunk, code)
        for column, multiplier in enumerate(multipliers):
            values = (((codes ^ multiplier) * multiplier) >> np.uint64(32)).astype(np.uint32)
            signatures[start : start + len(chunk), column] = np.minimum.reduceat(values, starts)
        start += len(chunk)
    return signatures


def _word_code(word: str) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _shingle_codes(texts: list[str], code: Callable[[str], int]) -> tuple[np.ndarray, np.ndarray]:
    """The word 3-grams of all texts as 64-bit numbers, and where each text's begin."""
    words = [normalise(text).split() for text in texts]
    # A short text is filled up to one 3-gram.
    codes = [[*map(code, text), *([0] * (3 - len(text)))] for text in words]
    lengths = np.array([len(text) for text in codes])
    flat = np.array([value for text in codes for value in text], np.uint64)
    joined = flat[:-2] * _MIX + flat[1:-1]
    joined = (joined ^ (joined >> np.uint64(31))) * _MIX + flat[2:]
    joined = (joined ^ (joined >> np.uint64(29))) * _MIX
    # Without the two 3-grams that reach from each text into the next.
    last = np.cumsum(lengths)[:-1]
    kept = np.ones(len(joined), bool)
    kept[last - 1] = kept[last - 2] = False
    starts = np.concatenate([[0], np.cumsum(lengths - 2)[:-1]])
    return joined[kept] ^ (joined[kept] >> np.uint64(32)), starts


def _agreeing(band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs of equal rows, in pieces of bounded size; the second is the earlier text."""
    key = np.zeros(len(band), np.uint64)
    for column in band.T:  # unequal rows may, very rarely, share a key; the signatures tell them apart
        key = (key ^ column) * _MIX
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(key[order]) != 0]))
    # How many earlier members of its bucket each text is paired with.
    earlier = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    ends = np.cumsum(earlier)
    low = 0
    while low < len(order) and ends[-1]:
        high = max(low + 1, int(np.searchsorted(ends, (ends[low - 1] if low else 0) + _PAIRS, "right")))
        counts = earlier[low:high]
        later = np.repeat(np.arange(low, high), counts)
        place = np.arange(len(later)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[later], order[later - np.repeat(counts, counts) + place]
        low = high


def _plausible(signatures: np.ndarray, later: np.ndarray, earlier: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs, as ``later * n + earlier``, whose estimated index is not far under the threshold."""
    for columns in (32, _PERMUTATIONS):
        slack = _DEVIATIONS * (threshold * (1 - threshold) / columns) ** 0.5
        same = (signatures[later, :columns] == signatures[earlier, :columns]).sum(axis=1, dtype=np.int16)
        kept = same >= np.floor(columns * (threshold - slack))
        later, earlier = later[kept], earlier[kept]
    return later.astype(np.int64) * len(signatures) + earlier
