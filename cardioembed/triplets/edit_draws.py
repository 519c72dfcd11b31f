"""Counterfactuals as negatives: edits of a row's own texts that are in no split and leak into none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cardioembed.records import Row, normalise
from cardioembed.triplets.counterfactuals import Counterfactual, choose_counterfactual, counterfactuals
from cardioembed.triplets.decontamination import OverlapIndex
from cardioembed.triplets.mixing import Draw


class Edits:
    """Draws counterfactuals for the rows of one split after another.

    An edit is used only if it is no text of the corpus, and shares no run of words with a text, or an edit in use, of
    another split.

    Args:
        texts: All normalised texts of each split.
        ngram_words: Length of such a run.
        of: Which texts of a row are edited: ``anchor``, ``positive``.
        categories: Kinds of edits.

    Attributes:
        found: The edits in use in the present batch, in the order of their numbers.
    """

    def __init__(
        self, texts: dict[str, list[str]], ngram_words: int, of: Sequence[str], categories: Sequence[str]
    ) -> None:
        self._texts = texts
        self._known = {text for split in texts.values() for text in split}
        self._ngram_words = ngram_words
        self._keys = [{"anchor": "original", "positive": "paraphrase"}[name] for name in of]
        self._categories = categories
        self._used: dict[str, list[str]] = {name: [] for name in texts}
        self._others: list[OverlapIndex] = []
        self._split = ""
        self.found: list[Counterfactual] = []

    def draw(self, split: str, pairs: list[Row], first: int, rng: np.random.Generator) -> Draw:
        """How to draw one counterfactual for each of some pairs; the n-th that is found has the index ``first + n``."""
        if split != self._split:
            # Two indices: the texts of the corpus are many, the edits of splits that had their turn are few.
            self._others = [
                OverlapIndex((text for name in texts if name != split for text in texts[name]), self._ngram_words)
                for texts in (self._texts, self._used)
            ]
            self._split = split
        self.found = []

        def draw(rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
            found = [self._one(pairs[row], has - first, rng) for row, has in zip(rows, taken, strict=True)]
            return np.array([-1 if number is None else first + number for number in found])

        return draw

    def _one(self, pair: Row, has: np.ndarray, rng: np.random.Generator) -> int | None:
        mine = {normalise(self.found[i].text) for i in has if i >= 0}
        candidates = [edit for key in self._keys for edit in counterfactuals(pair[key], self._categories)]
        while candidates:
            edit = choose_counterfactual(candidates, rng)
            text = normalise(edit.text)
            if text not in mine and self._is_free(text):
                self.found.append(edit)
                self._used[self._split].append(text)
                return len(self.found) - 1
            candidates.remove(edit)
        return None

    def _is_free(self, text: str) -> bool:
        return text not in self._known and not any(index.find([text]) for index in self._others)
