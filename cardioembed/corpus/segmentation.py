"""Blocks to sentences: sentencex, with medical writing guarded.

The library was chosen by ``bench/segmentation.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import sentencex

# A full stop after these does not end a sentence, whatever follows. Case counts: "Ms." is a title, "ms." a unit.
_NEVER_ENDS = """
    vs Vs cf Cf approx Approx resp Resp viz esp ca incl excl avg e.g E.g i.e I.e eds Dr Drs Prof Mr Mrs Ms St Sgt Capt
    Lt Col Rev Fig fig Figs figs Tab Tabs Eq Eqs Ref Refs Vol Vols Chap Chaps Sect
""".split()
# After these it ends a sentence only before a capital letter or the like.
_MAY_END = """
    i.v i.m s.c s.l p.o b.i.d t.i.d q.i.d q.d q.h o.d p.r.n a.m p.m et\\sal etc min max no nos wt sp spp subsp var
    ref refs inc ltd corp co
""".split()
_BEFORE_NUMBER = "p pp no nos ref refs ch sec ver jan feb mar apr jun jul aug sept sep oct nov dec".split()
# First words that names do not begin with: after "U.S." or "M.D." they begin a sentence.
_OPENERS = frozenset(
    """
    A About After All Although An And Another Any Are As At Because Before Between Both But By Can Compared Despite Do
    Does During Each Early Either Even Every Few First For From Further He Her Here Hence His How However I If In Is It
    Its Later Long Many More Most Much Neither No Nobody None Not Of On Once One Only Or Other Others Our Over Patients
    Several She Since So Some Such That The Their Then There Therefore These They This Those Though Three Thus To Today
    Two Under Until Was We What When Where Whereas Whether Which While Who Why With Within Without Yet You Your
    """.split()
)
_LEADS_TO_NAME = frozenset("by and of to from with after see".split())

# eNOS, hs-cTnT, dP/dt, p = 0.03, β-blockers
_GENE = r"[a-z]{1,3}[A-Z0-9]|[a-z]{1,3}[-/][a-z]{0,3}[A-Z]|p\s?[<=>≤≥]|[α-ω]"
_START = rf"[\"'“‘(\[]*(?:[A-Z](?!\.)|[Α-Ω]|{_GENE})"
_NEVER = re.compile(rf"(?<![^\s(\[])(?:{'|'.join(map(re.escape, _NEVER_ENDS))})\.$")
_MAYBE = re.compile(rf"(?<![^\s(\[])(?:{'|'.join(w.replace('.', '[.]') for w in _MAY_END)})\.$", re.IGNORECASE)
_NUMBERED = re.compile(rf"(?<![^\s(\[])(?:{'|'.join(_BEFORE_NUMBER)})\.$", re.IGNORECASE)
_SINGLE_INITIAL = re.compile(r"(?:^|\s)[A-Z]\.$")
_LOWER_START = re.compile(_GENE)
# Where libraries hold back: after a unit, a bracket or a number ("every 4 h. The", "(class I). In"), before "eNOS".
_MISSED_END = re.compile(rf"(?<=[\w%°²³)\]\"'’”])([.!?][)\]\"'’”]?)\s+(?={_START})")
_INITIAL = re.compile(r"(\S*)(?:^|\s|(?<=[.(]))[A-Z]$")
_DOTTED = re.compile(r"(?:^|[\s(])(?:[A-Z]\.)+[A-Z]$")
_WORD = re.compile(r"\w+")
# A citation mark behind the full stop belongs to the sentence before: "It saves lives. [12] The dose ..."
_LEADING_CITATION = re.compile(r"\[\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*\](?=\s+\S)")


def split_sentences(text: str) -> list[str]:
    """The sentences of one block, in order; their concatenation is the block up to white space."""
    return guard(sentencex.segment("en", text))


def guard(pieces: Iterable[str]) -> list[str]:
    """Mends a library's segmentation: cuts at the ends that it missed, joins what it cut at an abbreviation.

    Args:
        pieces: Consecutive pieces of one text.
    """
    sentences: list[str] = []
    for piece in pieces:
        for part in _split_missed(piece.strip()):
            if sentences and _goes_on(sentences[-1], part):
                sentences[-1] = f"{sentences[-1]} {part}"
            else:
                _append(sentences, part)
    return sentences


def _append(sentences: list[str], part: str) -> None:
    if sentences and part[0] == "[" and (mark := _LEADING_CITATION.match(part)):
        sentences[-1] = f"{sentences[-1]} {mark[0]}"
        part = part[mark.end() :].lstrip()
    sentences.append(part)


def _split_missed(piece: str) -> list[str]:
    cuts = [match for match in _MISSED_END.finditer(piece) if not _is_within(match)]
    if not cuts:
        return [piece] if piece else []
    starts, ends = [0, *(match.end() for match in cuts)], [*(match.end(1) for match in cuts), len(piece)]
    return [piece[start:end] for start, end in zip(starts, ends, strict=True)]


def _is_within(stop: re.Match[str]) -> bool:
    """Whether a full stop lies inside a name, or inside brackets that hold more than one sentence."""
    before = stop.string[: stop.start()]
    bracketed = before.count("(") > before.count(")") and ")" not in stop[1]
    return bracketed or _is_initial(before, stop.string[stop.end() :])


def _is_initial(before: str, after: str) -> bool:
    """Whether a full stop after a single capital belongs to a name or abbreviation: "by W. H. Bayard", "U.S. Food".

    After a plain word or a number the capital is a thing of its own and may end a sentence: "vitamin K. The", "6 F. A".
    """
    if not before[-1].isupper() or not (capital := _INITIAL.search(before[-40:])):
        return False
    word = capital[1]
    if _DOTTED.search(before[-12:]):
        opener = _WORD.match(after)
        return not opener or opener[0] not in _OPENERS
    return not (word.islower() or word.isdigit()) or word in _LEADS_TO_NAME


def _goes_on(before: str, after: str) -> bool:
    """Whether the border between two pieces is an abbreviation's full stop rather than a sentence's end."""
    lower = after[0].islower() and not _LOWER_START.match(after)
    if lower or after[0] in ",;)":
        return True
    if before[-1] != ".":
        return False
    tail = before[-12:]
    if _NEVER.search(tail) or (len(before) < 12 and _SINGLE_INITIAL.search(before)):
        return True
    if _MAYBE.search(tail) or _NUMBERED.search(tail):
        return after[0].islower() or after[0].isdigit() or after[0] in "([<>=≥≤"
    return False
