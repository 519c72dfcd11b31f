from pathlib import Path

import pytest

from cardioembed.corpus.pages import Page
from cardioembed.corpus.reading import find_books, name_books, read_pages
from cardioembed.errors import UserError


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "books"
    for name in ("b.md", "a.txt", "deep/c.PDF", "notes.docx", ".hidden.md", "deep/d.markdown", "e.html", "f.HTM"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def names(books):
    return [book.name for book in books]


def read(book, recognise=None, num_proc=1):
    return list(read_pages(book, recognise, min_page_characters=25, num_proc=num_proc))


def texts(book):
    return [page.text for page in read(book)]


def test_folder_gives_its_books_of_all_kinds_sorted(shelf):
    assert names(find_books([str(shelf)])) == ["a.txt", "b.md", "c.PDF", "e.html", "f.HTM"]


def test_files_and_globs_name_books_and_each_is_taken_once(shelf):
    assert names(find_books([str(shelf / "b.md"), str(shelf / "*.md"), str(shelf / "deep")])) == ["b.md", "c.PDF"]
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
    with pytest.raises(UserError, match=r"holds no book\. .*\.md, \.txt, \.pdf, \.html, \.htm files"):
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
    assert read(path) == [Page(1, "Ménière\ntwo\nthree", "text")]


def test_form_feeds_divide_a_text_into_pages(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("first\fsecond\f")
    assert read(path) == [Page(1, "first", "text"), Page(2, "second", "text"), Page(3, "", "blank")]


def test_latin1_text_names_file_line_and_cure(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes("The heart\nof Ménière\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"old\.txt, line 2: not UTF-8 text .*iconv -f latin1"):
        read(path)


def test_character_cut_off_at_the_end_of_a_long_text_names_its_last_line(tmp_path):
    path = tmp_path / "cut.txt"
    path.write_bytes(b"The heart beats.\n" * 50_000 + "Ménière".encode()[:2])
    with pytest.raises(UserError, match=r"cut\.txt, line 50001: not UTF-8"):
        read(path)


@pytest.mark.parametrize("content", ["", " \n\t\r\n", "\f\f"])
def test_empty_text_names_the_file(tmp_path, content):
    path = tmp_path / "blank.md"
    path.write_text(content)
    with pytest.raises(UserError, match=r"blank\.md holds no text; mend it or leave it out"):
        read(path)


def test_html_is_one_page_of_markdown(tmp_path):
    path = tmp_path / "book.htm"
    path.write_text("<h2>Valves</h2><p>The mitral valve has two leaflets.")
    assert read(path) == [Page(1, "## Valves\n\nThe mitral valve has two leaflets.", "text")]


def test_html_without_text_names_the_file(tmp_path):
    path = tmp_path / "book.html"
    path.write_text("<script>start()</script>")
    with pytest.raises(UserError, match=r"book\.html holds no text; mend it"):
        read(path)


def test_pages_come_as_they_are_asked_for(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"first\f" + b"x" * 2_000_000 + b"\f\xe9")
    pages = read_pages(path, None, min_page_characters=25, num_proc=1)
    assert next(pages) == Page(1, "first", "text")
    with pytest.raises(UserError, match="not UTF-8"):
        list(pages)


def test_picture_pages_without_ocr_failed_and_blank_ones_are_blank(tmp_path, write_scan):
    book = write_scan(tmp_path / "book.pdf", None, "Scanned.", "", digital="The heart has four chambers, two atria.")
    assert read(book) == [
        Page(1, "The heart has four chambers, two atria.", "text"),
        Page(2, "", "failed", "a picture without text; set merge.ocr.engine"),
        Page(3, "", "blank"),
    ]


def test_book_of_pictures_without_ocr_names_the_setting(tmp_path, write_scan):
    book = write_scan(tmp_path / "scan.pdf", "The heart.", "The aorta.", "")
    expected = r"scan\.pdf holds no text \(2 of 3 pages: a picture without text; set merge\.ocr\.engine\); mend it"
    with pytest.raises(UserError, match=expected):
        read(book)


def test_page_that_cannot_be_loaded_fails_alone(tmp_path, write_broken_pdf):
    first, second, third = read(write_broken_pdf(tmp_path / "book.pdf"))
    assert first == Page(1, "The heart has four chambers.", "text")
    assert third == Page(3, "The heart has four chambers.", "text")
    assert (second.text, second.origin) == ("", "failed")
    assert second.problem == "the PDF's page cannot be read (Failed to load page.)"
