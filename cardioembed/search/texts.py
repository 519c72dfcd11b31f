"""Texts to search in: JSONL, CSV, plain text files and lists become rows ``{"id", "text", "metadata"}``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cardioembed.errors import UserError
from cardioembed.records import BadLine, Row, parse_jsonl, text_id

SUFFIXES = (".jsonl", ".csv", ".txt")
_LONGEST_CELL = 1 << 27  # characters; the csv module's own limit is 131,072
Placed = tuple[str, Row]  # where a row stands, for messages, and the row


def read_texts(paths: Iterable[Path], *, text_key: str = "text", id_key: str = "id") -> Iterator[Placed]:
    """Reads files of texts, by suffix: ``.jsonl`` and ``.csv`` with keys or columns, ``.txt`` with one text a line.

    Args:
        paths: The files.
        text_key: Key or column of the text.
        id_key: Key or column of the id, which may be missing; all others become metadata.

    Yields:
        ``(file and line, {"id", "text", "metadata"})``; see ``make_row`` for the id.

    Raises:
        UserError: A file of another kind, one that cannot be read, or a row that is not right, with file and line.
    """
    readers = dict(zip(SUFFIXES, (_read_jsonl, _read_csv, _read_plain), strict=True))
    paths = list(paths)
    for path in paths:
        if path.suffix not in readers:
            raise UserError(f"{path}: texts are read from files named {', '.join(SUFFIXES)}; convert or rename it")
        if not path.is_file():
            raise UserError(f"{path} is not a file; give files of texts ({', '.join(SUFFIXES)})")
    for path in paths:
        for where, content in readers[path.suffix](path):
            if text_key not in content and path.suffix != ".txt":
                found = ", ".join(map(str, content)) or "nothing"
                raise UserError(f"{where}: there is no {text_key!r}; found: {found}. Name the text's key (--text-key)")
            text = content.pop("text" if path.suffix == ".txt" else text_key)
            row_id = content.pop(id_key, None)
            if path.suffix == ".csv" and not row_id:
                row_id = None  # an empty cell is no id
            yield where, make_row(where, text, row_id, content)


def list_texts(texts: Iterable[str | Row]) -> Iterator[Placed]:
    """Texts given in Python: strings, or dicts with ``text``, perhaps ``id``, and metadata.

    Raises:
        UserError: Something is neither, with its place.
    """
    if isinstance(texts, (str, bytes, dict)):
        raise UserError(f"texts must be a list of texts or of dicts, it is one {type(texts).__name__}")
    for place, item in enumerate(texts):
        where = f"texts[{place}]"
        if isinstance(item, dict):
            if "text" not in item:
                raise UserError(f"{where} has no key 'text'; found: {', '.join(map(str, item)) or 'nothing'}")
            metadata = {key: value for key, value in item.items() if key not in ("id", "text")}
            yield where, make_row(where, item["text"], item.get("id"), metadata)
        else:
            yield where, make_row(where, item, None, {})


def make_row(where: str, text: Any, row_id: Any, metadata: dict[str, Any]) -> Row:
    """A row of an index.

    Without an id it gets one that follows from text and metadata, so that the same row has the same id everywhere.

    Raises:
        UserError: The text is empty or none, the id is neither text nor whole number, or metadata are not JSON.
    """
    if not isinstance(text, str):
        raise UserError(f"{where}: the text is a {type(text).__name__}, not a text; mend or remove it")
    if not text.strip():
        raise UserError(f"{where}: the text is empty; remove it")
    try:
        form = json.dumps(metadata, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (text + form).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: half of a surrogate pair in it, which no file can hold; write it again") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: the metadata are not JSON ({error}); give texts, numbers, lists, null") from None
    if row_id is None:
        row_id = text_id(text, form) if metadata else text_id(text)
    elif isinstance(row_id, bool) or not isinstance(row_id, (str, int)) or row_id == "":
        raise UserError(f"{where}: id {row_id!r} is neither a text nor a whole number; mend it, or leave ids out")
    # As it will be read from the file: a tuple is a list there, and a number as a key is a text.
    return {"id": str(row_id), "text": text, "metadata": json.loads(form)}


def distinct(placed: Iterable[Placed]) -> tuple[list[Row], int]:
    """Rows without exact repetitions, and how many of these there were.

    Raises:
        UserError: Two different rows have one id.
    """
    rows: dict[str, Row] = {}
    places: dict[str, str] = {}
    repeated = 0
    for where, row in placed:
        if (known := rows.setdefault(row["id"], row)) is row:
            places[row["id"]] = where
        elif known == row:
            repeated += 1
        else:
            raise UserError(
                f"{where}: id {row['id']!r} is the id of another row already ({places[row['id']]}); give each row an "
                "id of its own, or none"
            )
    return list(rows.values()), repeated


def _read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    for number, row in parse_jsonl(path):
        if isinstance(row, BadLine):
            raise UserError(f"{path}, line {number}: {row.detail}")
        yield f"{path}, line {number}", row


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if None in cells or None in cells.values():
                    columns = len(reader.fieldnames or ())
                    raise UserError(f"{where}: not the {columns} cells of the header; quote texts that hold a comma")
                yield where, cells
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_not_utf8(error)}") from None
    except csv.Error as error:
        raise UserError(
            f"{path}, after line {reader.line_num}: {error}; commas and quotes as RFC 4180 has them"
        ) from None
    finally:
        csv.field_size_limit(before)


def _read_plain(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{path}, line {number}", {"text": line.strip()}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_not_utf8(error)}") from None


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"it is not UTF-8 ({error.reason}); convert it: iconv -f latin1 -t utf-8 IN > OUT"
