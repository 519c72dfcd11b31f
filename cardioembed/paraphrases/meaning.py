"""Gates on what a text asserts: names, sides, directions, degrees, times, roles and denials.

A change is refused on evidence from both sides: something that the original asserts is nowhere in the paraphrase, not
even as a possible reading, and a rival of it came in that the original does not hold.
"""

from __future__ import annotations

from cardioembed.paraphrases.denying import can_deny, is_new, may_deny
from cardioembed.paraphrases.tables import Name, bits, load_tables
from cardioembed.paraphrases.wording import Wording, are_rival_names

# Above this overlap of their words two texts are one sentence with a few words exchanged.
_NEAR = 0.6
_EMPTY = frozenset(
    "a an the of in on at to by for with from and or is are was were be been being that which this these those it its "
    "as than has have had may can will should must do does so such their his her any all most many some more less very "
    "who whom whose when while if then also into per each patient patients person people subject subjects".split()
)
_COMPARING = frozenset("than compared versus unlike relative".split())
# Up to so many words of content may differ between two texts that are nearly one; and what is looked for there.
_RESIDUE = 3
_GRADED = frozenset(("direction_changed", "severity_changed", "temporality_changed"))
# A word under one of these is not asserted.
_DENYING = frozenset(
    "no not never without unless until cannot nor neither fail fails failed failure absence hardly "
    "barely scarcely".split()
)


def name_change(original: Wording, paraphrase: Wording) -> str | None:
    """A drug, or a word in hyper-, hypo-, tachy- or brady-, that gave way to a rival, or None."""
    if original.names == paraphrase.names or not (original.names and paraphrase.names):
        return None
    lost = [n for n in original.names if not any(_same_or_kin(n, other) for other in paraphrase.names)]
    added = [n for n in paraphrase.names if not any(_same_or_kin(n, other) for other in original.names)]
    changes = sorted(
        f"{a.name or a.kind} became {b.name or b.kind}" for a in lost for b in added if are_rival_names(a, b)
    )
    return changes[0] if changes else None


def _same_or_kin(name: Name, other: Name) -> bool:
    return name.axis == other.axis and not are_rival_names(name, other)


def pole_change(original: Wording, paraphrase: Wording) -> tuple[str, str] | None:
    """The reason and the detail of an assertion that turned into its rival, or None."""
    tables = load_tables()
    lost, added = original.sure & ~paraphrase.sure, paraphrase.sure & ~original.sure
    for place in bits(original.sure & (lost | tables.modifiers)):
        for rival in bits(tables.rivals[place] & paraphrase.sure & (added | tables.modifiers)):
            one_way = lost >> place & 1 and added >> rival & 1
            if (
                (one_way and _turned(original, paraphrase, place, rival))
                or (tables.modifiers >> place & 1 and _turned_before(original, paraphrase, place, rival))
            ) and same_end(original, paraphrase):
                return tables.reasons[place], f"{tables.poles[place][1]} became {tables.poles[rival][1]}"
    return None


def residual_change(original: Wording, paraphrase: Wording) -> tuple[str, str] | None:
    """A change between two texts that share nearly all words of content: what only may mean a pole counts there."""
    shared = len(original.vocabulary & paraphrase.vocabulary)
    if any(not 0 < len(wording.vocabulary) - shared <= 2 * _RESIDUE for wording in (original, paraphrase)):
        return None
    if any(may_deny(wording) or not _COMPARING.isdisjoint(wording.vocabulary) for wording in (original, paraphrase)):
        return None
    (kept, left, before), (_, right, after) = _residue(original, paraphrase), _residue(paraphrase, original)
    if max(left, right) > _RESIDUE or kept < min(2, max(left, right)) or before & after:
        return None
    tables = load_tables()
    for place in bits(before & ~(tables.modifiers | tables.beside | tables.claims)):
        rivals = tables.rivals[place]
        if tables.reasons[place] not in _GRADED:
            continue
        asserted = original.sure >> place & 1 or paraphrase.sure & rivals & after
        if asserted and rivals & after and not paraphrase.sure >> place & 1 and not original.sure & rivals & after:
            rival = next(bits(rivals & after))
            return tables.reasons[place], f"{tables.poles[place][1]} became {tables.poles[rival][1]}"
    return None


