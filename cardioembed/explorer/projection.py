"""Vectors as points of a map: PCA, t-SNE or UMAP, alone or before and after in one aligned space.

PCA is a projection, so a new text has an exact place in it. t-SNE and UMAP only arrange the points that they were
given; a new text is put at the mean place of its nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cardioembed.errors import UserError
from cardioembed.explorer.neighbours import nearest
from cardioembed.explorer.store import Arrays, kept
from cardioembed.explorer.vectors import Vectors

PCA, TSNE, UMAP = "PCA", "t-SNE", "UMAP"
METHODS = (PCA, TSNE, UMAP)
JOINT, PROCRUSTES = "fitted together", "Procrustes"
SEED = 42
# Points that a laptop arranges in about a minute, and most that are arranged at all.
SLOW = {TSNE: 3_000, UMAP: 10_000}
MOST = {TSNE: 20_000, UMAP: 120_000}
_PERPLEXITY, _UMAP_NEIGHBOURS, _UMAP_MIN_DIST = 30.0, 15, 0.1
_REDUCED = 50  # dimensions in which t-SNE measures, as its authors advise
_NEIGHBOURS_OF_NEW = 5


@dataclass(frozen=True)
class Axes:
    """A fitted PCA.

    Attributes:
        mean: Shape (d,).
        components: Orthonormal rows, shape (dims, d).
        explained: Share of the variance on each axis, shape (dims,).
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors, shape (n, dims)."""
        return ((vectors - self.mean) @ self.components.T).astype(np.float32)


@dataclass(frozen=True)
class Map:
    """Places of texts.

    Attributes:
        points: Shape (n, dims).
        axes: The PCA that made them; None for arrangements of neighbours.
    """

    points: np.ndarray
    axes: Axes | None = None

    def place(self, vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Places of new vectors, shape (q, dims): exact by PCA, else the mean place of the nearest texts.

        Args:
            vectors: Of the texts on the map, shape (n, d).
            queries: Shape (q, d).
        """
        if self.axes:
            return self.axes.place(queries)
        places, _ = nearest(vectors, queries, _NEIGHBOURS_OF_NEW)
        return self.points[places].mean(axis=1)


@dataclass(frozen=True)
class AlignedMaps:
    """The same texts before and after training, in one space.

    Attributes:
        before, after: Each of shape (n, dims).
        disparity: Of Procrustes: share of the variance of ``after`` that the fit leaves, 0 to 1; None if fitted
            together.
    """

    before: np.ndarray
    after: np.ndarray
    disparity: float | None = None


def check_method(method: str, count: int) -> str | None:
    """Whether a method can be used on ``count`` points.

    Returns:
        A warning that it will take long, or None.

    Raises:
        UserError: It is not installed, or there are too many points.
    """
    if method == UMAP and not find_spec("umap"):
        raise UserError("UMAP is not installed: pip install umap-learn; or choose PCA or t-SNE")
    if count > MOST.get(method, count):
        raise UserError(
            f"{method} is not made for {count:,} points (at most {MOST[method]:,} here). Choose PCA, or show fewer"
        )
    if count > SLOW.get(method, count):
        return f"{method} of {count:,} points takes minutes the first time; PCA takes a second. The result is kept."
    return None


def single_map(vectors: Vectors, side: str, method: str, dims: int, cache: Path) -> Map:
    """The map of one side, from the cache if it was made before.

    Args:
        vectors: Of the texts.
        side: ``before`` or ``after``.
        method: One of ``METHODS``.
        dims: 2 or 3.
        cache: Where maps are kept.

    Raises:
        UserError: The method cannot be used, or the cache cannot be written.
    """
    check_method(method, len(vectors.after))
    key = (vectors.key, side, *_recipe(method, dims))
    arrays = kept(cache, "map", key, lambda: _fit(getattr(vectors, side), method, dims))
    axes = Axes(arrays["mean"], arrays["components"], arrays["explained"]) if method == PCA else None
    return Map(arrays["points"], axes)


