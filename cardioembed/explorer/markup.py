"""HTML of tables and texts for the pages. All content is escaped; colours follow the page's, light or dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from cardioembed.evaluation.tables import Cell, Table

_CELL = "padding:0.3rem 0.6rem;border-bottom:1px solid rgba(128,128,128,0.3);vertical-align:top"
_SIGNS = {"better": ("▲", "better"), "worse": ("▼", "worse"), "best": ("★", "best")}
CHANGES = {"gained": "▲\u00a0gained", "lost": "▽\u00a0lost", "kept": "=\u00a0kept", "": ""}


def table(found: Table, caption: str = "") -> str:
    """A table of the report with its verdicts as signs; wider than the page it scrolls, and keys can scroll it."""
    body = "".join(
        "<tr>" + "".join(_cell(cell, first=not place) for place, cell in enumerate(row)) + "</tr>" for row in found.rows
    )
    return _framed(found.headers, body, caption or found.title or "table")


def _cell(cell: Cell, first: bool) -> str:
    sign, word = _SIGNS.get(cell.verdict, ("", ""))
    marked = f' <span role="img" title="{word}" aria-label="{word}">{sign}</span>' if sign else ""
    weight = ";font-weight:600" if sign else ""
    interval = f'<br><small style="opacity:0.75;white-space:nowrap">{html.escape(cell.ci)}</small>' if cell.ci else ""
    tag = 'th scope="row"' if first else "td"
    style = f"{_CELL};text-align:left{weight if not first else ';font-weight:400'}"
    return f'<{tag} style="{style}">{html.escape(cell.text)}{marked}{interval}</{tag[:2]}>'


def rows_table(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of plain texts."""
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{html.escape(text)}</td>' for text in row) + "</tr>" for row in rows
    )
    return _framed(headers, body, caption)


def _framed(headers: Sequence[str], body: str, caption: str) -> str:
    style = f"{_CELL};text-align:left"
    head = "".join(f'<th scope="col" style="{style}">{html.escape(name)}</th>' for name in headers)
    named = f"<thead><tr>{head}</tr></thead>" if any(headers) else ""
    return (
        f'<div tabindex="0" role="region" aria-label="{html.escape(caption)}" style="overflow-x:auto">'
        f'<table style="border-collapse:collapse;width:100%;font-size:0.9rem">{named}'
        f"<tbody>{body}</tbody></table></div>"
    )


def quoted(text: str, note: str) -> str:
    """A whole text with a line on where it comes from."""
    return (
        '<blockquote style="margin:0;padding:0.4rem 0.9rem;border-left:4px solid #0072B2;overflow-wrap:anywhere">'
        f"{html.escape(text)}<br><small style='opacity:0.75'>{html.escape(note)}</small></blockquote>"
    )
