"""Triplets from labelled passages: anchor and positive share a label, the negatives have another one.

All passages of a document are in one split. Which document a passage is from is told by its key ``document`` or
``group``. Where a file has neither, passages of one label that are about the same thing are kept together as one
document, judged by their topic words: the words of a passage that stand in few other passages. Text cannot tell
documents for sure, so what training shares more loosely with the held-out passages is left out of training besides.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row, normalise, read_jsonl, text_id
from cardioembed.triplets.building import Prepared
from cardioembed.triplets.decontamination import Overlap, OverlapIndex, evaluation_texts
from cardioembed.triplets.grouping import DisjointSets, group_sentences
from cardioembed.triplets.splitting import SPLITS, assign_units

KEYS = ("id", "label", "text")
NEGATIVE_KIND, POSITIVE_KIND = "other_label", "same_label"
# A word tells a topic if it stands in at least 2 and at most so many passages; shorter words and numbers do not count.
_MOST_PASSAGES, _SHORTEST = 10, 4
# How many of a passage's topic words make it one document with others, and how many keep it out of training.
_TOGETHER, _APART = 2, 5


def read_labelled(path: Path) -> list[Row]:
    """Reads labelled passages: ``{"id", "label", "text"}``, and ``document`` (or ``group``) where it is known.

    Raises:
        UserError: A text or label that is none, an id that is there twice, or fewer than 2 labels.
    """
    rows = read_jsonl(path, required=KEYS)
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if wrong := [key for key in KEYS if not isinstance(row[key], str) or not row[key].strip()]:
            raise UserError(f"{path}, row {number}: {wrong[0]} is {row[wrong[0]]!r}, a text is needed")
        if row["id"] in seen:
            raise UserError(f"{path}, row {number}: id {row['id']!r} is there twice; each text needs an id of its own")
        seen.add(row["id"])
    labels = {row["label"] for row in rows}
    if len(labels) < 2:
        raise UserError(f"{path}: labelled texts need at least 2 labels; it has {', '.join(labels) or 'no texts'}")
    return rows


def given_document(row: Row) -> str | None:
    """The document that a passage says it is from."""
    given = row.get("document") or row.get("group")
    return str(given) if given else None


def build_labelled(
    path: Path,
    *,
    triplets_per_passage: int,
    negatives_per_anchor: int,
    shares: dict[str, float],
    near_duplicate_jaccard: float,
    decontaminate: list[str],
    ngram_words: int,
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[Prepared, dict[str, list[Row]]]:
    """Splits labelled passages by document, each label in the same shares, and draws triplets inside each split.

    A triplet's ``group`` is its label: in training no passage is the negative of another one of its label, and in
    evaluation each passage of its label is a right answer. The result does not depend on the order of the file.

    Args:
        path: See ``read_labelled``.
        triplets_per_passage: Triplets with the passage as anchor, each with another positive; fewer where a split has
            fewer passages of the label.
        negatives_per_anchor: Negatives of a triplet, of any other label and of neither's document.
        shares: Share of each split.
        near_duplicate_jaccard: See ``group_sentences``; near-duplicates count as one document.
        decontaminate: Evaluation sets, see ``evaluation_texts``; passages that overlap with one are left out.
        ngram_words: A shared run of so many words is an overlap, with evaluation sets and between splits.
        seed: Decides splits and draws.
        progress: Wraps the long loop, as tqdm does.

    Returns:
        The triplets, and the passages of each split, with ``document`` in each of them.

    Raises:
        UserError: The file is missing or wrong, a label has passages of too few documents, or too few negatives.
    """
    result = Prepared()
    rows = sorted(read_labelled(path), key=lambda row: row["id"])
    topics = topic_words(rows)
    documents = find_documents(rows, topics, near_duplicate_jaccard, progress)
    if unknown := sum(given_document(row) is None for row in rows):
        result.warnings.append(
            f'{unknown:,} of {len(rows):,} passages do not say which document they are from (key "document"); it was '
            "judged by their words, so a few held-out passages may be of documents that were trained on"
        )
    forms = [normalise(row["text"]) for row in rows]
    index = OverlapIndex(forms, ngram_words)
    splits = split_documents(rows, documents, shares, seed)
    ranks = np.array([SPLITS.index(splits[documents[row["id"]]]) for row in rows])
    for name in decontaminate:
        _leave_out(index.find(map(normalise, evaluation_texts(name))), name, rows, ranks, result.removed)
    _separate(rows, index, topics, ranks, result.removed)
    passages = {
        name: [
            {**row, "document": given_document(row) or f"like {documents[row['id']]}"}
            for row, own in zip(rows, ranks, strict=True)
            if own == rank
        ]
        for rank, name in enumerate(SPLITS)
    }
    for name in SPLITS:
        _check_split(path, name, rows, passages[name], documents, ngram_words)
        result.splits[name] = draw_triplets(
            passages[name], documents, triplets_per_passage, negatives_per_anchor, [seed, SPLITS.index(name), 77],
            source=path.stem,
        )  # fmt: skip
    result.counts = _counts(rows, documents, passages, result.splits, shares)
    return result, passages


def topic_words(rows: list[Row]) -> dict[str, list[str]]:
    """The most telling words of each passage by id, the best first: frequent in it (tf) and rare elsewhere (idf)."""
    words = {row["id"]: normalise(row["text"]).split() for row in rows}
    frequency = Counter(word for own in words.values() for word in set(own))

    def telling(own: list[str]) -> list[str]:
        weights = {
            word: count * math.log(len(rows) / frequency[word])
            for word, count in Counter(own).items()
            if 2 <= frequency[word] <= _MOST_PASSAGES and len(word) >= _SHORTEST and not word.isdigit()
        }
        return sorted(weights, key=lambda word: (-weights[word], word))[:_APART]

    return {key: telling(own) for key, own in words.items()}


def find_documents(
    rows: list[Row], topics: dict[str, list[str]], near_duplicate_jaccard: float, progress: Callable = iter
) -> dict[str, str]:
    """What must stay together: passages of one document, and near-duplicates.

    Args:
        rows: Labelled passages.
        topics: As from ``topic_words``; used for passages that do not say their document.
        near_duplicate_jaccard: See ``group_sentences``.
        progress: Wraps the loop over texts.

    Returns:
        Document of each id, named after the smallest id in it.
    """
    sets = DisjointSets()
    for key, group in group_sentences(rows, [], near_duplicate_jaccard, progress).items():
        sets.connect(key, group)
    told: dict[str, str] = {}
    sharing: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if document := given_document(row):
            sets.connect(told.setdefault(document, row["id"]), row["id"])
        for word in topics[row["id"]][:_TOGETHER]:
            sharing[row["label"], word].append(row)
    for members in sharing.values():
        unknown = [row for row in members if not given_document(row)]
        for row in unknown:
            sets.connect(unknown[0]["id"], row["id"])
    return {row["id"]: sets.find(row["id"]) for row in rows}


def split_documents(rows: list[Row], documents: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The split of each document, each label by itself in the same shares; sizes are passages.

    A document with passages of several labels counts for its most frequent one.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        labels[documents[row["id"]]][row["label"]] += 1
    units: dict[str, Counter[str]] = defaultdict(Counter)
    for document, found in labels.items():
        main = min(found, key=lambda label: (-found[label], label))
        units[main][document] = found.total()
    splits: dict[str, str] = {}
    for label in sorted(units):
        splits |= assign_units(units[label], dict.fromkeys(units[label], label), shares, seed)
    return splits


def draw_triplets(
    passages: list[Row],
    documents: dict[str, str],
    triplets_per_passage: int,
    negatives_per_anchor: int,
    seed: list[int],
    *,
    source: str,
) -> list[Row]:
    """Triplets of one split.

    Args:
        passages: With at least 2 labels, and each label in at least 2 documents.
        documents: Document of each id.
        triplets_per_passage: See ``build_labelled``.
        negatives_per_anchor: Likewise.
        seed: Of the draws.
        source: Name of the file, for the rows.

    Raises:
        UserError: There are fewer possible negatives than wanted.
    """
    rng = np.random.default_rng(seed)
    labels = np.unique([row["label"] for row in passages], return_inverse=True)[1]
    owners = np.unique([documents[row["id"]] for row in passages], return_inverse=True)[1]
    places = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    others = [np.flatnonzero(labels != label) for label in range(labels.max() + 1)]
    triplets = []
    for i, row in enumerate(passages):
        near, far = (pool[owners[pool] != owners[i]] for pool in (places[labels[i]], others[labels[i]]))
        for j in rng.permutation(near)[:triplets_per_passage]:
            apart = far[owners[far] != owners[j]]
            if len(apart) < negatives_per_anchor:
                raise UserError(
                    f"prepare.negatives_per_anchor: {negatives_per_anchor} is more than the {len(apart)} passages of "
                    f"other labels and documents that {row['id']!r} has in its split; lower it or add passages"
                )
            chosen = rng.choice(apart, negatives_per_anchor, replace=False)
            triplets.append(_triplet(row, passages[j], [passages[k] for k in chosen], source))
    return triplets


def _triplet(anchor: Row, positive: Row, negatives: list[Row], source: str) -> Row:
    return {
        "id": text_id(anchor["id"], positive["id"]),
        "group": anchor["label"],
        "anchor": anchor["text"],
        "positive": positive["text"],
        "negatives": [row["text"] for row in negatives],
        "negative_kinds": [NEGATIVE_KIND] * len(negatives),
        "source": source,
        "section": "",
        "model": POSITIVE_KIND,
        "passages": [row["id"] for row in (anchor, positive, *negatives)],
    }


def passages_as_written(prepared: Prepared, passages: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Each split's passages in the shape that ``audit_leaks`` takes, from the finished triplets and test passages.

    A group is a document here: of labels, which triplets are grouped by, every split has all.
    """
    owner = {row["id"]: row["document"] for rows in passages.values() for row in rows}
    found: dict[str, list[Row]] = {}
    for name, triplets in prepared.splits.items():
        texts = {key: text for row in triplets for key, text in _texts(row)}
        if name == "test":
            texts |= {row["id"]: row["text"] for row in passages[name]}
        found[name] = [
            {"id": key, "group": owner[key], "anchor": text, "positive": text, "negatives": []}
            for key, text in texts.items()
        ]
    return found


