"""Whether a sentence is in the language that is wanted, by its script and its function words."""

from __future__ import annotations

import re

_WORDS = {
    "en": "the of and to is are was were with for that this which by from be has have not or an at it its than may "
          "can should must when after before who does these their been will into between during but if then most in "
          "on as more less only no without if because while where there",
    "de": "der die das und ist sind nicht ein eine einer eines einem einen mit für von zu auf bei des dem den wird "
          "werden oder nach durch im zur zum auch sich als wenn wie kann sollte über bis haben vor sie es sein",
    "fr": "le la les des du de et est sont une un dans pour avec par sur ne pas ou au aux qui que ce cette ces en "
          "être peut doit chez plus après avant il elle se son sa leur comme lors était",
    "es": "el la los las de del y es son una un en con por para que no se al como más o su sus este esta puede debe "
          "cuando después antes lo ha han entre sin sobre muy también ser está",
    "it": "il lo la gli le di del della dei delle e è sono una un in con per che non si al alla come più o questo "
          "questa può deve quando dopo prima nel nella da dal tra anche essere",
    "pt": "o a os as de do da dos das e é são uma um em com por para que não se ao à como mais ou este esta pode "
          "deve quando depois antes no na nos nas entre sem também ser está",
    "nl": "de het een en is zijn niet met voor van op bij door wordt worden of na ook als wanneer kan moet uit naar "
          "dat die deze dit aan om te",
    "sv": "och är en ett att det som för med av på inte den till vid kan eller efter från har ska bör hos när",
    "pl": "i w na z do nie jest są się to że przez dla po oraz lub jak przy od może być u",
    "tr": "ve bir bu ile için olan olarak daha veya gibi da de çok sonra ise",
}  # fmt: skip
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
# Leads, nodes, chambers, vitamins, names and words that are English as well prove nothing.
_FOREIGN = {
    language: frozenset().union(*(words for name, words in FUNCTION_WORDS.items() if name != language))
    - FUNCTION_WORDS[language]
    - frozenset(
        "av la al na se om el no as ca ne do os a e i o u w y z é per plus come die son sin van der non".split()
    )
    for language in FUNCTION_WORDS
}
_CLEAR = {
    language: words - frozenset().union(*(other for name, other in FUNCTION_WORDS.items() if name != language))
    for language, words in FUNCTION_WORDS.items()
}
_LETTERS = re.compile(r"[^\W\d_]")
_LATIN_OR_GREEK = re.compile(r"[A-Za-z\u00aa-\u03ff\u1d00-\u1fff\u2100-\u214f]")


def language_change(text: str, vocabulary: set[str], language: str) -> str | None:
    """What shows that a text is not in the language, or None.

    Latin and drug names count for nothing: only another script, or at least two function words of other languages that
    outnumber those that only the wanted one has.
    """
    if not text.isascii():
        letters = _LETTERS.findall(text)
        other = [letter for letter in letters if not _LATIN_OR_GREEK.match(letter)]
        if len(other) > 0.3 * len(letters):
            return f"not in Latin script: {''.join(other[:12])}"
    own = vocabulary & FUNCTION_WORDS[language]
    if len(vocabulary) > 7 and not own and sum(not word.isascii() for word in vocabulary) > 2:
        return "no function word of the language"
    foreign = vocabulary & _FOREIGN[language]
    if len(foreign) > 1 and len(foreign) > len(own & _CLEAR[language]):
        return f"function words of another language: {', '.join(sorted(foreign)[:5])}"
    return None
