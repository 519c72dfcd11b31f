"""A tiny random chat model, laid out as a hub repository is. Its answers are noise, of a length as chance has it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_chat(folder: Path, *, template: str | None = TEMPLATE, positions: int = 8192) -> Path:
    """Saves tokenizer and weights; about every eighth token ends the answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"], chat_template=template,
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=positions, tie_word_embeddings=False,
        eos_token_id=vocabulary["<|im_end|>"], pad_token_id=vocabulary["<|endoftext|>"], bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        # A direction that every hidden state has lets the end token, and of the others only letters, be likely.
        model.model.embed_tokens.weight.normal_(0, 0.3)
        model.model.embed_tokens.weight[:, 0] = 2.0
        model.lm_head.weight.normal_(0, 0.25)
        model.lm_head.weight[:, 0] = -2.0
        model.lm_head.weight[[vocabulary[letter] for letter in "abcdefghijklmnopqrstuvwxyz"], 0] = 0.0
        model.lm_head.weight[vocabulary["<|im_end|>"]] = 0.0
        model.lm_head.weight[vocabulary["<|im_end|>"], 0] = 0.2
    # As chat models have it; a server may take it as the word on whether temperatures count.
    model.generation_config.do_sample = True
    model.generation_config.eos_token_id = vocabulary["<|im_end|>"]
    model.save_pretrained(folder)
    return folder
