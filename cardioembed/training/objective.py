"""The loss that a plan asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cardioembed.training import losses
from cardioembed.training.batches import Batch
from cardioembed.training.plan import Plan

Objective = Callable[[Tensor, tuple[Tensor, Tensor] | None, Batch], Tensor]


def build_objective(plan: Plan) -> Objective:
    """The plan's loss.

    Returns:
        A function of a batch's vectors, shape (texts, d), in the order of ``batch.sequences``; of what
        ``Untrained.of`` says of these texts, or None; and of the batch. It gives a scalar.
    """

    def objective(vectors: Tensor, untrained: tuple[Tensor, Tensor] | None, batch: Batch) -> Tensor:
        mask, owners = batch.mask.to(vectors.device), batch.owners.to(vectors.device)
        anchors, positives, others = vectors.tensor_split((batch.rows, 2 * batch.rows))
        if plan.loss == "opposed_statements":
            first, second = others.chunk(2)
            others, rows = torch.stack([first, second], dim=1), owners[2 * batch.rows :][: len(first)]
        else:
            rows = owners[: batch.rows]
            others = others.view(-1, batch.rows, vectors.shape[1]).transpose(0, 1)
        loss = _weighted_dimensions(_contrast(plan, rows, mask), plan)(anchors, positives, others)
        if untrained is None:
            return loss
        known, reference = (part.to(vectors.device) for part in untrained)
        return loss + plan.distillation * losses.drift(vectors[known], reference)

    return objective


def _weighted_dimensions(loss: Callable[..., Tensor], plan: Plan) -> Callable[..., Tensor]:
    if not plan.matryoshka_dims:
        return loss
    return losses.matryoshka(loss, plan.matryoshka_dims, plan.matryoshka_weights or [1.0] * len(plan.matryoshka_dims))


def _contrast(plan: Plan, rows: Tensor, mask: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of a batch; ``rows`` tells whose the opposed statements are."""

    def loss(anchors: Tensor, positives: Tensor, others: Tensor) -> Tensor:
        if plan.loss == "triplet_margin":
            return losses.triplet_margin(anchors, positives, others, plan.triplet_margin, plan.triplet_distance)
        if plan.loss == "opposed_statements":
            return losses.opposed_statements(
                anchors, positives, others, rows, plan.temperature, plan.opposed_weight, plan.opposed_margin, mask
            )
        return getattr(losses, plan.loss)(
            anchors, positives, others, plan.temperature, mask,
            symmetric=plan.symmetric, false_negative_margin=plan.false_negative_margin,
        )  # fmt: skip

    return loss
