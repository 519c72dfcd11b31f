"""Counterfactual accuracy: is a paraphrase closer than the same sentence with one clinical meaning changed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.perturbations import generator_of
from cardioembed.evaluation.statistics import Estimate, Sampling, item_estimates, numbered
from cardioembed.evaluation.tasks.base import Measured, check_texts
from cardioembed.evaluation.tasks.paraphrases import SMALLEST_SLICE
from cardioembed.lexicon import CATEGORIES
from cardioembed.records import Row, normalise, read_jsonl, text_id
from cardioembed.triplets.counterfactuals import choose_counterfactual, counterfactuals

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

TEXTS = ("anchor", "positive", "counterfactual")
# Texts that a model cannot tell apart (cut before they differ) may come out of two batches with different last digits.
ROUNDING = 1e-6
_CHANCE = {"accuracy": 1 / 2, "mean_margin": 0.0, "accuracy_from_positive": 1 / 2, "accuracy_both": 1 / 3}
_SLICED = ("accuracy", "mean_margin")


@dataclass(frozen=True)
class JudgedCounterfactuals:
    """What the report shows of counterfactuals.

    Attributes:
        rows: Rows of ``{"anchor", "positive", "counterfactual", "category"}``.
        margins: cos(anchor, positive) - cos(anchor, counterfactual), shape (n,), float64.
    """

    rows: list[Row]
    margins: np.ndarray


@dataclass(frozen=True)
class CounterfactualAccuracy:
    """How often meaning outweighs wording; estimates as in ``counterfactual_items``, sliced by category.

    All three texts carry the prompt of documents, as none of them asks for another.

    Attributes:
        rows: Rows of ``{"anchor", "positive", "counterfactual", "category"}``; rows of one ``group`` are resampled
            together.
    """

    rows: list[Row]
    name: str
    title: str
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        anchors, positives, changed = _encoded(embedder, self.rows)
        items = counterfactual_items(*(
            (one * other).sum(1).astype(float)
            for one, other in ((anchors, positives), (anchors, changed), (positives, changed))
        ))  # fmt: skip
        clusters = _clusters(self.rows)
        estimates = item_estimates(items, sampling, clusters=clusters, chance=_CHANCE)
        slices = _slices(self.rows, items, clusters, sampling)
        return Measured(estimates, slices, JudgedCounterfactuals(self.rows, items["mean_margin"]))


def counterfactual_items(
    anchor_positive: np.ndarray, anchor_counterfactual: np.ndarray, positive_counterfactual: np.ndarray
) -> dict[str, np.ndarray]:
    """Per-row values whose means are the metrics; ties, within the rounding of float32, are failures.

    ``accuracy``: the positive is closer to the anchor than the counterfactual is. ``accuracy_from_positive``: the
    anchor is closer to the positive than the counterfactual is, which differs in wording from the positive as much as
    the anchor does. ``accuracy_both``: both, so the true pair is the closest of the three. ``mean_margin``: of the
    cosines of ``accuracy``.

    Args:
        anchor_positive: Cosines of the pairs, shape (n,).
        anchor_counterfactual, positive_counterfactual: Likewise.
    """
    margins = anchor_positive - anchor_counterfactual
    from_anchor = margins > ROUNDING
    from_positive = anchor_positive - positive_counterfactual > ROUNDING
    return {
        "accuracy": from_anchor.astype(float),
        "mean_margin": margins,
        "accuracy_from_positive": from_positive.astype(float),
        "accuracy_both": (from_anchor & from_positive).astype(float),
    }


def _encoded(embedder: Embedder, rows: list[Row]) -> list[np.ndarray]:
    """Vectors of anchors, positives and counterfactuals, each (n, d); a text that stands in many rows runs once."""
    place: dict[str, int] = {}
    columns = [[place.setdefault(row[key], len(place)) for row in rows] for key in TEXTS]
    vectors = embedder.encode(list(place), prompt_name=embedder.recipe.positive_prompt)
    return [vectors[column] for column in columns]


def _clusters(rows: list[Row]) -> np.ndarray:
    return numbered([f"row {i}" if row.get("group") is None else f"group {row['group']}" for i, row in enumerate(rows)])


def _slices(
    rows: list[Row], items: dict[str, np.ndarray], clusters: np.ndarray, sampling: Sampling
) -> dict[str, dict[str, Estimate]]:
    """The main metrics by category; categories of fewer than 10 rows are left out."""
    slices = {}
    for category in CATEGORIES:
        members = np.array([row["category"] == category for row in rows])
        if members.sum() >= SMALLEST_SLICE:
            own = {name: items[name][members] for name in _SLICED}
            # Without the clusters of other categories, which would be drawn as empty ones.
            present = np.unique(clusters[members], return_inverse=True)[1]
            slices[f"category={category}"] = item_estimates(own, sampling, clusters=present, chance=_CHANCE)
    return slices


def counterfactuals_of_pairs(pairs: list[Row], seed: int) -> list[Row]:
    """One rule-made counterfactual of each anchor that has one.

    A pair's draw depends on the seed, its id and its anchor, not on the pairs around it.

    Args:
        pairs: Rows of ``{"id", "group", "anchor", "positive"}``.
        seed: Decides which edit is taken where there are several.

    Returns:
        Rows of ``{"id", "group", "anchor", "positive", "counterfactual", "category", "edit"}``.
    """
    rows = []
    for pair in pairs:
        own = {normalise(pair["anchor"]), normalise(pair["positive"])}
        candidates = [edit for edit in counterfactuals(pair["anchor"]) if normalise(edit.text) not in own]
        if candidates:
            edit = choose_counterfactual(candidates, generator_of(seed, str(pair["id"]), pair["anchor"]))
            kept = {key: pair[key] for key in ("id", "group", "anchor", "positive")}
            rows.append({**kept, "counterfactual": edit.text, "category": edit.category, "edit": edit.edit})
    return rows


def load_counterfactuals(path: Path) -> list[Row]:
    """Reads written counterfactuals; rows without an id get one of their texts.

    Raises:
        UserError: A text that is none, an unknown category, an unchanged counterfactual, or fewer than 2 rows.
    """
    rows = read_jsonl(path, required=(*TEXTS, "category"))
    for number, row in enumerate(rows, 1):
        check_texts(path, number, row, TEXTS)
        if row["category"] not in CATEGORIES:
            raise UserError(
                f"{path}, row {number}: category {row['category']!r} is unknown; allowed: {', '.join(CATEGORIES)}"
            )
        for key in ("anchor", "positive"):
            if row["counterfactual"].strip() == row[key].strip():
                raise UserError(
                    f"{path}, row {number}: counterfactual and {key} are the same text, {row[key]!r}; change one "
                    "meaning in it, or remove the row"
                )
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} rows; at least 2 counterfactuals are needed")
    return [{**row, "id": str(row.get("id") or text_id(*(row[key] for key in TEXTS)))} for row in rows]
