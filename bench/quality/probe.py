"""One way to teach the packaged base what a changed word means, measured on the development sets: a line of a log.

Every statement of the training text stands beside its counterfactual, each in several wordings. A step takes some of
them, two wordings of each, and lets every text find its own other wording among all texts of the step; own
counterfactuals compete in the same softmax (``--hard softmax``) or are held off by a loss of their own (``--hard
logistic``). All weights train. Probes are short: their point is what to try next, not a final number.

example python 01_merge_paraphrases.py --config configs/laptop.yaml --set run_dir=runs/clinical_text \\
            --set 'merge.books=[data/sample/books, data/sample/clinical/books]' \\
            --set 'merge.paraphrases=[data/sample/paraphrases/*.jsonl, data/sample/clinical/paraphrases/*.jsonl,
            data/sample/phrases/paraphrases.jsonl]' --set merge.min_characters=6
        python -m bench.quality.probe --name logistic --log bench/quality/log.jsonl --hard logistic --epochs 1
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from cardioembed.config import load_settings
from cardioembed.embedder.adapters import train_everything
from cardioembed.embedder.batching import length_sorted_chunks
from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.suite import build_tasks, measure
from cardioembed.records import read_jsonl
from cardioembed.training.schedule import learning_rate_at

CONFIG = "configs/laptop.yaml"
SAMPLE, DEVELOPMENT = Path("data/sample"), Path("data/evaluation")
METRICS = {
    "counterfactual_triples": "accuracy", "generalisation_confusable": "accuracy@1", "beir_queries": "ndcg@10",
    "concept_separation": "separation",
}  # fmt: skip
KINDS = ("sentences", "phrases")
CHUNK_TOKENS = 1024


@dataclass(frozen=True)
class Quad:
    """A statement and its counterfactual, each in several wordings."""

    stated: list[str]
    changed: list[str]


@dataclass(frozen=True)
class Step:
    """The texts of a step.

    Attributes:
        texts: Two wordings of each statement, then those of its counterfactual, statement by statement.
        meanings: Number of what each says, shape (texts,).
        owners: Number of the quad of each, shape (texts,).
    """

    texts: list[str]
    meanings: Tensor
    owners: Tensor


def main(options: argparse.Namespace) -> None:
    settings = load_settings(CONFIG)
    embedder = load_embedder(settings.model.base, max_length=128, device="cpu")
    quads = read_quads(options)
    base = {name: weight.clone() for name, weight in embedder.model.state_dict().items()}
    started = time.monotonic()
    loss, tokens = train(embedder, quads, options)
    seconds = round(time.monotonic() - started, 1)

    tuned = {name: weight.clone() for name, weight in embedder.model.state_dict().items()}
    for share in options.interpolate:
        mixed = {
            name: torch.lerp(weight, tuned[name], share) for name, weight in base.items() if weight.is_floating_point()
        }
        embedder.model.load_state_dict(mixed, strict=False)
        found = development(embedder, options)
        given = {key: value for key, value in vars(options).items() if key not in ("log", "run", "name")}
        given |= {key: [Path(path).name for path in given[key]] for key in ("sts", "beir")}
        row = {
            "name": options.name, "interpolation": share, **found, "loss": round(loss, 4), "quads": len(quads),
            "tokens": tokens, "seconds": seconds, "settings": given,
        }  # fmt: skip
        with options.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(row)


def read_quads(options: argparse.Namespace) -> list[Quad]:
    """The run's statements that have a written counterfactual; a seeded share of them, in the order of the books."""
    wordings: dict[str, list[str]] = {}
    for row in read_jsonl(options.run / "01_merged_paraphrases.jsonl"):
        wordings.setdefault(row["original"], [row["original"]]).append(row["paraphrase"])
    rows = [row for path in sorted(SAMPLE.rglob("counterfactuals.jsonl")) for row in read_jsonl(path)]
    quads = [
        Quad(wordings[row["original"]], [row["counterfactual"], row["paraphrase"]])
        for row in rows
        if row["original"] in wordings and options.texts in ("all", KINDS[row["source"].startswith("phrases_")])
    ]
    chosen = np.random.default_rng(options.seed).permutation(len(quads))[: round(options.share * len(quads))]
    if len(chosen) < options.batch:
        raise UserError(f"--share {options.share:g}: {len(chosen)} statements do not fill a --batch of {options.batch}")
    return [quads[i] for i in sorted(chosen)]


