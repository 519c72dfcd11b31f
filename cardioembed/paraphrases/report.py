"""``01_report.html``: what stage 01 kept, what it refused and why, with samples to judge the gates by."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from cardioembed.paraphrases.merging import KEY_PAIRS, PASSAGE
from cardioembed.records import Row, atomic_open, normalise

# Longer texts are cut in the page; 01_rejected.jsonl has them whole.
_SHOWN_CHARACTERS = 1200
_SHOWN_ROWS = 100
_ALL = "all"


def write_rejection_report(
    path: Path, *, pairs: list[Row], rejected: list[Row], statistics: dict[str, Any], samples: int = 5, seed: int
) -> None:
    """Writes one self-contained HTML page about the pairs that were kept and the rows that were refused.

    Args:
        path: The page; its folder's name is the page's title.
        pairs: Rows of ``01_merged_paraphrases.jsonl``.
        rejected: Rows of ``01_rejected.jsonl``: file, reason, detail, the row or the raw text of a broken line.
            Sentences of books (reason ``sentence_...``) are shown, and not counted among the paraphrases.
        statistics: ``books`` and ``cleaning`` of ``01_statistics.json``, ``ocr`` (counts) and ``failed_pages`` (rows of
            ``01_failed_pages.jsonl``) where there are such.
        samples: Refused rows shown of each reason.
        seed: Decides which; the samples of one reason do not depend on the other reasons.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("cardioembed.paraphrases").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    refused_pairs = [row for row in rejected if not _is_sentence(row)]
    page = template.render(
        run=path.parent,
        kept=len(pairs),
        read=len(pairs) + len(refused_pairs),
        refused_sentences=len(rejected) - len(refused_pairs),
        table=outcome_table(pairs, refused_pairs),
        reasons=_reasons(rejected, samples, seed),
        histograms=histograms([pair for pair in pairs if not is_passage(pair)]),
        passages=sum(map(is_passage, pairs)),
        books=_count_table(statistics.get("books", {})),
        cleaning=_counts(statistics.get("cleaning", {})),
        ocr=_counts(statistics.get("ocr") or {}),
        failed_pages=_row_table(statistics.get("failed_pages") or []),
        samples=samples,
        seed=seed,
    )
    with atomic_open(path) as stream:
        stream.write(page)


def outcome_table(pairs: list[Row], rejected: list[Row]) -> dict[str, Any]:
    """Counts and shares by outcome (kept, then reasons by count) and generator.

    Args:
        pairs: Kept rows.
        rejected: Refused paraphrases, without the refused sentences of books.

    Returns:
        ``{"generators": names, "totals": rows read of each, "rows": [{"outcome", "cells": [{"count", "share",
        "ci95"}]}]}``; a share is of the generator's rows, its interval the Wilson 95 % interval. The last generator is
        ``all`` where there are several.
    """
    counts: dict[str, Counter[str]] = {"kept": Counter(map(generator_of, pairs))}
    for row in sorted(rejected, key=lambda row: row["reason"]):
        counts.setdefault(row["reason"], Counter())[generator_of(row["row"], row.get("file", ""))] += 1
    generators = sorted({name for counter in counts.values() for name in counter})
    totals = [sum(counter[name] for counter in counts.values()) for name in generators]
    columns = [[counter[name] for name in generators] for counter in counts.values()]
    if len(generators) > 1:
        generators, totals = [*generators, _ALL], [*totals, sum(totals)]
        columns = [[*values, sum(values)] for values in columns]
    rows = [
        {"outcome": outcome, "cells": [_share(k, n) for k, n in zip(values, totals, strict=True)]}
        for outcome, values in zip(counts, columns, strict=True)
    ]
    rows[1:] = sorted(rows[1:], key=lambda row: -sum(cell["count"] for cell in row["cells"]))
    return {"generators": generators, "totals": totals, "rows": rows}


def _share(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "share": count / total, "ci95": wilson_interval(count, total)}


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); scipy has it too, and takes a second to import."""
    z, share = 1.959963984540054, count / total
    middle = share + z * z / (2 * total)
    width = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)


def generator_of(content: Any, file: str = "") -> str:
    """The model that wrote a pair; one that does not say goes by the file's name, as in ``merge_paraphrases``."""
    model = content.get("model") if isinstance(content, Mapping) else None
    return model if isinstance(model, str) and model.strip() else Path(file).stem or "unknown"


def texts_of(content: Any) -> tuple[str, str] | None:
    """Original and paraphrase of a row of either spelling; None where it does not have both as texts."""
    if not isinstance(content, Mapping):
        return None
    found = ((content.get(first), content.get(second)) for first, second in KEY_PAIRS)
    return next((pair for pair in found if all(isinstance(text, str) for text in pair)), None)


def is_passage(content: Mapping[str, Any]) -> bool:
    """Whether the two texts are a query and a passage, of which neither says the other again."""
    return content.get("kind") == PASSAGE or ("query" in content and not {"original", "sentence"} & content.keys())


def _is_sentence(row: Row) -> bool:
    """Whether a sentence of a book was refused, not a paraphrase."""
    return row["reason"].startswith("sentence_")


