"""A saved index of texts: opened, checked and searched. It never changes, so any number of threads may read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row, read_json, read_jsonl, sha256
from cardioembed.search.approximate import FILES, Approximate
from cardioembed.search.filters import Filter, Filters
from cardioembed.search.scoring import best, exact_candidates
from cardioembed.search.vectors import map_vectors

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

FORMAT = 1
KINDS = ("exact", *FILES)
ABOUT, VECTORS, ROWS = "index.json", "vectors.safetensors", "rows.jsonl"
_FEW = 20_000  # so few vectors are compared one by one faster than faiss walks past all the others
_QUERY_BLOCK = 1024
_KEYS: dict[str, type] = {"kind": str, "count": int, "dimension": int, "model": dict, "files": dict}


@dataclass(frozen=True)
class Hit:
    """A text that was found.

    Attributes:
        score: Cosine with the query.
        id, text, metadata: Of the text.
    """

    score: float
    id: str
    text: str
    metadata: dict[str, Any]


class Index:
    """Texts and their vectors in a folder; made by ``build_index``, opened with ``Index.open``.

    Attributes:
        folder: Where it is.
        about: Content of its ``index.json``.
        vectors: Unit vectors, float32, mapped from disk, shape (count, dimension).
        rows: ``{"id", "text", "metadata"}``, in the order of the vectors.
        filters: Finds rows by metadata.
        approximate: The faiss index, None for the kind ``exact``.
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], vectors: np.ndarray, rows: list[Row], approximate: Approximate | None
    ) -> None:
        self.folder = folder
        self.about = about
        self.vectors = vectors
        self.rows = rows
        self.filters = Filters(rows)
        self.approximate = approximate
        self._ids = [row["id"] for row in rows]

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Opens an index after comparing all its files with their hashes.

        Raises:
            UserError: Not an index, of a newer version, a file missing, truncated or changed, or faiss missing.
        """
        folder = Path(folder)
        about = _read_about(folder)
        kind = about["kind"]
        for name in files_of(kind):
            _check_file(folder / name, about["files"].get(name))
        vectors = map_vectors(folder / VECTORS)
        rows = read_jsonl(folder / ROWS, required=["metadata"], texts=["id", "text"])
        if vectors.shape != (about["count"], about["dimension"]) or len(rows) != about["count"]:
            raise UserError(
                f"{folder / ABOUT} says {about['count']} vectors of {about['dimension']} dimensions, there are "
                f"{len(vectors)} of {vectors.shape[1]} and {len(rows)} texts; build the index again"
            )
        approximate = None if kind == "exact" else Approximate.open(kind, folder / FILES[kind], len(rows))
        return cls(folder, about, vectors, rows, approximate)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> str:
        """``exact``, ``hnsw``, ``int8`` or ``binary``."""
        return self.about["kind"]

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.about["dimension"]

    @property
    def identity(self) -> str:
        """Identity of the model whose vectors these are, as ``Embedder.identity``."""
        return self.about["model"]["identity"]

    @property
    def model(self) -> str:
        """Folder or name of that model when the index was built."""
        return self.about["model"]["place"]

    def check_model(self, embedder: Embedder) -> None:
        """Raises unless the vectors of a model may be compared with these.

        Raises:
            UserError: It is another model, or its vectors are of another length.
        """
        if embedder.dimension != self.dimension:
            raise UserError(
                f"the index {self.folder} holds vectors of {self.dimension} dimensions, this model gives "
                f"{embedder.dimension}; open the model it was built with: {self.model}"
            )
        if embedder.identity != self.identity:
            raise UserError(
                f"the index {self.folder} was built with another model, whose vectors must not be mixed with this "
                f"one's: {self.model} (identity {_short(self.identity)}; this one is {_short(embedder.identity)}). "
                "Open that model, or build the index again with this one"
            )

    def search(
        self, embedder: Embedder, queries: str | Sequence[str], top_k: int = 10, filter: Filter | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """Finds the texts nearest to one query or to many.

        Args:
            embedder: The model that the index was built with; it encodes queries with the prompt of its anchors.
            queries: A text, or a list of texts.
            top_k: Most hits a query; fewer only if fewer texts pass the filter.
            filter: Which texts may be found: a dict of metadata that must all be equal, or a function that takes a
                row ``{"id", "text", "metadata"}`` and returns whether it passes.

        Returns:
            Hits, highest cosine first and equal ones by id; for a list of queries, a list of these.

        Raises:
            UserError: Another model, an empty query or one that is no text, a ``top_k`` below 1, an unknown filter.
        """
        self.check_model(embedder)
        check_queries(queries)
        check_top_k(top_k)
        vectors = embedder.encode(queries, prompt_name=embedder.recipe.anchor_prompt)
        return self.search_vectors(vectors, top_k, filter)

    def search_vectors(
        self, vectors: np.ndarray, top_k: int = 10, filter: Filter | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """As ``search``, with vectors of queries that this index's model has encoded with its ``anchor_prompt``.

        Args:
            vectors: Shape (dimension,) for one query or (queries, dimension); they are brought to unit length.
            top_k, filter: See ``search``.

        Raises:
            UserError: A wrong shape or type, a vector of zeros, NaN or infinity; see also ``search``.
        """
        check_top_k(top_k)
        queries = self._checked(vectors)
        found = self.nearest(np.atleast_2d(queries), top_k, self.filters.positions(filter))
        hits = [[Hit(score, **self.rows[position]) for score, position in best_of_one] for best_of_one in found]
        return hits if queries.ndim == 2 else hits[0]

    def nearest(
        self, queries: np.ndarray, top_k: int, positions: np.ndarray | None = None
    ) -> list[list[tuple[float, int]]]:
        """``(cosine, position)`` of the nearest rows of each query, highest first, equal ones by id.

        Args:
            queries: Unit vectors, float32, shape (queries, dimension).
            top_k: Most hits a query.
            positions: Of the rows to choose from, ascending; None for all.
        """
        size = len(self) if positions is None else len(positions)
        found: list[list[tuple[float, int]]] = []
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = queries[start : start + _QUERY_BLOCK]
            if self.approximate is None or (positions is not None and size <= _FEW):
                chosen = exact_candidates(self.vectors, block, top_k, positions)
            else:
                chosen = self._approximate_candidates(block, min(top_k, size), positions)
            found += [
                best(self.vectors, query, candidates, self._ids, top_k)
                for query, candidates in zip(block, chosen, strict=True)
            ]
        return found

    def _approximate_candidates(self, queries: np.ndarray, top_k: int, positions: np.ndarray | None):
        for query, found in zip(queries, self.approximate.candidates(queries, top_k, positions), strict=True):
            if len(found) < top_k:  # a graph is left early where a filter hides whole regions of it
                found = next(exact_candidates(self.vectors, query[None], top_k, positions))
            yield found

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        try:
            queries = np.asarray(vectors, np.float32)
        except (TypeError, ValueError):
            raise UserError("vectors must be numbers, shape (dimension,) or (queries, dimension)") from None
        if queries.ndim not in (1, 2) or queries.shape[-1] != self.dimension:
            raise UserError(
                f"vectors have shape {queries.shape}; the index {self.folder} takes ({self.dimension},) or (queries, "
                f"{self.dimension}), of the model it was built with: {self.model}"
            )
        lengths = np.linalg.norm(queries, axis=-1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise UserError("vectors: there is a vector of zeros, or one with NaN or infinity in it")
        return queries / lengths


def check_queries(queries: Any) -> None:
    """Raises unless this is a text or a list of texts, none of them empty.

    Raises:
        UserError: It is not.
    """
    if isinstance(queries, str):
        queries = [queries]
    elif not isinstance(queries, (list, tuple)):
        raise UserError(f"queries must be a text or a list of texts, it is a {type(queries).__name__}")
    for place, query in enumerate(queries):
        if not isinstance(query, str):
            raise UserError(f"queries[{place}] is a {type(query).__name__}, not a text")
        if not query.strip():
            raise UserError(f"queries[{place}] is empty; ask for something")


def check_top_k(top_k: Any) -> None:
    """Raises unless this is a whole number of 1 or more.

    Raises:
        UserError: It is not.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
        raise UserError(f"top_k is {top_k!r}; it must be a whole number of 1 or more")


