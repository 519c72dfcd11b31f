"""Maps: PCA against scikit-learn, Procrustes against SciPy, kept results, and places of new texts."""

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from sklearn import decomposition

from cardioembed.errors import UserError
from cardioembed.explorer import projection
from cardioembed.explorer.projection import JOINT, PCA, PROCRUSTES, TSNE, UMAP, aligned_maps, fit_pca, single_map
from cardioembed.explorer.vectors import Vectors


@pytest.fixture(scope="module")
def vectors():
    """Three groups of unit vectors, which training turned a little."""
    rng = np.random.default_rng(0)
    before = np.repeat(rng.normal(size=(3, 24)), 20, axis=0) + 0.3 * rng.normal(size=(60, 24))
    after = before + 0.2 * rng.normal(size=(60, 24))
    unit = [(side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in (before, after)]
    return Vectors(*unit, key="made here")


def test_pca_is_that_of_scikit_learn(vectors):
    peer = decomposition.PCA(3).fit(vectors.after)
    axes = fit_pca(vectors.after, 3)
    np.testing.assert_allclose(np.abs(axes.components), np.abs(peer.components_), atol=1e-4)
    np.testing.assert_allclose(axes.explained, peer.explained_variance_ratio_, atol=1e-5)
    np.testing.assert_allclose(np.abs(axes.place(vectors.before)), np.abs(peer.transform(vectors.before)), atol=1e-4)
    assert (axes.components.max(axis=1) > -axes.components.min(axis=1)).all()


def test_procrustes_is_that_of_scipy_and_undoes_a_turn(vectors):
    points, others = vectors.before[:, :2], vectors.after[:, :2]
    _, disparity = projection.procrustes(points, others)
    assert disparity == pytest.approx(scipy_procrustes(others, points)[2], abs=1e-5)
    turned = 3 * points @ np.array([[0, 1], [1, 0]], np.float32) + 5
    found, left = projection.procrustes(points, turned)
    np.testing.assert_allclose(found, turned, atol=1e-4)
    assert left == pytest.approx(0, abs=1e-6)


def test_pca_places_a_known_text_exactly_and_others_at_the_mean_of_the_nearest(vectors, tmp_path):
    exact = single_map(vectors, "after", PCA, 2, tmp_path)
    np.testing.assert_allclose(exact.place(vectors.after, vectors.after[7:8]), exact.points[7:8], atol=1e-5)
    arranged = projection.Map(exact.points)
    cosines = vectors.after @ vectors.after[7]
    nearest = np.argsort(-cosines)[:5]
    np.testing.assert_allclose(arranged.place(vectors.after, vectors.after[7:8])[0], exact.points[nearest].mean(0))


@pytest.mark.parametrize("method", [PCA, TSNE])
def test_a_map_is_made_once_and_found_again(vectors, tmp_path, monkeypatch, method):
    first = single_map(vectors, "after", method, 2, tmp_path)
    assert first.points.shape == (60, 2)
    centres = np.array([first.points[start : start + 20].mean(0) for start in (0, 20, 40)])
    own = np.linalg.norm(first.points[:, None] - centres[None], axis=2).argmin(1)
    assert (own == np.repeat([0, 1, 2], 20)).all()
    monkeypatch.setattr(projection, "_fit", None)
    np.testing.assert_array_equal(single_map(vectors, "after", method, 2, tmp_path).points, first.points)
    with pytest.raises(TypeError):  # another side has a key of its own
        single_map(vectors, "before", method, 2, tmp_path)


def test_a_damaged_map_is_made_again(vectors, tmp_path):
    first = single_map(vectors, "after", PCA, 3, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    np.testing.assert_array_equal(single_map(vectors, "after", PCA, 3, tmp_path).points, first.points)


def test_both_sides_share_one_space(vectors, tmp_path):
    same = Vectors(vectors.after, vectors.after, "the same twice")
    for alignment in (JOINT, PROCRUSTES):
        maps = aligned_maps(same, PCA, alignment, tmp_path)
        np.testing.assert_allclose(maps.before, maps.after, atol=1e-4)
    joint = aligned_maps(vectors, PCA, JOINT, tmp_path)
    peer = decomposition.PCA(2).fit_transform(np.concatenate([vectors.before, vectors.after]))
    np.testing.assert_allclose(np.abs(np.concatenate([joint.before, joint.after])), np.abs(peer), atol=1e-4)


def test_too_many_points_and_a_folder_that_cannot_be_written_are_advice(vectors, tmp_path):
    assert projection.check_method(PCA, 10**6) is None
    assert "takes minutes" in projection.check_method(TSNE, 5_000)
    with pytest.raises(UserError, match="t-SNE is not made for 50,000 points"):
        projection.check_method(TSNE, 50_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache FOLDER"):
        single_map(vectors, "after", PCA, 2, tmp_path / "file")


def test_umap_keeps_groups_together(vectors, tmp_path):
    pytest.importorskip("umap", reason="umap-learn is optional")
    points = single_map(vectors, "after", UMAP, 2, tmp_path).points
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(60)
    assert (gaps.argmin(1) // 20 == np.arange(60) // 20).mean() > 0.95
