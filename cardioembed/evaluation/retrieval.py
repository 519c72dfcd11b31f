"""Paraphrase retrieval: does an anchor find its own paraphrase among all?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardioembed.evaluation.statistics import Estimate, Sampling, item_estimates, numbered

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
    anchors: np.ndarray, documents: np.ndarray, groups: list[str], texts: list[str], ids: list[str]
) -> PairRanks:
    """Ranks document i for anchor i among all documents by cosine; documents without an anchor only compete.

    Other documents of the row's own group are right answers too, so they neither win nor lose; texts equal to the own
    one are the same document. Equal scores are ordered by id.

    Args:
        anchors: Unit vectors, shape (n, d).
        documents: Unit vectors, shape (n or more, d); the first n are the anchors' own.
        groups: Group of each document.
        texts: Normalised text of each document.
        ids: Id of each document.
    """
    anchors, documents = np.asarray(anchors, np.float32), np.asarray(documents, np.float32)
    group, text = numbered(groups), numbered(texts)
    order = np.argsort(np.argsort(np.array(ids), kind="stable"), kind="stable")
    # A text that several documents share competes once, as the one with the smallest id.
    first: dict[int, int] = {}
    for row in np.argsort(order):
        first.setdefault(text[row], row)
    unique = np.zeros(len(texts), bool)
    unique[list(first.values())] = True
    # Where groups share a text, it is a right answer for each of them, whichever document stands for it.
    pairs = np.unique(np.stack([text, group]), axis=1)
    shared = [(first[t], pairs[1, pairs[0] == t]) for t in np.flatnonzero(np.bincount(pairs[0]) > 1)]
    n = len(anchors)
    ranks, candidates, rival = np.empty(n, int), np.empty(n, int), np.empty(n, int)
    similarity, chance = np.empty(n, np.float32), np.empty(n, np.float32)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        scores = anchors[rows] @ documents.T
        own = np.einsum("nd,nd->n", anchors[rows], documents[rows])
        # The product of two matrices may round differently from the row's own product.
        scores[np.arange(len(own)), rows] = own
        competes = unique & (group[rows, None] != group[None, :]) & (text[rows, None] != text[None, :])
        for document, owners in shared:
            competes[np.isin(group[rows], owners), document] = False
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


def retrieval_estimates(result: PairRanks, groups: list[str], sampling: Sampling) -> dict[str, Estimate]:
    """The metrics with bootstrap resamples; whole groups are drawn, and the SD of the true pairs' cosine is added."""
    items = retrieval_items(result)
    squares = {**items, "_square": items["mean_similarity"] ** 2}
    estimates = item_estimates(
        squares, sampling, clusters=numbered(groups), chance=retrieval_chance(result), better={"mean_similarity": None}
    )
    square, mean = estimates.pop("_square").resamples, estimates["mean_similarity"].resamples
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    value = float(items["mean_similarity"].std())
    return {**estimates, "sd_similarity": Estimate(value, spread, len(result.ranks), better=None)}


def retrieval_chance(result: PairRanks, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """What a random order of each row's candidates would give in the mean."""
    chance = {f"accuracy@{k}": float(np.minimum(1, k / result.candidates).mean()) for k in ks}
    harmonic = np.cumsum(1 / np.arange(1, result.candidates.max() + 1))
    chance["mrr"] = float((harmonic[result.candidates - 1] / result.candidates).mean())
    chance["mean_similarity"] = float(result.chance_similarity.mean())
    return chance
