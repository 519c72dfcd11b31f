"""Checks around training: what the base is before it, and whether it did anything."""

import importlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from texts import SENTENCES

from cardioembed.config import Settings
from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.bases import find_base
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.loading import choose_attention, read_config
from cardioembed.embedder.memory import activation_bytes
from cardioembed.errors import UserError
from cardioembed.training.checkpoints import Progress
from cardioembed.training.checks import check_objective, probe_drift, validate
from cardioembed.training.plan import Plan
from cardioembed.training.summary import lora_b_norms, throughput, training_costs, training_summary


def lora(base):
    embedder = load_embedder(str(base), max_length=64, device="cpu")
    embedder.model = attach_lora(
        embedder.model, r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", base_reference="x",
        revision=None,
    )  # fmt: skip
    return embedder


def test_drift_is_one_minus_cosine_in_the_mean():
    before = np.float32([[1, 0], [1, 0], [0, 1]])
    after = np.float32([[1, 0], [0.6, 0.8], [1, 0]])
    assert probe_drift(before, after) == pytest.approx((0 + 0.4 + 1) / 3)


def test_one_text_that_moved_is_enough():
    before = np.float32([[1, 0], [1, 0]])
    after = np.float32([[1, 0], [np.cos(0.01), np.sin(0.01)]])
    assert probe_drift(before, after) == pytest.approx(0.01**2 / 4, rel=1e-3)


@pytest.mark.parametrize("angle", [0, 1e-3])  # 1 - cos(1e-3) is 5e-7
def test_no_drift_is_refused_with_advice(angle):
    after = np.float32([[np.cos(angle), np.sin(angle)]])
    with pytest.raises(UserError, match=r"training changed nothing: .*Train longer .*raise\s+train\.learning_rate"):
        probe_drift(np.float32([[1, 0]]), after)


def test_vectors_that_are_not_numbers_are_no_drift():
    with pytest.raises(UserError, match="training changed nothing"):
        probe_drift(np.float32([[1, 0]]), np.float32([[np.nan, np.nan]]))


def test_an_untrained_adapter_has_no_drift_and_one_with_weights_has(tiny_bert):
    embedder = lora(tiny_bert)
    with embedder.without_adapter():
        before = embedder.encode(SENTENCES)
    with pytest.raises(UserError, match="training changed nothing"):
        probe_drift(before, embedder.encode(SENTENCES))
    assert lora_b_norms(embedder.model) == {"count": 12, "zero": 12, "smallest_norm": 0, "mean_norm": 0}
    with torch.no_grad():
        for name, weight in adapter_weights(embedder.model).items():
            if "lora_B" in name and "layer.0" in name:
                weight.fill_(0.1)
    assert probe_drift(before, embedder.encode(SENTENCES)) > 1e-4
    norms = lora_b_norms(embedder.model)
    assert (norms["count"], norms["zero"], norms["smallest_norm"]) == (12, 6, 0)
    assert norms["mean_norm"] > 0


def test_a_model_without_adapter_has_no_lora_b(tiny_bert):
    assert lora_b_norms(load_embedder(str(tiny_bert), max_length=64, device="cpu").model) is None


def test_throughput_weighs_steps_by_their_tokens():
    log = [
        {"step": 0, "validation_mrr": 0.5},
        {"step": 1, "loss": 1.0, "tokens": 300, "tokens_per_second": 100.0, "padding": 0.5},
        {"step": 2, "loss": 1.0, "tokens": 100, "tokens_per_second": 100.0, "padding": 0.0},
    ]
    # 400 tokens in 4 s, 700 with padding; the run had 800 tokens, half of them in steps that were not logged.
    expected = {"tokens_per_second": 100.0, "seconds_of_steps": 8.0, "padding": round(3 / 7, 4)}
    assert throughput(log, 800) == expected
    assert throughput(log[:1], 0) == {}
    costs = training_costs(log, 800, torch.device("cpu"))
    assert costs.items() >= {**expected, "processes": 1, "device": "cpu"}.items()
    assert costs["peak_memory_bytes"] > 1e7


