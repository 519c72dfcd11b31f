"""Tests between models, on the values of real items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cardioembed.evaluation.statistics import Sampling

# Up to so many items all patterns of signs are tried: 4,096 at most.
_EXACT = 12
# Signs that are held at a time: 16 MiB as float64.
_CELLS = 2**21


def permutation_p_value(differences: np.ndarray, clusters: np.ndarray | None, sampling: Sampling) -> float:
    """Two-sided sign-flip test of a mean difference on the same items.

    If two models were alike, each item could as well have had its difference the other way round. Whole clusters flip
    together, as paraphrases of one sentence are not independent. Items (or clusters) without a difference decide
    nothing; with 12 others or fewer all flips are tried, else ``sampling.resamples`` random ones, where p is
    (b + 1) / (m + 1) and so never 0 (Phipson and Smyth 2010).

    Args:
        differences: Value of one model minus that of the other, shape (n,).
        clusters: Cluster number of each item, 0 up; None makes every item its own.
        sampling: Number of random flips and their seed.

    Returns:
        The p value; 1 when no item differs.

    Raises:
        ValueError: A difference is NaN or infinite.
    """
    if not np.isfinite(differences).all():
        raise ValueError(f"{np.sum(~np.isfinite(differences))} differences are not finite; there is no test of them")
    sums = np.asarray(differences, float) if clusters is None else np.bincount(clusters, weights=differences)
    sums = sums[sums != 0]
    # Sums that are equal on paper may round differently.
    limit = abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
    if len(sums) <= _EXACT:
        flips = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float((_flipped(sums, flips) >= limit).mean())
    rng = np.random.default_rng(sampling.seed)
    block, width, reached = max(1, _CELLS // len(sums)), math.ceil(len(sums) / 8), 0
    for start in range(0, sampling.resamples, block):
        rows = min(block, sampling.resamples - start)
        noise = np.frombuffer(rng.bytes(rows * width), np.uint8).reshape(rows, width)
        reached += int((_flipped(sums, np.unpackbits(noise, axis=1, count=len(sums))) >= limit).sum())
    return (reached + 1) / (sampling.resamples + 1)


def _flipped(sums: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Size of the total when the sums that are marked 1 change their sign, shape (rows,)."""
    return np.abs(sums.sum() - 2 * (flips @ sums))


def bootstrap_p_value(resamples: np.ndarray) -> float:
    """Two-sided p value of a difference from its paired bootstrap: twice the share of resamples beyond zero.

    Under 0.05 when the 95 % percentile interval leaves out zero; with (b + 1) / (m + 1), so never 0.

    Args:
        resamples: The difference on resampled items, shape (m,).
    """
    smaller = min((resamples <= 0).sum(), (resamples >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(resamples) + 1)))


@dataclass(frozen=True)
class WelchTest:
    """A contrast of group means; without any spread, or with a group of one, there is no test.

    Attributes:
        difference: The contrast.
        standard_error: Of the contrast; None in a group of one.
        t: Difference by standard error; None without a test.
        df: Degrees of freedom; None without a test.
        p_value: Two-sided; None without a test.
    """

    difference: float
    standard_error: float | None
    t: float | None
    df: float | None
    p_value: float | None


def welch_contrast(plus: Sequence[np.ndarray], minus: Sequence[np.ndarray]) -> WelchTest:
    """Tests sum of the ``plus`` means - sum of the ``minus`` means against 0, for groups of unequal variance.

    With one group on each side it is Welch's t test; the degrees of freedom are Welch-Satterthwaite's over all groups.

    Args:
        plus, minus: Values of each group, shape (n of the group,).
    """
    from scipy.stats import t as student  # takes a second to import; stage 04 checks its input before

    groups = [*plus, *minus]
    difference = _contrast(plus, minus)
    if min(map(len, groups)) < 2:
        return WelchTest(difference, None, None, None, None)
    shares = np.array([_variance(group) / len(group) for group in groups])
    error = float(np.sqrt(shares.sum()))
    if error == 0:
        return WelchTest(difference, 0.0, None, None, None)
    # The variances are scaled by their sum, as squares of very small ones would be 0.
    df = float(1 / ((shares / shares.sum()) ** 2 / [len(group) - 1 for group in groups]).sum())
    statistic = difference / error
    return WelchTest(difference, error, statistic, df, float(2 * student.sf(abs(statistic), df)))


def cohens_d(plus: Sequence[np.ndarray], minus: Sequence[np.ndarray]) -> float | None:
    """Sum of the ``plus`` means - sum of the ``minus`` means, in units of the pooled SD of all groups.

    With one group on each side it is Cohen's d.

    Args:
        plus, minus: As ``welch_contrast``.

    Returns:
        None when the groups have no spread.
    """
    groups = [*plus, *minus]
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((len(group) - 1) * _variance(group) for group in groups if len(group) > 1)
    return _contrast(plus, minus) / math.sqrt(squares / freedom) if squares else None


