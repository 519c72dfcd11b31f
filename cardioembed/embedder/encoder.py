"""The embedder: texts in, unit vectors out. Training, evaluation and the usage example all encode through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from cardioembed.distributed import processes, sum_over_processes
from cardioembed.embedder.bases import Base, Traits, find_base, read_traits
from cardioembed.embedder.batching import length_sorted_chunks, own_share, pad
from cardioembed.embedder.loading import choose_device, load_base, load_tokenizer
from cardioembed.embedder.packing import VARLEN, pack, pool_packed
from cardioembed.embedder.pooling import pool
from cardioembed.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """All that turns a text into a vector besides weights; it is saved with the model.

    Attributes:
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        max_length: Longest text in tokens.
        prompts: Text put before a text, by prompt name.
        anchor_prompt: Name of the prompt of anchors (queries) in symmetric pairs, None for none.
        positive_prompt: Name of the prompt of positives (documents), None for none.
        quantization: ``none``, ``int8`` or ``nf4``: how the base is held in memory.
        dtype: Type of the base's other weights.
        attn_implementation: As asked for at loading.
        llm_int8_threshold: Of ``int8``, see ``load_base``.
    """

    pooling: str
    max_length: int
    prompts: dict[str, str] = field(default_factory=dict)
    anchor_prompt: str | None = None
    positive_prompt: str | None = None
    quantization: str = "none"
    dtype: str = "float32"
    attn_implementation: str = "auto"
    llm_int8_threshold: float = 6.0


class Embedder:
    """A transformer, its tokenizer and its recipe.

    Attributes:
        model: A transformers model, or a PEFT model around one.
        tokenizer: Right-padding; appends an EOS where the base needs one.
        recipe: See ``Recipe``.
        base: Where the base came from.
        device: Where the weights are.
        identity: Differs between any two models whose vectors must not be mixed.
        load_base: Loads the base of a fully tuned model, None where the base is in ``model``.
        sharded: Whether ``model`` is divided among processes, which must then all run it equally often.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        base: Base,
        device: torch.device,
        identity: str | None = None,
        load_base: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.base = base
        self.device = device
        self.load_base = load_base
        self.sharded = False
        self.identity = identity or f"{base.name}@{base.revision} {recipe}"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.model.config.hidden_size

    @property
    def packs(self) -> bool:
        """Whether texts go through the model end to end, without padding."""
        return getattr(self.model.config, "_attn_implementation", None) == VARLEN

    def prompt_text(self, prompt_name: str | None) -> str:
        """The text of a prompt.

        Raises:
            UserError: The model has no prompt of that name.
        """
        if prompt_name is None:
            return ""
        if prompt_name not in self.recipe.prompts:
            known = ", ".join(self.recipe.prompts) or "none"
            raise UserError(f"prompt_name: this model has no prompt {prompt_name!r}; its prompts: {known}")
        return self.recipe.prompts[prompt_name]

    def tokenize(self, texts: list[str], prompt_name: str | None = None) -> tuple[list[list[int]], int]:
        """Token ids of prompt + text with the special tokens, cut to ``max_length``.

        Returns:
            ``(ids, number of texts that were cut)``.
        """
        prompt = self.prompt_text(prompt_name)
        batch = self.tokenizer([prompt + text for text in texts], truncation=True, max_length=self.recipe.max_length)
        cut = sum(bool(encoding.overflowing) for encoding in batch.encodings or ())
        return batch["input_ids"], cut

    def embed_tokens(self, sequences: list[list[int]]) -> Tensor:
        """Unit vectors of token sequences, shape (texts, dimension), float32, with gradients if they are on."""
        if self.packs:
            model_input, starts = pack(sequences, self.model.config, self.device)
            hidden = self.model(**model_input).last_hidden_state[0]
            return nn.functional.normalize(pool_packed(hidden, starts, self.recipe.pooling).float(), dim=-1)
        ids, mask = pad(sequences, self.tokenizer.pad_token_id, self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return nn.functional.normalize(pool(hidden, mask, self.recipe.pooling).float(), dim=-1)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        chunk_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Encodes one text or many.

        Args:
            texts: A text, or any iterable of texts.
            prompt_name: A prompt of the model to put before each text.
            chunk_tokens: Most tokens (after padding) that go through the model at once; None takes 1,024 on a CPU,
                where small chunks stay in its caches, and 16,384 elsewhere.
            show_progress_bar: Whether to show one.

        Returns:
            Unit vectors, float32, shape (dimension,) for one text and (n, dimension) for many, in the given order.

        Raises:
            UserError: Something in ``texts`` is not a text.
        """
        single = isinstance(texts, str)
        listed = [texts] if single else list(texts)
        for place, text in enumerate(listed):
            if not isinstance(text, str):
                raise UserError(f"texts[{place}] is a {type(text).__name__}, not a text")
        vectors = np.zeros((len(listed), self.dimension), np.float32)
        if listed:
            sequences, _ = self.tokenize(listed, prompt_name)
            chunk_tokens = chunk_tokens or (1024 if self.device.type == "cpu" else 16_384)
            self._encode_into(vectors, sequences, chunk_tokens, show_progress_bar)
        return vectors[0] if single else vectors

    def _encode_into(self, vectors: np.ndarray, sequences: list[list[int]], chunk_tokens: int, progress: bool) -> None:
        was_training = self.model.training
        self.model.eval()
        with (
            torch.no_grad() if self.sharded else torch.inference_mode(),  # FSDP fills its tensors in place
            tqdm(total=len(sequences), desc="encode", unit="text", disable=not progress) as bar,
        ):
            chunks = length_sorted_chunks([len(s) for s in sequences], chunk_tokens)
            for chunk, counts in own_share(chunks, even=self.sharded):
                found = self.embed_tokens([sequences[i] for i in chunk])
                if counts:
                    vectors[chunk] = found.cpu().numpy()
                    bar.update(len(chunk) * processes())
        sum_over_processes(torch.from_numpy(vectors))
        self.model.train(was_training)

    def encode_pairs(
        self, anchors: list[str], positives: list[str], *, show_progress_bar: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of anchors and positives, each side with the prompt that the recipe gives it."""
        return (
            self.encode(anchors, prompt_name=self.recipe.anchor_prompt, show_progress_bar=show_progress_bar),
            self.encode(positives, prompt_name=self.recipe.positive_prompt, show_progress_bar=show_progress_bar),
        )

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Cosine of every vector of ``first`` with every one of ``second``, shape (len(first), len(second))."""
        return np.atleast_2d(first) @ np.atleast_2d(second).T

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """A block in which the base answers: its adapter is off, or it stands in for a fully tuned model."""
        if hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield
        elif self.load_base:
            tuned, self.model = self.model, self.load_base()
            try:
                yield
            finally:
                self.model = tuned
        else:
            yield


def load_embedder(
    base: str,
    *,
    quantization: str = "none",
    dtype: str = "float32",
    attn_implementation: str = "auto",
    pooling: str = "auto",
    max_length: int = 512,
    anchor_prompt: str | None = "auto",
    positive_prompt: str | None = "auto",
    trust_remote_code: bool = False,
    device: str = "auto",
    llm_int8_threshold: float = 6.0,
) -> Embedder:
    """Loads a base as an embedder; ``auto`` values follow from the base's own files.

    Args:
        base: A folder, a packaged base, or a hub id with an optional ``@revision``.
        anchor_prompt, positive_prompt: ``auto``, None, or the text itself.
        Others: see ``load_base`` and ``Recipe``.

    Raises:
        UserError: The base cannot be used as asked.
    """
    where = choose_device(device)
    found = find_base(base)
    traits = read_traits(found, pooling)
    loading = {
        "quantization": quantization,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "llm_int8_threshold": llm_int8_threshold,
    }
    recipe = Recipe(**_recipe(traits, max_length, anchor_prompt, positive_prompt, found.name), **loading)
    tokenizer = load_tokenizer(found, max_length, traits.causal and recipe.pooling == "lasttoken")
    model = load_base(found, max_length=max_length, trust_remote_code=trust_remote_code, device=where, **loading)
    return Embedder(model, tokenizer, recipe, found, where)


def _recipe(traits: Traits, max_length: int, anchor: str | None, positive: str | None, name: str) -> dict[str, Any]:
    if traits.causal and traits.pooling == "cls":
        raise UserError(
            f"model.pooling: cls is not usable with {name}: the first token of a language model sees no other; "
            "choose lasttoken or mean"
        )
    prompts = dict(traits.prompts)
    names: list[str | None] = []
    for side, value, own in (
        ("anchor", anchor, traits.pair_prompts[0]),
        ("positive", positive, traits.pair_prompts[1]),
    ):
        if value == "auto":
            names.append(own)
        elif not value:
            names.append(None)
        else:
            prompts[side] = value
            names.append(side)
    return {
        "pooling": traits.pooling,
        "max_length": max_length,
        "prompts": prompts,
        "anchor_prompt": names[0],
        "positive_prompt": names[1],
    }
