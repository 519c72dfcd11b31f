"""Hard-negative mining: how much of the time is encoding, how much search, and how much memory it takes.

Anchors are sentences, the positive of each is the sentence that follows it, the pool is all anchors. Encoding and
search run in a process of their own; then sentence-transformers' mine_hard_negatives searches the same vectors, so that
only search and choice are compared. Nothing is reported unless both find the same candidates.

example python -m bench.mining --repeats 3 --anchors 20000 --texts sentences.jsonl.gz --out bench/results/mining.json
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from bench import common
from bench.encode import sample_sentences
from cardioembed.config import Settings
from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError
from cardioembed.records import normalise
from cardioembed.triplets import mining
from cardioembed.triplets.decontamination import evaluation_texts

OURS, THEIRS = "cardioembed", "sentence-transformers"
COUNT = 3  # negatives a row that both sides choose


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("mining", torch.get_num_threads())
    texts = read_texts(options.texts, options.anchors + 1, settings.seed)

    # 1. Time and memory of mining as stage 02 does it.
    runs = common.alternate({OURS: lambda: common.in_fresh_process(measure, settings, texts)}, options.repeats)[OURS]

    # 2. The same vectors, searched by both.
    with common.scratch(options.out) as folder:
        path = folder / "vectors.npy"
        common.in_fresh_process(save_vectors, settings, texts, path)
        sides = {
            OURS: lambda: common.in_fresh_process(search, settings, texts, path),
            THEIRS: lambda: common.in_fresh_process(search_with_peer, settings, texts, path),
        }
        searches = common.alternate(sides, options.repeats)
    same = agreement(searches[OURS][0]["chosen"], searches[THEIRS][0]["chosen"])

    # 3. Report.
    table = [line(f"{OURS}, all", [run["all"] for run in runs], [run["peak_memory_mib"] for run in runs])]
    for part in ("encode", "search"):
        table.append(line(f"{OURS}, {part}", [run[part] for run in runs], []))
    for name, found in searches.items():
        rows = [run["seconds"] for run in found], [run["peak_memory_mib"] for run in found]
        table.append(line(f"{name}, search and choice on given vectors", *rows))
    share = statistics.median(run["encode"] / run["all"] for run in runs)
    notes = [
        f"{len(texts) - 1:,} anchors, as many positives and texts in the pool, {settings.prepare.mined.model}, float32",
        f"encoding is {share:.1%} of the time",
        f"both choose the same {COUNT} negatives for {same:.2%} of the anchors that have so many; the others are ties",
        f"peak memory is of the whole process, {OURS}'s with the model in it where it encodes",
    ]
    raw = {"anchors": len(texts) - 1, "runs": runs, "agreement": same, "searches": strip(searches)}
    common.report(options.out, "Hard-negative mining", where, table, notes, raw)


def read_texts(file: Path | None, count: int, seed: int) -> list[str]:
    """The first ``count`` distinct texts of a file (.jsonl, .jsonl.gz or .txt), or of the sample."""
    listed = list(evaluation_texts(str(file))) if file else sample_sentences(None, seed)
    distinct = list({normalise(text): text for text in reversed(listed) if len(text) >= 20}.values())[::-1]
    return distinct[:count]


def pairs(texts: list[str]) -> tuple[list[str], list[str]]:
    """Anchors and positives."""
    return texts[:-1], texts[1:]


def groups_of(texts: list[str]) -> np.ndarray:
    """Each anchor is a group of its own."""
    return np.arange(len(texts) - 1)


def measure(settings: Settings, texts: list[str]) -> dict[str, Any]:
    """Seconds in encoding and in search of one run as in stage 02."""
    embedder = load_model(settings.prepare.mined.model, device=settings.device)
    embedder.encode(texts[:64])
    seconds = {"encode": 0.0, "search": 0.0}
    embedder.encode = clocked(embedder.encode, seconds, "encode")
    mining.nearest = clocked(mining.nearest, seconds, "search")
    anchors, positives = pairs(texts)
    started = time.perf_counter()
    mine(mining.Miner(embedder, anchors, groups_of(texts)), settings, anchors, positives)
    return {"all": time.perf_counter() - started, **seconds, "peak_memory_mib": common.peak_memory_mib()}


def clocked(function, seconds: dict[str, float], part: str):
    """The function, adding the time in it to ``seconds``."""

    def call(*arguments, **options):
        started = time.perf_counter()
        result = function(*arguments, **options)
        seconds[part] += time.perf_counter() - started
        return result

    return call


def mine(miner: mining.Miner, settings: Settings, anchors: list[str], positives: list[str]) -> np.ndarray:
    """Candidates under the project's settings."""
    mined = settings.prepare.mined.model_dump(include={"relative_margin", "range_min", "range_max"})
    return miner.candidates(anchors, positives, np.arange(len(anchors)), **mined)[0]


