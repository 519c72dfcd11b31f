"""What the pages share: the chosen texts, their vectors, tables of neighbours, maps by method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import streamlit as st

from cardioembed.explorer import markup
from cardioembed.explorer.data import DEFAULT_LIMIT, LIMITS, SEED, Texts, choices, load_texts
from cardioembed.explorer.figures import Scatter, scatter, shortened
from cardioembed.explorer.neighbours import Neighbour, compare_neighbours, nearest
from cardioembed.explorer.options import Options
from cardioembed.explorer.vectors import Models, Vectors, load_vectors
from cardioembed.records import text_id

NEIGHBOURS = 10
_MOST_LISTED = 2_000  # texts in a list to choose from; more would make the page slow
_PLOT = {"scrollZoom": True, "displaylogo": False}
Found = TypeVar("Found")


def remembered(name: str, *values: object) -> str:
    """Key of a widget whose value outlives a visit to another page."""
    key = "-".join(["explorer", name, *map(str, values)])
    if key in st.session_state:
        st.session_state[key] = st.session_state[key]
    return key


def choose_texts(options: Options) -> tuple[Texts, Vectors]:
    """Asks which texts to show, and gives them with their vectors.

    Raises:
        UserError: See ``load_texts`` and ``load_vectors``.
    """
    offered = choices(options.run_dir, options.texts)
    with st.expander("Texts"):
        left, right = st.columns(2)
        choice = left.selectbox("Show", offered, key=remembered("texts"))
        held = remembered("limit")
        st.session_state.setdefault(held, DEFAULT_LIMIT)
        limit = right.selectbox("At most", LIMITS, key=held, format_func="{:,}".format)
    texts = _texts(choice, options.run_dir, options.texts, limit, _changed(options, choice))
    vectors = _vectors(options, texts)
    drawn = f", drawn from {texts.available:,} with seed {SEED}" if texts.available > len(texts) else ""
    st.caption(f"{len(texts):,} texts: {choice}{drawn}")
    return texts, vectors


def _changed(options: Options, choice: str) -> float:
    """When the files of texts were changed, so that a page shows what a re-run stage wrote."""
    files = [options.run_dir / name for name in ("01_sentences.jsonl", "02_training_test.jsonl")]
    return max((path.stat().st_mtime for path in [*files, options.texts] if path and path.is_file()), default=0.0)


def _model_changed(options: Options) -> float:
    card = options.run_dir / "03_model" / "cardioembed.json"
    return card.stat().st_mtime if card.is_file() else 0.0


# Resources are shared between visits without a copy, which pickling would make of every array.
@st.cache_resource(max_entries=4, show_spinner=False)
def _texts(choice: str, run_dir: Path, own: Path | None, limit: int, changed: float) -> Texts:
    return load_texts(choice, run_dir, own, limit)


@st.cache_resource(max_entries=1, show_spinner=False)
def _loaded(run_dir: Path, changed: float) -> dict[str, Vectors]:
    return {}


def _vectors(options: Options, texts: Texts) -> Vectors:
    # Not a cached function of Streamlit, which may not draw: the bar of progress would break its replay.
    changed = _model_changed(options)
    loaded = _loaded(options.run_dir, changed)
    found = loaded.get(texts.digest)
    if found is None:
        found = with_progress(
            "Encoding the texts with the base and the adapted model (kept for next time)",
            lambda told: load_vectors(models(options.run_dir, changed), options.run_dir, texts, options.cache, told),
        )
        if len(loaded) > 1:
            loaded.clear()
        loaded[texts.digest] = found
    return found


@st.cache_resource(max_entries=1, show_spinner=False)
def models(run_dir: Path, changed: float) -> Models:
    """The run's models, shared by all visits."""
    return Models(run_dir)


