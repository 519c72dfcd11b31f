"""Ranking a corpus for queries, and what a ranking is worth: the measures of BEIR and trec_eval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cardioembed.errors import UserError

DEPTH = 1000  # documents kept for each query, as BEIR does: MAP and MRR see no further
NDCG_DEPTH = 10
RECALL_DEPTHS = (10, 100)
_QUERIES, _DOCUMENTS = 512, 4096  # scored at once: 8 MB of scores, 20 MB of keys
_LOW = 0xFFFFFFFF
_NOTHING = np.iinfo(np.int64).min

Qrels = Mapping[str, float]  # relevance of the judged documents of one query; 0 and below are not relevant


def search(
    queries: np.ndarray,
    blocks: Iterable[np.ndarray],
    ids: Sequence[str],
    *,
    k: int = DEPTH,
    left_out: Sequence[str | None] | None = None,
) -> list[list[str]]:
    """The k documents with the highest inner product for each query, exactly; equal scores are ordered by id.

    Blocks are scored as they come, so memory is that of one block and of k numbers a query.

    Args:
        queries: Shape (q, d).
        blocks: Vectors of the documents in the order of ``ids``, each of shape (any number, d).
        ids: Id of each document, no id twice.
        k: How many to find; fewer where there are fewer documents.
        left_out: Id of a document that does not compete, by query; None for none.

    Returns:
        Ids for each query, best first.

    Raises:
        UserError: A vector is not finite.
        ValueError: Blocks and ids are not equally many.
    """
    queries = finite(queries)
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    order = np.empty(len(ids), np.int64)
    order[by_id] = np.arange(len(ids))
    place = dict(zip(ids, order, strict=True)) if left_out else {}
    out = np.array([place.get(name, -1) for name in left_out or [None] * len(queries)], np.int64)
    best = np.full((len(queries), min(k, len(ids))), _NOTHING)
    done = 0
    for block in blocks:
        for start in range(0, len(block), _DOCUMENTS):
            vectors = finite(block[start : start + _DOCUMENTS])
            _keep_best(best, queries, vectors, order[done : done + len(vectors)], out)
            done += len(vectors)
    if done != len(ids):
        raise ValueError(f"{done} vectors for {len(ids)} ids")
    best.sort(axis=1)
    return [[ids[row] for row in by_id[key_places(keys[keys != _NOTHING])][::-1]] for keys in best]


def finite(vectors: np.ndarray) -> np.ndarray:
    """The vectors in float32.

    Raises:
        UserError: One holds NaN or infinity.
    """
    vectors = np.asarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise UserError(
            f"{bad} of {len(vectors)} vectors of this model are not finite numbers; load it in float32 or bfloat16 "
            "(model.dtype), and gemma-2 with attn_implementation: eager"
        )
    return vectors


def _keep_best(best: np.ndarray, queries: np.ndarray, vectors: np.ndarray, order: np.ndarray, out: np.ndarray) -> None:
    """Puts the documents of a block that belong there among the best, in place."""
    k = best.shape[1]
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        keys = score_keys(queries[rows] @ vectors.T, order)
        keys[order[None, :] == out[rows, None]] = _NOTHING
        keys = np.concatenate([best[rows], keys], axis=1)
        best[rows] = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]


def score_keys(scores: np.ndarray, order: np.ndarray) -> np.ndarray:
    """One integer for score and place by id: a greater one is a better score, or the same score and an earlier id.

    With the two in one number no tie is left, so a partition finds exactly the best k at the speed of integers. The
    bits of a positive float are ordered as integers are; those of a negative one the other way round.

    Args:
        scores: Shape (rows, columns), float32.
        order: Place of each column by id, 0 up, shape (columns,).

    Returns:
        Shape (rows, columns), int64.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero makes -0 equal to 0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return (bits.astype(np.int64) << 32) | (_LOW - order)


def key_places(keys: np.ndarray) -> np.ndarray:
    """The places by id that are in keys."""
    return _LOW - (keys & _LOW)


def ranking_items(ranked: Sequence[Sequence[str]], qrels: Sequence[Qrels]) -> dict[str, np.ndarray]:
    """Per-query values whose means are the metrics, each of shape (q,), as trec_eval defines them.

    ``ndcg@10`` takes the relevance as gain and ``log2(rank + 1)`` as discount; ``map`` and ``mrr`` look as deep as the
    ranking goes; a relevant document that was not found counts as a miss.

    Args:
        ranked: Ids of the documents found for each query, best first.
        qrels: Judgements of each query.

    Raises:
        ValueError: A query without a relevant document.
    """
    rows = [_query_values(found, judged) for found, judged in zip(ranked, qrels, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _query_values(found: Sequence[str], judged: Qrels) -> dict[str, float]:
    gains = np.maximum([float(judged.get(name, 0)) for name in found], 0)
    ideal = _ideal_gains(judged)
    ranks = np.flatnonzero(gains) + 1
    hits = np.arange(1, len(ranks) + 1)
    return {
        f"ndcg@{NDCG_DEPTH}": _dcg(gains) / _dcg(ideal),
        **{f"recall@{k}": float((ranks <= k).sum() / len(ideal)) for k in RECALL_DEPTHS},
        "map": float((hits / ranks).sum() / len(ideal)),
        "mrr": float(1 / ranks[0]) if len(ranks) else 0.0,
        "accuracy@1": float(len(ranks) > 0 and ranks[0] == 1),
    }


def _ideal_gains(judged: Qrels) -> np.ndarray:
    """Relevance of the relevant documents, best first."""
    ideal = np.array(sorted((value for value in judged.values() if value > 0), reverse=True), float)
    if not len(ideal):
        raise ValueError("a query has no relevant document, so nothing can be found for it")
    return ideal


def _dcg(gains: np.ndarray) -> float:
    gains = gains[:NDCG_DEPTH]
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def ranking_chance(qrels: Sequence[Qrels], sizes: Sequence[int], *, k: int = DEPTH) -> dict[str, float]:
    """What a random order of the documents scores in the mean, exactly.

    Args:
        qrels: Judgements of each query.
        sizes: How many documents compete for each query.
        k: Depth of the ranking.
    """
    rows = [_query_chance(_ideal_gains(judged), size, k) for judged, size in zip(qrels, sizes, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _query_chance(ideal: np.ndarray, size: int, k: int) -> dict[str, float]:
    relevant = len(ideal)
    ranks = np.arange(1, min(k, size) + 1)
    shown = np.full(min(NDCG_DEPTH, len(ranks)), ideal.sum() / size)  # gain to expect at every rank
    # Chance that no relevant document stands above a rank, and that one stands there: together the first hit.
    none_above = np.cumprod(np.concatenate([[1.0], np.maximum(1 - relevant / (size - ranks[:-1] + 1), 0)]))
    first = none_above * relevant / (size - ranks + 1)
    others_above = (ranks - 1) * (relevant - 1) / max(size - 1, 1)  # relevant ones above a relevant one
    return {
        f"ndcg@{NDCG_DEPTH}": _dcg(shown) / _dcg(ideal),
        **{f"recall@{depth}": min(depth, len(ranks)) / size for depth in RECALL_DEPTHS},
        "map": float(((1 + others_above) / ranks).sum() / size),
        "mrr": float((first / ranks).sum()),
        "accuracy@1": relevant / size,
    }
