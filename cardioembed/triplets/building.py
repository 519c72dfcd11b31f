"""Pairs to the triplets of three splits that share nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row, normalise
from cardioembed.triplets.decontamination import Overlap, OverlapIndex, evaluation_texts
from cardioembed.triplets.drawing import draw_negatives
from cardioembed.triplets.grouping import group_sentences
from cardioembed.triplets.held_out import HELD_OUT, SET_NAME, check_books, check_part, count_held_out
from cardioembed.triplets.pools import Part
from cardioembed.triplets.splitting import SPLITS, Assignment, skew_warnings, split_sentences


@dataclass
class Prepared:
    """Triplets and how they came about.

    Attributes:
        splits: Triplet rows by split; behind the three, under ``HELD_OUT``, those of held-out books if there are any.
        removed: Rows that were left out: ``{"set", "reason", "shared", "field", "row"}``.
        counts: For the statistics.
        warnings: What the user should know.
    """

    splits: dict[str, list[Row]] = field(default_factory=dict)
    removed: list[Row] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def build_triplets(
    sentences: list[Row],
    pairs: list[Row],
    *,
    split: dict[str, Any],
    near_duplicate_jaccard: float,
    decontaminate: list[str],
    ngram_words: int,
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
    **negatives: Any,
) -> Prepared:
    """Takes out what evaluation sets hold, splits, takes out what splits share, and draws negatives inside each split.

    Sentences without a paraphrase are split too and serve as negatives.

    Args:
        sentences: Rows of ``01_sentences.jsonl``.
        pairs: Rows of ``01_merged_paraphrases.jsonl``. In query-passage pairs (``kind`` is ``passage``) the original
            is a query: it is split like a sentence, but is no other anchor's negative.
        split: ``by`` and ``held_out_books`` (see ``split_sentences``), and the share of each split.
        near_duplicate_jaccard: see ``group_sentences``.
        decontaminate: Evaluation sets, see ``evaluation_texts``.
        ngram_words: A shared run of so many words is an overlap, with evaluation sets and between splits.
        seed: Decides splits and draws.
        progress: Wraps the long loop, as tqdm does.
        negatives: see ``draw_negatives``.

    Raises:
        UserError: A split is empty, books cannot be held out, an anchor has too few possible negatives, or an
            evaluation set cannot be read.
    """
    result = Prepared()
    shares = {name: split[name] for name in SPLITS}
    held_out = split.get(HELD_OUT, ())
    names = (*SPLITS, HELD_OUT) if held_out else SPLITS
    sentences = sentences + _strangers(sentences, pairs)
    if held_out:
        check_books(held_out, split["by"], sentences, pairs)
    place = {row["id"]: number for number, row in enumerate(sentences)}
    sieve = _Sieve(sentences, pairs, result.removed)
    forms = {text: normalise(text) for text in sieve.texts()}
    index = OverlapIndex(map(forms.__getitem__, sieve.texts()), ngram_words)
    closed: list[str] = []
    for name in decontaminate:
        texts = list(map(normalise, evaluation_texts(name)))
        sieve.leave_out({i: (name, found) for i, found in index.find(texts).items()})
        closed += texts
    groups = group_sentences(*sieve.left(), near_duplicate_jaccard, progress, forms.__getitem__)
    assigned = split_sentences(*sieve.left(), groups, split["by"], shares, seed, held_out)
    sieve.leave_out(
        {place[key]: (_set_name(kept), Overlap(f"group_in_{kept}", "")) for key, kept in assigned.left_out.items()}
    )
    _separate(sieve, index, assigned.splits, names)
    del index, forms
    parts = {name: Part(*sieve.left(lambda key, name=name: assigned.splits[key] == name)) for name in names}
    if held_out:
        check_part(parts[HELD_OUT], held_out, groups)
    _check_sizes(parts, len(pairs), groups, split, result.removed)
    result.splits, result.counts["negatives"] = draw_negatives(
        parts, groups, place, closed=closed, ngram_words=ngram_words, seed=seed, **negatives
    )
    found = Counter({name: len(parts[name].pairs) for name in SPLITS})
    result.warnings += skew_warnings(found, shares, split["by"], assigned.units)
    result.counts |= _counts(sentences, groups, split["by"], shares, found, assigned)
    if held_out:
        result.counts["split"][HELD_OUT] = count_held_out(parts[HELD_OUT], held_out, result.removed)
    return result


class _Sieve:
    """Sentences and pairs, numbered in this order, and which of them are left.

    Attributes:
        removed: The rows that were left out, with the reason.
    """

    def __init__(self, sentences: list[Row], pairs: list[Row], removed: list[Row]) -> None:
        self.sentences, self.pairs, self.removed = sentences, pairs, removed
        self.is_left = np.ones(len(sentences) + len(pairs), bool)

    def texts(self) -> Iterator[str]:
        """Texts of the sentences, then of the positives."""
        yield from (row["text"] for row in self.sentences)
        yield from (pair["paraphrase"] for pair in self.pairs)

    def left(self, which: Callable[[str], bool] = bool) -> tuple[list[Row], list[Row]]:
        """Sentences and pairs that are left, of those whose sentence id is wanted."""
        left = self.is_left.tolist()
        sentences = [row for row, is_left in zip(self.sentences, left, strict=False) if is_left and which(row["id"])]
        pairs = zip(self.pairs, left[len(self.sentences) :], strict=True)
        return sentences, [pair for pair, is_left in pairs if is_left and which(pair["sentence_id"])]

    def leave_out(self, found: dict[int, tuple[str, Overlap]]) -> None:
        """Takes out texts by their number; with a sentence go its pairs."""
        gone: dict[str, tuple[str, Overlap]] = {}
        for number, row in enumerate(self.sentences):
            if number in found and self.is_left[number]:
                gone[row["id"]] = found[number]
                self._remove(number, *found[number], "sentence", row)
        for number, pair in enumerate(self.pairs, len(self.sentences)):
            if self.is_left[number] and pair["sentence_id"] in gone:
                self._remove(number, *gone[pair["sentence_id"]], "anchor", pair)
            elif self.is_left[number] and number in found:
                self._remove(number, *found[number], "positive", pair)

    def _remove(self, number: int, name: str, overlap: Overlap, where: str, row: Row) -> None:
        self.is_left[number] = False
        self.removed.append(
            {"set": name, "reason": overlap.reason, "shared": overlap.shared, "field": where, "row": row}
        )


def _strangers(sentences: list[Row], pairs: list[Row]) -> list[Row]:
    """Originals that are in no book, as sentences behind the books'."""
    known = {row["id"] for row in sentences}
    found: dict[str, Row] = {}
    for pair in pairs:
        key = pair["sentence_id"]
        if key not in known and key not in found:
            row = {"id": key, "text": pair["original"], "source": pair["source"], "section": pair.get("section", "")}
            found[key] = row | ({"kind": "query"} if pair.get("kind") == "passage" else {})
    return list(found.values())


