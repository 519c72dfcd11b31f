import pytest
import torch

from cardioembed.embedder.batching import length_sorted_chunks, pad
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
    assert chunks == [[4], [1], [2, 3, 0], [5]]
    assert sorted(i for chunk in chunks for i in chunk) == list(range(6))


def test_mask_comes_from_lengths_even_if_the_text_ends_in_the_pad_token():
    ids, mask = pad([[5, 0], [7, 8, 0]], pad_id=0)
    assert ids.tolist() == [[5, 0, 0], [7, 8, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
