"""The report's figures, as PNG bytes, from results of this run only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from cardioembed.evaluation.sets import KINDS
from cardioembed.evaluation.similarity import USEFUL
from cardioembed.evaluation.statistics import Estimate
from cardioembed.evaluation.suite import Result

# Okabe-Ito colours, told apart by colour-blind readers; hatching tells them apart in black and white.
COLOURS = {"base": "#999999", "adapted": "#0072B2"}
HATCHES = {"base": "//", "adapted": ""}


def all_figures(results: dict[str, Result]) -> dict[str, tuple[str, bytes]]:
    """Every figure that the results allow: ``{file name: (caption, PNG)}``."""
    figures = {
        "retrieval.png": ("Paraphrase retrieval on the test split, with 95 % intervals.", _retrieval(results)),
        "pair_similarity.png": (
            "Cosine of anchors with their own paraphrase, and their mean cosine with all other paraphrases.",
            _pair_similarity(results),
        ),
    }
    if all(result.concept_cosines for result in results.values()):
        figures["concept_similarity.png"] = ("Cosine of concept pairs by kind.", _concepts(results))
        figures["separation.png"] = (
            f"Separation and negation gap with 95 % intervals; the dotted line is {USEFUL}, the comparison paper's "
            "limit of clinical use.",
            _separation(results),
        )
    return figures


def _retrieval(results: dict[str, Result]) -> bytes:
    metrics = ("accuracy@1", "accuracy@5", "accuracy@10", "mrr")
    with _figure(8, 4) as (axis, png):
        chosen = {model: [r.estimates["paraphrase_retrieval"][m] for m in metrics] for model, r in results.items()}
        _bars(axis, chosen, metrics)
        values = [e.value for estimates in chosen.values() for e in estimates]
        # Accuracies are near 1: the axis starts just below the lowest interval, and says so.
        lowest = min(np.quantile(e.resamples, 0.025) for estimates in chosen.values() for e in estimates)
        bottom = max(0.0, np.floor((lowest - 0.02) * 20) / 20)
        axis.set_ylim(bottom, 1 + (1 - bottom) * 0.12 if min(values) > 0.5 else 1.05)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.set_ylabel("score" + ("" if bottom == 0 else f" (axis starts at {bottom:.0%})"))
        axis.legend(frameon=False, ncols=2, loc="upper left")
    return png.getvalue()


def _pair_similarity(results: dict[str, Result]) -> bytes:
    with _figure(8, 3.6, columns=len(results)) as (axes, png):
        bins = np.linspace(-0.2, 1, 49)
        for axis, (model, result) in zip(axes, results.items(), strict=True):
            axis.hist(
                result.ranks.chance_similarity, bins, color="#E69F00", alpha=0.75, label="other paraphrases (mean)"
            )
            axis.hist(result.ranks.similarity, bins, color=COLOURS[model], alpha=0.85, label="own paraphrase")
            axis.set_title(model)
            axis.set_xlabel("cosine")
            axis.legend(frameon=False)
        axes[0].set_ylabel("pairs")
    return png.getvalue()


def _concepts(results: dict[str, Result]) -> bytes:
    with _figure(8, 4) as (axis, png):
        width = 0.8 / len(results)
        for number, (model, result) in enumerate(results.items()):
            at = np.arange(len(KINDS)) + (number - (len(results) - 1) / 2) * width
            boxes = axis.boxplot(
                [result.concept_cosines[kind] for kind in KINDS],
                positions=at,
                widths=width * 0.85,
                patch_artist=True,
                medianprops={"color": "black"},
                flierprops={"markersize": 3},
                label=model,
            )
            for box in boxes["boxes"]:
                box.set(facecolor=COLOURS[model], hatch=HATCHES[model], alpha=0.8)
        axis.set_xticks(np.arange(len(KINDS)), KINDS)
        axis.set_ylabel("cosine")
        axis.legend(frameon=False)
    return png.getvalue()


def _separation(results: dict[str, Result]) -> bytes:
    metrics = ("separation", "negation_gap")
    with _figure(8, 3.6) as (axis, png):
        _bars(axis, {m: [r.estimates["concept_separation"][x] for x in metrics] for m, r in results.items()}, metrics)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axhline(USEFUL, color="black", linestyle=":", linewidth=1)
        axis.set_xticks(range(2), ["separation\n(similar - different)", "negation gap\n(similar - negated)"])
        axis.set_ylabel("difference of mean cosines")
        axis.margins(y=0.15)
        axis.legend(frameon=False)
    return png.getvalue()


def _bars(axis: Axes, series: dict[str, list[Estimate]], names: tuple[str, ...]) -> None:
    width = 0.8 / len(series)
    for number, (model, estimates) in enumerate(series.items()):
        at = np.arange(len(names)) + (number - (len(series) - 1) / 2) * width
        values = np.array([estimate.value for estimate in estimates])
        limits = np.array([np.quantile(estimate.resamples, [0.025, 0.975]) for estimate in estimates])
        error = np.abs(limits.T - values)
        axis.bar(
            at, values, width * 0.92, yerr=error, capsize=4, label=model,
            color=COLOURS[model], hatch=HATCHES[model], edgecolor="white", error_kw={"linewidth": 1.2},
        )  # fmt: skip
        for x, value, (low, high) in zip(at, values, limits, strict=True):
            edge, above = (high, True) if value >= 0 else (low, False)
            axis.annotate(
                f"{value:.3f}", (x, edge), xytext=(0, 4 if above else -4), textcoords="offset points",
                ha="center", va="bottom" if above else "top", fontsize=8,
            )  # fmt: skip
    axis.set_xticks(range(len(names)), names)


@contextmanager
def _figure(width: float, height: float, columns: int = 1) -> Iterator[tuple]:
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", sharey=True)
    png = BytesIO()
    yield axes, png
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
        axis.set_axisbelow(True)
    figure.savefig(png, format="png", dpi=120)
    plt.close(figure)
