"""Real tokens per second of training: this project's trainer against sentence-transformers' trainer with PEFT.

Triplets, base, LoRA (rank, alpha, dropout, modules), batch size, learning rate, gradient clipping and loss are the same
(configs/laptop.yaml, but for the batch). sentence-transformers runs as it comes, and as well configured as we know how:
its cached loss in mini-batches of 32, and the frozen base's own dropout off, as it is here. Each run is a process of
its own, so peak memory belongs to that side alone. Tokens are counted in the batches that a side processed, padding
left out.

example python -m bench.train --repeats 3 --steps 6 --batch 128 --texts sentences.jsonl --out bench/results/train.json
"""

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from bench import common
from cardioembed.config import FOR_LABELS, Settings
from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import build_corpus
from cardioembed.errors import UserError
from cardioembed.paraphrases.merging import find_paraphrase_files, merge_paraphrases
from cardioembed.records import Row, read_jsonl
from cardioembed.triplets.building import build_triplets

WARM_UP = 2  # steps before the clock starts
LOSS = "multiple_negatives_ranking"  # the one that both sides have
LOSS_TOLERANCE = 1e-4
MINI_BATCH = 32  # of sentence-transformers' cached loss
SIDES = {  # name: (ours?, gradient cache?)
    "cardioembed": (True, False),
    "cardioembed, gradient_cache: true": (True, True),
    "sentence-transformers + peft, best form": (False, True),
    "sentence-transformers + peft, default": (False, False),
}


def main(options: argparse.Namespace) -> None:
    settings = common.laptop_settings()
    where = common.environment("train", torch.get_num_threads())

    # 1. The triplets of the demo run, or sentences in their places.
    size = options.batch
    train = settings.train.model_copy(update={"per_device_train_batch_size": size})
    settings = settings.model_copy(update={"train": train})
    rows = triplets_of_texts(options.texts) if options.texts else training_triplets(settings)
    if (options.steps + WARM_UP) * size > len(rows):
        most = len(rows) // size - WARM_UP
        raise UserError(f"--steps {options.steps}: an epoch of full batches allows at most {most} after the warm-up")

    with common.scratch(options.out) as folder:
        # 2. Both sides have the same trainable weights and, without dropout, the same loss.
        check = common.in_fresh_process(compare_sides, rows, settings, folder)

        # 3. Time.
        def measure(ours: bool, cache: bool) -> dict[str, Any]:
            side = train_ours if ours else train_theirs
            return common.in_fresh_process(side, rows, settings, options.steps, folder, cache)

        sides = {name: lambda form=form: measure(*form) for name, form in SIDES.items()}
        results = common.alternate(sides, options.repeats)

    # 4. Report.
    rates = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in results.items()}
    table = common.versus(rates, "tokens/s")
    for line, runs in zip(table, results.values(), strict=True):
        line["peak memory, MiB"] = f"{statistics.median(run['peak_memory_mib'] for run in runs):,.0f}"
    lora = settings.model.lora
    notes = [
        f"{options.steps} steps of {size} triplets after {WARM_UP} that are not counted; {settings.model.base}, "
        f"float32, at most {settings.model.max_length} tokens, loss {LOSS}",
        f"LoRA r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout:g}, {lora.target_modules}: "
        f"{check['trainable']:,} weights on either side",
        f"the losses of one batch without dropout agree: {check['ours']:.5f} here, {check['theirs']:.5f} there",
        "sentence-transformers' default trains with model.train(), so the base's own dropout "
        f"({check['base_dropout']:g}) is active besides the adapter's; its best form has that off and the cached loss "
        f"in mini-batches of {MINI_BATCH}",
        "this project tokenises once, before the first step: the timed rows' share of that start is in its seconds; "
        "sentence-transformers tokenises every batch",
        "peak memory is of the whole process, its libraries included",
    ]
    common.report(options.out, "Training", where, table, notes, {"check": check, "runs": results})


