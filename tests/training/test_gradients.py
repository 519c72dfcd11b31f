import pytest
import torch
from texts import SENTENCES
from torch import nn

from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.training.fused_lora import fuse_lora
from cardioembed.training.gradients import batch_backward
from cardioembed.training.losses import info_nce
from cardioembed.training.plan import Plan
from cardioembed.training.schedule import every, learning_rate_at
from cardioembed.training.trainer import Trainer

TEXTS = SENTENCES + ["ECG", "Acute heart failure with cold extremities and a low output " * 3, "AF", "No murmur."]


def lora_embedder(folder, dropout, **options):
    embedder = load_embedder(str(folder), max_length=64, device="cpu", **options)
    torch.manual_seed(0)
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear",
        base_reference=str(folder), revision=None,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in adapter_weights(embedder.model).items():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    return embedder


def gradients(embedder, *, cached, chunk_tokens, checkpointing=False):
    trainer = Trainer.__new__(Trainer)
    trainer.embedder = embedder
    trainer.plan = Plan(**{**dict.fromkeys(Plan.__dataclass_fields__), "gradient_checkpointing": checkpointing})
    fuse_lora(embedder.model)
    trainer._set_modes()
    weights = adapter_weights(embedder.model)
    for weight in weights.values():
        weight.grad = None
    sequences, _ = embedder.tokenize(TEXTS * 3)
    n = len(TEXTS)

    def loss_of(vectors):
        return info_nce(vectors[:n], vectors[n : 2 * n], vectors[2 * n :].unsqueeze(1), 0.05)

    loss = batch_backward(
        embedder.embed_tokens, sequences, loss_of, vectors=torch.zeros(3 * n, embedder.dimension),
        chunk_tokens=chunk_tokens, seed=(1, 2), cached=cached,
    )  # fmt: skip
    return loss, {name: weight.grad.clone() for name, weight in weights.items()}


def assert_same(first, second, tolerance):
    assert first[0] == pytest.approx(second[0], abs=tolerance)
    for name in first[1]:
        assert torch.allclose(first[1][name], second[1][name], atol=tolerance, rtol=1e-3), name


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_qwen3"])
def test_cached_gradients_equal_whole_ones_with_dropout_and_a_ragged_chunk(base, request):
    embedder = lora_embedder(request.getfixturevalue(base), dropout=0.2)
    whole = gradients(embedder, cached=False, chunk_tokens=100)
    cached = gradients(embedder, cached=True, chunk_tokens=100)
    assert_same(whole, cached, 2e-5)
    assert all(torch.count_nonzero(g) for g in whole[1].values())


def test_chunks_of_any_size_give_the_gradient_of_one_padded_block(tiny_bert):
    embedder = lora_embedder(tiny_bert, dropout=0.0)
    block = gradients(embedder, cached=False, chunk_tokens=100_000)
    for chunk_tokens in (16, 70, 400):
        assert_same(block, gradients(embedder, cached=False, chunk_tokens=chunk_tokens), 2e-5)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("base", ["tiny_bert", "tiny_qwen3"])
def test_checkpointing_changes_no_gradient(base, cached, request):
    folder = request.getfixturevalue(base)
    plain = gradients(lora_embedder(folder, dropout=0.2), cached=cached, chunk_tokens=100)
    checkpointed = gradients(lora_embedder(folder, dropout=0.2), cached=cached, chunk_tokens=100, checkpointing=True)
    assert_same(plain, checkpointed, 2e-5)


def test_only_the_adapter_drops_out(tiny_bert):
    embedder = lora_embedder(tiny_bert, dropout=0.0)
    first, second = (gradients(embedder, cached=False, chunk_tokens=100) for _ in range(2))
    assert first[0] == second[0]


def test_learning_rate_warms_up_then_falls_to_zero_along_a_cosine():
    rates = [learning_rate_at(step, 100, 2e-4, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[9] == rates[10] == pytest.approx(2e-4)
    assert rates[55] == pytest.approx(1e-4)
    assert rates[99] == pytest.approx(6.1e-8, rel=0.02)


@pytest.mark.parametrize(("steps", "expected"), [(0.1, 166), (1, 1), (250, 250), (0.0001, 1)])
def test_intervals_are_shares_or_steps(steps, expected):
    assert every(steps, 1662) == expected


def test_every_chunk_and_step_draws_masks_of_its_own_and_a_second_pass_the_same():
    weight = nn.Parameter(torch.ones(3))
    seeds = []

    def embed(sequences):
        seeds.append(torch.initial_seed())
        return weight * torch.tensor([[float(sum(s)), 1.0, 2.0] for s in sequences])

    sequences = [[1], [2, 3], [4, 5, 6], [7]]
    for step in (0, 1):
        batch_backward(
            embed, sequences, torch.sum, vectors=torch.zeros(4, 3), chunk_tokens=3, seed=(9, step), cached=True
        )
    first, second = seeds[:6], seeds[6:]
    assert first[:3] == first[3:]
    assert second[:3] == second[3:]
    assert len({*first, *second}) == 6
