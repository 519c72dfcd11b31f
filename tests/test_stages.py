"""The five scripts in a row, as a user runs them."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer
from texts import MINILM, ROOT

from cardioembed.embedder.saving import load_model

SCRIPTS = [
    "01_merge_paraphrases.py",
    "02_prepare_training_data.py",
    "03_train_embedding_model.py",
    "04_evaluate_model.py",
    "05_usage_example.py",
]


def run(script, *arguments):
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    # One thread: handing such small work between threads costs more than it gains.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def sets(**values):
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


def small(base, folder, **more):
    """Arguments of a quick run on a slice of the sample."""
    data = folder / "data"
    if not data.exists():
        (data / "books").mkdir(parents=True)
        text = (ROOT / "data/sample/books/coronary_disease.md").read_text(encoding="utf-8")
        (data / "books" / "coronary_disease.md").write_text(text[:16_000], encoding="utf-8")
        for name in ("close", "free"):
            lines = (ROOT / f"data/sample/paraphrases/{name}.jsonl").read_text(encoding="utf-8").splitlines()
            chosen = [line for line in lines if '"source": "coronary_disease"' in line][:100]
            (data / f"{name}.jsonl").write_text("\n".join(chosen), encoding="utf-8")
    values = {
        "run_dir": folder / "run", "merge__books": data / "books", "merge__paraphrases": data / "*.jsonl",
        "prepare__min_distance": 5, "model__base": base, "train__per_device_train_batch_size": 16,
        "train__chunk_tokens": 512, "evaluate__bootstrap_resamples": 200, "evaluate__robustness": "false",
        "evaluate__bias": "false", "evaluate__efficiency": "false", **more,
    }  # fmt: skip
    return ["--config", ROOT / "configs/laptop.yaml", *sets(**values)]


def all_stages(arguments):
    outputs = []
    for script in SCRIPTS:
        done = run(script, *arguments)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout)
    return outputs


@pytest.fixture(scope="module")
def qwen3_run(tiny_qwen3, tmp_path_factory):
    """The paper's shape at toy size: Qwen3, INT8 base, float32 LoRA, last-token pooling."""
    folder = tmp_path_factory.mktemp("qwen3")
    arguments = small(tiny_qwen3, folder, model__quantization="int8", train__learning_rate="1e-2")
    return folder / "run", arguments, all_stages(arguments)


@pytest.fixture(scope="module")
def laptop_run(tmp_path_factory):
    """The real base on a slice of the sample."""
    folder = tmp_path_factory.mktemp("laptop")
    sts = folder / "human.jsonl"
    rows = [
        {"sentence1": "Severe aortic stenosis", "sentence2": "Severe aortic stenosis.", "score": 4},
        {"sentence1": "Severe aortic stenosis", "sentence2": "Mild aortic stenosis", "score": 2.5},
        {"sentence1": "Severe aortic stenosis", "sentence2": "Broken ankle", "score": 0},
    ]
    sts.write_text("\n".join(map(json.dumps, rows)))
    arguments = small(
        MINILM, folder, train__max_steps=4, train__eval_steps=2, evaluate__sts=sts,
        evaluate__robustness="true", evaluate__bias="true", evaluate__efficiency="true",
    )  # fmt: skip
    return folder / "run", arguments, all_stages(arguments)


def test_every_stage_says_what_it_wrote_and_what_comes_next(qwen3_run):
    folder, _, outputs = qwen3_run
    for number, output in enumerate(outputs[:4]):
        assert f"next: python {SCRIPTS[number + 1]} --config" in output
    for name in ("01_merged_paraphrases.jsonl", "02_statistics.json", "03_model", "04_evaluation"):
        assert any(f"wrote {folder / name}" in output for output in outputs)
    assert not list(folder.rglob("*.tmp"))


