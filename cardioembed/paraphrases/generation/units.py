"""What a generator of passages reads: notes, or the books' sections, cut to a length that one request can hold."""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cardioembed.corpus.segmentation import split_sentences
from cardioembed.errors import UserError
from cardioembed.records import Row, normalise, read_jsonl, text_id


@dataclass(frozen=True)
class Unit:
    """A text that one request is about.

    Attributes:
        id: A hash of the text.
        text: What the generator reads.
        source, section: The note's name, or the book and its section.
        sentence_ids: Ids of its sentences, as in ``01_sentences.jsonl``.
    """

    id: str
    text: str
    source: str
    section: str
    sentence_ids: tuple[str, ...]


def units_of_books(sentences: Iterable[Row], max_words: int) -> list[Unit]:
    """Consecutive sentences of one section, in parts of about equal length and at most ``max_words``.

    Args:
        sentences: Rows of ``01_sentences.jsonl``.
        max_words: Longest unit; a single longer sentence is a unit of its own.
    """
    units = []
    for (source, section), rows in itertools.groupby(sentences, key=lambda row: (row["source"], row["section"])):
        for part in _parts([(row["text"] + " ", row["id"]) for row in rows], max_words):
            units.append(_unit("".join(text for text, _ in part), source, section, [one for _, one in part]))
    return _once(units)


def units_of_notes(places: Iterable[str], max_words: int) -> list[Unit]:
    """Notes, cut at sentences where they are longer than ``max_words``; their line breaks stay.

    Args:
        places: Files, folders or globs of .txt and .md (a note a file) and .jsonl (``{"text"}`` a line, optional
            ``source`` and ``section``).

    Raises:
        UserError: A place names no such file, or a file cannot be read.
    """
    units = []
    for file in _note_files(places):
        for text, source, section in _notes_in(file):
            pieces = [(piece, text_id(normalise(piece))) for piece in _pieces(text)]
            for part in _parts(pieces, max_words):
                ids = [one for piece, one in part if any(map(str.isalpha, piece))]
                units.append(_unit("".join(piece for piece, _ in part), source, section, ids))
    if not units:
        raise UserError("merge.passages.notes: the notes hold no text; [] takes the books' sections instead")
    return _once(units)


def _note_files(places: Iterable[str]) -> list[Path]:
    files: dict[Path, None] = {}
    for place in places:
        path = Path(place)
        found = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else _glob(place)
        found = [file for file in found if file.is_file() and file.suffix.lower() in (".txt", ".md", ".jsonl")]
        if not found:
            raise UserError(
                f"merge.passages.notes: no .txt, .md or .jsonl file matches {place}; [] takes the books' sections"
            )
        files.update(dict.fromkeys(found))
    return list(files)


def _glob(place: str) -> list[Path]:
    return sorted(map(Path, glob.glob(place, recursive=True)))


def _notes_in(file: Path) -> Iterator[tuple[str, str, str]]:
    """Text, source and section of every note of a file."""
    if file.suffix.lower() == ".jsonl":
        for row in read_jsonl(file, texts=("text",)):
            source, section = row.get("source"), row.get("section")
            yield (
                row["text"],
                source if isinstance(source, str) else file.stem,
                section if isinstance(section, str) else "",
            )
        return
    try:
        yield file.read_text(encoding="utf-8-sig"), file.stem, ""
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8; convert it: iconv -f latin1 -t utf-8 IN > OUT") from None


def _pieces(text: str) -> Iterator[str]:
    """Sentences with the white space behind them, line breaks kept."""
    for line in text.strip().splitlines():
        sentences = split_sentences(line)
        yield from (f"{sentence} " for sentence in sentences[:-1])
        yield f"{sentences[-1]}\n" if sentences else "\n"


def _parts(pieces: list[tuple[str, str]], max_words: int) -> Iterator[list[tuple[str, str]]]:
    """Cuts pieces into as few parts as needed, of about equal length, so that no short rest is left."""
    total = sum(len(text.split()) for text, _ in pieces)
    target = total / max(1, math.ceil(total / max_words))
    part, words = [], 0
    for piece in pieces:
        size = len(piece[0].split())
        if part and (words + size > max_words or words >= target):
            yield part
            part, words = [], 0
        part.append(piece)
        words += size
    if words:
        yield part


def _unit(text: str, source: str, section: str, ids: list[str]) -> Unit:
    text = text.strip()
    return Unit(text_id("unit", normalise(text)), text, source, section, tuple(ids))


def _once(units: list[Unit]) -> list[Unit]:
    first: dict[str, Unit] = {}
    for unit in units:
        first.setdefault(unit.id, unit)
    return list(first.values())
