import pytest

from cardioembed.corpus.cleaning import clean_pages
from cardioembed.corpus.html import html_text
from cardioembed.errors import UserError


@pytest.fixture
def markdown(tmp_path):
    def convert(html: str | bytes) -> str:
        path = tmp_path / "book.html"
        path.write_bytes(html if isinstance(html, bytes) else html.encode())
        return html_text(path)

    return convert


def test_headings_travel_as_sections(markdown):
    page = markdown("<h1>Valves</h1><p>One.</p><h3>The <i>mitral</i>\nvalve</h3><div>Two leaflets move.</div>")
    assert page == "# Valves\n\nOne.\n\n### The mitral valve\n\nTwo leaflets move."
    assert [block.section for block in clean_pages([page])[0]] == ["Valves", "The mitral valve"]


def test_paragraphs_and_list_items_are_blocks_of_their_own(markdown):
    page = markdown(
        "Loose <b>text</b>.<ul><li>First<ol><li>inner</li></ol><li><p>Second</p><p>more</p></ul>end<br><br>of it"
    )
    assert page.split("\n\n") == ["Loose text.", "- First", "- inner", "- Second", "more", "end", "of it"]


def test_line_break_within_a_paragraph_does_not_end_it(markdown):
    assert markdown("<p>The heart<br>has four\n chambers.</p>") == "The heart\nhas four chambers."


@pytest.mark.parametrize("tag", ["script", "style", "nav", "header", "footer", "aside", "noscript", "form"])
def test_what_stands_around_the_text_is_dropped(markdown, tag):
    assert markdown(f"<p>Kept.</p><{tag}>Dropped.</{tag}><p>Kept too.</p>") == "Kept.\n\nKept too."


def test_hidden_elements_and_comments_are_dropped(markdown):
    assert markdown("<p hidden>No.</p><!-- No. --><title>No</title><p>Yes.</p>") == "Yes."


def test_title_in_an_articles_header_stays_a_heading(markdown):
    page = markdown(
        "<article><header><nav>Home</nav><h2>Shock</h2><p>By A. N. Author</p></header><p>Text.</p></article>"
    )
    assert page == "## Shock\n\nText."


def test_data_table_is_handed_over_for_counting(markdown):
    page = markdown("<p>Before.</p><table><tr><td>LVEF</td><td>55</td></tr></table><p>After the table.</p>")
    blocks, counts = clean_pages([page])
    assert [block.text for block in blocks] == ["Before.", "After the table."]
    assert counts["tables"] == 1


@pytest.mark.parametrize(
    "table",
    [
        "<table role='presentation'><tr><td>Laid out text.</td></tr></table>",
        "<table><tr><td><h2>A</h2>Laid out text.</td></tr></table>",
        "<table><tr><td><p>A</p><p>Laid out text.</p></td></tr></table>",
        "<table><tr><td><table><tr><td>B</td></tr></table>Laid out text.</td></tr></table>",
    ],
)
def test_table_that_only_arranges_text_is_read(markdown, table):
    page = markdown(table)
    assert page.split("\n\n")[-1] == "Laid out text."
    assert page.count("<table") == table.count("B")


def test_superscripts_are_handed_over_with_their_mark(markdown):
    page = markdown("<p>Aspirin<sup> 3</sup>, cm<sup>2</sup>, CO<sub>2</sub>.<sup><a href='#r'>[4]</a></sup></p>")
    assert page == "Aspirin<sup> 3</sup>, cm<sup>2</sup>, CO2.<sup>[4]</sup>"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Aspirin helps.<sup>3</sup> So do statins <sup>4, 7-9</sup>.", "Aspirin helps. So do statins."),
        ("Aspirin helps.<sup><a href='#r'>[3]</a></sup> So it does.", "Aspirin helps. So it does."),
        ("An area of 1.0 cm<sup>2</sup> or 115 g/m<sup>2</sup>.", "An area of 1.0 cm² or 115 g/m²."),
        ("Ventilate when CO<sub>2</sub> rises on the 1<sup>st</sup> day.", "Ventilate when CO2 rises on the 1st day."),
    ],
)
def test_cleaning_tells_citations_from_exponents(markdown, html, text):
    blocks, _ = clean_pages([markdown(f"<p>{html}</p>")])
    assert [block.text for block in blocks] == [text]


@pytest.mark.parametrize(
    ("head", "charset"),
    [
        ('<meta charset="utf-8">', "utf-8"),
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ('<meta charset="ISO-8859-1">', "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1250">', "cp1250"),
        ('<?xml version="1.0" encoding="cp1252"?>', "cp1252"),
        ('<meta charset="utf-16">', "utf-8"),
    ],
)
def test_declared_character_set_is_honoured(markdown, head, charset):
    assert markdown(f"{head}<p>Roméo – é</p>".encode(charset)) == "Roméo – é"


def test_wrong_character_set_names_file_line_and_cure(markdown):
    with pytest.raises(UserError, match=r"book\.html, line 2: not utf-8 text.*iconv -f latin1"):
        markdown("<p>Heart</p>\n<p>Ménière</p>".encode("latin-1"))


def test_unknown_character_set_is_named(markdown):
    with pytest.raises(UserError, match=r"declares the character set 'klingon', which is not known; save it as UTF-8"):
        markdown("<meta charset=klingon><p>Heart</p>")


def test_deeply_nested_and_unclosed_markup_is_read(markdown):
    assert markdown("<div>" * 3000 + "<p>The heart <b>beats") == "The heart beats"
