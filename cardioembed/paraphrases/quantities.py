"""Numbers, units and shares that a text states, and what changed between two texts."""

from __future__ import annotations

import re

from cardioembed.paraphrases.denials import tells_the_rest
from cardioembed.paraphrases.numerals import (
    DIGIT,
    PLAIN_WORDS,
    WORD_NUMBERS,
    numbers,
    roman_numbers,
    roman_value,
    same_share,
    shares,
    stated_numbers,
)
from cardioembed.paraphrases.rates import same_rate
from cardioembed.paraphrases.units import SPELT_UNITS, has_equal, units_and_rates
from cardioembed.paraphrases.wording import Wording

_RANKED = frozenset(
    "class classes grade grades stage type types nyha lead leads killip mobitz functional williams ccs".split()
)
_ROMAN_WORDS = frozenset(
    numeral + letter for numeral in "i ii iii iv v vi vii viii ix".split() for letter in ("", "a", "b", "c")
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)")


def number_change(original: Wording, paraphrase: Wording) -> str | None:
    """The numbers that were lost or added, or None; equal quantities in other units are no change."""
    before, after = (
        numbers(wording.text) if DIGIT.search(wording.text) else set() for wording in (original, paraphrase)
    )
    if before == after:
        return None
    lost, added = _unstated(before - after, original, paraphrase), _unstated(after - before, paraphrase, original)
    if not lost and not added:
        return None
    return "; ".join(
        f"{verb} {', '.join(sorted(values))}" for verb, values in (("lost", lost), ("added", added)) if values
    )


def _unstated(missing: set[str], first: Wording, second: Wording) -> set[str]:
    """Those of the numbers missing from the second text that it does not state in any other form either."""
    if missing:
        whole, other = (_GROUPED.sub(_joined, wording.text) for wording in (first, second))
        missing = numbers(whole) - numbers(other) - stated_numbers(other)
    return {number for number in missing if not _stated_otherwise(number, first, second)}


def _joined(thousands: re.Match[str]) -> str:
    return re.sub(r"\s", "", thousands[0])


def _stated_otherwise(number: str, first: Wording, second: Wording) -> bool:
    """Whether a number is in the other text as an equal quantity, an article, a share, its rest, or a rate."""
    if has_equal(number, first, second) or same_share(number, first.text, second.text):
        return True
    if number == "1" and re.search(r"\b(?:an?|per|each|every|the|sole|only)\b", second.text):
        return True
    if number == "12" and "tracing" in second.keys and re.search(r"\b12[ -]lead", first.text):
        return True
    return same_rate(number, first.text, second.text) or number in tells_the_rest(first, second)


def word_number_change(original: Wording, paraphrase: Wording) -> str | None:
    """A number in words, or a Roman one, that gave way to another number; or a share that gave way to another."""
    romans = [_romans(wording) for wording in (original, paraphrase)]
    spelt = [wording.vocabulary & PLAIN_WORDS for wording in (original, paraphrase)]
    if spelt[0] == spelt[1] and romans[0] == romans[1]:
        return None
    lost = _words_lost(original, paraphrase, spelt[0], romans[0])
    added = _words_lost(paraphrase, original, spelt[1], romans[1])
    if lost and added:
        return f"{lost[0]} became {added[0]}"
    return _share_change(original, paraphrase) or _count_change(original, paraphrase)


def _words_lost(first: Wording, second: Wording, spelt: set[str], romans: set[str]) -> list[str]:
    values = {word: WORD_NUMBERS[word] for word in spelt} | {roman: roman_value(roman) for roman in romans}
    if not values:
        return []
    missing = {word: value for word, value in values.items() if value not in stated_numbers(second.text)}
    return sorted(word for word, value in missing.items() if not _stated_otherwise(value, first, second))


def _share_change(original: Wording, paraphrase: Wording) -> str | None:
    """A share, the only one in each text, that is neither the same nor the rest of it."""
    before, after = shares(original.text), shares(paraphrase.text)
    if len(before) != 1 or len(after) != 1 or abs(before[0][0] - after[0][0]) < 5:
        return None
    told = numbers(original.text)
    if len(told) > 1 and told == numbers(paraphrase.text):
        return None  # "fell by two thirds, from 60 to 20" is "to one third"
    return None if tells_the_rest(original, paraphrase) else f"{before[0][0]:.0f}% became {after[0][0]:.0f}%"


def _count_change(original: Wording, paraphrase: Wording) -> str | None:
    """Things that are counted in each text once, in words, and in another number."""
    before, after = _counted_things(original), _counted_things(paraphrase)
    for thing in before.keys() & after.keys():
        if len(before[thing]) == len(after[thing]) == 1 and before[thing] != after[thing]:
            return f"{min(before[thing])} became {min(after[thing])} before {thing}"
    return None


def _counted_things(wording: Wording) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for word, following, key in zip(wording.words, wording.words[1:], wording.keys[1:], strict=False):
        if word in _COUNTING and key and following.endswith("s") and following not in SPELT_UNITS:
            found.setdefault(key, set()).add(WORD_NUMBERS[word])
    return found


_COUNTING = frozenset("two three four five six seven eight nine ten eleven twelve".split())


def _romans(wording: Wording) -> set[str]:
    if wording.vocabulary.isdisjoint(_ROMAN_WORDS) or wording.vocabulary.isdisjoint(_RANKED):
        return set()
    return roman_numbers(wording.text)


def unit_change(original: Wording, paraphrase: Wording) -> str | None:
    """A number that kept its value and changed its unit, or None."""
    shared = original.vocabulary & paraphrase.vocabulary
    spelt = not (
        SPELT_UNITS.keys().isdisjoint(original.vocabulary) or SPELT_UNITS.keys().isdisjoint(paraphrase.vocabulary)
    )
    if not spelt and not any(word[0].isdigit() for word in shared):
        return None
    before, after = units_and_rates(original), units_and_rates(paraphrase)
    for number in sorted(before.keys() & after.keys()):
        (units_before, per_before), (units_after, per_after) = before[number], after[number]
        equal = (
            units_before & units_after
            or has_equal(number, original, paraphrase)
            or has_equal(number, paraphrase, original)
        )
        if not equal:
            return f"{number} {min(units_before)} became {number} {min(units_after)}"
        if per_before and per_after and not per_before & per_after:
            return f"{number} per {min(per_before)} became {number} per {min(per_after)}"
    return None
