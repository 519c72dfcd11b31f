"""Details: settings, data, training curves, and what each stage did. Loads no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cardioembed.errors import UserError
from cardioembed.explorer import markup
from cardioembed.explorer.options import Options
from cardioembed.explorer.run_files import STAGES, manifests, needed, needed_json, training_log
from cardioembed.explorer.views.advice import say

_PLOT = {"displayModeBar": False}


def show(options: Options) -> None:
    """The page; a part whose file is missing says so, and the others are shown."""
    parts = {"Training": _training, "Data": _data, "Stages": _stages, "Settings": _settings}
    for tab, part in zip(st.tabs(list(parts)), parts.values(), strict=True):
        with tab:
            try:
                part(options)
            except UserError as error:
                say(error)


def _training(options: Options) -> None:
    from cardioembed.explorer import figures

    log = training_log(options.run_dir)
    validation = {"validation_accuracy@1": "accuracy@1", "validation_mrr": "MRR"}
    curves = (
        ("Training loss", {"loss": "loss"}, "loss"),
        ("Validation", validation, "score"),
        ("Learning rate", {"learning_rate": "learning rate"}, "learning rate"),
        ("Length of the gradient", {"grad_norm": "gradient norm"}, "gradient norm"),
    )
    columns = st.columns(2)
    for place, (title, values, y_title) in enumerate(curves):
        figure = figures.curve(log, values, y_title)
        if figure:
            with columns[place % 2]:
                st.markdown(f"**{title}**")
                st.plotly_chart(figure, alt=f"{title} by step", width="stretch", config=_PLOT, key=f"curve-{place}")
    if not any(figures.curve(log, values, y) for _, values, y in curves):
        st.info("The training log has no whole row yet.")
    st.markdown("**Summary**")
    summary = needed_json(options.run_dir, "03_training_summary.json")
    st.html(markup.rows_table(["", ""], flat_rows(summary), "Training summary"))


def _data(options: Options) -> None:
    from cardioembed.explorer import figures

    statistics = needed_json(options.run_dir, "02_statistics.json")
    splits = statistics.get("splits") if isinstance(statistics, dict) else None
    if not isinstance(splits, dict):
        raise UserError(f"{options.run_dir / '02_statistics.json'} has no 'splits'; run stage 02 again")
    for name, title in (("sources", "Pairs by book"), ("models", "Pairs by paraphraser")):
        numbers = {split: found.get(name) or {} for split, found in splits.items()}
        if any(numbers.values()):
            st.markdown(f"**{title}**")
            alt = f"{title} in each split; the table below has the numbers"
            st.plotly_chart(figures.counts(numbers), alt=alt, width="stretch", config=_PLOT, key=f"counts-{name}")
    rest = {key: value for key, value in statistics.items() if key != "splits"}
    st.html(markup.rows_table(["", ""], flat_rows(rest), "Data"))
    for split, found in splits.items():
        with st.expander(split):
            st.html(markup.rows_table(["", ""], flat_rows(found), split))


def _stages(options: Options) -> None:
    found = manifests(options.run_dir)
    if not found:
        raise UserError(f"{options.run_dir} has no manifest of a stage; run stage 01 first")
    for number, manifest in found.items():
        seconds = manifest.get("seconds")
        with st.expander(f"Stage {number}" + (f": {seconds:,.0f} s" if isinstance(seconds, int | float) else "")):
            for part in ("counts", "inputs", "outputs", "libraries"):
                if isinstance(manifest.get(part), dict) and manifest[part]:
                    st.markdown(f"**{part}**")
                    st.html(markup.rows_table(["", ""], flat_rows(manifest[part]), f"{part} of stage {number}"))


def _settings(options: Options) -> None:
    present = [n for n in STAGES if (options.run_dir / f"{n}_settings.yaml").is_file()]
    number = st.selectbox("As stage", present[::-1] or ["01"])
    path = needed(options.run_dir, f"{number}_settings.yaml")
    try:
        st.code(path.read_text(encoding="utf-8"), language="yaml", wrap_lines=True)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; run stage {number} again") from None


def flat_rows(content: Any, prefix: str = "") -> list[list[str]]:
    """Nested content as rows of ``key.path, value``."""
    if isinstance(content, Mapping) and content:
        return [row for key, value in content.items() for row in flat_rows(value, f"{prefix}.{key}" if prefix else key)]
    if isinstance(content, float):
        return [[prefix, f"{content:.6g}"]]
    if isinstance(content, list):
        return [[prefix, ", ".join(map(str, content)) or "–"]]
    return [[prefix, f"{content:,}" if isinstance(content, int) and not isinstance(content, bool) else str(content)]]
