"""Limits (above, at most, within the first) that a text sets, and what changed between two texts."""

from __future__ import annotations

import re

from cardioembed.paraphrases.numerals import DIGIT, plain_number, word_number
from cardioembed.paraphrases.wording import Wording

_NUMBER_WORDS = frozenset(
    "one two three four five six seven eight nine ten twelve fifteen twenty thirty forty fifty sixty seventy eighty "
    "ninety".split()
)
_DIGITS = re.compile(r"(?<![A-Za-z\d.,])\d+(?:[.,]\d+)*")
_VALUE = re.compile(rf"{_DIGITS.pattern}|\b(?:{'|'.join(sorted(_NUMBER_WORDS))})\b")
_MORE = "more|greater|higher|longer|older|larger|bigger|wider|broader|thicker|later|faster|deeper|taller|heavier"
_LESS = "less|fewer|lower|smaller|shorter|younger|narrower|thinner|earlier|slower|shallower|lighter"
_UP = (
    r"above|over|exceed\w*|beyond|surpass\w*|in excess of|at least|(?:a )?minimum(?: of)?|upwards? of|"
    rf"(?:{_MORE}) than|after(?: the (?:first|initial))?|not? (?:{_LESS}) than|not (?:under|below)|>=?|≥|⩾"
)
_DOWN = (
    rf"within(?: the (?:first|initial))?|(?:in|during|over) the (?:first|initial)|"
    rf"below|under|at most|(?:a )?maximum(?: of)?|up to|(?:{_LESS}) than|"
    rf"not? (?:{_MORE}) than|not (?:over|above|to exceed|exceed\w*)|never exceed\w*|without exceeding|<=?|≤|⩽"
)
_FILLER = r"(?:\s|about|around|roughly|approximately|or equal to|of|an?|the|some|age|aged)*"
_BEFORE = re.compile(rf"(?:^|(?<=[\s(,;]))(?:(?P<down>{_DOWN})|(?P<up>{_UP})){_FILLER}$", re.IGNORECASE)
_AFTER = re.compile(
    rf"^[^\d.,;()]{{0,24}}?(?:\b(?:or|and)\s+(?:(?P<up>{_MORE}|above|over|upwards?|beyond)|"
    rf"(?P<down>{_LESS}|below|under|downwards?))\b(?!\s+(?:than\s+)?\d)"
    r"|\s(?P<up2>at (?:the )?(?:very )?least)(?=[\s.,;]|$)|\s(?P<down2>at (?:the )?(?:very )?most)(?=[\s.,;]|$))",
    re.IGNORECASE,
)
_TIME = re.compile(r"[ -](?:second|minute|hour|day|week|month)s?\b")  # "over 24 hours" is within them or beyond
_CLAUSE_END = re.compile(r"[,;:.]")
_SIGNS = frozenset("<>≤≥⩽⩾")
_LIMIT_WORDS = frozenset(
    "above over exceed exceeds exceeding exceeded beyond surpass surpasses surpassing excess least minimum "
    "within first initial after upwards below under most maximum".split()
) | {*_MORE.split("|"), *_LESS.split("|"), "up"}
# A limit under one of these is told from its other end: "has not risen above 35" is "35 or less".
_TURNED = re.compile(
    r"\b(?:no|not|never|without|unless|until|cannot|nor|neither|except|fail\w*|\w+n't)\b", re.IGNORECASE
)


def limit_change(original: Wording, paraphrase: Wording) -> str | None:
    """A number whose lower limit became an upper one or the other way round, or None."""
    if not (_may_limit(original) and _may_limit(paraphrase)):
        return None
    spelt = not (_NUMBER_WORDS.isdisjoint(original.vocabulary) and _NUMBER_WORDS.isdisjoint(paraphrase.vocabulary))
    pattern = _VALUE if spelt else _DIGITS
    values = [list(pattern.finditer(wording.text.lower())) for wording in (original, paraphrase)]
    shared = set.intersection(*({_number(match) for match in matches} for matches in values))
    if not shared:
        return None
    before, after = (
        _limits(w.text, matches, shared) for w, matches in zip((original, paraphrase), values, strict=True)
    )
    for number in sorted(before.keys() & after.keys()):
        if len(before[number]) == len(after[number]) == 1 and before[number] != after[number]:
            return f"{'above' if 'up' in before[number] else 'below'} {number} became the opposite"
    return None


def _may_limit(wording: Wording) -> bool:
    if not DIGIT.search(wording.text) and _NUMBER_WORDS.isdisjoint(wording.vocabulary):
        return False
    return not wording.vocabulary.isdisjoint(_LIMIT_WORDS) or not _SIGNS.isdisjoint(wording.text)


def _number(match: re.Match[str]) -> str:
    return plain_number(word_number(match[0]))


def _limits(text: str, values: list[re.Match[str]], wanted: set[str]) -> dict[str, set[str]]:
    """The kinds of limit, up or down, that each wanted number is; numbers under a denial are left out."""
    found: dict[str, set[str]] = {}
    ends = [0, *(match.end() for match in values)]
    for end, match in zip(ends, values, strict=False):
        if (number := _number(match)) not in wanted:
            continue
        start = max(end, match.start() - 40)
        before = _BEFORE.search(text[start : match.start()])
        after = _AFTER.search(text[match.end() : match.end() + 45])
        if before or after:
            clause = text[max(end, match.start() - 60) : start + before.start() if before else match.start()]
            spans = before and before[0].lower().startswith("over") and _TIME.match(text, match.end())
            turned = spans or _TURNED.search(_CLAUSE_END.split(clause)[-1])
            kinds = {"turned" if turned else (m.lastgroup or "").rstrip("2") for m in (before, after) if m}
            found.setdefault(number, set()).update(kinds)
    return {number: kinds for number, kinds in found.items() if "turned" not in kinds}
