"""The paper's training step on a graphics card: Qwen3-Embedding-8B's shape, random weights, no hub.

128 triplets (384 texts, lengths as the paper gives them) a step through this project's Trainer, with the base in INT8
(threshold 6.0 and 0.0), NF4 and bfloat16, against sentence-transformers' losses on a PEFT model over the same tensors,
padded column by column as its trainer does. Then encoding in bfloat16: Embedder.encode against
SentenceTransformer.encode. Every form is timed in turn with the others; what runs out of memory says so in its row.
--correctness compares gradients instead of timing; --tiny runs either on any CPU, with numbers that mean nothing.

example python -m bench.gpu_train --repeats 5 --out bench/results/gpu_train.json
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench import common
from bench.gpu_correctness import correctness
from bench.gpu_sides import (
    FORMS,
    MINI_BATCH,
    PAPER_STEPS,
    QWEN3_8B,
    TINY,
    Side,
    build_base,
    drawn_texts,
    embedder_of,
    make_trainer,
    our_side,
    sentence_transformer,
    their_side,
    triplets,
    twin,
)
from cardioembed.config import Settings
from cardioembed.embedder.adapters import parameter_counts
from cardioembed.errors import UserError
from cardioembed.records import Row
from cardioembed.training.monitor import flops_per_token, peak_flops

PAPER_MINUTES = 658.6  # of its steps, on one H100 PCIe 80 GB
WARM_UP = 2  # steps of each side before the clock starts
ENCODE_BATCHES = (32, 256)  # sentence-transformers' default, and one for a large card


def main(options: argparse.Namespace) -> None:
    # 1. Where, and how large.
    settings, device = Settings(), card(options.tiny)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says at every product that it casts to float16
    where = {**common.environment("gpu_train", torch.get_num_threads()), **describe(device)}
    shape = TINY if options.tiny else QWEN3_8B
    gc.freeze()  # the libraries' objects stay; collecting between forms need not walk over them
    if options.tiny:
        torch.set_num_threads(1)  # a toy loses more to handing work between threads than it gains
        print("--tiny: a toy shape; these numbers mean nothing", file=sys.stderr)
    if options.correctness:
        return correctness(settings, device, where, options.out)

    # 2. Texts of the paper's lengths, as token numbers in words.
    size = options.batch or (4 if options.tiny else 128)
    texts = drawn_texts(3 * size * (WARM_UP + options.repeats), shape["vocab_size"])
    rows = triplets(texts)

    # 3. Every form of the base, each with all sides in turn.
    peak, training = peak_flops(device), {}
    for form in options.forms or FORMS:
        runs = time_training(form, shape, rows, settings, device, size, options.repeats)
        clean()
        training.update(runs)  # what is done is shown at once: a lent machine may end the run
        print(common.markdown([training_row(name, run, peak) for name, run in runs.items()]), file=sys.stderr)
    count = options.texts or (32 if options.tiny else 4096)
    encoding = time_encoding(shape, drawn_texts(count, shape["vocab_size"]), device, options.repeats)

    # 4. Report.
    table = [training_row(name, runs, peak) for name, runs in training.items()]
    table += [encoding_row(name, runs, peak) for name, runs in encoding.items()]
    raw = {"training": training, "encoding": encoding, "peak_flops": peak, "shape": shape}
    title = "Training and encoding on a graphics card"
    notes = remarks(where, settings, texts, size, options)
    common.report(options.out, f"{title} (--tiny: means nothing)" if options.tiny else title, where, table, notes, raw)


def card(tiny: bool) -> torch.device:
    """The card, or the CPU for ``--tiny``.

    Raises:
        UserError: No CUDA card, or one without bfloat16.
    """
    if tiny:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("no CUDA card here; --tiny runs the same code on a CPU, with numbers that mean nothing")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{torch.cuda.get_device_name()} has no bfloat16 arithmetic, which the paper's step needs; take an Ampere "
            "card (A100, RTX 30) or a newer one"
        )
    return torch.device("cuda", torch.cuda.current_device())


def describe(device: torch.device) -> dict[str, Any]:
    """Card, driver and CUDA version, as far as there are any."""
    if device.type != "cuda":
        return {"card": "none", "cuda": torch.version.cuda, "driver": "none"}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    name = torch.cuda.get_device_name(device)
    return {"card": name, "card_memory_gib": round(memory, 1), "cuda": torch.version.cuda, "driver": driver}


def time_training(
    form: str, shape: dict[str, Any], rows: list[Row], settings: Settings, device: torch.device, size: int, repeats: int
) -> dict[str, list[dict[str, Any]] | str]:
    """Runs of every side on one form of the base, or why there are none."""
    quantization, threshold = FORMS[form]
    clean()
    before = allocated(device)
    try:
        base = build_base(shape, quantization, threshold, device)
        base_bytes = allocated(device) - before
        ours = functools.partial(our_side, base, quantization, rows, settings, size)
        shipped, kept = ours(gradient_checkpointing=True), ours(gradient_checkpointing=False)
        padded = ours(gradient_checkpointing=False, attention="sdpa")
        batches = make_trainer(base, quantization, rows, settings, size).batches
        sides = {
            "cardioembed, as shipped (checkpointed)": shipped,
            "cardioembed, gradient_checkpointing: false": kept,
            "cardioembed, gradient_checkpointing: false, attn_implementation: sdpa": padded,
            "sentence-transformers + peft": their_side(base, batches, settings, False),
            "sentence-transformers + peft, cached loss": their_side(base, batches, settings, True),
        }
    except RuntimeError as error:
        return {f"{form}: building": reason(error)}
    if len(counts := {parameter_counts(side.model)[0] for side in sides.values()}) != 1:
        raise UserError(f"{form}: the sides train {counts} weights; nothing was timed")
    for _ in range(WARM_UP):
        for side in sides.values():
            timed_step(side, device, base_bytes)
    timed = common.alternate(
        {f"{form}: {name}": lambda side=side: timed_step(side, device, base_bytes) for name, side in sides.items()},
        repeats,
    )
    failures = {f"{form}: {name}": side.failure for name, side in sides.items() if side.failure}
    return {name: failures.get(name, runs) for name, runs in timed.items()}


def timed_step(side: Side, device: torch.device, base_bytes: int) -> dict[str, Any] | None:
    """Seconds, real tokens and peak memory of one step; None if the side has failed.

    Memory is of the base, this side's adapter with its two moments, and what the step added; not the other sides'.
    """
    if side.failure:
        return None
    trained = parameter_counts(side.model)[0]
    resident = allocated(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    try:
        tokens = side.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        side.failure = reason(error)
    if side.failure:  # outside of the except block, which keeps the graph alive
        side.model.zero_grad(set_to_none=True)
        print(f"  {side.failure}", file=sys.stderr)
        clean()
        return None
    seconds = time.perf_counter() - started
    added = torch.cuda.max_memory_allocated(device) - resident if device.type == "cuda" else math.nan
    return {
        "seconds": seconds,
        "tokens": tokens,
        "texts": 0,
        "peak_memory_gib": (base_bytes + 12 * trained + added) / 2**30 if device.type == "cuda" else None,
        "flops_per_token": flops_per_token(side.model),
    }


def reason(error: RuntimeError) -> str:
    """The first line of an error, and the usual one in words."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}" if str(error) else type(error).__name__


