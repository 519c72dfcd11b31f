"""Books on disk to pages of raw text."""

from __future__ import annotations

import glob
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from cardioembed.corpus.html import html_text
from cardioembed.corpus.ocr import Recogniser
from cardioembed.corpus.pages import Page
from cardioembed.corpus.pdf import PdfText, extract_pages
from cardioembed.corpus.text import divide, text_pages
from cardioembed.errors import UserError

SUFFIXES = (".md", ".txt", ".pdf", ".html", ".htm")


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


def read_pages(book: Path, recognise: Recogniser | None, *, min_page_characters: int, num_proc: int) -> Iterator[Page]:
    """The pages of one book, read as they are asked for.

    Args:
        book: A file of ``find_books``.
        recognise: Reads PDF pages that are pictures; None: they are "failed".
        min_page_characters: A PDF page on which something is drawn and with less text than this is a picture.
        num_proc: Processes that read a long PDF; the pages are the same for any number.

    Raises:
        UserError: The file cannot be read, or (after the last page) no page of it holds text.
    """
    found, problems = False, Counter()
    for page in _pages(book, recognise, min_page_characters, num_proc):
        found = found or bool(page.text.strip())
        problems[page.problem] += 1
        yield page
    if not found:
        failed = [item for item in problems.most_common(4) if item[0]]
        reasons = "; ".join(f"{times} of {problems.total()} pages: {problem}" for problem, times in failed)
        why = f" ({reasons})" if failed else ""
        raise UserError(f"{book} holds no text{why}; mend it or leave it out of merge.books")


def _pages(book: Path, recognise: Recogniser | None, min_page_characters: int, num_proc: int) -> Iterator[Page]:
    suffix = book.suffix.lower()
    if suffix == ".pdf":
        extracts = extract_pages(book, min_page_characters=min_page_characters, num_proc=num_proc)
        yield from _pdf_pages(book, extracts, recognise)
        return
    texts = divide([html_text(book)]) if suffix in (".html", ".htm") else text_pages(book)
    for number, text in enumerate(texts, 1):
        yield Page(number, text, "text" if text.strip() else "blank")


def _pdf_pages(book: Path, extracts: Iterator[PdfText], recognise: Recogniser | None) -> Iterator[Page]:
    """Pages in their order, while OCR works on those that follow."""
    waiting: deque[Page | Future[Page]] = deque()
    start = None
    with ExitStack() as stack:
        for extract in extracts:
            if extract.drawn and recognise:
                start = start or stack.enter_context(recognise.reading(book))
                waiting.append(start(extract.number))
            else:
                waiting.append(_page(extract))
            while waiting and (isinstance(waiting[0], Page) or waiting[0].done()):
                yield _finished(waiting.popleft())
        while waiting:
            yield _finished(waiting.popleft())


def _finished(page: Page | Future[Page]) -> Page:
    return page if isinstance(page, Page) else page.result()


def _page(extract: PdfText) -> Page:
    """A page that OCR has no part in."""
    if extract.problem:
        return Page(extract.number, "", "failed", extract.problem)
    if extract.drawn:
        return Page(extract.number, "", "failed", "a picture without text; set merge.ocr.engine")
    return Page(extract.number, extract.text, "text" if extract.text.strip() else "blank")
