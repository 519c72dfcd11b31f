"""The command line and the hub, with a hub of our own on this machine."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from texts import ROOT
from trained_models import trained

import cardioembed.export.__main__ as command_line
from cardioembed.errors import UserError
from cardioembed.export.__main__ import main
from cardioembed.export.hub import push_to_hub, upload_list

TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def model(tiny_bert, tmp_path):
    trained(tiny_bert, tmp_path / "m")
    return tmp_path / "m"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a push of small files takes."""

    def do_POST(self):
        body = self._body()
        self.server.seen.append((self.path, self.headers.get("authorization")))
        if self.server.status != 200:
            return self._answer({"error": "no"}, self.server.status)
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            return self._answer({"url": f"{self.server.address}/me/cardio"})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._answer({"commitUrl": f"{self.server.address}/me/cardio/commit/0", "commitOid": "0" * 40})

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("authorization")))
        self._answer({"id": "me/cardio", "private": self.server.private, "sha": "0" * 40, "siblings": []})

    def _body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.seen, server.files, server.created, server.private, server.status = [], {}, None, True, 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to upload, and a token."""
    (tmp_path / "out" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "out" / "README.md").write_text("a card")
    (tmp_path / "out" / "1_Pooling" / "config.json").write_text("{}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the hub of these tests is on this machine
    return tmp_path / "out"


def test_the_command_uploads_the_whole_export_with_its_card(model, hub):
    """In a process of its own: huggingface_hub reads its variables once."""
    out = model.parent / "out"
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    command = [
        sys.executable, "-m", "cardioembed.export", str(model), "--out", str(out), "--device", "cpu", "--push-to-hub",
        "me/cardio", "--private",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert hub.files == written
    assert {"README.md", "model.safetensors"} <= set(written)
    assert hub.created == {"name": "cardio", "organization": "me", "visibility": "private"}
    assert {token for _, token in hub.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr


def test_a_public_repository_is_no_private_one(folder, hub):
    hub.private = False
    with pytest.raises(UserError, match="me/cardio exists and is public; nothing was uploaded"):
        push_to_hub(folder, "me/cardio", private=True, endpoint=hub.address)
    assert not hub.files
    push_to_hub(folder, "me/cardio", private=False, endpoint=hub.address)
    assert set(hub.files) == {"README.md", "1_Pooling/config.json"} == {name for name, _ in upload_list(folder)}


def test_a_refused_token_is_told_and_not_shown(folder, hub):
    hub.status = 403
    with pytest.raises(UserError, match=r"me/cardio was not uploaded .*HF_TOKEN may write there") as told:
        push_to_hub(folder, "me/cardio", private=False, endpoint=hub.address)
    assert TOKEN not in str(told.value)
    with pytest.raises(UserError, match="me/cardio was not uploaded"):
        push_to_hub(folder, "me/cardio", private=False, endpoint="http://127.0.0.1:1")


def test_a_dry_run_lists_what_a_push_would_send(model, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(command_line, "push_to_hub", None)  # a call of it would fail
    arguments = [str(model), "--out", str(tmp_path / "out"), "--device", "cpu", "--push-to-hub", "me/cardio"]
    assert main([*arguments, "--private", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "would upload to me/cardio (private):" in shown
    for name in ("README.md", "model.safetensors", "1_Pooling/config.json"):
        assert name in shown


def test_without_a_token_nothing_is_begun(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", " ")
    assert main([str(model), "--out", str(tmp_path / "out"), "--push-to-hub", "me/cardio"]) == 2
    assert "HF_TOKEN is not set" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", ["abc", "nan", "-0.1", "2.5"])
def test_a_drift_that_is_none_is_refused(limit, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["m", "--out", "o", f"--max-drift={limit}"])
    assert f"'{limit}' is not a number from 0 to 2" in capsys.readouterr().err


def test_an_upload_that_is_stopped_says_what_is_whole(model, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(command_line, "push_to_hub", stopped)
    out = tmp_path / "out"
    assert main([str(model), "--out", str(out), "--device", "cpu", "--push-to-hub", "me/cardio"]) == 2
    assert f"{out} is whole, its upload is not; give the same command again" in capsys.readouterr().err
    assert (out / "model.safetensors").is_file()


def test_the_summary_gives_the_drift(model, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("Aortic stenosis.\n\nMitral stenosis.\n", encoding="utf-8")
    arguments = [str(model), "--out", str(tmp_path / "out"), "--device", "cpu", "--texts", str(tmp_path / "texts.txt")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "over 16 texts: mean" in shown
    assert "limit 0.001" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["{tmp}/none", "--out", "{tmp}/o"], "is not a trained model: it has no cardioembed.json"),
        (["{m}", "--out", "{tmp}/o", "--base", "{tmp}/gone"], "the base of .* is needed and not found"),
        (["{m}", "--out", "{tmp}/o", "--texts", "{tmp}/gone.txt"], "cannot be read"),
        (["{m}", "--out", "{tmp}/o", "--texts", "{tmp}/empty.txt"], "has no text in it"),
        (["{m}", "--out", "{tmp}/empty.txt"], "is a file"),
        (["{m}", "--out", "{tmp}/o", "--push-to-hub", "cardio", "--dry-run"], "is not a repository's name"),
        (["{m}", "--out", "{tmp}/o", "--push-to-hub", "a/b/c", "--dry-run"], "is not a repository's name"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(changes, message, model, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    assert main([part.format(m=model, tmp=tmp_path) for part in changes]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("stray", [["--private"], ["--max-drift", "-1"], ["--format", "gguf"]])
def test_stray_options_are_refused(stray, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["m", "--out", str(tmp_path / "o"), *stray])
    assert stopped.value.code == 2


def test_help_and_mistakes_come_without_torch():
    code = (
        "import sys; from cardioembed.export.__main__ import main; assert main(['/none', '--out', '/none/x']) == 2; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0
