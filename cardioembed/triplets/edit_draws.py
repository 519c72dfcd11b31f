"""Counterfactuals as negatives: edits of a row's own texts that are in no split and leak into none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cardioembed.errors import UserError
from cardioembed.lexicon import CATEGORIES
from cardioembed.records import Row, normalise, read_jsonl
from cardioembed.triplets.counterfactuals import Counterfactual, choose_counterfactual, counterfactuals
from cardioembed.triplets.decontamination import OverlapIndex
from cardioembed.triplets.mixing import Draw


class Edits:
    """Draws counterfactuals for the rows of one split after another.

    An edit is used only if it is no text of the corpus, and shares no run of words with a text, or an edit in use, of
    another split.

    Args:
        texts: All normalised texts of each split, and of what else is closed to edits, under any other name.
        ngram_words: Length of such a run.
        of: Which texts of a row are edited: ``anchor``, ``positive``.
        categories: Kinds of edits.
        files: Counterfactuals that people wrote, see ``read_counterfactuals``; they come before rule-made ones.

    Attributes:
        found: The edits in use in the present batch, in the order of their numbers.
    """

    def __init__(
        self,
        texts: dict[str, list[str]],
        ngram_words: int,
        of: Sequence[str],
        categories: Sequence[str],
        files: Sequence[str] = (),
    ) -> None:
        self._texts = texts
        self._known = {text for split in texts.values() for text in split}
        self._ngram_words = ngram_words
        self._keys = [{"anchor": "original", "positive": "paraphrase"}[name] for name in of]
        self._categories = categories
        self._written = read_counterfactuals(files, categories)
        self._used: dict[str, list[str]] = {name: [] for name in texts}
        self._others: list[OverlapIndex] = []
        self._split = ""
        self.found: list[Counterfactual] = []

    def draw(self, split: str, pairs: list[Row], first: int, rng: np.random.Generator) -> Draw:
        """How to draw one counterfactual for each of some pairs; the n-th that is found has the index ``first + n``."""
        self._turn(split)
        self.found = []

        def draw(rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
            found = [self._one(pairs[row], has - first, rng) for row, has in zip(rows, taken, strict=True)]
            return np.array([-1 if number is None else first + number for number in found])

        return draw

    def opposed(self, split: str, sentence: str) -> list[str]:
        """Two wordings of a written counterfactual of a sentence, or none where there is no free one."""
        self._turn(split)
        for edit in self._written.get(normalise(sentence), []):
            texts = [edit.text, edit.rewording]
            if edit.rewording and all(map(self._is_free, map(normalise, texts))):
                self._used[split] += map(normalise, texts)
                return texts
        return []

    def _turn(self, split: str) -> None:
        if split != self._split:
            # Two indices: the texts of the corpus are many, the edits of splits that had their turn are few.
            self._others = [
                OverlapIndex((text for name in texts if name != split for text in texts[name]), self._ngram_words)
                for texts in (self._texts, self._used)
            ]
            self._split = split

    def _one(self, pair: Row, has: np.ndarray, rng: np.random.Generator) -> int | None:
        mine = {normalise(self.found[i].text) for i in has if i >= 0}
        for candidates in (self._written.get(normalise(pair["original"]), []), None):
            if candidates is None:
                candidates = [edit for key in self._keys for edit in counterfactuals(pair[key], self._categories)]
            left = list(candidates)
            while left:
                edit = choose_counterfactual(left, rng)
                text = normalise(edit.text)
                if text not in mine and self._is_free(text):
                    self.found.append(edit)
                    self._used[self._split].append(text)
                    return len(self.found) - 1
                left.remove(edit)
        return None

    def _is_free(self, text: str) -> bool:
        return text not in self._known and not any(index.find([text]) for index in self._others)


def read_counterfactuals(files: Sequence[str], categories: Sequence[str]) -> dict[str, list[Counterfactual]]:
    """Counterfactuals that people wrote, by the normalised sentence that they change.

    Args:
        files: JSONL of ``{"original", "counterfactual", "category"}``, perhaps with ``"paraphrase"``, which says the
            counterfactual in other words.
        categories: Rows of other categories are left out.

    Raises:
        UserError: A file is missing, a text is none, a category is unknown, or a counterfactual is its sentence or a
            rewording no rewording.
    """
    found: dict[str, list[Counterfactual]] = {}
    for path in map(Path, files):
        for number, row in enumerate(read_jsonl(path, ("category",), ("original", "counterfactual")), 1):
            original, changed = normalise(row["original"]), normalise(row["counterfactual"])
            if row["category"] not in CATEGORIES:
                raise UserError(
                    f"{path}, row {number}: category {row['category']!r} is unknown; allowed: {', '.join(CATEGORIES)}"
                )
            if original == changed:
                raise UserError(f"{path}, row {number}: the counterfactual says what the sentence says; change it")
            rewording = row.get("paraphrase", "")
            if not isinstance(rewording, str) or normalise(rewording) in (original, changed):
                raise UserError(
                    f"{path}, row {number}: 'paraphrase' says in other words what the counterfactual says; it is "
                    f"{rewording!r}. Reword it, or leave the key out"
                )
            if row["category"] in categories:
                edit = Counterfactual(row["counterfactual"], row["category"], "written", rewording)
                found.setdefault(original, []).append(edit)
    return found
