"""The report's figures, drawn from one run's numbers only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from cardioembed.evaluation.document import IN_DOMAIN
from cardioembed.evaluation.figures.compare import comparison_figures
from cardioembed.evaluation.figures.pair import pair_figures
from cardioembed.evaluation.figures.style import BLUE, Drawing, bars_height, canvas, style, wrapped
from cardioembed.evaluation.tasks.base import Measured

_MOST_BOOKS = 20


def all_figures(document: dict[str, Any], results: dict[str, dict[str, Measured]]) -> list[Drawing]:
    """Every figure that a document of base and adapted, or of a comparison, allows."""
    draw = pair_figures if "delta" in document else comparison_figures
    with style():
        return [*draw(document, results), *_composition(results)]


def _composition(results: dict[str, dict[str, Measured]]) -> Iterator[Drawing]:
    rows = next(iter(results.values()))[IN_DOMAIN].details.rows
    books = Counter(row["source"] for row in rows if row.get("source"))
    if not books:
        return
    shown = dict(sorted(books.items(), key=lambda book: (-book[1], book[0])))
    if len(shown) > _MOST_BOOKS:
        kept = dict(list(shown.items())[: _MOST_BOOKS - 1])
        rest = len(shown) - len(kept)
        shown = {**kept, f"{rest} other books": sum(shown.values()) - sum(kept.values())}
    figure, axis = canvas(8, bars_height(list(shown)))
    drawn = axis.barh(range(len(shown)), list(shown.values()), 0.7, color=BLUE)
    axis.bar_label(drawn, [f"{count:,}" for count in shown.values()], padding=4, fontsize=8)
    axis.set_yticks(range(len(shown)), [wrapped(book) for book in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.margins(x=0.1)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("test pairs")
    counts = ", ".join(f"{book} {count:,}" for book, count in shown.items())
    yield Drawing("corpus_composition", "Test pairs by book.", f"Bars. {counts}.", figure)


__all__ = ["Drawing", "all_figures"]
