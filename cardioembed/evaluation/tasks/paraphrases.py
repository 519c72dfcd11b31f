"""Paraphrase retrieval: on the test split, and on pairs from outside the training books (generalisation)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.retrieval import PairRanks, rank_pairs, retrieval_estimates
from cardioembed.evaluation.statistics import Estimate, Sampling
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.records import Row, normalise, read_jsonl, text_id

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

SMALLEST_SLICE = 10
_LENGTHS = (12, 20, 30)  # words: upper bounds of the first slices
_SLICED = ("accuracy@1", "mrr")


@dataclass(frozen=True)
class RankedPairs:
    """What the report shows of paraphrase retrieval: the pairs, and all texts that competed."""

    rows: list[Row]
    documents: list[Row]
    ranks: PairRanks


@dataclass(frozen=True)
class ParaphraseRetrieval:
    """Does an anchor find its own paraphrase among all, and the paraphrase its anchor?

    Attributes:
        rows: Rows of ``{"id", "group", "anchor", "positive"}``, and ``source`` and ``model`` where they are known.
        distractors: Rows whose positives compete as well.
    """

    rows: list[Row]
    distractors: Sequence[Row] = ()
    name: str = "paraphrase_retrieval"
    title: str = "Paraphrase retrieval on the test split"
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        documents = [*self.rows, *self.distractors]
        anchors, positives = embedder.encode_pairs(
            [row["anchor"] for row in self.rows], [row["positive"] for row in documents], show_progress_bar=True
        )
        ranks = _ranked(anchors, positives, documents, "positive")
        groups = [row["group"] for row in self.rows]
        estimates = retrieval_estimates(ranks, groups, sampling)
        reverse = _ranked(positives[: len(self.rows)], anchors, self.rows, "anchor")
        back = retrieval_estimates(reverse, groups, sampling)
        estimates |= {f"reverse_{name}": back[name] for name in _SLICED}
        slices = {name: retrieval_slice(ranks, groups, members, sampling) for name, members in _slices(self.rows)}
        return Measured(estimates, slices, RankedPairs(self.rows, documents, ranks))


def _ranked(queries: np.ndarray, vectors: np.ndarray, documents: list[Row], side: str) -> PairRanks:
    texts = [normalise(row[side]) for row in documents]
    return rank_pairs(queries, vectors, [r["group"] for r in documents], texts, [r["id"] for r in documents])


def retrieval_slice(
    ranks: PairRanks, groups: list[str], members: np.ndarray, sampling: Sampling
) -> dict[str, Estimate]:
    """The main metrics of some rows, ranked among all."""
    part = PairRanks(*(getattr(ranks, field)[members] for field in PairRanks.__dataclass_fields__))
    estimates = retrieval_estimates(part, [groups[i] for i in members], sampling)
    return {name: estimates[name] for name in _SLICED}


def _slices(rows: list[Row]) -> Iterator[tuple[str, np.ndarray]]:
    """Rows by book, paraphraser and length of the anchor; parts of fewer than 10 rows are left out."""
    labels = [
        ("source", [row.get("source") for row in rows]),
        ("model", [row.get("model") for row in rows]),
        ("length", [_length_label(row["anchor"]) for row in rows]),
    ]
    for key, values in labels:
        for value in dict.fromkeys(sorted(filter(None, values), key=str)):
            members = np.array([i for i, own in enumerate(values) if own == value])
            if SMALLEST_SLICE <= len(members) < len(rows):
                yield f"{key}={value}", members


def _length_label(text: str) -> str:
    words, lower = len(text.split()), 1
    for upper in _LENGTHS:
        if words <= upper:
            return f"{lower:02d}-{upper} words"
        lower = upper + 1
    return f"{lower} words or more"


def load_pairs(path: Path) -> list[Row]:
    """Pairs from outside: triplet rows, ``{"anchor", "positive"}``, or ``{"original", "paraphrase"}``.

    Rows without a group are grouped by their anchor.

    Raises:
        UserError: A row without the texts, or fewer than 2 groups.
    """
    rows = []
    for number, row in enumerate(read_jsonl(path), 1):
        anchor = row.get("anchor", row.get("original", row.get("sentence")))
        positive = row.get("positive", row.get("paraphrase", row.get("paraphrased")))
        if not (isinstance(anchor, str) and isinstance(positive, str) and anchor.strip() and positive.strip()):
            raise UserError(
                f'{path}, row {number}: a pair has the texts "anchor" and "positive" (or "original" and "paraphrase"); '
                f"this row has {', '.join(map(str, row)) or 'nothing'}"
            )
        group = str(row.get("group") or text_id(normalise(anchor)))
        key = str(row.get("id") or text_id(anchor, positive))
        rows.append({**row, "id": key, "group": group, "anchor": anchor, "positive": positive})
    if len({row["group"] for row in rows}) < 2:
        raise UserError(f"{path}: retrieval needs pairs of at least 2 different anchors; it has {len(rows)} rows")
    return rows
