"""How much memory training a base takes, worked out from its files before anything is loaded.

Weights follow from the shapes in the safetensors headers, activations from config.json. The activation formula was
fitted to what torch keeps for backward (see tests/embedder/test_memory.py); sizes are in bytes, GB are 10**9 bytes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cardioembed.embedder.adapters import QUERY_VALUE
from cardioembed.embedder.system_memory import available_bytes
from cardioembed.embedder.weight_shapes import Shapes, is_gated, layer_linears, read_shapes
from cardioembed.errors import UserError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINED_BYTES = 16  # a float32 weight, its gradient and Adam's two moments
TIGHT_SHARE = 0.8
CPU_QUANTIZED_LIMIT = 1e9
_TOGETHER = re.compile(r"(query|key|value|q|k|v|q_proj|k_proj|v_proj|gate_proj|up_proj)\.weight$")


@dataclass(frozen=True)
class Workload:
    """What is trained and how; the fields are the settings of the same names.

    Attributes:
        device: Where it is trained.
        batch_tokens: Tokens of all texts of one batch (anchors, positives, negatives); 0 for encoding only.
        autocast: ``train.bf16``.
        r: LoRA rank; 0 trains every parameter of the base.
        eager_length: Tokens of the longest text if attention is eager (it keeps every attention weight), else 0.
        shards: FSDP processes that share the base.
    """

    device: torch.device
    quantization: str
    dtype: str
    autocast: bool
    batch_tokens: int
    chunk_tokens: int
    gradient_cache: bool = False
    gradient_checkpointing: bool = False
    r: int = 16
    target_modules: str | list[str] = "all-linear"
    eager_length: int = 0
    shards: int = 1


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes, part by part, and the bytes that are there (None: unknown)."""

    base: int
    adapter_and_optimizer: int
    activations: int
    available: int | None

    @property
    def total(self) -> int:
        """Sum of the parts in bytes."""
        return self.base + self.adapter_and_optimizer + self.activations

    @property
    def fits(self) -> bool:
        """Whether it is not more than is there."""
        return self.available is None or self.total <= self.available

    @property
    def tight(self) -> bool:
        """Whether it fits, but takes more than 80 % of what is there."""
        return self.fits and self.available is not None and self.total > TIGHT_SHARE * self.available

    def describe(self) -> str:
        """One line: the sum, what is there and the parts, in GB."""
        there = "an unknown amount is free" if self.available is None else f"you have {_gb(self.available)}"
        parts = f"base {_gb(self.base)}, adapter and optimizer {_gb(self.adapter_and_optimizer)}, activations "
        text = f"needs about {_gb(self.total)}, {there} ({parts}{_gb(self.activations)})"
        return f"{text}; this is tight" if self.tight else text


def check_memory(folder: Path, work: Workload) -> MemoryEstimate:
    """Estimates, and refuses what does not fit.

    Raises:
        UserError: It needs more than is there; the message lists each setting that helps and what it leads to.
    """
    estimate = estimate_memory(folder, work, available_bytes(work.device))
    if estimate.fits:
        return estimate
    options = {name: estimate_memory(folder, w, None).total for name, w in _savings(work).items()}
    ranked = sorted((need, name) for name, need in options.items() if need < 0.99 * estimate.total)
    advice = "; ".join(f"{name} (then {_gb(need)})" for need, name in ranked)
    others = "a smaller model.base" + (" or more FSDP processes" if work.device.type == "cuda" else "")
    raise UserError(
        f"model.base: training it {estimate.describe()}. Set, most helpful first: {advice or 'no single setting helps'}"
        f"; several together save more; otherwise take {others}"
    )


