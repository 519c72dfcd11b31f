"""Texts of a run, own texts, vectors that are encoded once, figures, and what a missing file says."""

import argparse
import subprocess
import sys

import numpy as np
import pytest
from safetensors import SafetensorError
from streamlit.testing.v1 import AppTest
from texts import ROOT, SENTENCES

from cardioembed.embedder.adapters import attach_lora
from cardioembed.embedder.encoder import load_embedder
from cardioembed.embedder.saving import load_model, save_model
from cardioembed.errors import UserError
from cardioembed.evaluation.tables import Cell, Table
from cardioembed.explorer import __main__ as launcher
from cardioembed.explorer import figures, markup
from cardioembed.explorer.data import LABELLED, PAIRS, choices, load_texts, sample
from cardioembed.explorer.data import SENTENCES as ALL
from cardioembed.explorer.options import parse_page_arguments
from cardioembed.explorer.run_files import needed, training_log
from cardioembed.explorer.store import kept
from cardioembed.explorer.vectors import Models, load_vectors
from cardioembed.records import write_jsonl


@pytest.fixture
def run_dir(tmp_path):
    """A run with six test pairs."""
    rows = [
        {"anchor": text, "positive": f"So: {text}", "group": str(i), "source": f"book-{i % 2}", "model": "free"}
        for i, text in enumerate(SENTENCES)
    ]
    write_jsonl(tmp_path / "02_training_test.jsonl", [*rows, rows[0]])
    write_jsonl(tmp_path / "01_sentences.jsonl", [{"id": str(i), "text": t} for i, t in enumerate(SENTENCES)])
    return tmp_path


def test_pairs_give_each_text_once_with_book_and_paraphraser(run_dir):
    texts = load_texts(PAIRS, run_dir, None, 100)
    assert len(texts) == texts.available == 12
    assert texts.texts[:2] == [SENTENCES[0], f"So: {SENTENCES[0]}"]
    assert texts.groups[:3] == ["0", "0", "1"]
    assert texts.columns["book"][:3] == ["book-0", "book-0", "book-1"]
    assert texts.columns["paraphraser"][:2] == ["the book's own words", "free"]
    assert load_texts(ALL, run_dir, None, 100).columns == {"book": ["(none)"] * 6}


def test_more_than_the_limit_are_sampled_and_the_same_each_time(run_dir):
    texts = load_texts(PAIRS, run_dir, None, 5)
    assert (len(texts), texts.available) == (5, 12)
    assert texts == load_texts(PAIRS, run_dir, None, 5)
    assert texts.digest != load_texts(PAIRS, run_dir, None, 6).digest
    assert sample(10, 10) == list(range(10))


def test_own_texts(run_dir):
    file = run_dir / "own.jsonl"
    write_jsonl(file, [{"id": i, "label": "ab"[i % 2], "text": t} for i, t in enumerate(SENTENCES)])
    assert choices(run_dir, file) == [LABELLED, PAIRS, ALL]
    texts = load_texts(LABELLED, run_dir, file, 100)
    assert texts.columns == {"label": list("ababab")}
    assert len(set(texts.groups)) == 6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"label": "a", "text": " "}', "'text' is empty"),
        ('{"text": "x"}', "'label' is missing"),
        ("{", "line 1"),
        ('{"label": "a", "text": "x"}', "1 different texts; a map needs at least 3"),
        ('{"label": 3, "text": "x"}', "'label' must be a text"),
    ],
)
def test_own_texts_that_are_wrong_are_advice(run_dir, lines, message):
    file = run_dir / "own.jsonl"
    file.write_text(lines)
    with pytest.raises(UserError, match=message):
        load_texts(LABELLED, run_dir, file, 100)


def test_a_missing_file_names_its_stage(tmp_path):
    with pytest.raises(UserError, match=r"(?s)02_training_test.jsonl is missing.*python 02_prepare_training_data.py"):
        load_texts(PAIRS, tmp_path, None, 100)
    (tmp_path / "03_settings.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"python 04_evaluate_model\.py --config .*03_settings\.yaml"):
        needed(tmp_path, "04_evaluation/metrics.json")


def test_a_log_whose_last_line_was_cut_is_read(tmp_path):
    (tmp_path / "03_training_log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert training_log(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_vectors_are_those_of_base_and_adapted_model_and_encoded_once(tiny_bert, run_dir, monkeypatch):
    import torch

    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    base = embedder.encode(SENTENCES)
    embedder.model = attach_lora(
        embedder.model, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear",
        base_reference=str(tiny_bert), revision=None,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in embedder.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    save_model(embedder, run_dir / "03_model", {})
    texts = load_texts(ALL, run_dir, None, 100)
    monkeypatch.setattr("cardioembed.explorer.vectors._BLOCK", 2)
    models, shares = Models(run_dir), []

    def leave(share):
        shares.append(share)
        if len(shares) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):  # the page is left in the middle
        load_vectors(models, run_dir, texts, run_dir / "cache", leave)
    found = load_vectors(models, run_dir, texts, run_dir / "cache", shares.append)
    np.testing.assert_allclose(found.before, base, atol=1e-5)
    np.testing.assert_allclose(found.after, load_model(run_dir / "03_model").encode(SENTENCES), atol=1e-5)
    assert not np.allclose(found.before, found.after, atol=1e-2)
    assert shares == pytest.approx([n / 6 for n in range(1, 7)])  # no block twice
    again = load_vectors(None, run_dir, texts, run_dir / "cache")  # no model is needed for kept vectors
    np.testing.assert_array_equal(again.after, found.after)


def test_the_explorer_starts_without_loading_torch():
    code = (
        "import sys, cardioembed.explorer.__main__, cardioembed.explorer.views.metrics, cardioembed.explorer.data, "
        "cardioembed.explorer.vectors, cardioembed.explorer.projection\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'umap') if name in sys.modules])"
    )
    pytest.importorskip("streamlit", reason="the explorer's packages are optional")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "missing"], "--run missing is not a folder"),
        (["--run", "{run}", "--texts", "no.jsonl"], "--texts no.jsonl is not a file"),
        (["--run", "{run}", "--port", "99999999"], "is not a port"),
    ],
)
def test_wrong_options_end_with_2(run_dir, arguments, message, capsys):
    assert launcher.main([part.format(run=run_dir) for part in arguments]) == 2
    assert message in capsys.readouterr().err