def test_int8_base_trains_a_float32_adapter_that_learns(qwen3_run):
    folder, _, outputs = qwen3_run
    assert "parameters train (in float32)" in outputs[2]
    log = [json.loads(line) for line in (folder / "03_training_log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    card = json.loads((folder / "03_model" / "cardioembed.json").read_text())
    assert card["recipe"]["quantization"] == "int8"
    assert card["recipe"]["pooling"] == "lasttoken"
    assert (folder / "03_loss_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "03_tensorboard").glob("events.*"))


def test_metrics_have_base_adapted_and_delta(qwen3_run):
    folder, _, _ = qwen3_run
    metrics = json.loads((folder / "04_evaluation" / "metrics.json").read_text())
    for model in ("base", "adapted"):
        for evaluation in ("paraphrase_retrieval", "concept_separation"):
            for cell in metrics["models"][model][evaluation].values():
                assert cell["n"] > 0
                assert cell["ci95"][0] <= cell["ci95"][1]
    assert metrics["models"]["base"]["concept_separation"]["separation"]["n"] == 120
    gain = metrics["delta"]["paraphrase_retrieval"]["mrr"]
    assert gain["value"] != 0
    assert (folder / "04_evaluation" / "report.html").stat().st_size > 50_000


def test_base_row_of_the_report_is_the_untrained_base(qwen3_run, tiny_qwen3):
    from cardioembed.embedder.encoder import load_embedder

    folder, _, _ = qwen3_run
    adapted = load_model(folder / "03_model", device="cpu")
    base = load_embedder(str(tiny_qwen3), max_length=128, device="cpu", quantization="int8")
    with adapted.without_adapter():
        assert np.abs(adapted.encode("Severe aortic stenosis") - base.encode("Severe aortic stenosis")).max() < 1e-6


def test_manifests_tell_settings_inputs_outputs_and_versions(qwen3_run):
    folder, _, _ = qwen3_run
    for number in ("01", "02", "03", "04", "05"):
        manifest = json.loads((folder / f"{number}_manifest.json").read_text())
        assert manifest["settings"]["run_dir"] == str(folder)
        assert manifest["libraries"]["torch"].startswith("2.13.0")
        assert manifest["outputs"]
        assert all(len(digest) == 64 for digest in manifest["inputs"].values())
        assert yaml.safe_load((folder / f"{number}_settings.yaml").read_text())["seed"] == 42


def test_laptop_model_opens_in_sentence_transformers_with_our_vectors(laptop_run):
    folder, _, _ = laptop_run
    texts = ["Severe aortic stenosis", "No thrombus in the left atrial appendage.", "ECG"]
    ours = load_model(folder / "03_model", device="cpu").encode(texts)
    peer = SentenceTransformer(str(folder / "03_model"), device="cpu").encode(texts)
    assert np.abs(ours - peer).max() < 1e-5


def test_sts_is_reported_under_its_file_name(laptop_run):
    folder, _, outputs = laptop_run
    metrics = json.loads((folder / "04_evaluation" / "metrics.json").read_text())
    assert metrics["models"]["base"]["sts_human"]["spearman_cosine"]["value"] == pytest.approx(1.0)
    assert "sts_human" in outputs[3]


def test_training_again_goes_on_from_the_last_checkpoint_with_the_same_bytes(laptop_run):
    folder, arguments, _ = laptop_run
    before = (folder / "03_model" / "adapter_model.safetensors").read_bytes()
    done = run(SCRIPTS[2], *arguments)
    assert "going on from" in done.stdout
    assert (folder / "03_model" / "adapter_model.safetensors").read_bytes() == before


def test_changed_settings_are_refused_with_the_key(laptop_run):
    _, arguments, _ = laptop_run
    done = run(SCRIPTS[3], *arguments, "--set", "train.temperature=0.1")
    assert done.returncode == 2
    assert "train.temperature: was 0.05, is 0.1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("stage", "needed"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_stage_without_its_inputs_says_which_command_makes_them(stage, needed, tmp_path):
    done = run(SCRIPTS[stage - 1], "--config", ROOT / "configs/laptop.yaml", "--set", f"run_dir={tmp_path}/none")
    assert done.returncode == 2
    assert f"is missing. Run stage 0{needed} first:\n  python {SCRIPTS[needed - 1]} --config" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_inputs_outputs_and_an_example(script):
    done = run(script, "--help")
    assert done.returncode == 0
    for word in ("reads", "writes", "example", "--config", "--set"):
        assert word in done.stdout


def test_a_base_that_is_not_there_ends_stage_03_before_anything_is_written(laptop_run, tmp_path):
    folder, arguments, _ = laptop_run
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "03_model")
    changed = [*arguments, "--set", f"run_dir={tmp_path / 'run'}", "--set", "model.base=./no_such_base"]
    done = run(SCRIPTS[2], *changed)
    assert done.returncode == 2
    assert "neither a folder here nor a hub id" in done.stderr
    assert not (tmp_path / "run" / "03_model").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "alike", "text1": "a", "text2": "b"}', "kind 'alike' is unknown"),
        ('{"kind": "similar", "text1": "a"}', "line 1: key 'text2' is missing"),
        ('{"kind": "similar", "text1": "a", "text2": 3}', "row 1: text2 is 3"),
        ("", "0 pairs of kind 'similar'"),
    ],
)
def test_bad_concept_pairs_are_named_before_a_model_loads(content, message, laptop_run, tmp_path):
    _, arguments, _ = laptop_run
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    done = run(SCRIPTS[3], *arguments, "--set", f"evaluate.concept_pairs={path}")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_example_imports_into_a_notebook_without_side_effects(laptop_run, capsys):
    folder, _, _ = laptop_run
    usage = importlib.import_module("05_usage_example")
    assert capsys.readouterr().out == ""
    model = usage.load_model(folder / "03_model", device="cpu")
    texts = ["Aspirin is given for life.", "The mitral valve has two leaflets.", "Amiodarone may harm the thyroid."]
    vectors = model.encode(texts)
    assert vectors.shape == (3, 384)
    assert model.similarity(vectors, vectors).diagonal() == pytest.approx([1, 1, 1], abs=1e-5)
    hits = usage.search(model, "thyroid side effects of an antiarrhythmic", texts, top_k=2)
    assert hits[0].index == 2
    assert hits[0].score > hits[1].score
    assert usage.search(model, "leaflets of the left atrioventricular valve", texts, vectors)[0].text == texts[1]


def test_two_runs_with_one_seed_train_the_same_bytes(tiny_bert, tmp_path):
    digests = []
    for name in ("first", "second"):
        arguments = small(tiny_bert, tmp_path, run_dir=tmp_path / name, train__max_steps=3)
        for script in SCRIPTS[:3]:
            assert run(script, *arguments).returncode == 0
        digests.append((tmp_path / name / "03_model" / "adapter_model.safetensors").read_bytes())
    assert digests[0] == digests[1]
