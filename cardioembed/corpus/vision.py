"""A vision model behind an OpenAI-compatible server as an OCR engine, such as DeepSeek-OCR on vLLM or SGLang."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cardioembed.completion import Completion, RequestFailed
from cardioembed.endpoint import Endpoint
from cardioembed.errors import UserError

if TYPE_CHECKING:
    from cardioembed.client import Client

# An answer whose end says the same so often goes on like that for ever.
_REPEATS, _LONGEST_UNIT, _SHORTEST_TAIL = 10, 300, 100


class VisionServer:
    """Reads page images with a served model.

    Args:
        endpoint: The server and the model.
        prompt: What the model is asked to do, after the image.
        max_tokens: Of one page.
        extra_body: Further keys of each request, such as DeepSeek-OCR's guard against repetition.
    """

    def __init__(self, endpoint: Endpoint, prompt: str, max_tokens: int, extra_body: dict[str, Any]) -> None:
        self._endpoint, self._prompt = endpoint, prompt
        self._max_tokens, self._extra_body = max_tokens, extra_body

    def identity(self) -> dict[str, Any]:
        """What decides a text besides the image; the same model elsewhere is the same model."""
        return {
            "engine": "openai",
            "model": self._endpoint.model,
            "prompt": self._prompt,
            "max_tokens": self._max_tokens,
            "extra_body": self._extra_body,
        }

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
        """A connection; its function gives the markdown of a page image, layout tags of the model included.

        Raises:
            ValueError: (The function) a page cannot be read, with the reason.
            UserError: No page can be: server, key or model.
        """
        from cardioembed.client import Client  # its imports cost every process half a second; few need it

        try:
            client = Client(self._endpoint)
        except UserError as error:
            raise UserError(f"merge.ocr: {error}") from None
        async with client:
            yield partial(self._read, client)

    async def _read(self, client: Client, image: bytes) -> str:
        url = f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self._prompt}]
        try:
            completion = await client.complete(
                [{"role": "user", "content": parts}],
                temperature=0.0,
                max_tokens=self._max_tokens,
                extra_body=self._extra_body,
            )
        except RequestFailed as failure:
            raise ValueError(f"{failure} (asked {failure.retries + 1} times)") from None
        except UserError as error:
            raise UserError(f"merge.ocr: {error}") from None
        return self._checked(completion)

    def _checked(self, completion: Completion) -> str:
        if unit := _endless(completion.text):
            raise ValueError(f"the answer repeats itself without end: {unit[:60]!r}")
        if completion.finish_reason == "length":
            raise ValueError(f"the answer was cut off at {self._max_tokens} tokens (merge.ocr.max_tokens)")
        if completion.finish_reason == "content_filter":
            raise ValueError(f"the server refused the page: {completion.text[:60]!r}")
        # Half of a surrogate pair can be said in JSON, but not be written to a file.
        return completion.text.encode("utf-8", "replace").decode("utf-8")


def _endless(text: str) -> str:
    """What the text's end repeats and repeats; "" if nothing. Lines of dots and empty table cells are no words."""
    tail = re.sub(r"<[^<>]*>", "", text[-4 * _REPEATS * _LONGEST_UNIT :]).rstrip()
    for size in range(1, _LONGEST_UNIT + 1):
        repeats = max(_REPEATS, -(-_SHORTEST_TAIL // size))
        unit = tail[-size:]
        if any(map(str.isalpha, unit)) and tail.endswith(unit * repeats):
            return unit
    return ""