def check_quantization(folder: Path, quantization: str, device: torch.device) -> None:
    """Refuses a quantised base of more than 1 GB (at two bytes a weight) where there is no CUDA.

    Raises:
        UserError: bitsandbytes would be far too slow.
    """
    size = weight_bytes(folder, "none", "bfloat16")
    if quantization != "none" and device.type != "cuda" and size > CPU_QUANTIZED_LIMIT:
        raise UserError(
            f"model.quantization: {quantization} needs an NVIDIA GPU for a base of {_gb(size)}: on this device "
            f"({device.type}) bitsandbytes is far too slow. Set model.quantization=none with model.dtype=bfloat16, "
            "take a smaller model.base, or run on a machine with CUDA"
        )


def estimate_memory(folder: Path, work: Workload, available: int | None) -> MemoryEstimate:
    """All parts for one device; every FSDP process holds its share of the base (and of what full fine-tuning adds)."""
    full, shards = work.r == 0, work.shards
    # The weights of a base that is trained itself are among the 16 bytes of each of its parameters.
    base = 0 if full else weight_bytes(folder, work.quantization, work.dtype) // shards
    trained = trained_bytes(folder, work.r, work.target_modules) // (shards if full else 1)
    return MemoryEstimate(base, trained, activation_bytes(folder, work), available)


def weight_bytes(folder: Path, quantization: str, dtype: str) -> int:
    """Bytes of the loaded base.

    bitsandbytes quantises the linears inside the layers and BERT's pooler: ``int8`` is a byte a weight and a float32
    scale a row, ``nf4`` half a byte, a float32 maximum per 64 weights and a table of 16 float32. Everything else is
    held in ``dtype``.
    """
    shapes = read_shapes(folder)
    linears = {} if quantization == "none" else layer_linears(shapes)
    if quantization != "none":
        linears |= {n: (s[0], s[1]) for n, s in shapes.items() if "pooler" in n and len(s) == 2}
    rest = sum(math.prod(shape) for name, shape in shapes.items() if name not in linears) * DTYPE_BYTES[dtype]
    if quantization == "int8":
        return rest + sum(rows * columns + 4 * rows for rows, columns in linears.values())
    return rest + sum(math.ceil(a * b / 2) + 4 * math.ceil(a * b / 64) + 64 for a, b in linears.values())


def trained_bytes(folder: Path, r: int, target_modules: str | list[str]) -> int:
    """Bytes of all trained parameters with gradients and Adam moments: of the adapter, or with r 0 of the base."""
    return TRAINED_BYTES * _trained(read_shapes(folder), r, target_modules)


def activation_bytes(folder: Path, work: Workload) -> int:
    """Bytes that one training step holds besides weights: what backward needs, and one layer's passing tensors.

    Without gradient checkpointing every layer keeps its inside for every token whose graph is alive: all of the batch,
    or one chunk with ``gradient_cache``. With it, layers keep their inputs, and one layer of one chunk its inside.
    """
    if not work.batch_tokens:
        return 0
    shapes, config = read_shapes(folder), _read_config(folder)
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    chunk = min(work.chunk_tokens, work.batch_tokens)
    alive = chunk if work.gradient_cache else work.batch_tokens
    inside = _inside_bytes(config, shapes, work)
    casts = _cast_bytes(shapes, work)
    passing = 14 * config["intermediate_size"] * chunk
    if not work.gradient_checkpointing:
        return passing + layers * inside * alive + casts * math.ceil(alive / chunk)
    stream = DTYPE_BYTES[work.dtype] if is_gated(shapes) else _layer_norm_byte(work)
    kept_inputs = (layers * stream + 4) * hidden * alive  # 4: the norm after the last layer is float32
    return passing + kept_inputs + inside * chunk + casts // layers


def _layer_norm_byte(work: Workload) -> int:
    """Bytes of a number in and out of a LayerNorm, which CUDA's autocast runs in float32."""
    return 4 if work.autocast and work.device.type == "cuda" else DTYPE_BYTES[work.dtype]


