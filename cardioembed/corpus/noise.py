"""Lines and blocks that are no running text: captions, page numbers, contents, reference lists, lost headings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_ROMAN = r"(?=[ivxlc])c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})"
# No full stop: "40." alone on a line is the end of a wrapped sentence.
_PAGE_NUMBER = re.compile(
    rf"^[\s|*\-–—\[]*(?P<page>page\s+)?(?:\d{{1,4}}|{_ROMAN})(?P<of>\s+of\s+\d+)?[\s|*\-–—\]]*$", re.IGNORECASE
)
_CAPTION = re.compile(
    r"^\W*(?:figure|fig\.?|table|plate|box|video|algorithm|scheme|chart)\s+\d+(?:[.\-–]\d+)*[a-z]?\b"
    r"(?!,\s+(?-i:[a-z])|\s+(?-i:(?:[a-z]+ly\s+)?[a-z]+s|and|or|to|in|can|may|should|will)\s)",
    re.IGNORECASE,
)
_CAPTION_START = frozenset(("fig", "tab", "pla", "box", "vid", "alg", "sch", "cha"))
_CREDIT = re.compile(
    r"^\W*(?:(?:adapted|modified|reproduced|reprinted|redrawn|taken) (?:with permission )?from|courtesy of"
    r"|(?:copyright|©|\(c\))\s+(?:©\s+)?(?:19|20)\d\d|all rights reserved)\b",
    re.IGNORECASE,
)
_RULE = re.compile(r"^([-*_=~`])(?:\s*\1){2,}\w*$")
_REFERENCES = re.compile(
    r"^\W*(?:references?|bibliography|literature(?: cited)?|works cited|(?:further|suggested|selected|recommended)"
    r" (?:readings?|references))[\s:*_]*$",
    re.IGNORECASE,
)
_CHAPTER = re.compile(r"^(?:chapter|part|section)\s+(?:\d+|[ivxlc]+)\b", re.IGNORECASE)
_OF_A_REFERENCE = re.compile(r"\b(?:1[89]|20)\d\d\b|\bdoi\b|https?:|\bet al\b|\beds?\.")
_ENTRY = re.compile(
    r"^(?:\[?\d{1,3}[\].)]*\s+)?[A-Z][\w'’-]+,? (?:[A-Z]\.? ?){1,3}(?:,|\.| and| et al).*"
    r"(?:\b(?:1[89]|20)\d\d\s?;\s?\d+|\bdoi\b|\d+\s?:\s?\d+[–-]\d+)"
)
_INDEX_ENTRY = re.compile(r"^[^\d.!?]{3,60},\s*\d{1,4}(?:[–-]\d{1,4})?[ft]?(?:,\s*\d{1,4}(?:[–-]\d{1,4})?[ft]?)*$")
_CONTENTS = re.compile(r"(?:\.{4,}|(?:\s\.){3,}|…{2,})\s*(?:\d{1,4}|[ivxlc]+)$")
_SECTION_NUMBER = re.compile(r"^\d{1,2}(?:\.\d{1,2})+\.?\s+[A-Z][^.!?;:]{2,80}$")


def line_noise(line: str, stands_apart: bool) -> str:
    """The rule that drops a line by its looks, "headings" for a heading."""
    first = line[0]
    if first == "#" and HEADING.match(line):
        return "headings"
    if len(line) <= 24 and (match := _PAGE_NUMBER.match(line)):
        # A bare number within a paragraph is a part of a wrapped sentence.
        return "page_numbers" if stands_apart or match["page"] or match["of"] else ""
    # A capital: the last word of a wrapped sentence may be "references".
    if len(line) <= 40 and line.lstrip("*_ ")[:1].isupper() and _REFERENCES.match(line):
        return "headings"
    if first == "|" and line[-1] == "|":
        return "table_rows"
    if first in "-*_=~`" and _RULE.match(line):
        return "rules_and_fences"
    if len(line) <= 160 and line[-1].isalnum() and _CONTENTS.search(line):
        return "contents_lines"
    if line.lstrip("*_([<# ")[:3].lower() in _CAPTION_START and _CAPTION.match(line):
        return "captions"
    return "credits" if stands_apart and _CREDIT.match(line) else ""


def without_references(
    paragraphs: Iterator[tuple[str, list[str]]], counts: Counter[str]
) -> Iterator[tuple[str, list[str]]]:
    """Drops reference lists: to the next heading, to a line "Chapter 4", or to a long paragraph that cites nothing."""
    ended_in: str | None = None
    for section, lines in paragraphs:
        if section != ended_in and section and _REFERENCES.match(section):
            prose = sum(map(len, lines)) > 160 and not any(map(_OF_A_REFERENCE.search, lines))
            if not prose and not _CHAPTER.match(lines[0]):
                counts["reference_list_lines"] += len(lines)
                continue
            ended_in = section
        elif section != ended_in:
            ended_in = None
        yield ("" if section == ended_in else section), lines


def block_noise(text: str, lines: list[str]) -> str:
    """The rule that drops a whole block."""
    if len(text) < 300 and _ENTRY.match(text):
        return "reference_entries"
    if len(text) > 100 and len(lines) == 1:
        return ""
    if all(map(_INDEX_ENTRY.match, lines)):
        return "index_entries"
    return "heading_lines" if _is_heading_like(text) else ""


def _is_heading_like(text: str) -> bool:
    """A short line without a sentence's end that is numbered or capitalised: a heading that lost its mark."""
    if text.endswith((".", "!", "?", ":", ";")):
        return False
    words = re.findall(r"[A-Za-z][\w'-]*", text)
    if _SECTION_NUMBER.match(text):
        return True
    if not words or len(words) > 9:
        return False
    long_words = [word for word in words if len(word) > 3] or words
    return sum(word[0].isupper() for word in long_words) >= 0.6 * len(long_words)