def _residue(wording: Wording, other: Wording) -> tuple[int, int, int]:
    """How many words of content the other text holds, how many it does not, and the poles that the new words may mean.

    A pole is left out where its rival may be meant as well.
    """
    new = {
        place
        for place, (word, key) in enumerate(zip(wording.words, wording.keys, strict=True))
        if word not in other.vocabulary and not (key and not key.isdigit() and key in other.keys)
    }
    content = sum(map(bool, wording.keys))
    fresh = sum(bool(wording.keys[place]) for place in new)
    poles = 0
    for at, _, possible in wording.meanings:
        if at in new:
            poles |= possible
    rivals = load_tables().rivals
    return content - fresh, fresh, sum(1 << place for place in bits(poles) if not rivals[place] & poles)


def _turned(original: Wording, paraphrase: Wording, place: int, rival: int) -> bool:
    """Whether a pole gave way to its rival, and no word that is new to either text can be read as the lost one."""
    tables = load_tables()
    if tables.beside >> place & 1:
        if not _following(original, place) & _following(paraphrase, rival):
            return False
    elif tables.near >> place & 1 and not _are_near(original, paraphrase):
        return False
    if tables.claims >> place & 1 and (_denies_more(original, paraphrase) or _denies_more(paraphrase, original)):
        return False
    if _fresh(paraphrase, original) >> place & 1 or _fresh(original, paraphrase) >> rival & 1:
        return False
    return _denied(original, place) == _denied(paraphrase, rival)


def _denies_more(wording: Wording, other: Wording) -> bool:
    """Whether a text may deny what the other does not, by a word that is not itself one of how often."""
    of_axis = {at for at, sure, _ in wording.meanings if sure & load_tables().claims}
    return any(can_deny(w) and at not in of_axis and is_new(wording, at, other) for at, w in enumerate(wording.words))


def _fresh(wording: Wording, other: Wording) -> int:
    """The poles possibly meant by words that are new to one text; a word of a known family adds none to those known."""
    poles = 0
    for at, _, possible in wording.meanings:
        if wording.words[at] not in other.vocabulary:
            key = wording.keys[at]
            if key and not key.isdigit() and key in other.keys:
                known = 0
                for place, sure, _ in other.meanings:
                    if other.keys[place] == key:
                        known |= sure
                possible &= known | ~other.possible
            poles |= possible
    return poles


def _denied(wording: Wording, place: int) -> bool:
    """Whether a word of the pole stands behind a denial."""
    return any(
        sure >> place & 1 and not _DENYING.isdisjoint(wording.words[max(0, at - 4) : at])
        for at, sure, _ in wording.meanings
    )


def _following(wording: Wording, place: int) -> set[str]:
    """The three words of content behind each word of a pole."""
    found: set[str] = set()
    for at, sure, _ in wording.meanings:
        if sure >> place & 1:
            found.update([key for key in wording.keys[at + 1 : at + 8] if key][:3])
    return found


def same_end(original: Wording, paraphrase: Wording) -> bool:
    """Whether a comparison, if there is one, is told from the same end: "A is lower than B" is "B is higher than A"."""
    if _COMPARING.isdisjoint(original.vocabulary) or _COMPARING.isdisjoint(paraphrase.vocabulary):
        return True
    if "than" in original.vocabulary and "than" in paraphrase.vocabulary:
        return bool(_compared(original) & _compared(paraphrase))
    return False


def _turned_before(original: Wording, paraphrase: Wording, place: int, rival: int) -> bool:
    """Whether a pole and its rival stand before the same word, and neither text has the word with the other one."""
    before, after = _heads(original, place), _heads(paraphrase, rival)
    return bool((before & after) - _heads(original, rival) - _heads(paraphrase, place))


def _heads(wording: Wording, place: int) -> set[str]:
    """The first word of content behind each word of a pole; "left or right atrium" gives both the same."""
    modifiers = load_tables().modifiers
    skipped = {at for at, sure, _ in wording.meanings if sure & modifiers & (1 << place | load_tables().rivals[place])}
    skipped |= {at for at, sure, _ in wording.meanings if sure & modifiers and wording.words[at - 1] in ("and", "or")}
    heads = set()
    for at, sure, _ in wording.meanings:
        if sure >> place & 1:
            following = [i for i in range(at + 1, min(at + 6, len(wording.words))) if i not in skipped]
            heads.update([wording.words[i][:6] for i in following if wording.words[i] not in _EMPTY][:1])
    return heads


def _compared(wording: Wording) -> set[str]:
    """The words of content behind ``than``."""
    start = wording.words.index("than") + 1
    return {word for word in wording.words[start : start + 8] if word not in _EMPTY}


def _are_near(original: Wording, paraphrase: Wording) -> bool:
    shared = len(original.vocabulary & paraphrase.vocabulary)
    return shared >= _NEAR * (len(original.vocabulary) + len(paraphrase.vocabulary) - shared)
