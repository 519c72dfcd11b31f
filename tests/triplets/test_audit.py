import copy

import pytest

from cardioembed.triplets.audit import audit_leaks

EIGHT = "one two three four five six seven eight"


def row(name):
    return {
        "id": f"{name}-id",
        "group": f"{name}-group",
        "anchor": f"{name} anchor says this.",
        "positive": f"{name} positive says that.",
        "negatives": [f"{name} negative one.", f"{name} negative two."],
    }


@pytest.fixture
def splits():
    return {"train": [row("a"), row("b")], "validation": [row("c")], "test": [row("d"), row("e")]}


def test_clean_splits_give_zeros_for_every_pair_of_splits(splits):
    counts = audit_leaks(splits, 8)
    assert len(counts) == 12
    assert set(counts.values()) == {0}
    assert {"texts_in_train_and_test", "groups_in_validation_and_test", "word_8_grams_in_train_and_validation"} <= set(
        counts
    )


@pytest.mark.parametrize("first", ["train", "validation"])
@pytest.mark.parametrize(("key", "what"), [("id", "ids"), ("group", "groups")])
def test_planted_id_or_group_is_found(splits, first, key, what):
    splits["test"][0][key] = splits[first][0][key]
    with pytest.raises(AssertionError, match=f"1 {what} are in {first} and in test, for example '.-{key}'"):
        audit_leaks(splits, 8)


@pytest.mark.parametrize("there", ["anchor", "positive", "negatives"])
@pytest.mark.parametrize("here", ["anchor", "positive", "negatives"])
def test_planted_text_is_found_in_every_role_and_in_another_spelling(splits, here, there):
    leak = "Beta-blockers are kept for life."
    for split, key, text in (("train", here, leak), ("test", there, "BETA BLOCKERS are kept, for life")):
        splits[split][-1][key] = [text] if key == "negatives" else text
    with pytest.raises(AssertionError, match="1 texts are in train and in test, for example 'beta blockers are kept"):
        audit_leaks(splits, 8)


@pytest.mark.parametrize(
    ("here", "there"), [("anchor", "negatives"), ("negatives", "positive"), ("positive", "anchor")]
)
@pytest.mark.parametrize(("first", "second"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_planted_run_of_words_is_found_in_every_role(splits, first, second, here, there):
    for split, key, text in ((first, here, f"He counts {EIGHT} and stops."), (second, there, f"Say: {EIGHT.upper()}!")):
        splits[split][-1][key] = [text] if key == "negatives" else text
    with pytest.raises(AssertionError, match=f"1 word 8-grams are in {first} and in {second}, for example '{EIGHT}'"):
        audit_leaks(splits, 8)
    assert audit_leaks(splits, 9)[f"word_9_grams_in_{first}_and_{second}"] == 0


def test_leak_between_train_and_validation_is_found(splits):
    splits["validation"].append(copy.deepcopy(splits["train"][1]))
    with pytest.raises(AssertionError, match="are in train and in validation"):
        audit_leaks(splits, 8)


def test_repeats_within_a_split_are_no_leak(splits):
    splits["train"].append(copy.deepcopy(splits["train"][0]))
    assert audit_leaks(splits, 8)["texts_in_train_and_test"] == 0