def test_summary_counts_rows_and_books(tiny_bert):
    embedder = lora(tiny_bert)
    progress = Progress(step=4, base_score=[0.5, 0.6], best_step=2, best_score=[0.7, 0.8], masked_pairs=3, tokens=99)
    summary = training_summary(embedder, progress, [{"source": "a"}, {"source": "b"}, {"source": "a"}, {}])
    assert (summary["triplets"], summary["books"], summary["steps"], summary["best_step"]) == (4, 2, 4, 2)
    assert summary["base_validation"] == {"accuracy@1": 0.5, "mrr": 0.6}
    assert summary["best_validation"] == {"accuracy@1": 0.7, "mrr": 0.8}
    assert summary["trainable_parameters"] == sum(w.numel() for w in adapter_weights(embedder.model).values())


def test_validation_finds_each_positive_among_all(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    rows = [{"id": str(i), "group": str(i), "anchor": text, "positive": text} for i, text in enumerate(SENTENCES)]
    scores = validate(embedder, rows)
    assert scores["accuracy@1"] == scores["mrr"] == 1
    assert scores["mean_similarity"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("quantization", "value"), [("none", "nan"), ("none", "-inf"), ("int8", "nan"), ("nf4", "nan")]
)
def test_a_base_with_nan_is_refused_and_the_weight_named(quantization, value, tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][3, 5] = float(value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"contain NaN or infinity in encoder\.layer\.1\.output\.dense\.weight"):
        load_embedder(str(folder), max_length=64, device="cpu", quantization=quantization)


def test_a_loss_that_rows_or_base_cannot_have_is_refused():
    plan = Plan(**Settings().train.model_dump(), seed=1)
    with_one, without = [{"negatives": ["a"]}], [{"negatives": []}]
    check_objective(plan, without, 64)
    check_objective(replace(plan, loss="triplet_margin", matryoshka_dims=[64, 8]), with_one, 64)
    with pytest.raises(UserError, match=r"triplet_margin compares with negatives, and 1 of 2 rows have none"):
        check_objective(replace(plan, loss="triplet_margin"), with_one + without, 64)
    with pytest.raises(UserError, match=r"matryoshka_dims: 65 is above the 64 dimensions"):
        check_objective(replace(plan, matryoshka_dims=[65, 8]), with_one, 64)


@pytest.mark.parametrize(
    ("base", "automatic"),
    [
        ("tiny_gemma2", "eager"),
        ("tiny_mpnet", "eager"),
        ("tiny_bert", "sdpa"),
        ("tiny_qwen3", "sdpa"),
        ("tiny_jina", None),
    ],
)
def test_automatic_attention_is_known_before_loading_and_counted(base, automatic, request, monkeypatch):
    folder = request.getfixturevalue(base)
    config = read_config(find_base(str(folder)))
    assert choose_attention(config, "auto") == automatic
    assert choose_attention(config, "eager") == "eager"
    loaded = load_embedder(str(folder), max_length=64, device="cpu").model.config._attn_implementation
    assert (loaded == "eager") == (automatic == "eager")
    seen = []
    monkeypatch.setattr("cardioembed.embedder.memory.check_memory", lambda folder, work: seen.append(work))
    stage = importlib.import_module("03_train_embedding_model")
    settings = Settings(model={"base": str(folder), "quantization": "none", "max_length": 64}, device="cpu")
    rows = [
        {"anchor": "x" * 40, "positive": "x" * 72, "negatives": ["x" * 4000]},
        {"anchor": "", "positive": "", "negatives": []},
    ]
    stage.memory_need(settings, rows)
    assert seen[0].eager_length == (64 if automatic == "eager" else 0)  # a long text is cut at max_length
    assert seen[0].batch_tokens == 12 + 20 + 64 + 2 * 2
    if automatic == "eager":
        assert activation_bytes(folder, seen[0]) > activation_bytes(folder, replace(seen[0], eager_length=0))
