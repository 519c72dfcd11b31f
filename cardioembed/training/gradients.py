"""Loss and gradient of a whole batch, computed in chunks and, if there are several, by all processes together.

A batch's texts are one length-sorted stream of token-budget chunks. Each chunk draws its dropout from a seed of its
own, so it does not matter which process computes it, whether its graph is kept or computed again, or whether the run
was stopped before: the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cardioembed.distributed import processes, sum_over_processes
from cardioembed.embedder.batching import length_sorted_chunks, own_share

Embed = Callable[[list[list[int]]], Tensor]
Loss = Callable[[Tensor], Tensor]


def batch_backward(
    embed: Embed,
    sequences: list[list[int]],
    loss_of: Loss,
    *,
    vectors: Tensor,
    chunk_tokens: int,
    seed: tuple[int, ...],
    cached: bool,
    even: bool = False,
) -> float:
    """Adds this process's share of the gradient of the whole batch's loss to the parameters.

    Every process has the whole batch and computes every n-th chunk. The vectors are summed into one matrix that all
    have, so each takes the loss of the whole batch; its gradient flows back through the own chunks. The sum of the
    processes' gradients (``sum_gradients``) is the gradient of one process.

    Args:
        embed: Token sequences to vectors, shape (texts, d), with gradients.
        sequences: All texts of the batch.
        loss_of: Vectors of all texts, in their order, to a scalar.
        vectors: Zeros, shape (texts, d), where ``embed`` puts its vectors: device and type.
        chunk_tokens: Most padded tokens that go through the model at once.
        seed: Seed of the batch; chunk c uses ``(*seed, c)``.
        cached: False keeps every chunk's graph (one forward). True keeps one chunk's graph at a time and runs the
            forward twice (GradCache, Gao et al. 2021): memory no longer grows with the batch.
        even: Whether all processes must run the model equally often, see ``own_share``.

    Returns:
        The loss.
    """
    chunks = length_sorted_chunks([len(sequence) for sequence in sequences], chunk_tokens)
    numbers = {tuple(chunk): number for number, chunk in enumerate(chunks)}
    own = own_share(chunks, even=even)

    def vectors_of(chunk: list[int]) -> Tensor:
        torch.manual_seed(chunk_seed(*seed, numbers[tuple(chunk)]))
        return embed([sequences[i] for i in chunk])

    with torch.set_grad_enabled(not cached):
        graphs = [vectors_of(chunk) for chunk, _ in own]
    for (chunk, counts), part in zip(own, graphs, strict=True):
        if counts:
            vectors[chunk] = part.detach()
    sum_over_processes(vectors).requires_grad_()
    loss = loss_of(vectors)
    loss.backward()
    gradients = [vectors.grad[chunk] * counts for chunk, counts in own]
    if cached:
        for (chunk, _), gradient in zip(own, gradients, strict=True):
            vectors_of(chunk).backward(gradient)
    elif graphs:
        torch.autograd.backward(graphs, gradients)
    return loss.item()


def sum_gradients(weights: list[nn.Parameter]) -> None:
    """Replaces every process's gradients by their sum over the processes; one process's stay as they are."""
    if processes() == 1:
        return
    flat = torch.cat([(w.grad if w.grad is not None else torch.zeros_like(w)).flatten() for w in weights])
    parts = sum_over_processes(flat).split([weight.numel() for weight in weights])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)


def chunk_seed(*parts: int) -> int:
    """One seed from several numbers, without the collisions that adding them would have."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
