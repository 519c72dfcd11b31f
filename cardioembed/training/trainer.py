"""The training loop: whole-batch contrastive steps, validation, best weights, checkpoints, logs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers.modeling_layers import GradientCheckpointingLayer

from cardioembed.embedder.adapters import adapter_weights, untouched_adapters
from cardioembed.embedder.encoder import Embedder
from cardioembed.errors import UserError
from cardioembed.records import Row, normalise
from cardioembed.training import losses
from cardioembed.training.checkpoints import Progress, latest_checkpoint, load_checkpoint, save_checkpoint
from cardioembed.training.dropout import use_word_dropout
from cardioembed.training.gradients import batch_backward
from cardioembed.training.plan import Plan
from cardioembed.training.schedule import every, learning_rate_at


class Trainer:
    """Trains the adapter of an embedder; running it again on the same folder goes on where it stopped.

    Args:
        embedder: With a PEFT model.
        rows: Training triplets.
        plan: See ``Plan``.
        validate: Measures the embedder: ``{"accuracy@1": ..., "mrr": ..., ...}``; higher is better.
        folder: Checkpoints go here.
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
        self.embedder, self.rows, self.plan, self.validate = embedder, rows, plan, validate
        self.folder, self.log_path, self.tensorboard = folder, log_path, tensorboard
        self.fingerprint = fingerprint
        self.per_epoch = plan.steps_per_epoch(len(rows))
        self.total = plan.max_steps or self.per_epoch * plan.num_train_epochs
        self.accelerator = Accelerator(mixed_precision="bf16" if plan.bf16 else "no", cpu=embedder.device.type == "cpu")
        if self.accelerator.num_processes > 1:
            raise UserError("this version trains in one process; start it with python, not with torchrun")
        use_word_dropout(embedder.model)
        self.weights = adapter_weights(embedder.model)
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._tokenize()

    def _tokenize(self) -> None:
        anchor, positive = self.embedder.recipe.anchor_prompt, self.embedder.recipe.positive_prompt
        self.negatives = min(len(row["negatives"]) for row in self.rows)
        anchors, cut_anchors = self.embedder.tokenize([row["anchor"] for row in self.rows], anchor)
        positives, cut_positives = self.embedder.tokenize([row["positive"] for row in self.rows], positive)
        texts = [text for row in self.rows for text in row["negatives"][: self.negatives]]
        negatives, cut_negatives = self.embedder.tokenize(texts, positive) if texts else ([], 0)
        m = self.negatives
        self.tokens = [
            [a, p, *negatives[i * m : i * m + m]] for i, (a, p) in enumerate(zip(anchors, positives, strict=True))
        ]
        self.truncated = cut_anchors + cut_positives + cut_negatives
        self.keys = [(row["group"], normalise(row["anchor"]), normalise(row["positive"])) for row in self.rows]

    def train(self) -> Progress:
        """Runs to the last step and leaves the best weights in the model.

        Raises:
            UserError: A loss or gradient is not finite, or a checkpoint of other settings is in the way.
        """
        self._resume()
        self._set_modes()
        evaluate_every, save_every = every(self.plan.eval_steps, self.total), every(self.plan.save_steps, self.total)
        writer = SummaryWriter(str(self.tensorboard), purge_step=self.progress.step)
        log = self.log_path.open("a", encoding="utf-8", newline="\n")
        bar = tqdm(total=self.total, initial=self.progress.step, desc="train", unit="step")
        with writer, log, bar:
            if self.progress.step == 0:
                self._validate(log, writer, bar)
            while self.progress.step < self.total:
                entry = self._step()
                done = self.progress.step
                if done % self.plan.logging_steps == 0 or done == self.total:
                    _write_log(log, writer, entry, done)
                bar.update()
                bar.set_postfix(loss=f"{entry['loss']:.4f}", tokens_s=f"{entry['tokens_per_second']:.0f}")
                if done % evaluate_every == 0 or done == self.total:
                    self._validate(log, writer, bar)
                if done % save_every == 0 or done == self.total:
                    log.flush()
                    save_checkpoint(
                        self.folder, self.progress, self.weights, self.best, self.optimizer, self.fingerprint
                    )
        self._restore_best()
        return self.progress

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint:
            self.progress, self.best = load_checkpoint(checkpoint, self.weights, self.optimizer, self.fingerprint)
            print(f"  going on from {checkpoint} (step {self.progress.step} of {self.total})")
        _cut_log(self.log_path, self.progress.step)

    def _set_modes(self) -> None:
        """Dropout acts in the adapter only: the frozen base answers as it will at inference."""
        model = self.embedder.model
        model.eval()
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout) and "lora_dropout" in name:
                module.train()
        if self.plan.gradient_checkpointing:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            for module in model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True  # checkpointing asks for it; the parts inside keep their mode

    def _step(self) -> dict[str, Any]:
        step, plan, started = self.progress.step, self.plan, time.perf_counter()
        chosen = self._batch(step)
        sequences = [self.tokens[i][part] for part in range(2 + self.negatives) for i in chosen]
        mask = losses.false_negative_mask(
            *(list(column) for column in zip(*(self.keys[i] for i in chosen), strict=True))
        )
        rate = learning_rate_at(step, self.total, plan.learning_rate, plan.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = batch_backward(
            self._embed,
            sequences,
            lambda vectors: self._loss(vectors, len(chosen), mask),
            chunk_tokens=plan.chunk_tokens,
            seed=(plan.seed, step),
            cached=plan.gradient_cache,
        )
        norm = float(self.accelerator.clip_grad_norm_(self.weights.values(), plan.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"step {step + 1}: the loss is {loss} and the gradient norm {norm}; nothing was updated. Lower "
                "train.learning_rate, raise train.temperature, set train.bf16=false or model.dtype=float32; with int8, "
                "try model.quantization=none"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens, masked = sum(map(len, sequences)), int(mask.sum())
        self.progress.step += 1
        self.progress.tokens += tokens
        self.progress.masked_pairs += masked
        return {
            "step": step + 1,
            "epoch": round((step + 1) / self.per_epoch, 4),
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": tokens,
            "masked_pairs": masked,
            "tokens_per_second": round(tokens / (time.perf_counter() - started), 1),
        }

    def _batch(self, step: int) -> np.ndarray:
        epoch, index = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.rows))
        size = self.plan.per_device_train_batch_size
        return order[index * size : (index + 1) * size]

    def _embed(self, sequences: list[list[int]]) -> Tensor:
        with self.accelerator.autocast():
            return self.embedder.embed_tokens(sequences)

    def _loss(self, vectors: Tensor, count: int, mask: Tensor) -> Tensor:
        anchors, positives = vectors[:count], vectors[count : 2 * count]
        negatives = vectors[2 * count :].view(self.negatives, count, -1).transpose(0, 1)
        function = getattr(losses, self.plan.loss)
        return function(anchors, positives, negatives, self.plan.temperature, mask.to(vectors.device))

    def _validate(self, log: Any, writer: SummaryWriter, bar: tqdm) -> None:
        scores = self.validate()
        self._set_modes()
        score = [scores["accuracy@1"], scores["mrr"]]
        if self.progress.step == 0:
            self.progress.base_score = score
        elif score > self.progress.best_score:
            self.progress.best_step, self.progress.best_score = self.progress.step, score
            self.best = {name: p.detach().cpu().clone() for name, p in self.weights.items()}
        entry = {"step": self.progress.step, **{f"validation_{name}": value for name, value in scores.items()}}
        _write_log(log, writer, entry, self.progress.step)
        bar.write(f"  step {self.progress.step}: validation accuracy@1 {score[0]:.4f}, mrr {score[1]:.4f}")

    def _restore_best(self) -> None:
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(self.best[name])
        untouched = untouched_adapters(self.embedder.model)
        if untouched:
            raise UserError(
                f"{len(untouched)} adapter weights never got a gradient, for example {untouched[0]}; take their "
                "modules out of model.lora.target_modules"
            )
        self.embedder.model.eval()


def _write_log(log: Any, writer: SummaryWriter, entry: dict[str, Any], step: int) -> None:
    log.write(json.dumps(entry) + "\n")
    for name, value in entry.items():
        if name != "step":
            writer.add_scalar(name, value, step)


def _cut_log(path: Path, step: int) -> None:
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
