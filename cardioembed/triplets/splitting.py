"""Groups, sections or books to train, validation and test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row
from cardioembed.triplets.grouping import DisjointSets
from cardioembed.triplets.held_out import hold_out

SPLITS = ("train", "validation", "test")
_SHUFFLES = 1000


@dataclass
class Assignment:
    """Where each sentence goes.

    Attributes:
        splits: Split of each sentence id, or ``HELD_OUT``.
        left_out: Split that holds the rest of the group, of sentences that are in no split: their book is in another.
        units: What was kept together, by name: its size in pairs, or in sentences if it has no pair.
        books: Books of each split, if the split is by book.
    """

    splits: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    units: Counter[str] = field(default_factory=Counter)
    books: dict[str, list[str]] = field(default_factory=dict)


def split_sentences(
    sentences: list[Row],
    pairs: list[Row],
    groups: dict[str, str],
    by: str,
    shares: dict[str, float],
    seed: int,
    held_out_books: Collection[str] = (),
) -> Assignment:
    """Assigns every sentence, and with it its pairs, to one split.

    Args:
        sentences: Rows with ``id``, ``source`` and perhaps ``section`` and ``sources``, all books that have the text.
        pairs: Rows with ``sentence_id``.
        groups: Group of each sentence id.
        by: What stays together besides groups. ``group``: nothing. ``section``: all sentences of a section; sections
            that a group connects are one. ``book``: whole books; of a group that spans books of different splits, only
            the members in the most held-out split are kept (test before validation before train).
        shares: Share of each of ``SPLITS``; they add up to 1.
        seed: Decides who goes where.
        held_out_books: Books that go to ``HELD_OUT`` before the others are split. Of a group that reaches into them
            only their own members are kept.

    Raises:
        UserError: ``by`` is ``book`` and fewer than 3 books have pairs.
    """
    if held_out_books:
        own, connected = hold_out(sentences, groups, held_out_books)
        settled = own | connected
        sentences = [row for row in sentences if row["id"] not in settled]
        pairs = [pair for pair in pairs if pair["sentence_id"] not in settled]
        rest = split_sentences(sentences, pairs, groups, by, shares, seed)
        return replace(rest, splits=rest.splits | own, left_out=rest.left_out | connected)
    if by == "book":
        return _split_books(sentences, pairs, groups, shares, seed)
    unit_of = _section_units(sentences, groups) if by == "section" else groups
    sizes, strata = _sizes_and_strata(sentences, pairs, unit_of)
    unit_splits = assign_splits(strata, shares, seed) if by == "group" else assign_units(sizes, strata, shares, seed)
    return Assignment({row["id"]: unit_splits[unit_of[row["id"]]] for row in sentences}, units=sizes)


def assign_splits(strata: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assigns every group to one split, each stratum in the same shares: test to within one group, the others two.

    Systematic sampling: the groups are shuffled within their stratum, the strata are laid end to end, and every
    1/share-th group is taken.

    Args:
        strata: The stratum (book) of each group.
        shares: Share of each of ``SPLITS``; they add up to 1.
        seed: Decides the shuffle.

    Returns:
        The split of each group.
    """
    rng = np.random.default_rng([seed, 85_10_5])
    order = _shuffled_strata(strata, rng)
    test = _every(len(order), shares["test"], rng.random())
    splits = {group: "test" for group, taken in zip(order, test, strict=True) if taken}
    rest = [group for group in order if group not in splits]
    validation = _every(len(rest), shares["validation"] / (1 - shares["test"]), rng.random())
    splits |= {group: "validation" if taken else "train" for group, taken in zip(rest, validation, strict=True)}
    return splits


