"""The training loop: whole-batch contrastive steps, validation, best weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from cardioembed.distributed import processes, rank, wait_for_all
from cardioembed.embedder.adapters import trained_weights, untouched_adapters
from cardioembed.embedder.batching import length_sorted_chunks, padded_tokens
from cardioembed.embedder.encoder import Embedder
from cardioembed.errors import UserError
from cardioembed.records import Row
from cardioembed.training.batches import Batch, Batches
from cardioembed.training.checkpoints import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    refuse_other_settings,
    save_checkpoint,
)
from cardioembed.training.distillation import Untrained
from cardioembed.training.fused_lora import fuse_lora
from cardioembed.training.gradients import batch_backward, sum_gradients
from cardioembed.training.monitor import Monitor, flops_per_token
from cardioembed.training.objective import build_objective
from cardioembed.training.plan import Plan
from cardioembed.training.schedule import every, learning_rate_at


class Trainer:
    """Trains an embedder; running it again on the same folder goes on where it stopped.

    Args:
        embedder: With a PEFT model, or a plain one to train as a whole.
        rows: Training triplets.
        plan: See ``Plan``.
        validate: Measures the embedder: ``{"accuracy@1": ..., "mrr": ..., ...}``; higher is better.
        folder: Checkpoints go here; the first process writes, all read.
        log_path: JSONL of steps and validations.
        tensorboard: Folder for TensorBoard files.
        fingerprint: All that decides the result; a checkpoint of another one is refused.
    """

    def __init__(
        self,
        embedder: Embedder,
        rows: list[Row],
        plan: Plan,
        *,
        validate: Callable[[], dict[str, float]],
        folder: Path,
        log_path: Path,
        tensorboard: Path,
        fingerprint: dict[str, Any],
    ) -> None:
        self.embedder, self.plan, self.validate = embedder, plan, validate
        self.folder, self.log_path, self.tensorboard = folder, log_path, tensorboard
        self.fingerprint = fingerprint
        self.total = plan.total_steps(len(rows), processes())
        size, per_epoch = plan.per_device_train_batch_size * processes(), plan.steps_per_epoch(len(rows), processes())
        opposed = plan.loss == "opposed_statements"
        self.batches = Batches(
            embedder, rows, size, per_epoch, plan.seed, opposed=opposed, bare=plan.drop_final_punctuation
        )
        self.objective = build_objective(plan)
        self.untrained: Untrained | None = None
        fuse_lora(embedder.model)
        self.weights = trained_weights(embedder.model)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
        self.start = self._copy() if plan.interpolation < 1 else {}
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.recent: list[dict[str, Tensor]] = []

    def train(self) -> Progress:
        """Runs to the last step and leaves the best weights in the model.

        Raises:
            UserError: A loss or gradient is not finite, or a checkpoint of other settings is in the way.
        """
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint:
            refuse_other_settings(checkpoint, self.fingerprint)  # before minutes of encoding, not after
        if self.plan.distillation:  # before a checkpoint's weights come
            self.untrained = Untrained(self.embedder, self.batches.sequences, self.batches.unopposed)
        self._resume(checkpoint)
        self._set_modes()
        evaluate_every, save_every = every(self.plan.eval_steps, self.total), every(self.plan.save_steps, self.total)
        monitor = Monitor(
            self.log_path, self.tensorboard, report_to=self.plan.report_to, total=self.total, step=self.progress.step,
            flops_per_token=flops_per_token(self.embedder.model), device=self.embedder.device,
        )  # fmt: skip
        with monitor:
            if self.progress.step == 0:
                self._validate(monitor)
            while not self._finished():
                entry = self._step()
                done = self.progress.step
                monitor.step(entry, written=done % self.plan.logging_steps == 0 or done == self.total)
                if done % evaluate_every == 0 or done == self.total:
                    self._validate(monitor)
                if done % save_every == 0 or self._finished():
                    monitor.flush()
                    self._save()
            self._average(monitor)
        self._restore_best()
        return self.progress

    def _finished(self) -> bool:
        patience = self.plan.early_stopping_patience
        return self.progress.step >= self.total or (patience is not None and self.progress.stale >= patience)

    def _resume(self, checkpoint: Path | None) -> None:
        if checkpoint:
            state = load_checkpoint(checkpoint, self.weights, self.optimizer)
            self.progress, self.best, self.recent = state
            print(f"  going on from {checkpoint} (step {self.progress.step} of {self.total})")

    def _save(self) -> None:
        if rank() == 0:
            save_checkpoint(
                self.folder, self.progress, self.weights, self.best, self.recent, self.optimizer, self.fingerprint
            )
        wait_for_all()

    def _set_modes(self) -> None:
        """Dropout acts in the adapter only: the frozen base answers as it will at inference."""
        model = self.embedder.model
        model.eval()
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout) and "lora_dropout" in name:
                module.train()
        if self.plan.gradient_checkpointing:
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            if not base.supports_gradient_checkpointing:
                raise UserError(
                    f"train.gradient_checkpointing: {type(base).__name__} cannot recompute its activations; set it to "
                    "false, and train.gradient_cache=true or a lower train.chunk_tokens if memory is short"
                )
            base.gradient_checkpointing_enable({"use_reentrant": False})
            for module in model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True  # checkpointing asks for it; the parts inside keep their mode

    def _step(self) -> dict[str, Any]:
        step, plan, started = self.progress.step, self.plan, time.perf_counter()
        batch = self.batches.at(step)
        rate = learning_rate_at(step, self.total, plan.learning_rate, plan.warmup_ratio, plan.lr_scheduler_type)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward(batch, step)
        norm = self._clip()
        self._refuse_non_finite(loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        lengths, masked = [len(sequence) for sequence in batch.sequences], int(batch.mask.sum())
        tokens = sum(lengths)
        chunks = length_sorted_chunks(lengths, plan.chunk_tokens)
        padded = tokens if self.embedder.packs else padded_tokens(lengths, chunks)
        self.progress.step += 1
        self.progress.tokens += tokens
        self.progress.masked_pairs += masked
        return {
            "step": step + 1,
            "epoch": round((step + 1) / self.batches.per_epoch, 4),
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": tokens,
            "padding": round(1 - tokens / padded, 4),
            "masked_pairs": masked,
            "tokens_per_second": round(tokens / (time.perf_counter() - started), 1),
        }

    def _backward(self, batch: Batch, step: int) -> float:
        """Puts the batch's gradient into the weights; returns its loss."""
        untrained = self.untrained and self.untrained.of(batch.numbers)
        loss = batch_backward(
            self._embed,
            batch.sequences,
            lambda vectors: self.objective(vectors, untrained, batch),
            vectors=torch.zeros(len(batch.sequences), self.embedder.dimension, device=self.embedder.device),
            chunk_tokens=self.plan.chunk_tokens,
            seed=(self.plan.seed, step),
            cached=self.plan.gradient_cache is True,  # stage 03 settles auto; unsettled, nothing is cached
            even=self.embedder.sharded,
        )
        sum_gradients(list(self.weights.values()))
        return loss

    def _embed(self, sequences: list[list[int]]) -> Tensor:
        with torch.autocast(self.embedder.device.type, torch.bfloat16, enabled=self.plan.bf16):
            return self.embedder.embed_tokens(sequences)

    def _clip(self) -> float:
        return float(nn.utils.clip_grad_norm_(self.weights.values(), self.plan.max_grad_norm))

    def _refuse_non_finite(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"step {self.progress.step + 1}: the loss is {loss} and the gradient norm {norm}; nothing was updated. "
                "Lower train.learning_rate, raise train.temperature, set train.bf16=false or model.dtype=float32; with "
                "int8, try model.quantization=none"
            )

    def _validate(self, monitor: Monitor) -> None:
        scores = self.validate()
        self._set_modes()
        self._note(scores)
        monitor.validation(self.progress.step, scores)
        if self.plan.average_checkpoints and self.progress.step:
            self.recent = [*self.recent, self._copy()][-self.plan.average_checkpoints :]

    def _note(self, scores: dict[str, float]) -> None:
        """Keeps the weights if they are the best since the first step."""
        progress, score = self.progress, [scores["accuracy@1"], scores["mrr"]]
        if progress.step == 0:
            progress.base_score = score
        elif score > progress.best_score:
            progress.best_step, progress.best_score, progress.stale = progress.step, score, 0
            self.best = self._copy()
        else:
            progress.stale += 1

    def _average(self, monitor: Monitor) -> None:
        """The mean of the last validated weights takes the best ones' place if it does better on validation."""
        if len(self.recent) < 2:
            return
        mean = {name: torch.stack([weights[name] for weights in self.recent]).mean(0) for name in self.weights}
        self._put(mean)
        scores = self.validate()
        self._note(scores)
        monitor.validation(self.progress.step, scores, f" (mean of the last {len(self.recent)} checkpoints)")
        self.recent = []  # done: the same command again does not repeat it
        monitor.flush()
        self._save()

    def _copy(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(weights[name])

    def _restore_best(self) -> None:
        if not self.best:
            raise UserError("no validation after the first step gave a number; lower train.learning_rate")
        self._put(self.best)
        if self.start:
            self._put(between(self.start, self.best, self.plan.interpolation))
            scores = self.validate()
            self.progress.best_score = [scores["accuracy@1"], scores["mrr"]]
        untouched = untouched_adapters(self.embedder.model)
        if untouched:
            raise UserError(
                f"{len(untouched)} adapter weights never got a gradient, for example {untouched[0]}; take their "
                "modules out of model.lora.target_modules"
            )
        self.embedder.model.eval()


def between(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights a share of the way from those of the base to trained ones (Wortsman et al. 2022, arXiv 2109.01903).

    LoRA's factor A stays as trained, so that what the adapter adds, the product B A, is that share of it.
    """
    return {
        name: weight if "lora_A" in name else torch.lerp(start[name], weight, share) for name, weight in end.items()
    }
