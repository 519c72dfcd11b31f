"""Paraphrase files and the books' sentences to one row a valid pair."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cardioembed.corpus.cleaning import clean_text
from cardioembed.errors import UserError
from cardioembed.parallel import spread
from cardioembed.paraphrases.fidelity import Rejection, check_paraphrase
from cardioembed.records import BadLine, Row, normalise, parse_jsonl, text_id

PASSAGE = "passage"  # the ``kind`` of a query-passage pair
_PASSAGE_KEYS = ("query", "passage")
# The spellings that generators write.
KEY_PAIRS = (("original", "paraphrase"), ("sentence", "paraphrased"), _PASSAGE_KEYS)

_BATCH = 1000  # rows that a process judges at once
_SMALL = 2_000_000  # bytes that are judged before other processes have started


@dataclass
class Merged:
    """The valid pairs, the refused rows, and counts by file."""

    pairs: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)


def find_paraphrase_files(places: list[str], key: str = "merge.paraphrases") -> list[Path]:
    """Paths or globs to files, in the order given, each once; ``key`` is the setting that names them.

    Raises:
        UserError: A place names no file.
    """
    files: dict[Path, None] = {}
    for place in places:
        path = Path(place)
        if path.is_file():
            found = [path]
        else:
            found = sorted(path.glob("*.jsonl") if path.is_dir() else map(Path, glob.glob(place, recursive=True)))
        if not found:
            raise UserError(
                f"merge.paraphrases: no file matches {place}. Give JSONL files with 'original' and 'paraphrase', or "
                "set merge.paraphrases=[] to write the sentences only (01_sentences.jsonl is what a paraphraser reads)"
            )
        files.update(dict.fromkeys(found))
    return list(files)


def find_trusted_files(places: list[str], files: list[Path]) -> list[Path]:
    """Those of some paraphrase files that people wrote.

    Raises:
        UserError: A place names none of the files.
    """
    found: list[Path] = []
    for place in places:
        named = {Path(name) for name in glob.glob(place, recursive=True)}
        here = [file for file in files if file in named or file.parent in named]
        if not here:
            raise UserError(
                f"merge.trusted: {place} names none of the files of merge.paraphrases; name one, or leave it out"
            )
        found += here
    return found


@dataclass(frozen=True)
class _Judged:
    """A row after the checks that need no other row: its pair, or why there is none."""

    line: int
    row: Row | BadLine | None
    pair: Row | None
    sentence_key: str = ""
    pair_key: str = ""
    reason: str = ""
    detail: str = ""


def merge_paraphrases(
    files: list[Path],
    sentences: list[Row],
    *,
    aliases: Mapping[str, str] = MappingProxyType({}),
    min_relevance: float = 0.0,
    trusted: Collection[Path] = (),
    num_proc: int = 1,
    **limits: Any,
) -> Merged:
    """Joins every valid paraphrase of every sentence.

    A row's original is matched to the books' sentences by its normalised text. An original that is in no book is kept
    as a sentence of its own (counted as ``not_in_books``), under the row's ``source`` or the file's name. A
    query-passage pair (``kind: passage``) is checked for its relevance, not for the gates of a paraphrase.

    Args:
        files: JSONL files; the keys of a row's two texts are one of ``KEY_PAIRS``.
        sentences: Rows of ``01_sentences.jsonl``.
        aliases: Id of the sentence that stands for a near-duplicate, see ``corpus.sentences.Corpus``.
        min_relevance: Query-passage pairs with a lower ``relevance`` are refused.
        trusted: Those of the files whose pairs people wrote: only what has no text, or is a copy, is refused.
        num_proc: Processes.
        **limits: Keyword arguments of ``check_paraphrase``.

    Returns:
        Pairs in the order of the sentences; rejected rows with file, line, reason, detail and the row itself.
    """
    known = {row["id"]: row for row in sentences}
    known |= {alias: known[kept] for alias, kept in aliases.items()}
    place = {row["id"]: number for number, row in enumerate(sentences)}
    merged = Merged(counts={str(file): Counter() for file in files})
    seen: set[str] = set()
    judge = partial(_judge, limits=limits, min_relevance=min_relevance, trusted=frozenset(trusted))
    small = sum(file.stat().st_size for file in files) < _SMALL
    for file, batch in spread(judge, _batches(files), 1 if small else num_proc):
        counts = merged.counts[str(file)]
        for judged in batch:
            counts["read"] += 1
            if judged.reason:
                _reject(merged, counts, file, judged, judged.reason, judged.detail)
                continue
            sentence = known.get(judged.sentence_key)
            pair = _merged_row(judged, sentence)
            if pair["id"] in seen:
                _reject(merged, counts, file, judged, "duplicate_pair", "the same pair was read before")
                continue
            seen.add(pair["id"])
            counts["kept"] += 1
            counts["not_in_books"] += sentence is None
            merged.pairs.append(pair)
    merged.pairs.sort(key=lambda row: place.get(row["sentence_id"], len(place)))
    return merged


def _batches(files: list[Path]) -> Iterator[tuple[Path, list[tuple[int, Row | BadLine]]]]:
    for file in files:
        rows = parse_jsonl(file)
        while batch := list(islice(rows, _BATCH)):
            yield file, batch


def _judge(
    batch: tuple[Path, list[tuple[int, Row | BadLine]]],
    limits: dict[str, Any],
    min_relevance: float,
    trusted: frozenset[Path],
) -> tuple[Path, list[_Judged]]:
    file, rows = batch
    limits = {} if file in trusted else limits
    return file, [_judge_row(file, line, row, limits, min_relevance) for line, row in rows]


def _judge_row(file: Path, line: int, row: Row | BadLine, limits: dict[str, Any], min_relevance: float) -> _Judged:
    pair = _pair(row, file)
    if isinstance(pair, tuple):
        return _Judged(line, row, None, reason=pair[0], detail=pair[1])
    if pair.get("kind") == PASSAGE:
        refused = _check_passage(pair, min_relevance)
    elif not limits:
        refused = _check_trusted(pair)
    elif len(pair["original"]) < limits["min_characters"]:
        refused = Rejection("original_too_short", f"{len(pair['original'])} characters")
    else:
        refused = check_paraphrase(pair["original"], pair["paraphrase"], **limits)
    if refused:
        return _Judged(line, row, pair, reason=refused.reason, detail=refused.detail)
    # The row itself is needed for a duplicate's listing only; the pair has all its keys.
    sentence_key = text_id(normalise(pair["original"]))
    return _Judged(line, None, pair, sentence_key, text_id(sentence_key, normalise(pair["paraphrase"])))


def _check_trusted(pair: Row) -> Rejection | None:
    if not pair["paraphrase"]:
        return Rejection("empty", "the paraphrase has no text")
    if normalise(pair["paraphrase"]) == normalise(pair["original"]):
        return Rejection("copy", "the paraphrase is the original")
    return None


def _check_passage(pair: Row, min_relevance: float) -> Rejection | None:
    if not pair["paraphrase"]:
        return Rejection("empty", "the passage has no text")
    relevance = pair.get("relevance", 1.0)
    if isinstance(relevance, bool) or not isinstance(relevance, int | float):
        return Rejection("wrong_type", f"'relevance' must be a number, it is {relevance!r}")
    if relevance < min_relevance:
        return Rejection("below_min_relevance", f"{relevance:g}, at least {min_relevance:g} is asked for")
    return None


def _pair(row: Row | BadLine, file: Path) -> Row | tuple[str, str]:
    """The row with clean ``original`` and ``paraphrase``, or (reason, detail)."""
    if isinstance(row, BadLine):
        return row.reason, row.detail
    keys = next((pair for pair in KEY_PAIRS if pair[0] in row and pair[1] in row), None)
    if keys is None:
        wanted = " or ".join(f"{a!r} and {b!r}" for a, b in KEY_PAIRS)
        return "missing_key", f"needs {wanted}; has {', '.join(map(repr, row)) or 'nothing'}"
    for key in keys:
        if not isinstance(row[key], str):
            return "wrong_type", f"{key!r} must be text, it is a {type(row[key]).__name__}"
    original, paraphrase = (clean_text(row[key]) for key in keys)
    if not original:
        return "empty", f"{keys[0]!r} has no text"
    model = row["model"] if isinstance(row.get("model"), str) and row["model"].strip() else file.stem
    source = row["source"] if isinstance(row.get("source"), str) and row["source"].strip() else file.stem
    kind = {"kind": PASSAGE} if keys == _PASSAGE_KEYS else {}
    extra = {k: v for k, v in row.items() if k not in (*keys, "id", "model", "source")}
    return {**extra, **kind, "original": original, "paraphrase": paraphrase, "model": model, "source": source}


def _merged_row(judged: _Judged, sentence: Row | None) -> Row:
    pair = judged.pair
    sentence_id = sentence["id"] if sentence else judged.sentence_key
    stands_in = sentence_id != judged.sentence_key  # for a near-duplicate
    return {
        **pair,
        "id": text_id(sentence_id, normalise(pair["paraphrase"])) if stands_in else judged.pair_key,
        "original": sentence["text"] if sentence else pair["original"],
        "source": sentence["source"] if sentence else pair["source"],
        "section": sentence["section"] if sentence else pair.get("section", ""),
        "sentence_id": sentence_id,
    }


def _reject(merged: Merged, counts: Counter[str], file: Path, judged: _Judged, reason: str, detail: str) -> None:
    counts[f"rejected: {reason}"] += 1
    row = judged.pair if judged.row is None else judged.row
    content = row.raw if isinstance(row, BadLine) else row
    merged.rejected.append({"file": str(file), "line": judged.line, "reason": reason, "detail": detail, "row": content})
