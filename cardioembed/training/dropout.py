"""Dropout that costs what it drops: on a CPU the gaps between dropped entries are drawn, not every entry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def draw_drops(x: Tensor, rate: float) -> Tensor:
    """Which entries of ``x`` dropout zeroes, each with probability ``rate`` and independently.

    Draws follow ``torch.manual_seed``. torch's own ``bernoulli_`` spends a draw on every entry, a quarter of a small
    model's training time on a CPU; the gaps between dropped entries are geometric, so one draw each is enough.

    Args:
        x: Any shape.
        rate: In (0, 1).

    Returns:
        On a CPU ascending positions in the flattened ``x``, int64; elsewhere a boolean mask of its shape.
    """
    if x.device.type != "cpu":
        return torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(rate)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    generator = np.random.Generator(np.random.SFC64(seed))
    expected = x.numel() * rate
    # Six standard deviations more than expected; the loop is for the billionth time.
    draws = int(expected + 6 * math.sqrt(expected) + 16)
    positions = np.cumsum(_gaps(generator, draws, rate)) - 1
    while positions[-1] < x.numel():
        positions = np.concatenate([positions, positions[-1] + np.cumsum(_gaps(generator, draws, rate))])
    return torch.from_numpy(positions[: np.searchsorted(positions, x.numel())])


def _gaps(generator: np.random.Generator, count: int, rate: float) -> np.ndarray:
    """Geometric numbers from 1 up: an exponential one, cut to its whole part."""
    gaps = generator.standard_exponential(count)
    gaps *= -1 / math.log1p(-rate)
    return gaps.astype(np.int64) + 1


@contextmanager
def dropped(x: Tensor, drops: Tensor | None) -> Iterator[Tensor]:
    """``x`` without its dropped entries, not yet scaled up.

    With positions, ``x`` itself is zeroed there and gets its values back at the end: no copy is made, and autograd does
    not count it as a change. Nothing else may read ``x`` meanwhile.
    """
    if drops is None:
        yield x
    elif drops.dtype == torch.bool:
        yield x.masked_fill(drops, 0)
    else:
        flat = x.detach().view(-1)
        flat = flat.data  # its version counter is its own
        values = flat.index_select(0, drops)
        flat.scatter_(0, drops, 0)
        try:
            yield x
        finally:
            flat.scatter_(0, drops, values)


@contextmanager
def protected(total: Tensor, drops: Tensor) -> Iterator[None]:
    """What is added to ``total`` in the block counts only where nothing is dropped (drops are positions)."""
    flat = total.view(-1)
    values = flat.index_select(0, drops)
    yield
    flat.scatter_(0, drops, values)
