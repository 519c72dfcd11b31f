"""Attention without padding: texts stand end to end in one row, and each token sees those of its own text.

Every linear, norm and activation then works on real tokens only. On CUDA in half precision the attention itself is
torch's variable-length flash attention (``torch.nn.attention.varlen``); elsewhere, and in float32, queries, keys and
values alone are padded for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

VARLEN = "varlen"  # its name among transformers' attention implementations
# Their attention is plain: no bias of positions (MPNet, JinaBERT), no capped scores (Gemma-2).
PACKABLE = ("bert", "xlm-roberta", "qwen2", "qwen3")
_HALF = (torch.bfloat16, torch.float16)


def can_pack(config: PreTrainedConfig) -> bool:
    """Whether packed texts give this architecture's own vectors; a sliding window is not built here."""
    return config.model_type in PACKABLE and not getattr(config, "use_sliding_window", False)


def pack(sequences: list[list[int]], config: PreTrainedConfig, device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """The model's input for texts end to end.

    Returns:
        ``(keyword arguments of the model, starts)``; ``starts`` has the first token of every text and the end of the
        last, shape (texts + 1,), int32.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    starts = nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    first = config.pad_token_id + 1 if config.model_type == "xlm-roberta" else 0  # where it begins to count
    positions = torch.cat([torch.arange(first, first + len(sequence)) for sequence in sequences])
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    starts = starts.to(device)
    model_input = {
        "input_ids": ids[None].to(device),
        "position_ids": positions[None].to(device),
        # transformers' names: it hands them through to the attention function, also when checkpointing recomputes.
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
    }
    return model_input, starts


def pool_packed(hidden: Tensor, starts: Tensor, mode: str) -> Tensor:
    """``pool`` for texts end to end.

    Args:
        hidden: Last hidden states, shape (tokens, dimensions).
        starts: See ``pack``.
        mode: ``cls``, ``mean`` or ``lasttoken``.
    """
    if mode == "cls":
        return hidden[starts[:-1]]
    if mode == "lasttoken":
        return hidden[starts[1:] - 1]
    if mode != "mean":
        raise ValueError(f"pooling mode {mode!r} is unknown; choose cls, mean or lasttoken")
    lengths = starts.diff()
    text = torch.repeat_interleave(lengths)
    sums = hidden.new_zeros((len(lengths), hidden.shape[1]), dtype=torch.float32)
    return sums.index_add(0, text, hidden.float()) / lengths[:, None]


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers for packed texts.

    Args:
        module: The attention module; ``is_causal`` says whether tokens see only what stands before them.
        query: Shape (1, heads, tokens, head dimension); keys and values may have fewer heads, each serving a group.
        attention_mask: Not used: the texts' borders are the mask.
        scaling: Of the scores before the softmax.
        cu_seq_lens_q, max_length_q: See ``pack``.

    Returns:
        Shape (1, tokens, heads, head dimension), and no weights.
    """
    if cu_seq_lens_q is None:
        raise ValueError("attention varlen takes packed texts only; give the model what pack() returns")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    # Under autocast a norm or rotation can leave queries and keys in float32 beside a half-precision value.
    query, key = query.to(value.dtype), key.to(value.dtype)
    causal, grouped = module.is_causal, query.shape[1] != key.shape[1]
    if query.is_cuda and value.dtype in _HALF:
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(
            query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling,
            window_size=(-1, 0) if causal else (-1, -1), enable_gqa=grouped,
        )  # fmt: skip
    else:
        out = _padded_attention(query, key, value, cu_seq_lens_q, max_length_q, causal, grouped, scaling)
    return out[None], None


def _padded_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, causal: bool, grouped: bool,
    scale: float | None,
) -> Tensor:  # fmt: skip
    """The same on tensors of (tokens, heads, head dimension) that are padded for it and cut again."""
    lengths = starts.diff()
    real = torch.arange(longest, device=starts.device) < lengths[:, None]

    def padded(tensor: Tensor) -> Tensor:
        rows = tensor.new_zeros((len(lengths), longest, *tensor.shape[1:]))
        rows[real] = tensor
        return rows.transpose(1, 2)

    mask = real[:, None, None, :]
    if causal:
        mask = mask & torch.ones(longest, longest, dtype=torch.bool, device=starts.device).tril()
    out = scaled_dot_product_attention(
        padded(query), padded(key), padded(value), attn_mask=mask, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2)[real]


@cache
def flash_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this card's variable-length kernel runs and gives what padded attention gives, forward and backward."""
    if device.type != "cuda" or dtype not in _HALF or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    generator = torch.Generator(device).manual_seed(0)
    starts = torch.tensor([0, 5, 6, 29], dtype=torch.int32, device=device)
    shapes = ((1, 4, 29, 64), (1, 2, 29, 64), (1, 2, 29, 64))
    inputs = [torch.randn(shape, device=device, generator=generator, requires_grad=True) for shape in shapes]
    module = nn.Module()
    results = []
    try:
        for module.is_causal in (True, False):
            for kind in (dtype, torch.float32):
                halves = [tensor.to(kind) for tensor in inputs]
                out, _ = varlen_attention(module, *halves, None, cu_seq_lens_q=starts, max_length_q=23)
                results.append((out, *torch.autograd.grad(out.float().pow(2).sum(), inputs)))
    except (RuntimeError, ImportError, ValueError):
        return False
    pairs = zip(results[::2], results[1::2], strict=True)
    return all(_near(half, whole) for halves, wholes in pairs for half, whole in zip(halves, wholes, strict=True))


def _near(half: Tensor, whole: Tensor) -> bool:
    return bool(torch.dist(half.float(), whole) <= 0.03 * whole.norm())


AttentionInterface.register(VARLEN, varlen_attention)
