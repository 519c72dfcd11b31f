import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
import torch
from tiny_chat import TEMPLATE, save_tiny_chat
from transformers import AutoModelForCausalLM, AutoTokenizer, TemperatureLogitsWarper, TopPLogitsWarper

from cardioembed.completion import Completion, RequestFailed
from cardioembed.errors import UserError
from cardioembed.paraphrases.generation.local import generate
from cardioembed.paraphrases.generation.prompts import find_prompt
from cardioembed.paraphrases.generation.run import Generator, run_generators
from cardioembed.records import read_jsonl, text_id

TEXTS = [
    "Severe aortic stenosis narrows the valve area below 1.0 cm2.",
    "Beta-blockers slow the heart rate and lower the demand for oxygen.",
    "A delta wave shows pre-excitation.",
    "Loop diuretics relieve congestion but do not prolong life, whatever the dose that is given.",
    "The left atrial appendage is the usual place of thrombus in fibrillation.",
    "Tetralogy of Fallot joins four lesions in one heart.",
]
SENTENCES = [{"id": text_id(text), "text": text, "source": "book", "section": "One"} for text in TEXTS]
KEYS = {
    "sentence_id", "original", "paraphrase", "source", "section", "model", "generator", "prompt", "finish_reason",
    "prompt_tokens", "completion_tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_chat(tmp_path_factory.mktemp("tiny-chat"))


def answers(model, chats, **options):
    settings = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 40, "batch_size": 3, "device": "cpu", **options}
    return dict(generate(str(model), chats, **settings))


def chats(count=6):
    return [(n, [{"role": "user", "content": text}], 100 + n) for n, text in enumerate(TEXTS[:count])]


def test_answers_do_not_depend_on_the_batch_and_repeat_with_the_seed(tiny):
    together = answers(tiny, chats(), batch_size=6)
    alone = answers(tiny, chats(), batch_size=1)
    assert together == alone
    assert len({said.text for said in together.values()}) == 6
    other = answers(tiny, [(n, messages, seed + 1000) for n, messages, seed in chats()])
    assert all(other[n] != together[n] for n in range(6))


def test_the_likeliest_answer_is_that_of_a_plain_loop(tiny):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    found = answers(tiny, chats(), temperature=0.0, max_tokens=12)
    for number, messages, _ in chats():
        prompt = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        tokens = list(prompt)
        while len(tokens) < len(prompt) + 12 and tokenizer.eos_token_id not in tokens[len(prompt) :]:
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        said = found[number]
        assert said.text == tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True).strip()
        assert (said.prompt_tokens, said.completion_tokens) == (len(prompt), len(tokens) - len(prompt))
    assert max(said.completion_tokens for said in found.values()) > 3


def test_draws_follow_temperature_and_top_p(tiny):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    messages = chats(1)[0][1]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        scores = model(prompt).logits[:, -1]
    expected = torch.softmax(TopPLogitsWarper(0.8)(None, TemperatureLogitsWarper(1.5)(None, scores)), -1)[0]
    draws = 3000
    many = [(n, messages, n) for n in range(draws)]
    found = answers(tiny, many, temperature=1.5, top_p=0.8, max_tokens=1, batch_size=500)
    drawn = Counter(said.text if isinstance(said, Completion) else "" for said in found.values())
    for token in expected.topk(8).indices.tolist():
        share = expected[token].item()
        text = tokenizer.decode([token], skip_special_tokens=True)
        assert abs(drawn[text] / draws - share) < 5 * (share / draws) ** 0.5 + 1e-9, text
    possible = {tokenizer.decode([token], skip_special_tokens=True) for token in expected.nonzero()[:, 0].tolist()}
    assert set(drawn) <= possible
    assert len(possible) < len(expected)


def test_the_reason_of_the_end_is_told(tiny):
    found = answers(tiny, [(n, chats(1)[0][1], n) for n in range(60)], max_tokens=8, batch_size=30)
    reasons = Counter(said.finish_reason if isinstance(said, Completion) else said.reason for said in found.values())
    assert set(reasons) <= {"stop", "length", "empty_answer"}
    assert reasons["stop"] > 5
    assert reasons["length"] > 5
    assert all(said.completion_tokens == 8 for said in found.values() if getattr(said, "finish_reason", "") == "length")


