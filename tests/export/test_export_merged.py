"""Whole weights: their vectors here, in transformers and in sentence-transformers; drift; what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from texts import SENTENCES
from trained_models import trained
from transformers import AutoModel, AutoTokenizer

from cardioembed.embedder.pooling import pool
from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError
from cardioembed.export.checks import stored_dtype
from cardioembed.export.merging import measure_drift, merge_adapter
from cardioembed.export.writing import export_model

BASES = ["tiny_bert", "tiny_qwen3", "tiny_xlm_roberta", "tiny_mpnet"]


def plain_vectors(folder, texts, pooling):
    """By transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    return torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], pooling), dim=-1).numpy()


@pytest.mark.parametrize("base", BASES)
def test_merged_opens_here_in_transformers_and_in_sentence_transformers(base, request, tmp_path):
    base = request.getfixturevalue(base)
    embedder = trained(base, tmp_path / "m")
    query = embedder.recipe.anchor_prompt
    vectors = embedder.encode(SENTENCES, prompt_name=query)
    with embedder.without_adapter():
        assert np.abs(vectors - embedder.encode(SENTENCES, prompt_name=query)).max() > 0.01
    out = tmp_path / "out"
    report = export_model(tmp_path / "m", out, device="cpu")
    assert report["drift"]["worst"] < 1e-6
    again = load_model(out, device="cpu")
    assert np.abs(vectors - again.encode(SENTENCES, prompt_name=query)).max() < 1e-5
    peer = SentenceTransformer(str(out), device="cpu")
    assert np.abs(vectors - peer.encode(SENTENCES, prompt_name=query)).max() < 1e-5
    if base.name.startswith("tiny-qwen3"):
        assert np.abs(vectors - peer.encode(SENTENCES)).max() > 1e-3  # the prompt does something
    texts = [embedder.prompt_text(query) + text for text in SENTENCES]
    assert np.abs(vectors - plain_vectors(out, texts, embedder.recipe.pooling)).max() < 1e-5
    assert not list(out.glob("adapter*"))


