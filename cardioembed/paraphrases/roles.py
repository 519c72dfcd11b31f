"""Whether two things changed places: the cause with its consequence, the doer with what is done, first with last."""

from __future__ import annotations

from itertools import pairwise

from cardioembed.paraphrases.denying import may_deny
from cardioembed.paraphrases.turns import BEING, NOT_OBJECT
from cardioembed.paraphrases.wording import Wording


def _forms(verb: str) -> tuple[str, str, str]:
    """A verb, its third person and its participle: "supply", "supplies", "supplied"."""
    if verb.endswith("y"):
        return verb, verb[:-1] + "ies", verb[:-1] + "ied"
    return verb, verb + ("es" if verb.endswith(("s", "sh")) else "s"), verb.removesuffix("e") + "ed"


# Verbs that lead from the doer to what is done; "by" behind a participle leads back.
_VERBS = {
    form: kind
    for kind, verbs in {
        "cause": "cause induce produce provoke trigger precipitate elicit evoke generate promote",
        "inhibit": "inhibit block suppress antagonise antagonize",
        "raise": "raise increase elevate augment enhance potentiate",
        "lower": "lower reduce decrease diminish attenuate",
        "exceed": "exceed surpass outperform outstrip",
        "reverse": "reverse counteract neutralise neutralize",
        "displace": "displace replace supplant",
        "activate": "activate stimulate",
        "supply": "supply perfuse feed nourish",
        "compress": "compress",
        "mimic": "mimic resemble simulate",
        "precede": "precede",
        "complicate": "complicate",
        "prevent": "prevent avert",
    }.items()
    for verb in verbs.split()
    for form in _forms(verb)
} | {"fed": "supply", "follows": "precede back", "followed": "precede back", "complicates": "cause back"}
# Two words that lead forward or back.
_PAIRS = {
    pair: kind
    for kind, pairs in {
        "cause": "bring_about brings_about brought_about lead_to leads_to led_to leading_to result_in results_in "
                 "resulted_in rise_to predispose_to predisposes_to "
                 "brings_on brought_on bring_on factor_for cause_of responsible_for contributes_to contribute_to",
        "cause back": "due_to result_of results_from result_from resulted_from secondary_to arises_from arise_from "
                      "consequence_of complication_of attributable_to stems_from stem_from originates_from "
                      "originate_from resulting_from arising_from because_of",
        "exceed": "superior_to",
        "exceed back": "inferior_to",
        "treat": "used_to treat_with antidote_to antidote_for",
    }.items()
    for pair in (tuple(p.split("_")) for p in pairs.split())
}  # fmt: skip
_LEADING = frozenset(first for first, _ in _PAIRS)
_MODAL = frozenset("to can may might will could should must would also not often usually".split())
_REACH = 6
# Words that put one thing after another: "A after B", "After B, A".
_AFTER = frozenset(("after", "following"))
_ORDER = _AFTER | {"before"}
_UNORDERED = frozenset(("only", "until", "unless", "soon", "time"))


def role_reversal(original: Wording, paraphrase: Wording) -> str | None:
    """What changed places, or None.

    For each kind of verb that both texts hold once, the words of content within reach before and behind it are
    compared crosswise: something of both ends must have moved to the other side, and nothing of the doer stayed.
    """
    if "than" in original.vocabulary or "than" in paraphrase.vocabulary:
        return None
    before = _directed(original) | _ordered(original)
    if not before:
        return None
    after = _directed(paraphrase) | _ordered(paraphrase)
    for kind in before.keys() & after.keys():
        (doer, done), (other_doer, other_done) = before[kind], after[kind]
        crosswise = doer & other_done, done & other_doer
        if all(crosswise) and not doer & other_doer and sum(map(len, crosswise)) >= len(done & other_done):
            return f"{kind}: {min(doer & other_done)} and {min(done & other_doer)} changed places"
    return None


def _directed(wording: Wording) -> dict[str, tuple[set[str], set[str]]]:
    """Kind -> the keys of the doer's end and of the other, for each kind of directed verb that occurs once."""
    words = wording.words
    found: dict[str, list[tuple[int, int, bool]]] = {}
    if not wording.vocabulary.isdisjoint(_VERBS):
        for place, word in enumerate(words):
            if word in _VERBS and (way := _way(words, place)) is not None:
                kind, _, back = _VERBS[word].partition(" ")
                found.setdefault(kind, []).append((place, place + 1 + way, bool(way) != bool(back)))
    if not wording.vocabulary.isdisjoint(_LEADING):
        for place, pair in enumerate(pairwise(words)):
            if pair in _PAIRS:
                kind, _, back = _PAIRS[pair].partition(" ")
                turned = words[place + 2 : place + 3] == ["by"]
                found.setdefault(kind, []).append((place, place + 2 + turned, bool(back) != turned))
    return {kind: _ends(wording, *spans[0]) for kind, spans in found.items() if len(spans) == 1}


def _ordered(wording: Wording) -> dict[str, tuple[set[str], set[str]]]:
    """The keys of what comes first and of what comes later, by the only "after" or "before" of a text."""
    if _ORDER.isdisjoint(wording.vocabulary) or not _UNORDERED.isdisjoint(wording.vocabulary) or may_deny(wording):
        return {}
    places = [place for place, word in enumerate(wording.words) if word in _ORDER]
    if len(places) > 1:
        return {}
    place, back = places[0], wording.words[places[0]] in _AFTER
    if place > 1:
        if wording.text.count(","):
            return {}
        return {"precede": _ends(wording, place, place + 1, back)}
    clause, comma, _ = wording.text.partition(",")
    end = len(clause.split())
    if not comma:
        return {}
    behind = {key for key in wording.keys[place + 1 : end] if key}
    main = {key for key in wording.keys[end : end + 2 * _REACH] if key}
    return {"precede": (behind - main, main - behind) if back else (main - behind, behind - main)}


def _way(words: list[str], place: int) -> int | None:
    """1 where "by" turns a participle round, 0 for a verb with an object, None for anything else."""
    before, behind = words[place - 1] if place else "", words[place + 1] if place + 1 < len(words) else ""
    if behind == "by" and words[place].endswith("ed"):
        return 1
    if not place or not behind or before in BEING or behind in NOT_OBJECT:
        return None
    inflected = words[place].endswith(("s", "ed"))
    return 0 if inflected or before in _MODAL or before.endswith("s") else None


def _ends(wording: Wording, start: int, end: int, back: bool) -> tuple[set[str], set[str]]:
    before = {key for key in wording.keys[max(0, start - _REACH) : start] if key}
    behind = {key for key in wording.keys[end : end + _REACH] if key}
    before, behind = before - behind, behind - before
    return (behind, before) if back else (before, behind)
