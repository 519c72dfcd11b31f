"""Rows on disk: strict and tolerant JSONL reading, atomic writing, run manifests.

Files are written to a temporary name in the same folder and renamed, so a final name never holds half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from cardioembed.errors import UserError

Row = dict[str, Any]

# Begins with what it looks for, so that the search can leap: four times faster than with the lookbehind in front.
_NOT_IN_NUMBER = re.compile(r"[.,](?:(?!\d)|(?<!\d[.,]))")
_HYPHEN = re.compile(r"(?<=\w)-(?=[^\W\d])")
_COMPARISON = re.compile(r"\s*([<>≤≥=]+)\s*")
_SEPARATORS = re.compile(r"[^\w<>≤≥=+\-−±%/.,]+")
_ASCII_SEPARATORS = str.maketrans({c: " " for c in map(chr, range(128)) if _SEPARATORS.match(c)})

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "sentence-transformers",
    "numpy",
    "sentencex",
)


@dataclass(frozen=True)
class BadLine:
    """A line that is not a JSON object: where it stands, why, and its content as far as it can be shown."""

    line: int
    reason: str
    detail: str
    raw: str


def parse_jsonl(path: Path) -> Iterator[tuple[int, Row | BadLine]]:
    """Yields ``(line number, object or BadLine)``; a byte-order mark, Windows line ends and blank lines are fine.

    Raises:
        UserError: The file does not exist or cannot be opened.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield number, _parse_line(number, raw.rstrip(b"\r\n"))


def _parse_line(number: int, raw: bytes) -> Row | BadLine:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} is not UTF-8 (Latin-1?); convert the file: iconv -f latin1 -t utf-8 IN > OUT"
        return BadLine(number, "not_utf8", detail, raw.decode("latin-1"))
    try:
        row = json.loads(text)
        if "\\u" in text:  # an escape may be half of a surrogate pair, which no file can hold
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return BadLine(number, "broken_unicode", "half of a surrogate pair (\\ud8xx) in it; write the file again", text)
    except (ValueError, RecursionError) as error:
        return BadLine(number, "broken_json", f"{error}; one JSON object a line is expected", text)
    if not isinstance(row, dict):
        return BadLine(number, "not_an_object", f"a JSON {type(row).__name__}; one object a line is expected", text)
    return row


def read_jsonl(path: Path, required: Iterable[str] = (), texts: Iterable[str] = ()) -> list[Row]:
    """Reads a file that a stage wrote or that must be right as a whole.

    Args:
        path: The file.
        required: Keys that every row must have.
        texts: Keys that every row must have with a text as value.

    Raises:
        UserError: The first broken line, missing key or value of a wrong type, with file and line.
    """
    texts = tuple(texts)
    rows: list[Row] = []
    for number, row in parse_jsonl(path):
        if isinstance(row, BadLine):
            raise UserError(f"{path}, line {number}: {row.detail}")
        missing = [key for key in (*required, *texts) if key not in row]
        if missing:
            raise UserError(
                f"{path}, line {number}: key {missing[0]!r} is missing; found: {', '.join(row) or 'nothing'}"
            )
        wrong = [key for key in texts if not isinstance(row[key], str)]
        if wrong:
            raise UserError(f"{path}, line {number}: {wrong[0]!r} must be a text, it is {row[wrong[0]]!r}")
        rows.append(row)
    return rows


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``; the file written there is renamed to ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is noticed in a write, which does not know the file's name.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: Path) -> Iterator[IO[str]]:
    """Opens a temporary text file that takes the place of ``path`` if the block succeeds."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path`` that takes its place if the block succeeds."""
    path = path.resolve()  # "." has no name, and of a link the folder behind it is meant
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            previous = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, previous)
            os.replace(temporary, path)
            shutil.rmtree(previous)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows atomically; returns how many."""
    count = 0
    with atomic_open(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_json(path: Path, content: Any) -> None:
    """Writes one JSON document atomically. NaN and infinity are refused: they are not JSON."""
    with atomic_open(path) as stream:
        json.dump(content, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: Path) -> Any:
    """Reads one JSON document.

    Raises:
        UserError: Missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); re-run the stage that wrote it") from None


def sha256(path: Path) -> str:
    """Hash of a file's bytes, or of names and bytes of all files below a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file is not path:
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def normalise(text: str) -> str:
    """The form in which two texts count as the same: Unicode NFKC, case, punctuation and spacing folded.

    Comparison signs, decimal points, signs of numbers, per cent and slashes survive, so "<35 %" and ">35 %" differ.
    """
    ascii_only = text.isascii()
    folded = text.lower() if ascii_only else unicodedata.normalize("NFKC", text).casefold()
    folded = _NOT_IN_NUMBER.sub(" ", folded)
    if "-" in folded:
        folded = _HYPHEN.sub(" ", folded)
    if not ascii_only or "<" in folded or ">" in folded or "=" in folded:
        folded = _COMPARISON.sub(r" \1", folded)
    folded = folded.translate(_ASCII_SEPARATORS) if ascii_only else _SEPARATORS.sub(" ", folded)
    folded = " ".join(folded.split())
    return folded.replace(" %", "%") if "%" in folded else folded


def text_id(*parts: str) -> str:
    """A short, stable id of a text: the same on every machine and in every order of files."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