def _texts(triplet: Row) -> Iterator[tuple[str, str]]:
    yield from zip(triplet["passages"], (triplet["anchor"], triplet["positive"], *triplet["negatives"]), strict=True)


def _leave_out(
    found: dict[int, Overlap], name: str, rows: list[Row], ranks: np.ndarray, removed: list[Row], suffix: str = ""
) -> None:
    for number, overlap in sorted(found.items()):
        if ranks[number] >= 0:
            ranks[number] = -1
            removed.append(
                {"set": name, "reason": overlap.reason + suffix, "shared": overlap.shared, "field": "passage",
                 "row": rows[number]}
            )  # fmt: skip


def _separate(
    rows: list[Row], index: OverlapIndex, topics: dict[str, list[str]], ranks: np.ndarray, removed: list[Row]
) -> None:
    """Takes out of validation what it shares with test, then out of train what it shares with both."""
    for rank in reversed(range(len(SPLITS) - 1)):
        shared = {number: hit for number, hit in index.between(ranks).items() if ranks[number] == rank}
        for number, hit in _shared_topics(rows, topics, ranks, rank).items():
            shared.setdefault(number, hit)
        for top in range(rank + 1, len(SPLITS)):
            hits = {number: overlap for number, (place, overlap) in shared.items() if place == top}
            _leave_out(hits, f"the {SPLITS[top]} split", rows, ranks, removed, f"_in_{SPLITS[top]}")


