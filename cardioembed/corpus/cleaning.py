"""Raw pages to clean text blocks; every rule counts what it removed.

A block is a paragraph or a list item: sentences never cross its border.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
# No full stop: "40." alone on a line is the end of a wrapped sentence.
_PAGE_NUMBER = re.compile(
    r"^[\s|*\-–—\[]*(?:page\s+)?(?:\d{1,4}|[ivxlc]{1,7})(?:\s+of\s+\d+)?[\s|*\-–—\]]*$", re.IGNORECASE
)
_CAPTION = re.compile(
    r"^\W*(?:figure|fig\.?|table|plate|box|video)\s+\d+(?:[.\-–]\d+)*[a-z]?\b"
    r"(?!\s+(?-i:[a-z]+s|and|or|to|in|can|may|should|will)\s)",
    re.IGNORECASE,
)
_TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$")
_RULE = re.compile(r"^\s*([-*_=~`])(?:\s*\1){2,}\w*\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•▪◦](?:\s+[-*+•▪◦])*|\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
_INLINE_ITEM = re.compile(r"(?<=\S)[ \t]{2,}([-•]) +(?=\S)")  # "For example:   - If the liver ...   - If ..."
_REFERENCES = re.compile(r"^\W*(?:references|bibliography|further reading|suggested reading)\W*$", re.IGNORECASE)
_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL | re.IGNORECASE)

# Inline rules, in order: name, pattern, replacement.
_INLINE: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("grounding_tags", re.compile(r"<\|ref\|>(.*?)<\|/ref\|>", re.DOTALL), r"\1"),
    ("grounding_tags", re.compile(r"<\|det\|>.*?<\|/det\|>|<\|/?\w+\|>", re.DOTALL), ""),
    ("citations", re.compile(r"\s*<sup>\s*\d+(?:\s*[,–-]\s*\d+)*\s*</sup>", re.IGNORECASE), ""),
    ("html_comments", re.compile(r"<!--.*?-->", re.DOTALL), " "),
    ("html_tags", re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s+[^<>]*)?/?>"), " "),
    ("images", re.compile(r"!\[[^\]]*\]\([^)]*\)"), " "),
    ("links", re.compile(r"\[([^\]]+)\]\((?:https?:|www\.|#|mailto:)[^)]*\)"), r"\1"),
    ("urls", re.compile(r"\(\s*https?://[^\s)]+\s*\)|\bhttps?://[^\s)]*[^\s).,;:]"), ""),
    ("citations", re.compile(r"\s*\^\d+(?:\s*[,–-]\s*\d+)*\^"), ""),
    ("citations", re.compile(r"\s*\[\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*\]"), ""),
    (
        "cross_references",
        re.compile(
            r"\s*\((?:see\s+|cf\.\s+)?(?:fig(?:ure)?s?|tables?|chapters?|box(?:es)?)\.?\s*\d[\d.\-–a-z, and]*\)",
            re.IGNORECASE,
        ),
        "",
    ),
    ("emphasis", re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    ("emphasis", re.compile(r"(?<![\w*])([*_])(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    ("spaces", re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+"), " "),
    ("spaces", re.compile(r" +(?=[,;:.!?](?:\s|$))"), ""),
)
# What every inline rule needs in order to act; most sentences have none of it.
_SUSPECT = re.compile(r"[<\[^*_(\u00a0\u2000-\u200a\u202f\u3000]|https?:|\s[,;:.!?](?:\s|$)")
_ENTITIES = {"&nbsp;": " ", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&"}
_SOFT_BREAK = re.compile("\u00ad[ \t]*\n[ \t]*")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


@dataclass(frozen=True)
class Block:
    """A clean paragraph or list item and the heading it stands under."""

    section: str
    text: str


def clean_pages(pages: list[str]) -> tuple[list[Block], Counter[str]]:
    """Cleans one book.

    Args:
        pages: Raw text, page by page.

    Returns:
        The blocks in reading order, and how often each rule acted.
    """
    counts: Counter[str] = Counter()
    paged = [_lines(page, counts) for page in pages]
    lines = [line for page in paged for line in [*page, ""]]
    running = _running_lines(lines) | _running_edges(paged)
    vocabulary = Counter(re.findall(r"[a-z]+(?:-[a-z]+)*", " ".join(lines).lower()))
    blocks: list[Block] = []
    for section, paragraph in _paragraphs(lines, running, counts):
        text = clean_text(_join_lines(paragraph, vocabulary, counts), counts)
        if _is_heading_like(text):
            counts["heading_lines"] += 1
        elif text:
            blocks.append(Block(section, text))
    return blocks, counts


def clean_text(text: str, counts: Counter[str] | None = None) -> str:
    """Applies the inline rules to one text: markup, citation marks, cross references, spaces, Unicode forms."""
    counts = Counter() if counts is None else counts
    text = _plain_unicode(text, counts)
    if not _SUSPECT.search(text):
        return re.sub(r"\s+", " ", text).strip()
    for name, pattern, replacement in _INLINE:
        text, changes = pattern.subn(replacement, text)
        if name != "spaces":
            counts[name] += changes
    return re.sub(r"\s+", " ", text).strip()


def _lines(page: str, counts: Counter[str]) -> list[str]:
    text, tables = _TABLE.subn("\n\n", _plain_unicode(page, counts))
    text, items = _INLINE_ITEM.subn(r"\n\1 ", text)
    counts["tables"] += tables
    counts["inline_list_items"] += items
    return text.split("\n")


def _plain_unicode(text: str, counts: Counter[str]) -> str:
    plain = text if text.isascii() else _plain_characters(text, counts)
    for entity, character in _ENTITIES.items() if "&" in plain else ():
        counts["html_entities"] += plain.count(entity)
        plain = plain.replace(entity, character)
    return plain


def _plain_characters(text: str, counts: Counter[str]) -> str:
    plain, changes = _SOFT_BREAK.subn("", unicodedata.normalize("NFC", text))
    counts["hyphenations"] += changes
    counts["ligatures"] += sum(plain.count(chr(code)) for code in LIGATURES)
    plain, changes = _INVISIBLE.subn("", plain.translate(LIGATURES))
    counts["invisible_characters"] += changes
    return plain


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", re.sub(r"\s+", " ", line)).strip(" |·-–—").casefold()


def _running_lines(lines: list[str]) -> set[str]:
    """Shapes of short lines that come back at least three times standing alone: running headers and footers."""
    shapes: Counter[str] = Counter()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        text = line.strip()
        alone = not before.strip() and not after.strip()
        if alone and _is_fragment(text) and not _HEADING.match(text) and not _LIST_ITEM.match(text):
            shapes[_shape(text)] += 1
    return {shape for shape, count in shapes.items() if count >= 3}


def _is_fragment(line: str) -> bool:
    return 3 < len(line) <= 80 and not line.endswith((".", "!", "?", ":", ";", ","))


def _running_edges(pages: list[list[str]]) -> set[str]:
    """Shapes that stand first or last on at least three pages: headers of a PDF, whose text has no blank lines."""
    shapes: Counter[str] = Counter()
    for page in pages:
        filled = [line.strip() for line in page if line.strip()]
        shapes.update({_shape(line) for line in (*filled[:2], *filled[-2:]) if _is_fragment(line)})
    return {shape for shape, count in shapes.items() if count >= 3}


def _paragraphs(lines: list[str], running: set[str], counts: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields (section, lines of one paragraph or list item); noise lines are dropped and counted.

    A page number or running header in the middle of a paragraph does not end it.
    """
    section, current, in_references, number = "", [], False, 0
    pending_break, caption_lines = False, 0
    for line in lines:
        text = line.strip()
        heading = _HEADING.match(text)
        if heading or _REFERENCES.match(text):
            if current:
                yield section, current
            section, current, pending_break, caption_lines = clean_text(heading[1] if heading else text), [], False, 0
            in_references = bool(_REFERENCES.match(section))
            counts["headings"] += 1
            continue
        noise = "captions" if caption_lines and text else _noise(text, running, in_references)
        if noise == "captions" and not caption_lines and current and not pending_break and not _ended(current[-1]):
            noise = ""  # "Figure 3" at a line start within a running sentence
        if noise == "captions":
            # A caption without its full stop goes on, for a few lines at most.
            caption_lines = 0 if _ended(text) else (caption_lines or 4) - 1
        if noise:
            counts[noise] += 1
            continue
        if not text:
            pending_break, caption_lines = bool(current), 0
            continue
        item, number = _list_item(line, current if not pending_break else [], number)
        if current and (item or (pending_break and not _goes_on(current[-1], text))):
            yield section, current
            current = []
        pending_break = False
        current.append(line[item:].strip())
    if current:
        yield section, current


