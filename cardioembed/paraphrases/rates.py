"""Dosing rates (twice daily, every eight hours) that a text states, and what changed between two texts."""

from __future__ import annotations

import re

from cardioembed.paraphrases.numerals import word_number
from cardioembed.paraphrases.wording import Wording

_RATE_WORDS = frozenset(
    "daily day days once twice thrice bid tid qid bd tds qds od qd hourly hour hours weekly week weeks monthly month "
    "months yearly year years annually annual every nightly night b t q o alternate fortnight fortnightly".split()
)
# Without one of these in either text, all rates are of the kind "a day".
_COUNT_WORDS = frozenset(
    "daily once twice thrice bid tid qid bd tds qds od qd hourly weekly monthly yearly annually every each nightly b "
    "t q o alternate fortnightly times doses dose".split()
)
_PERIODS = {
    "hour": 1 / 24, "hours": 1 / 24, "day": 1.0, "days": 1.0, "daily": 1.0, "night": 1.0, "nightly": 1.0,
    "morning": 1.0, "evening": 1.0, "week": 7.0, "weekly": 7.0, "weeks": 7.0, "fortnight": 14.0, "fortnightly": 14.0,
    "month": 30.0, "monthly": 30.0, "months": 30.0, "year": 365.0, "yearly": 365.0, "annually": 365.0, "years": 365.0,
}  # fmt: skip
_PERIOD = "|".join(sorted(_PERIODS, key=len, reverse=True))
_COUNT = r"\d+|one|two|three|four|five|six|eight|twelve"
_TIMES = re.compile(
    rf"\b(?:(once|twice|thrice)|({_COUNT})(?: (?:to|or) ({_COUNT}))?[\s-]"
    r"(?:times|(?:divided |separate |equal )?doses?))[\s-]+(?:in |over )?(?:an? |per |each |every )?(?:single )?"
    rf"({_PERIOD})\b",
    re.IGNORECASE,
)
_EVERY = re.compile(
    rf"\b(?:every|each) (?:({_COUNT}|second|other|third|alternate)(?:st|nd|rd|th)?(?: (?:to|or) ({_COUNT}))?[\s-])?"
    rf"({_PERIOD})\b",
    re.IGNORECASE,
)
_HOURLY = re.compile(r"\b(\d+|four|six|eight|twelve)[\s-]?hourly\b|\bq(\d+)h\b", re.IGNORECASE)
_ALTERNATE = re.compile(r"\balternate[\s-]days?\b", re.IGNORECASE)
_SHORT = re.compile(r"\b(b\.?i\.?d|t\.?i\.?d|q\.?i\.?d|b\.?d|t\.?d\.?s|q\.?d\.?s|o\.?d|q\.?d)\b")
_SHORT_RATES = {"bid": 2.0, "bd": 2.0, "tid": 3.0, "tds": 3.0, "qid": 4.0, "qds": 4.0, "od": 1.0, "qd": 1.0}
_PLAIN_RATE = re.compile(
    rf"(?<!times )(?<!-)\b(daily|nightly|weekly|monthly|yearly|annually|fortnightly)\b|\b(?:an?|per) ({_PERIOD})\b",
    re.IGNORECASE,
)


def rate_change(original: Wording, paraphrase: Wording) -> str | None:
    """A dosing rate that gave way to another, or None."""
    if any(_RATE_WORDS.isdisjoint(wording.vocabulary) for wording in (original, paraphrase)):
        return None
    if _COUNT_WORDS.isdisjoint(original.vocabulary | paraphrase.vocabulary):
        return None
    before, after = _rates(original.text), _rates(paraphrase.text)
    if not before or not after:
        return None
    lost = _without(before, after | _plain_rates(paraphrase.text))
    added = _without(after, before | _plain_rates(original.text))
    return f"{round(max(lost), 3):g} a day became {round(max(added), 3):g} a day" if lost and added else None


def _without(rates: set[float], others: set[float]) -> set[float]:
    """The rates that differ from all others by more than the rounding of months and years."""
    return {rate for rate in rates if all(abs(rate - other) > 0.08 * rate for other in others)}


def _rates(text: str) -> set[float]:
    """Doses a day: twice daily 2, every 8 hours 3, weekly 0.143."""
    found = set()
    for often, count, most, period in _TIMES.findall(text):
        found |= {_rate(_count(n), period) for n in (often or count, most) if n}
    for count, most, period in _EVERY.findall(text):
        found |= {_rate(1 / _count(n), period) for n in (count, most) if n}
    found |= {_rate(1, period) for count, _, period in _EVERY.findall(text) if not count}
    found |= {_rate(24 / _count(a or b), "day") for a, b in _HOURLY.findall(text)}
    found |= {0.5 for _ in _ALTERNATE.findall(text)}
    found |= {_SHORT_RATES[short.replace(".", "")] for short in _SHORT.findall(text)}
    return found or _plain_rates(text)


def _plain_rates(text: str) -> set[float]:
    """Rates without a count: "daily", "a week", "every day"."""
    periods = [a or b for a, b in _PLAIN_RATE.findall(_TIMES.sub(" ", text))]
    return {_rate(1, period) for period in periods + [p for count, _, p in _EVERY.findall(text) if not count]}


def _rate(count: float, period: str) -> float:
    return round(count / _PERIODS[period.lower()], 4)


def _count(word: str) -> float:
    special = {"other": 2.0, "alternate": 2.0}
    return special.get(word.lower()) or float(word_number(word))


def same_rate(number: str, first: str, second: str) -> bool:
    """Whether a number belongs to a rate that the other text tells in other words: 12 in "every 12 hours"."""
    told = {
        n
        for match in (*_EVERY.finditer(first), *_HOURLY.finditer(first), *_TIMES.finditer(first))
        for n in match.groups()
        if n
    }
    if number not in map(word_number, told):
        return False
    rates = _rates(first)
    return len(_without(rates, _rates(second) | _plain_rates(second))) < len(rates)
