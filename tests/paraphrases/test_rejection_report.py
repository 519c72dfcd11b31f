import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from scipy.stats import binomtest

from cardioembed.paraphrases.merging import merge_paraphrases
from cardioembed.paraphrases.report import (
    generator_of,
    histograms,
    marked_words,
    outcome_table,
    texts_of,
    wilson_interval,
    word_overlap,
    write_rejection_report,
)
from cardioembed.records import parse_jsonl

LIMITS = {"min_characters": 20, "max_characters": 1000, "min_length_ratio": 0.4, "max_length_ratio": 2.5}
STATISTICS = {
    "books": {"valves <&>": {"pages": 3, "sentences": 40}, "rhythm": {"pages": 2, "sentences": 25, "duplicates": 1}},
    "cleaning": {"page_numbers": 12},
}
VOID = {"meta", "br", "hr", "img", "rect", "path"}


class Page(HTMLParser):
    """Tags that are open, ids, links, and text by tag; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.marked, self.cells = [], [], [], Counter(), [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags[tag] += 1
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag not in VOID or (tag == "rect" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag in VOID and (not self.open or self.open[-1] != tag):
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "mark" in self.open:
            self.marked.append(data)
        if {"th", "td"} & set(self.open):
            self.cells[-1] += data


def kept(original, paraphrase, model="a"):
    return {"original": original, "paraphrase": paraphrase, "model": model, "source": "book"}


def refused(reason, row, file="p/one.jsonl", line=1):
    return {"file": file, "line": line, "reason": reason, "detail": f"because of {reason}", "row": row}


PAIRS = [
    kept("The mitral valve has two leaflets.", "There are two leaflets in the mitral valve."),
    kept("Adenosine ends the tachycardia.", "The tachycardia is terminated by adenosine.", "b"),
]
REFUSED = [
    refused("numbers_changed", kept("Give 300 mg of aspirin at once.", "Give 75 mg of aspirin at once.")),
    refused("copy", {"sentence": "The apex is akinetic.", "paraphrased": "The apex is akinetic.", "model": "b"}),
    refused("missing_key", {"text": "Only one text.", "n": 4}, line=9),
    refused("broken_json", '{"original": "<script>alert(1)</script> & more', "p/two.jsonl", 3),
    {"file": "books/atlas.md", "reason": "sentence_too_long", "row": {"text": "Normal values by age."}},
]


@pytest.fixture
def write(tmp_path):
    def to_text(pairs=PAIRS, rejected=REFUSED, statistics=STATISTICS, **options):
        path = tmp_path / "01_report.html"
        write_rejection_report(path, pairs=pairs, rejected=rejected, statistics=statistics, **{"seed": 1, **options})
        return path.read_text(encoding="utf-8")

    return to_text


def test_the_page_is_one_offline_file_with_links_that_lead_somewhere(write):
    text = write()
    page = Page(text)
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"<script|@import|url\(|https?:", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_text_is_escaped(write):
    attack = "<img src=x onerror=alert(1)> & \"'"
    rows = [
        refused("copy", kept(attack, attack + " more", attack), attack),
        refused("<b>", attack),
        {"file": attack, "reason": "sentence_too_long", "row": {"text": attack}},
    ]
    statistics = {
        "books": {attack: {attack: 1}},
        "cleaning": {attack: 1},
        "ocr": {attack: 2},
        "failed_pages": [{attack: attack}],
    }
    text = write([kept(attack, attack, attack)], rows, statistics)
    page = Page(text)
    assert "img" not in page.tags
    assert "b" not in page.tags
    assert text.count("&lt;img src=x onerror=alert(1)&gt; &amp; &#34;&#39;") >= 14


def test_outcomes_are_counted_by_generator_with_wilson_intervals():
    pairs = [kept("x", "y", "a")] * 8 + [kept("x", "y", "b")] * 3
    rejected = [refused("copy", kept("x", "x", "a"))] * 2 + [refused("broken_json", "raw", "p/c.jsonl")]
    table = outcome_table(pairs, rejected)
    assert table["generators"] == ["a", "b", "c", "all"]
    assert table["totals"] == [10, 3, 1, 14]
    counts = {row["outcome"]: [cell["count"] for cell in row["cells"]] for row in table["rows"]}
    assert list(counts) == ["kept", "copy", "broken_json"]
    assert counts == {"kept": [8, 3, 0, 11], "copy": [2, 0, 0, 2], "broken_json": [0, 0, 1, 1]}
    low, high = table["rows"][0]["cells"][0]["ci95"]
    z, n, share = 1.959963985, 10, 0.8
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert (low, high) == pytest.approx([(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)])


def test_one_generator_has_no_column_for_all():
    assert outcome_table(PAIRS[:1], [])["generators"] == ["a"]


def test_the_table_of_the_page_shows_the_counts_and_leaves_refused_sentences_out(write):
    cells = Page(write()).cells
    assert cells[cells.index("kept") + 1] == "1 · 50.00\N{NO-BREAK SPACE}%[9.45, 90.55]"
    read = cells.index("read")
    generators = cells[1 : cells.index("kept")]
    assert dict(zip(generators, cells[read + 1 :], strict=False)) == {
        "a": "2",
        "b": "2",
        "one": "1",
        "two": "1",
        "all": "6",
    }
    assert "sentence too long" not in cells


def test_samples_are_seeded_and_limited_and_do_not_depend_on_other_reasons(write):
    copies = [refused("copy", kept(f"Text {i}.", f"Text {i}."), line=i) for i in range(1, 41)]

    def lines(text):
        return [int(line) for line in re.findall(r"p/one\.jsonl, line (\d+)", text)]

    first = lines(write(rejected=copies, samples=7))
    assert len(first) == 7
    assert first == sorted(set(first))
    assert first == lines(write(rejected=[*REFUSED[:1], *copies], samples=7))[: len(first)]
    assert first != lines(write(rejected=copies, samples=7, seed=2))


def test_sentences_and_broken_lines_are_shown_as_they_are(write):
    text = write()
    assert '<p class="raw">Normal values by age.</p>' in text
    assert '<p class="raw">{&#34;original&#34;: &#34;&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</p>' in text
    assert "&#34;n&#34;: 4" in text
    assert "p/two.jsonl, line 3" in text
    assert "because of missing_key" in text
    assert "books that were refused, and that no paraphraser is asked for: 1." in text


def test_differing_words_are_marked_on_both_sides(write):
    assert Page(write(rejected=REFUSED[:1])).marked == ["300", "75"]
    text, other = "Systolic pressure below 90 mmHg.", "Pressure, systolic, above 90 mmHg"
    assert [word for word, differs in marked_words(text, other) if differs] == ["below"]
    assert "".join(word for word, _ in marked_words(text, other)) == text
    assert not any(differs for _, differs in marked_words(text, text))


def test_rows_without_a_file_and_near_duplicates_of_sentences_are_shown(write):
    rows = [
        {"reason": "cosine_low", "detail": "cosine 0.31", "row": kept("The apex is still.", "The base moves.", "m")},
        {"file": "atlas", "reason": "sentence_near_duplicate", "row": {"id": "x", "text": "The apex is still."}},
    ]
    text = write([], rows)
    assert Page(text).cells[1] == "m"
    assert "cosine 0.31 · m" in text
    assert '<p class="raw">The apex is still.</p>' in text


def test_query_passage_pairs_are_named_so_and_not_measured(write):
    query = {**kept("Why is the apex still?", "long passage " * 40, "q"), "kind": "passage"}
    text = write([*PAIRS, query], [refused("low_relevance", {"query": "Why so?", "passage": "Because."})])
    assert "1 query-passage pairs are not measured" in text
    assert '<span class="who">query</span>' in text
    assert '<span class="who">passage</span>' in text
    assert "Length ratio of q" not in text
    assert Page(text).cells[1:5] == ["a", "b", "one", "q"]


def test_long_texts_are_cut_and_say_so(write):
    text = write(rejected=[refused("too_long", kept("Short.", "y" * 50_000))])
    assert "(50,000 characters)" in text
    assert len(text) < 30_000


def test_overlap_is_the_jaccard_index_of_words():
    assert word_overlap("The valve leaks.", "the VALVE leaks") == 1
    assert word_overlap("one two three", "three four") == pytest.approx(1 / 4)
    assert word_overlap("…", "—") == 0


def test_histograms_hold_every_kept_pair_by_generator():
    pairs = [kept("abcd efgh", "abcd efgh" * n, "m") for n in (1, 2, 3)] + PAIRS
    overlap, length = histograms(pairs)
    assert [(panel["generator"], panel["n"]) for panel in length["panels"]] == [("a", 1), ("b", 1), ("m", 3)]
    assert length["limit"] == 3
    assert length["panels"][2]["quartiles"] == pytest.approx([1.5, 2, 2.5])
    assert overlap["panels"][2]["quartiles"][2] == pytest.approx((2 / 3 + 1) / 2)
    for measure in (overlap, length):
        assert [sum(panel["counts"]) for panel in measure["panels"]] == [1, 1, 3]
        assert all(max(panel["heights"]) == 1 for panel in measure["panels"])


def test_every_bar_is_drawn_inside_its_picture(write):
    text = write()
    bars = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', text)
    assert len(bars) == 4
    for x, y, width, height in (map(float, bar) for bar in bars):
        assert x >= 10
        assert x + width <= 290
        assert y == pytest.approx(98 - height)
        assert height == 90
    assert text.count('role="img" aria-label="Word overlap of ') == 2


def test_books_cleaning_and_failed_pages(write):
    cells = Page(write()).cells
    start = cells.index("book")
    assert cells[start : start + 16] == [
        "book", "pages", "sentences", "duplicates", "valves <&>", "3", "40", "0", "rhythm", "2", "25", "1",
        "all", "5", "65", "1",
    ]  # fmt: skip
    assert cells[-2:] == ["page numbers", "12"]
    failed = [{"file": "scan.pdf", "page": page, "detail": "timeout"} for page in range(1, 121)]
    text = write(statistics={**STATISTICS, "ocr": {"failed": 120}, "failed_pages": failed})
    assert "could not read: 120" in text
    assert "The first 100 of 120." in text
    assert Page(text).cells[-3:] == ["scan.pdf", "100", "timeout"]


def test_a_run_without_paraphrases_has_a_page(write):
    text = write([], [], {})
    Page(text)
    for words in ("No paraphrase was read", "Nothing was refused", "No paraphrase was kept", "No book was read"):
        assert words in text


def test_generators_are_named_as_the_merging_names_them(tmp_path):
    file = tmp_path / "writer.jsonl"
    file.write_text(
        '{"original": "The mitral valve has two leaflets.", "paraphrase": "Two leaflets form the mitral valve."}\n'
        '{"original": "The mitral valve has two leaflets.", "paraphrase": "The mitral valve has two leaflets."}\n'
        '{"sentence": "The apex is akinetic.", "paraphrased": "The apex is akinetic.", "model": "m"}\n'
        "{broken\n"
    )
    merged = merge_paraphrases([file], [], **LIMITS)
    assert [generator_of(pair) for pair in merged.pairs] == ["writer"]
    assert [generator_of(row["row"], row["file"]) for row in merged.rejected] == ["writer", "m", "writer"]
    assert [texts_of(row["row"]) is None for row in merged.rejected] == [False, False, True]


def test_the_shipped_paraphrases_make_a_page_with_their_deliberate_failures(root, write):
    files = sorted((root / "data/sample/paraphrases").glob("*.jsonl"))
    merged = merge_paraphrases(files, [], **LIMITS)
    text = write(merged.pairs, merged.rejected)
    page = Page(text)
    rows = sum(1 for file in files for _ in parse_jsonl(file))
    assert f"{len(merged.pairs):,} of {rows:,} paraphrase rows were kept" in text
    for reason in ("prompt_echo", "refusal", "laterality_changed", "numbers_changed"):
        assert f"reason-{reason}" in page.ids


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 7), (1, 3), (412, 1000), (3, 100_000)])
def test_interval_of_a_share_is_that_of_scipy(count, total):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
