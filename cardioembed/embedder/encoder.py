"""The embedder: texts in, unit vectors out. Training, evaluation and the usage example all encode through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from cardioembed.distributed import processes, sum_over_processes
from cardioembed.embedder.bases import Base, find_base, read_traits
from cardioembed.embedder.batching import length_sorted_chunks, own_share, pad
from cardioembed.embedder.inputs import as_texts, token_ids
from cardioembed.embedder.loading import choose_device, load_base, load_tokenizer
from cardioembed.embedder.packing import VARLEN, pack, pool_packed
from cardioembed.embedder.pooling import pool
from cardioembed.embedder.precision import (
    Precision,
    check_dimensions,
    check_precision,
    comparable,
    quantize,
    refuse_non_finite,
    truncate,
)
from cardioembed.embedder.recipe import Recipe, choose_recipe
from cardioembed.errors import UserError


class Embedder:
    """A transformer, its tokenizer and its recipe.

    Any number of threads may encode at once, and ``asyncio.to_thread(embedder.encode, texts)`` too; each gets the
    vectors that it would get alone. Training and ``without_adapter`` change the model: nothing encodes beside them.

    Attributes:
        model: A transformers model, or a PEFT model around one.
        tokenizer: Right-padding; appends an EOS where the base needs one.
        recipe: See ``Recipe``.
        base: Where the base came from.
        device: Where the weights are.
        identity: Differs between any two models whose vectors must not be mixed.
        place: Where it can be opened again: its folder, or the base's name and revision.
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
        self.place = f"{base.name}@{base.revision}" if base.revision else base.name
        self._encoding = 0  # how many encode at this moment
        self._was_training = False
        self._mode_lock = threading.Lock()

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
        return token_ids(self.tokenizer, [prompt + text for text in texts], self.recipe.max_length)

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
        batch_size: int | None = None,
        chunk_tokens: int | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        ranges: np.ndarray | None = None,
        convert_to_tensor: bool = False,
        show_progress_bar: bool = False,
    ) -> np.ndarray | Tensor:
        """Encodes one text or many.

        Texts longer than the recipe's ``max_length`` are cut. An empty text is encoded as the model does it: its prompt
        and special tokens only.

        Args:
            texts: A text, or texts in an order: a list, tuple, generator, numpy array of str, pandas Series, or column
                of a ``datasets`` table.
            prompt_name: A prompt of the model to put before each text.
            batch_size: Most texts that go through the model at once; None sets no limit beside ``chunk_tokens``.
            chunk_tokens: Most tokens (after padding) that go through the model at once; None takes 1,024 on a CPU,
                where small chunks stay in its caches, and 16,384 elsewhere.
            truncate_dim: Keeps so many of the first dimensions and brings them to unit length again; what that costs
                in quality depends on whether the model was trained for it (``matryoshka_dims``).
            precision: ``float32``, ``float16``, ``int8`` or ``binary``; see ``cardioembed.embedder.precision``.
            ranges: For int8, see ``quantize``; None takes those of these texts, of which there must be two or more.
            convert_to_tensor: Whether to return a tensor on the model's device rather than an array.
            show_progress_bar: Whether to show one.

        Returns:
            Unit vectors, float32, shape (dimension,) for one text and (n, dimension) for many, in the given order;
            other kinds and shapes with another precision.

        Raises:
            UserError: Something in ``texts`` is not a text or gives no token, an option is not possible, or a vector
                is not finite.
        """
        dimensions = check_dimensions(truncate_dim, self.dimension)
        check_precision(precision, ranges, dimensions)
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size: {batch_size} is not possible; give 1 or more, or None for no limit")
        listed, single = as_texts(texts)
        sequences, _ = self.tokenize(listed, prompt_name) if listed else ([], 0)
        self._refuse_tokenless(sequences)
        vectors = self.encode_tokens(
            sequences, batch_size=batch_size, chunk_tokens=chunk_tokens, show_progress_bar=show_progress_bar
        )
        found = quantize(truncate(vectors, dimensions), precision, ranges)
        found = found[0] if single else found
        return torch.from_numpy(found).to(self.device) if convert_to_tensor else found

    def encode_tokens(
        self,
        sequences: list[list[int]],
        *,
        batch_size: int | None = None,
        chunk_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Unit vectors of token sequences, float32, shape (texts, dimension); options and errors as of ``encode``."""
        vectors = np.zeros((len(sequences), self.dimension), np.float32)
        if not sequences:
            return vectors
        chunk_tokens = chunk_tokens or (1024 if self.device.type == "cpu" else 16_384)
        chunks = length_sorted_chunks([len(sequence) for sequence in sequences], chunk_tokens)
        most = batch_size or len(sequences)
        chunks = [chunk[low : low + most] for chunk in chunks for low in range(0, len(chunk), most)]
        self._encode_into(vectors, sequences, chunks, show_progress_bar)
        refuse_non_finite(vectors)
        return vectors

    def _refuse_tokenless(self, sequences: list[list[int]]) -> None:
        if not all(sequences):
            raise UserError(
                f"texts[{sequences.index([])}] gives no token: it is empty, and this model's tokenizer adds none of "
                "its own. Leave it out, or give a prompt_name"
            )

    def _encode_into(
        self, vectors: np.ndarray, sequences: list[list[int]], chunks: list[list[int]], progress: bool
    ) -> None:
        with (
            self._without_dropout(),
            torch.no_grad() if self.sharded else torch.inference_mode(),  # FSDP fills its tensors in place
            tqdm(total=len(sequences), desc="encode", unit="text", disable=not progress) as bar,
        ):
            for chunk, counts in own_share(chunks, even=self.sharded):
                found = self.embed_tokens([sequences[i] for i in chunk])
                if counts:
                    vectors[chunk] = found.cpu().numpy()
                    bar.update(len(chunk) * processes())
        sum_over_processes(torch.from_numpy(vectors))

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        """The model in evaluation mode until the last of the threads that encode has ended."""
        with self._mode_lock:
            if not self._encoding:
                self._was_training = self.model.training
                self.model.eval()
            self._encoding += 1
        try:
            yield
        finally:
            with self._mode_lock:
                self._encoding -= 1
                if not self._encoding:
                    self.model.train(self._was_training)

    def encode_pairs(
        self, anchors: list[str], positives: list[str], *, show_progress_bar: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of anchors and positives, each side with the prompt that the recipe gives it."""
        return (
            self.encode(anchors, prompt_name=self.recipe.anchor_prompt, show_progress_bar=show_progress_bar),
            self.encode(positives, prompt_name=self.recipe.positive_prompt, show_progress_bar=show_progress_bar),
        )

    def similarity(self, first: Any, second: Any) -> np.ndarray | Tensor:
        """Cosine of every vector of ``first`` with every one of ``second``, shape (len(first), len(second)).

        Args:
            first, second: float vectors, shape (dimension,) or (n, dimension); tensors give a tensor.

        Raises:
            UserError: int8 or binary vectors, or two numbers of dimensions.
        """
        first, second = comparable(first, second)
        return first @ second.T

    def similarity_pairwise(self, first: Any, second: Any) -> np.ndarray | Tensor:
        """Cosine of each vector of ``first`` with its counterpart in ``second``, shape (n,).

        Args and errors as in ``similarity``; there must be as many of the one as of the other.
        """
        first, second = comparable(first, second)
        if len(first) != len(second):
            raise UserError(f"similarity_pairwise: {len(first)} and {len(second)} vectors; pairs need as many of each")
        return (first * second).sum(-1)

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
    recipe = choose_recipe(traits, max_length, anchor_prompt, positive_prompt, found.name, loading)
    tokenizer = load_tokenizer(found, max_length, traits.causal and recipe.pooling == "lasttoken")
    model = load_base(found, max_length=max_length, trust_remote_code=trust_remote_code, device=where, **loading)
    return Embedder(model, tokenizer, recipe, found, where)
