"""PDFs as books have them: born digital, scanned, and with a page that no reader can load."""

from pathlib import Path

import pypdfium2 as pdfium
import pytest
from fpdf import FPDF


@pytest.fixture
def write_pdf():
    """Born-digital pages, one a text."""

    def write(path: Path, *pages: str, **encryption: str) -> Path:
        document = FPDF()
        if encryption:
            document.set_encryption(**encryption)
        for text in pages:
            _add_text(document, text)
        document.output(str(path))
        return path

    return write


@pytest.fixture
def write_scan():
    """Pages that are pictures of texts; "" is an empty page, None a born-digital one with ``digital`` on it."""

    def write(path: Path, *pages: str | None, digital: str = "", dpi: int = 150) -> Path:
        document = FPDF()
        for text in pages:
            if text is None:
                _add_text(document, digital)
                continue
            if not text:
                document.add_page()
                continue
            source = FPDF()
            _add_text(source, text)
            page = pdfium.PdfDocument(bytes(source.output()))[0]
            document.add_page()
            document.image(page.render(scale=dpi / 72, grayscale=True).to_pil(), x=0, y=0, w=210)
        document.output(str(path))
        return path

    return write


def _add_text(document: FPDF, text: str) -> None:
    document.set_font("Helvetica", size=12)
    document.add_page()
    document.multi_cell(0, 8, text)


@pytest.fixture
def write_broken_pdf():
    """Three pages, the second of which is missing from the file."""

    def write(path: Path) -> Path:
        page = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 4 0 R "
            "/Resources << /Font << /F1 6 0 R >> >> >>"
        )
        stream = "BT /F1 12 Tf 10 100 Td (The heart has four chambers.) Tj ET"
        objects = [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R 9 0 R 5 0 R] /Count 3 >>",
            page,
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
            page,
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
        return _write_objects(path, objects)

    return write


@pytest.fixture
def write_pdf_without_pages():
    def write(path: Path) -> Path:
        return _write_objects(path, ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [] /Count 0 >>"])

    return write


def _write_objects(path: Path, objects: list[str]) -> Path:
    text, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    text += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\nstartxref\n"
        f"{len(text)}\n%%EOF\n"
    )
    path.write_text(text, encoding="ascii")
    return path
