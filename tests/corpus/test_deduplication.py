import random
from fractions import Fraction
from itertools import combinations

import pytest

from cardioembed.corpus.deduplication import jaccard, near_duplicates, shingles

WORDS = [f"word{number}" for number in range(400)]


def grams(text):
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


@pytest.fixture(scope="module")
def edited():
    rng = random.Random(5)
    texts = []
    for _ in range(120):
        base = [rng.choice(WORDS) for _ in range(30)]
        texts.append(" ".join(base))
        for edits in (1, 2, 4):
            copy = list(base)
            for _ in range(edits):
                copy[rng.randrange(30)] = rng.choice(WORDS)
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def overlaps(edited):
    sets = [grams(text) for text in edited]
    pairs = ((i, j, len(sets[i] & sets[j])) for j, i in combinations(range(len(sets)), 2))
    return {(i, j): Fraction(shared, len(sets[i] | sets[j])) for i, j, shared in pairs if shared}


def test_shingles_are_word_trigrams_of_the_normalised_text():
    assert shingles("The LEFT ventricle, it fails.") == {
        "the left ventricle",
        "left ventricle it",
        "ventricle it fails",
    }
    assert shingles("a b c d", size=2) == {"a b", "b c", "c d"}


def test_short_text_is_one_shingle():
    assert shingles("Heart failure.") == {"heart failure"}
    assert shingles("...") == {""}


def test_jaccard_by_hand():
    assert jaccard(frozenset("abcd"), frozenset("cdef")) == pytest.approx(2 / 6)
    assert jaccard(frozenset("ab"), frozenset("ab")) == 1
    assert jaccard(frozenset("ab"), frozenset("cd")) == 0
    assert jaccard(frozenset(), frozenset()) == 1


def test_index_of_a_pair_is_exact():
    first = "one two three four five six seven eight nine ten"
    second = "one two three four five six seven eight nine zero"
    assert list(near_duplicates([first, second], 0.7)) == [(1, 0, pytest.approx(7 / 9))]
    assert list(near_duplicates([first, second], 0.78)) == []


def test_pair_exactly_at_the_threshold_counts():
    first = "one two three four five six seven eight nine"
    second = "one two three four five six seven eight zero"
    assert list(near_duplicates([first, second], 0.75)) == [(1, 0, 0.75)]  # 6 of 8 word 3-grams


@pytest.mark.parametrize(("threshold", "at_least"), [("0.7", 100), ("0.8", 50), ("0.9", 5)])
def test_pairs_are_those_of_brute_force(edited, overlaps, threshold, at_least):
    expected = {pair: index for pair, index in overlaps.items() if index >= Fraction(threshold)}
    found = {(i, j): index for i, j, index in near_duplicates(edited, float(threshold))}
    assert len(expected) >= at_least
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(float(index)) for pair, index in expected.items())


def test_low_threshold_misses_no_pair_either(edited, overlaps):
    found = {(i, j) for i, j, _ in near_duplicates(edited, 0.5)}
    missed = {pair for pair, index in overlaps.items() if index >= Fraction("0.5")} - found
    assert not missed, f"{len(missed)} pairs missed"


def test_equal_texts_are_pairs_with_the_earlier_one_second():
    texts = ["The left ventricle fails.", "A murmur is heard.", "the LEFT ventricle fails", "The left ventricle fails!"]
    assert list(near_duplicates(texts, 0.8)) == [(2, 0, 1.0), (3, 0, 1.0), (3, 2, 1.0)]


def test_opposite_comparison_signs_are_no_duplicates_at_full_overlap():
    assert list(near_duplicates(["An ICD is for LVEF <35%.", "An ICD is for LVEF >35%."], 1.0)) == []


def test_progress_wraps_every_text_once():
    seen = []

    def progress(items):
        for item in items:
            seen.append(item)
            yield item

    list(near_duplicates(["a b c", "d e f", "g h i"], 0.8, progress))
    assert len(seen) == 3


def test_no_texts_have_no_pairs():
    assert list(near_duplicates([], 0.8)) == []
