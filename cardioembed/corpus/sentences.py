"""Books to the unique sentences of a corpus."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from cardioembed.corpus.cleaning import clean_pages, clean_text
from cardioembed.corpus.deduplication import near_duplicates
from cardioembed.corpus.ocr import Recogniser
from cardioembed.corpus.pages import Page
from cardioembed.corpus.reading import name_books, read_pages
from cardioembed.corpus.segmentation import split_sentences
from cardioembed.errors import UserError
from cardioembed.lexicon import opposites
from cardioembed.parallel import spread
from cardioembed.records import Row, normalise, text_id

_WINDOW = 2_000_000  # characters that are cleaned at once: running headers of any book show within them
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_NEGATORS = frozenset("no not never none nor neither without cannot nothing only unless except".split())


@dataclass
class Corpus:
    """Unique sentences in reading order, what was left out, and counts by book and cleaning rule.

    Attributes:
        sentences: Rows of ``01_sentences.jsonl``.
        aliases: Id of the kept sentence by the id of each near-duplicate that was left out.
        rejected: Sentences that are too long, and near-duplicates, with file and reason.
        failed_pages: Book, page and reason of pages that gave no text although something is on them.
        books: Counts by book.
        cleaning: How often each cleaning rule acted.
    """

    sentences: list[Row] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    rejected: list[Row] = field(default_factory=list)
    failed_pages: list[Row] = field(default_factory=list)
    books: dict[str, Counter[str]] = field(default_factory=dict)
    cleaning: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Window:
    """Pages of one book that are cleaned together."""

    book: str
    file: str
    section: str
    pages: list[str]


def build_corpus(
    books: list[Path],
    *,
    min_characters: int,
    max_characters: int,
    near_duplicate_jaccard: float | None = None,
    recognise: Recogniser | None = None,
    min_page_characters: int = 0,
    num_proc: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Corpus:
    """Reads, cleans and segments the books, and keeps every sentence once.

    A sentence found again (equal after normalisation, or a near-duplicate that states the same facts) adds its book to
    ``sources`` of the first. Books are streamed: memory is that of the unique sentences.

    Args:
        books: Files of ``find_books``.
        min_characters: Shorter sentences are left out (the paper: 20).
        max_characters: Longer ones are left out: a table or index that lost its form.
        near_duplicate_jaccard: Jaccard index of word 3-grams from which two sentences are compared by their facts;
            None keeps near-duplicates.
        recognise: OCR for pages that are pictures; None lists them as failed.
        min_page_characters: A page with a picture and less text than this goes to OCR.
        num_proc: Processes.
        progress: A tqdm-like wrapper for the loop over books.

    Raises:
        UserError: Books that cannot be read, all of them in one message; or no sentence at all.
    """
    corpus, by_id, problems = Corpus(), {}, []

    def read(book: Path) -> Iterator[Page]:
        return read_pages(book, recognise, min_page_characters=min_page_characters, num_proc=num_proc)

    windows = _windows(corpus, progress(books), name_books(books), read, problems)
    small = sum(book.stat().st_size for book in books) < _WINDOW  # done before other processes have started
    for window, blocks, cleaned in spread(_clean_and_split, windows, 1 if small else num_proc):
        corpus.cleaning += cleaned
        for section, text in ((section, text) for section, texts in blocks for text in texts):
            _add(corpus, by_id, window, section, text, min_characters, max_characters)
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} of {len(books)} books cannot be used:", *problems]))
    if not corpus.sentences:
        raise UserError(
            f"no sentence of {min_characters} or more characters in {len(books)} books; lower merge.min_characters?"
        )
    if near_duplicate_jaccard is not None:
        _drop_near_duplicates(corpus, near_duplicate_jaccard)
    return corpus


def _windows(
    corpus: Corpus,
    books: Iterable[Path],
    names: dict[Path, str],
    read: Callable[[Path], Iterator[Page]],
    problems: list[str],
) -> Iterator[_Window]:
    """The books' pages in windows; counts pages, and notes books that cannot be read in ``problems``."""
    for book in books:
        name = names[book]
        counts = corpus.books[name] = Counter(pages=0, characters=0, sentences=0)
        section, pages, size = "", [], 0
        try:
            for page in read(book):
                if problems:
                    break  # nothing will be written: the other books are only opened, to name all that fail
                counts.update(pages=1, characters=len(page.text))
                if page.origin != "text":
                    counts[f"pages_{page.origin}"] += 1
                if page.problem:
                    corpus.failed_pages.append({"file": str(book), "page": page.number, "reason": page.problem})
                pages.append(page.text)
                size += len(page.text)
                if size >= _WINDOW:
                    yield _Window(name, str(book), section, pages)
                    section, pages, size = _last_heading(pages) or section, [], 0
        except UserError as error:
            problems.append(str(error))
        if pages and not problems:
            yield _Window(name, str(book), section, pages)


