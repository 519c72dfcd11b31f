import tracemalloc

import pytest

from cardioembed.corpus.cleaning import clean_pages
from cardioembed.corpus.text import PAGE_CHARACTERS, divide, text_pages

PARAGRAPH = "The left ventricle ejects\nblood into the aorta. It fills from the left atrium."


@pytest.mark.parametrize("gap", ["\n\n", "\n \t\n"])
def test_long_text_is_cut_between_paragraphs(gap):
    text = gap.join([PARAGRAPH] * 40_000)
    pages = list(divide(text[i : i + 1000] for i in range(0, len(text), 1000)))
    assert "".join(pages) == text
    assert len(pages) == 1 + len(text) // PAGE_CHARACTERS
    assert max(map(len, pages)) <= PAGE_CHARACTERS + 1000
    assert all(page.startswith("The left") and page.endswith(("atrium.", gap)) for page in pages)


def test_pages_of_a_long_text_clean_to_the_same_paragraphs_as_the_whole():
    text = "\n\n".join(f"{PARAGRAPH} Patient {number} did well." for number in range(15_000))
    pages = list(divide([text]))
    assert len(pages) > 1
    assert clean_pages(pages) == clean_pages([text])


@pytest.mark.parametrize(
    ("piece", "end"),
    [
        ("One line a paragraph, of some length.\n", "\n"),
        ("One sentence after another. ", "."),
        ("words-without-end ", " "),
    ],
)
def test_text_without_blank_lines_is_cut_at_the_next_best_border(piece, end):
    text = piece * (2_500_000 // len(piece))
    pages = list(divide(text[i : i + 4096] for i in range(0, len(text), 4096)))
    assert "".join(pages) == text
    assert len(pages) == 3
    assert all(page.endswith(end) for page in pages[:-1])


def test_text_without_any_border_is_still_divided():
    pages = list(divide(["x" * 4096] * 600))
    assert sum(map(len, pages)) == 4096 * 600
    assert max(map(len, pages)) <= PAGE_CHARACTERS + 4096


def test_form_feeds_win_over_the_length():
    assert list(divide(["a\fb", "c\f", "\fd"])) == ["a", "bc", "", "d"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_large_file_is_read_in_little_memory(tmp_path, line_end):
    path = tmp_path / "large.txt"
    block = PARAGRAPH.encode().replace(b"\n", line_end) + 2 * line_end
    with path.open("wb") as stream:
        for _ in range(64):
            stream.write(block * ((1 << 20) // len(block) + 1))
    tracemalloc.start()
    total = sum(page.count("atrium.") for page in text_pages(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 64 << 20
    assert total == 64 * ((1 << 20) // len(block) + 1)
    assert peak < 12 << 20


def test_character_that_two_chunks_share_is_read_whole(tmp_path):
    path = tmp_path / "book.txt"
    text = "a" + "é" * 700_000
    path.write_text(text, encoding="utf-8")
    assert "".join(text_pages(path)) == text
