"""Loss and gradient of a whole batch, computed in chunks.

A batch's texts are one length-sorted stream of token-budget chunks. Each chunk draws its dropout masks from a seed of
its own, so the two ways below give the same numbers, as does the same step after a resume.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cardioembed.embedder.batching import length_sorted_chunks

Embed = Callable[[list[list[int]]], Tensor]
Loss = Callable[[Tensor], Tensor]


def batch_backward(
    embed: Embed, sequences: list[list[int]], loss_of: Loss, *, chunk_tokens: int, seed: tuple[int, ...], cached: bool
) -> float:
    """Adds the gradient of the whole batch's loss to the parameters.

    Args:
        embed: Token sequences to vectors, shape (texts, d), with gradients.
        sequences: All texts of the batch.
        loss_of: Vectors of all texts, in their order, to a scalar.
        chunk_tokens: Most padded tokens that go through the model at once.
        seed: Seed of the batch; chunk c uses ``(*seed, c)``.
        cached: False keeps every chunk's graph (one forward). True keeps one chunk's graph at a time and runs the
            forward twice (GradCache, Gao et al. 2021): memory no longer grows with the batch.

    Returns:
        The loss.
    """
    chunks = length_sorted_chunks([len(sequence) for sequence in sequences], chunk_tokens)

    def vectors_of(number: int) -> Tensor:
        torch.manual_seed(chunk_seed(*seed, number))
        return embed([sequences[i] for i in chunks[number]])

    place = torch.tensor([i for chunk in chunks for i in chunk])
    back = torch.empty_like(place)
    back[place] = torch.arange(len(place))
    if not cached:
        vectors = torch.cat([vectors_of(number) for number in range(len(chunks))])
        loss = loss_of(vectors[back.to(vectors.device)])
        loss.backward()
        return loss.item()
    with torch.no_grad():
        vectors = torch.cat([vectors_of(number) for number in range(len(chunks))])
    vectors.requires_grad_()
    loss = loss_of(vectors[back.to(vectors.device)])
    loss.backward()
    start = 0
    for number, chunk in enumerate(chunks):
        vectors_of(number).backward(vectors.grad[start : start + len(chunk)])
        start += len(chunk)
    return loss.item()


def chunk_seed(*parts: int) -> int:
    """One seed from several numbers, without the collisions that adding them would have."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