def _reasons(rejected: list[Row], samples: int, seed: int) -> list[dict[str, Any]]:
    """Every reason, most frequent first, with its samples in the order of the file."""
    by_reason: dict[str, list[Row]] = {}
    for row in rejected:
        by_reason.setdefault(row["reason"], []).append(row)
    return [
        {
            "reason": reason,
            "count": len(rows),
            "samples": [_sample(rows[i]) for i in _draw(len(rows), samples, f"{seed} {reason}")],
        }
        for reason, rows in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _draw(count: int, samples: int, seed: str) -> list[int]:
    return sorted(random.Random(seed).sample(range(count), min(samples, count)))


def _sample(row: Row) -> dict[str, Any]:
    content, file = row["row"], row.get("file", "")
    sample = {
        "where": f"{file}, line {row['line']}" if row.get("line") else file,
        "generator": "" if _is_sentence(row) else generator_of(content, file),
        "detail": row.get("detail", ""),
    }
    if texts := texts_of(content):
        original, paraphrase = texts
        sample["labels"] = ("query", "passage") if is_passage(content) else ("original", "paraphrase")
        return {**sample, "sides": [_side(original, paraphrase), _side(paraphrase, original)]}
    if isinstance(content, Mapping):
        content = content["text"] if _is_sentence(row) else json.dumps(content, ensure_ascii=False)
    return {**sample, "raw": _shown(str(content))}


def _shown(text: str) -> str:
    return text[:_SHOWN_CHARACTERS] + _cut(text)


def _side(text: str, other: str) -> list[tuple[str, bool]]:
    return [*marked_words(text[:_SHOWN_CHARACTERS], other), (_cut(text), False)]


def _cut(text: str) -> str:
    return f" … ({len(text):,} characters)" if len(text) > _SHOWN_CHARACTERS else ""


def marked_words(text: str, other: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is a word that the other text does not have anywhere."""
    known = {word for chunk in other.split() for word in normalise(chunk).split()}
    pieces = [(piece, not known.issuperset(normalise(piece).split())) for piece in re.split(r"(\s+)", text)]
    joined: list[tuple[str, bool]] = []
    for piece, differs in pieces:
        if joined and joined[-1][1] == differs:
            piece = joined.pop()[0] + piece
        joined.append((piece, differs))
    return joined


def word_overlap(original: str, paraphrase: str) -> float:
    """Share of the two texts' distinct words that are in both (Jaccard), 0 to 1."""
    first, second = (set(re.findall(r"\w+", text.casefold())) for text in (original, paraphrase))
    return len(first & second) / max(1, len(first | second))


def histograms(pairs: list[Row], bins: int = 20) -> list[dict[str, Any]]:
    """Word overlap and length ratio (in characters) of the kept pairs by generator, ready to be drawn.

    Returns:
        One dict a measure: ``title``, ``explained``, ``limit`` (right end of the axis) and ``panels``; a panel has
        ``generator``, ``n``, ``quartiles`` (three values), ``counts`` and ``heights`` (one value a bin; the fullest
        is 1 high).
    """
    values: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        original, paraphrase = pair["original"], pair["paraphrase"]
        measured = word_overlap(original, paraphrase), len(paraphrase) / max(1, len(original))
        values.setdefault(generator_of(pair), []).append(measured)
    arrays = {name: np.array(rows) for name, rows in sorted(values.items())}
    longest = max((float(array[:, 1].max()) for array in arrays.values()), default=1.0)
    overlap = ("Word overlap", "share of the two texts' distinct words that are in both; 1 is a reordered copy", 1)
    length = ("Length ratio", "characters of the paraphrase to those of the original", max(2, int(np.ceil(longest))))
    return [
        {
            "title": title,
            "explained": explained,
            "limit": limit,
            "bins": bins,
            "panels": [_panel(name, array[:, column], limit, bins) for name, array in arrays.items()],
        }
        for column, (title, explained, limit) in enumerate((overlap, length))
    ]


def _panel(generator: str, values: np.ndarray, limit: int, bins: int) -> dict[str, Any]:
    counts = np.histogram(values, bins=bins, range=(0, limit))[0]
    quartiles = [float(quartile) for quartile in np.quantile(values, [0.25, 0.5, 0.75])]
    return {
        "generator": generator,
        "n": len(values),
        "quartiles": quartiles,
        "counts": counts.tolist(),
        "heights": (counts / counts.max()).tolist(),
    }


def _count_table(books: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Books by row, whatever was counted of them by column; a count that a book lacks is 0."""
    columns = list(dict.fromkeys(key for counts in books.values() for key in _counts(counts)))
    rows = [(name, [counts.get(column, 0) for column in columns]) for name, counts in books.items()]
    totals = [sum(values[number] for _, values in rows) for number in range(len(columns))]
    return {"columns": columns, "rows": rows, "totals": totals}


def _counts(counts: Mapping[str, Any]) -> dict[str, int | float]:
    return {str(key): value for key, value in counts.items() if isinstance(value, (int, float))}


def _row_table(rows: list[Row]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_shown(str(row.get(column, ""))) for column in columns] for row in rows[:_SHOWN_ROWS]]
    return {"columns": columns, "rows": cells, "count": len(rows)}
