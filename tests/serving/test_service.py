"""The service on a real socket: the openai client alone and in a crowd, bad input, keys, limits, search, shutdown."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import numpy as np
import openai
import pytest
import uvicorn
from texts import ROOT, SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.search.building import build_index
from cardioembed.serving.__main__ import bind, main, own_names
from cardioembed.serving.app import create_app
from cardioembed.serving.indexes import open_index
from cardioembed.serving.limits import Limits

NAME = "tiny"
LIMITS = Limits(max_body_bytes=20_000, max_inputs=40, max_text_chars=1000)
KEY = "correct-horse"


@pytest.fixture(scope="module")
def embedder(tiny_qwen3):
    """It has prompts, and a prompt of its queries."""
    return load_embedder(str(tiny_qwen3), max_length=64, device="cpu")


@contextmanager
def serving(embedder, **options):
    """The address of a service that runs in a thread of this process."""
    app = create_app(embedder, NAME, **{"limits": LIMITS, **options})
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=30))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield address
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(embedder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "books"
    rows = [{"id": f"s{i}", "text": text, "book": "odd" if i % 2 else "even"} for i, text in enumerate(SENTENCES)]
    build_index(embedder, rows, folder)
    with serving(embedder, search=open_index(folder, embedder)) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with client_of(address) as made:
        yield made


def client_of(address, key="none", **options):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, **options)


def post(address, body, path="/v1/embeddings", **headers):
    """Status and parsed answer; ``body`` goes out as it is if it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = httpx2.post(address + path, content=content, headers=headers, timeout=60)
    return reply.status_code, reply.json()


# --- The openai client ----------------------------------------


@pytest.mark.parametrize("encoding_format", ["float", "base64", None])
def test_openai_client_gets_the_embedders_vectors(client, embedder, encoding_format):
    chosen = {"encoding_format": encoding_format} if encoding_format else {}
    found = client.embeddings.create(model=NAME, input=SENTENCES, **chosen)
    assert [item.index for item in found.data] == list(range(len(SENTENCES)))
    vectors = [item.embedding for item in found.data]
    if encoding_format == "base64":
        vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in vectors]
    np.testing.assert_allclose(np.array(vectors), embedder.encode(SENTENCES), atol=1e-6)
    assert found.model == NAME
    tokens = sum(len(embedder.tokenize([text])[0][0]) for text in SENTENCES)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (tokens, tokens)


def test_a_single_text_and_a_prompt(client, embedder):
    found = client.embeddings.create(model=NAME, input="valve", user="me", extra_body={"prompt_name": "query"})
    expected = embedder.encode("valve", prompt_name="query")
    np.testing.assert_allclose(found.data[0].embedding, expected, atol=1e-6)
    assert found.usage.prompt_tokens == len(embedder.tokenize(["valve"], "query")[0][0])


def test_dimensions_truncate_and_renormalise(client, embedder):
    found = client.embeddings.create(model=NAME, input=SENTENCES, dimensions=16)
    short = embedder.encode(SENTENCES)[:, :16]
    expected = short / np.linalg.norm(short, axis=1, keepdims=True)
    np.testing.assert_allclose([item.embedding for item in found.data], expected, atol=1e-6)


def test_cut_texts_are_told(client):
    found = client.embeddings.create(model=NAME, input=["valve " * 100, "valve"])
    assert found.usage.model_extra == {"truncated_inputs": 1}


def test_an_answer_of_many_texts_is_whole(embedder):
    texts = [f"{text} {i}" for i in range(12) for text in SENTENCES]
    with serving(embedder, limits=Limits()) as own, client_of(own) as large:
        found = large.embeddings.create(model=NAME, input=texts, encoding_format="float")
    np.testing.assert_allclose([item.embedding for item in found.data], embedder.encode(texts), atol=1e-6)


def test_models_are_listed_and_retrieved(client, embedder):
    [model] = client.models.list().data
    assert (model.id, model.object) == (NAME, "model")
    assert model.model_extra["dimension"] == embedder.dimension
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match="this service has 'tiny'"):
        client.models.retrieve("other")