def triplets_of_texts(path: Path) -> list[Row]:
    """Sentences as triplets: what they say does not matter for speed, their lengths do."""
    texts = [row["text"] for row in read_jsonl(path, texts=("text",))]
    random.Random(0).shuffle(texts)
    thirds = zip(texts[::3], texts[1::3], texts[2::3], strict=False)
    return [
        {"group": str(number), "anchor": anchor, "positive": positive, "negatives": [negative]}
        for number, (anchor, positive, negative) in enumerate(thirds)
    ]


def training_triplets(settings: Settings) -> list[Row]:
    """Stages 01 and 02 on the sample, in memory."""
    merge = settings.merge
    limits = {"min_characters": merge.min_characters, "max_characters": merge.max_characters}
    sentences = build_corpus(find_books(merge.books), **limits).sentences
    pairs = merge_paraphrases(
        find_paraphrase_files(merge.paraphrases),
        sentences,
        **limits,
        min_length_ratio=merge.min_length_ratio,
        max_length_ratio=merge.max_length_ratio,
    ).pairs
    prepare = settings.prepare.model_dump(exclude=FOR_LABELS)
    return build_triplets(sentences, pairs, **prepare, seed=settings.seed).splits["train"]


def our_embedder(settings: Settings):
    """The base with the adapter of stage 03."""
    from cardioembed.embedder.adapters import attach_lora
    from cardioembed.embedder.encoder import load_embedder

    model = settings.model
    embedder = load_embedder(
        model.base, device=settings.device, **model.model_dump(exclude={"base", "lora", "fine_tuning", "frozen_layers"})
    )
    torch.manual_seed(settings.seed)
    embedder.model = attach_lora(
        embedder.model, **model.lora.model_dump(), base_reference=embedder.base.reference, revision=None
    )
    return embedder


def train_ours(rows: list[Row], settings: Settings, steps: int, folder: Path, gradient_cache: bool) -> dict[str, Any]:
    """Seconds, real tokens and peak memory of ``steps`` steps; validation is empty and marks the time."""
    from cardioembed.training.plan import Plan
    from cardioembed.training.trainer import Trainer

    marks: list[tuple[float, int]] = []

    def validate() -> dict[str, float]:
        marks.append((time.perf_counter(), trainer.progress.tokens))
        return {"accuracy@1": 0.0, "mrr": 0.0}

    total = WARM_UP + steps
    changes = {"max_steps": total, "eval_steps": WARM_UP, "save_steps": total, "gradient_cache": gradient_cache}
    plan = Plan(**{**settings.train.model_dump(), "loss": LOSS, **changes}, seed=settings.seed)
    embedder = our_embedder(settings)
    with common.scratch(folder / "ours") as own:
        started = time.perf_counter()
        trainer = Trainer(
            embedder,
            rows,
            plan,
            validate=validate,
            folder=own / "checkpoints",
            log_path=own / "log.jsonl",
            tensorboard=own / "tensorboard",
            fingerprint={},
        )
        starting = time.perf_counter() - started
        trainer.train()
    # marks: before the first step, after the warm-up, ..., after the last step (before its checkpoint is written)
    (begin, tokens_before), (end, tokens_after) = marks[1], marks[-1]
    share = steps * settings.train.per_device_train_batch_size / len(rows)
    return {
        "seconds": end - begin + share * starting,
        "tokens": tokens_after - tokens_before,
        "seconds_of_starting": share * starting,
        "peak_memory_mib": common.peak_memory_mib(),
    }


