import json
import subprocess
import sys

import pytest
from texts import MINILM, ROOT, SENTENCES

from cardioembed.search import approximate
from cardioembed.search.__main__ import main

GIVEN = [
    {"id": n, "text": text, "book": "esc" if n % 2 else "aha", "year": 2000 + n} for n, text in enumerate(SENTENCES)
]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, GIVEN)), encoding="utf-8")
    return path


def fails(capsys, *arguments):
    assert main(list(map(str, arguments))) == 2
    return capsys.readouterr().err


def succeeds(capsys, *arguments):
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def test_build_add_and_query(tmp_path, texts, capsys):
    index, more = tmp_path / "index", tmp_path / "more.csv"
    build = succeeds(capsys, "build", "--model", MINILM, "--texts", texts, "--out", index, "--kind", "hnsw")
    assert "6 texts of 384 dimensions, kind hnsw" in build
    more.write_text("sentence\nWater pills drain a failing heart.\nWater pills drain a failing heart.\n")
    added = succeeds(capsys, "add", index, "--texts", more, "--text-key", "sentence")
    assert "1 added, 0 replaced, 1 there already or given twice" in added
    question = ["query", index, "diuretic in heart failure"]
    hits = [json.loads(line) for line in succeeds(capsys, *question, "--top-k", 2, "--json").splitlines()]
    assert {hit["text"] for hit in hits} == {SENTENCES[3], "Water pills drain a failing heart."}
    command = [sys.executable, "-m", "cardioembed.search", *map(str, question)]
    command += ["--filter", "book=esc", "--filter", "year=2003"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert SENTENCES[3] in first
    assert second.strip() == "3, book=esc, year=2003"


def test_mistakes_end_with_advice(tmp_path, texts, capsys, tiny_qwen3, tiny_qwen2):
    index = tmp_path / "index"
    build = ["build", "--model", tiny_qwen3, "--texts", texts, "--out", index]
    assert "kind 'fast' is unknown" in fails(capsys, *build, "--kind", "fast")
    assert "does not exist" in fails(capsys, *build[:2], tmp_path / "none", *build[3:])
    assert not index.exists()
    assert main(list(map(str, build))) == 0
    assert "is an index already" in fails(capsys, *build)
    assert "built with another model" in fails(capsys, "query", index, "valve", "--model", tiny_qwen2)
    assert "is not an index" in fails(capsys, "query", tmp_path, "valve")
    assert "queries[0] is empty" in fails(capsys, "query", index, " ")
    assert "top_k is 0" in fails(capsys, "query", index, "valve", "--top-k", 0)
    assert "give key=value" in fails(capsys, "query", index, "valve", "--filter", "book")
    assert "'bok'; did you mean 'book'" in fails(capsys, "query", index, "valve", "--filter", "bok=esc")
    twice = ["--filter", "book=esc", "--filter", "book=aha"]
    assert "names a key twice" in fails(capsys, "query", index, "valve", *twice)
    texts.write_text(json.dumps({"id": 1, "text": "other"}))
    assert "--replace" in fails(capsys, "add", index, "--texts", texts)
    assert main(["add", str(index), "--texts", str(texts), "--replace"]) == 0
    assert "0 added, 1 replaced" in capsys.readouterr().out
    assert main(["query", str(index), "valve " * 500, "--filter", "year=2000"]) == 0
    shown = capsys.readouterr()
    assert SENTENCES[0] in shown.out
    assert "its end was not used" in shown.err


def test_an_index_finds_its_model_from_anywhere(tmp_path, texts, capsys, tiny_qwen3, monkeypatch):
    monkeypatch.chdir(tiny_qwen3.parent)
    index, linked = tmp_path / "index", tmp_path / "linked"
    succeeds(capsys, "build", "--model", tiny_qwen3.name, "--texts", texts, "--out", index)
    linked.symlink_to(index)
    more = tmp_path / "more.csv"
    more.write_text("note,text\n,Water pills drain a failing heart.\n")
    monkeypatch.chdir(index)
    assert "1 added" in succeeds(capsys, "add", ".", "--texts", more, "--id-key", "note")
    more.write_text("text\nDigoxin slows the ventricles.\n")
    assert "1 added" in succeeds(capsys, "add", linked, "--texts", more)
    assert linked.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "linked", "more.csv", "texts.jsonl"]
    monkeypatch.chdir(tmp_path)
    assert len(succeeds(capsys, "query", "index", "valve", "--top-k", 9).splitlines()) == 2 * (len(SENTENCES) + 2)


def test_faiss_that_is_missing_is_told_before_a_model_is_loaded(tmp_path, texts, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    told = fails(capsys, "build", "--model", "none", "--texts", texts, "--out", tmp_path / "index", "--kind", "int8")
    assert "pip install -e '.[search]'" in told
    with pytest.raises(Exception, match="faiss"):
        approximate.load_faiss()


@pytest.mark.parametrize("command", ["--help", "query --help"])
def test_help_needs_no_heavy_library(command):
    code = (
        "import sys; from cardioembed.search.__main__ import main\n"
        f"try: main({command.split()!r})\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'faiss', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
