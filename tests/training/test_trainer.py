import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
from texts import SENTENCES

from cardioembed.config import TrainSettings
from cardioembed.embedder.adapters import adapter_weights, attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.training.plan import Plan
from cardioembed.training.trainer import Trainer

WORDS = "thrombus stenosis valve rhythm pacing infarct murmur pressure gradient oedema aorta septum statin lead".split()
PLAN = {
    **TrainSettings().model_dump(), "per_device_train_batch_size": 8, "learning_rate": 5e-3, "bf16": False,
    "dataloader_drop_last": False, "chunk_tokens": 128, "gradient_cache": True, "gradient_checkpointing": False,
    "eval_steps": 2, "save_steps": 2, "seed": 42,
}  # fmt: skip


def rows(count=28):
    return [
        {
            "id": str(i),
            "group": f"g{i // 2}",
            "anchor": f"{SENTENCES[i % 6]} {WORDS[i // 2]}",
            "positive": f"{WORDS[i // 2]} {i}: {SENTENCES[i % 6]}",
            "negatives": [f"{WORDS[(i + 5) % 14]} is not meant here"],
        }
        for i in range(count)
    ]


def trainer(base, folder, data=None, **changes):
    embedder = load_embedder(str(base), max_length=64, device="cpu")
    torch.manual_seed(0)
    embedder.model = attach_lora(
        embedder.model, r=2, lora_alpha=4, lora_dropout=0.1, target_modules="all-linear",
        base_reference=str(base), revision=None,
    )  # fmt: skip
    plan = {**PLAN, **changes}
    data = rows() if data is None else data

    def validate():
        anchors, positives = embedder.encode_pairs([r["anchor"] for r in data], [r["positive"] for r in data])
        own = (anchors * positives).sum(1)
        return {"accuracy@1": float((own >= (anchors @ positives.T).max(1) - 1e-6).mean()), "mrr": float(own.mean())}

    return Trainer(
        embedder, data, Plan(**plan), validate=validate, folder=folder / "checkpoints", log_path=folder / "log.jsonl",
        tensorboard=folder / "tb", fingerprint={key: value for key, value in plan.items() if key != "save_steps"},
    )  # fmt: skip


