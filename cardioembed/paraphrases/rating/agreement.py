"""Agreement of two raters on a scale of 1 to 4, and mean scores, with bootstrap intervals over pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix

LEVELS = (1, 2, 3, 4)

# Scores of rater 1 and of rater 2 by pair; None: not rated. Both hold the same pairs.
Scores = tuple[dict[str, int | None], dict[str, int | None]]


def compare(
    scores: Scores, key: dict[str, dict[str, Any]] | None, *, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Agreement on the pairs that both rated, and mean scores of all rated pairs.

    Args:
        scores: Of both raters, 1 to 4.
        key: ``{id: {"generator", "verdict"}}``; None leaves out the means by generator and verdict.
        resamples: Bootstrap resamples.
        rng: Decides them.

    Returns:
        ``{"n", "unrated", "agreement", "kappa_linear", "kappa_quadratic", "confusion", "notes", "means"}``. Values are
        ``{"value", "ci95", "n"}``, without an interval (None) for n = 1; one that cannot be had is None, and a note
        says why. ``confusion`` has rater 1 in rows and rater 2 in columns.
    """
    first, second = scores
    both = [(first[i], second[i]) for i in first if first[i] and second[i]]
    confusion = np.zeros((len(LEVELS), len(LEVELS)), int)
    if both:
        confusion = confusion_matrix(*zip(*both, strict=True), labels=LEVELS)
    rated = {i: [score for score in (first[i], second[i]) if score] for i in first if first[i] or second[i]}
    return {
        "n": len(both),
        "unrated": {f"rater_{number}": sum(not score for score in s.values()) for number, s in enumerate(scores, 1)},
        **_agreement(confusion, resamples, rng),
        "confusion": confusion.tolist(),
        "notes": _notes(scores, confusion),
        "means": _means({i: float(np.mean(given)) for i, given in rated.items()}, key, resamples, rng),
    }


def weighted_kappa(confusion: np.ndarray, weights: str = "quadratic") -> float | None:
    """Cohen's weighted kappa (Psychological Bulletin 70, 1968) of a table of counts.

    Args:
        confusion: Counts, rater 1 in rows and rater 2 in columns, shape (4, 4).
        weights: ``linear`` or ``quadratic`` in the difference of the scores.

    Returns:
        -1 to 1; None where both raters gave all pairs the same score, which leaves no disagreement to expect.
    """
    if np.count_nonzero(confusion) == 1 and np.trace(confusion):
        return None
    first, second = np.indices(confusion.shape).reshape(2, -1) + 1
    return cohen_kappa_score(first, second, labels=LEVELS, weights=weights, sample_weight=confusion.ravel())


def _agreement(confusion: np.ndarray, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    statistics: dict[str, Callable[[np.ndarray], float | None]] = {
        "agreement": lambda table: float(np.trace(table) / table.sum()),
        "kappa_linear": lambda table: weighted_kappa(table, "linear"),
        "kappa_quadratic": weighted_kappa,
    }
    n = int(confusion.sum())
    if not n:
        return dict.fromkeys(statistics)
    # To draw pairs with replacement is to draw cells of the table.
    drawn = rng.multinomial(n, confusion.ravel() / n, size=resamples).reshape(-1, *confusion.shape)
    result: dict[str, Any] = {}
    for name, statistic in statistics.items():
        value = statistic(confusion)
        # A resample without variance has no kappa.
        values = [found for found in map(statistic, drawn) if found is not None]
        result[name] = value if value is None else _estimate(value, np.array(values), n)
    return result


def _estimate(value: float, resampled: np.ndarray, n: int) -> dict[str, Any]:
    # One pair, resampled, is always itself: that is not certainty.
    ci95 = np.quantile(resampled, [0.025, 0.975]).tolist() if n > 1 else None
    return {"value": float(value), "ci95": ci95, "n": n}


def _notes(scores: Scores, confusion: np.ndarray) -> list[str]:
    """In words, why a value is missing or says less than it seems."""
    if silent := [str(number) for number, column in enumerate(scores, 1) if not any(column.values())]:
        return [f"rater {' and '.join(silent)} gave no scores: there is no agreement to measure"]
    if not confusion.any():
        return ["no pair was rated by both: there is no agreement to measure"]
    levels = [np.flatnonzero(confusion.sum(axis)) + 1 for axis in (1, 0)]
    if len(levels[0]) == len(levels[1]) == 1 and levels[0] == levels[1]:
        return [f"both raters gave every pair {levels[0][0]}: without variance kappa is undefined"]
    return [
        f"rater {number} gave every pair {found[0]}: kappa is 0 whatever the other rater gave"
        for number, found in enumerate(levels, 1)
        if len(found) == 1
    ]


def _means(
    scores: dict[str, float], key: dict[str, dict[str, Any]] | None, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Means of all pairs; or of kept ones, also by generator, and of refused ones, also by reason."""
    groups: dict[str, list[float]] = {}
    for name, score in scores.items():
        for label in _labels(key[name]) if key else ("all",):
            groups.setdefault(label, []).append(score)
    return {label: _mean(np.array(groups[label]), resamples, rng) for label in sorted(groups)}


def _labels(entry: dict[str, Any]) -> tuple[str, str]:
    # Refused pairs are drawn apart, so they do not count in their generator's mean.
    if entry["verdict"] == "kept":
        return "kept", f"kept, {entry['generator']}"
    return "rejected", entry["verdict"]


def _mean(values: np.ndarray, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    return _estimate(values.mean(), rng.choice(values, (resamples, len(values))).mean(axis=1), len(values))
