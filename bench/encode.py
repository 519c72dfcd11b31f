"""Sentences per second: this project's Embedder.encode against SentenceTransformer.encode.

Same weights, same sentences (the sample's originals and paraphrases), float32, unit vectors, each with its own default
batching: chunks of 1,024 tokens here, batches of 32 sentences there. Nothing is timed unless all vectors agree.

example python -m bench.encode --repeats 5 --out bench/results/encode.json
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench import common
from cardioembed.config import Settings
from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.errors import UserError
from cardioembed.paraphrases.merging import KEY_PAIRS
from cardioembed.records import read_jsonl

PARAPHRASES = Path("data/sample/paraphrases")
TOLERANCE = 1e-5  # largest difference in any element of a unit vector
OURS, THEIRS = "cardioembed", "sentence-transformers"


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("encode", torch.get_num_threads())

    # 1. One set of weights, two ways to use them.
    embedder, peer = load_both(settings)
    sentences = sample_sentences(options.sentences, settings.seed)

    # 2. The same vectors, or no timing. This is the warm-up as well.
    difference = largest_difference(embedder.encode(sentences), encode_with_peer(peer, sentences))
    if not difference <= TOLERANCE:
        raise UserError(f"the vectors differ by up to {difference:.2e}, more than {TOLERANCE:g}; nothing was timed")

    # 3. Time.
    seconds = common.alternate(
        {
            OURS: lambda: timed(lambda: embedder.encode(sentences)),
            THEIRS: lambda: timed(lambda: encode_with_peer(peer, sentences)),
        },
        options.repeats,
    )

    # 4. Report.
    rates = {name: [len(sentences) / value for value in values] for name, values in seconds.items()}
    notes = [
        f"{len(sentences):,} sentences, at most {settings.model.max_length} tokens, {settings.model.base}, float32",
        f"all vectors agree: largest difference of an element {difference:.1e}, allowed {TOLERANCE:g}",
    ]
    raw = {"sentences": len(sentences), "largest_difference": difference, "seconds": seconds}
    common.report(options.out, "Encoding", where, common.versus(rates, "sentences/s"), notes, raw)


def load_both(settings: Settings) -> tuple[Embedder, SentenceTransformer]:
    """The base as this project and as sentence-transformers open it.

    Raises:
        UserError: One of the two is not in float32.
    """
    embedder = load_embedder(
        settings.model.base,
        device=settings.device,
        **settings.model.model_dump(exclude={"base", "lora", "fine_tuning", "frozen_layers"}),
    )
    peer = SentenceTransformer(str(embedder.base.folder), device=str(embedder.device))
    peer.max_seq_length = settings.model.max_length
    dtypes = {parameter.dtype for model in (embedder.model, peer) for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise UserError(f"the comparison is in float32; found {', '.join(sorted(map(str, dtypes)))}")
    return embedder, peer


def sample_sentences(count: int | None, seed: int) -> list[str]:
    """The sample's originals and paraphrases, each once, in a seeded order; the first ``count`` of them."""
    rows = [row for path in sorted(PARAPHRASES.glob("*.jsonl")) for row in read_jsonl(path)]
    if not rows:
        raise UserError(f"{PARAPHRASES} holds no .jsonl file; run the benchmark from the repository's root")
    texts = sorted({row[key] for row in rows for pair in KEY_PAIRS for key in pair if key in row})
    random.Random(seed).shuffle(texts)
    return texts[:count]


def encode_with_peer(peer: SentenceTransformer, sentences: list[str]) -> np.ndarray:
    """sentence-transformers with its defaults, batches of 32 among them."""
    return peer.encode(sentences, normalize_embeddings=True, show_progress_bar=False)


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest absolute difference of an element; infinite if the shapes differ."""
    return float(np.abs(first - second).max()) if first.shape == second.shape else float("inf")


def timed(work) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sentences", type=common.positive, metavar="N", help="only so many (default: all)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
