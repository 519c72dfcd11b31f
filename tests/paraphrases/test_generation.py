import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import fields

import pytest
from chat_server import ChatServer, Reply, answer, error

from cardioembed.client import STOP_AFTER
from cardioembed.config import GeneratorSettings
from cardioembed.errors import UserError
from cardioembed.paraphrases.generation.answers import tidy
from cardioembed.paraphrases.generation.run import Generator, run_generators
from cardioembed.records import read_jsonl, text_id

TEXTS = [
    "Severe aortic stenosis narrows the valve area below 1.0 cm2.",
    "Beta-blockers slow the heart rate and lower the demand for oxygen.",
    "A delta wave and a short PR interval show pre-excitation.",
    "Loop diuretics relieve congestion but do not prolong life.",
    "The left atrial appendage is the usual place of thrombus in fibrillation.",
    "Tetralogy of Fallot joins four lesions in one heart.",
]


def sentences(count=6):
    texts = [TEXTS[n] if n < len(TEXTS) else f"Beat {n} of the recording is conducted." for n in range(count)]
    return [{"id": text_id(text), "text": text, "source": "book", "section": "One"} for text in texts]


def run(server, folder, rows, **options):
    generator = {"name": "close-tiny", "model": "tiny", "base_url": server.base_url, "max_retries": 1, "timeout": 5.0}
    return run_generators([Generator(**generator | options)], rows, folder=folder, seed=42)[0]


def reworded(text):
    return f"In other words: {sentence_of(text)[:-1]}, as is known."


def sentence_of(message):
    return message.rpartition("\n\n")[2]


def test_the_fields_and_defaults_are_those_of_the_settings():
    known = {field.name: getattr(Generator("a", "b"), field.name) for field in fields(Generator)}
    assert known == GeneratorSettings(name="a", model="b").model_dump()


def test_each_answer_is_a_row_and_the_counts_add_up(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        counts = run(server, tmp_path, sentences(), max_concurrency=1, input_price=2.0, output_price=10.0)
    rows = read_jsonl(tmp_path / "close-tiny.jsonl")
    assert [row["original"] for row in rows] == TEXTS
    assert rows[0] == {
        "sentence_id": text_id(TEXTS[0]), "original": TEXTS[0], "paraphrase": reworded(TEXTS[0]), "source": "book",
        "section": "One", "model": "tiny", "generator": "close-tiny", "prompt": "close/1", "finish_reason": "stop",
        "prompt_tokens": 11, "completion_tokens": 7,
    }  # fmt: skip
    assert (counts.wanted, counts.done, counts.rows, counts.asked, counts.retries) == (6, 6, 6, 6, 0)
    assert (counts.prompt_tokens, counts.completion_tokens) == (66, 42)
    assert counts.cost == pytest.approx((66 * 2 + 42 * 10) / 1e6)
    assert counts.failed == {}
    assert counts.failed_path.read_text() == ""


def test_each_sentence_has_a_seed_of_its_own_that_the_next_run_would_repeat(tmp_path):
    seeds = []
    for folder in ("a", "b"):
        with ChatServer(lambda text, before: answer(reworded(text))) as server:
            run(server, tmp_path / folder, sentences())
        seeds.append({sentence_of(body["messages"][-1]["content"]): body["seed"] for body in server.requests})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == len(TEXTS)


def test_a_second_run_asks_for_nothing_and_a_new_sentence_alone_is_asked_for(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        run(server, tmp_path, sentences(4))
        before = (tmp_path / "close-tiny.jsonl").read_bytes()
        again = run(server, tmp_path, sentences(4))
        assert (again.asked, again.done, len(server.requests)) == (0, 4, 4)
        assert (tmp_path / "close-tiny.jsonl").read_bytes() == before
        grown = run(server, tmp_path, sentences(6))
    assert (grown.asked, grown.done) == (2, 6)
    assert set(server.asked.values()) == {1}


def test_a_sentence_that_stands_twice_is_asked_once_in_its_first_place(tmp_path):
    rows = sentences()
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        counts = run(server, tmp_path, [*rows, *rows[:2]], max_concurrency=1)
    assert counts.wanted == 6
    assert [row["original"] for row in read_jsonl(counts.path)] == TEXTS


def test_another_model_or_prompt_is_asked_anew_and_the_old_rows_stay(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text)), models=("tiny", "other")) as server:
        run(server, tmp_path, sentences(2))
        run(server, tmp_path, sentences(2), model="other")
        counts = run(server, tmp_path, sentences(2), prompt="free/1")
    rows = read_jsonl(tmp_path / "close-tiny.jsonl")
    assert Counter((row["model"], row["prompt"]) for row in rows) == {
        ("tiny", "close/1"): 2, ("other", "close/1"): 2, ("tiny", "free/1"): 2
    }  # fmt: skip
    assert (counts.rows, counts.asked) == (2, 2)


