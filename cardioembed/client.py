"""A client of OpenAI-compatible servers: bounded concurrency, counted retries, and errors as advice.

A mistake that concerns every request (no server, wrong key, wrong model) is a ``UserError``; a request that failed
alone is a ``RequestFailed`` with a reason code. Keys come from the environment and stand in no message.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from cardioembed.completion import Completion, RequestFailed, read_completion, retry_after
from cardioembed.endpoint import Endpoint, check_endpoint, is_loopback, key_of
from cardioembed.errors import UserError

# Requests given up in a row, without one answer in between, after which the server counts as gone.
STOP_AFTER = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# A server that asks for more patience than this has a quota, not a rush.
_LONGEST_RETRY_AFTER = 900.0
_AGAIN = {408, 409, 425, 429}
_REASONS = {408: "timeout", 429: "rate_limited", 400: "bad_request", 422: "bad_request", 403: "forbidden"}
_SHOWN = 300

Item = TypeVar("Item")


class Client:
    """Asks one endpoint; to be used as ``async with Client(endpoint) as client``.

    Args:
        endpoint: Where and how to ask.
        sleep, clock: Replaced by tests that must not wait.

    Raises:
        UserError: See ``check_endpoint``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._sleep, self._clock = sleep, clock
        check_endpoint(endpoint)
        self._key = key_of(endpoint)
        loopback = is_loopback(endpoint.base_url)
        # A proxy of the environment cannot know a server on this machine.
        http = DefaultAsyncHttpxClient(trust_env=not loopback)
        self._openai = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(endpoint.timeout, connect=min(endpoint.timeout, 15.0)),
            http_client=http,
        )
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self._interval = 60 / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0
        self._turn = asyncio.Lock()
        self._next_start = 0.0
        self._reached = self._answered = False
        self._takes_seed = True
        self._given_up = 0

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._openai.close()

    async def complete(
        self,
        messages: list[dict[str, Any]],
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> Completion:
        """Completes one chat.

        Args:
            messages: ``{"role", "content"}``; content is text or a list of parts (``text``, ``image_url``).
            temperature, top_p, max_tokens, seed: Left to the server where None; ``seed`` is left out from the first
                time on that a server refuses it.
            extra_body: Further keys of the request.

        Raises:
            RequestFailed: No usable answer after all retries.
            UserError: No request can succeed: server, key, model or quota; or too many failed in a row.
        """
        extra_body = extra_body or {}
        # Newer OpenAI models refuse the older of the two names.
        limit = None if "max_completion_tokens" in extra_body else max_tokens
        options = {"temperature": temperature, "top_p": top_p, "max_tokens": limit, "seed": seed}
        body = {"messages": messages, "extra_body": extra_body}
        body |= {name: value for name, value in options.items() if value is not None}
        for retries in itertools.count():
            try:
                completion = await self._attempt(body, retries)
                self._given_up = 0
                return completion
            except RequestFailed as failure:
                if not failure.again or retries >= self.endpoint.max_retries:
                    failure.retries = retries
                    self._count_given_up(failure)
                    raise
                if failure.reason == "empty_answer" and "seed" in body:
                    body["seed"] += 1  # The same draw would be empty again.
                await self._pause(retries, failure.wait)
        raise AssertionError("unreachable")

    async def _attempt(self, body: dict[str, Any], retries: int) -> Completion:
        """One request on the wire."""
        if not self._takes_seed:
            body.pop("seed", None)
        async with self._slots:
            await self._wait_for_turn()
            try:
                async with asyncio.timeout(self.endpoint.timeout):
                    create = self._openai.chat.completions.with_raw_response.create
                    response = await create(model=self.endpoint.model, **body)
            except TimeoutError:
                raise RequestFailed("timeout", f"no answer within {self.endpoint.timeout:g} s") from None
            except APIConnectionError as error:
                raise self._connection(error) from None
            except APIStatusError as error:
                self._reached = True
                raise await self._status(error, body) from None
            except OpenAIError as error:
                raise RequestFailed("bad_answer", self._scrub(error)) from None
        self._reached = True
        completion = read_completion(response.text, retries, self._scrub)
        self._answered = True
        return completion

    async def _wait_for_turn(self) -> None:
        """Requests start one after another, so that a pause the server asks for holds all that have not started."""
        async with self._turn:
            while (wait := self._next_start - self._clock()) > 0:
                await self._sleep(wait)
            self._next_start = self._clock() + self._interval

    async def _pause(self, retries: int, wait: float | None) -> None:
        """Waits as long as the server asked, and all others with it; else twice as long as the last time."""
        if wait is not None:
            self._next_start = max(self._next_start, self._clock() + wait)
            return
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**retries)
        await self._sleep(longest * random.uniform(0.5, 1.0))

    def _connection(self, error: APIConnectionError) -> RequestFailed:
        cause = error.__cause__
        said = str(cause or error).strip() or type(cause or error).__name__
        if not self._reached and isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            raise UserError(
                f"base_url {self._shown()}: no server answers there ({self._scrub(said)}). Start it (for example "
                f"'vllm serve {self.endpoint.model}'), or correct base_url; what was answered before is kept"
            )
        reason = "timeout" if isinstance(cause, httpx2.TimeoutException) else "connection"
        return RequestFailed(reason, f"{type(cause or error).__name__}: {self._scrub(said)}")

    async def _status(self, error: APIStatusError, body: dict[str, Any]) -> RequestFailed:
        status, said = error.status_code, self._scrub(error)
        if status == 401 or (status == 403 and not self._answered):
            raise UserError(self._key_advice(status))
        if status == 404:
            raise UserError(await self._model_advice(said))
        if status == 402 or error.code == "insufficient_quota":
            raise UserError(f"base_url {self._shown()}: the account has no credit left ({said}); {_GOES_ON}")
        if status in (400, 422) and "seed" in body and "seed" in said.lower():
            self._takes_seed = False
            return RequestFailed("bad_request", said, wait=0.0)
        again = status in _AGAIN or status >= 500
        wait = retry_after(error.response.headers) if again else None
        if wait is not None and wait > _LONGEST_RETRY_AFTER:
            raise UserError(f"base_url {self._shown()}: the server asks to wait {wait:,.0f} s ({said}); {_GOES_ON}")
        reason = "server_error" if status >= 500 else _REASONS.get(status, f"http_{status}")
        return RequestFailed(reason, said, again=again, wait=wait)

    def _count_given_up(self, failure: RequestFailed) -> None:
        # Nothing to say is an answer, too: a picture without words.
        self._given_up = 0 if failure.reason == "empty_answer" else self._given_up + 1
        if self._given_up >= STOP_AFTER:
            raise UserError(
                f"base_url {self._shown()}: {STOP_AFTER} requests in a row failed, each asked up to "
                f"{self.endpoint.max_retries + 1} times; the last: {failure}. See to the server; {_GOES_ON}"
            ) from None

    def _key_advice(self, status: int) -> str:
        name = self.endpoint.api_key_env
        state = f"the key in {name} was refused" if self._key else f"it wants a key, and {name} is not set"
        return f"base_url {self._shown()}: {state} (HTTP {status}). Set it: export {name}=..., or change api_key_env"

    async def _model_advice(self, said: str) -> str:
        where = f"base_url {self._shown()}"
        try:
            page = await self._openai.models.list(timeout=min(10.0, self.endpoint.timeout))
            names = sorted(model.id for model in page.data)
        except (OpenAIError, ValueError, AttributeError, TypeError):
            return f"{where}: nothing is served at this path (HTTP 404: {said}); an address usually ends in /v1"
        if self.endpoint.model in names:
            return (
                f"{where}: {self.endpoint.model} is there, but takes no chats (HTTP 404: {said}); choose a chat model"
            )
        listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return f"{where}: it has no model {self.endpoint.model!r}; set model to one of: {listed or 'none is loaded'}"

    def _shown(self) -> str:
        url = urlsplit(self.endpoint.base_url)
        return url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()

    def _scrub(self, error: object) -> str:
        """A server's words without the key, cut to a line."""
        text = " ".join(str(error).split())
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]


