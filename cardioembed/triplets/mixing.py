"""Which kind of negative fills which slot, and what takes its place where that kind has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# One negative for each of some rows: (row numbers, what the rows have already) -> index of a text, or -1.
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Slots:
    """Negatives of n rows.

    Attributes:
        chosen: Index of the text in each slot, shape (n, slots), distinct in a row; -1 where no kind had one.
        kinds: Which of ``names`` filled the slot, shape (n, slots).
        names: Kinds of negatives.
        replaced: How many slots of a kind went to another, as ``{(kind, other): slots}``.
    """

    chosen: np.ndarray
    kinds: np.ndarray
    names: list[str]
    replaced: Counter[tuple[str, str]] = field(default_factory=Counter)


def allot_kinds(weights: dict[str, float], rows: int, slots: int, rng: np.random.Generator) -> np.ndarray:
    """Gives every slot a kind, in shares by weight, to within one slot of all (largest remainder), in random places.

    Returns:
        Numbers of kinds in the order of ``weights``, shape (rows, slots).
    """
    total = rows * slots
    exact = np.array(list(weights.values())) / sum(weights.values()) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights)), counts)).reshape(rows, slots)


def fill_slots(draws: dict[str, Draw], weights: dict[str, float], allotted: np.ndarray) -> Slots:
    """Draws a negative for every slot.

    Where the allotted kind has none, the others are asked, the heaviest first; kinds that have no weight come last.

    Args:
        draws: How to draw one negative of each kind.
        weights: Weight of each kind, a part of ``draws``.
        allotted: As from ``allot_kinds``.
    """
    names = [*weights, *(name for name in draws if name not in weights)]
    result = Slots(np.full(allotted.shape, -1), np.full(allotted.shape, -1), names)
    heaviest = sorted(names, key=lambda name: -weights.get(name, 0))
    for slot in range(allotted.shape[1]):
        for number in range(len(weights)):
            waiting = np.flatnonzero(allotted[:, slot] == number)
            for name in [names[number], *(other for other in heaviest if other != names[number])]:
                if not len(waiting):
                    break
                drawn = draws[name](waiting, result.chosen[waiting])
                served = waiting[drawn >= 0]
                result.chosen[served, slot] = drawn[drawn >= 0]
                result.kinds[served, slot] = names.index(name)
                if name != names[number] and len(served):
                    result.replaced[names[number], name] += len(served)
                waiting = waiting[drawn < 0]
    return result
