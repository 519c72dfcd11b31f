"""Whether a denial went missing between two texts, or came in."""

from __future__ import annotations

import re
from typing import NamedTuple

from cardioembed.paraphrases.denying import DENIERS, DENYING_VERBS, is_new, may_deny, new_denials
from cardioembed.paraphrases.meaning import same_end
from cardioembed.paraphrases.numerals import complement
from cardioembed.paraphrases.tables import bits, load_tables
from cardioembed.paraphrases.wording import Wording

# "no less than 40", "not only": limits and emphasis, not denials.
_LIMITED = frozenset(
    "less more lower higher smaller larger greater longer shorter later earlier fewer worse above below only merely "
    "beyond under over exceed exceeds exceeded exceeding surpass surpasses surpassing reach reaches reaching delay "
    "exception fail interruption just".split()
)
# A paraphrase may bring in "no" or "without" to put a plain fact another way; a new "not" is a change of claim.
_CLAIMING = frozenset("not never cannot nothing".split()) | {word for word, to in DENYING_VERBS.items() if to}
_REACH = 6
_UNEVEN = re.compile(r"%|per ?cent|third|half|quarter|fifth| in | of ")
_BEING = frozenset(("is", "are", "was", "were", "be", "been"))
_OPPOSITE = re.compile(
    r"un|in|im|ir|non|dis|contraindic|exclu|rul|prevent|preclud|avoid|fail|lack|absen|refus|withh|forbid|prohibit|harm|den|"
    r"rare|seldom|stop|loss|lose|miss|adverse|abnormal|asympt|resist|refract"
)
_PREFIX = re.compile(r"(?:un|in|im|ir|non)(?=[a-z]{5})")


class Denial(NamedTuple):
    """A denying word.

    Attributes:
        word: The word itself.
        free: Whether it makes a claim: not part of a limit ("no less than") or of a phrase ("not uncommon").
        bound: Whether it is part of a phrase that has a meaning of its own.
        scope: The places of the first two words of content behind it.
        keys: Their keys.
        near: The keys of all words around it, where the passive voice may have put what is denied.
    """

    word: str
    free: bool
    bound: bool
    scope: tuple[int, ...]
    keys: frozenset[str]
    near: frozenset[str]


def negation_change(original: Wording, paraphrase: Wording) -> str | None:
    """A denial that went missing or came in, or None.

    Denials of the same thing are paired off first. What the one that is left over denies must be said in the other
    text, too, and nothing new there may deny it in another way: "persists" for "does not improve" is no change.
    """
    if not (may_deny(original) or may_deny(paraphrase)) or not same_end(original, paraphrase):
        return None
    if _UNEVEN.search(original.text) and complement(original.text, paraphrase.text):
        return None
    before, after = _denials(original), _denials(paraphrase)
    lost, added = _unpaired(before, after)
    claims = [one for one in added if one.word in _CLAIMING or one.word.endswith("n't")]
    for left, right, first, second, known, what in (
        (lost, added, original, paraphrase, after, "lost"),
        (claims, lost, paraphrase, original, before, "added"),
    ):
        paired = {denial.word for denial in known}
        if all(denial.bound for denial in right):
            for denial in left:
                if _is_gone(denial, first, second, paired):
                    return f"{what} the negation {_as_written(denial.word, first)!r}"
    return None


def _as_written(word: str, wording: Wording) -> str:
    return next((token for token in re.findall(r"[\w']+", wording.text) if token.lower() == word), word)


def tells_the_rest(first: Wording, second: Wording) -> set[str]:
    """The numbers of a share whose rest the other text tells, with the opposite said of it: "5% died", "95% lived"."""
    if ("survival" in first.keys and "death" in second.keys) or ("death" in first.keys and "survival" in second.keys):
        return complement(first.text, second.text)
    if may_deny(first) != may_deny(second) or new_denials(first, second) or new_denials(second, first):
        return complement(first.text, second.text)
    return set()


def _denials(wording: Wording) -> list[Denial]:
    contracted = "n't" in wording.text
    return [
        _denial(wording, place, word)
        for place, word in enumerate(wording.words)
        if (word in DENIERS or (contracted and word.endswith("n't"))) and _is_denial(wording.words, place, word)
    ]


def _is_denial(words: list[str], place: int, word: str) -> bool:
    wanted = DENYING_VERBS.get(word)
    return not wanted or words[place + 1 : place + 2] == [wanted]


def _denial(wording: Wording, place: int, word: str) -> Denial:
    words, keys = wording.words, wording.keys
    behind, bound = range(place + 1, min(place + 2 * _REACH + 1, len(words))), place in wording.bound
    if word == "absent":
        if words[place - 1] in _BEING:  # "the murmur is absent" denies what stands before
            behind = range(place - 1, max(-1, place - _REACH - 3), -1)
        else:
            bound = True
    scope = tuple([at for at in behind if keys[at]][: 1 if word == "non" else 2])
    denied = frozenset(keys[at] for at in scope)
    near = denied.union(filter(None, keys[max(0, place - 5) : place + 7]))
    free = not bound and _LIMITED.isdisjoint(words[place + 1 : place + 3])
    return Denial(word, free, bound, scope, denied, near)


def _unpaired(denials: list[Denial], others: list[Denial]) -> tuple[list[Denial], list[Denial]]:
    """Those of either text that none of the other matches in what is denied, nor in what stands around it."""
    left = [one for one in denials if all(one.keys.isdisjoint(other.keys) for other in others)]
    right = [one for one in others if all(one.keys.isdisjoint(other.keys) for other in denials)]
    return [one for one in left if not _has_near(one, right)], [one for one in right if not _has_near(one, left)]


def _has_near(denial: Denial, others: list[Denial]) -> bool:
    return any(not (denial.keys.isdisjoint(o.near) and o.keys.isdisjoint(denial.near)) for o in others)


def _is_gone(denial: Denial, first: Wording, second: Wording, paired: set[str]) -> bool:
    """Whether a text says what the other denies, and has nothing new that may deny it without a negator."""
    if denial.word in DENYING_VERBS and denial.word in second.vocabulary:
        return False
    if not denial.free or denial.keys.isdisjoint(second.keys) or new_denials(second, first, paired):
        return False
    if any(_OPPOSITE.match(first.words[at]) and is_new(first, at, second) for at in denial.scope):
        return False  # a denial of a denial: "is not a contraindication" is "may be given"
    rivals, end = 0, denial.scope[-1] + _REACH
    for at, sure, _ in first.meanings:
        if denial.scope[0] <= at <= end:
            for place in bits(sure):
                rivals |= load_tables().rivals[place]
    return not rivals & second.possible & ~first.possible


def prefix_change(original: Wording, paraphrase: Wording) -> str | None:
    """A word that was exchanged for its opposite in un-, in-, non- and the like, or None.

    With a denial in either text "not reversible" may stand for "irreversible"; such pairs are left alone.
    """
    if may_deny(original) or may_deny(paraphrase):
        return None
    before, after = original.vocabulary - paraphrase.vocabulary, paraphrase.vocabulary - original.vocabulary
    for first, second, text, other in (
        (before, after, paraphrase, original),
        (after, before, original, paraphrase),
    ):
        for word in first:
            prefix = _PREFIX.match(word)
            if prefix and word[prefix.end() :] in second and not new_denials(text, other):
                return f"{word} against {word[prefix.end() :]}"
    return None
