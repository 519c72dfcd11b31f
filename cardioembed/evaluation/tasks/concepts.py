"""Separation on concept pairs: similar, different and negated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.similarity import KINDS, separation_estimates
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.base import Measured, check_texts, pair_cosines
from cardioembed.records import Row, read_jsonl

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder


@dataclass(frozen=True)
class ConceptSeparation:
    """How much closer similar concepts lie than different and negated ones; details: the cosines by kind."""

    rows: list[Row]
    files: Sequence[Path] = ()
    name: str = "concept_separation"
    title: str = "Separation of concepts"

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        values = pair_cosines(embedder, [row["text1"] for row in self.rows], [row["text2"] for row in self.rows])
        kinds = np.array([row["kind"] for row in self.rows])
        cosines = {kind: values[kinds == kind] for kind in KINDS}
        return Measured(separation_estimates(cosines, sampling), details=cosines)


def load_concept_pairs(path: Path) -> list[Row]:
    """Reads concept pairs.

    Raises:
        UserError: An unknown kind, a text that is none, or a kind without two pairs.
    """
    rows = read_jsonl(path, required=("kind", "text1", "text2"))
    for number, row in enumerate(rows, 1):
        if row["kind"] not in KINDS:
            raise UserError(f"{path}, row {number}: kind {row['kind']!r} is unknown; allowed: {', '.join(KINDS)}")
        check_texts(path, number, row, ("text1", "text2"))
    counts = Counter(row["kind"] for row in rows)
    for kind in KINDS:
        if counts[kind] < 2:
            raise UserError(f"{path}: {counts[kind]} pairs of kind {kind!r}; at least 2 are needed")
    return rows