def test_the_openai_client_under_load(client, embedder, address):
    """32 threads at once: everyone gets the vectors of its own texts, batches are shared, nobody fails."""
    before = batches(address)
    texts = [f"{SENTENCES[i % len(SENTENCES)]} {i}" for i in range(320)]
    expected = embedder.encode(texts)
    start = threading.Barrier(32)

    def many(first):
        start.wait()
        return [client.embeddings.create(model=NAME, input=text).data[0].embedding for text in texts[first::32]]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(many, range(32)))
    for first, answer in enumerate(answers):
        np.testing.assert_allclose(answer, expected[first::32], atol=1e-6)
    after = batches(address)
    assert after[1] - before[1] == 320
    assert after[0] - before[0] < 320


def batches(address):
    """Batches, and texts in them, so far."""
    text = httpx2.get(f"{address}/metrics").text
    return tuple(value_of(text, f"cardioembed_batch_texts_{name}") for name in ("count", "sum"))


def value_of(text, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


# --- Bad input ----------------------------------------

GOOD = {"model": NAME, "input": "valve"}
BAD = {
    "invalid JSON": (b'{"input": ', 400, "invalid_json", "not valid JSON"),
    "not UTF-8": (b'{"model": "tiny", "input": "\xff"}', 400, "invalid_json", "not valid JSON"),
    "deep JSON": (b"[" * 19_000, 400, "invalid_json", "not valid JSON"),
    "a huge number": (b'{"dimensions": ' + b"9" * 5000 + b"}", 400, "invalid_json", "not valid JSON"),
    "empty body": (b"", 400, "invalid_json", "not valid JSON"),
    "a list": ([GOOD], 400, "wrong_type", "is a list; give an object"),
    "no input": ({"model": NAME}, 400, "missing_field", "input is missing"),
    "null": (GOOD | {"input": None}, 400, "missing_field", "input is missing or null"),
    "empty text": (GOOD | {"input": ""}, 400, "empty_text", "input is an empty text"),
    "blank text": (GOOD | {"input": ["a", " \n"]}, 400, "empty_text", r"input\[1\] is an empty text"),
    "empty list": (GOOD | {"input": []}, 400, "empty_input", "empty list"),
    "null in a list": (GOOD | {"input": ["a", None]}, 400, "missing_field", r"input\[1\] is missing or null"),
    "wrong type": (GOOD | {"input": {"text": "a"}}, 400, "wrong_value", "input is an object; give a text or a list"),
    "a number": (GOOD | {"input": 3}, 400, "wrong_value", "input is 3; give a text"),
    "true in a list": (GOOD | {"input": [True]}, 400, "wrong_value", r"input\[0\] is true"),
    "token ids": (GOOD | {"input": [1, 2]}, 400, "wrong_type", "token ids are not accepted"),
    "lists of token ids": (GOOD | {"input": [[1], [2]]}, 400, "wrong_type", "token ids are not accepted"),
    "too many": (GOOD | {"input": ["a"] * 41}, 400, "too_many_inputs", "41 texts; at most 40"),
    "too long": (GOOD | {"input": "a" * 1001}, 400, "text_too_long", "1,001 characters; at most 1,000"),
    "half a surrogate": (GOOD | {"input": "a\ud800"}, 400, "broken_unicode", "surrogate"),
    "no model": ({"input": "a"}, 400, "missing_field", "model is missing or null; give the model's name, 'tiny'"),
    "other model": (GOOD | {"model": "ada"}, 404, "model_not_found", '"ada" is not served here'),
    "long model": (GOOD | {"model": "a" * 5000}, 404, "model_not_found", r"a\.\.\. is not served"),
    "model of a wrong type": (GOOD | {"model": 3}, 400, "wrong_value", "model is 3"),
    "unknown prompt": (GOOD | {"prompt_name": "x"}, 400, "wrong_value", '"x"; this model\'s prompts: query, document'),
    "prompt of a wrong type": (GOOD | {"prompt_name": ["x"]}, 400, "wrong_value", "prompt_name is a list"),
    "format": (GOOD | {"encoding_format": "hex"}, 400, "wrong_value", 'allowed are "float" and "base64"'),
    "dimensions 0": (GOOD | {"dimensions": 0}, 400, "wrong_value", "whole number from 1 to 64"),
    "dimensions 65": (GOOD | {"dimensions": 65}, 400, "wrong_value", "whole number from 1 to 64"),
    "dimensions true": (GOOD | {"dimensions": True}, 400, "wrong_value", "whole number from 1 to 64"),
    "dimensions infinite": (b'{"model":"tiny","input":"a","dimensions":1e999}', 400, "wrong_value", "whole number"),
    "misspelt field": (GOOD | {"promt_name": "query"}, 400, "unknown_field", "did you mean prompt_name"),
    "field with half a surrogate": (GOOD | {"\ud800": 1}, 400, "unknown_field", "allowed are input"),
    "long body": (GOOD | {"input": "a" * 30_000}, 413, "body_too_long", "longer than 20,000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_openais_shape_and_the_service_stays_up(address, name):
    body, status, code, message = BAD[name]
    found, answer = post(address, body)
    assert found == status
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert re.search(message, error["message"]), error["message"]
    assert len(error["message"]) < 400
    assert post(address, GOOD)[0] == 200


def test_ten_thousand_inputs_and_a_megabyte_are_refused_by_default(embedder):
    with serving(embedder, limits=Limits()) as own:
        status, answer = post(own, GOOD | {"input": ["a"] * 10_000})
        assert (status, answer["error"]["code"]) == (400, "too_many_inputs")
        status, answer = post(own, GOOD | {"input": "a " * 500_000})
        assert (status, answer["error"]["code"]) == (400, "text_too_long")


def test_the_openai_client_reads_the_errors(client):
    with pytest.raises(openai.BadRequestError, match="empty text") as caught:
        client.embeddings.create(model=NAME, input=["a", ""])
    assert (caught.value.code, caught.value.param) == ("empty_text", "input[1]")
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.embeddings.create(model="text-embedding-3-small", input="a")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/embeddings", 405), ("POST", "/v2", 404)])
def test_wrong_paths_and_methods_have_the_same_shape(address, method, path, status):
    reply = httpx2.request(method, address + path)
    assert reply.status_code == status
    assert "/v1/embeddings" in reply.json()["error"]["message"]


def connection_of(address):
    return http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)


def test_a_long_body_without_content_length_is_refused_while_it_comes(address):
    connection = connection_of(address)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for _ in range(30):  # more than the limit, and never the end
        connection.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "body_too_long"
    connection.close()


def test_an_announced_long_body_is_refused_before_it_comes(address):
    connection = connection_of(address)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", "20001")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_bodies_in_work_are_bounded_together_and_slow_ones_end(embedder):
    limits = Limits(max_body_bytes=600, max_bodies_bytes=1000, body_seconds=2)
    with serving(embedder, limits=limits) as own:
        slow = connection_of(own)
        slow.putrequest("POST", "/v1/embeddings")
        slow.putheader("Content-Length", "600")
        slow.endheaders()
        slow.send(b" " * 599)
        wait_until(lambda: post(own, GOOD | {"input": "a" * 500})[0] == 429)
        reply = httpx2.post(f"{own}/v1/embeddings", content=json.dumps(GOOD | {"input": "a" * 500}).encode())
        if reply.status_code == 429:  # the slow one may have timed out meanwhile
            assert reply.headers["Retry-After"] == "1"
        response = slow.getresponse()
        assert response.status == 408
        assert json.loads(response.read())["error"]["code"] == "body_timeout"
        assert post(own, GOOD | {"input": "a" * 500})[0] == 200


def wait_until(condition):
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "did not come about within 30 s"
        time.sleep(0.005)


# --- A full queue, a failing model, a client that leaves ----------------------------------------


@pytest.fixture
def held_model(tiny_bert, monkeypatch):
    """An embedder whose model waits for ``gate``."""
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    embedder.gate = threading.Semaphore(0)
    embedder.entered = threading.Semaphore(0)
    embed = embedder.embed_tokens

    def held(sequences):
        embedder.entered.release()
        assert embedder.gate.acquire(timeout=60)
        return embed(sequences)

    monkeypatch.setattr(embedder, "embed_tokens", held)
    yield embedder
    embedder.gate.release(10_000)


def queued(address):
    return value_of(httpx2.get(f"{address}/metrics").text, "cardioembed_queue_texts")


def test_a_full_queue_says_when_to_come_back(held_model):
    limits = Limits(max_inputs=4, max_queue=4)
    with serving(held_model, limits=limits) as own, ThreadPoolExecutor(1) as pool, client_of(own) as client:
        first = pool.submit(post, own, GOOD | {"input": ["a"] * 4})
        assert held_model.entered.acquire(timeout=60)
        with pytest.raises(openai.RateLimitError, match="4 texts wait already") as caught:
            client.embeddings.create(model=NAME, input="b")
        assert caught.value.response.headers["Retry-After"] == "1"
        held_model.gate.release(10_000)
        assert first.result()[0] == 200
        assert client.embeddings.create(model=NAME, input="b").data


def test_a_client_that_leaves_takes_its_texts_out_of_the_queue(held_model):
    with serving(held_model, limits=Limits(max_batch_tokens=1, max_concurrent_batches=1)) as own:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, own, GOOD)
            assert held_model.entered.acquire(timeout=60)
            leaving = connection_of(own)
            leaving.request("POST", "/v1/embeddings", json.dumps(GOOD | {"input": ["a"] * 30}))
            wait_until(lambda: queued(own) == 31)
            leaving.close()
            wait_until(lambda: queued(own) == 1)
            held_model.gate.release(10_000)
            assert first.result()[0] == 200
        text = httpx2.get(f"{own}/metrics").text
        assert value_of(text, "cardioembed_batch_texts_sum") == 1
        assert value_of(text, "cardioembed_abandoned_total") == 1


def test_a_failing_model_is_a_500_and_the_next_request_works(held_model, monkeypatch):
    embed, failures = held_model.embed_tokens, [RuntimeError("secret text")]
    held_model.gate.release(10_000)
    monkeypatch.setattr(held_model, "embed_tokens", lambda rows: embed(rows) if not failures else raise_(failures))
    with serving(held_model) as own:
        status, answer = post(own, GOOD)
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (500, "server_error", "model_failed")
        assert "secret" not in answer["error"]["message"]
        assert post(own, GOOD)[0] == 200


def raise_(failures):
    raise failures.pop()


def test_vectors_that_are_not_finite_are_no_answer(held_model, monkeypatch, tmp_path):
    held_model.gate.release(10_000)
    build_index(held_model, SENTENCES, tmp_path / "index")
    embed, search = held_model.embed_tokens, open_index(tmp_path / "index", held_model)
    monkeypatch.setattr(held_model, "embed_tokens", lambda rows: embed(rows) * float("nan"))
    with serving(held_model, search=search) as own:
        for content, path in ((GOOD, "/v1/embeddings"), ({"query": "valve"}, "/search")):
            status, answer = post(own, content, path)
            assert (status, answer["error"]["type"]) == (500, "server_error")


def test_shutdown_answers_what_is_in_flight(held_model):
    with ThreadPoolExecutor(4) as pool:
        with serving(held_model, limits=Limits(max_batch_tokens=1, max_concurrent_batches=1)) as own:
            futures = [pool.submit(post, own, GOOD | {"input": ["a", "b"]}) for _ in range(4)]
            wait_until(lambda: queued(own) == 8)
            # The block ends with the request to stop, while nothing is answered yet.
            threading.Timer(0.5, held_model.gate.release, [10_000]).start()
        for future in futures:
            status, answer = future.result()
            assert (status, len(answer["data"])) == (200, 2)


# --- Keys and hosts ----------------------------------------


def test_a_key_guards_everything_but_health(embedder):
    with serving(embedder, api_key=KEY) as own:
        assert httpx2.get(f"{own}/health").json() == {"status": "ok"}
        for path in ("/v1/models", "/metrics", "/search", "/nothing"):
            reply = httpx2.get(own + path)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            assert reply.json()["error"]["type"] == "authentication_error"
        for wrong in (f"{KEY}x", KEY[:-1], KEY.upper(), "clé"):
            headers = {"Authorization": f"Bearer {wrong}".encode()}
            reply = httpx2.post(f"{own}/v1/embeddings", content=json.dumps(GOOD).encode(), headers=headers)
            assert reply.status_code == 401
            assert KEY not in reply.text
        with client_of(own, "wrong") as client, pytest.raises(openai.AuthenticationError, match="missing API key"):
            client.embeddings.create(model=NAME, input="a")
        with client_of(own, KEY) as client:
            assert client.embeddings.create(model=NAME, input="a").data


def test_a_page_under_another_name_is_turned_away(embedder):
    hosts = ("127.0.0.1", "localhost", "[::1]")
    with serving(embedder, hosts=hosts) as own:
        for host, status in (
            ("evil.example", 421),
            ("evil.example:8000", 421),
            ("LOCALHOST:8000", 200),
            ("[::1]", 200),
        ):
            assert httpx2.get(f"{own}/v1/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", {"127.0.0.1", "localhost", "[::1]"}),
        ("127.0.0.2", {"127.0.0.2", "127.0.0.1", "localhost", "[::1]"}),
        ("LocalHost", {"127.0.0.1", "localhost", "[::1]"}),
        ("::1", {"127.0.0.1", "localhost", "[::1]"}),
    ],
)
def test_a_service_on_loopback_answers_to_its_own_names(host, names):
    assert set(own_names(host)) == names
    assert own_names("0.0.0.0") is None


