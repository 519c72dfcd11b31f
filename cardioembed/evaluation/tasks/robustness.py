"""Robustness: how far paraphrase retrieval falls when anchors are written otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.evaluation.perturbations import generator_of, perturbed
from cardioembed.evaluation.retrieval import PairRanks, rank_pairs, retrieval_estimates, retrieval_items
from cardioembed.evaluation.statistics import Estimate, Sampling, item_estimates, numbered
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.evaluation.tasks.paraphrases import SMALLEST_SLICE
from cardioembed.records import Row, normalise

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

MOST_ANCHORS = 300
_SLICED = ("accuracy@1", "mrr")


@dataclass(frozen=True)
class Robustness:
    """How far accuracy@1 falls with each perturbation of the anchors, against the same anchors as they are.

    Each perturbation is measured on the anchors that it changes; one that changes fewer than 10 is left out. At most
    ``MOST_ANCHORS`` anchors, drawn by seed, are perturbed; the positives of all pairs compete. Slices have the measures
    of the perturbed anchors, and ``fall_mrr``.

    Attributes:
        pairs: Rows of ``{"id", "group", "anchor", "positive"}``.
        seed: Decides the anchors and their typos.
    """

    pairs: list[Row]
    seed: int
    name: str = "robustness"
    title: str = "Robustness of paraphrase retrieval"
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        chosen = draw_anchors(self.pairs, self.seed)
        anchors = [self.pairs[i]["anchor"] for i in chosen]
        edits = changed_anchors(anchors, self.seed)
        texts = anchors + [text for found in edits.values() for text in found.values()]
        queries, documents = embedder.encode_pairs(texts, [row["positive"] for row in self.pairs])
        plain = retrieval_items(self._ranked(queries[: len(chosen)], documents, chosen))
        estimates: dict[str, Estimate] = {}
        slices: dict[str, dict[str, Estimate]] = {}
        start = len(chosen)
        for name, found in edits.items():
            places = list(found)
            ranks = self._ranked(queries[start : start + len(places)], documents, chosen[places])
            start += len(places)
            before = {metric: plain[metric][places] for metric in _SLICED}
            groups = [self.pairs[i]["group"] for i in chosen[places]]
            falls = fall_estimates(before, ranks, groups, sampling)
            estimates[f"fall_accuracy@1_{name}"] = falls["fall_accuracy@1"]
            after = retrieval_estimates(ranks, groups, sampling)
            own = {metric: after[metric] for metric in _SLICED}
            slices[f"perturbation={name}"] = {**own, "fall_mrr": falls["fall_mrr"]}
        return Measured(estimates, slices)

    def _ranked(self, queries: np.ndarray, documents: np.ndarray, members: np.ndarray) -> PairRanks:
        """Ranks of some pairs' positives among those of all pairs."""
        order = np.concatenate([members, np.setdiff1d(np.arange(len(self.pairs)), members)])
        rows = [self.pairs[i] for i in order]
        texts = [normalise(row["positive"]) for row in rows]
        return rank_pairs(queries, documents[order], [r["group"] for r in rows], texts, [r["id"] for r in rows])


def draw_anchors(pairs: list[Row], seed: int) -> np.ndarray:
    """Numbers of the pairs whose anchors are perturbed, shape (at most ``MOST_ANCHORS``,), whatever their order."""
    keys = [generator_of(seed, str(row["id"]), row["anchor"]).random() for row in pairs]
    return np.argsort(keys, kind="stable")[:MOST_ANCHORS]


def changed_anchors(anchors: list[str], seed: int) -> dict[str, dict[int, str]]:
    """By perturbation: place -> text of the anchors that it changes; one that changes too few is left out."""
    found: dict[str, dict[int, str]] = {}
    for place, anchor in enumerate(anchors):
        for name, text in perturbed(anchor, seed).items():
            if text.split() not in ([], anchor.split()):
                found.setdefault(name, {})[place] = text
    return {name: texts for name, texts in found.items() if len(texts) >= SMALLEST_SLICE}


def fall_estimates(
    before: dict[str, np.ndarray], ranks: PairRanks, groups: list[str], sampling: Sampling
) -> dict[str, Estimate]:
    """``fall_<metric>``: the mean difference on the same items; lower is better.

    Args:
        before: Values of the items as they are, by metric, each of shape (n,).
        ranks: Of the perturbed anchors.
        groups: Of the items.
        sampling: Of the bootstrap; whole groups are drawn.
    """
    after = retrieval_items(ranks)
    falls = {f"fall_{metric}": values - after[metric] for metric, values in before.items()}
    return item_estimates(falls, sampling, clusters=numbered(groups), better=dict.fromkeys(falls, "lower"))
