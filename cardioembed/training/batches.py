"""Training triplets as tokens, in a seeded order, and which of a batch must not count against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cardioembed.embedder.encoder import Embedder
from cardioembed.records import Row, normalise
from cardioembed.training.losses import false_negative_mask


@dataclass(frozen=True)
class Batch:
    """The rows of one step.

    Attributes:
        rows: How many.
        sequences: Token ids of all anchors, then all positives, then all first negatives, all second ones ..., then all
            first wordings of opposed statements, all second ones.
        numbers: Of the texts in ``Batches.sequences``, shape (texts,). A text without its final punctuation has the
            number of the whole one, and with it the untrained vector that it is to stay near.
        owners: The row, counted in the batch, that each sequence belongs to, shape (texts,).
        mask: Pairs of rows that are no negatives of each other, boolean, (rows, rows).
    """

    rows: int
    sequences: list[list[int]]
    numbers: np.ndarray
    owners: Tensor
    mask: Tensor


class Batches:
    """Batches of an epoch after another; any step can be asked for, so a resumed run sees the same ones.

    Args:
        embedder: Whose tokenizer and prompts are used.
        rows: Triplets.
        size: Rows a batch, of all processes together.
        per_epoch: Batches an epoch; what is left over has fewer rows, or is left out.
        seed: Decides the order.
        opposed: Whether rows bring the statement that contradicts them, where they have one, and no negatives.
        bare: Share of texts, drawn anew at every step, that come without their final punctuation.

    Attributes:
        sequences: Token ids of all texts of all rows.
        unopposed: Numbers of the sequences whose row has no opposed statement.
        truncated: Texts that were cut at ``max_length``.
    """

    def __init__(
        self,
        embedder: Embedder,
        rows: list[Row],
        size: int,
        per_epoch: int,
        seed: int,
        *,
        opposed: bool = False,
        bare: float = 0.0,
    ) -> None:
        self.size, self.per_epoch, self.seed = size, per_epoch, seed
        m = 0 if opposed else min(len(row["negatives"]) for row in rows)
        further = [row.get("opposed", ()) if opposed else row["negatives"][:m] for row in rows]
        documents = [[row["positive"], *texts] for row, texts in zip(rows, further, strict=True)]
        anchors, texts = [row["anchor"] for row in rows], [text for row in documents for text in row]

        def tokenize(form: Callable[[str], str]) -> tuple[list[list[int]], int]:
            first, cut = embedder.tokenize(list(map(form, anchors)), embedder.recipe.anchor_prompt)
            second, cut_too = embedder.tokenize(list(map(form, texts)), embedder.recipe.positive_prompt)
            return first + second, cut + cut_too

        self.sequences, self.truncated = tokenize(str)
        self._bare_share, self._bare = bare, tokenize(without_final_punctuation)[0] if bare else []
        ends = len(anchors) + np.cumsum([len(row) for row in documents])
        self._numbers = [
            np.array([i, *range(end - len(row), end)]) for i, (row, end) in enumerate(zip(documents, ends, strict=True))
        ]
        unopposed = [own for own, row in zip(self._numbers, rows, strict=True) if not (opposed and "opposed" in row)]
        self.unopposed = np.concatenate([np.empty(0, int), *unopposed])
        self._epoch, self._order = -1, np.empty(0, int)
        self._keys = [(row["group"], normalise(row["anchor"]), normalise(row["positive"])) for row in rows]

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self._numbers))
        chosen = self._order[index * self.size : (index + 1) * self.size]
        own = [self._numbers[i] for i in chosen]
        parts = range(max(map(len, own)))
        places = [(place, row[part]) for part in parts for place, row in enumerate(own) if part < len(row)]
        owners, numbers = np.array(places).T
        columns = zip(*(self._keys[i] for i in chosen), strict=True)
        return Batch(
            rows=len(chosen),
            sequences=self._forms(numbers, step),
            numbers=numbers,
            owners=torch.from_numpy(owners),
            mask=false_negative_mask(*(list(column) for column in columns)),
        )

    def _forms(self, numbers: np.ndarray, step: int) -> list[list[int]]:
        """The sequences of these numbers, some of them without their final punctuation."""
        if not self._bare_share:
            return [self.sequences[number] for number in numbers]
        bare = np.random.default_rng([self.seed, step, 1]).random(len(numbers)) < self._bare_share
        return [(self._bare if drop else self.sequences)[number] for number, drop in zip(numbers, bare, strict=True)]


def without_final_punctuation(text: str) -> str:
    """A text without its full stop or question mark; one that is nothing else stays as it is."""
    return text.rstrip().rstrip(".!?;:") or text
