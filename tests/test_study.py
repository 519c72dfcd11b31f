"""Many bases in one command, on tiny random models."""

import json
import shutil

import pytest
import yaml
from test_stages import small

from cardioembed.study import ROOT, load_study, main

QUICK = {"train.max_steps": 2, "train.learning_rate": 1e-2, "model.max_length": 64}


@pytest.fixture(scope="module")
def study(tiny_bert, tmp_path_factory):
    """A study of a base and of one without weights, that has run once."""
    folder = tmp_path_factory.mktemp("study")
    broken = folder / "broken"
    shutil.copytree(tiny_bert, broken)
    (broken / "model.safetensors").unlink()
    arguments = list(map(str, small(tiny_bert, folder)))
    shared = dict(part.split("=", 1) for part in arguments[3::2])
    shared = {key: yaml.safe_load(value) for key, value in shared.items() if key not in ("run_dir", "model.base")}
    config = arguments[1]
    content = {
        "run_dir": str(folder / "runs"),
        "members": [
            {"name": name, "config": config, "set": {"model.base": str(base)}}
            for name, base in (("broken", broken), ("bert", tiny_bert))
        ],
        "set": {**shared, **QUICK},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, content, main([str(path)])


def outcomes(content):
    path = f"{content['run_dir']}/study.json"
    with open(path) as stream:  # noqa: PTH123
        return {outcome["member"]: outcome for outcome in json.load(stream)}


def test_a_base_that_fails_is_noted_and_the_others_are_compared(study, capsys):
    path, content, code = study
    assert code == 1
    found = outcomes(content)
    assert [found[name]["state"] for name in ("broken", "bert")] == ["failed", "done"]
    assert found["broken"]["stage"] == "03"
    assert "broken" in found["broken"]["reason"]
    document = json.loads((path.parent / "runs/comparison/metrics.json").read_text())
    assert "bert" in document["models"]
    assert len(document["models"]) == 2
    assert (path.parent / "runs/bert/04_evaluation/report.html").exists()


def test_the_same_command_skips_what_is_done_and_tries_the_rest(study, tiny_bert):
    path, content, _ = study
    before = (path.parent / "runs/bert/03_manifest.json").stat().st_mtime_ns
    shutil.copy(tiny_bert / "model.safetensors", path.parent / "broken")
    assert main([str(path)]) == 0
    found = outcomes(content)
    assert [found[name]["state"] for name in ("broken", "bert")] == ["done", "skipped"]
    assert (path.parent / "runs/bert/03_manifest.json").stat().st_mtime_ns == before
    document = json.loads((path.parent / "runs/comparison/metrics.json").read_text())
    assert {"bert", "broken"} <= set(document["models"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": []}, "members: List should have at least 1 item"),
        ({"bases": []}, "bases: Extra inputs are not permitted. Keys: run_dir, members, set, compare"),
        ({"members": ["configs/laptop.yaml", "configs/laptop.yaml"]}, "two members are named 'laptop'"),
        ({"members": ["nowhere.yaml"]}, "nowhere.yaml does not exist"),
        ({"set": {"train.speed": 2}}, "train.speed"),
        ({"members": [{"config": "configs/laptop.yaml", "name": "a/b"}]}, "'a/b' is not a folder name"),
    ],
)
def test_mistakes_are_told_before_anything_runs(change, message, tmp_path, capsys):
    content = {"run_dir": str(tmp_path / "runs"), "members": ["configs/laptop.yaml"], **change}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    assert main([str(tmp_path / "study.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "configs").glob("study*.yaml")))
def test_shipped_studies_are_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    study, settings = load_study(ROOT / "configs" / name)
    assert len(settings) == len(study.members)
    if name == "study.yaml":
        shipped = {path.stem for path in (ROOT / "configs/study").glob("*.yaml")}
        assert set(settings) == shipped
