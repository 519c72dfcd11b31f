import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import top_k_accuracy_score

from cardioembed.evaluation.retrieval import rank_pairs, retrieval_chance, retrieval_estimates, retrieval_items
from cardioembed.evaluation.statistics import Sampling


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


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_a_siblings_text_in_another_group_is_right_whatever_the_ids(order):
    anchors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    positives = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    ids = [f"r{place}" for place in order]
    result = rank_pairs(anchors[[0, 0, 2]], positives, ["a", "a", "b"], ["same", "q", "same"], ids)
    # Row 1 scores 0 with its own text; "same" scores 1, and is its sibling's.
    assert result.ranks[:2].tolist() == [1, 1]
    assert result.candidates[:2].tolist() == [1, 1]


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
    estimates = retrieval_estimates(result, ids_of(100), Sampling(200, seed=1))
    summary = estimates["accuracy@1"].summary()
    expected = {"value": 1.0, "ci95": [1.0, 1.0], "n": 100, "better": "higher", "chance": pytest.approx(0.01)}
    assert summary == expected
    assert estimates["mean_similarity"].better is None
    assert estimates["accuracy@1"].items.tolist() == [1.0] * 100
    assert estimates["sd_similarity"].value == pytest.approx(0, abs=1e-6)


def test_the_spread_of_true_pairs_is_resampled_with_their_groups():
    rng = np.random.default_rng(7)
    anchors, positives = unit(rng, 40, 8), unit(rng, 40, 8)
    groups = [f"g{i // 4}" for i in range(40)]
    result = rank_pairs(anchors, positives, groups, ids_of(40), ids_of(40))
    spread = retrieval_estimates(result, groups, Sampling(100, seed=2))["sd_similarity"]
    assert spread.value == pytest.approx(result.similarity.std(), abs=1e-6)
    draws = np.random.default_rng(2).multinomial(10, [0.1] * 10, size=100)
    for row, times in enumerate(draws[:20]):
        drawn = np.repeat(result.similarity.astype(float), np.repeat(times, 4))
        assert spread.resamples[row] == pytest.approx(drawn.std(), abs=1e-6)


def test_distractors_compete_and_have_no_row_of_their_own():
    anchors = np.eye(3, dtype=np.float32)[:2]
    positives = np.array([[0.8, 0.6, 0], [0, 0.6, 0.8]], np.float32)
    # The first is nearer to anchor 0 than its own positive, the second is far from both.
    distractors = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    documents = np.concatenate([positives, distractors])
    result = rank_pairs(anchors, documents, ["a", "b", "c", "d"], ["w", "x", "y", "z"], ids_of(4))
    # Row 1 ties with positive 0 (both 0.6), whose id is smaller.
    assert result.ranks.tolist() == [2, 2]
    assert result.candidates.tolist() == [4, 4]
    assert result.rival.tolist() == [2, 0]
    assert result.similarity.tolist() == pytest.approx([0.8, 0.6])
    assert result.chance_similarity.tolist() == pytest.approx([1 / 3, 0.2])


def test_distractors_that_are_right_answers_or_far_away_cost_no_rank():
    rng = np.random.default_rng(8)
    anchors = unit(rng, 50, 6)
    positives = anchors + 0.5 * unit(rng, 50, 6)
    positives /= np.linalg.norm(positives, axis=1, keepdims=True)
    # One dimension more, where only a distractor lies: its cosine with all anchors is 0.
    anchors, positives = (np.pad(x, ((0, 0), (0, 1))) for x in (anchors, positives))
    far = np.eye(7, dtype=np.float32)[6:]
    names = ids_of(50)
    alone = rank_pairs(anchors, positives, names, names, names)
    assert alone.similarity.min() > 0
    assert alone.ranks.max() > 1
    documents = np.concatenate([positives, positives, far])
    copies = [f"copy of {name}" for name in names]
    result = rank_pairs(anchors, documents, names + copies + ["far"], names + names + ["far"], names + copies + ["far"])
    assert (result.ranks == alone.ranks).all()
    assert (result.candidates == alone.candidates + 1).all()
    # Another document of the anchor's own group is a right answer, however near.
    sibling = rank_pairs(
        anchors, np.concatenate([positives, anchors[:1]]), names + names[:1], names + ["new"], names + ["new"]
    )
    assert sibling.ranks[0] == alone.ranks[0]
    assert sibling.candidates.tolist() == [50] + [51] * 49
