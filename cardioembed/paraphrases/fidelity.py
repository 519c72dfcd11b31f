"""Deterministic gates that a paraphrase must pass; each names its reason.

The gates refuse what is plainly wrong and let doubtful rows through: a wrong rejection costs a good pair, and every
rejected row is kept in ``01_rejected.jsonl`` with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from cardioembed.paraphrases.answers import chat, heading, is_copy
from cardioembed.paraphrases.comparisons import comparison_change
from cardioembed.paraphrases.denials import negation_change, prefix_change
from cardioembed.paraphrases.exchanges import exchange
from cardioembed.paraphrases.languages import language_change
from cardioembed.paraphrases.limits import limit_change
from cardioembed.paraphrases.meaning import name_change, pole_change, residual_change
from cardioembed.paraphrases.quantities import number_change, unit_change, word_number_change
from cardioembed.paraphrases.rates import rate_change
from cardioembed.paraphrases.roles import role_reversal
from cardioembed.paraphrases.turns import exchanged_places
from cardioembed.paraphrases.wording import Wording


@dataclass(frozen=True)
class Rejection:
    """Why a paraphrase was refused: a reason code and the evidence."""

    reason: str
    detail: str


def _form(original: Wording, paraphrase: Wording) -> Rejection | None:
    """A text that speaks of the task, or says what was given."""
    if change := chat(original, paraphrase):
        return Rejection(*change)
    if is_copy(original, paraphrase):
        return Rejection("copy", "the paraphrase is the original")
    return None


def _quantities(original: Wording, paraphrase: Wording) -> Rejection | None:
    """The first change of a number, unit, limit or rate."""
    if detail := number_change(original, paraphrase) or word_number_change(original, paraphrase):
        return Rejection("numbers_changed", detail)
    if detail := unit_change(original, paraphrase):
        return Rejection("unit_changed", detail)
    if detail := limit_change(original, paraphrase):
        return Rejection("comparator_changed", detail)
    if detail := rate_change(original, paraphrase):
        return Rejection("frequency_changed", detail)
    return None


def _meaning(original: Wording, paraphrase: Wording) -> Rejection | None:
    """The first change of a name, of what a word asserts, or of a denial."""
    if change := exchange(original, paraphrase):
        return Rejection(*change)
    if detail := name_change(original, paraphrase):
        return Rejection("name_changed", detail)
    if change := pole_change(original, paraphrase) or residual_change(original, paraphrase):
        return Rejection(*change)
    if detail := exchanged_places(original, paraphrase) or role_reversal(original, paraphrase):
        return Rejection("role_changed", detail)
    if detail := comparison_change(original, paraphrase):
        return Rejection("direction_changed", detail)
    if detail := negation_change(original, paraphrase) or prefix_change(original, paraphrase):
        return Rejection("negation_changed", detail)
    return None


def check_paraphrase(
    original: str,
    paraphrase: str,
    *,
    min_characters: int,
    max_characters: int,
    min_length_ratio: float,
    max_length_ratio: float,
    language: str | None = "en",
) -> Rejection | None:
    """The first gate that a pair fails, or None.

    Args:
        original: The textbook sentence.
        paraphrase: What a generator made of it.
        min_characters: Shortest acceptable paraphrase.
        max_characters: Longest acceptable paraphrase.
        min_length_ratio: Lowest ratio of the paraphrase's length to the original's.
        max_length_ratio: Highest such ratio.
        language: The language that the paraphrase must be in, a key of ``FUNCTION_WORDS``; None: not checked.
    """
    original, paraphrase = (text.replace("’", "'") for text in (original, paraphrase))
    if not paraphrase.strip():
        return Rejection("empty", "the paraphrase has no text")
    first, second = Wording(original), Wording(paraphrase)
    if rejection := _form(first, second):
        return rejection
    length = len(paraphrase)
    if length < min_characters:
        return Rejection("too_short", f"{length} characters, at least {min_characters} are needed")
    if length > max_characters:
        return Rejection("too_long", f"{length} characters, at most {max_characters} are allowed")
    if language and (detail := language_change(paraphrase, second.vocabulary, language)):
        return Rejection("language_changed", detail)
    ratio = length / len(original)
    if not min_length_ratio <= ratio <= max_length_ratio:
        return Rejection("length_drift", f"{ratio:.2f} times the original's length")
    if detail := heading(original, paraphrase):
        return Rejection("heading", detail)
    return _quantities(first, second) or _meaning(first, second)
