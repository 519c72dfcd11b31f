"""The loss curve as a PNG."""

from __future__ import annotations

from io import BytesIO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from cardioembed.records import Row

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe-Ito: told apart by colour-blind readers


def loss_curve(log: list[Row], best_step: int) -> bytes:
    """Draws training loss (raw and smoothed) above validation accuracy@1 and MRR.

    Args:
        log: Rows of ``03_training_log.jsonl``.
        best_step: The step whose weights were kept; marked.

    Returns:
        A PNG.
    """
    steps = [row["step"] for row in log if "loss" in row]
    losses = [row["loss"] for row in log if "loss" in row]
    checks = [row for row in log if "validation_accuracy@1" in row]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    top.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=1, label="each step")
    width = max(1, len(losses) // 20)
    if len(losses) > 2 * width:
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        top.plot(steps[width - 1 :], smooth, color=BLUE, linewidth=2, label=f"mean of {width} steps")
    top.set_ylabel("training loss")
    top.legend(frameon=False)
    at = [row["step"] for row in checks]
    bottom.plot(at, [r["validation_accuracy@1"] for r in checks], color=BLUE, marker="o", label="accuracy@1")
    bottom.plot(at, [r["validation_mrr"] for r in checks], color=ORANGE, marker="s", label="MRR")
    bottom.axvline(best_step, color="0.4", linestyle=":", label=f"kept: step {best_step}")
    bottom.set_ylabel("validation")
    bottom.set_xlabel("step")
    bottom.legend(frameon=False, loc="lower right")
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
