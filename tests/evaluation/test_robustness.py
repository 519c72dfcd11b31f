import re

import numpy as np
import pytest
from texts import SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.evaluation.perturbations import (
    abbreviations,
    contracted,
    expanded,
    first_half,
    generator_of,
    mistyped,
    perturbed,
    without_punctuation,
)
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.robustness import MOST_ANCHORS, Robustness, changed_anchors, draw_anchors

SAMPLING = Sampling(200, 1)
PERTURBATIONS = {
    "upper_case", "lower_case", "typos", "contracted_abbreviations", "expanded_abbreviations", "truncation",
    "no_punctuation",
}  # fmt: skip


def edit_distance(one: str, other: str) -> int:
    """Levenshtein with swaps of neighbours (optimal string alignment)."""
    d = np.zeros((len(one) + 1, len(other) + 1), int)
    d[:, 0], d[0, :] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (one[i - 1] != other[j - 1]))
            if min(i, j) > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


def test_typos_are_one_to_three_slips():
    counts = set()
    for seed in range(60):
        text = SENTENCES[seed % len(SENTENCES)]
        counts.add(edit_distance(text, mistyped(text, np.random.default_rng(seed))))
    assert counts == {1, 2, 3}


def test_typos_spare_numbers_short_words_abbreviations_and_first_letters():
    text = "In LVEF HFpEF CHA2DS2 4000mg cm2 and the 12 500 we say valve"
    found = {mistyped(text, np.random.default_rng(seed)) for seed in range(400)}
    assert all(one.startswith(text.removesuffix("alve")) for one in found)
    slips = {one.removeprefix(text.removesuffix("valve")) for one in found}
    # Each kind of slip: swapped, dropped, doubled, a neighbouring key; and no other.
    assert {"vlave", "vave", "vallve", "vakve"} <= slips
    assert all(edit_distance("valve", slip) == 1 for slip in slips)
    substituted = {slip for slip in slips if len(slip) == 5 and sorted(slip) != sorted("valve")}
    neighbours = {"a": "qwsz", "l": "kop", "v": "cfgb", "e": "wrsd"}
    allowed = {"valve"[:i] + k + "valve"[i + 1 :] for i in range(1, 5) for k in neighbours["valve"[i]]}
    assert substituted == allowed
    assert mistyped("LVEF < 35 %", np.random.default_rng(0)) == "LVEF < 35 %"


def test_abbreviations_are_many_regular_and_told_apart():
    known = abbreviations()
    assert 55 <= len(known) <= 80
    names = [name.lower() for spellings in known.values() for name in spellings]
    assert len(set(names)) == len(names)
    for short in known:
        assert re.fullmatch(r"[A-Z][A-Za-z]*[A-Z]", short), short
    assert not {"AS", "MR", "PE", "LAD", "PDA", "MRA"} & set(known)


def test_every_abbreviation_goes_there_and_back():
    for short, names in abbreviations().items():
        text = f"We measured {names[0]} twice."
        assert contracted(text) == f"We measured {short} twice."
        assert expanded(contracted(text)) == text
        for name in names[1:]:
            assert contracted(f"We measured {name} twice.") == f"We measured {short} twice."
        assert contracted(expanded(f"Some {short}s.")) == f"Some {short}s." != expanded(f"Some {short}s.")


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("Atrial fibrillation is common.", "AF is common."),
        ("A left ventricular ejection fraction below 35 %.", "An LVEF below 35 %."),
        ("He had a non-ST-elevation myocardial infarction.", "He had an NSTEMI."),
        ("It was an ST-elevation myocardial infarction.", "It was a STEMI."),
        ("Two abdominal aortic aneurysms.", "Two AAAs."),
        ("Dilated cardiomyopathies differ.", "DCMs differ."),
        ("Of deep vein thromboses, few.", "Of DVTs, few."),
        ("In ventricular tachycardia/ventricular fibrillation, shock.", "In VT/VF, shock."),
        ("It follows sustained ventricular tachycardia.", "It follows sustained VT."),
    ],
)
def test_contraction_and_expansion(full, short):
    assert contracted(full) == short
    assert expanded(short) == full


def test_abbreviations_stay_where_they_would_mislead():
    for text in (
        "ICD-10 and LDL-C and NT-proBNP and Af and hcm and AFs1.",
        "Atrial fibrillation (AF) is common.",
        "Left ventricular assist devices (LVADs) help.",
    ):
        assert expanded(text) == text
    for text in (
        "Atrial fibrillation (AF) is common.",
        "Right and left bundle branch block.",
        "Left or right bundle branch block.",
    ):
        assert contracted(text) == text


def test_truncation_and_punctuation():
    assert first_half("one two three four five") == "one two three"
    assert first_half("alone") == "alone"
    text = (
        'In men (aged 50–60), the ratio was 2:1 — i.e. 1.5, not 2,000; "-20%" is the patient\'s beta-blocker <5 mg/dl.'
    )
    assert without_punctuation(text) == (
        "In men aged 50–60 the ratio was 2:1 ie 1.5 not 2,000 -20% is the patient's beta-blocker <5 mg/dl"
    )


