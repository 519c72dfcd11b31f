"""Search: what each kind of index finds of the exact one's ten nearest, and milliseconds a query, build and memory.

Without --vectors the vectors are drawn. Each comes from a mixture of as many Gaussian clusters as the square root of
their number, of sizes that follow Zipf's law, in 24 dimensions; two random layers with tanh carry it to 384, noise of
a fifth of its length is put on it, and it is brought to unit length. Uniform directions would be harder to search than
any text, tight clusters easier. Queries are vectors of the same mixture that the index does not hold.

Every kind is built, and opened and searched, in a process of its own; one query after another is asked, as by a user.

example python -m bench.search --repeats 5 --sizes 10000 170000 --out bench/results/search.json
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from cardioembed.errors import UserError
from cardioembed.search.building import check_new, write_index
from cardioembed.search.index import KINDS, Index
from cardioembed.search.vectors import map_vectors

QUERIES, TOP_K = 200, 10
DIMENSION, INTRINSIC, NOISE = 384, 24, 0.2
MODEL = {"identity": "bench", "place": "bench", "anchor_prompt": None, "positive_prompt": None}


def main(options: argparse.Namespace) -> None:
    threads = len(os.sched_getaffinity(0))
    where = common.environment("search", int(os.environ.get("OMP_NUM_THREADS", threads)))
    table, raw = [], []
    for size in options.sizes:
        with common.scratch(options.out) as folder:
            # 1. Vectors of the texts, and of queries.
            vectors = read_vectors(options.vectors, size) if options.vectors else clustered(size + QUERIES)
            np.save(folder / "vectors.npy", vectors[QUERIES:])
            np.save(folder / "queries.npy", vectors[:QUERIES])
            del vectors

            # 2. Build once, then search in turn.
            built = {kind: common.in_fresh_process(build, folder, kind) for kind in KINDS}
            sides = {kind: lambda kind=kind: common.in_fresh_process(search, folder, kind) for kind in KINDS}
            runs = common.alternate(sides, options.repeats)

        # 3. Report.
        expected = runs["exact"][0]["found"]
        slowest = statistics.median(run["milliseconds"] for run in runs["exact"])
        for kind, found in runs.items():
            recall = recall_at_k(found[0]["found"], expected)
            table.append(line(size, kind, recall, found, slowest, built[kind]))
            kept = [{key: value for key, value in run.items() if key != "found"} for run in found]
            raw.append({"vectors": size, "kind": kind, "recall@10": recall, "build": built[kind], "runs": kept})
    given = f"vectors of {options.vectors}" if options.vectors else f"drawn vectors of {DIMENSION} dimensions"
    notes = [
        f"{given}; {QUERIES} queries a run, one after another, {TOP_K} hits each, text and metadata included",
        "ms a query: median of the runs' medians, p95 likewise; recall: share of the exact ten nearest that are found",
        "memory: most that the process held when searching, beyond what the empty process holds; pages of the mapped "
        "vectors are in it as far as they were read, and are given back when memory is short",
        "build: from vectors, without encoding; file sizes are of the whole folder",
    ]
    common.report(options.out, "Search", where, table, notes, raw)


def clustered(count: int, seed: int = 1) -> np.ndarray:
    """Unit vectors with the structure that the module describes, in random order, shape (count, DIMENSION)."""
    rng = np.random.default_rng(seed)
    clusters = int(count**0.5)
    share = 1 / np.arange(1, clusters + 1)
    chosen = rng.choice(clusters, count, p=share / share.sum())
    centres = rng.standard_normal((clusters, INTRINSIC), np.float32)
    layers = [rng.standard_normal(shape, np.float32) for shape in ((INTRINSIC, 128), (128, DIMENSION))]
    found = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, 16_384):
        block = slice(start, start + 16_384)
        latent = centres[chosen[block]]
        latent = latent + 0.7 * rng.standard_normal(latent.shape, np.float32)
        vectors = np.tanh(latent @ layers[0] / INTRINSIC**0.5) @ layers[1]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors += NOISE * rng.standard_normal(vectors.shape, np.float32) / DIMENSION**0.5
        found[block] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def read_vectors(file: Path, size: int) -> np.ndarray:
    """Queries and vectors of a file (.npy, or vectors.safetensors of an index), drawn from all of it.

    Raises:
        UserError: It holds something else, or too few.
    """
    if not file.is_file() or file.suffix not in (".npy", ".safetensors"):
        raise UserError(f"--vectors {file}: give a .npy file, or vectors.safetensors of an index")
    try:
        vectors = np.load(file, mmap_mode="r") if file.suffix == ".npy" else map_vectors(file)
    except ValueError as error:
        raise UserError(f"--vectors {file} cannot be read: {error}") from None
    if vectors.ndim != 2 or len(vectors) < size + QUERIES:
        raise UserError(
            f"--vectors {file} has shape {vectors.shape}; {size:,} vectors and {QUERIES} queries are needed"
        )
    drawn = np.random.default_rng(1).permutation(len(vectors))[: size + QUERIES]
    chosen = np.asarray(vectors[drawn], np.float32)
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def build(folder: Path, kind: str) -> dict[str, float]:
    """Seconds, peak memory and size of the folder."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    rows = [{"id": f"{n:08}", "text": f"text {n}", "metadata": {"source": n % 10}} for n in range(len(vectors))]
    out = folder / kind
    check_new(out, kind)
    started = time.perf_counter()
    write_index(out, rows, [vectors], kind=kind, dimension=vectors.shape[1], model=MODEL)
    return {
        "seconds": time.perf_counter() - started,
        "peak_memory_mib": common.peak_memory_mib(),
        "folder_mib": sum(path.stat().st_size for path in out.iterdir()) / 2**20,
    }


