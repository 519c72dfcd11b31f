"""Paraphrase retrieval: does an anchor find its own paraphrase among all?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardioembed.evaluation.statistics import Estimate, bootstrap_means

_BLOCK = 1024


@dataclass(frozen=True)
class PairRanks:
    """Result of ranking all positives for every anchor.

    Attributes:
        ranks: Rank of the row's own positive, 1 is best, shape (n,).
        candidates: How many texts competed in that row, its own positive included, shape (n,).
        similarity: Cosine of the true pair, shape (n,).
        chance_similarity: Mean cosine of the anchor with its competitors: what a random text would score, shape (n,).
        rival: Row of the competitor most like the anchor, shape (n,).
    """

    ranks: np.ndarray
    candidates: np.ndarray
    similarity: np.ndarray
    chance_similarity: np.ndarray
    rival: np.ndarray


def rank_pairs(
    anchors: np.ndarray, positives: np.ndarray, groups: list[str], texts: list[str], ids: list[str]
) -> PairRanks:
    """Ranks row i's positive among all positives by cosine with anchor i.

    Other positives of the row's own group are right answers too, so they neither win nor lose; texts equal to the own
    positive are the same document. Equal scores are ordered by id.

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        groups: Group of each row.
        texts: Normalised text of each positive.
        ids: Id of each row.
    """
    anchors, positives = np.asarray(anchors, np.float32), np.asarray(positives, np.float32)
    group, text = _numbers(groups), _numbers(texts)
    order = np.argsort(np.argsort(np.array(ids), kind="stable"), kind="stable")
    # A text that several rows share competes once, as the document with the smallest id.
    first = {}
    for row in np.argsort(order):
        first.setdefault(text[row], row)
    unique = np.zeros(len(texts), bool)
    unique[list(first.values())] = True
    ranks, candidates = np.empty(len(ids), int), np.empty(len(ids), int)
    similarity, chance = np.empty(len(ids), np.float32), np.empty(len(ids), np.float32)
    rival = np.empty(len(ids), int)
    for start in range(0, len(ids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scores = anchors[rows] @ positives.T
        own = np.einsum("nd,nd->n", anchors[rows], positives[rows])
        # The product of two matrices may round differently from the row's own product.
        scores[np.arange(len(own)), np.arange(start, start + len(own))] = own
        competes = unique & (group[rows, None] != group[None, :]) & (text[rows, None] != text[None, :])
        ahead = (scores > own[:, None]) | ((scores == own[:, None]) & (order[None, :] < order[rows, None]))
        ranks[rows] = 1 + (ahead & competes).sum(1)
        candidates[rows] = 1 + competes.sum(1)
        similarity[rows] = own
        chance[rows] = (scores * competes).sum(1) / np.maximum(competes.sum(1), 1)
        rival[rows] = np.where(competes, scores, -np.inf).argmax(1)
    return PairRanks(ranks, candidates, similarity, chance, rival)


def retrieval_items(result: PairRanks, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """Per-row values whose means are the metrics: accuracy@k, mrr, mean_similarity."""
    items = {f"accuracy@{k}": (result.ranks <= k).astype(float) for k in ks}
    return {**items, "mrr": 1.0 / result.ranks, "mean_similarity": result.similarity.astype(float)}


def retrieval_estimates(result: PairRanks, groups: list[str], *, resamples: int, seed: int) -> dict[str, Estimate]:
    """The metrics with bootstrap resamples; whole groups are drawn, and the SD of the true pairs' cosine is added."""
    items = retrieval_items(result)
    columns = np.stack([*items.values(), items["mean_similarity"] ** 2], axis=1)
    means = bootstrap_means(columns, resamples=resamples, seed=seed, clusters=_numbers(groups))
    chance = retrieval_chance(result)
    n = len(result.ranks)
    estimates = {
        name: Estimate(float(values.mean()), means[:, i], n, chance[name])
        for i, (name, values) in enumerate(items.items())
    }
    mean = means[:, list(items).index("mean_similarity")]
    spread = np.sqrt(np.maximum(means[:, -1] - mean**2, 0))
    estimates["sd_similarity"] = Estimate(float(items["mean_similarity"].std()), spread, n)
    return estimates


def retrieval_chance(result: PairRanks, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """What a random order of each row's candidates would give in the mean."""
    chance = {f"accuracy@{k}": float(np.minimum(1, k / result.candidates).mean()) for k in ks}
    harmonic = np.cumsum(1 / np.arange(1, result.candidates.max() + 1))
    chance["mrr"] = float((harmonic[result.candidates - 1] / result.candidates).mean())
    chance["mean_similarity"] = float(result.chance_similarity.mean())
    return chance


def _numbers(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]
