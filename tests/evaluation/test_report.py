import base64
import re

import numpy as np
import pytest

from cardioembed.evaluation.figures import all_figures
from cardioembed.evaluation.report import html_report, metrics_document, summary_sentences, terminal_table
from cardioembed.evaluation.retrieval import rank_pairs, retrieval_estimates
from cardioembed.evaluation.similarity import KINDS, separation_estimates, sts_estimates
from cardioembed.evaluation.suite import Result


def result(noise, seed=0):
    rng = np.random.default_rng(seed)
    anchors = rng.normal(size=(80, 16))
    positives = anchors + noise * rng.normal(size=(80, 16))
    anchors, positives = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (anchors, positives))
    names = [f"{i:03d}" for i in range(80)]
    ranks = rank_pairs(anchors, positives, names, names, names)
    cosines = {kind: rng.uniform(0.1, 0.9, 12) - noise / 10 * (kind == "different") for kind in KINDS}
    return Result(
        {
            "paraphrase_retrieval": retrieval_estimates(ranks, names, resamples=200, seed=1),
            "concept_separation": separation_estimates(cosines, resamples=200, seed=1),
            "sts_demo": sts_estimates(rng.uniform(size=30), np.arange(30.0), resamples=200, seed=1),
        },
        ranks,
        cosines,
    )


@pytest.fixture(scope="module")
def results():
    return {"base": result(3.0), "adapted": result(0.8)}


@pytest.fixture(scope="module")
def pairs():
    return [{"anchor": f"anchor <{i}>", "positive": f"positive & {i}"} for i in range(80)]


def test_document_has_the_published_shape(results):
    document = metrics_document(results)
    cell = document["models"]["adapted"]["paraphrase_retrieval"]["accuracy@1"]
    assert set(cell) == {"value", "ci95", "n", "chance"}
    assert cell["ci95"][0] <= cell["value"] <= cell["ci95"][1]
    delta = document["delta"]["paraphrase_retrieval"]["accuracy@1"]
    before = document["models"]["base"]["paraphrase_retrieval"]["accuracy@1"]["value"]
    assert delta["value"] == pytest.approx(cell["value"] - before)


def test_summary_says_rise_fall_or_neither_by_the_interval(results):
    document = metrics_document(results)
    assert "a rise (" in summary_sentences(document)[0]
    swapped = metrics_document({"base": results["adapted"], "adapted": results["base"]})
    assert "a fall (" in summary_sentences(swapped)[0]
    same = metrics_document({"base": results["base"], "adapted": results["base"]})
    assert "no clear change (+0.0000" in summary_sentences(same)[0]


def test_terminal_table_names_every_metric(results):
    table = terminal_table(metrics_document(results))
    for name in ("accuracy@1", "mrr", "separation", "negation_gap", "spearman_cosine", "chance"):
        assert name in table


def test_report_is_one_offline_file_with_escaped_text(results, pairs):
    figures = all_figures(results)
    page = html_report(
        metrics_document(results), results, pairs, figures, run="runs/x", base="b", resamples=200, settings="seed: 1"
    )
    assert not re.search(r"""(src|href)=["']https?:|<script|@import|url\(""", page)
    assert "anchor &lt;" in page
    assert "anchor <" not in page
    images = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(images) == len(figures) == 4
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)


def test_worst_errors_come_first(results, pairs):
    swapped = {"base": results["adapted"], "adapted": results["base"]}
    page = html_report(metrics_document(swapped), swapped, pairs, {}, run="r", base="b", resamples=1, settings="")
    shown = [int(rank) for rank in re.findall(r"<tr><td>(\d+)</td><td>anchor", page)]
    assert len(shown) == 20
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == results["base"].ranks.ranks.max()
