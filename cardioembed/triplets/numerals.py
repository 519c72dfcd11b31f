"""Changes of quantities: doubled or halved, comparators turned, classes and types moved; never a mere rounding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from cardioembed.lexicon import lexicon
from cardioembed.triplets.edits import Change, Word

_NUMBER = re.compile(r"(?<![\w.,/^+×*(=-])(?<![\w)]-)(?<![<>≥≤~] -)\d+(?:,\d{3})*(?:\.\d+)?(?![\d^])")
_DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_RANGE_BEFORE = re.compile(
    r"\d%?\s?(?:to|and|or|[-–—/×x:])\s?$|\bbetween\s$|\bfrom\s$|\b(?:every|pH(?: of| below| above)?)\s$"
)
# A limit that is moved may say no less or no more than before ("under 500" holds whenever "under 250" does); the words
# are turned instead.
_LIMIT_BEFORE = re.compile(
    r"(?:\b(?:above|below|under|over|beyond|within|exceed\w*|past|than|(?:at|the) (?:least|most)|up to|the first|"
    r"inside|as (?:much|many|little|few|high|low|long|early|late|large|small) as|"
    r"equal to|minimum(?: of)?|maximum(?: of)?)|[<>≥≤]|[<>]=)\s?(?:about |around |roughly |approximately |some )?$",
    re.IGNORECASE,
)
_RANGE_AFTER = re.compile(
    r"(?:\s?[-–—/×:]\s?|\s?(?:%|[a-zA-Zµ]{1,12})?\s(?:to|or|and)\s(?:about\s)?)\d|"
    r"(?:\s?%)?\s(?:to|or)\s(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve)\b"
)
# The same for spans: what happens in, by or over 6 hours also does in, by or over 12.
_SPAN_BEFORE = re.compile(
    r"\b(?:in|by|over|during|throughout|initial|first|last|next|final|past|previous|preceding|following|subsequent|"
    r"only|some|another|until|till|least|most|within|than|under|beyond|to)\s"
    r"(?:the |about |around |roughly |approximately |some |first |last |next |initial )*$",
    re.IGNORECASE,
)
# A risk above 5% within 30 days is above it within 60 days, too.
_HORIZON = re.compile(
    r"-(?:second|minute|hour|day|week|month|year)\b[\w -]{0,24}?\b(?:rate|mortality|death|event|risk|surviv)"
)
# Words by which more of the quantity says the same, or less of it does.
_MONOTONE = re.compile(
    r"\b(?:suffic\w*|enough|suffices?|finished|complet\w*|still|already|even|tolerat\w*)\b", re.IGNORECASE
)
_LIMIT_AFTER = re.compile(
    r"\s?(?:or|and|at) (?:more|less|above|below|over|under|higher|lower|older|younger|greater|longer)\b"
)
_NOT_A_QUANTITY = re.compile(
    r"\s?%\s(?:confidence|CI\b|saline|dextrose|glucose|oxygen|NaCl|lidocaine|albumin)", re.IGNORECASE
)
_TIME = re.compile(
    r"(?:second|minute|hour|day|week|month|year|time|point|beat|unit|joule|gram|litre|metre|liter|meter|drink|degree)s?$"
)
_COMPARATOR = re.compile(r"(?<![<>=≤≥-])(?:[<>≥≤]|>=|<=)(?=\s?\d)")
_TURNED = {"<": ">", ">": "<", "≥": "<", "≤": ">", ">=": "<", "<=": ">"}
_RANK = re.compile(
    r"\b(?P<what>[Cc]lass|[Gg]rade|[Ss]tage|[Tt]ype|TIMI|[Pp]hase)"
    r" (?P<rank>I{1,3}|IV|[0-5]|[A-E])\b(?!\s?(?:[-–—/,]|\.\d|to\b|or\b|and\b|through\b))"
)
_MOVED = {
    "type": {"1": "2", "2": "1", "I": "II", "II": "I", "A": "B", "B": "A"},
    "timi": {"0": "3", "1": "3", "2": "0", "3": "0"},
    "": {"I": "III", "II": "IV", "III": "I", "IV": "II", "1": "3", "2": "4", "3": "1", "4": "2", "5": "2",
         "A": "C", "B": "D", "C": "A", "D": "B", "E": "B"},
}  # fmt: skip
_WORDS = {"two": "four", "three": "six", "four": "eight", "five": "ten", "six": "three", "seven": "fourteen",
          "eight": "four", "nine": "three", "ten": "five", "twelve": "six"}  # fmt: skip
_TIMES = frozenset("seconds minutes hours days weeks months years times".split())
_FACTORS = (2.0, 0.5)


def number_changes(text: str) -> Iterator[Change]:
    """Every acceptable change of one quantity, comparator or rank; nothing for dates, names and list numbers."""
    for match in _COMPARATOR.finditer(text):
        yield match.start(), match.end(), _TURNED[match[0]]
    stated = {_value(found) for found in _DIGITS.findall(text)}
    for match in _NUMBER.finditer(text):
        yield from _scaled(text, match, stated)
    for match in _RANK.finditer(text):
        what = match["what"].lower()
        moved = _MOVED["type" if what == "type" else "timi" if what == "timi" else ""].get(match["rank"])
        if moved and text.count(match[0]) == 1 and not re.search(rf"\b{moved}\b", text):
            yield match.start("rank"), match.end("rank"), moved


def word_number_changes(text: str, words: Sequence[Word]) -> Iterator[Change]:
    """The same for quantities of time in words: "two weeks", not "one to two weeks"."""
    for index, (word, start, end) in enumerate(words[:-1]):
        if word in _WORDS and words[index + 1][0] in _TIMES and text[end] == " ":
            joined = index and (words[index - 1][0] in ("to", "or", "and") or text[start - 1] == "-")
            before = text[max(0, start - 30) : start]
            if (
                joined
                or _MONOTONE.search(text)
                or _LIMIT_BEFORE.search(before)
                or _SPAN_BEFORE.search(before)
                or _LIMIT_AFTER.match(text, words[index + 1][2])
            ):
                continue
            if all(other != _WORDS[word] for other, _, _ in words):
                yield start, end, _WORDS[word]


def _scaled(text: str, match: re.Match[str], stated: set[float]) -> Iterator[Change]:
    unit = _units().match(text, match.end())
    if not unit or _RANGE_AFTER.match(text, match.end()) or _NOT_A_QUANTITY.match(text, match.end()):
        return
    if _HORIZON.match(text, match.end()) or _MONOTONE.search(text):
        return
    if _RANGE_BEFORE.search(text[max(0, match.start() - 12) : match.start()]):
        return
    if _LIMIT_BEFORE.search(text[max(0, match.start() - 30) : match.start()]) or _LIMIT_AFTER.match(text, unit.end()):
        return
    if _TIME.match(unit["unit"]) and _SPAN_BEFORE.search(text[max(0, match.start() - 30) : match.start()]):
        return
    for factor in _FACTORS:
        value = _value(match[0]) * factor
        new = _written(value, match[0])
        if new is None or value in stated or not _plausible(value, unit["unit"], text):
            continue
        if not _TIME.match(unit["unit"]):
            yield match.start(), match.end(), new
            continue
        if value == 1:
            continue
        word = unit["unit"]
        plural = word if word.endswith("s") or unit["join"] == "-" else word + "s"
        yield match.start(), unit.end(), new + unit["join"] + plural


def _written(value: float, old: str) -> str | None:
    """The value with as many decimals as the old number has, or None if it needs more."""
    decimals = len(old.partition(".")[2])
    rounded = round(value, decimals)
    if abs(rounded - value) > 1e-9:
        if decimals or value < 20:
            return None
        rounded = 5 * round(value / 5)
    return f"{rounded:,.{decimals}f}" if "," in old else f"{rounded:.{decimals}f}"


def _plausible(value: float, unit: str, text: str) -> bool:
    if value == 0:
        return False
    if unit in ("%", "percent", "per cent"):
        return value <= 95
    if unit.startswith("year"):
        return value <= 90
    return value <= 180 if unit == "degrees" else value < 100_000


def _value(number: str) -> float:
    return float(number.replace(",", ""))


@cache
def _units() -> re.Pattern[str]:
    units = sorted(lexicon().words["units"], key=len, reverse=True)
    return re.compile(rf"(?P<join>\s|-|)(?P<unit>{'|'.join(map(re.escape, units))})(?![A-Za-z\d])")
