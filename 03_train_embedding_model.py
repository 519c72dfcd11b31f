"""Stage 03: triplets and a base model become an adapted embedding model.

reads   02_training_train.jsonl, 02_training_validation.jsonl
writes  03_model/                    opens with this project, sentence-transformers and PEFT
        03_training_log.jsonl        a line a step and a validation
        03_training_summary.json     parameters, validation before and after, drift, tokens, seconds, memory
        03_loss_curve.png, 03_tensorboard/
        03_checkpoints/              the same command goes on from here after a stop, exactly

example python 03_train_embedding_model.py --config configs/laptop.yaml --set train.num_train_epochs=1
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cardioembed import stage
from cardioembed.config import Settings, flatten
from cardioembed.distributed import processes
from cardioembed.records import Row, atomic_folder, atomic_path, read_jsonl, sha256, write_json
from cardioembed.training.plan import Plan, check_trackers

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder
    from cardioembed.embedder.memory import MemoryEstimate

CHARACTERS_PER_TOKEN = 4  # of medical English, about; for the memory estimate


def main(settings: Settings) -> None:
    run = stage.Stage("03", settings)
    texts = ("id", "group", "anchor", "positive")

    # 1. Triplets, checked before a model loads.
    train_path, validation_path = run.requires("02", "02_training_train.jsonl", "02_training_validation.jsonl")
    rows, validation = (read_jsonl(path, ("negatives",), texts) for path in (train_path, validation_path))
    plan = Plan(**settings.train.model_dump(), seed=settings.seed)
    check_trackers(plan.report_to)
    steps = plan.total_steps(len(rows), processes())
    print(f"  {len(rows):,} triplets, {steps:,} steps, {len(validation):,} validation pairs, {processes()} process(es)")

    # 2. The frozen base and its adapter. torch takes seconds to import: what needs no model was checked before.
    import torch

    from cardioembed.embedder.adapters import attach_lora, parameter_counts, train_everything
    from cardioembed.embedder.card import model_card
    from cardioembed.embedder.encoder import load_embedder
    from cardioembed.embedder.loading import choose_device
    from cardioembed.embedder.saving import PROBE_TEXTS, save_model
    from cardioembed.training.checks import check_objective, probe_drift, validate
    from cardioembed.training.curves import loss_curve
    from cardioembed.training.sharding import shard_base
    from cardioembed.training.summary import training_costs, training_summary
    from cardioembed.training.trainer import Trainer

    need, cached = memory_need(settings, rows)
    plan = replace(plan, gradient_cache=cached)
    print(f"  {need.describe()}; gradient_cache: {str(cached).lower()}")
    model = settings.model.model_dump(exclude={"base", "lora", "fine_tuning", "frozen_layers"})
    device = "cpu" if settings.train.fsdp else settings.device  # a sharded base moves layer by layer
    embedder = load_embedder(settings.model.base, device=device, **model)
    check_objective(plan, rows, embedder.dimension)
    base_probes = embedder.encode(PROBE_TEXTS)
    torch.manual_seed(settings.seed)
    if settings.model.fine_tuning == "full":
        train_everything(embedder.model, settings.model.frozen_layers)
    else:
        lora, base = settings.model.lora.model_dump(), embedder.base
        embedder.model = attach_lora(embedder.model, **lora, base_reference=base.reference, revision=base.revision)
    if settings.train.fsdp:
        shard_base(embedder, choose_device(settings.device))
    trainable, total = parameter_counts(embedder.model)
    print(f"  {embedder.base.name} on {embedder.device}: {trainable:,} of {total:,} parameters train (in float32)")
    print(f"  {embedder.recipe}")

    # 3. Train; validation picks the weights that are kept.
    started = time.monotonic()
    log_path = run.path("03_training_log.jsonl")
    trainer = Trainer(
        embedder,
        rows,
        plan,
        validate=lambda: validate(embedder, validation),
        folder=run.run_dir / "03_checkpoints",
        log_path=log_path,
        tensorboard=run.path("03_tensorboard"),
        fingerprint=_fingerprint(settings, embedder, sha256(train_path), sha256(validation_path)),
    )
    if trainer.batches.truncated:
        print(f"  note: {trainer.batches.truncated:,} texts are longer than model.max_length and were cut")
    progress = trainer.train()
    print(f"  kept step {progress.best_step}: validation accuracy@1 {progress.best_score[0]:.4f}")
    if progress.best_score < progress.base_score:
        print(f"  note: that is below the base ({progress.base_score[0]:.4f}); lower train.learning_rate or add data")

    # 4. Write.
    flat = flatten(settings)
    summary = {
        **training_summary(embedder, progress, rows),
        "validation_pairs": len(validation),
        "truncated_texts": trainer.batches.truncated,
        "probe_drift": probe_drift(base_probes, embedder.encode(PROBE_TEXTS)),
        "global_batch": plan.per_device_train_batch_size * processes(),
        "fine_tuning": settings.model.fine_tuning,
        "language": settings.merge.language,
        "settings": {key: value for key, value in flat.items() if key.startswith(("model.lora.", "train."))},
        "training_data_sha256": sha256(train_path),
    }
    log = read_jsonl(log_path)
    model_path = run.path("03_model")
    with atomic_folder(model_path) as folder:
        save_model(embedder, folder, summary)
        (folder / "README.md").write_text(model_card(embedder, summary), encoding="utf-8")
    curve_path = run.path("03_loss_curve.png")
    with atomic_path(curve_path) as temporary:
        temporary.write_bytes(loss_curve(log, progress.best_step))
    summary_path = run.path("03_training_summary.json")
    costs = training_costs(log, progress.tokens, embedder.device)  # not in the model's folder: they vary
    costs["seconds_of_this_start"] = round(time.monotonic() - started, 1)
    write_json(summary_path, {**summary, **costs})
    for path in (model_path, log_path, curve_path, summary_path):
        run.wrote(path)
    run.finish({"steps": progress.step, "tokens": progress.tokens}, following="04")


def memory_need(settings: Settings, rows: list[Row]) -> "tuple[MemoryEstimate, bool]":
    """What training will take, from the base's files, and whether with gradient_cache, which ``auto`` turns on where
    keeping the whole batch would not leave room. Refuses what cannot fit before anything is loaded."""
    from cardioembed.embedder.bases import find_base
    from cardioembed.embedder.loading import choose_attention, choose_device, read_config
    from cardioembed.embedder.memory import Workload, check_memory, check_quantization, estimate_memory
    from cardioembed.embedder.system_memory import available_bytes

    model, train = settings.model, settings.train
    base, device = find_base(model.base), choose_device(settings.device)
    check_quantization(base.folder, model.quantization, device)
    eager = choose_attention(read_config(base, model.trust_remote_code), model.attn_implementation) == "eager"
    texts = [text for row in rows[:1000] for text in (row["anchor"], row["positive"], *row["negatives"])]
    lengths = [min(len(text) / CHARACTERS_PER_TOKEN + 2, model.max_length) for text in texts]
    work = Workload(
        device=device,
        quantization=model.quantization,
        dtype=model.dtype,
        autocast=train.bf16,
        batch_tokens=round(sum(lengths) / min(1000, len(rows)) * min(train.per_device_train_batch_size, len(rows))),
        chunk_tokens=train.chunk_tokens,
        gradient_cache=train.gradient_cache is True,
        gradient_checkpointing=train.gradient_checkpointing,
        r=model.lora.r if model.fine_tuning == "lora" else 0,
        target_modules=model.lora.target_modules,
        eager_length=round(max(lengths)) if eager else 0,
        shards=processes() if train.fsdp else 1,
    )
    if train.gradient_cache == "auto":
        whole = estimate_memory(base.folder, work, available_bytes(device))
        work = replace(work, gradient_cache=whole.tight or not whole.fits)
    return check_memory(base.folder, work), work.gradient_cache


def _fingerprint(settings: Settings, embedder: "Embedder", train_hash: str, validation_hash: str) -> dict:
    decides = {key: value for key, value in flatten(settings).items() if key.startswith(("model.", "train.", "seed"))}
    # Who computes a chunk changes nothing; how many rows serve each other as negatives does.
    decides["global_batch_size"] = decides.pop("train.per_device_train_batch_size") * processes()
    for name in ("save_steps", "logging_steps", "report_to"):
        del decides[f"train.{name}"]
    return {**decides, "device": embedder.device.type, "train_sha256": train_hash, "validation_sha256": validation_hash}


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
