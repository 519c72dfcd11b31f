"""JinaBERT-v2, the architecture of jina-embeddings-v2-base-en and -small-en, without the hub's remote code.

A post-norm BERT encoder without position embeddings: each head lowers its attention scores linearly with the distance
of two tokens (ALiBi, in both directions), and the feed-forward is gated. Source of the formulas: Press et al. 2022
(ALiBi), Shazeer 2020 (GEGLU), Günther et al. 2023 (jina-embeddings-v2). Modules bear the names of the hub's weights.
Their config.json says ``model_type: bert``, so tools that cannot run the remote code build a ``BertModel`` whose
feed-forward weights are random; here such a base is recognised and never becomes one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from cardioembed.errors import UserError

# Written with saved models as their attention. No other class knows it, so sentence-transformers, which would open the
# base as a BertModel with random weights, stops with an error instead of giving wrong vectors.
ATTENTION = "cardioembed_jina_bert_alibi"
_ACTIVATIONS = {"geglu": nn.GELU, "reglu": nn.ReLU}
# Far below any score with ALiBi (-5,800 at 8,192 tokens), and finite in every dtype.
_MASKED = torch.finfo(torch.float16).min
_OTHER_VARIANT = ("layer_norm_q", "layer_norm_k", "up_gated_layer", "down_layer")


@strict
class JinaBertConfig(BertConfig):
    """BERT's configuration with the two keys that make it JinaBERT.

    Attributes:
        position_embedding_type: Always ``alibi``.
        feed_forward_type: ``geglu`` or ``reglu``.
    """

    model_type = "jina_bert_v2"

    position_embedding_type: str = "alibi"
    feed_forward_type: str = "geglu"


def read_jina_config(folder: Path, name: str) -> JinaBertConfig | None:
    """The configuration of a JinaBERT-v2 folder, None for another architecture.

    Raises:
        UserError: A variant whose layers are other ones (jina-embeddings-v2-base-code and the bilingual ones).
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not _is_jina_bert(values):
        return None
    odd = _unsupported(values, folder)
    if odd:
        raise UserError(
            f"model.base: {name} is a variant of JinaBERT that is not supported here ({odd}); take "
            "jinaai/jina-embeddings-v2-base-en or jinaai/jina-embeddings-v2-small-en, or another base"
        )
    # Neither the remote code's name nor the class of the checkpoint belongs to what is loaded here.
    dropped = ("auto_map", "architectures", "model_type", "_name_or_path")
    return JinaBertConfig.from_dict({key: value for key, value in values.items() if key not in dropped})


def _is_jina_bert(values: dict[str, Any]) -> bool:
    classes = [*(values.get("architectures") or []), *(values.get("auto_map") or {}).values()]
    kind = values.get("model_type")
    alibi = kind == "bert" and values.get("position_embedding_type") == "alibi"
    return kind == JinaBertConfig.model_type or alibi or any("JinaBert" in str(each) for each in classes)


def _unsupported(values: dict[str, Any], folder: Path) -> str | None:
    """What this module does not compute, in words; None if it computes everything."""
    position, feed_forward = values.get("position_embedding_type"), values.get("feed_forward_type")
    if position != "alibi":
        return f"position_embedding_type {position}, alibi needed"
    if feed_forward not in _ACTIVATIONS:
        return f"feed_forward_type {feed_forward}, one of {', '.join(_ACTIVATIONS)} needed"
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a dict
                if any(part in _OTHER_VARIANT for part in key.split(".")):
                    return f"it has the weight {key}"
    return None


