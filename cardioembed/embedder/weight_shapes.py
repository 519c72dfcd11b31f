"""Shapes of a base's weights from the headers of its safetensors files; no weight is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cardioembed.errors import UserError

Shapes = dict[str, tuple[int, ...]]
_IN_LAYER = re.compile(r"(^|\.)(layers?|h|blocks?)\.\d+\.")
_NOT_LINEAR = re.compile(r"norm|embed|relative_attention_bias", re.IGNORECASE)
_LEFT_OUT = re.compile(r"^(lm_head|cls|classifier|score|qa_outputs|embed_out|vocab_\w+)\.")


def read_shapes(folder: Path) -> Shapes:
    """Shapes of the weights that ``AutoModel`` loads, by name, from the safetensors headers; no weight is read.

    Raises:
        UserError: A file is missing or its header is damaged.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    if not whole.is_file() and index.is_file():
        weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(weights))]
    header: dict[str, Any] = {}
    for path in files:
        header |= _read_header(path)
    return {n: tuple(t["shape"]) for n, t in header.items() if n != "__metadata__" and not _LEFT_OUT.match(n)}


def layer_linears(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Weights of the linears inside the layers: ``(rows, columns)`` by name."""
    return {
        name: (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(".weight") and _IN_LAYER.search(name) and not _NOT_LINEAR.search(name)
    }


def is_gated(shapes: Shapes) -> bool:
    """Whether the feed-forward multiplies by a gate, as language models' and ModernBERT's do."""
    return any("gate" in name or "mlp.Wi." in name for name in shapes)


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > 100_000_000:  # the format's own limit
                raise ValueError(f"a header of {length} bytes")
            return json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise UserError(f"model.base: {path} is missing or damaged ({error}); fetch the base again") from None
