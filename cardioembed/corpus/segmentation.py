"""Blocks to sentences: sentencex, with medical abbreviations guarded."""

from __future__ import annotations

import re

import sentencex

# A full stop after these does not end a sentence, whatever follows. Case counts: "Ms." is a title, "ms." a unit.
_NEVER_ENDS = """
    vs Vs cf Cf approx resp viz Fig fig Figs figs Tab Eq Eqs Ref Refs Dr Prof Mr Mrs Ms St Vol Chap Sect eds e.g E.g
    i.e I.e ca incl excl
""".split()
# After these it ends a sentence only before a capital letter.
_MAY_END = "i.v i.m s.c p.o b.i.d t.i.d q.i.d q.d o.d p.r.n a.m p.m et al etc min max no wt sp spp".split()

_NEVER = re.compile(rf"(?:^|[\s(])(?:{'|'.join(map(re.escape, _NEVER_ENDS))})\.$")
_MAYBE = re.compile(rf"(?:^|[\s(])(?:{'|'.join(map(re.escape, _MAY_END))})\.$", re.IGNORECASE)
_SINGLE_INITIAL = re.compile(r"(?:^|\s)[A-Z]\.$")
# Where sentencex holds back after a unit, a bracket or a number: "every 4 h. The", "35%. The", "(class I). In".
_MISSED_END = re.compile(r"(?<=[\w%)\]\"'’”])([.!?][)\]\"'’”]?)\s+(?=[A-Z][a-z]+\b|[A-Z]{2,}\b|[A-Z]\s)")

_LEADS_TO_NAME = frozenset("by and of to from with after see".split())


def split_sentences(text: str) -> list[str]:
    """The sentences of one block, in order; their concatenation is the block up to white space."""
    pieces: list[str] = []
    for piece in sentencex.segment("en", text):
        pieces.extend(_split_missed(piece))
    sentences: list[str] = []
    for piece in (piece.strip() for piece in pieces):
        if not piece:
            continue
        if sentences and _goes_on(sentences[-1], piece):
            sentences[-1] = f"{sentences[-1]} {piece}"
        else:
            sentences.append(piece)
    return sentences


def _split_missed(piece: str) -> list[str]:
    cuts = [m.end(1) for m in _MISSED_END.finditer(piece) if not _is_initial(piece[: m.start()], piece[m.end() :])]
    return [piece[start:end] for start, end in zip([0, *cuts], [*cuts, len(piece)], strict=True)]


def _is_initial(before: str, after: str) -> bool:
    """Whether a full stop after a single capital belongs to a name or abbreviation: "by W. H. Bayard", "U.S. Food".

    After a plain word the capital is a thing of its own and may end a sentence: "vitamin K. The", "lead I. A".
    """
    capital = re.search(r"(\S*)(?:^|\s|(?<=[.(]))[A-Z]$", before)
    if not capital:
        return False
    word = capital[1]
    return not word or not word.islower() or word in _LEADS_TO_NAME or bool(re.match(r"[A-Z]\.", after))


def _goes_on(before: str, after: str) -> bool:
    """Whether the border between two pieces is an abbreviation's full stop rather than a sentence's end."""
    if _NEVER.search(before) or (_SINGLE_INITIAL.search(before) and len(before) < 12):
        return True
    if _MAYBE.search(before):
        return not after[0].isupper()
    return after[0].islower() or after[0] in ",;)"
