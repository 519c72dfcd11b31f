"""What models are measured on: the test split and hand-made sets, checked when they are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cardioembed.errors import UserError
from cardioembed.records import Row, read_jsonl

# Kinds of concept pairs, as in the comparison study.
KINDS = ("similar", "different", "negation")


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
