"""Retrieval on any test collection in BEIR's layout, with a corpus of any size."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from cardioembed.errors import UserError
from cardioembed.evaluation.ranking import NDCG_DEPTH, ranking_chance, ranking_items, search
from cardioembed.evaluation.statistics import Sampling, item_estimates
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.records import Row

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

_CHUNK = 4096  # documents in memory at once: texts, tokens and vectors
_LAYOUT = "a BEIR folder holds corpus.jsonl (or corpus.jsonl.gz), queries.jsonl and qrels/test.tsv"


@dataclass(frozen=True)
class Collection:
    """A checked test collection; the texts of its documents stay on disk.

    Attributes:
        corpus: The file of documents.
        document_ids: In the order of the file.
        queries: Text by id, of the queries that have a relevant document.
        qrels: Relevance by document id, by query id, of the same queries.
        files: What it was read from.
    """

    corpus: Path
    document_ids: list[str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Retrieved:
    """What the report shows of a retrieval: the first ten documents of each query, and the values of each query.

    Attributes:
        ranked: Document ids by query id, best first.
        items: By metric, in the order of ``ranked``.
    """

    ranked: dict[str, list[str]]
    items: dict[str, np.ndarray]


@dataclass(frozen=True)
class BeirRetrieval:
    """Do questions find the documents that were judged to answer them? Details: ``Retrieved``.

    As in BEIR, a document is its title and text, and the 1,000 best of each query are looked at. A document with the
    query's own id is the query itself (ArguAna) and does not compete, unless it was judged relevant: then queries and
    documents are merely numbered alike. Equal texts under different ids are different documents, so that scores can be
    held against published ones.
    """

    collection: Collection
    name: str
    title: str

    @property
    def files(self) -> Sequence[Path]:
        """See ``Task``."""
        return self.collection.files

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        ids, qrels = self.collection.document_ids, self.collection.qrels
        queries = self.collection.queries
        vectors = embedder.encode(list(queries.values()), prompt_name=embedder.recipe.anchor_prompt)
        itself = [None if qrels[query].get(query, 0) > 0 else query for query in queries]
        ranked = search(vectors, _encoded(embedder, self.collection), ids, left_out=itself)
        judged, known = [qrels[query] for query in queries], set(ids)
        items = ranking_items(ranked, judged)
        chance = ranking_chance(judged, [len(ids) - (name in known) for name in itself])
        shown = {query: found[:NDCG_DEPTH] for query, found in zip(queries, ranked, strict=True)}
        return Measured(item_estimates(items, sampling, chance=chance), details=Retrieved(shown, items))


def _encoded(embedder: Embedder, collection: Collection) -> Iterator[np.ndarray]:
    """Vectors of the corpus, a chunk at a time."""
    with tqdm(total=len(collection.document_ids), desc="encode", unit="document") as bar:
        documents = read_documents(collection.corpus)
        while chunk := list(islice(documents, _CHUNK)):
            yield embedder.encode([text for _, text in chunk], prompt_name=embedder.recipe.positive_prompt)
            bar.update(len(chunk))


def read_documents(corpus: Path) -> Iterator[tuple[str, str]]:
    """Yields ``(id, title and text)`` from disk; a document may be without title, text or both.

    Raises:
        UserError: A line that is no such document.
    """
    for number, row in _rows(corpus):
        title = row.get("title") or ""
        for key, value in (("title", title), ("text", row["text"])):
            if not isinstance(value, str):
                raise UserError(f"{corpus}, line {number}: {key} is {value!r}, a text is needed")
        yield row["_id"], f"{title} {row['text']}".strip()


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields ``(line number, row)``; each row has a text as ``_id``, and ``text``."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _row(path, number, line)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8, so no tokens
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: {error}; one JSON object a line in UTF-8 is expected") from None
    for key in ("_id", "text"):
        if not isinstance(row, dict) or key not in row:
            raise UserError(
                f'{path}, line {number}: an object with "_id" and "text" is expected; key {key!r} is missing'
            )
    if not isinstance(row["_id"], str) or not row["_id"]:
        raise UserError(f'{path}, line {number}: _id is {row["_id"]!r}; write it as a text ("12", not 12)')
    return row


def load_beir(folder: Path) -> Collection:
    """Reads and checks a folder in BEIR's layout; other splits than ``qrels/test.tsv`` are not looked at.

    Queries without a relevant document are left out: those of other splits, and those that only have judgements of 0
    or below, for which there is nothing to find.

    Raises:
        UserError: A missing file, a line that is not as it should be, an id that is there twice or unknown, or no
            query with a relevant document.
    """
    corpus = next((path for end in ("", ".gz") if (path := folder / f"corpus.jsonl{end}").is_file()), None)
    queries, judgements = folder / "queries.jsonl", folder / "qrels" / "test.tsv"
    missing = [] if corpus else [folder / "corpus.jsonl"]
    missing += [path for path in (queries, judgements) if not path.is_file()]
    if missing or not corpus:
        raise UserError(f"{missing[0]} does not exist; {_LAYOUT}")
    document_ids = _unique(corpus, [name for name, _ in read_documents(corpus)])
    texts = _queries(queries)
    qrels = _qrels(judgements)
    _check_known(judgements, "corpus-id", [name for judged in qrels.values() for name in judged], document_ids, corpus)
    _check_known(judgements, "query-id", qrels, texts, queries)
    answered = {query: judged for query, judged in qrels.items() if max(judged.values()) > 0}
    if not answered:
        raise UserError(f"{judgements}: no query has a relevant document (a score of 1 or more); nothing can be found")
    kept = {query: texts[query] for query in answered}
    return Collection(corpus, document_ids, kept, answered, (corpus, queries, judgements))


def _unique(path: Path, ids: list[str]) -> list[str]:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"{path}: _id {name!r} is there twice; each needs an id of its own")
        seen.add(name)
    return ids


def _queries(path: Path) -> dict[str, str]:
    rows = list(_rows(path))
    for number, row in rows:
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise UserError(f"{path}, line {number}: text is {row['text']!r}, a question is needed")
    _unique(path, [row["_id"] for _, row in rows])
    return {row["_id"]: row["text"] for _, row in rows}


def _qrels(path: Path) -> dict[str, dict[str, float]]:
    """Judgements by query and document, in the order of the file; a first line without a number is its header."""
    qrels: dict[str, dict[str, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, fields in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
        if not fields or (number == 1 and fields[-1:] == ["score"]):
            continue
        if len(fields) != 3 or not _is_number(fields[2]):
            raise UserError(
                f"{path}, line {number}: {fields} is not query-id, corpus-id and a number as score, parted by tabs"
            )
        query, document, value = fields[0], fields[1], float(fields[2])
        if qrels.setdefault(query, {}).setdefault(document, value) != value:
            raise UserError(
                f"{path}, line {number}: query {query!r} and document {document!r} have two different scores"
            )
    return qrels


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_known(path: Path, column: str, named: Iterable[str], known: Iterable[str], source: Path) -> None:
    unknown = set(named) - set(known)
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} {column} are not in {source.name}, such as {min(unknown)!r}; "
            "take the three files from one release"
        )
