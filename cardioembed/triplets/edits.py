"""Replacing a stretch of a sentence so that capitals, articles and blanks still agree."""

from __future__ import annotations

import re
from functools import cache

from cardioembed.lexicon import WORD, lexicon

Word = tuple[str, int, int]  # lower case, start, end
Change = tuple[int, int, str]  # text[start:end] becomes this

_ARTICLE = re.compile(r"(?<![\w-])(an?|An?) \Z")
_FIRST_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)?")


def substitute(text: str, start: int, end: int, new: str) -> str:
    """``text`` with ``new`` in place of ``text[start:end]``; an empty ``new`` takes one blank along.

    A capital at the start stays one, all capitals stay all capitals, and "a" or "an" before the place is made to agree.
    """
    old, before, after = text[start:end], text[:start], text[end:]
    if not new:
        after = after[1:] if after.startswith(" ") else after
        if old[:1].isupper():
            after = after[:1].upper() + after[1:]
        return before + after
    new = _as_capital(old, new, first=not start)
    if before.endswith(("a ", "an ", "A ", "An ")) and (article := _ARTICLE.search(before, len(before) - 3)):
        before = before[: article.start()] + agreeing_article(new + after, article[1])
    return before + new + after


def _as_capital(old: str, new: str, first: bool) -> str:
    """ "Warfarin" -> "Apixaban", "LEFT" -> "RIGHT", but "ACE inhibitors" -> "statins" inside a sentence."""
    word = WORD.match(old)
    if not old[0].isupper() or not new[0].islower():
        return new
    if len(old) > 3 and old.isupper():
        return new.upper()
    name = word is not None and len(word[0]) > 1 and word[0].isupper()
    return new if name and not first else new[0].upper() + new[1:]


def agreeing_article(following: str, article: str = "a") -> str:
    """The article, with a blank, that goes before a text; as capital as the one given."""
    return article[0] + "n " if _starts_with_vowel(following[:40]) else article[0] + " "


def _starts_with_vowel(text: str) -> bool:
    match = _FIRST_WORD.search(text)
    if not match:
        return False
    word = match[0]
    exceptions = _exceptions()
    for known in (word, word.lower(), word.split("-")[0], word.split("-")[0].lower()):
        if known in exceptions:
            return exceptions[known] == "an"
    if word[0].isdigit():
        return word[0] == "8" or (word.startswith(("11", "18")) and len(word.split("-")[0]) == 2)
    return word[0].lower() in "aeiou"


@cache
def _exceptions() -> dict[str, str]:
    return {word: article for article, word in (line.split(" ", 1) for line in lexicon().words["articles"])}
