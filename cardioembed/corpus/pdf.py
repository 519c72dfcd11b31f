"""PDF books: the text of each page, whether something is drawn on it, and its image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from cardioembed.errors import UserError
from cardioembed.parallel import spread

_RANGE = 256
_GLANCE_DPI = 36
# Shades of grey between paper and ink; less is an empty background.
_CONTRAST = 16
_LARGEST_IMAGE = 200_000_000


@dataclass(frozen=True)
class PdfText:
    """What a page holds without OCR: its text layer, whether a picture is on it, or why it cannot be read."""

    number: int
    text: str = ""
    drawn: bool = False
    problem: str = ""


def open_pdf(book: Path) -> pdfium.PdfDocument:
    """Opens a PDF; the caller closes it.

    Raises:
        UserError: Not a PDF, cut short, without pages, or locked with a password.
    """
    try:
        return pdfium.PdfDocument(book)
    except (pdfium.PdfiumError, OSError) as error:
        locked = "password" in str(error).lower()
        advice = "save a copy without the password" if locked else "it may be cut short; download or export it again"
        raise UserError(
            f"{book} cannot be opened as a PDF ({error}): {advice}, or leave it out of merge.books"
        ) from None


def extract_pages(book: Path, *, min_page_characters: int, num_proc: int) -> Iterator[PdfText]:
    """The text layer of every page, in order; long books are read by several processes.

    Args:
        book: A PDF.
        min_page_characters: Pages with fewer visible characters are looked at for pictures.
        num_proc: Processes; the result is the same for any number.

    Raises:
        UserError: See ``open_pdf``.
    """
    with open_pdf(book) as document:
        count = len(document)
    # Starting processes takes as long as reading some thousand plain pages.
    if num_proc == 1 or count <= 4 * _RANGE:
        yield from _read_range(book, min_page_characters, range(count))
        return
    ranges = [range(start, min(start + _RANGE, count)) for start in range(0, count, _RANGE)]
    for pages in spread(partial(_read_list, book, min_page_characters), ranges, min(num_proc, len(ranges))):
        yield from pages


def render_page(document: pdfium.PdfDocument, number: int, dpi: int) -> bytes:
    """The image of a page as a greyscale PNG.

    Raises:
        ValueError: The page cannot be drawn, with the reason.
    """
    try:
        with closing(document[number - 1]) as page:
            width, height = (round(side / 72 * dpi) for side in page.get_size())
            if width * height > _LARGEST_IMAGE:
                raise ValueError(f"{width} x {height} pixels at {dpi} dpi are too many; lower merge.ocr.dpi")
            image = page.render(scale=dpi / 72, grayscale=True).to_pil()
    except pdfium.PdfiumError as error:
        raise ValueError(f"the page cannot be drawn ({error})") from None
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _read_list(book: Path, min_page_characters: int, numbers: range) -> list[PdfText]:
    return list(_read_range(book, min_page_characters, numbers))


def _read_range(book: Path, min_page_characters: int, numbers: range) -> Iterator[PdfText]:
    with open_pdf(book) as document:
        for index in numbers:
            yield _read_page(book, document, index, min_page_characters)


def _read_page(book: Path, document: pdfium.PdfDocument, index: int, min_page_characters: int) -> PdfText:
    try:
        return _page_text(document, index, min_page_characters)
    except pdfium.PdfiumError:
        pass
    # PDFium remembers a page that it could not load; another handle starts afresh.
    with open_pdf(book) as again:
        try:
            return _page_text(again, index, min_page_characters)
        except pdfium.PdfiumError as error:
            return PdfText(index + 1, problem=f"the PDF's page cannot be read ({error})")


def _page_text(document: pdfium.PdfDocument, index: int, min_page_characters: int) -> PdfText:
    with closing(document[index]) as page:
        with closing(page.get_textpage()) as text_page:
            # PDFium marks a hyphen at a line end with U+FFFE or U+0002: a soft hyphen in all but name.
            text = text_page.get_text_range().replace("\ufffe", "-\n").replace("\x02", "-\n")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        few = sum(not character.isspace() for character in text) < min_page_characters
        return PdfText(index + 1, text, drawn=few and _is_drawn(page))


def _is_drawn(page: pdfium.PdfPage) -> bool:
    """Whether there is an image, or paths that leave a visible trace: a white background does not."""
    if next(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE]), None):
        return True
    if not next(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH, pdfium_c.FPDF_PAGEOBJ_SHADING]), None):
        return False
    darkest, lightest = page.render(scale=_GLANCE_DPI / 72, grayscale=True).to_pil().getextrema()
    return lightest - darkest >= _CONTRAST
