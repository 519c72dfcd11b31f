"""Stage 02's statistics, as a JSON document and as a page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment

from cardioembed.records import Row
from cardioembed.triplets.building import Prepared

_BINS = 24
_TEXTS = ("anchor", "positive", "negative")
# A bar is 16 wide with a gap of 2, in a chart of 120 units' height.
_BAR, _STEP, _HEIGHT = 16, 18, 120


def statistics_document(prepared: Prepared, audit: dict[str, int]) -> dict[str, Any]:
    """The content of ``02_statistics.json``.

    Args:
        prepared: Triplets, removed rows and counts.
        audit: As from ``audit_leaks``.
    """
    lengths = {name: _lengths(rows) for name, rows in prepared.splits.items()}
    negatives = prepared.counts["negatives"]
    removed = Counter((row["set"], row["reason"], row["field"]) for row in prepared.removed)
    return {
        **{key: value for key, value in prepared.counts.items() if key != "negatives"},
        "warnings": prepared.warnings,
        "splits": {name: _describe(rows, lengths[name], negatives[name]) for name, rows in prepared.splits.items()},
        "word_histograms": _histograms(lengths),
        "removed": [
            {"set": name, "reason": reason, "field": field, "rows": rows}
            for (name, reason, field), rows in sorted(removed.items())
        ],
        "leak_audit": audit,
    }


def statistics_page(statistics: dict[str, Any], removed: list[Row], *, run: str, settings: str) -> str:
    """One self-contained page of the statistics.

    Args:
        statistics: As from ``statistics_document``.
        removed: Rows that were left out; a few are shown.
        run: Name of the run.
        settings: The settings as YAML.
    """
    template = Environment(autoescape=True, trim_blocks=True).from_string(
        files("cardioembed.triplets").joinpath("statistics.html.j2").read_text(encoding="utf-8")
    )
    splits = statistics["splits"]
    return template.render(
        run=run,
        statistics=statistics,
        splits=splits,
        total=sum(split["triplets"] for split in splits.values()),
        charts=_charts(statistics["word_histograms"]),
        tables={
            "Books": _by_split(splits, "sources"),
            "Writers of the positives": _by_split(splits, "models"),
            "Kinds of negatives": _by_split(splits, "negative_kinds"),
            "Categories of counterfactuals": _by_split(splits, "counterfactual_categories"),
        },
        replaced=_by_split(splits, "replaced_negatives", of="negative_kinds"),
        audit=_audit_rows(statistics["leak_audit"]),
        examples=_examples(removed),
        settings=settings,
    )


def _lengths(rows: list[Row]) -> dict[str, list[int]]:
    """Words of each text."""
    lengths = {key: [len(row[key].split()) for row in rows] for key in ("anchor", "positive")}
    return lengths | {"negative": [len(text.split()) for row in rows for text in row["negatives"]]}


def _describe(rows: list[Row], lengths: dict[str, list[int]], negatives: dict[str, int]) -> dict[str, Any]:
    kinds = Counter(kind for row in rows for kind in row["negative_kinds"])
    made = {
        key.removeprefix("counterfactual: "): n for key, n in negatives.items() if key.startswith("counterfactual: ")
    }
    return {
        "triplets": len(rows),
        "groups": len({row["group"] for row in rows}),
        "sources": dict(Counter(row["source"] for row in rows).most_common()),
        "models": dict(Counter(row["model"] for row in rows).most_common()),
        "passages": sum(row.get("kind") == "passage" for row in rows),
        "negative_kinds": dict(kinds.most_common()),
        "replaced_negatives": {key: n for key, n in negatives.items() if " replaced by " in key},
        "counterfactual_categories": dict(sorted(made.items())),
        "mined_too_near": negatives.get("mined_too_near", 0),
        "passages_with_sentences_as_negatives": negatives.get("passages_with_sentences_as_negatives", 0),
        "words": {key: _spread(values) for key, values in lengths.items()},
    }


def _spread(values: list[int]) -> dict[str, float] | None:
    """None of no text: rows of held-out books may have no negatives."""
    if not values:
        return None
    return {"mean": round(float(np.mean(values)), 2), "sd": round(float(np.std(values)), 2), "max": max(values)}


def _histograms(lengths: dict[str, dict[str, list[int]]]) -> dict[str, Any]:
    """Texts by words in equal bins; the last bin is open."""
    everything = np.concatenate([values for split in lengths.values() for values in split.values()])
    width = max(1, int(np.ceil(np.percentile(everything, 99.5) / _BINS)))
    counts = {key: np.zeros(_BINS + 1, int) for key in _TEXTS}
    for split in lengths.values():
        for key in _TEXTS:
            counts[key] += np.bincount(np.minimum(np.array(split[key], int) // width, _BINS), minlength=_BINS + 1)
    return {"bin_words": width, **{key: found.tolist() for key, found in counts.items()}}


def _charts(histograms: dict[str, Any]) -> list[dict[str, Any]]:
    """Bars of each histogram as shares of its texts, on one scale."""
    width = histograms["bin_words"]
    shares = {key: np.array(histograms[key]) / sum(histograms[key]) for key in _TEXTS}
    highest = max(found.max() for found in shares.values())
    charts = []
    for key, found in shares.items():
        bars = [
            {
                "x": number * _STEP,
                "y": round(_HEIGHT * (1 - share / highest), 1),
                "height": round(_HEIGHT * share / highest, 1),
                "label": f"{_range(number, width)}: {histograms[key][number]:,} texts ({share:.1%})",
            }
            for number, share in enumerate(found.tolist())
        ]
        ticks = [{"x": number * _STEP, "label": number * width} for number in range(0, _BINS + 1, 6)]
        charts.append({"name": f"{key}s", "bars": bars, "ticks": ticks, "highest": f"{highest:.0%}"})
    return charts


def _range(number: int, width: int) -> str:
    low = number * width
    if number == _BINS:
        return f"{low} words or more"
    return f"{low} words" if width == 1 else f"{low} to {low + width - 1} words"


def _by_split(splits: dict[str, Any], key: str, of: str = "") -> list[dict[str, Any]]:
    """A line a name, the most frequent first, with counts and shares (of all of another key's) in each split."""
    totals = Counter()
    for split in splits.values():
        totals.update(split[key])
    whole = {name: sum(split[of or key].values()) for name, split in splits.items()}
    return [
        {
            "name": name,
            "cells": [
                {"count": split[key].get(name, 0), "share": split[key].get(name, 0) / max(1, whole[each])}
                for each, split in splits.items()
            ],
        }
        for name, _ in totals.most_common()
    ]


def _audit_rows(audit: dict[str, int]) -> list[dict[str, Any]]:
    """A line a thing that could be shared, a cell a pair of splits."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for key, count in audit.items():
        what, _, where = key.partition("_in_")
        lines.setdefault(what.replace("_", " "), []).append({"where": where.replace("_", " "), "count": count})
    return [{"name": name, "cells": cells} for name, cells in lines.items()]


def _examples(removed: list[Row]) -> list[dict[str, Any]]:
    """The first three removals of each set and reason."""
    seen: Counter[tuple[str, str]] = Counter()
    examples = []
    for row in removed:
        key = (row["set"], row["reason"])
        seen[key] += 1
        if seen[key] <= 3:
            text = (
                row["row"]["paraphrase"]
                if row["field"] == "positive"
                else row["row"].get("text", row["row"].get("original"))
            )
            examples.append({"set": row["set"], "reason": row["reason"], "shared": row["shared"], "text": text})
    return examples
