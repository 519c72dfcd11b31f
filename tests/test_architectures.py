"""Every architecture of the comparison study, at toy size: tokens, vectors, training, saving, stages 03 to 05."""

import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, use_qwen_tokenizer
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from texts import ROOT, SENTENCES
from transformers import AutoModel

from cardioembed.config import TrainSettings, flatten
from cardioembed.config_file import load_settings
from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.pooling import pool
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError
from cardioembed.records import sha256, write_json, write_jsonl
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda each: each.fixture)
SOME = [each for each in ARCHITECTURES if each.fixture in ("tiny_gemma2", "tiny_xlm_roberta")]
PLAN = {
    **TrainSettings().model_dump(), "per_device_train_batch_size": 4, "learning_rate": 5e-3, "bf16": False,
    "chunk_tokens": 256, "gradient_checkpointing": False, "num_train_epochs": 1, "eval_steps": 2.0, "save_steps": 2.0,
    "report_to": [], "seed": 1,
}  # fmt: skip


@pytest.fixture
def base(architecture, request):
    return str(request.getfixturevalue(architecture.fixture))


def rows(count):
    topics = "thrombus stenosis valve rhythm pacing infarct murmur pressure".split()
    return [
        {
            "id": str(i),
            "group": f"g{i}",
            "anchor": f"{SENTENCES[i % 6]} {topics[i % 8]} {i}",
            "positive": f"{topics[i % 8]} {i}: {SENTENCES[i % 6]}",
            "negatives": [f"{topics[(i + 3) % 8]} is not meant here"],
        }
        for i in range(count)
    ]


def trained(base, folder, *, quantization="none", target_modules="all-linear", steps=2):
    """An embedder after a few steps of the project's own trainer."""
    embedder = load_embedder(base, max_length=64, device="cpu", quantization=quantization)
    torch.manual_seed(0)
    embedder.model = attach_lora(
        embedder.model, r=2, lora_alpha=4, lora_dropout=0.05, target_modules=target_modules,
        base_reference=embedder.base.reference, revision=embedder.base.revision,
    )  # fmt: skip
    scores = iter(np.linspace(0.1, 0.9, 20))
    done = Trainer(
        embedder, rows(4 * steps), Plan(**PLAN), validate=lambda: {"accuracy@1": next(scores), "mrr": 0.5},
        folder=folder / "checkpoints", log_path=folder / "log.jsonl", tensorboard=folder / "tb", fingerprint={},
    ).train()  # fmt: skip
    assert done.step == done.best_step == steps
    return embedder


@EVERY
def test_what_the_base_says_of_itself(architecture, base):
    embedder = load_embedder(base, max_length=64, device="cpu")
    recipe = embedder.recipe
    assert recipe.pooling == architecture.pooling
    sides = (recipe.anchor_prompt, recipe.positive_prompt)
    assert tuple(embedder.prompt_text(side) for side in sides) == architecture.prompts


@EVERY
def test_ids_are_prompt_text_and_special_tokens(architecture, base):
    embedder = load_embedder(base, max_length=64, device="cpu")
    tokenizer, name = embedder.tokenizer, embedder.recipe.anchor_prompt
    first, last = (tokenizer.convert_tokens_to_ids(list(side)) for side in (architecture.first, architecture.last))
    text = "No thrombus in the atrium"
    inner = tokenizer(architecture.prompts[0] + text, add_special_tokens=False)["input_ids"]
    ids, cut = embedder.tokenize([text, "ECG"], name)
    assert (ids[0], cut) == ([*first, *inner, *last], 0)
    if architecture.causal:
        assert tokenizer.decode(inner) == architecture.prompts[0] + text
    short = load_embedder(base, max_length=12, device="cpu")
    (long,), cut = short.tokenize(["aortic stenosis " * 30])
    assert (len(long), cut) == (12, 1)
    assert long[: len(first)] == first
    assert long[-len(last) :] == last
    assert sum(long.count(token) for token in last) == 1


def test_a_chat_template_is_there_to_be_left_alone(tiny_gemma2, tiny_qwen2):
    for folder in (tiny_gemma2, tiny_qwen2):
        assert load_embedder(str(folder), max_length=64, device="cpu").tokenizer.chat_template


