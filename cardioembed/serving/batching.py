"""Texts of concurrent requests through the model together: one queue, and a few threads that take batches from it.

Requests take turns: a batch gets one text of each waiting request, then a second one of each, until its tokens are
spent, and the next batch goes on where the turn stopped. So a request of two thousand texts does not hold up a single
one, and is not starved by many of them either.

On a CPU two batches at once, each on half of the cores, beat one on all of them (bench/results.md): fewer threads wait
for each other at the end of a matrix product, and while one batch's answers are written, the other is in the model.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np
import torch

from cardioembed.embedder.batching import length_sorted_chunks
from cardioembed.embedder.encoder import Embedder


class QueueFull(Exception):  # noqa: N818 - said in the tone of the standard library's queue.Full
    """So many texts wait that no more are taken."""


class Closed(Exception):  # noqa: N818
    """The service is shutting down and takes nothing new."""


class Tokenless(Exception):  # noqa: N818
    """A text of the request gives no token, so there is nothing to pool; ``place`` says which."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


@dataclass(frozen=True)
class Embedded:
    """What became of one request.

    Attributes:
        vectors: Unit vectors, float32, shape (texts, dimension), in the given order.
        tokens: Tokens that went through the model, with prompt and special tokens, without padding.
        cut: Number of texts that were longer than the model takes.
    """

    vectors: np.ndarray
    tokens: int
    cut: int


