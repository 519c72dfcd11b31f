"""Query-passage pairs after MedEmbed: what of a generator's answer counts.

An answer is a JSON array of pairs. It is read strictly first and repaired in stated ways only, and every pair that is
refused keeps its reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cardioembed.paraphrases.generation.units import Unit
from cardioembed.paraphrases.quantities import numbers, stated_numbers
from cardioembed.records import Row, normalise

# Below this share of its content words found in the unit, a passage is about something else. With the sample's
# paraphrases, three in a row as a passage and its sections as units, 0.3 refuses 0 % of the close and 8 % of the free
# ones, and 97 % of passages from another section.
GROUNDED_SHARE = 0.3
MIN_PASSAGE_WORDS = 8
_TYPES = {
    "keyword": "keyword", "keywords": "keyword", "natural_language": "natural_language", "question": "natural_language",
    "treatment": "treatment", "procedure": "treatment", "follow_up": "treatment", "followup": "treatment",
    "treatment_procedure_follow_up": "treatment", "management": "treatment",
}  # fmt: skip
_FUNCTION_WORDS = frozenset(
    """
    about above after again against also although among and another any are because been before being below between
    both but can could did does during each either few for from further had has have having her his how however if in
    into is it its itself less may might more most must neither nor not of often on once only or other our out over own
    per rather same shall should since so some still such than that the their them then there therefore these they this
    those though through thus to too under until upon usually very was were what when where whereas whether which while
    who whose why will with within without would yet your
    """.split()
)


@dataclass
class Reading:
    """An answer taken apart: pairs that count, refused ones with their reason, and the repairs it took."""

    pairs: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)


def read_pairs(answer: str, unit: Unit, min_relevance: float) -> Reading:
    """Takes an answer apart.

    Refusals, in this order: ``not_an_object``, ``missing_key``, ``bad_type``, ``bad_relevance``, ``empty``,
    ``below_min_relevance``, ``too_short``, ``copy``, ``number_not_in_unit``, ``not_grounded``, ``duplicate``; an answer
    without any JSON object is refused as a whole as ``unparsable``.

    Args:
        answer: What the generator wrote.
        unit: What it had read.
        min_relevance: Pairs scored lower by the generator itself are refused.
    """
    elements, repairs = parse_objects(answer)
    reading = Reading(repairs=repairs)
    if not elements:
        reading.refused.append({"reason": "unparsable", "detail": f"no JSON object in {answer[:80]!r}", "pair": answer})
    queries: set[str] = set()
    for element in elements:
        reason, detail = _refusal(element, unit, min_relevance) or ("", "")
        if not reason and normalise(element["query"]) in queries:
            reason, detail = "duplicate", "the query was written before in this answer"
        if reason:
            reading.refused.append({"reason": reason, "detail": detail, "pair": element})
            continue
        queries.add(normalise(element["query"]))
        query, passage = (" ".join(element[key].split()) for key in ("query", "passage"))
        kind, relevance = _type(element["type"]), _relevance(element["relevance"])
        reading.pairs.append({"query": query, "passage": passage, "type": kind, "relevance": relevance})
    return reading


def parse_objects(answer: str) -> tuple[list[Any], list[str]]:
    """The elements of the JSON array in an answer, and the repairs that reading it took.

    Repairs: ``text_around`` (code fences, remarks), ``trailing_comma``, ``control_characters`` (line breaks inside a
    text), ``single_object`` (instead of an array), ``wrapped`` (``{"pairs": [...]}``), ``cut_off`` (the array breaks
    off or is broken somewhere: its complete objects count).
    """
    text = answer.strip()
    try:
        return _elements(json.loads(text), [])
    except ValueError:
        pass
    repairs = []
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=None)
    if start is None:
        return [], []
    inner = text[start : max(text.rfind("]"), text.rfind("}")) + 1] or text[start:]
    if inner != text:
        repairs.append("text_around")
    without = _TRAILING_COMMA.sub(lambda match: match[1] or "", inner)
    if without != inner:
        repairs.append("trailing_comma")
    for strict in (True, False):
        try:
            return _elements(json.loads(without, strict=strict), repairs + ["control_characters"] * (not strict))
        except ValueError:
            continue
    return list(_complete_objects(_TRAILING_COMMA.sub(lambda match: match[1] or "", text[start:]))), ["cut_off"]


# A comma before a closing bracket; texts are matched first so that one inside them stays.
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)


def _elements(content: Any, repairs: list[str]) -> tuple[list[Any], list[str]]:
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if "query" in content or len(lists) != 1:
            return [content], [*repairs, "single_object"]
        return lists[0], [*repairs, "wrapped"]
    return (content, repairs) if isinstance(content, list) else ([], repairs)


def _complete_objects(text: str) -> Iterator[Row]:
    decoder = json.JSONDecoder(strict=False)
    at = text.find("{")
    while at >= 0:
        try:
            found, at = decoder.raw_decode(text, at)
            yield found
        except ValueError:
            at += 1
        at = text.find("{", at)


def _refusal(element: Any, unit: Unit, min_relevance: float) -> tuple[str, str] | None:
    if not isinstance(element, dict):
        return "not_an_object", f"a JSON {type(element).__name__}"
    if missing := [key for key in ("query", "type", "passage", "relevance") if key not in element]:
        return "missing_key", missing[0]
    if _type(element["type"]) is None:
        return "bad_type", f"{element['type']!r}, not {', '.join(dict.fromkeys(_TYPES.values()))}"
    if (relevance := _relevance(element["relevance"])) is None:
        return "bad_relevance", f"{element['relevance']!r}, not a number from 0 to 1"
    if not all(isinstance(element[key], str) and normalise(element[key]) for key in ("query", "passage")):
        return "empty", "query or passage has no text"
    if relevance < min_relevance:
        return "below_min_relevance", f"{relevance:g} < {min_relevance:g}"
    return _unfaithful(element["query"], element["passage"], unit.text)


def _unfaithful(query: str, passage: str, text: str) -> tuple[str, str] | None:
    if len(passage.split()) < MIN_PASSAGE_WORDS:
        return "too_short", f"{len(passage.split())} words, at least {MIN_PASSAGE_WORDS} are needed"
    if normalise(query) == normalise(passage):
        return "copy", "the passage is the query"
    if invented := numbers(passage) - stated_numbers(text):
        return "number_not_in_unit", ", ".join(sorted(invented))
    share = grounded_share(passage, text)
    if share < GROUNDED_SHARE:
        return "not_grounded", f"{share:.0%} of its content words are in the text, {GROUNDED_SHARE:.0%} are needed"
    return None


def grounded_share(passage: str, text: str) -> float:
    """The share of a passage's different content words that occur in a text, endings aside."""
    words = _stems(passage)
    return len(words & _stems(text)) / len(words) if words else 0.0


def _stems(text: str) -> set[str]:
    words = re.findall(r"\w+", normalise(text))
    return {word[:5] for word in words if len(word) > 2 and word not in _FUNCTION_WORDS}


def _type(value: Any) -> str | None:
    return _TYPES.get(re.sub(r"\W+", "_", value.strip().lower())) if isinstance(value, str) else None


def _relevance(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
