"""Deterministic gates that a paraphrase must pass; each names its reason.

The gates refuse what is plainly wrong and let doubtful rows through: a wrong rejection costs a good pair, and every
rejected row is kept in ``01_rejected.jsonl`` with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cardioembed.paraphrases.quantities import numbers, stated_numbers, units
from cardioembed.records import normalise


@dataclass(frozen=True)
class Rejection:
    """Why a paraphrase was refused: a reason code and the evidence."""

    reason: str
    detail: str


# Names of which one must not take the place of another.
_RIVALS = (
    re.compile(
        r"\b(?:warfarin|digoxin|aspirin|clopidogrel|amiodarone|dronedarone|flecainide|verapamil|diltiazem|ivabradine|"
        r"ezetimibe|\w{3,}(?:lol|pril|sartan|statin|xaban|gatran|gliflozin|dipine|parin|grelor|grel|semide|lactone))\b",
        re.IGNORECASE,
    ),
    re.compile(r"\b(?:mitral|tricuspid|aortic)\b", re.IGNORECASE),
    re.compile(r"\b(?:systolic|diastolic)\b", re.IGNORECASE),
)
# "no less than 40", "not only": limits and emphasis, not denials.
_LIMITS = re.compile(
    r"\bwithout\s+(?:delay|exception|fail|interruption)\b|\b(?:no|not|without|nor|none)\s+(?:\w+\s+)?"
    r"(?:less|more|lower|higher|smaller|larger|greater|longer|shorter|later|earlier|fewer|worse|exceed\w*|surpass\w*|"
    r"reach\w*|above|below|only|merely|beyond|under|over)\b|\b[Nn]on-[A-Z]\w+",
)
_NEGATORS = re.compile(r"\b(?:no|not|never|none|nor|neither|without|cannot|\w+n't|nothing|non)\b", re.IGNORECASE)
# A paraphrase may bring in "no" or "without" to put a plain fact another way; a new "not" is a change of claim.
_DENIED_CLAIM = re.compile(r"\b(?:not|never|cannot|\w+n't)\b", re.IGNORECASE)
# Words that can carry a denial without a negator; wide on purpose, * stands for any ending.
_DENIAL_WORDS = """
    un(?!til|der|ion|it|i)*
    in(?:ab|acc|act|ade|adv|app|cap|compl|compat|conc|cons|corr|dep|dist|eff|el|exp|freq|sens)*
    in(?:sign|suff|tol|val|vis|var|eq)* im(?:poss|prop|prac|perm|mob|mun|mat)* ir(?:re|ra)* non*
    dis(?:app|con|reg|all|card|pens|prov|agr|adv|qual|sim)* asymptomatic atypical afebrile avascular asystol*
    acyanotic free absen* lack* fail* exclu* rul* avoid* contraindicat* despite rather instead other deni* deny*
    negativ* only unless until except* but alone far prevent* preclud* spar* intact preserv* normal* withh* omit*
    omission stop* hardly rarely seldom scarcely little few fewer less minimal minus forbid* prohibit* ban banned
    bar bars barred impermissible refrain* neglig* miss* ceas* end abolish* abandon* loss lost lose* harm*
    regardless irrespective discourag* refractory resist* naive confin* restrict* limit* poor* spontaneous* bypass*
    silent* impair* beyond exceed* short below under equal* same constant stable already still yet too devoid
    against needless redundant pointless futile spurious* false* separate* away whether reserv* surviv* remain*
    leav* left doubt* question* most elud* escap* defer* lest mandatory continu* keep* kept cap capped permit*
    before although though decline* refus* reject* oppos* unlike differ* elsewhere solely exclusively mere*