# --- Search, health, metrics ----------------------------------------


def test_search_finds_what_the_index_finds(address, embedder):
    status, answer = post(address, {"query": SENTENCES[3], "top_k": 3}, "/search")
    assert status == 200
    vectors = (
        embedder.encode([SENTENCES[3]], prompt_name="query")
        @ embedder.encode(SENTENCES, prompt_name=embedder.recipe.positive_prompt).T
    )
    best = np.argsort(-vectors[0])[:3]
    assert [hit["id"] for hit in answer["data"]] == [f"s{i}" for i in best]
    np.testing.assert_allclose([hit["score"] for hit in answer["data"]], vectors[0][best], atol=1e-5)
    assert answer["data"][0]["text"] == SENTENCES[best[0]]
    assert set(answer["data"][0]) == {"id", "text", "score", "metadata"}
    assert answer["usage"]["prompt_tokens"] == len(embedder.tokenize([SENTENCES[3]], "query")[0][0])


def test_search_with_a_filter_and_default_top_k(address):
    _, answer = post(address, {"query": "valve", "filter": {"book": "odd"}}, "/search")
    assert {hit["id"] for hit in answer["data"]} == {"s1", "s3", "s5"}
    assert all(hit["metadata"]["book"] == "odd" for hit in answer["data"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": None}, "query is missing or null; give the text"),
        ({"query": ["a"]}, "query is a list; give the text"),
        ({"query": " "}, "query is an empty text"),
        ({"query": "a" * 1001}, "at most 1,000"),
        ({"top_k": 0}, "whole number from 1 to 1000"),
        ({"top_k": "3"}, 'top_k is "3"'),
        ({"filter": "odd"}, 'filter is "odd"; give an object'),
        ({"filter": {"bok": "odd"}}, "book"),
        ({"topk": 3}, "did you mean top_k"),
    ],
)
def test_bad_searches_are_told(address, change, message):
    status, answer = post(address, {"query": "valve"} | change, "/search")
    assert status == 400
    assert re.search(message, answer["error"]["message"]), answer
    assert post(address, {"query": "valve"}, "/search")[0] == 200


