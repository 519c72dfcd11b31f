import numpy as np
import pytest
import pytrec_eval

from cardioembed.errors import UserError
from cardioembed.evaluation.ranking import key_places, ranking_chance, ranking_items, score_keys, search

PEER = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "recall@100": "recall_100", "map": "map",
        "mrr": "recip_rank", "accuracy@1": "P_1"}  # fmt: skip


def whole(rng, *shape):
    """Vectors of small whole numbers: their products are exact, and many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float32)


def shuffled_ids(rng, n):
    return [f"d{i:05d}" for i in rng.permutation(n)]


def naive(queries, documents, ids, k):
    rows = []
    for query in queries:
        scores = [float(query @ document) for document in documents]
        rows.append([ids[i] for i in sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))][:k])
    return rows


def random_qrels(rng, ids, queries):
    """Graded judgements with zeros and a negative one, as TREC-COVID has."""
    found = []
    for _ in range(queries):
        judged = rng.choice(ids, size=min(40, len(ids)), replace=False)
        found.append({name: int(rng.integers(-1, 4)) for name in judged} | {str(judged[0]): 2})
    return found


@pytest.mark.parametrize("k", [1, 7, 60, 500])
def test_search_equals_sorting_everything_with_ties_by_id(k):
    rng = np.random.default_rng(1)
    queries, documents, ids = whole(rng, 9, 4), whole(rng, 300, 4), shuffled_ids(rng, 300)
    expected = naive(queries, documents, ids, k)
    assert search(queries, [documents], ids, k=k) == expected
    assert search(queries, np.array_split(documents, 7), ids, k=k) == expected


def test_search_takes_more_queries_and_documents_than_are_scored_at_once():
    rng = np.random.default_rng(2)
    queries, documents, ids = whole(rng, 700, 3), whole(rng, 5000, 3), shuffled_ids(rng, 5000)
    found = search(queries, [documents], ids, k=20)
    chosen = [0, 511, 512, 699]
    assert [found[i] for i in chosen] == naive(queries[chosen], documents, ids, 20)


def test_negative_and_zero_scores_are_ordered():
    documents = np.array([[-1.0], [-0.0], [2.0], [-3.0], [0.0]], np.float32)
    assert search(np.ones((1, 1)), [documents], ["a", "z", "c", "d", "b"]) == [["c", "b", "z", "a", "d"]]


def test_keys_are_ordered_by_score_then_place():
    scores = np.array([[-0.0, 0.0, -1.5, 1e-40, -np.inf, 3.0]], np.float32)
    keys = score_keys(scores, np.array([3, 4, 0, 1, 2, 5]))
    assert key_places(np.sort(keys)[0, ::-1]).tolist() == [5, 1, 3, 4, 0, 2]


def test_a_left_out_document_does_not_compete():
    documents = np.array([[3.0], [2.0], [1.0]], np.float32)
    found = search(np.ones((3, 1)), [documents], ["q0", "b", "c"], k=2, left_out=["q0", None, "elsewhere"])
    assert found == [["b", "c"], ["q0", "b"], ["q0", "b"]]
    assert search(np.ones((1, 1)), [documents[:1]], ["q0"], left_out=["q0"]) == [[]]


def test_vectors_that_are_not_numbers_are_an_error():
    bad = np.array([[1.0, 0.0], [np.nan, 1.0]], np.float32)
    with pytest.raises(UserError, match=r"1 of 2 vectors of this model are not finite.*float32 or bfloat16"):
        search(np.ones((1, 2)), [bad], ["a", "b"])
    with pytest.raises(UserError, match="not finite"):
        search(bad, [np.ones((2, 2))], ["a", "b"])


def test_blocks_must_cover_the_ids():
    with pytest.raises(ValueError, match="2 vectors for 3 ids"):
        search(np.ones((1, 1)), [np.ones((2, 1))], ["a", "b", "c"])


@pytest.mark.parametrize("documents", [6, 80, 400])
def test_measures_equal_pytrec_eval_on_graded_judgements_and_tied_scores(documents):
    rng = np.random.default_rng(documents)
    ids = shuffled_ids(rng, documents)
    vectors, queries = whole(rng, documents, 3), whole(rng, 30, 3)
    qrels = random_qrels(rng, ids, 30)
    items = ranking_items(search(queries, [vectors], ids), qrels)
    # trec_eval orders equal scores by descending id; ids counted from the other end make its order ours.
    turned = {name: f"d{99999 - int(name[1:]):05d}" for name in ids}
    scores = queries @ vectors.T
    assert any(len(set(row)) < len(row) for row in scores.tolist())  # there are ties
    run = {f"q{i}": {turned[name]: float(s) for name, s in zip(ids, row, strict=True)} for i, row in enumerate(scores)}
    judged = {f"q{i}": {turned[name]: value for name, value in row.items()} for i, row in enumerate(qrels)}
    peer = pytrec_eval.RelevanceEvaluator(judged, set(PEER.values())).evaluate(run)
    for name, theirs in PEER.items():
        np.testing.assert_allclose(items[name], [peer[f"q{i}"][theirs] for i in range(30)], atol=1e-9, err_msg=name)


def test_measures_worked_out_on_paper():
    found = [["a", "b", "c", "d"], ["x", "y", "z", "w"]]
    items = ranking_items(found, [{"b": 2, "d": 1, "elsewhere": 1, "a": 0}, {"nowhere": 1}])
    best = 2 + 1 / np.log2(3) + 1 / np.log2(4)
    assert items["ndcg@10"].tolist() == pytest.approx([(2 / np.log2(3) + 1 / np.log2(5)) / best, 0])
    assert items["map"].tolist() == pytest.approx([(1 / 2 + 2 / 4) / 3, 0])
    assert items["mrr"].tolist() == [0.5, 0]
    assert items["recall@10"].tolist() == pytest.approx([2 / 3, 0])
    assert items["accuracy@1"].tolist() == [0, 0]


def test_a_query_without_an_answer_is_an_error():
    with pytest.raises(ValueError, match="no relevant document"):
        ranking_items([["a"]], [{"a": 0, "b": -1}])


@pytest.mark.parametrize(("size", "depth"), [(25, 1000), (25, 8), (3, 1000)])
def test_chance_is_what_random_orders_score(size, depth):
    rng = np.random.default_rng(7)
    ids = [f"d{i}" for i in range(size)]
    judged = {"d0": 3, "d1": 1, "d2": 0} if size == 3 else {"d0": 3, "d1": 1, "d2": 1, "d3": 0, "d4": 2}
    orders = [[ids[i] for i in rng.permutation(size)[:depth]] for _ in range(6000)]
    items = ranking_items(orders, [judged] * len(orders))
    chance = ranking_chance([judged], [size], k=depth)
    assert chance.keys() == items.keys()
    for name, values in items.items():
        assert values.mean() == pytest.approx(chance[name], abs=4.5 * values.std() / len(orders) ** 0.5 + 1e-9), name


def test_chance_is_the_mean_over_queries():
    chance = ranking_chance([{"a": 1}, {"a": 1, "b": 1}], [4, 10])
    assert chance["accuracy@1"] == pytest.approx((1 / 4 + 2 / 10) / 2)
    assert ranking_chance([{"a": 1}], [1])["mrr"] == 1
