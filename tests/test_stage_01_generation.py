"""Stage 01 with language models, as a command against a server on loopback, and stage 02 with what they wrote."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict

import pytest
import yaml
from chat_server import ChatServer, answer, error
from stages import ROOT, STAGE_01, STAGE_02, fail, rows, sets, succeed

from cardioembed.records import normalise, text_id

SECTIONS, EACH = 24, 4


def sentence(section, n):
    place, drug = f"ward{section}n{n}", f"drug{section}n{n}"
    return f"In {place} the {drug} relieves symptom{section} of patients given orally in state{section}s{n}."


def paraphrase(text):
    place, drug, symptom, state = re.search(r"In (\S+) the (\S+) relieves (\S+) of .* in (state\d+s\d+)", text).groups()
    return f"Patients of {place} have {symptom} relieved by oral {drug}, when in {state}."


def passages(text):
    first, second = [part + "." for part in re.findall(r"In ward\d+n\d+ the [^.]*", text)][:2]
    drug = re.search("drug\\S+", first)[0]
    pairs = [
        {"type": "keyword", "query": f"{drug} oral", "passage": f"{first} {second}", "relevance": 0.9},
        {"type": "natural_language", "query": f"what is {drug} for?", "passage": f"{second} {first}", "relevance": 0.8},
        {"type": "keyword", "query": f"{drug} price", "passage": f"{first} {second}", "relevance": 0.1},
    ]
    return f"```json\n{json.dumps(pairs)}\n```"


def respond(message, before):
    if message.startswith("The text:"):
        return answer(passages(message))
    return answer(paraphrase(message))


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "books").mkdir()
    for book in ("rhythm", "valves"):
        half = range(0, SECTIONS, 2) if book == "rhythm" else range(1, SECTIONS, 2)
        text = "\n\n".join(f"# {n}\n\n" + " ".join(sentence(n, i) for i in range(EACH)) for n in half)
        (tmp_path / "books" / f"{book}.md").write_text(text, encoding="utf-8")
    return tmp_path


def configure(desk, base_url, *prompts, **options):
    generators = [
        {"name": prompt, "model": "tiny", "prompt": prompt, "base_url": base_url, "max_retries": 1, **options}
        for prompt in prompts
    ]
    merge = {"books": [str(desk / "books")], "paraphrases": [], "generators": generators}
    split = {"train": 0.5, "validation": 0.25, "test": 0.25}
    prepare = {"split": split, "min_distance": 2, "decontaminate": []}
    settings = {"run_dir": str(desk / "run"), "merge": merge, "prepare": prepare}
    (desk / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return "--config", desk / "run.yaml"


def test_generators_write_pairs_that_stage_02_takes_and_are_not_asked_again(desk):
    with ChatServer(respond) as server:
        config = configure(desk, server.base_url, "close", "passages")
        output = succeed(STAGE_01, *config)
        asked = sum(server.asked.values())
        assert asked == SECTIONS * EACH + SECTIONS
        assert f"close: {SECTIONS * EACH} of {SECTIONS * EACH} done" in output
        pairs = rows(desk / "run" / "01_merged_paraphrases.jsonl")
        assert Counter(row["model"] for row in pairs) == {"tiny": SECTIONS * EACH + 2 * SECTIONS}
        assert Counter(row.get("kind") for row in pairs) == {None: SECTIONS * EACH, "passage": 2 * SECTIONS}
        again = succeed(STAGE_01, *config)
        assert f"{SECTIONS * EACH} done, 0 asked now" in again
        assert sum(server.asked.values()) == asked
        assert rows(desk / "run" / "01_merged_paraphrases.jsonl") == pairs
    statistics = json.loads((desk / "run" / "01_statistics.json").read_text(encoding="utf-8"))
    assert [(g["name"], g["done"], g["completion_tokens"]) for g in statistics["generators"]] == [
        ("close", SECTIONS * EACH, 7 * SECTIONS * EACH),
        ("passages", SECTIONS, 7 * SECTIONS),
    ]
    assert statistics["generators"][1]["refused"] == {"below_min_relevance": SECTIONS}

    succeed(STAGE_02, *config)
    homes = defaultdict(set)
    for split in ("train", "validation", "test"):
        for row in rows(desk / "run" / f"02_training_{split}.jsonl"):
            section = re.search(r"ward(\d+)n", row["anchor"] + row["positive"])[1]
            homes[section].add(split)
    assert len(homes) == SECTIONS
    assert all(len(splits) == 1 for splits in homes.values())  # a section that passages join stays together


def test_killed_run_goes_on_and_asks_for_nothing_twice(desk):
    def slow(message, before):
        time.sleep(0.05)
        return respond(message, before)

    with ChatServer(slow) as server:
        config = configure(desk, server.base_url, "close", max_concurrency=2)
        command = [sys.executable, STAGE_01, *map(str, config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sum(server.asked.values()) < 20:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        written = desk / "run" / "01_generated" / "close.jsonl"
        whole = [line for line in written.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        assert len(whole) >= 16
        done = {json.loads(line)["original"] for line in whole}
        succeed(STAGE_01, *config)
    originals = [row["original"] for row in rows(written)]
    assert len(originals) == len(set(originals)) == SECTIONS * EACH
    twice = [message for message, count in server.asked.items() if count > 1]
    assert len(twice) <= 2  # at most what was in flight
    assert not [text for text in done if any(text in message for message in twice)]


def test_sentence_that_a_model_refuses_is_listed_and_asked_again_later(desk):
    stubborn = sentence(3, 1)

    def moody(message, before):
        return error(400, "no") if stubborn in message and not before else respond(message, before)

    with ChatServer(moody) as server:
        config = configure(desk, server.base_url, "close")
        output = succeed(STAGE_01, *config)
        assert "failed 1: bad_request" in output
        (failed,) = rows(desk / "run" / "01_generated" / "close.failed.jsonl")
        assert failed["sentence_id"] == text_id(normalise(stubborn))
        assert f"{SECTIONS * EACH} of {SECTIONS * EACH} done, 1 asked now" in succeed(STAGE_01, *config)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "the key in CARDIO_KEY was refused"),
        (404, "it has no model 'tiny'; set model to one of: large"),
        (None, "no server answers there"),
    ],
)
def test_server_that_can_answer_nothing_ends_the_stage_with_advice(desk, monkeypatch, status, expected):
    monkeypatch.setenv("CARDIO_KEY", "secret-of-mine")
    with ChatServer(
        lambda message, before: error(status, "no"), models=("large",) if status == 404 else ("tiny",)
    ) as server:
        config = configure(desk, server.base_url, "close", api_key_env="CARDIO_KEY")
        if status is None:
            server.stop()
        message = fail(STAGE_01, *config)
    assert expected in message
    assert "merge.generators, close" in message
    assert "secret-of-mine" not in message
    assert not (desk / "run" / "01_merged_paraphrases.jsonl").exists()


def test_embedding_gate_refuses_what_is_far_from_its_sentence(desk):
    text = sentence(0, 0)
    good, astray = paraphrase(text), "Copper kettles are polished in the afternoon by two quiet gardeners of Leeds."
    file = desk / "pairs.jsonl"
    lines = [json.dumps({"original": text, "paraphrase": p, "model": "m"}) for p in (good, astray)]
    file.write_text("\n".join(lines), encoding="utf-8")
    gate = sets(
        merge__paraphrases=file, merge__embedding_gate__model="sentence-transformers/all-MiniLM-L6-v2", device="cpu"
    )
    config = configure(desk, "http://127.0.0.1:9/v1")
    assert "2 of 2 rows kept" in succeed(STAGE_01, *config, *sets(merge__paraphrases=file))
    output = succeed(STAGE_01, *config, *gate)
    assert re.search(r"rejected 1: cosine_low; first: cosine 0\.\d+, at least 0\.6 is asked for", output)
    assert [row["paraphrase"] for row in rows(desk / "run" / "01_merged_paraphrases.jsonl")] == [good]
    assert "kettles" in (desk / "run" / "01_report.html").read_text(encoding="utf-8")