def _shared_topics(
    rows: list[Row], topics: dict[str, list[str]], ranks: np.ndarray, rank: int
) -> dict[int, tuple[int, Overlap]]:
    """Passages of a split that share a topic word with one of their label in a later split, if either is of a document
    that is not known."""
    later: dict[tuple[str, str, bool], int] = {}
    for row, own in zip(rows, ranks, strict=True):
        for word in topics[row["id"]] if own > rank else ():
            key = (row["label"], word, given_document(row) is None)
            later[key] = max(int(own), later.get(key, 0))
    found: dict[int, tuple[int, Overlap]] = {}
    for number in np.flatnonzero(ranks == rank).tolist():
        row = rows[number]
        sides = (True,) if given_document(row) else (True, False)
        for word in topics[row["id"]]:
            place = max(later.get((row["label"], word, side), 0) for side in sides)
            if place:
                found.setdefault(number, (place, Overlap("topic", word)))
    return found


def _check_split(
    path: Path, name: str, rows: list[Row], passages: list[Row], documents: dict[str, str], ngram_words: int
) -> None:
    """Raises UserError unless each label has passages of 2 documents in the split."""
    for label in sorted({row["label"] for row in rows}):
        left = {documents[row["id"]] for row in passages if row["label"] == label}
        if len(left) < 2:
            of = {documents[row["id"]] for row in rows if row["label"] == label}
            raise UserError(
                f"prepare.labelled: {path}: label {label!r} has passages of {len(of)} document(s), of which the {name} "
                f"split got {len(left)}; 2 are needed in each split, as anchor and positive come from different "
                f"documents. Add passages of other documents, leave the label out, raise prepare.split.{name}, or, "
                f"where stock sentences make documents overlap, raise prepare.ngram_words (now {ngram_words})"
            )


def _counts(
    rows: list[Row],
    documents: dict[str, str],
    passages: dict[str, list[Row]],
    splits: dict[str, list[Row]],
    shares: dict[str, float],
) -> dict:
    """For the statistics; groups are documents."""
    sizes = Counter(documents[row["id"]] for row in rows)
    total = sum(map(len, passages.values()))
    return {
        "sentences": len(rows),
        "groups": len(sizes),
        "groups_of_several_sentences": sum(size > 1 for size in sizes.values()),
        "largest_group": max(sizes.values()),
        "labels": {
            label: {name: sum(row["label"] == label for row in passages[name]) for name in SPLITS}
            for label in sorted({row["label"] for row in rows})
        },
        "negatives": {name: {NEGATIVE_KIND: sum(len(row["negatives"]) for row in splits[name])} for name in SPLITS},
        "split": {
            "by": "document",
            "units": len(sizes),
            "largest_unit": max(sizes.values()),
            "shares": {
                name: {"asked": shares[name], "found": round(len(passages[name]) / total, 4)} for name in SPLITS
            },
        },
    }