def _last_heading(pages: list[str]) -> str:
    """What the pages end under, "" if they have no heading."""
    for page in reversed(pages):
        if found := _HEADING.findall(page):
            return clean_text(found[-1])
    return ""


def _clean_and_split(window: _Window) -> tuple[_Window, list[tuple[str, list[str]]], Counter[str]]:
    """Sections and sentences of each block; the window comes back without its pages."""
    blocks, counts = clean_pages(window.pages, window.section)
    sentences = [(block.section, split_sentences(block.text)) for block in blocks]
    return replace(window, pages=[]), sentences, counts


def _add(
    corpus: Corpus, by_id: dict[str, Row], window: _Window, section: str, text: str, min_chars: int, max_chars: int
) -> None:
    counts = corpus.books[window.book]
    reason = _refuse(text, min_chars, max_chars)
    if reason:
        counts[reason] += 1
        if reason == "too_long":
            corpus.rejected.append({"file": window.file, "reason": f"sentence_{reason}", "row": {"text": text}})
        return
    key = text_id(normalise(text))
    if first := by_id.get(key):
        counts["duplicates"] += 1
        if window.book not in first["sources"]:
            first["sources"].append(window.book)
        return
    row = {"id": key, "text": text, "source": window.book, "section": section, "sources": [window.book]}
    by_id[key] = row
    corpus.sentences.append(row)
    counts["sentences"] += 1


def _refuse(text: str, min_characters: int, max_characters: int) -> str:
    if len(text) < min_characters:
        return "too_short"
    if len(text) > max_characters:
        return "too_long"
    return "" if sum(map(str.isalpha, text)) >= 0.5 * len(text) else "not_prose"


def _drop_near_duplicates(corpus: Corpus, threshold: float) -> None:
    """Leaves out each sentence that nearly repeats an earlier one and states the same facts."""
    rows = corpus.sentences
    kept_for: dict[int, int] = {}
    for later, earlier, _ in near_duplicates([row["text"] for row in rows], threshold):
        free = later not in kept_for and earlier not in kept_for
        if free and _facts(rows[later]["text"]) == _facts(rows[earlier]["text"]):
            kept_for[later] = earlier
    for later, earlier in kept_for.items():
        dropped, kept = rows[later], rows[earlier]
        kept["sources"] += [name for name in dropped["sources"] if name not in kept["sources"]]
        corpus.aliases[dropped["id"]] = kept["id"]
        corpus.books[dropped["source"]].update(near_duplicates=1, sentences=-1)
        corpus.rejected.append(
            {"file": dropped["source"], "reason": "sentence_near_duplicate", "row": dropped, "kept": kept["id"]}
        )
    corpus.sentences = [row for place, row in enumerate(rows) if place not in kept_for]


def _facts(text: str) -> list[str]:
    """The words, in order, of which a change of one changes what is said: numbers, denials, words with an opposite."""
    telling = _telling_words()
    return [word for word in normalise(text).split() if word in telling or any(map(str.isdigit, word))]


@cache
def _telling_words() -> frozenset[str]:
    phrases = (phrase for words in opposites().values() for phrase in words)
    return _NEGATORS | {word for phrase in phrases for word in normalise(phrase).split()}
