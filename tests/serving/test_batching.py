"""The batcher: same vectors whatever the batch, turns, token budget, bounded queue, abandoned requests, closing."""

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from texts import MINILM, SENTENCES

from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.serving.batching import Batcher, Closed, QueueFull, Tokenless

SECONDS = 60


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


class Held:
    """A batcher whose model waits at ``gate`` before each batch; the batches' token sequences are noted."""

    def __init__(self, embedder: Embedder, monkeypatch, **options) -> None:
        self.gate = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.sequences: list[list[list[int]]] = []
        self.sizes: list[tuple[int, int]] = []
        embed = embedder.embed_tokens

        def held(sequences):
            self.entered.release()
            assert self.gate.acquire(timeout=SECONDS)
            self.sequences.append(sequences)
            return embed(sequences)

        monkeypatch.setattr(embedder, "embed_tokens", held)
        options = {"max_wait_ms": 0, "max_concurrent_batches": 1, **options}
        self.batcher = Batcher(embedder, on_batch=lambda *size: self.sizes.append(size), **options)
        self.batcher.start()

    def occupy(self) -> Future:
        """A first request that is in the model when this returns."""
        future = self.batcher.submit(["busy"])
        assert self.entered.acquire(timeout=SECONDS)
        return future

    def release(self) -> None:
        self.gate.release(10_000)


@pytest.fixture
def hold(embedder, monkeypatch):
    made = []

    def make(**options) -> Held:
        made.append(Held(embedder, monkeypatch, **options))
        return made[-1]

    yield make
    for held in made:
        held.release()
        held.batcher.close()


def running(embedder, **options) -> Batcher:
    batcher = Batcher(embedder, **options)
    batcher.start()
    return batcher


@pytest.mark.parametrize("base", [MINILM, "tiny_bert", "tiny_qwen3", "tiny_xlm_roberta", "tiny_mpnet"])
def test_vectors_are_the_same_whatever_the_batch(base, request):
    folder = base if base == MINILM else str(request.getfixturevalue(base))
    embedder = load_embedder(folder, max_length=64, device="cpu")
    texts = [text[: 10 + 12 * i] for i, text in enumerate(SENTENCES)]
    alone = np.stack([embedder.encode(text) for text in texts])
    for budget in (1, 100, 4096):
        batcher = running(embedder, max_batch_tokens=budget)
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda text, batcher=batcher: batcher.submit([text]).result(SECONDS), texts * 4)
            together = [answer.vectors[0] for answer in answers]
        many = batcher.submit(texts).result(SECONDS).vectors
        batcher.close()
        np.testing.assert_allclose(np.stack(together), np.tile(alone, (4, 1)), atol=1e-6, rtol=0)
        np.testing.assert_allclose(many, alone, atol=1e-6, rtol=0)


def test_tokens_and_cut_texts_are_counted_exactly(embedder):
    batcher = running(embedder)
    texts = [SENTENCES[0], "word " * 500, SENTENCES[1]]
    found = batcher.submit(texts).result(SECONDS)
    batcher.close()
    assert found.tokens == sum(len(embedder.tokenize([text])[0][0]) for text in texts)
    assert found.cut == 1


def test_a_prompt_stands_before_its_own_request_only(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), max_length=64, device="cpu")
    batcher = Batcher(embedder, max_wait_ms=50)
    plain, prompted = batcher.submit(["valve"]), batcher.submit(["valve"], "query")
    batcher.start()
    np.testing.assert_allclose(plain.result(SECONDS).vectors[0], embedder.encode("valve"), atol=1e-6)
    expected = embedder.encode("valve", prompt_name="query")
    np.testing.assert_allclose(prompted.result(SECONDS).vectors[0], expected, atol=1e-6)
    assert not np.allclose(expected, embedder.encode("valve"), atol=1e-3)
    batcher.close()


def test_requests_that_wait_go_through_the_model_together(hold):
    held = hold()
    first = held.occupy()
    futures = [held.batcher.submit([text]) for text in SENTENCES]
    held.release()
    for future in [first, *futures]:
        future.result(SECONDS)
    held.batcher.close()
    assert [texts for texts, _ in held.sizes] == [1, len(SENTENCES)]


