"""What encoding costs here: latency, throughput, memory, size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cardioembed.distributed import processes, sum_over_processes
from cardioembed.evaluation.statistics import Estimate, Sampling, bootstrap_means, bootstrap_statistic
from cardioembed.evaluation.tasks.base import Measured

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

WARM_UPS, RUNS = 10, 100
BATCH_SIZES = (1, 4, 16, 32)
PASS_TEXTS = 64
MOST_PASSES = 5  # over these texts, for each batch size
PASS_SECONDS = 1.5  # no further pass is begun after as long as this, for each batch size

_MEGABYTE = 1e6
_PERCENTILES = {"p50": 50, "p95": 95}


@dataclass(frozen=True)
class Efficiency:
    """Cost of encoding; details: the latencies in ms, shape (100,).

    Latency follows the comparison of ten models: 10 warm-ups, then 100 runs of one text, the one of median length; its
    spread is the machine's. Throughput is that of 64 texts from all over ``texts``, passed 1 to 5 times in batches of
    each size, as the time allows. Both include the tokenizer and the way back to numpy, and the prompt of anchors. On a
    CPU ``Embedder.encode`` divides a batch of more than 1,024 tokens, as it does for any user.

    ``peak_memory_mb`` on CUDA is the most that torch held for tensors, weights included; elsewhere it is what the
    process holds (resident) after encoding, libraries and other loaded models included, and missing where the system
    does not tell. ``disk_mb`` is the base's safetensors files plus the adapter's weights. An adapter that is off counts
    neither there nor in ``parameters``. MB are 10**6 bytes.
    """

    texts: Sequence[str]
    name: str = "efficiency"
    title: str = "Efficiency"
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        texts = evenly_drawn(self.texts, PASS_TEXTS)
        tokens = token_counts(embedder, texts)
        _start_peak(embedder)
        latencies = time_latency(embedder, texts[int(np.argsort(tokens, kind="stable")[len(tokens) // 2])])
        estimates = latency_estimates(latencies, sampling)
        for size in BATCH_SIZES:
            batches = time_batches(embedder, texts, tokens, size)
            estimates |= {
                f"{name}_{size}": estimate for name, estimate in throughput_estimates(batches, sampling).items()
            }
        memory = memory_bytes(embedder)
        constants = {} if memory is None else {"peak_memory_mb": memory / _MEGABYTE}
        constants |= {
            "parameters": float(active_parameters(embedder.model)),
            "dimension": float(embedder.dimension),
            "disk_mb": disk_bytes(embedder) / _MEGABYTE,
        }
        estimates |= {
            name: _constant(value, sampling, None if name == "dimension" else "lower")
            for name, value in constants.items()
        }
        return Measured(estimates, details=latencies)


def evenly_drawn(texts: Sequence[str], count: int) -> list[str]:
    """So many texts from all over the list, some of them more than once where it is shorter."""
    return [texts[i * len(texts) // count] for i in range(count)]


def token_counts(embedder: Embedder, texts: list[str]) -> np.ndarray:
    """Tokens that the model sees of each text, prompt and special tokens included, shape (n,)."""
    sequences, _ = embedder.tokenize(texts, embedder.recipe.anchor_prompt)
    return np.array([len(sequence) for sequence in sequences])


def time_latency(embedder: Embedder, text: str) -> np.ndarray:
    """Milliseconds of each of 100 runs of one text, after 10 that are not counted."""
    return 1000 * np.array([_seconds(embedder, [text]) for _ in range(WARM_UPS + RUNS)][WARM_UPS:])


def time_batches(embedder: Embedder, texts: list[str], tokens: np.ndarray, size: int) -> np.ndarray:
    """Texts, tokens and seconds of each batch of all passes over the texts, shape (batches, 3)."""
    _seconds(embedder, texts[:size])  # this batch size for the first time: memory is set aside, kernels are chosen
    began, rows = time.perf_counter(), []
    for _ in range(MOST_PASSES):
        for start in range(0, len(texts), size):
            batch = slice(start, start + size)
            rows.append((len(texts[batch]), tokens[batch].sum(), _seconds(embedder, texts[batch])))
        if _spent(began) > PASS_SECONDS:
            break
    return np.array(rows, float)


def _spent(began: float) -> float:
    """Seconds since, in the mean over processes: all of them encode together, so all must go on or stop alike."""
    import torch

    return float(sum_over_processes(torch.tensor(time.perf_counter() - began))) / processes()


def _seconds(embedder: Embedder, texts: list[str]) -> float:
    # The vectors come back as numpy, so an accelerator has finished when the clock is read.
    began = time.perf_counter()
    embedder.encode(texts, prompt_name=embedder.recipe.anchor_prompt)
    return time.perf_counter() - began


def latency_estimates(milliseconds: np.ndarray, sampling: Sampling) -> dict[str, Estimate]:
    """Mean, SD, median and 95th percentile of runs, which are resampled together.

    Args:
        milliseconds: Shape (runs,).
        sampling: See ``Sampling``.
    """

    def measures(runs: np.ndarray) -> np.ndarray:
        percentiles = np.percentile(runs, list(_PERCENTILES.values()), axis=-1)
        return np.stack([runs.mean(-1), runs.std(-1, ddof=1), *percentiles], axis=-1)

    values = measures(milliseconds)
    resamples = bootstrap_statistic(
        lambda drawn: measures(milliseconds[drawn]),
        len(milliseconds),
        resamples=sampling.resamples,
        seed=sampling.seed,
    )
    return {
        f"latency_ms_{name}": Estimate(float(values[i]), resamples[:, i], len(milliseconds), better="lower")
        for i, name in enumerate(("mean", "sd", *_PERCENTILES))
    }


def throughput_estimates(batches: np.ndarray, sampling: Sampling) -> dict[str, Estimate]:
    """Texts and tokens a second over all batches, which are resampled.

    Args:
        batches: Texts, tokens and seconds of each batch, shape (batches, 3).
        sampling: See ``Sampling``.
    """
    means = bootstrap_means(batches, resamples=sampling.resamples, seed=sampling.seed)
    total = batches.sum(0)
    return {
        name: Estimate(float(total[i] / total[2]), means[:, i] / means[:, 2], len(batches))
        for i, name in enumerate(("texts_per_second", "tokens_per_second"))
    }


def _constant(value: float, sampling: Sampling, better: Literal["lower"] | None) -> Estimate:
    return Estimate(value, np.full(sampling.resamples, value), 1, better=better)


def _start_peak(embedder: Embedder) -> None:
    if embedder.device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(embedder.device)


def memory_bytes(embedder: Embedder) -> int | None:
    """Most bytes of a CUDA device in tensors, else bytes of this process in memory; None where it is not told."""
    if embedder.device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(embedder.device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # macOS, Windows
        return None
    lines = (line.split() for line in status.splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "VmRSS:"), None)


def active_parameters(model: Any) -> int:
    """Parameters that take part in encoding: all, without those of an adapter that is off."""
    from cardioembed.embedder.adapters import adapter_weights, parameter_counts

    off = 0 if _adapter_is_on(model) else sum(weight.numel() for weight in adapter_weights(model).values())
    return parameter_counts(model)[1] - off


def disk_bytes(embedder: Embedder) -> int:
    """Bytes of the base's weight files, and of the adapter's weights, which are saved as they are in memory.

    A base that has its weights in one file and in shards counts the one file.
    """
    from cardioembed.embedder.adapters import adapter_weights

    whole = embedder.base.folder / "model.safetensors"
    weights = [whole] if whole.is_file() else sorted(embedder.base.folder.glob("*.safetensors"))
    adapter = adapter_weights(embedder.model).values() if _adapter_is_on(embedder.model) else ()
    return sum(path.stat().st_size for path in weights) + sum(w.numel() * w.element_size() for w in adapter)


def _adapter_is_on(model: Any) -> bool:
    """Whether no layer of an adapter is switched off, as ``Embedder.without_adapter`` does."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return not any(isinstance(module, BaseTunerLayer) and module.disable_adapters for module in model.modules())
