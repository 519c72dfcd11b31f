"""The graphics-card benchmark, end to end on a CPU with a toy shape."""

import importlib
import json
import sys

import pytest
import torch


@pytest.fixture
def bench(root, monkeypatch):
    """``bench.gpu_train`` and a function that runs it as the command line does."""
    monkeypatch.syspath_prepend(str(root))
    module = importlib.import_module("bench.gpu_train")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu_train", *arguments])
        return module.common.run(module.main, module.__doc__, module.size)

    return module, run


def test_every_form_and_side_is_timed_and_a_toy_says_that_it_is_one(bench, tmp_path, capsys):
    module, run = bench
    assert run("--tiny", "--batch", "2", "--texts", "8", "--repeats", "1", "--out", str(tmp_path / "out.json")) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    names = [row[""] for row in result["table"]]
    assert len(names) == 5 * len(module.FORMS) + 3
    assert all(float(row["tokens/s"].replace(",", "")) > 0 for row in result["table"])  # no row holds an error
    assert all(any(name.startswith(form) for name in names) for form in module.FORMS)
    assert "mean nothing" in result["notes"][0]
    assert "means nothing" in capsys.readouterr().out


def test_gradients_and_forms_agree(bench, tmp_path, capsys):
    _, run = bench
    assert run("--tiny", "--correctness", "--out", str(tmp_path / "out.json")) == 0
    checks = json.loads((tmp_path / "out.json").read_text())["checks"]
    assert len(checks) == 10
    assert all(good for good, _ in checks)
    assert capsys.readouterr().out.count("ok ") == 10


def test_a_gradient_that_differs_fails_the_check(bench, tmp_path, capsys, monkeypatch):
    _, run = bench
    monkeypatch.setattr("bench.gpu_correctness.gradient", lambda trainer, fused: torch.ones(4) * (1 if fused else 2))
    assert run("--tiny", "--correctness", "--out", str(tmp_path / "out.json")) == 2
    assert "1 of 10 checks failed" in capsys.readouterr().err


def test_a_side_that_runs_out_of_memory_says_so_in_its_row_and_is_not_run_again(bench):
    module, _ = bench
    calls = []

    def step() -> int:
        calls.append(1)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    side = module.Side(step, torch.nn.Linear(2, 2))
    assert [module.timed_step(side, torch.device("cpu"), 0) for _ in range(3)] == [None] * 3
    assert len(calls) == 1
    assert module.training_row("int8", side.failure, None)["tokens/s"] == "out of memory"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_way_out_is_named(bench, tmp_path, capsys):
    _, run = bench
    assert run("--out", str(tmp_path / "out.json")) == 2
    assert "no CUDA card here; --tiny" in capsys.readouterr().err


def test_a_card_without_bfloat16_is_refused(bench, monkeypatch):
    module, _ = bench
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    with pytest.raises(module.UserError, match="Tesla T4 has no bfloat16"):
        module.card(False)
