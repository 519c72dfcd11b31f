"""Figures of both kinds of outcome, from made-up vectors and real estimates."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from synthetic_outcomes import STUDY, make_comparison, make_pair

from cardioembed.evaluation.figures import all_figures
from cardioembed.evaluation.figures.pair import pair_figures
from cardioembed.evaluation.figures.style import bars, canvas, spread_out, style

PAIR = {
    "gains", "retrieval", "pair_similarity", "generalisation", "concept_similarity", "separation",
    "counterfactual_rules_categories", "counterfactual_rules_margins", "robustness", "benchmarks", "slices_length",
    "slices_source", "corpus_composition",
}  # fmt: skip
COMPARISON = {
    "model_comparison", "accuracy_at_k", "mrr", "pair_similarity", "zero_shot_adapted", "waterfall", "before_after",
    "separation", "concept_similarity", "counterfactual_rules", "heat_map", "latency", "throughput",
    "memory_parameters", "speed_separation", "corpus_composition",
}  # fmt: skip


def draw(outcome):
    return {drawing.name: drawing for drawing in all_figures(outcome.document, outcome.results)}


@pytest.fixture(scope="module")
def pair():
    return draw(make_pair())


@pytest.fixture(scope="module")
def comparison():
    return draw(make_comparison(STUDY))


def test_each_kind_of_outcome_has_its_figures(pair, comparison):
    assert set(pair) == PAIR
    assert set(comparison) == COMPARISON


def test_only_what_was_measured_is_drawn():
    outcome = make_pair()
    for task in [task for task in outcome.document["evaluations"] if task != "paraphrase_retrieval"]:
        del outcome.document["evaluations"][task], outcome.document["delta"][task]
        for model in ("base", "adapted"):
            del outcome.document["models"][model][task], outcome.results[model][task]
            outcome.document["slices"][model].pop(task, None)
    assert set(draw(outcome)) == {
        "retrieval",
        "pair_similarity",
        "slices_length",
        "slices_source",
        "corpus_composition",
    }


def test_alternative_text_gives_the_numbers(pair, comparison):
    document = make_pair().document
    for model in ("base", "adapted"):
        value = document["models"][model]["paraphrase_retrieval"]["accuracy@1"]["value"]
        assert f"{model}: accuracy@1 {value:.3f}" in pair["retrieval"].alt
    assert all(label in comparison["model_comparison"].alt for label in STUDY)
    assert all(drawing.caption.endswith(".") for drawing in (*pair.values(), *comparison.values()))


def test_models_stand_from_best_to_worst(comparison):
    cells = {
        model: found["paraphrase_retrieval"]["mrr"]["value"]
        for model, found in make_comparison(STUDY).document["models"].items()
    }
    axis = comparison["mrr"].figure.axes[0]
    shown = [label.get_text().replace("\n", "").replace(" ", "") for label in axis.get_yticklabels()]
    assert shown == [model.replace(" ", "") for model in sorted(cells, key=cells.get, reverse=True)]
    widths = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert widths == pytest.approx(sorted(cells.values(), reverse=True))


def test_files_are_the_same_every_time(pair):
    outcome = make_pair()
    with style():
        drawings = pair_figures(outcome.document, outcome.results)
        again = next(drawing for drawing in drawings if drawing.name == "retrieval")
    for kind in ("svg", "png"):
        assert pair["retrieval"].render(kind) == again.render(kind)
    assert b"<dc:date>" not in pair["retrieval"].render("svg")


def test_pictures_have_a_white_background(comparison):
    image = Image.open(io.BytesIO(comparison["waterfall"].render("png"))).convert("RGB")
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert image.width == 8 * 130


@pytest.mark.parametrize(
    "name", ["model_comparison", "zero_shot_adapted", "throughput", "memory_parameters", "heat_map"]
)
def test_long_names_neither_overlap_nor_leave_the_figure(comparison, name):
    figure = comparison[name].figure
    figure.draw_without_rendering()  # lays it out
    axis = figure.axes[0]
    texts = [text for text in (*axis.get_yticklabels(), *axis.texts) if text.get_text()]
    boxes = [Text.get_window_extent(text) for text in texts]  # without the line from a name to its point
    assert not [
        (one.get_text(), other.get_text())
        for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2)
        if a.overlaps(b)
    ]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1 + 1


def make_cell(value):
    return {"value": value, "ci95": [value - 0.01, value + 0.01], "n": 10, "better": "higher"}


def test_an_axis_that_does_not_start_at_zero_says_so():
    _, axis = canvas(4, 2)
    bars(axis, ["a", "b"], {"x": [make_cell(0.93), make_cell(0.95)]}, {"x": {"color": "red", "hatch": ""}}, "score")
    assert axis.get_xlim()[0] == pytest.approx(0.9)
    assert axis.get_xlabel() == "score (axis starts at 0.90)"


@pytest.mark.parametrize(("values", "chance"), [((0.3, 0.9), None), ((-0.1, 0.4), None), ((0.93, 0.95), 0.5)])
def test_other_bars_start_at_zero(values, chance):
    _, axis = canvas(4, 2)
    cells = {"x": [make_cell(value) for value in values]}
    bars(axis, ["a", "b"], cells, {"x": {"color": "red", "hatch": ""}}, "score", chance=chance)
    assert axis.get_xlim()[0] <= 0
    assert [bar.get_x() + bar.get_width() for bar in axis.patches] == pytest.approx(list(values))
    assert axis.get_xlabel() == "score"


def test_labels_are_moved_apart_in_their_order():
    heights = [0.1, 0.5, 0.5, 0.51, 0.97, 0.99]
    placed = spread_out(heights, 0.08)
    assert min(np.diff(placed)) >= 0.08 - 1e-12
    assert placed[0] == 0.1
    assert max(placed) <= 1
