"""Stage 03: triplets and a base model become an adapted embedding model.

reads   02_training_train.jsonl, 02_training_validation.jsonl
writes  03_model/                    opens with this project, sentence-transformers and PEFT
        03_training_log.jsonl        a line a step and a validation
        03_training_summary.json     parameters, tokens, seconds, best validation
        03_loss_curve.png, 03_tensorboard/
        03_checkpoints/              the same command goes on from here after a stop, exactly

example python 03_train_embedding_model.py --config configs/laptop.yaml --set train.num_train_epochs=1
"""

import time
from typing import TYPE_CHECKING

from cardioembed import stage
from cardioembed.config import Settings, flatten
from cardioembed.distributed import processes
from cardioembed.evaluation.retrieval import rank_pairs, retrieval_items
from cardioembed.records import Row, atomic_folder, atomic_path, normalise, read_jsonl, sha256, write_json
from cardioembed.training.plan import Plan

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
    steps = plan.total_steps(len(rows), processes())
    print(f"  {len(rows):,} triplets, {steps:,} steps, {len(validation):,} validation pairs, {processes()} process(es)")

    # 2. The frozen base and its adapter. torch takes seconds to import: what needs no model was checked before.
    import torch

    from cardioembed.embedder.adapters import attach_lora, parameter_counts, train_everything
    from cardioembed.embedder.card import model_card
    from cardioembed.embedder.encoder import load_embedder
    from cardioembed.embedder.saving import save_model
    from cardioembed.training.curves import loss_curve
    from cardioembed.training.trainer import Trainer

    need = memory_need(settings, rows)
    print(f"  {need.describe()}")
    model = settings.model.model_dump(exclude={"base", "lora", "fine_tuning"})
    embedder = load_embedder(settings.model.base, device=settings.device, **model)
    torch.manual_seed(settings.seed)
    if settings.model.fine_tuning == "full":
        train_everything(embedder.model)
    else:
        lora, base = settings.model.lora.model_dump(), embedder.base
        embedder.model = attach_lora(embedder.model, **lora, base_reference=base.reference, revision=base.revision)
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
    summary = {
        "base": embedder.base.name,
        "revision": embedder.base.revision,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "triplets": len(rows),
        "steps": progress.step,
        "tokens": progress.tokens,
        "truncated_texts": trainer.batches.truncated,
        "pairs_kept_from_being_false_negatives": progress.masked_pairs,
        "base_validation": dict(zip(("accuracy@1", "mrr"), progress.base_score, strict=True)),
        "best_validation": dict(zip(("accuracy@1", "mrr"), progress.best_score, strict=True)),
        "best_step": progress.best_step,
        "training_data_sha256": sha256(train_path),
    }
    model_path = run.path("03_model")
    with atomic_folder(model_path) as folder:
        save_model(embedder, folder, summary)
        (folder / "README.md").write_text(model_card(embedder, summary), encoding="utf-8")
    curve_path = run.path("03_loss_curve.png")
    with atomic_path(curve_path) as temporary:
        temporary.write_bytes(loss_curve(read_jsonl(log_path), progress.best_step))
    summary_path = run.path("03_training_summary.json")
    write_json(summary_path, {**summary, "seconds_of_this_start": round(time.monotonic() - started, 1)})
    for path in (model_path, log_path, curve_path, summary_path):
        run.wrote(path)
    run.finish({"steps": progress.step, "tokens": progress.tokens}, following="04")


def memory_need(settings: Settings, rows: list[Row]) -> "MemoryEstimate":
    """What training will take, from the base's files; refuses what cannot fit before anything is loaded."""
    from cardioembed.embedder.bases import find_base
    from cardioembed.embedder.loading import choose_device
    from cardioembed.embedder.memory import Workload, check_memory, check_quantization

    model, train = settings.model, settings.train
    folder, device = find_base(model.base).folder, choose_device(settings.device)
    check_quantization(folder, model.quantization, device)
    texts = [text for row in rows[:1000] for text in (row["anchor"], row["positive"], *row["negatives"])]
    per_row = sum(len(text) / CHARACTERS_PER_TOKEN + 2 for text in texts) / min(1000, len(rows))
    work = Workload(
        device=device,
        quantization=model.quantization,
        dtype=model.dtype,
        autocast=train.bf16,
        batch_tokens=round(per_row * min(train.per_device_train_batch_size, len(rows))),
        chunk_tokens=train.chunk_tokens,
        gradient_cache=train.gradient_cache,
        gradient_checkpointing=train.gradient_checkpointing,
        r=model.lora.r if model.fine_tuning == "lora" else 0,
        target_modules=model.lora.target_modules,
        eager_length=model.max_length if model.attn_implementation == "eager" else 0,
    )
    return check_memory(folder, work)


def validate(embedder: "Embedder", rows: list[Row]) -> dict[str, float]:
    """Retrieval of the validation positives by their anchors."""
    anchors, positives = embedder.encode_pairs([row["anchor"] for row in rows], [row["positive"] for row in rows])
    ranked = rank_pairs(
        anchors,
        positives,
        [row["group"] for row in rows],
        [normalise(row["positive"]) for row in rows],
        [row["id"] for row in rows],
    )
    return {name: float(values.mean()) for name, values in retrieval_items(ranked).items()}


def _fingerprint(settings: Settings, embedder: "Embedder", train_hash: str, validation_hash: str) -> dict:
    decides = {key: value for key, value in flatten(settings).items() if key.startswith(("model.", "train.", "seed"))}
    # Who computes a chunk changes nothing; how many rows serve each other as negatives does.
    decides["global_batch_size"] = decides.pop("train.per_device_train_batch_size") * processes()
    for name in ("save_steps", "logging_steps", "report_to"):
        del decides[f"train.{name}"]
    return {**decides, "device": embedder.device.type, "train_sha256": train_hash, "validation_sha256": validation_hash}


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