def aligned_maps(vectors: Vectors, method: str, alignment: str, cache: Path) -> AlignedMaps:
    """Both sides in one plane, from the cache if they were made before.

    Args:
        vectors: Of the texts.
        method: One of ``METHODS``.
        alignment: ``JOINT`` fits one map to the vectors of both sides; ``PROCRUSTES`` fits one to each and moves,
            turns and scales the first onto the second.
        cache: Where maps are kept.

    Raises:
        UserError: The method cannot be used, or the cache cannot be written.
    """
    count = len(vectors.after)
    check_method(method, 2 * count if alignment == JOINT else count)
    if alignment == PROCRUSTES:
        before, after = (single_map(vectors, side, method, 2, cache).points for side in ("before", "after"))
        turned, disparity = procrustes(before, after)
        return AlignedMaps(turned, after, disparity)
    stacked = np.concatenate([vectors.before, vectors.after])
    arrays = kept(cache, "joint", (vectors.key, *_recipe(method, 2)), lambda: _fit(stacked, method, 2))
    return AlignedMaps(arrays["points"][:count], arrays["points"][count:])


def procrustes(moving: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, float]:
    """Moves, turns, mirrors and scales points so that they fit others best (Gower 1975; ten Berge 1977).

    Args:
        moving, fixed: Points of the same things, each of shape (n, dims).

    Returns:
        The moved points, and the share of the variance of ``fixed`` that is left.
    """
    first, second = moving - moving.mean(0), fixed - fixed.mean(0)
    left, values, right = np.linalg.svd(first.astype(np.float64).T @ second)
    spread = float((first.astype(np.float64) ** 2).sum())
    scale = values.sum() / spread if spread else 0.0
    found = scale * first @ (left @ right)
    total = float((second.astype(np.float64) ** 2).sum())
    disparity = float(((found - second) ** 2).sum() / total) if total else 0.0
    return (found + fixed.mean(0)).astype(np.float32), disparity


def fit_pca(vectors: np.ndarray, dims: int) -> Axes:
    """The axes of greatest variance; the largest weight of each is positive, so that no map is mirrored by chance.

    Args:
        vectors: Shape (n, d).
        dims: How many axes, at most d.
    """
    from scipy.linalg import eigh

    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean.astype(np.float32)
    scatter = (centred.T @ centred).astype(np.float64)
    size = len(scatter)
    values, columns = eigh(scatter, subset_by_index=(size - dims, size - 1))
    components = columns.T[::-1]
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(dims), largest])[:, None]
    explained = values[::-1] / max(np.trace(scatter), np.finfo(np.float64).tiny)
    return Axes(mean.astype(np.float32), components.astype(np.float32), explained.astype(np.float32))


def _recipe(method: str, dims: int) -> tuple[str, ...]:
    """What decides a map besides vectors."""
    if method == PCA:
        return (PCA, str(dims))
    library = "scikit-learn" if method == TSNE else "umap-learn"
    numbers = (_PERPLEXITY, _REDUCED) if method == TSNE else (_UMAP_NEIGHBOURS, _UMAP_MIN_DIST)
    return (method, str(dims), version(library), str(SEED), *map(str, numbers))


def _fit(vectors: np.ndarray, method: str, dims: int) -> Arrays:
    dims = min(dims, vectors.shape[1])
    if method == PCA:
        axes = fit_pca(vectors, dims)
        return {"points": axes.place(vectors), **vars(axes)}
    return {"points": (_tsne if method == TSNE else _umap)(vectors, dims)}


def _tsne(vectors: np.ndarray, dims: int) -> np.ndarray:
    from sklearn import manifold

    if vectors.shape[1] > _REDUCED:
        vectors = fit_pca(vectors, _REDUCED).place(vectors)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    arrangement = manifold.TSNE(dims, perplexity=perplexity, init="pca", random_state=SEED, n_jobs=-1)
    return arrangement.fit_transform(vectors).astype(np.float32)


def _umap(vectors: np.ndarray, dims: int) -> np.ndarray:
    import umap

    neighbours = min(_UMAP_NEIGHBOURS, len(vectors) - 1)
    # Spectral initialisation needs more points than dimensions to find eigenvectors of.
    init = "spectral" if len(vectors) > 50 else "random"
    arrangement = umap.UMAP(
        neighbours, n_components=dims, metric="cosine", min_dist=_UMAP_MIN_DIST, random_state=SEED, n_jobs=1, init=init
    )
    return arrangement.fit_transform(vectors).astype(np.float32)
