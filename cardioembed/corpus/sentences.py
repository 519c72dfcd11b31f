"""Books to the unique sentences of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cardioembed.corpus.cleaning import clean_pages
from cardioembed.corpus.reading import name_books, read_pages
from cardioembed.corpus.segmentation import split_sentences
from cardioembed.errors import UserError
from cardioembed.records import Row, normalise, text_id


@dataclass
class Corpus:
    """Unique sentences in reading order, rejected ones, and counts by book and cleaning rule."""

    sentences: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    books: dict[str, dict[str, int]] = field(default_factory=dict)
    cleaning: Counter[str] = field(default_factory=Counter)


def build_corpus(
    books: list[Path], *, min_characters: int, max_characters: int, progress: Callable[[Iterable], Iterable] = iter
) -> Corpus:
    """Reads, cleans and segments the books, and keeps every sentence once.

    A sentence found again (equal after normalisation) adds its book to ``sources`` of the first.

    Args:
        books: Files of ``find_books``.
        min_characters: Shorter sentences are left out (the paper: 20).
        max_characters: Longer ones are left out: a table or index that lost its form.
        progress: A tqdm-like wrapper for the loop over books.

    Raises:
        UserError: Books that cannot be read, all of them in one message; or no sentence at all.
    """
    corpus, by_text, problems = Corpus(), {}, []
    names = name_books(books)
    for book in progress(books):
        try:
            pages = read_pages(book)
        except UserError as error:
            problems.append(str(error))
            continue
        if not problems:
            _add_book(corpus, by_text, book, names[book], pages, min_characters, max_characters)
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} of {len(books)} books cannot be used:", *problems]))
    if not corpus.sentences:
        raise UserError(
            f"no sentence of {min_characters} or more characters in {len(books)} books; lower merge.min_characters?"
        )
    return corpus


def _add_book(
    corpus: Corpus,
    by_text: dict[str, Row],
    book: Path,
    name: str,
    pages: list[str],
    min_characters: int,
    max_characters: int,
) -> None:
    blocks, cleaned = clean_pages(pages)
    corpus.cleaning += cleaned
    counts: Counter[str] = Counter(pages=len(pages), characters=sum(map(len, pages)), sentences=0)
    for section, text in ((block.section, s) for block in blocks for s in split_sentences(block.text)):
        reason = _refuse(text, min_characters, max_characters)
        if reason:
            counts[reason] += 1
            if reason == "too_long":
                corpus.rejected.append({"file": str(book), "reason": f"sentence_{reason}", "row": {"text": text}})
            continue
        key = normalise(text)
        if first := by_text.get(key):
            counts["duplicates"] += 1
            if name not in first["sources"]:
                first["sources"].append(name)
            continue
        row = {"id": text_id(key), "text": text, "source": name, "section": section, "sources": [name]}
        by_text[key] = row
        corpus.sentences.append(row)
        counts["sentences"] += 1
    corpus.books[name] = dict(counts)


def _refuse(text: str, min_characters: int, max_characters: int) -> str:
    if len(text) < min_characters:
        return "too_short"
    if len(text) > max_characters:
        return "too_long"
    return "" if sum(character.isalpha() for character in text) >= 0.5 * len(text) else "not_prose"
