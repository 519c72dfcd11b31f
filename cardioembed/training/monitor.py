"""What training says while it runs: a JSONL log, TensorBoard or other trackers, and a progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cardioembed.training.plan import check_trackers

# Dense bfloat16 arithmetic of cards by their makers' data sheets, in FLOP/s.
_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}


class Monitor:
    """Writes the log of one run; to be used as ``with Monitor(...) as monitor``.

    Args:
        log_path: A line a step and a validation; lines after ``step`` are taken out.
        tensorboard: Folder of TensorBoard's files.
        report_to: ``tensorboard`` and names of accelerate's trackers.
        total: All steps.
        step: Steps done before.
        flops_per_token: Of a step, for utilisation.
        device: Where it trains.
    """

    def __init__(
        self,
        log_path: Path,
        tensorboard: Path,
        *,
        report_to: list[str],
        total: int,
        step: int,
        flops_per_token: float,
        device: torch.device,
    ) -> None:
        cut_log(log_path, step)
        self._log = log_path.open("a", encoding="utf-8", newline="\n")
        self._writer = SummaryWriter(str(tensorboard), purge_step=step) if "tensorboard" in report_to else None
        self._trackers = [_start(name, tensorboard.parent.name) for name in report_to if name != "tensorboard"]
        self._bar = tqdm(total=total, initial=step, desc="train", unit="step")
        self._utilisation = flops_per_token / peak if (peak := peak_flops(device)) else None
        self._accuracy: float | None = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._log.close()
        if self._writer:
            self._writer.close()
        for tracker in self._trackers:
            tracker.finish()

    def step(self, entry: dict[str, Any], *, written: bool) -> None:
        """Notes a training step."""
        speed = entry["tokens_per_second"]
        if self._utilisation is not None:
            entry["utilisation"] = round(speed * self._utilisation, 4)
        if written:
            self._write(entry)
        self._bar.update()
        shown = {"loss": f"{entry['loss']:.4f}", "tokens/s": f"{speed:,.0f}", "padding": f"{entry['padding']:.0%}"}
        if "utilisation" in entry:
            shown["utilisation"] = f"{entry['utilisation']:.0%}"
        if self._accuracy is not None:
            shown["accuracy@1"] = f"{self._accuracy:.4f}"
        self._bar.set_postfix(shown)

    def validation(self, step: int, scores: dict[str, float], note: str = "") -> None:
        """Notes a validation."""
        self._accuracy = scores["accuracy@1"]
        self._write({"step": step, **{f"validation_{name}": value for name, value in scores.items()}})
        self._bar.write(
            f"  step {step}: validation accuracy@1 {scores['accuracy@1']:.4f}, mrr {scores['mrr']:.4f}{note}"
        )

    def flush(self) -> None:
        """Everything noted so far is on disk."""
        self._log.flush()

    def _write(self, entry: dict[str, Any]) -> None:
        self._log.write(json.dumps(entry) + "\n")
        values = {name: value for name, value in entry.items() if name != "step"}
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, entry["step"])
        for tracker in self._trackers:
            tracker.log(values, step=entry["step"])


def _start(name: str, run: str) -> GeneralTracker:
    check_trackers([name])
    tracker = LOGGER_TYPE_TO_CLASS[name](run)
    tracker.start()
    return tracker


def cut_log(path: Path, step: int) -> None:
    """Takes out what a killed run logged after the step it goes on from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if step and json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue  # half a line of a killed write
    path.write_text("".join(kept), encoding="utf-8")


def flops_per_token(model: nn.Module) -> float:
    """Arithmetic of a training step a token: 2 for each weight of a linear forward, 2 backward, 2 if it trains.

    Attention's products of tokens with tokens are left out: sentences are short.
    """
    weights = 0.0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            count = module.in_features * module.out_features
            weights += count * (6 if module.weight.requires_grad else 4)
    return weights


def peak_flops(device: torch.device) -> float | None:
    """The card's peak in bfloat16, None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)
