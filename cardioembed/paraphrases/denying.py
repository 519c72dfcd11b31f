"""Words that deny, and words that can carry a denial without a negator."""

from __future__ import annotations

import re
from functools import lru_cache

from cardioembed.paraphrases.wording import NEGATING, Wording

# Words that deny what follows them, each with the word that must come next (or any).
DENYING_VERBS = {
    "fail": "to", "fails": "to", "failed": "to", "failing": "to", "failure": "to", "unable": "to", "inability": "to",
    "incapable": "of", "devoid": "of", "free": "of", "absence": "of",
    "absent": "", "lack": "", "lacks": "", "lacked": "", "lacking": "",
}  # fmt: skip
DENIERS = NEGATING | DENYING_VERBS.keys()
# Words that can carry a denial without a negator; wide on purpose, * stands for any ending.
_DENIAL_WORDS = """
    un(?!til|der|ion|it|i)*
    in(?:ab|acc|act|ade|adv|app|aud|cap|compl|compat|conc|cons|corr|dep|dist|eff|el|exp|freq|sens)*
    in(?:sign|suff|tol|val|vis|var|eq)* im(?:poss|prop|prac|perm|mob|mun|mat)* ir(?:re|ra)* non*
    dis(?:app|con|reg|all|card|pens|prov|agr|adv|qual|sim)* asymptomatic atypical afebrile avascular asystol*
    acyanotic free absen* lack* fail* exclu* rul* avoid* contraindicat* despite rather instead other deni* deny*
    negativ* only unless until except* but alone far prevent* preclud* spar* intact preserv* normal* withh* omit*
    omission stop* hardly rarely seldom scarcely little few fewer less minimal minus forbid* prohibit* ban banned
    bar bars barred impermissible refrain* neglig* miss* ceas* end abolish* abandon* loss lost lose* harm*
    regardless irrespective discourag* refractory resist* naive confin* restrict* limit* poor* spontaneous* bypass*
    silent* impair* beyond exceed* short below under equal* same constant stable already still yet too devoid
    against needless redundant pointless futile spurious* false* separate* away whether reserv* surviv* remain*
    leav* left doubt* question* most elud* escap* defer* lest mandatory continu* keep* kept cap capped permit* fixed
    depriv* before although though decline* refus* reject* oppos* unlike differ* elsewhere solely exclusively mere*
""".split()
_DENIAL = re.compile(
    rf"(?:{'|'.join(_DENIAL_WORDS)})|\w+less|\w+-free".replace("*", r"\w*"),
    re.IGNORECASE,
)


def may_deny(wording: Wording) -> bool:
    """Whether a text holds a denying word."""
    return not DENIERS.isdisjoint(wording.vocabulary) or "n't" in wording.text


@lru_cache(maxsize=32768)
def can_deny(word: str) -> bool:
    """Whether a word can carry a denial without a negator: "fails", "absent", "unsafe"."""
    return bool(_DENIAL.fullmatch(word))


def new_denials(wording: Wording, other: Wording, besides: frozenset[str] | set[str] = NEGATING) -> bool:
    """Whether a text has a word that can carry a denial and that the other does not hold, nor a word of its family."""
    return any(
        can_deny(word) and is_new(wording, at, other)
        for at, word in enumerate(wording.words)
        if word not in NEGATING and word not in besides
    )


def is_new(wording: Wording, at: int, other: Wording) -> bool:
    """Whether a word of a text is not in the other, in any form, nor a word of its family."""
    word, key = wording.words[at], wording.keys[at]
    if word in other.vocabulary or (key and key in other.keys):
        return False
    return len(word) < 5 or not any(known.startswith(word[:5]) for known in other.vocabulary)
