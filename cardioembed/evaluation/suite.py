"""All evaluations of one model: encode, then the pure measures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cardioembed.embedder.encoder import Embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.retrieval import PairRanks, rank_pairs, retrieval_estimates
from cardioembed.evaluation.similarity import KINDS, separation_estimates, sts_estimates
from cardioembed.evaluation.statistics import Estimate
from cardioembed.records import Row, normalise, read_jsonl


@dataclass(frozen=True)
class TestSets:
    """What models are measured on.

    Attributes:
        pairs: Triplet rows of the test split.
        concepts: Rows of ``{"kind", "text1", "text2"}``, empty for none.
        sts: Rows of ``{"sentence1", "sentence2", "score"}`` by name.
    """

    __test__ = False  # not a test class, whatever its name begins with

    pairs: list[Row]
    concepts: list[Row] = field(default_factory=list)
    sts: dict[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Measures of one model by evaluation and metric, and what the figures are drawn from."""

    estimates: dict[str, dict[str, Estimate]]
    ranks: PairRanks
    concept_cosines: dict[str, np.ndarray]


def load_concept_pairs(path: Path) -> list[Row]:
    """Reads concept pairs.

    Raises:
        UserError: An unknown kind, a text that is none, or a kind without two pairs.
    """
    rows = read_jsonl(path, required=("kind", "text1", "text2"))
    for number, row in enumerate(rows, 1):
        if row["kind"] not in KINDS:
            raise UserError(f"{path}, row {number}: kind {row['kind']!r} is unknown; allowed: {', '.join(KINDS)}")
        _check_texts(path, number, row, ("text1", "text2"))
    counts = Counter(row["kind"] for row in rows)
    for kind in KINDS:
        if counts[kind] < 2:
            raise UserError(f"{path}: {counts[kind]} pairs of kind {kind!r}; at least 2 are needed")
    return rows


def load_sts(path: Path) -> list[Row]:
    """Reads sentence pairs with scores.

    Raises:
        UserError: A score that is not a number, a text that is none, or fewer than 3 pairs.
    """
    rows = read_jsonl(path, required=("sentence1", "sentence2", "score"))
    for number, row in enumerate(rows, 1):
        _check_texts(path, number, row, ("sentence1", "sentence2"))
        if isinstance(row["score"], bool) or not isinstance(row["score"], (int, float)):
            raise UserError(f"{path}, row {number}: score {row['score']!r} is not a number")
    if len(rows) < 3 or len({row["score"] for row in rows}) < 2:
        raise UserError(
            f"{path}: a correlation needs at least 3 pairs and 2 different scores; it has {len(rows)} pairs"
        )
    return rows


def _check_texts(path: Path, number: int, row: Row, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(row[key], str) or not row[key].strip():
            raise UserError(f"{path}, row {number}: {key} is {row[key]!r}, a text is needed")


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
