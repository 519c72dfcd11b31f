"""All weights of a base train: the model folder is a plain transformers one, and the base is remembered."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from texts import SENTENCES
from transformers import AutoModel

from cardioembed.config import TrainSettings
from cardioembed.embedder.adapters import parameter_counts, train_everything
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

PLAN = {
    **TrainSettings().model_dump(), "per_device_train_batch_size": 6, "learning_rate": 1e-3, "bf16": False,
    "chunk_tokens": 256, "gradient_checkpointing": False, "max_steps": 4, "eval_steps": 1 / 4, "save_steps": 1 / 4,
    "report_to": [], "seed": 7,
}  # fmt: skip
BASES = ["tiny_bert", "tiny_qwen3", "tiny_mpnet"]


def rows(count=12):
    return [
        {
            "id": str(i),
            "group": f"g{i}",
            "anchor": f"{SENTENCES[i % 6]} {i}",
            "positive": f"{i}: {SENTENCES[i % 6]}",
            "negatives": [f"{SENTENCES[(i + 1) % 6]} not"],
        }
        for i in range(count)
    ]


def trainer(base, folder, **changes):
    folder.mkdir(exist_ok=True)
    embedder = load_embedder(str(base), max_length=64, device="cpu")
    train_everything(embedder.model)
    done = Trainer(
        embedder, rows(), Plan(**{**PLAN, **changes}), validate=dict, folder=folder / "checkpoints",
        log_path=folder / "log.jsonl", tensorboard=folder / "tb", fingerprint={},
    )  # fmt: skip
    done.validate = lambda: {"accuracy@1": done.progress.step / 10, "mrr": 0.5}  # the last weights are the best
    return done


def saved(embedder, folder):
    folder.mkdir()
    save_model(embedder, folder, {})
    return folder


def weights(embedder):
    return {name: weight.detach().clone() for name, weight in embedder.model.named_parameters()}


@pytest.mark.parametrize("base", BASES)
def test_it_trains_every_weight_and_opens_everywhere_with_the_same_vectors(base, request, tmp_path):
    base = request.getfixturevalue(base)
    untouched = load_embedder(str(base), max_length=64, device="cpu")
    before, old = untouched.encode(SENTENCES), weights(untouched)
    done = trainer(base, tmp_path)
    embedder = done.embedder
    trainable, total = parameter_counts(embedder.model)
    unused = sum(weight.numel() for name, weight in old.items() if "pooler" in name)
    assert trainable == total - unused
    done.train()
    moved = {name for name, weight in weights(embedder).items() if not torch.equal(weight, old[name])}
    assert {name for name in old if name not in moved and "pooler" not in name} <= {
        name
        for name in old
        if name.endswith(("key.bias", "attn.k.bias"))  # adds the same to every score of a softmax
    }
    vectors = embedder.encode(SENTENCES)
    assert np.abs(vectors - before).max() > 1e-3
    folder = saved(embedder, tmp_path / "m")
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("adapter*"))
    again = load_model(folder, device="cpu")
    assert np.abs(vectors - again.encode(SENTENCES)).max() < 1e-6
    assert np.abs(vectors - SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)).max() < 1e-5
    assert np.abs(load_embedder(str(folder), max_length=64, device="cpu").encode(SENTENCES) - vectors).max() < 1e-6


def test_without_adapter_gives_the_base(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path)
    done.train()
    model = load_model(saved(done.embedder, tmp_path / "m"), device="cpu")
    tuned = model.encode(SENTENCES)
    base = load_embedder(str(tiny_bert), max_length=64, device="cpu").encode(SENTENCES)
    with model.without_adapter():
        assert np.abs(model.encode(SENTENCES) - base).max() < 1e-6
    assert np.array_equal(model.encode(SENTENCES), tuned)
    with pytest.raises(ZeroDivisionError), model.without_adapter():
        raise ZeroDivisionError
    assert np.array_equal(model.encode(SENTENCES), tuned)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(stop, tiny_bert, tmp_path, monkeypatch):
    whole = trainer(tiny_bert, tmp_path / "whole")
    whole.train()
    cut = trainer(tiny_bert, tmp_path / "cut")
    take = cut._step

    def stopping():
        if cut.progress.step == stop:
            raise KeyboardInterrupt
        return take()

    monkeypatch.setattr(cut, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = trainer(tiny_bert, tmp_path / "cut")
    again.train()
    files = [saved(t.embedder, tmp_path / name) / "model.safetensors" for t, name in ((whole, "a"), (again, "b"))]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("change", [{"gradient_cache": True}, {"gradient_checkpointing": True}])
def test_saving_memory_gives_the_same_weights(change, tiny_bert, tmp_path):
    plain, other = (
        trainer(tiny_bert, tmp_path / "a", max_steps=2),
        trainer(tiny_bert, tmp_path / "b", max_steps=2, **change),
    )
    plain.train()
    other.train()
    for name, weight in weights(plain.embedder).items():
        assert torch.allclose(weight, weights(other.embedder)[name], atol=1e-5), name


def test_the_saved_folder_is_a_plain_transformers_model(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path, max_steps=1)
    done.train()
    folder = saved(done.embedder, tmp_path / "m")
    loaded, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    own = weights(done.embedder)
    assert all(torch.equal(weight, own[name]) for name, weight in loaded.named_parameters())
    card = json.loads((folder / "cardioembed.json").read_text(encoding="utf-8"))
    assert card["base"]["name"] == str(tiny_bert)


@pytest.mark.parametrize("base", BASES)
def test_frozen_layers_keep_the_embeddings_and_the_lowest_layers(base, request):
    model = load_embedder(str(request.getfixturevalue(base)), max_length=64, device="cpu").model
    layers = [[*layer.parameters()] for layer in (model.layers if hasattr(model, "layers") else model.encoder.layer)]

    def trains(parameters):
        return {parameter.requires_grad for parameter in parameters}

    assert len(layers) == 2
    for frozen in (0, 1):
        train_everything(model, frozen)
        assert trains(model.get_input_embeddings().parameters()) == {False}
        assert [trains(layer) for layer in layers] == [{frozen == 0}, {True}]
    train_everything(model, None)
    assert trains(model.get_input_embeddings().parameters()) == {True}
    with pytest.raises(UserError, match=r"model\.frozen_layers: 2 would freeze all 2 layers .* to 1, or null"):
        train_everything(model, 2)