def test_the_first_text_waits_for_others_but_not_longer_than_a_full_batch_takes(embedder):
    sizes = []
    batcher = Batcher(embedder, max_wait_ms=60_000, max_batch_tokens=40, on_batch=lambda *size: sizes.append(size))
    batcher.start()
    futures = [batcher.submit([text]) for text in SENTENCES * 4]
    # Without leaving at a full batch this would take the minute; what is left over waits until close.
    futures[0].result(30)
    batcher.close()
    assert all(future.result(0).tokens for future in futures)
    assert max(texts for texts, _ in sizes) > 1


def test_a_batch_keeps_to_its_tokens_and_a_longer_text_is_one_of_its_own(hold, embedder):
    held = hold(max_batch_tokens=48)
    held.occupy()
    texts = [*SENTENCES, "word " * 500, *SENTENCES]
    future = held.batcher.submit(texts)
    held.release()
    found = future.result(SECONDS)
    held.batcher.close()
    sizes = held.sizes[1:]
    assert sum(tokens for _, tokens in sizes) == found.tokens
    assert [size for size in sizes if size[1] > 48] == [(1, 64)]
    padded = [len(rows) * max(map(len, rows)) for rows in held.sequences[1:]]
    assert [size for size in padded if size > 48] == [64]


def test_budget_of_one_serves_every_text_alone(hold):
    held = hold(max_batch_tokens=1)
    held.occupy()
    futures = [held.batcher.submit(SENTENCES[:2]) for _ in range(3)]
    held.release()
    for future in futures:
        future.result(SECONDS)
    held.batcher.close()
    assert [texts for texts, _ in held.sizes] == [1] * 7


def test_small_requests_do_not_wait_for_a_large_one_and_do_not_starve_it(hold):
    held = hold(max_batch_tokens=1)
    held.occupy()
    done = []
    large = held.batcher.submit(["a"] * 30)
    small = [held.batcher.submit(["b"] * 2) for _ in range(3)]
    for name, future in [("large", large), *((f"small {i}", future) for i, future in enumerate(small))]:
        future.add_done_callback(lambda _, name=name: done.append((name, len(held.sizes))))
    held.release()
    large.result(SECONDS)
    held.batcher.close()
    # Turns of four requests: each small one has both its texts after two rounds.
    assert [name for name, _ in done] == ["small 0", "small 1", "small 2", "large"]
    assert all(batches <= 1 + 2 * 4 for name, batches in done if name != "large")
    assert len(held.sizes) == 1 + 30 + 6


def test_the_queue_is_bounded_and_frees_as_requests_end(hold):
    held = hold(max_queue=5)
    first = held.occupy()
    waiting = held.batcher.submit(["a"] * 4)
    assert held.batcher.waiting == 5
    with pytest.raises(QueueFull):
        held.batcher.submit(["b"])
    held.release()
    first.result(SECONDS)
    waiting.result(SECONDS)
    assert held.batcher.submit(["b"] * 5).result(SECONDS).vectors.shape == (5, 64)


def test_abandoned_requests_leave_queue_and_model_alone(hold):
    held = hold(max_batch_tokens=1, max_queue=100)
    first = held.occupy()
    leaver, stayer = held.batcher.submit(["a"] * 50), held.batcher.submit(["b"])
    assert leaver.cancel()
    assert held.batcher.waiting == 2
    held.release()
    stayer.result(SECONDS)
    first.result(SECONDS)
    with pytest.raises(CancelledError):
        leaver.result(0)
    held.batcher.close()
    assert sum(texts for texts, _ in held.sizes) == 2


def test_a_request_that_leaves_half_way_takes_the_rest_of_its_texts_along(hold):
    held = hold(max_batch_tokens=1)
    held.occupy()
    leaver, stayer = held.batcher.submit(["a"] * 50), held.batcher.submit(["b"] * 2)
    held.gate.release()
    assert held.entered.acquire(timeout=SECONDS)  # the first of its texts is in the model, all are tokenised
    assert leaver.cancel()
    held.release()
    stayer.result(SECONDS)
    held.batcher.close()
    assert sum(texts for texts, _ in held.sizes) == 1 + 1 + 2


