"""What can be found wrong before a model is loaded; nothing here imports torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cardioembed.embedder.bases import MODEL_FILE, Base, find_base, read_traits
from cardioembed.errors import UserError
from cardioembed.records import read_json, read_jsonl

FORMATS = ("merged", "sentence-transformers", "onnx")
DTYPES = ("auto", "float32", "bfloat16", "float16")
EXPORT_FILE = "export.json"  # marks a folder that this package wrote
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def read_model_file(folder: Path) -> dict[str, Any]:
    """``cardioembed.json`` of a trained model.

    Raises:
        UserError: The folder is none that stage 03 or ``--format merged`` wrote.
    """
    if not (folder / MODEL_FILE).is_file():
        raise UserError(
            f"{folder} is not a trained model: it has no {MODEL_FILE}. Give runs/<name>/03_model, which stage 03 "
            "writes (python 03_train_embedding_model.py --config ...), or a folder of --format merged"
        )
    content = read_json(folder / MODEL_FILE)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), dict) for key in ("base", "recipe", "training")
    ):
        raise UserError(
            f"{folder / MODEL_FILE} lacks its base, recipe or training; train the model again with stage 03"
        )
    return content


def check_target(folder: Path, out: Path) -> None:
    """Refuses to replace anything but an export, and to write into the model or over it.

    Raises:
        UserError: ``out`` is a file, has files of others in it, or is the model's folder or on either side of it.
    """
    source, target = folder.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"--out {out} is, holds or lies in the model's folder {folder}; give a folder beside it")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder that is empty or not there yet")
    if out.is_dir() and any(out.iterdir()) and not (out / EXPORT_FILE).is_file():
        raise UserError(
            f"--out {out} is not empty and not an export (it has no {EXPORT_FILE}), so it is not replaced; give "
            "another folder"
        )


def check_format(folder: Path, model: dict[str, Any], weights: Base, *, format: str, dtype: str) -> None:
    """Refuses what a format cannot hold.

    Args:
        folder: The trained model.
        model: Its ``cardioembed.json``.
        weights: From ``find_weights``.
        format, dtype: One of ``FORMATS`` and of ``DTYPES``.

    Raises:
        UserError: An unknown value; sentence-transformers of a JinaBERT; ONNX of a language model, of a quantised
            one, in half precision, or without its packages.
    """
    for key, value, allowed in (("--format", format, FORMATS), ("--dtype", dtype, DTYPES)):
        if value not in allowed:
            raise UserError(f"{key}: {value} is not known; choose {', '.join(allowed)}")
    if format == "sentence-transformers" and is_jina_bert(weights.folder):
        raise UserError(
            f"--format sentence-transformers: {folder} is a JinaBERT, which sentence-transformers opens with code from "
            "the hub only; take --format merged (opens with load_model) or --format onnx"
        )
    if format == "onnx":
        _check_onnx(folder, model, weights, dtype)


def is_jina_bert(folder: Path) -> bool:
    """Whether a transformers folder is of an architecture that this project alone opens."""
    config = read_json(folder / "config.json")
    return "jina_bert" in config.get("model_type", "") or config.get("position_embedding_type") == "alibi"


def _check_onnx(folder: Path, model: dict[str, Any], weights: Base, dtype: str) -> None:
    quantization = model["recipe"].get("quantization")
    if quantization != "none":
        raise UserError(
            f"--format onnx: {folder} was trained on {quantization}, which ONNX does not hold. Export it with --format "
            "merged first, which measures what leaving the quantisation costs, and then that folder with --format onnx"
        )
    if dtype not in ("auto", "float32"):
        raise UserError(f"--dtype {dtype}: ONNX is written in float32; leave --dtype out")
    if read_traits(weights, "mean").causal:
        raise UserError(
            f"--format onnx: {folder} is a language model; only encoders (BERT, XLM-RoBERTa, MPNet, JinaBERT) are "
            "written as ONNX. Take --format merged, which text-embeddings-inference and vLLM serve"
        )
    missing = [name for name in _ONNX_PACKAGES if not find_spec(name)]
    if missing:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install -e '.[export]'")


def has_adapter(folder: Path) -> bool:
    """Whether the model is an adapter beside a base; otherwise its weights are whole."""
    return (folder / "adapter_config.json").is_file()


def find_weights(folder: Path, model: dict[str, Any], base: str | None) -> Base:
    """Where the weights are: the adapter's base, or the folder itself where they are whole.

    Args:
        folder: The trained model.
        model: Its ``cardioembed.json``.
        base: Where its base is now, if it moved since training.

    Raises:
        UserError: The base is not to be found.
    """
    if not has_adapter(folder):
        return Base(str(folder), None, folder, str(folder))
    saved = model["base"]
    name = base or saved["name"] + (f"@{saved['revision']}" if saved["revision"] else "")
    try:
        return find_base(name)
    except UserError as error:
        raise UserError(f"the base of {folder} is needed and not found. {error}. If it moved, give --base") from None


def stored_dtype(folder: Path) -> str:
    """The type in which a base's safetensors files hold most of its numbers.

    Raises:
        UserError: It is none to merge into: the base was stored quantised.
    """
    from safetensors import safe_open

    counts: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a dict
                part = weights.get_slice(key)
                size = 1
                for side in part.get_shape():
                    size *= side
                counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + size
    most = max(counts, key=lambda kind: counts[kind], default="nothing")
    if most not in _STORED:
        raise UserError(
            f"{folder} holds its weights as {most}, not as {', '.join(_STORED)}: an adapter is merged into unquantised "
            "weights only. Give the unquantised base with --base"
        )
    return _STORED[most]


def read_texts(path: Path) -> list[str]:
    """Texts of a ``.jsonl`` file (key ``text``, else ``anchor``) or of any other text file (one a line).

    Raises:
        UserError: No such file, not UTF-8, or no text in it.
    """
    if path.suffix == ".jsonl":
        rows = read_jsonl(path)
        texts = [row.get("text", row.get("anchor")) for row in rows]
        if wrong := [i for i, text in enumerate(texts, 1) if not isinstance(text, str)]:
            raise UserError(f"--texts {path}: object {wrong[0]} has no text under 'text' or 'anchor'")
    else:
        try:
            texts = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"--texts {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"--texts {path} is not UTF-8 (byte {error.start + 1}); convert it with iconv") from None
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UserError(f"--texts {path} has no text in it; one text a line, or JSONL with the key 'text'")
    return texts
