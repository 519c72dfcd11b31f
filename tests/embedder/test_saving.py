import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from texts import MINILM, SENTENCES
from transformers import AutoModel

from cardioembed.embedder.adapters import adapter_weights, attach_lora, linear_names, parameter_counts
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.pooling import pool
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError

BASES = ["tiny_bert", "tiny_qwen2", "tiny_qwen3"]


def trained(base, folder, *, quantization="none", target_modules="all-linear"):
    """A model whose adapter is not the identity, saved to ``folder``."""
    embedder = load_embedder(base, max_length=64, device="cpu", quantization=quantization)
    torch.manual_seed(3)
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.05, target_modules=target_modules,
        base_reference=embedder.base.reference, revision=embedder.base.revision,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in adapter_weights(embedder.model).items():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    embedder.model.eval()
    folder.mkdir()
    save_model(embedder, folder, {"triplets": 1})
    return embedder


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("base", BASES)
def test_saved_model_opens_here_and_in_sentence_transformers_with_the_same_vectors(
    base, quantization, request, tmp_path
):
    embedder = trained(str(request.getfixturevalue(base)), tmp_path / "m", quantization=quantization)
    vectors = embedder.encode(SENTENCES)
    with embedder.without_adapter():
        assert np.abs(vectors - embedder.encode(SENTENCES)).max() > 0.01
    assert np.abs(vectors - load_model(tmp_path / "m", device="cpu").encode(SENTENCES)).max() < 1e-5
    peer = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    # bitsandbytes quantises each batch's activations together, so only equal batches are comparable there.
    if quantization == "none":
        assert np.abs(vectors - peer.encode(SENTENCES)).max() < 1e-5
    else:
        single = np.stack([embedder.encode(text) for text in SENTENCES])
        assert np.abs(single - peer.encode(SENTENCES, batch_size=1)).max() < 1e-5


def test_laptop_model_opens_in_sentence_transformers_and_peft(tmp_path):
    embedder = trained(MINILM, tmp_path / "m")
    vectors = embedder.encode(SENTENCES)
    peer = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert np.abs(vectors - peer.encode(SENTENCES)).max() < 1e-5
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(embedder.base.folder), tmp_path / "m").eval()
    batch = embedder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = adapted(**batch).last_hidden_state
    pooled = torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], "mean"), dim=-1)
    assert np.abs(vectors - pooled.numpy()).max() < 1e-5


def test_prompts_travel_with_the_model(tiny_qwen3, tmp_path):
    trained(str(tiny_qwen3), tmp_path / "m")
    ours = load_model(tmp_path / "m", device="cpu")
    peer = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    query = "where is the thrombus"
    assert np.abs(ours.encode(query, prompt_name="query") - peer.encode(query, prompt_name="query")).max() < 1e-5
    assert np.abs(ours.encode(query) - ours.encode(query, prompt_name="query")).max() > 0.001


def test_eos_is_appended_once_after_a_round_trip(tiny_qwen2, tmp_path):
    trained(str(tiny_qwen2), tmp_path / "m")
    tokens = load_model(tmp_path / "m", device="cpu").tokenize(["ECG"])[0][0]
    reloaded = SentenceTransformer(str(tmp_path / "m"), device="cpu").tokenizer
    assert tokens == reloaded("ECG")["input_ids"]
    assert tokens.count(reloaded.eos_token_id) == 1


def test_adapter_is_float32_whatever_the_base_and_spares_the_unused_head(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu", dtype="bfloat16")
    model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear",
        base_reference="x", revision=None,
    )  # fmt: skip
    weights = adapter_weights(model)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not [name for name in weights if "pooler" in name]
    # Six linears in each of two layers, two matrices each.
    assert len(weights) == 24
    # r * (in + out): four 64x64, one 64x128 and one 128x64 a layer.
    assert parameter_counts(model)[0] == 2 * 4 * (4 * 128 + 2 * 192)


def test_query_value_adapts_only_those(tiny_bert, tiny_qwen3):
    for folder, expected in ((tiny_bert, {"query", "value"}), (tiny_qwen3, {"q_proj", "v_proj"})):
        embedder = load_embedder(str(folder), max_length=64, device="cpu")
        model = attach_lora(
            embedder.model, r=2, lora_alpha=4, lora_dropout=0.0, target_modules="query-value",
            base_reference="x", revision=None,
        )  # fmt: skip
        assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in adapter_weights(model)} == expected


def test_an_unknown_target_lists_the_bases_linears(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    assert linear_names(embedder.model) == {"query", "key", "value", "dense"}
    with pytest.raises(UserError, match=r"\['q_proj'\] is not in this base; its linears are: dense, key, query, value"):
        attach_lora(
            embedder.model, r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj"],
            base_reference="x", revision=None,
        )  # fmt: skip


def test_a_changed_adapter_is_noticed_on_loading(tiny_bert, tmp_path):
    trained(str(tiny_bert), tmp_path / "m")
    path = tmp_path / "m" / "adapter_model.safetensors"
    save_file({name: weight * 0 for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not give the vectors it was saved with"):
        load_model(tmp_path / "m", device="cpu")


def test_an_adapter_of_another_base_is_refused(tiny_bert, tiny_qwen3, tmp_path):
    trained(str(tiny_bert), tmp_path / "m")
    with pytest.raises(UserError, match=r"the adapter does not fit its base|adapter weights do not match"):
        load_model(tmp_path / "m", device="cpu", base=str(tiny_qwen3))


def test_missing_adapter_weights_are_refused(tiny_bert, tmp_path):
    trained(str(tiny_bert), tmp_path / "m")
    path = tmp_path / "m" / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 adapter weights do not match the base"):
        load_model(tmp_path / "m", device="cpu")


def test_a_damaged_adapter_is_named(tiny_bert, tmp_path):
    trained(str(tiny_bert), tmp_path / "m")
    path = tmp_path / "m" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is damaged"):
        load_model(tmp_path / "m", device="cpu")


def test_a_plain_base_takes_no_other_base(tiny_bert):
    with pytest.raises(UserError, match="leave out base="):
        load_model(tiny_bert, base="elsewhere")


def test_what_is_no_model_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"neither cardioembed\.json nor config\.json"):
        load_model(tmp_path)
    with pytest.raises(UserError, match=r"does not exist\. Run stage 03 first"):
        load_model(tmp_path / "x" / "03_model")


def test_a_base_that_moved_can_be_named(tiny_bert, tmp_path):
    moved = tmp_path / "here"
    shutil.copytree(tiny_bert, moved)
    embedder = trained(str(moved), tmp_path / "m")
    moved.rename(tmp_path / "there")
    with pytest.raises(UserError, match=r"model\.base"):
        load_model(tmp_path / "m", device="cpu")
    again = load_model(tmp_path / "m", device="cpu", base=str(tmp_path / "there"))
    assert np.abs(again.encode(SENTENCES) - embedder.encode(SENTENCES)).max() < 1e-6


def test_only_safetensors_and_text_are_written(tiny_bert, tmp_path):
    trained(str(tiny_bert), tmp_path / "m")
    suffixes = {path.suffix for path in (tmp_path / "m").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".txt"}
    assert json.loads((tmp_path / "m" / "cardioembed.json").read_text())["recipe"]["pooling"] == "cls"
