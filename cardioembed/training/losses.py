"""Contrastive losses as pure functions of unit vectors.

Notation: n rows, each with an anchor a, a positive p and m negatives; s is the cosine, t the temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softplus

# Of 1 - s, where two texts are one: below it a logarithm is rounding error, and has no gradient here.
SMALLEST_DISTANCE = 1e-4


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    false_negatives: Tensor | None = None,
    *,
    symmetric: bool = False,
    false_negative_margin: float | None = None,
) -> Tensor:
    """The loss of the CardioEmbed paper: each row's own negatives, and the other rows' positives.

    ``L = -log exp(s(a,p)/t) / (exp(s(a,p)/t) + sum_k exp(s(a,n_k)/t) + sum_i exp(s(a,p_i)/t))``, where i runs over the
    other rows; the other rows' negatives are not in the sum (arXiv 2511.10930, after van den Oord et al. 2018, arXiv
    1807.03748).

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        negatives: Unit vectors, shape (n, m, d); m may be 0.
        temperature: t.
        false_negatives: Boolean, shape (n, n): entry (i, j) takes row j's positive out of row i's sum. The diagonal
            is ignored.
        symmetric: Average with the loss of finding each positive's anchor among all anchors. No negatives stand in
            that direction's sums; a pair left out of one direction is left out of the other.
        false_negative_margin: Leave out the documents that ``similarity_mask`` marks.

    Returns:
        The mean over rows, a scalar.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    _check_shapes(anchors, positives, negatives, false_negatives)
    without, without_others = _left_out(anchors, positives, negatives, false_negatives, false_negative_margin)
    own = torch.einsum("nd,nmd->nm", anchors, negatives) / temperature
    own = own.masked_fill(without_others.diagonal(dim1=0, dim2=1).T, -torch.inf)
    in_batch = (anchors @ positives.T / temperature).masked_fill(without, -torch.inf)
    return _contrast(in_batch, own, symmetric)


def multiple_negatives_ranking(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    false_negatives: Tensor | None = None,
    *,
    symmetric: bool = False,
    false_negative_margin: float | None = None,
) -> Tensor:
    """All documents of the batch against each anchor: every row's positive and every row's negatives.

    ``L = -log exp(s(a,p)/t) / sum_x exp(s(a,x)/t)``, where x runs over all n + n m documents (Henderson et al. 2017,
    arXiv 1705.00652). Equals sentence-transformers' MultipleNegativesRankingLoss with ``scale = 1 / temperature`` where
    nothing is left out. Arguments, result and errors as ``info_nce``; a masked row's negatives are taken out together
    with its positive, whereas ``false_negative_margin`` judges every document by itself.
    """
    _check_shapes(anchors, positives, negatives, false_negatives)
    without, without_others = _left_out(anchors, positives, negatives, false_negatives, false_negative_margin)
    others = torch.einsum("nd,kmd->nkm", anchors, negatives) / temperature
    others = others.masked_fill(without_others, -torch.inf)
    in_batch = (anchors @ positives.T / temperature).masked_fill(without, -torch.inf)
    return _contrast(in_batch, others.flatten(1), symmetric)


def triplet_margin(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    margin: float,
    distance: Literal["euclidean", "cosine"],
) -> Tensor:
    """Each negative must lie further from its anchor than the positive does, by a margin.

    ``L = max(0, d(a,p) - d(a,n) + margin)`` (Schroff et al. 2015, arXiv 1503.03832, there with squared distances);
    no document of another row takes part.

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        negatives: Unit vectors, shape (n, m, d); m at least 1.
        margin: In units of the distance, which lies between 0 and 2 for either choice.
        distance: ``"euclidean"``, or ``"cosine"`` for 1 - s.

    Returns:
        The mean over rows and negatives, a scalar.

    Raises:
        ValueError: The shapes do not fit each other, or there is no negative.
    """
    _check_shapes(anchors, positives, negatives)
    if not negatives.shape[1]:
        raise ValueError("triplet_margin compares with negatives and the rows have none; give each row at least one")
    measure = {"euclidean": _euclidean_distance, "cosine": _cosine_distance}[distance]
    excess = measure(anchors, positives).unsqueeze(1) - measure(anchors.unsqueeze(1), negatives) + margin
    return excess.relu().mean()


