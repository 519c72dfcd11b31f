"""The numbers that a text states, in digits, in words, as fractions and ratios, or within a name."""

from __future__ import annotations

import re
from functools import lru_cache

WORD_NUMBERS = {
    word: number
    for number, words in {
        "0": "zero nil", "1": "one single first once sole", "10": "ten tenth tenfold decade", "100": "hundred",
        "1000": "thousand",
        "2": "two second twice half both pair pairs paired double doubled doubles doubling twofold dual secondary ii "
             "couple either duo twin bilateral bicuspid biphasic fortnight fortnightly halve halves halved halving",
        "3": "three third thirds triple tripled triples threefold thrice iii trio "
             "triad triplet tricuspid triphasic treble thirdly",
        "4": "four fourth quarter quarters fourfold iv quadruple quadrupled tetrad quartet",
        "5": "five fifth fifths fivefold v quintuple pentad",
        "6": "six sixth sixfold vi", "7": "seven seventh vii week", "8": "eight eighth viii", "9": "nine ninth ix",
        "11": "eleven xi", "12": "twelve dozen xii twelfth", "13": "thirteen", "14": "fourteen", "15": "fifteen",
        "16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty twentieth",
        "30": "thirty", "40": "forty", "50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety",
        "1000000": "million",
    }.items()
    for word in words.split()
}  # fmt: skip
# Number words that state a count and nothing else; "one", "second" and "single" have other uses.
PLAIN_WORDS = frozenset(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand half third quarter fourth fifth "
    "sixth tenth doubled doubles doubling double triple quadruple twice thrice halves halved thirds quarters "
    "twofold threefold fourfold fivefold tenfold".split()
)
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "IX": 9}
_ROMAN_TOKEN = re.compile(r"\b(?:II|III|IV|VI{1,3}|IX)(?=[abc]?\b)|(?<=[Cc]lass )I\b|(?<=[Ll]ead )I\b|(?<=[Tt]ype )I\b")

# A sign before a digit joins words ("30-day") more often than it negates, so signs are not compared.
_NUMBER = re.compile(r"(?<![A-Za-z\d.,])\d+(?:[.,]\d+)*(?![A-Za-z]*\d)")
_ANY_DIGITS = re.compile(r"(?<!\d)\.\d+|\d+(?:[.,]\d+)*")
DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[a-z]+")
_NTHS = {
    "half": 2, "halve": 2, "halves": 2, "halved": 2, "halving": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4,
    "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10,
}  # fmt: skip
# A decade of life or of a century holds its numbers; some names are another's number.
_HELD = {
    "twenties": {20, 29, 30}, "thirties": {30, 39, 40}, "forties": {40, 49, 50}, "fifties": {50, 59, 60},
    "sixties": {60, 69, 70}, "seventies": {70, 79, 80}, "eighties": {80, 89, 90}, "nineties": {90, 99, 100},
    "septuagenarian": {70, 79}, "octogenarian": {80, 89}, "nonagenarian": {90, 99}, "centenarian": {100},
    "teenage": {13, 19}, "teens": {13, 19}, "teenager": {13, 19}, "neonatal": {28}, "dozen": {6, 12, 24},
}  # fmt: skip
_NAMED = {"Down": {21}, "Edwards": {18}, "Patau": {13}, "DiGeorge": {22, 11}, "Wood": {1}}
_CARDINALS = {
    word: int(WORD_NUMBERS[word])
    for word in "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million".split()
} | {"a": 1, "an": 1}
SPELLING = frozenset(_CARDINALS) | {"half"}
_CARDINAL = "|".join(sorted(_CARDINALS, key=len, reverse=True))
_SHARE = re.compile(
    rf"(?<![\w.])(?:(?P<percent>\d+(?:\.\d+)?|(?:{_CARDINAL})(?:[ -](?:{_CARDINAL}))?)[\s\u00a0-]?(?:%|per ?cent\b)"
    rf"|(?:(?P<top>{_CARDINAL}|about|over|nearly|almost|roughly|around|approximately|some|than)[ -])?"
    r"(?P<nth>third|quarter|fifth|sixth|eighth|tenth|half|halve)s?d?\b"
    r"(?! (?:heart|sound|day|week|line|year|lead|an?\b)|-?li[fv]e)"
    rf"|(?P<a>\d+|{_CARDINAL}) (?:in|of|out of)(?: every| each| the)* (?P<b>\d+|{_CARDINAL})\b)",
)


def numbers(text: str) -> set[str]:
    """The free-standing numbers written in digits, without thousands commas and trailing zeros: ``{"2.5", "40"}``.

    Digits inside a name or unit ("PDE5", "cm2", "rSR2") are not numbers.
    """
    return {plain_number(match) for match in _NUMBER.findall(text)}


def stated_numbers(text: str) -> set[str]:
    """Every number that a text could be said to state: digits anywhere, number words, fractions as percentages."""
    return set(_stated(text))


