"""Vectors after the model: checked, cut to fewer dimensions, kept in fewer bits, compared.

Kinds and shapes of n vectors of d dimensions (one vector lacks the n):

    float32  (n, d) float32      unit length
    float16  (n, d) float16      the same, rounded to 11 bits
    int8     (n, d) int8         each dimension's range in 255 steps from -128 to 127, outliers at its ends
    binary   (n, ceil(d/8)) int8 the signs, 1 for positive, eight to a byte from its highest bit, minus 128

int8 and binary are bit for bit those of ``sentence_transformers.util.quantization.quantize_embeddings``. faiss and
usearch take the bits without the 128: ``binary.view(numpy.uint8) ^ 0x80``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from cardioembed.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["float32", "float16", "int8", "binary"]
_TINY = 1e-12  # as torch.nn.functional.normalize has it: a vector of zeros stays one


def refuse_non_finite(vectors: np.ndarray) -> None:
    """Raises UserError if a vector, shape (n, d), holds NaN or infinity, and says which."""
    bad = np.flatnonzero(~np.isfinite(vectors.sum(1)))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(vectors)} vectors of this model are not finite numbers, the first that of "
            f"texts[{bad[0]}]; load it in float32 or bfloat16 (model.dtype), and gemma-2 with "
            "model.attn_implementation: eager. If it is so in float32, its weights are damaged: train it again"
        )


def check_dimensions(truncate_dim: int | None, dimension: int) -> int:
    """The dimensions that vectors will have.

    Raises:
        UserError: ``truncate_dim`` is not from 1 to ``dimension``.
    """
    if truncate_dim is None:
        return dimension
    whole = isinstance(truncate_dim, int | np.integer) and not isinstance(truncate_dim, bool)
    if not whole or not 1 <= truncate_dim <= dimension:
        raise UserError(f"truncate_dim: {truncate_dim!r} is not possible; this model's vectors take 1 to {dimension}")
    return int(truncate_dim)


def truncate(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The first dimensions, at unit length again, shape (n, dimensions); as they are if there are no more."""
    return vectors if dimensions == vectors.shape[-1] else _unit(vectors[:, :dimensions])


def calibration_ranges(vectors: np.ndarray) -> np.ndarray:
    """Lowest and highest value of each dimension, shape (2, d), for ``int8``; a few hundred vectors are enough."""
    if np.ndim(vectors) != 2 or len(vectors) < 2:
        raise UserError(
            "precision int8: the range of each dimension cannot be told from a single vector. Take "
            "calibration_ranges() of the vectors of many texts and give it as ranges"
        )
    return np.stack([vectors.min(0), vectors.max(0)])


def check_precision(precision: str, ranges: np.ndarray | None, dimensions: int) -> None:
    """Raises UserError unless vectors of so many dimensions can be kept so."""
    if precision not in get_args(Precision):
        raise UserError(f"precision: {precision!r} is unknown; choose {', '.join(get_args(Precision))}")
    if ranges is None:
        return
    if precision != "int8":
        raise UserError(f"ranges: they are those of precision int8; with {precision} leave them out")
    if np.shape(ranges) != (2, dimensions):
        raise UserError(
            f"ranges: shape {np.shape(ranges)}, but (2, {dimensions}) is needed, the lowest and the highest value of "
            "each dimension; take calibration_ranges() of vectors that were encoded with the same truncate_dim"
        )
    if not (np.isfinite(ranges).all() and (ranges[0] <= ranges[1]).all()):
        raise UserError("ranges: the first row must be the lowest values and the second the highest, finite numbers")


def quantize(vectors: np.ndarray, precision: Precision, ranges: np.ndarray | None = None) -> np.ndarray:
    """Vectors in fewer bits; see the top of this module for kinds and shapes.

    Args:
        vectors: float32, shape (n, d).
        precision: ``float32``, ``float16``, ``int8`` or ``binary``.
        ranges: For int8, from ``calibration_ranges``, shape (2, d); vectors of two calls compare only if both had the
            same ones. None takes those of ``vectors``.

    Raises:
        UserError: An unknown precision, misshapen ranges, or int8 of a single vector without ranges.
    """
    check_precision(precision, ranges, vectors.shape[1])
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1) - np.uint8(128)).view(np.int8)
    if precision == "int8":
        return _int8(vectors, ranges)
    return vectors.astype(precision, copy=False)


def _int8(vectors: np.ndarray, ranges: np.ndarray | None) -> np.ndarray:
    if not len(vectors):
        return np.zeros(vectors.shape, np.int8)
    low, high = np.asarray(calibration_ranges(vectors) if ranges is None else ranges, np.float32)
    steps = (high - low) / 255
    steps[steps == 0] = 1  # a dimension that is the same in all
    return (np.clip(np.floor((vectors - low) / steps), 0, 255) - 128).astype(np.int8)


def comparable(first: Any, second: Any) -> tuple[Any, Any]:
    """Two sets of vectors at unit length, each of shape (n, d), ready to be multiplied.

    Args:
        first, second: Arrays or tensors of shape (d,) or (n, d), or lists of vectors.

    Returns:
        NumPy arrays, or tensors on the first tensor's device if either holds tensors.

    Raises:
        UserError: int8 or binary vectors, or two numbers of dimensions.
    """
    sets = [_stacked(vectors) for vectors in (first, second)]
    device = next((vectors.device for vectors in sets if not isinstance(vectors, np.ndarray)), None)
    if device is not None:
        import torch

        sets = [torch.as_tensor(vectors, device=device) for vectors in sets]
    rows = [_float_rows(vectors) for vectors in sets]
    if rows[0].shape[1] != rows[1].shape[1]:
        raise UserError(
            f"vectors of {rows[0].shape[1]} and of {rows[1].shape[1]} dimensions cannot be compared; encode both by "
            "one model with one truncate_dim"
        )
    return _unit(rows[0]), _unit(rows[1])


def _stacked(vectors: Any) -> np.ndarray | Tensor:
    if isinstance(vectors, list | tuple) and vectors and hasattr(vectors[0], "detach"):
        import torch

        return torch.stack(list(vectors))
    return vectors if hasattr(vectors, "detach") else np.asarray(vectors)


def _float_rows(vectors: Any) -> Any:
    """Shape (n, d), in float32 if it was in fewer bits."""
    kind = str(vectors.dtype).removeprefix("torch.")
    if kind in ("int8", "uint8"):
        raise UserError(
            f"similarity is that of float vectors, not of {kind} ones, whose products have no common scale; compare "
            "the float32 vectors, or search the small ones with faiss or usearch"
        )
    rows = vectors if vectors.ndim == 2 else vectors.reshape(1, -1)
    if kind in ("float32", "float64"):
        return rows
    return rows.astype(np.float32) if isinstance(rows, np.ndarray) else rows.float()


def _unit(rows: Any) -> Any:
    lengths = (rows * rows).sum(-1) ** 0.5
    return rows / lengths.clip(_TINY)[:, None]
