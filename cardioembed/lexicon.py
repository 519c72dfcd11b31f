"""The reviewed word lists of ``lexicon.yaml``, loaded and checked: what must not take the place of what.

A form is a word or phrase that can be exchanged; where it stands in a text, ``Form.allowed`` says whether its context
permits the exchange.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cardioembed.errors import UserError

CATEGORIES = ("negation", "laterality", "number", "direction", "severity", "temporality", "entity", "role")
LEXICON_FILE = Path(__file__).with_name("lexicon.yaml")
WORD = re.compile(r"[^\W_]+")

_KEYS = ("swap", "rivals", "keep", "only")
_GRAMMAR = ("verbs", "verbs_also_nouns", "mass_nouns", "counted_nouns", "adverbs", "units", "articles")
_WILD = re.compile(r"\*|num\b")
_REACH = 48  # characters before a form that a context with a wildcard may look at
_NUMBER_BEHIND = r"(?:about |around |roughly |approximately |some |nearly |almost |an? )?[<>≥≤~]?\s?-?\d"
_NUMBER_AHEAD = r"\d[\d.,]*\)?(?:\s?(?:%|[^\W\d_][\w/.²³^-]{0,15})){0,3}\s"


@dataclass(frozen=True, slots=True)
class Contexts:
    """Surroundings of a form, sorted so that a look at its neighbours settles most of them.

    Attributes:
        before: Last word of what stands before -> literal texts before the form.
        after: Matches any of the texts behind the form.
        around: The rest: patterns of what stands before (None: anything) and behind.
    """

    before: Mapping[str, tuple[str, ...]]
    after: re.Pattern[str] | None
    around: tuple[tuple[re.Pattern[str] | None, re.Pattern[str]], ...]

    def match(self, lower: str, start: int, end: int, previous: str) -> bool:
        """Whether one of them surrounds ``lower[start:end]``; ``previous`` is the word before it."""
        for literal in self.before.get(previous, ()):
            begin = start - len(literal)
            if begin >= 0 and lower.startswith(literal, begin) and not (begin and lower[begin - 1].isalnum()):
                return True
        if self.after and self.after.match(lower, end):
            return True
        for before, after in self.around:
            if after.match(lower, end) and (not before or before.search(lower[max(0, start - _REACH) : start])):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Form:
    """A word or phrase, what may replace it, and where.

    Attributes:
        text: As it is written; lower case unless capitals matter.
        cased: Whether capitals are part of the name (LV, RCA).
        pole: Column of a swap, or number of a rival; forms of one entry and pole are inflections or spellings.
        targets: What may take its place, nearest first.
    """

    text: str
    cased: bool
    category: str
    entry: str
    pole: int
    rival: bool
    targets: tuple[str, ...]
    keep: Contexts
    only: Contexts | None

    def allowed(self, lower: str, start: int, end: int, previous: str) -> bool:
        """Whether the form at ``lower[start:end]``, behind the word ``previous``, may be exchanged there."""
        if self.keep.match(lower, start, end, previous):
            return False
        return self.only is None or self.only.match(lower, start, end, previous)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb's written-out forms; ``also_noun`` where they may be nouns, too ("causes")."""

    base: str
    third: str
    ing: str
    also_noun: bool


