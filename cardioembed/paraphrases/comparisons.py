"""Whether a comparison was turned round: its sides exchanged, or its word turned into the opposite."""

from __future__ import annotations

from typing import NamedTuple

from cardioembed.paraphrases.denying import may_deny
from cardioembed.paraphrases.tables import bits, load_tables
from cardioembed.paraphrases.wording import Wording

_TOPICS = {
    "amount": ("more higher greater larger bigger", "less lower fewer smaller"),
    "length": ("longer", "shorter"),
    "speed": ("faster quicker", "slower"),
    "time": ("later", "earlier sooner"),
    "worth": ("better superior", "worse inferior"),
    "width": ("wider broader", "narrower"),
    "thickness": ("thicker", "thinner"),
    "strength": ("stronger", "weaker"),
    "age": ("older", "younger"),
    "loudness": ("louder", "softer quieter fainter"),
    "safety": ("safer", "riskier"),
    "frequency": ("commoner", "rarer"),
}
_SIGNS = {
    word: (topic, sign)
    for topic, poles in _TOPICS.items()
    for sign, words in zip((1, -1), poles, strict=True)
    for word in words.split()
}
_WITH = frozenset(("than", "compared", "relative", "versus"))
_SUPERIOR = frozenset(("superior", "inferior"))
_PREFERRING = frozenset("prefer prefers preferred favoured favored".split())
_MARKS = _WITH | _SUPERIOR | _PREFERRING
_DEGREES = {"more": 1, "less": -1}
_REACH = 9


class _Comparison(NamedTuple):
    """What is compared, in which direction, the keys of what it is compared with, and of all the rest."""

    topic: str
    sign: int
    base: set[str]
    rest: set[str]


def comparison_change(original: Wording, paraphrase: Wording) -> str | None:
    """A comparison whose sides changed places while its direction stayed, or the other way round; or None."""
    if _MARKS.isdisjoint(original.vocabulary) or _MARKS.isdisjoint(paraphrase.vocabulary):
        return None
    first, second = _comparison(original), _comparison(paraphrase)
    if not first or not second or first.topic != second.topic or may_deny(original) != may_deny(paraphrase):
        return None
    straight = first.base & second.base
    crosswise = bool(first.base & second.rest) and bool(second.base & first.rest)
    if crosswise and not straight and first.sign == second.sign:
        return f"{first.topic}: {min(first.base)} and {min(second.base)} changed places"
    if straight and not crosswise and first.sign != second.sign:
        return f"{first.topic} compared with {min(straight)} became the opposite"
    return None


def _comparison(wording: Wording) -> _Comparison | None:
    """The only comparison of a text, or None."""
    words, keys = wording.words, wording.keys
    marks = [at for at in range(len(words)) if _is_mark(words, at)]
    if len(marks) != 1 or any(word[0].isdigit() for word in words[marks[0] + 1 : marks[0] + 4]):
        return None
    at = marks[0]
    found = [signed for place in range(len(words)) if (signed := _signed(wording, place))]
    if words[at] in ("to", "over"):
        found = [("worth", 1)]
    if len(found) != 1:
        return None
    topic, sign = found[0]
    end = at + 1 + _REACH if words[at] == "than" or at > 1 else at + 4  # "Compared with A, B ..."
    base = {key for key in keys[at + 1 : end] if key}
    rest = {key for i, key in enumerate(keys) if key and not at < i < end}
    return _Comparison(topic, sign, base - rest, rest - base)


def _is_mark(words: list[str], at: int) -> bool:
    """Whether what a thing is compared with stands behind a word: "than", "superior to", "preferred to"."""
    word = words[at]
    if word in ("to", "over"):
        return not _PREFERRING.isdisjoint(words[max(0, at - 4) : at])
    return word in _WITH or (word in _SUPERIOR and words[at + 1 : at + 2] == ["to"])


def _signed(wording: Wording, place: int) -> tuple[str, int] | None:
    """The topic and the direction of a comparing word; "more" before an adjective takes the adjective's topic."""
    word = wording.words[place]
    if word in _DEGREES and place + 1 < len(wording.words):
        at = place + 1
        if sure := next((sure for i, sure, _ in wording.meanings if i == at), 0):
            pole = next(bits(sure))
            rivals = list(bits(load_tables().rivals[pole]))
            if len(rivals) == 1:
                return load_tables().poles[pole][0], _DEGREES[word] * (1 if rivals[0] > pole else -1)
        if wording.words[at].endswith(_ADJECTIVE):
            return wording.keys[at], _DEGREES[word]
    return _SIGNS.get(word)


_ADJECTIVE = ("al", "ic", "ive", "ous", "able", "ible", "ant", "ent", "ful", "ly", "ed")