def _contrast(plus: Sequence[np.ndarray], minus: Sequence[np.ndarray]) -> float:
    return float(sum(np.mean(group) for group in plus) - sum(np.mean(group) for group in minus))


def _variance(values: np.ndarray) -> float:
    """Sample variance; 0 for equal values, where rounding would leave a little."""
    return float(np.var(values, ddof=1)) if np.ptp(values) else 0.0


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm-Bonferroni adjusted p values: compared with alpha, they keep the chance of any false alarm under it.

    Args:
        p_values: Shape (m,).

    Returns:
        Shape (m,), in the order given.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1)


def separation_tests(cosines: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Whether models differ in separation, for all pairs of models: Welch t, Holm-Bonferroni, Cohen's d.

    Separation is the mean cosine of similar pairs minus that of different pairs. The comparison study drew synthetic
    normals from means and SDs; these are the cosines of the real pairs. The test takes the two models' cosines as
    independent, which is cautious, as both come from the same pairs.

    Args:
        cosines: By model and kind of pair, each of shape (pairs of the kind,).

    Returns:
        A row for each pair of models, JSON-ready: ``{"models": [a, b], "difference", "t", "df", "p_value", "p_holm",
        "cohens_d", "power_note"}``, difference being that of a minus b. Where there is no test (see ``WelchTest``)
        t, df and p values are None, and the correction counts the row as one that found nothing.
    """
    rows = [_separation_row(one, other, cosines[one], cosines[other]) for one, other in combinations(cosines, 2)]
    adjusted = holm([1.0 if row["p_value"] is None else row["p_value"] for row in rows])
    for row, p_holm in zip(rows, adjusted.tolist(), strict=True):
        row["p_holm"] = None if row["p_value"] is None else p_holm
    return rows


def _separation_row(name: str, other_name: str, one: dict, other: dict) -> dict[str, Any]:
    plus, minus = [one["similar"], other["different"]], [one["different"], other["similar"]]
    test = welch_contrast(plus, minus)
    pairs = len(one["similar"]) + len(one["different"])
    note = None if test.standard_error is None else power_note(test.difference, pairs, test.standard_error)
    return {
        "models": [name, other_name], "difference": test.difference, "t": test.t, "df": test.df,
        "p_value": test.p_value, "p_holm": None, "cohens_d": cohens_d(plus, minus), "power_note": note,
    }  # fmt: skip


def correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Pearson correlation with its t test and its 95 % interval by Fisher's z.

    Args:
        x, y: Shape (n,).

    Returns:
        ``{"r", "n", "p_value", "ci95"}``, JSON-ready; None for what is undefined: everything with fewer than three
        points or a constant side, the interval with fewer than four points.
    """
    from scipy.stats import pearsonr

    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return {"r": None, "n": len(x), "p_value": None, "ci95": None}
    result = pearsonr(x, y)
    ci95 = [float(limit) for limit in result.confidence_interval(0.95)] if len(x) > 3 else None
    return {"r": float(result.statistic), "n": len(x), "p_value": float(result.pvalue), "ci95": ci95}


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true mean difference that a two-sided t test on n items finds with the given power.

    To find it with the wrong sign, which such a difference makes all but impossible, does not count.

    Args:
        sd: Standard deviation of the items' differences.
        n: Number of items.
        power: Chance to find the difference.
        alpha: Level of the test.

    Returns:
        In the unit of ``sd``; infinite for fewer than two items.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi, nct, norm
    from scipy.stats import t as student

    if n < 2:
        return math.inf
    df = n - 1
    critical = student.isf(alpha / 2, df)

    def shortfall(noncentrality: float) -> float:
        return nct.sf(critical, df, noncentrality) - power

    # A bound: half of the misses that are allowed may come from an unlucky mean, half from an unlucky spread.
    luck = (1 + power) / 2
    enough = critical * chi.ppf(luck, df) / math.sqrt(df) + norm.ppf(luck)
    return float(brentq(shortfall, 0, enough, xtol=1e-10)) * sd / math.sqrt(n)


def power_note(difference: float, n: int, standard_error: float) -> str | None:
    """A sentence for readers when n is too small for a difference of this size; None when it is large enough.

    Args:
        difference: The difference seen.
        n: Number of items.
        standard_error: Of the difference; the SD of its bootstrap resamples will do.
    """
    from scipy.stats import t as student

    if n < 2:
        return f"n = {n}: too few to find any difference; the {_short(difference)} seen may be noise"
    detectable = smallest_detectable(standard_error * math.sqrt(n), n)
    if abs(difference) >= detectable:
        return None
    noise = abs(difference) < student.isf(0.025, n - 1) * standard_error
    return (
        f"n = {n}: only differences of {_short(detectable)} or more would be found with 80 % power; "
        f"the {_short(difference)} seen may be {'noise' if noise else 'larger than the true one'}"
    )


def _short(value: float) -> str:
    """Two digits that count, never as 1e-05."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")
