"""Semantic textual similarity: cosines against human scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.similarity import sts_estimates
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.base import Measured, check_texts, pair_cosines
from cardioembed.records import Row, read_jsonl

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder


@dataclass(frozen=True)
class TextSimilarity:
    """Agreement with human similarity scores; details: ``(cosines, scores)``."""

    rows: list[Row]
    name: str
    title: str
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        first, second = ([row[key] for row in self.rows] for key in ("sentence1", "sentence2"))
        cosines = pair_cosines(embedder, first, second)
        scores = np.array([row["score"] for row in self.rows], float)
        return Measured(sts_estimates(cosines, scores, sampling), details=(cosines, scores))


def load_sts(path: Path) -> list[Row]:
    """Reads sentence pairs with scores.

    Raises:
        UserError: A score that is not a number, a text that is none, or fewer than 3 pairs.
    """
    rows = read_jsonl(path, required=("sentence1", "sentence2", "score"))
    for number, row in enumerate(rows, 1):
        check_texts(path, number, row, ("sentence1", "sentence2"))
        if isinstance(row["score"], bool) or not isinstance(row["score"], (int, float)):
            raise UserError(f"{path}, row {number}: score {row['score']!r} is not a number")
    if len(rows) < 3 or len({row["score"] for row in rows}) < 2:
        raise UserError(
            f"{path}: a correlation needs at least 3 pairs and 2 different scores; it has {len(rows)} pairs"
        )
    return rows
