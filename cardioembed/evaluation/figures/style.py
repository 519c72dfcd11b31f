"""What all figures share: colours, axes, horizontal bars with intervals, labels that never overlap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe-Ito colours, told apart by colour-blind readers; hatching tells bars apart in black and white.
GREY, BLUE, ORANGE, VERMILLION, GREEN = "#999999", "#0072B2", "#E69F00", "#D55E00", "#009E73"
CYCLE = (BLUE, VERMILLION, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000")
MARKERS = "osD^vPX"
BEFORE, AFTER = {"color": GREY, "hatch": "////"}, {"color": BLUE, "hatch": ""}

_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "cardioembed",  # ids in SVG are random without it
}
_LABEL_WIDTH = 30  # characters of a line of a model's name

Cell = Mapping[str, Any]  # {"value", "ci95", ...} of metrics.json


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes:
        name: File name without ending.
        caption: What it shows and how to read it.
        alt: What it says, for those who do not see it.
        figure: The figure.
    """

    name: str
    caption: str
    alt: str
    figure: Figure

    def render(self, kind: Literal["png", "svg"]) -> bytes:
        """The file's bytes; the same figure always gives the same bytes."""
        stream = BytesIO()
        with style():
            self.figure.savefig(
                stream, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None}
            )
        return stream.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Drawing and rendering happen within it."""
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, Any]:
    """A figure and its axes, laid out so that labels keep their room."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **shared)


def wrapped(name: str) -> str:
    """A long name on several lines."""
    return "\n".join(textwrap.wrap(name, _LABEL_WIDTH)) or name


def bars_height(names: Sequence[str], series: int = 1) -> float:
    """Inches that horizontal bars with these names need."""
    lines = max(series * 0.95, max(1 + wrapped(name).count("\n") for name in names))
    return 1.0 + 0.27 * len(names) * max(lines, 1.15)


def bars(
    axis: Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[Cell | None]],
    looks: Mapping[str, Mapping[str, str] | Sequence[Mapping[str, str]]],
    label: str,
    *,
    chance: float | None = None,
) -> None:
    """Horizontal bars with 95 % intervals and their values, from the top down.

    Args:
        axis: Where.
        names: A group of bars each.
        series: Cells by series, one for each name; None leaves a gap.
        looks: Colour and hatch by series, or of each bar.
        label: Of the value axis; it says if the axis does not start at 0.
        chance: Where to draw the dotted line of no skill.
    """
    height = 0.8 / len(series)
    cells = [cell for own in series.values() for cell in own if cell is not None]
    start = _start(cells, chance)
    for number, (name, own) in enumerate(series.items()):
        look = looks[name]
        for row, cell in enumerate(own):
            if cell is not None:
                at = row + (number - (len(series) - 1) / 2) * height
                style = look if isinstance(look, Mapping) else look[row]
                _bar(axis, at, cell, height * 0.92, start, style, name if cell is _first(own) else None)
    axis.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    _value_axis(axis, cells, start, label)
    if chance is not None:
        axis.axvline(chance, color="black", linestyle=":", linewidth=1)


def _first(cells: Sequence[Cell | None]) -> Cell | None:
    return next((cell for cell in cells if cell is not None), None)


def _bar(axis: Axes, at: float, cell: Cell, height: float, start: float, look: Mapping[str, str], label: str | None):
    value, (low, high) = cell["value"], cell["ci95"]
    axis.barh(at, value - start, height, left=start, label=label, edgecolor="white", linewidth=0.5, **look)
    axis.plot([low, high], [at, at], color="black", linewidth=1.1, solid_capstyle="butt")
    positive = value >= 0
    axis.annotate(
        figure_number(value), (max(high, value) if positive else min(low, value), at),
        xytext=(4 if positive else -4, 0), textcoords="offset points",
        ha="left" if positive else "right", va="center", fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85},
    )  # fmt: skip


def _start(cells: Sequence[Cell], chance: float | None) -> float:
    """0, or just below the lowest interval when all are so high that their differences would not be seen from 0."""
    lowest = min(min(cell["ci95"][0], cell["value"]) for cell in cells)
    lowest = lowest if chance is None else min(lowest, chance)
    highest = max(cell["value"] for cell in cells)
    return float(np.floor((lowest - 0.02) * 20) / 20) if lowest > 0.5 and highest <= 1 else 0.0


def _value_axis(axis: Axes, cells: Sequence[Cell], start: float, label: str) -> None:
    low = min(0.0, *(min(cell["ci95"][0], cell["value"]) for cell in cells))
    high = max(0.0, *(max(cell["ci95"][1], cell["value"]) for cell in cells))
    room = (high - min(low, start) if start == 0 else high - start) or 1.0
    axis.set_xlim(start if start else low - (0.13 * room if low < 0 else 0), high + 0.13 * room)
    if low < 0:
        axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel(f"{label} (axis starts at {start:.2f})" if start else label)


def figure_number(value: float) -> str:
    """A value as short as a figure wants it."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def log_scale(axis: Axis) -> None:
    """A logarithmic axis with numbers that are read without powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axis: Axes, **how: Any) -> None:
    """A legend above the axes, where no bar can lie under it."""
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3, **how)


def name_points(
    axis: Axes, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str] | None = None
) -> None:
    """Names at the right of the axes, each joined to its point by a line: however close points lie, names do not meet.

    Args:
        axis: With its limits set.
        points: Data coordinates by name.
        colours: Of the names.
    """
    to_axes = axis.transData + axis.transAxes.inverted()
    heights = {name: float(to_axes.transform(point)[1]) for name, point in points.items()}
    order = sorted(heights, key=lambda name: (heights[name], name))
    lines = sum(1 + wrapped(name).count("\n") for name in order)
    inches = axis.figure.get_size_inches()[1] - 0.9
    spread = spread_out([heights[name] for name in order], min(1 / max(lines, 1), 0.17 / inches * lines / len(order)))
    for name, height in zip(order, spread, strict=True):
        axis.annotate(
            wrapped(name), points[name], xytext=(1.03, height), textcoords="axes fraction", va="center", fontsize=8,
            color=(colours or {}).get(name, "black"), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in ascending order moved apart to at least the gap, within 0 to 1 where there is room."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    limit = 1.0
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], limit)
        limit = placed[number] - gap
    return placed


def boxes(axis: Axes, values: Sequence[np.ndarray], at: Sequence[float], width: float, look: Mapping[str, str]) -> Any:
    """Horizontal box plots in one look."""
    drawn = axis.boxplot(
        values, positions=at, widths=width, orientation="horizontal", patch_artist=True, manage_ticks=False,
        medianprops={"color": "black", "linewidth": 1.2}, flierprops={"markersize": 2.5, "alpha": 0.6},
    )  # fmt: skip
    for box in drawn["boxes"]:
        box.set(facecolor=look["color"], hatch=look["hatch"], edgecolor="black", linewidth=0.7)
    return drawn["boxes"][0]


def listing(cells: Mapping[str, Cell]) -> str:
    """Values in words, for the text that stands for a figure."""
    return ", ".join(f"{name} {figure_number(cell['value'])}" for name, cell in cells.items())