def test_without_an_index_search_says_how_to_get_one(embedder):
    with serving(embedder) as own:
        status, answer = post(own, {"query": "a"}, "/search")
    assert (status, answer["error"]["code"]) == (404, "no_index")
    assert "--index" in answer["error"]["message"]


def test_an_index_of_another_model_is_refused(embedder, tiny_bert, tmp_path):
    other = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    build_index(other, SENTENCES, tmp_path / "index")
    with pytest.raises(UserError, match="built with another model"):
        open_index(tmp_path / "index", embedder)


def test_metrics_count_and_tell_no_text(embedder):
    with serving(embedder) as own:
        tokens = post(own, GOOD | {"input": ["valve", "sinus rhythm"]})[1]["usage"]["total_tokens"]
        post(own, GOOD | {"input": ""})
        httpx2.get(f"{own}/health?q=sinus")
        httpx2.get(f"{own}/secret-path")
        text = httpx2.get(f"{own}/metrics").text
    for name, value in {
        'cardioembed_requests_total{path="/v1/embeddings",status="200"}': 1,
        'cardioembed_requests_total{path="/v1/embeddings",status="400"}': 1,
        'cardioembed_requests_total{path="other",status="404"}': 1,
        'cardioembed_errors_total{code="empty_text"}': 1,
        'cardioembed_request_seconds_count{path="/v1/embeddings"}': 2,
        "cardioembed_batch_texts_sum": 2,
        "cardioembed_batch_tokens_sum": tokens,
        "cardioembed_tokens_total": tokens,
        "cardioembed_queue_texts": 0,
    }.items():
        assert value_of(text, name) == value, name
    assert "sinus" not in text
    assert "secret" not in text