def search(folder: Path, kind: str) -> dict[str, Any]:
    """Milliseconds a query, memory, and positions of the hits."""
    queries = np.load(folder / "queries.npy")
    empty = common.peak_memory_mib()
    started = time.perf_counter()
    index = Index.open(folder / kind)
    opened = time.perf_counter() - started
    for query in queries[:20]:
        index.search_vectors(query, TOP_K)
    milliseconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        hits = index.search_vectors(query, TOP_K)
        milliseconds.append(1000 * (time.perf_counter() - started))
        found.append([int(hit.id) for hit in hits])
    return {
        "milliseconds": statistics.median(milliseconds),
        "p95": float(np.percentile(milliseconds, 95)),
        "open_seconds": opened,
        "memory_mib": common.peak_memory_mib() - empty,
        "found": found,
    }


def recall_at_k(found: list[list[int]], expected: list[list[int]]) -> float:
    """Mean share of the expected hits that were found."""
    return statistics.mean(len({*got} & {*right}) / len(right) for got, right in zip(found, expected, strict=True))


def line(
    size: int, kind: str, recall: float, runs: list[dict[str, Any]], slowest: float, built: dict[str, float]
) -> dict[str, Any]:
    """A row of the table."""
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "found"}
    return {
        "": f"{size:,}, {kind}",
        "recall@10": f"{recall:.4f}",
        "ms a query": f"{median['milliseconds']:.2f}",
        "p95": f"{median['p95']:.2f}",
        "times as fast as exact": f"{slowest / median['milliseconds']:.1f}",
        "open, s": f"{median['open_seconds']:.2f}",
        "memory, MiB": f"{median['memory_mib']:,.0f}",
        "build, s": f"{built['seconds']:.1f}",
        "build memory, MiB": f"{built['peak_memory_mib']:,.0f}",
        "folder, MiB": f"{built['folder_mib']:,.0f}",
    }


def add_size(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    parser.add_argument(
        "--sizes", type=common.positive, nargs="+", default=[10_000, 170_000], metavar="N", help="numbers of vectors"
    )
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="vectors of your own (.npy, .safetensors)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, add_size))