def their_trainer(rows: list[Row], settings: Settings, folder: Path, max_steps: int, best_form: bool = False):
    """sentence-transformers' trainer with a PEFT adapter on the same modules."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    from cardioembed.embedder.adapters import linear_names
    from cardioembed.embedder.bases import find_base

    lora, train = settings.model.lora, settings.train
    model = SentenceTransformer(str(find_base(settings.model.base).folder), device=settings.device)
    model.max_seq_length = settings.model.max_length
    torch.manual_seed(settings.seed)
    model.add_adapter(
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=sorted(linear_names(model.transformers_model)),
            exclude_modules=["pooler.dense"],
            task_type=TaskType.FEATURE_EXTRACTION,
        )
    )
    negatives = {
        f"negative_{i + 1}": [row["negatives"][i] for row in rows] for i in range(settings.prepare.negatives_per_anchor)
    }
    if best_form:
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
                module.p = 0.0
    columns = {"anchor": [row["anchor"] for row in rows], "positive": [row["positive"] for row in rows], **negatives}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.per_device_train_batch_size,
        max_steps=max_steps,
        learning_rate=train.learning_rate,
        max_grad_norm=train.max_grad_norm,
        seed=settings.seed,
        use_cpu=settings.device == "cpu",
        save_strategy="no",
        report_to="none",
    )
    return SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        loss=CachedMultipleNegativesRankingLoss(model, scale=1 / train.temperature, mini_batch_size=MINI_BATCH)
        if best_form
        else MultipleNegativesRankingLoss(model, scale=1 / train.temperature),
    )


def train_theirs(rows: list[Row], settings: Settings, steps: int, folder: Path, best_form: bool) -> dict[str, Any]:
    """As ``train_ours``, for sentence-transformers; tokens are those that reach its model."""
    from transformers import TrainerCallback

    marks: list[tuple[float, int]] = []
    masks: list[torch.Tensor] = []

    class Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append((time.perf_counter(), len(masks)))

    with common.scratch(folder / "theirs") as own:
        trainer = their_trainer(rows, settings, own, WARM_UP + steps, best_form)
        # The masks are kept and counted afterwards, so that counting costs no time.
        trainer.model.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[0]["attention_mask"]))
        trainer.add_callback(Marks())
        trainer.train()
    (begin, first), (end, last) = marks[WARM_UP - 1], marks[-1]
    return {
        "seconds": end - begin,
        # The cached loss runs every text twice.
        "tokens": sum(int(mask.sum()) for mask in masks[first:last]) // (2 if best_form else 1),
        "padded_tokens": sum(mask.numel() for mask in masks[first:last]) // (2 if best_form else 1),
        "forwards": last - first,
        "peak_memory_mib": common.peak_memory_mib(),
    }


def compare_sides(rows: list[Row], settings: Settings, folder: Path) -> dict[str, Any]:
    """Trainable weights and the loss of one batch on both sides, without dropout.

    Raises:
        UserError: They differ, so a comparison of speeds would mean nothing.
    """
    from cardioembed.embedder.adapters import parameter_counts
    from cardioembed.training import losses

    first = {row["group"]: row for row in rows}  # one row a group: no false negatives, which only one side masks
    batch = list(first.values())[: settings.train.per_device_train_batch_size]
    ours, theirs = our_embedder(settings), their_trainer(batch, settings, folder, 1)
    ours.model.eval()
    theirs.model.eval()
    with torch.no_grad():
        anchors, positives = ([row[key] for row in batch] for key in ("anchor", "positive"))
        negatives = [text for row in batch for text in row["negatives"]]
        vectors = [ours.embed_tokens(ours.tokenize(texts)[0]) for texts in (anchors, positives, negatives)]
        vectors[2] = vectors[2].view(len(batch), -1, ours.dimension)
        our_loss = float(getattr(losses, LOSS)(*vectors, settings.train.temperature))
        features, labels = theirs.collect_features(theirs.data_collator(list(theirs.train_dataset)))
        their_loss = float(theirs.loss(features, labels))
    trainable = [parameter_counts(model)[0] for model in (ours.model, theirs.model)]
    if trainable[0] != trainable[1] or abs(our_loss - their_loss) > LOSS_TOLERANCE:
        raise UserError(
            f"the sides differ: {trainable[0]:,} and {trainable[1]:,} trainable weights, losses {our_loss:.6f} and "
            f"{their_loss:.6f}; nothing was timed"
        )
    dropout = getattr(ours.model.config, "hidden_dropout_prob", 0.0)
    return {"trainable": trainable[0], "ours": our_loss, "theirs": their_loss, "base_dropout": dropout}


def size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=common.positive, default=30, metavar="N", help="timed steps (default: 30)")
    parser.add_argument("--batch", type=common.positive, default=24, metavar="N", help="triplets a step (default: 24)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="sentences, .jsonl of {text} (default: the sample)")


if __name__ == "__main__":
    raise SystemExit(common.run(main, __doc__, size))
