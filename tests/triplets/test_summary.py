import copy
import re

import pytest

from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.building import Prepared
from cardioembed.triplets.summary import statistics_document, statistics_page


def row(name, words, source, negatives=("distant", "counterfactual")):
    return {
        "id": name,
        "group": f"g{name}",
        "anchor": " ".join(f"{name}a{i}" for i in range(words)),
        "positive": " ".join(f"{name}p{i}" for i in range(words + 1)),
        "negatives": [f"{name} {kind} <negative>" for kind in negatives],
        "negative_kinds": list(negatives),
        "source": source,
        "section": "",
        "model": "writer & co",
    }


@pytest.fixture
def prepared():
    splits = {
        "train": [row("a", 4, "ecg"), row("b", 6, "valves"), row("c", 30, "valves") | {"kind": "passage"}],
        "validation": [row("d", 5, "ecg", ("distant", "distant"))],
        "test": [row("e", 5, "<script>alert(1)</script>")],
    }
    negatives = {
        "train": {"distant": 3, "counterfactual": 3, "counterfactual: negation": 2, "counterfactual: number": 1},
        "validation": {"distant": 2, "counterfactual replaced by distant": 1},
        "test": {"distant": 1, "counterfactual": 1, "counterfactual: negation": 1, "mined_too_near": 4},
    }
    shares = {name: {"asked": 1 / 3, "found": share} for name, share in zip(splits, (0.6, 0.2, 0.2), strict=True)}
    books = {"train": ["ecg"], "validation": ["valves"], "test": ["drugs"]}
    counts = {
        "negatives": negatives, "sentences": 90, "groups": 80, "groups_of_several_sentences": 2, "largest_group": 7,
        "split": {"by": "book", "units": 3, "largest_unit": 9, "shares": shares, "books": books},
    }  # fmt: skip
    removed = [
        {
            "set": "sets/sts.jsonl",
            "reason": "ngram",
            "shared": "x <y> z",
            "field": "anchor",
            "row": {"original": f"Anchor {n}"},
        }
        for n in range(5)
    ] + [
        {
            "set": "the test split",
            "reason": "text_in_test",
            "shared": "s",
            "field": "sentence",
            "row": {"text": "Sent."},
        }
    ]
    return Prepared(splits, removed, counts, ["a warning of <something>"])


def test_document_counts_what_is_in_the_rows(prepared):
    document = statistics_document(prepared, audit_leaks(prepared.splits, 8))
    train = document["splits"]["train"]
    assert (train["triplets"], train["groups"], train["passages"]) == (3, 3, 1)
    assert train["sources"] == {"valves": 2, "ecg": 1}
    assert train["negative_kinds"] == {"distant": 3, "counterfactual": 3}
    assert train["counterfactual_categories"] == {"negation": 2, "number": 1}
    assert train["words"]["anchor"] == {"mean": 13.33, "sd": 11.81, "max": 30}
    assert document["splits"]["validation"]["replaced_negatives"] == {"counterfactual replaced by distant": 1}
    assert document["splits"]["test"]["mined_too_near"] == 4
    assert document["removed"] == [
        {"set": "sets/sts.jsonl", "reason": "ngram", "field": "anchor", "rows": 5},
        {"set": "the test split", "reason": "text_in_test", "field": "sentence", "rows": 1},
    ]
    assert (document["sentences"], document["largest_group"]) == (90, 7)
    assert set(document["leak_audit"].values()) == {0}


def test_histograms_hold_every_text_once_in_its_bin(prepared):
    histograms = statistics_document(prepared, {})["word_histograms"]
    width = histograms["bin_words"]
    assert width == 2
    assert [sum(histograms[key]) for key in ("anchor", "positive", "negative")] == [5, 5, 10]
    anchors = [4, 6, 30, 5, 5]
    assert [histograms["anchor"][n] for n in (2, 3, 15)] == [sum(a // width == n for a in anchors) for n in (2, 3, 15)]


def test_text_longer_than_the_last_bin_is_in_it(prepared):
    prepared.splits["train"] += [row(f"m{n}", 5, "ecg") for n in range(400)]
    prepared.splits["train"].append(row("z", 900, "ecg"))
    histograms = statistics_document(prepared, {})["word_histograms"]
    assert histograms["bin_words"] * 24 < 900
    assert (histograms["anchor"][-1], len(histograms["anchor"])) == (2 if histograms["bin_words"] == 1 else 1, 25)


def test_page_says_what_the_document_says_and_needs_no_other_file(prepared):
    document = statistics_document(prepared, audit_leaks(prepared.splits, 8))
    page = statistics_page(document, prepared.removed, run="runs/x", settings="seed: 42")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for expected in ("5 triplets", "90 sentences in 80 groups", "for test drugs; for validation valves.", "seed: 42"):
        assert expected in text
    for expected in ("counterfactual replaced by distant", "negation 2 66.7 %", "word 8 grams 0 0 0"):
        assert expected in text
    assert "sets/sts.jsonl ngram anchor 5" in text
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a warning of &lt;something&gt;" in page
    assert page.count("Anchor ") == 3  # three examples of each set and reason


def test_page_without_removals_warnings_or_edits_leaves_them_out(prepared):
    plain = copy.deepcopy(prepared)
    plain.removed, plain.warnings = [], []
    for counts in plain.counts["negatives"].values():
        counts.clear()
    del plain.counts["split"]["books"]
    page = statistics_page(statistics_document(plain, audit_leaks(plain.splits, 8)), [], run="r", settings="")
    assert "<p>Nothing.</p>" in page
    for absent in ("Categories of counterfactuals", "replaced", 'class="warn"', "Held out", "Examples"):
        assert absent not in page