@dataclass(frozen=True)
class Lexicon:
    """Everything of the file, by first word and ready for look-up.

    Attributes:
        forms: First word, lower case -> (second word of a longer form, or nothing; form), longest first.
        verbs: Any of a verb's forms -> the verb.
        words: The other lists of ``grammar``.
    """

    forms: Mapping[str, tuple[tuple[str, Form], ...]]
    verbs: Mapping[str, Verb]
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon."""
    return load_lexicon(LEXICON_FILE)


@cache
def opposites() -> dict[str, dict[str, frozenset[str]]]:
    """Category -> word or phrase -> the ones that contradict it, in either direction."""
    found: dict[str, dict[str, set[str]]] = {category: {} for category in CATEGORIES}
    for _, form in itertools.chain(*lexicon().forms.values()):
        for target in form.targets:
            found[form.category].setdefault(form.text, set()).add(target)
            found[form.category].setdefault(target, set()).add(form.text)
    return {category: {word: frozenset(others) for word, others in words.items()} for category, words in found.items()}


def load_lexicon(path: Path) -> Lexicon:
    """Reads and checks a lexicon; its format is explained at the top of ``lexicon.yaml``.

    Raises:
        UserError: A category, key, pair or context is not as described, or a form stands twice; names the entry.
    """
    try:
        # libyaml, where PyYAML has it, reads the file ten times faster.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict) or set(content) != {*CATEGORIES, "grammar"}:
        raise UserError(f"{path.name}: the keys must be {', '.join(CATEGORIES)} and grammar")
    forms: dict[str, Form] = {}
    for category in CATEGORIES:
        for name, entry in content[category].items():
            for form in _read_entry(category, str(name), entry, f"{path.name}: {category}, {name}"):
                if other := forms.get(form.text):
                    raise UserError(
                        f"{path.name}: {form.text!r} stands in {other.category}, {other.entry} and in {category}, "
                        f"{name}; keep it in one of them"
                    )
                forms[form.text] = form
    return Lexicon(_by_first_word(forms.values()), *_read_grammar(content["grammar"], f"{path.name}: grammar"))


def _by_first_word(forms: Iterable[Form]) -> dict[str, tuple[tuple[str, Form], ...]]:
    found: dict[str, list[tuple[str, Form]]] = {}
    for form in sorted(forms, key=lambda form: -len(form.text)):
        first, second, *_ = *WORD.findall(form.text.lower()), ""
        found.setdefault(first, []).append((second, form))
    return {word: tuple(forms) for word, forms in found.items()}


def _read_entry(category: str, name: str, entry: Any, where: str) -> Iterator[Form]:
    if not isinstance(entry, dict) or not set(entry) <= set(_KEYS) or ("swap" in entry) == ("rivals" in entry):
        raise UserError(f"{where}: an entry has either swap or rivals, and may have keep and only")
    rival = "rivals" in entry
    read = _read_rivals(entry["rivals"], where) if rival else _read_swaps(entry["swap"], where)
    texts = sorted(read, key=len, reverse=True)
    keep = _read_contexts(entry.get("keep", []), texts, f"{where}, keep")
    only = _read_contexts(entry["only"], texts, f"{where}, only") if "only" in entry else None
    for text, (pole, targets) in read.items():
        if only is not None and targets and not only[text]:
            raise UserError(f"{where}: no context under only holds {text!r}; add one, or remove the word")
        allowed = None if only is None else _contexts(only[text])
        cased = text != text.lower()
        yield Form(text, cased, category, name, pole, rival, tuple(targets), _contexts(keep[text]), allowed)


def _read_swaps(lines: Any, where: str) -> dict[str, tuple[int, list[str]]]:
    """Form -> (pole, targets). A line that shares a word with an earlier one takes its poles from there."""
    targets: dict[str, list[str]] = {}
    poles: dict[str, int] = {}
    for line in _strings(lines, where):
        match = re.fullmatch(r"(\S.*?) (<->|->) (\S.*)", line)
        if not match or match[1] == match[3]:
            raise UserError(f"{where}: {line!r} is not a pair; write a <-> b, or a -> b for one way only")
        left, arrow, right = match.groups()
        pole = poles.setdefault(left, 1 - poles[right] if right in poles else 0)
        if poles.setdefault(right, 1 - pole) == pole:
            raise UserError(f"{where}: {line!r} opposes two words that stand on one side of other pairs")
        for text, target in ((left, right), (right, left))[: 2 if arrow == "<->" else 1]:
            if text in targets:
                raise UserError(f"{where}: {text!r} stands twice; one pair for each form")
            targets[text] = [target]
    return {text: (poles[text], found) for text, found in targets.items()}


def _read_rivals(groups: Any, where: str) -> dict[str, tuple[int, list[str]]]:
    """Name -> (its own pole, a name of its group and one of each other group, then the rest of its group)."""
    if not isinstance(groups, dict) or not groups:
        raise UserError(f"{where}: rivals are named groups of names, as in 'statins: [atorvastatin, simvastatin]'")
    lists = [[name.split(" = ") for name in _strings(names, where)] for names in groups.values()]
    spellings = [spelling for names in lists for same in names for spelling in same]
    if len(set(spellings)) != len(spellings) or sum(map(len, lists)) < 2:
        raise UserError(f"{where}: rivals are two or more names, each in one group")
    read: dict[str, tuple[int, list[str]]] = {}
    for number, names in enumerate(lists):
        for place, same in enumerate(names):
            kin = [other[0] for other in names[place + 1 :] + names[:place]]
            others = [group[place % len(group)][0] for group in lists[number + 1 :] + lists[:number]]
            for spelling in same:
                read[spelling] = (len(spellings) * number + place, kin[:1] + others[:1] + kin[1:] + others[1:])
    return read


def _read_contexts(lines: Any, texts: list[str], where: str) -> dict[str, list[tuple[str, str]]]:
    """Form -> what stands before and behind it; ``~`` stands for every form of the entry."""
    found: dict[str, list[tuple[str, str]]] = {text: [] for text in texts}
    for line in _strings(lines, where):
        if line == "~" or (line in found and not where.endswith("only")):
            raise UserError(f"{where}: {line!r} alone is no context; name a word before or behind it")
        if "~" in line:
            before, _, after = line.lower().partition("~")
            for text in texts:
                found[text].append((before, after))
            continue
        for text in texts:
            if match := re.search(rf"(?<!\w){re.escape(text.lower())}(?!\w)", line.lower()):
                found[text].append((line[: match.start()].lower(), line[match.end() :].lower()))
                break
        else:
            raise UserError(f"{where}: {line!r} holds none of the entry's forms; write ~ in the form's place")
    return found


def _contexts(sides: list[tuple[str, str]]) -> Contexts:
    literals: dict[str, list[str]] = {}
    behind: list[str] = []
    around: list[tuple[re.Pattern[str] | None, re.Pattern[str]]] = []
    for before, after in sides:
        last = WORD.findall(before)[-1:]
        if before and not after and last and not _WILD.search(before):
            literals.setdefault(last[0], []).append(before)
        elif not before:
            behind.append(_behind(after))
        else:
            around.append((re.compile(_ahead(before)), re.compile(_behind(after))))
    after = re.compile("|".join(sorted(behind))) if behind else None
    return Contexts({word: tuple(texts) for word, texts in literals.items()}, after, tuple(around))


def _behind(literal: str) -> str:
    pattern = re.escape(literal).replace(r"\*", r"[\w-]*").replace("num", _NUMBER_BEHIND + r"[\d.,]*")
    return pattern + ("" if literal.endswith(("*", "num")) else r"(?![^\W_])")


def _ahead(literal: str) -> str:
    """The pattern of what stands before a form; a number may have its unit behind it."""
    pattern = re.escape(literal.replace("num ", "num")).replace(r"\*", r"[\w-]*")
    return r"(?<!\w)" + pattern.replace("num", _NUMBER_AHEAD) + "$"


def _strings(values: Any, where: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise UserError(f"{where}: expected a list of words or phrases; put quotes around yes, no, on, off and numbers")
    return values


def _read_grammar(grammar: Any, where: str) -> tuple[dict[str, Verb], dict[str, frozenset[str]]]:
    if not isinstance(grammar, dict) or set(grammar) != set(_GRAMMAR):
        raise UserError(f"{where}: the keys must be {', '.join(_GRAMMAR)}")
    verbs: dict[str, Verb] = {}
    for key in ("verbs", "verbs_also_nouns"):
        for line in _strings(grammar[key], f"{where}, {key}"):
            inflections = line.split()
            if len(inflections) != 3:
                raise UserError(f"{where}, {key}: {line!r} is not 'base third-person ing-form', as in 'go goes going'")
            verb = Verb(*inflections, also_noun=key == "verbs_also_nouns")
            for inflection in inflections:
                if verbs.setdefault(inflection, verb) is not verb:
                    raise UserError(f"{where}, {key}: {inflection!r} stands twice")
    return verbs, {key: frozenset(_strings(grammar[key], f"{where}, {key}")) for key in _GRAMMAR[2:]}
