import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives
from texts import MINILM

from cardioembed.embedder.encoder import load_embedder
from cardioembed.records import read_jsonl
from cardioembed.triplets import mining
from cardioembed.triplets.mining import Miner, keep_margin, nearest


def unit_vectors(count, dimension=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(anchors, pool, anchor_groups, pool_groups, count):
    cosines = anchors @ pool.T
    cosines[anchor_groups[:, None] == pool_groups[None, :]] = -np.inf
    order = np.argsort(-cosines, axis=1)[:, :count]
    return np.take_along_axis(cosines, order, 1), order


@pytest.mark.parametrize("anchor_block", [1, 7, 37, 1000])
@pytest.mark.parametrize("pool_block", [1, 5, 53, 1000])
def test_any_blocks_give_what_one_matrix_gives(anchor_block, pool_block):
    anchors, pool = unit_vectors(37), unit_vectors(53, seed=1)
    rng = np.random.default_rng(2)
    anchor_groups, pool_groups = rng.integers(0, 20, 37), rng.integers(0, 20, 53)
    expected_scores, expected = brute_force(anchors, pool, anchor_groups, pool_groups, 6)
    scores, indices = nearest(
        anchors, pool, anchor_groups, pool_groups, 6, anchor_block=anchor_block, pool_block=pool_block
    )
    assert np.array_equal(indices, expected)
    assert np.allclose(scores, expected_scores, atol=1e-6)
    assert (pool_groups[indices] != anchor_groups[:, None]).all()


def test_pool_that_is_smaller_than_asked_for_is_filled_up_with_none():
    anchors, pool = unit_vectors(2), unit_vectors(4, seed=1)
    scores, indices = nearest(anchors, pool, np.array([0, 9]), np.array([0, 0, 1, 2]), 6, pool_block=3)
    assert indices[0].tolist()[2:] == [-1] * 4
    assert sorted(indices[0, :2].tolist()) == [2, 3]
    assert sorted(indices[1, :4].tolist()) == [0, 1, 2, 3]
    assert np.isneginf(scores[0, 2:]).all()


def test_what_is_too_near_to_the_positive_is_left_out():
    scores = np.array([[0.9, 0.76, 0.75, 0.5, -np.inf]], np.float32)
    indices = np.array([[4, 7, 2, 9, -1]])
    kept, too_near = keep_margin(scores, indices, np.array([0.8], np.float32), 0.05)
    assert kept.tolist() == [[2, 9, -1, -1, -1]]
    assert too_near == 2


def test_margin_lies_below_a_negative_cosine_too():
    scores = np.array([[-0.2, -0.205, -0.3]], np.float32)
    kept, too_near = keep_margin(scores, np.array([[0, 1, 2]]), np.array([-0.2], np.float32), 0.05)
    assert (kept.tolist(), too_near) == ([[2, -1, -1]], 2)


@pytest.fixture(scope="module")
def sample(root):
    rows = read_jsonl(root / "data/sample/paraphrases/close.jsonl")[:160]
    return [row["original"] for row in rows], [row["paraphrase"] for row in rows]


@pytest.fixture(scope="module")
def minilm():
    embedder = load_embedder(MINILM, max_length=128, device="cpu")
    peer = SentenceTransformer(str(embedder.base.folder), device="cpu")
    peer.max_seq_length = 128
    return embedder, peer


@pytest.mark.parametrize(("range_min", "range_max", "margin"), [(0, 20, 0.05), (3, 25, 0.3), (0, 12, 0.0)])
def test_top_candidates_are_those_of_sentence_transformers(range_min, range_max, margin, sample, minilm):
    anchors, positives = sample
    embedder, peer = minilm
    # Its corpus always holds the positives, so they are the pool here; an anchor's group is its own positive.
    groups = np.arange(len(anchors))
    ours, _ = Miner(embedder, positives, groups).candidates(
        anchors, positives, groups, relative_margin=margin, range_min=range_min, range_max=range_max
    )
    count = 4
    theirs = mine_hard_negatives(
        Dataset.from_dict({"anchor": anchors, "positive": positives}),
        peer,
        range_min=range_min,
        range_max=range_max,
        relative_margin=margin,
        num_negatives=count,
        sampling_strategy="top",
        output_format="labeled-list",
        verbose=False,
    )
    mined = {row["anchor"]: row["positive"][1:] for row in theirs}
    compared = 0
    for anchor, candidates in zip(anchors, ours, strict=True):
        texts = [positives[i] for i in candidates[:count] if i >= 0]
        # A pair whose positive is not among its nearest is given one candidate more there.
        assert mined.get(anchor, [])[: len(texts)] == texts
        compared += len(texts)
    assert compared > 400


def test_each_distinct_text_is_encoded_once(tiny_bert, sample, monkeypatch):
    anchors, positives = sample[0][:30], sample[1][:30]
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    seen, encode = [], embedder.encode
    monkeypatch.setattr(embedder, "encode", lambda texts, **options: (seen.extend(texts), encode(texts, **options))[1])
    monkeypatch.setattr(mining, "_BLOCK", 7)
    pool = [*anchors[:25], "A sentence that no row has."]
    rows = [*range(30), 3, 3]  # anchors and positives come again
    miner = Miner(embedder, pool, np.arange(26))
    found, _ = miner.candidates(
        [anchors[i] for i in rows],
        [positives[i] for i in rows],
        np.array(rows),
        relative_margin=0.0,
        range_min=0,
        range_max=5,
    )
    assert sorted(seen) == sorted([*pool, *anchors[25:], *positives])
    assert np.array_equal(found[3], found[30])


def test_blocks_of_texts_change_nothing(tiny_bert, sample, monkeypatch):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    anchors, positives = sample[0][:40], sample[1][:40]
    results = []
    for block in (1000, 9):
        monkeypatch.setattr(mining, "_BLOCK", block)
        miner = Miner(embedder, anchors, np.arange(40))
        options = {"relative_margin": 0.02, "range_min": 1, "range_max": 8}
        results.append(miner.candidates(anchors[5:], positives[5:], np.arange(5, 40), **options)[0])
    assert results[0].shape == (35, 7)
    assert np.array_equal(results[0], results[1])


def test_model_with_two_prompts_gives_anchors_their_own(tiny_qwen3, sample, monkeypatch):
    anchors, positives = sample[0][:6], sample[1][:6]
    embedder = load_embedder(
        str(tiny_qwen3), max_length=64, device="cpu", anchor_prompt="Query: ", positive_prompt=None
    )
    seen, encode = [], embedder.encode

    def spy(texts, prompt_name=None):
        seen.extend((prompt_name, text) for text in texts)
        return encode(texts, prompt_name=prompt_name)

    monkeypatch.setattr(embedder, "encode", spy)
    miner = Miner(embedder, anchors, np.arange(6))
    found, _ = miner.candidates(anchors, positives, np.arange(6), relative_margin=0.0, range_min=0, range_max=3)
    assert [prompt for prompt, _ in seen] == [None] * 6 + ["anchor"] * 6 + [None] * 6
    expected = torch.from_numpy(encode(anchors, prompt_name="anchor") @ encode(anchors).T)
    expected.fill_diagonal_(-torch.inf)
    limit = (encode(anchors, prompt_name="anchor") * encode(positives)).sum(1)
    for row, cosines, most in zip(found.tolist(), expected, limit, strict=True):
        assert [i for i in row if i >= 0] == [i for i in cosines.topk(3).indices.tolist() if cosines[i] < most]
