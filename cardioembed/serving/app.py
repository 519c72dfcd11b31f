"""The service: routes, keys, and what every answer has in common."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.precision import truncate
from cardioembed.errors import UserError
from cardioembed.serving.batching import Batcher, Closed, Embedded, QueueFull, Tokenless
from cardioembed.serving.errors import ApiError
from cardioembed.serving.indexes import Searcher
from cardioembed.serving.limits import Limits
from cardioembed.serving.metrics import CONTENT_TYPE, Metrics
from cardioembed.serving.requests import RETRY, Bodies, parse_embeddings, parse_search

PATHS = ("/v1/embeddings", "/v1/models", "/search", "/health", "/metrics")
_LARGE = 64  # texts whose answer is written outside the event loop
_log = logging.getLogger(__name__)


class _ClientLeft(Exception):  # noqa: N818 - no error: nobody is there to be told
    """The client closed its connection before its answer was ready."""


class Service:
    """What the routes share.

    Args:
        embedder: Nobody may train it while the service runs.
        name: The model's name in requests.
        limits: See ``Limits``.
        search: Searches a saved index by vectors, None without one; see ``open_index``.
    """

    def __init__(self, embedder: Embedder, name: str, limits: Limits, search: Searcher | None) -> None:
        self.embedder, self.name, self.limits, self.find = embedder, name, limits, search
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            embedder,
            max_batch_tokens=limits.max_batch_tokens,
            max_concurrent_batches=limits.max_concurrent_batches,
            max_wait_ms=limits.max_wait_ms,
            max_queue=limits.max_queue,
            on_batch=self.metrics.batch,
        )
        self.bodies = Bodies(limits)
        self.created = int(time.time())

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """The worker's life; the server ends it after the last answer."""
        self.batcher.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.batcher.close)

    async def embeddings(self, request: Request) -> Response:
        """``POST /v1/embeddings``."""
        with self.bodies.room() as lengths:
            asked = parse_embeddings(
                await self.bodies.read(request, lengths),
                self.limits,
                model=self.name,
                dimension=self.embedder.dimension,
                prompts=self.embedder.recipe.prompts,
            )
            embedded = await self._embed(request, asked.texts, asked.prompt_name)
            vectors = truncate(embedded.vectors, asked.dimensions or self.embedder.dimension)
            write = asyncio.to_thread if len(vectors) > _LARGE else _here
            body = await write(embeddings_body, vectors, asked.encoding_format, self.name, embedded)
        return Response(body, media_type="application/json")

    async def search(self, request: Request) -> Response:
        """``POST /search``."""
        if self.find is None:
            raise ApiError(404, "this service has no index; start it with --index FOLDER", code="no_index")
        with self.bodies.room() as lengths:
            asked = parse_search(await self.bodies.read(request, lengths), self.limits)
            embedded = await self._embed(request, [asked.query], self.embedder.recipe.anchor_prompt)
            if not np.isfinite(embedded.vectors).all():
                raise ValueError("the model gave a vector that is not finite")
            try:
                [hits] = await asyncio.to_thread(self.find, embedded.vectors, asked.top_k, asked.filter)
            except UserError as error:
                raise ApiError(400, str(error), code="wrong_value", param="filter") from None
        return JSONResponse({"object": "list", "data": hits, "model": self.name, "usage": _usage(embedded)})

    async def models(self) -> Response:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, name: str) -> Response:
        """``GET /v1/models/{name}``."""
        if name != self.name:
            message = f"the model {name!r} is not served here; this service has {self.name!r}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        recipe = self.embedder.recipe
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "cardioembed",
            "dimension": self.embedder.dimension,
            "max_length": recipe.max_length,
            "prompts": list(recipe.prompts),
        }

    async def health(self) -> Response:
        """``GET /health``: 200 while texts are taken."""
        if not self.batcher.running:
            raise ApiError(503, "the service is shutting down", code="closed", headers=RETRY)
        return JSONResponse({"status": "ok"})

    async def prometheus(self) -> Response:
        """``GET /metrics``."""
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _embed(self, request: Request, texts: list[str], prompt_name: str | None) -> Embedded:
        try:
            future = self.batcher.submit(texts, prompt_name)
        except QueueFull:
            message = f"{self.limits.max_queue:,} texts wait already; try again in a second"
            raise ApiError(429, message, code="queue_full", headers=RETRY) from None
        except Closed:
            raise ApiError(503, "the service is shutting down", code="closed", headers=RETRY) from None
        try:
            embedded = await _unless_left(request, asyncio.wrap_future(future))
        except _ClientLeft:
            raise
        except Tokenless as error:
            where = "query" if request.url.path == "/search" else "input"
            message = f"text {error.place} of {where} gives this model no token; leave it out, or give a prompt_name"
            raise ApiError(400, message, code="empty_text", param=where) from None
        except Exception as error:
            _log.exception("the model failed")
            kind = type(error).__name__
            raise ApiError(
                500, f"the model failed ({kind}); the service's log says more", code="model_failed"
            ) from None
        self.metrics.tokens.inc(embedded.tokens)
        self.metrics.cut.inc(embedded.cut)
        return embedded


