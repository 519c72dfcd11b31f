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
import copy
import functools
import gc
import logging
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import common
from cardioembed.config import Settings
from cardioembed.embedder.adapters import attach_lora, parameter_counts, trained_weights
from cardioembed.embedder.bases import Base
from cardioembed.embedder.batching import pad
from cardioembed.embedder.encoder import Embedder, Recipe
from cardioembed.embedder.loading import choose_attention, quantization_config
from cardioembed.errors import UserError
from cardioembed.records import Row, write_json
from cardioembed.training.monitor import flops_per_token, peak_flops
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

# config.json of Qwen/Qwen3-Embedding-8B; its rope_theta is 1e6.
QWEN3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151665,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
}
TINY = {
    **QWEN3_8B,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 300,
}
SMALL = {**QWEN3_8B, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 3000}  # fmt: skip
FORMS = {  # name: quantization, llm_int8_threshold
    "int8, threshold 6.0": ("int8", 6.0),
    "int8, threshold 0.0": ("int8", 0.0),
    "nf4": ("nf4", 0.0),
    "bf16": ("none", 0.0),
}
MEAN_LENGTH, SD_LENGTH, SHORTEST = 28.4, 15.6, 4  # tokens; the paper's, and its 20 characters
PAPER_STEPS, PAPER_MINUTES = 1662, 658.6  # on one H100 PCIe 80 GB
WARM_UP = 2  # steps of each side before the clock starts
MINI_BATCH = 128  # of sentence-transformers' cached loss: a column at a time, the largest that saves memory
ENCODE_BATCHES = (32, 256)  # sentence-transformers' default, and one for a large card
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of a gradient: norm of the difference over the norm
PAD = 0


@dataclass
class Side:
    """One way to train on a base.

    Attributes:
        step: Trains one step and returns its real tokens.
        model: Whose weights train.
        failure: Why it stopped, empty while it runs.
    """

    step: Callable[[], int]
    model: nn.Module
    failure: str = ""


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


def drawn_texts(count: int, vocabulary: int, seed: int = 0) -> list[str]:
    """Random token ids as words, lengths from the paper's normal distribution, cut off below and above."""
    random = np.random.default_rng(seed)
    lengths = random.normal(MEAN_LENGTH, SD_LENGTH, count).round().clip(SHORTEST, 512).astype(int)
    return [" ".join(map(str, random.integers(1, vocabulary, length))) for length in lengths]


def triplets(texts: list[str]) -> list[Row]:
    """Three texts a row, each row a group of its own."""
    thirds = enumerate(zip(texts[::3], texts[1::3], texts[2::3], strict=True))
    return [{"group": str(i), "anchor": a, "positive": p, "negatives": [n]} for i, (a, p, n) in thirds]


class NumberTokenizer:
    """Reads ``"17 4"`` as the tokens 17 and 4: what ``Embedder.tokenize`` and ``embed_tokens`` ask of a tokenizer."""

    pad_token_id = PAD

    def __call__(self, texts: list[str], truncation: bool = True, max_length: int = 512):
        from transformers import BatchEncoding

        return BatchEncoding({"input_ids": [[int(word) for word in text.split()][:max_length] for text in texts]})


def build_base(shape: dict[str, Any], quantization: str, threshold: float, device: torch.device, dtype=torch.bfloat16):
    """A frozen Qwen3 with random weights made on the device, its linears then quantised one after another."""
    from transformers import AutoModel, Qwen3Config

    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = Qwen3Config(**shape, rope_parameters=rope, use_cache=False, pad_token_id=PAD)
    torch.manual_seed(0)
    with device:
        model = AutoModel.from_config(config, dtype=dtype)
    model.requires_grad_(False)
    if quantization != "none":
        quantise(model, quantization_config(quantization, "bfloat16", threshold))
        model.is_loaded_in_8bit, model.is_loaded_in_4bit = quantization == "int8", quantization == "nf4"
    return model.eval()