@dataclass(eq=False)
class _Job:
    texts: list[str]
    prompt_name: str | None
    future: Future[Embedded] = field(default_factory=Future)
    sequences: list[list[int]] = field(default_factory=list)
    vectors: np.ndarray | None = None
    cut: int = 0
    undrawn: deque[int] = field(default_factory=deque)
    undrawn_tokens: int = 0
    unfinished: int = 0


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch: small on a CPU, whose caches they then fit, and what a graphics card needs to be busy."""
    return 512 if device.type == "cpu" else 16_384


def default_concurrent_batches(device: torch.device) -> int:
    """Two on a CPU of two cores or more; a graphics card takes one after the other."""
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


class Batcher:
    """Runs an embedder for many callers at once.

    Args:
        embedder: Nobody may train it while the batcher runs.
        max_batch_tokens: Most tokens of a batch, and of one pass through the model after padding; a longer text is a
            batch of its own. None takes ``default_batch_tokens``.
        max_concurrent_batches: Most batches in the model at once; they share torch's threads. None takes
            ``default_concurrent_batches``.
        max_wait_ms: Milliseconds that the first text of a batch waits for others.
        max_queue: Most texts that wait or are in the model.
        on_batch: Told the texts and tokens of every batch, in the thread of a worker.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_batch_tokens: int | None = None,
        max_concurrent_batches: int | None = None,
        max_wait_ms: float = 3.0,
        max_queue: int = 8192,
        on_batch: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> None:
        self.embedder = embedder
        self.max_batch_tokens = max_batch_tokens or default_batch_tokens(embedder.device)
        self.max_wait = max_wait_ms / 1000
        self.max_queue = max_queue
        self.on_batch = on_batch
        self._changed = threading.Condition()
        self._arrived: list[_Job] = []
        self._waiting = 0
        self._closing = False
        self._drawing = threading.Lock()  # held by the one worker that takes requests in and draws a batch
        self._turns: deque[_Job] = deque()  # of that worker alone: tokenised requests, the next one first
        self._handing = threading.Lock()
        workers = max_concurrent_batches or default_concurrent_batches(embedder.device)
        self._threads = max(1, torch.get_num_threads() // workers)
        self._workers = [threading.Thread(target=self._work, name="embedder", daemon=True) for _ in range(workers)]

    @property
    def waiting(self) -> int:
        """Texts that wait or are in the model."""
        return self._waiting

    @property
    def running(self) -> bool:
        """Whether texts are taken."""
        return all(worker.is_alive() for worker in self._workers) and not self._closing

    def start(self) -> None:
        """Starts the workers."""
        self.embedder.model.eval()
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Takes nothing new, finishes what was taken, and returns when the workers have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for worker in self._workers:
            if worker.ident:
                worker.join()

    def submit(self, texts: list[str], prompt_name: str | None = None) -> Future[Embedded]:
        """Queues the texts of one request; cancelling the future takes them out again.

        Raises:
            QueueFull: There is no room for that many texts now.
            Closed: ``close`` was called, or a worker has died.
        """
        job = _Job(texts, prompt_name)
        with self._changed:
            if self._closing or any(worker.ident and not worker.is_alive() for worker in self._workers):
                raise Closed
            if self._waiting + len(texts) > self.max_queue:
                raise QueueFull
            self._waiting += len(texts)
            self._arrived.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda _: self._leave(len(texts)))
        return job.future

    def _leave(self, texts: int) -> None:
        with self._changed:
            self._waiting -= texts

    def _work(self) -> None:
        if len(self._workers) > 1:
            torch.set_num_threads(self._threads)
        while True:
            with self._drawing:
                if not self._gather():
                    return
                batch = self._draw()
            if batch:
                self._embed(batch)

    def _gather(self) -> bool:
        """Takes in requests until there are texts for a batch; False once closed with nothing left."""
        # What an earlier batch had no room for has waited long enough.
        until = time.monotonic() if self._turns else None
        while True:
            for job in self._arrivals(until):
                self._tokenize(job)
            if self._turns:
                until = time.monotonic() + self.max_wait if until is None else until
                if self._closing or self._enough() or time.monotonic() >= until:
                    return True
            elif self._closing and not self._arrived:
                return False

    def _arrivals(self, until: float | None) -> list[_Job]:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._closing, timeout)
            arrived, self._arrived = self._arrived, []
        return arrived

    def _enough(self) -> bool:
        tokens = 0
        for job in self._turns:
            tokens += job.undrawn_tokens
            if tokens >= self.max_batch_tokens:
                return True
        return False

    def _tokenize(self, job: _Job) -> None:
        if job.future.cancelled():
            return
        try:
            job.sequences, job.cut = self.embedder.tokenize(job.texts, job.prompt_name)
        except Exception as error:  # whatever it is, it is this request's and not the worker's end
            _settle(job, error)
            return
        lengths = [len(sequence) for sequence in job.sequences]
        if not all(lengths):
            _settle(job, Tokenless(lengths.index(0)))
            return
        job.vectors = np.empty((len(lengths), self.embedder.dimension), np.float32)
        # Neighbours in length stand in one batch, which keeps padding low.
        job.undrawn = deque(sorted(range(len(lengths)), key=lambda i: -lengths[i]))
        job.undrawn_tokens = sum(lengths)
        job.unfinished = len(lengths)
        self._turns.append(job)

    def _draw(self) -> list[tuple[_Job, int]]:
        """The next batch: ``(request, place of the text in it)``; abandoned requests drop out here."""
        batch: list[tuple[_Job, int]] = []
        tokens = 0
        while self._turns:
            job = self._turns.popleft()
            if job.future.done():
                continue
            length = len(job.sequences[job.undrawn[0]])
            if batch and tokens + length > self.max_batch_tokens:
                self._turns.appendleft(job)
                break
            batch.append((job, job.undrawn.popleft()))
            tokens += length
            job.undrawn_tokens -= length
            if job.undrawn:
                self._turns.append(job)
        return batch

    def _embed(self, batch: list[tuple[_Job, int]]) -> None:
        sequences = [job.sequences[place] for job, place in batch]
        lengths = [len(sequence) for sequence in sequences]
        try:
            with torch.inference_mode():
                for chunk in length_sorted_chunks(lengths, self.max_batch_tokens):
                    vectors = self.embedder.embed_tokens([sequences[i] for i in chunk]).cpu().numpy()
                    self._hand_out([batch[i] for i in chunk], vectors)
            self.on_batch(len(batch), sum(lengths))
        except Exception as error:  # such as a full graphics card; the next batch may fit
            for job, _ in batch:
                _settle(job, error)

    def _hand_out(self, chunk: list[tuple[_Job, int]], vectors: np.ndarray) -> None:
        for (job, place), vector in zip(chunk, vectors, strict=True):
            job.vectors[place] = vector
            with self._handing:  # another batch may hold texts of the same request
                job.unfinished -= 1
                finished = not job.unfinished
            if finished:
                _settle(job, Embedded(job.vectors, sum(map(len, job.sequences)), job.cut))


def _settle(job: _Job, outcome: Embedded | Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # it was abandoned meanwhile, or has failed already
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
