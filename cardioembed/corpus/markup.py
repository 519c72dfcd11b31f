"""Inline rules of cleaning: Unicode forms, markup and citation marks within one text; every rule counts its work."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from cardioembed.corpus.formulas import RAISED, plain_formula

Replacement = Callable[[re.Match[str]], str]
Rule = tuple[str, str, re.Pattern[str], str | Replacement]

# DeepSeek-OCR's layout tags. Words of this list name a region; other words are the text itself.
TAGGED = r"<\|ref\|>{label}<\|/ref\|>(?:\s*<\|det\|>[^<]*<\|/det\|>)?"
ASIDES = (
    r"(?:image|figure|table|chart)_(?:caption|title|footnote)|header|footer|page_number|page_footnote|footnote|seal"
)
LABELS = rf"(?:{ASIDES}|title|sub_title|text|list|table|image|figure|chart|equation|formula|code|reference|aside_text)"

_CHARACTERS: dict[str, dict[str, str]] = {
    "ligatures": {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"},
    "invisible_characters": dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),
    "unicode_spaces": dict.fromkeys(map(chr, [0xA0, 0x202F, 0x205F, 0x3000, *range(0x2000, 0x200B)]), " "),
    "unicode_hyphens": dict.fromkeys("\u2010\u2011", "-"),
    "full_width_forms": {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    "micro_signs": {"\u00b5": "\u03bc"},
}
_SPECIAL = frozenset(character for table in _CHARACTERS.values() for character in table)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_SOFT_BREAK = re.compile("\u00ad[ \t]*\n[ \t]*")

_NUMBER_LIST = r"\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*"
_AUTHOR = r"[A-Z][\w'’-]*[a-zà-ÿ](?: [A-Z][\w'’-]*[a-zà-ÿ])?"
# One name needs its comma, "(Kannel, 1961)": "(Framingham 1961)" may be a place or a trial.
_AUTHORS = rf"{_AUTHOR}(?:(?:, {_AUTHOR})*,? (?:and|&) {_AUTHOR},?|,? et al\.?,?|,)"
_AUTHOR_YEAR = rf"{_AUTHORS} ?(?:1[89]|20)\d\d[a-z]?(?:, ?(?:(?:1[89]|20)\d\d)?[a-z]?)*"
_NO_AUTHOR = (
    "January February March April May June July August September October November December Spring Summer Autumn Winter "
    "Since Until From After Before Between About Around In By Version Class Grade Stage"
).split()
_PLACE = (
    r"(?:fig(?:ure)?s?|tables?|chapters?|sections?|appendi(?:x|ces)|box(?:es)?|plates?|videos?|algorithms?|panels?"
    r"|pp?(?=\.|\s)|pages?)"
)
_NUMBERED = r"\d[\dA-Za-z.–-]*"
_PLACES = (
    rf"(?:see\s+(?:also\s+)?|cf\.\s+|and\s+|in\s+)?{_PLACE}(?:\.?\s*{_NUMBERED}|\s(?-i:[A-Z])\b)"
    rf"(?:(?:,? and |, ?| to ){_NUMBERED})*"
)
_INLINE_TAGS = "a|abbr|b|big|cite|code|del|dfn|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|var|wbr"
_BLOCK_TAGS = (
    "article|aside|blockquote|body|br|button|caption|center|col|colgroup|dd|div|dl|dt|figcaption|figure|footer|form|"
    "h[1-6]|head|header|hr|html|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|"
    "style|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|ul"
)
_UNITS_RAISED = re.compile(r"(?:(?<![^\W\d_])(?:[cdkmnμ]?m|s|h|min|kg|g|L|l|in|ft|R|r|χ|\d*10)|[)\]])$")
_NOT_CITED = frozenset("inch feet foot metre metres meter meters mmhg".split())
_COUNTED = frozenset(
    """
    lead leads rib ribs day days week weeks month months year years grade grades class classes stage stages group groups
    factor factors type types step steps segment segments chromosome chromosomes phase phases case cases score scores
    level levels item items between than about
    """.split()
)


def _raised(match: re.Match[str]) -> str:
    """A marked superscript: an exponent, charge or mass number stays, raised; other digits are a citation."""
    inner, before = match[1].strip(), match.string[: match.start()]
    if match.string[match.end() : match.end() + 1].isalpha():
        return " " * match[0][0].isspace() + inner.translate(RAISED)
    exponent = inner.strip("+-−–") != inner or _UNITS_RAISED.search(before.rstrip()[-12:])
    return inner.translate(RAISED) if exponent else ""


def _unicode_citation(match: re.Match[str]) -> str:
    mark, before = match[0].strip(), match.string[: match.start()]
    letter_follows = match.string[match.end() : match.end() + 1].isalpha()
    if letter_follows and match[0][0].isspace():
        return match[0]  # "with ¹²³I"
    word = re.search(r"[A-Za-z]*$", before[-24:])[0]
    exponent = before[-1] in ")]" and mark in "²³"
    if exponent or (before[-1].isalpha() and (len(word) < 4 or word.lower() in _NOT_CITED)):
        return match[0]
    return " " if letter_follows else ""


def _bracket_citation(match: re.Match[str]) -> str:
    """ "[12, 14]" goes, "45 [38–52]" stays: a range around the number before it is an interval."""
    value = re.search(r"(\d+(?:\.\d+)?)\s*%?\s*$", match.string[max(0, match.start() - 12) : match.start()])
    bounds = [int(number) for number in re.findall(r"\d+", match[0])]
    return match[0] if value and len(bounds) == 2 and bounds[0] <= float(value[1]) <= bounds[1] else ""


def _round_citation(match: re.Match[str]) -> str:
    """ "in women (12,13)." goes if its numbers rise and no countable word stands before it ("leads (2, 3)")."""
    numbers = [int(number) for number in re.findall(r"\d+", match[0])]
    word = re.search(r"([A-Za-z]+)\s*$", match.string[max(0, match.start() - 24) : match.start()])
    safe = word and word[1].islower() and len(word[1]) > 3 and word[1] not in _COUNTED
    return "" if safe and numbers == sorted(set(numbers)) else match[0]


# In order: name, what must occur in the text for the rule to act, pattern, replacement.
GROUNDING: tuple[Rule, ...] = (
    ("grounding_tags", "<|ref|>", re.compile(TAGGED.format(label=LABELS) + r"[ \t]*"), "\n"),
    ("grounding_tags", "<|ref|>", re.compile(r"<\|ref\|>((?:[^<]|<(?!\|))*)<\|/ref\|>"), r"\1"),
    ("grounding_tags", "<|", re.compile(r"<\|det\|>[^<]*<\|/det\|>|<\|/?\w+\|>"), ""),
)
_RULES: tuple[Rule, ...] = (
    *GROUNDING,
    ("citations", "\\[", re.compile(rf"\\\[{_NUMBER_LIST}\\\]"), ""),
    ("formulas", "\\[", re.compile(r"\\\[(?=[^\]\\]*(?:\\[a-zA-Z]|[\^_=<>+])).+?\\\]"), " "),
    ("formulas", "\\(", re.compile(r"\\\((.+?)\\\)"), plain_formula),
    ("formulas", "$", re.compile(r"\$([^$\n]{0,80}[\\^_][^$\n]{0,80})\$"), plain_formula),
    ("superscripts", "<sup", re.compile(r"\s*<sup>\s*([+−–-]?\d+(?:\s?[,–-]\s?\d+)*[+−–-]?)\s*</sup>"), _raised),
    ("superscripts", "^", re.compile(r"\s?\^([+−–-]?\d+(?:\s?[,–-]\s?\d+)*[+−–-]?)\^"), _raised),
    ("citations", "[^", re.compile(r"\[\^\w+\](?!:)"), ""),
    ("html_comments", "<!--", re.compile(r"<!--.*?-->", re.DOTALL), " "),
    ("urls", "://", re.compile(r"<https?://[^\s>]*>"), ""),
    ("html_tags", "<", re.compile(rf"</?(?:{_INLINE_TAGS})(?:\s+[\w:-]+=[^<>]*)?\s*/?>", re.I), ""),
    (
        "html_tags",
        "<",
        re.compile(rf"</?(?:{_BLOCK_TAGS})(?:\s+[\w:-]+(?:=[^<>]*)?)?\s*/?>", re.I),
        " ",
    ),
    ("images", "![", re.compile(r"!\[[^\]]*\](?:\([^)]*\))?"), " "),
    ("links", "](", re.compile(r"\[([^\]]+)\]\((?:https?:|www\.|#|mailto:)[^)]*\)"), r"\1"),
    ("urls", "://", re.compile(r"\(\s*https?://[^\s)]+\s*\)|\bhttps?://[^\s)]*[^\s).,;:]"), ""),
    ("urls", "doi:", re.compile(r"\bdoi:\s?10\.\d{4,}/[^\s)]*[^\s).,;:]"), ""),
    ("citations", "[", re.compile(rf"(?<!\[)\[{_NUMBER_LIST}\](?!\])"), _bracket_citation),
    (
        "citations",
        "(",
        re.compile(r"\((?!\d{1,3},\d{3}\))\d{1,3}(?:, ?\d{1,3}(?:[–-]\d{1,3})?)+\)(?=[.,;]|$)"),
        _round_citation,
    ),
    (
        "author_year_citations",
        "(",
        re.compile(
            rf"\((?:see |see also |cf\. |e\.g\.,? |reviewed (?:in|by) )?(?!(?:{'|'.join(_NO_AUTHOR)})\b)"
            rf"{_AUTHOR_YEAR}(?:; ?{_AUTHOR_YEAR})*\)"
        ),
        "",
    ),
    ("cross_references", "(", re.compile(rf"\({_PLACES}(?:[,;]? {_PLACES})*\)|[;,] {_PLACES}(?=\))", re.I), ""),
    ("cross_references", "[", re.compile(rf"\[{_PLACES}(?:[,;]? {_PLACES})*\]", re.I), ""),
    (
        "cross_references",
        "(",
        re.compile(r"\((?:see|as described|as discussed)\s+(?:above|below|later|overleaf)\)"),
        "",
    ),
    ("emphasis", "**", re.compile(r"(?<!\*)(\*{2,3})(?=[^\s*])(.+?)(?<=[^\s*])\1(?!\*)"), r"\2"),
    ("emphasis", "__", re.compile(r"(?<!_)(__)(?=[^\s_])(.+?)(?<=[^\s_])\1(?!_)"), r"\2"),
    ("emphasis", "*", re.compile(r"(?<![\w*\\])(\*)(?=\S)([^*\n]+?)(?<=[^\s\\])\1(?![\w*])"), r"\2"),
    ("emphasis", "_", re.compile(r"(?<![\w*\\])(_)(?=\S)([^*_\n]+?)(?<=[^\s\\])\1(?![\w*])"), r"\2"),
    ("markdown_escapes", "\\", re.compile(r"\\([\\`*_{}\[\]()#+.!~<>|%&$-])"), r"\1"),
)
_MARKED_RULES = [(next(mark for mark in rule[1] if not mark.isalnum()), rule) for rule in _RULES]
_MARKS = frozenset(mark for mark, _ in _MARKED_RULES)
_UNICODE_CITATION = re.compile(
    r"(?<=[a-z.,;:!?”\"’)\]])\s?[¹²³⁴-⁹⁰]{1,3}(?:\s?[,–⁻-]\s?[¹²³⁴-⁹⁰]{1,3})*(?![⁺⁻⁰¹²³⁴-⁹])"
)
_SUPERSCRIPTS = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPACE_BEFORE_STOP = re.compile(r" +(?=[,;:.!?](?:\s|$))")


def clean_text(text: str, counts: Counter[str] | None = None) -> str:
    """Applies the inline rules to one text: Unicode forms, markup, citation marks, cross references, spaces."""
    counts = Counter() if counts is None else counts
    return clean_inline(plain_characters(text, counts).strip(), counts)


def clean_inline(text: str, counts: Counter[str]) -> str:
    """The part of ``clean_text`` that comes after ``plain_characters``."""
    if "  " in text or not text.isprintable():
        text = " ".join(text.split())
    before = text
    for name, needed, pattern, replacement in _rules_for(text):
        if needed in text:
            text = apply(name, pattern, replacement, text, counts)
    if not text.isascii() and not _SUPERSCRIPTS.isdisjoint(text):
        text = apply("superscripts", _UNICODE_CITATION, _unicode_citation, text, counts)
    if text is not before:
        text = " ".join(text.split())
    if " ," in text or " ." in text or " ;" in text or " :" in text or " !" in text or " ?" in text:
        text = _SPACE_BEFORE_STOP.sub("", text)
    return text


def apply(name: str, pattern: re.Pattern[str], replacement: str | Replacement, text: str, counts: Counter[str]) -> str:
    """``pattern.sub`` that counts the matches which changed."""
    if isinstance(replacement, str):
        text, changes = pattern.subn(replacement, text)
    else:
        changes = sum(replacement(match) != match[0] for match in pattern.finditer(text))
        text = pattern.sub(replacement, text) if changes else text
    if changes:
        counts[name] += changes
    return text


def _rules_for(text: str) -> list[Rule]:
    """The rules of which a mark occurs in the text: none for most sentences, and that is seen in one pass."""
    marks = _MARKS.intersection(text)
    return [rule for mark, rule in _MARKED_RULES if mark in marks] if marks else []


def plain_characters(text: str, counts: Counter[str]) -> str:
    """Entities decoded, NFC, and one form for spaces, hyphens, ligatures, full-width letters and the micro sign."""
    if "&" in text:
        text = _ENTITY.sub(lambda match: _decode(match[0], counts), text)
    if text.isascii():
        return text
    if "\u00ad" in text:
        text, changes = _SOFT_BREAK.subn("", text)
        counts["hyphenations"] += changes
    text = unicodedata.normalize("NFC", text)
    present = _SPECIAL.intersection(text)
    for name, table in _CHARACTERS.items() if present else ():
        if found := [character for character in present if character in table]:
            counts[name] += sum(map(text.count, found))
            for character in found:  # on long texts far quicker than str.translate
                text = text.replace(character, table[character])
    return text


def _decode(entity: str, counts: Counter[str]) -> str:
    character = html.unescape(entity)
    counts["html_entities"] += character != entity
    return character