def _inside_bytes(config: dict[str, Any], shapes: Shapes, work: Workload) -> int:
    """Bytes per token that one layer keeps for backward."""
    heads, hidden, inner = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // heads
    width, keys = heads * head, config.get("num_key_value_heads", heads) * head
    byte = 2 if work.autocast else DTYPE_BYTES[work.dtype]
    attention = byte * 4 * width + 4 * heads + (4 + byte) * heads * work.eager_length  # keys are repeated per query
    norm_byte = 4 if is_gated(shapes) else _layer_norm_byte(work)  # RMSNorm computes in float32
    norms = norm_byte * (2 * hidden + (width + keys if any("q_norm" in name for name in shapes) else 0))
    feed_forward = byte * inner * (3 if is_gated(shapes) else 1)
    inputs = _kept_inputs(shapes, work) // config["num_hidden_layers"]
    held = byte * (2 * hidden + width + inner) if work.quantization == "int8" else 0  # bitsandbytes holds its inputs
    return attention + norms + feed_forward + held + inputs


def _kept_inputs(shapes: Shapes, work: Workload) -> int:
    """Bytes per token that all trained linears together keep of their inputs.

    PEFT keeps each linear's own dropped copy with a mask, in float32 unless there is autocast; the fused functions of
    ``training.fused_lora`` keep one input and one mask for linears that read the same tensor.
    """
    targets = _targets(shapes, work.r, work.target_modules)
    byte = 2 if work.autocast else 4
    low = byte * work.r * len(targets)
    fused = work.quantization == "none" and work.dtype == ("bfloat16" if work.autocast else "float32")
    if work.r and fused:
        alone = {_TOGETHER.sub("", name): columns for name, (_, columns) in targets.items()}
        return low + sum((byte + 1) * columns for columns in alone.values())
    # On a CPU torch's dropout keeps its mask as float32 numbers.
    mask = (4 if work.device.type == "cpu" else 1) if work.r else 0
    return low + sum((byte + mask) * columns for _, columns in targets.values())


def _cast_bytes(shapes: Shapes, work: Workload) -> int:
    """Bytes of the bfloat16 copies of float32 weights that autocast makes for every chunk."""
    if not work.autocast:
        return 0
    base = work.dtype != "bfloat16" and work.quantization == "none"
    linears = sum(math.prod(shape) for shape in layer_linears(shapes).values()) if base else 0
    return 2 * (linears + (_trained(shapes, work.r, work.target_modules) if work.r else 0))


def _savings(work: Workload) -> dict[str, Workload]:
    """Settings that lower the need, each with the workload that it makes."""
    half = max(work.chunk_tokens, 32) // 2
    changes: dict[str, dict[str, Any]] = {
        f"train.chunk_tokens={half}": {"chunk_tokens": half},
        "train.gradient_cache=true": {"gradient_cache": True},
        "train.gradient_checkpointing=true": {"gradient_checkpointing": True},
        "model.dtype=bfloat16": {"dtype": "bfloat16"},
    }
    if work.device.type == "cuda" and work.r:
        changes["model.quantization=nf4"] = {"quantization": "nf4"}
        changes["model.quantization=int8"] = {"quantization": "int8"}
    return {name: replace(work, **change) for name, change in changes.items()}


def _targets(shapes: Shapes, r: int, target_modules: str | list[str]) -> dict[str, tuple[int, int]]:
    linears = layer_linears(shapes)
    if r == 0 or target_modules == "all-linear":
        return linears
    wanted = QUERY_VALUE if target_modules == "query-value" else target_modules
    return {name: shape for name, shape in linears.items() if name.split(".")[-2] in wanted}


def _trained(shapes: Shapes, r: int, target_modules: str | list[str]) -> int:
    if r == 0:
        return sum(math.prod(shape) for shape in shapes.values())
    return sum(r * (rows + columns) for rows, columns in _targets(shapes, r, target_modules).values())


def _read_config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    wanted = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if missing := [key for key in wanted if key not in config]:
        raise UserError(f"model.base: {folder / 'config.json'} lacks {', '.join(missing)}, which its memory depends on")
    return config


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"