def quantise(model: nn.Module, config: Any) -> None:
    """What transformers does with a quantised checkpoint's weights, for weights that are in memory.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise UserError("int8 and nf4 need bitsandbytes: pip install bitsandbytes, or --forms bf16")
    weights = {name: module.weight for name, module in model.named_modules() if type(module) is nn.Linear}
    replace_with_bnb_linear(model, None, config)
    for name in list(weights):
        module, weight = model.get_submodule(name), weights.pop(name)
        empty = module.weight
        # bitsandbytes quantises when a weight moves from the CPU.
        module.weight = type(empty)(weight.detach().cpu(), requires_grad=False, **vars(empty)).to(weight.device)


def twin(model: nn.Module) -> nn.Module:
    """Other modules over the same tensors, so that a second adapter costs no second base."""
    shared: list[Any] = [*model.parameters(), *model.buffers()]
    shared += [module.state for module in model.modules() if hasattr(module, "state")]  # of Linear8bitLt
    return copy.deepcopy(model, {id(thing): thing for thing in shared})


def embedder_of(base: nn.Module, quantization: str, device: torch.device, attention: str = "auto") -> Embedder:
    """The base as an embedder with the attention that stage 03 would choose; no file lies behind it."""
    inner = base.get_base_model() if hasattr(base, "get_base_model") else base
    dtype = str(base.dtype).removeprefix("torch.")
    inner.set_attn_implementation(choose_attention(inner.config, attention, device, dtype))
    recipe = Recipe("lasttoken", 512, quantization=quantization, dtype=dtype)
    return Embedder(base, NumberTokenizer(), recipe, Base("random-qwen3", None, Path(), "random-qwen3"), device)


def adapted(base: nn.Module, settings: Settings, **changes: Any) -> nn.Module:
    """Stage 03's adapter around other modules of the same base."""
    torch.manual_seed(settings.seed)
    lora = {**settings.model.lora.model_dump(), **changes}
    return attach_lora(twin(base), **lora, base_reference="random-qwen3", revision=None)


def make_trainer(base: nn.Module, quantization: str, rows: list[Row], settings: Settings, size: int, **changes: Any):
    """The Trainer before its first step.

    ``changes`` are for the plan and, ``lora_dropout``, for the adapter, and ``attention``, for the base.
    """
    attention = changes.pop("attention", "auto")
    lora = {key: changes.pop(key) for key in ("lora_dropout",) if key in changes}
    device = next(base.parameters()).device
    embedder = embedder_of(adapted(base, settings, **lora), quantization, device, attention)
    sizes = {"per_device_train_batch_size": size, "max_steps": PAPER_STEPS}
    plan = Plan(**{**settings.train.model_dump(), **sizes, **changes}, seed=settings.seed)
    nowhere = {"folder": Path(), "log_path": Path(), "tensorboard": Path()}  # nothing is written without train()
    trainer = Trainer(embedder, rows, plan, validate=dict, **nowhere, fingerprint={})
    trainer._set_modes()
    return trainer


def our_side(*arguments: Any, **changes: Any) -> Side:
    """One step is ``Trainer._step``: batch, loss, gradient, clipping, optimiser, log entry."""
    trainer = make_trainer(*arguments, **changes)
    return Side(lambda: trainer._step()["tokens"], trainer.embedder.model)


