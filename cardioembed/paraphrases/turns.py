"""Whether two stretches of words changed places around a verb that stayed."""

from __future__ import annotations

from cardioembed.paraphrases.wording import Wording

_REACH = 6
# Before these, or behind those, a word is no verb in the active voice with an object.
BEING = frozenset("is are was were be been being gets got the a an its their common commonest main other frequent "
                   "leading rare most many these important and or of with in to for from".split())  # fmt: skip
NOT_OBJECT = frozenset(
    "of being is are was were by with when as after in during to at on from if while and or because before than for "
    "until once without through over but more less then under should can may must will would could might have has had "
    "do who which that not".split()
)
_ARTICLES = frozenset(("the", "a", "an", "its", "their"))
# Around these the order of two things does not matter.
_SYMMETRIC = frozenset(
    "with between versus equal equals both resemble resembles associated linked related compared than coexist "
    "accompany accompanies correlate correlates near beside join joins meets".split()
)


def exchanged_places(original: Wording, paraphrase: Wording) -> str | None:
    """What changed places around words that stayed, or None."""
    return _swapped(original, paraphrase) or _turned_round(original, paraphrase)


def _swapped(original: Wording, paraphrase: Wording) -> str | None:
    """Two stretches that changed places around words that stayed, in texts of the same words: "A informed B"."""
    if len(original.words) != len(paraphrase.words) or original.vocabulary != paraphrase.vocabulary:
        return None
    if not _SYMMETRIC.isdisjoint(original.vocabulary):
        return None
    first, second = (
        [(word, key) for word, key in zip(text.words, text.keys, strict=True) if word not in ("a", "an", "the")]
        for text in (original, paraphrase)
    )
    shorter = min(len(first), len(second))
    start = next((at for at in range(shorter) if first[at] != second[at]), shorter)
    end = next((at for at in range(shorter - start) if first[-1 - at] != second[-1 - at]), shorter - start)
    first, second = first[start : len(first) - end], second[start : len(second) - end]
    if len(first) != len(second) or len(first) > 3 * _REACH:
        return None
    for left in range(1, min(_REACH, len(first) - 1)):
        for right in range(1, min(_REACH, len(first) - left)):
            parts = first[:left], first[left:-right], first[-right:]
            if (second[-left:], second[right:-left], second[:right]) != parts:
                continue
            if all(any(key for _, key in part) for part in parts):
                return f"{first[0][0]} and {first[-1][0]} changed places"
    return None


def _turned_round(original: Wording, paraphrase: Wording) -> str | None:
    """A verb that both texts hold in one form and voice, with the words of content beside it exchanged."""
    words = original.words
    for place, word in enumerate(words):
        if word in _ARTICLES and place > 1 and (verb := words[place - 1]).endswith(("s", "ed")):
            sides = _beside(original, verb) if verb in paraphrase.vocabulary else None
            if sides and sides[0] != sides[1] and _beside(paraphrase, verb) == sides[::-1]:
                return f"{sides[0]} {verb} {sides[1]} became {sides[1]} {verb} {sides[0]}"
    return None


def _beside(wording: Wording, verb: str) -> tuple[str, str] | None:
    """The nearest keys before and behind a verb in the active voice, where it has an object."""
    words, keys = wording.words, wording.keys
    place = words.index(verb)
    if not 0 < place < len(words) - 1 or not keys[place] or verb in _SYMMETRIC:
        return None
    if words[place - 1] in BEING or not _has_object(words, place):
        return None
    before = next((key for key in reversed(keys[max(0, place - 3) : place]) if key), "")
    behind = next((key for key in keys[place + 1 : place + 4] if key), "")
    return (before, behind) if before and behind else None


def _has_object(words: list[str], place: int) -> bool:
    """Whether an object follows a verb; behind a participle only an article shows it."""
    behind = words[place + 1]
    return behind in _ARTICLES or (words[place][-1] == "s" and behind not in NOT_OBJECT)
