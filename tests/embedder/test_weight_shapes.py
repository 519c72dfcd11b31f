import json

import pytest
from safetensors.torch import load_file

from cardioembed.embedder.weight_shapes import is_gated, layer_linears, read_shapes
from cardioembed.errors import UserError


def test_shapes_are_those_of_the_weights(tiny_qwen3):
    weights = load_file(tiny_qwen3 / "model.safetensors")
    assert read_shapes(tiny_qwen3) == {name: tuple(weight.shape) for name, weight in weights.items()}


def test_linears_are_those_inside_the_layers(tiny_bert, tiny_qwen3):
    bert, qwen3 = read_shapes(tiny_bert), read_shapes(tiny_qwen3)
    assert (len(layer_linears(bert)), len(layer_linears(qwen3))) == (2 * 6, 2 * 7)
    assert not [name for name in layer_linears(bert) if "pooler" in name or "embed" in name]
    assert (is_gated(bert), is_gated(qwen3)) == (False, True)


def test_heads_that_a_base_does_not_load_are_left_out(tmp_path):
    header = {n: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 0]} for n in ("lm_head.weight", "a.weight")}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert read_shapes(tmp_path) == {"a.weight": (2, 3)}


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002.safetensors"}}))
    with pytest.raises(UserError, match=r"model-00002\.safetensors is missing or damaged"):
        read_shapes(tmp_path)


def test_a_damaged_header_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged \(a header of \d+ bytes\)"):
        read_shapes(tmp_path)
