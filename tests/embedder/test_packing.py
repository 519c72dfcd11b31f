"""Texts end to end give the vectors and gradients of padded ones."""

import importlib

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from texts import SENTENCES
from transformers import Qwen2Config

from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.bases import find_base
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.loading import choose_attention, read_config
from cardioembed.embedder.packing import VARLEN, can_pack, flash_works, pack, pool_packed
from cardioembed.embedder.pooling import pool
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError

TEXTS = [*SENTENCES, "AF", "Cold extremities, a low output and a narrow pulse pressure " * 5]
PACKABLE = ["tiny_bert", "tiny_e5", "tiny_biolinkbert", "tiny_xlm_roberta", "tiny_qwen2", "tiny_qwen3"]


def embedders(folder):
    return [
        load_embedder(str(folder), max_length=100, device="cpu", attn_implementation=name) for name in (VARLEN, "sdpa")
    ]


@pytest.mark.parametrize("base", PACKABLE)
@pytest.mark.parametrize("chunk_tokens", [64, 100_000])
def test_vectors_are_those_of_padded_texts(base, chunk_tokens, request):
    packed, padded = embedders(request.getfixturevalue(base))
    assert packed.packs
    assert not padded.packs
    expected = padded.encode(TEXTS, chunk_tokens=16)  # a text at a time: no padding, no mask
    assert np.abs(packed.encode(TEXTS, chunk_tokens=chunk_tokens) - expected).max() < 1e-6


def test_a_text_does_not_see_its_neighbours(tiny_bert):
    packed, _ = embedders(tiny_bert)
    ids, _ = packed.tokenize(["No thrombus was seen.", "A thrombus was seen.", "Aortic stenosis is severe."])
    with torch.no_grad():
        together = packed.embed_tokens(ids)
        other = packed.embed_tokens([ids[0], ids[2], ids[1]])
    assert torch.allclose(together[0], other[0], atol=1e-7)
    assert torch.allclose(together[1], other[2], atol=1e-7)


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_xlm_roberta", "tiny_qwen3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_padded_texts(base, checkpointing, request):
    folder = request.getfixturevalue(base)
    found = []
    for embedder in embedders(folder):
        torch.manual_seed(0)
        embedder.model = attach_lora(
            embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear",
            base_reference=str(folder), revision=None,
        )  # fmt: skip
        if checkpointing:
            embedder.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            embedder.model.train()
            for module in embedder.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        ids, _ = embedder.tokenize(TEXTS)
        target = torch.randn(len(TEXTS), embedder.dimension, generator=torch.Generator().manual_seed(1))
        (embedder.embed_tokens(ids) * target).sum().backward()
        found.append({name: weight.grad for name, weight in adapter_weights(embedder.model).items()})
    assert all(gradient.abs().max() > 0 for name, gradient in found[0].items() if "lora_B" in name)
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-5, rtol=1e-3), name


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_pooling_is_that_of_padded_texts(mode):
    lengths = [3, 1, 5]
    hidden = torch.randn(3, 5, 8)
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
    starts = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
    assert torch.allclose(pool_packed(hidden[mask.bool()], starts, mode), pool(hidden, mask, mode), atol=1e-6)
    with pytest.raises(ValueError, match="'max' is unknown"):
        pool_packed(hidden[mask.bool()], starts, "max")


def test_positions_begin_anew_with_every_text(tiny_bert, tiny_xlm_roberta):
    sequences = [[5, 6, 7], [8]]
    for folder, positions in ((tiny_bert, [0, 1, 2, 0]), (tiny_xlm_roberta, [2, 3, 4, 2])):
        given, starts = pack(sequences, read_config(find_base(str(folder))), torch.device("cpu"))
        assert given["position_ids"].tolist() == [positions]
        assert given["input_ids"].tolist() == [[5, 6, 7, 8]]
        assert given["max_length_q"] == 3
        assert starts.tolist() == [0, 3, 4]


@pytest.mark.parametrize("base", ["tiny_mpnet", "tiny_gemma2", "tiny_jina"])
def test_attention_that_is_not_plain_is_refused_before_loading(base, request):
    with pytest.raises(UserError, match=r"model\.attn_implementation: varlen is not available for .*set auto"):
        load_embedder(str(request.getfixturevalue(base)), max_length=64, device="cpu", attn_implementation=VARLEN)


def test_automatic_attention_takes_it_only_where_the_card_has_shown_it(tiny_qwen3, tiny_mpnet, monkeypatch):
    qwen, mpnet = (read_config(find_base(str(folder))) for folder in (tiny_qwen3, tiny_mpnet))
    card = torch.device("cuda", 0)
    loading = importlib.import_module("cardioembed.embedder.loading")
    for works, expected in ((True, VARLEN), (False, "sdpa")):
        monkeypatch.setattr(loading, "flash_works", lambda device, dtype, works=works: works)
        assert choose_attention(qwen, "auto", card, "bfloat16") == expected
        assert choose_attention(mpnet, "auto", card, "bfloat16") == "eager"
    assert not can_pack(Qwen2Config(use_sliding_window=True))


def test_the_cpu_keeps_padded_attention(tiny_qwen3):
    assert not flash_works(torch.device("cpu"), torch.bfloat16)
    assert not load_embedder(str(tiny_qwen3), max_length=64, device="cpu").packs


def test_a_saved_model_opens_padded_in_sentence_transformers(tiny_bert, tmp_path):
    packed, _ = embedders(tiny_bert)
    packed.model = attach_lora(
        packed.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear",
        base_reference=str(tiny_bert), revision=None,
    )  # fmt: skip
    save_model(packed, tmp_path, {})
    vectors = packed.encode(TEXTS)
    assert load_model(tmp_path, device="cpu").packs
    assert np.abs(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS) - vectors).max() < 1e-5


def test_padded_input_is_refused(tiny_bert):
    packed, _ = embedders(tiny_bert)
    with pytest.raises(ValueError, match="packed texts only"):
        packed.model(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 0]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on CUDA")
def test_the_card_agrees_with_padded_attention():
    assert flash_works(torch.device("cuda", 0), torch.bfloat16)
