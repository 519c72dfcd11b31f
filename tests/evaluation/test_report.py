"""Page, terminal table and summary of both kinds of outcome, from made-up vectors and real estimates."""

import base64
import copy
import re
from html.parser import HTMLParser

import jsonschema
import pytest
from synthetic_outcomes import STUDY, make_comparison, make_pair

from cardioembed.evaluation.document import schema
from cardioembed.evaluation.report import html_report
from cardioembed.evaluation.summary import reading, summary_sentences, terminal_table
from cardioembed.evaluation.tables import Cell, estimate_cell, forgetting, number, p_text, pair_sections, verdict
from cardioembed.records import read_json


@pytest.fixture(scope="module")
def pair():
    return make_pair()


@pytest.fixture(scope="module")
def comparison():
    return make_comparison(STUDY)


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    pair.write(folder, run="runs/<x>", settings="seed: 1 # <b>")
    return folder


def page_of(outcome):
    return html_report(outcome.document, outcome.results, [], run="r", settings="")


def change(low, high, better="higher"):
    return {"value": (low + high) / 2, "ci95": [low, high], "n": 50, "better": better}


def test_outcome_writes_numbers_page_and_figures(pair, written):
    assert read_json(written / "metrics.json") == pair.document
    names = {path.stem for path in (written / "figures").iterdir()}
    assert {path.name for path in (written / "figures").iterdir()} == {
        f"{n}.{k}" for n in names for k in ("png", "svg")
    }
    images = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", (written / "report.html").read_text())
    files = {path.read_bytes() for path in (written / "figures").glob("*.png")}
    assert {base64.b64decode(image) for image in images} == files


@pytest.mark.parametrize("kind", ["pair", "comparison"])
def test_documents_follow_the_schema(kind, request):
    jsonschema.validate(request.getfixturevalue(kind).document, schema())


