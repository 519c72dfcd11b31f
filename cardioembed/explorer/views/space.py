"""Space: the texts as points of a map, their neighbours, and a query placed among them."""

from __future__ import annotations

import numpy as np
import streamlit as st

from cardioembed.explorer import figures
from cardioembed.explorer.data import Texts
from cardioembed.explorer.neighbours import compare_neighbours, nearest
from cardioembed.explorer.options import Options
from cardioembed.explorer.projection import METHODS, PCA, Map, check_method, single_map
from cardioembed.explorer.vectors import Vectors
from cardioembed.explorer.views.shared import (
    NEIGHBOURS,
    choose_text,
    choose_texts,
    encode_query,
    neighbours_of,
    remembered,
    scatter_of,
    show_neighbours,
    show_scatter,
    show_text,
)

_SIDES = {"after training": "after", "before training": "before"}
_QUERY_CHARACTERS = 10_000


def show(options: Options) -> None:
    """The page.

    Raises:
        UserError: The run has no texts or no model, or the map cannot be made.
    """
    texts, vectors = choose_texts(options)
    side, method, dims, colour = _controls(texts)
    if warning := check_method(method, len(texts)):
        st.warning(warning)
    with st.spinner(f"{method} of {len(texts):,} points"):
        found = single_map(vectors, side, method, dims, options.cache)
    query = st.text_input(
        "Place a query in the map",
        key=remembered("query"),
        max_chars=_QUERY_CHARACTERS,
        placeholder="for example: when to replace the aortic valve",
    ).strip()
    asked = encode_query(options, query) if query else None
    offered = _nearest_to_query(vectors, asked, side) if asked else list(range(len(texts)))
    chosen_key = remembered("chosen", len(texts), texts.digest)
    with_neighbours = st.toggle("Mark the open text and its neighbours on the map", key=remembered("mark"))
    marks = _query_mark(found, vectors, asked, side, query)
    if with_neighbours and (place := st.session_state.get(chosen_key)) is not None:
        marks = [*_neighbour_marks(texts, vectors, found, side, place), *marks]
    drawn = figures.with_marks(scatter_of(found.points, texts, colour, _axis_names(found)), marks)
    alt = (
        f"{method} map of {len(texts)} texts by their vectors {side} training; the list below opens them, those "
        "nearest to a placed query first"
    )
    show_scatter(drawn, f"space-{method}-{dims}-{side}", alt, chosen_key=chosen_key)
    st.caption(_how_to_read(method, query))
    if dims == 3:
        st.caption("Streamlit reports no clicks on 3-D points: open a text from the list, or switch to 2-D.")
    place = choose_text(texts, offered, chosen_key)
    if asked:
        st.subheader("Nearest to the query")
        sides = zip(asked, (vectors.before, vectors.after), strict=True)
        before, after = (nearest(vecs, vector, NEIGHBOURS) for vector, vecs in sides)
        show_neighbours(texts, *compare_neighbours(*((p[0], c[0]) for p, c in (before, after))))
    if place is not None:
        st.subheader("The open text")
        show_text(texts, vectors, place)


def _controls(texts: Texts) -> tuple[str, str, int, str]:
    columns = st.columns(4)
    side = columns[0].selectbox("Vectors", list(_SIDES), key=remembered("side"))
    method = columns[1].selectbox("Map", METHODS, key=remembered("method"))
    dims = columns[2].selectbox("Dimensions", (2, 3), key=remembered("dims"), format_func=lambda n: f"{n}-D")
    colour = columns[3].selectbox("Colour", list(texts.columns), key=remembered("colour", *texts.columns))
    return _SIDES[side], method, dims, colour


def _nearest_to_query(vectors: Vectors, asked: tuple[np.ndarray, np.ndarray], side: str) -> list[int]:
    places, _ = nearest(getattr(vectors, side), _of_side(asked, side), NEIGHBOURS)
    return places[0].tolist()


def _of_side(asked: tuple[np.ndarray, np.ndarray], side: str) -> np.ndarray:
    return asked[side == "after"]


def _query_mark(
    found: Map, vectors: Vectors, asked: tuple[np.ndarray, np.ndarray] | None, side: str, query: str
) -> list[figures.Mark]:
    if asked is None:
        return []
    where = found.place(getattr(vectors, side), _of_side(asked, side))
    return [figures.Mark("the query", where, [query], "x", figures.ORANGE)]


def _neighbour_marks(texts: Texts, vectors: Vectors, found: Map, side: str, place: int) -> list[figures.Mark]:
    own = neighbours_of(texts, vectors, place)[side == "after"]
    places = [one.place for one in own]
    return [
        figures.Mark(
            "its neighbours", found.points[places], [texts.texts[p] for p in places], "circle-open", figures.GREY
        ),
        figures.Mark("the open text", found.points[[place]], [texts.texts[place]], "square-open", figures.ORANGE),
    ]


def _axis_names(found: Map) -> tuple[str, ...]:
    if not found.axes:
        return ()
    return tuple(f"axis {n}: {share:.1%} of the variance" for n, share in enumerate(found.axes.explained, 1))


def _how_to_read(method: str, query: str) -> str:
    if method == PCA:
        placed = "A query has its exact place by the same projection." if query else ""
        return f"Near points have much in common on the axes of greatest variance, not in all. {placed}"
    placed = (
        f"A query cannot be placed exactly by {method}: it stands at the mean place of its five nearest texts."
        if query
        else ""
    )
    return f"{method} keeps neighbours together; distances between groups and their sizes mean little. {placed}"
