"""Characters lost between a page of a book and the text that stage 01 reads from it, and the seconds that takes.

Pages of the shipped sample are set in a book face, once as a born-digital PDF and once as a scan: drawn at 300 dpi,
turned by up to 0.7 degrees, blurred, with the grain of paper and sensor, packed as JPEG, all seeded. Both go through
read_pages with the settings of merge.ocr. Error rates are Levenshtein distances over white-space-normalised text.

example python -m bench.ocr --repeats 3 --pages 20 --out bench/results/ocr.json
"""

import argparse
import io
import random
import statistics
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pypdfium2 as pdfium
from fpdf import FPDF
from PIL import Image, ImageFilter
from rapidfuzz.distance import Levenshtein

from bench import common
from cardioembed.config import OcrSettings, Settings
from cardioembed.corpus.ocr import build_recogniser
from cardioembed.corpus.pages import Page
from cardioembed.corpus.reading import find_books, read_pages
from cardioembed.errors import UserError

FACE = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
POINTS, LINE_MM, MARGIN_MM, LINES = 11.5, 6.6, 25, 36
SCAN_DPI = 300


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    ocr = settings.merge.ocr
    where = common.environment("ocr", ocr.max_concurrency)

    # 1. The same pages twice: as text and as pictures.
    pages = book_pages(settings, options.pages)
    with common.scratch(options.out) as folder:
        digital, scan = folder / "digital.pdf", folder / "scan.pdf"
        typeset(pages).output(str(digital))
        degrade(digital, scan, settings.seed)

        # 2. Read them; the cache of one run serves the cached one after it.
        runs = iter(range(options.repeats))
        latest: dict[str, Path] = {}

        def afresh() -> dict[str, Any]:
            latest["cache"] = folder / f"cache{next(runs)}"
            return measure(scan, ocr, latest["cache"])

        sides = {
            "scan, OCR": afresh,
            "scan, cached": lambda: measure(scan, ocr, latest["cache"]),
            "born digital": lambda: measure(digital, ocr, folder / "none"),
        }
        results = common.alternate(sides, options.repeats)

    # 3. Report.
    rates = {name: [error_rates(pages, run["pages"]) for run in runs] for name, runs in results.items()}
    table = [summarise(name, pages, rates[name], results[name]) for name in sides]
    worst = max(rates["scan, OCR"][0])
    notes = [
        f"engine {ocr.engine} {ocr.language}, {ocr.dpi} dpi, {ocr.max_concurrency} pages at once; "
        f"{len(pages)} A4 pages, {FACE.stem} {POINTS:g} points, {SCAN_DPI} dpi scan",
        "seconds are medians of whole runs over the number of pages",
        f"pages of the scan without any error: {sum(rate == 0 for rate in rates['scan, OCR'][0])}; worst: {worst:.2%}",
    ]
    raw = {
        name: {"character_error_rate": rates[name], "seconds": [run["seconds"] for run in runs]}
        for name, runs in results.items()
    }
    common.report(options.out, "Reading born-digital and scanned pages", where, table, notes, raw)


def book_pages(settings: Settings, count: int) -> list[list[str]]:
    """Lines of the sample, filled into pages; "" is the space between paragraphs."""
    ruler = new_document()
    ruler.add_page()
    lines: list[str] = []
    for book in find_books(settings.merge.books):
        for block in book.read_text(encoding="utf-8").split("\n\n"):
            text = " ".join(block.replace("#", " ").split())
            lines += [*ruler.multi_cell(0, LINE_MM, text, dry_run=True, output="LINES"), ""] if text else []
        if len(lines) >= count * LINES:
            return [lines[i * LINES : (i + 1) * LINES] for i in range(count)]
    raise UserError(f"--pages {count}: the sample fills {len(lines) // LINES} pages")


def new_document() -> FPDF:
    document = FPDF(format="A4")
    document.set_margin(MARGIN_MM)
    document.set_auto_page_break(False)
    document.add_font("book", fname=str(FACE))
    document.set_font("book", size=POINTS)
    return document


def typeset(pages: list[list[str]]) -> FPDF:
    """Pages with a line below the other."""
    document = new_document()
    for lines in pages:
        document.add_page()
        for line in lines:
            document.cell(w=0, h=LINE_MM, text=line, new_x="LMARGIN", new_y="NEXT")
    return document


def degrade(source: Path, target: Path, seed: int) -> None:
    """A scan of the source: every page one JPEG."""
    dice, noise = random.Random(seed), np.random.default_rng(seed)
    document, scan = pdfium.PdfDocument(source), FPDF(format="A4")
    for page in document:
        image = page.render(scale=SCAN_DPI / 72, grayscale=True).to_pil()
        image = image.rotate(dice.uniform(-0.7, 0.7), Image.Resampling.BICUBIC, fillcolor=255)
        grey = np.asarray(image.filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float32) * (200 / 255) + 35
        grey += noise.normal(0, 12, grey.shape).astype(np.float32)
        packed = io.BytesIO()
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(packed, "JPEG", quality=70, dpi=(SCAN_DPI, SCAN_DPI))
        scan.add_page()
        scan.image(packed, x=0, y=0, w=210, h=297)
    document.close()
    scan.output(str(target))


def measure(book: Path, ocr: OcrSettings, cache: Path) -> dict[str, Any]:
    """Pages and seconds of one run through read_pages."""
    settings = {**ocr.model_dump(exclude={"min_page_characters"}), "cache": str(cache)}
    begin = time.perf_counter()
    recogniser = build_recogniser(**settings)
    pages = list(read_pages(book, recogniser, min_page_characters=ocr.min_page_characters, num_proc=1))
    seconds = time.perf_counter() - begin
    failed = [f"page {page.number}: {page.problem}" for page in pages if page.origin == "failed"]
    if failed:
        raise UserError(f"{len(failed)} pages could not be read; the first: {failed[0]}")
    return {"pages": pages, "seconds": seconds}


def error_rates(expected: list[list[str]], found: Iterable[Page]) -> list[float]:
    """Wrong, missing and added characters of each page over its true ones."""
    rates = []
    for lines, page in zip(expected, found, strict=True):
        truth, text = plain(" ".join(lines)), plain(page.text)
        rates.append(Levenshtein.distance(truth, text) / len(truth))
    return rates


def plain(text: str) -> str:
    """One form for ligatures and their letters, and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def summarise(
    name: str, pages: list[list[str]], rates: list[list[float]], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """A line a side; the overall rate weighs pages by their characters."""
    sizes = [len(plain(" ".join(lines))) for lines in pages]
    overall = [sum(rate * size for rate, size in zip(run, sizes, strict=True)) / sum(sizes) for run in rates]
    seconds = statistics.median(run["seconds"] for run in runs)
    return {
        "": name,
        "pages": len(pages),
        "characters": f"{sum(sizes):,}",
        "character error rate": f"{statistics.median(overall):.3%}",
        "worst page": f"{max(map(max, rates)):.3%}",
        "s a page": f"{seconds / len(pages):.3f}",
        "s in all": f"{seconds:.2f}",
    }


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pages", type=common.positive, default=20, metavar="N", help="pages (default: 20)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