def digest(done):
    parts = [weight.detach().numpy().tobytes() for weight in adapter_weights(done.embedder.model).values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def losses(folder):
    return [row["loss"] for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "loss" in row]


def test_training_lowers_the_loss_and_moves_every_adapter_weight(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path, num_train_epochs=6)
    progress = done.train()
    values = losses(tmp_path)
    assert len(values) == progress.step == 24
    assert sum(values[-4:]) < 0.7 * sum(values[:4])
    assert all(torch.count_nonzero(w) for name, w in adapter_weights(done.embedder.model).items() if "lora_B" in name)
    assert progress.best_score > progress.base_score
    assert progress.best_step % 2 == 0


def test_the_best_validation_is_kept_and_not_the_last(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path, num_train_epochs=1)
    scores, digests = iter([0.1, 0.3, 0.9]), []

    def validate():
        digests.append(digest(done))
        return {"accuracy@1": 1 - next(scores), "mrr": 0.5}

    done.validate = validate
    progress = done.train()
    assert progress.best_step == 2
    assert digest(done) == digests[1] != digests[2]


def test_pairs_of_one_sentence_in_a_batch_are_counted(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path, per_device_train_batch_size=28, num_train_epochs=1)
    # 14 groups of 2 rows: each row has one row that must not count against it.
    assert done.train().masked_pairs == 28


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_run_goes_on_with_the_same_losses_and_bytes(stop, tiny_bert, tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = trainer(tiny_bert, tmp_path / "whole")
    whole.train()
    (tmp_path / "cut").mkdir()
    cut = trainer(tiny_bert, tmp_path / "cut")
    step = cut._step

    def stopping_step():
        if cut.progress.step == stop:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(cut, "_step", stopping_step)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = trainer(tiny_bert, tmp_path / "cut")
    again.train()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert digest(again) == digest(whole)


def test_checkpoint_interval_and_gradient_cache_do_not_change_the_result(tiny_bert, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = trainer(tiny_bert, tmp_path / "a"), trainer(tiny_bert, tmp_path / "b", save_steps=3)
    first.train()
    second.train()
    assert digest(first) == digest(second)


def test_a_checkpoint_of_other_settings_is_refused_with_the_key(tiny_bert, tmp_path):
    trainer(tiny_bert, tmp_path).train()
    with pytest.raises(UserError, match=r"learning_rate: was 0\.005, is 0\.001"):
        trainer(tiny_bert, tmp_path, learning_rate=1e-3).train()


def test_half_written_checkpoints_are_ignored_and_removed(tiny_bert, tmp_path):
    done = trainer(tiny_bert, tmp_path)
    done.train()
    leftover = tmp_path / "checkpoints" / ".step-0000099.1.tmp"
    leftover.mkdir()
    (leftover / "adapter.safetensors").write_bytes(b"half")
    again = trainer(tiny_bert, tmp_path)
    assert again.train().step == 8
    assert digest(again) == digest(done)


def test_a_loss_that_is_not_finite_stops_at_once_and_says_what_to_change(tiny_bert, tmp_path):
    broken = trainer(tiny_bert, tmp_path)
    before = digest(broken)
    with torch.no_grad():
        broken.embedder.model.get_base_model().embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"vectors of this model are not finite"):
        broken.train()
    broken.validate = lambda: {"accuracy@1": 0.0, "mrr": 0.0}  # encoding would stop it before the first step
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*Lower train\.learning_rate"):
        broken.train()
    assert digest(broken) == before


def test_too_few_rows_for_a_batch_say_what_to_change(tiny_bert, tmp_path):
    with pytest.raises(UserError, match=r"28 training triplets do not fill a batch of 64.*dataloader_drop_last=false"):
        trainer(tiny_bert, tmp_path, per_device_train_batch_size=64, dataloader_drop_last=True)


def test_long_texts_are_counted(tiny_bert, tmp_path):
    data = rows()
    data[0]["positive"] = "thrombus " * 300
    assert trainer(tiny_bert, tmp_path, data).batches.truncated == 1


@pytest.fixture(scope="module")
def whole(tiny_bert, tmp_path_factory):
    """Losses and bytes of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = trainer(tiny_bert, folder, num_train_epochs=8)
    done.train()
    return losses(folder), digest(done)


def killed(base, folder, prepare=lambda: None):
    """A run in a process of its own, to be killed."""

    def work():
        prepare()
        trainer(base, folder, num_train_epochs=8).train()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def finish(base, folder, whole):
    again = trainer(base, folder, num_train_epochs=8)
    again.train()
    assert (losses(folder), digest(again)) == whole
    leftovers = [path.name for path in (folder / "checkpoints").iterdir()]
    assert leftovers == [f"step-{again.total:07d}"]


def test_kill_9_at_random_moments_changes_nothing(tiny_bert, tmp_path, whole):
    log = tmp_path / "log.jsonl"
    for moment in (2, 9, 17, 25):
        child = killed(tiny_bert, tmp_path)
        deadline = time.monotonic() + 90
        while child.is_alive() and time.monotonic() < deadline:
            if log.exists() and log.read_text().count('"loss"') >= moment:
                break
            time.sleep(0.001)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
    finish(tiny_bert, tmp_path, whole)


@pytest.mark.parametrize("call", ["os.replace", "shutil.rmtree", "cardioembed.training.checkpoints.save_file"])
def test_kill_9_inside_the_writing_of_a_checkpoint_changes_nothing(call, tiny_bert, tmp_path, whole):
    # between its files, between writing and renaming it, and before older ones are removed
    module, _, name = call.rpartition(".")

    def prepare():
        original, calls = getattr(sys.modules[module], name), [0]

        def fatal(*arguments, **options):
            calls[0] += "step-" in str(arguments)
            if calls[0] == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(sys.modules[module], name, fatal)

    child = killed(tiny_bert, tmp_path, prepare)
    child.join(90)
    assert child.exitcode == -signal.SIGKILL
    finish(tiny_bert, tmp_path, whole)
