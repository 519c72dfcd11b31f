"""Dropout whose masks are cheap to draw on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WordDropout(nn.Dropout):
    """``nn.Dropout`` that draws four mask entries from each 64-bit random number.

    torch's ``bernoulli_`` spends one draw an entry, about a quarter of a small model's training time on a CPU. The drop
    rate is rounded to a multiple of 2**-16, and the kept entries are scaled by the rounded rate, so the expectation is
    exact. Draws come from torch's default generator and follow ``torch.manual_seed``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Same shape and dtype as ``input``."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu":
            return super().forward(input)
        dropped = round(self.p * 2**16)
        words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        # Signed 16-bit numbers, uniform over [-2**15, 2**15).
        keep = (words.view(torch.int16)[: input.numel()] >= dropped - 2**15).view(input.shape)
        return input * keep * (2**16 / (2**16 - dropped))


def use_word_dropout(model: nn.Module) -> None:
    """Puts ``WordDropout`` in the place of every dropout of the adapter."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout and "lora_dropout" in name:
            parent, _, child = name.rpartition(".")
            model.get_submodule(parent)[child] = WordDropout(module.p)
