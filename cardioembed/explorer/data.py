"""The texts that are shown as points, with what they can be coloured by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardioembed.errors import UserError
from cardioembed.explorer.run_files import needed
from cardioembed.records import Row, read_jsonl, text_id

PAIRS, SENTENCES, LABELLED = "test pairs", "all sentences", "own texts"
SEED = 42
LIMITS = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
DEFAULT_LIMIT = 5_000
NO_VALUE = "(none)"
OWN_WORDS = "the book's own words"  # in the place of a paraphraser


@dataclass(frozen=True)
class Texts:
    """Texts that are shown, no text twice, in the order of their file.

    Attributes:
        texts: The texts.
        groups: Id of the statement that each makes; a sentence and its paraphrases share one.
        columns: What points can be coloured by: a value for each text, by name.
        available: How many there were before sampling.
    """

    texts: list[str]
    groups: list[str]
    columns: dict[str, list[str]]
    available: int

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """Differs between any two lists of texts."""
        return text_id(*self.texts)


def choices(run_dir: Path, own: Path | None) -> list[str]:
    """What can be shown, the best first: own texts, then what the run has."""
    files = {PAIRS: run_dir / "02_training_test.jsonl", SENTENCES: run_dir / "01_sentences.jsonl"}
    present = [name for name, path in files.items() if path.is_file()]
    return [LABELLED, *present] if own else present or [PAIRS]


def load_texts(choice: str, run_dir: Path, own: Path | None, limit: int) -> Texts:
    """Reads the chosen texts; more than ``limit`` are sampled with the fixed seed ``SEED``.

    Args:
        choice: ``PAIRS``, ``SENTENCES`` or ``LABELLED``.
        run_dir: The run.
        own: The file of ``LABELLED``.
        limit: Most texts.

    Raises:
        UserError: The file is missing, has a broken row, or has no text.
    """
    if choice == LABELLED and own:
        path, rows = own, _labelled_rows(own)
    elif choice == SENTENCES:
        path = needed(run_dir, "01_sentences.jsonl")
        rows = [_sentence(row) for row in read_jsonl(path, ("id",), ("text",))]
    else:
        path = needed(run_dir, "02_training_test.jsonl")
        rows = _pair_rows(read_jsonl(path, texts=("anchor", "positive", "group")))
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["text"], row)
    unique = list(first.values())
    if len(unique) < 3:
        raise UserError(f"{path} has {len(unique)} different texts; a map needs at least 3")
    shown = [unique[place] for place in sample(len(unique), limit)]
    names = [name for name in shown[0] if name not in ("text", "group")]
    columns = {name: [row[name] for row in shown] for name in names}
    return Texts([row["text"] for row in shown], [row["group"] for row in shown], columns, len(unique))


def sample(count: int, limit: int) -> list[int]:
    """Places of at most ``limit`` of ``count`` things, drawn with the fixed seed, in ascending order."""
    if count <= limit:
        return list(range(count))
    return sorted(np.random.default_rng(SEED).choice(count, limit, replace=False).tolist())


def _labelled_rows(path: Path) -> list[Row]:
    rows = read_jsonl(path, texts=("label", "text"))
    for number, row in enumerate(rows, 1):
        if not row["text"].strip():
            raise UserError(f"{path}, row {number} (id {row.get('id')!r}): 'text' is empty; leave the row out")
    # Texts of one label are not one statement, so each is a statement of its own.
    return [{"text": row["text"], "group": str(number), "label": row["label"]} for number, row in enumerate(rows)]


def _sentence(row: Row) -> Row:
    return {"text": row["text"], "group": str(row["id"]), "book": _value(row, "source")}


def _pair_rows(rows: list[Row]) -> list[Row]:
    flat = []
    for row in rows:
        shared = {"group": row["group"], "book": _value(row, "source")}
        flat.append({"text": row["anchor"], **shared, "paraphraser": OWN_WORDS})
        flat.append({"text": row["positive"], **shared, "paraphraser": _value(row, "model")})
    return flat


def _value(row: Row, key: str) -> str:
    return str(row.get(key) or NO_VALUE)
