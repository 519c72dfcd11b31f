"""Optical character recognition of PDF pages: several at once, every result remembered on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardioembed.corpus.pages import Page
from cardioembed.corpus.pdf import open_pdf, render_page
from cardioembed.corpus.tesseract import Tesseract
from cardioembed.corpus.vision import VisionServer
from cardioembed.endpoint import Endpoint
from cardioembed.errors import UserError
from cardioembed.records import sha256, write_json

Read = Callable[[bytes], Awaitable[str]]


@dataclass(frozen=True)
class Recogniser:
    """Reads page images with one engine.

    Attributes:
        engine: What turns an image into text.
        dpi: Resolution of the images.
        max_concurrency: Pages at once.
        cache: Folder of page texts; a page is read again only if the file or what decides its text has changed.
    """

    engine: Tesseract | VisionServer
    dpi: int
    max_concurrency: int
    cache: Path

    @contextmanager
    def reading(self, book: Path) -> Iterator[Callable[[int], Future[Page]]]:
        """Yields a function that starts the reading of a page, counted from 1; it waits while enough are under way.

        Raises:
            UserError: The engine is not ready, or the cache cannot be written to.
        """
        decides = {"dpi": self.dpi, **self.engine.identity()}
        _make_folder(self.cache)
        content = sha256(book)
        under_way = threading.Semaphore(2 * self.max_concurrency)
        with open_pdf(book) as document, _background(self.engine.session()) as (read, loop):
            slots = asyncio.Semaphore(self.max_concurrency)

            async def recognise(image: bytes, number: int, file: Path) -> Page:
                async with slots:
                    try:
                        text = await read(image)
                    except ValueError as error:
                        return Page(number, "", "failed", str(error))
                write_json(file, {"text": text, "book": book.name, "page": number, **decides})
                return Page(number, text, "ocr")

            def start(number: int) -> Future[Page]:
                file = self.cache / _key(decides, content, number)
                if (known := _recall(file)) is not None:
                    return _done(Page(number, known, "ocr"))
                try:
                    # PDFium takes one thread at a time: images are drawn here, and only as fast as they are read.
                    image = render_page(document, number, self.dpi)
                except ValueError as error:
                    return _done(Page(number, "", "failed", str(error)))
                under_way.acquire()
                future = asyncio.run_coroutine_threadsafe(recognise(image, number, file), loop)
                future.add_done_callback(lambda _: under_way.release())
                return future

            yield start


def build_recogniser(
    engine: str,
    *,
    dpi: int,
    language: str,
    model: str,
    base_url: str,
    api_key_env: str,
    prompt: str,
    max_tokens: int,
    extra_body: dict[str, Any],
    max_concurrency: int,
    max_retries: int,
    timeout: float,
    cache: str,
) -> Recogniser | None:
    """The recogniser of the ``merge.ocr`` settings, whose names the arguments have; None for engine ``none``.

    Nothing is asked for yet: a missing program, language or server is told when the first picture page comes.
    """
    if engine == "none":
        return None
    if engine == "tesseract":
        reader: Tesseract | VisionServer = Tesseract(language, dpi, max_retries, timeout)
    else:
        endpoint = Endpoint(
            base_url, model, api_key_env, max_concurrency=max_concurrency, max_retries=max_retries, timeout=timeout
        )
        reader = VisionServer(endpoint, prompt, max_tokens, extra_body)
    return Recogniser(reader, dpi, max_concurrency, Path(cache))


def _make_folder(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"merge.ocr.cache: {cache} cannot be made ({error.strerror}); name a folder that can be written to"
        ) from None


def _key(decides: dict[str, Any], content: str, number: int) -> Path:
    """Where a page's text is remembered, by all that decides it."""
    parts = json.dumps({**decides, "content": content, "page": number}, sort_keys=True)
    key = hashlib.sha256(parts.encode()).hexdigest()
    return Path(key[:2], f"{key}.json")


def _recall(file: Path) -> str | None:
    """A remembered text; None where there is none or a failing disk has spoilt it."""
    try:
        text = json.loads(file.read_text(encoding="utf-8"))["text"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _done(page: Page) -> Future[Page]:
    future: Future[Page] = Future()
    future.set_result(page)
    return future


@contextmanager
def _background(session: AbstractAsyncContextManager[Read]) -> Iterator[tuple[Read, asyncio.AbstractEventLoop]]:
    """An engine's session in an event loop with a thread of its own; what still runs at the end is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ocr", daemon=True)
    thread.start()

    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        read = wait(session.__aenter__())
        try:
            yield read, loop
        finally:
            wait(_cancel_tasks())
            wait(session.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
