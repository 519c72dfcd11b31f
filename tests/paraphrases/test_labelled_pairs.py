"""Precision and recall of the gates on hand-labelled pairs; the README states the figures of the test half."""

import json
from collections import Counter
from pathlib import Path

import pytest

from cardioembed.config import Settings
from cardioembed.paraphrases.fidelity import check_paraphrase

ROWS = [
    json.loads(line)
    for line in Path(__file__).with_name("labelled_pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
LIMITS = Settings().merge.model_dump(
    include={"min_characters", "max_characters", "min_length_ratio", "max_length_ratio", "language"}
)


def verdicts(split):
    """(wrong refused, sound refused, wrong, sound)."""
    refused = [
        (row["label"] != "faithful", check_paraphrase(row["original"], row["paraphrase"], **LIMITS) is not None)
        for row in ROWS
        if row["split"] == split
    ]
    counts = Counter(refused)
    return counts[True, True], counts[False, True], counts[True, True] + counts[True, False], len(refused)


def test_labels_are_many_of_both_kinds_and_every_category_is_in_both_halves():
    assert len(ROWS) >= 300
    by_split = {
        split: Counter(row["label"] for row in ROWS if row["split"] == split) for split in ("development", "test")
    }
    assert by_split["development"].keys() == by_split["test"].keys()
    assert all(min(counts.values()) >= 7 and counts["faithful"] > 100 for counts in by_split.values())
    assert len({row["original"] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("split", "precision", "recall"), [("development", 0.97, 0.9), ("test", 0.96, 0.8)])
def test_gates_refuse_what_is_wrong_and_little_else(split, precision, recall):
    hits, false_alarms, wrong, total = verdicts(split)
    assert total > 200
    assert hits / (hits + false_alarms) >= precision
    assert hits / wrong >= recall
