import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from texts import MINILM, SENTENCES

from cardioembed.embedder.bases import Base
from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.errors import UserError

BASES = ["tiny_bert", "tiny_qwen2", "tiny_qwen3"]


def load(name, request, **options):
    return load_embedder(str(request.getfixturevalue(name)), max_length=64, device="cpu", **options)


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
@pytest.mark.parametrize("base", BASES)
def test_a_text_has_the_same_vector_alone_and_in_any_batch(base, pooling, request):
    embedder = load(base, request, pooling=pooling)
    alone = np.stack([embedder.encode(text) for text in SENTENCES])
    together = embedder.encode(SENTENCES, chunk_tokens=10_000)
    small = embedder.encode(reversed(SENTENCES), chunk_tokens=20)[::-1]
    assert np.abs(alone - together).max() < 2e-6
    assert np.abs(alone - small).max() < 2e-6
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_left_padding_by_hand_gives_the_same_vector(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu")
    (ids,), _ = embedder.tokenize([SENTENCES[0]])
    padded = torch.tensor([[embedder.tokenizer.pad_token_id] * 5 + ids])
    mask = torch.tensor([[0] * 5 + [1] * len(ids)])
    with torch.no_grad():
        hidden = embedder.model(input_ids=padded, attention_mask=mask).last_hidden_state
    from cardioembed.embedder.pooling import pool

    vector = torch.nn.functional.normalize(pool(hidden, mask, "lasttoken"), dim=-1)[0].numpy()
    assert np.abs(vector - embedder.encode(SENTENCES[0])).max() < 2e-6


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_qwen3"])
def test_vectors_equal_sentence_transformers(base, request):
    embedder = load(base, request)
    peer = SentenceTransformer(str(request.getfixturevalue(base)), device="cpu")
    assert np.abs(embedder.encode(SENTENCES) - peer.encode(SENTENCES)).max() < 1e-5


def test_vectors_of_the_laptop_base_equal_sentence_transformers():
    embedder = load_embedder(MINILM, max_length=128, device="cpu")
    peer = SentenceTransformer(str(embedder.base.folder), device="cpu")
    assert np.abs(embedder.encode(SENTENCES) - peer.encode(SENTENCES)).max() < 1e-5


def test_a_generator_an_empty_list_and_one_text(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    assert embedder.encode(text for text in SENTENCES).shape == (6, 64)
    assert embedder.encode([]).shape == (0, 64)
    assert embedder.encode("").shape == (64,)


def test_what_is_no_text_is_named_by_place(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    with pytest.raises(UserError, match=r"texts\[1\] is a NoneType"):
        embedder.encode(["ECG", None])


def test_an_unknown_prompt_lists_the_known(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu")
    with pytest.raises(UserError, match="no prompt 'querry'; its prompts: query, document"):
        embedder.encode("ECG", prompt_name="querry")


def test_a_prompt_of_ones_own_replaces_the_bases(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu", anchor_prompt="Find: ", positive_prompt=None)
    assert embedder.prompt_text(embedder.recipe.anchor_prompt) == "Find: "
    assert embedder.recipe.positive_prompt is None


def test_a_hub_base_is_found_again_at_its_revision(tiny_bert):
    found = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    assert found.place == str(tiny_bert)
    hub = Base("owner/name", "0123abc", tiny_bert, "owner/name")
    again = Embedder(found.model, found.tokenizer, found.recipe, hub, found.device)
    assert again.place == "owner/name@0123abc"
