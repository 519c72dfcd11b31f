"""Texts of mixed lengths to chunks with little padding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardioembed.distributed import processes, rank

# A chunk costs what this share of a full one does even where it is nearly empty: calls, and small matrices.
CHUNK_COST = 1 / 16


def length_sorted_chunks(lengths: list[int], budget: int) -> list[list[int]]:
    """Cuts texts, longest first, into the chunks that cost least within a token budget.

    The cost is that of the padded tokens and of the chunks themselves (``CHUNK_COST``); dynamic programming over the
    places to cut finds the least.

    Args:
        lengths: Tokens of each text.
        budget: Most tokens a chunk may have after padding; a longer text is a chunk of its own.

    Returns:
        Indices of the texts, chunk by chunk; every index once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    widths = np.array([lengths[i] for i in order])  # of a chunk that begins there: its first text is its longest
    counts = np.arange(len(order), 0, -1)
    cost, begin = np.zeros(len(order) + 1), np.zeros(len(order) + 1, int)  # of the cheapest chunks of the first texts
    first = 0  # where the last of these chunks can begin
    for end in range(1, len(order) + 1):
        while first < end - 1 and widths[first] * (end - first) > budget:
            first += 1
        costs = cost[first:end] + widths[first:end] * counts[first - end :]
        cheapest = costs.argmin()
        begin[end], cost[end] = first + cheapest, costs[cheapest] + CHUNK_COST * budget
    chunks: list[list[int]] = []
    end = len(order)
    while end:
        chunks.append(order[begin[end] : end])
        end = begin[end]
    return chunks[::-1]


def own_share(chunks: list[list[int]], *, even: bool) -> list[tuple[list[int], bool]]:
    """This process's chunks: every n-th of them.

    Args:
        chunks: All chunks.
        even: Gives every process equally many, which a sharded model needs: the first chunk once more where one is
            missing.

    Returns:
        ``(chunk, counts)``; what the chunk gives is to be left aside where it does not count.
    """
    own = [(chunk, True) for chunk in chunks[rank() :: processes()]]
    missing = -(-len(chunks) // processes()) - len(own)
    return own + [(chunks[0], False)] * (missing if even else 0)


def padded_tokens(lengths: list[int], chunks: list[list[int]]) -> int:
    """Tokens of the chunks with their padding."""
    return sum(len(chunk) * max(lengths[i] for i in chunk) for chunk in chunks)


def pad(sequences: list[list[int]], pad_id: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Right-pads token ids.

    The mask comes from the lengths, not from ``ids != pad_id``: a pad id can be a real token (Qwen3's EOS is).

    Returns:
        ``(ids, mask)``, both of shape (texts, longest) and type int64.
    """
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)
