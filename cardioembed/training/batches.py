"""Training triplets as tokens, in a seeded order, and which of a batch must not count against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cardioembed.embedder.encoder import Embedder
from cardioembed.records import Row, normalise
from cardioembed.training.losses import false_negative_mask


@dataclass(frozen=True)
class Batch:
    """The rows of one step.

    Attributes:
        rows: How many.
        sequences: Token ids of all anchors, then all positives, then all first negatives, all second ones ...
        mask: Pairs of rows that are no negatives of each other, boolean, (rows, rows).
    """

    rows: int
    sequences: list[list[int]]
    mask: Tensor


class Batches:
    """Batches of an epoch after another; any step can be asked for, so a resumed run sees the same ones.

    Args:
        embedder: Whose tokenizer and prompts are used.
        rows: Triplets.
        size: Rows a batch, of all processes together.
        per_epoch: Batches an epoch; what is left over has fewer rows, or is left out.
        seed: Decides the order.

    Attributes:
        negatives: Negatives a row: what the row with the fewest has.
        truncated: Texts that were cut at ``max_length``.
    """

    def __init__(self, embedder: Embedder, rows: list[Row], size: int, per_epoch: int, seed: int) -> None:
        self.size, self.per_epoch, self.seed = size, per_epoch, seed
        anchor, positive = embedder.recipe.anchor_prompt, embedder.recipe.positive_prompt
        self.negatives = m = min(len(row["negatives"]) for row in rows)
        anchors, cut_anchors = embedder.tokenize([row["anchor"] for row in rows], anchor)
        positives, cut_positives = embedder.tokenize([row["positive"] for row in rows], positive)
        texts = [text for row in rows for text in row["negatives"][:m]]
        negatives, cut_negatives = embedder.tokenize(texts, positive) if texts else ([], 0)
        self.truncated = cut_anchors + cut_positives + cut_negatives
        self._tokens = [
            [a, p, *negatives[i * m : i * m + m]] for i, (a, p) in enumerate(zip(anchors, positives, strict=True))
        ]
        self._epoch, self._order = -1, np.empty(0, int)
        self._keys = [(row["group"], normalise(row["anchor"]), normalise(row["positive"])) for row in rows]

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self._tokens))
        chosen = self._order[index * self.size : (index + 1) * self.size]
        sequences = [self._tokens[i][part] for part in range(2 + self.negatives) for i in chosen]
        columns = zip(*(self._keys[i] for i in chosen), strict=True)
        return Batch(len(chosen), sequences, false_negative_mask(*(list(column) for column in columns)))
