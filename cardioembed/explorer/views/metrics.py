"""Metrics: base against adapted model, with differences and their intervals. Loads no model."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cardioembed.errors import UserError
from cardioembed.evaluation.summary import summary_sentences
from cardioembed.evaluation.tables import (
    NOT_SKILL,
    about_table,
    main_metric,
    number,
    pair_sections,
    verdict,
)
from cardioembed.explorer import markup
from cardioembed.explorer.options import Options
from cardioembed.explorer.run_files import needed_json, stage_command

_FILE = "04_evaluation/metrics.json"


def show(options: Options) -> None:
    """The page.

    Raises:
        UserError: The run has not been evaluated, or the file is of another kind.
    """
    document = needed_json(options.run_dir, _FILE)
    try:
        _show(document)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(
            f"{options.run_dir / _FILE} is not what stage 04 of this version writes ({error!r} in it). "
            f"Run it again:\n{stage_command(options.run_dir, '04')}"
        ) from None


def _show(document: dict[str, Any]) -> None:
    changes = main_changes(document)
    sentences, sections = summary_sentences(document), pair_sections(document)
    _show_headline(document, changes)
    for sentence in sentences:
        st.markdown("- " + sentence.replace("*", r"\*").replace("$", r"\$").replace("_", r"\_"))
    if changes:
        from cardioembed.explorer import figures

        st.subheader("What training changed")
        alt = "Adapted less base with 95 % interval, a row an evaluation; the tables below say the same"
        st.plotly_chart(figures.gains(changes), alt=alt, width="stretch", config={"displayModeBar": False})
    st.caption(
        "Intervals: 95 %, by a bootstrap over statements. ▲ clearly better, ▼ clearly worse: the interval of the "
        "difference leaves out zero."
    )
    for section in sections:
        st.subheader(section.title)
        for place, table in enumerate(section.tables):
            if table.folded or place:
                with st.expander(table.title or "More"):
                    st.html(markup.table(table))
            else:
                st.html(markup.table(table, section.title))
        for note in section.notes:
            st.caption(note.replace("_", r"\_"))
    with st.expander("The two models"):
        st.html(markup.table(about_table(document)))


def main_changes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The change of each evaluation's main metric, by ``evaluation: metric``, with its ``verdict``."""
    found = {}
    for evaluation, metrics in document["delta"].items():
        metric = main_metric(evaluation, metrics)
        if metric and evaluation not in NOT_SKILL and metrics[metric]["better"]:
            found[f"{evaluation}: {metric}"] = {**metrics[metric], "verdict": verdict(metrics[metric])}
    return found


def _show_headline(document: dict[str, Any], changes: dict[str, dict[str, Any]]) -> None:
    shown = list(changes.items())[:4]
    for column, (name, change) in zip(st.columns(max(1, len(shown))), shown, strict=False):
        evaluation, metric = name.split(": ", 1)
        value = document["models"]["adapted"][evaluation][metric]["value"]
        better_colour = "normal" if change["better"] == "higher" else "inverse"
        column.metric(
            f"{evaluation.replace('_', ' ')}: {metric.replace('_', ' ')}",
            number(value),
            number(change["value"], signed=True),
            delta_color=better_colour if change["verdict"] else "off",
            border=True,
        )
