"""Tesseract as an OCR engine: Debian's command line program, one thread a page."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from cardioembed.errors import UserError

PROGRAM = "tesseract"
_FIRST_PAUSE = 0.5


class Tesseract:
    """Reads page images with the tesseract program.

    Args:
        language: Its language packs, such as ``eng`` or ``eng+deu``.
        dpi: Resolution of the images.
        max_retries: Further tries of a page on which the program broke down.
        timeout: Seconds that a page may take.
    """

    def __init__(self, language: str, dpi: int, max_retries: int, timeout: float) -> None:
        self._command = [PROGRAM, "stdin", "stdout", "-l", language, "--dpi", str(dpi), "-c", "page_separator="]
        self._language, self._max_retries, self._timeout = language, max_retries, timeout

    def identity(self) -> dict[str, Any]:
        """What decides a text besides the image.

        Raises:
            UserError: The program or a language pack is not installed.
        """
        return {"engine": "tesseract", "version": _installed(self._language), "language": self._language}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
        """Nothing stays open between pages."""
        yield self.read

    async def read(self, image: bytes) -> str:
        """The text of a page image.

        Raises:
            ValueError: The page cannot be read, with the reason.
        """
        for attempt in range(self._max_retries + 1):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
            code, text, said = await self._run(image)
            if code == 0:
                return text.strip()
        raise ValueError(f"tesseract ended with code {code}, {self._max_retries + 1} times: {said}")

    async def _run(self, image: bytes) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Its own threads gain little on one page; pages side by side gain all.
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(image), self._timeout)
        except TimeoutError:
            raise ValueError(f"tesseract took longer than {self._timeout:g} s (merge.ocr.timeout)") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        said = " ".join(err.decode("utf-8", "replace").split())
        return process.returncode or 0, out.decode("utf-8", "replace"), said[-200:]


def _installed(language: str) -> str:
    if not shutil.which(PROGRAM):
        raise UserError(
            "merge.ocr.engine: the program tesseract is not installed, and there are pages that are pictures. "
            f"apt-get install {' '.join(['tesseract-ocr', *map(_package, _packs(language, {'eng', 'osd'}))])} "
            "(as root), or leave such pages out: --set merge.ocr.engine=none"
        )
    there = set(_ask("--list-langs").splitlines()[1:])
    if missing := _packs(language, there):
        raise UserError(
            f"merge.ocr.language: tesseract has no language {', '.join(map(repr, missing))}; "
            f"there are: {', '.join(sorted(there)) or 'none'}. apt-get install {' '.join(map(_package, missing))} "
            "(as root), or choose one of those"
        )
    return _ask("--version").splitlines()[0].removeprefix("tesseract ")


def _packs(language: str, there: set[str]) -> list[str]:
    return [pack for pack in language.split("+") if pack not in there]


def _package(pack: str) -> str:
    return "tesseract-ocr-" + pack.lower().replace("_", "-").replace("/", "-")


def _ask(option: str) -> str:
    return subprocess.run([PROGRAM, option], capture_output=True, text=True, check=False).stdout
