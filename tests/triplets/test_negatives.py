import numpy as np
import pytest

from cardioembed.triplets.negatives import (
    Places,
    distant_negatives,
    listed_negatives,
    same_section_negatives,
    similar_length_negatives,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def make_pool(positions, lengths=None, groups=None, sections=None):
    size = len(positions)
    return Places(
        positions=np.array(positions),
        lengths=np.array(lengths if lengths is not None else [100] * size),
        groups=np.array(groups if groups is not None else range(size)),
        sections=np.array(sections if sections is not None else [0] * size),
    )


def none_taken(anchors):
    return np.full((len(anchors), 0), -1)


def draw(function, pool, anchors, limit, seed=0, count=1):
    """Several negatives of each anchor, as they are drawn for the slots of a row."""
    rng, anchors = generator(seed), pool.take(np.array(anchors))
    taken = none_taken(anchors)
    for _ in range(count):
        taken = np.column_stack([taken, function(pool, anchors, taken, limit, rng)])
    return taken


@pytest.fixture
def big():
    rng = generator(9)
    positions = np.sort(rng.choice(2000, 600, replace=False))
    return make_pool(positions, rng.integers(20, 300, 600), rng.integers(0, 200, 600), positions // 100)


ANCHORS = np.arange(0, 600, 2)
FUNCTIONS = [(distant_negatives, 50), (similar_length_negatives, 0.3), (same_section_negatives, 3)]
each_function = pytest.mark.parametrize(("function", "limit"), FUNCTIONS, ids=["distant", "length", "section"])


@each_function
def test_negatives_are_of_another_group_and_distinct(big, function, limit):
    drawn = draw(function, big, ANCHORS, limit, count=4)
    assert drawn.shape == (300, 4)
    assert (drawn >= 0).all()
    for anchor, picks in zip(ANCHORS, drawn, strict=True):
        assert len(set(picks)) == 4
        assert all(big.groups[pick] != big.groups[anchor] for pick in picks)


def test_distant_negatives_are_far(big):
    drawn = draw(distant_negatives, big, ANCHORS, 50, count=2)
    assert (np.abs(big.positions[drawn] - big.positions[ANCHORS][:, None]) >= 50).all()


def test_similar_length_negatives_are_within_tolerance(big):
    drawn = draw(similar_length_negatives, big, ANCHORS, 0.3, count=2)
    own = big.lengths[ANCHORS][:, None]
    assert (np.abs(big.lengths[drawn] - own) <= 0.3 * own + 1e-9).all()


def test_same_section_negatives_are_of_the_section_and_not_next_to_the_anchor(big):
    drawn = draw(same_section_negatives, big, ANCHORS, 20, count=2)
    assert (big.sections[drawn] == big.sections[ANCHORS][:, None]).all()
    assert (np.abs(big.positions[drawn] - big.positions[ANCHORS][:, None]) >= 20).all()


def test_section_distance_has_its_border_allowed():
    pool = make_pool([0, 2, 3, 400], sections=[1, 1, 1, 2])
    for seed in range(20):
        assert draw(same_section_negatives, pool, [0], 3, seed).tolist() == [[2]]


def test_section_without_another_sentence_has_no_negative():
    pool = make_pool([0, 1, 5], sections=[1, 1, 2], groups=[0, 0, 1])
    assert draw(same_section_negatives, pool, [0, 1, 2], 1).tolist() == [[-1], [-1], [-1]]


def test_the_only_possible_negatives_are_found_among_many_impossible():
    pool = make_pool(range(1000), groups=[0] * 998 + [1, 2])
    drawn = draw(distant_negatives, pool, [0, 1, 500], 50, count=2)
    assert [sorted(picks) for picks in drawn.tolist()] == [[998, 999]] * 3


def test_rare_negatives_are_drawn_at_random_too():
    pool = make_pool(range(5000), groups=[0] * 4997 + [1, 2, 3])
    assert set(draw(distant_negatives, pool, [0] * 40, 50)[:, 0]) == {4997, 4998, 4999}


def test_distance_counts_corpus_places_and_its_border_is_allowed():
    pool = make_pool([0, 49, 50, 10])
    for seed in range(20):
        assert draw(distant_negatives, pool, [0], 50, seed).tolist() == [[2]]


def test_length_tolerance_is_relative_to_the_anchor_with_its_borders_allowed():
    pool = make_pool(range(6), lengths=[100, 69, 70, 130, 131, 400])
    assert {int(draw(similar_length_negatives, pool, [0], 0.3, seed)[0, 0]) for seed in range(60)} == {2, 3}


def test_every_candidate_is_drawn_about_equally_often():
    pool = make_pool([0, 100, 101, 102, 103, 5])
    counts = np.bincount(draw(distant_negatives, pool, [0] * 4000, 50)[:, 0], minlength=6)
    assert counts[[0, 5]].tolist() == [0, 0]
    assert all(880 <= count <= 1120 for count in counts[1:5])  # 1000 expected, 27 standard deviation


@each_function
def test_same_seed_same_negatives_and_another_seed_others(big, function, limit):
    first, second, other = (draw(function, big, ANCHORS, limit, seed, 2) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert (first != other).mean() > 0.5


def test_anchor_that_has_taken_all_gets_none():
    pool = make_pool([0, 10, 60, 70], groups=[0, 1, 2, 3])
    assert draw(distant_negatives, pool, [0], 50, count=3).tolist()[0][2] == -1
    assert sorted(draw(distant_negatives, pool, [0], 50, count=3).tolist()[0][:2]) == [2, 3]


def test_length_that_nothing_else_has_gets_none():
    pool = make_pool([0, 1, 2], lengths=[100, 200, 300])
    assert draw(similar_length_negatives, pool, [0, 2], 0.2).tolist() == [[-1], [-1]]


def test_one_group_alone_has_no_negatives():
    pool = make_pool(range(200), groups=[7] * 200)
    assert draw(distant_negatives, pool, [0], 50).tolist() == [[-1]]


@each_function
def test_no_anchors_and_no_pool_are_fine(function, limit):
    empty = make_pool([])
    assert draw(function, make_pool([0, 1]), np.array([], int), limit, count=3).shape == (0, 3)
    rng, anchors = generator(), make_pool([4])
    assert function(empty, anchors, none_taken(anchors), limit, rng).tolist() == [-1]


def test_listed_candidates_are_taken_in_order_without_a_generator():
    candidates = np.array([[4, 2, 7], [5, -1, -1], [-1, -1, -1]])
    taken = np.array([[-1], [-1], [-1]])
    assert listed_negatives(candidates, taken, None).tolist() == [4, 5, -1]
    assert listed_negatives(candidates, np.array([[4, 2], [5, 0], [1, 2]]), None).tolist() == [7, -1, -1]


def test_listed_candidates_are_drawn_alike_with_a_generator():
    candidates = np.tile([3, 8, 1, -1], (3000, 1))
    drawn = listed_negatives(candidates, np.full((3000, 1), 8), generator())
    counts = np.bincount(drawn, minlength=9)
    assert counts[3] + counts[1] == 3000
    assert 1380 <= counts[3] <= 1620  # 1500 expected, 27 standard deviation