def _ended(text: str) -> bool:
    return text.endswith((".", "!", "?", ":"))


def _noise(text: str, running: set[str], in_references: bool) -> str:
    if not text:
        return ""
    if in_references:
        return "reference_list_lines"
    if _PAGE_NUMBER.match(text):
        return "page_numbers"
    if _TABLE_ROW.match(text):
        return "table_rows"
    if _RULE.match(text):
        return "rules_and_fences"
    if _CAPTION.match(text):
        return "captions"
    return "running_lines" if _shape(text) in running else ""


def _list_item(line: str, current: list[str], number: int) -> tuple[int, int]:
    """Length of a list mark at the line's start, and the item's number.

    A number within a running sentence ("below\\n40. The ...") is no list mark unless it follows the last one.
    """
    match = _LIST_ITEM.match(line)
    if not match:
        return 0, number
    mark = match[0].strip().rstrip(".)")
    running = bool(current) and not current[-1].endswith((".", ":", ";"))
    if mark.isdigit() and running and not (number and int(mark) == number + 1):
        return 0, number
    return match.end(), int(mark) if mark.isdigit() else 0


def _goes_on(before: str, after: str) -> bool:
    """Whether a paragraph that a page border cut in two goes on after it."""
    return bool(re.search(r"[a-z,;\-–]$", before) and re.match(r"[a-z(]", after))


