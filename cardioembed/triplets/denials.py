"""Denying what a sentence says: auxiliaries, plain verbs with "does not", "patients with" -> "patients without".

Rules over the words of a sentence, no parser: where a rule cannot be sure of the grammar, it makes no change. The way
back, from a denial to a statement, is in ``affirmations``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cardioembed.lexicon import Lexicon, Verb
from cardioembed.triplets.edits import Change, Word

_NEGATED = {
    "is": "is not", "are": "are not", "was": "was not", "were": "were not", "should": "should not", "must": "must not",
    "can": "cannot", "could": "could not", "will": "will not", "would": "would not",
    # "may not be" denies nothing that "may be" says.
    "may": "cannot", "might": "cannot",
}  # fmt: skip
_HAVE = {"has": "does not have", "have": "do not have"}
_TRIGGERS = frozenset([*_NEGATED, *_HAVE, "with"])
# Around these an auxiliary or verb is denied or hedged already, takes its denial elsewhere, or opens no statement.
_HEDGES = frozenset(
    """not no nor never neither either both also only just even merely simply rarely seldom hardly scarcely barely
    nearly almost already still now then unless and but or so than some several many rather nothing none
    little few fewer sometimes occasionally perhaps probably possibly otherwise indeed instead actually
    really unlikely well likely""".split()
)
_AFTER_AUXILIARY = _HEDGES | frozenset(
    """non to that why what where when how about as better best approximately roughly around increasingly if because
    quite too at again therefore thus hence however up there this these those any each every all most much
    more somewhat slightly essentially virtually practically relatively equally thought yet once under over
    between from within called named termed known such enough further additionally necessarily subsequently
    thereby thereafter first next later especially particularly presumably far unable cannot less exactly
    precisely effectively certainly always another highest lowest greatest""".split()
)
_AFTER_VERB = _HEDGES | frozenset(
    """why what approximately roughly increasingly because quite too again therefore thus hence however there any
    each every much somewhat slightly yet once such enough necessarily first next later especially
    particularly always""".split()
)
_BEFORE_VERB = (_HEDGES - {"otherwise"}) | frozenset(
    """as what whatever how however do does did until why of the a an to in on with by for at from its their these
    any lest more most less too thereby better further otherwise""".split()
)
_BEFORE_AUXILIARY = _BEFORE_VERB | frozenset("whose who there this each every".split())
# A clause that has one of these is denied already, or its subject does not take a denial.
_POLAR = frozenset(
    """no not never neither nor none nothing nobody cannot without what few little hardly scarcely rarely seldom barely
    only unless until whether t lest however rather instead all every each both most almost nearly even any
    anything whatever whichever unlike everyone everybody someone anyone""".split()
)
_NO_FINITE_VERB = frozenset(
    """to may can could should must will would might shall do does did not cannot help helps helping make makes
    making let lets letting and or""".split()
)
# Behind a form that may be a noun, too, one of these shows that it is a verb: "causes the", not "causes of".
_OBJECTS = frozenset("the a an its their his her your this our".split())
_NOT_WITHOUT = frozenset(
    """no or the and this these only normal little such both more at whom any low high suspected known either one
    two some many very less""".split()
)
_PEOPLE = frozenset(
    "patient patients people persons adults infants children men women those individuals athletes".split()
)
_PLURALS = frozenset("people women men children they data arteries criteria".split())
_CLAUSE_OPENERS = frozenset("which that who whereas while but because although though since when if and so".split())
_BLOCKING = frozenset(
    """unless until lest whether before after without once how as or even only minimum minimal enough lowest highest
    smallest least""".split()
)
_DENIED_BEHIND = frozenset("not no nor never neither without only solely merely none cannot unless until any t".split())
_CONTRASTED = ("rather than", "but not", "and not")
# What a denial would take along against the sense: "lies here and the other there", "is intensified, as a rule to 3.0".
# Of what follows a comma, only a clause of its own stays outside the denial.
_TAKEN_ALONG = re.compile(
    r"\b(?:and|but|as well|too)\b|, (?!(?:although|though|whereas|while|because|since|for|when|where|if|unlike)\b)"
)
_BREAKS = frozenset(";:,.()—–")
_REACH = 15  # words a denial may look back and ahead


def denials(text: str, words: Sequence[Word], known: Lexicon) -> Iterator[Change]:
    """Every acceptable denial of a statement in the sentence.

    Args:
        text: The sentence.
        words: Its words in order, as ``lexicon.WORD`` finds them, in lower case.
        known: The lexicon: verbs, adverbs.
    """
    for index in range(1, len(words) - 1):
        word, start, end = words[index]
        verb = known.verbs.get(word)
        if (verb is None and word not in _TRIGGERS) or text[start] != word[0] or text[end] != " ":
            continue
        if word in _NEGATED:
            yield from _auxiliary(text, words, index)
        elif word in _HAVE:
            yield from _have(text, words, index, known)
        elif word == "with":
            yield from _with(text, words, index)
        elif verb and word != verb.ing:
            yield from _plain_verb(text, words, index, verb, known)


def _auxiliary(text: str, words: Sequence[Word], index: int) -> Iterator[Change]:
    word, start, end = words[index]
    before, (after, after_start, after_end) = words[index - 1][0], words[index + 1]
    if before == "there" and after in ("a", "an") and word in ("is", "are", "was", "were"):
        yield after_start, after_end, "no"
    elif (
        after not in _AFTER_AUXILIARY
        and not _adverb(after)
        and before not in _BEFORE_AUXILIARY
        and _deniable(text, words, index, index)
    ):
        yield start, end, _NEGATED[word]


def _adverb(word: str) -> bool:
    """Whether "not" would stand before an adverb, where it denies too little or reads badly."""
    return word.endswith("ly") or word in ("often", "best", "seldom")


def _have(text: str, words: Sequence[Word], index: int, known: Lexicon) -> Iterator[Change]:
    word, start, end = words[index]
    before, after = words[index - 1][0], words[index + 1][0]
    if before in _BEFORE_AUXILIARY or before in _NO_FINITE_VERB or not _deniable(text, words, index, index):
        return
    if after in ("been", "become"):
        yield start, end, f"{word} not"
    elif after in ("a", "an", "the") and (word == "has" or _plural(before, known)):
        yield start, end, _HAVE[word]


def _with(text: str, words: Sequence[Word], index: int) -> Iterator[Change]:
    """ "patients with" -> "patients without", unless a measurement follows that cannot be lacked."""
    _, start, end = words[index]
    following = [word for word, _, _ in words[index + 1 : index + 7]]
    if re.search(r"\b(?:and|or|nor)\b", text[end:].partition(",")[0]):
        return
    if words[index - 1][0] not in _PEOPLE or following[0] in _NOT_WITHOUT or "without" in text:
        return
    if any(word[0].isdigit() or word == "and" for word in following) or words[index - 2][0] in (
        "no",
        "few",
        "not",
        "only",
    ):
        return
    yield start, end, "without"


def _plain_verb(text: str, words: Sequence[Word], index: int, verb: Verb, known: Lexicon) -> Iterator[Change]:
    word, start, end = words[index]
    if words[index + 1][0] in _AFTER_VERB or text[start - 1] != " " or text[start - 2] in ",;:—–":
        return
    place = index
    while place > 1 and words[place - 1][0] in known.words["adverbs"]:
        place -= 1
    before, begin, third = words[place - 1][0], words[place][1], word == verb.third
    if before in _BEFORE_VERB or (verb.also_noun and not _surely_verb(words[index + 1][0], before, third)):
        return
    if third:
        agrees = not _plural(before, known) or before == "this"
    else:
        agrees = _plural(before, known) or _relative_plural(words, place, known)
        agrees = agrees and not _after_auxiliary(words, place)
    if not agrees or not _deniable(text, words, place, index):
        return
    yield begin, end, f"{'does' if third else 'do'} not {text[begin:start]}{verb.base}"


def _surely_verb(after: str, before: str, third: bool) -> bool:
    if after in _OBJECTS:
        return True
    return third and before in ("which", "it", "that") and after not in ("of", "are", "in", "is", "and")


def _relative_plural(words: Sequence[Word], place: int, known: Lexicon) -> bool:
    """Whether a plural's relative pronoun stands before the verb: "drugs that reduce"."""
    return place > 1 and words[place - 1][0] in ("which", "that", "who") and _plural(words[place - 2][0], known)


