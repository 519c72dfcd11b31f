"""The negatives of all rows, split by split, and the finished triplets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row, normalise
from cardioembed.triplets.edit_draws import Edits
from cardioembed.triplets.held_out import HELD_OUT
from cardioembed.triplets.mixing import Draw, Slots, allot_kinds, fill_slots
from cardioembed.triplets.negatives import (
    distant_negatives,
    listed_negatives,
    same_section_negatives,
    similar_length_negatives,
)
from cardioembed.triplets.pools import Batch, Part, make_batches

if TYPE_CHECKING:
    # torch takes seconds to import, and only mined negatives need it.
    from cardioembed.embedder.encoder import Embedder

# Splits take their counterfactuals in this order, since an edit that one has is closed to the others.
_ORDER = ("test", "validation", "train", HELD_OUT)


def draw_negatives(
    parts: dict[str, Part],
    groups: dict[str, str],
    place: dict[str, int],
    *,
    negatives: dict[str, float],
    negatives_per_anchor: int,
    min_distance: int,
    length_tolerance: float,
    section_distance: int,
    mined: dict[str, Any],
    counterfactual: dict[str, Any],
    opposed_statements: bool = False,
    closed: Sequence[str] = (),
    ngram_words: int,
    seed: int,
    embedder: Embedder | None = None,
    show_progress_bar: bool = False,
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Draws every row's negatives from its own split.

    Paraphrases draw from the split's sentences; query-passage pairs from its passages, or from its sentences where
    the passages are of too few groups. Rows of held-out books, which are for evaluation only, may have fewer
    negatives than wanted, or none.

    Args:
        parts: Sentences and pairs of each split, and perhaps of ``HELD_OUT``.
        groups: Group of each sentence id.
        place: Place of each sentence id in the corpus.
        negatives: Weight of each kind.
        negatives_per_anchor: Negatives a row.
        min_distance, length_tolerance, section_distance: see ``cardioembed.triplets.negatives``.
        mined: Settings of ``Miner.candidates``, and ``sampling_strategy``: ``random`` or ``top``.
        counterfactual: Settings of ``Edits``.
        opposed_statements: Whether rows get ``opposed``: two wordings of a written counterfactual, where there are.
        closed: Normalised texts of evaluation sets.
        ngram_words: An edit shares no run of so many words with another split or with an evaluation set.
        seed: Decides the draws.
        embedder: The model that mines, if ``mined`` is among the kinds.
        show_progress_bar: Whether mining shows progress.

    Returns:
        Triplet rows by split, and counts by split.

    Raises:
        UserError: A row of a split has too few possible negatives.
    """
    with_edits = opposed_statements or "counterfactual" in negatives
    sources = _Sources(
        weights=negatives,
        limits={"distant": min_distance, "similar_length": length_tolerance, "same_section": section_distance},
        mined=mined,
        embedder=embedder,
        edits=_edits(parts, closed, ngram_words, counterfactual) if with_edits else None,
        progress=show_progress_bar,
    )
    rows: dict[str, list[Row]] = {}
    counts: dict[str, Counter[str]] = {}
    for number, name in enumerate(name for name in _ORDER if name in parts):
        batches, counts[name] = make_batches(parts[name], groups, place, negatives_per_anchor)
        found: dict[int, Row] = {}
        for kind, batch in enumerate(batches):
            rng = np.random.default_rng([seed, number, kind])
            allotted = allot_kinds(negatives, len(batch.rows), negatives_per_anchor, rng)
            slots = fill_slots(sources.draws(name, batch, allotted, rng, counts[name]), negatives, allotted)
            if name == HELD_OUT:
                counts[name]["negatives_missing"] += int((slots.chosen < 0).sum())
            else:
                _check_filled(slots, min_distance)
            _count_kinds(slots, counts[name])
            found |= zip(batch.rows, _triplets(batch, slots, groups, sources.edits, counts[name]), strict=True)
        rows[name] = [found[i] for i in sorted(found)]
        if opposed_statements:
            rows[name] = [_with_opposed(row, sources.edits, name) for row in rows[name]]
            counts[name]["rows_with_opposed_statements"] = sum("opposed" in row for row in rows[name])
    return {name: rows[name] for name in parts}, {name: dict(counts[name]) for name in parts}


