"""The word lists of ``meaning.yaml``, brought into a form that is quick to look up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

_OPPOSITE_PREFIXES = {"hyper": "hypo", "hypo": "hyper", "tachy": "brady", "brady": "tachy"}


class Name(NamedTuple):
    """A drug (``kind`` its class, ``name`` empty for the class itself) or a prefixed word (``hyper``, ``kalem``)."""

    axis: str
    kind: str
    name: str


class Meaning(NamedTuple):
    """The poles asserted and those possibly meant (a superset), as bits of an integer; and names, likewise sure."""

    sure: int = 0
    possible: int = 0
    names: tuple[Name, ...] = ()

    def __or__(self, other: Meaning) -> Meaning:
        return Meaning(self.sure | other.sure, self.possible | other.possible, self.names + other.names)


@dataclass(frozen=True, slots=True)
class Tables:
    """``meaning.yaml`` in a form that is quick to look up; poles are numbered from 0."""

    poles: list[tuple[str, str]]
    rivals: list[int]
    reasons: list[str]
    beside: int
    near: int
    modifiers: int
    claims: int
    exact: dict[str, Meaning]
    stems: dict[str, Meaning]
    endings: dict[str, tuple[str, str]]
    phrases: dict[str, list[tuple[tuple[str, ...], Meaning]]]
    spelt_out: dict[str, list[str]]
    readings: dict[str, str]
    classes: dict[str, frozenset[str]]
    families: dict[str, str]


def spelling(token: str) -> str:
    """Lower case, with American spelling of ae and oe: ``Oedema`` is ``edema``."""
    return token.lower().replace("ae", "e").replace("oe", "e")


@cache
def load_tables() -> Tables:
    """The tables of ``meaning.yaml``, read once."""
    path = files("cardioembed.paraphrases").joinpath("meaning.yaml")
    content: dict[str, Any] = yaml.load(
        path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    axes = {name: [pole for pole in axis if pole not in ("reason", "mode")] for name, axis in content["axes"].items()}
    poles = [(axis, pole) for axis, names in axes.items() for pole in names]
    number = {pole: place for place, pole in enumerate(poles)}
    meanings = {spelling(item): Meaning() for item in content["neutral"].split()}
    for item, meaning in _entries(content, number):
        meanings[spelling(item)] = meanings.get(spelling(item), Meaning()) | meaning
    phrases: dict[str, list[tuple[tuple[str, ...], Meaning]]] = {}
    for item in sorted(meanings, key=lambda item: -item.count("_")):
        first, *rest = item.split("_")
        if rest:
            phrases.setdefault(first, []).append((tuple(rest), meanings[item]))
    single = {item: meaning for item, meaning in meanings.items() if "_" not in item}
    return Tables(
        poles,
        [sum(1 << number[axis, other] for other in axes[axis] if other != pole) for axis, pole in poles],
        [content["axes"][axis]["reason"] for axis, _ in poles],
        *(_flagged(content["axes"], number, flag) for flag in ("beside", "near", "modifier", "claim")),
        {item: meaning for item, meaning in single.items() if item[-1] != "*"},
        {item[:-1]: meaning for item, meaning in single.items() if item[-1] == "*"},
        {
            item[1:]: (axis, kind)
            for axis, kind, items in _name_groups(content)
            for item in items.split()
            if item[0] == "-"
        },
        phrases,
        {name: full.split() for name, full in content["abbreviations"].items() if name[-1] != "?"},
        {name[:-1]: full for name, full in content["abbreviations"].items() if name[-1] == "?"},
        {kind: frozenset(members.split(", ")) for kind, members in content["classes"].items()},
        {spelling(word): name for name, words in content["families"].items() for word in words.split()},
    )


def _entries(content: dict[str, Any], number: dict[tuple[str, str], int]) -> Iterator[tuple[str, Meaning]]:
    """Every word, stem (``*``) and phrase of the axes and the drugs with its meaning."""
    for pole, place in number.items():
        for item in content["axes"][pole[0]][pole[1]].split():
            bare = item.rstrip("?")
            maybe = bare != item
            yield (
                bare + "*" * (maybe and len(bare) > 4 and bare[-1] != "*"),
                Meaning(0 if maybe else 1 << place, 1 << place),
            )
    for axis, kind, items in _name_groups(content):
        for item in (item for item in items.split() if item[0] != "-"):
            first, *aliases = item.lstrip("^").split("=")
            is_class = item[0] == "^" or (axis == "drug" and not aliases and ("*" in item or "_" in item))
            for word in (first, *aliases):
                yield word, Meaning(names=(Name(axis, kind, "" if is_class else first),))
    for word, items in content["states"].items():
        for item in items.split():
            yield item, Meaning(names=tuple(prefixed(word)))


def prefixed(word: str) -> Iterator[Name]:
    """What a word in hyper-, hypo-, tachy- or brady- names: ``hyper`` on the axis of its rest, or nothing."""
    for prefix, other in _OPPOSITE_PREFIXES.items():
        rest = word.removeprefix(prefix)
        if rest != word and len(rest) > 3:
            yield Name(f"{min(prefix, other)}-{rest[:5]}", prefix, prefix)


def _name_groups(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for kind, items in content["drugs"].items():
        yield "drug", kind, items
    for axis, items in content["names"].items():
        yield axis, axis, items


def bits(number: int) -> Iterator[int]:
    """The places of the ones in a number, from the lowest."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def _flagged(axes: dict[str, Any], number: dict[tuple[str, str], int], mode: str) -> int:
    return sum(1 << place for (axis, _), place in number.items() if mode in axes[axis].get("mode", ""))
