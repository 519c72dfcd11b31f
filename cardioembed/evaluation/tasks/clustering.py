"""Clustering of labelled texts: do texts of one label lie together, and apart from the others?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.ranking import finite, key_places, score_keys
from cardioembed.evaluation.statistics import Estimate, Sampling, item_estimates, numbered
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.records import Row, normalise
from cardioembed.triplets.labelled import given_document, read_labelled

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

NEIGHBOURS = 5
SMALLEST_SLICE = 10
MOST_RESAMPLES = 200  # of measures that are no means: enough for a 95 % interval, and quick
_SEEDS = range(5)  # k-means starts
_SHUFFLES = 20  # of the labels, for the chance level of silhouette and Davies-Bouldin
_BLOCK = 1024


@dataclass(frozen=True)
class LabelClustering:
    """How well labels can be told apart by vectors; details: ``(vectors, labels, texts)``."""

    rows: list[Row]
    name: str
    title: str
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        texts = [row["text"] for row in self.rows]
        vectors = embedder.encode(texts, prompt_name=embedder.recipe.positive_prompt, show_progress_bar=True)
        names = [row["label"] for row in self.rows]
        labels, equal = numbered(names), numbered([normalise(text) for text in texts])
        documents = numbered([_document(row) for row in self.rows])
        vectors, order = finite(vectors), numbered([row["id"] for row in self.rows])
        neighbours = neighbour_precision(vectors, labels, equal, documents, order)
        items = _items(vectors, labels, *neighbours)
        shuffled = _label_chance(vectors, labels, sampling.seed)
        chance = {"silhouette": shuffled[0], "precision@5": float(neighbours[1].mean()), "precision@5_adjusted": 0.0}
        estimates = item_estimates(items, sampling, chance=chance)
        weights = within_label_weights(labels, min(sampling.resamples, MOST_RESAMPLES), sampling.seed)
        drawn = davies_bouldin(vectors, labels, weights)
        value = float(davies_bouldin(vectors, labels, np.ones((1, len(labels))))[0])
        estimates["davies_bouldin"] = Estimate(value, _centred(drawn, value), len(labels), shuffled[1], "lower")
        estimates |= v_measure_estimates(labels, kmeans_clusters(vectors, int(labels.max()) + 1), weights)
        return Measured(estimates, _slices(names, items, neighbours[1], sampling), (vectors, names, texts))


def _items(
    vectors: np.ndarray, labels: np.ndarray, precision: np.ndarray, by_chance: np.ndarray
) -> dict[str, np.ndarray]:
    chance = by_chance.mean()
    return {
        "silhouette": silhouettes(vectors, labels),
        "precision@5": precision,
        "precision@5_adjusted": (precision - chance) / (1 - chance),
    }


def _slices(
    names: list[str], items: dict[str, np.ndarray], by_chance: np.ndarray, sampling: Sampling
) -> dict[str, dict[str, Estimate]]:
    """Silhouette and precision by label; labels of fewer than 10 texts are left out."""
    found = {}
    for label, count in sorted(Counter(names).items()):
        if count >= SMALLEST_SLICE:
            members = np.array([name == label for name in names])
            part = {metric: items[metric][members] for metric in ("silhouette", "precision@5")}
            chance = {"precision@5": float(by_chance[members].mean())}
            found[f"label={label}"] = item_estimates(part, sampling, chance=chance)
    return found


def neighbour_precision(
    vectors: np.ndarray, labels: np.ndarray, equal: np.ndarray, documents: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each text's 5 nearest neighbours that have its label.

    A text itself, equal texts and texts of its document are no neighbours: they are near for other reasons than what
    the label says. Equal cosines are ordered by id.

    Args:
        vectors: Unit vectors, float32, shape (n, d).
        labels: Number of each text's label, shape (n,).
        equal: Equal for equal texts.
        documents: Equal for texts of one document.
        order: Place of each text by id.

    Returns:
        The shares, and what neighbours drawn blindly would give in the mean, each of shape (n,).
    """
    precision, chance = np.empty(len(labels)), np.empty(len(labels))
    for start in range(0, len(labels), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(labels)))
        scores = vectors[rows] @ vectors.T
        candidate = (equal[rows, None] != equal) & (documents[rows, None] != documents)
        scores[~candidate] = -np.inf
        same = candidate & (labels[rows, None] == labels)
        nearest = _nearest(scores, order)
        taken = np.take_along_axis(candidate, nearest, axis=1).sum(1)
        precision[rows] = np.take_along_axis(same, nearest, axis=1).sum(1) / taken
        chance[rows] = same.sum(1) / candidate.sum(1)
    return precision, chance


