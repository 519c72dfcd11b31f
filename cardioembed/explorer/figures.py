"""Plotly figures, drawn by WebGL. Colours are Okabe and Ito's; each has a symbol too, for colour-blind readers."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from cardioembed.records import Row

# Readable on white and on black, so Okabe and Ito's black is a grey here and their yellow comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#D9C91E")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open", "diamond-open")
GREY, BLUE, ORANGE = "#8C8C8C", COLOURS[0], COLOURS[1]
OTHER = "(others)"
_MOST_LABELS = 24
_HOVER_WIDTH, _HOVER_CHARACTERS, _HOVER_CHARACTERS_OF_MANY, _MANY = 56, 320, 112, 10_000
_MARGIN = {"l": 8, "r": 8, "t": 28, "b": 8}


@dataclass(frozen=True)
class Scatter:
    """A scatter of texts.

    Attributes:
        figure: The figure.
        places: For each trace the texts whose points it has; shorter than the traces, for marks come last.
        size: Of a point, in pixels.
    """

    figure: go.Figure
    places: list[np.ndarray]
    size: int

    def place(self, curve: int, point: int) -> int | None:
        """The text of a point of a trace; None for a mark."""
        if curve >= len(self.places) or point >= len(self.places[curve]):
            return None
        return int(self.places[curve][point])


@dataclass(frozen=True)
class Mark:
    """Points that stand out.

    Attributes:
        name: In the legend.
        points: Shape (n, dims).
        texts: For the hover.
        symbol: Of Plotly.
        colour: CSS; None for the colour of the page's text.
    """

    name: str
    points: np.ndarray
    texts: list[str]
    symbol: str
    colour: str


def scatter(
    points: np.ndarray,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    axis_names: Sequence[str] = (),
    ranges: Sequence[tuple[float, float]] | None = None,
    height: int = 560,
) -> Scatter:
    """Texts as points with a colour and a symbol a label.

    Args:
        points: Shape (n, 2) or (n, 3).
        texts: Shown on hover.
        labels: One a text; the rarest beyond 24 are shown as others.
        axis_names: Of each axis.
        ranges: Of each axis; None fits them.
        height: In pixels.
    """
    hover = np.array(hover_texts(texts, labels), object)
    size = 9 if len(texts) <= 300 else 7 if len(texts) <= 3_000 else 5 if len(texts) <= _MANY else 3
    shown = _rare_as_others(labels)
    named = np.array(shown, object)
    figure, places = go.Figure(), []
    for number, label in enumerate(ordered_labels(shown)):
        chosen = np.flatnonzero(named == label)
        places.append(chosen)
        marker = {**look(number), "size": size if points.shape[1] == 2 else max(3, size - 3)}
        figure.add_trace(_trace(points[chosen], hover[chosen], label, marker, 0.75 if len(texts) <= _MANY else 0.5))
    _lay_out(figure, points.shape[1], axis_names, ranges, height)
    return Scatter(figure, places, size)


def with_marks(drawn: Scatter, marks: Sequence[Mark]) -> Scatter:
    """The scatter with marks above its points; the given one stays as it is."""
    if not marks:
        return drawn
    figure = go.Figure(drawn.figure)
    for mark in marks:
        marker = {"color": mark.colour, "symbol": mark.symbol, "size": drawn.size + 7, "line": {"width": 2}}
        figure.add_trace(_trace(mark.points, hover_texts(mark.texts), mark.name, marker, 1.0))
    return replace(drawn, figure=figure.update_layout(showlegend=True))


def _trace(points: np.ndarray, hover: Sequence[str], name: str, marker: dict[str, Any], opacity: float) -> Any:
    common = {
        "mode": "markers",
        "name": html.escape(name),
        "marker": marker,
        "opacity": opacity,
        "hovertext": list(hover),
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    if points.shape[1] == 3:
        return go.Scatter3d(x=points[:, 0], y=points[:, 1], z=points[:, 2], **common)
    return go.Scattergl(x=points[:, 0], y=points[:, 1], **common)


def _lay_out(
    figure: go.Figure,
    dims: int,
    names: Sequence[str],
    ranges: Sequence[tuple[float, float]] | None,
    height: int,
) -> None:
    names = [*names, *[""] * (dims - len(names))]
    axes = [
        {"title": {"text": name}, "showticklabels": False, "zeroline": False, "range": ranges[i] if ranges else None}
        for i, name in enumerate(names)
    ]
    if dims == 3:
        figure.update_layout(scene=dict(zip(("xaxis", "yaxis", "zaxis"), axes, strict=True)))
    else:
        figure.update_layout(xaxis=axes[0], yaxis=axes[1])
    figure.update_layout(
        height=height,
        margin=_MARGIN,
        showlegend=len(figure.data) > 1,
        legend={"orientation": "h", "yanchor": "top", "y": -0.08, "x": 0, "itemsizing": "constant"},
    )


def look(number: int) -> dict[str, str]:
    """Colour and symbol of the label of a number; no two of the first 64 are the same."""
    round_, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "symbol": SYMBOLS[(place + round_) % len(SYMBOLS)]}


def ordered_labels(labels: Sequence[str]) -> list[str]:
    """Each label once, by name, the others last, so that one label has one colour in every figure."""
    return sorted(set(labels), key=lambda label: (label == OTHER, label))


def _rare_as_others(labels: Sequence[str]) -> list[str]:
    counts = Counter(labels)
    if len(counts) <= _MOST_LABELS:
        return list(labels)
    kept = {label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: _MOST_LABELS - 1]}
    return [label if label in kept else OTHER for label in labels]


def hover_texts(texts: Sequence[str], labels: Sequence[str] | None = None) -> list[str]:
    """Texts in lines of about 56 characters, cut where they are long or many; markup is shown, not obeyed."""
    most = _HOVER_CHARACTERS if len(texts) <= _MANY else _HOVER_CHARACTERS_OF_MANY
    lines = [
        "<br>".join(html.escape(line) for line in textwrap.wrap(shortened(text, most), _HOVER_WIDTH)) for text in texts
    ]
    if labels is None:
        return lines
    return [f"{line}<br><i>{html.escape(label)}</i>" for line, label in zip(lines, labels, strict=True)]


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def with_arrows(drawn: Scatter, tails: np.ndarray, heads: np.ndarray) -> Scatter:
    """The scatter with lines from where texts were to where they are, each of shape (n, 2)."""
    gaps = np.full(len(tails), np.nan, np.float32)
    x, y = (np.stack([tails[:, i], heads[:, i], gaps], axis=1).ravel() for i in (0, 1))
    line = {"color": ORANGE, "width": 1.5}
    figure = go.Figure(drawn.figure)
    figure.add_trace(go.Scattergl(x=x, y=y, mode="lines", line=line, name="moved from", hoverinfo="skip"))
    return replace(drawn, figure=figure.update_layout(showlegend=True))


def shared_ranges(*points: np.ndarray) -> list[tuple[float, float]]:
    """Ranges of the axes that show all points with a margin."""
    stacked = np.concatenate(points)
    low, high = stacked.min(axis=0), stacked.max(axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    return [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]


def gains(changes: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Differences of the adapted model from the base with their 95 % intervals, a row a metric.

    Args:
        changes: ``delta`` cells of ``metrics.json`` by name, with ``verdict``: better, worse or nothing.
    """
    looks = {"better": (BLUE, "circle"), "worse": (ORANGE, "x"), "": (GREY, "circle-open")}
    words = {"better": "clearly better", "worse": "clearly worse", "": "no clear change"}
    figure = go.Figure()
    for kind, (colour, symbol) in looks.items():
        rows = {name: change for name, change in changes.items() if change["verdict"] == kind}
        if not rows:
            continue
        values = np.array([change["value"] for change in rows.values()])
        low, high = np.array([change["ci95"] for change in rows.values()], float).T
        error = {"type": "data", "symmetric": False, "array": high - values, "arrayminus": values - low, "width": 6}
        marker = {"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}}
        figure.add_trace(
            go.Scatter(
                x=values, y=[wrapped(name) for name in rows], error_x=error, mode="markers", name=words[kind],
                marker=marker, hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
            )
        )  # fmt: skip
    names = [wrapped(name) for name in changes]
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    figure.update_xaxes(title_text="adapted − base")
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
    figure.update_layout(height=150 + 48 * len(names), margin=_MARGIN, legend=legend, showlegend=True)
    return figure


def wrapped(name: str) -> str:
    """An ``evaluation: metric`` in two lines."""
    return "<br>".join(html.escape(part) for part in name.split(": ", 1))


def curve(rows: Sequence[Row], values: Mapping[str, str], y_title: str) -> go.Figure | None:
    """Values of a training log by step; None where the log has none of them.

    Args:
        rows: Of ``03_training_log.jsonl``.
        values: Name in the legend by key.
        y_title: Of the vertical axis.
    """
    figure = go.Figure()
    for number, (key, name) in enumerate(values.items()):
        found = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
        if found:
            mode = "lines" if len(found) > 30 else "lines+markers"
            steps, heights = zip(*found, strict=True)
            marker = look(number * len(COLOURS) + number)
            line = {"color": COLOURS[number], "dash": ("solid", "dash", "dot")[number % 3]}
            figure.add_trace(go.Scatter(x=steps, y=heights, mode=mode, name=name, marker=marker, line=line))
    if not figure.data:
        return None
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
    figure.update_layout(
        height=300, margin=_MARGIN, showlegend=len(values) > 1, legend=legend,
        xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": y_title}, "automargin": True},
    )  # fmt: skip
    return figure


def counts(numbers: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """Stacked bars: for each name the numbers of its parts.

    Args:
        numbers: ``{"train": {"cardiac_imaging": 329, ...}, ...}``.
    """
    parts = sorted({part for found in numbers.values() for part in found})
    figure = go.Figure()
    for number, part in enumerate(parts):
        round_, place = divmod(number, len(COLOURS))
        marker = {"color": COLOURS[place], "pattern": {"shape": ("", "/", "x", ".")[(place + round_) % 4]}}
        amounts = [found.get(part, 0) for found in numbers.values()]
        figure.add_trace(go.Bar(y=list(numbers), x=amounts, name=html.escape(part), orientation="h", marker=marker))
    legend = {"orientation": "h", "yanchor": "top", "y": -0.25, "x": 0}
    figure.update_layout(barmode="stack", height=340, margin=_MARGIN, legend=legend, showlegend=True)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title_text="pairs")
    return figure
