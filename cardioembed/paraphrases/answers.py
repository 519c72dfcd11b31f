"""Whether an answer of a model is a paraphrase at all, or speaks of the task, refuses it, or repeats what was given."""

from __future__ import annotations

import re

from cardioembed.paraphrases.wording import Wording

_REFUSAL = re.compile(
    r"^(?:i'?m sorry|i am sorry|sorry,|i apologi[sz]e|i can(?:no|')t|i am unable|i'm unable|i (?:won't|will not)\b|"
    r"as an? (?:ai|language model)|i do not have|i don't have|unfortunately, i\b|"
    r"i (?:have to|must) (?:decline|refuse))|"
    r"\b(?:no|any|the) (?:sentence|text|input) (?:was|were|has been|is) (?:provided|given|supplied|missing)|"
    r"\b(?:could|can|would) you (?:please )?(?:share|provide|paste|send|clarify|give me)|"
    r"\bplease (?:share|provide|paste|send|clarify)\b|\b(?:this|your|that) request\b|"
    r"\bmy (?:guidelines|policy|policies)\b|"
    r"\bnot enough (?:context|information) to|\b(?:this|the) (?:sentence|text) is already\b|"
    r"\bi (?:have to|must) decline\b|\bi(?:'d| would) (?:rather|prefer) not\b|"
    r"\bi(?:'m| am) (?:not (?:able|comfortable|allowed|going|sure)|unable|uncomfortable)\b|"
    r"\b(?:as|being) an? (?:ai|(?:large )?language model)\b|\b(?:lacks?|without) (?:enough|sufficient) context\b|"
    r"\b(?:cannot|can't|could not) be (?:paraphras|rephras|reword|rewrit)|"
    r"\bplease (?:consult|speak|talk|see|ask|contact|seek|refer)\b|"
    r"\b(?:consult|ask|contact|speak (?:to|with)|talk to|see) your (?:own )?(?:doctor|physician|cardiologist|health)",
)
_ECHO = re.compile(
    r"^(?:(?:please )?(?:paraphrase|rewrite|rephrase) (?:the|this)\b|sure[,!.]|certainly[,!.]|"
    r"of course[,!.]|here(?:'s| is| are)\b.{0,60}(?:paraphras|rewrit|rephras|version)|"
    r"(?:paraphrased?(?: sentence| version| text)?|rewritten(?: sentence)?|rephrased|output|answer|original)\s*:)|"
    r"\bthe (?:paraphrased|rewritten|original) (?:sentence|text)\b|^(?:system|user|assistant)\s*:|"
    r"\blet me know (?:if|whether)\b|\b(?:i )?hope (?:this|that) helps\b|\bfeel free to\b|^[\[{]\s*\"|```|</?think|<\|",
)
# A speaker, the one spoken to, or a remark on the work, at any place.
_SPEAKER = re.compile(
    r"(?:^|[.!?;:(,\u2014]\s*|\b[Aa]s |\b[Hh]ere )I(?:'ve|'m|'d|'ll)? "
    r"(?:have|had|am|was|will|would|could|can|cannot|keep|kept|chang|replac|us|made|tr|re|simplif|preserv|hope|think|believ|underst|need|want|see|do|did)\w*\b"
)
_REMARK = re.compile(
    r"\b(?:as|like|what|text|sentence|statement|passage) you "
    r"(?:asked|requested|wanted|instructed|provided|gave|sent|supplied|wrote)\b|"
    r"\byour (?:text|sentence|input|instructions?|question|prompt|statement)\b|\bas (?:requested|instructed)\b|"
    r"\b(?:is there anything else|here you (?:go|are)|same meaning|would you like|do you want|"
    r"(?:happy|glad) to (?:help|assist|provide|rewrite|adjust|try)|"
    r"(?:another|next|different) (?:version|sentence|wording|tone|style))\b|"
    r"\b(?:preserv|retain|keep|kept|maintain|chang|alter|los)\w* (?:the |its )?(?:original |same |core )?meaning\b|"
    r"\bmeaning (?:of the (?:original|sentence|text) )?(?:is|was|has been|have been|remains|stays) "
    r"(?:preserved|unchanged|retained|kept|maintained|the same|intact)\b",
)
_LABEL = re.compile(
    r"(?:^|[.!?(\n]\s*)(?:note|explanation|comment|changes(?: made)?|word count|rationale|disclaimer|remark)\s*:|"
    r"\b(?:version|option|alternative|variant|draft|rewrite)\s+(?:\d|[ab]\b|one|two|three)\s*:|"
    r"^(?:[\w']+ ){0,4}(?:version|sentence|text|wording|words|terms|rewrite|summary|answer|response|result|option|"
    r"alternative|draft|phrasing|simplified|revised|edited|reformulat\w+|restat\w+)\s*:",
)
_TASK = re.compile(r"\b(?:paraphras|rephras|reword)\w*")
_LOOSE = re.compile(r"[^\w<>≤≥=+%/.,]+|(?<!\d)[.,]|[.,](?!\d)")
_MARKS = frozenset("{[`<")
# Only a text with one of these is searched for the phrases above.
_HINTS = frozenset(
    "i i'm i'd i'll i've i'd sorry sure certainly course here here's unfortunately you your my sentence text input "
    "please context request paraphrase paraphrases paraphrased paraphrasing rephrase rephrased rephrasing reword "
    "reworded rewrite rewritten output answer original system user assistant hope let feel think language ai "
    "requested instructed meaning anything happy glad version wording tone style consult context".split()
)
_CAPITAL = re.compile(r"\b[^\W\d_a-z]")  # any letter outside a to z, to settle most texts at once
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")