FAILURES = {
    "truncated": answer("Half a sen", "length"),
    "refused": answer("I cannot help with that.", "content_filter"),
    "several_lines": answer("One sentence.\nAnd a remark."),
    "empty_answer": answer("\n"),
    "rate_limited": error(429, "slow down", Retry_After="0"),
    "server_error": error(500, "oops"),
    "connection": Reply({}, fault="reset"),
    "not_json": Reply("{'single': 'quotes'}"),
    "bad_request": error(400, "too long"),
}


@pytest.mark.parametrize("reason", FAILURES)
def test_a_failed_sentence_is_listed_with_its_reason_and_asked_again_in_the_next_run(tmp_path, reason):
    healed = []

    def respond(text, before):
        return FAILURES[reason] if sentence_of(text) == TEXTS[2] and not healed else answer(reworded(text))

    with ChatServer(respond) as server:
        counts = run(server, tmp_path, sentences())
        assert (counts.done, counts.failed) == (5, {reason: 1})
        (failed,) = read_jsonl(counts.failed_path)
        assert (failed["sentence_id"], failed["reason"], failed["attempt"]) == (text_id(TEXTS[2]), reason, 0)
        assert failed["detail"]
        assert run(server, tmp_path, sentences()).failed == {reason: 1}
        assert read_jsonl(counts.failed_path)[0]["attempt"] == 1
        healed.append(True)
        counts = run(server, tmp_path, sentences())
    assert (counts.done, counts.failed, counts.asked) == (6, {}, 1)
    assert counts.failed_path.read_text() == ""
    others = [times for text, times in server.asked.items() if sentence_of(text) != TEXTS[2]]
    assert others == [1] * 5
    seeds = [body["seed"] for body in server.requests if sentence_of(body["messages"][-1]["content"]) == TEXTS[2]]
    assert len(set(seeds)) >= 3  # each run draws anew


@pytest.mark.parametrize("share", [3, 40])
def test_max_requests_takes_the_same_fair_sample_each_time(tmp_path, share):
    rows = sentences(80)
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        counts = run(server, tmp_path, rows, max_requests=share)
        assert (counts.wanted, counts.asked, len(server.requests)) == (share, share, share)
        assert run(server, tmp_path, rows, max_requests=share).asked == 0
        more = run(server, tmp_path, rows, max_requests=share + 5)
    assert (more.asked, more.done) == (5, share + 5)
    place = {row["id"]: number for number, row in enumerate(rows)}
    places = [place[row["sentence_id"]] for row in read_jsonl(tmp_path / "close-tiny.jsonl")]
    assert len(set(places)) == share + 5
    if share == 40:
        assert 14 <= sum(number < 40 for number in places) <= 31  # neither the first nor the last ones


