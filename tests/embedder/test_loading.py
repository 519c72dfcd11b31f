import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from texts import MINILM, SENTENCES

from cardioembed.embedder.bases import Base, find_base, read_traits
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.loading import choose_device
from cardioembed.errors import UserError


def test_packaged_base_needs_no_hub_and_says_how_it_pools():
    base = find_base(MINILM)
    assert (base.folder / "model.safetensors").is_file()
    assert read_traits(base).pooling == "mean"


def test_qwen3_embedding_keeps_the_eos_of_its_own_tokenizer(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=32, device="cpu")
    ids, _ = embedder.tokenize(["aortic stenosis"])
    tokens = embedder.tokenizer.convert_ids_to_tokens(ids[0])
    assert tokens.count("<|endoftext|>") == 1
    assert tokens[-1] == "<|endoftext|>"
    assert embedder.tokenizer.eos_token == "<|im_end|>"


def test_bare_language_model_gets_an_eos_that_survives_truncation(tiny_qwen2):
    embedder = load_embedder(str(tiny_qwen2), max_length=8, device="cpu")
    ids, cut = embedder.tokenize(["aortic stenosis " * 20, "ECG"])
    assert [tokens[-1] for tokens in ids] == [embedder.tokenizer.eos_token_id] * 2
    assert [len(ids[0]), cut] == [8, 1]


@pytest.mark.parametrize("base", ["tiny_qwen2", "tiny_qwen3"])
def test_chat_template_never_touches_the_text(base, request):
    embedder = load_embedder(str(request.getfixturevalue(base)), max_length=64, device="cpu")
    ids, _ = embedder.tokenize(["no thrombus in the atrium"])
    assert embedder.tokenizer.decode(ids[0][:-1]) == "no thrombus in the atrium"


def test_query_prompt_of_qwen3_stands_before_anchors_only(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu")
    assert (embedder.recipe.anchor_prompt, embedder.recipe.positive_prompt) == ("query", None)
    ids, _ = embedder.tokenize(["ECG"], "query")
    assert embedder.tokenizer.decode(ids[0][:-1]) == "Instruct: Find the same statement\nQuery:ECG"


def test_e5_takes_its_query_prompt_on_both_sides_of_a_pair(tiny_bert):
    traits = read_traits(Base("intfloat/e5-large-v2", None, tiny_bert, "intfloat/e5-large-v2"))
    assert traits.pair_prompts == ("query", "query")
    assert traits.prompts == {"query": "query: ", "document": "passage: "}


def test_a_missing_weight_is_an_error_and_not_random(tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.1.output.dense.weight"
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* would be random: encoder\.layer\.1\.output\.dense\.weight"):
        load_embedder(str(folder), max_length=64, device="cpu")


def test_a_missing_pooler_head_is_fine(tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not k.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_embedder(str(folder), max_length=64, device="cpu").encode(SENTENCES[0]).shape == (64,)


def test_damaged_weights_are_named(tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"weights of .* are damaged"):
        load_embedder(str(folder), max_length=64, device="cpu")


def test_pickled_weights_are_refused(tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \.safetensors weights"):
        find_base(str(folder))


@pytest.mark.parametrize("base", ["./nowhere", "/no/such/folder", "just-a-word", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_said_at_once(base):
    with pytest.raises(UserError, match="neither a folder here nor a hub id"):
        find_base(base)


def test_packaged_weights_are_checked(monkeypatch):
    module, folder, _ = __import__("cardioembed.embedder.bases", fromlist=["PACKAGED"]).PACKAGED[MINILM]
    monkeypatch.setitem(find_base.__globals__["PACKAGED"], MINILM, (module, folder, "0" * 64))
    with pytest.raises(UserError, match="sha256 53aa5117"):
        find_base(MINILM)


def test_cls_pooling_of_a_language_model_is_impossible(tiny_qwen2):
    with pytest.raises(UserError, match="sees no other"):
        load_embedder(str(tiny_qwen2), pooling="cls", max_length=64, device="cpu")


def test_max_length_beyond_the_positions_is_refused(tiny_bert):
    with pytest.raises(UserError, match="more than the 128 positions"):
        load_embedder(str(tiny_bert), max_length=512, device="cpu")


def test_unavailable_device_is_said():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UserError, match="device: cuda is not available"):
        choose_device("cuda")


def test_broken_config_json_is_named(tiny_bert, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_bert, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"})[:-3])
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        read_traits(find_base(str(folder)))
