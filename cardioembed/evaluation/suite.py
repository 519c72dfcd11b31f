"""All evaluations of one model: encode, then the pure measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardioembed.embedder.encoder import Embedder
from cardioembed.evaluation.retrieval import PairRanks, rank_pairs, retrieval_estimates
from cardioembed.evaluation.sets import KINDS, TestSets
from cardioembed.evaluation.similarity import separation_estimates, sts_estimates
from cardioembed.evaluation.statistics import Estimate
from cardioembed.records import Row, normalise


@dataclass(frozen=True)
class Result:
    """Measures of one model by evaluation and metric, and what the figures are drawn from."""

    estimates: dict[str, dict[str, Estimate]]
    ranks: PairRanks
    concept_cosines: dict[str, np.ndarray]


def evaluate(embedder: Embedder, sets: TestSets, *, resamples: int, seed: int, progress: bool = False) -> Result:
    """Measures one model on all sets; the same seed makes two models' resamples comparable item by item."""
    anchors, positives = embedder.encode_pairs(
        [row["anchor"] for row in sets.pairs], [row["positive"] for row in sets.pairs], show_progress_bar=progress
    )
    groups = [row["group"] for row in sets.pairs]
    texts = [normalise(row["positive"]) for row in sets.pairs]
    ranks = rank_pairs(anchors, positives, groups, texts, [row["id"] for row in sets.pairs])
    estimates = {"paraphrase_retrieval": retrieval_estimates(ranks, groups, resamples=resamples, seed=seed)}
    cosines: dict[str, np.ndarray] = {}
    if sets.concepts:
        values = _cosines(embedder, sets.concepts, "text1", "text2")
        kinds = np.array([row["kind"] for row in sets.concepts])
        cosines = {kind: values[kinds == kind] for kind in KINDS}
        estimates["concept_separation"] = separation_estimates(cosines, resamples=resamples, seed=seed)
    for name, rows in sets.sts.items():
        values = _cosines(embedder, rows, "sentence1", "sentence2")
        scores = np.array([row["score"] for row in rows], float)
        estimates[f"sts_{name}"] = sts_estimates(values, scores, resamples=resamples, seed=seed)
    return Result(estimates, ranks, cosines)


def _cosines(embedder: Embedder, rows: list[Row], first: str, second: str) -> np.ndarray:
    """Cosine of each pair; both sides carry the prompt of documents, as neither asks for the other."""
    prompt = embedder.recipe.positive_prompt
    texts = [row[key] for key in (first, second) for row in rows]
    vectors = embedder.encode(texts, prompt_name=prompt)
    return (vectors[: len(rows)] * vectors[len(rows) :]).sum(1).astype(float)