@lru_cache(maxsize=4096)
def _stated(text: str) -> frozenset[str]:
    words = _WORD.findall(text.lower())
    stated = {plain_number(match) for match in _ANY_DIGITS.findall(text)}
    for place, word in enumerate(words):
        if word in WORD_NUMBERS:
            stated.add(WORD_NUMBERS[word])
            stated.update(plain_number(f"{share:g}") for share in _shares_of(words, place))
            stated.update(spelt for length in (2, 3, 4, 5) if (spelt := spelt_number(words[place : place + length])))
        elif word.rstrip("s") in _HELD or word in _HELD:
            stated.update(map(str, _HELD.get(word) or _HELD[word.rstrip("s")]))
        elif word.endswith("fold") and word[:-4] in WORD_NUMBERS:
            stated.add(WORD_NUMBERS[word[:-4]])
    if "million" in words or "thousand" in words:
        stated |= {f"{float(n) * size:g}" for n in tuple(stated) for size in (1e3, 1e6) if float(n) < 1000}
    stated.update(str(_ROMAN[match]) for match in _ROMAN_TOKEN.findall(text))
    for name, held in _NAMED.items():
        if name in text:
            stated.update(map(str, held))
    return frozenset(stated)


def _shares_of(words: list[str], place: int) -> list[float]:
    """What a fraction may be written as: a third as 33, 33.3, 0.33; a doubling as 100 (per cent more)."""
    word, before = words[place], words[place - 1] if place else ""
    if word in ("double", "doubles", "doubled", "doubling", "twofold"):
        return [100]
    if word not in _NTHS:
        return []
    share = int(WORD_NUMBERS.get(before, "1")) / _NTHS[word]
    if word.endswith("s") and before not in WORD_NUMBERS:
        share = 1 - 1 / _NTHS[word]
    forms = [100 * share, round(100 * share), round(100 * share, 1), int(100 * share), share, round(share, 2)]
    return [*forms, 30, 1 + share] if word == "third" else [*forms, 1 + share]


def spelt_number(words: list[str]) -> str | None:
    """The number that a run of words spells: "one hundred and twenty", "two and a half"; or None."""
    half = words[-3:] == ["and", "a", "half"]
    words = words[:-3] if half else words
    total = current = 0
    for place, word in enumerate(words):
        value = 0 if word == "and" and place else _CARDINALS.get(word)
        if value is None or not words:
            return None
        if value in (100, 1000, 1000000):
            current = max(current, 1) * value
            if value > 100:
                total, current = total + current, 0
        else:
            current += value
    if not words or words[-1] == "and" or total + current == 0:
        return None
    return f"{total + current}{'.5' * half}"


@lru_cache(maxsize=4096)
def shares(text: str) -> tuple[tuple[float, frozenset[str]], ...]:
    """Each share of a whole as a percentage, with the numbers that it is told in: "two of five" is 40 in 2 and 5."""
    found = []
    for match in _SHARE.finditer(text.lower()):
        if match["percent"]:
            number = _plain(match["percent"])
            found.append((float(number), frozenset((number,))))
        elif match["nth"]:
            nth, top = _NTHS[match["nth"]], match["top"]
            if nth > 2 and not top:
                continue  # an ordinal
            number = str(_CARDINALS.get(top, 1))
            if float(number) < nth:
                found.append((100 * float(number) / nth, frozenset((number, WORD_NUMBERS[match["nth"]]))))
        elif 0 < float(a := _plain(match["a"])) < float(b := _plain(match["b"])):
            found.append((100 * float(a) / float(b), frozenset((a, b))))
    return tuple(found)


def _plain(number: str) -> str:
    return plain_number(number) if number[0].isdigit() else spelt_number(re.split(r"[ -]", number)) or "0"


def same_share(number: str, first: str, second: str) -> bool:
    """Whether a number is part of a share that the other text tells in other numbers."""
    told = [value for value, parts in shares(first) if number in parts]
    return any(abs(value - other) < 1.5 for value in told for other, _ in shares(second))


def complement(first: str, second: str) -> set[str]:
    """The numbers of a share whose rest the other text tells: "5%" where there is "95%"."""
    others = [value for value, _ in shares(second)]
    return {
        number
        for value, parts in shares(first)
        if any(abs(100 - value - other) < 1.5 for other in others)
        for number in parts
    }


def word_number(word: str) -> str:
    """The number that a word or a string of digits says, "1" where it says none."""
    return word if word[0].isdigit() else WORD_NUMBERS.get(word.lower(), "1")


def plain_number(number: str) -> str:
    """Digits without thousands commas and trailing zeros."""
    number = number.replace(",", "")
    if number.startswith("."):
        number = "0" + number
    return number.rstrip("0").rstrip(".") if "." in number else number


def roman_numbers(text: str) -> set[str]:
    """The Roman numerals of a text."""
    return set(_ROMAN_TOKEN.findall(text))


def roman_value(numeral: str) -> str:
    """What a Roman numeral says."""
    return str(_ROMAN[numeral])
