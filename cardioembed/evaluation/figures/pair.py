"""Figures of an adapted model beside its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cardioembed.evaluation.document import GENERAL, GENERALISATION, IN_DOMAIN
from cardioembed.evaluation.figures.style import (
    AFTER,
    BEFORE,
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    Cell,
    Drawing,
    bars,
    bars_height,
    boxes,
    canvas,
    legend_above,
    listing,
    wrapped,
)
from cardioembed.evaluation.similarity import KINDS, USEFUL
from cardioembed.evaluation.tables import NOT_SKILL, main_metric
from cardioembed.evaluation.tasks.base import Measured

LOOKS = {"base": BEFORE, "adapted": AFTER}
_SLICES = {"length": "length of the anchor", "model": "paraphraser", "source": "book"}
_MOST_PARTS = 25


def pair_figures(document: dict[str, Any], results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    """All that the numbers allow; ``document`` has the models base and adapted."""
    yield from _gains(document)
    yield from _retrieval(document)
    yield from _pair_similarity(results)
    yield from _generalisation(document)
    yield from _concepts(results)
    yield from _separation(document)
    yield from _counterfactuals(document, results)
    yield from _robustness(document)
    yield from _benchmarks(document)
    yield from _slices(document)


def _gains(document: dict[str, Any]) -> Iterator[Drawing]:
    changes = {}
    for evaluation, metrics in document["delta"].items():
        metric = main_metric(evaluation, metrics)
        if evaluation not in NOT_SKILL and metrics[metric]["better"]:
            changes[f"{evaluation}: {metric}"] = metrics[metric]
    if len(changes) < 2:
        return
    figure, axis = canvas(8, bars_height(list(changes)) + 0.2)
    shown = set()
    for row, change in enumerate(changes.values()):
        kind, colour, marker = _direction(change)
        value, (low, high) = change["value"], change["ci95"]
        axis.plot([low, high], [row, row], color=colour, linewidth=2.2)
        axis.plot(value, row, marker, color=colour, markersize=7, label=None if kind in shown else kind,
                  markerfacecolor="white" if marker == "o" else colour)  # fmt: skip
        axis.annotate(f"{value:+.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        shown.add(kind)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(changes)), [wrapped(name) for name in changes])
    axis.set_ylim(len(changes) - 0.5, -0.5)
    axis.set_xlabel("adapted - base, on the same items")
    legend_above(axis)
    yield Drawing(
        "gains",
        "Change of every evaluation's main metric from base to adapted, with 95 % intervals. Filled markers have an "
        "interval without zero.",
        "Intervals of the differences: " + "; ".join(f"{name} {c['value']:+.3f}" for name, c in changes.items()) + ".",
        figure,
    )


def _direction(change: Cell) -> tuple[str, str, str]:
    low, high = change["ci95"]
    if low <= 0 <= high:
        return "not clear", GREY, "o"
    return ("better", BLUE, "D") if (low > 0) == (change["better"] == "higher") else ("worse", VERMILLION, "X")


def _both(document: dict[str, Any], evaluation: str, metrics: list[str]) -> dict[str, list[Cell | None]]:
    models = document["models"]
    return {model: [models[model].get(evaluation, {}).get(metric) for metric in metrics] for model in LOOKS}


def _beside(name: str, caption: str, names: list[str], series: Mapping[str, list[Cell | None]], label: str,
            chance: float | None = None) -> Iterator[Drawing]:  # fmt: skip
    """Bars of base and adapted; rows that neither has are left out, and a figure without rows is none."""
    kept = [i for i in range(len(names)) if any(own[i] for own in series.values())]
    names, series = [names[i] for i in kept], {model: [own[i] for i in kept] for model, own in series.items()}
    if not names:
        return
    figure, axis = canvas(8, bars_height(names, 2) + 0.2)
    bars(axis, names, series, LOOKS, label, chance=chance)
    legend_above(axis)
    said = "; ".join(
        f"{model}: {listing({n: c for n, c in zip(names, own, strict=True) if c})}" for model, own in series.items()
    )
    yield Drawing(name, caption, f"Bars. {said}.", figure)


def _retrieval(document: dict[str, Any]) -> Iterator[Drawing]:
    metrics = ["accuracy@1", "accuracy@5", "accuracy@10", "mrr"]
    yield from _beside(
        "retrieval", "Paraphrase retrieval on the test split, with 95 % intervals.", metrics,
        _both(document, IN_DOMAIN, metrics), "score",
    )  # fmt: skip


def _pair_similarity(results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    ranks = {model: found[IN_DOMAIN].details.ranks for model, found in results.items()}
    figure, axes = canvas(8, 3.4, columns=2, sharey=True, sharex=True)
    lowest = min(float(own.similarity.min()) for own in ranks.values())
    bins = np.linspace(min(-0.2, np.floor(lowest * 10) / 10), 1, 49)
    for axis, (model, own) in zip(axes, ranks.items(), strict=True):
        axis.hist(own.chance_similarity, bins, color=ORANGE, hatch="....", edgecolor="white", linewidth=0.3,
                  alpha=0.85, label="other paraphrases (mean)")  # fmt: skip
        axis.hist(own.similarity, bins, color=LOOKS[model]["color"], alpha=0.85, label="own paraphrase")
        axis.set_xlabel(f"cosine, {model}")
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1))
    axes[0].set_ylabel("pairs")
    means = ", ".join(
        f"{model}: own {own.similarity.mean():.3f}, others {own.chance_similarity.mean():.3f}"
        for model, own in ranks.items()
    )
    yield Drawing(
        "pair_similarity",
        "Cosine of anchors with their own paraphrase, and their mean cosine with all other paraphrases.",
        f"Histograms of cosines. Means: {means}.",
        figure,
    )


def _generalisation(document: dict[str, Any]) -> Iterator[Drawing]:
    names = [name for name in document["evaluations"] if name.startswith(GENERALISATION)]
    if names:
        series = {
            model: [document["models"][model].get(name, {}).get("accuracy@1") for name in (IN_DOMAIN, *names)]
            for model in LOOKS
        }
        yield from _beside(
            "generalisation",
            "Accuracy@1 on the test split and on texts from outside the training books. The sets differ in size, and "
            "so in difficulty.",
            ["test split", *(name.removeprefix(GENERALISATION) for name in names)], series, "accuracy@1",
        )  # fmt: skip


def _concepts(results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    if not all("concept_separation" in found for found in results.values()):
        return
    cosines = {model: results[model]["concept_separation"].details for model in LOOKS}
    figure, axis = canvas(8, 3.3)
    handles = []
    for number, (model, own) in enumerate(cosines.items()):
        at = np.arange(len(KINDS)) + (number - 0.5) * 0.36
        handles.append(boxes(axis, [own[kind] for kind in KINDS], at, 0.3, LOOKS[model]))
    axis.set_yticks(range(len(KINDS)), KINDS)
    axis.set_ylim(len(KINDS) - 0.5, -0.5)
    axis.set_xlabel("cosine")
    legend_above(axis, handles=handles, labels=list(cosines))
    medians = "; ".join(
        f"{model}: " + ", ".join(f"{kind} {np.median(own[kind]):.3f}" for kind in KINDS)
        for model, own in cosines.items()
    )
    yield Drawing(
        "concept_similarity",
        "Cosine of concept pairs by kind: median, quartiles, whiskers to 1.5 times their distance.",
        f"Box plots. Medians: {medians}.",
        figure,
    )


def _separation(document: dict[str, Any]) -> Iterator[Drawing]:
    yield from _beside(
        "separation",
        "Separation and negation gap with 95 % intervals; the dotted line is "
        f"{USEFUL}, the comparison paper's limit of clinical use. Below 0, negated statements lie closer than "
        "rephrased ones.",
        ["separation (similar - different)", "negation gap (similar - negated)"],
        _both(document, "concept_separation", ["separation", "negation_gap"]),
        "difference of mean cosines", chance=USEFUL,
    )  # fmt: skip


def _counterfactuals(document: dict[str, Any], results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    for name in [name for name in document["evaluations"] if name.startswith("counterfactual")]:
        title = document["evaluations"][name]["title"]
        parts = _parts(document, name, "category", "accuracy")
        whole = {"all": {m: document["models"][m].get(name, {}).get("accuracy") for m in LOOKS}}
        rows = {**whole, **parts}
        yield from _beside(
            f"{name}_categories",
            f"{title}: how often the paraphrase lies closer than the counterfactual, by category. Dotted: chance.",
            list(rows), {model: [own.get(model) for own in rows.values()] for model in LOOKS}, "accuracy", chance=0.5,
        )  # fmt: skip
        if all(name in results[model] for model in LOOKS):
            yield _margins(name, title, {model: results[model][name].details.margins for model in LOOKS})


def _margins(name: str, title: str, margins: dict[str, np.ndarray]) -> Drawing:
    figure, axis = canvas(8, 3.2)
    everything = np.concatenate(list(margins.values()))
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 41)
    for model, values in margins.items():
        axis.hist(values, bins, histtype="step", linewidth=1.8, color=LOOKS[model]["color"], label=model,
                  linestyle="--" if model == "base" else "-")  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel("margin: cos(anchor, paraphrase) - cos(anchor, counterfactual)")
    axis.set_ylabel("anchors")
    legend_above(axis)
    shares = ", ".join(f"{model} {np.mean(values <= 0):.1%}" for model, values in margins.items())
    return Drawing(
        f"{name}_margins",
        f"{title}: margins. Left of 0 the counterfactual lies as close as the paraphrase, or closer.",
        f"Histograms. Share of margins that are not positive: {shares}.",
        figure,
    )


def _robustness(document: dict[str, Any]) -> Iterator[Drawing]:
    for name in [name for name in document["evaluations"] if name.startswith("robustness")]:
        found = document["slices"]["adapted"].get(name, {})
        if not found:
            continue
        metric = main_metric(name, next(iter(found.values())))
        series = {m: [document["slices"][m].get(name, {}).get(part, {}).get(metric) for part in found] for m in LOOKS}
        yield from _beside(
            name, f"{document['evaluations'][name]['title']}: {metric} by kind of edit, with 95 % intervals.",
            [part.partition("=")[2] or part for part in found], series, metric,
        )  # fmt: skip


def _benchmarks(document: dict[str, Any]) -> Iterator[Drawing]:
    names = [name for name in document["delta"] if name.startswith(GENERAL)]
    metrics = [main_metric(name, document["delta"][name]) for name in names]
    series = {
        model: [document["models"][model][name].get(metric) for name, metric in zip(names, metrics, strict=True)]
        for model in LOOKS
    }
    yield from _beside(
        "benchmarks", "General benchmarks before and after training: what the model gained or forgot.",
        [f"{name}: {metric}" for name, metric in zip(names, metrics, strict=True)], series, "score",
    )  # fmt: skip


def _slices(document: dict[str, Any]) -> Iterator[Drawing]:
    for key, what in _SLICES.items():
        parts = _parts(document, IN_DOMAIN, key, "accuracy@1")
        if not 2 <= len(parts) <= _MOST_PARTS:
            continue
        counts = {part: next(cell["n"] for cell in own.values() if cell) for part, own in parts.items()}
        yield from _beside(
            f"slices_{key}", f"Accuracy@1 by {what} (n pairs), with 95 % intervals.",
            [f"{part} ({counts[part]:,})" for part in parts],
            {model: [own.get(model) for own in parts.values()] for model in LOOKS}, "accuracy@1",
        )  # fmt: skip


def _parts(document: dict[str, Any], evaluation: str, key: str, metric: str) -> dict[str, dict[str, Cell]]:
    """Cells by part and model of the slices with a key."""
    parts: dict[str, dict[str, Cell]] = {}
    for model in LOOKS:
        for part, metrics in document["slices"][model].get(evaluation, {}).items():
            if part.startswith(f"{key}=") and metric in metrics:
                parts.setdefault(part.partition("=")[2], {})[model] = metrics[metric]
    return parts
