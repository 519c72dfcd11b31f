"""Token vectors to one vector a text, by the attention mask and never by position."""

from __future__ import annotations

import torch
from torch import Tensor


def pool(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Pools token vectors; padding may stand on either side.

    Args:
        hidden: Last hidden states, shape (texts, tokens, dimensions).
        mask: 1 for a token, 0 for padding, shape (texts, tokens).
        mode: ``"cls"`` (first token), ``"mean"`` or ``"lasttoken"`` (last token, the EOS of a language model).

    Returns:
        Shape (texts, dimensions), in the dtype of ``hidden`` for cls and lasttoken, in float32 for mean.
    """
    if mode == "mean":
        weights = mask.unsqueeze(-1).to(torch.float32)
        return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
    if mode == "cls":
        index = mask.int().argmax(1)
    elif mode == "lasttoken":
        index = mask.shape[1] - 1 - mask.int().flip(1).argmax(1)
    else:
        raise ValueError(f"pooling mode {mode!r} is unknown; choose cls, mean or lasttoken")
    rows = torch.arange(hidden.shape[0], device=hidden.device)  # len() would fix the number of texts in an export
    return hidden[rows, index]
