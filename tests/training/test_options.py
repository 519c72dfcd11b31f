"""Every training option through the trainer, on a tiny base."""

import json
import math

import numpy as np
import pytest
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from texts import SENTENCES
from transformers import AutoModel

from cardioembed.config import TrainSettings
from cardioembed.embedder.adapters import attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.pooling import pool
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError
from cardioembed.training import losses
from cardioembed.training.batches import Batches, without_final_punctuation
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

PLAN = {
    **TrainSettings().model_dump(), "per_device_train_batch_size": 6, "learning_rate": 5e-3, "bf16": False,
    "dataloader_drop_last": False, "chunk_tokens": 256, "gradient_checkpointing": False, "num_train_epochs": 2,
    "eval_steps": 2, "save_steps": 2, "report_to": [], "seed": 42,
}  # fmt: skip


def rows(negatives=1, count=12):
    words = "thrombus stenosis valve rhythm pacing infarct murmur pressure gradient oedema aorta septum".split()
    return [
        {
            "id": str(i),
            "group": f"g{i}",
            "anchor": f"{SENTENCES[i % 6]} {words[i]}",
            "positive": f"{words[i]} {i}: {SENTENCES[i % 6]}",
            "negatives": [f"{words[(i + 5 + k) % 12]} is not meant here" for k in range(negatives)],
        }
        for i in range(count)
    ]


def trainer(base, folder, *, data=None, scores=None, lora=None, **changes):
    """A trainer whose validations give ``scores`` one after the other, or measure the rows it trains on."""
    folder.mkdir(exist_ok=True)
    embedder = load_embedder(str(base), max_length=64, device="cpu")
    torch.manual_seed(0)
    embedder.model = attach_lora(
        embedder.model, target_modules="all-linear", base_reference=str(base), revision=None,
        **{"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, **(lora or {})},
    )  # fmt: skip
    data = rows() if data is None else data
    told = iter(scores or ())

    def validate():
        if scores is not None:
            return {"accuracy@1": next(told), "mrr": 0.5}
        anchors, positives = embedder.encode_pairs([r["anchor"] for r in data], [r["positive"] for r in data])
        own = (anchors * positives).sum(1)
        return {"accuracy@1": float((own >= (anchors @ positives.T).max(1) - 1e-6).mean()), "mrr": float(own.mean())}

    plan = {**PLAN, **changes}
    return Trainer(
        embedder, data, Plan(**plan), validate=validate, folder=folder / "checkpoints", log_path=folder / "log.jsonl",
        tensorboard=folder / "tb", fingerprint=plan,
    )  # fmt: skip


def weights_of(done):
    return {name: weight.detach().clone() for name, weight in done.weights.items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log_of(folder, key):
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[key] for row in map(json.loads, lines) if key in row]


def stop_before(done, step, monkeypatch):
    take = done._step

    def stopping():
        if done.progress.step == step:
            raise KeyboardInterrupt
        return take()

    monkeypatch.setattr(done, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        done.train()


def assert_a_stop_changes_nothing(base, folder, monkeypatch, **options):
    """Stopped before its fourth step and started again, a run ends with the weights of one that was not."""
    whole = trainer(base, folder / "whole", scores=[0.1] * 9, **options)
    whole.train()
    stop_before(trainer(base, folder / "parts", scores=[0.1] * 9, **options), 3, monkeypatch)
    resumed = trainer(base, folder / "parts", scores=[0.1] * 9, **options)
    resumed.train()
    assert equal(weights_of(whole), weights_of(resumed))


def margin(anchors, positives, negatives, distance):
    return losses.triplet_margin(anchors, positives, negatives, 0.3, distance)


def nested(anchors, positives, negatives, dims, weights):
    total = 0
    for dim, weight in zip(dims, weights, strict=True):
        cut = [torch.nn.functional.normalize(x[..., :dim], dim=-1) for x in (anchors, positives, negatives)]
        total += weight * losses.info_nce(*cut, 0.05)
    return total


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"symmetric": True}, lambda *v: losses.info_nce(*v, 0.05, symmetric=True)),
        ({"false_negative_margin": -0.05}, lambda *v: losses.info_nce(*v, 0.05, false_negative_margin=-0.05)),
        ({"loss": "multiple_negatives_ranking"}, lambda *v: losses.multiple_negatives_ranking(*v, 0.05)),
        (
            {"loss": "multiple_negatives_ranking", "symmetric": True, "false_negative_margin": 0.0},
            lambda *v: losses.multiple_negatives_ranking(*v, 0.05, symmetric=True, false_negative_margin=0.0),
        ),
        ({"loss": "triplet_margin", "triplet_margin": 0.3}, lambda *v: margin(*v, "euclidean")),
        (
            {"loss": "triplet_margin", "triplet_margin": 0.3, "triplet_distance": "cosine"},
            lambda *v: margin(*v, "cosine"),
        ),
        ({"matryoshka_dims": [64, 16]}, lambda *v: nested(*v, [64, 16], [1, 1])),
        (
            {"matryoshka_dims": [32, 8], "matryoshka_weights": [1.0, 0.25]},
            lambda *v: nested(*v, [32, 8], [1.0, 0.25]),
        ),
        ({"gradient_cache": True, "symmetric": True}, lambda *v: losses.info_nce(*v, 0.05, symmetric=True)),
    ],
)
def test_the_loss_is_the_one_asked_for_and_falls(changes, expected, tiny_bert, tmp_path):
    """The first step's loss is that of the base's own vectors, since an adapter starts as nothing."""
    data = rows(negatives=2)
    done = trainer(tiny_bert, tmp_path, data=data, per_device_train_batch_size=12, num_train_epochs=5, **changes)
    encode = done.embedder.encode
    anchors, positives = (torch.tensor(encode([row[side] for row in data])) for side in ("anchor", "positive"))
    negatives = torch.tensor(np.stack([encode(row["negatives"]) for row in data]))
    first = float(expected(anchors, positives, negatives))
    assert abs(first - float(losses.info_nce(anchors, positives, negatives, 0.05))) > 1e-3
    done.train()
    seen = log_of(tmp_path, "loss")
    assert seen[0] == pytest.approx(first, rel=1e-4)
    if "false_negative_margin" not in changes:  # whose loss takes in more documents as training tells them apart
        assert seen[-1] < seen[0]


