import json

import numpy as np
import pytest
from texts import SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.counterfactuals import (
    CounterfactualAccuracy,
    counterfactual_items,
    counterfactuals_of_pairs,
    load_counterfactuals,
)
from cardioembed.lexicon import CATEGORIES
from cardioembed.triplets.counterfactuals import counterfactuals

SAMPLING = Sampling(200, 1)
PAIRS = [
    (
        "Severe aortic stenosis narrows the valve area below 1.0 cm2.",
        "A valve area under 1.0 cm2 means severe stenosis.",
    ),
    ("Left atrial enlargement increases the risk of stroke.", "Stroke is likelier when the left atrium is large."),
    ("Loop diuretics relieve congestion but do not prolong life.", "Survival is no better on loop diuretics."),
    ("Warfarin is preferred in mechanical mitral valves.", "Mechanical mitral prostheses call for warfarin."),
    ("Right bundle branch block widens the QRS complex beyond 120 ms.", "In RBBB the QRS exceeds 120 ms."),
    ("Hm.", "Hm, yes."),
]


def pairs() -> list[dict]:
    return [
        {"id": f"p{i}", "group": f"g{i // 2}", "anchor": anchor, "positive": positive}
        for i, (anchor, positive) in enumerate(PAIRS)
    ]


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu", positive_prompt="passage: ")


def row(anchor: str, positive: str, counterfactual: str, category: str = "laterality", **more) -> dict:
    return {"anchor": anchor, "positive": positive, "counterfactual": counterfactual, "category": category, **more}


def test_items_against_a_loop_with_ties():
    rng = np.random.default_rng(1)
    cosines = rng.integers(0, 4, (3, 500)) / 4
    found = counterfactual_items(*cosines)
    for i, (ap, ac, pc) in enumerate(cosines.T):
        assert found["accuracy"][i] == (ap > ac)
        assert found["accuracy_from_positive"][i] == (ap > pc)
        assert found["accuracy_both"][i] == (ap > max(ac, pc))
        assert found["mean_margin"][i] == ap - ac
    assert (cosines[0] == cosines[1]).any()


def test_differences_within_the_rounding_of_float32_are_ties():
    margins = np.array([5e-7, 2e-6])
    assert counterfactual_items(0.5 + margins, np.full(2, 0.5), np.full(2, 0.5))["accuracy"].tolist() == [0, 1]


def test_measures_equal_vectors_taken_one_by_one(embedder):
    rows = counterfactuals_of_pairs(pairs(), 3)
    measured = CounterfactualAccuracy(rows, "rules", "Rules").measure(embedder, SAMPLING)
    margins, both = [], []
    for one in rows:
        a, p, c = (embedder.encode("passage: " + one[key]) for key in ("anchor", "positive", "counterfactual"))
        margins.append(float(a @ p) - float(a @ c))
        both.append(float(a @ p) > max(float(a @ c), float(p @ c)))
    np.testing.assert_allclose(measured.details.margins, margins, atol=1e-6)
    assert measured.details.margins.dtype == np.float64
    assert measured.details.rows is rows
    estimates = measured.estimates
    assert estimates["mean_margin"].value == pytest.approx(np.mean(margins), abs=1e-6)
    assert estimates["accuracy"].value == np.mean(np.array(margins) > 0)
    assert estimates["accuracy_both"].value == np.mean(both)
    assert {name: estimate.chance for name, estimate in estimates.items()} == {
        "accuracy": 0.5, "mean_margin": 0.0, "accuracy_from_positive": 0.5, "accuracy_both": pytest.approx(1 / 3),
    }  # fmt: skip


def test_each_text_is_encoded_once(embedder, monkeypatch):
    seen: list[str] = []
    tokenize = embedder.tokenize
    monkeypatch.setattr(embedder, "tokenize", lambda texts, prompt: seen.extend(texts) or tokenize(texts, prompt))
    rows = [row(SENTENCES[0], SENTENCES[1], text) for text in SENTENCES[2:]]
    CounterfactualAccuracy(rows, "n", "t").measure(embedder, SAMPLING)
    assert sorted(seen) == sorted(SENTENCES)


def test_a_perfect_paraphrase_wins_and_an_unseen_change_fails(embedder):
    won = [row(text, text, "No " + text, "negation") for text in SENTENCES]
    assert CounterfactualAccuracy(won, "n", "t").measure(embedder, SAMPLING).estimates["accuracy"].value == 1
    # The change lies beyond the 64 tokens that the model reads, in texts of several lengths in characters.
    long = [" ".join([text] * 20) for text in SENTENCES]
    cut = [row(text + " left", text + " on the left side", text + " right") for text in long]
    estimates = CounterfactualAccuracy(cut, "n", "t").measure(embedder, SAMPLING).estimates
    assert estimates["accuracy"].value == estimates["accuracy_from_positive"].value == 0


