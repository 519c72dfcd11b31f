"""Tiny randomly initialised bases of the study's architectures, laid out as their hub repositories are."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from texts import SENTENCES
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    MPNetConfig,
    MPNetModel,
    MPNetTokenizer,
    PreTrainedModel,
    Qwen2Tokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from cardioembed.embedder.jina_bert import JinaBertConfig, JinaBertModel


@dataclass(frozen=True)
class Architecture:
    """What the project must know about a base.

    Attributes:
        fixture: Its tiny base in conftest.py.
        config: Its file in configs/study.
        pooling: Its own.
        query_value: The names of its query and value projections.
        linears: All names that ``all-linear`` adapts.
        first, last: Special tokens before and after a text.
        prompts: What stands before anchors and before positives.
        causal: Whether it is a language model.
    """

    fixture: str
    config: str
    pooling: str
    query_value: tuple[str, str]
    linears: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    prompts: tuple[str, str] = ("", "")
    causal: bool = False


_BERT = (("query", "value"), ("query", "key", "value", "dense"), ("[CLS]",), ("[SEP]",))
_XLM_R = (("query", "value"), ("query", "key", "value", "dense"), ("<s>",), ("</s>",))
_DECODER = (
    ("q_proj", "v_proj"),
    ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)
_INSTRUCTION = "Instruct: Find the same statement\nQuery:"
ARCHITECTURES = [
    Architecture(
        "tiny_qwen3", "Qwen3-Embedding-4B", "lasttoken", *_DECODER, (), ("<|endoftext|>",), (_INSTRUCTION, ""), True
    ),
    Architecture("tiny_qwen2", "Qwen2.5-0.5B", "lasttoken", *_DECODER, (), ("<|im_end|>",), causal=True),
    Architecture("tiny_gemma2", "gemma-2-2b-it", "lasttoken", *_DECODER, ("<bos>",), ("<eos>",), causal=True),
    Architecture("tiny_bert", "bge-small-en-v1.5", "cls", *_BERT),
    Architecture("tiny_e5", "e5-large-v2", "mean", *_BERT, ("query: ", "query: ")),
    Architecture("tiny_biolinkbert", "BioLinkBERT-large", "mean", *_BERT),
    Architecture("tiny_xlm_roberta", "bge-m3", "cls", *_XLM_R),
    Architecture(
        "tiny_mpnet", "all-mpnet-base-v2", "mean", ("q", "v"), ("q", "k", "v", "o", "dense"), ("<s>",), ("</s>",)
    ),
    Architecture(
        "tiny_jina", "jina-embeddings-v2-base-en", "mean", ("query", "value"),
        ("query", "key", "value", "dense", "gated_layers", "wo"), ("[CLS]",), ("[SEP]",),
    ),
]  # fmt: skip

_ENCODER = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 130,
}  # fmt: skip


def build_xlm_roberta(folder: Path) -> None:
    """As bge-m3: SentencePiece pieces between <s> and </s>, pad id 1, positions from 2, [CLS] pooling."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    XLMRobertaTokenizer(vocab=[*map(tuple, pieces), ("<mask>", 0.0)]).save_pretrained(folder)
    config = XLMRobertaConfig(
        **_ENCODER, vocab_size=len(pieces) + 1, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    save(XLMRobertaModel(config), folder)
    sentence_transformers_files(folder, "pooling_mode_cls_token", {})


def build_mpnet(folder: Path) -> None:
    """As all-mpnet-base-v2: word pieces between <s> and </s>, pad id 1, relative positions, mean pooling.

    Its tokenizer.json comes with a truncation and a padding of its own, which must not act.
    """
    vocabulary = word_pieces(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"])
    tokenizer = MPNetTokenizer(vocab=vocabulary)
    tokenizer.backend_tokenizer.enable_truncation(16)
    tokenizer.backend_tokenizer.enable_padding(length=16, pad_id=1, pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    config = MPNetConfig(
        **_ENCODER, vocab_size=400, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )
    save(MPNetModel(config), folder)
    sentence_transformers_files(folder, "pooling_mode_mean_tokens", {})


def build_gemma2(folder: Path) -> None:
    """As gemma-2-2b-it: <bos> but no <eos>, a chat template, capped scores, heads wider than their share."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=250, special_tokens=special, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {f"<0x{byte:02X}>": len(model["vocab"]) + byte for byte in range(256)}
    fast = GemmaTokenizer(
        vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]],
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template="{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}",
    )  # fmt: skip
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    fast.save_pretrained(folder)
    write_tokenizer_config(folder, add_bos_token=True, add_eos_token=False)
    config = Gemma2Config(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=32, sliding_window=8, max_position_embeddings=256,
    )  # fmt: skip
    save(Gemma2Model(config), folder)


def build_bert(folder: Path, pooling: str | None) -> None:
    """BERT with its own tokenizer class; ``pooling`` None writes no sentence-transformers files."""
    BertTokenizer(vocab=word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])).save_pretrained(folder)
    save(BertModel(BertConfig(**_ENCODER, vocab_size=400)), folder)
    if pooling:
        sentence_transformers_files(folder, pooling, {})


def build_jina(folder: Path) -> None:
    """As jina-embeddings-v2-base-en: a config.json that says BERT, weights of another architecture."""
    BertTokenizer(vocab=word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])).save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = JinaBertModel(JinaBertConfig(**sizes, vocab_size=400))
    _randomise(model)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    code = "jinaai/jina-bert-implementation--"
    config = {
        "architectures": ["JinaBertForMaskedLM"], "model_type": "bert", "position_embedding_type": "alibi",
        "feed_forward_type": "geglu", "vocab_size": 400, "max_position_embeddings": 8192, "pad_token_id": 0,
        "auto_map": {"AutoModel": code + "modeling_bert.JinaBertModel"}, "emb_pooler": "mean", **sizes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def use_qwen_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer of ``source`` under the class and the settings that the hub's Qwen repositories name."""
    shutil.copytree(source, folder)
    write_tokenizer_config(folder, tokenizer_class=Qwen2Tokenizer.__name__, add_bos_token=False)


def word_pieces(special: list[str]) -> dict[str, int]:
    """A WordPiece vocabulary of the sentences whose first ids are the special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer.get_vocab()


def save(model: PreTrainedModel, folder: Path) -> None:
    """Writes a model with weights large enough for different texts to get different vectors."""
    _randomise(model)
    model.save_pretrained(folder)


def _randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15, generator=generator)


def sentence_transformers_files(folder: Path, pooling: str, prompts: dict) -> None:
    """modules.json and what belongs to it."""
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


def write_tokenizer_config(folder: Path, **values) -> None:
    """Changes tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