def _nearest(scores: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Columns of the 5 highest scores of each row, ties by ``order``, in no order, shape (rows, 5)."""
    count = min(NEIGHBOURS, scores.shape[1])
    keys = score_keys(scores, order)
    highest = np.partition(keys, keys.shape[1] - count, axis=1)[:, -count:]
    return np.argsort(order)[key_places(highest)]


def silhouettes(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Silhouette of each text by cosine distance: ``(b - a) / max(a, b)``, shape (n,).

    a is the mean distance to the other texts of its label, b that to the texts of the nearest other label. A mean of
    cosines of unit vectors is the cosine with their mean, so no matrix of all pairs is needed.

    Args:
        vectors: Unit vectors, shape (n, d).
        labels: 0 up, each at least twice, shape (n,).
    """
    vectors = vectors.astype(float)
    sizes = np.bincount(labels)
    member = np.eye(len(sizes))[labels]
    sums = sizes - vectors @ (vectors.T @ member)  # of distances to each label's texts
    own = member.astype(bool)
    self_distance = 1 - (vectors**2).sum(1)  # zero but for rounding
    within = (sums[own] - self_distance) / (sizes[labels] - 1)
    nearest = np.where(own, np.inf, sums / sizes).min(1)
    wider = np.maximum(within, nearest)
    return np.divide(nearest - within, wider, out=np.zeros(len(labels)), where=wider > 1e-12)


def davies_bouldin(vectors: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Davies-Bouldin index (Euclidean, IEEE PAMI 1979) under weights of the texts, shape (resamples,).

    The mean over labels of the worst ``(spread_i + spread_j) / distance_ij``, where a spread is the mean distance of a
    label's texts to its centroid and the distance is that of two centroids.

    Args:
        vectors: Shape (n, d).
        labels: 0 up, shape (n,).
        weights: How often each text counts, shape (resamples, n); each label must count.
    """
    vectors = vectors.astype(float)
    member = np.eye(int(labels.max()) + 1)[labels].T
    return np.array([_davies_bouldin(vectors, labels, member * counts) for counts in weights])


def _davies_bouldin(vectors: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The index under weights of shape (labels, n)."""
    shares = weights / weights.sum(1, keepdims=True)
    centroids = shares @ vectors
    spreads = shares @ np.linalg.norm(vectors - centroids[labels], axis=1)
    between = np.stack([np.linalg.norm(centroids - centre, axis=1) for centre in centroids])
    sums = spreads[:, None] + spreads
    # Two labels with one centroid cannot be told apart; scikit-learn leaves such a pair out, and so does this.
    return float(np.divide(sums, between, out=np.zeros_like(sums), where=between > 1e-12).max(1).mean())


def within_label_weights(labels: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each text is drawn in each resample, shape (resamples, n).

    Each label is resampled within itself: its number of texts was chosen with the test set, and no label gets lost.
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, len(labels)))
    for label in np.unique(labels):
        size = int((labels == label).sum())
        weights[:, labels == label] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    return weights


def _centred(drawn: np.ndarray, value: float) -> np.ndarray:
    """Resamples moved to lie around the value.

    A resample holds texts twice, which draws centroids apart and makes clusters purer than they are: its spread tells
    of sampling, its mean is off.
    """
    return drawn - drawn.mean() + value


def kmeans_clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    """Cluster of each text in several k-means runs, shape (runs, n)."""
    from sklearn.cluster import KMeans  # takes seconds to import; stage 04 checks its input before

    return np.stack([KMeans(count, n_init=1, random_state=seed).fit_predict(vectors) for seed in _SEEDS])


def v_measure_estimates(labels: np.ndarray, clusters: np.ndarray, weights: np.ndarray) -> dict[str, Estimate]:
    """V-measure of clusterings, the mean over them, and the same adjusted for chance.

    ``v = 2 I / (H(label) + H(cluster))``. With the v that independent labels would get for chance,
    ``(v - chance) / (1 - chance)`` is the adjusted mutual information. The intervals cover which texts were drawn for
    the test set; clusterings are those of the whole set and are not found again for each resample.

    Args:
        labels: 0 up, shape (n,).
        clusters: 0 up, shape (runs, n).
        weights: From ``within_label_weights``.
    """
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    everyone = np.ones((1, len(labels)))
    values, drawn, chances = [], [], []
    for found in clusters:
        table = contingency_matrix(labels, found)
        halves = (_entropies(table.sum(0)) + _entropies(table.sum(1))) / 2
        chances.append(float(expected_mutual_information(table, len(labels)) / halves))
        values.append(_v_measures(labels, found, everyone)[0])
        drawn.append(_v_measures(labels, found, weights))
    value, resamples, chance = np.array(values), np.stack(drawn, axis=1), np.array(chances)
    adjusted, moved = (value - chance) / (1 - chance), (resamples - chance) / (1 - chance)
    n, v, a = len(labels), float(value.mean()), float(adjusted.mean())
    return {
        "v_measure": Estimate(v, _centred(resamples.mean(1), v), n, float(chance.mean())),
        "v_measure_adjusted": Estimate(a, _centred(moved.mean(1), a), n, 0.0),
    }


def _v_measures(labels: np.ndarray, clusters: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """V-measure of one clustering under weights of the texts, shape (resamples,)."""
    columns = int(clusters.max()) + 1
    cells, shape = labels * columns + clusters, (int(labels.max()) + 1, columns)
    tables = np.stack([np.bincount(cells, counts, shape[0] * columns).reshape(shape) for counts in weights])
    apart = _entropies(tables.sum(2)) + _entropies(tables.sum(1))
    return 2 * (apart - _entropies(tables.reshape(len(tables), -1))) / apart


def _entropies(counts: np.ndarray) -> np.ndarray:
    """Entropy in nats of counts along the last axis."""
    shares = counts / counts.sum(-1, keepdims=True)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)


def _label_chance(vectors: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean silhouette and Davies-Bouldin index of shuffled labels."""
    rng = np.random.default_rng(seed)
    everyone, found = np.ones((1, len(labels))), []
    for _ in range(_SHUFFLES):
        shuffled = rng.permutation(labels)
        found.append((silhouettes(vectors, shuffled).mean(), davies_bouldin(vectors, shuffled, everyone)[0]))
    silhouette, index = np.mean(found, axis=0)
    return float(silhouette), float(index)


def load_labelled(path: Path) -> list[Row]:
    """Reads labelled texts: ``{"id", "label", "text"}``, and ``document`` (or ``group``) where texts share a source.

    Raises:
        UserError: A text or label that is none, an id that is there twice, fewer than 2 labels, or a text that has no
            neighbour of its label.
    """
    rows = read_labelled(path)
    counts = Counter(row["label"] for row in rows)
    for label, count in counts.items():
        if count < 2:
            raise UserError(f"{path}: label {label!r} has 1 text; at least 2 are needed, or leave the label out")
    _check_neighbours(path, rows)
    return rows


def _check_neighbours(path: Path, rows: list[Row]) -> None:
    """Each text needs a neighbour of its label: another text of another document."""
    keys = [(row["label"], normalise(row["text"]), _document(row)) for row in rows]
    labels, texts = Counter(label for label, _, _ in keys), Counter((label, text) for label, text, _ in keys)
    documents, both = Counter((label, document) for label, _, document in keys), Counter(keys)
    for row, key in zip(rows, keys, strict=True):
        label, text, document = key
        if labels[label] - texts[label, text] - documents[label, document] + both[key] < 1:
            raise UserError(
                f"{path}: all texts labelled {label!r} equal that of id {row['id']!r} or are of its document, so it "
                "can have no neighbour of its label; add others, or leave the label out"
            )


def _document(row: Row) -> str:
    """What a text was taken from; its own where that is not known."""
    return given_document(row) or f"id {row['id']}"
