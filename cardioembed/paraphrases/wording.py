"""A text's words and what each asserts, looked up in ``meaning.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from operator import attrgetter

from cardioembed.paraphrases.languages import FUNCTION_WORDS
from cardioembed.paraphrases.tables import Meaning, Name, Tables, load_tables, prefixed, spelling

_TOKEN = re.compile(r"\w+(?:'[a-z]+)?")
# Words without content of their own; those that compare or count stand here as well.
_EMPTY = FUNCTION_WORDS["en"] | frozenset(
    "a had did do does des doing so such his her any all some many much very quite rather who whom whose what "
    "while also per each patient patients person people subject subjects individual individuals case cases them would "
    "could might shall "
    "about over up out upon within among via due both either one ones other others same like just even still often "
    "usually typically generally commonly mainly largely mostly however thus hence therefore thereby".split()
)


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A word form: its spelling, its key (one for all words of a family, "" without content), and what it means."""

    word: str
    key: str
    meaning: Meaning
    begins: bool
    active: bool


NEGATING = frozenset("no not never none nor neither without cannot nothing non".split())

_Option = tuple[tuple[str, ...], Meaning]  # what else belongs to a phrase, and what the phrase means

_WORD_OF, _KEY_OF, _IS_ACTIVE = attrgetter("word"), attrgetter("key"), attrgetter("active")


class Wording:
    """A text taken apart once: its words, their set, what is asserted where, and all that may be meant."""

    __slots__ = ("bound", "keys", "letters", "meanings", "names", "possible", "sure", "text", "vocabulary", "words")

    def __init__(self, text: str) -> None:
        self.text = text
        tokens = _TOKEN.findall(text)
        self.letters = "".join(tokens).lower()
        if not load_tables().spelt_out.keys().isdisjoint(tokens):
            tokens = [word for token in tokens for word in load_tables().spelt_out.get(token, (token,))]
        lexemes = list(map(_lexeme, tokens))
        self.words = list(map(_WORD_OF, lexemes))
        self.keys = list(map(_KEY_OF, lexemes))
        self.vocabulary = set(self.words)
        self.bound: frozenset[int] = frozenset()  # places of denials in phrases that have a meaning of their own
        self.meanings: list[tuple[int, int, int]] = []  # place, poles asserted, poles possibly meant
        self.names: set[Name] = set()
        self.sure, self.possible = self._read(lexemes)

    def _read(self, lexemes: list[Lexeme]) -> tuple[int, int]:
        """Look up what each word and phrase asserts; the poles asserted and those possibly meant in all."""
        words, end, last = self.words, 0, len(lexemes) - 1
        all_sure = all_possible = 0
        for place, lexeme in compress(enumerate(lexemes), map(_IS_ACTIVE, lexemes)):
            if place < end:
                continue
            sure, possible, names = lexeme.meaning
            options = _phrases(lexeme.word, words[place + 1]) if lexeme.begins and place < last else ()
            if options and (found := self._phrase(place, options)):
                hides, denies = found[1] == Meaning(), lexeme.word in NEGATING
                if denies:
                    self.bound |= frozenset(range(place, found[0]))
                if hides or denies:
                    end = found[0]
                if hides:
                    continue
                sure, possible, names = found[1] if denies else lexeme.meaning | found[1]
            all_sure |= sure
            all_possible |= possible
            self.meanings.append((place, sure, possible))
            if names:
                self.names.update(names)
        return all_sure, all_possible

    def _phrase(self, start: int, options: tuple[_Option, ...]) -> tuple[int, Meaning] | None:
        """The end and the meaning of the longest phrase that begins at a word."""
        for rest, meaning in options:
            if not rest:
                return start + 2, meaning
            following = self.words[start + 2 : start + 2 + len(rest)]
            if len(following) == len(rest) and all(map(_matches, following, rest)):
                return start + 2 + len(rest), meaning
        return None


def in_words(text: str) -> str:
    """A text as the words that ``Wording`` takes it apart to, joined by blanks."""
    return " ".join(Wording(text).words)


def _matches(word: str, wanted: str) -> bool:
    return word.startswith(wanted[:-1]) if wanted[-1] == "*" else word == wanted


@lru_cache(maxsize=32768)
def _lexeme(token: str) -> Lexeme:
    tables = load_tables()
    word = spelling(token)
    meaning = _meaning(word, tables)
    if token in tables.readings:
        meaning |= Meaning(possible=Wording(tables.readings[token]).possible)
    begins = word in tables.phrases
    return Lexeme(word, _key(word, meaning, tables), meaning, begins, bool(meaning.possible or meaning.names or begins))


@lru_cache(maxsize=32768)
def _phrases(first: str, second: str) -> tuple[_Option, ...]:
    """What may follow two words for a phrase, longest first, and what the phrase means."""
    options = load_tables().phrases.get(first, ())
    return tuple((rest[1:], meaning) for rest, meaning in options if _matches(second, rest[0]))


def _meaning(word: str, tables: Tables) -> Meaning:
    """What the tables say of a word form: its own entry, every stem that it begins with, and the ending of a drug."""
    meaning = tables.exact.get(word)
    if meaning == Meaning():
        return meaning
    meaning = meaning or Meaning()
    for length in range(3, len(word) + 1):
        meaning |= tables.stems.get(word[:length], Meaning())
    known = bool(meaning.names)
    for ending, (axis, kind) in tables.endings.items():
        if not known and word.endswith(ending) and len(word) > len(ending) + 2:
            meaning |= Meaning(names=(Name(axis, kind, word),))
    return meaning | Meaning(names=tuple(prefixed(word)))


def _key(word: str, meaning: Meaning, tables: Tables) -> str:
    """The family of a word, else the pole that it asserts, else its first letters; "" for words without content."""
    if word in _EMPTY or len(word) < 2:
        return ""
    for length in range(len(word), 2, -1):
        if family := tables.families.get(word[:length] + "*") or (length == len(word) and tables.families.get(word)):
            return family
    sure = meaning.sure
    return f"{(sure & -sure).bit_length()}" if sure else word[:5]


def are_rival_names(name: Name, other: Name) -> bool:
    """Whether one cannot stand for the other; a drug and its class can, two drugs or two classes cannot."""
    if name.axis != other.axis or name == other:
        return False
    if name.kind == other.kind:
        return bool(name.name and other.name)
    classes = load_tables().classes
    return not (
        (not name.name and other.kind in classes.get(name.kind, ()))
        or (not other.name and name.kind in classes.get(other.kind, ()))
    )
