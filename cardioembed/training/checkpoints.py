"""Checkpoints from which training goes on exactly: safetensors and JSON, renamed into place when whole."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cardioembed.errors import UserError
from cardioembed.records import atomic_folder, read_json, write_json


@dataclass
class Progress:
    """How far training is.

    Attributes:
        step: Steps done.
        base_score: (accuracy@1, mrr) on validation before the first step.
        best_step: Step of the best validation since, 0 before the first.
        best_score: Its (accuracy@1, mrr).
        masked_pairs: Pairs kept from counting as negatives so far.
        tokens: Real tokens seen so far.
        stale: Validations in a row that were not the best.
    """

    step: int = 0
    base_score: list[float] = field(default_factory=lambda: [-1.0, -1.0])
    best_step: int = 0
    best_score: list[float] = field(default_factory=lambda: [-1.0, -1.0])
    masked_pairs: int = 0
    tokens: int = 0
    stale: int = 0


def save_checkpoint(
    folder: Path,
    progress: Progress,
    weights: dict[str, nn.Parameter],
    best: dict[str, Tensor],
    recent: list[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    fingerprint: dict[str, Any],
) -> None:
    """Writes ``folder/step-<n>`` and removes older ones once it is whole."""
    target = folder / f"step-{progress.step:07d}"
    with atomic_folder(target) as temporary:
        save_file(
            {name: p.detach().cpu().contiguous() for name, p in weights.items()}, temporary / "weights.safetensors"
        )
        save_file(best, temporary / "best.safetensors")
        for number, earlier in enumerate(recent):
            save_file(earlier, temporary / f"recent-{number:03d}.safetensors")
        save_file(_optimizer_tensors(optimizer, weights), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {"progress": asdict(progress), "fingerprint": fingerprint})
    for other in [path for path in folder.iterdir() if "step-" in path.name]:
        if other != target:
            shutil.rmtree(other)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; leftovers of a killed write are ignored."""
    return max(folder.glob("step-*"), default=None)


def refuse_other_settings(checkpoint: Path, fingerprint: dict[str, Any]) -> None:
    """Refuses a checkpoint of other settings, data or base.

    Raises:
        UserError: Names what differs.
    """
    was = read_json(checkpoint / "state.json")["fingerprint"]
    changed = [key for key in fingerprint if was.get(key) != fingerprint[key]]
    if changed:
        listed = "\n".join(f"  - {key}: was {was.get(key)!r}, is {fingerprint[key]!r}" for key in changed)
        raise UserError(
            f"{checkpoint} was trained with something else:\n{listed}\nGo back to that, use another run_dir, or delete "
            f"{checkpoint.parent} to start over"
        )


def load_checkpoint(
    checkpoint: Path, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor], list[dict[str, Tensor]]]:
    """Puts weights and optimizer back; returns progress, the best weights and those of the last validations."""
    state = read_json(checkpoint / "state.json")
    saved = load_file(checkpoint / "weights.safetensors")
    moments = load_file(checkpoint / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
            optimizer.state[parameter] = {
                key: moments[f"{name}:{key}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    recent = [load_file(path) for path in sorted(checkpoint.glob("recent-*.safetensors"))]
    return Progress(**state["progress"]), load_file(checkpoint / "best.safetensors"), recent


def _optimizer_tensors(optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value.detach().cpu().contiguous()
        for name, parameter in weights.items()
        for key, value in optimizer.state[parameter].items()
    }
