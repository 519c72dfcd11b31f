"""What to train and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from cardioembed.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What to train; the names and meanings of ``config.yaml``'s ``train`` block."""

    loss: str
    temperature: float
    per_device_train_batch_size: int
    num_train_epochs: int
    learning_rate: float
    seed: int
    max_steps: int | None
    symmetric: bool
    false_negative_margin: float | None
    triplet_margin: float
    triplet_distance: str
    opposed_weight: float
    opposed_margin: float
    distillation: float
    drop_final_punctuation: float
    interpolation: float
    matryoshka_dims: list[int]
    matryoshka_weights: list[float]
    weight_decay: float
    warmup_ratio: float
    lr_scheduler_type: str
    max_grad_norm: float
    bf16: bool
    dataloader_drop_last: bool
    chunk_tokens: int
    gradient_cache: bool | str
    gradient_checkpointing: bool
    fsdp: bool
    eval_steps: float
    save_steps: float
    logging_steps: int
    early_stopping_patience: int | None
    average_checkpoints: int
    report_to: list[str]

    def steps_per_epoch(self, rows: int, processes: int = 1) -> int:
        """Batches of an epoch.

        Raises:
            UserError: Not one batch.
        """
        size = self.per_device_train_batch_size * processes
        steps = rows // size if self.dataloader_drop_last else math.ceil(rows / size)
        if rows < 2 or steps == 0:
            raise UserError(
                f"{rows} training triplets do not fill a batch of {size}. Lower train.per_device_train_batch_size, set "
                "train.dataloader_drop_last=false, or prepare more triplets"
            )
        return steps

    def total_steps(self, rows: int, processes: int = 1) -> int:
        """Steps of the whole run."""
        return self.max_steps or self.steps_per_epoch(rows, processes) * self.num_train_epochs


def check_trackers(names: list[str]) -> None:
    """Refuses a tracker whose package is missing.

    Raises:
        UserError: Says what to install.
    """
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"train.report_to: {name} is not installed; pip install {name}, or take it out of the list")
