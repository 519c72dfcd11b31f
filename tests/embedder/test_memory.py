import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model
from transformers.modeling_layers import GradientCheckpointingLayer

from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.memory import (
    MemoryEstimate,
    Workload,
    activation_bytes,
    check_memory,
    check_quantization,
    estimate_memory,
    trained_bytes,
    weight_bytes,
)
from cardioembed.embedder.system_memory import available_bytes
from cardioembed.errors import UserError
from cardioembed.training.fused_lora import fuse_lora

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QWEN3_8B = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151665, "model_type": "qwen3",
}  # fmt: skip
WORK = Workload(CPU, "none", "float32", autocast=False, batch_tokens=512, chunk_tokens=512)


@pytest.fixture(scope="session")
def qwen3_8b(tmp_path_factory):
    """Headers of Qwen3-Embedding-8B in two shards, which hold no weights."""
    folder, c = tmp_path_factory.mktemp("qwen3-8b"), QWEN3_8B
    h, i, q, kv = c["hidden_size"], c["intermediate_size"], 32 * 128, 8 * 128
    layer = {
        "self_attn.q_proj": [q, h], "self_attn.k_proj": [kv, h], "self_attn.v_proj": [kv, h],
        "self_attn.o_proj": [h, q], "self_attn.q_norm": [128], "self_attn.k_norm": [128], "mlp.gate_proj": [i, h],
        "mlp.up_proj": [i, h], "mlp.down_proj": [h, i], "input_layernorm": [h], "post_attention_layernorm": [h],
    }  # fmt: skip
    shapes = {f"layers.{n}.{name}.weight": shape for n in range(36) for name, shape in layer.items()}
    shapes |= {"embed_tokens.weight": [c["vocab_size"], h], "norm.weight": [h], "lm_head.weight": [151665, h]}
    names = sorted(shapes)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        write_header(folder / file, {name: shapes[name] for name in part})
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(c))
    return folder


