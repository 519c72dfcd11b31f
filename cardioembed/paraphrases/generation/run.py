"""Language models that write pairs, each answer on disk as soon as it arrives.

A generator appends to ``<folder>/<name>.jsonl``; what failed or was refused is in ``<folder>/<name>.failed.jsonl`` with
its reason. A second run asks only for what is not there yet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cardioembed.completion import Completion, RequestFailed
from cardioembed.endpoint import Endpoint, check_endpoint
from cardioembed.errors import UserError
from cardioembed.paraphrases.generation.answer_log import AnswerLog
from cardioembed.paraphrases.generation.answers import Unusable, pair_rows, paraphrase_row
from cardioembed.paraphrases.generation.prompts import Prompt, find_prompt
from cardioembed.paraphrases.generation.units import Unit, units_of_books, units_of_notes
from cardioembed.records import Row, text_id


@dataclass(frozen=True)
class Generator:
    """One language model and how it is asked; the fields are those of ``merge.generators`` in the settings."""

    name: str
    model: str
    prompt: str = "close"
    engine: str = "openai"
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    extra_body: dict[str, Any] = field(default_factory=dict)
    max_requests: int | None = None
    max_concurrency: int = 16
    requests_per_minute: float | None = None
    max_retries: int = 6
    timeout: float = 120.0
    input_price: float = 0.0
    output_price: float = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """Where the openai engine asks."""
        return Endpoint(
            self.base_url, self.model, self.api_key_env, self.max_concurrency, self.requests_per_minute,
            self.max_retries, self.timeout,
        )  # fmt: skip


@dataclass
class GeneratorCounts:
    """What a generator's files hold, and what this run added.

    Attributes:
        wanted: Sentences or units to be asked for in total.
        done: Those with an answer on disk.
        rows: Rows on disk (a unit has several).
        failed: Sentences or units without an answer, by reason; the next run asks for them again.
        refused: Query-passage pairs left out, by reason.
        repaired: Units whose JSON was repaired, by repair.
        asked, retries: Requests and repetitions of this run.
        prompt_tokens, completion_tokens: Of the answers in both files.
        cost: What these tokens cost, in the currency of the prices.
        seconds: Of this run.
    """

    name: str
    model: str
    prompt: str
    path: Path
    failed_path: Path
    wanted: int = 0
    done: int = 0
    rows: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def statistics(self) -> dict[str, Any]:
        """What the files hold, for JSON: the same however many runs it took."""
        names = ("name", "model", "prompt", "wanted", "done", "rows", "prompt_tokens", "completion_tokens", "cost")
        counters = {name: dict(sorted(getattr(self, name).items())) for name in ("failed", "refused", "repaired")}
        return {name: getattr(self, name) for name in names} | counters


@dataclass(frozen=True)
class Job:
    """One request: the text, the id its rows carry, the seed of its draw, and the sentence or unit it is about."""

    id: str
    text: str
    seed: int
    origin: Row | Unit


def run_generators(
    generators: Sequence[Generator],
    sentences: list[Row],
    *,
    folder: Path,
    seed: int,
    notes: Sequence[str] = (),
    max_words: int = 400,
    min_relevance: float = 0.5,
    device: str = "auto",
) -> list[GeneratorCounts]:
    """Lets each generator write what it has not written yet.

    Args:
        generators: Asked one after another.
        sentences: Rows of ``01_sentences.jsonl``, in book order.
        folder: Where ``<name>.jsonl`` and ``<name>.failed.jsonl`` are.
        seed: Decides which sentences ``max_requests`` takes, and every draw together with the sentence's id.
        notes: For ``passages``: files, folders or globs; none takes the books' sections.
        max_words: Longest unit of ``passages``.
        min_relevance: Pairs scored lower by their writer are refused.
        device: Of the ``transformers`` engine: auto, cpu, cuda or mps.

    Raises:
        UserError: A prompt, address, key, server or model that cannot work, with what to do; what was answered before
            is on disk.
    """
    prompts = []
    for generator in generators:
        with _naming(generator):
            prompts.append(find_prompt(generator.prompt))
            if generator.engine == "openai":
                check_endpoint(generator.endpoint)
    units: list[Unit] = []
    if any(prompt.kind == "passages" for prompt in prompts):
        units = units_of_notes(notes, max_words) if notes else units_of_books(sentences, max_words)
    counts = []
    for generator, prompt in zip(generators, prompts, strict=True):
        origins = units if prompt.kind == "passages" else sentences
        with _naming(generator):
            counts.append(_run(generator, prompt, origins, folder, seed, min_relevance, device))
    return counts


@contextmanager
def _naming(generator: Generator) -> Iterator[None]:
    """Says whose mistake it is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"merge.generators, {generator.name}: {error}") from None


