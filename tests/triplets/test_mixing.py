from collections import Counter

import numpy as np
import pytest

from cardioembed.triplets.mixing import allot_kinds, fill_slots


def generator(seed=0):
    return np.random.default_rng(seed)


def counter_draw(first, possible=lambda row: True):
    """Gives each row ``first``, ``first + 1`` ..: whatever the row has not taken."""

    def draw(rows, taken):
        free = [next(i for i in range(first, first + 100) if i not in has) for has in taken]
        return np.array([i if possible(row) else -1 for row, i in zip(rows, free, strict=True)], int)

    return draw


@pytest.mark.parametrize("seed", range(30))
def test_kinds_are_allotted_by_weight_to_within_one_slot(seed):
    rng = generator(seed)
    names = ["a", "b", "c", "d"][: rng.integers(1, 5)]
    weights = {name: float(rng.uniform(0.05, 5)) for name in names}
    rows, slots = int(rng.integers(1, 60)), int(rng.integers(1, 5))
    allotted = allot_kinds(weights, rows, slots, rng)
    assert allotted.shape == (rows, slots)
    counts = np.bincount(allotted.ravel(), minlength=len(names))
    exact = np.array(list(weights.values())) / sum(weights.values()) * rows * slots
    assert (np.abs(counts - exact) < 1).all()


def test_kinds_stand_in_random_places_by_seed():
    weights = {"a": 1.0, "b": 1.0}
    first, second, other = (allot_kinds(weights, 50, 2, generator(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert 30 < (first != other).sum() < 70
    assert 0 < first[:, 0].sum() < 50


def test_slots_are_filled_by_their_kind():
    allotted = np.array([[0, 1], [1, 1], [0, 0]])
    slots = fill_slots({"a": counter_draw(0), "b": counter_draw(100)}, {"a": 1, "b": 1}, allotted)
    assert slots.chosen.tolist() == [[0, 100], [100, 101], [0, 1]]
    assert np.array_equal(slots.kinds, allotted)
    assert slots.replaced == {}


def test_kind_that_has_none_is_replaced_by_the_heaviest_other_and_counted():
    draws = {
        "rare": counter_draw(0, lambda row: row == 0),
        "light": counter_draw(100),
        "heavy": counter_draw(200, lambda row: row != 2),
    }
    slots = fill_slots(draws, {"rare": 5, "light": 1, "heavy": 2}, np.zeros((4, 1), int))
    assert slots.chosen.tolist() == [[0], [200], [100], [200]]
    assert [slots.names[kind] for kind in slots.kinds[:, 0]] == ["rare", "heavy", "light", "heavy"]
    assert slots.replaced == {("rare", "heavy"): 2, ("rare", "light"): 1}


def test_kind_without_a_weight_comes_last():
    draws = {"a": counter_draw(0, lambda row: False), "b": counter_draw(10, lambda row: row), "last": counter_draw(20)}
    slots = fill_slots(draws, {"a": 2, "b": 1}, np.zeros((2, 1), int))
    assert slots.chosen.tolist() == [[20], [10]]
    assert slots.replaced == {("a", "b"): 1, ("a", "last"): 1}


def test_slot_that_no_kind_can_fill_stays_empty():
    slots = fill_slots({"a": counter_draw(0, lambda row: row == 1)}, {"a": 1}, np.zeros((2, 2), int))
    assert slots.chosen.tolist() == [[-1, -1], [0, 1]]
    assert slots.kinds.tolist() == [[-1, -1], [0, 0]]


@pytest.mark.parametrize("seed", range(25))
def test_any_mix_fills_every_slot_with_distinct_texts_and_keeps_the_books(seed):
    # Kinds overlap: all draw from the same few texts, and each serves only some rows.
    rng = generator(seed)
    rows, slots, texts = int(rng.integers(1, 30)), int(rng.integers(1, 4)), 8
    serves = {name: rng.random((rows, texts)) < share for name, share in (("a", 0.3), ("b", 0.6), ("last", 1.0))}

    def draw_from(allowed):
        def draw(asked, taken):
            free = [sorted(set(np.flatnonzero(allowed[row])) - set(has)) for row, has in zip(asked, taken, strict=True)]
            return np.array([rng.choice(found) if found else -1 for found in free], int)

        return draw

    weights = {"a": 3.0, "b": 1.0}
    allotted = allot_kinds(weights, rows, slots, rng)
    filled = fill_slots({name: draw_from(allowed) for name, allowed in serves.items()}, weights, allotted)
    assert (filled.chosen >= 0).all()
    assert all(len(set(row)) == slots for row in filled.chosen.tolist())
    for row in range(rows):
        for text, kind in zip(filled.chosen[row], filled.kinds[row], strict=True):
            assert serves[filled.names[kind]][row, text]
    moved = Counter(zip(allotted.ravel().tolist(), filled.kinds.ravel().tolist(), strict=True))
    expected = {(filled.names[a], filled.names[b]): n for (a, b), n in moved.items() if a != b}
    assert filled.replaced == expected
