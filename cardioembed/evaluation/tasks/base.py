"""What every task has in common. Nothing here imports torch: sets are checked before a model loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Estimate, Sampling
from cardioembed.records import Row

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder


@dataclass(frozen=True)
class Measured:
    """One model on one task.

    Attributes:
        estimates: By metric.
        slices: The main metrics on parts of the items, by part: ``{"source=imaging": {"accuracy@1": ...}}``.
        details: What figures and lists of errors are made from.
    """

    estimates: dict[str, Estimate]
    slices: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    details: Any = None


class Task(Protocol):
    """A test set and how a model is measured on it.

    Attributes:
        name: Its key in ``metrics.json``.
        title: Its heading in the report.
        files: What it was read from.
    """

    name: str
    title: str
    files: Sequence[Path]

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """Encodes and measures; the same sampling makes two models comparable item by item."""


def check_texts(path: Path, number: int, row: Row, keys: Sequence[str]) -> None:
    """Raises UserError unless each key of a row holds a text."""
    for key in keys:
        if not isinstance(row[key], str) or not row[key].strip():
            raise UserError(f"{path}, row {number}: {key} is {row[key]!r}, a text is needed")


def pair_cosines(embedder: Embedder, first: list[str], second: list[str]) -> np.ndarray:
    """Cosine of each pair of texts, shape (n,), float64.

    Both sides carry the prompt of documents, as neither asks for the other.
    """
    vectors = embedder.encode(first + second, prompt_name=embedder.recipe.positive_prompt)
    return (vectors[: len(first)] * vectors[len(first) :]).sum(1).astype(float)


def unique_names(paths: Sequence[str], key: str) -> dict[str, Path]:
    """Files or folders by their name without ending, under which results are reported.

    Raises:
        UserError: Two have the same name.
    """
    named: dict[str, Path] = {}
    for place in map(Path, paths):
        if place.stem in named:
            raise UserError(
                f"{key}: {named[place.stem]} and {place} are both named {place.stem!r}, under which results are "
                "reported; rename one"
            )
        named[place.stem] = place
    return named