def test_rows_of_a_group_are_resampled_together_and_others_alone(embedder):
    rows = [row(text, SENTENCES[i - 1], SENTENCES[i - 2]) for i, text in enumerate(SENTENCES)]
    for i in (0, 3, 5):
        rows[i]["group"] = "row 1"  # no name of a group collides with a row without one
    estimate = CounterfactualAccuracy(rows, "n", "t").measure(embedder, SAMPLING).estimates["accuracy"]
    clusters = estimate.clusters
    assert len({clusters[0], clusters[3], clusters[5]}) == 1
    assert len(set(clusters)) == 4


def test_slices_are_categories_of_ten_rows_or_more(embedder):
    texts = [f"{text} Case {n}." for n in range(4) for text in SENTENCES]
    categories = ["negation"] * 10 + ["entity"] * 9 + ["role"] * 5
    turned = [np.roll(texts, -shift).tolist() for shift in (0, 1, 5)]
    rows = [row(*one) for one in zip(*turned, categories, strict=True)]
    measured = CounterfactualAccuracy(rows, "n", "t").measure(embedder, SAMPLING)
    assert list(measured.slices) == ["category=negation"]
    part = measured.slices["category=negation"]
    assert set(part) == {"accuracy", "mean_margin"}
    assert part["mean_margin"].value == pytest.approx(measured.details.margins[:10].mean())
    assert part["accuracy"].n == 10
    assert part["accuracy"].chance == 0.5


def test_rule_made_rows_are_edits_of_their_anchor_and_keep_id_and_group():
    found = counterfactuals_of_pairs(pairs(), 3)
    assert [one["id"] for one in found] == ["p0", "p1", "p2", "p3", "p4"]  # nothing in "Hm." can be changed
    for one, pair in zip(found, pairs(), strict=False):
        assert {key: one[key] for key in pair} == pair
        edits = {edit.text: edit for edit in counterfactuals(pair["anchor"])}
        assert edits[one["counterfactual"]].category == one["category"]
        assert edits[one["counterfactual"]].edit == one["edit"]


def test_rule_made_rows_depend_on_seed_and_row_alone():
    found = counterfactuals_of_pairs(pairs(), 3)
    assert counterfactuals_of_pairs(pairs()[::-1], 3) == found[::-1]
    assert counterfactuals_of_pairs(pairs()[2:3], 3) == found[2:3]
    assert any(counterfactuals_of_pairs(pairs(), seed) != found for seed in range(4, 10))
    same_anchor = [{**pairs()[0], "id": f"copy {i}"} for i in range(20)]
    assert len({one["counterfactual"] for one in counterfactuals_of_pairs(same_anchor, 3)}) > 1


def test_an_edit_that_is_the_positive_is_not_taken():
    pair = pairs()[1]
    edits = counterfactuals(pair["anchor"])
    for edit in edits:
        like = [{**pair, "id": str(i), "positive": edit.text.upper()} for i in range(20)]
        drawn = {one["counterfactual"] for one in counterfactuals_of_pairs(like, 1)}
        assert edit.text not in drawn
        assert drawn


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_file_is_read_with_its_ids_and_without(tmp_path):
    rows = [row("a b", "c d", "e f", id=7), row("a b", "c d", "g h", "role", group="x")]
    found = load_counterfactuals(write(tmp_path / "own.jsonl", rows))
    assert found[0]["id"] == "7"
    assert len(found[1]["id"]) == 16
    assert found[1]["group"] == "x"
    assert "group" not in found[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"category": "colour"}, f"row 2: category 'colour' is unknown; allowed: {', '.join(CATEGORIES)}"),
        ({"category": ["role"]}, r"row 2: category \['role'\] is unknown"),
        ({"positive": " "}, "row 2: positive is ' ', a text is needed"),
        ({"counterfactual": 5}, "row 2: counterfactual is 5, a text is needed"),
        ({"counterfactual": "c d "}, "row 2: counterfactual and positive are the same text, 'c d'; change one"),
        ({"counterfactual": "a b"}, "row 2: counterfactual and anchor are the same text"),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, message):
    rows = [row("a b", "c d", "e f"), {**row("a b", "c d", "e f"), **bad}]
    with pytest.raises(UserError, match=message):
        load_counterfactuals(write(tmp_path / "own.jsonl", rows))


def test_too_few_rows_and_a_missing_key(tmp_path):
    with pytest.raises(UserError, match=r"own.jsonl: 1 rows; at least 2"):
        load_counterfactuals(write(tmp_path / "own.jsonl", [row("a b", "c d", "e f")]))
    with pytest.raises(UserError, match="line 1: key 'category' is missing"):
        load_counterfactuals(write(tmp_path / "own.jsonl", [{"anchor": "a", "positive": "b", "counterfactual": "c"}]))
