"""The explorer's entry: ``streamlit run cardioembed/explorer/app.py -- --run runs/laptop``."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path

import streamlit as st

# Streamlit puts this file's folder on the path; the project itself may not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cardioembed.errors import UserError
from cardioembed.explorer.options import Options, parse_page_arguments
from cardioembed.explorer.views.advice import say

PAGES = {"Metrics": "metrics", "Space": "space", "Before and after": "compare", "Details": "details"}  # modules


def main() -> None:
    """Shows the page that was asked for; a user's mistake is told on the page."""
    st.set_page_config(page_title="CardioEmbed explorer", layout="wide")
    try:
        options = parse_page_arguments(sys.argv[1:])
    except UserError as error:
        say(error)
        return
    # Not st.navigation: its addresses (/space) make the browser ask for files that are not there. This is ?view=Space.
    view = st.segmented_control(
        "View", list(PAGES), default="Metrics", required=True, key="view", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    st.title(view)
    st.caption(str(options.run_dir).replace("_", r"\_"))
    _show(PAGES[view], options)


def _show(page: str, options: Options) -> None:
    try:
        # Only the page that is shown is imported: the first one needs neither a model nor a map.
        import_module(f"cardioembed.explorer.views.{page}").show(options)
    except UserError as error:
        say(error)
    except (OSError, MemoryError) as error:
        logging.getLogger(__name__).exception("the page could not be shown")
        say(UserError(f"{error}. Check the disk and the memory, then reload the page"))


main()
