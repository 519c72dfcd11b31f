"""Stage 05 in the terminal; its import into a notebook is in test_stages.py."""

import importlib
import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from safetensors.numpy import load_file
from texts import ROOT

from cardioembed import stage
from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError
from cardioembed.search.index import Index

SAMPLE = ROOT / "data/sample"


def run(script, folder, base):
    """Runs a stage in this process, which has imported torch already, and returns what it prints."""
    main = importlib.import_module(script).main
    arguments = ["--config", str(ROOT / "configs/laptop.yaml")]
    arguments += [f"--set={key}={value}" for key, value in settings(folder, base).items()]
    with redirect_stdout(io.StringIO()) as printed:
        assert stage.run(main, None, arguments) == 0
    return printed.getvalue()


def settings(folder, base):
    return {
        "run_dir": folder, "merge.books": f"[{SAMPLE}/books/valvular_congenital.md]", "model.base": base,
        "model.max_length": 64, "train.max_steps": 1, "train.eval_steps": 1, "train.save_steps": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def toured(tiny_e5, tmp_path_factory):
    """A run of a base with prompts, toured twice."""
    folder = tmp_path_factory.mktemp("tour") / "run"
    for script in ("01_merge_paraphrases", "02_prepare_training_data", "03_train_embedding_model"):
        run(script, folder, tiny_e5)
    outputs = [run("05_usage_example", folder, tiny_e5) for _ in range(2)]
    return folder, outputs[1]


def test_the_tour_shows_every_option_in_order(toured):
    _, output = toured
    places = [output.index(f"\n{number}. ") for number in range(1, 8)]
    assert places == sorted(places)
    for line in ("one text   (64,)", "3 texts    (3, 64) float32, length 1.0000", "as tensor  torch.float32"):
        assert line in output
    for precision, size in {"float32": 256, "float16": 128, "int8": 64, "binary": 8}.items():
        (shown,) = (line for line in output.splitlines() if f"precision={precision} " in line)
        assert shown.endswith(f" {size} bytes a text")
    assert "truncate_dim=32: cosines differ by 0." in output
    assert "opened again: True" in output


def test_saved_vectors_and_index_are_those_of_the_sentences_as_documents(toured):
    folder, _ = toured
    model, index = load_model(folder / "03_model", device="cpu"), Index.open(folder / "05_index")
    texts = [row["text"] for row in index.rows]
    assert len(texts) > 100
    assert index.rows[0]["metadata"] == {"source": "valvular_congenital"}
    expected = model.encode(texts, prompt_name=model.recipe.positive_prompt)
    assert np.abs(load_file(folder / "05_vectors.safetensors")["vectors"] - expected).max() < 2e-6
    assert np.abs(index.vectors - expected).max() < 2e-6
    assert np.abs(model.encode(texts[:9]) - expected[:9]).max() > 1e-3
    assert index.search(model, texts[5], top_k=1)[0].text == texts[5]


def test_nothing_is_left_beside_the_outputs(toured):
    folder, _ = toured
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_search_refuses_vectors_of_other_texts(toured):
    folder, _ = toured
    usage = importlib.import_module("05_usage_example")
    model = usage.load_model(folder / "03_model", device="cpu")
    vectors = model.encode(["Aspirin", "Statin"])
    with pytest.raises(UserError, match="1 texts and 2 vectors"):
        usage.search(model, "ECG", ["Aspirin"], vectors)
    with pytest.raises(UserError, match="0 texts and 0 vectors"):
        usage.search(model, "ECG", [])
    with pytest.raises(UserError, match="top_k is 0; give 1 or more"):
        usage.search(model, "ECG", ["Aspirin", "Statin"], vectors, top_k=0)
    # Vectors of the query itself: an untrained model's nearest text is otherwise anybody's guess.
    vectors[1] = model.encode("ECG", prompt_name=model.recipe.anchor_prompt)
    hits = usage.search(model, "ECG", ["Aspirin", "Statin"], vectors, top_k=1)
    assert [(hit.index, hit.text) for hit in hits] == [(1, "Statin")]
    assert hits[0].score == pytest.approx(1, abs=1e-5)
