"""What callers give to be encoded: one text or many, checked, and as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cardioembed.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEAD = 32  # characters for each token of max_length; a token of prose has about 5


def as_texts(texts: str | Iterable[str]) -> tuple[list[str], bool]:
    """One text or many as a list.

    Args:
        texts: A text, or texts in an order: a list, tuple, generator, numpy array of str, pandas Series, or column of a
            ``datasets`` table.

    Returns:
        ``(texts, whether one text was given)``.

    Raises:
        UserError: Something else, or something that is not a text among them (None and NaN are not).
    """
    if isinstance(texts, str):
        return [texts], True
    one_column = isinstance(texts, Iterable) and getattr(texts, "ndim", 1) == 1
    if not one_column or isinstance(texts, bytes | Mapping | set | frozenset):
        raise UserError(
            f"texts is a {type(texts).__name__}; give one text, or texts in an order: a list, a generator, one column "
            "of a table"
        )
    listed = list(texts)
    for place, text in enumerate(listed):
        _check(place, text)
    return listed, False


def _check(place: int, text: Any) -> None:
    if not isinstance(text, str):
        raise UserError(
            f"texts[{place}] is a {type(text).__name__}, not a text: {text!r:.60}. Leave it out, or put a text there"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"texts[{place}] has half a surrogate pair at character {error.start}, which is no text; read its source "
            "with the encoding that it was written in"
        ) from None


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> tuple[list[list[int]], int]:
    """Token ids with special tokens, cut to ``max_length``.

    A tokenizer reads a text to its end before it cuts. So a long text shows its head only: enough of it that a whole
    ``max_length`` of tokens and more lies between what is kept and where the head ends.

    Returns:
        ``(ids, number of texts that were cut)``.
    """
    found: list[list[int]] = [[] for _ in texts]
    places, head, cut = list(range(len(texts))), _HEAD * max_length, 0
    while places:
        batch = tokenizer([texts[place][:head] for place in places], truncation=True, max_length=max_length)
        # A tokenizer in Python does not tell what it cut, and so gets the whole text in the end.
        beyond = [len(encoding.overflowing) for encoding in batch.encodings or ()] or [0] * len(places)
        short = []
        for place, ids, pieces in zip(places, batch["input_ids"], beyond, strict=True):
            if len(texts[place]) > head and pieces < 2:
                short.append(place)
            else:
                found[place] = ids
                cut += pieces > 0
        places, head = short, head * 8
    return found, cut