@pytest.mark.parametrize(
    ("kind", "after_warmup"),
    [
        ("cosine", [1, 0.5 * (1 + math.cos(math.pi / 3)), 0.5 * (1 + math.cos(2 * math.pi / 3))]),
        ("linear", [1, 2 / 3, 1 / 3]),
        ("constant_with_warmup", [1, 1, 1]),
    ],
)
def test_the_learning_rate_warms_up_and_goes_the_way_asked_for(kind, after_warmup, tiny_bert, tmp_path):
    trainer(tiny_bert, tmp_path, lr_scheduler_type=kind, warmup_ratio=0.25, scores=[0.1] * 4).train()
    assert log_of(tmp_path, "learning_rate") == pytest.approx([5e-3 * share for share in [1, *after_warmup]])


def test_early_stopping_counts_stale_validations_and_ends_once(tiny_bert, tmp_path):
    changes = {"early_stopping_patience": 2, "eval_steps": 1 / 9, "save_steps": 100, "max_steps": 9}
    scores = [0.1, 0.5, 0.4, 0.6, 0.6, 0.2, 0.9]
    done = trainer(tiny_bert, tmp_path, scores=scores, **changes)
    progress = done.train()
    # Better at 1 and 3; 4 (no better than 3) and 5 are stale; 6 would have been the best.
    assert (progress.step, progress.best_step, progress.stale) == (5, 3, 2)
    before = (tmp_path / "log.jsonl").read_bytes()
    again = trainer(tiny_bert, tmp_path, scores=[], **changes)
    assert again.train() == progress
    assert equal(weights_of(again), weights_of(done))
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_stop_amid_stale_validations_is_not_forgotten(tiny_bert, tmp_path, monkeypatch):
    changes = {"early_stopping_patience": 2, "eval_steps": 1 / 9, "save_steps": 1 / 9, "max_steps": 9}
    scores = [0.1, 0.5, 0.4, 0.3, 0.9]
    stop_before(trainer(tiny_bert, tmp_path, scores=scores[:3], **changes), 2, monkeypatch)
    assert trainer(tiny_bert, tmp_path, scores=scores[3:], **changes).train().step == 3


def test_without_patience_all_steps_are_taken(tiny_bert, tmp_path):
    assert trainer(tiny_bert, tmp_path, scores=[0.9, 0.5, 0.4], max_steps=4).train().step == 4


