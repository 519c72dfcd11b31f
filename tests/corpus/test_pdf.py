import re

import pytest
from fpdf import FPDF
from PIL import Image
from rapidfuzz.distance import Levenshtein

from cardioembed.corpus import pdf
from cardioembed.corpus.cleaning import clean_pages
from cardioembed.corpus.pdf import PdfText, extract_pages, open_pdf, render_page
from cardioembed.errors import UserError


def extract(book, num_proc=1):
    return list(extract_pages(book, min_page_characters=25, num_proc=num_proc))


def texts(book):
    return [page.text for page in extract(book)]


def test_born_digital_pdf_is_read_page_by_page(tmp_path, write_pdf):
    first = "The QRS axis lies between -30 and +90 degrees (normal)."
    second = "Give 2.5 mg/kg i.v. when LVEF is <35% & falling."
    pages = texts(write_pdf(tmp_path / "book.pdf", first, second))
    assert [page.split() for page in pages] == [first.split(), second.split()]


def test_several_processes_read_the_same_pages_in_the_same_order(tmp_path, write_pdf, monkeypatch):
    book = write_pdf(tmp_path / "book.pdf", *(f"Chapter {n} describes the heart and its valves." for n in range(9)))
    alone = extract(book)
    monkeypatch.setattr(pdf, "_RANGE", 2)
    assert extract(book, num_proc=2) == alone
    assert [page.number for page in alone] == list(range(1, 10))
    assert alone[8].text == "Chapter 8 describes the heart and its valves."


def test_chapter_of_the_sample_survives_almost_every_character(tmp_path, root, write_pdf):
    chapter = (root / "data/sample/books/cardiac_imaging.md").read_text(encoding="utf-8")
    printable = chapter[:12_000].encode("latin-1", "ignore").decode("latin-1")
    # fpdf2 breaks a text at page ends by itself.
    read = "\n".join(texts(write_pdf(tmp_path / "book.pdf", printable)))
    expected, found = " ".join(printable.split()), " ".join(read.split())
    assert Levenshtein.distance(expected, found) <= 0.005 * len(expected)


def test_word_broken_at_a_line_end_of_a_pdf_is_joined(tmp_path, write_pdf):
    text = "The treatment of heart failure starts early. In most patients the treat-\nment goes on for life."
    blocks, counts = clean_pages(texts(write_pdf(tmp_path / "book.pdf", text)))
    assert [block.text for block in blocks] == [text.replace("treat-\nment", "treatment")]
    assert counts["hyphenations"] == 1


def test_sentence_over_a_page_border_of_a_pdf_is_joined_without_its_page_number(tmp_path, write_pdf):
    path = write_pdf(tmp_path / "book.pdf", "The left ventricle receives blood from the\n12", "left atrium.\n13")
    blocks, counts = clean_pages(texts(path))
    assert [block.text for block in blocks] == ["The left ventricle receives blood from the left atrium."]
    assert counts["page_numbers"] == 2


def test_running_header_of_pdf_pages_is_dropped(tmp_path, write_pdf):
    names = ("mitral", "aortic", "tricuspid", "pulmonary")
    pages = [f"Handbook of Cardiology\nThe {name} valve has thin leaflets.\n{n}" for n, name in enumerate(names, 1)]
    blocks, _ = clean_pages(texts(write_pdf(tmp_path / "book.pdf", *pages)))
    assert [block.text for block in blocks] == [f"The {name} valve has thin leaflets." for name in names]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_truncated_pdf_names_the_file_and_the_cure(tmp_path, write_pdf, share):
    whole = write_pdf(tmp_path / "book.pdf", "The heart has four chambers.").read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut\.pdf cannot be opened as a PDF .*cut short; download or export it again"):
        extract(path)


def test_encrypted_pdf_asks_for_a_copy_without_password(tmp_path, write_pdf):
    path = write_pdf(tmp_path / "locked.pdf", "The heart.", owner_password="owner", user_password="user")
    with pytest.raises(UserError, match=r"locked\.pdf cannot be opened .*save a copy without the password"):
        extract(path)


def test_pdf_that_only_limits_printing_is_read(tmp_path, write_pdf):
    path = write_pdf(tmp_path / "open.pdf", "The heart has four chambers.", owner_password="owner")
    assert texts(path) == ["The heart has four chambers."]


def test_text_file_named_pdf_is_refused(tmp_path):
    path = tmp_path / "book.pdf"
    path.write_text("The heart has four chambers.")
    with pytest.raises(UserError, match=r"book\.pdf cannot be opened as a PDF"):
        extract(path)


def test_pdf_without_pages_is_refused(tmp_path, write_pdf_without_pages):
    with pytest.raises(UserError, match=r"none\.pdf cannot be opened as a PDF .*download or export it again"):
        extract(write_pdf_without_pages(tmp_path / "none.pdf"))


def test_pictures_and_drawings_are_seen_on_pages_with_little_text_only(tmp_path):
    document = FPDF()
    document.set_font("Helvetica", size=12)
    grey = Image.new("L", (60, 60), 255)
    grey.paste(0, (20, 20, 40, 40))
    for text, draw in (
        ("", "picture"),
        ("12", "line"),
        ("The left ventricle is the thickest chamber.", "picture"),
        ("12", ""),
        ("", "white box"),
        ("", ""),
    ):
        document.add_page()
        document.cell(w=100, text=text)
        if draw == "picture":
            document.image(grey, w=100)
        if draw == "line":
            document.line(10, 50, 150, 50)
        if draw == "white box":
            document.set_fill_color(255)
            document.rect(0, 0, 210, 297, style="F")
    document.output(str(tmp_path / "book.pdf"))
    assert [page.drawn for page in extract(tmp_path / "book.pdf")] == [True, True, False, False, False, False]


def test_page_that_cannot_be_loaded_is_told_and_the_others_are_read(tmp_path, write_broken_pdf):
    first, second, third = extract(write_broken_pdf(tmp_path / "book.pdf"))
    assert second == PdfText(2, problem="the PDF's page cannot be read (Failed to load page.)")
    assert first.text == third.text == "The heart has four chambers."


def test_page_image_has_the_resolution_that_is_asked_for(tmp_path, write_pdf):
    with open_pdf(write_pdf(tmp_path / "book.pdf", "The heart.")) as document:
        image = render_page(document, 1, 100)
    (tmp_path / "page.png").write_bytes(image)
    with Image.open(tmp_path / "page.png") as page:
        assert (page.mode, page.size) == ("L", (827, 1170))
        assert page.getextrema()[0] < 50


def test_page_too_large_to_draw_names_the_setting(tmp_path):
    document = FPDF(unit="pt", format=(14_000, 14_000))
    document.add_page()
    document.output(str(tmp_path / "poster.pdf"))
    with (
        open_pdf(tmp_path / "poster.pdf") as opened,
        pytest.raises(ValueError, match=re.escape("58333 x 58333 pixels at 300 dpi are too many; lower merge.ocr.dpi")),
    ):
        render_page(opened, 1, 300)
