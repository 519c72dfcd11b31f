"""Before and after: both sides in one aligned space, the texts that moved most, neighbours gained and lost."""

from __future__ import annotations

import numpy as np
import streamlit as st

from cardioembed.explorer import figures, markup
from cardioembed.explorer.data import Texts, sample
from cardioembed.explorer.neighbours import compare_neighbours, moved, nearest, share_kept
from cardioembed.explorer.options import Options
from cardioembed.explorer.projection import JOINT, METHODS, PROCRUSTES, AlignedMaps, aligned_maps, check_method
from cardioembed.explorer.vectors import Vectors
from cardioembed.explorer.views.shared import (
    NEIGHBOURS,
    choose_text,
    choose_texts,
    remembered,
    scatter_of,
    show_scatter,
    show_text,
)

_MOST_MOVED = 20
_SAMPLED = 1_000  # texts whose neighbours are compared for the mean


def show(options: Options) -> None:
    """The page.

    Raises:
        UserError: The run has no texts or no model, or the maps cannot be made.
    """
    texts, vectors = choose_texts(options)
    columns = st.columns(3)
    method = columns[0].selectbox("Map", METHODS, key=remembered("compare-method"))
    alignment = columns[1].selectbox("One space by", (JOINT, PROCRUSTES), key=remembered("alignment"))
    colour = columns[2].selectbox("Colour", list(texts.columns), key=remembered("colour", *texts.columns))
    if warning := check_method(method, len(texts) * (2 if alignment == JOINT else 1)):
        st.warning(warning)
    with st.spinner(f"{method} before and after"):
        maps = aligned_maps(vectors, method, alignment, options.cache)
    distances = moved(vectors.before, vectors.after)
    most = np.argsort(-distances, kind="stable")[:_MOST_MOVED]
    chosen_key = remembered("chosen", len(texts), texts.digest)
    _show_maps(texts, maps, colour, most, f"{method}-{alignment}", chosen_key)
    st.caption(_how_to_read(alignment, maps.disparity))
    place = choose_text(texts, [*most.tolist(), *range(len(texts))], chosen_key)
    if place is not None:
        st.subheader("The open text")
        st.caption(f"It moved by {distances[place]:.3f} (1 − cosine of its vectors before and after).")
        show_text(texts, vectors, place)
    _show_movers(texts, vectors, distances, most)


def _show_maps(texts: Texts, maps: AlignedMaps, colour: str, most: np.ndarray, key: str, chosen_key: str) -> None:
    ranges = tuple(figures.shared_ranges(maps.before, maps.after))
    arrows = st.toggle(f"Show where the {len(most)} texts that moved most came from", key=remembered("arrows"))
    for column, title, points in zip(
        st.columns(2), ("Before training (base)", "After training (adapted)"), (maps.before, maps.after), strict=True
    ):
        drawn = scatter_of(points, texts, colour, ranges=ranges, height=480)
        if arrows and points is maps.after:
            drawn = figures.with_arrows(drawn, maps.before[most], maps.after[most])
        with column:
            st.markdown(f"**{title}**")
            show_scatter(drawn, f"compare-{title[:5]}-{key}", f"{title}: {len(texts)} texts", chosen_key=chosen_key)


def _how_to_read(alignment: str, disparity: float | None) -> str:
    if alignment == JOINT:
        return "One map was fitted to the vectors of both models, so a place means the same on the left and the right."
    return (
        "Each side has a map of its own; the left one was moved, turned and scaled onto the right one (Procrustes), "
        f"which leaves {disparity:.1%} of the variance unexplained."
    )


def _show_movers(texts: Texts, vectors: Vectors, distances: np.ndarray, most: np.ndarray) -> None:
    st.subheader("What moved most")
    places = np.array(sample(len(texts), _SAMPLED))
    kept = share_kept(vectors.before, vectors.after, places, NEIGHBOURS)
    of = f"{len(places):,} sampled texts" if len(places) < len(texts) else "all texts"
    st.markdown(
        f"A text moved by {distances.mean():.3f} on average (1 − cosine), and {kept.mean():.0%} of its "
        f"{NEIGHBOURS} nearest neighbours stayed (mean over {of})."
    )
    before, after = (nearest(side, side[most], NEIGHBOURS, most) for side in (vectors.before, vectors.after))
    rows = []
    for row, place in enumerate(most):
        old, new = compare_neighbours((before[0][row], before[1][row]), (after[0][row], after[1][row]))
        gained = [texts.texts[one.place] for one in new if one.change == "gained"]
        lost = [texts.texts[one.place] for one in old if one.change == "lost"]
        rows.append([
            f"{distances[place]:.3f}",
            texts.texts[place],
            f"{len(old) - len(lost)} of {len(old)}",
            _first(gained),
            _first(lost),
        ])  # fmt: skip
    headers = ["moved", "text", "neighbours kept", "nearest gained", "nearest lost"]
    st.html(markup.rows_table(headers, rows, "Texts that moved most"))


def _first(found: list[str]) -> str:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return figures.shortened(found[0], 120) + more if found else "–"
