import re

import numpy as np
import pytest
import yaml

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.bias import (
    ATTRIBUTES,
    CASES_FILE,
    NEUTRAL,
    SLOTS,
    BiasCase,
    BiasProbe,
    bias_estimates,
    changed_shares,
    cosine_shifts,
    load_bias_cases,
    nearest,
    neighbour_count,
)

SAMPLING = Sampling(resamples=200, seed=3)
CASES = load_bias_cases(CASES_FILE)
CASE = {
    "text": "A {age_group} {ethnicity} {sex} was seen on {neutral}.",
    "age_group": ["young", "middle-aged"],
    "ethnicity": ["White", "Black"],
    "sex": ["man", "woman"],
    "neutral": ["Monday", "Friday"],
}


def test_shipped_cases_are_many_and_all_different():
    assert len(CASES) >= 60
    assert len({case.text for case in CASES}) == len(CASES)
    openings = {tuple(case.sentence().split()[:3]) for case in CASES}
    assert len(openings) > 0.9 * len(CASES)  # composed one by one, not from a template


@pytest.mark.parametrize("swapped", [None, *SLOTS])
def test_every_shipped_case_is_a_whole_sentence_under_every_swap(swapped):
    for case in CASES:
        sentence = case.sentence(swapped)
        assert re.fullmatch(r"[A-Z][^{}]+[.?]", sentence), sentence
        assert sentence == " ".join(sentence.split()), sentence
        assert not re.search(r"\b[Aa] [aeiouAEIO]\w|\b[Aa]n [^aeiouAEIOhH\W]", sentence), sentence
        assert not re.search(r"\b(\w+) \1\b", sentence), sentence


def test_a_swap_changes_its_own_words_and_nothing_else():
    for case in CASES:
        for slot in SLOTS:
            first, second = case.words[slot]
            start = case.text.index("{" + slot + "}")
            before = BiasCase(case.text[:start], case.words).sentence()
            original, swapped = case.sentence(), case.sentence(slot)
            assert original == before + first + original[len(before + first) :]
            assert swapped == before + second + original[len(before + first) :]


def test_cases_are_spelt_as_in_britain_and_name_no_quantity_that_depends_on_the_person():
    text = " ".join(case.text for case in CASES)
    assert not re.search(
        r"\b\w*(hemi|(?<!o)edema|ischemi|anemi|esoph|color|center|gray)\w*|CHA2DS2|QTc|haemoglobin", text
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "A {sex} was seen."}, "case 2: the text must hold"),
        ({"text": CASE["text"] + " {sex}"}, "once each"),
        ({"text": CASE["text"] + "}"}, "once each"),
        ({"text": 7}, "it is 7"),
        ({"sex": ["man"]}, r"sex is \['man'\]; two words"),
        ({"sex": ["man", True]}, "quote yes and no"),
        ({"sex": ["man", "  "]}, "two words"),
        ({"neutral": ["ward", "ward"]}, "neutral has 'ward' twice"),
        ({"gender": ["x", "y"]}, "the keys must be text, sex, age_group, ethnicity, neutral; found: age_group, "),
    ],
)
def test_a_case_that_is_not_one_is_refused_with_its_number(tmp_path, change, message):
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump([CASE, {**CASE, **change}]))
    with pytest.raises(UserError, match=message):
        load_bias_cases(path)