""".split()
_DENIAL = re.compile(
    rf"\b(?:{'|'.join(_DENIAL_WORDS)})\b|\w+less\b|\w+-free\b".replace("*", r"\w*"),
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^(?:i'?m sorry|i am sorry|sorry,|i apologi[sz]e|i can(?:no|')t|i am unable|i'm unable|"
    r"as an? (?:ai|language model)|i do not have|unfortunately, i\b)",
    re.IGNORECASE,
)
_ECHO = re.compile(
    r"^(?:(?:please )?(?:paraphrase|rewrite|rephrase) (?:the|this)\b|sure[,!.]|certainly[,!.]|"
    r"of course[,!.]|here(?:'s| is| are)\b.{0,60}(?:paraphras|rewrit|rephras|version)|"
    r"(?:paraphrased?(?: sentence| version| text)?|rewritten(?: sentence)?|rephrased|output|answer|original)\s*:)|"
    r"\bthe (?:paraphrased|rewritten|original) (?:sentence|text)\b|^(?:system|user|assistant)\s*:",
    re.IGNORECASE,
)


def _copy(original: str, paraphrase: str) -> str | None:
    same = normalise(original) == normalise(paraphrase)
    return "the paraphrase is the original" if same else None


def _refusal(original: str, paraphrase: str) -> str | None:
    match = _REFUSAL.search(paraphrase)
    return f"starts like a refusal: {match[0]!r}" if match else None


def _prompt_echo(original: str, paraphrase: str) -> str | None:
    match = _ECHO.search(paraphrase)
    return f"speaks of the task, not of the subject: {match[0]!r}" if match else None


def _heading(original: str, paraphrase: str) -> str | None:
    marked = paraphrase.startswith(("#", "**")) or (paraphrase.endswith(":") and not original.endswith(":"))
    return "a heading, not a sentence" if marked else None


def _numbers(original: str, paraphrase: str) -> str | None:
    lost = numbers(original) - stated_numbers(paraphrase)
    added = numbers(paraphrase) - stated_numbers(original)
    if not lost and not added:
        return None
    return "; ".join(
        f"{verb} {', '.join(sorted(values))}" for verb, values in (("lost", lost), ("added", added)) if values
    )


def _units(original: str, paraphrase: str) -> str | None:
    before, after = units(original), units(paraphrase)
    for number in before.keys() & after.keys():
        if not before[number] & after[number]:
            return f"{number} {min(before[number])} became {number} {min(after[number])}"
    return None


def _names(original: str, paraphrase: str) -> str | None:
    """A drug or a part of the heart that gave way to another of its kind; one that is only left out or added passes."""
    for pattern in _RIVALS:
        before, after = ({m.lower() for m in pattern.findall(text)} for text in (original, paraphrase))
        if before - after and after - before:
            return f"{min(before - after)} became {min(after - before)}"
    return None


def _laterality(original: str, paraphrase: str) -> str | None:
    for side, other in (("left", "right"), ("right", "left")):
        stated = re.search(rf"\b{side}\b", original, re.IGNORECASE)
        if (
            stated
            and not _has_side(paraphrase, side)
            and _has_side(paraphrase, other)
            and not _has_side(original, other)
        ):
            return f"{side} became {other}"
    return None


def _has_side(text: str, side: str) -> bool:
    """Whether the side is named, as a word or as the first letter of an abbreviation (LV, RCA)."""
    return bool(re.search(rf"\b{side}\b", text, re.IGNORECASE) or re.search(rf"\b{side[0].upper()}[A-Z]", text))


def _negation(original: str, paraphrase: str) -> str | None:
    for first, second, what, pattern in (
        (original, paraphrase, "lost", _NEGATORS),
        (paraphrase, original, "added", _DENIED_CLAIM),
    ):
        negator = pattern.search(_LIMITS.sub(" ", first))
        if negator and not _NEGATORS.search(second) and not _DENIAL.search(second):
            return f"{what} the negation {negator[0]!r}"
    return None


_GATES: tuple[tuple[str, Callable[[str, str], str | None]], ...] = (
    ("refusal", _refusal),
    ("prompt_echo", _prompt_echo),
    ("copy", _copy),
    ("heading", _heading),
    ("numbers_changed", _numbers),
    ("unit_changed", _units),
    ("name_changed", _names),
    ("laterality_changed", _laterality),
    ("negation_changed", _negation),
)


def check_paraphrase(
    original: str,
    paraphrase: str,
    *,
    min_characters: int,
    max_characters: int,
    min_length_ratio: float,
    max_length_ratio: float,
) -> Rejection | None:
    """The first gate that a pair fails, or None.

    Args:
        original: The textbook sentence.
        paraphrase: What a generator made of it.
        min_characters: Shortest acceptable paraphrase.
        max_characters: Longest acceptable paraphrase.
        min_length_ratio: Lowest ratio of the paraphrase's length to the original's.
        max_length_ratio: Highest such ratio.
    """
    original, paraphrase = (text.replace("’", "'") for text in (original, paraphrase))
    if not paraphrase.strip():
        return Rejection("empty", "the paraphrase has no text")
    for reason, gate in _GATES[:3]:
        if detail := gate(original, paraphrase):
            return Rejection(reason, detail)
    length = len(paraphrase)
    if length < min_characters:
        return Rejection("too_short", f"{length} characters, at least {min_characters} are needed")
    if length > max_characters:
        return Rejection("too_long", f"{length} characters, at most {max_characters} are allowed")
    ratio = length / len(original)
    if not min_length_ratio <= ratio <= max_length_ratio:
        return Rejection("length_drift", f"{ratio:.2f} times the original's length")
    for reason, gate in _GATES[3:]:
        if detail := gate(original, paraphrase):
            return Rejection(reason, detail)
    return None
