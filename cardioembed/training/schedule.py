"""Learning rate and step counts."""

from __future__ import annotations

import math


def learning_rate_at(step: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Linear warm-up, then half a cosine to zero.

    Args:
        step: The step about to be taken, 0 up.
        total: All steps.
        peak: Highest learning rate.
        warmup_ratio: Share of the steps that warm up.
    """
    warmup = math.ceil(total * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def every(steps: float, total: int) -> int:
    """``eval_steps`` and the like: a share of all steps up to 1, else a number of steps."""
    return max(1, round(steps * total)) if steps <= 1 else int(steps)