def test_perturbations_are_named_and_reproducible():
    text = "Left ventricular ejection fraction falls in HCM, and in acute coronary syndrome."
    assert set(perturbed(text, 1)) == PERTURBATIONS
    assert perturbed(text, 1) == perturbed(text, 1)
    assert len({perturbed(text, seed)["typos"] for seed in range(10)}) > 1
    assert generator_of(1, "a").random() != generator_of(1, "b").random()


def test_only_changed_anchors_count_and_rare_perturbations_are_left_out():
    anchors = [f"severe stenosis of valve number {i}" for i in range(12)] + ["AF is common", "UPPER CASE"]
    found = changed_anchors(anchors, 1)
    assert set(found) == {"upper_case", "typos", "truncation"}  # no abbreviation or full stop in ten or more
    assert list(found["upper_case"]) == list(range(13))
    assert found["truncation"][0] == "severe stenosis of"
    assert found["typos"][3] == perturbed(anchors[3], 1)["typos"]


def test_drawn_anchors_do_not_depend_on_the_order_of_pairs():
    rows = [{"id": str(i), "anchor": f"text {i}"} for i in range(MOST_ANCHORS + 50)]
    chosen = draw_anchors(rows, 1)
    assert len(set(chosen)) == len(chosen) == MOST_ANCHORS
    turned = draw_anchors(rows[::-1], 1)
    assert [rows[i] for i in chosen] == [rows[::-1][i] for i in turned]
    assert set(draw_anchors(rows, 2)) != set(chosen)
    assert len(draw_anchors(rows[:20], 1)) == 20


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


def pairs() -> list[dict]:
    words = (
        "slow heart rate valve area atrial thrombus demand oxygen joins lesions relieve life usual place show".split()
    )
    rng = np.random.default_rng(1)
    rows = []
    for i in range(30):
        text = " ".join(rng.choice(words, 8)) + "."
        positive = text if i % 3 else " ".join(text.split()[1:])
        rows.append({"id": f"p{i}", "group": f"g{i // 2}", "anchor": text, "positive": positive})
    return rows


def naive_hits(embedder, rows: list[dict], queries: list[str], numbers: list[int]) -> list[float]:
    documents = [embedder.encode(row["positive"]) for row in rows]
    hits = []
    for query, number in zip(queries, numbers, strict=True):
        vector = embedder.encode(query)
        scores = [float(vector @ document) for document in documents]
        rivals = [s for s, row in zip(scores, rows, strict=True) if row["group"] != rows[number]["group"]]
        hits.append(float(scores[number] > max(rivals)))
    return hits


def test_falls_equal_a_loop_over_single_texts(embedder):
    rows = pairs()
    measured = Robustness(rows, 5).measure(embedder, SAMPLING)
    before = naive_hits(embedder, rows, [row["anchor"] for row in rows], list(range(len(rows))))
    names = PERTURBATIONS - {"contracted_abbreviations", "expanded_abbreviations", "lower_case"}
    assert set(measured.estimates) == {f"fall_accuracy@1_{name}" for name in names}
    assert set(measured.slices) == {f"perturbation={name}" for name in names}
    for name in names:
        after = naive_hits(embedder, rows, [perturbed(r["anchor"], 5)[name] for r in rows], list(range(len(rows))))
        fall = measured.estimates[f"fall_accuracy@1_{name}"]
        assert fall.value == pytest.approx(np.mean(before) - np.mean(after))
        assert (fall.n, fall.better, fall.chance) == (30, "lower", None)
        part = measured.slices[f"perturbation={name}"]
        assert part["accuracy@1"].value == pytest.approx(np.mean(after))
        assert len(set(fall.clusters)) == 15
    # Capitals are unknown to this tokenizer, so nothing is left to find a sentence by.
    assert measured.estimates["fall_accuracy@1_upper_case"].value > 0.5
    assert measured.slices["perturbation=upper_case"]["fall_mrr"].value > 0.3


def test_a_perturbation_of_some_anchors_is_measured_on_them_alone(embedder):
    rows = pairs()
    for row in rows[:12]:
        row["anchor"] = row["anchor"].replace(".", " in AF.")
    measured = Robustness(rows, 5).measure(embedder, SAMPLING)
    fall = measured.estimates["fall_accuracy@1_expanded_abbreviations"]
    assert fall.n == 12
    before = naive_hits(embedder, rows, [row["anchor"] for row in rows[:12]], list(range(12)))
    after = naive_hits(embedder, rows, [expanded(row["anchor"]) for row in rows[:12]], list(range(12)))
    assert fall.value == pytest.approx(np.mean(before) - np.mean(after))
    assert sorted(fall.items) == sorted(np.array(before) - np.array(after))