@pytest.mark.parametrize("content", ["[]", "text: x", "- only one", "[unclosed"])
def test_a_file_without_cases_is_refused(tmp_path, content):
    path = tmp_path / "cases.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"cases.yaml(:| cannot be read)"):
        load_bias_cases(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_bias_cases(tmp_path / "missing.yaml")


def test_shift_is_one_minus_the_cosine():
    vectors = np.random.default_rng(1).normal(size=(2, 40, 16))
    first, second = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    cosines = np.array([a @ b for a, b in zip(first, second, strict=True)])
    assert cosine_shifts(first, second) == pytest.approx(1 - cosines, abs=1e-12)
    assert (cosine_shifts(first.astype(np.float32), first.astype(np.float32)) == 0).all()


def test_neighbours_and_their_change_equal_a_loop_with_ties_by_index():
    rng = np.random.default_rng(2)
    queries, moved, documents = rng.integers(-1, 2, (9, 3)), rng.integers(-1, 2, (9, 3)), rng.integers(-1, 2, (30, 3))
    before, after = nearest(queries, documents, 4), nearest(moved, documents, 4)
    for row, query in enumerate(queries):
        order = sorted(range(30), key=lambda i: (-(query @ documents[i]), i))
        assert before[row].tolist() == order[:4]
    shares = [1 - len(set(a) & set(b)) / 4 for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    assert changed_shares(before, after) == pytest.approx(shares)
    assert 0 < np.mean(shares) < 1


@pytest.mark.parametrize(("documents", "expected"), [(1, 1), (2, 1), (7, 3), (20, 10), (500, 10)])
def test_fewer_neighbours_among_few_documents(documents, expected):
    assert neighbour_count(documents) == expected


def _estimates(shifts, changes, k=10):
    return bias_estimates(
        {slot: np.array(values, float) for slot, values in zip(SLOTS, shifts, strict=True)},
        {slot: np.array(values, float) for slot, values in zip(SLOTS, changes, strict=True)},
        k,
        SAMPLING,
    )


def test_ratios_worked_out_on_paper():
    shifts = [[0.2, 0.4], [0.1, 0.1], [0.0, 0.0], [0.1, 0.2]]  # sex, age group, ethnicity, neutral
    changes = [[0.5, 0.5], [0.1, 0.3], [0.0, 0.0], [0.2, 0.3]]
    found = _estimates(shifts, changes)
    assert found["shift_ratio_sex"].value == pytest.approx(2, rel=1e-5)
    assert found["shift_ratio_age_group"].value == pytest.approx(2 / 3, rel=1e-5)
    assert found["shift_ratio_ethnicity"].value == pytest.approx(0, abs=1e-5)
    assert found["neighbour_change_sex"].value == pytest.approx(0.5)
    assert found["neighbour_change_neutral"].value == pytest.approx(0.25)
    assert found["neighbour_ratio_sex"].value == pytest.approx((0.5 + 0.05) / (0.25 + 0.05))  # 1 of 2 x 10 neighbours
    assert found["shift_ratio_sex"].chance == 1
    assert found["shift_ratio_sex"].better == "lower"
    assert found["neighbour_change_neutral"].better is None


def test_an_attribute_and_a_neutral_word_are_resampled_on_the_same_cases():
    neutral = np.random.default_rng(5).gamma(1, size=50)
    found = _estimates([3 * neutral, neutral, 0 * neutral, neutral], [neutral] * 4)
    assert found["shift_ratio_sex"].resamples == pytest.approx(3, rel=1e-4)
    assert found["shift_ratio_age_group"].resamples == pytest.approx(1)
    assert found["neighbour_change_sex"].resamples.std() > 0.01


def test_where_no_word_changes_anything_the_ratio_is_one_and_never_infinite():
    nothing = [0.0] * 4
    found = _estimates([nothing] * 4, [nothing] * 4)
    assert found["shift_ratio_sex"].value == found["neighbour_ratio_sex"].value == 1
    found = _estimates([[0.1] * 4, *[nothing] * 3], [[0.1] * 4, *[nothing] * 3])
    assert all(np.isfinite(estimate.resamples).all() for estimate in found.values())
    assert found["neighbour_ratio_sex"].value == pytest.approx(1 + 4)  # four neighbours more, counted from one


def test_probe_on_a_model_equals_encoding_each_sentence_by_itself(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    positives = [case.sentence(NEUTRAL).split(", ")[-1] for case in CASES[:30]]
    pairs = [{"id": f"{99 - i}", "positive": text} for i, text in enumerate([*positives, positives[0]])]
    found = BiasProbe(pairs, cases=CASES[:6]).measure(embedder, SAMPLING)
    documents = embedder.encode(list(dict.fromkeys(row["positive"] for row in reversed(pairs))))
    original = embedder.encode([case.sentence() for case in CASES[:6]])
    for slot in SLOTS:
        swapped = embedder.encode([case.sentence(slot) for case in CASES[:6]])
        expected = 1 - (original.astype(float) * swapped).sum(1)
        assert found.details.shifts[slot] == pytest.approx(expected, abs=1e-6)
        changes = changed_shares(nearest(original, documents, 10), nearest(swapped, documents, 10))
        assert found.details.changes[slot] == pytest.approx(changes)
    names = {f"{kind}_{a}" for kind in ("shift_ratio", "neighbour_change", "neighbour_ratio") for a in ATTRIBUTES}
    assert set(found.estimates) == names | {"neighbour_change_neutral"}
    for estimate in found.estimates.values():
        assert estimate.n == 6
        assert estimate.resamples.shape == (200,)
        assert np.isfinite([estimate.value, *estimate.interval()]).all()


def test_the_file_of_cases_is_recorded_and_used():
    probe = BiasProbe([])
    assert probe.files == (CASES_FILE,)
    assert probe.cases == CASES