def write_header(path, shapes):
    header = json.dumps({n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("base", ["tiny_qwen3", "tiny_qwen2", "tiny_bert"])
def test_weights_are_as_large_as_what_gets_loaded(base, quantization, request):
    folder = request.getfixturevalue(base)
    dtype = "bfloat16" if quantization == "int8" else "float32"
    model = load_embedder(str(folder), quantization=quantization, dtype=dtype, max_length=64, device="cpu").model
    assert weight_bytes(folder, quantization, dtype) == pytest.approx(loaded_bytes(model), rel=0.03)


def loaded_bytes(model):
    total = sum(buffer.nbytes for buffer in model.buffers())
    for parameter in model.parameters():
        total += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        total += state.absmax.nbytes + state.code.nbytes if state is not None else 0
        total += scale.nbytes if (scale := getattr(parameter, "SCB", None)) is not None else 0
    return total


@pytest.mark.parametrize(
    ("quantization", "gigabytes"), [("none", 15.13), ("int8", 8.20), ("nf4", 5.15)]
)  # 6.95e9 weights in the layers, 0.62e9 in the embedding; lm_head stays on the disk
def test_weights_of_an_8b_base_in_two_shards(qwen3_8b, quantization, gigabytes):
    assert weight_bytes(qwen3_8b, quantization, "bfloat16") / 1e9 == pytest.approx(gigabytes, rel=0.002)


@pytest.mark.parametrize("targets", ["all-linear", "query-value", ["k_proj", "down_proj"]])
def test_adapter_counts_as_the_attached_one(tiny_qwen3, targets):
    model = lora(load_embedder(str(tiny_qwen3), max_length=64, device="cpu").model, targets)
    count = sum(p.numel() for p in adapter_weights(model).values())
    assert trained_bytes(tiny_qwen3, 16, targets) == 16 * count


def test_adapter_of_bert_leaves_the_pooler_out(tiny_bert):
    model = lora(load_embedder(str(tiny_bert), max_length=64, device="cpu").model, "all-linear")
    assert trained_bytes(tiny_bert, 16, "all-linear") == 16 * sum(p.numel() for p in adapter_weights(model).values())


def test_full_fine_tuning_counts_every_weight_once(tiny_qwen3):
    count = weight_bytes(tiny_qwen3, "none", "float32") // 4
    estimate = estimate_memory(tiny_qwen3, replace(WORK, r=0), None)
    assert (estimate.base, estimate.adapter_and_optimizer) == (0, 16 * count)


def lora(model, targets="all-linear"):
    model = attach_lora(
        model, r=16, lora_alpha=32, lora_dropout=0.05, target_modules=targets, base_reference="x", revision=None
    )
    fuse_lora(model)
    model.eval()
    for name, module in model.named_modules():
        if "lora_dropout" in name and isinstance(module, nn.Dropout):
            module.train()
    return model


SHAPES = {
    "bert": (BertModel, BertConfig, {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4,
                                     "num_attention_heads": 6}),
    "qwen3": (Qwen3Model, Qwen3Config, {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                                        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}),
}  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def shape(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model_class, config_class, sizes = SHAPES[request.param]
    model_class(config_class(vocab_size=100, max_position_embeddings=128, **sizes)).save_pretrained(folder)
    return folder, model_class, sizes["intermediate_size"]


@pytest.mark.parametrize("targets", ["all-linear", "query-value"])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [("float32", False), ("float32", True), ("bfloat16", True), ("bfloat16", False)]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_torch_keeps_for_backward(shape, dtype, autocast, checkpointing, targets):
    folder, model_class, intermediate = shape
    model = lora(model_class.from_pretrained(folder, dtype=getattr(torch, dtype)).requires_grad_(False), targets)
    if checkpointing:
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            module.training |= isinstance(module, GradientCheckpointingLayer)
    measured = saved_bytes(model, torch.full((8, 64), 5), autocast)
    work = replace(WORK, dtype=dtype, autocast=autocast, gradient_checkpointing=checkpointing, target_modules=targets)
    predicted = activation_bytes(folder, work) - 14 * intermediate * 512  # without what passes
    if checkpointing:  # torch's recomputation of one layer is out of the hooks' sight: it is that of one layer above
        open_graph = activation_bytes(folder, replace(work, gradient_checkpointing=False)) - 14 * intermediate * 512
        predicted -= open_graph // 4
    assert 0.95 < predicted / measured < 1.25


def saved_bytes(model, ids, autocast):
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept, held = {}, []

    def pack(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert output.requires_grad
    return sum(size for place, size in kept.items() if place not in weights)


def test_gradient_cache_keeps_one_chunk_and_the_whole_graph_the_batch(qwen3_8b):
    work = Workload(CUDA, "int8", "bfloat16", autocast=True, batch_tokens=65_536, chunk_tokens=8192)
    whole, cached = activation_bytes(qwen3_8b, work), activation_bytes(qwen3_8b, replace(work, gradient_cache=True))
    one_chunk = activation_bytes(qwen3_8b, replace(work, batch_tokens=8192))
    assert cached == one_chunk
    assert whole > 7 * cached


def test_eager_attention_grows_with_the_length(tiny_bert):
    eager = activation_bytes(tiny_bert, replace(WORK, eager_length=64)) - activation_bytes(tiny_bert, WORK)
    assert eager == 2 * 512 * (4 + 4) * 4 * 64  # layers, tokens, bytes of both copies, heads, length


def test_encoding_only_takes_no_activations(tiny_bert):
    assert activation_bytes(tiny_bert, replace(WORK, batch_tokens=0)) == 0


def test_shards_divide_the_base_only(qwen3_8b):
    work = replace(WORK, quantization="int8", dtype="bfloat16")
    one, four = (estimate_memory(qwen3_8b, replace(work, shards=n), None) for n in (1, 4))
    assert four.base == one.base // 4
    assert (four.adapter_and_optimizer, four.activations) == (one.adapter_and_optimizer, one.activations)


def test_too_little_memory_is_refused_with_what_helps_most_first(qwen3_8b, monkeypatch):
    monkeypatch.setattr("cardioembed.embedder.memory.available_bytes", lambda device: int(24e9))
    work = Workload(CUDA, "none", "bfloat16", autocast=True, batch_tokens=8192, chunk_tokens=2048)
    with pytest.raises(
        UserError,
        match=r"needs about \d+\.\d GB, you have 24\.0 GB \(base 15\.1 GB, adapter and optimizer 0\.7 GB, activations "
        r"\d+\.\d GB\)\. Set, most helpful first: train\.gradient_checkpointing=true \(then \d+\.\d GB\); "
        r"train\.gradient_cache=true .*more FSDP processes",
    ):
        check_memory(qwen3_8b, work)
    monkeypatch.setattr("cardioembed.embedder.memory.available_bytes", lambda device: int(16e9))
    with pytest.raises(
        UserError, match=r"first: model\.quantization=nf4 .* model\.quantization=int8 .*chunk_tokens=1024"
    ):
        check_memory(qwen3_8b, replace(work, gradient_checkpointing=True))


def test_settings_that_change_nothing_are_not_advised(tiny_bert, monkeypatch):
    monkeypatch.setattr("cardioembed.embedder.memory.available_bytes", lambda device: 1000)
    work = replace(WORK, gradient_cache=True, gradient_checkpointing=True)
    with pytest.raises(UserError) as caught:
        check_memory(tiny_bert, work)
    assert "chunk_tokens=256" in str(caught.value)
    assert not any(text in str(caught.value) for text in ("gradient_", "quantization", "FSDP"))


@pytest.mark.parametrize(("available", "tight"), [(101, True), (125, False), (126, False), (None, False)])
def test_tight_is_above_four_fifths(available, tight):
    estimate = MemoryEstimate(60, 30, 10, available)
    assert (estimate.fits, estimate.tight) == (True, tight)
    assert estimate.describe().endswith("this is tight") is tight


def test_what_fits_is_returned(tiny_bert):
    estimate = check_memory(tiny_bert, WORK)
    assert estimate.available == pytest.approx(available_bytes(CPU), rel=0.2)
    assert estimate.describe().startswith("needs about ")


def test_large_quantised_bases_need_cuda(qwen3_8b, tiny_qwen3):
    with pytest.raises(UserError, match=r"int8 needs an NVIDIA GPU for a base of 15\.1 GB.*quantization=none"):
        check_quantization(qwen3_8b, "int8", CPU)
    check_quantization(qwen3_8b, "int8", CUDA)
    check_quantization(qwen3_8b, "none", CPU)
    check_quantization(tiny_qwen3, "nf4", CPU)
