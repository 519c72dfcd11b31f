"""The one place where the service meets ``cardioembed.search``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from cardioembed.embedder.encoder import Embedder

# (vectors of queries (queries, dimension), top_k, filter) -> hits {"score", "id", "text", "metadata"} of each query
Searcher = Callable[["np.ndarray", int, "dict[str, Any] | None"], list[list[dict[str, Any]]]]


def open_index(folder: Path, embedder: Embedder) -> Searcher:
    """Opens a saved index for the model that it was built with.

    Returns:
        A function that searches it, from any thread; it raises UserError for a filter that the index does not know.

    Raises:
        UserError: Not an index, damaged, of another model or dimension, or faiss is missing for its kind.
    """
    from cardioembed.search.index import Index

    index = Index.open(folder)
    index.check_model(embedder)

    def search(vectors: np.ndarray, top_k: int, condition: dict[str, Any] | None) -> list[list[dict[str, Any]]]:
        return [[asdict(hit) for hit in hits] for hits in index.search_vectors(vectors, top_k, condition)]

    return search
