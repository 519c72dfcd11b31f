"""Contrastive losses as pure functions of unit vectors.

Notation: n rows, each with an anchor a, a positive p and m negatives; s is the cosine, t the temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOSSES = ("info_nce", "multiple_negatives_ranking")


def info_nce(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float, false_negatives: Tensor | None = None
) -> Tensor:
    """The loss of the CardioEmbed paper: each row's own negatives, and the other rows' positives.

    ``L = -log exp(s(a,p)/t) / (exp(s(a,p)/t) + sum_k exp(s(a,n_k)/t) + sum_i exp(s(a,p_i)/t))``, where i runs over the
    other rows; the other rows' negatives are not in the sum (arXiv 2511.10930).

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        negatives: Unit vectors, shape (n, m, d); m may be 0.
        temperature: t.
        false_negatives: Boolean, shape (n, n): entry (i, j) takes row j's positive out of row i's sum. The diagonal
            is ignored.

    Returns:
        The mean over rows, a scalar.
    """
    in_batch = _mask_positives(anchors @ positives.T / temperature, false_negatives)
    own = torch.einsum("nd,nmd->nm", anchors, negatives) / temperature
    logits = torch.cat([in_batch, own], dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(anchors), device=anchors.device))


def multiple_negatives_ranking(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float, false_negatives: Tensor | None = None
) -> Tensor:
    """All documents of the batch against each anchor: every row's positive and every row's negatives.

    Equals sentence-transformers' MultipleNegativesRankingLoss with ``scale = 1 / temperature`` where nothing is
    masked. Arguments and result as ``info_nce``; a masked row's negatives are taken out together with its positive.
    """
    in_batch = _mask_positives(anchors @ positives.T / temperature, false_negatives)
    others = torch.einsum("nd,kmd->nkm", anchors, negatives) / temperature
    if false_negatives is not None:
        off_diagonal = false_negatives & ~torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
        others = others.masked_fill(off_diagonal.unsqueeze(-1), -torch.inf)
    logits = torch.cat([in_batch, others.flatten(1)], dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(anchors), device=anchors.device))


def _mask_positives(logits: Tensor, false_negatives: Tensor | None) -> Tensor:
    if false_negatives is None:
        return logits
    diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return logits.masked_fill(false_negatives & ~diagonal, -torch.inf)


def false_negative_mask(groups: list[str], anchors: list[str], positives: list[str]) -> Tensor:
    """Which rows must not count against each other.

    Args:
        groups: Group of each row: two paraphrases of one sentence are never negatives of each other.
        anchors: Normalised anchor texts.
        positives: Normalised positive texts; a positive that equals another row's anchor or positive is the same text.

    Returns:
        Boolean, shape (n, n), False on the diagonal.
    """
    same = _equal(groups, groups) | _equal(positives, positives) | _equal(anchors, anchors) | _equal(anchors, positives)
    return same & ~torch.eye(len(groups), dtype=torch.bool)


def _equal(first: list[str], second: list[str]) -> Tensor:
    numbers: dict[str, int] = {}
    a = torch.tensor([numbers.setdefault(text, len(numbers)) for text in first])
    b = torch.tensor([numbers.setdefault(text, len(numbers)) for text in second])
    return a[:, None] == b[None, :]
