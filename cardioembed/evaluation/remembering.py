"""Each text is encoded once, though several tasks ask for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cardioembed.embedder.encoder import Embedder

MOST_VECTORS = 20_000  # remembered; a large corpus passes through


class RememberingEmbedder:
    """An embedder that gives the vectors of texts it has seen from memory; everything else is the embedder's own.

    Texts count as the same where their tokens, prompt included, are the same: what a tokenizer does not tell apart
    (upper and lower case, for many) is encoded once.

    Args:
        embedder: The model; its weights must not change meanwhile.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.embedder, name)

    def encode(
        self, texts: list[str], *, prompt_name: str | None = None, show_progress_bar: bool = False
    ) -> np.ndarray:
        """Unit vectors, shape (n, dimension), float32, of a list of texts."""
        ids, _ = self.embedder.tokenize(texts, prompt_name)
        keys = [tuple(sequence) for sequence in ids]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        options = {"prompt_name": prompt_name, "show_progress_bar": show_progress_bar}
        found = dict(zip(new, self.embedder.encode(list(new.values()), **options), strict=True)) if new else {}
        vectors = np.zeros((len(texts), self.embedder.dimension), np.float32)
        for row, key in enumerate(keys):
            vectors[row] = found[key] if key in found else self._known[key]
        room = MOST_VECTORS - len(self._known)
        self._known.update(list(found.items())[: max(0, room)])
        return vectors

    def encode_pairs(
        self, anchors: list[str], positives: list[str], *, show_progress_bar: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of anchors and positives, each side with the prompt that the recipe gives it."""
        recipe = self.embedder.recipe
        return (
            self.encode(anchors, prompt_name=recipe.anchor_prompt, show_progress_bar=show_progress_bar),
            self.encode(positives, prompt_name=recipe.positive_prompt, show_progress_bar=show_progress_bar),
        )