def _set_name(split: str) -> str:
    return SET_NAME if split == HELD_OUT else f"the {split} split"


def _separate(sieve: _Sieve, index: OverlapIndex, splits: dict[str, str], names: tuple[str, ...]) -> None:
    """Takes out of each split, the last but one of ``names`` first, what it shares with those behind it."""
    ids = [row["id"] for row in sieve.sentences] + [pair["sentence_id"] for pair in sieve.pairs]
    assigned = np.array([names.index(splits[key]) if key in splits else -1 for key in ids])
    for rank in reversed(range(len(names) - 1)):
        ranks = np.where(sieve.is_left, assigned, -1)
        found = {number: hit for number, hit in index.between(ranks).items() if ranks[number] == rank}
        sieve.leave_out(
            {
                number: (_set_name(names[top]), Overlap(f"{overlap.reason}_in_{names[top]}", overlap.shared))
                for number, (top, overlap) in found.items()
            }
        )


def _check_sizes(
    parts: dict[str, Part], pairs: int, groups: dict[str, str], split: dict[str, Any], removed: list[Row]
) -> None:
    held = parts.get(HELD_OUT, Part([], []))
    pairs -= len(held.pairs)
    lost = sum("sentence_id" in row["row"] for row in removed)
    for name in SPLITS:
        if not parts[name].pairs and lost > pairs / 2:
            shared = next((row["shared"] for row in reversed(removed) if row["shared"]), "")
            raise UserError(
                f"the {name} split is empty: {lost} of {pairs} pairs were left out because a text or a run of "
                f"prepare.ngram_words words is in another split{', in held-out books' if held.pairs else ''} or in an "
                f"evaluation set{f', for example {shared!r}' if shared else ''}. Raise prepare.ngram_words, "
                f"{'hold out other books, ' if held.pairs else ''}or give texts that repeat each other less"
            )
        if not parts[name].pairs:
            advice = "" if split["by"] == "group" else ", or set prepare.split.by to group"
            others = set(groups.values()).difference(groups[row["id"]] for row in held.sentences)
            raise UserError(
                f"the {name} split is empty: {pairs} pairs in {len(others)} groups are too few for "
                f"prepare.split.{name} = {split[name]:g}, split by {split['by']}. Add paraphrases or raise that share"
                f"{advice}"
            )


def _counts(
    sentences: list[Row],
    groups: dict[str, str],
    by: str,
    shares: dict[str, float],
    found: Counter[str],
    assigned: Assignment,
) -> dict[str, Any]:
    sizes = Counter(groups.values())
    units = len(assigned.units)
    return {
        "sentences": len(sentences),
        "groups": len(sizes),
        "groups_of_several_sentences": sum(size > 1 for size in sizes.values()),
        "largest_group": max(sizes.values()),
        "split": {
            "by": by,
            "units": units,
            "largest_unit": max(assigned.units.values()),
            "shares": {
                name: {"asked": shares[name], "found": round(found[name] / found.total(), 4)} for name in SPLITS
            },
            **({"books": assigned.books} if assigned.books else {}),
        },
    }