def test_a_request_that_leaves_while_in_the_model_harms_nobody(hold):
    held = hold()
    first = held.occupy()
    assert first.cancel()
    second = held.batcher.submit(["b"])
    held.release()
    assert second.result(SECONDS).vectors.shape == (1, 64)
    assert held.batcher.waiting == 0


def test_a_failing_batch_fails_its_requests_and_the_next_one_works(embedder, monkeypatch):
    embed = embedder.embed_tokens
    failures = [RuntimeError("CUDA out of memory")]

    def fails_once(sequences):
        if failures:
            raise failures.pop()
        return embed(sequences)

    monkeypatch.setattr(embedder, "embed_tokens", fails_once)
    batcher = running(embedder, max_batch_tokens=1)
    broken = batcher.submit(["a", "b", "c"])
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.result(SECONDS)
    assert batcher.submit(["b"]).result(SECONDS).vectors.shape == (1, 64)
    assert batcher.waiting == 0
    batcher.close()


def test_what_cannot_be_tokenised_fails_alone(embedder, tiny_qwen2):
    batcher = running(embedder)
    broken, good = batcher.submit(["a"], "no such prompt"), batcher.submit(["a"])
    with pytest.raises(Exception, match="no such prompt"):
        broken.result(SECONDS)
    assert good.result(SECONDS).tokens
    batcher.close()
    mean = load_embedder(str(tiny_qwen2), max_length=64, device="cpu", pooling="mean")
    batcher = running(mean)
    tokenless = batcher.submit(["a", ""])
    with pytest.raises(Tokenless) as caught:
        tokenless.result(SECONDS)
    assert caught.value.place == 1
    batcher.close()


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_two_batches_are_in_the_model_at_once_each_with_its_share_of_the_threads(four_threads, hold, monkeypatch):
    held = hold(max_concurrent_batches=2)
    shares, embed = [], held.batcher.embedder.embed_tokens

    def noting(sequences):
        shares.append(torch.get_num_threads())
        return embed(sequences)

    monkeypatch.setattr(held.batcher.embedder, "embed_tokens", noting)
    futures = [held.occupy(), held.occupy()]  # neither has left the model
    assert not any(future.done() for future in futures)
    futures.append(held.batcher.submit(["waits"]))
    held.release()
    for future in futures:
        future.result(SECONDS)
    held.batcher.close()
    assert shares == [2, 2, 2]


def test_a_request_whose_texts_are_in_many_batches_at_once_is_answered_whole(embedder):
    texts = [f"{text} {number}" for number in range(40) for text in SENTENCES]
    expected = embedder.encode(texts)
    batcher = running(embedder, max_concurrent_batches=4, max_batch_tokens=1)
    futures = [batcher.submit(texts) for _ in range(2)]
    for future in futures:
        np.testing.assert_allclose(future.result(SECONDS).vectors, expected, atol=1e-6, rtol=0)
    batcher.close()
    assert batcher.waiting == 0


def test_a_worker_that_died_takes_nothing_new(embedder, monkeypatch):
    batcher = Batcher(embedder, max_concurrent_batches=1)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(batcher, "_draw", lambda: 1 / 0)
    batcher.start()
    batcher.submit(["a"])
    batcher._workers[0].join(SECONDS)
    with pytest.raises(Closed):
        batcher.submit(["b"])


def test_closing_answers_what_was_taken_and_takes_nothing_new(hold):
    held = hold(max_batch_tokens=1)
    held.occupy()
    futures = [held.batcher.submit(["a"] * 3) for _ in range(3)]
    closing = threading.Thread(target=held.batcher.close)
    closing.start()
    while held.batcher.running:
        closing.join(0.01)
    with pytest.raises(Closed):
        held.batcher.submit(["b"])
    held.release()
    closing.join(SECONDS)
    assert all(future.result(0).vectors.shape == (3, 64) for future in futures)
