import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from texts import SENTENCES

from cardioembed.embedder.adapters import adapter_weights, attach_lora, linear_names
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.jina_bert import JinaBertConfig, JinaBertModel, alibi_slopes, attention_bias
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError

HEADS, HIDDEN, INNER = 12, 96, 64
CODE = "jinaai/jina-bert-implementation--"
# The keys of the hub's config.json, at a tiny size.
CONFIG = {
    "_name_or_path": "jinaai/jina-bert-implementation",
    "model_max_length": 8192,
    "architectures": ["JinaBertForMaskedLM"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {
        "AutoConfig": CODE + "configuration_bert.JinaBertConfig",
        "AutoModelForMaskedLM": CODE + "modeling_bert.JinaBertForMaskedLM",
        "AutoModel": CODE + "modeling_bert.JinaBertModel",
        "AutoModelForSequenceClassification": CODE + "modeling_bert.JinaBertForSequenceClassification",
    },
    "classifier_dropout": None,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 8192,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "alibi",
    "torch_dtype": "float32",
    "transformers_version": "4.26.0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 400,
    "feed_forward_type": "geglu",
    "emb_pooler": "mean",
}


def shapes():
    """Names and shapes of the hub's checkpoint, written out and not taken from the model under test."""
    found = {
        "embeddings.word_embeddings.weight": (400, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
        "pooler.dense.weight": (HIDDEN, HIDDEN),
        "pooler.dense.bias": (HIDDEN,),
    }
    for i in range(2):
        layer = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= {f"{layer}{name}.weight": (HIDDEN, HIDDEN), f"{layer}{name}.bias": (HIDDEN,)}
        for name in ("attention.output.LayerNorm", "mlp.layernorm"):
            found |= {f"{layer}{name}.weight": (HIDDEN,), f"{layer}{name}.bias": (HIDDEN,)}
        found |= {
            f"{layer}mlp.gated_layers.weight": (2 * INNER, HIDDEN),
            f"{layer}mlp.wo.weight": (HIDDEN, INNER),
            f"{layer}mlp.wo.bias": (HIDDEN,),
        }
    return found


@pytest.fixture(scope="module")
def tiny_jina(tiny_bert, tmp_path_factory):
    """As jina-embeddings-v2-base-en: weights, remote code named in config.json, no sentence-transformers files."""
    folder = tmp_path_factory.mktemp("tiny-jina")
    for path in tiny_bert.glob("tokenizer*"):
        shutil.copy(path, folder)
    generator = torch.Generator().manual_seed(11)
    norm = ("LayerNorm.weight", "layernorm.weight")
    weights = {
        name: torch.randn(shape, generator=generator) * 0.2 + (1.0 if name.endswith(norm) else 0.0)
        for name, shape in shapes().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def load(folder, **options):
    return load_embedder(str(folder), max_length=64, device="cpu", **options)


def changed(source, folder, weights=None, **values):
    """A copy of a base with other values in config.json (None removes one) and other weights."""
    shutil.copytree(source, folder)
    config = {k: v for k, v in (CONFIG | values).items() if v is not None or k == "classifier_dropout"}
    (folder / "config.json").write_text(json.dumps(config))
    if weights is not None:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_lora(embedder, targets="all-linear"):
    torch.manual_seed(3)
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets,
        base_reference=embedder.base.reference, revision=embedder.base.revision,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in adapter_weights(embedder.model).items():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    return embedder


def naive(weights, ids, slopes, activation):
    """One text through the formulas in float64, position by position."""
    w = {name: weight.double().numpy() for name, weight in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    size = HIDDEN // HEADS
    x = norm(
        w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm",
    )
    for i in range(2):
        layer = f"encoder.layer.{i}."
        q, k, v = (linear(x, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for a in range(len(ids)):
                scores = np.array(
                    [q[a, part] @ k[b, part] / math.sqrt(size) - slopes[head] * abs(a - b) for b in range(len(ids))]
                )
                share = np.exp(scores - scores.max())
                mixed[a, part] = (share / share.sum()) @ v[:, part]
        x = norm(linear(mixed, layer + "attention.output.dense") + x, layer + "attention.output.LayerNorm")
        both = linear(x, layer + "mlp.gated_layers")
        inner = activation(both[:, :INNER]) * both[:, INNER:]
        x = norm(linear(inner, layer + "mlp.wo") + x, layer + "mlp.layernorm")
    return x


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


# Press et al. 2022: 1/2 ... 1/256 for 8 heads; for 12, those and the odd steps of 16 heads.
EIGHT = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
TWELVE = [*EIGHT, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]


def test_slopes_follow_the_paper():
    assert alibi_slopes(8) == pytest.approx(EIGHT)
    assert alibi_slopes(12) == pytest.approx(TWELVE)
    assert alibi_slopes(16) == pytest.approx([2 ** (-i / 2) for i in range(1, 17)])


def test_bias_is_symmetric_falls_with_distance_and_hides_padding():
    bias = attention_bias(torch.tensor([[1, 1, 1, 0]]), 8, torch.float32)
    assert bias.shape == (1, 8, 4, 4)
    assert torch.equal(bias[0, 0, :3, :3], torch.tensor([[0, -0.5, -1], [-0.5, 0, -0.5], [-1, -0.5, 0]]))
    assert bool((bias[..., 3] < -6e4).all())
    for dtype in (torch.float16, torch.bfloat16):
        assert attention_bias(torch.ones(1, 9), 12, dtype).isfinite().all()


@pytest.mark.parametrize(("kind", "activation"), [("geglu", gelu), ("reglu", lambda x: np.maximum(x, 0))])
def test_forward_is_the_formulas(tiny_jina, tmp_path, kind, activation):
    embedder = load(changed(tiny_jina, tmp_path / "base", feed_forward_type=kind))
    assert type(embedder.model) is JinaBertModel
    weights = load_file(tiny_jina / "model.safetensors")
    for text in SENTENCES[:2]:
        ids = embedder.tokenize([text])[0][0]
        expected = naive(weights, ids, TWELVE, activation)
        with torch.no_grad():
            hidden = embedder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        assert np.abs(hidden - expected).max() < 2e-5
        mean = expected.mean(0)
        assert np.abs(embedder.encode(text) - mean / np.linalg.norm(mean)).max() < 1e-5


def test_every_weight_of_the_checkpoint_is_used(tiny_jina):
    _, info = JinaBertModel.from_pretrained(tiny_jina, config=JinaBertConfig(**sizes()), output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "mismatched_keys", "unexpected_keys"))


def sizes():
    return {key: CONFIG[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")} | {
        "num_hidden_layers": 2,
        "layer_norm_eps": 1e-12,
    }


def test_a_checkpoint_saved_with_its_language_head_loads_alike(tiny_jina, tmp_path):
    weights = {
        "bert." + name: w for name, w in load_file(tiny_jina / "model.safetensors").items() if "pooler" not in name
    }
    weights["cls.predictions.bias"] = torch.zeros(400)
    embedder = load(changed(tiny_jina, tmp_path / "base", weights))
    assert np.array_equal(embedder.encode(SENTENCES), load(tiny_jina).encode(SENTENCES))


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_does_not_touch_a_vector(tiny_jina, side):
    embedder = load(tiny_jina)
    assert embedder.recipe.pooling == "mean"
    alone = np.stack([embedder.encode(text) for text in SENTENCES])
    assert np.abs(alone - embedder.encode(SENTENCES)).max() < 1e-5
    embedder.tokenizer.padding_side = side
    batch = embedder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = embedder.model(**batch).last_hidden_state
    assert hidden.isfinite().all()
    mask = batch["attention_mask"][..., None]
    assert mask.min() == 0
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert np.abs(alone - pooled.numpy()).max() < 1e-5


def test_half_precision_gives_nearly_the_same_vectors(tiny_jina):
    vectors = load(tiny_jina).encode(SENTENCES)
    assert (load(tiny_jina, dtype="bfloat16").encode(SENTENCES) * vectors).sum(1).min() > 0.995


def test_long_texts_up_to_the_positions_are_allowed(tiny_jina):
    text = "aortic stenosis " * 300
    embedder = load_embedder(str(tiny_jina), max_length=8192, device="cpu")
    assert len(embedder.tokenize([text])[0][0]) > 512
    assert np.isfinite(embedder.encode(text)).all()
    with pytest.raises(UserError, match="more than the 8192 positions"):
        load_embedder(str(tiny_jina), max_length=8193, device="cpu")


def test_lora_finds_its_linears(tiny_jina):
    assert linear_names(load(tiny_jina).model) == {"query", "key", "value", "dense", "gated_layers", "wo"}
    for targets, count in (("all-linear", 6), ("query-value", 2)):
        assert len(adapter_weights(with_lora(load(tiny_jina), targets).model)) == 2 * 2 * count


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_gradients_reach_every_adapter_with_checkpointing_and_without(tiny_jina, quantization):
    embedder = with_lora(load(tiny_jina, quantization=quantization))
    ids, _ = embedder.tokenize(SENTENCES)
    direction = torch.randn(len(SENTENCES), HIDDEN, generator=torch.Generator().manual_seed(5))
    calls = []
    embedder.model.get_base_model().encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    gradients, replays = [], []
    for checkpointing in (False, True):
        if checkpointing:
            embedder.model.gradient_checkpointing_enable({"use_reentrant": False})
            embedder.model.enable_input_require_grads()
        embedder.model.train()
        embedder.model.zero_grad()
        calls.clear()
        torch.manual_seed(9)  # the same dropout masks
        (embedder.embed_tokens(ids) * direction).sum().backward()
        replays.append(len(calls))
        gradients.append({name: weight.grad.clone() for name, weight in adapter_weights(embedder.model).items()})
    assert replays == [1, 2]
    assert len(gradients[0]) == 24
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_loads_quantised_and_saves_with_the_same_vectors(tiny_jina, tmp_path, quantization):
    embedder = load(tiny_jina, quantization=quantization)
    layer = embedder.model.encoder.layer[1]
    kinds = {type(m).__name__ for m in (layer.attention.self.query, layer.mlp.gated_layers, layer.mlp.wo)}
    assert kinds == {{"none": "Linear", "int8": "Linear8bitLt", "nf4": "Linear4bit"}[quantization]}
    near = {"none": 0.999999, "int8": 0.99, "nf4": 0.99999}[quantization]
    plain = load(tiny_jina)
    if quantization == "nf4":  # its rounding is coarse, so the peer gets the rounded weights
        for name, module in embedder.model.named_modules():
            if isinstance(module, Linear4bit):
                rounded = dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.model.get_submodule(name).weight.data = rounded.float()
    assert (embedder.encode(SENTENCES) * plain.encode(SENTENCES)).sum(1).min() > near
    with_lora(embedder)
    vectors = embedder.encode(SENTENCES)
    with embedder.without_adapter():
        assert np.abs(vectors - embedder.encode(SENTENCES)).max() > 0.01
    (tmp_path / "m").mkdir()
    save_model(embedder, tmp_path / "m", {"triplets": 1})
    assert np.abs(vectors - load_model(tmp_path / "m", device="cpu").encode(SENTENCES)).max() < 1e-5


def test_sentence_transformers_stops_instead_of_giving_wrong_vectors(tiny_jina, tmp_path):
    (tmp_path / "m").mkdir()
    save_model(with_lora(load(tiny_jina)), tmp_path / "m", {"triplets": 1})
    with pytest.raises(ValueError, match="cardioembed_jina_bert_alibi"):
        SentenceTransformer(str(tmp_path / "m"), device="cpu")


def test_a_whole_saved_model_is_no_bert_to_others(tiny_jina, tmp_path):
    embedder = load(tiny_jina)
    embedder.model.save_pretrained(tmp_path / "whole")
    embedder.tokenizer.save_pretrained(tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["model_type"] == "jina_bert_v2"
    assert "auto_map" not in config
    assert np.array_equal(load(tmp_path / "whole").encode(SENTENCES), embedder.encode(SENTENCES))
    with pytest.raises(ValueError, match="jina_bert_v2"):
        SentenceTransformer(str(tmp_path / "whole"), device="cpu")


@pytest.mark.parametrize(
    "stripped",
    [("auto_map",), ("architectures",), ("position_embedding_type", "auto_map"), ("auto_map", "architectures")],
)
def test_one_mark_of_the_architecture_is_enough_or_the_base_is_refused(tiny_jina, tmp_path, stripped):
    folder = changed(tiny_jina, tmp_path / "base", **dict.fromkeys(stripped))
    if "position_embedding_type" in stripped:
        with pytest.raises(UserError, match="position_embedding_type None, alibi needed"):
            load(folder)
    else:
        assert np.array_equal(load(folder).encode(SENTENCES), load(tiny_jina).encode(SENTENCES))


def test_without_any_mark_it_is_never_a_bert_with_random_weights(tiny_jina, tmp_path):
    marks = ("auto_map", "architectures", "position_embedding_type", "feed_forward_type", "_name_or_path")
    folder = changed(tiny_jina, tmp_path / "base", **dict.fromkeys(marks), max_position_embeddings=128)
    with pytest.raises(UserError, match=r"weights of .* are missing or misshapen and would be random"):
        load(folder)


@pytest.mark.parametrize("lost", ["mlp.gated_layers.weight", "mlp.wo.bias", "attention.self.key.weight"])
def test_a_missing_weight_is_refused(tiny_jina, tmp_path, lost):
    weights = load_file(tiny_jina / "model.safetensors")
    del weights[f"encoder.layer.1.{lost}"]
    with pytest.raises(UserError, match=rf"1 weights .* would be random: encoder\.layer\.1\.{lost}"):
        load(changed(tiny_jina, tmp_path / "base", weights))


def test_variants_with_other_layers_are_refused_in_words(tiny_jina, tmp_path):
    folder = changed(tiny_jina, tmp_path / "original", feed_forward_type="original")
    with pytest.raises(UserError, match=r"feed_forward_type original, one of geglu, reglu needed.*v2-base-en"):
        load(folder)
    name = "encoder.layer.0.attention.self.layer_norm_q.weight"
    weights = load_file(tiny_jina / "model.safetensors") | {name: torch.ones(HIDDEN)}
    with pytest.raises(UserError, match=rf"variant of JinaBERT .*it has the weight {name}"):
        load(changed(tiny_jina, tmp_path / "code", weights))


def test_other_attention_is_refused(tiny_jina):
    with pytest.raises(UserError, match="eager is not available for JinaBERT"):
        load(tiny_jina, attn_implementation="eager")


def test_loading_says_nothing_of_remote_code(tiny_jina, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        load(tiny_jina)
    out = capfd.readouterr()
    assert not (out.out + out.err + caplog.text)