def files_of(kind: str) -> list[str]:
    """Names of an index's files besides ``index.json``."""
    return [VECTORS, ROWS] + ([FILES[kind]] if kind in FILES else [])


def _read_about(folder: Path) -> dict[str, Any]:
    if not (folder / ABOUT).is_file():
        if left := sorted(folder.parent.glob(f".{folder.name}.*.old")):
            raise UserError(f"{folder} is missing: its replacement was interrupted. All is in {left[-1]}; rename that")
        raise UserError(f"{folder} is not an index: it has no {ABOUT}. Build one: python -m cardioembed.search build")
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise UserError(f"{folder / ABOUT} is not an index's; build the index again")
    if about["format"] != FORMAT:
        raise UserError(
            f"{folder / ABOUT} has format {about['format']}, this version reads {FORMAT}; build the index again, or "
            "use the version that wrote it"
        )
    wrong = [key for key, kind in _KEYS.items() if not isinstance(about.get(key), kind)]
    wrong += [
        f"model.{key}" for key in ("identity", "place") if not wrong and not isinstance(about["model"].get(key), str)
    ]
    if not wrong and about["kind"] not in KINDS:
        wrong.append("kind")
    if wrong:
        raise UserError(
            f"{folder / ABOUT}: {wrong[0]} is missing or wrong; the file was changed, build the index again"
        )
    return about


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; restore it, or build the index again")
    if sha256(path) != expected:
        raise UserError(
            f"{path} is not as it was written (its sha256 differs): truncated, changed, or of another index. Restore "
            "the folder from a copy, or build the index again"
        )


def _short(identity: str) -> str:
    return identity if len(identity) <= 90 else identity[:87] + "..."
