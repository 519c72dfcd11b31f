"""A trained model as a folder that sentence-transformers, PEFT and this project open alike."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from cardioembed.embedder.adapters import load_adapter
from cardioembed.embedder.bases import MODEL_FILE, Base, find_base
from cardioembed.embedder.encoder import Embedder, Recipe, load_embedder
from cardioembed.embedder.loading import choose_device, load_base, load_tokenizer
from cardioembed.errors import UserError
from cardioembed.records import read_json, sha256

PROBE_TEXTS = [
    "Severe aortic stenosis with a mean gradient of 48 mmHg and preserved ejection fraction.",
    "No thrombus was seen in the left atrial appendage.",
    "Bisoprolol",
]
_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def save_model(embedder: Embedder, folder: Path, training: dict[str, Any]) -> None:
    """Writes a model, its tokenizer, sentence-transformers modules, recipe and probe vectors into an empty folder.

    Args:
        embedder: With a PEFT model, or with a fully tuned one.
        folder: Where to; written by the caller's atomic block.
        training: What the model was trained with, kept for the reader.
    """
    save_sentence_transformers(embedder, folder)
    card = {
        "base": {"name": embedder.base.name, "revision": embedder.base.revision},
        "recipe": asdict(embedder.recipe),
        "training": training,
        "probes": {"texts": PROBE_TEXTS, "vectors": embedder.encode(PROBE_TEXTS).tolist()},
    }
    _write(folder / MODEL_FILE, card)


def save_sentence_transformers(embedder: Embedder, folder: Path) -> None:
    """Writes weights, tokenizer and modules, all that sentence-transformers knows, into an empty folder."""
    embedder.model.save_pretrained(folder)
    _name_magnitudes(folder / "adapter_model.safetensors")
    embedder.tokenizer.save_pretrained(folder)
    recipe = embedder.recipe
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    _write(folder / "sentence_bert_config.json", _transformer_config(embedder))
    pooling = {"word_embedding_dimension": embedder.dimension}
    pooling |= {key: mode == recipe.pooling for mode, key in _POOLING_KEYS.items()}
    _write(folder / "1_Pooling" / "config.json", pooling)
    (folder / "2_Normalize").mkdir()
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": recipe.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _name_magnitudes(path: Path) -> None:
    """Gives DoRA's magnitudes their whole names, ``...lora_magnitude_vector.weight``.

    PEFT writes them without ``.weight`` and reads either; transformers, and so sentence-transformers, looks for the
    whole name only and would go on with magnitudes of an untrained adapter.
    """
    weights = load_file(path) if path.is_file() else {}
    whole = {f"{n}.weight" if n.endswith("lora_magnitude_vector") else n: weight for n, weight in weights.items()}
    if whole.keys() != weights.keys():
        save_file(whole, path, metadata={"format": "pt"})


def _transformer_config(embedder: Embedder) -> dict[str, Any]:
    """How sentence-transformers is to load the base, so that its vectors are ours."""
    recipe = embedder.recipe
    model_args: dict[str, Any] = {"dtype": recipe.dtype}
    model = embedder.model
    inner = (model.get_base_model() if hasattr(model, "get_base_model") else model).config
    # Attention without padding is this project's own.
    model_args["attn_implementation"] = "sdpa" if embedder.packs else inner._attn_implementation
    if getattr(inner, "quantization_config", None) is not None:
        model_args["quantization_config"] = json.loads(inner.quantization_config.to_json_string(use_diff=False))
    return {"max_seq_length": recipe.max_length, "do_lower_case": False, "model_args": model_args}


def load_model(
    folder: str | Path, *, device: str = "auto", base: str | None = None, trust_remote_code: bool = False
) -> Embedder:
    """Opens a model folder that stage 03 wrote, or a base by name.

    Args:
        folder: ``runs/<name>/03_model``; a folder or hub id without ``cardioembed.json`` is opened as a plain base.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        base: Where the base is now, if it moved since training; not for a plain base. A model whose weights are whole
            opens without its base, which is then looked for when ``without_adapter`` asks for it.
        trust_remote_code: Whether a base that needs code of its own may run it.

    Raises:
        UserError: Not a model, files missing, the adapter of another base, or vectors other than those it was saved
            with.
    """
    folder = Path(folder)
    if not (folder / MODEL_FILE).is_file():
        if base is not None:
            raise UserError(f"{folder} is a base itself, not a model that stage 03 wrote; leave out base={base!r}")
        return _load_plain(folder, device, trust_remote_code)
    card = read_json(folder / MODEL_FILE)
    try:
        recipe = Recipe(**card["recipe"])
        revision = card["base"]["revision"]
        name = base or card["base"]["name"] + (f"@{revision}" if revision else "")
        probes = card["probes"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / MODEL_FILE} lacks {error}; train the model again with stage 03") from None
    where = choose_device(device)
    load = partial(
        load_base,
        **{key: getattr(recipe, key) for key in ("quantization", "dtype", "attn_implementation", "llm_int8_threshold")},
        max_length=recipe.max_length,
        trust_remote_code=trust_remote_code,
        device=where,
    )
    here = Base(str(folder), None, folder, str(folder))
    if (folder / "adapter_config.json").is_file():
        found = find_base(name)
        model, alone = load_adapter(load(found), folder), None
    else:
        found = _base_if_here(name, base or card["base"]["name"], revision, here)
        model, alone = load(here), lambda: load(find_base(name))
    # The saved tokenizer appends its EOS already, so nothing is added to it.
    tokenizer = load_tokenizer(here, recipe.max_length, causal=False)
    embedder = Embedder(model, tokenizer, recipe, found, where, sha256(folder / MODEL_FILE), alone)
    embedder.place = str(folder.resolve())
    _check_probes(embedder, probes, folder)
    return embedder


def _base_if_here(wanted: str, name: str, revision: str | None, whole: Base) -> Base:
    """The base of a whole model, which needs it for comparison only; where it is not, the model's own files."""
    try:
        return find_base(wanted, download=False)
    except UserError:
        return Base(name, revision, whole.folder, whole.reference)


def _load_plain(folder: Path, device: str, trust_remote_code: bool) -> Embedder:
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a model folder: it has neither {MODEL_FILE} nor config.json. Give runs/<name>/03_model, "
            "a transformers folder or a hub id"
        )
    if not folder.exists() and (folder.is_absolute() or len(folder.parts) != 2):
        raise UserError(f"{folder} does not exist. Run stage 03 first: python 03_train_embedding_model.py --config ...")
    # The whole path: a model is the same one from wherever it is opened.
    name = str(folder.resolve() if folder.is_dir() else folder)
    return load_embedder(name, device=device, max_length=256, trust_remote_code=trust_remote_code)


def _check_probes(embedder: Embedder, probes: dict[str, Any], folder: Path) -> None:
    """Raises if the loaded model does not give the vectors that it was saved with."""
    vectors, expected = embedder.encode(probes["texts"]), np.array(probes["vectors"], np.float32)
    exact = embedder.recipe.quantization == "none" and embedder.recipe.dtype == "float32"
    lowest = 0.9999 if exact else 0.99
    cosines = (vectors * expected).sum(1) if vectors.shape == expected.shape else np.zeros(1)
    if not cosines.min() >= lowest:
        raise UserError(
            f"{folder}: the loaded model does not give the vectors it was saved with (cosine {cosines.min():.4f}, "
            f"at least {lowest} expected). Base or adapter files were changed; train again, or restore them"
        )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
