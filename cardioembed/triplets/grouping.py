"""Groups of texts that must stay on one side of a split: a sentence, its paraphrases and all near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cardioembed.corpus.deduplication import near_duplicates
from cardioembed.records import Row, normalise


def group_sentences(
    sentences: list[Row],
    pairs: list[Row],
    near_duplicate_jaccard: float,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, str]:
    """Connects sentences that share a text, or own texts that are near-duplicates of each other.

    Args:
        sentences: Rows with ``id`` and ``text``.
        pairs: Rows with ``sentence_id`` and ``paraphrase``.
        near_duplicate_jaccard: Jaccard index of word 3-grams from which two texts count as near-duplicates.
        progress: Wraps the loop over texts, as tqdm does.

    Returns:
        The group of each sentence id; a group is named after the smallest sentence id in it.
    """
    parent = {row["id"]: row["id"] for row in sentences}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def connect(first: str, second: str) -> None:
        low, high = sorted((root(first), root(second)))
        parent[high] = low

    owners: list[str] = []
    texts: list[str] = []
    first_owner: dict[str, str] = {}
    owned = [(row["text"], row["id"]) for row in sentences] + [(r["paraphrase"], r["sentence_id"]) for r in pairs]
    for text, owner in owned:
        key = normalise(text)
        if key in first_owner:
            connect(first_owner[key], owner)
            continue
        first_owner[key] = owner
        owners.append(owner)
        texts.append(text)
    for i, j, _ in near_duplicates(texts, near_duplicate_jaccard, progress):
        connect(owners[i], owners[j])
    return {item: root(item) for item in parent}
