import numpy as np
import pytest
import torch
from texts import SENTENCES

from cardioembed.embedder.adapters import adapter_weights, attach_lora, parameter_counts
from cardioembed.embedder.encoder import load_embedder
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.efficiency import (
    BATCH_SIZES,
    Efficiency,
    active_parameters,
    disk_bytes,
    evenly_drawn,
    latency_estimates,
    memory_bytes,
    throughput_estimates,
    time_batches,
    token_counts,
)

SAMPLING = Sampling(resamples=300, seed=4)


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu")


@pytest.fixture(scope="module")
def measured(embedder):
    return Efficiency(SENTENCES).measure(embedder, SAMPLING)


def test_every_measure_is_there_positive_and_comparable(measured):
    rates = {f"{unit}_per_second_{size}" for unit in ("texts", "tokens") for size in (1, 4, 16, 32)}
    latency = {f"latency_ms_{name}" for name in ("mean", "sd", "p50", "p95")}
    sizes = {"peak_memory_mb", "parameters", "dimension", "disk_mb"}
    assert set(measured.estimates) - {"peak_memory_mb"} == (rates | latency | sizes) - {"peak_memory_mb"}
    for name, estimate in measured.estimates.items():
        assert estimate.value > 0, name
        assert estimate.resamples.shape == (300,)
        assert estimate.better == ("higher" if name in rates else None if name == "dimension" else "lower")
        assert estimate.minus(estimate).value == 0


def test_latency_is_of_a_hundred_runs_and_its_percentiles_are_in_order(measured):
    found = {name: estimate.value for name, estimate in measured.estimates.items()}
    assert measured.details.shape == (100,)
    assert measured.estimates["latency_ms_mean"].n == 100
    assert measured.details.min() <= found["latency_ms_p50"] <= found["latency_ms_p95"] <= measured.details.max()
    assert found["latency_ms_mean"] == pytest.approx(measured.details.mean())


def test_warm_ups_are_run_and_not_counted(embedder, monkeypatch):
    seen = []
    encode = embedder.encode
    monkeypatch.setattr(embedder, "encode", lambda texts, **options: seen.append(texts) or encode(texts, **options))
    Efficiency(SENTENCES).measure(embedder, SAMPLING)
    counts = token_counts(embedder, SENTENCES)
    (text,) = seen[0]
    assert all(texts == [text] for texts in seen[:110])
    assert sorted(counts)[2] <= counts[SENTENCES.index(text)] <= sorted(counts)[3]  # of median length
    assert {len(texts) for texts in seen[110:]} == set(BATCH_SIZES)


def test_tokens_a_second_are_texts_a_second_times_their_mean_tokens(embedder, measured):
    tokens = token_counts(embedder, evenly_drawn(SENTENCES, 64)).mean()
    for size in BATCH_SIZES:
        texts_rate, tokens_rate = (
            measured.estimates[f"{unit}_per_second_{size}"].value for unit in ("texts", "tokens")
        )
        assert tokens_rate == pytest.approx(texts_rate * tokens)


def test_latency_measures_equal_numpy_and_lie_in_their_intervals():
    runs = np.random.default_rng(6).gamma(9, size=100)
    found = latency_estimates(runs, SAMPLING)
    expected = [runs.mean(), runs.std(ddof=1), np.quantile(runs, 0.5), np.quantile(runs, 0.95)]
    assert [estimate.value for estimate in found.values()] == pytest.approx(expected)
    for estimate in found.values():
        low, high = estimate.interval()
        assert low < estimate.value < high
    rng = np.random.default_rng(7)
    peer = np.std([np.median(rng.choice(runs, 100)) for _ in range(2000)])
    assert found["latency_ms_p50"].resamples.std() == pytest.approx(peer, rel=0.2)


