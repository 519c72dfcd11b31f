"""Affirming what a sentence denies: "does not cause" -> "causes", "no effect" -> "an effect".

What leans on the denial ("not X but Y", "no A nor B", "not any") would fall apart without it and is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cardioembed.lexicon import Lexicon
from cardioembed.triplets.edits import Change, Word, agreeing_article

_LEANING = re.compile(
    r"\b(?:but|rather|instead|nor|any|anything|either|yet|until|unless|ever|merely|just|simply|solely|alone|much|all|every|"
    r"necessarily|enough|only|exceed\w*|more|less|least|too|so|because|as)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:nor|neither|if|whether|or|but|yet)\s*$")
_SENTENCE_END = re.compile(r"[;:.]")
_NOT = re.compile(
    r"\b(is|are|was|were|has|have|had|could|should|must|will|would|ought|does|do) not (?=[a-z])|\b(can)not (?=[a-z])|"
    r"\b(is|are|was|were|has|have|had|could|should|would|does|do)n['’]t (?=[a-z])"
)
_VERB = re.compile(r"((?:[a-z]+ly |often )?)([a-z]+)\b")
_NO = re.compile(r"\b([Nn]o) ((?:[a-z]+-?[a-z]* ){0,2}?)([a-z-]+)\b")
_NO_NAMES = frozenset(
    """longer more less fewer sooner later greater higher lower one doubt matter such other way means better
    worse""".split()
)
_NO_KEPT = re.compile(r"\b(?:or|with or|little or)\s$")
_LISTED = re.compile(r"\b(?:nor|any|either|but|or|other than|and)\b")
_NOUN_ENDS = re.compile(
    r"(?![ -][a-z])|"
    r" (?:of|in|on|with|for|from|to|at|that|is|are|was|has|have|between|by|can|may|during|after|before|when|if|as|"
    r"beyond|should)\b"
)


def affirmations(text: str, words: Sequence[Word], known: Lexicon) -> Iterator[Change]:
    """Every acceptable removal of a denial; arguments as for ``denials``."""
    present = {word for word, _, _ in words}
    if not present.isdisjoint(("not", "cannot", "t")):
        yield from _not(text, known)
    if "no" in present:
        yield from _no(text, known)
    if "without" in present:
        yield from _without(words, known)


def _not(text: str, known: Lexicon) -> Iterator[Change]:
    for match in _NOT.finditer(text):
        clause = _SENTENCE_END.split(text[match.end() :], maxsplit=1)[0]
        if _LEANING.search(clause) or _CONDITION.search(text[: match.start()]):
            continue
        auxiliary = match[1] or match[2] or match[3]
        if auxiliary not in ("does", "do"):
            yield match.start(), match.end(), auxiliary + " "
            continue
        # "does not usually cause" -> "usually causes"
        found = _VERB.match(text, match.end())
        verb = known.verbs.get(found[2])
        if verb and found[2] == verb.base:
            yield match.start(), found.end(), found[1] + (verb.third if auxiliary == "does" else verb.base)


def _no(text: str, known: Lexicon) -> Iterator[Change]:
    """ "no evidence" -> "evidence", "no effect" -> "an effect"; nouns that are not listed stay."""
    mass, counted = known.words["mass_nouns"], known.words["counted_nouns"]
    for match in _NO.finditer(text):
        nouns = [*match[2].split(), match[3]]
        noun = next((word for word in nouns if word in mass or word in counted), None)
        if noun is None or nouns[0] in _NO_NAMES or _NO_KEPT.search(text[: match.start()]):
            continue
        if _LISTED.search(text, match.end(), match.end() + 60) or not _NOUN_ENDS.match(text, match.end()):
            continue
        article = "A" if match[1] == "No" else "a"
        yield (
            match.start(1),
            match.end(1),
            "" if noun in mass else agreeing_article(match[2] + match[3], article).strip(),
        )


def _without(words: Sequence[Word], known: Lexicon) -> Iterator[Change]:
    """ "without reducing" -> "while reducing"; before nouns the lexicon's "without -> with" holds."""
    for (word, start, end), (following, _, _) in pairwise(words):
        verb = known.verbs.get(following)
        if word == "without" and verb and following == verb.ing and not verb.also_noun:
            yield start, end, "while"
