"""LoRA linears as one forward and one backward function each: PEFT's numbers without its copies.

PEFT's LoRA linear is five operations that each keep their input for the backward pass. Here the frozen product, the
dropped input and both small products are one function, which keeps the input, one byte of dropout mask an entry, and
the rank-r activations. Linears that read the same input (query, key, value; gate, up) are one function together and
see one dropout mask.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from cardioembed.training.dropout import draw_drops, dropped, protected

# Names of linears that read the same tensor, in the architectures of the study.
_TOGETHER = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"), ("gate_proj", "up_proj"))
_ADAPTER = "default"


class _LoraProducts(torch.autograd.Function):
    """``y_i = x W_i' + b_i + s_i (d(x) A_i') B_i'`` for each linear i, d being dropout of the given entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drops: Tensor | None, scales: list[float], *weights: Tensor | None):
        """Shapes: x (..., in), W (out, in), b (out) or None, A (r, in), B (out, r); scales hold dropout's 1/(1-p)."""
        compute, shape = x.dtype, x.shape
        rows = x.reshape(-1, shape[-1])
        fours = _fours(weights)
        with dropped(rows, drops) as kept:
            low = [kept @ down.to(compute).T for _, _, down, _ in fours]
        outputs = []
        for scale, inner, (frozen, bias, _, up) in zip(scales, low, fours, strict=True):
            output = rows @ frozen.T if bias is None else torch.addmm(bias, rows, frozen.T)
            outputs.append(output.addmm_(inner, up.to(compute).T, alpha=scale).view(*shape[:-1], -1))
        ctx.scales, ctx.shape = scales, shape
        ctx.save_for_backward(rows, drops, *low, *weights)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        """Gradients of x, of each A and of each B."""
        rows, drops, *rest = ctx.saved_tensors
        low, fours = rest[: len(gradients)], _fours(rest[len(gradients) :])
        compute = rows.dtype
        gradients = [gradient.reshape(len(rows), -1) for gradient in gradients]
        into_low = [
            (gradient @ up.to(compute)).mul_(scale)
            for gradient, scale, (_, _, _, up) in zip(gradients, ctx.scales, fours, strict=True)
        ]
        with dropped(rows, drops) as kept:
            into_down = [inner.T @ kept for inner in into_low]
        into_up = [
            (gradient.T @ inner).mul_(scale) for gradient, inner, scale in zip(gradients, low, ctx.scales, strict=True)
        ]
        into_input = None
        if ctx.needs_input_grad[0]:
            into_input = gradients[0] @ fours[0][0]
            for gradient, (frozen, *_) in zip(gradients[1:], fours[1:], strict=True):
                into_input.addmm_(gradient, frozen)
            _add_low(into_input, into_low, [down.to(compute) for _, _, down, _ in fours], drops)
            into_input = into_input.view(ctx.shape)
        per_linear = [
            (None, None, into_a.to(down.dtype), into_b.to(up.dtype))
            for into_a, into_b, (_, _, down, up) in zip(into_down, into_up, fours, strict=True)
        ]
        return into_input, None, None, *(part for parts in per_linear for part in parts)


def _add_low(total: Tensor, into_low: list[Tensor], downs: list[Tensor], drops: Tensor | None) -> None:
    """Adds what flows back through the adapters to ``total``, except at dropped entries."""
    if drops is not None and drops.dtype == torch.bool:
        through = sum(inner @ down for inner, down in zip(into_low, downs, strict=True))
        total.add_(through.masked_fill_(drops, 0))
        return
    with protected(total, drops) if drops is not None else nullcontext():
        for inner, down in zip(into_low, downs, strict=True):
            total.addmm_(inner, down)


def _fours(weights: tuple[Tensor | None, ...] | list[Tensor | None]) -> list[tuple[Tensor | None, ...]]:
    return [tuple(weights[start : start + 4]) for start in range(0, len(weights), 4)]


class _Together:
    """Linears that read the same tensor: the first one called computes all, the others find their output here."""

    def __init__(self, members: list[LoraLinear]) -> None:
        self.members = members
        self.input: Tensor | None = None
        self.outputs: dict[int, Tensor] = {}

    def output_of(self, member: LoraLinear, x: Tensor, compute: torch.dtype) -> Tensor:
        if self.input is not x or id(member) not in self.outputs:
            self.input = x
            self.outputs = dict(zip(map(id, self.members), lora_linears(x.to(compute), self.members), strict=True))
        output = self.outputs.pop(id(member))
        if not self.outputs:
            self.input = None  # nothing is kept alive between two passes
        return output


def lora_linears(x: Tensor, members: list[LoraLinear]) -> tuple[Tensor, ...]:
    """Outputs of LoRA linears that read ``x``, shape (..., in_features), with one dropout for all of them."""
    dropout = members[0].lora_dropout[_ADAPTER]
    rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    drops = draw_drops(x.reshape(-1, x.shape[-1]), rate) if rate else None
    weights = [
        weight
        for member in members
        for weight in (
            member.base_layer.weight,
            member.base_layer.bias,
            member.lora_A[_ADAPTER].weight,
            member.lora_B[_ADAPTER].weight,
        )
    ]
    scales = [member.scaling[_ADAPTER] / (1 - rate) for member in members]
    with torch.autocast(x.device.type, enabled=False):
        return _LoraProducts.apply(x, drops, scales, *weights)


def fuse_lora(model: nn.Module) -> int:
    """Gives every plain LoRA linear of a PEFT model the fused function; returns how many.

    Left to PEFT: quantised linears, DoRA, adapters with a bias, and any call in another dtype than the weights' (a
    bfloat16 base under float32 adapters).
    """
    fused = 0
    for parent in list(model.modules()):
        children = {name: child for name, child in parent.named_children() if _is_plain(child)}
        groups = [[children.pop(name) for name in names] for names in _TOGETHER if children.keys() >= set(names)]
        for members in [*groups, *([child] for child in children.values())]:
            together = _Together(members)
            for member in members:
                member.forward = _forward(member, together, member.forward)
                fused += 1
    return fused


def _is_plain(module: nn.Module) -> bool:
    return (
        type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and list(module.lora_A) == [_ADAPTER]
        and not module.lora_variant
        and module.lora_B[_ADAPTER].bias is None
        and not module.fan_in_fan_out
    )


def _forward(member: LoraLinear, together: _Together, original: Any) -> Any:
    def forward(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        kind = x.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        alike = compute == member.base_layer.weight.dtype
        exact = compute == member.lora_A[_ADAPTER].weight.dtype or torch.is_autocast_enabled(kind)
        if arguments or options or member.disable_adapters or member.merged or not (alike and exact):
            return original(x, *arguments, **options)
        return together.output_of(member, x, compute)

    return forward