def test_throughput_is_all_texts_by_all_seconds():
    batches = np.array([[4, 40, 0.5], [4, 60, 1.0], [2, 20, 0.5]])
    found = throughput_estimates(batches, SAMPLING)
    assert found["texts_per_second"].value == pytest.approx(5)
    assert found["tokens_per_second"].value == pytest.approx(60)
    assert found["texts_per_second"].n == 3
    assert found["texts_per_second"].resamples.min() == pytest.approx(4)
    assert found["texts_per_second"].resamples.max() == pytest.approx(8)


@pytest.mark.parametrize("size", [1, 5, 16])
def test_every_pass_has_every_text_once(embedder, size):
    texts = SENTENCES * 2
    tokens = token_counts(embedder, texts)
    batches = time_batches(embedder, texts, tokens, size)
    in_pass = -(-len(texts) // size)
    passes = len(batches) // in_pass
    assert len(batches) == passes * in_pass
    assert 1 <= passes <= 5
    assert batches[:in_pass, 0].sum() == len(texts)
    assert batches[:in_pass, 1].tolist() == [tokens[i : i + size].sum() for i in range(0, len(texts), size)]
    assert (batches[:, 2] > 0).all()


def test_tokens_are_those_that_the_model_sees(tiny_e5):
    embedder = load_embedder(str(tiny_e5), max_length=12, device="cpu")
    embedder.tokenizer.model_max_length = 12
    texts = ["Bisoprolol", SENTENCES[0] * 5]
    counts = token_counts(embedder, texts)
    bare = [len(embedder.tokenizer("query: " + text, truncation=True, max_length=12)["input_ids"]) for text in texts]
    assert counts.tolist() == bare
    assert counts[1] == 12


def test_texts_are_drawn_from_the_whole_list():
    assert evenly_drawn(list("abcdef"), 3) == ["a", "c", "e"]
    assert evenly_drawn(list("ab"), 4) == ["a", "a", "b", "b"]
    assert evenly_drawn(["a"], 2) == ["a", "a"]


def test_parameters_and_disk_count_an_adapter_only_while_it_is_on(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    file = (tiny_bert / "model.safetensors").stat().st_size
    assert (active_parameters(embedder.model), disk_bytes(embedder)) == (parameter_counts(embedder.model)[1], file)
    base = parameter_counts(embedder.model)[1]
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="query-value",
        base_reference=str(tiny_bert), revision=None,
    )  # fmt: skip
    adapter = sum(weight.numel() for weight in adapter_weights(embedder.model).values())
    assert adapter == 2 * 2 * 4 * (64 + 64)  # layers x (query, value) x r x (in + out)
    assert active_parameters(embedder.model) == base + adapter == parameter_counts(embedder.model)[1]
    assert disk_bytes(embedder) == file + 4 * adapter
    with embedder.without_adapter():
        assert active_parameters(embedder.model) == base
        assert disk_bytes(embedder) == file


def test_shards_are_counted_where_there_is_no_whole_file(tiny_bert, embedder, tmp_path, monkeypatch):
    for name, size in (("model-00001-of-00002.safetensors", 30), ("model-00002-of-00002.safetensors", 12)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setattr(embedder, "base", type(embedder.base)("x", None, tmp_path, "x"))
    assert disk_bytes(embedder) == 42
    (tmp_path / "model.safetensors").write_bytes(bytes(40))
    assert disk_bytes(embedder) == 40


def test_memory_of_the_process_grows_with_what_it_holds(embedder):
    before = memory_bytes(embedder)
    if before is None:
        pytest.skip("this system does not tell")
    held = np.ones(30_000_000 // 8)
    assert memory_bytes(embedder) - before > 0.5 * held.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_cuda_device_is_the_peak_of_encoding(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cuda")
    found = Efficiency(SENTENCES).measure(embedder, SAMPLING)
    held = sum(p.numel() * p.element_size() for p in embedder.model.parameters())
    assert held / 1e6 < found.estimates["peak_memory_mb"].value < 1000
