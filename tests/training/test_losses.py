import math
from functools import partial

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from torch.nn.functional import normalize, triplet_margin_loss, triplet_margin_with_distance_loss

from cardioembed.records import normalise
from cardioembed.training.losses import (
    false_negative_mask,
    info_nce,
    matryoshka,
    multiple_negatives_ranking,
    similarity_mask,
    triplet_margin,
)

contrastive = pytest.mark.parametrize("loss", [info_nce, multiple_negatives_ranking])
distances = pytest.mark.parametrize("distance", ["euclidean", "cosine"])
THREE_LOSSES = ("info_nce", "multiple_negatives_ranking", "triplet_margin")
MASK = torch.zeros(5, 5, dtype=torch.bool)
MASK[0, 3] = MASK[3, 0] = MASK[2, 4] = True


def unit(*shape, seed=0):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(vectors, dim=-1).requires_grad_()


def batch(n=5, m=1, d=6):
    return unit(n, d, seed=1), unit(n, d, seed=2), unit(n, m, d, seed=3)


def free_batch(n=7, m=1, d=16):
    """Leaves, and the unit vectors made of them: the peers normalise, so only gradients to the leaves agree."""
    leaves = batch(n, m, d)
    return leaves, [normalize(x, dim=-1) for x in leaves]


def naive(anchors, positives, negatives, temperature, mask=None, symmetric=False, margin=None, all_documents=False):
    """The formula of the paper and what is left out of it as a loop, a term at a time."""

    def term(a, b):
        return torch.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature)

    def masked(i, j):
        return i != j and mask is not None and bool(mask[i, j])

    def similar(i, document):
        own = (anchors[i] @ positives[i]).item()
        return margin is not None and (anchors[i] @ document).item() > own + margin

    n, terms = len(anchors), []
    for i in range(n):
        own = term(anchors[i], positives[i])
        total = own
        for j in range(n):
            if j != i and not masked(i, j) and not similar(i, positives[j]):
                total = total + term(anchors[i], positives[j])
            if j == i or (all_documents and not masked(i, j)):
                for negative in negatives[j]:
                    if not similar(i, negative):
                        total = total + term(anchors[i], negative)
        terms.append(-torch.log(own / total))
        if symmetric:
            total = own
            for j in range(n):
                if j != i and not masked(j, i) and not similar(j, positives[i]):
                    total = total + term(anchors[j], positives[i])
            terms.append(-torch.log(own / total))
    return sum(terms) / len(terms)


def naive_triplet(anchors, positives, negatives, margin, distance):
    def apart(a, b):
        cosine = sum(x * y for x, y in zip(a, b, strict=True))
        return 1 - cosine if distance == "cosine" else sum((x - y) ** 2 for x, y in zip(a, b, strict=True)).sqrt()

    terms = [
        torch.clamp(apart(a, p) - apart(a, negative) + margin, min=0)
        for a, p, row in zip(anchors, positives, negatives, strict=True)
        for negative in row
    ]
    return sum(terms) / len(terms)


def naive_matryoshka(loss, dims, weights, vectors):
    def cut(x, dim):
        return torch.stack([row[:dim] / (row[:dim] ** 2).sum().sqrt() for row in x])

    total = 0.0
    for dim, weight in zip(dims, weights, strict=True):
        anchors, positives, negatives = vectors
        flat = cut(negatives.flatten(0, 1), dim).unflatten(0, negatives.shape[:2])
        total = total + weight * loss(cut(anchors, dim), cut(positives, dim), flat)
    return total


def assert_equal_with_gradients(value, expected, inputs):
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    used = [x for x in inputs if x.numel()]
    ours, theirs = (
        torch.autograd.grad(x, used, retain_graph=True, allow_unused=True, materialize_grads=True)
        for x in (value, expected)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-10, atol=1e-12)


class Given(torch.nn.Module):
    """Stands in for a model: its "features" hold the vectors it returns."""

    max_seq_length = 8

    def __init__(self, tokenizer=None):
        super().__init__()
        self.tokenizer = tokenizer

    def get_embedding_dimension(self):
        return None

    def forward(self, features):
        return dict(features)


