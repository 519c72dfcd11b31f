"""Stage 04 as a user runs it: gates, comparisons, and a metrics.json that keeps to its schema."""

import importlib
import json

import jsonschema
import pytest
from test_stages import small
from texts import MINILM

from cardioembed import stage
from cardioembed.evaluation.document import schema

STAGES = ["01_merge_paraphrases", "02_prepare_training_data", "03_train_embedding_model", "04_evaluate_model"]


def call(name, arguments):
    module = importlib.import_module(name)
    return stage.run(module.main, module.__doc__, list(map(str, arguments)), getattr(module, "add_options", None))


@pytest.fixture(scope="module")
def trained(tiny_bert, tmp_path_factory):
    """A trained run, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("stage-04")
    arguments = small(
        tiny_bert, folder, train__max_steps=2, train__learning_rate="1e-2", model__max_length=64, seed=7,
        evaluate__robustness="true", evaluate__bias="true", evaluate__efficiency="true",
    )  # fmt: skip
    for name in STAGES[:3]:
        assert call(name, arguments) == 0
    return folder / "run", arguments


@pytest.fixture(scope="module")
def evaluated(trained):
    folder, arguments = trained
    assert call(STAGES[3], arguments) == 0
    return json.loads((folder / "04_evaluation" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def compared(trained):
    folder, arguments = trained
    options = [
        "--set",
        "evaluate.efficiency=false",
        "--set",
        "evaluate.bias=false",
        "--models",
        folder,
        MINILM,
        "no/model",
    ]
    assert call(STAGES[3], [*arguments, *options]) == 0
    return json.loads((folder / "04_comparison" / "metrics.json").read_text())


def test_metrics_keep_to_the_schema(evaluated, compared):
    for document in (evaluated, compared):
        jsonschema.Draft202012Validator(schema()).validate(document)
    broken = {**evaluated, "models": {"base": {"x": {"y": {"value": "high"}}}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def test_every_number_stands_beside_the_base_with_interval_and_n(evaluated):
    expected = {
        "paraphrase_retrieval", "concept_separation", "counterfactual_rules", "robustness", "bias", "efficiency",
    }  # fmt: skip
    assert set(evaluated["models"]["base"]) == set(evaluated["models"]["adapted"]) == expected
    gain = evaluated["delta"]["paraphrase_retrieval"]["accuracy@1"]
    assert 0 < gain["p_value"] <= 1
    parts = evaluated["slices"]["adapted"]["paraphrase_retrieval"]
    assert {"model=close-paraphraser", "model=free-paraphraser"} <= set(parts)
    assert evaluated["about"]["adapted"]["pooling"] == evaluated["about"]["base"]["pooling"]


def test_a_gate_that_is_not_reached_ends_with_1_after_everything_is_written(trained, evaluated, capsys):
    folder, arguments = trained
    value = evaluated["models"]["adapted"]["paraphrase_retrieval"]["mrr"]["value"]
    quick = ["--set", "evaluate.efficiency=false", "--set", "evaluate.robustness=false", "--set", "evaluate.bias=false"]
    above, below = (["--fail-under", f"retrieval.mrr={value + margin}"] for margin in (0.01, -0.01))
    assert call(STAGES[3], [*arguments, *quick, *above]) == 1
    assert "failed: paraphrase_retrieval.mrr is" in capsys.readouterr().err
    assert (folder / "04_manifest.json").exists()
    assert call(STAGES[3], [*arguments, *quick, *below]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fail-under", "recall.mrr=0.9"], "'recall' is not an evaluation of this run"),
        (["--fail-under", "retrieval.mrr"], "is not evaluation.metric=number"),
        (["--fail-under", "retrieval.mrr=0.1", "--models", "x"], "--fail-under is about one adapted model"),
        (["--models", "a/x", "b/x"], "two models are called 'x'"),
        (["--set", "evaluate.sts=missing.jsonl"], "missing.jsonl"),
        (["--set", "evaluate.beir=missing"], "missing"),
        (["--set", "evaluate.sts=[a/x.jsonl, b/x.jsonl]"], "are both named 'x'"),
    ],
)
def test_mistakes_end_with_2_before_a_model_loads(trained, options, message, capsys, monkeypatch):
    monkeypatch.setattr("cardioembed.embedder.saving.load_model", None)
    assert call(STAGES[3], [*trained[1], *options]) == 2
    assert message in capsys.readouterr().err


def test_a_comparison_has_the_base_of_each_adapted_model(compared):
    adapted, other = "run", next(name for name in compared["models"] if "MiniLM" in name)
    base = compared["comparison"]["base_of"][adapted]
    assert set(compared["models"]) == {base, adapted, other}
    assert compared["about"][other]["adapted"] is False
    assert compared["comparison"]["deltas"][adapted]["paraphrase_retrieval"]["mrr"]["n"] > 0
    wins = compared["comparison"]["head_to_head"]
    assert wins[other][adapted]["clear_wins"] > wins[adapted][other]["clear_wins"]
    assert compared["comparison"]["ranks"]["paraphrase_retrieval"]["accuracy@1"][other] == 1
    assert len(compared["comparison"]["separation_tests"]) == 3


def test_a_base_that_is_given_is_measured_once(trained, tiny_bert):
    folder, arguments = trained
    quick = [part for name in ("efficiency", "bias", "robustness") for part in ("--set", f"evaluate.{name}=false")]
    assert call(STAGES[3], [*arguments, *quick, "--models", folder, tiny_bert]) == 0
    document = json.loads((folder / "04_comparison" / "metrics.json").read_text())
    assert set(document["models"]) == {"run", tiny_bert.name}
    assert document["comparison"]["base_of"] == {"run": tiny_bert.name}


def test_a_model_that_cannot_be_measured_is_told_and_the_others_are_compared(compared):
    assert list(compared["comparison"]["failures"]) == ["model"]


def test_a_run_without_a_model_is_refused_by_name(trained, tmp_path, capsys):
    _, arguments = trained
    (tmp_path / "02_manifest.json").write_text("{}")
    assert call(STAGES[3], [*arguments, "--models", tmp_path]) == 2
    assert f"{tmp_path} is a run without a trained model" in capsys.readouterr().err


def test_the_next_command_has_no_option_of_this_stage_alone(trained, monkeypatch):
    monkeypatch.setattr("sys.argv", ["04", "--config", "a b.yaml", "--fail-under", "x.y=1", "--set", "seed=3"])
    assert stage.next_command("05") == "python 05_usage_example.py --config 'a b.yaml' --set seed=3"
