"""What the untrained model says of texts that are to stay where it has them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardioembed.embedder.encoder import Embedder


class Untrained:
    """Vectors that a model gives to some of a list of texts before it is trained; equal texts are encoded once.

    Args:
        embedder: Not trained yet.
        sequences: Token ids of all texts.
        numbers: Which of them it shall know, by their places in ``sequences``.
    """

    def __init__(self, embedder: Embedder, sequences: list[list[int]], numbers: np.ndarray) -> None:
        places: dict[tuple[int, ...], int] = {}
        self._place = np.full(len(sequences), -1)
        self._place[numbers] = [places.setdefault(tuple(sequences[number]), len(places)) for number in numbers]
        print(f"  distillation: {len(places):,} texts as the untrained model sees them")
        self._vectors = embedder.encode_tokens([list(sequence) for sequence in places])

    def of(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Which of these texts it knows, boolean (texts,), and the unit vectors of those, (known, d)."""
        places = self._place[numbers]
        known = places >= 0
        return torch.from_numpy(known), torch.from_numpy(self._vectors[places[known]])
