"""Opposed statements and distillation through batches, validation and the trainer."""

import numpy as np
import pytest
import torch
from test_options import PLAN, assert_a_stop_changes_nothing, log_of, rows, trainer

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.training import losses
from cardioembed.training.batches import Batches
from cardioembed.training.checks import check_objective, validate
from cardioembed.training.distillation import Untrained
from cardioembed.training.plan import Plan

OPPOSED = {"loss": "opposed_statements", "temperature": 0.2, "opposed_weight": 3.0, "opposed_margin": 0.1}


def opposed_rows(every=2):
    """Rows of which each second one has an opposed statement."""
    return [
        row | ({"opposed": [f"never {row['anchor']}", f"{row['positive']} is ruled out"]} if i % every == 0 else {})
        for i, row in enumerate(rows())
    ]


def test_a_batch_tells_whose_each_text_is(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    data = opposed_rows(every=3)
    batches = Batches(embedder, data, 5, 3, seed=1, opposed=True)
    seen = []
    for step in range(3):
        batch = batches.at(step)
        texts = [batches.sequences[number] for number in batch.numbers]
        assert texts == batch.sequences
        chosen = [data[i] for i in batches._order[step * 5 : step * 5 + 5]]
        with_opposed = [place for place, row in enumerate(chosen) if "opposed" in row]
        expected = [row["anchor"] for row in chosen] + [row["positive"] for row in chosen]
        expected += [chosen[place]["opposed"][wording] for wording in (0, 1) for place in with_opposed]
        assert batch.sequences == embedder.tokenize(expected)[0]
        assert batch.owners.tolist() == [*range(len(chosen))] * 2 + with_opposed * 2
        seen += with_opposed
    assert len(seen) == 4


def test_the_first_loss_is_that_of_the_bases_vectors(tiny_bert, tmp_path):
    data = opposed_rows()
    done = trainer(tiny_bert, tmp_path, data=data, per_device_train_batch_size=12, num_train_epochs=5, **OPPOSED)
    anchors, positives = (
        torch.tensor(done.embedder.encode([row[side] for row in data])) for side in ("anchor", "positive")
    )
    against = torch.tensor(np.stack([done.embedder.encode(row["opposed"]) for row in data if "opposed" in row]))
    expected = losses.opposed_statements(anchors, positives, against, torch.arange(0, 12, 2), 0.2, 3.0, 0.1)
    done.train()
    seen = log_of(tmp_path, "loss")
    assert seen[0] == pytest.approx(expected.item(), rel=1e-4)
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("loss", [OPPOSED, {"loss": "info_nce"}])
def test_distillation_holds_the_texts_of_rows_without_opposed_statements(loss, tiny_bert, tmp_path):
    data = opposed_rows()
    held = [row for row in data if loss["loss"] == "info_nce" or "opposed" not in row]
    texts = [text for row in held for text in (row["anchor"], row["positive"])]

    def moved(name, weight):
        done = trainer(tiny_bert, tmp_path / name, data=data, num_train_epochs=20, distillation=weight, **loss)
        before = done.embedder.encode(texts)
        done.train()
        return float((1 - (done.embedder.encode(texts) * before).sum(1)).mean())

    assert moved("held", 100.0) < moved("free", 0.0) / 2


def test_distillation_starts_at_nothing(tiny_bert, tmp_path):
    first = []
    for weight in (0.0, 50.0):
        trainer(tiny_bert, tmp_path / str(weight), data=opposed_rows(), distillation=weight, **OPPOSED).train()
        first.append(log_of(tmp_path / str(weight), "loss")[:2])
    assert first[0][0] == pytest.approx(first[1][0], rel=1e-5)
    assert first[0][1] != pytest.approx(first[1][1], rel=1e-5)


def test_the_untrained_model_is_asked_about_rows_without_opposed_statements_alone(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    data = opposed_rows(every=3)
    batches = Batches(embedder, data, 6, 2, seed=1, opposed=True)
    untrained = Untrained(embedder, batches.sequences, batches.unopposed)
    for step in range(2):
        batch = batches.at(step)
        known, vectors = untrained.of(batch.numbers)
        chosen = [data[i] for i in batches._order[step * 6 : step * 6 + 6]]
        plain = ["opposed" not in row for row in chosen]
        assert known.tolist() == plain * 2 + [False] * 2 * plain.count(False)
        texts = [row[side] for side in ("anchor", "positive") for row in chosen if "opposed" not in row]
        np.testing.assert_allclose(vectors, embedder.encode(texts), atol=1e-6)


def test_a_checkpoint_of_other_settings_is_refused_before_the_untrained_model_is_asked(
    tiny_bert, tmp_path, monkeypatch
):
    trainer(tiny_bert, tmp_path, data=opposed_rows(), **OPPOSED).train()
    other = trainer(tiny_bert, tmp_path, data=opposed_rows(), distillation=5.0, **OPPOSED)
    monkeypatch.setattr("cardioembed.training.trainer.Untrained", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match=r"distillation: was 0\.0, is 5\.0"):
        other.train()


def test_a_stopped_run_goes_on_to_the_same_weights(tiny_bert, tmp_path, monkeypatch):
    assert_a_stop_changes_nothing(
        tiny_bert, tmp_path, monkeypatch, data=opposed_rows(), distillation=5.0, drop_final_punctuation=0.5, **OPPOSED
    )


def test_validation_lets_opposed_statements_compete(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    data = [row | {"positive": row["anchor"] + " too"} for row in rows()]
    plain = validate(embedder, data)
    assert "opposed_accuracy" not in plain
    assert plain["accuracy@1"] > 0  # how high depends on the vocabulary that the tiny tokenizer learns
    beaten = [row | {"opposed": [row["anchor"], "nothing alike"]} for row in data]  # nothing is nearer than itself
    scores = validate(embedder, beaten)
    assert (scores["opposed_accuracy"], scores["accuracy@1"], scores["mrr"]) == (0, 0, plain["mrr"])
    one_by_one = [validate(embedder, [*data[:i], beaten[i], *data[i + 1 :]])["accuracy@1"] for i in range(12)]
    assert sum(plain["accuracy@1"] - accuracy for accuracy in one_by_one) == pytest.approx(plain["accuracy@1"])


def test_rows_without_opposed_statements_are_refused():
    plan = Plan(**{**PLAN, **OPPOSED})
    check_objective(plan, opposed_rows(), 64)
    with pytest.raises(UserError, match=r"opposed_statements needs rows with .*prepare\.opposed_statements: true"):
        check_objective(plan, rows(), 64)