def encode_query(options: Options, query: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a query before and after, each of shape (1, dimension)."""
    return _query(options.run_dir, query, _model_changed(options))


@st.cache_resource(max_entries=64, show_spinner="Encoding the query")
def _query(run_dir: Path, query: str, changed: float) -> tuple[np.ndarray, np.ndarray]:
    found = models(run_dir, changed).encode([query], query=True)
    return found["before"], found["after"]


def with_progress(label: str, work: Callable[[Callable[[float], None]], Found]) -> Found:
    """Runs work that tells its progress; the bar shows only once something is told."""
    bar = st.empty()
    try:
        return work(lambda share: bar.progress(share, text=label) and None)
    finally:
        bar.empty()


def _identity(texts: Texts) -> tuple[str, ...]:
    return texts.digest, *(text_id(name, *values) for name, values in texts.columns.items())


# Wrapping the hover of 50,000 texts takes seconds, and every click runs a page anew.
@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs={Texts: _identity})
def scatter_of(
    points: np.ndarray,
    texts: Texts,
    colour: str,
    axis_names: tuple[str, ...] = (),
    ranges: tuple[tuple[float, float], ...] | None = None,
    height: int = 560,
) -> Scatter:
    """``figures.scatter`` of texts by one of their columns, made once."""
    return scatter(points, texts.texts, texts.columns[colour], axis_names=axis_names, ranges=ranges, height=height)


def show_scatter(found: Scatter, key: str, alt: str, *, chosen_key: str) -> None:
    """Draws a scatter; a click on a point puts its text's place into ``st.session_state[chosen_key]``."""

    def noted() -> None:
        points = st.session_state[key].selection.points
        place = found.place(points[0]["curve_number"], points[0]["point_number"]) if points else None
        if place is not None:
            st.session_state[chosen_key] = place

    st.plotly_chart(
        found.figure, key=key, alt=alt, on_select=noted, selection_mode="points", config=_PLOT, width="stretch"
    )


def choose_text(texts: Texts, offered: list[int], key: str) -> int | None:
    """A list to open a text from, which keys reach too; a click on the map sets it.

    Args:
        texts: All.
        offered: Places to offer.
        key: Where the chosen place is held.
    """
    chosen = st.session_state.get(key)
    offered = list(dict.fromkeys(offered))
    listed = offered[:_MOST_LISTED]
    rest = f" (the first {len(listed):,} of {len(offered):,})" if len(offered) > len(listed) else ""
    if chosen is not None and chosen not in listed:
        listed = [chosen, *listed]
    return st.selectbox(
        f"Open a text: click its point, or choose or type here{rest}",
        listed,
        index=None,
        key=key,
        # Streamlit finds a choice by its label, so equal beginnings need a number to differ.
        format_func=lambda place: f"{place + 1}. {shortened(texts.texts[place], 110)}",
        placeholder="No text is open",
    )


def neighbours_of(texts: Texts, vectors: Vectors, place: int) -> tuple[list[Neighbour], list[Neighbour]]:
    """Nearest neighbours of a text before and after."""
    own = np.array([place])
    before, after = (
        nearest(side, side[place : place + 1], NEIGHBOURS, own) for side in (vectors.before, vectors.after)
    )
    return compare_neighbours(*((places[0], cosines[0]) for places, cosines in (before, after)))


def show_text(texts: Texts, vectors: Vectors, place: int) -> None:
    """A text with its nearest neighbours before and after, side by side."""
    note = " · ".join(f"{name}: {values[place]}" for name, values in texts.columns.items())
    st.html(markup.quoted(texts.texts[place], note))
    before, after = neighbours_of(texts, vectors, place)
    show_neighbours(texts, before, after, texts.groups[place])


def show_neighbours(texts: Texts, before: list[Neighbour], after: list[Neighbour], group: str | None = None) -> None:
    """Two lists of neighbours; those that make the same statement (``group``) are marked."""
    titles = ("Nearest before training (base)", "Nearest after training (adapted)")
    for column, title, found in zip(st.columns(2), titles, (before, after), strict=True):
        rows = [
            [
                str(rank),
                f"{one.cosine:.3f}",
                markup.CHANGES[one.change],
                ("● same statement: " if texts.groups[one.place] == group else "") + texts.texts[one.place],
            ]
            for rank, one in enumerate(found, 1)
        ]
        column.markdown(f"**{title}**")
        column.html(markup.rows_table(["rank", "cosine", "change", "text"], rows, title))
