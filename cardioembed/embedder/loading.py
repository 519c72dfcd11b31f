"""Base weights and tokenizer into memory, refusing anything that is not wholly there."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import processors
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from cardioembed.distributed import local_rank
from cardioembed.embedder.bases import Base
from cardioembed.embedder.jina_bert import JinaBertConfig, JinaBertModel, read_jina_config
from cardioembed.embedder.packing import VARLEN, can_pack, flash_works
from cardioembed.errors import UserError


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: The device asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise UserError(f"device: {device} is not available on this machine; set device: auto or cpu")
    if device == "cuda":
        torch.cuda.set_device(local_rank())
        return torch.device(device, local_rank())
    return torch.device(device)


def load_tokenizer(base: Base, max_length: int, causal: bool) -> PreTrainedTokenizerBase:
    """The base's tokenizer, right-padding, appending an EOS for a language model whose tokenizer does not.

    Truncation happens before the EOS is appended, so an over-long text keeps it.

    Raises:
        UserError: No tokenizer, or a language model without an EOS token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder)
    except (OSError, ValueError) as error:
        raise UserError(f"model.base: the tokenizer of {base.name} cannot be loaded: {error}") from None
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = max_length
    if causal:
        append_eos(tokenizer, base.name)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"model.base: the tokenizer of {base.name} has neither a pad nor an EOS token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def append_eos(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Makes the tokenizer append its EOS token unless it ends every text with a special token already.

    Qwen3-Embedding's does (with ``<|endoftext|>``, which is not its ``eos_token``); Qwen2.5's and Gemma's do not.
    """
    special = set(tokenizer.all_special_ids)
    ends = tokenizer("a")["input_ids"]
    if ends and ends[-1] in special:
        return
    if tokenizer.eos_token is None:
        raise UserError(f"model.base: the tokenizer of {name} has no EOS token to pool; set model.pooling: mean")
    prefix = tokenizer.convert_ids_to_tokens(tokenizer("")["input_ids"])
    tokens = [*prefix, tokenizer.eos_token]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*prefix, "$A", tokenizer.eos_token],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in dict.fromkeys(tokens)],
    )


def read_config(base: Base, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The base's configuration, JinaBERT's recognised as what it is.

    Raises:
        UserError: The architecture is unknown or the file is not readable.
    """
    try:
        jina = read_jina_config(base.folder, base.name)  # its config.json says BERT, which it is not
        return jina or AutoConfig.from_pretrained(base.folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"model.base: {base.name} cannot be loaded: {error}") from None


def choose_attention(
    config: PreTrainedConfig, asked: str, device: torch.device | None = None, dtype: str = "float32"
) -> str | None:
    """What ``auto`` stands for.

    Attention without padding where this card's kernel does it in this dtype; eager attention for Gemma-2, which gives
    NaN under SDPA with padding, and for architectures without SDPA (MPNet); else SDPA. None leaves the choice to code
    of the base's own.

    Raises:
        UserError: ``varlen`` for an architecture whose attention it is not.
    """
    if asked == VARLEN and not can_pack(config):
        raise UserError(
            f"model.attn_implementation: varlen is not available for {config.model_type}, whose attention is not "
            "plain; set auto"
        )
    if asked != "auto":
        return asked
    known = MODEL_MAPPING.get(type(config), None)
    if config.model_type == "gemma2" or (known and not known._supports_sdpa):
        return "eager"
    if device and can_pack(config) and flash_works(device, getattr(torch, dtype)):
        return VARLEN
    return "sdpa" if known else None


