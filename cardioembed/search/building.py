"""Indexes made and extended. The folder is replaced as a whole, so a crash leaves the index that was there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from cardioembed.errors import UserError
from cardioembed.records import Row, atomic_folder, library_versions, sha256, write_json, write_jsonl
from cardioembed.search.approximate import FILES, Approximate, load_faiss
from cardioembed.search.index import ABOUT, FORMAT, KINDS, ROWS, VECTORS, Index, files_of
from cardioembed.search.texts import Placed, distinct, list_texts
from cardioembed.search.vectors import map_vectors, write_vectors

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

_BLOCK = 4096  # texts encoded, or vectors copied, at once


@dataclass(frozen=True)
class Change:
    """What building or adding did.

    Attributes:
        index: The index as it is now.
        added: Texts that are new.
        replaced: Texts that took the place of others of the same id.
        unchanged: Rows that were there already, id, text and metadata, or came twice.
        truncated: Texts longer than the model takes; only their beginning can be found.
    """

    index: Index
    added: int
    replaced: int
    unchanged: int
    truncated: int


def build_index(
    embedder: Embedder,
    texts: Iterable[str | Row],
    out: str | Path,
    *,
    kind: str = "exact",
    show_progress_bar: bool = False,
) -> Change:
    """Encodes texts, with the prompt of the model's positives, and writes an index of them.

    Args:
        embedder: The model.
        texts: Texts, or dicts with ``text``, perhaps ``id``, and anything else as metadata. Without an id, a text
            gets one that follows from text and metadata.
        out: Folder to write; it must not exist yet, or be empty.
        kind: ``exact`` compares a query with every vector. With faiss: ``hnsw`` walks a graph, the fastest; ``int8``
            and ``binary`` compare codes of a fourth and a thirty-second of the memory, and rescore the nearest.
        show_progress_bar: Whether to show one.

    Raises:
        UserError: No texts, an empty one, two different rows of one id, ``out`` in use, or faiss missing.
    """
    return build_from(embedder, list_texts(texts), out, kind=kind, show_progress_bar=show_progress_bar)


def build_from(
    embedder: Embedder,
    placed: Iterable[Placed],
    out: str | Path,
    *,
    kind: str,
    show_progress_bar: bool = False,
) -> Change:
    """As ``build_index``, of rows that ``read_texts`` gives."""
    out = Path(out)
    check_new(out, kind)
    rows, repeated = distinct(placed)
    if not rows:
        raise UserError("there are no texts to build an index of")
    recipe = embedder.recipe
    model = {
        "identity": embedder.identity,
        "place": embedder.place,
        "anchor_prompt": recipe.anchor_prompt,
        "positive_prompt": recipe.positive_prompt,
    }
    encoding = _Encoding(embedder, rows, show_progress_bar)
    write_index(out, rows, encoding, kind=kind, dimension=embedder.dimension, model=model)
    return Change(Index.open(out), len(rows), 0, repeated, encoding.truncated)


def check_new(out: Path, kind: str) -> None:
    """Raises unless an index of this kind can be written there; to be called before a model is loaded.

    Raises:
        UserError: An unknown kind, faiss missing, or something is at ``out`` already.
    """
    if kind not in KINDS:
        raise UserError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if kind in FILES:
        load_faiss()
    if (out / ABOUT).exists():
        raise UserError(f"{out} is an index already; add to it, remove it, or give another folder")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; give another one")


def add_to_index(
    embedder: Embedder,
    folder: str | Path,
    texts: Iterable[str | Row],
    *,
    replace: bool = False,
    show_progress_bar: bool = False,
) -> Change:
    """Adds texts to an index; those that are there already as they are given are left as they are.

    An opened ``Index`` of the folder goes on answering as before; use the returned one from now on.

    Args:
        embedder: The model that the index was built with.
        folder: The index.
        texts: As ``build_index`` takes them.
        replace: Whether a row takes the place of another one of the same id; otherwise that is refused.
        show_progress_bar: Whether to show one.

    Raises:
        UserError: Another model, an id in use, or another program changed the index meanwhile; nothing is written.
    """
    return add_from(embedder, folder, list_texts(texts), replace=replace, show_progress_bar=show_progress_bar)


def add_from(
    embedder: Embedder,
    folder: str | Path,
    placed: Iterable[Placed],
    *,
    replace: bool = False,
    show_progress_bar: bool = False,
) -> Change:
    """As ``add_to_index``, of rows that ``read_texts`` gives."""
    folder = Path(folder).resolve()  # it is replaced as a whole, even where one stands in it
    index = Index.open(folder)
    index.check_model(embedder)
    opened = sha256(index.folder / ABOUT)
    rows, repeated = distinct(placed)
    known = {row["id"]: position for position, row in enumerate(index.rows)}
    changed = [row for row in rows if row["id"] not in known or index.rows[known[row["id"]]] != row]
    outdated = [known[row["id"]] for row in changed if row["id"] in known]
    if outdated and not replace:
        named = ", ".join(repr(index.rows[position]["id"]) for position in outdated[:3])
        raise UserError(
            f"{len(outdated)} ids stand for other texts or metadata in {folder}: {named}{', ...' * (len(outdated) > 3)}"
            ". Give new texts ids of their own, or replace the old ones (--replace)"
        )
    encoding = _Encoding(embedder, changed, show_progress_bar)
    if changed:
        _write_extended(index, np.delete(np.arange(len(index)), outdated), encoding, opened)
        index = Index.open(folder)
    added, unchanged = len(changed) - len(outdated), len(rows) - len(changed) + repeated
    return Change(index, added, len(outdated), unchanged, encoding.truncated)


def _write_extended(index: Index, kept: np.ndarray, encoding: _Encoding, opened: str) -> None:
    """Writes the kept rows and the encoded ones; ``opened`` is the hash that ``index.json`` must still have."""

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(kept), _BLOCK):
            yield index.vectors[kept[start : start + _BLOCK]]
        yield from encoding

    def unchanged_meanwhile() -> None:
        if not (index.folder / ABOUT).is_file() or sha256(index.folder / ABOUT) != opened:
            raise UserError(f"{index.folder} was changed by another program meanwhile; run the same command again")

    write_index(
        index.folder,
        [*(index.rows[position] for position in kept), *encoding.rows],
        blocks(),
        kind=index.kind,
        dimension=index.dimension,
        model=index.about["model"],
        # What faiss holds cannot be taken out of a graph.
        extending=index.approximate if len(kept) == len(index) else None,
        before_replacing=unchanged_meanwhile,
    )


def write_index(
    out: Path,
    rows: list[Row],
    blocks: Iterable[np.ndarray],
    *,
    kind: str,
    dimension: int,
    model: dict[str, Any],
    extending: Approximate | None = None,
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Writes the folder of an index; it takes the place of the one that is there when all is written.

    Args:
        out: The folder.
        rows: ``{"id", "text", "metadata"}``.
        blocks: Their unit vectors, shapes (any, dimension).
        kind, dimension, model: For ``index.json``.
        extending: A faiss index of the first of these vectors.
        before_replacing: Called when all is written; what it raises keeps the old folder.
    """
    with atomic_folder(out) as temporary:
        write_vectors(temporary / VECTORS, blocks, len(rows), dimension)
        write_jsonl(temporary / ROWS, rows)
        if kind in FILES:
            vectors = map_vectors(temporary / VECTORS)
            approximate = extending.extended(vectors) if extending else Approximate.build(kind, vectors)
            approximate.write(temporary / FILES[kind])
        about = {"format": FORMAT, "kind": kind, "count": len(rows), "dimension": dimension, "model": model}
        hashes = {name: sha256(temporary / name) for name in files_of(kind)}
        write_json(temporary / ABOUT, {**about, "files": hashes, "libraries": library_versions()})
        if before_replacing:
            before_replacing()


@dataclass
class _Encoding:
    """Vectors of rows, in blocks; how many texts the model has cut is known after the last one."""

    embedder: Embedder
    rows: list[Row]
    progress: bool
    truncated: int = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        prompt_name = self.embedder.recipe.positive_prompt
        with tqdm(total=len(self.rows), desc="encode", unit="text", disable=not self.progress) as bar:
            for start in range(0, len(self.rows), _BLOCK):
                texts = [row["text"] for row in self.rows[start : start + _BLOCK]]
                self.truncated += self.embedder.tokenize(texts, prompt_name)[1]
                yield self.embedder.encode(texts, prompt_name=prompt_name)
                bar.update(len(texts))
