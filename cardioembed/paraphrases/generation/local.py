"""Paraphrases without a server: a causal language model of transformers on this machine's own device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from cardioembed.completion import Completion, RequestFailed
from cardioembed.errors import UserError

Item = TypeVar("Item")
Messages = list[dict[str, str]]


def generate(
    model: str,
    chats: Sequence[tuple[Item, Messages, int]],
    *,
    temperature: float,
    top_p: float,
    max_tokens: int,
    batch_size: int,
    device: str = "auto",
) -> Iterator[tuple[Item, Completion | RequestFailed]]:
    """Answers chats in batches of similar length, the longest first.

    Every chat is drawn with its own seed, so its answer does not depend on the chats it shares a batch with (except for
    rounding).

    Args:
        model: A folder, or a hub id with an optional ``@revision``; safetensors only, no code from the hub.
        chats: What the answer belongs to, its messages and its seed.
        temperature: 0 takes the likeliest token each time.
        top_p: Draws among the likeliest tokens that have this share together.
        max_tokens: Longest answer; one that reaches it has ``finish_reason`` length.
        batch_size: Chats at once.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: There is no such model, it has no chat template, or memory runs out.
    """
    tokenizer, network = _load(model, _device(device))
    longest = getattr(network.config, "max_position_embeddings", None) or float("inf")
    by_length = sorted(chats, key=lambda chat: -sum(len(message["content"]) for message in chat[1]))
    for start in range(0, len(by_length), batch_size):
        batch = []
        for item, messages, seed in by_length[start : start + batch_size]:
            tokens = tokenizer(_prompt(tokenizer, messages, model), add_special_tokens=False)["input_ids"]
            if len(tokens) + max_tokens > longest:
                room = f"{len(tokens)} + max_tokens {max_tokens} are more than the {longest} tokens of the model"
                yield item, RequestFailed("bad_request", room)
            else:
                batch.append((item, tokens, seed))
        if batch:
            draw = _Draw([seed for _, _, seed in batch], network.device)
            processors = _processors(temperature, top_p, draw)
            answers = _answer(network, tokenizer, [tokens for _, tokens, _ in batch], processors, max_tokens)
            yield from zip((item for item, _, _ in batch), answers, strict=True)


class _Draw:
    """Samples each row with a generator of its own: the likeliest token after Gumbel noise is a draw (Gumbel-max)."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        size, device = scores.shape[-1], scores.device
        noise = [torch.rand(size, generator=generator, device=device) for generator in self._generators]
        return scores.float() - torch.log(-torch.log(torch.stack(noise).clamp(1e-20, 1 - 1e-7)))


def _processors(temperature: float, top_p: float, draw: _Draw) -> LogitsProcessorList:
    if temperature == 0:
        return LogitsProcessorList()
    return LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p), draw])


def _answer(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    processors: LogitsProcessorList,
    max_tokens: int,
) -> list[Completion | RequestFailed]:
    inputs = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(network.device)
    ends = _ends(network, tokenizer)
    # A config of our own: the model's may set sampling and penalties that nobody asked for here.
    config = GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends
    )
    try:
        with torch.inference_mode():
            output = network.generate(**inputs, generation_config=config, logits_processor=processors)
    except torch.OutOfMemoryError:
        raise UserError(
            f"engine transformers: {len(prompts)} chats at once do not fit into memory; lower max_concurrency"
        ) from None
    written = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [_completion(tokenizer, row, len(prompt), set(ends)) for row, prompt in zip(written, prompts, strict=True)]


def _completion(
    tokenizer: PreTrainedTokenizerBase, written: list[int], prompt_tokens: int, ends: set[int]
) -> Completion | RequestFailed:
    end = next((place for place, token in enumerate(written) if token in ends), None)
    text = tokenizer.decode(written[:end], skip_special_tokens=True).strip()
    if end is None:
        return Completion(text, "length", prompt_tokens, len(written), 0)
    if not text:
        return RequestFailed("empty_answer", "the model wrote nothing")
    return Completion(text, "stop", prompt_tokens, end + 1, 0)


def _ends(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ends = network.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None})


def _prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages, model: str) -> str:
    if not tokenizer.chat_template:
        raise UserError(f"model: {model} has no chat template, so it takes no instructions; choose an instruct model")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        # Some templates (Gemma-2) refuse a system message.
        joined = "\n\n".join(message["content"] for message in messages)
        joint = [{"role": "user", "content": joined}]
        return tokenizer.apply_chat_template(joint, tokenize=False, add_generation_prompt=True)


def _load(model: str, device: torch.device) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    options = {"revision": revision or None, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        network = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype="auto", **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model: {model} cannot be loaded as a language model ({reason}). Give a folder with safetensors weights, "
            "or a hub id, optionally @revision"
        ) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, network.eval().to(device)


def _device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
