import numpy as np
from texts import MINILM

from cardioembed.embedder.encoder import load_embedder
from cardioembed.evaluation import remembering
from cardioembed.evaluation.remembering import RememberingEmbedder

TEXTS = [
    "Severe aortic stenosis.",
    "No thrombus was seen.",
    "SEVERE AORTIC STENOSIS.",
    "Bisoprolol",
    "No thrombus was seen.",
]


class Counting:
    """An embedder that notes what it is asked to encode."""

    def __init__(self, embedder):
        self.embedder, self.asked = embedder, []

    def __getattr__(self, name):
        return getattr(self.embedder, name)

    def encode(self, texts, **options):
        self.asked.append(list(texts))
        return self.embedder.encode(texts, **options)


def test_vectors_are_the_embedders_and_each_text_is_encoded_once(tiny_qwen3):
    counting = Counting(load_embedder(str(tiny_qwen3), max_length=64, device="cpu"))
    ours = RememberingEmbedder(counting)
    expected = counting.embedder.encode(TEXTS)
    assert np.abs(ours.encode(TEXTS) - expected).max() < 1e-6
    assert np.abs(ours.encode(TEXTS[::-1]) - expected[::-1]).max() < 1e-6
    assert sum(map(len, counting.asked)) == len(set(TEXTS))


def test_prompts_are_told_apart(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu", anchor_prompt="Find: ", positive_prompt=None)
    ours = RememberingEmbedder(embedder)
    anchors, positives = ours.encode_pairs(TEXTS, TEXTS)
    expected = embedder.encode_pairs(TEXTS, TEXTS)
    assert np.abs(anchors - expected[0]).max() < 1e-6
    assert np.abs(positives - expected[1]).max() < 1e-6
    assert np.abs(anchors - positives).max() > 1e-3


def test_what_the_tokenizer_does_not_tell_apart_is_one_text():
    counting = Counting(load_embedder(MINILM, max_length=64, device="cpu"))
    RememberingEmbedder(counting).encode([TEXTS[0], TEXTS[2]])
    assert len(counting.asked[0]) == 1


def test_memory_is_bounded(tiny_bert, monkeypatch):
    monkeypatch.setattr(remembering, "MOST_VECTORS", 2)
    counting = Counting(load_embedder(str(tiny_bert), max_length=64, device="cpu"))
    ours = RememberingEmbedder(counting)
    first, second = ours.encode(TEXTS), ours.encode(TEXTS)
    assert np.abs(first - second).max() < 1e-6
    assert [len(texts) for texts in counting.asked] == [4, 2]