@dataclass(frozen=True)
class _Sources:
    """All that negatives are drawn with, the same for every split."""

    weights: dict[str, float]
    limits: dict[str, float]
    mined: dict[str, Any]
    embedder: Embedder | None
    edits: Edits | None
    progress: bool

    def draws(
        self, split: str, batch: Batch, allotted: np.ndarray, rng: np.random.Generator, counts: Counter[str]
    ) -> dict[str, Draw]:
        """How to draw each kind that has a weight, and distant ones as a last resort."""
        functions = {
            "distant": distant_negatives,
            "similar_length": similar_length_negatives,
            "same_section": same_section_negatives,
        }
        draws: dict[str, Draw] = {}
        for name in dict.fromkeys((*self.weights, "distant")):
            if name in functions:
                draws[name] = partial(_from_pool, functions[name], batch, self.limits[name], rng)
            elif name == "counterfactual":
                draws[name] = self.edits.draw(split, batch.pairs, len(batch.pool), rng)
            else:
                wanted = np.flatnonzero((allotted == list(self.weights).index(name)).any(axis=1))
                draws[name] = self._mining(batch, wanted, rng, counts)
        return draws

    def _mining(self, batch: Batch, wanted: np.ndarray, rng: np.random.Generator, counts: Counter[str]) -> Draw:
        """Candidates of the rows that want some are mined together; of others when their turn comes."""
        from cardioembed.triplets.mining import Miner

        options = {key: self.mined[key] for key in ("relative_margin", "range_min", "range_max")}
        miner = Miner(self.embedder, batch.pool, batch.places.groups, progress=self.progress)
        table = np.full((len(batch.rows), options["range_max"] - options["range_min"]), -1, np.int32)
        done = np.zeros(len(batch.rows), bool)

        def draw(rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
            asked = np.union1d(rows, wanted)
            if len(new := asked[~done[asked]]):
                pairs = [batch.pairs[i] for i in new]
                table[new], too_near = miner.candidates(
                    [pair["original"] for pair in pairs],
                    [pair["paraphrase"] for pair in pairs],
                    batch.anchors.groups[new],
                    **options,
                )
                done[new] = True
                counts["mined_too_near"] += too_near
            return listed_negatives(table[rows], taken, rng if self.mined["sampling_strategy"] == "random" else None)

        return draw


def _from_pool(
    function: Callable[..., np.ndarray],
    batch: Batch,
    limit: float,
    rng: np.random.Generator,
    rows: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    return function(batch.places, batch.anchors.take(rows), taken, limit, rng)


def _edits(parts: dict[str, Part], closed: Sequence[str], ngram_words: int, settings: dict[str, Any]) -> Edits:
    texts = {"": list(closed)} | {
        name: [
            normalise(text) for text in (*(r["text"] for r in part.sentences), *(p["paraphrase"] for p in part.pairs))
        ]
        for name, part in parts.items()
    }
    return Edits(texts, ngram_words, **settings)


def _check_filled(slots: Slots, min_distance: int) -> None:
    wanted = slots.chosen.shape[1]
    filled = int((slots.chosen >= 0).sum(axis=1).min(initial=wanted))
    if filled < wanted:
        raise UserError(
            f"an anchor has {filled} possible negatives in its split, {wanted} are wanted: lower prepare.min_distance "
            f"(now {min_distance}) or prepare.negatives_per_anchor (now {wanted}), or give more text"
        )


def _count_kinds(slots: Slots, counts: Counter[str]) -> None:
    for number, name in enumerate(slots.names):
        if found := int((slots.kinds == number).sum()):
            counts[name] += found
    for (kind, other), number in slots.replaced.items():
        counts[f"{kind} replaced by {other}"] += number


def _triplets(
    batch: Batch, slots: Slots, groups: dict[str, str], edits: Edits | None, counts: Counter[str]
) -> Iterator[Row]:
    first_edit = len(batch.pool)
    for pair, row_chosen, row_kinds in zip(batch.pairs, slots.chosen, slots.kinds, strict=True):
        chosen, kinds = row_chosen[row_chosen >= 0].tolist(), row_kinds[row_chosen >= 0].tolist()
        row = {
            "id": pair["id"],
            "group": groups[pair["sentence_id"]],
            "anchor": pair["original"],
            "positive": pair["paraphrase"],
            "negatives": [batch.pool[i] if i < first_edit else edits.found[i - first_edit].text for i in chosen],
            "negative_kinds": [slots.names[kind] for kind in kinds],
        }
        if edits and "counterfactual" in slots.names:
            made = [edits.found[i - first_edit] if i >= first_edit else None for i in chosen]
            row["negative_notes"] = [f"{edit.category}: {edit.edit}" if edit else "" for edit in made]
            counts.update(f"counterfactual: {edit.category}" for edit in made if edit)
        row |= {"source": pair["source"], "section": pair.get("section", ""), "model": pair["model"]}
        yield row | ({"kind": "passage"} if pair.get("kind") == "passage" else {})


def _with_opposed(row: Row, edits: Edits, split: str) -> Row:
    opposed = edits.opposed(split, row["anchor"])
    return row | {"opposed": opposed} if opposed else row
