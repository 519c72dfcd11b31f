"""Requests per second of the service: batching of concurrent requests against every text alone.

The same command three times, as processes of their own: as it comes, with one text in the model at a time
(--max-batch-tokens 1 --max-wait-ms 0 --max-concurrent-batches 1), and with every text alone but as many at once as it
comes. 32 clients on connections of their own send one sentence after the other and wait for each answer (base64, as the
openai client asks for it). Nothing is timed unless all give the same vectors.

example python -m bench.serving --repeats 5 --out bench/results/serving.json
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench import common
from bench.encode import sample_sentences
from cardioembed.errors import UserError

CLIENTS = 32
TOLERANCE = 1e-6  # largest difference in any element of a unit vector
BATCHED, ALONE, SIDE_BY_SIDE = "batched", "every text alone", "every text alone, two at once"
SIDE_BY_SIDE_OPTIONS = ("--max-batch-tokens", "1", "--max-wait-ms", "0")
ALONE_OPTIONS = (*SIDE_BY_SIDE_OPTIONS, "--max-concurrent-batches", "1")


@dataclass(frozen=True)
class Served:
    """A running service."""

    model: str
    port: int
    pid: int


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("serving", len(os.sched_getaffinity(0)))
    sentences = sample_sentences(options.requests, settings.seed)
    options_of = {BATCHED: (), ALONE: ALONE_OPTIONS, SIDE_BY_SIDE: SIDE_BY_SIDE_OPTIONS}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(serving(settings.model.base, *more)) for name, more in options_of.items()}

        # 1. The same vectors, or no timing. This is the warm-up as well.
        first, *others = (load(served, sentences)["vectors"] for served in sides.values())
        difference = max(float(np.abs(first - other).max()) for other in others)
        if not difference <= TOLERANCE:
            raise UserError(f"the vectors differ by up to {difference:.2e}, more than {TOLERANCE:g}; nothing was timed")
        before = {name: common.proportional_memory_mib(served.pid) for name, served in sides.items()}

        # 2. Time.
        runs = common.alternate(
            {name: lambda served=served: timed(served, sentences) for name, served in sides.items()}, options.repeats
        )
        memory = {name: common.proportional_memory_mib(served.pid) for name, served in sides.items()}

    # 3. Report.
    rows = common.versus({name: [run["rate"] for run in found] for name, found in runs.items()}, "requests/s", ALONE)
    for row, (name, found) in zip(rows, runs.items(), strict=True):
        for percent in ("p50", "p95"):
            row[f"{percent}, ms"] = f"{statistics.median(run[percent] for run in found):.0f}"
        row["errors"] = sum(run["errors"] for run in found)
        row["MiB before"], row["after"] = f"{before[name]:,.0f}", f"{memory[name]:,.0f}"
    notes = [
        f"{len(sentences):,} requests a run, {CLIENTS} clients in one process on the same machine, "
        f"{settings.model.base}, float32",
        f"all vectors agree: largest difference of an element {difference:.1e}, allowed {TOLERANCE:g}",
        "p50 and p95 are medians over the runs; memory is the server's, after the warm-up and after the last run",
    ]
    raw = {"requests": len(sentences), "clients": CLIENTS, "runs": runs, "memory": {"before": before, "after": memory}}
    common.report(options.out, "Serving", where, rows, notes, raw)


@contextmanager
def serving(model: str, *options: str) -> Iterator[Served]:
    """The service as a user starts it, on a free port; stopped when the block ends.

    Raises:
        UserError: It did not start; its own advice stands above.
    """
    command = [sys.executable, "-m", "cardioembed.serving", "--model", model, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        if " at http://" not in said:
            raise UserError(f"{' '.join(command[1:])} did not start")
        yield Served(model, urlsplit(said.rsplit(" at ", 1)[1]).port, process.pid)
    finally:
        process.terminate()
        process.wait()


def timed(served: Served, sentences: list[str]) -> dict[str, Any]:
    """Rate, latencies in milliseconds and errors of one run."""
    found = load(served, sentences)
    p50, p95 = np.percentile(found["milliseconds"], (50, 95))
    return {"rate": len(sentences) / found["seconds"], "p50": p50, "p95": p95, "errors": found["errors"]}


def load(served: Served, sentences: list[str]) -> dict[str, Any]:
    """All sentences through ``CLIENTS`` clients.

    Returns:
        ``{"seconds", "milliseconds": of each request, "errors", "vectors": (sentences, dimension)}``.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda first: client(served, sentences[first::CLIENTS]), range(CLIENTS)))
    seconds = time.perf_counter() - started
    placed: list[Any] = [None] * len(sentences)
    for first, answer in enumerate(answers):
        placed[first::CLIENTS] = answer
    good = [json.loads(body)["data"][0]["embedding"] for status, body, _ in placed if status == 200]
    return {
        "seconds": seconds,
        "milliseconds": [milliseconds for _, _, milliseconds in placed],
        "errors": len(placed) - len(good),
        "vectors": np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in good]),
    }


def client(served: Served, sentences: list[str]) -> list[tuple[int, bytes, float]]:
    """One client: ``(status, body, milliseconds)`` of each sentence in turn."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
    answers = []
    for sentence in sentences:
        body = json.dumps({"model": served.model, "input": sentence, "encoding_format": "base64"})
        started = time.perf_counter()
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        answers.append((response.status, content, 1000 * (time.perf_counter() - started)))
    connection.close()
    return answers


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=common.positive, metavar="N", help="sentences a run (default: all)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
