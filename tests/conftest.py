"""Tiny randomly initialised bases, laid out as their hub repositories are, and the laptop's real base."""

from pathlib import Path

import pytest
import torch
from architectures import (
    build_bert,
    build_gemma2,
    build_jina,
    build_mpnet,
    build_xlm_roberta,
    save,
    sentence_transformers_files,
)
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

# Files that run whole stages; started first, they leave no process waiting for another at the end.
LONG = ("test_stages.py", "test_processes.py", "test_study.py", "test_real_data.py", "test_explorer_browser.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


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
    save(Qwen3Model(Qwen3Config(**_decoder(), num_key_value_heads=2, head_dim=16)), folder)
    prompts = {"query": "Instruct: Find the same statement\nQuery:", "document": ""}
    sentence_transformers_files(folder, "pooling_mode_lasttoken", prompts)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory) -> Path:
    """As Qwen2.5: a bare language model whose tokenizer appends nothing."""
    folder = tmp_path_factory.mktemp("tiny-qwen2")
    _save_bpe(_bpe(), folder, chat_template="{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    save(Qwen2Model(Qwen2Config(**_decoder(), num_key_value_heads=2)), folder)
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
    save(BertModel(config), folder)
    sentence_transformers_files(folder, "pooling_mode_cls_token", {})
    return folder


@pytest.fixture(scope="session")
def tiny_xlm_roberta(tmp_path_factory) -> Path:
    """As bge-m3."""
    folder = tmp_path_factory.mktemp("tiny-xlm-roberta")
    build_xlm_roberta(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory) -> Path:
    """As all-mpnet-base-v2."""
    folder = tmp_path_factory.mktemp("tiny-mpnet")
    build_mpnet(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gemma2(tmp_path_factory) -> Path:
    """As gemma-2-2b-it."""
    folder = tmp_path_factory.mktemp("tiny-gemma-2")
    build_gemma2(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_e5(tmp_path_factory) -> Path:
    """As e5-large-v2; its name is what makes it an E5."""
    folder = tmp_path_factory.mktemp("intfloat") / "e5-large-v2"
    folder.mkdir()
    build_bert(folder, "pooling_mode_mean_tokens")
    return folder


@pytest.fixture(scope="session")
def tiny_biolinkbert(tmp_path_factory) -> Path:
    """As BioLinkBERT: BERT without sentence-transformers files."""
    folder = tmp_path_factory.mktemp("tiny-biolinkbert")
    build_bert(folder, None)
    return folder


@pytest.fixture(scope="session")
def tiny_jina(tmp_path_factory) -> Path:
    """As jina-embeddings-v2-base-en."""
    folder = tmp_path_factory.mktemp("tiny-jina-v2")
    build_jina(folder)
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
