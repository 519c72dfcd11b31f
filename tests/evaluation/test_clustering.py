import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, davies_bouldin_score, silhouette_samples, v_measure_score

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.clustering import (
    LabelClustering,
    davies_bouldin,
    kmeans_clusters,
    load_labelled,
    neighbour_precision,
    silhouettes,
    v_measure_estimates,
    within_label_weights,
)

TOPICS = {
    "rhythm": ["Atrial flutter turns around the tricuspid ring.", "A pause after exercise hints at sinus node disease.",
               "Torsades follows a long QT interval.", "Vagal manoeuvres may end a reentry tachycardia."],
    "valves": ["Rheumatic disease narrows the mitral valve.", "A bicuspid aortic valve calcifies early.",
               "Prolapse of a leaflet lets blood flow back.", "Endocarditis destroys leaflets within days."],
    "vessels": ["Plaque rupture starts most infarctions.", "Pain of the calf on walking is claudication.",
                "A widened aorta may dissect.", "Clots in deep veins travel to the lung."],
}  # fmt: skip


@pytest.fixture
def rows():
    return [{"id": f"{label}-{i}", "label": label, "text": text} for label in TOPICS
            for i, text in enumerate(TOPICS[label])]  # fmt: skip


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def clouds(seed, sizes, spread=1.0):
    """Unit vectors around one centre a label."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = unit(rng, len(sizes), 12)[labels] + spread * unit(rng, len(labels), 12)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


@pytest.mark.parametrize("spread", [0.2, 1.0, 5.0])
def test_silhouette_and_davies_bouldin_equal_scikit_learn(spread):
    vectors, labels = clouds(1, [2, 9, 40, 17], spread)
    exact = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    np.testing.assert_allclose(
        silhouettes(exact, labels), silhouette_samples(exact, labels, metric="cosine"), atol=1e-9
    )
    everyone = np.ones((1, len(labels)))
    assert davies_bouldin(exact, labels, everyone)[0] == pytest.approx(davies_bouldin_score(exact, labels), abs=1e-9)


def test_weights_are_repeated_texts():
    vectors, labels = clouds(2, [6, 11, 5])
    weights = within_label_weights(labels, 4, seed=3)
    for row, value in zip(weights, davies_bouldin(vectors, labels, weights), strict=True):
        drawn = np.repeat(np.arange(len(labels)), row.astype(int))
        assert value == pytest.approx(davies_bouldin_score(vectors[drawn].astype(float), labels[drawn]), abs=1e-9)


def test_resamples_keep_the_size_of_each_label():
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    weights = within_label_weights(labels, 50, seed=1)
    for label in range(3):
        assert (weights[:, labels == label].sum(1) == (labels == label).sum()).all()
    assert len(np.unique(weights, axis=0)) > 10


def test_texts_that_are_all_equal_are_no_better_than_nothing():
    vectors, labels = np.tile([[1.0, 0.0]], (6, 1)), np.array([0, 0, 0, 1, 1, 1])
    assert silhouettes(vectors, labels).tolist() == [0] * 6
    assert davies_bouldin(vectors, labels, np.ones((1, 6))).tolist() == [0]


def naive_precision(chosen, vectors, labels, equal, documents, order):
    shares, chances = [], []
    for i in chosen:
        others = [j for j in range(len(labels)) if equal[j] != equal[i] and documents[j] != documents[i]]
        nearest = sorted(others, key=lambda j: (-float(vectors[i] @ vectors[j]), order[j]))[:5]
        shares.append(np.mean([labels[j] == labels[i] for j in nearest]))
        chances.append(np.mean([labels[j] == labels[i] for j in others]))
    return shares, chances


@pytest.mark.parametrize("n", [5, 60, 1100])
def test_precision_equals_a_loop_with_ties_equal_texts_and_documents(n):
    rng = np.random.default_rng(n)
    vectors = rng.integers(-2, 3, (n, 3)).astype(np.float32)  # whole numbers: exact, tied products
    labels, order = rng.integers(0, 3, n), rng.permutation(n)
    equal, documents = rng.integers(0, max(4, n // 2), n), rng.integers(0, max(4, n // 3), n)
    equal[:5], documents[:5] = np.arange(5) + n, np.arange(5) + n  # each text has neighbours
    found = neighbour_precision(vectors, labels, equal, documents, order)
    chosen = np.arange(max(0, n - 90), n)
    for ours, theirs in zip(found, naive_precision(chosen, vectors, labels, equal, documents, order), strict=True):
        np.testing.assert_allclose(ours[chosen], theirs, atol=1e-12)


def test_precision_of_random_vectors_is_chance():
    rng = np.random.default_rng(5)
    n = 1500
    labels = rng.choice(4, n, p=[0.5, 0.3, 0.1, 0.1])
    precision, chance = neighbour_precision(unit(rng, n, 24), labels, np.arange(n), np.arange(n), np.arange(n))
    assert precision.mean() == pytest.approx(chance.mean(), abs=0.02)
    assert chance.mean() == pytest.approx(0.36, abs=0.03)


def test_v_measure_and_its_adjustment_equal_scikit_learn():
    vectors, labels = clouds(6, [30, 20, 25, 5], spread=1.5)
    clusters = kmeans_clusters(vectors, 4)
    assert len(clusters) > 2
    estimates = v_measure_estimates(labels, clusters, within_label_weights(labels, 20, seed=1))
    scores = [[f(labels, found) for found in clusters] for f in (v_measure_score, adjusted_mutual_info_score)]
    assert 0.05 < np.mean(scores[0]) < 0.95
    assert estimates["v_measure"].value == pytest.approx(np.mean(scores[0]), abs=1e-9)
    assert estimates["v_measure_adjusted"].value == pytest.approx(np.mean(scores[1]), abs=1e-9)


def test_v_measure_resamples_spread_as_repeated_texts_do():
    vectors, labels = clouds(7, [30, 20, 25], spread=1.5)
    clusters, weights = kmeans_clusters(vectors, 3), within_label_weights(labels, 12, seed=1)
    naive = []
    for row in weights.astype(int):
        naive.append(np.mean([v_measure_score(np.repeat(labels, row), np.repeat(found, row)) for found in clusters]))
    estimate = v_measure_estimates(labels, clusters, weights)["v_measure"]
    np.testing.assert_allclose(estimate.resamples - estimate.value, np.array(naive) - np.mean(naive), atol=1e-9)


def test_shuffled_clusters_have_no_adjusted_v_measure():
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 20, 120)
    estimates = v_measure_estimates(labels, rng.integers(0, 20, (8, 120)), within_label_weights(labels, 5, seed=1))
    assert estimates["v_measure"].value > 0.3  # many small labels agree by accident
    assert estimates["v_measure"].chance == pytest.approx(estimates["v_measure"].value, abs=0.03)
    assert estimates["v_measure_adjusted"].value == pytest.approx(0, abs=0.04)


class Known:
    """An embedder whose vectors are given."""

    class recipe:  # noqa: N801
        positive_prompt = None

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts, **_):
        return self.vectors[: len(texts)]


def labelled(labels):
    return [{"id": f"t{i:03d}", "label": f"label {c}", "text": f"text number {i}"} for i, c in enumerate(labels)]


def test_labels_that_lie_apart_score_full_marks():
    vectors, labels = clouds(9, [15, 15, 8], spread=0.01)
    measured = LabelClustering(labelled(labels), "clustering_x", "X").measure(Known(vectors), Sampling(300, 1))
    values = {name: estimate.value for name, estimate in measured.estimates.items()}
    assert values["precision@5"] == values["precision@5_adjusted"] == 1
    assert values["v_measure"] == pytest.approx(1)
    assert values["v_measure_adjusted"] == pytest.approx(1)
    assert values["silhouette"] > 0.98
    assert values["davies_bouldin"] < 0.1
    assert set(measured.slices) == {"label=label 0", "label=label 1"}  # of 8 texts no slice is made
    assert [len(part) for part in measured.details] == [38, 38, 38]


def test_labels_without_meaning_score_chance():
    rng = np.random.default_rng(10)
    vectors, labels = unit(rng, 400, 24), rng.integers(0, 3, 400)
    measured = LabelClustering(labelled(labels), "clustering_x", "X").measure(Known(vectors), Sampling(300, 1))
    for name, estimate in measured.estimates.items():
        low, high = estimate.interval()
        assert low < estimate.value < high, name
        assert estimate.value == pytest.approx(estimate.chance, abs=0.15 * abs(estimate.chance) + 0.03), name
    assert measured.estimates["davies_bouldin"].better == "lower"
    assert len(measured.estimates["davies_bouldin"].resamples) == 200


def test_a_model_is_measured_the_same_twice(rows, tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    task = LabelClustering(rows, "clustering_x", "X")
    first, second = (task.measure(embedder, Sampling(100, 1)).estimates for _ in range(2))
    assert list(first) == ["silhouette", "precision@5", "precision@5_adjusted", "davies_bouldin", "v_measure",
                           "v_measure_adjusted"]  # fmt: skip
    assert {k: e.summary() for k, e in first.items()} == {k: e.summary() for k, e in second.items()}


def test_vectors_that_are_not_numbers_are_an_error(rows):
    with pytest.raises(UserError, match="12 of 12 vectors of this model are not finite"):
        LabelClustering(rows, "clustering_x", "X").measure(Known(np.full((12, 4), np.nan)), Sampling(100, 1))


def test_labelled_texts_are_read(rows, tmp_path):
    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_labelled(path) == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].pop("label"), r"line 1: key 'label' is missing"),
        (lambda rows: rows[2].update(text=""), r"row 3: text is '', a text is needed"),
        (lambda rows: rows[1].update(label=3), r"row 2: label is 3, a text is needed"),
        (lambda rows: rows[1].update(id="rhythm-0"), r"row 2: id 'rhythm-0' is there twice"),
        (lambda rows: rows[0].update(label="lonely"), r"label 'lonely' has 1 text; at least 2 are needed"),
        (lambda rows: [row.update(label="all") for row in rows], r"at least 2 labels; it has all"),
        (lambda rows: rows.clear(), r"at least 2 labels; it has no texts"),
        (lambda rows: [row.update(text="THE SAME.") for row in rows[:4]], r"all texts labelled 'rhythm' equal"),
        (lambda rows: [row.update(document="one") for row in rows[:4]], r"'rhythm' .*no neighbour of its label"),
        (lambda rows: [row.update(group="one") for row in rows[4:8]], r"'valves' .*no neighbour of its label"),
    ],
)
def test_what_is_wrong_with_labelled_texts_is_said(rows, tmp_path, change, message):
    change(rows)
    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        load_labelled(path)