def chat(original: Wording, paraphrase: Wording) -> tuple[str, str] | None:
    """The reason and the detail where a paraphrase refuses the task or speaks of it, and the original does not."""
    if not (paraphrase.vocabulary.isdisjoint(_HINTS) and _MARKS.isdisjoint(paraphrase.text)):
        before, after = original.text.lower(), paraphrase.text.lower()
        if detail := _refusal(before, after):
            return "refusal", detail
        if detail := _prompt_echo(before, after):
            return "prompt_echo", detail
    label = _LABEL.search(paraphrase.text.lower()) if ":" in paraphrase.text and ":" not in original.text else None
    speaker = (
        _SPEAKER.search(paraphrase.text) if "i" in paraphrase.vocabulary and "i" not in original.vocabulary else None
    )
    if remark := label or speaker:
        return "prompt_echo", f"speaks of the task, not of the subject: {remark[0]!r}"
    return None


def is_copy(original: Wording, paraphrase: Wording) -> bool:
    """Whether two texts differ in blanks, hyphens, commas, quotes and letter case at most."""
    return original.letters == paraphrase.letters and _loosely(original.text) == _loosely(paraphrase.text)


def _loosely(text: str) -> str:
    """The text without the marks that may change and leave it a copy: blanks, hyphens, commas, quotes."""
    return _LOOSE.sub("", text).casefold()


def _refusal(original: str, paraphrase: str) -> str | None:
    match = _REFUSAL.search(paraphrase)
    return f"speaks like a refusal: {match[0]!r}" if match and not _REFUSAL.search(original) else None


def _prompt_echo(original: str, paraphrase: str) -> str | None:
    match = _ECHO.search(paraphrase) or _TASK.search(paraphrase) or _REMARK.search(paraphrase)
    if match and match[0] not in original:
        return f"speaks of the task, not of the subject: {match[0]!r}"
    return None


def heading(original: str, paraphrase: str) -> str | None:
    """What shows that a paraphrase is a heading where the original is not, or None."""
    marked = paraphrase.startswith(("#", "**")) or (paraphrase.endswith(":") and not original.endswith(":"))
    titled = paraphrase[-1:].isalnum() and _is_titled(paraphrase) and not _is_titled(original)
    return "a heading, not a sentence" if marked or titled else None


def _is_titled(text: str) -> bool:
    """Whether nearly every long word begins with a capital, as in headings."""
    if len(_CAPITAL.findall(text)) < 3:
        return False
    words = _LONG_WORD.findall(text)
    return len(words) > 2 and sum(word[0].isupper() for word in words) >= 0.8 * len(words)
