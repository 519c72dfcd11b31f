"""Bootstrap confidence intervals over the real items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

_BLOCK = 256


def cluster_weights(clusters: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each resample, shape (resamples, clusters), uint16."""
    count = int(clusters.max()) + 1
    rng = np.random.default_rng(seed)
    draws = [rng.multinomial(count, np.full(count, 1 / count), size=min(_BLOCK, resamples - start))
             for start in range(0, resamples, _BLOCK)]  # fmt: skip
    return np.concatenate(draws).astype(np.uint16)


def bootstrap_means(values: np.ndarray, *, resamples: int, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """Means of resampled items; whole clusters are drawn, as paraphrases of one sentence are not independent.

    The same seed draws the same items, so columns (metrics, or a model beside another) are resampled together.

    Args:
        values: Shape (n, m): m measures of n items.
        resamples: Number of resamples.
        seed: Decides the draws.
        clusters: Cluster number of each item, 0 up; None makes every item its own cluster.

    Returns:
        Shape (resamples, m).
    """
    clusters = np.arange(len(values)) if clusters is None else clusters
    sums = np.zeros((int(clusters.max()) + 1, values.shape[1]))
    np.add.at(sums, clusters, values)
    sizes = np.bincount(clusters).astype(float)
    weights = cluster_weights(clusters, resamples, seed)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, _BLOCK):
        block = weights[start : start + _BLOCK].astype(float)
        means[start : start + _BLOCK] = (block @ sums) / (block @ sizes)[:, None]
    return means


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, *, resamples: int, seed: int
) -> np.ndarray:
    """Values of a statistic that is not a mean, on resampled items.

    Args:
        statistic: Takes item indices, shape (block, count), returns shape (block, m).
        count: Number of items.
        resamples, seed: As ``bootstrap_means``.

    Returns:
        Shape (resamples, m).
    """
    rng = np.random.default_rng(seed)
    blocks = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    return np.concatenate([statistic(rng.integers(0, count, (block, count))) for block in blocks])


@dataclass(frozen=True)
class Sampling:
    """How items are resampled: the same for all models, so that they are compared on the same draws.

    Attributes:
        resamples: Number of bootstrap resamples.
        seed: Decides the draws.
    """

    resamples: int
    seed: int


@dataclass(frozen=True)
class Estimate:
    """A measured value with its bootstrap resamples.

    Attributes:
        value: The measure on the real items.
        resamples: The measure on resampled items, shape (resamples,).
        n: Number of items.
        chance: What no skill at all would score; None where that has no meaning.
        better: Which way is an improvement; None for neither.
        items: Values of the items, shape (n,), of a measure that is their mean; None for others.
        clusters: Cluster number of each item; None makes every item its own.
    """

    value: float
    resamples: np.ndarray
    n: int
    chance: float | None = None
    better: Literal["higher", "lower"] | None = "higher"
    items: np.ndarray | None = None
    clusters: np.ndarray | None = None

    def minus(self, other: Estimate) -> Estimate:
        """The difference to an estimate on the same items with the same seed: resampled in pairs."""
        items = None if self.items is None or other.items is None else self.items - other.items
        return Estimate(
            self.value - other.value, self.resamples - other.resamples, self.n, None, self.better, items, self.clusters
        )

    def interval(self) -> tuple[float, float]:
        """The 95 % interval: the 2.5 and 97.5 percentile of the resamples."""
        low, high = np.quantile(self.resamples, [0.025, 0.975])
        return float(low), float(high)

    def summary(self) -> dict[str, Any]:
        """``{"value", "ci95", "n", "better", "chance"}``, JSON-ready; without a chance level where there is none."""
        summary = {"value": float(self.value), "ci95": list(self.interval()), "n": self.n, "better": self.better}
        return summary if self.chance is None else {**summary, "chance": self.chance}


def item_estimates(
    items: dict[str, np.ndarray],
    sampling: Sampling,
    *,
    clusters: np.ndarray | None = None,
    chance: dict[str, float] | None = None,
    better: dict[str, Literal["higher", "lower"] | None] | None = None,
) -> dict[str, Estimate]:
    """Estimates of means of items, all resampled together.

    Args:
        items: Values of the items by metric, each of shape (n,).
        sampling: See ``Sampling``.
        clusters: Cluster number of each item, 0 up; whole clusters are drawn.
        chance, better: By metric, see ``Estimate``.
    """
    columns = np.stack([np.asarray(values, float) for values in items.values()], axis=1)
    means = bootstrap_means(columns, resamples=sampling.resamples, seed=sampling.seed, clusters=clusters)
    chance, better = chance or {}, better or {}
    return {
        name: Estimate(
            float(columns[:, i].mean()), means[:, i], len(columns), chance.get(name), better.get(name, "higher"),
            columns[:, i], clusters,
        )
        for i, name in enumerate(items)
    }  # fmt: skip


def numbered(names: Sequence[str]) -> np.ndarray:
    """Equal names get equal numbers, 0 up, shape (n,)."""
    return np.unique(np.array(names), return_inverse=True)[1]
