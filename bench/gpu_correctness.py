"""What must agree on a card before anything is timed there: gradients by every path, and finite vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu_sides import FORMS, SMALL, TINY, build_base, drawn_texts, embedder_of, make_trainer, triplets
from cardioembed.config import Settings
from cardioembed.errors import UserError
from cardioembed.records import write_json
from cardioembed.training.trainer import Trainer

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of a gradient: norm of the difference over the norm


def correctness(settings: Settings, device: torch.device, where: dict[str, Any], out: Path) -> None:
    """Gradients that must agree, and vectors that must be finite, on a small shape; one line each.

    Raises:
        UserError: Something does not agree.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    shape = TINY if device.type == "cpu" else SMALL
    rows = triplets(drawn_texts(3 * 16, shape["vocab_size"]))
    base = build_base(shape, "none", 0.0, device, dtype)
    plain = {"gradient_checkpointing": False, "gradient_cache": False, "bf16": dtype == torch.bfloat16}
    plain["chunk_tokens"] = 512

    def gradients(fused: bool = True, **changes: Any) -> Tensor:
        return gradient(make_trainer(base, "none", rows, settings, 16, **{**plain, **changes}), fused)

    reference = gradients()
    pairs = {
        "fused LoRA against PEFT's, no dropout": (gradients(lora_dropout=0.0), gradients(False, lora_dropout=0.0)),
        "attention without padding against padded, no dropout": (
            gradients(lora_dropout=0.0, attention="varlen"),
            gradients(lora_dropout=0.0, attention="sdpa"),
        ),
        "cached against plain": (gradients(gradient_cache=True), reference),
        "checkpointed against plain": (gradients(gradient_checkpointing=True), reference),
        "cached and checkpointed": (gradients(gradient_cache=True, gradient_checkpointing=True), reference),
        "chunks against one chunk, no dropout": (
            gradients(lora_dropout=0.0),
            gradients(lora_dropout=0.0, chunk_tokens=10**6),
        ),
    }
    lines = []
    for name, (one, other) in pairs.items():
        error = float((one - other).norm() / other.norm())
        allowed = TOLERANCE[dtype]
        lines.append((error <= allowed, f"{name}: gradients differ by {error:.1e} (at most {allowed:g})"))
    for form, (quantization, threshold) in FORMS.items():
        embedder = embedder_of(build_base(shape, quantization, threshold, device), quantization, device)
        vectors = embedder.encode([row["anchor"] for row in rows])
        finite = bool(np.isfinite(vectors).all()) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        lines.append((finite, f"{form}: {len(vectors)} vectors, {'finite unit vectors' if finite else 'NOT finite'}"))
    for good, line in lines:
        print(f"{'ok   ' if good else 'WRONG'} {line}")
    where.pop("started")
    write_json(out, {"title": "Correctness", **where, "dtype": str(dtype), "checks": [list(line) for line in lines]})
    if not all(good for good, _ in lines):
        raise UserError(f"{sum(not good for good, _ in lines)} of {len(lines)} checks failed on {where['card']}")


def gradient(trainer: Trainer, fused: bool) -> Tensor:
    """The gradient of the first batch as one float32 vector; the adapter's B weights are made random first.

    Raises:
        UserError: Nothing was fused, so that a comparison would be of PEFT with itself.
    """
    members = [module for module in trainer.embedder.model.modules() if "forward" in vars(module)]
    if not members:
        raise UserError("no LoRA linear has the fused function; the comparison would mean nothing")
    for module in members if not fused else []:
        del module.forward  # PEFT's own again
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in trainer.weights.items():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=random))
    trainer._backward(trainer.batches.at(0), 0)
    return torch.cat([weight.grad.float().flatten() for weight in trainer.weights.values()])
