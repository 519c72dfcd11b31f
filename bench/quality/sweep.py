"""Variants of the clinical recipe on the triplets of one run, measured on the development sets: lines of a log.

Training is stage 03's own, on the run's training split; its validation split picks the weights. ``--interpolate 0.7``
adds a line for the weights seven tenths of the way from the base to the trained ones. ``--peer`` trains with
sentence-transformers instead, as it comes: all weights, learning rate 5e-5, batches of 8 (its trainer's defaults),
MultipleNegativesRankingLoss with the first opposed statement as hard negative, ``max_steps`` as given.

example python 01_merge_paraphrases.py --config configs/clinical_small.yaml
        python 02_prepare_training_data.py --config configs/clinical_small.yaml
        python -m bench.quality.sweep --name no-distillation --set train.distillation=0 train.max_steps=400 --seeds 0 1
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from cardioembed.config import Settings
from cardioembed.config_file import load_settings
from cardioembed.embedder.adapters import attach_lora, train_everything
from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.suite import build_tasks, measure
from cardioembed.records import Row, read_jsonl
from cardioembed.training.checks import check_objective, validate
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

LOG = Path("bench/quality/log.jsonl")
METRICS = {
    "counterfactual_triples": "accuracy", "generalisation_confusable": "accuracy@1", "beir_queries": "ndcg@10",
    "concept_separation": "separation",
}  # fmt: skip
PEER_BATCH, PEER_LEARNING_RATE = 8, 5e-5


def main(options: argparse.Namespace) -> None:
    settings = load_settings(options.config, options.set)
    run = Path(settings.run_dir)
    rows, validation = (read_jsonl(run / f"02_training_{split}.jsonl") for split in ("train", "validation"))
    for seed in options.seeds:
        embedder = load(settings)
        base = weights_of(embedder)
        started = time.monotonic()
        tokens = (train_peer if options.peer else train)(embedder, rows, validation, settings, seed)
        seconds = round(time.monotonic() - started, 1)
        trained = weights_of(embedder)
        for share in options.interpolate or [settings.train.interpolation]:
            mixed = {name: torch.lerp(weight, trained[name], share) for name, weight in base.items()}
            embedder.model.load_state_dict(mixed, strict=False)
            line = {
                "name": options.name, "set": options.set, "seed": seed, "interpolation": share,
                **development(embedder, settings, options), "tokens": tokens, "seconds": seconds,
                "train": settings.train.model_dump(),
            }  # fmt: skip
            with options.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(line)


def load(settings: Settings) -> Embedder:
    model = settings.model.model_dump(exclude={"base", "lora", "fine_tuning", "frozen_layers"})
    return load_embedder(settings.model.base, device=settings.device, **model)


def weights_of(embedder: Embedder) -> dict[str, torch.Tensor]:
    state = embedder.model.state_dict()
    return {name: weight.clone() for name, weight in state.items() if weight.is_floating_point()}


def train(embedder: Embedder, rows: list[Row], validation: list[Row], settings: Settings, seed: int) -> int:
    """Stage 03's training; returns the tokens seen."""
    whole = {"gradient_cache": False, "report_to": [], "interpolation": 1.0}
    plan = Plan(**settings.train.model_dump() | whole, seed=seed)
    check_objective(plan, rows, embedder.dimension)
    torch.manual_seed(seed)
    if settings.model.fine_tuning == "full":
        train_everything(embedder.model, settings.model.frozen_layers)
    else:
        lora = settings.model.lora.model_dump()
        embedder.model = attach_lora(embedder.model, **lora, base_reference="", revision=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            embedder, rows, plan, validate=lambda: validate(embedder, validation), folder=Path(folder, "checkpoints"),
            log_path=Path(folder, "log.jsonl"), tensorboard=Path(folder, "tensorboard"), fingerprint={},
        )  # fmt: skip
        tokens = trainer.train().tokens
    if settings.model.fine_tuning == "lora":
        embedder.model = embedder.model.merge_and_unload()
    return tokens


def train_peer(embedder: Embedder, rows: list[Row], validation: list[Row], settings: Settings, seed: int) -> int:
    """sentence-transformers' trainer with its defaults, whose weights go into the embedder; returns the tokens seen."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from cardioembed.embedder.bases import find_base

    model = SentenceTransformer(str(find_base(settings.model.base).folder), device=settings.device)
    model.max_seq_length = settings.model.max_length
    opposed, plain = [row for row in rows if "opposed" in row], [row for row in rows if "opposed" not in row]
    data = {
        "opposed": {**columns(opposed), "negative": [row["opposed"][0] for row in opposed]},
        "plain": columns(plain),
    }
    tokens = 0

    def count(module: Any, arguments: tuple, keywords: dict) -> None:
        nonlocal tokens
        tokens += int((keywords.get("attention_mask") if keywords else arguments[0]["attention_mask"]).sum())

    model.transformers_model.register_forward_pre_hook(count, with_kwargs=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, per_device_train_batch_size=PEER_BATCH, learning_rate=PEER_LEARNING_RATE,
            max_steps=settings.train.max_steps or -1, num_train_epochs=settings.train.num_train_epochs, seed=seed,
            use_cpu=settings.device == "cpu", save_strategy="no", report_to="none",
        )  # fmt: skip
        datasets = {name: Dataset.from_dict(part) for name, part in data.items() if part["anchor"]}
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=datasets, loss=loss).train()
    embedder.model.load_state_dict(model.transformers_model.state_dict())
    return tokens


def columns(rows: list[Row]) -> dict[str, list[str]]:
    return {key: [row[key] for row in rows] for key in ("anchor", "positive")}


def development(embedder: Embedder, settings: Settings, options: argparse.Namespace) -> dict[str, object]:
    """Main metrics of the config's development sets and of ``--sts`` and ``--beir``, and accuracy by category."""
    chosen = settings.evaluate
    evaluate = chosen.model_copy(update={
        "counterfactual_rules": False, "robustness": False, "bias": False, "efficiency": False,
        "sts": [*chosen.sts, *options.sts], "beir": [*chosen.beir, *options.beir],
    })  # fmt: skip
    pairs = [row | {"group": row["id"]} for row in read_jsonl(Path(evaluate.generalisation[0]))]
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
    parser.add_argument("--config", default="configs/clinical_small.yaml", help="its run folder has stage 02's files")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="as in the stages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--interpolate", type=float, nargs="+", help="1: trained weights, 0: the base's; as the config")
    parser.add_argument("--peer", action="store_true", help="train with sentence-transformers' defaults")
    parser.add_argument("--sts", nargs="*", default=[], help="further files, as in evaluate.sts")
    parser.add_argument("--beir", nargs="*", default=[], help="further folders, as in evaluate.beir")
    parser.add_argument("--log", type=Path, default=LOG)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main(parse(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