def alibi_slopes(heads: int) -> list[float]:
    """How much each head's scores fall per token of distance (Press et al. 2022).

    For a power of two, the geometric sequence that starts at 2^(-8/heads) with that ratio. Otherwise the slopes of the
    next lower power of two, then every other one of the next higher.
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * i / lower) for i in range(1, lower + 1)]
    between = [2.0 ** (-8 * i / (2 * lower)) for i in range(1, 2 * lower + 1, 2)]
    return slopes + between[: heads - lower]


def attention_bias(mask: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scaled attention scores: ALiBi, and padding out of sight.

    Args:
        mask: 1 for a token, 0 for padding, shape (texts, tokens); padding may stand on either side.
        heads: Number of attention heads.
        dtype: Of the scores.

    Returns:
        Shape (texts, heads, tokens, tokens).
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    distance = (places[:, None] - places[None, :]).abs()
    slopes = torch.tensor(alibi_slopes(heads), device=mask.device, dtype=torch.float32)
    alibi = (-slopes[:, None, None] * distance).to(dtype)
    return torch.where(mask[:, None, None, :].bool(), alibi[None], torch.tensor(_MASKED, dtype=dtype).to(mask.device))


class JinaBertEmbeddings(nn.Module):
    """Word and segment embeddings, normalised; there are none of positions."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embeddings of shape (texts, tokens, hidden) from word embeddings of that shape."""
        return self.dropout(self.LayerNorm(words + self.token_type_embeddings(token_type_ids)))


class JinaBertSelfAttention(nn.Module):
    """Attention of every token to every other, with the bias added to the scaled scores."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """The heads' outputs side by side, shape (texts, tokens, hidden)."""
        query, key, value = (
            linear(hidden).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        heads = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), dropout_p=self.dropout if self.training else 0.0
        )
        return heads.transpose(1, 2).flatten(-2)


class JinaBertSelfOutput(nn.Module):
    """Projection, residual and norm after the attention."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, heads: Tensor, residual: Tensor) -> Tensor:
        """Shape (texts, tokens, hidden)."""
        return self.LayerNorm(self.dropout(self.dense(heads)) + residual)


class JinaBertAttention(nn.Module):
    """Self-attention and what follows it; the names are the checkpoint's."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.self = JinaBertSelfAttention(config)
        self.output = JinaBertSelfOutput(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Shape (texts, tokens, hidden)."""
        return self.output(self.self(hidden, bias), hidden)


class JinaBertGatedFeedForward(nn.Module):
    """Activation of the first half times the second half, projected, with residual and norm."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.act = _ACTIVATIONS[config.feed_forward_type]()
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape (texts, tokens, hidden)."""
        gate, value = self.gated_layers(hidden).chunk(2, dim=-1)
        return self.layernorm(self.wo(self.dropout(self.act(gate) * value)) + hidden)


class JinaBertLayer(GradientCheckpointingLayer):
    """Attention, then feed-forward."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.attention = JinaBertAttention(config)
        self.mlp = JinaBertGatedFeedForward(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Shape (texts, tokens, hidden)."""
        return self.mlp(self.attention(hidden, bias))


class JinaBertEncoder(nn.Module):
    """The layers, one after another."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(JinaBertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Shape (texts, tokens, hidden)."""
        for layer in self.layer:
            hidden = layer(hidden, bias)
        return hidden


class JinaBertModel(PreTrainedModel):
    """Token ids to token vectors, as ``transformers.BertModel`` does for BERT; without pooler head."""

    config_class = JinaBertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("JinaBertLayer",)
    _input_embed_layer = "word_embeddings"
    _keys_to_ignore_on_load_unexpected = (r"^pooler\.", r"^cls\.", r"position_ids$", r"token_type_ids$")

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.embeddings = JinaBertEmbeddings(config)
        self.encoder = JinaBertEncoder(config)
        self.post_init()

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """There is one way here, PyTorch's SDPA with a bias; transformers asks at loading."""
        if requested_attention not in (None, "sdpa", ATTENTION):
            raise ValueError(
                f"attn_implementation {requested_attention} is not available for JinaBERT (its ALiBi bias needs sdpa); "
                "set model.attn_implementation: auto or sdpa"
            )
        return ATTENTION

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Token vectors.

        Args:
            input_ids: Shape (texts, tokens).
            attention_mask: 1 for a token, 0 for padding, same shape; None for no padding.
            token_type_ids: Segments, same shape; None for segment 0.
            inputs_embeds: Word embeddings in place of ``input_ids``, shape (texts, tokens, hidden).
            _: What PEFT passes to every transformer (``output_attentions`` and the like); nothing of it applies.
        """
        words = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(words.shape[:2], dtype=torch.long, device=words.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
        hidden = self.embeddings(words, token_type_ids)
        bias = attention_bias(attention_mask, self.config.num_attention_heads, hidden.dtype)
        return BaseModelOutput(last_hidden_state=self.encoder(hidden, bias))
