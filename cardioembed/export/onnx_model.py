"""An encoder as ONNX: token ids and mask in, unit vectors out, checked with onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.pooling import pool
from cardioembed.errors import UserError

MODEL_NAME = "model.onnx"
OPSET = 20
TOLERANCE = 1e-5
_INPUTS = ("input_ids", "attention_mask")
_SNIPPET = """import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("path/to/this/folder/tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding(pad_id={pad_id}, pad_token={pad_token!r})
session = onnxruntime.InferenceSession("path/to/this/folder/{model}", providers=["CPUExecutionProvider"])

texts = ["Severe aortic stenosis narrows the valve area."]  # after their prompt, if the model has prompts
encodings = tokenizer.encode_batch(texts)
(vectors,) = session.run(
    None, {{"input_ids": [e.ids for e in encodings], "attention_mask": [e.attention_mask for e in encodings]}}
)"""


class _UnitVectors(nn.Module):
    """The transformer with pooling and normalisation behind it."""

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shape (texts, dimension), float32, of ids and mask of shape (texts, tokens)."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(pool(hidden, attention_mask, self.pooling).float(), dim=-1)


def snippet(embedder: Embedder) -> str:
    """Python that encodes with the folder by onnxruntime and tokenizers alone."""
    tokenizer = embedder.tokenizer
    return _SNIPPET.format(
        max_length=embedder.recipe.max_length,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        model=MODEL_NAME,
    )


def write_onnx(embedder: Embedder, folder: Path) -> None:
    """Writes ``model.onnx`` and the tokenizer's files into an empty folder.

    Args:
        embedder: An encoder with whole float32 weights, on the CPU.
        folder: Where to. Weights beyond 2 GB, the limit of one ONNX file, stand beside it in ``model.onnx.data``.

    Raises:
        UserError: The exporter does not know an operation of the architecture.
    """
    ids = torch.full((3, 9), embedder.tokenizer.pad_token_id)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 3 + [0] * 6])
    axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    module = _UnitVectors(embedder.model, embedder.recipe.pooling).eval()
    with _quietly():
        try:
            program = torch.onnx.export(
                module,
                kwargs=dict(zip(_INPUTS, (ids, mask), strict=True)),
                input_names=list(_INPUTS),
                output_names=["embeddings"],
                dynamic_shapes=dict.fromkeys(_INPUTS, axes),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"--format onnx: PyTorch's exporter does not manage {embedder.model.config.model_type} ({reason}); "
                "take --format merged"
            ) from None
        program.save(folder / MODEL_NAME)
    embedder.tokenizer.save_pretrained(folder)
    embedder.model.config.save_pretrained(folder)


def check_parity(embedder: Embedder, folder: Path, texts: list[str]) -> float:
    """Encodes texts with the folder's own files, in batches of many sizes and lengths, as its card shows.

    Returns:
        The largest difference of an element from ``embedder.encode``.

    Raises:
        UserError: It is not below ``TOLERANCE``.
    """
    texts = [*texts, " ".join(texts)[: 20 * embedder.recipe.max_length]]  # the last is longer than the model reads
    texts = [
        embedder.prompt_text(side) + text
        for side in dict.fromkeys((embedder.recipe.anchor_prompt, embedder.recipe.positive_prompt))
        for text in texts
    ]
    expected = embedder.encode(texts)
    ours = _Session(embedder, folder)
    largest = 0.0
    for size in sorted({1, 2, 7, len(texts)}):
        for start in range(0, len(texts), size):
            found = ours.encode(texts[start : start + size])
            difference = np.abs(found - expected[start : start + size]).max()
            largest = max(largest, float(difference) if np.isfinite(difference) else np.inf)
    if not largest < TOLERANCE:
        raise UserError(
            f"--format onnx: onnxruntime's vectors differ from PyTorch's by up to {largest:.2g} an element, {TOLERANCE}"
            " is the most. Nothing was written; take --format merged, and report the architecture "
            f"({embedder.model.config.model_type})"
        )
    return largest


class _Session:
    """The folder opened by onnxruntime and tokenizers alone."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self.session = onnxruntime.InferenceSession(str(folder / MODEL_NAME), providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(embedder.recipe.max_length)
        pad = embedder.tokenizer
        self.tokenizer.enable_padding(pad_id=pad.pad_token_id, pad_token=pad.pad_token)
        fixed = [value.name for value in self.session.get_inputs() if any(isinstance(n, int) for n in value.shape)]
        if fixed:
            raise UserError(
                f"--format onnx: PyTorch's exporter fixed the number of texts or tokens of {', '.join(fixed)} for "
                f"{embedder.model.config.model_type}; take --format merged"
            )

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of texts that have their prompt already."""
        encodings = self.tokenizer.encode_batch(texts)
        inputs = ([e.ids for e in encodings], [e.attention_mask for e in encodings])
        feed = {name: np.array(value, np.int64) for name, value in zip(_INPUTS, inputs, strict=True)}
        return self.session.run(None, feed)[0]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporter's notes about packages and axis names off the terminal: what it wrote is checked."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
