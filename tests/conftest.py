"""Tiny randomly initialised bases, laid out as their hub repositories are, and the laptop's real base."""

import json
from pathlib import Path

import pytest
import torch
from texts import ROOT, SENTENCES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

# Models this small lose more to handing work between threads than they gain.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory) -> Path:
    """As Qwen3-Embedding: its tokenizer appends <|endoftext|>, which is the pad token and not its eos_token."""
    folder = tmp_path_factory.mktemp("tiny-qwen3-embedding")
    tokenizer = _bpe()
    end = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    _save_bpe(tokenizer, folder, padding_side="left")
    _save(Qwen3Model(Qwen3Config(**_decoder(), num_key_value_heads=2, head_dim=16)), folder)
    prompts = {"query": "Instruct: Find the same statement\nQuery:", "document": ""}
    _sentence_transformers_files(folder, "pooling_mode_lasttoken", prompts)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory) -> Path:
    """As Qwen2.5: a bare language model whose tokenizer appends nothing."""
    folder = tmp_path_factory.mktemp("tiny-qwen2")
    _save_bpe(_bpe(), folder, chat_template="{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    _save(Qwen2Model(Qwen2Config(**_decoder(), num_key_value_heads=2)), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """As bge: BERT with [CLS] pooling."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    _wordpiece().save_pretrained(folder)
    config = BertConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128,
    )  # fmt: skip
    _save(BertModel(config), folder)
    _sentence_transformers_files(folder, "pooling_mode_cls_token", {})
    return folder


def _decoder() -> dict:
    return {
        "vocab_size": 500, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256,
    }  # fmt: skip


def _bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def _save_bpe(tokenizer: Tokenizer, folder: Path, **options) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"], **options,
    )  # fmt: skip
    fast.save_pretrained(folder)


def _wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def _save(model: torch.nn.Module, folder: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15, generator=generator)
    model.save_pretrained(folder)


def _sentence_transformers_files(folder: Path, pooling: str, prompts: dict) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": False}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 64, **modes, pooling: True})
    )
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
