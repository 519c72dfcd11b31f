"""The specialty study's files: the study's recipe, and two losses on one split."""

import subprocess

import pytest
from texts import MINILM, ROOT

from cardioembed.config import flatten
from cardioembed.config_file import load_settings
from cardioembed.study import load_study

CONFIG = ROOT / "configs/specialties.yaml"


def test_the_recipe_is_the_studys_on_a_laptop():
    settings = load_settings(CONFIG)
    train = settings.train
    assert (train.loss, train.triplet_margin, train.triplet_distance) == ("triplet_margin", 0.5, "euclidean")
    assert (train.per_device_train_batch_size, train.lr_scheduler_type) == (8, "cosine")
    assert (settings.device, settings.model.base, settings.model.quantization) == ("cpu", MINILM, "none")
    assert settings.prepare.labelled == "data/specialty_passages.jsonl"


def test_no_labelled_file_is_shipped():
    place = load_settings(CONFIG).prepare.labelled
    done = subprocess.run(["git", "ls-files", place], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stdout


def test_a_missing_file_is_told_with_what_to_put_there(tmp_path, monkeypatch, capsys):
    import importlib

    from cardioembed import stage

    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("02_prepare_training_data")
    assert stage.run(module.main, "", ["--config", str(CONFIG)]) == 2
    message = capsys.readouterr().err
    assert "data/specialty_passages.jsonl does not exist" in message
    assert "--set prepare.labelled=FILE" in message


def test_the_losses_are_compared_on_one_split(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, settings = load_study(ROOT / "configs/study_specialties.yaml")
    assert {name: found.train.loss for name, found in settings.items()} == {
        "triplet_margin": "triplet_margin", "info_nce": "info_nce",
    }  # fmt: skip
    first, second = (flatten(found) for found in settings.values())
    differ = {key for key in first if first[key] != second[key]}
    assert {key for key in differ if not key.startswith("train.")} == {"run_dir"}


@pytest.mark.parametrize("setting", ["prepare.labelled=other.jsonl", "train.loss=info_nce"])
def test_what_the_header_tells_to_set_is_accepted(setting):
    assert load_settings(CONFIG, [setting]) != load_settings(CONFIG)
