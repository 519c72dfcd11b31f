"""Groups to train, validation and test."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

SPLITS = ("train", "validation", "test")


def assign_splits(strata: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assigns every group to one split, each stratum in the same shares: test to within one group, the others two.

    Systematic sampling: the groups are shuffled within their stratum, the strata are laid end to end, and every
    1/share-th group is taken.

    Args:
        strata: The stratum (book) of each group.
        shares: Share of each of ``SPLITS``; they add up to 1.
        seed: Decides the shuffle.

    Returns:
        The split of each group.
    """
    rng = np.random.default_rng([seed, 85_10_5])
    members: dict[str, list[str]] = defaultdict(list)
    for group in sorted(strata):
        members[strata[group]].append(group)
    order: list[str] = []
    for stratum in sorted(members):
        order += [members[stratum][i] for i in rng.permutation(len(members[stratum]))]
    test = _every(len(order), shares["test"], rng.random())
    splits = {group: "test" for group, taken in zip(order, test, strict=True) if taken}
    rest = [group for group in order if group not in splits]
    validation = _every(len(rest), shares["validation"] / (1 - shares["test"]), rng.random())
    splits |= {group: "validation" if taken else "train" for group, taken in zip(rest, validation, strict=True)}
    return splits


def _every(count: int, share: float, offset: float) -> np.ndarray:
    """Evenly spaced picks: ``round(count * share)`` of them to within one."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    return np.diff(steps) > 0
