"""What comes back from a chat server: an answer, or the reason why there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
        text: What the model wrote, without white space around it.
        finish_reason: ``stop``, ``length`` (cut at ``max_tokens``), ``content_filter`` (refused), or the server's own.
        prompt_tokens, completion_tokens: As the server counts them; 0 where it does not.
        retries: Attempts that failed before this one.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    retries: int


class RequestFailed(Exception):  # noqa: N818
    """One request got no usable answer; others may.

    Attributes:
        reason: ``timeout``, ``connection``, ``rate_limited``, ``server_error``, ``bad_request``, ``forbidden``,
            ``http_<status>``, ``not_json``, ``bad_answer`` or ``empty_answer``.
        detail: What the server or the connection said.
        retries: How often it was asked again.
        again: Whether the same request can succeed later.
        wait: Seconds that the server asked to wait, if it did.
    """

    def __init__(
        self, reason: str, detail: str, *, retries: int = 0, again: bool = True, wait: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retries, self.again, self.wait = reason, detail, retries, again, wait


def read_completion(text: str, retries: int, quote: Callable[[str], str]) -> Completion:
    """Reads the body of an answer.

    Args:
        text: The body.
        retries: Attempts that failed before.
        quote: Makes a piece of it fit to be shown.

    Raises:
        RequestFailed: It is not JSON (``not_json``), has no message (``bad_answer``) or no text (``empty_answer``).
    """
    try:
        answer = json.loads(text)
    except ValueError:
        raise RequestFailed("not_json", f"the answer is not JSON: {quote(text)[:80]!r}") from None
    try:
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        content = (message.get("content") or "").strip()
        usage = answer.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        refusal = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise RequestFailed("bad_answer", f"no choices[0].message.content in it: {quote(text)[:80]!r}") from None
    if refusal:
        content, finish = content or str(refusal), "content_filter"
    if not content and finish not in ("length", "content_filter"):
        raise RequestFailed("empty_answer", f"the answer has no text (finish_reason {finish})")
    return Completion(content, finish, *counts, retries)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``Retry-After-Ms`` or ``Retry-After``, which holds seconds or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None
