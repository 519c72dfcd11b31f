"""Edits of a sentence that leave its meaning as it is, or half of it: hurried typing, and other habits of writing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from cardioembed.lexicon import WORD
from cardioembed.records import text_id
from cardioembed.triplets.edits import agreeing_article

ABBREVIATIONS_FILE = Path(__file__).with_name("abbreviations.yaml")
MOST_TYPOS = 3
SHORTEST_MISTYPED = 4  # letters

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Letters whose names begin with a vowel sound, and abbreviations that are read as a word instead.
_VOWEL_NAMES = "AEFHILMNORSX"
_READ_AS_WORDS = ("STEMI", "SAVR")
# What stands in a number or ratio (1.5, 5–10, 2:1) or in a word (patient's) is none.
_DROPPED = re.compile(r"\.(?!\d)|(?<!\w)['‘’]|['‘’](?!\w)")
_BLANKED = re.compile(r"[,:](?!\d)|[;!?()\[\]{}\"“”„«»…]|(?<!\d)[–—]|[–—](?!\d)|(?<=\s)-(?=\s)")


def generator_of(seed: int, *texts: str) -> np.random.Generator:
    """Draws that depend on a seed and some texts, and not on their place among others."""
    return np.random.default_rng([seed, int(text_id(*texts), 16)])


def perturbed(text: str, seed: int) -> dict[str, str]:
    """All perturbations of a text by name; the same seed and text give the same ones. Some may change nothing.

    Args:
        text: One sentence.
        seed: Decides the typos.
    """
    return {
        "upper_case": text.upper(),
        "lower_case": text.lower(),
        "typos": mistyped(text, generator_of(seed, text)),
        "contracted_abbreviations": contracted(text),
        "expanded_abbreviations": expanded(text),
        "truncation": first_half(text),
        "no_punctuation": without_punctuation(text),
    }


def mistyped(text: str, rng: np.random.Generator) -> str:
    """One to three words with one slip each: two letters swapped, one dropped, doubled, or a neighbouring key hit.

    Words with digits and words of fewer than four letters are spared; so are words with capitals behind the first
    letter, as another letter makes another abbreviation (LVEF, RVEF). A word's first letter is seldom mistyped.
    """
    words = [match for match in WORD.finditer(text) if _may_be_mistyped(match[0])]
    count = min(int(rng.integers(1, MOST_TYPOS + 1)), len(words))
    for place in sorted(rng.choice(len(words), count, replace=False), reverse=True) if words else ():
        start, end = words[place].span()
        text = text[:start] + _slip(text[start:end], rng) + text[end:]
    return text


def _may_be_mistyped(word: str) -> bool:
    return len(word) >= SHORTEST_MISTYPED and word.isalpha() and word[1:].islower()


def _slip(word: str, rng: np.random.Generator) -> str:
    inner = range(1, len(word))
    slips = [
        [word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :] for i in inner[1:] if word[i] != word[i - 1]],
        [word[:i] + word[i + 1 :] for i in inner],
        [word[:i] + word[i] + word[i:] for i in inner],
        [word[:i] + key + word[i + 1 :] for i in inner for key in _neighbours().get(word[i], "")],
    ]
    possible = [found for found in slips if found]
    kind = possible[rng.integers(len(possible))]
    return kind[rng.integers(len(kind))]


@cache
def _neighbours() -> dict[str, str]:
    """Key -> the keys that touch it; each row of a keyboard stands half a key to the right of the one above."""
    where = {key: (row, place + row / 2) for row, keys in enumerate(_KEYBOARD) for place, key in enumerate(keys)}
    return {
        key: "".join(
            other
            for other, (other_row, other_place) in where.items()
            if other != key and abs(row - other_row) <= 1 and abs(place - other_place) <= 1
        )
        for key, (row, place) in where.items()
    }


def first_half(text: str) -> str:
    """The first half of the words, rounded up."""
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


def without_punctuation(text: str) -> str:
    """A text without punctuation; numbers, comparison signs, units and spelling (hyphens) stay as they are."""
    return " ".join(_BLANKED.sub(" ", _DROPPED.sub("", text)).split())


def contracted(text: str) -> str:
    """``left ventricular ejection fraction`` becomes ``LVEF``; a name whose abbreviation is beside it stays."""

    def short(name: str) -> str | None:
        found = _short_forms()[name.lower()]
        return None if re.search(rf"\b{found.removesuffix('s')}", text) else found

    return _exchanged(text, _pattern_of_names(), short, _article_of_letters)


def expanded(text: str) -> str:
    """``AF`` becomes ``atrial fibrillation``; only as it is written, and not beside the name itself."""
    lower = text.lower()

    def full(abbreviation: str) -> str | None:
        names = abbreviations()[abbreviation.removesuffix("s")]
        if any(name.lower() in lower for name in names):
            return None
        return _plural(names[0]) if abbreviation.endswith("s") else names[0]

    return _exchanged(text, _pattern_of_abbreviations(), full, agreeing_article)


def _exchanged(
    text: str, pattern: re.Pattern[str], new: Callable[[str], str | None], article: Callable[[str, str], str]
) -> str:
    def exchange(match: re.Match[str]) -> str:
        found = new(match["form"])
        if found is None:
            return match[0]
        if match["article"]:
            return article(found, match["article"]) + found
        return found if match.start() else found[0].upper() + found[1:]

    return pattern.sub(exchange, text)


def _article_of_letters(abbreviation: str, article: str) -> str:
    letters = abbreviation.removesuffix("s") not in _READ_AS_WORDS
    return article[0] + ("n " if letters and abbreviation[0] in _VOWEL_NAMES else " ")


@cache
def abbreviations() -> Mapping[str, tuple[str, ...]]:
    """The shipped list: abbreviation -> spellings of its name, the usual one first."""
    content = yaml.safe_load(ABBREVIATIONS_FILE.read_text(encoding="utf-8"))
    return {short: tuple(names.split(" = ")) for short, names in content.items()}


@cache
def _short_forms() -> dict[str, str]:
    """Name in lower case, singular or plural -> its abbreviation."""
    pairs = [(name.lower(), short) for short, names in abbreviations().items() for name in names]
    return {**dict(pairs), **{_plural(name): short + "s" for name, short in pairs}}


def _plural(name: str) -> str:
    if name.endswith("y"):
        return name[:-1] + "ies"
    return name[:-2] + "es" if name.endswith("is") else name + "s"


@cache
def _pattern_of_names() -> re.Pattern[str]:
    return re.compile(_whole_words(_short_forms()), re.IGNORECASE)


@cache
def _pattern_of_abbreviations() -> re.Pattern[str]:
    return re.compile(_whole_words([form for short in abbreviations() for form in (short, short + "s")]))


def _whole_words(forms: Mapping[str, str] | list[str]) -> str:
    """A form with the article before it; longer forms first.

    None in a compound (ICD-10, LDL-C), nor where a side before it shares its noun ("right and left bundle branch
    block").
    """
    joined = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    alone = "".join(rf"(?<!\b{side} {word} )" for side in ("left", "right") for word in ("and", "or"))
    return rf"(?:(?<![\w-])(?P<article>[Aa]n?) )?(?<![\w-]){alone}(?P<form>{joined})(?![\w-])"
