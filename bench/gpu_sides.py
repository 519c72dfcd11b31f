"""What ``gpu_train`` runs on a card: texts of the paper's lengths, a base with random weights, and both trainers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cardioembed.config import Settings
from cardioembed.embedder.adapters import attach_lora, trained_weights
from cardioembed.embedder.bases import Base
from cardioembed.embedder.batching import pad
from cardioembed.embedder.encoder import Embedder, Recipe
from cardioembed.embedder.loading import choose_attention, quantization_config
from cardioembed.errors import UserError
from cardioembed.records import Row
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
MINI_BATCH = 128  # of sentence-transformers' cached loss: a column at a time, the largest that saves memory
PAD = 0
PAPER_STEPS = 1662  # two epochs of 128 triplets a step


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
