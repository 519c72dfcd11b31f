"""From a trained model to an export: merged, measured, written, opened again, and only then put in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers.utils import logging as transformers_logging

from cardioembed.embedder.bases import MODEL_FILE
from cardioembed.embedder.card import Exported, is_local, model_card
from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.saving import load_model, save_model, save_sentence_transformers
from cardioembed.errors import UserError
from cardioembed.export.checks import (
    EXPORT_FILE,
    check_format,
    check_target,
    find_weights,
    has_adapter,
    read_model_file,
    stored_dtype,
)
from cardioembed.export.merging import (
    DRIFT_TEXTS,
    MAX_DRIFT,
    encode_sides,
    measure_drift,
    merged_model,
    refuse_drift,
)
from cardioembed.records import atomic_folder, library_versions, write_json

_SAME = 1e-5  # of an element, in float32
_LOWEST = 0.9999  # cosine, in half precision


def export_model(
    folder: Path,
    out: Path,
    *,
    format: str = "merged",
    dtype: str = "auto",
    texts: list[str] | None = None,
    max_drift: float | None = None,
    device: str = "auto",
    base: str | None = None,
) -> dict[str, Any]:
    """Exports a trained model.

    Args:
        folder: ``runs/<name>/03_model``, or a merged export.
        out: Where to; an export there is replaced when the new one is whole.
        format: ``merged`` (opens with ``load_model``, transformers and sentence-transformers),
            ``sentence-transformers`` (without this project's files) or ``onnx`` (encoders).
        dtype: Of the written weights; ``auto`` is that of the base's files, or of the whole model's.
        texts: Compared beside ``DRIFT_TEXTS``.
        max_drift: Highest 1 - cosine of a text between the trained and the merged model; None takes ``MAX_DRIFT``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; ONNX is made on the CPU.
        base: Where the base is now, if it moved since training.

    Returns:
        What ``export.json`` says, and ``worst_text``, the text that drifted most.

    Raises:
        UserError: It cannot be exported so, the drift is above the limit, or what was written does not give the merged
            model's vectors; nothing is left behind then.
    """
    model_file = read_model_file(folder)
    check_target(folder, out)
    weights = find_weights(folder, model_file, base)
    check_format(folder, model_file, weights, format=format, dtype=dtype)
    trained = load_model(folder, device="cpu" if format == "onnx" else device, base=base)
    adapter, quantization, identity = has_adapter(folder), trained.recipe.quantization, trained.identity
    if format == "onnx":
        dtype = "float32"
    elif dtype == "auto":
        dtype = stored_dtype(weights.folder) if adapter else trained.recipe.dtype
    compared = [*DRIFT_TEXTS, *(texts or ())]
    before = encode_sides(trained, compared)
    merged = merged_model(trained, folder, dtype)
    after = encode_sides(merged, compared)
    drift = measure_drift(before, after, compared)
    limit = MAX_DRIFT[quantization] if max_drift is None else max_drift
    refuse_drift(drift, limit, quantization)
    report = {
        "format": format,
        "source": identity,
        "base": {"name": _shown_name(merged.base.name), "revision": merged.base.revision},
        "adapter_merged": adapter,
        "trained_on": quantization if quantization != "none" else trained.recipe.dtype,
        "dtype": dtype,
        "drift": {"texts": drift.texts, "mean": drift.mean, "worst": drift.worst, "limit": limit},
        "libraries": library_versions(),
    }
    with atomic_folder(out) as temporary:
        report |= _WRITERS[format](merged, temporary, model_file["training"], compared, after, report)
        write_json(temporary / EXPORT_FILE, report)
    return report | {"worst_text": drift.worst_text}


def _write_merged(
    merged: Embedder, folder: Path, training: dict[str, Any], texts: list[str], vectors: np.ndarray, report: dict
) -> dict[str, Any]:
    where = merged.device.type
    _write_card(merged, folder, training, Exported(_note(report)))
    shown = _shown_name(merged.base.name)  # an export travels; a path of this machine must not go with it
    merged.base = replace(merged.base, name=shown)
    with _no_bars():
        save_model(merged, folder, training | {"base": shown})
    merged.model = nn.Module()  # its memory is needed by the copy that is opened
    return {"parity": _refuse_difference(encode_sides(load_model(folder, device=where), texts), vectors, report)}


def _write_peer(
    merged: Embedder, folder: Path, training: dict[str, Any], texts: list[str], vectors: np.ndarray, report: dict
) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    _write_card(merged, folder, training, Exported(_note(report)))
    with _no_bars():
        save_sentence_transformers(merged, folder)
    merged.model = nn.Module()
    peer = SentenceTransformer(str(folder), device=merged.device.type)
    sides = dict.fromkeys((merged.recipe.anchor_prompt, merged.recipe.positive_prompt))
    found = [peer.encode(texts, prompt_name=side, show_progress_bar=False) for side in sides]
    return {"parity": _refuse_difference(np.concatenate(found).astype(np.float32), vectors, report)}


def _write_onnx(
    merged: Embedder, folder: Path, training: dict[str, Any], texts: list[str], vectors: np.ndarray, report: dict
) -> dict[str, Any]:
    from cardioembed.export.onnx_model import MODEL_NAME, OPSET, check_parity, snippet, write_onnx

    write_onnx(merged, folder)
    parity = check_parity(merged, folder, texts)
    note = (
        f"{_note(report)}\n\n`{MODEL_NAME}` (opset {OPSET}, float32) takes `input_ids` and `attention_mask`, int64 of "
        "shape (texts, tokens), and gives `embeddings`, unit vectors of shape (texts, dimension): pooling and "
        f"normalisation are inside. onnxruntime's vectors differ from PyTorch's by at most {parity:.1g} an element."
    )
    _write_card(merged, folder, training, Exported(note, snippet(merged), "onnx"))
    recipe = merged.recipe
    return {
        "parity": parity,
        "opset": OPSET,
        "pooling": recipe.pooling,
        "max_length": recipe.max_length,
        "prompts": recipe.prompts,
    }


_WRITERS = {"merged": _write_merged, "sentence-transformers": _write_peer, "onnx": _write_onnx}


def _refuse_difference(found: np.ndarray, expected: np.ndarray, report: dict[str, Any]) -> float:
    """The largest difference of an element between what was written and what was meant."""
    largest = float(np.abs(found - expected).max())
    lowest = float((found * expected).sum(1).min())
    if not (largest < _SAME if report["dtype"] == "float32" else lowest > _LOWEST):
        raise UserError(
            f"--format {report['format']}: what was written gives other vectors than the merged model (an element "
            f"differs by {largest:.2g}, lowest cosine {lowest:.6f}). Nothing was kept; take --dtype float32, and "
            "report the base's name"
        )
    return largest


def _write_card(merged: Embedder, folder: Path, training: dict[str, Any], exported: Exported) -> None:
    try:
        text = model_card(merged, training, exported)
    except KeyError as error:
        raise UserError(
            f"{MODEL_FILE} of the model lacks training.{error.args[0]}, which its card shows; train the model again "
            "with stage 03"
        ) from None
    (folder / "README.md").write_text(text, encoding="utf-8")


def _note(report: dict[str, Any]) -> str:
    """What was done and what it cost, for the card."""
    drift = report["drift"]
    if report["adapter_merged"]:
        done = (
            f"The adapter, trained on {report['trained_on']} weights, is merged into the base's unquantised weights "
            f"({report['dtype']})."
        )
    else:
        done = f"All weights were whole before ({report['trained_on']}); they are written in {report['dtype']}."
    return (
        f"{done} Drift (1 - cosine) from the trained model's vectors over {drift['texts']} texts: mean "
        f"{drift['mean']:.2g}, worst {drift['worst']:.2g}."
    )


def _shown_name(base: str) -> str:
    return Path(base).name if is_local(base) else base


@contextmanager
def _no_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
