"""How well a model does during training, and whether training did something."""

from __future__ import annotations

import numpy as np

from cardioembed.embedder.encoder import Embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.retrieval import rank_pairs, retrieval_items
from cardioembed.records import Row, normalise
from cardioembed.training.plan import Plan

SMALLEST_DRIFT = 1e-6


def validate(embedder: Embedder, rows: list[Row]) -> dict[str, float]:
    """Retrieval of the rows' positives by their anchors, each measure in the mean over rows.

    Where rows have opposed statements, these compete as well in their row's ``accuracy@1``, and ``opposed_accuracy``
    tells how often an anchor lies nearer to its positive than to both.
    """
    anchors, positives = embedder.encode_pairs([row["anchor"] for row in rows], [row["positive"] for row in rows])
    opposed = [i for i, row in enumerate(rows) if "opposed" in row]
    ranked = rank_pairs(
        anchors,
        positives,
        [row["group"] for row in rows],
        [normalise(row["positive"]) for row in rows],
        [row["id"] for row in rows],
    )
    measures = retrieval_items(ranked)
    if opposed:
        texts = [text for i in opposed for text in rows[i]["opposed"]]
        against = embedder.encode(texts, prompt_name=embedder.recipe.positive_prompt).reshape(len(opposed), 2, -1)
        nearest = np.einsum("nd,nkd->nk", anchors[opposed], against).max(1)
        right = (anchors[opposed] * positives[opposed]).sum(1) > nearest
        measures["accuracy@1"][opposed] *= right
        measures["opposed_accuracy"] = right
    return {name: float(values.mean()) for name, values in measures.items()}


def check_objective(plan: Plan, rows: list[Row], dimension: int) -> None:
    """Refuses a loss that these rows or this base cannot have.

    Raises:
        UserError: triplet_margin without negatives, opposed_statements without such, or a Matryoshka dimension above
            the base's.
    """
    bare = sum(not row["negatives"] for row in rows)
    if plan.loss == "triplet_margin" and bare:
        raise UserError(
            f"train.loss: triplet_margin compares with negatives, and {bare:,} of {len(rows):,} rows have none. Run "
            "stage 02 again with prepare.negatives_per_anchor of 1 or more, or set train.loss: info_nce"
        )
    if plan.loss == "opposed_statements" and not any("opposed" in row for row in rows):
        raise UserError(
            "train.loss: opposed_statements needs rows with statements that contradict them, and no row has one. Run "
            "stage 02 again with prepare.opposed_statements: true and prepare.counterfactual.files, or set train.loss: "
            "info_nce"
        )
    if above := [dim for dim in plan.matryoshka_dims if dim > dimension]:
        raise UserError(f"train.matryoshka_dims: {above[0]} is above the {dimension} dimensions of this base's vectors")


def probe_drift(before: np.ndarray, after: np.ndarray) -> float:
    """How far the vectors of the same texts moved, as 1 - cosine, in the mean.

    Args:
        before: The base's vectors, shape (texts, dimension).
        after: The trained model's.

    Raises:
        UserError: No text moved.
    """
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.float64(before), np.float64(after)))
    # 1 - cosine of unit vectors, without the digits that subtracting from 1 would lose.
    drifts = ((first - second) ** 2).sum(1) / 2
    if not drifts.max() > SMALLEST_DRIFT:
        raise UserError(
            f"training changed nothing: no probe text moved from the base by more than {SMALLEST_DRIFT:g} (1 - cosine; "
            f"the furthest by {drifts.max():.1g}). Train longer (train.num_train_epochs, train.max_steps), raise "
            "train.learning_rate or model.lora.lora_alpha, or adapt more of model.lora.target_modules"
        )
    return float(drifts.mean())
