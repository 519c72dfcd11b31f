"""The numbers of ``03_training_summary.json``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cardioembed.distributed import processes
from cardioembed.embedder.adapters import adapter_weights, parameter_counts
from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.system_memory import peak_bytes
from cardioembed.records import Row
from cardioembed.training.checkpoints import Progress


def training_summary(embedder: Embedder, progress: Progress, rows: list[Row]) -> dict[str, Any]:
    """What was trained on what, and what came of it; the same on every machine that gives the same weights."""
    trainable, total = parameter_counts(embedder.model)
    names = ("accuracy@1", "mrr")
    return {
        "base": embedder.base.name,
        "revision": embedder.base.revision,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "triplets": len(rows),
        "books": len({row["source"] for row in rows if "source" in row}),
        "steps": progress.step,
        "tokens": progress.tokens,
        "pairs_kept_from_being_false_negatives": progress.masked_pairs,
        "base_validation": dict(zip(names, progress.base_score, strict=True)),
        "best_validation": dict(zip(names, progress.best_score, strict=True)),
        "best_step": progress.best_step,
        "lora_B": lora_b_norms(embedder.model),
    }


def training_costs(log: list[Row], tokens: int, device: torch.device) -> dict[str, Any]:
    """Speed, padding, memory and processes; they differ from machine to machine. Arguments as ``throughput``."""
    return {
        **throughput(log, tokens),
        "peak_memory_bytes": peak_bytes(device),
        "processes": processes(),
        "device": str(device),
    }


def lora_b_norms(model: nn.Module) -> dict[str, float] | None:
    """Of the lora_B matrices, which start at zero: how many, how many still are zero, and their norms; None without."""
    norms = [
        float(torch.linalg.vector_norm(w.detach())) for name, w in adapter_weights(model).items() if "lora_B" in name
    ]
    if not norms:
        return None
    zero = sum(norm == 0 for norm in norms)
    return {"count": len(norms), "zero": zero, "smallest_norm": min(norms), "mean_norm": sum(norms) / len(norms)}


def throughput(log: list[Row], tokens: int) -> dict[str, float]:
    """Speed and padding of the steps, validation left out, over all starts of a run.

    Args:
        log: Rows of ``03_training_log.jsonl``; the steps that it leaves out count as those it has.
        tokens: Of the whole run.

    Returns:
        ``tokens_per_second``, ``seconds_of_steps`` and ``padding``, the share of padded tokens that are no text;
        nothing if no step was logged.
    """
    steps = [row for row in log if "loss" in row]
    seen = sum(row["tokens"] for row in steps)
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in steps)
    if not steps:
        return {}
    padded = sum(row["tokens"] / (1 - row["padding"]) for row in steps)
    return {
        "tokens_per_second": round(seen / seconds, 1),
        "seconds_of_steps": round(tokens * seconds / seen, 1),
        "padding": round(1 - seen / padded, 4),
    }
