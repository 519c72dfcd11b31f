"""Books on disk to pages of raw text."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path

import pypdfium2 as pdfium

from cardioembed.errors import UserError

SUFFIXES = (".md", ".txt", ".pdf")


def find_books(places: list[str]) -> list[Path]:
    """Book files below folders, or named by paths and globs, sorted, each once.

    Raises:
        UserError: A place does not exist or holds no book.
    """
    books: set[Path] = set()
    for place in places:
        found = _books_at(place)
        if not found:
            raise UserError(
                f"merge.books: {place} {'holds no book' if glob.glob(place) else 'does not exist'}. "
                f"Give a folder, a file or a glob of {', '.join(SUFFIXES)} files, "
                "for example --set merge.books=data/sample/books"
            )
        books.update(found)
    if not books:
        raise UserError("merge.books is empty; give at least one folder, file or glob")
    return sorted(books)


def _books_at(place: str) -> list[Path]:
    paths = [Path(place)] if Path(place).exists() else [Path(p) for p in glob.glob(place, recursive=True)]
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return [f for f in files if f.is_file() and f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]


def name_books(books: list[Path]) -> dict[Path, str]:
    """A name for each book: its file name without ending, with as much of its folders as it takes to be unique."""
    names = {book: book.stem for book in books}
    for depth in range(1, max((len(book.parts) for book in books), default=0) + 1):
        shared = {name for name, count in Counter(names.values()).items() if count > 1}
        if not shared:
            break
        for book, name in names.items():
            if name in shared:
                names[book] = "/".join([*book.parent.parts[-depth:], book.name if depth > 1 else book.stem])
    return names


def read_pages(book: Path) -> list[str]:
    """The pages of one book as raw text; a .md or .txt file is one page unless form feeds divide it.

    Raises:
        UserError: The file cannot be read, or holds no text at all.
    """
    pages = _read_pdf(book) if book.suffix.lower() == ".pdf" else _read_text(book).split("\f")
    if not any(page.strip() for page in pages):
        scanned = " (scanned pages? run an OCR tool over it first)" if book.suffix.lower() == ".pdf" else ""
        raise UserError(f"{book} holds no text{scanned}; mend it or leave it out of merge.books")
    return pages


def _read_text(book: Path) -> str:
    raw = book.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{book}, line {line}: not UTF-8 text (Latin-1?). Convert it: iconv -f latin1 -t utf-8 {book} > new.txt"
        ) from None


def _read_pdf(book: Path) -> list[str]:
    try:
        document = pdfium.PdfDocument(book)
    except pdfium.PdfiumError as error:
        locked = "password" in str(error).lower()
        advice = "save a copy without the password" if locked else "it may be cut short; download or export it again"
        raise UserError(
            f"{book} cannot be opened as a PDF ({error}): {advice}, or leave it out of merge.books"
        ) from None
    try:
        return [_page_text(document, number) for number in range(len(document))]
    except pdfium.PdfiumError as error:
        raise UserError(f"{book}: a page cannot be read ({error}); export the PDF again or leave it out") from None
    finally:
        document.close()


def _page_text(document: pdfium.PdfDocument, number: int) -> str:
    page = document[number]
    text_page = page.get_textpage()
    # PDFium marks a hyphen at a line end with U+FFFE or U+0002: a soft hyphen in all but name.
    text = text_page.get_text_range().replace("\ufffe", "-\n").replace("\x02", "-\n")
    text_page.close()
    page.close()
    return text.replace("\r\n", "\n").replace("\r", "\n")
