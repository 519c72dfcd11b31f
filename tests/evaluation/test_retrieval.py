import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import top_k_accuracy_score

from cardioembed.evaluation.retrieval import rank_pairs, retrieval_chance, retrieval_estimates, retrieval_items


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def ids_of(n):
    return [f"r{i:04d}" for i in range(n)]


def test_ranks_worked_out_on_paper():
    anchors = np.eye(3, dtype=np.float32)
    positives = np.array([[0.8, 0.6, 0], [0.9, 0.1, 0], [0, 0, 1]], np.float32)
    result = rank_pairs(anchors, positives, ["a", "b", "c"], ["x", "y", "z"], ids_of(3))
    assert result.ranks.tolist() == [2, 2, 1]
    assert result.candidates.tolist() == [3, 3, 3]
    assert result.rival.tolist() == [1, 0, 0]
    items = retrieval_items(result)
    assert items["accuracy@1"].mean() == pytest.approx(1 / 3)
    assert items["mrr"].mean() == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_ties_are_ordered_by_id():
    anchors = np.array([[1, 0], [1, 0]], np.float32)
    first = rank_pairs(anchors, anchors, ["a", "b"], ["x", "y"], ["1", "2"])
    second = rank_pairs(anchors, anchors, ["a", "b"], ["x", "y"], ["2", "1"])
    assert first.ranks.tolist() == [1, 2]
    assert second.ranks.tolist() == [2, 1]


def test_a_sibling_paraphrase_and_an_equal_text_are_no_misses():
    anchors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    positives = np.array([[0.6, 0.8], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    result = rank_pairs(anchors, positives, ["a", "a", "b", "c"], ["same", "q", "same", "r"], ids_of(4))
    # Row 0: row 1 is its sibling, row 2 is the same text; row 3 scores 0 < 0.6.
    assert result.ranks[0] == 1
    # Row 2: row 0 is the same text; row 3 beats it.
    assert result.ranks[2] == 2
    # Rows 0 and 2 are one document: right for row 1 (a sibling's text), a rival of row 3 once.
    assert result.candidates.tolist() == [2, 2, 3, 3]


def test_metrics_equal_pytrec_eval_and_scikit_learn_on_random_scores():
    rng = np.random.default_rng(3)
    n = 300
    anchors, positives = unit(rng, n, 24), unit(rng, n, 24)
    positives = 0.6 * anchors + 0.4 * positives
    positives /= np.linalg.norm(positives, axis=1, keepdims=True)
    items = retrieval_items(rank_pairs(anchors, positives, ids_of(n), ids_of(n), ids_of(n)))
    scores = anchors @ positives.T
    for k in (1, 5, 10):
        assert items[f"accuracy@{k}"].mean() == pytest.approx(top_k_accuracy_score(np.arange(n), scores, k=k), abs=1e-9)
    run = {f"q{i}": {f"d{j}": float(scores[i, j]) for j in range(n)} for i in range(n)}
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(n)}
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    assert items["mrr"].mean() == pytest.approx(np.mean([r["recip_rank"] for r in peer.values()]), abs=1e-9)


def test_blocks_do_not_change_ranks():
    rng = np.random.default_rng(4)
    anchors, positives = unit(rng, 2100, 8), unit(rng, 2100, 8)
    result = rank_pairs(anchors, positives, ids_of(2100), ids_of(2100), ids_of(2100))
    scores = anchors @ positives.T
    assert (result.ranks == 1 + (scores > np.diag(scores)[:, None]).sum(1)).mean() > 0.999


def test_chance_is_what_random_vectors_score():
    rng = np.random.default_rng(5)
    result = rank_pairs(unit(rng, 800, 16), unit(rng, 800, 16), ids_of(800), ids_of(800), ids_of(800))
    chance, items = retrieval_chance(result), retrieval_items(result)
    assert chance["accuracy@10"] == pytest.approx(10 / 800)
    assert items["accuracy@10"].mean() == pytest.approx(chance["accuracy@10"], abs=0.012)
    assert items["mrr"].mean() == pytest.approx(chance["mrr"], abs=0.01)
    assert chance["mean_similarity"] == pytest.approx(0, abs=0.02)


def test_estimates_carry_value_interval_n_and_spread():
    rng = np.random.default_rng(6)
    anchors = unit(rng, 100, 8)
    result = rank_pairs(anchors, anchors, ids_of(100), ids_of(100), ids_of(100))
    estimates = retrieval_estimates(result, ids_of(100), resamples=200, seed=1)
    summary = estimates["accuracy@1"].summary()
    assert summary == {"value": 1.0, "ci95": [1.0, 1.0], "n": 100, "chance": pytest.approx(0.01)}
    assert estimates["sd_similarity"].value == pytest.approx(0, abs=1e-6)
