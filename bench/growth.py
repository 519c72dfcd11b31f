"""Cost of growth on a CPU: memory and time of a training step as the batch grows, and of its bookkeeping as rows do.

The packaged base with configs/laptop.yaml's adapter and gradient_cache on, so one chunk's graph is in memory at a time:
peak memory should stay flat and seconds a row level from the smallest batch to the largest. Each batch size is a
process of its own. Then, without a model's work: ``Batches`` made of more and more triplets (tokenising them all) and
its batch of one step.

example python -m bench.growth --texts sentences.jsonl.gz --repeats 1 --out bench/results/growth.json
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from bench import common
from bench.train import our_embedder, training_triplets, triplets_of_texts
from cardioembed.config import Settings
from cardioembed.records import Row

BATCHES = (32, 128, 512, 2048, 4096)
ROWS = (1_000, 10_000, 100_000)
WARM_UP = 8  # rows of the step before the clock starts
LOOKUPS = 20  # batches asked for, in two epochs
LOOKED_UP = 128  # rows of each


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("growth", torch.get_num_threads())

    # 1. Triplets, repeated with other group names where there are not enough.
    given = triplets_of_texts(options.texts) if options.texts else training_triplets(settings)

    # 2. A step of every batch size, and bookkeeping of every number of rows, each in a fresh process.
    sides = {}
    for size in sorted(options.batches):
        chosen = enough(given, max(WARM_UP, size * options.steps))
        sides[f"a step of {size:,}"] = lambda size=size, rows=chosen: common.in_fresh_process(
            time_steps, rows, settings, size, options.steps, options.chunk_tokens
        )
    for count in sorted(options.rows):
        chosen = enough(given, count)
        sides[f"batches of {count:,} rows"] = lambda rows=chosen: common.in_fresh_process(time_batches, rows, settings)
    runs = common.alternate(sides, options.repeats)

    # 3. Report.
    table = [line(name, results) for name, results in runs.items()]
    notes = [
        f"{settings.model.base}, float32, gradient_cache: true, chunks of {options.chunk_tokens:,} tokens; "
        f"{options.steps} timed step(s) a run, after one of {WARM_UP} rows that is not counted",
        f"{len(given):,} different triplets; more are these again under other names",
        "peak memory is of the whole process: libraries and model, and the rows; tokens are without padding",
        "preparing: Batches(...), which tokenises all rows; one batch: Batches.at, the mean of "
        f"{LOOKUPS} asked for, {LOOKED_UP} rows each, the first of an epoch and later ones alike",
        *growth(runs, "a step of", "seconds", "seconds of a step"),
        *growth(runs, "a step of", "peak_memory_mib", "peak memory"),
        *growth(runs, "batches of", "preparing", "preparing"),
        *growth(runs, "batches of", "one_batch", "one batch"),
    ]
    common.report(options.out, "Growth", where, table, notes, runs)


def enough(rows: list[Row], count: int) -> list[Row]:
    """The first ``count`` rows, over and over again in groups of other names."""
    again = itertools.chain.from_iterable(
        ({**row, "group": f"{row['group']} {turn}"} for row in rows) for turn in itertools.count()
    )
    return list(itertools.islice(again, count))


def time_steps(rows: list[Row], settings: Settings, size: int, steps: int, chunk_tokens: int) -> dict[str, Any]:
    """Seconds, tokens and peak memory of steps of ``size`` rows."""
    make_trainer(rows[:WARM_UP], settings, WARM_UP, chunk_tokens)._step()
    trainer = make_trainer(rows, settings, size, chunk_tokens)
    started = time.perf_counter()
    tokens = sum(trainer._step()["tokens"] for _ in range(steps))
    seconds = (time.perf_counter() - started) / steps
    return {"rows": size, "seconds": seconds, "tokens": tokens / steps, "peak_memory_mib": common.peak_memory_mib()}


def make_trainer(rows: list[Row], settings: Settings, size: int, chunk_tokens: int):
    """This project's Trainer before its first step."""
    from cardioembed.training.plan import Plan
    from cardioembed.training.trainer import Trainer

    changes = {"per_device_train_batch_size": size, "chunk_tokens": chunk_tokens, "gradient_cache": True}
    plan = Plan(**{**settings.train.model_dump(), **changes}, seed=settings.seed)
    nowhere = {"folder": Path(), "log_path": Path(), "tensorboard": Path()}  # nothing is written without train()
    trainer = Trainer(our_embedder(settings), rows, plan, validate=dict, **nowhere, fingerprint={})
    trainer._set_modes()
    return trainer


def time_batches(rows: list[Row], settings: Settings) -> dict[str, Any]:
    """Seconds of ``Batches`` and of one batch of it, spread over two epochs."""
    from cardioembed.training.batches import Batches

    embedder = our_embedder(settings)
    per_epoch = max(1, len(rows) // LOOKED_UP)
    started = time.perf_counter()
    batches = Batches(embedder, rows, LOOKED_UP, per_epoch, settings.seed)
    made = time.perf_counter()
    for number in range(LOOKUPS):
        batches.at(number * 2 * per_epoch // LOOKUPS)
    looked_up = (time.perf_counter() - made) / LOOKUPS
    memory = common.peak_memory_mib()
    return {"rows": len(rows), "preparing": made - started, "one_batch": looked_up, "peak_memory_mib": memory}


def line(name: str, runs: list[dict[str, Any]]) -> dict[str, str]:
    """A line of the table, from medians; what does not apply stays empty."""
    mid = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    rows = mid["rows"]
    return {
        "": name,
        "peak memory, MiB": f"{mid['peak_memory_mib']:,.0f}",
        "seconds a step": f"{mid['seconds']:.2f}" if "seconds" in mid else "",
        "ms a row": f"{1000 * mid['seconds'] / rows:.2f}" if "seconds" in mid else "",
        "tokens/s": f"{mid['tokens'] / mid['seconds']:,.0f}" if "seconds" in mid else "",
        "preparing, s": f"{mid['preparing']:.3f}" if "preparing" in mid else "",
        "preparing, us a row": f"{1e6 * mid['preparing'] / rows:.1f}" if "preparing" in mid else "",
        "one batch, ms": f"{1000 * mid['one_batch']:.3f}" if "one_batch" in mid else "",
    }


def growth(runs: dict[str, list[dict[str, Any]]], kind: str, key: str, words: str) -> list[str]:
    """From the smallest to the largest: how often the rows, and how often the cost; nothing for one size alone."""
    chosen = [results for name, results in runs.items() if name.startswith(kind)]
    if len(chosen) < 2:
        return []
    (rows, cost), (more, dearer) = (
        (results[0]["rows"], statistics.median(run[key] for run in results)) for results in (chosen[0], chosen[-1])
    )
    return [f"{words}: {dearer / cost:.2f} times as much for {more / rows:.0f} times the rows"]


def size(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(repeats=1)  # one of 4,096 rows takes minutes
    many = {"type": common.positive, "nargs": "+", "metavar": "N"}
    parser.add_argument("--batches", **many, default=list(BATCHES), help="triplets a step (default: 32 ... 4096)")
    parser.add_argument("--rows", **many, default=list(ROWS), help="triplets to prepare (default: 1000 10000 100000)")
    parser.add_argument("--steps", type=common.positive, default=1, metavar="N", help="timed steps a run (default: 1)")
    parser.add_argument("--chunk-tokens", type=common.positive, default=4096, metavar="N", help="(default: 4096)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="sentences, .jsonl of {text} (default: the sample)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