def sentence_transformer(model: nn.Module, device: torch.device, autocast: bool):
    """A SentenceTransformer around a model; autocast lies around the forward pass, where accelerate puts it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    dimension = model.config.hidden_size
    modules = [_transformer_module()(model, autocast), Pooling(dimension, pooling_mode="lasttoken")]
    return SentenceTransformer(modules=modules, device=str(device))


@functools.cache
def _transformer_module() -> type:
    from sentence_transformers.base.modules.input_module import InputModule

    class NumberTransformer(InputModule):
        """sentence-transformers' first module, with our tokenizer of numbers."""

        def __init__(self, model: nn.Module, autocast: bool) -> None:
            super().__init__()
            self.model, self.autocast, self.tokenizer = model, autocast, NumberTokenizer()

        def preprocess(self, inputs: list[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
            return self.padded(self.tokenizer(inputs)["input_ids"])

        def padded(self, sequences: list[list[int]]) -> dict[str, Tensor]:
            return dict(zip(("input_ids", "attention_mask"), pad(sequences, PAD), strict=True))

        def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
            inputs = {key: features[key] for key in ("input_ids", "attention_mask")}
            with torch.autocast(features["input_ids"].device.type, torch.bfloat16, enabled=self.autocast):
                hidden = self.model(**inputs).last_hidden_state
            return {**features, "token_embeddings": hidden.float() if self.autocast else hidden}

        def get_embedding_dimension(self) -> int:
            return self.model.config.hidden_size

        def save(self, *_: Any, **__: Any) -> None:
            """Nothing is saved here."""

    return NumberTransformer


def their_side(base: nn.Module, batches: Any, settings: Settings, cached: bool) -> Side:
    """sentence-transformers' loss on a PEFT model, and the steps of Hugging Face's trainer without its log."""
    from sentence_transformers.sentence_transformer import losses

    device, train = next(base.parameters()).device, settings.train
    model = sentence_transformer(adapted(base, settings), device, autocast=True).train()
    scale = 1 / train.temperature
    if cached:
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=MINI_BATCH)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, scale=scale)
    weights = list(trained_weights(model).values())
    optimizer = torch.optim.AdamW(weights, lr=train.learning_rate, weight_decay=0.0, fused=device.type == "cuda")
    numbers = iter(range(PAPER_STEPS))

    def step() -> int:
        batch = batches.at(next(numbers))
        optimizer.zero_grad(set_to_none=True)
        columns = [batch.sequences[start : start + batch.rows] for start in range(0, 3 * batch.rows, batch.rows)]
        features = [{key: value.to(device) for key, value in model[0].padded(column).items()} for column in columns]
        loss(features, None).backward()
        nn.utils.clip_grad_norm_(weights, train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sum(map(len, batch.sequences))

    return Side(step, model)


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


def correctness(settings: Settings, device: torch.device, where: dict[str, Any], out: Path) -> None:
    """Gradients that must agree, and vectors that must be finite, on a small shape; one line each.

    Raises:
        UserError: Something does not agree.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    shape = TINY if device.type == "cpu" else SMALL
    rows = triplets(drawn_texts(3 * 16, shape["vocab_size"]))
    base = build_base(shape, "none", 0.0, device, dtype)
    plain = {"gradient_checkpointing": False, "gradient_cache": False, "bf16": dtype == torch.bfloat16}
    plain["chunk_tokens"] = 512

    def gradients(fused: bool = True, **changes: Any) -> Tensor:
        return gradient(make_trainer(base, "none", rows, settings, 16, **{**plain, **changes}), fused)

    reference = gradients()
    pairs = {
        "fused LoRA against PEFT's, no dropout": (gradients(lora_dropout=0.0), gradients(False, lora_dropout=0.0)),
        "attention without padding against padded, no dropout": (
            gradients(lora_dropout=0.0, attention="varlen"),
            gradients(lora_dropout=0.0, attention="sdpa"),
        ),
        "cached against plain": (gradients(gradient_cache=True), reference),
        "checkpointed against plain": (gradients(gradient_checkpointing=True), reference),
        "cached and checkpointed": (gradients(gradient_cache=True, gradient_checkpointing=True), reference),
        "chunks against one chunk, no dropout": (
            gradients(lora_dropout=0.0),
            gradients(lora_dropout=0.0, chunk_tokens=10**6),
        ),
    }
    lines = []
    for name, (one, other) in pairs.items():
        error = float((one - other).norm() / other.norm())
        allowed = TOLERANCE[dtype]
        lines.append((error <= allowed, f"{name}: gradients differ by {error:.1e} (at most {allowed:g})"))
    for form, (quantization, threshold) in FORMS.items():
        embedder = embedder_of(build_base(shape, quantization, threshold, device), quantization, device)
        vectors = embedder.encode([row["anchor"] for row in rows])
        finite = bool(np.isfinite(vectors).all()) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        lines.append((finite, f"{form}: {len(vectors)} vectors, {'finite unit vectors' if finite else 'NOT finite'}"))
    for good, line in lines:
        print(f"{'ok   ' if good else 'WRONG'} {line}")
    where.pop("started")
    write_json(out, {"title": "Correctness", **where, "dtype": str(dtype), "checks": [list(line) for line in lines]})
    if not all(good for good, _ in lines):
        raise UserError(f"{sum(not good for good, _ in lines)} of {len(lines)} checks failed on {where['card']}")


def gradient(trainer: Trainer, fused: bool) -> Tensor:
    """The gradient of the first batch as one float32 vector; the adapter's B weights are made random first.

    Raises:
        UserError: Nothing was fused, so that a comparison would be of PEFT with itself.
    """
    members = [module for module in trainer.embedder.model.modules() if "forward" in vars(module)]
    if not members:
        raise UserError("no LoRA linear has the fused function; the comparison would mean nothing")
    for module in members if not fused else []:
        del module.forward  # PEFT's own again
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in trainer.weights.items():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=random))
    trainer._backward(trainer.batches.at(0), 0)
    return torch.cat([weight.grad.float().flatten() for weight in trainer.weights.values()])


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=common.positive, metavar="N", help="triplets a step (default: 128; --tiny 4)")
    parser.add_argument("--texts", type=common.positive, metavar="N", help="texts to encode (default: 4096; --tiny 32)")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), help="only these forms of the base (default: all)")
    parser.add_argument("--correctness", action="store_true", help="compare gradients and time nothing")
    parser.add_argument("--tiny", action="store_true", help="a toy shape on the CPU; its numbers mean nothing")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
