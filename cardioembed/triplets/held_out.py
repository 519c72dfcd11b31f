"""Whole books that are in no split: stage 04 measures on them how well a model does on books that are new to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from cardioembed.errors import UserError
from cardioembed.records import Row
from cardioembed.triplets.pools import Part

HELD_OUT = "held_out_books"  # stands beside the names of the splits
SET_NAME = "the held-out books"


def check_books(books: Collection[str], by: str, sentences: list[Row], pairs: list[Row]) -> None:
    """Checks that books can be held out, and that enough others are left to split.

    Raises:
        UserError: A book that is not there or has no pair, or too few other books with pairs.
    """
    source = {row["id"]: row["source"] for row in sentences}
    paired = {source[pair["sentence_id"]] for pair in pairs}
    for book in books:
        if book not in paired:
            problem = "has no paraphrases" if book in source.values() else "is no book of this run"
            raise UserError(
                f"prepare.split.held_out_books: {book!r} {problem}; books with paraphrases: "
                f"{', '.join(sorted(paired)) or 'none'}"
            )
    others, needed = sorted(paired.difference(books)), 3 if by == "book" else 1
    if len(others) < needed:
        advice = ", or set prepare.split.by to section or group" if by == "book" else ""
        raise UserError(
            f"prepare.split.held_out_books leaves {len(others)} books with paraphrases to train, validate and test on "
            f"({', '.join(others) or 'none'}); split by {by} needs {needed} or more. Add books or hold out "
            f"fewer{advice}"
        )


def hold_out(
    sentences: list[Row], groups: dict[str, str], books: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Tells the sentences of held-out books, and those of other books that are connected with them.

    A sentence is connected if a member of its group is in a held-out book, be it as one of several books that have the
    same text (``sources``).

    Args:
        sentences: Rows with ``id``, ``source`` and perhaps ``sources``.
        groups: Group of each sentence id.
        books: The held-out books.

    Returns:
        ``HELD_OUT`` by id: of the books' own sentences, and of the connected ones.
    """
    reached = {
        groups[row["id"]] for row in sentences if not {row["source"], *(row.get("sources") or ())}.isdisjoint(books)
    }
    own = {row["id"]: HELD_OUT for row in sentences if row["source"] in books}
    return own, {row["id"]: HELD_OUT for row in sentences if groups[row["id"]] in reached and row["id"] not in own}


def check_part(part: Part, books: Collection[str], groups: dict[str, str]) -> None:
    """Checks that every held-out book still has pairs, and that they are enough to search among.

    Raises:
        UserError: A book without pairs, or fewer than 2 groups.
    """
    source = {row["id"]: row["source"] for row in part.sentences}
    if empty := sorted(set(books) - {source[pair["sentence_id"]] for pair in part.pairs}):
        raise UserError(
            f"prepare.split.held_out_books: all pairs of {empty[0]!r} overlap with an evaluation set of "
            "prepare.decontaminate. Hold out another book, or take that set out of prepare.decontaminate"
        )
    if len({groups[pair["sentence_id"]] for pair in part.pairs}) < 2:
        raise UserError(
            f"prepare.split.held_out_books: the pairs of {', '.join(sorted(books))} are one group, and retrieval needs "
            "2 or more. Hold out more books, or books with more paraphrases"
        )


def count_held_out(part: Part, books: Collection[str], removed: list[Row]) -> dict[str, Any]:
    """The books, their pairs, and what was left out of other books because of them.

    Args:
        part: Sentences and pairs of the books.
        books: Their names.
        removed: All rows that were left out, with ``set`` and ``field``.
    """
    fields = Counter(row["field"] == "sentence" for row in removed if row["set"] == SET_NAME)
    left_out = {"sentences": fields[True], "pairs": fields[False]}
    return {"books": sorted(set(books)), "pairs": len(part.pairs), "left_out": left_out}
