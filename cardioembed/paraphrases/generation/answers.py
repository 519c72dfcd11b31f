"""What of an answer counts: one sentence, or the pairs of a unit; everything else has a reason."""

from __future__ import annotations

import re

from cardioembed.completion import Completion
from cardioembed.paraphrases.generation.passages import read_pairs
from cardioembed.paraphrases.generation.units import Unit
from cardioembed.records import Row


class Unusable(Exception):  # noqa: N818
    """An answer that arrived and cannot be used: a reason code and the evidence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def paraphrase_row(sentence: Row, answer: Completion) -> Row:
    """The row of one paraphrase.

    Raises:
        Unusable: The answer was cut off, refused, or is not one line.
    """
    check_finish(answer)
    if answer.finish_reason == "length":
        raise Unusable("truncated", "the answer was cut off at max_tokens")
    text = tidy(answer.text)
    if not text:
        raise Unusable("empty_answer", "nothing is left without label and quotation marks")
    if "\n" in text:
        raise Unusable("several_lines", "one sentence was asked for")
    return {
        "sentence_id": sentence["id"], "original": sentence["text"], "paraphrase": text,
        "source": sentence["source"], "section": sentence["section"],
    }  # fmt: skip


def pair_rows(unit: Unit, answer: Completion, min_relevance: float) -> tuple[list[Row], list[Row]]:
    """The rows of one unit's query-passage pairs, and the refused pairs with their reasons.

    Raises:
        Unusable: The answer was refused, or has no pair in it.
    """
    check_finish(answer)
    reading = read_pairs(without_thinking(answer.text), unit, min_relevance)
    if not reading.pairs and any(row["reason"] == "unparsable" for row in reading.refused):
        raise Unusable("unparsable", reading.refused[0]["detail"])
    rows = [
        {
            "original": pair["query"], "paraphrase": pair["passage"], "kind": "passage", "query_type": pair["type"],
            "relevance": pair["relevance"], "unit": unit.id, "sentence_ids": list(unit.sentence_ids),
            "source": unit.source, "section": unit.section, "pairs": len(reading.pairs), "repairs": reading.repairs,
        }
        for pair in reading.pairs
    ]  # fmt: skip
    return rows, reading.refused


def check_finish(answer: Completion) -> None:
    """Refuses what is no answer.

    Raises:
        Unusable: A content filter or the model refused, or its thinking did not end.
    """
    if answer.finish_reason == "content_filter":
        raise Unusable("refused", answer.text[:200] or "by the server's content filter")
    if "<think>" in without_thinking(answer.text):
        raise Unusable("truncated", "the answer ends inside its thinking; raise max_tokens or switch thinking off")


_LABEL = re.compile(
    r"^\**(?:paraphrased?|rewritten|reworded|rephrased)(?: sentence| version)?\s*:\s*\**\s*", re.IGNORECASE
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("‘", "’"), ("`", "`"))


def tidy(text: str) -> str:
    """An answer without thinking, a leading label and quotation marks around the whole; the rest is left as it is."""
    text = _LABEL.sub("", without_thinking(text), count=1).strip()
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        if len(text) > 2 and text[0] == opening and text[-1] == closing and not {opening, closing} & set(inner):
            return inner.strip()
    return text


def without_thinking(text: str) -> str:
    """What follows the last ``</think>``; servers without a reasoning parser leave the thinking in the answer."""
    return text.rpartition("</think>")[2].strip()