def _run(
    generator: Generator,
    prompt: Prompt,
    origins: Sequence[Row | Unit],
    folder: Path,
    seed: int,
    min_relevance: float,
    device: str,
) -> GeneratorCounts:
    started = time.monotonic()
    key = "unit" if prompt.kind == "passages" else "sentence_id"
    log = AnswerLog(folder, name=generator.name, model=generator.model, prompt=prompt.name, key=key)
    jobs = choose([_job(origin, seed) for origin in origins], generator.max_requests, seed)
    # A text that failed before is drawn anew instead of failing the same way again.
    pending = [replace(job, seed=job.seed + log.attempt(job.id)) for job in jobs if job.id not in log.done]
    asked = retries = failures = tokens = 0
    with (
        log,
        tqdm(total=len(jobs), initial=len(jobs) - len(pending), desc=generator.name, disable=None) as bar,
        closing(_answers(generator, prompt, pending, device)) as answers,
    ):
        for job, answer in answers:
            failures += not _write(log, job, answer, min_relevance)
            asked, retries = asked + 1, retries + answer.retries
            tokens += answer.completion_tokens if isinstance(answer, Completion) else 0
            bar.set_postfix({"failed": failures, "tokens/s": f"{tokens / (time.monotonic() - started):.0f}"}, False)
            bar.update()
    counts = _count(log, generator, prompt, {job.id for job in jobs})
    counts.asked, counts.retries, counts.seconds = asked, retries, time.monotonic() - started
    return counts


def _write(log: AnswerLog, job: Job, answer: Completion | RequestFailed, min_relevance: float) -> bool:
    """Puts one answer on disk; False if it is a failure."""
    if isinstance(answer, RequestFailed):
        log.write_failure(job.id, {"reason": answer.reason, "detail": answer.detail})
        return False
    tokens = {
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }
    refused: list[Row] = []
    try:
        if isinstance(job.origin, Unit):
            rows, refused = pair_rows(job.origin, answer, min_relevance)
        else:
            rows = [paraphrase_row(job.origin, answer)]
    except Unusable as failure:
        log.write_failure(job.id, {"reason": failure.reason, "detail": failure.detail, "answer": answer.text, **tokens})
        return False
    if not rows:
        row = {"reason": "no_pair", "detail": f"none of its {len(refused)} pairs can be used", "answer": answer.text}
        log.write_failure(job.id, {**row, **tokens}, refused)
        return False
    log.write(job.id, [{**row, **tokens} for row in rows], refused)
    return True


def _count(log: AnswerLog, generator: Generator, prompt: Prompt, ids: set[str]) -> GeneratorCounts:
    """What the files hold of the sentences or units asked for."""
    good, bad = log.rows(ids)
    counts = GeneratorCounts(generator.name, generator.model, prompt.name, log.path, log.failed_path, wanted=len(ids))
    # The tokens of a unit's answer stand in each of its rows.
    answers = list({row.get("unit") or row["sentence_id"]: row for row in good}.values())
    counts.rows, counts.done = len(good), len(answers)
    for row in answers:
        counts.repaired.update(row.get("repairs", []))
    for row in bad:
        (counts.refused if "pair" in row else counts.failed)[row["reason"]] += 1
    for name in ("prompt_tokens", "completion_tokens"):
        setattr(counts, name, sum(row.get(name, 0) for row in [*answers, *bad]))
    prices = counts.prompt_tokens * generator.input_price, counts.completion_tokens * generator.output_price
    counts.cost = sum(prices) / 1e6
    return counts


def choose(jobs: list[Job], max_requests: int | None, seed: int) -> list[Job]:
    """Each id once, in the order given; of more than ``max_requests``, those whose hash with the seed is lowest.

    The choice is a fair sample of all books, and mostly the same after a book was added.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(job.id, job)
    if max_requests is None or len(first) <= max_requests:
        return list(first.values())
    chosen = set(sorted(first, key=lambda one: text_id("choice", str(seed), one))[:max_requests])
    return [job for job in first.values() if job.id in chosen]


def _job(origin: Row | Unit, seed: int) -> Job:
    one, text = (origin.id, origin.text) if isinstance(origin, Unit) else (origin["id"], origin["text"])
    return Job(one, text, int(text_id("draw", str(seed), one)[:7], 16), origin)


def _answers(
    generator: Generator, prompt: Prompt, jobs: list[Job], device: str
) -> Iterator[tuple[Job, Completion | RequestFailed]]:
    sampling = {
        "temperature": generator.temperature,
        "top_p": generator.top_p,
        "max_tokens": generator.max_tokens,
    }
    if not jobs:
        return
    if generator.engine == "transformers":
        # Only this engine needs torch, which takes seconds to import.
        from cardioembed.paraphrases.generation.local import generate

        chats = [(job, prompt.messages(job.text), job.seed) for job in jobs]
        yield from generate(generator.model, chats, batch_size=generator.max_concurrency, device=device, **sampling)
        return

    def request(job: Job) -> dict[str, Any]:
        rest = {"seed": job.seed, "extra_body": generator.extra_body}
        return {"messages": prompt.messages(job.text), **rest, **sampling}

    from cardioembed.client import complete_many  # its imports take half a second, and most runs ask no server

    yield from complete_many(generator.endpoint, jobs, request)