def allocated(device: torch.device) -> int:
    """Bytes that tensors hold on the card; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def clean() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def time_encoding(
    shape: dict[str, Any], texts: list[str], device: torch.device, repeats: int
) -> dict[str, list[dict[str, Any]] | str]:
    """Both encoders on one bfloat16 base; the first calls are the warm-up and must agree.

    Raises:
        UserError: The vectors differ by more than bfloat16 explains.
    """
    base = build_base(shape, "none", 0.0, device)
    embedder = embedder_of(twin(base), "none", device)
    peer = sentence_transformer(base, device, autocast=False)
    encoders: dict[str, Callable[[], np.ndarray]] = {"encoding, cardioembed": lambda: embedder.encode(texts)}
    for batch in ENCODE_BATCHES:
        encoders[f"encoding, sentence-transformers, batches of {batch}"] = lambda batch=batch: peer.encode(
            texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
    tokens = sum(len(text.split()) for text in texts)

    def measure(encode: Callable[[], np.ndarray]) -> dict[str, Any]:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        encode()  # its vectors are on the CPU, so it has waited for the card
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        flops = flops_per_token(base) / 2  # forward only
        run = {"seconds": seconds, "tokens": tokens, "texts": len(texts), "peak_memory_gib": peak}
        return {**run, "flops_per_token": flops}

    try:
        vectors = [np.asarray(encode(), np.float32) for encode in encoders.values()]
        least = min(float((vectors[0] * other).sum(1).min()) for other in vectors[1:])
        if not least > 0.99:
            raise UserError(f"encoding: cosine {least:.4f} between the two sides' vectors of a text; nothing was timed")
        return common.alternate({name: lambda e=encode: measure(e) for name, encode in encoders.items()}, repeats)
    except RuntimeError as error:
        return {"encoding": reason(error)}


COLUMNS = ("", "tokens/s", "texts/s", "s a step", "lowest", "highest", "peak GPU memory, GiB", "utilisation",
           f"minutes of {PAPER_STEPS:,} steps", "times the paper's speed")  # fmt: skip


def training_row(name: str, runs: list[dict[str, Any]] | str, peak: float | None) -> dict[str, Any]:
    """A line of the table; a side without numbers says why."""
    if isinstance(runs, str):
        return dict.fromkeys(COLUMNS, "") | {"": name, "tokens/s": runs}
    seconds = [run["seconds"] for run in runs]
    step = statistics.median(seconds)
    minutes = PAPER_STEPS * step / 60
    cells = (f"{step:.3f}", f"{min(seconds):.3f}", f"{max(seconds):.3f}", *_load(runs, peak))
    rate = statistics.median(run["tokens"] / run["seconds"] for run in runs)
    faster = f"{PAPER_MINUTES / minutes:.1f}"
    return dict(zip(COLUMNS, (name, f"{rate:,.0f}", "", *cells, f"{minutes:,.1f}", faster), strict=True))


def encoding_row(name: str, runs: list[dict[str, Any]] | str, peak: float | None) -> dict[str, Any]:
    """As ``training_row``; there are no steps."""
    if isinstance(runs, str):
        return training_row(name, runs, peak)
    rates = [statistics.median(run[key] / run["seconds"] for run in runs) for key in ("tokens", "texts")]
    cells = (*(f"{rate:,.0f}" for rate in rates), "", "", "", *_load(runs, peak), "", "")
    return dict(zip(COLUMNS, (name, *cells), strict=True))


def _load(runs: list[dict[str, Any]], peak: float | None) -> tuple[str, str]:
    """Peak memory and utilisation as text, empty where they are not known."""
    memory = [run["peak_memory_gib"] for run in runs if run["peak_memory_gib"] is not None]
    used = statistics.median(run["tokens"] / run["seconds"] * run["flops_per_token"] for run in runs)
    return f"{max(memory):.1f}" if memory else "", f"{used / peak:.1%}" if peak else ""


def remarks(where: dict[str, Any], settings: Settings, texts: list[str], size: int, options: Any) -> list[str]:
    """What must be known to read the table."""
    lengths = [len(text.split()) for text in texts]
    lora, train = settings.model.lora, settings.train
    notes = [
        f"card: {where['card']}, {where.get('card_memory_gib', 0):g} GiB, driver {where['driver']}, "
        f"CUDA {where['cuda']}",
        f"random weights in the shape of {'a toy' if options.tiny else 'Qwen3-Embedding-8B'}; {size} triplets a step, "
        f"tokens a text: mean {statistics.mean(lengths):.1f}, SD {statistics.pstdev(lengths):.1f}, no prompt",
        f"LoRA r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout:g}, {lora.target_modules}; temperature "
        f"{train.temperature:g}; {train.loss} here, all documents as negatives there; chunks of {train.chunk_tokens:,} "
        f"tokens here, padded columns there, the cached loss in mini-batches of {MINI_BATCH}",
        f"one step a timing, {options.repeats} of each in turn, after {WARM_UP} that are not counted; the card is "
        "synchronised before and after; tokens without padding",
        "utilisation: 4 FLOPs a weight and token (6 for adapters; 2 in encoding) over the card's dense bfloat16 peak; "
        "checkpointing's second forward is not counted as work",
        f"{PAPER_STEPS:,} steps took the paper {PAPER_MINUTES} minutes on one H100 PCIe, evaluation and all",
        "random weights have hardly any activation above 6: LLM.int8's 16-bit part, which a trained base keeps busy, "
        "costs next to nothing here",
        "peak memory: base, one adapter with AdamW's moments, and the step itself",
    ]
    return notes if not options.tiny else ["--tiny: a toy on a CPU; these numbers mean nothing", *notes]


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=common.positive, metavar="N", help="triplets a step (default: 128; --tiny 4)")
    parser.add_argument("--texts", type=common.positive, metavar="N", help="texts to encode (default: 4096; --tiny 32)")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="only these forms of the base (default: all)")
    parser.add_argument("--correctness", action="store_true", help="compare gradients and time nothing")
    parser.add_argument("--tiny", action="store_true", help="a toy shape on the CPU; its numbers mean nothing")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
