"""Pairs to the triplets of three splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row
from cardioembed.triplets.grouping import group_sentences
from cardioembed.triplets.negatives import Pool, distant_negatives, similar_length_negatives
from cardioembed.triplets.splitting import SPLITS, assign_splits


def build_triplets(
    sentences: list[Row],
    pairs: list[Row],
    *,
    shares: dict[str, float],
    near_duplicate_jaccard: float,
    negatives: str,
    negatives_per_anchor: int,
    min_distance: int,
    length_tolerance: float,
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Splits the groups first, then draws each row's negatives from its own split.

    Sentences without a paraphrase are split too and serve as negatives.

    Args:
        sentences: Rows of ``01_sentences.jsonl``.
        pairs: Rows of ``01_merged_paraphrases.jsonl``.
        shares: Share of each split.
        near_duplicate_jaccard: see ``group_sentences``.
        negatives: ``"distant"`` or ``"similar_length"``.
        negatives_per_anchor, min_distance, length_tolerance: see ``cardioembed.triplets.negatives``.
        seed: Decides splits and draws.
        progress: Wraps the long loop, as tqdm does.

    Returns:
        Triplet rows by split, and counts.

    Raises:
        UserError: A split is empty, or an anchor has too few possible negatives.
    """
    sentences = sentences + _strangers(sentences, pairs)
    groups = group_sentences(sentences, pairs, near_duplicate_jaccard, progress)
    splits = assign_splits(_strata(sentences, pairs, groups), shares, seed)
    numbers = {group: number for number, group in enumerate(sorted(set(groups.values())))}
    rows: dict[str, list[Row]] = {}
    for index, split in enumerate(SPLITS):
        members = [(place, row) for place, row in enumerate(sentences) if splits[groups[row["id"]]] == split]
        chosen = [pair for pair in pairs if splits[groups[pair["sentence_id"]]] == split]
        if not chosen:
            raise UserError(
                f"the {split} split is empty: {len(pairs)} pairs in {len(set(groups.values()))} groups are too few for "
                f"prepare.split.{split} = {shares[split]:g}. Add paraphrases or raise that share"
            )
        pool = Pool(
            positions=np.array([place for place, _ in members]),
            lengths=np.array([len(row["text"]) for _, row in members]),
            groups=np.array([numbers[groups[row["id"]]] for _, row in members]),
        )
        where = {row["id"]: i for i, (_, row) in enumerate(members)}
        anchors = np.array([where[pair["sentence_id"]] for pair in chosen])
        rng = np.random.default_rng([seed, index])
        if negatives == "distant":
            drawn = distant_negatives(pool, anchors, negatives_per_anchor, min_distance, rng)
        else:
            drawn = similar_length_negatives(pool, anchors, negatives_per_anchor, length_tolerance, rng)
        rows[split] = [
            _triplet(pair, groups[pair["sentence_id"]], [members[i][1]["text"] for i in picks])
            for pair, picks in zip(chosen, drawn, strict=True)
        ]
    sizes = Counter(groups.values())
    counts = {
        "sentences": len(sentences),
        "groups": len(sizes),
        "groups_of_several_sentences": sum(size > 1 for size in sizes.values()),
        "largest_group": max(sizes.values()),
    }
    return rows, counts


def _strangers(sentences: list[Row], pairs: list[Row]) -> list[Row]:
    """Originals that are in no book, as sentences behind the books'."""
    known = {row["id"] for row in sentences}
    found = {p["sentence_id"]: p for p in pairs if p["sentence_id"] not in known}
    return [{"id": key, "text": p["original"], "source": p["source"]} for key, p in found.items()]


def _strata(sentences: list[Row], pairs: list[Row], groups: dict[str, str]) -> dict[str, str]:
    """Each group's book; groups with and without paraphrases are told apart, so both are split in the same shares."""
    paired = {groups[pair["sentence_id"]] for pair in pairs}
    strata: dict[str, str] = {}
    for row in sentences:
        group = groups[row["id"]]
        strata.setdefault(group, f"{'pairs' if group in paired else 'sentences'}: {row['source']}")
    return strata


def _triplet(pair: Row, group: str, negatives: list[str]) -> Row:
    return {
        "id": pair["id"],
        "group": group,
        "anchor": pair["original"],
        "positive": pair["paraphrase"],
        "negatives": negatives,
        "source": pair["source"],
        "section": pair.get("section", ""),
        "model": pair["model"],
    }
