"""Figures of several models beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axis import Axis

from cardioembed.evaluation.document import IN_DOMAIN
from cardioembed.evaluation.figures.style import (
    AFTER,
    BEFORE,
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    VERMILLION,
    Cell,
    Drawing,
    bars,
    bars_height,
    boxes,
    canvas,
    figure_number,
    legend_above,
    listing,
    log_scale,
    name_points,
    wrapped,
)
from cardioembed.evaluation.similarity import KINDS, USEFUL
from cardioembed.evaluation.tables import NOT_SKILL, main_metric
from cardioembed.evaluation.tasks.base import Measured

Document = dict[str, Any]
_ADAPTED_NOTE = "Blue: adapted models; grey and hatched: bases."
_KIND_LOOKS = {
    "similar": {"color": BLUE, "hatch": ""},
    "different": {"color": ORANGE, "hatch": "...."},
    "negation": {"color": GREY, "hatch": "////"},
}
_BATCHES = (1, 4, 16, 32)
_LOGARITHMIC = 20  # largest by smallest value above which an axis is logarithmic


def comparison_figures(document: Document, results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    """All that the numbers allow."""
    yield from _ranking(document, "model_comparison", IN_DOMAIN, "accuracy@1", "Accuracy@1 of paraphrase retrieval")
    yield from _accuracy_at_k(document)
    yield from _ranking(document, "mrr", IN_DOMAIN, "mrr", "MRR of paraphrase retrieval")
    yield from _similarities(results)
    yield from _zero_shot_adapted(document)
    yield from _waterfall(document)
    yield from _before_after(document)
    yield from _ranking(
        document, "separation", "concept_separation", "separation",
        f"Separation of similar from different concepts; dotted: {USEFUL}, the paper's limit of clinical use",
        line=USEFUL,
    )  # fmt: skip
    yield from _concepts(results)
    for name in [name for name in document["evaluations"] if name.startswith("counterfactual")]:
        title = document["evaluations"][name]["title"]
        yield from _ranking(document, name, name, "accuracy", f"{title}; dotted: chance", line=0.5)
    yield from _heat_map(document)
    yield from _ranking(
        document, "latency", "efficiency", "latency_ms_mean", "Mean latency of one text in milliseconds", lowest=True
    )
    yield from _throughput(document)
    yield from _points(
        document, "memory_parameters", ("efficiency", "parameters"), ("efficiency", "peak_memory_mb"),
        "parameters (millions)", "peak memory (MB)", "Peak memory against parameters.", scale=1e-6,
    )  # fmt: skip
    yield from _points(
        document, "speed_separation", ("efficiency", "texts_per_second_32"), ("concept_separation", "separation"),
        "texts per second, batches of 32", "separation", "Speed against separation of concepts.",
    )  # fmt: skip


def _cells(document: Document, evaluation: str, metric: str) -> dict[str, Cell]:
    """Cells of the models that have the metric."""
    return {
        model: found[evaluation][metric]
        for model, found in document["models"].items()
        if metric in found.get(evaluation, {})
    }


def _is_adapted(document: Document, model: str) -> bool:
    return bool(document["about"].get(model, {}).get("adapted"))


def _ranking(
    document: Document, name: str, evaluation: str, metric: str, what: str,
    *, line: float | None = None, lowest: bool = False,
) -> Iterator[Drawing]:  # fmt: skip
    """Models by one metric, the best on top."""
    cells = _cells(document, evaluation, metric)
    if not cells:
        return
    order = sorted(cells, key=lambda model: (cells[model]["value"] * (1 if lowest else -1), model))
    figure, axis = canvas(8, bars_height(order))
    looks = [AFTER if _is_adapted(document, model) else BEFORE for model in order]
    bars(axis, order, {metric: [cells[model] for model in order]}, {metric: looks}, metric, chance=line)
    caption = f"{what}; 95 % intervals. {_ADAPTED_NOTE}"
    yield Drawing(name, caption, f"Bars. {listing({model: cells[model] for model in order})}.", figure)


def _accuracy_at_k(document: Document) -> Iterator[Drawing]:
    series = {metric: _cells(document, IN_DOMAIN, metric) for metric in ("accuracy@1", "accuracy@5", "accuracy@10")}
    order = sorted(series["accuracy@1"], key=lambda model: (-series["accuracy@1"][model]["value"], model))
    figure, axis = canvas(8, bars_height(order) + 0.2)
    for row, model in enumerate(order):
        values = [cells[model]["value"] for cells in series.values()]
        axis.plot([min(values), max(values)], [row, row], color=GREY, linewidth=1, zorder=1)
    for (metric, cells), colour, marker in zip(series.items(), (BLUE, GREEN, ORANGE), "osD", strict=True):
        values = [cells[model]["value"] for model in order]
        axis.plot(values, range(len(order)), marker, color=colour, label=metric, markersize=6, alpha=0.9)
    axis.set_yticks(range(len(order)), [wrapped(model) for model in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(low, high)
    axis.set_xlabel(f"share of anchors (axis starts at {low:.2f})" if low > 0 else "share of anchors")
    legend_above(axis)
    yield Drawing(
        "accuracy_at_k",
        "Share of anchors whose own paraphrase is the first, or among the first 5 or 10.",
        f"Dot plot. accuracy@1: {listing({model: series['accuracy@1'][model] for model in order})}.",
        figure,
    )


def _similarities(results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    ranks = {model: found[IN_DOMAIN].details.ranks for model, found in results.items() if IN_DOMAIN in found}
    order = sorted(ranks, key=lambda model: (-float(np.median(ranks[model].similarity)), model))
    figure, axis = canvas(8, bars_height(order, 2) + 0.2)
    handles = [
        boxes(axis, [getattr(ranks[model], field) for model in order], np.arange(len(order)) + shift, 0.32, look)
        for field, shift, look in (
            ("similarity", -0.19, _KIND_LOOKS["similar"]),
            ("chance_similarity", 0.19, _KIND_LOOKS["different"]),
        )
    ]
    axis.set_yticks(range(len(order)), [wrapped(model) for model in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlabel("cosine")
    legend_above(axis, handles=handles, labels=["own paraphrase", "other paraphrases (mean)"])
    medians = ", ".join(f"{model} {np.median(ranks[model].similarity):.3f}" for model in order)
    yield Drawing(
        "pair_similarity",
        "Cosine of anchors with their own paraphrase, and their mean cosine with all other paraphrases.",
        f"Box plots. Median with the own paraphrase: {medians}.",
        figure,
    )


def _pairs(document: Document) -> dict[str, str]:
    """Bases by adapted model, for models that are measured both."""
    base_of = document["comparison"]["base_of"]
    return {model: base for model, base in base_of.items() if {model, base} <= set(document["models"])}


def _zero_shot_adapted(document: Document) -> Iterator[Drawing]:
    cells, pairs = _cells(document, IN_DOMAIN, "accuracy@1"), _pairs(document)
    if not pairs:
        return
    order = sorted(pairs, key=lambda model: (-cells[model]["value"], model))
    figure, axis = canvas(8, bars_height(order, 2) + 0.2)
    series = {
        "zero-shot": [cells[pairs[model]] for model in order],
        "adapted": [cells[model] for model in order],
    }
    bars(axis, order, series, {"zero-shot": BEFORE, "adapted": AFTER}, "accuracy@1")
    legend_above(axis)
    said = "; ".join(
        f"{model} {figure_number(cells[pairs[model]]['value'])} to {figure_number(cells[model]['value'])}"
        for model in order
    )
    caption = "Accuracy@1 of each base as it came and after training, with 95 % intervals."
    yield Drawing("zero_shot_adapted", caption, f"Bars. {said}.", figure)


def _waterfall(document: Document) -> Iterator[Drawing]:
    pairs, deltas = _pairs(document), document["comparison"]["deltas"]
    gains = {model: deltas[model][IN_DOMAIN]["accuracy@1"] for model in pairs if IN_DOMAIN in deltas[model]}
    if not gains:
        return
    order = sorted(gains, key=lambda model: (-gains[model]["value"], model))
    figure, axis = canvas(8, bars_height(order) + 0.1)
    for row, model in enumerate(order):
        value, (low, high) = gains[model]["value"], gains[model]["ci95"]
        rises = value >= 0
        axis.barh(row, value, 0.6, color=BLUE if rises else VERMILLION, hatch="" if rises else "xxxx",
                  edgecolor="white", linewidth=0.5)  # fmt: skip
        axis.plot([low, high], [row, row], color="black", linewidth=1.1)
        before = document["models"][pairs[model]][IN_DOMAIN]["accuracy@1"]["value"]
        axis.annotate(
            f"{value:+.3f}  ({before:.3f} to {before + value:.3f})", (1.01, row),
            xycoords=("axes fraction", "data"), va="center", fontsize=8,
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [wrapped(model) for model in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("gain in accuracy@1 over the own base")
    said = ", ".join(f"{model} {gains[model]['value']:+.3f}" for model in order)
    caption = "Gain of every adapted model over its own base, the largest on top, with 95 % intervals."
    yield Drawing("waterfall", caption, f"Bars. {said}.", figure)


def _before_after(document: Document) -> Iterator[Drawing]:
    pairs = _pairs(document)
    shown: dict[str, list[tuple[float, float]]] = {}
    for evaluation in document["evaluations"]:
        for model, base in pairs.items():
            before, after = (document["models"][name].get(evaluation, {}) for name in (base, model))
            metric = main_metric(evaluation, before)
            if evaluation not in NOT_SKILL and metric in after and before[metric]["better"] == "higher":
                shown.setdefault(f"{evaluation}: {metric}", []).append(
                    (before[metric]["value"], after[metric]["value"])
                )
    if not shown:
        return
    figure, axis = canvas(8, 5)
    for number, (name, points) in enumerate(shown.items()):
        x, y = zip(*points, strict=True)
        axis.plot(x, y, MARKERS[number % len(MARKERS)], color=CYCLE[number % len(CYCLE)], label=name, alpha=0.85,
                  markerfacecolor="white" if number >= len(CYCLE) else None)  # fmt: skip
    limits = [min(0, axis.get_xlim()[0], axis.get_ylim()[0]), max(axis.get_xlim()[1], axis.get_ylim()[1])]
    axis.plot(limits, limits, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlim=limits, ylim=limits, aspect="equal", xlabel="base", ylabel="adapted")
    figure.legend(loc="outside right upper")
    better = sum(after > before for points in shown.values() for before, after in points)
    total = sum(map(len, shown.values()))
    yield Drawing(
        "before_after",
        "Main metric of every evaluation before and after training, a point a model. Above the dotted line, training "
        "helped.",
        f"Scatter plot. {better} of {total} points lie above the line of no change.",
        figure,
    )


def _concepts(results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    cosines = {m: found["concept_separation"].details for m, found in results.items() if "concept_separation" in found}
    if not cosines:
        return
    gaps = {model: float(own["similar"].mean() - own["different"].mean()) for model, own in cosines.items()}
    order = sorted(cosines, key=lambda model: (-gaps[model], model))
    figure, axis = canvas(8, bars_height(order, 3) + 0.2)
    handles = [
        boxes(axis, [cosines[model][kind] for model in order], np.arange(len(order)) + (number - 1) * 0.27, 0.22,
              _KIND_LOOKS[kind])
        for number, kind in enumerate(KINDS)
    ]  # fmt: skip
    axis.set_yticks(range(len(order)), [wrapped(model) for model in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlabel("cosine")
    legend_above(axis, handles=handles, labels=list(KINDS))
    yield Drawing(
        "concept_similarity",
        "Cosine of concept pairs by kind: median, quartiles, whiskers to 1.5 times their distance. Models with the "
        "largest separation on top.",
        "Box plots. Separation: " + ", ".join(f"{model} {gaps[model]:.3f}" for model in order) + ".",
        figure,
    )


def _heat_map(document: Document) -> Iterator[Drawing]:
    columns = {}
    for evaluation in document["evaluations"]:
        metrics = next((found[evaluation] for found in document["models"].values() if evaluation in found), {})
        metric = main_metric(evaluation, metrics)
        if metric and evaluation not in NOT_SKILL and metrics[metric]["better"]:
            columns[f"{evaluation}: {metric}"] = _cells(document, evaluation, metric)
    models = list(document["models"])
    if len(columns) < 2 or len(models) < 2:
        return
    shade = np.array([[_share(cells, model) for cells in columns.values()] for model in models])
    lines = max(1 + wrapped(model).count("\n") for model in models)
    figure, axis = canvas(max(8, 3 + 0.75 * len(columns)), 2.2 + 0.28 * len(models) * max(1.15, lines * 0.9))
    axis.imshow(np.ma.masked_invalid(shade), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, model in enumerate(models):
        for column, cells in enumerate(columns.values()):
            said = f"{cells[model]['value']:.3f}" if model in cells else "-"
            dark = not np.isnan(shade[row, column]) and shade[row, column] < 0.48
            axis.text(column, row, said, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axis.set_xticks(range(len(columns)), [wrapped(name) for name in columns], rotation=40, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axis.set_yticks(range(len(models)), [wrapped(model) for model in models])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    yield Drawing(
        "heat_map",
        "Main metric of every evaluation. In each column, yellow is the best model and dark blue the worst.",
        "Heat map of the numbers in the table of all models.",
        figure,
    )


def _share(cells: Mapping[str, Cell], model: str) -> float:
    """Where a model stands between the worst (0) and the best (1)."""
    if model not in cells:
        return float("nan")
    values = [cell["value"] for cell in cells.values()]
    low, high = min(values), max(values)
    share = (cells[model]["value"] - low) / (high - low) if high > low else 0.5
    return share if cells[model]["better"] == "higher" else 1 - share


def _throughput(document: Document) -> Iterator[Drawing]:
    series = {
        model: [found["efficiency"][f"texts_per_second_{batch}"]["value"] for batch in _BATCHES]
        for model, found in document["models"].items()
        if "efficiency" in found
    }
    if not series:
        return
    figure, axis = canvas(8, max(4.2, 1.2 + 0.2 * len(series)))
    for number, (model, values) in enumerate(series.items()):
        axis.plot(
            range(len(_BATCHES)),
            values,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            color=CYCLE[number % len(CYCLE)],
            linestyle="-" if _is_adapted(document, model) else "--",
        )
    log_scale(axis.yaxis)
    axis.set_xticks(range(len(_BATCHES)), map(str, _BATCHES))
    axis.set(xlabel="texts in a batch", ylabel="texts per second (logarithmic)")
    axis.set_xlim(-0.2, len(_BATCHES) - 0.9)
    colours = {model: CYCLE[number % len(CYCLE)] for number, model in enumerate(series)}
    name_points(axis, {model: (len(_BATCHES) - 1, values[-1]) for model, values in series.items()}, colours)
    yield Drawing(
        "throughput",
        "Texts encoded in a second by batch size. Solid: adapted models; dashed: bases.",
        "Lines. In batches of 32: " + ", ".join(f"{m} {figure_number(v[-1])}" for m, v in series.items()) + ".",
        figure,
    )


def _points(
    document: Document, name: str, across: tuple[str, str], up: tuple[str, str], x_label: str, y_label: str,
    caption: str, *, scale: float = 1.0,
) -> Iterator[Drawing]:  # fmt: skip
    """One measure against another, a named point a model."""
    x, y = _cells(document, *across), _cells(document, *up)
    points = {model: (x[model]["value"] * scale, y[model]["value"]) for model in x if model in y}
    if len(points) < 2:
        return
    figure, axis = canvas(8, max(4.2, 1.2 + 0.2 * len(points)))
    for model, point in points.items():
        look = (BLUE, "o") if _is_adapted(document, model) else (GREY, "s")
        axis.plot(*point, look[1], color=look[0], markeredgecolor="black", markeredgewidth=0.6, markersize=7)
    axis.margins(0.08)
    for along, values, label, source in (
        (axis.xaxis, [point[0] for point in points.values()], x_label, across[0]),
        (axis.yaxis, [point[1] for point in points.values()], y_label, up[0]),
    ):
        _point_axis(along, values, label, from_zero=source == "efficiency")
    name_points(axis, points)
    said = "; ".join(f"{m} {figure_number(a)} and {figure_number(b)}" for m, (a, b) in points.items())
    caption = f"{caption} Blue circles: adapted models; grey squares: bases."
    yield Drawing(name, caption, f"Scatter plot of {x_label} and {y_label}. {said}.", figure)


def _point_axis(axis: Axis, values: list[float], label: str, *, from_zero: bool) -> None:
    """Limits and label; the label says if the axis is logarithmic or does not start at 0."""
    name = axis.axis_name
    if min(values) > 0 and max(values) > _LOGARITHMIC * min(values):
        log_scale(axis)
        label = f"{label}, logarithmic"
    elif from_zero:
        axis.axes.set(**{f"{name}lim": (0, max(values) * 1.08)})
    elif (low := axis.get_view_interval()[0]) > 0:
        label = f"{label} (axis starts at {figure_number(low)})"
    axis.axes.set(**{f"{name}lim": axis.get_view_interval()})
    axis.set_label_text(label)
