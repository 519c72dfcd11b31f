"""Bias probe: how far a sentence moves when another person stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Estimate, Sampling, bootstrap_means, item_estimates
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.records import Row, normalise

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

ATTRIBUTES = ("sex", "age_group", "ethnicity")
NEUTRAL = "neutral"
SLOTS = (*ATTRIBUTES, NEUTRAL)
NEIGHBOURS = 10
CASES_FILE = Path(__file__).parents[1] / "bias_cases.yaml"

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class BiasCase:
    """A case sentence in which words can be exchanged that say nothing clinical.

    Attributes:
        text: With each slot once, in braces.
        words: By slot: the word of the sentence, and the one that takes its place.
    """

    text: str
    words: dict[str, tuple[str, str]]

    def sentence(self, swapped: str | None = None) -> str:
        """The whole sentence, with the other word in one slot."""
        return _SLOT.sub(lambda slot: self.words[slot[1]][slot[1] == swapped], self.text)


@dataclass(frozen=True)
class Swaps:
    """What every swap did, by slot; shifts and changes are of shape (cases,)."""

    cases: Sequence[BiasCase]
    shifts: dict[str, np.ndarray]
    changes: dict[str, np.ndarray]


def load_bias_cases(path: Path) -> list[BiasCase]:
    """Reads case sentences; the format is explained at the top of ``bias_cases.yaml``.

    Raises:
        UserError: Not a list of at least 2 cases, or a case without its text and two different words in each slot.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, list) or len(content) < 2:
        raise UserError(f"{path}: a list of at least 2 cases is needed")
    return [_read_case(entry, f"{path}, case {number}") for number, entry in enumerate(content, 1)]


def _read_case(entry: Any, where: str) -> BiasCase:
    if not isinstance(entry, dict) or set(entry) != {"text", *SLOTS}:
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise UserError(f"{where}: the keys must be text, {', '.join(SLOTS)}; found: {found}")
    text = entry["text"]
    if not isinstance(text, str) or sorted(_SLOT.findall(text)) != sorted(SLOTS) or set(_SLOT.sub("", text)) & {*"{}"}:
        raise UserError(f"{where}: the text must hold {{{'}, {'.join(SLOTS)}}} once each; it is {text!r}")
    for slot in SLOTS:
        words = entry[slot]
        if not (isinstance(words, list) and len(words) == 2 and all(isinstance(w, str) and w.strip() for w in words)):
            raise UserError(
                f"{where}: {slot} is {words!r}; two words are needed, as in [man, woman] (quote yes and no)"
            )
        if words[0] == words[1]:
            raise UserError(f"{where}: {slot} has {words[0]!r} twice; the second word must be another one")
    return BiasCase(text, {slot: tuple(entry[slot]) for slot in SLOTS})


@dataclass(frozen=True)
class BiasProbe:
    """Do sex, age group and ethnicity move a sentence further than a word of no weight? Details: ``Swaps``.

    The original sentence and its swaps are anchors; their neighbours are sought among the positives of ``pairs``.

    Attributes:
        pairs: Rows of ``{"id", "positive"}``.
    """

    pairs: list[Row]
    name: str = "bias"
    title: str = "Bias probe"
    files: Sequence[Path] = (CASES_FILE,)
    cases: Sequence[BiasCase] = field(default_factory=lambda: load_bias_cases(CASES_FILE))

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        documents = _documents(self.pairs)
        sentences = [case.sentence(swapped) for swapped in (None, *SLOTS) for case in self.cases]
        vectors, document_vectors = embedder.encode_pairs(sentences, documents)
        original, *others = np.split(vectors, 1 + len(SLOTS))
        k = neighbour_count(len(documents))
        near = nearest(original, document_vectors, k)
        shifts = {slot: cosine_shifts(original, other) for slot, other in zip(SLOTS, others, strict=True)}
        changes = {
            slot: changed_shares(near, nearest(other, document_vectors, k))
            for slot, other in zip(SLOTS, others, strict=True)
        }
        return Measured(bias_estimates(shifts, changes, k, sampling), details=Swaps(self.cases, shifts, changes))


def _documents(pairs: list[Row]) -> list[str]:
    """The positives in order of their ids, so that ties fall by id; a text that several rows share stands once."""
    texts: dict[str, str] = {}
    for row in sorted(pairs, key=lambda row: row["id"]):
        texts.setdefault(normalise(row["positive"]), row["positive"])
    return list(texts.values())


def neighbour_count(documents: int) -> int:
    """10, or half of the documents where there are fewer than 20: all of them could never change."""
    return min(NEIGHBOURS, max(1, documents // 2))


def cosine_shifts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``1 - cos`` of each pair of unit vectors, shape (n,), float64.

    Half the squared distance is the same number, and does not lose its digits where the two are nearly equal.
    """
    return 0.5 * ((first.astype(float) - second.astype(float)) ** 2).sum(1)


def nearest(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k documents of largest cosine, ties by index, shape (queries, k)."""
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]


def changed_shares(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Share of the k neighbours that are no longer among them, whatever their order, shape (n,)."""
    return 1 - (before[:, :, None] == after[:, None, :]).any(2).mean(1)


def bias_estimates(
    shifts: dict[str, np.ndarray], changes: dict[str, np.ndarray], k: int, sampling: Sampling
) -> dict[str, Estimate]:
    """The measures of all swaps; cases are resampled, the same ones for the attributes and the neutral word.

    A ratio is that of two means, attribute by neutral, after the smallest change that can be told (one neighbour of one
    case; float32's resolution of a cosine) was added to both: it is 1 where neither changes anything, and finite where
    only the neutral word changes nothing.

    Args:
        shifts: ``1 - cos`` by slot, each of shape (cases,).
        changes: Share of changed neighbours by slot, each of shape (cases,).
        k: Number of neighbours.
        sampling: See ``Sampling``.
    """
    named = {f"neighbour_change_{slot}": values for slot, values in changes.items()}
    better = {name: None if name.endswith(NEUTRAL) else "lower" for name in named}
    one_neighbour = 1 / (k * len(changes[NEUTRAL]))
    return (
        _ratios("shift_ratio", shifts, float(np.finfo(np.float32).eps), sampling)
        | item_estimates(named, sampling, better=better)
        | _ratios("neighbour_ratio", changes, one_neighbour, sampling)
    )


def _ratios(name: str, values: dict[str, np.ndarray], smallest: float, sampling: Sampling) -> dict[str, Estimate]:
    columns = np.stack([values[slot] for slot in SLOTS], axis=1)
    means = bootstrap_means(columns, resamples=sampling.resamples, seed=sampling.seed)
    *found, neutral = (np.vstack([columns.mean(0), means]) + smallest).T
    ratios = [attribute / neutral for attribute in found]
    return {
        f"{name}_{attribute}": Estimate(float(ratio[0]), ratio[1:], len(columns), chance=1.0, better="lower")
        for attribute, ratio in zip(ATTRIBUTES, ratios, strict=True)
    }
