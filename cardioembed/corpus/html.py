"""HTML books to the markdown that cleaning reads: headings, paragraphs and list items, nothing of the page around."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from cardioembed.errors import UserError

_DROPPED = frozenset(
    "title script style noscript template nav header footer aside form button select textarea iframe object svg".split()
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q rp rt ruby s samp small span "
    "strike strong sub sup time tt u var wbr math mi mn mo mrow".split()
)
_CHARSETS = (
    re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE),
    re.compile(rb"<\?xml\b[^>]*?\bencoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE),
)
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def html_text(book: Path) -> str:
    """The running text of an HTML file as markdown.

    Headings carry ``#`` marks, list items ``-``, blocks are separated by blank lines. A data table becomes an empty
    ``<table>``, superscripts stay as ``<sup>3</sup>``: cleaning counts tables and tells citations from exponents.

    Raises:
        UserError: The bytes are not of the character set that the file declares (UTF-8 if it declares none).
    """
    body = LexborHTMLParser(_decode(book)).body
    return "\n\n".join(_blocks(body)) if body else ""


def _decode(book: Path) -> str:
    raw = book.read_bytes()
    charset = _charset(raw)
    try:
        return raw.decode(charset).replace("\f", " ")
    except LookupError:
        raise UserError(
            f"{book} declares the character set {charset!r}, which is not known; save it as UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{book}, line {line}: not {charset} text. Correct the charset that the file declares, or convert it: "
            f"iconv -f latin1 -t utf-8 {book} > new.html"
        ) from None


def _charset(raw: bytes) -> str:
    for mark, charset in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return charset
    for pattern in _CHARSETS:
        if match := pattern.search(raw[:2048]):
            name = match[1].decode("ascii", "replace").lower()
            # As browsers do: Latin-1 means Windows-1252, and what could be searched as bytes is no UTF-16.
            if name in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"):
                return "cp1252"
            return "utf-8" if name.startswith("utf-16") else name
    return "utf-8"


def _blocks(body: LexborNode) -> Iterator[str]:
    prefixes, pieces = [""], []
    for kind, value in _events(body):
        if kind == "text":
            pieces.append(value)
        elif value == "sup":
            pieces.append("<sup>" if kind == "open" else "</sup>")
        elif value == "br":
            pieces.append("\n" if kind == "open" else "")
        elif value not in _INLINE:
            yield from _finish(prefixes[-1], pieces)
            pieces = []
            if kind == "open":
                prefixes.append(_prefix(value, prefixes[-1]))
            else:
                # A list item's mark stands before its first block only.
                prefixes.pop()
                prefixes[-1] = "" if prefixes[-1] == "- " else prefixes[-1]
            if value == "table" and kind == "open":
                yield "<table></table>"
    yield from _finish("", pieces)


def _prefix(tag: str, inherited: str) -> str:
    if tag in _HEADINGS or tag == "li":
        return _HEADINGS.get(tag, "- ")
    return inherited if tag == "p" or inherited.startswith("#") else ""


def _events(body: LexborNode) -> Iterator[tuple[str, str]]:
    """("open" | "close", tag) and ("text", characters) in document order, without what is dropped."""
    stack: list[tuple[LexborNode, bool, bool]] = [(body, False, False)]
    while stack:
        node, only_headings, closing = stack.pop()
        tag = node.tag or ""
        if closing:
            yield "close", tag
        elif node.is_text_node:
            if not only_headings:
                yield "text", re.sub(r"\s+", " ", node.text_content or "")
        elif node.is_element_node and _is_kept(node, tag):
            # An article's own <header> holds its title.
            only_headings = (only_headings or tag == "header") and tag not in _HEADINGS
            data = tag == "table" and not _is_layout(node)
            if tag != "table" or data:
                yield "open", tag
                stack.append((node, False, True))
            if not data:
                stack.extend((child, only_headings, False) for child in reversed(list(node.iter(include_text=True))))


def _is_kept(node: LexborNode, tag: str) -> bool:
    attributes = node.attributes
    return (tag not in _DROPPED or tag == "header") and "hidden" not in attributes


def _is_layout(table: LexborNode) -> bool:
    """Whether a table only arranges text on the page, as old HTML does."""
    role = (table.attributes.get("role") or "").lower()
    # The parser counts a node among its own descendants.
    blocks = table.css("table, h1, h2, h3, h4, h5, h6, p + p")
    return role in ("presentation", "none") or any(block.mem_id != table.mem_id for block in blocks)


def _finish(prefix: str, pieces: list[str]) -> Iterator[str]:
    text = "".join(pieces)
    if prefix.startswith("#"):
        text = text.replace("\n", " ")
    # Two line breaks in a row divide paragraphs.
    for paragraph in re.split(r"\n[ \t]*\n", text):
        if plain := re.sub(r"[ \t]+", " ", re.sub(r" *\n *", "\n", paragraph)).strip():
            yield prefix + plain
            prefix = prefix if prefix.startswith("#") else ""
