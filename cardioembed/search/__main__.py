"""An index of your own texts, and questions to it.

python -m cardioembed.search build --model runs/laptop/03_model --texts notes.jsonl guidelines.txt --out runs/index
python -m cardioembed.search add runs/index --texts more.csv --text-key sentence
python -m cardioembed.search query runs/index "aortic stenosis before surgery" --top-k 5 --filter source=esc-2021

Texts: .jsonl ({"text", perhaps "id", anything else is metadata}), .csv (columns likewise), .txt (one text a line).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardioembed.errors import UserError
from cardioembed.search.building import Change, add_from, build_from, check_new
from cardioembed.search.index import KINDS, Hit, Index, check_queries, check_top_k
from cardioembed.search.texts import Placed, read_texts

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

_SHOWN = 300  # characters of a hit's text in the terminal


def build(options: argparse.Namespace) -> None:
    """Writes a new index."""
    check_new(options.out, options.kind)
    placed = _read(options)
    _tell(build_from(_load(options.model, options), placed, options.out, kind=options.kind, show_progress_bar=True))


def add(options: argparse.Namespace) -> None:
    """Adds texts to an index."""
    index = Index.open(options.index)
    placed = _read(options)
    embedder = _load(options.model or index.model, options)
    _tell(add_from(embedder, options.index, placed, replace=options.replace, show_progress_bar=True))


def query(options: argparse.Namespace) -> None:
    """Prints the nearest texts."""
    check_queries(options.query)
    check_top_k(options.top_k)
    index = Index.open(options.index)
    conditions = [_condition(index, given) for given in options.filter]
    wanted = dict(conditions)
    if len(wanted) < len(conditions):
        raise UserError("--filter names a key twice, and no text has two values of one; give each key once")
    index.filters.positions(wanted)
    embedder = _load(options.model or index.model, options)
    hits = index.search(embedder, options.query, options.top_k, wanted)
    if embedder.tokenize([options.query], embedder.recipe.anchor_prompt)[1]:
        longest = embedder.recipe.max_length
        print(f"note: the query is longer than {longest} tokens; its end was not used", file=sys.stderr)
    for place, hit in enumerate(hits, 1):
        print(json.dumps(asdict(hit), ensure_ascii=False) if options.json else _line(place, hit))
    if not hits:
        print("no text passes the filter", file=sys.stderr)


def _read(options: argparse.Namespace) -> list[Placed]:
    placed = list(read_texts(options.texts, text_key=options.text_key, id_key=options.id_key))
    if not placed:
        raise UserError(f"there are no texts in {', '.join(map(str, options.texts))}")
    return placed


def _load(model: str, options: argparse.Namespace) -> Embedder:
    from cardioembed.embedder.saving import load_model  # after the mistakes that are found without a model

    return load_model(model, device=options.device)


def _condition(index: Index, given: str) -> tuple[str, Any]:
    """``key=value``; a value that is no text of the index's may be a number, true, false or null."""
    key, equals, value = given.partition("=")
    if not equals or not key:
        raise UserError(f"--filter {given!r}: give key=value, for example --filter source=esc-2021")
    if index.filters.has(key, value):
        return key, value
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _tell(change: Change) -> None:
    index = change.index
    print(f"{index.folder}: {len(index):,} texts of {index.dimension} dimensions, kind {index.kind}")
    print(f"  {change.added:,} added, {change.replaced:,} replaced, {change.unchanged:,} there already or given twice")
    if change.truncated:
        print(f"  {change.truncated:,} texts are longer than the model takes; only their beginning can be found")


def _line(place: int, hit: Hit) -> str:
    text = " ".join(hit.text.split())
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    about = ", ".join([hit.id, *(f"{key}={value}" for key, value in hit.metadata.items())])
    return f"{place:>3}  {hit.score:.4f}  {text}\n             {about}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cardioembed.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("build", help="encode texts and write a new index")
    made.add_argument("--model", required=True, help="runs/<name>/03_model, a folder, or a base's name")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    made.add_argument(
        "--kind",
        default="exact",
        help=f"{', '.join(KINDS)} (default: exact, right up to some 100,000 texts; the others need faiss)",
    )
    added = commands.add_parser("add", help="add texts to an index; rows that are there already are skipped")
    added.add_argument("index", type=Path, metavar="DIR")
    added.add_argument("--replace", action="store_true", help="let a row replace another one of the same id")
    asked = commands.add_parser("query", help="print the nearest texts")
    asked.add_argument("index", type=Path, metavar="DIR")
    asked.add_argument("query", metavar="TEXT")
    asked.add_argument("--top-k", type=int, default=5, metavar="N", help="most hits (default: 5)")
    asked.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE", help="metadata that must be equal; repeatable"
    )
    asked.add_argument("--json", action="store_true", help="print one JSON object a hit")
    for command in (added, asked):
        command.add_argument("--model", help="where the index's model is now (default: where it was)")
    for command in (made, added):
        command.add_argument("--texts", type=Path, nargs="+", required=True, metavar="FILE", help=".jsonl, .csv, .txt")
        command.add_argument("--text-key", default="text", help="key or column of the text (default: text)")
        command.add_argument("--id-key", default="id", help="key or column of the id, if there is one (default: id)")
    for command in (made, added, asked):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs ``build``, ``add`` or ``query``; a user's mistake ends with advice and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        {"build": build, "add": add, "query": query}[options.command](options)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"\nerror: {name}{error.strerror or error}. Free some space, or check the permissions", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