def _after_auxiliary(words: Sequence[Word], place: int) -> bool:
    """Whether a base form may be an infinitive, close behind "to" or an auxiliary, or coordinated with one."""
    return any(word in _NO_FINITE_VERB for word, _, _ in words[max(0, place - 7) : place])


def _plural(word: str, known: Lexicon) -> bool:
    if word in _PLURALS or word in known.words["units"]:
        return True
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "as")):
        return False
    verb = known.verbs.get(word)
    return verb is None or verb.also_noun


def _deniable(text: str, words: Sequence[Word], first: int, last: int) -> bool:
    """Whether the clause around ``words[first : last + 1]`` can be denied alone and has no denial or quantifier yet."""
    if _TAKEN_ALONG.search(text, words[last][2]):
        return False
    in_clause = True
    for place in range(first - 1, max(-1, first - _REACH), -1):
        word, _, end = words[place]
        following, begin, _ = words[place + 1]
        if begin - end > 1 and not _BREAKS.isdisjoint(text[end:begin]):
            break
        if word in _BLOCKING or (word == "the" and following in ("more", "less")) or (in_clause and word in _POLAR):
            return False
        in_clause = in_clause and word not in _CLAUSE_OPENERS
    for place in range(last + 1, min(len(words), last + _REACH)):
        word, begin, _ = words[place]
        end = words[place - 1][2]
        if begin - end > 1 and not _BREAKS.isdisjoint(text[end:begin]):
            break
        if word in _DENIED_BEHIND:
            return False
    return not any(contrast in text for contrast in _CONTRASTED)
