"""What the numbers say: the report's first sentences and the terminal's table, both from ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardioembed.evaluation.document import GENERAL, IN_DOMAIN
from cardioembed.evaluation.similarity import tier
from cardioembed.evaluation.tables import chance_text, main_columns, main_metric, number, verdict

Document = dict[str, Any]
_TERMINAL = 118  # characters of a line


def summary_sentences(document: Document) -> list[str]:
    """Three sentences, whose words the intervals decide."""
    return _pair_sentences(document) if "delta" in document else _comparison_sentences(document)


def _pair_sentences(document: Document) -> list[str]:
    base, adapted = (document["models"][model] for model in ("base", "adapted"))
    before, after = (model[IN_DOMAIN]["accuracy@1"] for model in (base, adapted))
    change = document["delta"][IN_DOMAIN]["accuracy@1"]
    return [
        f"On {after['n']:,} held-out pairs the adapted model puts the right paraphrase first for "
        f"{after['value']:.1%} of the anchors, the base for {before['value']:.1%}: {reading(change)}.",
        _separation_sentence(adapted, document["delta"]),
        _general_sentence(document["delta"]),
    ]


def _separation_sentence(adapted: Mapping[str, Any], delta: Mapping[str, Any]) -> str:
    if "concept_separation" not in delta:
        return "Separation of concepts was not measured (evaluate.concept_pairs)."
    separation, gap = (delta["concept_separation"][metric] for metric in ("separation", "negation_gap"))
    value, distance = (adapted["concept_separation"][metric]["value"] for metric in ("separation", "negation_gap"))
    closer = "; negated statements are still placed closer than rephrased ones" if distance < 0 else ""
    return (
        f"Separation of similar from different concepts is {value:.3f} ({tier(value)}), {reading(separation)}; "
        f"the gap to negated statements is {distance:+.3f}, {reading(gap)}{closer}."
    )


def _general_sentence(delta: Mapping[str, Any]) -> str:
    changes = {
        f"{evaluation} {metric}": metrics[metric]
        for evaluation, metrics in delta.items()
        if evaluation.startswith(GENERAL)
        for metric in [main_metric(evaluation, metrics)]
    }
    if not changes:
        return "No general benchmark was run (evaluate.sts, evaluate.beir), so what training cost elsewhere is unknown."
    found: dict[str, list[str]] = {"worse": [], "better": [], "": []}
    for name, change in changes.items():
        found[verdict(change)].append(f"{name} ({_interval(change)})")
    words = {"worse": "fell on", "better": "rose on", "": "did not clearly change on"}
    said = "; ".join(f"{words[kind]} {', '.join(names)}" for kind, names in found.items() if names)
    lost = "Training cost general ability" if found["worse"] else "No general benchmark clearly fell"
    return f"{lost}: the adapted model {said}."


def reading(change: Mapping[str, Any]) -> str:
    """A rise, a fall or no clear change, by the interval."""
    low, high = change["ci95"]
    word = "a rise" if low > 0 else "a fall" if high < 0 else "no clear change"
    return f"{word} ({_interval(change)})"


def _interval(change: Mapping[str, Any]) -> str:
    value, low, high = (number(x, signed=True) for x in (change["value"], *change["ci95"]))
    return f"{value}, 95 % interval {low} to {high}"


def _comparison_sentences(document: Document) -> list[str]:
    cells = {m: found[IN_DOMAIN]["accuracy@1"] for m, found in document["models"].items() if IN_DOMAIN in found}
    best = max(cells, key=lambda model: cells[model]["value"])
    first = document["comparison"]["ranks"][IN_DOMAIN]["accuracy@1"]
    equal = [model for model in cells if first[model] == 1 and model != best]
    beside = f"; its interval does not tell it apart from {', '.join(equal)}" if equal else ", clear of all others"
    low, high = cells[best]["ci95"]
    return [
        f"Of {len(cells)} models {best} finds most paraphrases of {cells[best]['n']:,} held-out pairs, accuracy@1 "
        f"{cells[best]['value']:.1%} (95 % interval {low:.1%} to {high:.1%}){beside}.",
        _gains_sentence(document["comparison"]["deltas"]),
        _forgetting_sentence(document["comparison"]["deltas"]),
    ]


def _gains_sentence(deltas: Mapping[str, Any]) -> str:
    changes = {model: own[IN_DOMAIN]["accuracy@1"] for model, own in deltas.items() if IN_DOMAIN in own}
    if not changes:
        return "No adapted model is among them, so there is no gain to report."
    rises, falls = ([m for m, c in changes.items() if verdict(c) == kind] for kind in ("better", "worse"))
    most = max(changes, key=lambda model: changes[model]["value"])
    return (
        f"Against its own base accuracy@1 clearly rose for {len(rises)} of {len(changes)} adapted models and clearly "
        f"fell for {len(falls)}; {most} changed most upwards: {reading(changes[most])}."
    )


def _forgetting_sentence(deltas: Mapping[str, Any]) -> str:
    changes = [
        (model, evaluation, metrics[main_metric(evaluation, metrics)])
        for model, own in deltas.items()
        for evaluation, metrics in own.items()
        if evaluation.startswith(GENERAL)
    ]
    if not changes:
        return (
            "Forgetting was not measured: it needs adapted models and general benchmarks (evaluate.sts, evaluate.beir)."
        )
    falls = [change for change in changes if verdict(change[2]) == "worse"]
    if not falls:
        return f"None of {len(changes)} results on general benchmarks clearly fell by training."
    model, evaluation, worst = max(falls, key=lambda change: abs(change[2]["value"]))
    return (
        f"{len(falls)} of {len(changes)} results on general benchmarks clearly fell by training, most of all "
        f"{model} on {evaluation} ({_interval(worst)})."
    )


def terminal_table(document: Document) -> str:
    """Base, adapted and difference, a line a metric; of a comparison the models with their main metrics."""
    return "\n".join(_pair_lines(document) if "delta" in document else _comparison_lines(document))


def _pair_lines(document: Document) -> list[str]:
    base, adapted = (document["models"][model] for model in ("base", "adapted"))
    lines = [f"{'':<24} {'base':>10} {'adapted':>10} {'difference':>11}  {'95 % interval':<21} {'n':>6}  chance"]
    for evaluation, about in document["evaluations"].items():
        lines.append(about["title"])
        changes = document["delta"].get(evaluation, {})
        if not changes:
            lines.append("  not measured: it could not be run")
        for metric, change in changes.items():
            before, after = base[evaluation][metric], adapted[evaluation][metric]
            low, high = (number(limit, signed=True) for limit in change["ci95"])
            lines.append(
                f"  {metric:<22} {number(before['value']):>10} {number(after['value']):>10} "
                f"{number(change['value'], signed=True):>11}  {f'[{low}, {high}]':<21} {change['n']:>6}  "
                f"{chance_text(before, after)}"
            )
    return lines


def _comparison_lines(document: Document) -> list[str]:
    """Columns that do not fit go into further blocks."""
    width = max(map(len, document["models"]))
    columns = list(main_columns(document).items())
    sizes = [max(len(evaluation), len(metric), 9) for evaluation, metric in columns]
    blocks: list[list[int]] = [[]]
    for number_, size in enumerate(sizes):
        if blocks[-1] and width + sum(sizes[i] + 2 for i in blocks[-1]) + size + 2 > _TERMINAL:
            blocks.append([])
        blocks[-1].append(number_)
    lines = []
    for block in blocks:
        for line in range(2):
            lines.append(" " * width + "".join(f"  {columns[i][line]:>{sizes[i]}}" for i in block))
        for model, found in document["models"].items():
            cells = [found.get(columns[i][0], {}).get(columns[i][1]) for i in block]
            texts = [number(cell["value"]) if cell else "-" for cell in cells]
            lines.append(f"{model:<{width}}" + "".join(f"  {t:>{sizes[i]}}" for t, i in zip(texts, block, strict=True)))
        lines.append("")
    return lines[:-1]