@pytest.mark.parametrize("mean_score", [0.9, 0.2])
def test_the_mean_of_the_last_weights_is_kept_if_it_is_better(mean_score, tiny_bert, tmp_path):
    changes = {"average_checkpoints": 2, "eval_steps": 1 / 4, "max_steps": 4}
    done = trainer(tiny_bert, tmp_path, scores=[0.1, 0.3, 0.5, 0.4, 0.2, mean_score], **changes)
    seen, validate = [], done.validate
    done.validate = lambda: (seen.append(weights_of(done)), validate())[1]
    progress = done.train()
    mean = {name: (seen[3][name] + seen[4][name]) / 2 for name in seen[0]}
    assert len(seen) == 6
    assert all(torch.allclose(seen[5][name], mean[name]) for name in mean)
    if mean_score == 0.9:
        assert equal(weights_of(done), seen[5])
        assert (progress.best_step, progress.best_score[0]) == (4, 0.9)
    else:
        assert equal(weights_of(done), seen[2])
        assert (progress.best_step, progress.best_score[0]) == (2, 0.5)


@pytest.mark.parametrize("stop", [1, 3])
def test_averaging_goes_on_after_a_stop_with_the_same_result(stop, tiny_bert, tmp_path, monkeypatch):
    changes = {"average_checkpoints": 3, "eval_steps": 1 / 4, "save_steps": 1 / 4, "max_steps": 4}
    whole = trainer(tiny_bert, tmp_path / "whole", **changes)
    whole.train()
    stop_before(trainer(tiny_bert, tmp_path / "cut", **changes), stop, monkeypatch)
    cut = trainer(tiny_bert, tmp_path / "cut", **changes)
    assert cut.train() == whole.progress
    assert equal(weights_of(cut), weights_of(whole))
    assert log_of(tmp_path / "cut", "validation_mrr") == log_of(tmp_path / "whole", "validation_mrr")


@pytest.mark.parametrize("mean_score", [0.9, 0.2])
def test_an_averaged_run_that_is_over_does_nothing_more(mean_score, tiny_bert, tmp_path):
    changes = {"average_checkpoints": 2, "eval_steps": 1 / 4, "save_steps": 1 / 4, "max_steps": 4}
    done = trainer(tiny_bert, tmp_path, scores=[0.1, 0.3, 0.5, 0.4, 0.2, mean_score], **changes)
    progress, before = done.train(), (tmp_path / "log.jsonl").read_bytes()
    again = trainer(tiny_bert, tmp_path, scores=[], **changes)
    assert again.train() == progress
    assert equal(weights_of(again), weights_of(done))
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_checkpoint_before_the_first_validation_is_one_to_go_on_from(tiny_bert, tmp_path, monkeypatch):
    changes = {"save_steps": 1 / 4, "eval_steps": 4}
    whole = trainer(tiny_bert, tmp_path / "whole", **changes)
    whole.train()
    stop_before(trainer(tiny_bert, tmp_path / "cut", **changes), 2, monkeypatch)
    cut = trainer(tiny_bert, tmp_path / "cut", **changes)
    assert cut.train() == whole.progress
    assert equal(weights_of(cut), weights_of(whole))


def test_max_steps_ends_within_and_beyond_the_epochs(tiny_bert, tmp_path):
    for steps in (1, 7):
        done = trainer(tiny_bert, tmp_path / str(steps), max_steps=steps, num_train_epochs=2)
        assert done.train().step == steps
        assert log_of(tmp_path / str(steps), "epoch")[-1] == steps / 2


@pytest.mark.parametrize("loss", ["info_nce", "multiple_negatives_ranking"])
@pytest.mark.parametrize("more", [{}, {"symmetric": True, "false_negative_margin": 0.1, "matryoshka_dims": [64, 8]}])
def test_rows_without_negatives_train_on_those_of_the_batch(loss, more, tiny_bert, tmp_path):
    data = rows(negatives=0)
    trainer(
        tiny_bert, tmp_path, data=data, loss=loss, per_device_train_batch_size=12, num_train_epochs=4, **more
    ).train()
    seen = log_of(tmp_path, "loss")
    assert seen[-1] < seen[0]


def test_no_tracker_leaves_the_log_alone(tiny_bert, tmp_path):
    trainer(tiny_bert, tmp_path, scores=[0.1, 0.2], max_steps=1, report_to=[]).train()
    assert not (tmp_path / "tb").exists()
    assert len(log_of(tmp_path, "loss")) == 1


