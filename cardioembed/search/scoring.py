"""Cosines of queries with mapped vectors, and the order of hits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_SCORES = 1 << 24  # scores in memory at once: 64 MiB
_ROWS = 4096  # vectors gathered at once
_ROUNDING = 1e-5  # more than two float32 cosines of the same vectors, computed in different ways, differ


def exact_candidates(
    vectors: np.ndarray, queries: np.ndarray, top_k: int, positions: np.ndarray | None
) -> Iterator[np.ndarray]:
    """For each query, positions of all vectors that can be among its ``top_k``, in no order.

    Args:
        vectors: Shape (count, dimension).
        queries: Shape (queries, dimension), of unit length as the vectors are.
        top_k: How many are wanted.
        positions: Of the vectors to choose from; None for all.
    """
    size = len(vectors) if positions is None else len(positions)
    if not size:
        yield from (np.zeros(0, np.int64) for _ in queries)
        return
    step = max(1, _SCORES // size)
    for start in range(0, len(queries), step):
        for scores in _scores(vectors, queries[start : start + step], positions):
            chosen = np.arange(size)
            if size > top_k:
                lowest = np.partition(scores, size - top_k)[size - top_k]
                chosen = np.flatnonzero(scores >= lowest - _ROUNDING)
            yield chosen if positions is None else positions[chosen]


def _scores(vectors: np.ndarray, queries: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
    """Cosines, shape (queries, positions)."""
    if positions is None:
        return np.ascontiguousarray((vectors @ queries.T).T)
    if len(positions) * 4 > len(vectors):  # to gather so many costs more than to read past the others
        return np.ascontiguousarray((vectors @ queries.T)[positions].T)
    scores = np.empty((len(queries), len(positions)), np.float32)
    for start in range(0, len(positions), _ROWS):
        block = slice(start, start + _ROWS)
        scores[:, block] = (vectors[positions[block]] @ queries.T).T
    return scores


def best(
    vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray, ids: list[str], top_k: int
) -> list[tuple[float, int]]:
    """The ``top_k`` candidates, ``(cosine, position)``, highest first, equal ones by id.

    The cosines are summed in double precision and row by row, so that they are the same whatever else was asked for
    at once and however the candidates were found.
    """
    scores = np.empty(len(candidates), np.float32)
    wide = query.astype(np.float64)
    for start in range(0, len(candidates), _ROWS):
        block = slice(start, start + _ROWS)
        scores[block] = (vectors[candidates[block]] * wide).sum(1)
    if len(scores) > top_k:
        passing = scores >= np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        candidates, scores = candidates[passing], scores[passing]
    found = zip(scores.tolist(), candidates.tolist(), strict=True)
    return sorted(found, key=lambda hit: (-hit[0], ids[hit[1]]))[:top_k]
