"""Text files of any size to pages, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cardioembed.errors import UserError

PAGE_CHARACTERS = 1_000_000
_CHUNK = 1 << 18
_BLANK_LINES = re.compile(r"\n[ \t]*\n")


def text_pages(book: Path) -> Iterator[str]:
    """The pages of a UTF-8 text file; a byte-order mark and all kinds of line ends are fine.

    Raises:
        UserError: Not UTF-8; names the line.
    """
    return divide(_chunks(book))


def divide(chunks: Iterable[str]) -> Iterator[str]:
    """Divides a text into pages: at form feeds, and where none comes for a long while, between paragraphs.

    Args:
        chunks: The text, piece by piece, its line ends "\\n".

    Yields:
        Pages without their form feeds, of ``PAGE_CHARACTERS`` characters and one chunk at most.
    """
    rest = ""
    for chunk in chunks:
        *pages, rest = (rest + chunk).split("\f")
        yield from pages
        if len(rest) > PAGE_CHARACTERS:
            border = _border(rest)
            yield rest[:border]
            rest = rest[border:]
    yield rest


def _border(text: str) -> int:
    """Where a long text is cut with the least harm: after a paragraph, else a line, else a sentence, else a word."""
    paragraph = max((match.end() for match in _BLANK_LINES.finditer(text)), default=0)
    return paragraph or text.rfind("\n") + 1 or text.rfind(". ") + 1 or text.rfind(" ") + 1 or len(text)


def _chunks(book: Path) -> Iterator[str]:
    try:
        with book.open(encoding="utf-8-sig") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except UnicodeDecodeError:
        raise UserError(
            f"{book}, line {_first_bad_line(book)}: not UTF-8 text (Latin-1?). "
            f"Convert it: iconv -f latin1 -t utf-8 {book} > new.txt"
        ) from None


def _first_bad_line(book: Path) -> int:
    with book.open("rb") as stream:
        return next((number for number, line in enumerate(stream, 1) if not _is_utf8(line)), 1)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
