"""faiss over the vectors of an index: a graph (HNSW), or codes of 8 bits or 1 bit a dimension.

What it finds are candidates; their cosines are computed from the float32 vectors (rescoring).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cardioembed.errors import UserError

FILES = {"hnsw": "hnsw.faiss", "int8": "int8.faiss", "binary": "binary.faiss"}
_BLOCK = 16_384  # vectors handed to faiss at once

# HNSW: links a vector, and candidates held while building and while searching.
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 32, 200, 128
# Candidates a wanted hit, and at least so many: the coarser the codes, the more.
_OVERSAMPLING = {"hnsw": (1, 10), "int8": (4, 40), "binary": (40, 400)}


def load_faiss() -> ModuleType:
    """The library.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError(
            "an index of the kinds hnsw, int8 and binary needs faiss, which is not installed: "
            "pip install -e '.[search]' (or pip install faiss-cpu). The kind exact needs nothing"
        ) from None
    return faiss


class Approximate:
    """A faiss index whose positions are those of the vectors.

    Args:
        kind: ``hnsw``, ``int8`` or ``binary``.
        found: The faiss index.
    """

    def __init__(self, kind: str, found: Any) -> None:
        self.kind = kind
        self._index = found
        self._faiss = load_faiss()

    @classmethod
    def build(cls, kind: str, vectors: np.ndarray) -> Approximate:
        """Builds one from vectors, shape (count, dimension)."""
        faiss, dimension = load_faiss(), vectors.shape[1]
        if kind == "hnsw":
            found = faiss.IndexHNSWFlat(dimension, _LINKS, faiss.METRIC_INNER_PRODUCT)
            found.hnsw.efConstruction = _EF_CONSTRUCTION
        elif kind == "int8":
            quantiser = faiss.ScalarQuantizer.QT_8bit
            found = faiss.IndexScalarQuantizer(dimension, quantiser, faiss.METRIC_INNER_PRODUCT)
            found.train(_sample(vectors))
        else:
            found = faiss.IndexBinaryFlat(8 * len(_bits(vectors[:1])[0]))
        built = cls(kind, found)
        built._add(vectors)
        return built

    @classmethod
    def open(cls, kind: str, path: Path, count: int) -> Approximate:
        """Reads what ``write`` wrote, and checks that it is of the kind and of ``count`` vectors.

        Raises:
            UserError: faiss is missing, or the file is not such an index.
        """
        faiss = load_faiss()
        try:
            found = (faiss.read_index_binary if kind == "binary" else faiss.read_index)(str(path))
        except RuntimeError as error:
            raise UserError(f"{path} is not a faiss index that this version reads: {str(error)[-300:]}") from None
        types = {"hnsw": faiss.IndexHNSWFlat, "int8": faiss.IndexScalarQuantizer, "binary": faiss.IndexBinaryFlat}
        if not isinstance(found, types[kind]) or found.ntotal != count:
            raise UserError(f"{path} is not the {kind} index of these {count} vectors; build the index again")
        return cls(kind, found)

    def write(self, path: Path) -> None:
        """Writes faiss's own file format."""
        (self._faiss.write_index_binary if self.kind == "binary" else self._faiss.write_index)(self._index, str(path))

    def extended(self, vectors: np.ndarray) -> Approximate:
        """Makes it one of all ``vectors``, the first of which it holds already; codes are learned anew."""
        if self.kind != "hnsw":
            return Approximate.build(self.kind, vectors)
        self._add(vectors[self._index.ntotal :])
        return self

    def candidates(self, queries: np.ndarray, top_k: int, positions: np.ndarray | None) -> list[np.ndarray]:
        """For each query, positions of more vectors than the ``top_k`` wanted, in no order.

        Args:
            queries: Shape (queries, dimension).
            top_k: How many are wanted; fewer may come back.
            positions: Of the vectors to choose from; None for all.
        """
        faiss, count = self._faiss, self._index.ntotal
        share = 1.0 if positions is None else len(positions) / count
        factor, least = _OVERSAMPLING[self.kind]
        wanted = int(min(max(factor * top_k, least), count if positions is None else len(positions)))  # faiss's kind
        options: dict[str, Any] = {}
        if positions is not None:
            mask = np.zeros(count, bool)
            mask[positions] = True
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw":
            # The walk passes vectors that the filter hides, so it has to go on for longer.
            depth = min(count, int(max(_EF_SEARCH, 2 * wanted) / share))
            found = self._index.search(queries, wanted, params=faiss.SearchParametersHNSW(efSearch=depth, **options))
        elif self.kind == "int8":
            found = self._index.search(queries, wanted, params=faiss.SearchParameters(**options))
        else:
            found = self._index.search(_bits(queries), wanted, params=faiss.SearchParameters(**options))
        return [row[row >= 0] for row in found[1]]

    def _add(self, vectors: np.ndarray) -> None:
        for start in range(0, len(vectors), _BLOCK):
            block = np.ascontiguousarray(vectors[start : start + _BLOCK])
            self._index.add(_bits(block) if self.kind == "binary" else block)


def _bits(vectors: np.ndarray) -> np.ndarray:
    """One bit a dimension, whether it is above 0; uint8, the last byte filled with zeros."""
    return np.packbits(vectors > 0, axis=1)


def _sample(vectors: np.ndarray) -> np.ndarray:
    """Vectors from all parts of the matrix, to learn the range of each dimension from."""
    return np.ascontiguousarray(vectors[:: max(1, len(vectors) // 100_000)])
