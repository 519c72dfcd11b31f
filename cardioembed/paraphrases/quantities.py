"""Numbers and units that a text states."""

from __future__ import annotations

import re

_WORD_NUMBERS = {
    word: number
    for number, words in {
        "0": "zero", "1": "one single first once", "10": "ten tenth tenfold", "100": "hundred", "1000": "thousand",
        "2": "two second twice half both pair double doubled doubles doubling twofold dual",
        "3": "three third thirds triple threefold thrice", "4": "four fourth quarter quarters fourfold",
        "5": "five fifth fivefold", "6": "six sixth", "7": "seven seventh", "8": "eight eighth", "9": "nine ninth",
        "11": "eleven", "12": "twelve", "13": "thirteen", "14": "fourteen", "15": "fifteen", "16": "sixteen",
        "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty", "30": "thirty", "40": "forty",
        "50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety",
    }.items()
    for word in words.split()
}  # fmt: skip

# A sign before a digit joins words ("30-day") more often than it negates, so signs are not compared.
_NUMBER = re.compile(r"(?<![A-Za-z\d.,])\d+(?:[.,]\d+)*(?![A-Za-z]*\d)")
_ANY_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")

_UNITS = {
    spelling: unit
    for unit, spellings in {
        "µg": "microgram micrograms mcg ug µg μg", "mg": "mg milligram milligrams", "g": "g gram grams",
        "kg": "kg kilogram kilograms", "ml": "ml millilitre millilitres milliliter milliliters cc",
        "l": "l litre litres liter liters", "mm": "mm millimetre millimetres millimeter millimeters",
        "cm": "cm centimetre centimetres centimeter centimeters", "m": "m metre metres meter meters",
        "mmHg": "mmhg", "ms": "ms msec millisecond milliseconds", "s": "s sec second seconds",
        "min": "min mins minute minutes", "h": "h hr hrs hour hours", "day": "day days",
        "week": "week weeks", "month": "month months", "year": "year years",
        "%": "% percent", "mmol": "mmol millimole millimoles", "J": "j joule joules", "Hz": "hz hertz",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_QUANTITY = re.compile(r"(?<![A-Za-z\d.,])(\d+(?:[.,]\d+)*)[\s-]?(%|[A-Za-zµμ]+)")


def numbers(text: str) -> set[str]:
    """The free-standing numbers written in digits, without thousands commas and trailing zeros: ``{"2.5", "40"}``.

    Digits inside a name or unit ("PDE5", "cm2", "rSR2") are not numbers.
    """
    return {_plain(match) for match in _NUMBER.findall(text)}


def stated_numbers(text: str) -> set[str]:
    """Every number that a text could be said to state: digits anywhere, and number words ("twenty-four")."""
    words = re.findall(r"[a-z]+", text.lower())
    stated = {_plain(match) for match in _ANY_DIGITS.findall(text)}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in _WORD_NUMBERS:
            value, more = int(_WORD_NUMBERS[word]), int(_WORD_NUMBERS.get(following, "0"))
            stated.add(str(value))
            if 20 <= value <= 90 and more < 10:
                stated.add(str(value + more))
            if following in ("hundred", "thousand"):
                stated.add(str(value * more))
    return stated


def units(text: str) -> dict[str, set[str]]:
    """The units that stand behind each number: ``{"40": {"mmHg"}, "2.5": {"mg"}}``."""
    found: dict[str, set[str]] = {}
    for number, word in _QUANTITY.findall(text):
        if unit := _UNITS.get(word.lower()):
            found.setdefault(_plain(number), set()).add(unit)
    return found


def _plain(number: str) -> str:
    number = number.replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number