def test_tensorboard_has_every_number_of_the_log(tiny_bert, tmp_path):
    trainer(tiny_bert, tmp_path, scores=[0.1, 0.2, 0.3], max_steps=3, report_to=["tensorboard"]).train()
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    for name in ("loss", "learning_rate", "validation_accuracy@1"):
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx(log_of(tmp_path, name))
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_that_is_not_installed_says_what_to_do(name, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr("cardioembed.training.plan.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"train\.report_to: {name} is not installed; pip install {name}, or take it"):
        trainer(tiny_bert, tmp_path, scores=[0.1], report_to=[name]).train()


@pytest.mark.parametrize("lora", [{"use_rslora": True}, {"use_dora": True}, {"use_rslora": True, "use_dora": True}])
def test_other_adapters_train_and_open_everywhere_with_the_same_vectors(lora, tiny_bert, tmp_path):
    data = rows()
    done = trainer(tiny_bert, tmp_path, data=data, lora={**lora, "r": 8}, max_steps=3)
    done.train()
    config = done.embedder.model.peft_config["default"]
    assert {name: getattr(config, name) for name in lora} == lora
    vectors = done.embedder.encode(SENTENCES)
    with done.embedder.without_adapter():
        assert np.abs(vectors - done.embedder.encode(SENTENCES)).max() > 1e-3
    folder = tmp_path / "m"
    folder.mkdir()
    save_model(done.embedder, folder, {})
    assert np.abs(vectors - load_model(folder, device="cpu").encode(SENTENCES)).max() < 1e-5
    assert np.abs(vectors - SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)).max() < 1e-5
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_bert), folder).eval()
    batch = done.embedder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], "cls"), dim=-1)
    assert np.abs(vectors - pooled.numpy()).max() < 1e-5


def test_rslora_scales_by_the_root_of_the_rank(tiny_bert, tmp_path):
    for use, expected in ((False, 16 / 4), (True, 16 / 2)):
        lora = {"r": 4, "lora_alpha": 16, "use_rslora": use}
        model = trainer(tiny_bert, tmp_path, lora=lora).embedder.model
        scales = {m.scaling["default"] for m in model.modules() if isinstance(getattr(m, "scaling", None), dict)}
        assert scales == {expected}


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_interpolation_keeps_a_share_of_what_was_learned(share, tiny_bert, tmp_path):
    options = {"data": rows(), "num_train_epochs": 3}
    whole = trainer(tiny_bert, tmp_path / "whole", **options)
    whole.train()
    part = trainer(tiny_bert, tmp_path / "part", interpolation=share, **options)
    part.train()
    trained, kept = weights_of(whole), weights_of(part)
    for name in (name for name in trained if "lora_B" in name):
        mate = name.replace("lora_B", "lora_A")
        torch.testing.assert_close(kept[name] @ kept[mate], share * trained[name] @ trained[mate])
    measured = part.validate()
    assert part.progress.best_score == [measured["accuracy@1"], measured["mrr"]]
    assert part.progress.best_score != whole.progress.best_score


def test_interpolation_of_a_resumed_run_starts_from_the_base(tiny_bert, tmp_path, monkeypatch):
    assert_a_stop_changes_nothing(tiny_bert, tmp_path, monkeypatch, interpolation=0.5)


def test_final_punctuation_is_left_out_of_a_share_of_the_texts(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    data = [
        row
        | {"anchor": f"{row['anchor']}.", "positive": f"Is it {row['positive'].rstrip('.')}?", "negatives": ["no mark"]}
        for row in rows()
    ]
    whole, some = Batches(embedder, data, 6, 2, seed=1), Batches(embedder, data, 6, 2, seed=1, bare=0.5)
    shorter = [
        [len(a) - len(b) for a, b in zip(whole.at(step).sequences, some.at(step).sequences, strict=True)]
        for step in range(20)
    ]
    assert {length for lengths in shorter for length in lengths} == {0, 1}
    assert {length for lengths in shorter for length in lengths[12:]} == {0}  # the negatives have none to lose
    assert 0.4 < np.mean([lengths[:12] for lengths in shorter]) < 0.6
    assert shorter[0] != shorter[2]  # the same rows again, other marks
    assert some.at(3).sequences == Batches(embedder, data, 6, 2, seed=1, bare=0.5).at(3).sequences
    every = Batches(embedder, data, 6, 2, seed=1, bare=1.0).at(0)
    assert not {sequence[-2] for sequence in every.sequences} & set(embedder.tokenize([". ?"])[0][0][1:-1])


@pytest.mark.parametrize(("text", "bare"), [("Wait.", "Wait"), ("Is it? ", "Is it"), ("...", "..."), ("a.b", "a.b")])
def test_without_final_punctuation(text, bare):
    assert without_final_punctuation(text) == bare
