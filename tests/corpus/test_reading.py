from pathlib import Path

import pytest
from fpdf import FPDF
from PIL import Image

from cardioembed.corpus.cleaning import clean_pages
from cardioembed.corpus.reading import find_books, name_books, read_pages
from cardioembed.errors import UserError


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "books"
    for name in ("b.md", "a.txt", "deep/c.PDF", "notes.docx", ".hidden.md", "deep/d.markdown"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def names(books):
    return [book.name for book in books]


def write_pdf(path, *pages, **encryption):
    pdf = FPDF()
    if encryption:
        pdf.set_encryption(**encryption)
    pdf.set_font("Helvetica", size=12)
    for text in pages:
        pdf.add_page()
        pdf.multi_cell(0, 8, text)
    pdf.output(str(path))
    return path


def test_folder_gives_its_books_of_all_kinds_sorted(shelf):
    assert names(find_books([str(shelf)])) == ["a.txt", "b.md", "c.PDF"]


def test_files_and_globs_name_books_and_each_is_taken_once(shelf):
    assert names(find_books([str(shelf / "b.md"), str(shelf / "*.md"), str(shelf)])) == ["a.txt", "b.md", "c.PDF"]
    assert names(find_books([str(shelf / "**" / "*.PDF")])) == ["c.PDF"]


def test_file_with_brackets_in_its_name_is_found(tmp_path):
    path = tmp_path / "heart [2nd edition].md"
    path.write_text("x")
    assert find_books([str(path)]) == [path]


def test_missing_place_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"merge\.books: .*shelf does not exist\. Give a folder, a file or a glob"):
        find_books([str(tmp_path / "shelf")])


def test_folder_without_a_book_says_so(tmp_path):
    (tmp_path / "slides.pptx").write_text("x")
    with pytest.raises(UserError, match=r"holds no book\. .*\.md, \.txt, \.pdf files"):
        find_books([str(tmp_path)])


def test_one_missing_place_among_good_ones_is_an_error(shelf):
    with pytest.raises(UserError, match=r"typo\.md does not exist"):
        find_books([str(shelf), str(shelf / "typo.md")])


def test_no_place_at_all_is_an_error():
    with pytest.raises(UserError, match=r"merge\.books is empty; give at least one"):
        find_books([])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["books/heart.md", "books/valves.pdf"], ["heart", "valves"]),
        (["one/heart.md", "two/heart.md", "two/valves.md"], ["one/heart", "two/heart", "valves"]),
        (["heart.md", "deep/heart.md"], ["heart", "deep/heart"]),
        (["/x/1/heart.md", "/x/1/heart.txt"], ["x/1/heart.md", "x/1/heart.txt"]),
        (["/x/a/vol/heart.md", "/x/b/vol/heart.md"], ["a/vol/heart.md", "b/vol/heart.md"]),
        ([], []),
    ],
)
def test_books_of_one_name_are_told_apart_by_their_folders(paths, names):
    books = [Path(path) for path in paths]
    assert name_books(books) == dict(zip(books, names, strict=True))


def test_text_with_byte_order_mark_and_windows_or_old_mac_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffMénière\r\ntwo\rthree".encode())
    assert read_pages(path) == ["Ménière\ntwo\nthree"]


def test_form_feeds_divide_a_text_into_pages(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("first\fsecond\f")
    assert read_pages(path) == ["first", "second", ""]


def test_latin1_text_names_file_line_and_cure(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes("The heart\nof Ménière\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"old\.txt, line 2: not UTF-8 text .*iconv -f latin1"):
        read_pages(path)


@pytest.mark.parametrize("content", ["", " \n\t\r\n", "\f\f"])
def test_empty_text_names_the_file(tmp_path, content):
    path = tmp_path / "blank.md"
    path.write_text(content)
    with pytest.raises(UserError, match=r"blank\.md holds no text; mend it or leave it out"):
        read_pages(path)


def test_born_digital_pdf_is_read_page_by_page(tmp_path):
    first = "The QRS axis lies between -30 and +90 degrees (normal)."
    second = "Give 2.5 mg/kg i.v. when LVEF is <35% & falling."
    pages = read_pages(write_pdf(tmp_path / "book.pdf", first, second))
    assert [page.split() for page in pages] == [first.split(), second.split()]


def test_word_broken_at_a_line_end_of_a_pdf_is_joined(tmp_path):
    text = "The treatment of heart failure starts early. In most patients the treat-\nment goes on for life."
    blocks, counts = clean_pages(read_pages(write_pdf(tmp_path / "book.pdf", text)))
    assert [block.text for block in blocks] == [text.replace("treat-\nment", "treatment")]
    assert counts["hyphenations"] == 1


def test_sentence_over_a_page_border_of_a_pdf_is_joined_without_its_page_number(tmp_path):
    path = write_pdf(tmp_path / "book.pdf", "The left ventricle receives blood from the\n12", "left atrium.\n13")
    blocks, counts = clean_pages(read_pages(path))
    assert [block.text for block in blocks] == ["The left ventricle receives blood from the left atrium."]
    assert counts["page_numbers"] == 2


def test_running_header_of_pdf_pages_is_dropped(tmp_path):
    names = ("mitral", "aortic", "tricuspid", "pulmonary")
    pages = [f"Handbook of Cardiology\nThe {name} valve has thin leaflets.\n{n}" for n, name in enumerate(names, 1)]
    blocks, _ = clean_pages(read_pages(write_pdf(tmp_path / "book.pdf", *pages)))
    assert [block.text for block in blocks] == [f"The {name} valve has thin leaflets." for name in names]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_truncated_pdf_names_the_file_and_the_cure(tmp_path, share):
    whole = write_pdf(tmp_path / "book.pdf", "The heart has four chambers.").read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut\.pdf cannot be opened as a PDF .*cut short; download or export it again"):
        read_pages(path)


def test_encrypted_pdf_asks_for_a_copy_without_password(tmp_path):
    path = write_pdf(tmp_path / "locked.pdf", "The heart.", owner_password="owner", user_password="user")
    with pytest.raises(UserError, match=r"locked\.pdf cannot be opened .*save a copy without the password"):
        read_pages(path)


def test_pdf_that_only_limits_printing_is_read(tmp_path):
    path = write_pdf(tmp_path / "open.pdf", "The heart has four chambers.", owner_password="owner")
    assert read_pages(path) == ["The heart has four chambers."]


def test_image_only_pdf_points_to_ocr(tmp_path):
    pdf = FPDF()
    pdf.add_page()
    pdf.image(Image.new("RGB", (40, 40), "white"), w=100)
    pdf.output(str(tmp_path / "scan.pdf"))
    with pytest.raises(UserError, match=r"scan\.pdf holds no text \(scanned pages\? run an OCR tool"):
        read_pages(tmp_path / "scan.pdf")


def test_text_file_named_pdf_is_refused(tmp_path):
    path = tmp_path / "book.pdf"
    path.write_text("The heart has four chambers.")
    with pytest.raises(UserError, match=r"book\.pdf cannot be opened as a PDF"):
        read_pages(path)
