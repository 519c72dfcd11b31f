"""Groups of texts that must stay on one side of a split: a sentence, its paraphrases and all near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cardioembed.corpus.deduplication import near_duplicates
from cardioembed.records import Row, normalise


class DisjointSets:
    """Strings in sets that grow together; a set is named after its smallest member."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, item: str) -> str:
        """The smallest member of the item's set; an item that is new is a set of its own."""
        parent = self._parent
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def connect(self, first: str, second: str) -> None:
        """Makes one set of two."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low


def group_sentences(
    sentences: list[Row],
    pairs: list[Row],
    near_duplicate_jaccard: float,
    progress: Callable[[Iterable], Iterable] = iter,
    normalised: Callable[[str], str] = normalise,
) -> dict[str, str]:
    """Connects sentences that share a text, or own texts that are near-duplicates of each other.

    A query-passage pair (``kind`` is ``passage``) is also connected with the other pairs of its ``unit`` and with the
    sentences of the section that its passage was written from (``sentence_ids``).

    Args:
        sentences: Rows with ``id`` and ``text``.
        pairs: Rows with ``sentence_id`` and ``paraphrase``.
        near_duplicate_jaccard: Jaccard index of word 3-grams from which two texts count as near-duplicates.
        progress: Wraps the loop over texts, as tqdm does.
        normalised: Gives the form in which two texts are the same, for callers that know it already.

    Returns:
        The group of each sentence id; a group is named after the smallest sentence id in it.
    """
    sets = DisjointSets()
    ids = {row["id"] for row in sentences}
    _connect_passages(sets, ids, pairs)
    owners: list[str] = []
    texts: list[str] = []
    first_owner: dict[str, str] = {}
    owned = [(row["text"], row["id"]) for row in sentences] + [(r["paraphrase"], r["sentence_id"]) for r in pairs]
    for text, owner in owned:
        key = normalised(text)
        if key in first_owner:
            sets.connect(first_owner[key], owner)
            continue
        first_owner[key] = owner
        owners.append(owner)
        texts.append(text)
    del first_owner
    for i, j, _ in near_duplicates(texts, near_duplicate_jaccard, progress):
        sets.connect(owners[i], owners[j])
    return {row["id"]: sets.find(row["id"]) for row in sentences}


def _connect_passages(sets: DisjointSets, ids: set[str], pairs: list[Row]) -> None:
    first_of_unit: dict[str, str] = {}
    for pair in pairs:
        if pair.get("kind") != "passage":
            continue
        query = pair["sentence_id"]
        if unit := pair.get("unit"):
            sets.connect(first_of_unit.setdefault(unit, query), query)
        # A sentence can have been taken out as a text of an evaluation set.
        for sentence_id in ids.intersection(pair.get("sentence_ids", ())):
            sets.connect(query, sentence_id)
