"""Request bodies: read within bounds, checked field by field, refused with advice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from starlette.requests import Request

from cardioembed.serving.errors import ApiError
from cardioembed.serving.limits import Limits

RETRY = {"Retry-After": "1"}
_EMBEDDINGS_KEYS = ("input", "model", "encoding_format", "dimensions", "prompt_name", "user")
_SEARCH_KEYS = ("query", "top_k", "filter")
_JSON_TYPES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class EmbeddingsRequest:
    """A checked body of ``POST /v1/embeddings``; ``dimensions`` None is all of them."""

    texts: list[str]
    encoding_format: str
    dimensions: int | None
    prompt_name: str | None


@dataclass(frozen=True)
class SearchRequest:
    """A checked body of ``POST /search``."""

    query: str
    top_k: int
    filter: dict[str, Any] | None


class Bodies:
    """Reads bodies and holds the sum of those in work within its bound."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0

    @contextmanager
    def room(self) -> Iterator[list[int]]:
        """A block in which one request may hold a body; its length counts until the block ends."""
        lengths: list[int] = []
        try:
            yield lengths
        finally:
            self.held -= sum(lengths)

    async def read(self, request: Request, lengths: list[int]) -> Any:
        """The body as JSON.

        Args:
            request: Nothing of it may have been read.
            lengths: Of ``room``.

        Raises:
            ApiError: Too long (announced or not), too slow, no room for it now, or not JSON.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limits.max_body_bytes:
            raise self._too_long()
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    self._take(len(part), lengths)
                    parts.append(part)
        except TimeoutError:
            message = f"the request body did not arrive within {self.limits.body_seconds:g} s; send it again"
            raise ApiError(408, message, code="body_timeout", headers={"Connection": "close"}) from None
        return _parse(b"".join(parts))

    def _take(self, length: int, lengths: list[int]) -> None:
        if sum(lengths) + length > self.limits.max_body_bytes:
            raise self._too_long()
        if self.held + length > self.limits.max_bodies_bytes:
            raise ApiError(429, "too much is being sent at once; try again in a second", code="busy", headers=RETRY)
        self.held += length
        lengths.append(length)

    def _too_long(self) -> ApiError:
        allowed = self.limits.max_body_bytes
        return ApiError(
            413, f"the request body is longer than {allowed:,} bytes; send fewer texts a request", code="body_too_long"
        )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the request body is not valid JSON{where}", code="invalid_json") from None


def parse_embeddings(
    body: Any, limits: Limits, *, model: str, dimension: int, prompts: dict[str, str]
) -> EmbeddingsRequest:
    """Checks a body of ``POST /v1/embeddings``.

    Args:
        body: Parsed JSON.
        limits: See ``Limits``.
        model: The name under which the model is served.
        dimension: Length of its vectors.
        prompts: Its prompts by name.

    Raises:
        ApiError: The first thing that is wrong; 404 for another model, 400 for all else.
    """
    given = _fields(body, _EMBEDDINGS_KEYS)
    _check_model(given.get("model"), model)
    texts = _texts(given.get("input"), limits)
    encoding_format = given.get("encoding_format", "float")
    if encoding_format not in ("float", "base64"):
        raise _wrong("encoding_format", encoding_format, 'allowed are "float" and "base64"')
    prompt_name = given.get("prompt_name")
    if prompt_name is not None and (not isinstance(prompt_name, str) or prompt_name not in prompts):
        known = ", ".join(prompts) or "none, leave prompt_name out"
        raise _wrong("prompt_name", prompt_name, f"this model's prompts: {known}")
    dimensions = _number(given, "dimensions", None, dimension)
    return EmbeddingsRequest(texts, encoding_format, dimensions, prompt_name)


def parse_search(body: Any, limits: Limits) -> SearchRequest:
    """Checks a body of ``POST /search``.

    Raises:
        ApiError: The first thing that is wrong.
    """
    given = _fields(body, _SEARCH_KEYS)
    query = given.get("query")
    if not isinstance(query, str):
        raise _wrong("query", query, "give the text to search for")
    chosen = given.get("filter")
    if chosen is not None and not isinstance(chosen, dict):
        raise _wrong("filter", chosen, 'give an object such as {"source": "cardiology"}')
    return SearchRequest(_text(query, "query", limits), _number(given, "top_k", 10, limits.max_top_k), chosen)


def _fields(body: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are not null."""
    if not isinstance(body, dict):
        raise ApiError(
            400, f"the request body is {_kind(body)}; give an object with {', '.join(allowed)}", code="wrong_type"
        )
    if unknown := [key for key in body if key not in allowed]:
        name = _shown(unknown[0])
        nearest = get_close_matches(unknown[0], allowed, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; allowed are {', '.join(allowed)}"
        raise ApiError(400, f"unknown field {name}{hint}", code="unknown_field", param=name[1:-1])
    return {key: value for key, value in body.items() if value is not None}


def _check_model(name: Any, served: str) -> None:
    if not isinstance(name, str):
        raise _wrong("model", name, f"give the model's name, {served!r}")
    if name != served:
        message = f"the model {_shown(name)} is not served here; this service has {served!r}"
        raise ApiError(404, message, code="model_not_found", param="model")


def _texts(given: Any, limits: Limits) -> list[str]:
    if isinstance(given, str):
        return [_text(given, "input", limits)]
    if not isinstance(given, list):
        raise _wrong("input", given, "give a text or a list of texts")
    if not given:
        raise ApiError(400, "input is an empty list; give at least one text", code="empty_input", param="input")
    if len(given) > limits.max_inputs:
        message = f"input has {len(given):,} texts; at most {limits.max_inputs:,} are allowed, send several requests"
        raise ApiError(400, message, code="too_many_inputs", param="input")
    return [_text(text, f"input[{place}]", limits) for place, text in enumerate(given)]


def _text(text: Any, param: str, limits: Limits) -> str:
    if isinstance(text, int | list) and not isinstance(text, bool):
        message = f"{param} is {_kind(text)}; token ids are not accepted, send the texts themselves"
        raise ApiError(400, message, code="wrong_type", param=param)
    if not isinstance(text, str):
        raise _wrong(param, text, "give a text")
    if not text.strip():
        raise ApiError(400, f"{param} is an empty text; leave it out", code="empty_text", param=param)
    if len(text) > limits.max_text_chars:
        message = (
            f"{param} has {len(text):,} characters; at most {limits.max_text_chars:,} are allowed, send it in parts"
        )
        raise ApiError(400, message, code="text_too_long", param=param)
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"{param} has half of a surrogate pair (\\ud8xx) in it, which is no text; write it again"
        raise ApiError(400, message, code="broken_unicode", param=param) from None
    return text


def _number(given: dict[str, Any], key: str, default: int | None, most: int) -> int | None:
    value = given.get(key, default)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 1 <= value <= most):
        raise _wrong(key, value, f"give a whole number from 1 to {most}")
    return value


def _wrong(param: str, value: Any, advice: str) -> ApiError:
    if value is None:
        return ApiError(400, f"{param} is missing or null; {advice}", code="missing_field", param=param)
    shown = _kind(value) if isinstance(value, dict | list) else _shown(value)
    return ApiError(400, f"{param} is {shown}; {advice}", code="wrong_value", param=param)


def _kind(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "a number")


def _shown(value: Any) -> str:
    """A value as JSON, cut: error messages are no place for a whole body."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
