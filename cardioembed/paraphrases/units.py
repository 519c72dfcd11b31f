"""Quantities that a text states, in digits and in words, each a number with its unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cardioembed.paraphrases.numerals import DIGIT, SPELLING, WORD_NUMBERS, plain_number, spelt_number
from cardioembed.paraphrases.wording import Wording

_UNITS = {
    spelling: unit
    for unit, spellings in {
        "ng": "ng nanogram nanograms", "pg": "pg picogram picograms",
        "µg": "microgram micrograms mcg ug µg μg", "mg": "mg milligram milligrams", "g": "g gram grams gramme grammes",
        "kg": "kg kilogram kilograms kilo kilos", "ml": "ml millilitre millilitres milliliter milliliters cc",
        "dl": "dl decilitre deciliter", "l": "l litre litres liter liters",
        "µm": "µm μm micrometre micrometres", "mm": "mm millimetre millimetres millimeter millimeters",
        "cm": "cm centimetre centimetres centimeter centimeters", "m": "m metre metres meter meters",
        "mmHg": "mmhg torr", "kPa": "kpa", "ms": "ms msec millisecond milliseconds", "s": "s sec secs second seconds",
        "min": "min mins minute minutes", "h": "h hr hrs hour hours", "day": "day days",
        "week": "week weeks wk wks", "month": "month months mo", "year": "year years yr yrs",
        "decade": "decade decades", "fortnight": "fortnight fortnights",
        "%": "% percent", "mmol": "mmol millimole millimoles", "µmol": "µmol μmol umol micromole micromoles",
        "mEq": "meq", "J": "j joule joules", "Hz": "hz hertz", "kHz": "khz", "MHz": "mhz",
        "mV": "mv millivolt millivolts",
        "V": "v volt volts", "cmH2O": "cmh2o", "W": "watt watts", "IU": "iu units unit",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_SIZES = {
    "pg": ("mass", 1e-12), "ng": ("mass", 1e-9), "µg": ("mass", 1e-6), "mg": ("mass", 1e-3), "g": ("mass", 1.0),
    "kg": ("mass", 1e3), "ml": ("volume", 1e-3), "dl": ("volume", 0.1), "l": ("volume", 1.0), "µm": ("length", 1e-6),
    "mm": ("length", 1e-3), "cm": ("length", 1e-2), "m": ("length", 1.0), "ms": ("time", 1e-3), "s": ("time", 1.0),
    "min": ("time", 60.0), "h": ("time", 3600.0), "day": ("time", 86400.0), "week": ("time", 604800.0),
    "fortnight": ("time", 1209600.0), "month": ("time", 2629800.0), "year": ("time", 31557600.0),
    "decade": ("time", 315576000.0), "µmol": ("amount", 1e-6), "mmol": ("amount", 1e-3), "Hz": ("rate", 1.0),
    "kHz": ("rate", 1e3), "MHz": ("rate", 1e6), "mV": ("voltage", 1e-3), "V": ("voltage", 1.0),
}  # fmt: skip
_VALUE = r"(?<![A-Za-z\d.,])(\d+(?:[.,]\d+)*)"
_QUANTITY = re.compile(
    _VALUE + r"[\s\u00a0-]?(%|per cent\b|mm\s?Hg\b|mm of mercury\b|mm[²³2-3]|cmH2O|[A-Za-zµμ]+)"
    r"(?:\s?(?:/|per )\s?([A-Za-z]+))?"
)
_RANGE = re.compile(_VALUE + r"\s?(?:-|–|to|and|or)\s?(?=(\d+(?:[.,]\d+)*)[\s-]?(%|[A-Za-zµμ]+))")
SPELT_UNITS = {word: unit for word, unit in _UNITS.items() if len(word) > 2 and word.isalpha()}
# What a word before a unit counts: "an hour", "the first day", but not "a second day".
_COUNTS = {word: n for word, n in WORD_NUMBERS.items() if word not in ("second", "third", "both", "half", "either")}
_COUNTS |= {"a": "1", "an": "1"}


def has_equal(number: str, first: Wording, second: Wording) -> bool:
    """Whether a quantity of this number in one text has an equal in the other: "seven days" and "a week"."""
    sizes = [size for value, unit, _ in quantities(first) if value == number and (size := _size(value, unit))]
    others = [size for value, unit, _ in quantities(second) if (size := _size(value, unit))]
    return any(kind == other and _close(size, same, kind) for kind, size in sizes for other, same in others)


def units_and_rates(wording: Wording) -> dict[str, tuple[set[str], set[str]]]:
    found: dict[str, tuple[set[str], set[str]]] = {}
    for number, unit, rate in quantities(wording):
        held = found.setdefault(number, (set(), set()))
        held[0].add(unit)
        if rate:
            held[1].add(rate)
    return found


def quantities(wording: Wording) -> Iterator[tuple[str, str, str]]:
    """(number, unit, unit per which) of every quantity, in digits and in words ("two to three years")."""
    text = wording.text
    if DIGIT.search(text):
        for number, unit, rate in _QUANTITY.findall(text):
            if known := _unit(unit):
                yield plain_number(number), known, _UNITS.get(rate.lower(), "") if rate else ""
        for number, _, unit in _RANGE.findall(text):
            if known := _unit(unit):
                yield plain_number(number), known, ""
    if not wording.vocabulary.isdisjoint(SPELT_UNITS):
        yield from _counted(wording.words)


def _counted(words: list[str]) -> Iterator[tuple[str, str, str]]:
    """Quantities in words: "two to three years", "half an hour", "an hour and a half", "twenty-four hours"."""
    for place, word in enumerate(words):
        if word in SPELT_UNITS and place:
            half = ".5" * (words[place + 1 : place + 4] == ["and", "a", "half"])
            first, joint, second = (["", ""] + words[max(0, place - 3) : place])[-3:]
            counts = {_COUNTS[count] + half for count in (first, second) if count in _COUNTS}
            if joint not in ("to", "or", "and"):
                counts = {_COUNTS[second] + half} if second in _COUNTS else set()
            if second in SPELLING:
                spelt = {n for size in (2, 3, 4, 5) if (n := spelt_number(words[max(0, place - size) : place]))}
                parts = {size for said, size in _PARTS.items() if words[max(0, place - len(said)) : place] == [*said]}
                counts = {n for n in spelt if "." in n} or parts or counts | spelt
            for count in sorted(counts):
                yield count, SPELT_UNITS[word], ""


_PARTS = {
    ("half", "a"): "0.5", ("half", "an"): "0.5", ("half",): "0.5", ("quarter", "of", "an"): "0.25",
    ("quarter", "of", "a"): "0.25", ("quarters", "of", "an"): "0.75", ("quarters", "of", "a"): "0.75",
}  # fmt: skip


def _unit(spelling: str) -> str | None:
    plain = spelling.lower()
    if plain.startswith(("mm hg", "mm of", "mmhg")):
        return "mmHg"
    return "%" if plain == "per cent" else _UNITS.get(plain)


def _size(number: str, unit: str) -> tuple[str, float] | None:
    if unit not in _SIZES:
        return None
    kind, factor = _SIZES[unit]
    return kind, float(number) * factor


def _close(size: float, other: float, kind: str) -> bool:
    """Months and years are rounded in speech: twelve weeks are three months."""
    tolerance = 0.08 if kind == "time" else 1e-6
    return abs(size - other) <= tolerance * max(size, other)
