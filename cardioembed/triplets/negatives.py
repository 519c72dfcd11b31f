"""Negatives drawn from the anchor's own split, in time that grows linearly with the rows.

Each function draws one negative an anchor; where several are wanted it is called again with those already taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

_ROUNDS = 24


@dataclass(frozen=True)
class Places:
    """Where texts stand and what they belong to, as arrays of equal length.

    Attributes:
        positions: Place of each text in the corpus, counted in sentences.
        lengths: Characters of each text.
        groups: Group number of each text.
        sections: Number of the section (of a book) of each text.
    """

    positions: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray
    sections: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, indices: np.ndarray) -> Places:
        """Some of the texts."""
        return Places(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


def distant_negatives(
    pool: Places, anchors: Places, taken: np.ndarray, min_distance: int, rng: np.random.Generator
) -> np.ndarray:
    """Sentences from far places of the corpus (the paper's negatives).

    Args:
        pool: The split's sentences.
        anchors: The anchors, n of them.
        taken: Indices into the pool that are not to be drawn again, shape (n, any); -1 stands for none.
        min_distance: Least distance in sentences between an anchor and its negative.
        rng: Source of randomness.

    Returns:
        Indices into the pool, shape (n,), never of the anchor's group; -1 where the pool has none.
    """
    order = np.arange(len(pool))
    low, high = np.zeros(len(anchors), int), np.full(len(anchors), len(pool))

    def valid(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return np.abs(pool.positions[candidates] - anchors.positions[rows]) >= min_distance

    return _draw(order, low, high, valid, pool, anchors, taken, rng)


def similar_length_negatives(
    pool: Places, anchors: Places, taken: np.ndarray, tolerance: float, rng: np.random.Generator
) -> np.ndarray:
    """Sentences whose length is within ``tolerance`` of the anchor's (the released code's negatives: 0.3).

    Arguments and result as ``distant_negatives``.
    """
    order = np.argsort(pool.lengths, kind="stable")
    lengths = pool.lengths[order]
    low = np.searchsorted(lengths, anchors.lengths * (1 - tolerance), "left")
    high = np.searchsorted(lengths, anchors.lengths * (1 + tolerance), "right")
    return _draw(order, low, high, None, pool, anchors, taken, rng)


def same_section_negatives(
    pool: Places, anchors: Places, taken: np.ndarray, section_distance: int, rng: np.random.Generator
) -> np.ndarray:
    """Sentences of the anchor's own section, at least ``section_distance`` sentences away: of its topic, not its fact.

    Arguments and result as ``distant_negatives``.
    """
    order = np.argsort(pool.sections, kind="stable")
    sections = pool.sections[order]
    low, high = (np.searchsorted(sections, anchors.sections, side) for side in ("left", "right"))

    def valid(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return np.abs(pool.positions[candidates] - anchors.positions[rows]) >= section_distance

    return _draw(order, low, high, valid, pool, anchors, taken, rng)


def listed_negatives(candidates: np.ndarray, taken: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """One of each row's own candidates: a random one, or without ``rng`` the first that is not taken.

    Args:
        candidates: Indices into the pool, best first, shape (n, any); -1 stands for none.
        taken: As in ``distant_negatives``.
        rng: Source of randomness.

    Returns:
        Indices into the pool, shape (n,); -1 where no candidate is left.
    """
    if not candidates.size:
        return np.full(len(candidates), -1)
    free = candidates >= 0
    for column in taken.T:
        free &= candidates != column[:, None]
    keys = np.where(free, rng.random(candidates.shape) if rng else np.arange(candidates.shape[1]), np.inf)
    best = keys.argmin(axis=1)
    rows = np.arange(len(candidates))
    return np.where(free[rows, best], candidates[rows, best], -1)


def _draw(
    order: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    valid: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    pool: Places,
    anchors: Places,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws from ``order[low:high]`` row by row, redrawing what is not valid; stubborn rows are enumerated."""

    def good(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        fits = pool.groups[candidates] != anchors.groups[rows]
        if valid:
            fits &= valid(rows, candidates)
        return fits & (taken[rows] != candidates[:, None]).all(axis=1)

    chosen = np.full(len(anchors), -1)
    waiting = np.flatnonzero(high > low)
    for _ in range(_ROUNDS):
        if not len(waiting):
            return chosen
        drawn = order[rng.integers(low[waiting], high[waiting])]
        fits = good(waiting, drawn)
        chosen[waiting[fits]] = drawn[fits]
        waiting = waiting[~fits]
    for row in waiting:
        candidates = order[low[row] : high[row]]
        candidates = candidates[good(np.full(len(candidates), row), candidates)]
        if len(candidates):
            chosen[row] = rng.choice(candidates)
    return chosen
