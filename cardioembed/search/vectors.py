"""Vectors on disk: one float32 matrix in a safetensors file, written block by block and read by mapping it.

The library writes what is whole in memory and reads it into memory; here neither is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from cardioembed.errors import UserError

_NAME = "vectors"


def write_vectors(path: Path, blocks: Iterable[np.ndarray], count: int, dimension: int) -> None:
    """Writes ``count`` vectors that come in blocks of shape (any, dimension).

    Raises:
        ValueError: The blocks hold more or fewer.
    """
    size = count * dimension * 4
    header = json.dumps({_NAME: {"dtype": "F32", "shape": [count, dimension], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)  # so that the numbers are aligned
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, "<f4").data)
        if stream.tell() != 8 + len(header) + size:
            raise ValueError(f"{stream.tell() - 8 - len(header)} bytes of vectors, {size} expected")


def map_vectors(path: Path) -> np.ndarray:
    """The matrix, float32, read from disk as it is used, shape (count, dimension); read-only.

    Raises:
        UserError: The file is missing or damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="np") as tensors:  # checks header and length
            found = tensors.get_slice(_NAME) if _NAME in tensors.keys() else None  # noqa: SIM118, it is no mapping
            shape = found.get_shape() if found else []
            right = found is not None and found.get_dtype() == "F32" and len(shape) == 2
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not right:
        raise UserError(f"{path} must hold one float32 matrix called {_NAME!r}")
    with path.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
    if not shape[0]:
        return np.zeros(shape, np.float32)
    return np.asarray(np.memmap(path, "<f4", "r", start, tuple(shape)))
