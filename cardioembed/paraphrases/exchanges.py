"""Two texts that differ in one place, where a word gave way to its opposite or a denial came or went."""

from __future__ import annotations

from functools import cache

from cardioembed.lexicon import opposites
from cardioembed.paraphrases.denying import can_deny
from cardioembed.paraphrases.wording import NEGATING, Wording, in_words

_REASONS = {
    "negation": "negation_changed",
    "laterality": "laterality_changed",
    "number": "comparator_changed",
    "direction": "direction_changed",
    "severity": "severity_changed",
    "temporality": "temporality_changed",
    "entity": "name_changed",
    "role": "role_changed",
}
# Longest stretch of words, on either side, that still counts as one place; and words around it that may belong to it.
_LONGEST = 7
_AROUND = 3


def exchange(original: Wording, paraphrase: Wording) -> tuple[str, str] | None:
    """The reason and the detail of an exchange of opposites in otherwise equal texts, or None."""
    before, after = original.words, paraphrase.words
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    end = next((i for i in range(shorter - start) if before[-1 - i] != after[-1 - i]), shorter - start)
    lost, added = before[start : len(before) - end], after[start : len(after) - end]
    if not (lost or added) or max(len(lost), len(added)) > _LONGEST or start + end < shorter / 2:
        return None
    for left in range(min(_AROUND, start) + 1):
        for right in range(min(_AROUND, end) + 1):
            first = " ".join(before[start - left : len(before) - end + right])
            second = " ".join(after[start - left : len(after) - end + right])
            if category := _opposites().get(first, {}).get(second):
                return _REASONS[category], f"{first!r} became {second!r}"
    return _denial(lost, added)


def _denial(lost: list[str], added: list[str]) -> tuple[str, str] | None:
    for first, second, what in ((lost, added, "lost"), (added, lost, "added")):
        negator = next((word for word in first if word in NEGATING), None)
        kept = {word[:4] for word in first}
        if not negator or len(NEGATING.intersection(first)) > 1:
            continue  # "not without risk" denies nothing
        if not any(word in NEGATING or (can_deny(word) and word[:4] not in kept) for word in second):
            return "negation_changed", f"{what} the negation {negator!r}"
    return None


@cache
def _opposites() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for category, pairs in opposites().items():
        for word, others in pairs.items():
            found.setdefault(in_words(word), {}).update({in_words(other): category for other in others})
    return found
