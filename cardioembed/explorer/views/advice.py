"""A user's mistake, told on the page."""

from __future__ import annotations

import streamlit as st

from cardioembed.errors import UserError


def say(error: UserError) -> None:
    """A user's mistake as advice; the command in it can be copied."""
    text, _, command = str(error).partition("\npython ")
    st.warning(text.replace("_", r"\_").replace("*", r"\*").replace("[", r"\[").replace("$", r"\$"))
    if command:
        st.code(f"python {command}", language="bash", wrap_lines=True)
