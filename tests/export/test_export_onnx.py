"""ONNX of encoders: vectors by onnxruntime and tokenizers alone, as the card shows."""

import numpy as np
import pytest
from texts import SENTENCES
from trained_models import trained

from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError
from cardioembed.export import onnx_model
from cardioembed.export.writing import export_model

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run_card(folder, texts):
    """Runs the Python of the folder's README, with other texts."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    line = next(line for line in code.splitlines() if line.startswith("texts ="))
    found = {}
    exec(code.replace(line, f"texts = {texts!r}").replace("path/to/this/folder", str(folder)), found)
    return found["vectors"]


@pytest.mark.parametrize("base", ["tiny_bert", "tiny_xlm_roberta", "tiny_mpnet", "tiny_jina"])
def test_the_cards_own_code_gives_our_vectors(base, request, tmp_path):
    embedder = trained(request.getfixturevalue(base), tmp_path / "m")
    out = tmp_path / "out"
    report = export_model(tmp_path / "m", out, format="onnx")
    assert report["parity"] < 1e-5
    assert report["opset"] == onnx_model.OPSET
    texts = [*SENTENCES, "ECG", "aortic stenosis " * 100]  # the last is cut
    expected = embedder.encode(texts)
    assert np.abs(run_card(out, texts) - expected).max() < 1e-5
    for text, vector in zip(texts, expected, strict=True):
        assert np.abs(run_card(out, [text])[0] - vector).max() < 1e-5
    assert {path.name for path in out.iterdir()} >= {"model.onnx", "tokenizer.json", "config.json", "export.json"}


def test_a_merged_export_becomes_onnx_and_a_wrong_graph_is_refused(tiny_bert, tmp_path, monkeypatch):
    trained(tiny_bert, tmp_path / "m", quantization="int8")
    with pytest.raises(UserError, match=r"was trained on int8.*--format merged first"):
        export_model(tmp_path / "m", tmp_path / "out", format="onnx")
    export_model(tmp_path / "m", tmp_path / "whole", max_drift=1, device="cpu")
    export_model(tmp_path / "whole", tmp_path / "out", format="onnx")
    expected = load_model(tmp_path / "whole", device="cpu").encode(SENTENCES)
    assert np.abs(run_card(tmp_path / "out", SENTENCES) - expected).max() < 1e-5
    before = (tmp_path / "out" / "model.onnx").read_bytes()
    # A graph with another pooling stands for any fault of the exporter.
    right = onnx_model._UnitVectors
    monkeypatch.setattr(onnx_model, "_UnitVectors", lambda model, pooling: right(model, "mean"))
    with pytest.raises(UserError, match=r"onnxruntime's vectors differ.*Nothing was written"):
        export_model(tmp_path / "whole", tmp_path / "out", format="onnx")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_what_onnx_cannot_hold_is_refused(tiny_qwen3, tiny_bert, tmp_path):
    trained(tiny_qwen3, tmp_path / "decoder")
    trained(tiny_bert, tmp_path / "encoder")
    with pytest.raises(UserError, match="is a language model; only encoders"):
        export_model(tmp_path / "decoder", tmp_path / "out", format="onnx")
    with pytest.raises(UserError, match="ONNX is written in float32"):
        export_model(tmp_path / "encoder", tmp_path / "out", format="onnx", dtype="bfloat16")
    assert not (tmp_path / "out").exists()
