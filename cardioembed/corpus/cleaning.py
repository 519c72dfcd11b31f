"""Raw pages to clean text blocks; every rule counts what it removed.

A block is a paragraph or a list item: sentences never cross its border.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cardioembed.corpus.layout import edge_places, is_fragment, numbered_edges, page_lines, running_shapes, shape
from cardioembed.corpus.markup import clean_inline, clean_text
from cardioembed.corpus.noise import HEADING, block_noise, line_noise, without_references

__all__ = ["Block", "clean_pages", "clean_text"]

_LIST_ITEM = re.compile(r"^(?:[-*+•▪◦](?:\s+[-*+•▪◦])*|\d{1,2}[.)]|\(?[a-z][.)]|\(\d{1,2}\))\s+(?=\S)")
_BROKEN = re.compile(r"(?<=[^\W\d_])- (?=[a-z])")
_LAST_WORD, _FIRST_WORD = re.compile(r"[^\W\d_]+$"), re.compile(r"[a-z]+")
_SEPARATORS = bytes.maketrans(b".,;:()[]\"'!?/*|", b" " * 15)
# "high- and low-dose": the hyphen stands for the word that follows later.
_SUSPENDED = frozenset("and or to nor but versus vs as in for through than of the a with by".split())


@dataclass(frozen=True)
class Block:
    """A clean paragraph or list item and the heading it stands under."""

    section: str
    text: str


def clean_pages(pages: list[str], section: str = "") -> tuple[list[Block], Counter[str]]:
    """Cleans one book, or a window of one.

    Args:
        pages: Raw text, page by page.
        section: The heading that the text before these pages stands under.

    Returns:
        The blocks in reading order, and how often each rule acted.
    """
    counts: Counter[str] = Counter()
    paged = page_lines(pages, counts)
    vocabulary = _vocabulary(paged)
    blocks: list[Block] = []
    for heading, lines in without_references(_paragraphs(paged, section, counts), counts):
        text = clean_inline(_join_lines(lines, vocabulary, counts), counts)
        if noise := block_noise(text, lines):
            counts[noise] += 1
        elif text:
            blocks.append(Block(heading, text))
    return blocks, counts


def _paragraphs(pages: list[list[str]], section: str, counts: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields (section, lines of one paragraph or list item); noise lines are dropped and counted.

    A page number or running header in the middle of a paragraph does not end it.
    """
    current: list[str] = []
    number, pending_break, caption_lines = 0, False, 0
    for line, noise in _marked(pages):
        if noise == "headings":
            if current:
                yield section, current
            heading = HEADING.match(line)
            section, current, pending_break, caption_lines = clean_text(heading[1] if heading else line), [], False, 0
            counts[noise] += 1
            continue
        if line and caption_lines:
            noise = "captions"
        elif noise == "captions" and current and not pending_break and not _ended(current[-1]):
            noise = ""  # "Figure 3" at a line start within a running sentence
        if noise == "captions":
            # A caption without its full stop goes on, for a few lines at most.
            caption_lines = 0 if _ended(line) else (caption_lines or 4) - 1
        if noise:
            counts[noise] += 1
            continue
        if not line:
            pending_break, caption_lines = bool(current), 0
            continue
        item, number = _list_item(line, current if not pending_break else [], number)
        if current and (item or (pending_break and not _goes_on(current[-1], line))):
            yield section, current
            current = []
        pending_break = False
        current.append(line[item:].lstrip())
    if current:
        yield section, current


def _marked(pages: list[list[str]]) -> Iterator[tuple[str, str]]:
    """Every line with the rule that would drop it, "" for text; a blank line ends each page."""
    running, numbered = running_shapes(pages), numbered_edges(pages)
    for place, page in enumerate(pages):
        edges = set(edge_places(page, 1 if sum(map(bool, page)) <= 6 else 2))
        for number, line in enumerate(page):
            if not line:
                yield "", ""
                continue
            alone = (number == 0 or not page[number - 1]) and (number + 1 == len(page) or not page[number + 1])
            noise = line_noise(line, alone or number in edges)
            if not noise and ((place, number) in numbered or (is_fragment(line) and shape(line) in running)):
                noise = "running_lines"
            yield line, noise
        yield "", ""


def _ended(text: str) -> bool:
    return text.endswith((".", "!", "?", ":"))


def _list_item(line: str, current: list[str], number: int) -> tuple[int, int]:
    """Length of a list mark at the line's start, and the item's number.

    A number within a running sentence ("below\\n40. The ...") is no list mark unless it follows the last one.
    """
    match = _LIST_ITEM.match(line)
    if not match:
        return 0, number
    mark = match[0].strip().strip("().")
    running = bool(current) and not current[-1].endswith((".", ":", ";"))
    if mark.isdigit() and running and not (number and int(mark) == number + 1):
        return 0, number
    return match.end(), int(mark) if mark.isdigit() else 0


def _goes_on(before: str, after: str) -> bool:
    """Whether a paragraph that a page border cut in two goes on after it."""
    return (before[-1] in ",;-–" or "a" <= before[-1] <= "z") and (after[0] == "(" or "a" <= after[0] <= "z")


def _vocabulary(pages: list[list[str]]) -> Counter[str]:
    """How often the book writes each word; empty if no word is divided, for it takes its time."""
    text = " ".join(line for page in pages for line in page)
    if "- " not in text:
        return Counter()
    # As bytes: str.translate takes seconds on a long text that is not ASCII throughout.
    return Counter(text.lower().encode("ascii", "replace").translate(_SEPARATORS).decode().split())


def _join_lines(lines: list[str], vocabulary: Counter[str], counts: Counter[str]) -> str:
    text = lines[0]
    for line in lines[1:]:
        if (
            text[-1:] not in "-–"
            or not (left := re.search(r"(\w+)[-–]$", text))
            or not (right := re.match(r"\w+", line))
        ):
            text = f"{text} {line}"
            continue
        counts["hyphenations"] += 1
        divided = left[1].isalpha() and right[0].isalpha() and right[0].islower() and text.endswith("-")
        text = (text[:-1] if divided and not _is_compound(left[1], right[0], vocabulary) else text) + line
    return _BROKEN.sub(lambda match: _mend(match, vocabulary, counts), text) if "- " in text else text


def _mend(match: re.Match[str], vocabulary: Counter[str], counts: Counter[str]) -> str:
    """ "top- ranked", as OCR models leave a hyphen at a line's end."""
    left = _LAST_WORD.search(match.string[: match.start()][-40:])[0]
    right = _FIRST_WORD.match(match.string, match.end())[0]
    if right in _SUSPENDED:
        return match[0]
    counts["hyphenations"] += 1
    return "" if vocabulary[(left + right).lower()] else "-"


def _is_compound(left: str, right: str, vocabulary: Counter[str]) -> bool:
    """Whether the book writes the two parts with a hyphen elsewhere, in singular or plural, rather than as one word."""
    forms = (right, right.removesuffix("s"), right + "s")
    hyphened = sum(vocabulary[f"{left}-{form}".lower()] for form in dict.fromkeys(forms))
    return hyphened > vocabulary[(left + right).lower()] or left.lower() in ("non", "self")