_GOES_ON = "what was answered is kept, and the same command goes on from there"


def complete_many(
    endpoint: Endpoint, items: Iterable[Item], request: Callable[[Item], dict[str, Any]]
) -> Iterator[tuple[Item, Completion | RequestFailed]]:
    """Asks for many items, ``max_concurrency`` at a time, and yields each answer as it arrives.

    ``items`` is read only as fast as requests are sent. Between two answers the caller should only do little: requests
    in flight wait for it, and their time runs.

    Args:
        endpoint: Where and how to ask.
        items: What to ask for.
        request: An item to the keyword arguments of ``Client.complete``.

    Yields:
        ``(item, answer)``, the answer a ``Completion`` or the ``RequestFailed`` that took its place.

    Raises:
        UserError: See ``Client.complete``; answers that had arrived are yielded first.
    """

    async def close() -> None:
        await answers.aclose()
        await client.__aexit__()

    with asyncio.Runner() as runner:
        client = Client(endpoint)
        answers = _answers(client, iter(items), request)
        try:
            while (answer := runner.run(_next(answers))) is not None:
                yield answer
        finally:
            runner.run(close())


async def _next(answers: AsyncIterator[Any]) -> Any:
    return await anext(answers, None)


async def _answers(
    client: Client, items: Iterator[Item], request: Callable[[Item], dict[str, Any]]
) -> AsyncIterator[tuple[Item, Completion | RequestFailed]]:
    async def ask(item: Item) -> Completion | RequestFailed:
        try:
            return await client.complete(**request(item))
        except RequestFailed as failure:
            return failure

    tasks: dict[asyncio.Task, Item] = {}
    try:
        while True:
            for item in itertools.islice(items, client.endpoint.max_concurrency - len(tasks)):
                tasks[asyncio.create_task(ask(item))] = item
            if not tasks:
                return
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task.exception() is not None):
                yield tasks.pop(task), task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
