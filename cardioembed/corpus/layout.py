"""Pages to lines: what OCR scripts, layout models and HTML put around the text, and what comes back on every page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from cardioembed.corpus.markup import ASIDES, GROUNDING, LABELS, TAGGED, Rule, apply, plain_characters

PAGE_SPLIT = re.compile(r"\n?<--- Page Split --->\n?")  # written between pages by DeepSeek-OCR's PDF script
_BOX = r"\[\[\s*\d+(?:\s*,\s*\d+){3}\s*\](?:\s*,\s*\[[\d\s,]+\])*\s*\]"
_DEBUG = {
    "torch.Size": r"(?:BASE|PATCHES):\s+torch\.Size\(.*",
    "NO PATCHES": r"NO PATCHES",
    "image size:": r"image size:\s+\(\d+, \d+\)",
    "image tokens:": r"valid image tokens:\s+\d+",
    "texts tokens": r"output texts tokens \(valid\):\s+\d+",
    "compression ratio:": r"compression ratio:\s+[\d.]+",
    "image: ": r"image:\s+(?:\d+it|\d+%\|).*",
    "other: ": r"other:\s+(?:\d+it|\d+%\|).*",
    "The attention mask": r"The attention mask (?:and the pad token id were not set|is not set).*",
    "pad_token_id": r"Setting `pad_token_id` to .*",
    "to instantiate": r"You are using a model of type \S+ to instantiate a model of type .*",
}
_SEPARATOR = r"={15,}(?:save results:={15,})?"


def _heading(match: re.Match[str]) -> str:
    return f"\n\n{'' if match[1] == '#' else '# '}{match[1]}"


# In order: name, what must occur in the page for the rule to act, pattern, replacement.
_RULES: tuple[Rule, ...] = (
    ("ocr_debug_lines", "=" * 15, re.compile(rf"{_SEPARATOR}[ \t]*\n(?=BASE:|image size:)"), "\n"),
    *(
        ("ocr_debug_lines", needed, re.compile(rf"^[ \t]*{line}[ \t]*(?:\n|\Z)", re.MULTILINE), "")
        for needed, line in _DEBUG.items()
    ),
    ("underlined_headings", "\n===", re.compile(r"^(\S[^\n.]{2,80})\n={3,}[ \t]*$", re.MULTILINE), r"\n# \1\n"),
    ("ocr_debug_lines", "=" * 15, re.compile(_SEPARATOR), "\n"),
    ("special_tokens", "▁", re.compile(r"<\|[^|\n]{0,20}▁[^|\n]{0,20}\|>"), ""),
    ("grounding_tags", "[[", re.compile(rf"^({LABELS}){_BOX}[ \t]*$", re.MULTILINE), r"<|ref|>\1<|/ref|>"),
    (
        "grounded_asides",
        "<|ref|>",
        re.compile(TAGGED.format(label=f"(?:{ASIDES})") + r"\s*.*?(?=\n[ \t]*\n|<\|ref\|>|\Z)", re.DOTALL),
        "\n\n",
    ),
    ("grounding_tags", "<|ref|>", re.compile(TAGGED.format(label="(?:sub_)?title") + r"\s*(\S)"), _heading),
    *GROUNDING,
    ("html_comments", "<!--", re.compile(r"<!--.*?-->", re.DOTALL), " "),
    ("html_scripts", "</s", re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL | re.I), "\n\n"),
    ("tables", "</", re.compile(r"<table\b.*?</table>", re.DOTALL | re.I), "\n\n"),
    ("captions", "aption>", re.compile(r"<(figcaption|caption)\b.*?</\1>", re.DOTALL | re.I), "\n\n"),
    ("html_tags", "</", re.compile(r"<h[1-6]\b[^>]*>(.*?)</h[1-6]>", re.DOTALL | re.I), r"\n\n# \1\n\n"),
    ("html_tags", "<", re.compile(r"<li\b[^>]*>", re.I), "\n- "),
    (
        "html_tags",
        "<",
        re.compile(r"</?(?:p|div|ul|ol|section|article|blockquote|center|dd|dt|dl|body|html)(?:\s[^<>]*)?>", re.I),
        "\n\n",
    ),
    ("quote_marks", "\n>", re.compile(r"^>+[ \t]+(?=[^\W\d])", re.MULTILINE), ""),
    ("footnotes", "\n[^", re.compile(r"^\[\^\w+\]:.*$", re.MULTILINE), ""),
    (
        "inline_list_items",
        "  ",
        re.compile(r"  (?<=\S  ) *([-•]) +(?=\S)"),
        r"\n\1 ",
    ),  # "such as:   - fever   - pain"
)
_LEADING_NUMBER = re.compile(r"^(\d{1,4})(?=\s|\s*[|·•–—-]\s)")
_TRAILING_NUMBER = re.compile(r"(?:\s|[|·•–—-])(\d{1,4})$")


def page_lines(pages: list[str], counts: Counter[str]) -> list[list[str]]:
    """The stripped lines of each page, without what OCR scripts, layout models and HTML put around the text."""
    return [_lines(page, counts) for text in pages for page in _pages(text, counts)]


def _pages(text: str, counts: Counter[str]) -> Iterator[str]:
    if "<--- Page" not in text:
        yield text
        return
    parts = PAGE_SPLIT.split(text)
    counts["page_splits"] += len(parts) - 1
    yield from parts


def _lines(page: str, counts: Counter[str]) -> list[str]:
    text = plain_characters(page, counts)
    for name, needed, pattern, replacement in _RULES:
        if needed in text:
            text = apply(name, pattern, replacement, text, counts)
    return [line.strip() for line in text.split("\n")]


def shape(line: str) -> str:
    """A line with its numbers as "#": what a running header has in common from page to page."""
    return re.sub(r"\d+", "#", " ".join(line.split())).strip(" |·-–—").casefold()


def is_fragment(line: str) -> bool:
    """Whether a line is short and does not end as sentences do."""
    return 3 < len(line) <= 80 and line[-1] not in ".!?:;,"


def _is_title(line: str) -> bool:
    """Whether a line may be a running header rather than an item of a list, as both come back alone on their line."""
    if line[0] in "#-*+•▪◦":
        return False
    words = [word for word in line.split() if len(word) > 3]
    return 2 * sum(word[0].isupper() for word in words) >= len(words) or (len(words) <= 5 and "," not in line)


def running_shapes(pages: list[list[str]]) -> set[str]:
    """Shapes of running headers and footers: they come back three times, alone between blank lines or at page edges.

    Odd and even pages may differ, and so may the numbers in them.
    """
    alone: Counter[str] = Counter()
    edges: Counter[str] = Counter()
    for page in pages:
        for before, line, after in zip(["", *page], page, [*page[1:], ""], strict=False):
            if line and not before and not after and is_fragment(line) and _is_title(line):
                alone[shape(line)] += 1
        edges.update({shape(page[place]) for place in edge_places(page) if is_fragment(page[place])})
    return {shape for found in (alone, edges) for shape, count in found.items() if count >= 3}


def edge_places(page: list[str], depth: int = 2) -> list[int]:
    """Places of the first and the last ``depth`` lines with text."""
    filled = [place for place, line in enumerate(page) if line]
    return sorted({*filled[:depth], *filled[-depth:]})


def numbered_edges(pages: list[list[str]]) -> set[tuple[int, int]]:
    """(page, line) of edge lines that count the pages: "45 | Heart Failure", "Valves 46", whatever the words say.

    Their number minus the place of the page is the same on many pages.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    for number, page in enumerate(pages):
        for place in edge_places(page) if len(pages) > 2 else ():
            line = page[place]
            match = _LEADING_NUMBER.search(line) or _TRAILING_NUMBER.search(line)
            if match and is_fragment(line):
                found.setdefault(int(match[1]) - number, []).append((number, place))
    enough = max(3, len(pages) // 10)
    return {spot for spots in found.values() if len({page for page, _ in spots}) >= enough for spot in spots}
