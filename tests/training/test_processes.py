"""Several processes give what one gives: the same losses, gradients, vectors and files."""

import multiprocessing
import os
import socket
import subprocess
import sys
import traceback

import pytest
import torch
from safetensors.torch import load_file, save_file
from stages import ROOT, run, sets
from stages import rows as read_rows
from test_stages import small
from test_trainer import losses, trainer
from texts import SENTENCES

from cardioembed import distributed
from cardioembed.embedder.adapters import adapter_weights
from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.training.sharding import shard_base


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def together(count, work):
    """Runs ``work()`` in ``count`` forked processes that know of each other."""
    port = str(free_port())

    def one(rank):
        os.environ |= {
            "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }  # fmt: skip
        try:
            work()
            distributed.wait_for_all()
            distributed.leave()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=one, args=(rank,)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * count


def train(base, folder, count, stop=None, sharded=False, **changes):
    """Weights of every process after training with 12 rows a step: two full batches and one of four rows."""

    def work():
        own = folder if distributed.rank() == 0 else folder / f"rank{distributed.rank()}"
        own.mkdir(parents=True, exist_ok=True)
        done = trainer(base, own, per_device_train_batch_size=12 // count, **changes)
        done.folder = folder / "checkpoints"
        if sharded:
            shard_base(done.embedder, torch.device("cpu"))
        if stop:
            done._finished = lambda: done.progress.step >= stop
        done.train()
        weights = {name: w.detach().clone() for name, w in adapter_weights(done.embedder.model).items()}
        save_file(weights, folder / f"weights-{distributed.rank()}.safetensors")

    folder.mkdir(exist_ok=True)
    together(count, work) if count > 1 else work()
    return [load_file(folder / f"weights-{rank}.safetensors") for rank in range(count)], losses(folder)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_train_what_one_process_trains(count, cached, tiny_bert, tmp_path):
    # dropout is on, and the last batch of an epoch has four rows
    (alone,), alone_losses = train(tiny_bert, tmp_path / "alone", 1, gradient_cache=cached)
    several, several_losses = train(tiny_bert, tmp_path / "several", count, gradient_cache=cached)
    assert len(alone_losses) == 6
    assert several_losses == pytest.approx(alone_losses, rel=1e-4)
    for name, weight in alone.items():
        assert torch.allclose(several[0][name], weight, rtol=1e-3, atol=1e-5), name
        for other in several[1:]:
            assert torch.equal(several[0][name], other[name]), name


def test_more_processes_than_chunks(tiny_bert, tmp_path):
    (alone,), _ = train(tiny_bert, tmp_path / "alone", 1, chunk_tokens=100_000, max_steps=2)
    several, _ = train(tiny_bert, tmp_path / "several", 2, chunk_tokens=100_000, max_steps=2)
    for name, weight in alone.items():
        assert torch.allclose(several[1][name], weight, rtol=1e-3, atol=1e-5), name


def test_processes_go_on_from_a_checkpoint_of_theirs(tiny_bert, tmp_path):
    _, alone_losses = train(tiny_bert, tmp_path / "alone", 1)
    train(tiny_bert, tmp_path / "several", 2, stop=3)
    several, all_losses = train(tiny_bert, tmp_path / "several", 2)
    whole, _ = train(tiny_bert, tmp_path / "whole", 2)
    assert all_losses == pytest.approx(alone_losses, rel=1e-4)
    for name, weight in whole[0].items():
        assert torch.equal(several[1][name], weight), name


@pytest.mark.parametrize("cached", [False, True])
def test_a_base_divided_among_processes_trains_the_same(cached, tiny_qwen3, tmp_path):
    (alone,), alone_losses = train(tiny_qwen3, tmp_path / "alone", 1, gradient_cache=cached)
    several, several_losses = train(tiny_qwen3, tmp_path / "several", 2, sharded=True, gradient_cache=cached)
    assert several_losses == pytest.approx(alone_losses, rel=1e-4)
    for name, weight in alone.items():
        assert torch.allclose(several[0][name], weight, rtol=1e-3, atol=1e-5), name
        assert torch.equal(several[0][name], several[1][name]), name


def test_each_process_holds_its_share_of_a_divided_base(tiny_qwen3):
    def work():
        embedder = load_embedder(str(tiny_qwen3), device="cpu", max_length=64)
        whole = sum(weight.numel() for weight in embedder.model.parameters())
        shard_base(embedder, torch.device("cpu"))
        own = sum(weight.to_local().numel() for weight in embedder.model.parameters())
        assert own < 0.55 * whole

    together(2, work)


def test_one_process_cannot_divide_a_base(tiny_qwen3):
    embedder = load_embedder(str(tiny_qwen3), device="cpu", max_length=64)
    with pytest.raises(UserError, match="torchrun"):
        shard_base(embedder, torch.device("cpu"))


def test_processes_encode_what_one_process_encodes(tiny_bert, tmp_path):
    texts = [f"{sentence} {number}" for number in range(9) for sentence in SENTENCES]
    alone = load_embedder(str(tiny_bert), device="cpu", max_length=64).encode(texts, chunk_tokens=200)

    def work():
        vectors = load_embedder(str(tiny_bert), device="cpu", max_length=64).encode(texts, chunk_tokens=200)
        save_file({"vectors": torch.from_numpy(vectors)}, tmp_path / f"{distributed.rank()}.safetensors")

    together(3, work)
    for rank in range(3):
        assert torch.equal(load_file(tmp_path / f"{rank}.safetensors")["vectors"], torch.from_numpy(alone))


def test_stages_run_under_torchrun_and_one_process_writes(tiny_qwen2, tmp_path):
    arguments = list(map(str, small(tiny_qwen2, tmp_path, train__max_steps="4", prepare__negatives="mined",
                                    prepare__mined__model=tiny_qwen2, evaluate__efficiency="true")))  # fmt: skip
    assert run("01_merge_paraphrases.py", *arguments).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for script in ("02_prepare_training_data.py", "03_train_embedding_model.py", "04_evaluate_model.py"):
        done = subprocess.run(
            [*launch, script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[:3000]
        assert done.stdout.count(f"{script}:") == 1
    run_dir = tmp_path / "run"
    assert len([row for row in read_rows(run_dir / "03_training_log.jsonl") if "loss" in row]) == 4
    assert (run_dir / "04_evaluation" / "metrics.json").exists()
    again = run("03_train_embedding_model.py", *arguments, *sets(train__per_device_train_batch_size=32))
    assert again.returncode == 0, again.stderr  # one process, the same global batch: nothing is left to train
    assert "going on from" in again.stdout
