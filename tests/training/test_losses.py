import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn.functional import normalize

from cardioembed.records import normalise
from cardioembed.training.losses import false_negative_mask, info_nce, multiple_negatives_ranking


def unit(*shape, seed=0):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(vectors, dim=-1).requires_grad_()


def naive(anchors, positives, negatives, temperature, mask, all_documents):
    """The formula of the paper as a loop, a term at a time."""
    losses = []
    for i in range(len(anchors)):
        own = torch.exp(anchors[i] @ positives[i] / temperature)
        total = own
        for j in range(len(anchors)):
            if j != i and not mask[i][j]:
                total = total + torch.exp(anchors[i] @ positives[j] / temperature)
            if j == i or (all_documents and not mask[i][j]):
                for negative in negatives[j]:
                    total = total + torch.exp(anchors[i] @ negative / temperature)
        losses.append(-torch.log(own / total))
    return sum(losses) / len(losses)


MASK = torch.zeros(5, 5, dtype=torch.bool)
MASK[0, 3] = MASK[3, 0] = MASK[2, 4] = True


@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(("loss", "all_documents"), [(info_nce, False), (multiple_negatives_ranking, True)])
def test_value_and_gradients_equal_a_naive_loop(loss, all_documents, mask, m):
    inputs = [unit(5, 6, seed=1), unit(5, 6, seed=2), unit(5, m, 6, seed=3)]
    value = loss(*inputs, 0.05, mask)
    expected = naive(*inputs, 0.05, torch.zeros(5, 5) if mask is None else mask, all_documents)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    used = inputs if m else inputs[:2]
    for ours, theirs in zip(torch.autograd.grad(value, used), torch.autograd.grad(expected, used), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_other_rows_negatives_are_not_in_the_papers_sum():
    anchors, positives, negatives = unit(3, 4, seed=1), unit(3, 4, seed=2), unit(3, 1, 4, seed=3)
    moved = negatives.detach().clone()
    moved[2] = anchors.detach()[0]
    rows = [
        -torch.log_softmax(
            torch.cat([anchors @ positives.T, torch.einsum("nd,nmd->nm", anchors, x)], 1) / 0.05, dim=1
        ).diagonal()[0]
        for x in (negatives, moved)
    ]
    assert rows[0].item() == rows[1].item()
    assert multiple_negatives_ranking(anchors, positives, moved, 0.05) > multiple_negatives_ranking(
        anchors, positives, negatives, 0.05
    )


def test_two_rows_by_hand():
    a = torch.eye(2, dtype=torch.float64)
    p = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    n = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]], dtype=torch.float64)
    first = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.0) + math.exp(0.6)))
    second = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.6) + math.exp(0.0)))
    assert info_nce(a, p, n, 1.0).item() == pytest.approx((first + second) / 2, abs=1e-12)


def test_switch_equals_the_loss_of_sentence_transformers(tiny_bert):
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    peer = MultipleNegativesRankingLoss(model, scale=20.0)
    vectors = [unit(7, 64, seed=s).detach().float() for s in (1, 2, 3)]
    expected = peer.compute_loss_from_embeddings(vectors, None)
    ours = multiple_negatives_ranking(vectors[0], vectors[1], vectors[2].unsqueeze(1), 0.05)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-6)


def test_paraphrases_of_one_sentence_and_equal_texts_do_not_count_against_each_other():
    groups = ["g1", "g1", "g2", "g3"]
    anchors = [normalise(t) for t in ("No thrombus.", "No thrombus.", "LVEF 35 %", "Normal valves")]
    positives = [normalise(t) for t in ("Thrombus absent", "Free of clot", "normal valves.", "Valves unremarkable")]
    assert false_negative_mask(groups, anchors, positives).int().tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
    ]


def test_a_row_and_its_duplicate_cost_what_one_row_costs():
    a, p, n = unit(1, 8, seed=1).detach(), unit(1, 8, seed=2).detach(), unit(1, 1, 8, seed=3).detach()
    alone = info_nce(a, p, n, 0.05).item()
    twice = [torch.cat([x, x]) for x in (a, p, n)]
    mask = false_negative_mask(["g", "g"], ["a", "a"], ["p", "p"])
    assert info_nce(*twice, 0.05, mask).item() == pytest.approx(alone, abs=1e-12)
    assert info_nce(*twice, 1.0).item() > info_nce(a, p, n, 1.0).item() + 0.1
