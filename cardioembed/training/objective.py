"""The loss that a plan asks for."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cardioembed.training import losses
from cardioembed.training.plan import Plan

Objective = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def build_objective(plan: Plan) -> Objective:
    """A function of anchors (n, d), positives (n, d), negatives (n, m, d) and the false-negative mask (n, n)."""

    def objective(anchors: Tensor, positives: Tensor, negatives: Tensor, mask: Tensor) -> Tensor:
        def loss(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            if plan.loss == "triplet_margin":
                return losses.triplet_margin(anchors, positives, negatives, plan.triplet_margin, plan.triplet_distance)
            return getattr(losses, plan.loss)(
                anchors, positives, negatives, plan.temperature, mask,
                symmetric=plan.symmetric, false_negative_margin=plan.false_negative_margin,
            )  # fmt: skip

        if not plan.matryoshka_dims:
            return loss(anchors, positives, negatives)
        weights = plan.matryoshka_weights or [1.0] * len(plan.matryoshka_dims)
        return losses.matryoshka(loss, plan.matryoshka_dims, weights)(anchors, positives, negatives)

    return objective