def features(anchors, positives, negatives):
    return [{"sentence_embedding": x} for x in (anchors, positives, *negatives.unbind(1))]


@pytest.mark.parametrize("margin", [None, 0.0, -0.3, 0.25])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize(("n", "mask"), [(5, None), (5, MASK), (1, None), (1, torch.ones(1, 1, dtype=torch.bool))])
@contrastive
def test_value_and_gradients_equal_a_naive_loop(loss, n, mask, m, symmetric, margin):
    inputs = batch(n, m)
    value = loss(*inputs, 0.05, mask, symmetric=symmetric, false_negative_margin=margin)
    expected = naive(*inputs, 0.05, mask, symmetric, margin, all_documents=loss is multiple_negatives_ranking)
    assert_equal_with_gradients(value, expected, inputs)


@contrastive
def test_gradients_equal_finite_differences(loss):
    def value(*inputs):
        return loss(*inputs, 0.5, MASK, symmetric=True, false_negative_margin=0.1)

    assert torch.autograd.gradcheck(value, batch(m=2))


@contrastive
def test_other_rows_negatives_are_not_in_the_papers_sum(loss):
    anchors, positives, negatives = batch()
    (to_anchors,) = torch.autograd.grad(loss(anchors, positives, negatives, 0.5), anchors, create_graph=True)
    (pull_on_the_first,) = torch.autograd.grad(to_anchors[0].sum(), negatives)
    felt = pull_on_the_first.flatten(1).any(1).tolist()
    assert felt == ([True] * 5 if loss is multiple_negatives_ranking else [True] + [False] * 4)


def test_two_rows_by_hand():
    a = torch.eye(2, dtype=torch.float64)
    p = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    n = torch.tensor([[[0.6, 0.8]], [[1.0, 0.0]]], dtype=torch.float64)
    first = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.0) + math.exp(0.6)))
    second = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.6) + math.exp(0.0)))
    assert info_nce(a, p, n, 1.0).item() == pytest.approx((first + second) / 2, abs=1e-12)
    first_positive = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6)))
    second_positive = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.0)))
    both = (first + second + first_positive + second_positive) / 4
    assert info_nce(a, p, n, 1.0, symmetric=True).item() == pytest.approx(both, abs=1e-12)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_all_documents_equal_the_loss_of_sentence_transformers(m):
    leaves, inputs = free_batch(m=m)
    expected = MultipleNegativesRankingLoss(Given(), scale=20.0)(features(*inputs), None)
    assert_equal_with_gradients(multiple_negatives_ranking(*inputs, 0.05), expected, leaves)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_both_directions_equal_the_symmetric_losses_of_sentence_transformers(m):
    leaves, inputs = free_batch(m=m)
    directions = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    for peer in (
        MultipleNegativesSymmetricRankingLoss(Given(), scale=20.0),
        MultipleNegativesRankingLoss(Given(), scale=20.0, **directions),
    ):
        expected = peer(features(*inputs), None)
        for ours in [multiple_negatives_ranking] if m else [multiple_negatives_ranking, info_nce]:
            assert_equal_with_gradients(ours(*inputs, 0.05, symmetric=True), expected, leaves)


@pytest.mark.parametrize("m", [0, 1])
@pytest.mark.parametrize("margin", [0.0, -0.1, 0.1])
def test_the_margin_equals_a_model_that_guides_itself_in_sentence_transformers(margin, m, tiny_bert):
    leaves, inputs = free_batch(m=m)
    model = Given(SentenceTransformer(str(tiny_bert), device="cpu").tokenizer)
    peer = GISTEmbedLoss(model, model, 0.05, margin=-margin, contrast_anchors=False, contrast_positives=False)
    ours = multiple_negatives_ranking(*inputs, 0.05, false_negative_margin=margin)
    assert ours.item() != multiple_negatives_ranking(*inputs, 0.05).item()
    assert_equal_with_gradients(ours, peer(features(*inputs), None), leaves)


