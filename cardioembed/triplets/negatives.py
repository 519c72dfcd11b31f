"""Negatives drawn from the anchor's own split, in time that grows linearly with the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardioembed.errors import UserError

_ROUNDS = 24


@dataclass(frozen=True)
class Pool:
    """The sentences of one split, as arrays of equal length.

    Attributes:
        positions: Place of each sentence in the corpus, counted in sentences.
        lengths: Characters of each sentence.
        groups: Group number of each sentence.
    """

    positions: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray


def distant_negatives(
    pool: Pool, anchors: np.ndarray, count: int, min_distance: int, rng: np.random.Generator
) -> np.ndarray:
    """Sentences from far places of the corpus (the paper's negatives).

    Args:
        pool: The split's sentences.
        anchors: Indices of the anchors in the pool, shape (n,).
        count: Negatives an anchor.
        min_distance: Least distance in sentences between an anchor and its negative.
        rng: Source of randomness.

    Returns:
        Indices into the pool, shape (n, count), distinct in each row, never of the anchor's group.

    Raises:
        UserError: An anchor has too few candidates.
    """
    order = np.arange(len(pool.positions))
    low, high = np.zeros(len(anchors), int), np.full(len(anchors), len(order))

    def valid(anchor: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        far = np.abs(pool.positions[candidate] - pool.positions[anchor]) >= min_distance
        return far & (pool.groups[candidate] != pool.groups[anchor])

    advice = f"lower prepare.min_distance (now {min_distance}) or prepare.negatives_per_anchor (now {count})"
    return _draw(order, anchors, low, high, count, valid, rng, advice)


def similar_length_negatives(
    pool: Pool, anchors: np.ndarray, count: int, tolerance: float, rng: np.random.Generator
) -> np.ndarray:
    """Sentences whose length is within ``tolerance`` of the anchor's (the released code's negatives: 0.3).

    Arguments, result and errors as ``distant_negatives``.
    """
    order = np.argsort(pool.lengths, kind="stable")
    lengths = pool.lengths[order]
    low = np.searchsorted(lengths, pool.lengths[anchors] * (1 - tolerance), "left")
    high = np.searchsorted(lengths, pool.lengths[anchors] * (1 + tolerance), "right")

    def valid(anchor: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        return pool.groups[candidate] != pool.groups[anchor]

    advice = f"raise prepare.length_tolerance (now {tolerance:g}) or lower prepare.negatives_per_anchor (now {count})"
    return _draw(order, anchors, low, high, count, valid, rng, advice)


def _draw(order, anchors, low, high, count, valid, rng, advice) -> np.ndarray:
    """Draws from ``order[low:high]`` row by row, redrawing what is not valid; stubborn rows are enumerated."""
    chosen = order[rng.integers(low[:, None], np.maximum(high, low + 1)[:, None], (len(anchors), count))]
    for _ in range(_ROUNDS):
        bad = ~valid(anchors[:, None], chosen) | _repeats(chosen)
        rows, columns = np.nonzero(bad)
        if not len(rows):
            return chosen
        chosen[rows, columns] = order[rng.integers(low[rows], high[rows])]
    for row in np.unique(np.nonzero(~valid(anchors[:, None], chosen) | _repeats(chosen))[0]):
        candidates = order[low[row] : high[row]]
        candidates = candidates[valid(anchors[row], candidates)]
        if len(candidates) < count:
            raise UserError(
                f"an anchor has {len(candidates)} possible negatives in its split, {count} are wanted: {advice}, "
                "or give more text"
            )
        chosen[row] = rng.choice(candidates, count, replace=False)
    return chosen


def _repeats(chosen: np.ndarray) -> np.ndarray:
    """True where a value stands earlier in its row."""
    repeats = np.zeros(chosen.shape, bool)
    for column in range(1, chosen.shape[1]):
        repeats[:, column] = (chosen[:, :column] == chosen[:, column : column + 1]).any(axis=1)
    return repeats