def train(embedder: Embedder, quads: list[Quad], options: argparse.Namespace) -> tuple[float, int]:
    """Trains all weights; returns the mean loss of the last fifth of the steps, and the tokens seen."""
    known = reference_vectors(embedder, quads) if options.consistency else {}
    model = train_everything(embedder.model).eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate)
    rng = np.random.default_rng(options.seed)
    per_epoch = -(-len(quads) // options.batch)
    total, losses, tokens = round(per_epoch * options.epochs), [], 0
    for step in range(total):
        if step % per_epoch == 0:
            order = rng.permutation(len(quads))
        at = step % per_epoch * options.batch
        drawn = draw(quads, order[at : at + options.batch], options.changed, rng)
        sequences, _ = embedder.tokenize(drawn.texts, None)
        vectors = embed(embedder, sequences)
        loss = objective(vectors, drawn, options)
        if known:
            reference = torch.stack([known[text] for text in drawn.texts])
            loss = loss + options.consistency * consistency(vectors, reference, drawn.owners)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, total, options.learning_rate, 0.1, "linear")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        tokens += sum(map(len, sequences))
    return float(np.mean(losses[-max(1, total // 5) :])), tokens


def reference_vectors(embedder: Embedder, quads: list[Quad]) -> dict[str, Tensor]:
    texts = sorted({text for quad in quads for text in (*quad.stated, *quad.changed)})
    return dict(zip(texts, torch.from_numpy(embedder.encode(texts)), strict=True))


def draw(quads: list[Quad], chosen: np.ndarray, changed: int, rng: np.random.Generator) -> Step:
    texts, meanings, owners = [], [], []
    for number, i in enumerate(chosen):
        stated = [quads[i].stated[j] for j in rng.permutation(len(quads[i].stated))[:2]]
        for said, meaning in ((stated, 2 * number), (quads[i].changed[:changed], 2 * number + 1)):
            texts += said
            meanings += [meaning] * len(said)
            owners += [number] * len(said)
    return Step(texts, torch.tensor(meanings), torch.tensor(owners))


def embed(embedder: Embedder, sequences: list[list[int]]) -> Tensor:
    chunks = length_sorted_chunks([len(sequence) for sequence in sequences], CHUNK_TOKENS)
    vectors = torch.cat([embedder.embed_tokens([sequences[i] for i in chunk]) for chunk in chunks])
    return vectors[torch.from_numpy(np.argsort(np.concatenate(chunks)))]


def objective(vectors: Tensor, step: Step, options: argparse.Namespace) -> Tensor:
    """Every text that has another wording finds it among all texts (NT-Xent, Chen et al. 2020, arXiv 2002.05709).

    With ``--hard logistic`` own counterfactuals are left out of that softmax, and
    ``log(1 + exp((s(x, counterfactual) - s(x, own)) / t))`` is added: there, unlike in a softmax of low temperature, it
    does not pay to draw all texts together.
    """
    cosines = vectors @ vectors.T
    itself = torch.eye(len(vectors), dtype=torch.bool)
    same = (step.meanings[:, None] == step.meanings[None, :]) & ~itself
    hard = (step.owners[:, None] == step.owners[None, :]) & ~same & ~itself
    without = itself if options.hard == "softmax" else itself | hard
    anchors = same.any(1)
    own = (cosines * same).sum(1)
    scores = (cosines / options.temperature).masked_fill(without, -torch.inf)
    loss = (scores.logsumexp(1) - own / options.temperature)[anchors].mean()
    if options.hard == "logistic":
        excess = softplus((cosines - own[:, None]) / options.hard_temperature)
        loss = loss + options.hard_weight * excess[hard & anchors[:, None]].mean()
    return loss


def consistency(vectors: Tensor, reference: Tensor, owners: Tensor) -> Tensor:
    """Mean squared change of the cosines of texts that have nothing to do with each other."""
    apart = owners[:, None] != owners[None, :]
    return ((vectors @ vectors.T - reference @ reference.T)[apart] ** 2).mean()


def development(embedder: Embedder, options: argparse.Namespace) -> dict[str, object]:
    """Main metrics of the development sets, accuracy by category, and of what ``--sts`` and ``--beir`` give."""
    evaluate = load_settings(CONFIG).evaluate.model_copy(update={
        "counterfactual_rules": False, "robustness": False, "bias": False, "efficiency": False,
        "counterfactuals": [str(DEVELOPMENT / "triples.jsonl")],
        "generalisation": [str(DEVELOPMENT / "confusable.jsonl")],
        "beir": [str(DEVELOPMENT / "queries"), *options.beir], "sts": options.sts,
    })  # fmt: skip
    pairs = [row | {"group": row["id"]} for row in read_jsonl(DEVELOPMENT / "confusable.jsonl")]
    embedder.model.eval()
    tasks = build_tasks(evaluate, pairs, distractors=[], held_out=None, seed=0)[1:]  # the pairs are one of them anyway
    measured = measure(embedder, tasks, Sampling(100, 0))
    found: dict[str, object] = {}
    for name, one in measured.items():
        metric = METRICS.get(name) or ("spearman_cosine" if name.startswith("sts_") else "mrr")
        found[f"{name} {metric}"] = round(one.estimates[metric].value, 4)
    slices = measured["counterfactual_triples"].slices
    return found | {"by category": {name: round(part["accuracy"].value, 3) for name, part in slices.items()}}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/clinical_text"), help="with stage 01's pairs")
    parser.add_argument("--log", type=Path, required=True, help="JSONL; a line for each interpolation is added")
    parser.add_argument("--hard", choices=("none", "softmax", "logistic"), default="logistic")
    parser.add_argument("--changed", type=int, choices=(0, 1, 2), default=1, help="wordings of the counterfactual")
    parser.add_argument("--hard-weight", type=float, default=2.0)
    parser.add_argument("--hard-temperature", type=float, default=0.2)
    parser.add_argument("--consistency", type=float, default=0.0, help="weight; 0: off")
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=16, help="quads a step")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--texts", choices=("all", *KINDS), default="all")
    parser.add_argument("--share", type=float, default=1.0, help="of the quads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interpolate", type=float, nargs="+", default=[1.0], help="1: tuned weights, 0: the base's")
    parser.add_argument("--sts", nargs="*", default=[], help="as evaluate.sts")
    parser.add_argument("--beir", nargs="*", default=[], help="as evaluate.beir")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main(parse(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
