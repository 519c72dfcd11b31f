import numpy as np
import pytest

from cardioembed.errors import UserError
from cardioembed.triplets.negatives import Pool, distant_negatives, similar_length_negatives


def generator(seed=0):
    return np.random.default_rng(seed)


def make_pool(positions, lengths=None, groups=None):
    positions = np.array(positions)
    return Pool(
        positions=positions,
        lengths=np.array(lengths if lengths is not None else [100] * len(positions)),
        groups=np.array(groups if groups is not None else range(len(positions))),
    )


@pytest.fixture
def big():
    rng = generator(9)
    positions = np.sort(rng.choice(2000, 600, replace=False))
    return make_pool(positions, lengths=rng.integers(20, 300, 600), groups=rng.integers(0, 200, 600))


ANCHORS = np.arange(0, 600, 2)


def test_distant_negatives_are_far_of_another_group_and_distinct(big):
    drawn = distant_negatives(big, ANCHORS, 4, 50, generator())
    assert drawn.shape == (300, 4)
    for anchor, picks in zip(ANCHORS, drawn, strict=True):
        assert len(set(picks)) == 4
        for pick in picks:
            assert abs(big.positions[pick] - big.positions[anchor]) >= 50
            assert big.groups[pick] != big.groups[anchor]


def test_similar_length_negatives_are_within_tolerance_of_another_group_and_distinct(big):
    drawn = similar_length_negatives(big, ANCHORS, 4, 0.3, generator())
    assert drawn.shape == (300, 4)
    for anchor, picks in zip(ANCHORS, drawn, strict=True):
        assert len(set(picks)) == 4
        for pick in picks:
            assert abs(big.lengths[pick] - big.lengths[anchor]) <= 0.3 * big.lengths[anchor] + 1e-9
            assert big.groups[pick] != big.groups[anchor]


def test_the_only_possible_negatives_are_found_among_many_impossible():
    pool = make_pool(range(1000), groups=[0] * 998 + [1, 2])
    drawn = distant_negatives(pool, np.array([0, 1, 500]), 2, 50, generator())
    assert [sorted(picks) for picks in drawn.tolist()] == [[998, 999]] * 3


def test_rare_negatives_are_drawn_at_random_too():
    pool = make_pool(range(5000), groups=[0] * 4997 + [1, 2, 3])
    anchors = np.zeros(40, int)
    assert set(distant_negatives(pool, anchors, 1, 50, generator())[:, 0]) == {4997, 4998, 4999}


def test_distance_counts_corpus_places_and_its_border_is_allowed():
    pool = make_pool([0, 49, 50, 10])
    for seed in range(20):
        assert distant_negatives(pool, np.array([0]), 1, 50, generator(seed)).tolist() == [[2]]


def test_length_tolerance_is_relative_to_the_anchor_with_its_borders_allowed():
    pool = make_pool(range(6), lengths=[100, 69, 70, 130, 131, 400])
    drawn = {tuple(similar_length_negatives(pool, np.array([0]), 1, 0.3, generator(seed))[0]) for seed in range(60)}
    assert drawn == {(2,), (3,)}


def test_every_candidate_is_drawn_about_equally_often():
    pool = make_pool([0, 100, 101, 102, 103, 5])
    drawn = distant_negatives(pool, np.zeros(4000, int), 1, 50, generator())
    counts = np.bincount(drawn[:, 0], minlength=6)
    assert counts[[0, 5]].tolist() == [0, 0]
    assert all(880 <= count <= 1120 for count in counts[1:5])  # 1000 expected, 27 standard deviation


@pytest.mark.parametrize("draw", [(distant_negatives, 50), (similar_length_negatives, 0.3)], ids=["distant", "length"])
def test_same_seed_same_negatives_and_another_seed_others(big, draw):
    function, limit = draw
    first, second, other = (function(big, ANCHORS, 2, limit, generator(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert (first != other).mean() > 0.5


def test_too_few_distant_negatives_say_what_to_change():
    pool = make_pool([0, 10, 60], groups=[0, 1, 2])
    expected = (
        r"an anchor has 1 possible negatives in its split, 2 are wanted: "
        r"lower prepare\.min_distance \(now 50\) or prepare\.negatives_per_anchor \(now 2\)"
    )
    with pytest.raises(UserError, match=expected):
        distant_negatives(pool, np.array([0]), 2, 50, generator())


def test_too_few_negatives_of_similar_length_say_what_to_change():
    pool = make_pool([0, 1, 2], lengths=[100, 200, 300])
    expected = r"0 possible negatives .*raise prepare\.length_tolerance \(now 0\.3\) or lower .*\(now 1\)"
    with pytest.raises(UserError, match=expected):
        similar_length_negatives(pool, np.array([0]), 1, 0.3, generator())


def test_one_group_alone_has_no_negatives():
    with pytest.raises(UserError, match="0 possible negatives"):
        distant_negatives(make_pool(range(200), groups=[7] * 200), np.array([0]), 1, 50, generator())


def test_no_anchors_need_no_negatives():
    assert distant_negatives(make_pool([0, 1]), np.array([], int), 3, 50, generator()).shape == (0, 3)
