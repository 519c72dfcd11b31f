"""Vectors of texts by the base and by the adapted model, encoded once and kept on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardioembed.explorer.data import Texts
from cardioembed.explorer.run_files import MODEL, needed
from cardioembed.explorer.store import Arrays, kept
from cardioembed.records import sha256, text_id

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

_BLOCK = 128  # texts between two reports of progress
Progress = Callable[[float], None]  # told the share that is done


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of the same texts before and after training, each of shape (texts, dimension).

    Attributes:
        before: By the base.
        after: By the adapted model.
        key: Differs between any two models or lists of texts.
    """

    before: np.ndarray
    after: np.ndarray
    key: str


class Models:
    """The run's model, loaded at the first text that must be encoded; one text at a time uses it.

    Args:
        run_dir: The run, whose ``03_model`` is opened.
    """

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / MODEL
        self._embedder: Embedder | None = None
        # Switching the adapter off changes the model, so no two sessions may encode at once.
        self._lock = threading.Lock()
        # A page that is left in the middle raises out of ``progress``; the next one goes on from here.
        self._begun: dict[str, tuple[np.ndarray, int]] = {}

    def encode(self, texts: list[str], *, query: bool, progress: Progress = lambda share: None) -> Arrays:
        """Vectors ``before`` and ``after`` of texts.

        Args:
            texts: Any number.
            query: Whether they get the prompt of queries; else that of documents.
            progress: Told the share that is done.

        Raises:
            UserError: The model cannot be loaded.
        """
        with self._lock:
            embedder = self._load()
            prompt = embedder.recipe.anchor_prompt if query else embedder.recipe.positive_prompt
            asked = text_id(str(query), *texts)
            after = self._encode(f"after {asked}", texts, prompt, lambda share: progress(share / 2))
            with embedder.without_adapter():
                before = self._encode(f"before {asked}", texts, prompt, lambda share: progress((1 + share) / 2))
            self._begun.clear()
            return {"before": before, "after": after}

    def _encode(self, name: str, texts: list[str], prompt: str | None, progress: Progress) -> np.ndarray:
        # Texts of like length together: short ones are not padded to long ones of another block.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        embedder = self._load()
        vectors, done = self._begun.get(name) or (np.empty((len(texts), embedder.dimension), np.float32), 0)
        for start in range(done, len(order), _BLOCK):
            places = order[start : start + _BLOCK]
            vectors[places] = embedder.encode([texts[place] for place in places], prompt_name=prompt)
            self._begun[name] = (vectors, start + _BLOCK)
            progress(min(1.0, (start + _BLOCK) / len(order)))
        return vectors

    def _load(self) -> Embedder:
        if self._embedder is None:
            from cardioembed.embedder.saving import load_model

            self._embedder = load_model(self._folder)
        return self._embedder


def load_vectors(
    models: Models, run_dir: Path, texts: Texts, cache: Path, progress: Progress = lambda share: None
) -> Vectors:
    """Vectors of texts as documents, from the cache if the same model encoded the same texts before.

    Raises:
        UserError: There is no model, it cannot be loaded, or the cache cannot be written.
    """
    # The card holds recipe, base and vectors of probe texts: it differs between any two models.
    model = sha256(needed(run_dir, f"{MODEL}/cardioembed.json"))
    arrays = kept(
        cache, "vectors", (model, texts.digest), lambda: models.encode(texts.texts, query=False, progress=progress)
    )
    return Vectors(arrays["before"], arrays["after"], f"{model} {texts.digest}")