def test_the_similarity_mask_by_hand():
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    positives = torch.tensor([[0.8, 0.6], [0.96, 0.28]])
    negatives = torch.tensor([[[0.96, 0.28], [0.6, 0.8]], [[1.0, 0.0], [0.28, 0.96]]])
    at_zero, others_at_zero = similarity_mask(anchors, positives, negatives, 0.0)
    assert at_zero.tolist() == [[False, True], [True, False]]
    assert others_at_zero.tolist() == [[[True, False], [True, False]], [[False, True], [False, True]]]
    wide, others_wide = similarity_mask(anchors, positives, negatives, 0.18)
    assert wide.tolist() == [[False, False], [True, False]]
    assert others_wide.tolist() == [[[False, False], [True, False]], [[False, True], [False, True]]]
    low, others_low = similarity_mask(anchors, positives, negatives, -3.0)
    assert low.tolist() == [[False, True], [True, False]]
    assert others_low.all()


@contrastive
@pytest.mark.parametrize("symmetric", [False, True])
def test_with_everything_left_out_only_the_own_positive_remains(loss, symmetric):
    inputs = batch(m=2)
    value = loss(*inputs, 0.05, symmetric=symmetric, false_negative_margin=-3.0)
    assert value.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, inputs))


@contrastive
@pytest.mark.parametrize("margin", [0.0, -0.2, 0.2])
def test_the_margin_and_its_mask_given_by_hand_leave_the_same_positives_out(loss, margin):
    anchors, positives, negatives = batch(m=0)
    similar, _ = similarity_mask(anchors, positives, negatives, margin)
    assert 0 < similar.sum() < 20
    both = loss(anchors, positives, negatives, 0.05, MASK, symmetric=True, false_negative_margin=margin)
    by_hand = loss(anchors, positives, negatives, 0.05, MASK | similar, symmetric=True)
    assert both.item() == by_hand.item()


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.5])
@pytest.mark.parametrize(("n", "m"), [(5, 1), (5, 3), (1, 1)])
@distances
def test_triplet_margin_equals_a_naive_loop(distance, n, m, margin):
    inputs = batch(n, m)
    value = triplet_margin(*inputs, margin, distance)
    assert_equal_with_gradients(value, naive_triplet(*inputs, margin, distance), inputs)
    assert torch.autograd.gradcheck(lambda *x: triplet_margin(*x, margin, distance), inputs)


def cosine_distance(a, b):
    return 1 - torch.cosine_similarity(a, b, dim=-1)


@pytest.mark.parametrize(
    ("distance", "of_torch", "metric"),
    [
        ("euclidean", partial(triplet_margin_loss, eps=0), TripletDistanceMetric.EUCLIDEAN),
        (
            "cosine",
            partial(triplet_margin_with_distance_loss, distance_function=cosine_distance),
            TripletDistanceMetric.COSINE,
        ),
    ],
)
def test_triplet_margin_equals_torch_and_sentence_transformers(distance, of_torch, metric):
    leaves, (anchors, positives, negatives) = free_batch(m=3)
    ours = triplet_margin(anchors, positives, negatives, 0.5, distance)
    columns = negatives.unbind(1)
    by_torch = sum(of_torch(anchors, positives, column, margin=0.5) for column in columns) / 3
    peer = TripletLoss(Given(), metric, 0.5)
    by_peer = sum(peer(features(anchors, positives, column.unsqueeze(1)), None) for column in columns) / 3
    assert_equal_with_gradients(ours, by_torch, leaves)
    assert_equal_with_gradients(ours, by_peer, leaves)


def test_triplets_by_hand():
    a, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    n = torch.tensor([[[-1.0, 0.0], [0.6, 0.8]]])
    assert triplet_margin(a, p, n, 0.5, "cosine").item() == pytest.approx((0 + 1 - 0.4 + 0.5) / 2, abs=1e-6)
    excess = math.sqrt(2) - math.sqrt(0.8) + 0.5
    assert triplet_margin(a, p, n, 0.5, "euclidean").item() == pytest.approx(excess / 2, abs=1e-6)