@pytest.mark.parametrize("base", BASES)
def test_sentence_transformers_folder_holds_nothing_of_ours_and_gives_our_vectors(base, request, tmp_path):
    embedder = trained(request.getfixturevalue(base), tmp_path / "m")
    export_model(tmp_path / "m", tmp_path / "out", format="sentence-transformers", device="cpu")
    assert not (tmp_path / "out" / "cardioembed.json").exists()
    peer = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for side in {embedder.recipe.anchor_prompt, embedder.recipe.positive_prompt}:
        ours = embedder.encode([*SENTENCES, "stenosis " * 200], prompt_name=side)
        assert np.abs(ours - peer.encode([*SENTENCES, "stenosis " * 200], prompt_name=side)).max() < 1e-5


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"use_rslora": True}])
def test_every_kind_of_adapter_merges(kind, tiny_bert, tmp_path):
    vectors = trained(tiny_bert, tmp_path / "m", **kind).encode(SENTENCES)
    export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    assert np.abs(vectors - load_model(tmp_path / "out", device="cpu").encode(SENTENCES)).max() < 1e-5


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_model_merges_into_the_unquantised_base(quantization, tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m", quantization=quantization)
    report = export_model(tmp_path / "m", tmp_path / "out", device="cpu", max_drift=1)
    assert report["trained_on"] == quantization
    assert report["dtype"] == "float32"
    weights, base = load_file(tmp_path / "out" / "model.safetensors"), load_file(tiny_bert / "model.safetensors")
    adapter = load_file(tmp_path / "m" / "adapter_model.safetensors")
    name = "encoder.layer.0.attention.self.query"
    a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    assert torch.allclose(weights[f"{name}.weight"], base[f"{name}.weight"] + 2 * b @ a, atol=1e-6)
    untouched = "embeddings.word_embeddings.weight"
    assert torch.equal(weights[untouched], base[untouched])
    assert report["drift"]["worst"] > 1e-5  # the quantisation's own error, which is gone


def test_weights_take_the_base_files_dtype_unless_told(tiny_bert, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(tiny_bert, half)
    weights = {name: weight.bfloat16() for name, weight in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    assert (stored_dtype(half), stored_dtype(tiny_bert)) == ("bfloat16", "float32")
    embedder = trained(half, tmp_path / "m")
    for asked, dtype in (("auto", torch.bfloat16), ("float32", torch.float32)):
        out = tmp_path / asked
        report = export_model(tmp_path / "m", out, dtype=asked, device="cpu", max_drift=0.01)
        assert {weight.dtype for weight in load_file(out / "model.safetensors").values()} == {dtype}
        assert load_model(out, device="cpu").recipe.dtype == str(dtype).removeprefix("torch.")
        cosines = (embedder.encode(SENTENCES) * load_model(out, device="cpu").encode(SENTENCES)).sum(1)
        assert 1 - cosines.min() < (1e-6 if asked == "float32" else 0.01)
    assert report["drift"]["worst"] < 1e-6


def test_merging_never_happens_in_place_into_a_quantised_base(tiny_bert, tmp_path):
    embedder = trained(tiny_bert, tmp_path / "m", quantization="int8")
    with pytest.raises(ValueError, match="is quantised"):
        merge_adapter(embedder.model)


def test_drift_above_the_limit_is_refused_and_nothing_is_written(tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m", quantization="nf4")
    with pytest.raises(UserError, match=r"drift .* more than 1e-05; worst: .* trained on nf4.*Nothing was written"):
        export_model(tmp_path / "m", tmp_path / "out", device="cpu", max_drift=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_drift_is_one_minus_cosine_and_names_the_worst_text():
    before = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    after = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    drift = measure_drift(before, after, ["a", "b"])  # two prompts, two texts
    assert (drift.texts, drift.worst_text) == (2, "a")
    assert drift.worst == pytest.approx(0.4)
    assert drift.mean == pytest.approx(0.15)
    assert measure_drift(before, after * np.nan, ["a", "b"]).worst == 2


def test_given_texts_count_towards_the_drift(tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m")
    alone = export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    more = export_model(tmp_path / "m", tmp_path / "out", device="cpu", texts=SENTENCES)
    assert more["drift"]["texts"] == alone["drift"]["texts"] + 6


def test_a_fully_tuned_model_is_whole_and_opens_without_its_base(tiny_qwen3, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_qwen3, base)
    vectors = trained(base, tmp_path / "m", full=True).encode(SENTENCES)
    report = export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    assert not report["adapter_merged"]
    assert report["drift"]["worst"] < 1e-6
    shutil.rmtree(base)
    model = load_model(tmp_path / "out", device="cpu")
    assert np.abs(vectors - model.encode(SENTENCES)).max() < 1e-6
    with pytest.raises(UserError, match=r"model\.base"), model.without_adapter():
        pass


def test_a_merged_model_compares_with_its_base_where_that_is_named(tiny_bert, tmp_path):
    embedder = trained(tiny_bert, tmp_path / "m")
    export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    with embedder.without_adapter():
        expected = embedder.encode(SENTENCES)
    model = load_model(tmp_path / "out", device="cpu", base=str(tiny_bert))
    with model.without_adapter():
        assert np.abs(model.encode(SENTENCES) - expected).max() < 1e-6


def test_a_jinabert_merges_for_this_project_only(tiny_jina, tmp_path):
    vectors = trained(tiny_jina, tmp_path / "m").encode(SENTENCES)
    export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    assert np.abs(vectors - load_model(tmp_path / "out", device="cpu").encode(SENTENCES)).max() < 1e-5
    for folder in ("m", "out"):
        with pytest.raises(UserError, match=r"is a JinaBERT.*--format onnx"):
            export_model(tmp_path / folder, tmp_path / "peer", format="sentence-transformers", device="cpu")


def test_the_card_says_merged_with_the_numbers_and_no_path_travels(tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m")
    out = tmp_path / "out"
    report = export_model(tmp_path / "m", out, device="cpu")
    text = (out / "README.md").read_text()
    assert f"A LoRA adapter merged into the local base `{tiny_bert.name}`" in text
    assert f"worst {report['drift']['worst']:.2g}" in text
    assert "peft" not in ModelCard(text).data.tags
    for path in out.rglob("*"):
        if path.suffix in (".json", ".md"):
            assert str(tiny_bert.parent) not in path.read_text(), path.name
    written = json.loads((out / "export.json").read_text())
    assert written == {key: value for key, value in report.items() if key != "worst_text"}


def test_an_export_is_replaced_and_other_files_are_not(tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m")
    export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    (tmp_path / "out" / "stray").touch()
    export_model(tmp_path / "m", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "stray").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty and not an export"):
        export_model(tmp_path / "m", tmp_path / "mine", device="cpu")
    for out in (tmp_path / "m", tmp_path / "m" / "inside", tmp_path):
        with pytest.raises(UserError, match="is, holds or lies in the model's folder"):
            export_model(tmp_path / "m", out, device="cpu")


def test_a_base_stored_quantised_is_refused(tiny_bert, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    weights = {name: weight.to(torch.int8) for name, weight in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"holds its weights as I8.*--base"):
        stored_dtype(base)
