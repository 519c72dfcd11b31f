"""The notebook runs as it is shipped, in a copy of what a clone has."""

import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from texts import ROOT

from cardioembed.embedder.adapters import attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.saving import save_model

NOTEBOOK = "examples/quickstart.ipynb"


@pytest.fixture(autouse=True)
def notebook_backend(monkeypatch):
    """Streamlit, where a test before imported it, sets matplotlib's backend for this process and its children."""
    monkeypatch.delenv("MPLBACKEND", raising=False)


def execute(clone, cells=None):
    shutil.copytree(ROOT / "cardioembed", clone / "cardioembed", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "examples").mkdir()
    for name in ("05_usage_example.py", NOTEBOOK):
        shutil.copy(ROOT / name, clone / name)
    notebook = nbformat.read(clone / NOTEBOOK, as_version=4)
    notebook.cells = notebook.cells[:cells]
    resources = {"metadata": {"path": str(clone / "examples")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def test_it_is_valid_and_holds_no_outputs():
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_it_runs_on_the_packaged_base_where_nothing_was_trained(tmp_path):
    opening, encoding, figure, search, small = execute(tmp_path)
    assert printed(opening) == "base model with 384 dimensions\n"
    assert encoding.outputs[0].data["text/plain"] == "((8, 384), dtype('float32'))"
    assert any("image/png" in output.get("data", {}) for output in figure.outputs)
    best, second, _ = printed(search).splitlines()
    assert {best[7:10], second[7:10]} == {"Api", "An "}
    assert [int(line.split()[0]) for line in printed(small).splitlines()] == [1536, 512, 768, 384, 48]


def test_it_takes_the_trained_model_once_there_is_one(tiny_xlm_roberta, tmp_path):
    embedder = load_embedder(str(tiny_xlm_roberta), max_length=64, device="cpu")
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear",
        base_reference=embedder.base.reference, revision=None,
    )  # fmt: skip
    folder = tmp_path / "runs/laptop/03_model"
    folder.mkdir(parents=True)
    save_model(embedder, folder, {})
    opening, *_ = execute(tmp_path, cells=2)
    assert printed(opening) == "trained model with 64 dimensions\n"