def load_base(
    base: Base,
    *,
    quantization: str,
    dtype: str,
    attn_implementation: str,
    max_length: int,
    trust_remote_code: bool,
    device: torch.device,
    llm_int8_threshold: float = 6.0,
) -> PreTrainedModel:
    """Loads the base's weights, frozen, in inference mode.

    Args:
        base: From ``find_base``.
        quantization: ``none``, ``int8`` (bitsandbytes LLM.int8) or ``nf4``.
        dtype: Type of what is not quantised.
        attn_implementation: See ``choose_attention``.
        max_length: Longest text in tokens; must fit the base's positions.
        trust_remote_code: Run the base's own code (its revision is pinned by the settings).
        device: Where to.
        llm_int8_threshold: Activations above it are computed in 16 bits beside INT8 (Dettmers et al. 2022); 0 never.

    Raises:
        UserError: The architecture is unknown, a weight is missing, newly initialised or not finite, or it does not
            fit.
    """
    config = read_config(base, trust_remote_code)
    try:
        config.use_cache = False  # language models would keep keys and values for a next token that never comes
        _check_positions(config, max_length, base.name)
        with _quiet_loading():
            model, info = (JinaBertModel if isinstance(config, JinaBertConfig) else AutoModel).from_pretrained(
                base.folder,
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation=choose_attention(config, attn_implementation, device, dtype),
                quantization_config=quantization_config(quantization, dtype, llm_int8_threshold),
                device_map={"": device} if quantization != "none" else None,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"{base.name} does not fit on {device}. Set model.quantization: nf4, or take a smaller base"
        ) from None
    except SafetensorError as error:
        raise UserError(
            f"model.base: the weights of {base.name} are damaged ({error}); fetch them again into {base.folder}"
        ) from None
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"model.base: {base.name} cannot be loaded: {error}") from None
    refuse_missing(info, base.name)
    refuse_non_finite(model, base.name)
    if quantization == "none":
        model = model.to(device)
    model.requires_grad_(False)
    return model.eval()


def quantization_config(quantization: str, dtype: str, llm_int8_threshold: float = 6.0) -> Any:
    """The bitsandbytes configuration of ``none`` (None), ``int8`` or ``nf4``."""
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=llm_int8_threshold)
    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
    return None


def refuse_missing(info: dict[str, Any], name: str) -> None:
    """Raises if loading left a weight at random values; a pooler head, which nobody here uses, may be absent."""
    missing = [key for key in info.get("missing_keys", ()) if ".pooler." not in f".{key}"]
    mismatched = [str(key) for key in info.get("mismatched_keys", ())]
    if missing or mismatched:
        shown = ", ".join(sorted([*missing, *mismatched])[:5])
        raise UserError(
            f"model.base: {len(missing) + len(mismatched)} weights of {name} are missing or misshapen and would be "
            f"random: {shown} ... The files are incomplete, or the base needs its own code (model.trust_remote_code)"
        )


def refuse_non_finite(model: PreTrainedModel, name: str) -> None:
    """Raises if a weight, or the scale of a quantised one, is NaN or infinite; one sum a weight finds it."""
    for key, weight in model.named_parameters():
        scales = (getattr(weight, "SCB", None), getattr(getattr(weight, "quant_state", None), "absmax", None))
        for numbers in (weight.detach(), *scales):
            if numbers is None or not numbers.is_floating_point():
                continue
            if not numbers.sum(dtype=torch.float32).isfinite():
                raise UserError(
                    f"model.base: weights of {name} contain NaN or infinity in {key}: the files are damaged, or too "
                    "large for model.dtype=float16. Fetch the base again, or take another dtype, revision or base"
                )


def _check_positions(config: Any, max_length: int, name: str) -> None:
    limit = getattr(config, "max_position_embeddings", None)
    if limit and config.model_type in ("roberta", "xlm-roberta", "mpnet"):
        limit -= 2  # these number positions from pad_token_id + 1
    if limit and max_length > limit:
        raise UserError(
            f"model.max_length: {max_length} is more than the {limit} positions of {name}; set {limit} or less"
        )


class _quiet_loading:  # noqa: N801 - reads as a verb at its one place of use
    """Keeps transformers' load report and bar off the terminal: a problem in it is raised as an error instead."""

    def __enter__(self) -> None:
        self.level = transformers_logging.get_verbosity()
        self.bar = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self.level)
        if self.bar:
            transformers_logging.enable_progress_bar()