def assign_units(sizes: Counter[str], strata: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assigns units of unequal sizes: each goes to the split that lacks most, stratum after stratum.

    No split ends further from its share than about the size of the largest unit.

    Args:
        sizes: Size of each unit.
        strata: The stratum (book) of each unit.
        shares: Share of each of ``SPLITS``.
        seed: Decides the order within a stratum.
    """
    rng = np.random.default_rng([seed, 85_10_6])
    splits: dict[str, str] = {}
    filled = dict.fromkeys(SPLITS, 0.0)
    total = 0
    for unit in _shuffled_strata(strata, rng):
        total += sizes[unit]
        lacking = {split: shares[split] * total - filled[split] for split in SPLITS}
        splits[unit] = max(SPLITS, key=lacking.__getitem__)
        filled[splits[unit]] += sizes[unit]
    return splits


def choose_books(sizes: dict[str, int], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Holds out whole books, at least one for test and one for validation, as near to the shares as they allow.

    Of many seeded orders of the books, each filled in turn up to the shares, the one with the least total deviation.

    Args:
        sizes: Pairs of each book. Books without pairs are for training, where their sentences are negatives.
        shares: Share of each of ``SPLITS``: targets.
        seed: Decides between equally good choices.

    Raises:
        UserError: Fewer than 3 books have pairs.
    """
    books = sorted(book for book, size in sizes.items() if size)
    if len(books) < 3:
        raise UserError(
            f"prepare.split.by: book needs 3 books with paraphrases or more, one for each split; there are {len(books)}"
            f" ({', '.join(books) or 'none'}). Add books, or set prepare.split.by to section or group"
        )
    rng, total = np.random.default_rng([seed, 85_10_7]), sum(sizes.values())
    best: tuple[float, dict[str, str]] = (float("inf"), {})
    for _ in range(_SHUFFLES):
        order = [books[i] for i in rng.permutation(len(books))]
        splits, deviation = {}, 0.0
        for split, spare in (("test", 2), ("validation", 1)):
            target, held = shares[split] * total, 0
            while len(order) > spare and (not held or abs(held + sizes[order[0]] - target) < abs(held - target)):
                held += sizes[order[0]]
                splits[order.pop(0)] = split
            deviation += abs(held - target)
        if deviation < best[0]:
            best = (deviation, splits)
    return {book: best[1].get(book, "train") for book in sizes}


def skew_warnings(sizes: Counter[str], shares: dict[str, float], by: str, units: Counter[str]) -> list[str]:
    """Says which split is further than a fifth from its share, and what the largest unit has to do with it.

    Args:
        sizes: Pairs of each split.
        shares: Share of each split as asked for.
        by: What was kept together.
        units: Sizes of what was kept together.
    """
    total = sizes.total()
    off = [s for s in SPLITS if abs(sizes[s] / total - shares[s]) > max(0.2 * shares[s], 2 / total)]
    if not off:
        return []
    found = ", ".join(f"{split} {sizes[split] / total:.1%} (asked for: {shares[split]:.1%})" for split in off)
    name, largest = units.most_common(1)[0]
    reason = "rows that two splits would share were taken out of the larger"
    if largest >= 0.01 * total:
        reason = f"a {by} is kept whole, and the largest ({name}) has {largest:,} of {total:,} pairs"
    return [f"shares of the pairs are not those asked for: {found}; {reason}"]


def _split_books(
    sentences: list[Row], pairs: list[Row], groups: dict[str, str], shares: dict[str, float], seed: int
) -> Assignment:
    source = {row["id"]: row["source"] for row in sentences}
    sizes = Counter(dict.fromkeys(source.values(), 0))
    sizes.update(source[pair["sentence_id"]] for pair in pairs)
    book_splits = choose_books(sizes, shares, seed)
    rank: dict[str, int] = {}
    for row in sentences:
        group = groups[row["id"]]
        rank[group] = max(rank.get(group, 0), SPLITS.index(book_splits[row["source"]]))
    assigned = Assignment({}, units=sizes)
    assigned.books = {s: sorted(book for book, split in book_splits.items() if split == s) for s in SPLITS}
    for row in sentences:
        own, kept = book_splits[row["source"]], SPLITS[rank[groups[row["id"]]]]
        if own == kept:
            assigned.splits[row["id"]] = own
        else:
            assigned.left_out[row["id"]] = kept
    return assigned


def _section_units(sentences: list[Row], groups: dict[str, str]) -> dict[str, str]:
    """Unit of each sentence id: its section and all sections that groups connect with it."""
    sets = DisjointSets()
    section = {row["id"]: f"{row['source']}: {row.get('section') or 'no section'}" for row in sentences}
    for key, name in section.items():
        # The last code point sorts groups behind sections, and a set is named after the first.
        sets.connect(name, f"\U0010ffff{groups[key]}")
    return {key: sets.find(name) for key, name in section.items()}


def _sizes_and_strata(
    sentences: list[Row], pairs: list[Row], unit_of: dict[str, str]
) -> tuple[Counter[str], dict[str, str]]:
    """Sizes and books of units; those with and without pairs are told apart, so both are split in the same shares."""
    sizes = Counter(unit_of[pair["sentence_id"]] for pair in pairs)
    paired = frozenset(sizes)
    sizes.update(unit_of[row["id"]] for row in sentences if unit_of[row["id"]] not in paired)
    strata: dict[str, str] = {}
    for row in sentences:
        unit = unit_of[row["id"]]
        strata.setdefault(unit, f"{'pairs' if unit in paired else 'sentences'}: {row['source']}")
    return sizes, strata


def _shuffled_strata(strata: dict[str, str], rng: np.random.Generator) -> list[str]:
    members: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(strata):
        members[strata[unit]].append(unit)
    return [members[s][i] for s in sorted(members) for i in rng.permutation(len(members[s]))]


def _every(count: int, share: float, offset: float) -> np.ndarray:
    """Evenly spaced picks: ``round(count * share)`` of them to within one."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    return np.diff(steps) > 0
