"""The optional gate that looks at vectors: another statement is far from its sentence, a copy is on top of it."""

from __future__ import annotations

import numpy as np

from cardioembed.paraphrases.merging import PASSAGE
from cardioembed.records import Row


def refuse_by_cosine(
    pairs: list[Row], cosines: np.ndarray, min_cosine: float, max_cosine: float
) -> tuple[list[Row], list[Row]]:
    """Divides pairs by the cosine between sentence and paraphrase; query-passage pairs pass.

    Args:
        pairs: Rows of ``01_merged_paraphrases.jsonl``.
        cosines: Cosine of each pair, shape (n,).
        min_cosine, max_cosine: Limits, both allowed.

    Returns:
        The kept pairs, and rejected rows with reason ``cosine_low`` or ``cosine_high``.
    """
    kept: list[Row] = []
    rejected: list[Row] = []
    for pair, cosine in zip(pairs, cosines.tolist(), strict=True):
        if pair.get("kind") == PASSAGE or min_cosine <= cosine <= max_cosine:
            kept.append(pair)
            continue
        low = cosine < min_cosine
        limit = f"at least {min_cosine:g}" if low else f"at most {max_cosine:g}"
        detail = f"cosine {cosine:.3f}, {limit} is asked for"
        rejected.append({"reason": "cosine_low" if low else "cosine_high", "detail": detail, "row": pair})
    return kept, rejected