async def _unless_left(request: Request, answer: asyncio.Future[Embedded]) -> Embedded:
    """The answer, or ``_ClientLeft``; then the answer is cancelled and its texts leave the queue."""
    left = asyncio.ensure_future(request.receive())  # the body is read, so the next message is the disconnection
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _ClientLeft
        return answer.result()
    finally:
        left.cancel()
        answer.cancel()


async def _here(function: Callable[..., bytes], *arguments: Any) -> bytes:
    return function(*arguments)


def embeddings_body(vectors: np.ndarray, encoding_format: str, model: str, embedded: Embedded) -> bytes:
    """The answer of ``POST /v1/embeddings``.

    Raises:
        ValueError: A vector is not finite.
    """
    if not math.isfinite(vectors.sum()):
        raise ValueError("the model gave a vector that is not finite")
    if encoding_format == "base64":
        coded: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        coded = vectors.tolist()
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(coded)]
    body = {"object": "list", "data": data, "model": model, "usage": _usage(embedded)}
    return json.dumps(body, separators=(",", ":")).encode()


def _usage(embedded: Embedded) -> dict[str, int]:
    """OpenAI's counts, and beside them how many texts were longer than the model takes."""
    return {
        "prompt_tokens": embedded.tokens,
        "total_tokens": embedded.tokens,
        "truncated_inputs": embedded.cut,
    }


class Gate:
    """What every request passes: its key and host are checked, its answer is counted.

    Args:
        app: The routes.
        metrics: Where to count.
        api_key: What ``Authorization: Bearer`` must hold, None for no key; ``/health`` asks for none.
        hosts: Host names that a request may be sent to, None for any. A service on loopback without a key names its
            own, or else any web page could reach it by giving its own name this machine's address (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, api_key: str | None, hosts: tuple[str, ...] | None) -> None:
        self.app, self.metrics, self.hosts = app, metrics, hosts
        self.expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        refusal = self._refusal(scope)
        try:
            await (self._answer(refusal) if refusal else self.app)(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.request(path, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.hosts is not None and re.sub(r":\d*$", "", host) not in self.hosts:
            message = f"this service answers at {' and '.join(self.hosts)} only; set an API key to serve other names"
            return ApiError(421, message, code="foreign_host")
        if self.expected is None or scope["path"] == "/health":
            return None
        if hmac.compare_digest(headers.get(b"authorization", b""), self.expected):
            return None
        message = "wrong or missing API key; send it as Authorization: Bearer KEY"
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _answer(self, refusal: ApiError) -> ASGIApp:
        self.metrics.errors.labels(refusal.code).inc()
        return refusal.response()


def create_app(
    embedder: Embedder,
    name: str,
    *,
    limits: Limits | None = None,
    search: Searcher | None = None,
    api_key: str | None = None,
    hosts: tuple[str, ...] | None = None,
) -> ASGIApp:
    """The whole service as an ASGI application.

    Args:
        embedder: Nobody may train it while the service runs.
        name: The model's name in requests.
        limits: None takes the defaults.
        search: See ``Service``.
        api_key, hosts: See ``Gate``.
    """
    service = Service(embedder, name, limits or Limits(), search)
    # No pages of documentation: they load their scripts from a server elsewhere.
    app = FastAPI(title="CardioEmbed", lifespan=service.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/v1/embeddings", service.embeddings, methods=["POST"])
    app.add_api_route("/v1/models", service.models)
    app.add_api_route("/v1/models/{name:path}", service.model)
    app.add_api_route("/search", service.search, methods=["POST"])
    app.add_api_route("/health", service.health)
    app.add_api_route("/metrics", service.prometheus)

    async def refused(_: Request, error: ApiError) -> Response:
        service.metrics.errors.labels(error.code).inc()
        return error.response()

    async def unrouted(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        message = f"{request.method} is not answered here; this service has {', '.join(PATHS)}"
        return await refused(request, ApiError(error.status_code, message, code=code, headers=error.headers))

    async def left(_: Request, __: Exception) -> Response:
        service.metrics.abandoned.inc()
        return Response(status_code=499)  # nobody reads it; the number is the one that nginx uses

    async def failed(request: Request, error: Exception) -> Response:
        kind = type(error).__name__
        return await refused(request, ApiError(500, f"the service failed ({kind}); its log says more", code="failed"))

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(_ClientLeft, left)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, failed)
    return Gate(app, service.metrics, api_key, hosts)
