"""Neighbours against a full sort; gained, lost and kept; how far texts moved."""

import numpy as np

from cardioembed.explorer.neighbours import compare_neighbours, moved, nearest, share_kept


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_nearest_is_a_full_stable_sort():
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(700, 16)))
    vectors[300] = vectors[20]  # a tie
    own = np.array([20, 5, 699])
    places, cosines = nearest(vectors, vectors[own], 10, own)
    for row, place in enumerate(own):
        scores = vectors[own] @ vectors.T
        scores[row, place] = -np.inf
        expected = np.argsort(-scores[row], kind="stable")[:10]
        np.testing.assert_array_equal(places[row], expected)
        np.testing.assert_allclose(cosines[row], scores[row, expected])
    assert places[0, 0] == 300


def test_equal_scores_come_in_the_order_of_the_texts():
    vectors = unit([[1, 0]] * 6 + [[0, 1]])
    places, _ = nearest(vectors, vectors[:1], 3)
    assert places.tolist() == [[0, 1, 2]]


def test_fewer_texts_than_neighbours():
    vectors = unit(np.eye(3))
    assert nearest(vectors, vectors, 10, np.arange(3))[0].shape == (3, 2)
    assert nearest(vectors, vectors[:1], 10)[0].shape == (1, 3)


def test_gained_lost_and_kept():
    before = (np.array([4, 2, 9]), np.array([0.9, 0.8, 0.7], np.float32))
    after = (np.array([2, 5, 4]), np.array([0.95, 0.5, 0.4], np.float32))
    old, new = compare_neighbours(before, after)
    assert [(one.place, one.change) for one in old] == [(4, "kept"), (2, "kept"), (9, "lost")]
    assert [(one.place, one.change) for one in new] == [(2, "kept"), (5, "gained"), (4, "kept")]
    assert new[1].cosine == 0.5


def test_moved_and_share_kept():
    before = unit([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.1]])
    swapped = before[[0, 2, 1, 3]]
    np.testing.assert_allclose(moved(before, swapped)[[0, 3]], 0, atol=1e-6)
    assert moved(before, swapped)[1] > 0.8
    assert share_kept(before, before, np.arange(4), 1).tolist() == [1, 1, 1, 1]
    assert share_kept(before, swapped, np.array([0, 3]), 1).tolist() == [0, 0]
