"""A generator's answers on disk: read for what is done, then appended to, line by line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from cardioembed.records import Row, read_jsonl, write_jsonl


class AnswerLog:
    """``<folder>/<name>.jsonl`` and ``<folder>/<name>.failed.jsonl`` of one generator.

    A row belongs to this log's work if its prompt and model are the present ones; rows of others stay as they are.

    Args:
        folder: Made if it is not there.
        name, model, prompt: Of the generator; they stand in every row.
        key: The key of a row's id: ``sentence_id`` or ``unit``.

    Attributes:
        done: Ids that have an answer.

    Raises:
        UserError: A line other than a half-written last one is broken.
    """

    def __init__(self, folder: Path, *, name: str, model: str, prompt: str, key: str) -> None:
        self._stamp = {"model": model, "generator": name, "prompt": prompt}
        self._key = key
        self.path, self.failed_path = folder / f"{name}.jsonl", folder / f"{name}.failed.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.done = self._read_done()
        failed = _read(self.failed_path)
        self._attempts = {row[key]: row["attempt"] + 1 for row in failed if "attempt" in row and self._is_mine(row)}
        write_jsonl(self.failed_path, [row for row in failed if not self._is_open(row)])

    def _read_done(self) -> set[str]:
        rows = _read(self.path)
        found = Counter(self._answer_of(row) for row in rows)
        # A unit's pairs are written at once; where a crash left only some, the unit is asked for again.
        whole = [row for row in rows if found[self._answer_of(row)] >= row.get("pairs", 1)]
        if len(whole) < len(rows):
            write_jsonl(self.path, whole)
        return {row[self._key] for row in whole if self._is_mine(row)}

    def _answer_of(self, row: Row) -> tuple[str | None, str | None, str | None]:
        return row.get(self._key), row.get("prompt"), row.get("model")

    def _is_mine(self, row: Row) -> bool:
        return self._answer_of(row) == (row.get(self._key, ""), self._stamp["prompt"], self._stamp["model"])

    def _is_open(self, row: Row) -> bool:
        """Whether a failure is to be tried again; the refused pairs of a unit that has others are final."""
        return self._is_mine(row) and row[self._key] not in self.done

    def __enter__(self) -> AnswerLog:
        self._good = self.path.open("a", encoding="utf-8", newline="\n")
        self._bad = self.failed_path.open("a", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self._good.close()
        self._bad.close()

    def attempt(self, one: str) -> int:
        """How often an id has failed in earlier runs."""
        return self._attempts.get(one, 0)

    def write(self, one: str, rows: Iterable[Row], refused: Iterable[Row] = ()) -> None:
        """Puts an answer on disk: refused parts first, because the rows mark the id as done."""
        self._append(self._bad, one, refused)
        self._append(self._good, one, rows)

    def write_failure(self, one: str, row: Row, refused: Iterable[Row] = ()) -> None:
        """Puts a failure on disk; the next run asks again."""
        self._append(self._bad, one, [*refused, {**row, "attempt": self.attempt(one)}])

    def _append(self, stream: IO[str], one: str, rows: Iterable[Row]) -> None:
        lines = [json.dumps({self._key: one, **row, **self._stamp}, ensure_ascii=False) + "\n" for row in rows]
        if lines:
            stream.write("".join(lines))
            stream.flush()

    def rows(self, ids: set[str]) -> tuple[list[Row], list[Row]]:
        """Good and failed rows on disk of the given ids."""
        mine = [
            [row for row in _read(path) if self._is_mine(row) and row[self._key] in ids]
            for path in (self.path, self.failed_path)
        ]
        return mine[0], mine[1]


def _read(path: Path) -> list[Row]:
    """The rows of a file that may end in half a line, or not exist."""
    if not path.exists():
        return []
    cut_half_line(path)
    return read_jsonl(path)


def cut_half_line(path: Path) -> None:
    """Takes off a last line without its line end: a killed run wrote only a part of it."""
    if not path.exists():
        return
    with path.open("r+b") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)