@distances
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triplet_gradients_stay_finite_where_vectors_meet(dtype, distance):
    vectors = unit(3, 6).detach().to(dtype).requires_grad_()
    value = triplet_margin(vectors, vectors * 1, vectors.roll(1, 0).unsqueeze(1), 0.5, distance)
    apart = torch.autograd.grad(value, vectors)[0]
    value = triplet_margin(vectors, vectors * 1, vectors.unsqueeze(1) * 1, 0.5, distance)
    together = torch.autograd.grad(value, vectors)[0]
    assert value.item() == 0.5
    assert apart.isfinite().all()
    assert together.isfinite().all()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize(
    "loss",
    [
        partial(info_nce, temperature=0.05, false_negatives=MASK),
        partial(multiple_negatives_ranking, temperature=0.05, symmetric=True, false_negative_margin=0.1),
        partial(triplet_margin, margin=0.5, distance="euclidean"),
    ],
    ids=THREE_LOSSES,
)
def test_matryoshka_equals_a_naive_loop(loss, m):
    inputs = batch(5, m, 8)
    dims, weights = (8, 5, 2), (1.0, 0.5, 0.25)
    value = matryoshka(loss, dims, weights)(*inputs)
    assert_equal_with_gradients(value, naive_matryoshka(loss, dims, weights, inputs), inputs)
    assert torch.autograd.gradcheck(matryoshka(loss, dims, weights), inputs)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_matryoshka_equals_the_loss_of_sentence_transformers(m):
    leaves, inputs = free_batch(m=m)
    dims, weights, model = [4, 16, 8], [0.25, 1, 0.5], Given()
    expected = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), dims, weights)
    ours = matryoshka(partial(multiple_negatives_ranking, temperature=0.05), dims, weights)
    assert_equal_with_gradients(ours(*inputs), expected(features(*inputs), None), leaves)


def test_matryoshka_at_full_length_is_the_loss_itself():
    leaves, inputs = free_batch(m=2)
    loss = partial(info_nce, temperature=0.05)
    assert_equal_with_gradients(matryoshka(loss, [3, 16], [0, 1])(*inputs), loss(*inputs), leaves)


def test_matryoshka_refuses_more_dimensions_than_there_are():
    loss = matryoshka(partial(info_nce, temperature=0.05), [6, 7], [1, 1])
    with pytest.raises(ValueError, match="dimension 7 is above the 6 of the vectors"):
        loss(*batch())


@pytest.mark.parametrize(
    "loss",
    [
        partial(info_nce, temperature=1.0),
        partial(multiple_negatives_ranking, temperature=1.0),
        partial(triplet_margin, margin=0.5, distance="cosine"),
    ],
    ids=THREE_LOSSES,
)
def test_shapes_that_would_broadcast_are_refused(loss):
    anchors, positives, negatives = batch(m=2)
    for wrong in [
        (anchors, positives[:1], negatives),
        (anchors[:1], positives, negatives),
        (anchors, positives, negatives[:1]),
        (anchors, positives, negatives[:, 0]),
        (anchors, positives, negatives.unsqueeze(-1)),
        (anchors, positives, negatives[..., :1]),
        (anchors, positives[:, :1], negatives),
    ]:
        with pytest.raises(ValueError, match=r"must be \(n, d\), \(n, d\) and \(n, m, d\), not "):
            loss(*wrong)


@contrastive
def test_a_mask_that_would_broadcast_is_refused(loss):
    for mask in (MASK[0], MASK[:1], MASK[:, :1], torch.tensor(True)):
        with pytest.raises(ValueError, match=r"false_negatives must be \(5, 5\) for 5 rows, not "):
            loss(*batch(), 0.05, mask)


def test_triplets_without_negatives_are_refused():
    with pytest.raises(ValueError, match="give each row at least one"):
        triplet_margin(*batch(m=0), 0.5, "euclidean")


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
