"""Minimal edits of a sentence that make it say something clinically different: hard negatives (stage 02).

The words come from ``lexicon.yaml``; denials and numbers need a little grammar and arithmetic and live beside this
module. Every edit changes one thing, and a doubtful one is left out: a wrong negative teaches the model a falsehood,
a missing one costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cardioembed.lexicon import CATEGORIES, WORD, Form, Lexicon, lexicon
from cardioembed.triplets.affirmations import affirmations
from cardioembed.triplets.denials import denials
from cardioembed.triplets.edits import Change, Word, substitute
from cardioembed.triplets.numerals import number_changes, word_number_changes

_RIVALS_OFFERED = 2
_DIGIT = re.compile(r"\d")
# What is said twice cannot be changed in one place.
_RESTATED = ("in other words", "i.e.", ", that is", "(that is", ", namely", "(namely")
_RANKED = frozenset("class grade stage type phase".split())
# "systolic heart failure (HFrEF)", "venous (wedge) pressure": the gloss would contradict the exchange.
_GLOSSED = re.compile(r"(?: [\w-]+){0,2} \(")
_DENIED = re.compile(
    r"\b(?:not?|never|nor|neither|cannot|without|hardly|rarely|seldom|n['’]t|fail\w*)(?: [\w-]+){0,3} $"
)
# "falls from 100 to 70": the figures tell the direction themselves.
_FIGURES = re.compile(r"[^;:.,]{0,60}?\b(?:to|from) (?:[a-z]+ ){0,3}\d")
_DENIABLE = frozenset(("negation", "severity", "role"))


@dataclass(frozen=True)
class Counterfactual:
    """A sentence with one meaning changed; ``edit`` reads like ``"left -> right"``.

    ``rewording`` says in other words what ``text`` says, where a person wrote that, too.
    """

    text: str
    category: str
    edit: str
    rewording: str = ""


@dataclass(frozen=True, slots=True)
class _Hit:
    form: Form
    start: int
    end: int
    previous: str


def counterfactuals(text: str, categories: Collection[str] = CATEGORIES) -> list[Counterfactual]:
    """All acceptable edits of a sentence, category by category, best first within each.

    Args:
        text: One sentence.
        categories: The kinds of edits wanted, of ``lexicon.CATEGORIES``.
    """
    lower = text.lower()
    if len(lower) != len(text) or text.isupper() or any(phrase in lower for phrase in _RESTATED):
        return []
    known = lexicon()
    words = [(match[0], match.start(), match.end()) for match in WORD.finditer(lower)]
    changes: dict[str, list[Change]] = {category: [] for category in categories}
    for hit, target in _exchanges(text, lower, words, known):
        if hit.form.category in changes:
            changes[hit.form.category].append((hit.start, hit.end, target))
    if "number" in changes:
        if _DIGIT.search(text) or not _RANKED.isdisjoint(word for word, _, _ in words):
            changes["number"] += number_changes(text)
        changes["number"] += word_number_changes(text, words)
    if "negation" in changes and not text.endswith(("?", ":")):
        changes["negation"] += denials(text, words, known)
        changes["negation"] += affirmations(text, words, known)
    return list(_edited(text, changes))


def choose_counterfactual(candidates: list[Counterfactual], rng: np.random.Generator) -> Counterfactual:
    """One of the candidates: the category first, all present ones alike, then an edit of it.

    Drawing among all edits would drown the rarer kinds in denials, which nearly every sentence permits.
    """
    present = sorted({candidate.category for candidate in candidates})
    category = present[rng.integers(len(present))]
    chosen = [candidate for candidate in candidates if candidate.category == category]
    return chosen[rng.integers(len(chosen))]


def _edited(text: str, changes: dict[str, list[Change]]) -> Iterator[Counterfactual]:
    seen = {text}
    for category, found in changes.items():
        for start, end, new in found:
            edited = substitute(text, start, end, new)
            if edited not in seen:
                seen.add(edited)
                yield Counterfactual(edited, category, f"{text[start:end].strip()} -> {new.strip() or '(left out)'}")


def _exchanges(text: str, lower: str, words: Sequence[Word], known: Lexicon) -> Iterator[tuple[_Hit, str]]:
    hits = list(_hits(text, lower, words, known))
    poles: dict[tuple[str, str], set[int]] = {}
    for hit in hits:
        poles.setdefault((hit.form.category, hit.form.entry), set()).add(hit.form.pole)
    for hit in hits:
        form = hit.form
        # Of a mild and a severe degree in one sentence, a third one would say little new.
        if (not form.rival or form.category == "severity") and len(poles[form.category, form.entry]) > 1:
            continue
        if not form.allowed(lower, hit.start, hit.end, hit.previous) or _defined_here(text, hit) or _bound(lower, hit):
            continue
        offered, rest = 0, lower[: hit.start] + lower[hit.end :]
        for target in form.targets:
            target_lower = target.lower()
            if not any(_holds(rest, number) for number in (target_lower, target_lower + "s", target_lower.rstrip("s"))):
                yield hit, target
                offered += 1
            if offered == _RIVALS_OFFERED:
                break


def _hits(text: str, lower: str, words: Sequence[Word], known: Lexicon) -> Iterator[_Hit]:
    """The lexicon's forms in a text; in "non-ischaemic" the entry's shorter form "ischaemic" is none."""
    previous = ""
    reached: dict[tuple[str, str], int] = {}
    for (word, start, _), (following, _, _) in pairwise((*words, ("", 0, 0))):
        for second, form in known.forms.get(word, ()):
            end = start + len(form.text)
            if (second and second != following) or lower[end : end + 1].isalnum():
                continue
            # "di-LA-shun" says how a word is spoken.
            spoken = form.cased and lower[start - 1 : start] == "-"
            if spoken or not (text if form.cased else lower).startswith(form.text, start):
                continue
            if reached.get((form.category, form.entry), 0) < end:
                reached[form.category, form.entry] = end
                yield _Hit(form, start, end, previous)
        previous = word


def _holds(lower: str, phrase: str) -> bool:
    """Whether a word or phrase stands in a text as such."""
    place = lower.find(phrase)
    while place >= 0:
        end = place + len(phrase)
        if not (place and lower[place - 1].isalnum()) and not (end < len(lower) and lower[end].isalnum()):
            return True
        place = lower.find(phrase, place + 1)
    return False


def _bound(lower: str, hit: _Hit) -> bool:
    """Whether a hyphen, parenthesis, denial, figure or second mention would not fit another word."""
    before, behind = lower[max(0, hit.start - 48) : hit.start], lower[hit.end : hit.end + 80]
    if before.endswith("-") or (behind.startswith("-") and not behind.startswith("-risk")) or _GLOSSED.match(behind):
        return True
    if lower.count("(", 0, hit.start) > lower.count(")", 0, hit.start):
        return True
    if hit.form.category == "direction" and _FIGURES.match(behind):
        return True
    if hit.form.category == "entity" and _holds(lower[hit.end :] + " " + lower[: hit.start], hit.form.text.lower()):
        return True
    return hit.form.category in _DENIABLE and bool(_DENIED.search(before))


def _defined_here(text: str, hit: _Hit) -> bool:
    """Whether an abbreviation behind it spells it out: "left ventricular hypertrophy (LVH)"."""
    opening = text.find("(", hit.end, hit.end + 60)
    if opening < 0:
        return False
    initials = re.match(r"\(([A-Za-z][A-Za-z0-9-]*)s?\)", text[opening:])
    return bool(initials) and text[hit.start].upper() in initials[1].upper() and any(c.isupper() for c in initials[1])
