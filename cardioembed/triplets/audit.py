"""Proof that nothing of one split is in another."""

from __future__ import annotations

from cardioembed.records import Row, normalise
from cardioembed.triplets.decontamination import OverlapIndex


def audit_leaks(splits: dict[str, list[Row]], ngram_words: int) -> dict[str, int]:
    """Counts what two splits share, from the finished rows themselves.

    Args:
        splits: Triplet rows by split.
        ngram_words: Length of a run of words that no two splits may share.

    Returns:
        For every pair of splits the shared ids, groups, normalised texts (of anchors, positives, negatives and opposed
        statements alike) and texts with a shared run of words, all of which are 0.

    Raises:
        AssertionError: Something is shared: a fault of this program, never of the data.
    """
    views = {name: _view(rows) for name, rows in splits.items()}
    counts: dict[str, int] = {}
    for number, first in enumerate(splits):
        # One index of all splits behind this one: the texts of the first, usually by far the most, are read once.
        later = list(splits)[number + 1 :]
        texts = [(other, text) for other in later for text in views[other]["texts"]]
        hits = OverlapIndex((text for _, text in texts), ngram_words).find(views[first]["texts"])
        for second in later:
            shared = {what: views[first][what] & views[second][what] for what in ("ids", "groups", "texts")}
            shared[f"word {ngram_words}-grams"] = {hit.shared for i, hit in hits.items() if texts[i][0] == second}
            for what, found in shared.items():
                assert not found, f"{len(found)} {what} are in {first} and in {second}, for example {min(found)!r}"
                counts[f"{what.replace(' ', '_').replace('-', '_')}_in_{first}_and_{second}"] = 0
    return counts


def _view(rows: list[Row]) -> dict[str, set[str]]:
    keys = ("negatives", "opposed")
    texts = {
        text for row in rows for text in (row["anchor"], row["positive"], *(t for k in keys for t in row.get(k, ())))
    }
    return {
        "ids": {row["id"] for row in rows},
        "groups": {row["group"] for row in rows},
        "texts": {normalise(text) for text in texts},
    }
