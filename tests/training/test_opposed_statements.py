"""The loss on statements and what contradicts them, and how far texts moved, against naive loops."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from cardioembed.training.losses import drift, opposed_statements

T, WEIGHT, MARGIN = 0.2, 6.0, 0.3
ROWS = torch.tensor([0, 2, 3])


def unit(*shape, seed):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(vectors, dim=-1).requires_grad_()


def batch(n=4, k=3, d=6):
    return unit(n, d, seed=1), unit(n, d, seed=2), unit(k, 2, d, seed=3)


def naive(anchors, positives, opposed, rows, mask=None):
    """Every text by itself, from the formula."""
    texts = [(row, "stated", x) for vectors in (anchors, positives) for row, x in enumerate(vectors)]
    texts += [(int(row), "opposed", pair[j]) for j in (0, 1) for row, pair in zip(rows, opposed, strict=True)]
    contrasts, ratios = [], []
    for i, (row, says, x) in enumerate(texts):
        own = next(z for j, (r, s, z) in enumerate(texts) if j != i and (r, s) == (row, says))
        others = [z for r, _, z in texts if r != row and not (mask is not None and (mask[row, r]))]
        scores = [math.exp((x @ z).item() / T) for z in (own, *others)]
        contrasts.append(-math.log(scores[0] / sum(scores)))
        for r, s, y in texts:
            if r == row and s != says:
                ratio = (1 - (x @ own).item()) / (1 - (x @ y).item())
                ratios.append(math.log(1 + math.exp(MARGIN) * ratio))
    mean = sum(contrasts) / len(contrasts)
    return mean + WEIGHT * (sum(ratios) / len(ratios) if ratios else 0)


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_a_loop_over_the_texts(k, masked):
    anchors, positives, opposed = batch(k=k)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 2] = mask[2, 0] = mask[1, 3] = masked
    found = opposed_statements(anchors, positives, opposed, ROWS[:k], T, WEIGHT, MARGIN, mask)
    assert found.item() == pytest.approx(naive(anchors, positives, opposed, ROWS[:k], mask), rel=1e-12)


def test_gradients_are_those_of_finite_differences():
    anchors, positives, opposed = (x.detach().requires_grad_() for x in batch())
    assert torch.autograd.gradcheck(
        lambda *vectors: opposed_statements(*(normalize(x, dim=-1) for x in vectors), ROWS, T, WEIGHT, MARGIN),
        (anchors, positives, opposed),
    )


def test_drawing_all_texts_together_does_not_pay():
    """A dimension that all texts share leaves the ratio of distances as it was, unlike the difference of cosines."""
    vectors = batch()

    def second_term(texts):
        return (
            opposed_statements(*texts, ROWS, T, 1.0, MARGIN) - opposed_statements(*texts, ROWS, T, 0.0, MARGIN)
        ).item()

    wide = [torch.cat([x * 0.6, torch.full_like(x[..., :1], 0.8)], dim=-1) for x in vectors]
    assert second_term(wide) == pytest.approx(second_term(vectors), rel=1e-12)
    assert (wide[0] @ wide[0].T).mean() > (vectors[0] @ vectors[0].T).mean() + 0.2


def test_equal_texts_leave_a_finite_loss_and_gradient():
    anchors, positives, _ = batch()
    opposed = torch.stack([anchors[ROWS], positives[ROWS]], dim=1)
    loss = opposed_statements(anchors, positives, opposed, ROWS, T, WEIGHT, MARGIN)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(anchors.grad).all()


def test_shapes_that_do_not_fit_are_refused():
    anchors, positives, opposed = batch()
    for wrong in (
        (anchors, positives[:3], opposed),
        (anchors, positives, opposed[:, :1]),
        (anchors, positives, opposed[:2]),
    ):
        with pytest.raises(ValueError, match=r"must be \(n, d\)"):
            opposed_statements(*wrong, ROWS, T, WEIGHT, MARGIN)


def test_drift_is_the_mean_of_one_minus_cosine():
    vectors, reference = unit(5, 6, seed=4), unit(5, 6, seed=5)
    cosines = [sum(x * y for x, y in zip(*pair, strict=True)).item() for pair in zip(vectors, reference, strict=True)]
    assert drift(vectors, reference).item() == pytest.approx(1 - sum(cosines) / 5, rel=1e-12)
    assert drift(vectors[:0], reference[:0]).item() == 0
    with pytest.raises(ValueError, match="one shape"):
        drift(vectors, reference[:1])
