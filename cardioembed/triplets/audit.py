"""Proof that nothing of one split is in another."""

from __future__ import annotations

from itertools import combinations

from cardioembed.records import Row, normalise


def audit_leaks(splits: dict[str, list[Row]]) -> dict[str, int]:
    """Counts what two splits share, from the finished rows themselves.

    Args:
        splits: Triplet rows by split.

    Returns:
        For every pair of splits the shared ids, groups and normalised texts (anchors, positives and negatives alike),
        all of which are 0; and, for information, the share of test rows with a word 8-gram that occurs in training.

    Raises:
        AssertionError: Something is shared: a fault of this program, never of the data.
    """
    views = {name: _view(rows) for name, rows in splits.items()}
    counts: dict[str, int] = {}
    for first, second in combinations(splits, 2):
        for what in ("ids", "groups", "texts"):
            shared = views[first][what] & views[second][what]
            assert not shared, f"{len(shared)} {what} are in {first} and in {second}, for example {min(shared)!r}"
            counts[f"{what}_in_{first}_and_{second}"] = 0
    known = {gram for row in splits["train"] for gram in _eight_grams(row)}
    counts["test_rows"] = len(splits["test"])
    counts["test_rows_with_a_word_8_gram_of_train"] = sum(not known.isdisjoint(_eight_grams(r)) for r in splits["test"])
    return counts


def _view(rows: list[Row]) -> dict[str, set[str]]:
    texts = {normalise(text) for row in rows for text in (row["anchor"], row["positive"], *row["negatives"])}
    return {"ids": {row["id"] for row in rows}, "groups": {row["group"] for row in rows}, "texts": texts}


def _eight_grams(row: Row) -> set[str]:
    grams: set[str] = set()
    for text in (row["anchor"], row["positive"]):
        words = normalise(text).split()
        grams.update(" ".join(words[i : i + 8]) for i in range(len(words) - 7))
    return grams