# --- The command line ----------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--api-key-env NAME, or say --allow-no-key"),
        (["--host", "::"], "opens the service to other machines"),
        (["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["--max-inputs", "9000"], "max_inputs 9000 is more than max_queue 8192"),
        (["--max-batch-tokens", "0"], "max_batch_tokens 0 is less than 1"),
        (["--max-concurrent-batches", "0"], "max_concurrent_batches 0 is less than 1"),
        (["--max-wait-ms", "-1"], "max_wait_ms -1.0 is not from 0 to 60,000"),
        (["--max-wait-ms", "nan"], "max_wait_ms nan is not from 0 to 60,000"),
        (["--max-wait-ms", "inf"], "max_wait_ms inf is not from 0 to 60,000"),
        (["--port", "70000"], "--port 70000 is not a port"),
        (["--host", "http://127.0.0.1"], "--host 'http://127.0.0.1' is not an address"),
        (["--host", "203.0.113.7", "--allow-no-key"], "cannot be used"),
    ],
)
def test_command_line_mistakes_end_before_a_model_loads(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert main(["--model", "no/such/model", "--port", "0", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_and_a_missing_model_are_told(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--model", "x", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another port" in capsys.readouterr().err
    assert main(["--model", str(tmp_path / "03_model"), "--port", "0"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_key_that_no_header_can_hold_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("BROKEN_KEY", "clé")
    assert main(["--model", "x", "--api-key-env", "BROKEN_KEY"]) == 2
    shown = capsys.readouterr().err
    assert "characters that no HTTP header has" in shown
    assert "clé" not in shown


def test_a_bound_port_is_taken_from_all_others():
    with bind("127.0.0.1", 0) as listener, pytest.raises(UserError, match="choose another port"):
        bind("127.0.0.1", listener.getsockname()[1])


def test_the_command_serves_until_terminated(tiny_qwen3):
    command = [sys.executable, "-m", "cardioembed.serving", "--model", str(tiny_qwen3), "--model-name", NAME]
    command += ["--port", "0", "--device", "cpu", "--api-key-env", "SERVICE_KEY"]
    environment = os.environ | {"SERVICE_KEY": KEY}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    try:
        said = process.stdout.readline()
        told = re.fullmatch(r"tiny: 64 dimensions, cpu, at (http://127\.0\.0\.1:\d+)/v1\n", said)
        assert told, said or process.stderr.read()
        with client_of(told[1], KEY) as client:
            assert len(client.embeddings.create(model=NAME, input="a private sentence").data[0].embedding) == 64
    finally:
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "private" not in said + rest + errors
    assert KEY not in said + rest + errors
