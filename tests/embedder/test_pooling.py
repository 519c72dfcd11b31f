import itertools

import numpy as np
import pytest
import torch

from cardioembed.embedder.batching import CHUNK_COST, length_sorted_chunks, pad, padded_tokens
from cardioembed.embedder.pooling import pool

HIDDEN = torch.tensor([[[1.0, 0.0], [2.0, 4.0], [3.0, 8.0], [9.0, 9.0]]])
EXPECTED = {"cls": [1.0, 0.0], "mean": [2.0, 4.0], "lasttoken": [3.0, 8.0]}


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_padding_on_the_right_is_not_pooled(mode):
    assert pool(HIDDEN, torch.tensor([[1, 1, 1, 0]]), mode).tolist() == [EXPECTED[mode]]


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_padding_on_the_left_gives_the_same_vector(mode):
    left = torch.cat([HIDDEN[:, 3:], HIDDEN[:, :3]], dim=1)
    assert pool(left, torch.tensor([[0, 1, 1, 1]]), mode).tolist() == [EXPECTED[mode]]


def test_unknown_mode_names_the_known_ones():
    with pytest.raises(ValueError, match="choose cls, mean or lasttoken"):
        pool(HIDDEN, torch.ones(1, 4), "max")


def test_chunks_hold_every_text_once_within_the_budget():
    lengths = [3, 9, 4, 4, 30, 1]
    chunks = length_sorted_chunks(lengths, budget=12)
    assert chunks == [[4], [1], [2, 3], [0], [5]]
    assert sorted(i for chunk in chunks for i in chunk) == list(range(6))
    assert length_sorted_chunks([], budget=12) == []


@pytest.mark.parametrize("seed", range(20))
def test_chunks_are_the_cheapest_of_all_ways_to_cut(seed):
    random = np.random.default_rng(seed)
    lengths, budget = random.integers(1, 40, size=9).tolist(), int(random.choice([30, 60, 160]))

    def cost(chunks: list[list[int]]) -> float:
        return padded_tokens(lengths, chunks) + CHUNK_COST * budget * len(chunks)

    order = sorted(range(9), key=lambda i: -lengths[i])
    ways = []
    for cuts in itertools.product([False, True], repeat=8):
        edges = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), 9]
        ways.append([order[a:b] for a, b in itertools.pairwise(edges)])
    fitting = [
        way for way in ways if all(len(chunk) == 1 or padded_tokens(lengths, [chunk]) <= budget for chunk in way)
    ]
    assert cost(length_sorted_chunks(lengths, budget)) == pytest.approx(min(map(cost, fitting)))


def test_mask_comes_from_lengths_even_if_the_text_ends_in_the_pad_token():
    ids, mask = pad([[5, 0], [7, 8, 0]], pad_id=0)
    assert ids.tolist() == [[5, 0, 0], [7, 8, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
