"""Stage 03's summary and card, and its refusal of a run that did nothing."""

import importlib
import json

import numpy as np
import pytest
from architectures import ARCHITECTURES
from huggingface_hub import ModelCard
from test_architectures import prepared, settings_of
from texts import SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError

BERT = next(each for each in ARCHITECTURES if each.config == "bge-small-en-v1.5")


def stage_03(base, folder, *more):
    settings = settings_of(BERT, str(base), folder, "model.dtype=float32", "train.bf16=false", *more)
    prepared(settings, folder)
    importlib.import_module("03_train_embedding_model").main(settings)
    return json.loads((folder / "03_training_summary.json").read_text(encoding="utf-8"))


def test_the_summary_tells_data_results_drift_and_costs(tiny_bert, tmp_path):
    summary = stage_03(tiny_bert, tmp_path / "run")
    assert (summary["steps"], summary["global_batch"], summary["triplets"], summary["processes"]) == (2, 4, 8, 1)
    assert (summary["lora_B"]["count"], summary["lora_B"]["zero"]) == (4, 0)  # query and value of two layers
    assert summary["probe_drift"] > 1e-6
    assert summary["peak_memory_bytes"] > 1e7
    assert 0 <= summary["padding"] < 1
    assert summary["tokens"] / summary["tokens_per_second"] == pytest.approx(summary["seconds_of_steps"], abs=0.06)
    assert summary["settings"]["train.temperature"] == 0.05
    # What the model's folder says of itself does not depend on the machine's speed.
    kept = json.loads((tmp_path / "run/03_model/cardioembed.json").read_text(encoding="utf-8"))["training"]
    assert set(summary) - set(kept) == {
        "tokens_per_second", "seconds_of_steps", "padding", "peak_memory_bytes", "processes", "device",
        "seconds_of_this_start",
    }  # fmt: skip
    assert ModelCard((tmp_path / "run/03_model/README.md").read_text(encoding="utf-8")).data.eval_results


def test_full_fine_tuning_through_the_stage(tiny_bert, tmp_path):
    summary = stage_03(tiny_bert, tmp_path / "run", "model.fine_tuning=full", "train.learning_rate=1e-3")
    assert summary["lora_B"] is None
    assert summary["probe_drift"] > 1e-6
    model = load_model(tmp_path / "run/03_model", device="cpu")
    with model.without_adapter():
        vectors = model.encode(SENTENCES)
    assert np.abs(vectors - load_embedder(str(tiny_bert), max_length=64, device="cpu").encode(SENTENCES)).max() < 1e-6


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_training_that_changed_nothing_is_refused(tuning, tiny_bert, tmp_path):
    with pytest.raises(UserError, match="training changed nothing"):
        stage_03(tiny_bert, tmp_path / "run", "train.learning_rate=1e-9", f"model.fine_tuning={tuning}")
    assert not (tmp_path / "run/03_model").exists()