def test_a_half_written_last_line_is_cut_off_and_asked_for_again(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        path = run(server, tmp_path, sentences(), max_concurrency=1).path
        whole = path.read_bytes()
        path.write_bytes(whole[:-30])
        counts = run(server, tmp_path, sentences())
    assert (counts.asked, counts.done) == (1, 6)
    assert path.read_bytes() == whole


def test_a_broken_line_elsewhere_is_not_passed_over(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        path = run(server, tmp_path, sentences(3)).path
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
        with pytest.raises(UserError, match=r"close-tiny\.jsonl, line 2"):
            run(server, tmp_path, sentences(3))


def test_a_server_that_dies_keeps_what_it_answered_and_the_same_call_goes_on(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:

        def respond(text, before):
            if len(server.requests) > 30:
                server._stopped = True
            return answer(reworded(text))

        server.respond = respond
        with pytest.raises(UserError, match=rf"{STOP_AFTER} requests in a row failed.*same command goes on"):
            run(server, tmp_path, sentences(200), max_concurrency=4, max_retries=0)
        server._stopped = False
    kept = len(read_jsonl(tmp_path / "close-tiny.jsonl"))
    assert 24 <= kept <= 31
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        counts = run(server, tmp_path, sentences(200))
    assert (counts.asked, counts.done, counts.failed) == (200 - kept, 200, {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "close/9"}, "there is no 'close/9'"),
        ({"base_url": "https://models.example.org/v1", "api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"base_url": "localhost:8000"}, "is not an address"),
    ],
)
def test_a_mistake_in_the_last_generator_is_found_before_the_first_is_asked(tmp_path, options, said):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        good = Generator("a", "tiny", base_url=server.base_url)
        bad = Generator(**{"name": "b", "model": "tiny", "base_url": server.base_url} | options)
        with pytest.raises(UserError, match=rf"^merge\.generators, b: .*{said}"):
            run_generators([good, bad], sentences(), folder=tmp_path, seed=42)
    assert server.requests == []


def test_several_generators_write_a_file_each(tmp_path):
    with ChatServer(lambda text, before: answer(reworded(text))) as server:
        both = [Generator(name, "tiny", name, base_url=server.base_url) for name in ("close", "free")]
        counts = run_generators(both, sentences(), folder=tmp_path, seed=42)
    assert [(found.name, found.prompt, found.rows) for found in counts] == [
        ("close", "close/1", 6),
        ("free", "free/1", 6),
    ]
    systems = {body["messages"][0]["content"] for body in server.requests}
    assert len(systems) == 2


KILLED = """
import sys
from pathlib import Path
from cardioembed.paraphrases.generation.run import Generator, run_generators
from cardioembed.records import read_jsonl
base_url, rows, folder = sys.argv[1:]
generator = Generator("close-tiny", "tiny", base_url=base_url, max_concurrency=4)
run_generators([generator], read_jsonl(Path(rows)), folder=Path(folder), seed=42)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_loses_only_what_was_in_flight(tmp_path, root, how):
    rows = sentences(60)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "out" / "close-tiny.jsonl"

    stopped = threading.Event()

    def respond(text, before):
        if (
            len(server.requests) > 20
        ):  # the rest waits, so that however slow the machine is, the stop comes before the end
            stopped.wait(60)
        return answer(reworded(text))

    with ChatServer(respond) as server:
        command = [sys.executable, "-c", KILLED, server.base_url, str(tmp_path / "rows.jsonl"), str(tmp_path / "out")]
        process = subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE
        )
        while len(server.requests) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(how)
        said = process.communicate(timeout=30)[1].decode()
        stopped.set()
        assert process.returncode in (-how, 1, 130)
        assert how == signal.SIGKILL or "KeyboardInterrupt" in said
        assert "never retrieved" not in said
        kept = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        asked_before = len(server.requests)
        assert 0 < asked_before - len(kept) <= 4
        subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True, timeout=60)
    done = [row["sentence_id"] for row in read_jsonl(path)]
    assert sorted(done) == sorted(row["id"] for row in rows)
    kept_texts = {row["original"] for row in kept}
    assert {times for text, times in server.asked.items() if sentence_of(text) in kept_texts} == {1}
    assert len(server.requests) <= 60 + 4


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('"The valve area is small."', "The valve area is small."),
        ("“The valve area is small.”", "The valve area is small."),
        ("**Paraphrased sentence:** The valve area is small.", "The valve area is small."),
        ("Paraphrase: 'The valve area is small.'", "The valve area is small."),
        ("<think>It says\nsmall.</think>\n\nThe valve area is small.", "The valve area is small."),
        ("reasoning without its start</think>The valve area is small.", "The valve area is small."),
        ('"Soft" and "hard" plaques differ.', '"Soft" and "hard" plaques differ.'),
        (
            "'Holiday heart' is atrial fibrillation after alcohol.",
            "'Holiday heart' is atrial fibrillation after alcohol.",
        ),
        ("Sure, here is the paraphrase: The area is small.", "Sure, here is the paraphrase: The area is small."),
        ("Rewritten in 2010, the definition holds.", "Rewritten in 2010, the definition holds."),
        ("Answer: yes.", "Answer: yes."),
    ],
)
def test_only_label_quotes_and_thinking_are_taken_off(said, kept):
    assert tidy(said) == kept


def test_thinking_that_did_not_end_is_no_paraphrase(tmp_path):
    with ChatServer(lambda text, before: answer("<think>The sentence says that the area")) as server:
        assert run(server, tmp_path, sentences(1)).failed == {"truncated": 1}