def test_a_chat_that_does_not_fit_fails_alone(tmp_path):
    model = save_tiny_chat(tmp_path / "short", positions=120)
    long = ("long", [{"role": "user", "content": "too long " * 20}], 1)
    found = answers(model, [long, *chats(1)])
    assert isinstance(found["long"], RequestFailed)
    assert found["long"].reason == "bad_request"
    assert isinstance(found[0], Completion | RequestFailed)
    assert getattr(found[0], "reason", "") != "bad_request"


def test_a_template_that_refuses_system_messages_gets_one_user_message(tmp_path):
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
    )
    strict_model, plain = save_tiny_chat(tmp_path / "strict", template=strict), save_tiny_chat(tmp_path / "plain")
    system, user = find_prompt("close").messages(TEXTS[0])
    joined = [{"role": "user", "content": system["content"] + "\n\n" + user["content"]}]
    assert answers(strict_model, [(0, [system, user], 5)]) == answers(plain, [(0, joined, 5)])


def test_a_base_without_template_or_safetensors_or_at_all_is_refused(tmp_path, tiny):
    bare = save_tiny_chat(tmp_path / "bare", template=None)
    with pytest.raises(UserError, match="has no chat template"):
        answers(bare, chats())
    pickled = shutil.copytree(tiny, tmp_path / "pickled")
    torch.save(AutoModelForCausalLM.from_pretrained(tiny).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be loaded .*Give a folder with safetensors weights"):
        answers(pickled, chats())
    with pytest.raises(UserError, match="cannot be loaded"):
        answers(tmp_path / "nothing", chats())


def local(model, folder, rows, **options):
    generator = Generator("here", str(model), engine="transformers", max_tokens=48, max_concurrency=4, **options)
    return run_generators([generator], rows, folder=folder, seed=42, device="cpu")[0]


def test_the_local_engine_writes_the_same_rows_and_goes_on_where_it_was(tmp_path, tiny):
    rows = [{**row, "id": f"{row['id']}-{n}"} for n in range(4) for row in SENTENCES]
    whole = local(tiny, tmp_path / "whole", rows)
    assert whole.done + sum(whole.failed.values()) == whole.asked == 24
    assert whole.done > 6
    found = read_jsonl(whole.path)
    assert all(set(row) == KEYS for row in found)
    assert {row["finish_reason"] for row in found} == {"stop"}
    assert whole.completion_tokens > whole.done

    half = local(tiny, tmp_path / "half", rows[:12])
    kept = half.path.read_bytes()
    assert half.done > 0
    half = local(tiny, tmp_path / "half", rows)
    assert half.path.read_bytes().startswith(kept)
    first = {row["sentence_id"]: row["paraphrase"] for row in found}
    again = {row["sentence_id"]: row["paraphrase"] for row in read_jsonl(half.path)}
    assert {one: again[one] for one in first} == first


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    """``transformers serve``: an OpenAI-compatible server that is not ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("serve") / "log").open("w+")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tiny)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        if process.poll() is not None:
            log.seek(0)
            pytest.fail(f"transformers serve ended: {log.read()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def test_a_real_server_is_asked_as_the_fault_server_is(tmp_path, tiny, served):
    generator = Generator("served", str(tiny), base_url=served, max_tokens=48, max_concurrency=4, max_retries=1)
    rows = [{**row, "id": f"{row['id']}-{n}"} for n in range(3) for row in SENTENCES]
    (counts,) = run_generators([generator], rows, folder=tmp_path, seed=42)
    assert counts.asked == counts.done + sum(counts.failed.values()) == 18
    assert set(counts.failed) <= {"truncated", "empty_answer", "several_lines"}
    assert counts.done > 4
    found = read_jsonl(counts.path)
    assert all(set(row) == KEYS for row in found)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    messages = find_prompt("close").messages(found[0]["original"])
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert found[0]["prompt_tokens"] == len(prompt)
    before = {row["sentence_id"] for row in found}
    (again,) = run_generators([generator], rows, folder=tmp_path, seed=42)
    assert again.asked == 18 - counts.done
    assert before <= {row["sentence_id"] for row in read_jsonl(counts.path)}