def opposed_statements(
    anchors: Tensor,
    positives: Tensor,
    opposed: Tensor,
    rows: Tensor,
    temperature: float,
    weight: float,
    margin: float,
    false_negatives: Tensor | None = None,
) -> Tensor:
    """Each text finds its own other wording, and lies nearer to it than to what contradicts it.

    The texts of a row are two wordings of a statement (a, p) and perhaps two of one that contradicts it (b, q); each x
    of them has the other wording x' and, where there are b and q, two opposed texts y. With d = 1 - s::

        L = mean_x -log exp(s(x,x')/t) / sum_z exp(s(x,z)/t)  +  weight mean_xy log(1 + e^margin d(x,x') / d(x,y))

    where z runs over x' and the texts of other rows. The first term is NT-Xent (Chen et al. 2020, arXiv 2002.05709)
    without the row's own opposed texts, which differ in a word and would outweigh all others there. The second
    compares distances by their ratio (softplus of the difference of their logarithms): drawing all texts together,
    which lowers a difference of cosines, leaves a ratio as it is, and its gradient does not vanish where opposed texts
    are all but equal.

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        opposed: Unit vectors of the two wordings that contradict a row, shape (k, 2, d); k may be 0.
        rows: Which row each of them contradicts, shape (k,).
        temperature: t.
        weight: Of the second term.
        margin: 0 asks for no more than the right order.
        false_negatives: Boolean, shape (n, n): texts of rows i and j are not compared.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    n, d = anchors.shape
    if positives.shape != (n, d) or opposed.shape != (len(rows), 2, d):
        shapes = ", ".join(str(tuple(x.shape)) for x in (anchors, positives, opposed))
        raise ValueError(f"anchors, positives and opposed must be (n, d), (n, d) and ({len(rows)}, 2, d), not {shapes}")
    vectors = torch.cat([anchors, positives, opposed[:, 0], opposed[:, 1]])
    all_rows = torch.arange(n, device=rows.device)
    owners = torch.cat([all_rows, all_rows, rows, rows])
    contradicts = torch.arange(len(vectors), device=rows.device) >= 2 * n
    own_row = owners[:, None] == owners[None, :]
    same = own_row & (contradicts[:, None] == contradicts[None, :])
    same.fill_diagonal_(False)
    left_out = own_row & ~same
    against = left_out.clone().fill_diagonal_(False)
    if false_negatives is not None:
        left_out |= (false_negatives[owners][:, owners]) & ~own_row
    cosines = vectors @ vectors.T
    scores = (cosines / temperature).masked_fill(left_out, -torch.inf)
    contrast = cross_entropy(scores, same.int().argmax(1))
    if not len(rows):
        return contrast
    distances = torch.log((1 - cosines).clamp_min(SMALLEST_DISTANCE))
    own = distances[same].unsqueeze(1)
    return contrast + weight * softplus(own - distances + margin)[against].mean()


def drift(vectors: Tensor, reference: Tensor) -> Tensor:
    """How far texts moved from where they were, as 1 - s: holds what a model knew.

    A whole vector says where a text lies among all others, whereas cosines between the texts of a batch say it of a
    few, most of them unrelated.

    Args:
        vectors: Unit vectors, shape (n, d); n may be 0.
        reference: Those of the same texts by the model as it was, shape (n, d).

    Returns:
        The mean over texts, a scalar; 0 where there are none.

    Raises:
        ValueError: The shapes differ.
    """
    if vectors.shape != reference.shape:
        raise ValueError(f"vectors and reference must have one shape, not {vectors.shape} and {reference.shape}")
    return 1 - (vectors * reference).sum(-1).mean() if len(vectors) else vectors.new_zeros(())


def matryoshka(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], dims: Sequence[int], weights: Sequence[float]
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Trains the first entries of a vector to be useful by themselves.

    ``L = sum_k weights[k] * loss(first dims[k] entries, at unit length)`` (Kusupati et al. 2022, arXiv 2205.13147);
    equals sentence-transformers' MatryoshkaLoss. A ``false_negative_margin`` inside ``loss`` judges at each dimension
    anew.

    Args:
        loss: Function of anchors (n, d), positives (n, d) and negatives (n, m, d), all unit vectors.
        dims: Numbers of leading entries to keep, none above d.
        weights: One for each of ``dims``; they need not sum to 1.

    Returns:
        A function of the same arguments as ``loss``. It raises ValueError where a dimension is above d.
    """
    terms = list(zip(dims, weights, strict=True))

    def weighted_sum(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        if max(dims) > anchors.shape[-1]:
            raise ValueError(f"dimension {max(dims)} is above the {anchors.shape[-1]} of the vectors")

        def at(dim: int) -> Tensor:
            return loss(*(normalize(x[..., :dim], dim=-1) for x in (anchors, positives, negatives)))

        return sum(weight * at(dim) for dim, weight in terms)

    return weighted_sum


@torch.no_grad()
def similarity_mask(anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Which documents lie so close to an anchor that they are hardly its negatives.

    Marks document x for anchor a where ``s(a,x) > s(a,p) + margin``, p being the anchor's own positive. Qwen3-Embedding
    was trained with margin 0.1 (arXiv 2506.05176); sentence-transformers' GISTEmbedLoss does the same with the model as
    its own guide and the margin's sign turned.

    Args:
        anchors: Unit vectors, shape (n, d).
        positives: Unit vectors, shape (n, d).
        negatives: Unit vectors, shape (n, m, d); m may be 0.
        margin: Cosine; below 0, documents somewhat further than the own positive are marked too.

    Returns:
        Boolean, shape (n, n): entry (i, j) is row j's positive for anchor i, False on the diagonal.
        Boolean, shape (n, n, m): entry (i, j, k) is row j's k-th negative for anchor i. ``info_nce`` uses only those
            with i = j.
    """
    in_batch = anchors @ positives.T
    limit = in_batch.diagonal().unsqueeze(1) + margin
    others = torch.einsum("nd,kmd->nkm", anchors, negatives)
    return (in_batch > limit).fill_diagonal_(False), others > limit.unsqueeze(-1)


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


def _contrast(in_batch: Tensor, others: Tensor, symmetric: bool) -> Tensor:
    """Cross-entropy of the diagonal of ``in_batch`` (n, n) among its row and that of ``others`` (n, any number)."""
    own = torch.arange(len(in_batch), device=in_batch.device)
    forward = cross_entropy(torch.cat([in_batch, others], dim=1), own)
    return (forward + cross_entropy(in_batch.T, own)) / 2 if symmetric else forward


def _left_out(
    anchors: Tensor, positives: Tensor, negatives: Tensor, false_negatives: Tensor | None, margin: float | None
) -> tuple[Tensor, Tensor]:
    """The given mask and ``similarity_mask`` together, in the shapes of the latter."""
    n, m = negatives.shape[:2]
    rows = torch.zeros(n, n, dtype=torch.bool, device=anchors.device)
    if false_negatives is not None:
        rows = false_negatives & ~torch.eye(n, dtype=torch.bool, device=anchors.device)
    documents = rows.unsqueeze(-1).expand(n, n, m)
    if margin is None:
        return rows, documents
    similar, similar_others = similarity_mask(anchors, positives, negatives, margin)
    return rows | similar, documents | similar_others


def _euclidean_distance(a: Tensor, b: Tensor) -> Tensor:
    # Not sqrt(2 - 2 s): its gradient has no bound where the vectors meet; that of the norm is 0 there.
    return torch.linalg.vector_norm(a - b, dim=-1)


def _cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (a * b).sum(-1)


def _check_shapes(anchors: Tensor, positives: Tensor, negatives: Tensor, false_negatives: Tensor | None = None) -> None:
    """Refuses what matrix products would broadcast into another loss."""
    n, d = anchors.shape
    if positives.shape != (n, d) or negatives.ndim != 3 or negatives.shape[::2] != (n, d):
        shapes = ", ".join(str(tuple(x.shape)) for x in (anchors, positives, negatives))
        raise ValueError(f"anchors, positives and negatives must be (n, d), (n, d) and (n, m, d), not {shapes}")
    if false_negatives is not None and false_negatives.shape != (n, n):
        raise ValueError(f"false_negatives must be {(n, n)} for {n} rows, not {tuple(false_negatives.shape)}")