def _join_lines(lines: list[str], vocabulary: Counter[str], counts: Counter[str]) -> str:
    text = lines[0]
    for line in lines[1:]:
        left, right = re.search(r"(\w+)[-–]$", text), re.match(r"\w+", line)
        if not (left and right):
            text = f"{text} {line}"
            continue
        counts["hyphenations"] += 1
        divided = left[1].isalpha() and right[0].isalpha() and right[0].islower() and text.endswith("-")
        text = (text[:-1] if divided and not _is_compound(left[1], right[0], vocabulary) else text) + line
    return text


def _is_compound(left: str, right: str, vocabulary: Counter[str]) -> bool:
    """Whether the book writes the two parts with a hyphen elsewhere, in singular or plural, rather than as one word."""
    forms = (right, right.removesuffix("s"), right + "s")
    hyphened = sum(vocabulary[f"{left}-{form}".lower()] for form in dict.fromkeys(forms))
    return hyphened > vocabulary[(left + right).lower()] or left.lower() in ("non", "self")


def _is_heading_like(text: str) -> bool:
    """A short line without a sentence's end, most of its words capitalised: a heading that lost its mark."""
    words = re.findall(r"[A-Za-z][\w'-]*", text)
    if not words or len(words) > 9 or text.endswith((".", "!", "?", ":", ";")):
        return False
    long_words = [word for word in words if len(word) > 3] or words
    return sum(word[0].isupper() for word in long_words) >= 0.6 * len(long_words)
