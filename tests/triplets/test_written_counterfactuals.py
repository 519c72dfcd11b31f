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


REWORDED = {**WRITTEN[0], "paraphrase": "Clot lies in the appendage of the left atrium."}
TWO = [REWORDED["counterfactual"], REWORDED["paraphrase"]]


def with_other_splits(files, **others):
    texts = {"train": [normalise(pair[key]) for pair in PAIRS for key in pair]}
    texts |= {name: list(map(normalise, found)) for name, found in others.items()}
    return Edits(texts, 3, ["anchor"], CATEGORIES, files)


def test_opposed_statements_are_written_ones_in_two_wordings(tmp_path):
    edits = edits_of([write(tmp_path, [WRITTEN[1], REWORDED])])
    assert edits.opposed("train", ORIGINAL.upper()) == TWO  # the first written one has one wording
    assert edits.opposed("train", PAIRS[1]["original"]) == []
    assert edits.opposed("train", ORIGINAL) == TWO  # another row of the same sentence has them as well


@pytest.mark.parametrize(
    "other",
    [
        {"test": [TWO[1]]},
        {"test": ["In one of ten, clot lies in the ear."]},
        {"evaluation": ["A thrombus fills the sinus."]},
    ],
)
def test_opposed_statements_share_nothing_with_another_split_or_an_evaluation_set(tmp_path, other):
    path = write(tmp_path, [REWORDED])
    assert with_other_splits([path], test=["Something else is said here."]).opposed("train", ORIGINAL) == TWO
    assert with_other_splits([path], **other).opposed("train", ORIGINAL) == []


def test_an_opposed_statement_of_one_split_is_closed_to_the_others(tmp_path):
    second = {**REWORDED, "original": PAIRS[1]["original"]}
    edits = edits_of([write(tmp_path, [REWORDED, second])])
    assert edits.opposed("test", PAIRS[1]["original"]) == TWO
    assert edits.opposed("train", ORIGINAL) == []


@pytest.mark.parametrize("rewording", [REWORDED["counterfactual"], ORIGINAL.lower(), 3])
def test_a_rewording_that_is_none_is_refused(tmp_path, rewording):
    with pytest.raises(UserError, match=r"written\.jsonl, row 1: 'paraphrase' says in other words"):
        read_counterfactuals([write(tmp_path, [{**REWORDED, "paraphrase": rewording}])], CATEGORIES)
