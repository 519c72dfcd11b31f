"""Counterfactuals that people wrote come before rule-made ones."""

import json

import numpy as np
import pytest

from cardioembed.errors import UserError
from cardioembed.lexicon import CATEGORIES
from cardioembed.records import normalise
from cardioembed.triplets.edit_draws import Edits, read_counterfactuals

ORIGINAL = "No thrombus is seen in the left atrial appendage."
PAIRS = [
    {"original": ORIGINAL, "paraphrase": "The left atrial appendage is free of thrombus."},
    {
        "original": "Severe aortic stenosis is present.",
        "paraphrase": "The aortic valve is tightly narrowed.",
    },
]
WRITTEN = [
    {"original": ORIGINAL, "counterfactual": "A thrombus fills the left atrial appendage.", "category": "negation"},
    {"original": ORIGINAL.upper(), "counterfactual": "No thrombus is seen in the aortic root.", "category": "entity"},
]


def write(folder, rows):
    path = folder / "written.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def edits_of(files, categories=CATEGORIES):
    texts = {"train": [normalise(pair[key]) for pair in PAIRS for key in pair], "test": []}
    return Edits(texts, 8, ["anchor", "positive"], categories, files)


def drawn(edits, rounds):
    found = np.full((len(PAIRS), 0), -1)
    draw = edits.draw("train", PAIRS, 0, np.random.default_rng(0))
    for _ in range(rounds):
        found = np.column_stack([found, draw(np.arange(len(PAIRS)), found)])
    return [[edits.found[i] for i in row if i >= 0] for row in found]


def test_written_ones_come_first_and_rules_fill_up(tmp_path):
    first, other = drawn(edits_of([write(tmp_path, WRITTEN)]), rounds=3)
    assert {edit.text for edit in first[:2]} == {row["counterfactual"] for row in WRITTEN}
    assert [edit.edit for edit in first[:2]] == ["written", "written"]
    assert first[2].edit != "written"
    assert other
    assert all(edit.edit != "written" for edit in other)


def test_only_wanted_categories_are_used(tmp_path):
    first, _ = drawn(edits_of([write(tmp_path, WRITTEN)], ["entity", "laterality"]), rounds=1)
    assert first[0].text == WRITTEN[1]["counterfactual"]


def test_one_that_is_a_text_of_the_corpus_is_passed_over(tmp_path):
    row = {"original": ORIGINAL, "counterfactual": PAIRS[1]["original"], "category": "entity"}
    first, _ = drawn(edits_of([write(tmp_path, [row])]), rounds=1)
    assert first[0].edit != "written"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "polarity"}, "row 1: category 'polarity' is unknown; allowed: negation"),
        ({"counterfactual": ORIGINAL.lower()}, "row 1: the counterfactual says what the sentence says"),
        ({"counterfactual": 3}, "counterfactual"),
    ],
)
def test_mistakes_name_file_and_row(tmp_path, change, message):
    path = write(tmp_path, [{**WRITTEN[0], **change}])
    with pytest.raises(UserError, match=r"written\.jsonl") as caught:
        read_counterfactuals([path], CATEGORIES)
    assert message in str(caught.value)
