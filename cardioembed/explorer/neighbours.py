"""Nearest neighbours before and after training: gained, lost, kept; and how far a text moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 512  # queries scored at once


def nearest(
    vectors: np.ndarray, queries: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest by cosine; equal cosines in the order of ``vectors``.

    Args:
        vectors: Unit vectors, shape (n, d).
        queries: Unit vectors, shape (q, d).
        k: How many; fewer where there are fewer.
        own: Place of each query in ``vectors``, which is left out; None if queries are no part of them.

    Returns:
        ``(places, cosines)``, each of shape (q, k), nearest first.
    """
    k = min(k, len(vectors) - (own is not None))
    places = np.empty((len(queries), k), np.int64)
    cosines = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scores = queries[rows] @ vectors.T
        if own is not None:
            scores[np.arange(len(scores)), own[rows]] = -np.inf
        # The k best of a partition may leave out an equal score at an earlier place, hence the threshold.
        threshold = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k] if k else None
        for row, line in enumerate(scores):
            candidates = np.flatnonzero(line >= threshold[row]) if k else np.empty(0, np.int64)
            best = candidates[np.argsort(-line[candidates], kind="stable")][:k]
            places[start + row], cosines[start + row] = best, line[best]
    return places, cosines


@dataclass(frozen=True)
class Neighbour:
    """A neighbour of a text.

    Attributes:
        place: Its place among the texts.
        cosine: With the text.
        change: ``gained``, ``lost`` or ``kept``.
    """

    place: int
    cosine: float
    change: str


def compare_neighbours(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> tuple[list[Neighbour], list[Neighbour]]:
    """Neighbours of one text before (kept or lost) and after (kept or gained), nearest first.

    Args:
        before, after: Places and cosines of that text, each of shape (k,).
    """
    was, now = set(before[0].tolist()), set(after[0].tolist())
    lists = [
        [
            Neighbour(int(place), float(cosine), "kept" if place in other else word)
            for place, cosine in zip(*found, strict=True)
        ]
        for found, other, word in ((before, now, "lost"), (after, was, "gained"))
    ]
    return lists[0], lists[1]


def moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far training moved each text: 1 - cosine of its two unit vectors, shape (n,), 0 to 2."""
    return 1 - np.einsum("nd,nd->n", before, after)


def share_kept(before: np.ndarray, after: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
    """Share of the k nearest neighbours that are the same before and after, for the texts at ``places``."""
    old, _ = nearest(before, before[places], k, places)
    new, _ = nearest(after, after[places], k, places)
    return np.array([len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(old.tolist(), new.tolist(), strict=True)])