def test_flags_keep_the_page_on_this_machine_whatever_the_environment_says():
    arguments = launcher.streamlit_arguments(argparse.Namespace(run="r", texts=None, cache=None, port=8501))
    own = arguments[: arguments.index("--")]
    assert {"--server.address=127.0.0.1", "--browser.gatherUsageStats=false"} <= set(own)


def test_options_behind_streamlit_do_not_end_the_process(run_dir):
    assert parse_page_arguments([f"--run={run_dir}"]).cache == run_dir / "explorer_cache"
    for arguments in (["--run"], ["--colour"]):
        with pytest.raises(UserError, match="--run"):
            parse_page_arguments(arguments)


def test_points_of_a_figure_lead_back_to_their_texts():
    pytest.importorskip("plotly", reason="the explorer's packages are optional")
    points = np.arange(12, dtype=np.float32).reshape(6, 2)
    labels = list("babacc")
    mark = figures.Mark("query", points[:1], ["q"], "x", "#000")
    plain = figures.scatter(points, SENTENCES, labels)
    drawn = figures.with_marks(plain, [mark])
    assert len(plain.figure.data) == len(drawn.figure.data) - 1
    for curve, label in enumerate("abc"):
        for point in range(2):
            place = drawn.place(curve, point)
            assert labels[place] == label
            assert drawn.figure.data[curve].x[point] == points[place, 0]
            assert SENTENCES[place][:20] in drawn.figure.data[curve].hovertext[point]
    assert drawn.place(3, 0) is None
    assert {trace.type for trace in drawn.figure.data} == {"scattergl"}
    assert figures.scatter(np.ones((6, 3)), SENTENCES, labels).figure.data[0].type == "scatter3d"


def test_no_two_labels_look_alike_and_rare_ones_are_others():
    assert len({tuple(figures.look(n).values()) for n in range(64)}) == 64
    assert len({figures.look(n)["symbol"] for n in range(8)}) == 8
    labels = [f"label {n}" for n in range(40)] + ["label 7"]
    drawn = figures.scatter(np.ones((41, 2)), ["x"] * 41, labels)
    names = [trace.name for trace in drawn.figure.data]
    assert len(names) == 24
    assert names[-1] == figures.OTHER
    assert "label 7" in names
    assert sum(map(len, drawn.places)) == 41


def test_markup_in_texts_is_shown_and_not_obeyed():
    evil = "EF <35 % <script>alert(1)</script> & so on"
    shown = [
        figures.hover_texts([evil], [evil])[0],
        markup.quoted(evil, evil),
        markup.rows_table([evil], [[evil]], evil),
    ]
    assert all("<script" not in text and "&lt;35" in text for text in shown)


def test_a_verdict_has_a_name_for_those_who_hear_the_page():
    shown = markup.table(Table(["metric", "adapted"], [[Cell("mrr"), Cell("0.91", "[0.90, 0.92]", "better")]]))
    assert '<span role="img" title="better" aria-label="better">▲</span>' in shown


def test_texts_with_the_same_beginning_are_told_apart_in_the_list(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # Streamlit leaves its page there

    def page():
        from cardioembed.explorer.data import Texts
        from cardioembed.explorer.views.shared import choose_text

        texts = [f"{'The mitral valve has two leaflets, ' * 6}{end}." for end in ("thin", "thick", "torn")]
        choose_text(Texts(texts, ["0", "1", "2"], {}, 3), [0, 1, 2], "open")

    labels = AppTest.from_function(page).run().selectbox[0].options
    assert len(set(labels)) == 3
    assert len({label.split(". ", 1)[1] for label in labels}) == 1


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("cardioembed.explorer.store.save_file", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); .*--cache FOLDER"):
        kept(tmp_path, "map", ("key",), lambda: {"places": np.zeros((2, 2))})
    assert list(tmp_path.iterdir()) == []
