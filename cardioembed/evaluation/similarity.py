"""Separation on concept pairs, and agreement with human similarity scores (STS)."""

from __future__ import annotations

import numpy as np

from cardioembed.evaluation.statistics import Estimate, Sampling, bootstrap_statistic, item_estimates

# Kinds of concept pairs, as in the comparison study.
KINDS = ("similar", "different", "negation")
# The comparison paper's tiers of separation, and the line that it calls clinically useful.
HIGH, USEFUL, MODERATE = 0.45, 0.3, 0.25


def separation_estimates(cosines: dict[str, np.ndarray], sampling: Sampling) -> dict[str, Estimate]:
    """Separation of similar from different concepts, and from negated ones.

    ``separation = mean cosine of similar pairs - mean cosine of different pairs``; ``negation_gap`` puts the negated
    pairs in the place of the different ones. Chance is 0 for both: a model that sees no difference.

    Args:
        cosines: Cosine of each pair, by kind (all of ``KINDS``).
        sampling: Of the bootstrap; each kind is resampled within itself.
    """
    better = {"similar": None, "different": "lower", "negation": "lower"}
    means = {
        kind: item_estimates(
            {kind: cosines[kind]}, Sampling(sampling.resamples, sampling.seed + number), better={kind: better[kind]}
        )[kind]
        for number, kind in enumerate(KINDS)
    }
    estimates = {f"{kind}_similarity": estimate for kind, estimate in means.items()}
    for name, other in (("separation", "different"), ("negation_gap", "negation")):
        difference = means["similar"].resamples - means[other].resamples
        n = means["similar"].n + means[other].n
        estimates[name] = Estimate(means["similar"].value - means[other].value, difference, n, chance=0.0)
    return estimates


def tier(separation: float) -> str:
    """``high`` (0.45 up), ``moderate`` (0.25 up) or ``low``."""
    return "high" if separation >= HIGH else "moderate" if separation >= MODERATE else "low"


def sts_estimates(cosines: np.ndarray, scores: np.ndarray, sampling: Sampling) -> dict[str, Estimate]:
    """Spearman and Pearson correlation of cosines with human scores; chance is 0.

    Args:
        cosines: Shape (n,).
        scores: Shape (n,).
        sampling: Of the bootstrap over pairs.
    """
    from scipy.stats import rankdata, spearmanr  # takes a second to import; stage 04 checks its input before

    def correlations(draws: np.ndarray) -> np.ndarray:
        x, y = cosines[draws], scores[draws]
        return np.stack([_pearson(rankdata(x, axis=1), rankdata(y, axis=1)), _pearson(x, y)], axis=1)

    samples = bootstrap_statistic(correlations, len(scores), resamples=sampling.resamples, seed=sampling.seed)
    values = (float(spearmanr(cosines, scores).statistic), float(np.corrcoef(cosines, scores)[0, 1]))
    return {
        name: Estimate(value, samples[:, i], len(scores), chance=0.0)
        for i, (name, value) in enumerate(zip(("spearman_cosine", "pearson_cosine"), values, strict=True))
    }


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row-wise correlation; a resample without variance counts as no correlation."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), scale, out=np.zeros(len(x)), where=scale > 0)
