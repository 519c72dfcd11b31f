"""Paraphrase files and the books' sentences to one row a valid pair."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cardioembed.corpus.cleaning import clean_text
from cardioembed.errors import UserError
from cardioembed.paraphrases.fidelity import check_paraphrase
from cardioembed.records import BadLine, Row, normalise, parse_jsonl, text_id

# The two spellings that generators write.
KEY_PAIRS = (("original", "paraphrase"), ("sentence", "paraphrased"))


@dataclass
class Merged:
    """The valid pairs, the refused rows, and counts by file."""

    pairs: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)


def find_paraphrase_files(places: list[str]) -> list[Path]:
    """Paths or globs to files, in the order given, each once.

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


def merge_paraphrases(
    files: list[Path],
    sentences: list[Row],
    *,
    min_characters: int,
    max_characters: int,
    min_length_ratio: float,
    max_length_ratio: float,
) -> Merged:
    """Joins every valid paraphrase of every sentence.

    A row's original is matched to the books' sentences by its normalised text. An original that is in no book is kept
    as a sentence of its own (counted as ``not_in_books``), under the row's ``source`` or the file's name.

    Args:
        files: JSONL files; rows have ``original`` and ``paraphrase``, or ``sentence`` and ``paraphrased``.
        sentences: Rows of ``01_sentences.jsonl``.
        min_characters, max_characters, min_length_ratio, max_length_ratio: see ``check_paraphrase``.

    Returns:
        Pairs in the order of the sentences; rejected rows with file, line, reason, detail and the row itself.
    """
    known = {normalise(row["text"]): row for row in sentences}
    place = {row["id"]: number for number, row in enumerate(sentences)}
    merged = Merged()
    seen: set[tuple[str, str]] = set()
    for file in files:
        counts = merged.counts[str(file)] = Counter()
        for line, row in parse_jsonl(file):
            counts["read"] += 1
            pair = _pair(row, file)
            if isinstance(pair, tuple):
                _reject(merged, counts, file, line, row, *pair)
                continue
            original, paraphrase = pair["original"], pair["paraphrase"]
            refused = len(original) < min_characters and ("original_too_short", f"{len(original)} characters")
            if not refused:
                rejection = check_paraphrase(
                    original,
                    paraphrase,
                    min_characters=min_characters,
                    max_characters=max_characters,
                    min_length_ratio=min_length_ratio,
                    max_length_ratio=max_length_ratio,
                )
                refused = rejection and (rejection.reason, rejection.detail)
            key = (normalise(original), normalise(paraphrase))
            if not refused and key in seen:
                refused = ("duplicate_pair", "the same sentence and paraphrase were read before")
            if refused:
                _reject(merged, counts, file, line, row, *refused)
                continue
            seen.add(key)
            sentence = known.get(key[0])
            counts["kept"] += 1
            counts["not_in_books"] += sentence is None
            merged.pairs.append(_merged_row(pair, sentence))
    merged.pairs.sort(key=lambda row: place.get(row["sentence_id"], len(place)))
    return merged


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
    extra = {k: v for k, v in row.items() if k not in (*keys, "id", "model", "source")}
    return {**extra, "original": original, "paraphrase": paraphrase, "model": model, "source": source}


def _merged_row(pair: Row, sentence: Row | None) -> Row:
    original = sentence["text"] if sentence else pair["original"]
    sentence_id = sentence["id"] if sentence else text_id(normalise(original))
    source = sentence["source"] if sentence else pair["source"]
    return {
        **pair,
        "id": text_id(sentence_id, normalise(pair["paraphrase"])),
        "original": original,
        "source": source,
        "section": sentence["section"] if sentence else pair.get("section", ""),
        "sentence_id": sentence_id,
    }


def _reject(
    merged: Merged, counts: Counter[str], file: Path, line: int, row: Row | BadLine, reason: str, detail: str
) -> None:
    counts[f"rejected: {reason}"] += 1
    content = row.raw if isinstance(row, BadLine) else row
    merged.rejected.append({"file": str(file), "line": line, "reason": reason, "detail": detail, "row": content})
