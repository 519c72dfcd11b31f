"""What the rows of one split draw their negatives from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from cardioembed.records import Row, normalise
from cardioembed.triplets.negatives import Places


@dataclass
class Part:
    """The sentences and pairs of one split."""

    sentences: list[Row]
    pairs: list[Row]


@dataclass(frozen=True)
class Batch:
    """Rows of one kind (paraphrases or passages) and the texts that they draw from.

    Attributes:
        rows: Numbers of the pairs in their split.
        pairs: The pairs.
        anchors: Where the pairs stand.
        pool: Texts to draw from.
        places: Where these stand.
    """

    rows: list[int]
    pairs: list[Row]
    anchors: Places
    pool: list[str]
    places: Places


def make_batches(
    part: Part, groups: dict[str, str], place: dict[str, int], negatives_per_anchor: int
) -> tuple[list[Batch], Counter[str]]:
    """Paraphrases with the sentences, and query-passage pairs with the passages.

    Args:
        part: The split.
        groups: Group of each sentence id.
        place: Place of each sentence id in the corpus.
        negatives_per_anchor: Passages of fewer groups than these and one more give way to the sentences.

    Returns:
        The batches; and a count of pairs whose passages gave way.
    """
    numbers: dict[Any, int] = {}
    section = {row["id"]: (row["source"], row.get("section", "")) for row in part.sentences}

    def places(rows: list[tuple[str, int, int]]) -> Places:
        """Of (sentence id, position, length)."""
        return Places(
            positions=np.array([position for _, position, _ in rows], int),
            lengths=np.array([length for _, _, length in rows], int),
            groups=np.array([numbers.setdefault(groups[key], len(numbers)) for key, _, _ in rows], int),
            sections=np.array([numbers.setdefault(section[key], len(numbers)) for key, _, _ in rows], int),
        )

    statements = [row for row in part.sentences if row.get("kind") != "query"]
    pool = places([(row["id"], place[row["id"]], len(row["text"])) for row in statements])
    texts = [row["text"] for row in statements]
    of_paraphrases = [i for i, pair in enumerate(part.pairs) if pair.get("kind") != "passage"]
    of_passages = [i for i, pair in enumerate(part.pairs) if pair.get("kind") == "passage"]
    batches, counts = [], Counter()
    if of_paraphrases:
        pairs = [part.pairs[i] for i in of_paraphrases]
        anchors = places([(p["sentence_id"], place[p["sentence_id"]], len(p["original"])) for p in pairs])
        batches.append(Batch(of_paraphrases, pairs, anchors, texts, pool))
    if of_passages:
        pairs = [part.pairs[i] for i in of_passages]
        # A query is short; it is its passage that a negative must resemble in length and place.
        anchors = places([(p["sentence_id"], _passage_place(p, place), len(p["paraphrase"])) for p in pairs])
        first = list({normalise(pair["paraphrase"]): i for i, pair in enumerate(pairs)}.values())
        if len(np.unique(anchors.groups)) > negatives_per_anchor:
            texts, pool = [pairs[i]["paraphrase"] for i in first], anchors.take(np.array(first))
        else:
            counts["passages_with_sentences_as_negatives"] = len(pairs)
        batches.append(Batch(of_passages, pairs, anchors, texts, pool))
    return batches, counts


def _passage_place(pair: Row, place: dict[str, int]) -> int:
    return min((place[key] for key in pair.get("sentence_ids", ()) if key in place), default=place[pair["sentence_id"]])