@pytest.mark.parametrize(("source", "last"), [("tiny_qwen3", "<|endoftext|>"), ("tiny_qwen2", "<|im_end|>")])
def test_qwens_own_tokenizer_class_keeps_one_eos(source, last, request, tmp_path):
    folder = tmp_path / "base"
    use_qwen_tokenizer(request.getfixturevalue(source), folder)
    embedder = load_embedder(str(folder), max_length=16, device="cpu")
    assert type(embedder.tokenizer).__name__ == "Qwen2Tokenizer"
    embedder.tokenizer.save_pretrained(tmp_path / "again")
    again = type(embedder.tokenizer).from_pretrained(tmp_path / "again")
    for tokenizer in (embedder.tokenizer, again):
        for text in ("ECG", "aortic stenosis " * 30):
            tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, truncation=True, max_length=16)["input_ids"])
            assert tokens[-1] == last
            assert sum(token.startswith("<|") for token in tokens) == 1


@EVERY
def test_a_text_has_one_vector_alone_in_a_batch_and_under_either_padding(architecture, base):
    embedder = load_embedder(base, max_length=64, device="cpu")
    vectors = embedder.encode([*SENTENCES, "ECG"])
    assert np.isfinite(vectors).all()
    assert (vectors @ vectors.T)[~np.eye(7, dtype=bool)].max() < 0.995  # different texts differ
    for text, vector in zip([*SENTENCES, "ECG"], vectors, strict=True):
        assert np.abs(embedder.encode(text) - vector).max() < 1e-5
    sequences, _ = embedder.tokenize([*SENTENCES, "ECG"])
    width, pad_id = max(map(len, sequences)), embedder.tokenizer.pad_token_id
    ids = torch.tensor([[pad_id] * (width - len(each)) + each for each in sequences])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in sequences])
    # BERT numbers positions by column; the others by distance or by what is not padding.
    numbered = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if embedder.model.config.model_type == "bert" else {}
    with torch.no_grad():
        hidden = embedder.model(input_ids=ids, attention_mask=mask, **numbered).last_hidden_state
    left = torch.nn.functional.normalize(pool(hidden, mask, architecture.pooling), dim=-1).numpy()
    assert np.abs(left - vectors).max() < 1e-5


@EVERY
@pytest.mark.parametrize("target_modules", ["all-linear", "query-value"])
def test_training_moves_every_adapter_weight(architecture, target_modules, base, tmp_path):
    embedder = trained(base, tmp_path, target_modules=target_modules)
    weights = adapter_weights(embedder.model)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights}
    assert adapted == set(architecture.linears if target_modules == "all-linear" else architecture.query_value)
    assert not [name for name in weights if "pooler" in name]
    still = [name for name, weight in weights.items() if "lora_B" in name and not weight.abs().max() > 0]
    assert not still
    # Each of the two layers has each of them: a name that matched in one place only would leave others out.
    linears = [n for n, m in embedder.model.get_base_model().named_modules() if type(m).__name__ == "Linear"]
    expected = [n for n in linears if ".base_layer" in n]
    assert 2 * len(expected) == len(weights)


