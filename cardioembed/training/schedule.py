"""Learning rate and step counts."""

from __future__ import annotations

import math


def learning_rate_at(step: int, total: int, peak: float, warmup_ratio: float, kind: str = "cosine") -> float:
    """Linear warm-up, then what ``kind`` says; names as in transformers.

    Args:
        step: The step about to be taken, 0 up.
        total: All steps.
        peak: Highest learning rate.
        warmup_ratio: Share of the steps that warm up.
        kind: ``cosine`` (half a cosine to zero), ``linear`` (to zero) or ``constant_with_warmup``.
    """
    warmup = math.ceil(total * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return (
        peak * {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant_with_warmup": 1.0}[kind]
    )


def every(steps: float, total: int) -> int:
    """``eval_steps`` and the like: a share of all steps below 1, else a number of steps."""
    return max(1, round(steps * total)) if steps < 1 else int(steps)
