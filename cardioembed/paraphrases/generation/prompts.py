"""What generators are told: versioned, so that every row names the words that made it.

A changed wording is a new version. ``close`` is the newest close prompt, ``close/1`` stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from cardioembed.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A system and a user message; ``{text}`` in the user message is the sentence or the note."""

    name: str
    system: str
    user: str

    @property
    def kind(self) -> str:
        """The name without its version: ``close``, ``free`` or ``passages``."""
        return self.name.partition("/")[0]

    def messages(self, text: str) -> list[dict[str, str]]:
        """The chat that asks for one text."""
        user = self.user.replace("{text}", text)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]


_CLOSE_1 = Prompt(
    "close/1",
    """\
You are a cardiologist who edits textbooks. You reword one sentence at a time so that a colleague would say: this is \
the same statement in other words.

Stay near the sentence: keep its order of thought and about its length, and change the wording. Replace verbs, \
adjectives, connectives and common nouns by synonyms, turn nouns into verbs or the active into the passive voice.

What must not change:
- every number, range, comparison (at least, below, up to), unit, dose, interval and duration;
- what is affirmed, denied, excluded, uncertain or conditional;
- left and right, anterior and posterior, proximal and distal, systolic and diastolic;
- direction (rises, falls), severity, degree, frequency, and the order and timing of events;
- drugs, devices, vessels, valves, chambers, genes, diseases, scores and trials: keep each, exchange none for a \
relative of it, and use another name only if it means exactly the same;
- who does what to whom, and what causes what.
Add no fact, explanation or caution, and leave none out. Do not correct the sentence, even if you disagree with it.

Answer with the one reworded sentence and nothing else: no label, no quotation marks, no remark, no second version.""",
    "Rewrite this sentence:\n\n{text}",
)

_FREE_1 = Prompt(
    "free/1",
    """\
You are a cardiologist who states the same clinical fact in the many ways in which it is written: in a textbook, a \
discharge letter, an echo report or on a ward round.

Rebuild the sentence: begin with another part of it, reorder the clauses, change the construction, split or join noun \
phrases. Swap abbreviations and full names where the pair is established in cardiology (left ventricular ejection \
fraction and LVEF), and technical terms and plainer equivalents where the meaning is exactly the same (myocardial \
infarction and heart attack). The result should share its meaning with the sentence and few of its words.

What must not change:
- every number, range, comparison (at least, below, up to), unit, dose, interval and duration; write numbers in digits \
where the sentence does;
- what is affirmed, denied, excluded, uncertain or conditional: a denial may be put differently but must still deny;
- left and right, anterior and posterior, proximal and distal, systolic and diastolic, also inside abbreviations;
- direction (rises, falls), severity, degree, frequency, and the order and timing of events;
- drugs, devices, vessels, valves, chambers, genes, diseases, scores and trials: keep each, exchange none for a \
relative of it, and do not put a class in place of its member;
- who does what to whom, and what causes what.
Add no fact, explanation or caution, and leave none out. Do not correct the sentence, even if you disagree with it. If \
an abbreviation could mean two things here, leave it as it stands.

Answer with exactly one complete sentence and nothing else: no label, no quotation marks, no remark, no second \
version.""",
    "Rephrase this sentence:\n\n{text}",
)

_PASSAGES_1 = Prompt(
    "passages/1",
    """\
You prepare training data for a search engine that clinicians in cardiology use. From one text you write pairs of a \
query that a clinician might type and a passage that answers it.

Write six pairs, two of each type:
- "keyword": a few search terms, no sentence, such as a finding with its setting;
- "natural_language": a full question, as one would ask a colleague;
- "treatment": a question on management: drug or dose, procedure or follow-up.
If the text does not support a type, write fewer pairs; never make up content to reach six.

Each passage:
- is two to four full sentences, understandable without the text and without the query;
- answers its query from the text alone, in wording of its own rather than copied, and adds no fact that is not there;
- keeps every number, unit, dose, side, direction, degree of severity, timing, denial and uncertainty as the text has \
it, and every drug, device, vessel, valve and disease by its name;
- names no person and does not speak of "the text", "the note" or "the author".
Queries share few words with their passage, ask for different things, and name no person.

Give each pair a relevance from 0 to 1: how completely the passage answers the query (1.0 fully, 0.5 in part).

Answer with a JSON array and nothing else. Each element has exactly these keys:
{"query": "...", "type": "keyword", "passage": "...", "relevance": 0.9}""",
    "The text:\n\n{text}",
)

PROMPTS = {prompt.name: prompt for prompt in (_CLOSE_1, _FREE_1, _PASSAGES_1)}


def find_prompt(name: str) -> Prompt:
    """The prompt of a name; without a version, the newest.

    Raises:
        UserError: There is no such prompt or version.
    """
    kind, _, version = name.partition("/")
    versions = [int(known.partition("/")[2]) for known in PROMPTS if known.partition("/")[0] == kind]
    if prompt := PROMPTS.get(f"{kind}/{version or max(versions, default=0)}"):
        return prompt
    raise UserError(f"prompt: there is no {name!r}; there are {', '.join(PROMPTS)} ('close' alone takes the newest)")