def save_vectors(settings: Settings, texts: list[str], path: Path) -> None:
    """Vectors of all texts, for both sides."""
    np.save(path, load_model(settings.prepare.mined.model, device=settings.device).encode(texts))


def search(settings: Settings, texts: list[str], path: Path) -> dict[str, Any]:
    """Search and choice on given vectors; the positive is no candidate, as with the peer."""
    vectors, mined = np.load(path), settings.prepare.mined
    started = time.perf_counter()
    # The pool is the positives, as the peer's is; an anchor's group is its positive's.
    anchors, pool, groups = vectors[:-1], vectors[1:], groups_of(texts)
    scores, indices = mining.nearest(anchors, pool, groups, groups, mined.range_max)
    cosines = np.einsum("ij,ij->i", anchors, pool)
    kept, _ = mining.keep_margin(scores, indices, cosines, mined.relative_margin)
    chosen = kept[:, mined.range_min :][:, :COUNT]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "chosen": chosen, "peak_memory_mib": common.peak_memory_mib()}


def search_with_peer(settings: Settings, texts: list[str], path: Path) -> dict[str, Any]:
    """The peer's function, whose model looks its vectors up."""
    vectors, mined = np.load(path), settings.prepare.mined
    place = {text: number for number, text in enumerate(texts)}
    peer = SentenceTransformer(str(load_model(mined.model, device=settings.device).base.folder), device="cpu")

    def look_up(asked: list[str], **_: Any) -> np.ndarray:
        return vectors[[place[text] for text in asked]]

    peer.encode = peer.encode_query = peer.encode_document = look_up
    anchors, positives = pairs(texts)
    dataset = Dataset.from_dict({"anchor": anchors, "positive": positives})
    started = time.perf_counter()
    found = mine_hard_negatives(
        dataset, peer, range_min=mined.range_min, range_max=mined.range_max, relative_margin=mined.relative_margin,
        num_negatives=COUNT, sampling_strategy="top", output_format="n-tuple", verbose=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    chosen = np.full((len(anchors), COUNT), -1)
    for row in found:
        chosen[place[row["anchor"]]] = [place[row[f"negative_{n + 1}"]] - 1 for n in range(COUNT)]
    return {"seconds": seconds, "chosen": chosen, "peak_memory_mib": common.peak_memory_mib()}


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of anchors with the same negatives, among those for which the peer found enough.

    Raises:
        UserError: Too few agree for near-ties to be the reason.
    """
    full = (theirs >= 0).all(axis=1)
    same = float((ours[full] == theirs[full]).all(axis=1).mean())
    if not same > 0.99:
        raise UserError(f"the two sides choose the same negatives for {same:.1%} of the anchors only; not compared")
    return same


def line(name: str, seconds: list[float], memory: list[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "": name,
        "seconds, median": f"{statistics.median(seconds):.1f}",
        "lowest": f"{min(seconds):.1f}",
        "highest": f"{max(seconds):.1f}",
        "peak memory, MiB": f"{statistics.median(memory):,.0f}" if memory else "",
    }


def strip(searches: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The runs without the chosen negatives."""
    return {name: [{k: v for k, v in run.items() if k != "chosen"} for run in runs] for name, runs in searches.items()}


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anchors", type=common.positive, default=20_000, metavar="N", help="default: 20000")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help=".jsonl, .jsonl.gz or .txt (default: the sample's texts)"
    )


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
