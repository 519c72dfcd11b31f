"""Arrays kept on disk: computed once, found again by the hash of all that decides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cardioembed.errors import UserError
from cardioembed.records import atomic_path, text_id

Arrays = dict[str, np.ndarray]


def kept(folder: Path, kind: str, key: tuple[str, ...], compute: Callable[[], Arrays]) -> Arrays:
    """Arrays of an earlier call with the same key, else computed and saved.

    Args:
        folder: Where files are kept; made if need be.
        kind: Beginning of the file's name.
        key: All that decides the content.
        compute: Makes the arrays. A damaged file is computed again, for nothing in it is irreplaceable.

    Raises:
        UserError: The folder cannot be written.
    """
    path = folder / f"{kind}-{text_id(kind, *key)}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in compute().items()}
    try:
        with atomic_path(path) as temporary:
            save_file(arrays, temporary)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder} cannot be written ({reason}); free some space, or keep vectors and maps elsewhere: "
            "--cache FOLDER"
        ) from None
    return arrays