@EVERY
def test_gradients_are_the_same_with_checkpointing(architecture, base):
    embedder = load_embedder(base, max_length=64, device="cpu")
    embedder.model = attach_lora(
        embedder.model, r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", base_reference=base,
        revision=None,
    )  # fmt: skip
    weights, gradients = adapter_weights(embedder.model), []
    with torch.no_grad():
        for name, weight in weights.items():
            if "lora_B" in name:
                weight.fill_(0.01)
    plan = Plan(**PLAN | {"gradient_checkpointing": True})
    trainer = Trainer(
        embedder, rows(8), plan, validate=dict, folder=None, log_path=None, tensorboard=None, fingerprint={}
    )
    sequences, _ = embedder.tokenize(SENTENCES)
    direction = torch.randn(6, 64, generator=torch.Generator().manual_seed(5))
    for checkpointing in (False, True):
        if checkpointing and architecture.fixture == "tiny_mpnet":  # transformers' MPNet has no checkpointing
            with pytest.raises((ValueError, UserError), match=r"(activation|gradient)[ _]checkpointing"):
                trainer._set_modes()
            assert not settings_of(architecture, base, "runs").train.gradient_checkpointing
            return
        if checkpointing:
            trainer._set_modes()
        embedder.model.zero_grad()
        (embedder.embed_tokens(sequences) * direction).sum().backward()
        gradients.append({name: weight.grad.clone() for name, weight in weights.items()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-6), name


@EVERY
def test_a_trained_model_opens_here_in_peft_and_in_sentence_transformers(architecture, base, tmp_path):
    embedder = trained(base, tmp_path)
    vectors = embedder.encode(SENTENCES, prompt_name=embedder.recipe.anchor_prompt)
    with embedder.without_adapter():
        assert np.abs(vectors - embedder.encode(SENTENCES, prompt_name=embedder.recipe.anchor_prompt)).max() > 1e-3
    (tmp_path / "m").mkdir()
    save_model(embedder, tmp_path / "m", {"triplets": 1})
    again = load_model(tmp_path / "m", device="cpu")
    assert np.abs(vectors - again.encode(SENTENCES, prompt_name=again.recipe.anchor_prompt)).max() < 1e-5
    if architecture.fixture == "tiny_jina":  # no other library has the architecture
        with pytest.raises(ValueError, match="cardioembed_jina_bert_alibi"):
            SentenceTransformer(str(tmp_path / "m"), device="cpu")
        return
    peer = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    theirs = peer.encode(SENTENCES, prompt_name=again.recipe.anchor_prompt)
    assert np.abs(vectors - theirs).max() < 1e-5
    attention = embedder.model.get_base_model().config._attn_implementation
    adapted = PeftModel.from_pretrained(
        AutoModel.from_pretrained(base, attn_implementation=attention, dtype=torch.float32), tmp_path / "m"
    ).eval()
    texts = [architecture.prompts[0] + text for text in SENTENCES]
    batch = again.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = torch.nn.functional.normalize(pool(hidden, batch["attention_mask"], architecture.pooling), dim=-1)
    assert np.abs(vectors - pooled.numpy()).max() < 1e-5


@EVERY
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_base_trains_and_opens_again(architecture, quantization, base, tmp_path):
    embedder = trained(base, tmp_path, quantization=quantization)
    kinds = [type(module).__name__ for module in embedder.model.modules()]
    kind = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[quantization]
    assert kinds.count(kind) >= len(adapter_weights(embedder.model)) // 2
    assert all(weight.isfinite().all() for weight in adapter_weights(embedder.model).values())
    vectors = embedder.encode(SENTENCES)
    assert np.isfinite(vectors).all()
    (tmp_path / "m").mkdir()
    save_model(embedder, tmp_path / "m", {"triplets": 1})
    assert np.abs(vectors - load_model(tmp_path / "m", device="cpu").encode(SENTENCES)).max() < 1e-5


def test_positions_that_start_after_the_pad_id_shorten_the_limit(tiny_xlm_roberta, tiny_mpnet):
    text = "aortic stenosis " * 100
    for folder in (tiny_xlm_roberta, tiny_mpnet):
        embedder = load_embedder(str(folder), max_length=128, device="cpu")
        assert len(embedder.tokenize([text])[0][0]) == 128
        assert np.isfinite(embedder.encode([text, "ECG"])).all()
        with pytest.raises(UserError, match="129 is more than the 128 positions"):
            load_embedder(str(folder), max_length=129, device="cpu")


def test_gemma_2_takes_eager_attention_and_mpnet_what_it_has(tiny_gemma2, tiny_mpnet, tiny_xlm_roberta):
    for folder, attention in ((tiny_gemma2, "eager"), (tiny_mpnet, "eager"), (tiny_xlm_roberta, "sdpa")):
        assert load_embedder(str(folder), max_length=64, device="cpu").model.config._attn_implementation == attention


def test_gemma_2s_window_and_capped_scores_act(tiny_gemma2):
    """The tiny base has them at work, or the tests above would say nothing about them."""
    embedder = load_embedder(str(tiny_gemma2), max_length=64, device="cpu")
    vectors = embedder.encode(SENTENCES)
    for name, value in (("sliding_window", 64), ("attn_logit_softcapping", 0.1)):
        folder_config = json.loads((tiny_gemma2 / "config.json").read_text()) | {name: value}
        model = AutoModel.from_config(
            type(embedder.model.config).from_dict(folder_config), attn_implementation="eager", dtype=torch.float32
        ).eval()
        model.load_state_dict(load_file(tiny_gemma2 / "model.safetensors"))
        own, embedder.model = embedder.model, model
        assert np.abs(embedder.encode(SENTENCES) - vectors).max() > 1e-3, name
        embedder.model = own


def test_a_pickled_base_is_converted_as_the_study_config_says(tiny_xlm_roberta, tmp_path):
    """The way of configs/study/bge-m3.yaml, whose hub commit has no safetensors."""
    folder, converted = tmp_path / "pickled", tmp_path / "converted"
    shutil.copytree(tiny_xlm_roberta, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \.safetensors weights.*SentenceTransformer"):
        load_embedder(str(folder), max_length=64, device="cpu")
    SentenceTransformer(str(folder), device="cpu").save_pretrained(str(converted))
    embedder = load_embedder(str(converted), max_length=64, device="cpu")
    assert embedder.recipe.pooling == "cls"
    expected = load_embedder(str(tiny_xlm_roberta), max_length=64, device="cpu").encode(SENTENCES)
    assert np.abs(embedder.encode(SENTENCES) - expected).max() < 1e-6


def settings_of(architecture, base, run_dir, *more):
    """The base's own study settings, bfloat16 among them, with a tiny model on a CPU."""
    config = ROOT / "configs/study" / f"{architecture.config}.yaml"
    changes = [
        f"run_dir={run_dir}", f"model.base={base}", "device=cpu", "model.quantization=none",
        "model.max_length=64", "train.per_device_train_batch_size=4", "train.learning_rate=1e-2",
        "train.max_steps=2", "train.report_to=[]", "model.lora.r=2", "evaluate.bootstrap_resamples=100",
        f"evaluate.concept_pairs={run_dir}/concepts.jsonl", "evaluate.bias=false", "evaluate.efficiency=false", *more,
    ]  # fmt: skip
    return load_settings(config, changes)


def prepared(settings, folder):
    """What stages 01 and 02 leave behind, without running them."""
    folder.mkdir()
    write_jsonl(folder / "01_sentences.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(SENTENCES)])
    splits = {"train": rows(8), "validation": rows(6), "test": rows(6)}
    for name, data in splits.items():
        write_jsonl(folder / f"02_training_{name}.jsonl", data)
    kinds = ("similar", "different", "negation")
    pairs = [
        {"id": f"{kind}{i}", "kind": kind, "text1": SENTENCES[i], "text2": SENTENCES[(i + 1 + k) % 6]}
        for k, kind in enumerate(kinds)
        for i in range(3)
    ]
    write_jsonl(folder / "concepts.jsonl", pairs)
    for number in ("01", "02"):
        outputs = {path.name: sha256(path) for path in folder.glob(f"{number}_*.jsonl")}
        write_json(folder / f"{number}_manifest.json", {"settings": flatten(settings), "outputs": outputs})


def run_stages(architecture, base, folder, *more):
    settings = settings_of(architecture, base, folder, *more)
    prepared(settings, folder)
    for stage in ("03_train_embedding_model", "04_evaluate_model", "05_usage_example"):
        importlib.import_module(stage).main(settings)
    metrics = json.loads((folder / "04_evaluation" / "metrics.json").read_text())
    assert metrics["models"]["adapted"]["paraphrase_retrieval"]["mrr"]["n"] == 6
    assert (folder / "05_vectors.safetensors").is_file()
    return json.loads((folder / "03_model" / "cardioembed.json").read_text())["recipe"]


@EVERY
def test_stages_03_to_05_run_with_the_study_config(architecture, base, tmp_path):
    recipe = run_stages(architecture, base, tmp_path / "run")
    assert recipe["pooling"] == architecture.pooling
    prompts = [recipe["prompts"].get(recipe[side]) or "" for side in ("anchor_prompt", "positive_prompt")]
    assert tuple(prompts) == architecture.prompts


@pytest.mark.parametrize("architecture", SOME, ids=lambda each: each.fixture)
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_stages_03_to_05_run_on_a_quantised_base(architecture, quantization, base, tmp_path):
    recipe = run_stages(architecture, base, tmp_path / "run", f"model.quantization={quantization}")
    assert recipe["quantization"] == quantization