def test_page_is_one_offline_file_with_escaped_text(written):
    page = (written / "report.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert not re.search(r"""(src|href)=["'](https?:)?//|<script|@import|url\(""", page)
    assert "anchor &lt;" in page
    assert "anchor <" not in page
    assert "runs/&lt;x&gt;" in page
    assert "seed: 1 # &lt;b&gt;" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


class Structure(HTMLParser):
    """Open tags, and what a reader of the page by ear or keyboard needs."""

    def __init__(self):
        super().__init__()
        self.open, self.headers, self.images, self.details = [], [], [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "th":
            self.headers.append(attributes.get("scope"))
        if tag == "img":
            self.images.append(attributes.get("alt"))
        if tag == "summary":
            assert self.open[-1] == "details"
            self.details += 1
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["pair", "comparison"])
def test_page_is_well_formed_and_can_be_read_without_eyes(kind, request, written):
    page = (written / "report.html").read_text() if kind == "pair" else page_of(request.getfixturevalue(kind))
    structure = Structure()
    structure.feed(page)
    assert not structure.open
    assert set(structure.headers) == {"col", "row"}
    assert all(structure.images)
    assert structure.details > 3


def test_every_evaluation_and_metric_is_in_page_and_terminal(pair, comparison):
    for outcome in (pair, comparison):
        page = page_of(outcome)
        for evaluation in outcome.document["evaluations"].values():
            assert evaluation["title"] in page
    table = terminal_table(pair.document)
    for metrics in pair.document["delta"].values():
        assert all(metric in table for metric in metrics)
    assert "chance" in table


def test_terminal_shows_all_models_and_main_metrics_in_lines_that_fit(comparison):
    table = terminal_table(comparison.document)
    for model in comparison.document["models"]:
        cell = comparison.document["models"][model]["sts_demo"]["spearman_cosine"]
        assert re.search(rf"^{re.escape(model)}.*{cell['value']:.4f}", table, re.M)
    assert all(evaluation in table for evaluation in comparison.document["evaluations"])
    assert max(map(len, table.splitlines())) <= 120


def test_summary_says_rise_fall_or_neither_by_the_interval(pair):
    better, worse, same = pair.document, make_pair(0.8, 1.6).document, make_pair(0.8, 0.8).document
    assert all(len(summary_sentences(document)) == 3 for document in (better, worse, same))
    assert "a rise (" in summary_sentences(better)[0]
    assert "a fall (" in summary_sentences(worse)[0]
    assert "no clear change (+0.0000" in summary_sentences(same)[0]


def test_summary_says_if_general_benchmarks_fell(pair):
    lost, won, same = (summary_sentences(o.document)[2] for o in (pair, make_pair(0.8, 1.6), make_pair(0.8, 0.8)))
    assert lost.startswith("Training cost general ability: the adapted model fell on sts_demo spearman_cosine (-")
    assert won.startswith("No general benchmark clearly fell: the adapted model rose on sts_demo")
    assert "did not clearly change on sts_demo" in same


def test_summary_says_what_was_not_measured(pair):
    document = copy.deepcopy(pair.document)
    del document["delta"]["sts_demo"], document["delta"]["concept_separation"]
    assert "not measured (evaluate.concept_pairs)" in summary_sentences(document)[1]
    assert "No general benchmark was run" in summary_sentences(document)[2]


def test_an_evaluation_that_could_not_run_is_said_and_no_zero(pair):
    outcome = copy.deepcopy(pair)
    del outcome.document["delta"]["sts_demo"]
    for model in ("base", "adapted"):
        del outcome.document["models"][model]["sts_demo"]
    section = next(s for s in pair_sections(outcome.document) if s.title == "Similarity of sentences: demo")
    assert section.notes == ["Not measured: it could not be run."]
    assert not section.tables
    assert "not measured: it could not be run" in terminal_table(outcome.document)


def test_comparison_summary_names_the_best_and_the_losses(comparison):
    best, gains, losses = summary_sentences(comparison.document)
    assert best.startswith("Of 6 models Qwen3-Embedding-8B-adapted-on-six-cardiology-books-rank-16 finds most")
    assert "clearly rose for 3 of 3 adapted models and clearly fell for 0" in gains
    assert losses.startswith("3 of 3 results on general benchmarks clearly fell by training")


def test_comparison_page_shows_wins_ranks_and_tests(comparison):
    page = page_of(comparison)
    wins = comparison.document["comparison"]["head_to_head"]["minilm-laptop"]["all-MiniLM-L6-v2 (base)"]
    assert f'{wins["wins"]} of {wins["metrics"]} <span class="ci">{wins["clear_wins"]} clear</span>' in page
    for heading in ("Ranks by interval", "Do models differ in separation?", "Forgetting", "Zero-shot against adapted"):
        assert heading in page
    rows = re.findall(r'<tr><th scope="row">[^<]+ - [^<]+</th>', page)
    assert len(rows) == 15  # pairs of 6 models
    assert "Separation and dimension: Pearson r = " in page


def test_forgetting_holds_general_benchmarks_only(comparison):
    rows = forgetting(comparison.document)
    assert {row["evaluation"] for row in rows} == {"sts_demo"}
    assert {row["model"] for row in rows} == set(STUDY)
    assert all(row["value"] == pytest.approx(
        comparison.document["models"][row["model"]]["sts_demo"][row["metric"]]["value"]
        - comparison.document["models"][STUDY[row["model"]][0]]["sts_demo"][row["metric"]]["value"]
    ) for row in rows)  # fmt: skip


def test_differences_that_are_not_clear_have_a_power_note(pair):
    section = next(s for s in pair_sections(pair.document) if s.title.startswith("Counterfactual"))
    assert len(section.notes) == 1
    assert re.match(r"mean_margin: n = 120: only differences of .* with 80 % power", section.notes[0])


def test_worst_retrieval_errors_come_first():
    outcome = make_pair(0.8, 1.6)
    page = page_of(outcome)
    shown = [int(rank) for rank in re.findall(r'<tr><th scope="row">(\d+)</th><td>anchor', page)]
    ranks = outcome.results["adapted"]["paraphrase_retrieval"].details.ranks.ranks
    assert len(shown) == 20
    assert shown == sorted(ranks, reverse=True)[:20]


def test_worst_counterfactuals_come_first(pair):
    shown = re.findall(r'<tr><th scope="row">([+-][\d.]+)</th><td>\w+</td><td>a &lt;(\d+)&gt;', page_of(pair))
    margins = pair.results["adapted"]["counterfactual_rules"].details.margins
    wrong = sorted(margin for margin in margins if margin <= 0)[:20]
    assert [margin for margin, _ in shown] == [f"{margin:+.3f}" for margin in wrong]
    assert [round(margins[int(row)], 3) for _, row in shown] == [round(margin, 3) for margin in wrong]


def test_no_errors_no_table(pair):
    perfect = make_pair(0.8, 0.05)
    assert "adapted: 0 of 120 anchors do not find their own paraphrase first" in page_of(perfect)
    assert "most like it instead" not in page_of(perfect)


@pytest.mark.parametrize(
    ("low", "high", "better", "expected", "word"),
    [
        (0.1, 0.2, "higher", "better", "a rise"),
        (-0.2, -0.1, "higher", "worse", "a fall"),
        (0.1, 0.2, "lower", "worse", "a rise"),
        (-0.2, -0.1, "lower", "better", "a fall"),
        (-0.1, 0.2, "higher", "", "no clear change"),
        (0.0, 0.2, "higher", "", "no clear change"),
        (0.1, 0.2, None, "", "a rise"),
    ],
)
def test_verdict_and_words(low, high, better, expected, word):
    assert verdict(change(low, high, better)) == expected
    assert reading(change(low, high, better)).startswith(word)


def test_numbers_and_p_values():
    assert [number(x) for x in (0.12345, 12.346, 345.67, 22713216.0, 384.0, 1.0)] == [
        "0.1235", "12.35", "345.7", "22,713,216", "384", "1.0000",
    ]  # fmt: skip
    assert number(-0.5, signed=True) == "-0.5000"
    assert [p_text(p) for p in (None, 0.0004, 0.0312)] == ["–", "< 0.001", "0.031"]
    assert estimate_cell(None) == Cell("–")
