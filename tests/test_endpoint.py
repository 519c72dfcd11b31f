import asyncio
import threading
from email.utils import formatdate

import pytest
from chat_server import ChatServer, Reply, answer, error

from cardioembed.client import STOP_AFTER, Client, _answers, complete_many
from cardioembed.completion import Completion, RequestFailed
from cardioembed.endpoint import Endpoint
from cardioembed.errors import UserError

SECRET = "sk-very-secret-0123456789"


class Clock:
    """Time that passes only in ``sleep``, which it also records."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def __call__(self):
        return self.now


def endpoint(server, **options):
    return Endpoint(**{"base_url": server.base_url, "model": "tiny", "max_retries": 2, "timeout": 5.0, **options})


def ask(where, text="Say it.", clock=None, **options):
    """One chat, with a clock that does not wait."""
    clock = clock or Clock()

    async def main():
        async with Client(where, sleep=clock.sleep, clock=clock) as client:
            return await client.complete([{"role": "user", "content": text}], **options)

    return asyncio.run(main())


def chat(item):
    return {"messages": [{"role": "user", "content": str(item)}]}


def failure(where, **options):
    with pytest.raises(RequestFailed) as caught:
        ask(where, **options)
    return caught.value


def test_an_answer_comes_with_its_reason_and_tokens():
    with ChatServer(lambda text, before: answer(" Said. ")) as server:
        assert ask(endpoint(server)) == Completion("Said.", "stop", 11, 7, 0)


def test_the_request_holds_what_was_asked_for_and_nothing_unset():
    picture = [
        {"type": "text", "text": "Read."},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]
    with ChatServer(lambda text, before: answer("Said.")) as server:
        ask(endpoint(server), picture, temperature=0.5, top_p=0.9, max_tokens=32, seed=3, extra_body={"min_p": 0.1})
        ask(endpoint(server), extra_body={"max_completion_tokens": 9}, max_tokens=32)
    full, bare = server.requests
    assert full == {
        "model": "tiny", "messages": [{"role": "user", "content": picture}], "temperature": 0.5, "top_p": 0.9,
        "max_tokens": 32, "seed": 3, "min_p": 0.1,
    }  # fmt: skip
    assert set(bare) == {"model", "messages", "max_completion_tokens"}


FAULTS = {
    "rate_limited": error(429, "slow down"),
    "server_error": error(503, "overloaded"),
    "timeout": error(408, "took too long"),
    "connection": Reply({}, fault="reset"),
    "not_json": Reply("<html>Bad gateway</html>"),
    "bad_answer": Reply({"error": {"message": "said with status 200"}}),
    "empty_answer": answer(None),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_passing_fault_is_asked_again_and_counted(reason):
    with ChatServer(lambda text, before: FAULTS[reason] if before < 2 else answer("Said.")) as server:
        clock = Clock()
        assert ask(endpoint(server), clock=clock).retries == 2
    assert server.asked["Say it."] == 3
    assert 0.25 <= clock.slept[0] <= 0.5 <= clock.slept[1] <= 1.0


@pytest.mark.parametrize("reason", FAULTS)
def test_a_lasting_fault_fails_this_request_with_its_reason(reason):
    with ChatServer(lambda text, before: FAULTS[reason]) as server:
        found = failure(endpoint(server))
    assert (found.reason, found.retries, server.asked["Say it."]) == (reason, 2, 3)


def test_a_body_that_breaks_off_is_asked_again():
    with ChatServer(lambda text, before: Reply("x" * 500, fault="" if before else "truncate")) as server:
        assert failure(endpoint(server, max_retries=0)).reason == "connection"
        assert failure(endpoint(server, max_retries=0)).reason == "not_json"


def test_a_server_that_hangs_is_left_after_the_timeout():
    with ChatServer(lambda text, before: answer("Said.") if before else Reply({}, fault="hang")) as server:
        assert ask(endpoint(server, timeout=0.3)).retries == 1
    with ChatServer(lambda text, before: Reply({}, fault="hang")) as server:
        assert failure(endpoint(server, timeout=0.2, max_retries=0)).reason == "timeout"


def test_a_bad_request_is_not_repeated():
    with ChatServer(lambda text, before: error(400, "context is 4096 tokens")) as server:
        found = failure(endpoint(server))
    assert (found.reason, server.asked["Say it."]) == ("bad_request", 1)
    assert "context is 4096 tokens" in found.detail


@pytest.mark.parametrize("header", [{"Retry_After": "7"}, {"Retry_After_Ms": "7000"}])
def test_retry_after_is_honoured(header):
    with ChatServer(lambda text, before: answer("Said.") if before else error(429, "slow down", **header)) as server:
        clock = Clock()
        ask(endpoint(server), clock=clock)
    assert clock.slept == [7.0]


def test_retry_after_may_be_a_date():
    def respond(text, before):
        return answer("Said.") if before else error(429, "later", Retry_After=formatdate(2**33, usegmt=True))

    with ChatServer(respond) as server, pytest.raises(UserError, match=r"asks to wait .* the same command goes on"):
        ask(endpoint(server))


def test_a_pause_the_server_asks_for_holds_all_requests():
    clock = Clock()
    times = {}

    def respond(text, before):
        times.setdefault(text, []).append(clock.now)
        return error(429, "slow down", Retry_After="60") if text == "0" and not before else answer("Said.")

    async def main(where):
        async with Client(where, sleep=clock.sleep, clock=clock) as client:
            await client.complete([{"role": "user", "content": "-"}])
            jobs = [client.complete([{"role": "user", "content": str(number)}]) for number in range(4)]
            await asyncio.gather(*jobs)

    with ChatServer(respond) as server:
        asyncio.run(main(endpoint(server, max_concurrency=1)))
    assert times == {"-": [0.0], "0": [0.0, 60.0], "1": [60.0], "2": [60.0], "3": [60.0]}


def test_requests_keep_to_the_rate():
    clock = Clock()
    times = []

    def respond(text, before):
        times.append(clock.now)
        return answer("Said.")

    async def main(where):
        async with Client(where, sleep=clock.sleep, clock=clock) as client:
            await asyncio.gather(*(client.complete([{"role": "user", "content": "x"}]) for _ in range(7)))

    with ChatServer(respond) as server:
        asyncio.run(main(endpoint(server, requests_per_minute=20, max_concurrency=1)))
    assert times == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0]


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_in_flight_than_allowed_and_items_are_taken_as_needed(bound):
    meeting = threading.Barrier(bound)
    taken = []

    def respond(text, before):
        meeting.wait(10)  # Passes only when so many are in flight.
        return answer(f"Said {text}.")

    def items():
        for number in range(4 * bound):
            taken.append(number)
            yield number

    with ChatServer(respond) as server:
        found = {}
        where = endpoint(server, max_concurrency=bound)
        for item, said in complete_many(where, items(), chat):
            found[item] = said.text
            assert len(taken) <= len(found) + bound
    assert found == {number: f"Said {number}." for number in range(4 * bound)}
    assert server.most_at_once == bound


def test_a_failed_item_comes_back_with_its_reason_beside_the_others():
    with ChatServer(lambda text, before: error(400, "bad") if text == "2" else answer("Said.")) as server:
        found = dict(complete_many(endpoint(server), range(5), chat))
    assert found.pop(2).reason == "bad_request"
    assert [said.text for said in found.values()] == ["Said."] * 4


def test_a_caller_that_stops_early_leaves_nothing_running():
    with ChatServer(lambda text, before: answer("Said.")) as server:
        answers = complete_many(endpoint(server, max_concurrency=2), range(100), chat)
        next(answers)
        answers.close()
        assert len(server.requests) <= 4


def test_requests_in_flight_are_dropped_when_the_caller_stops():
    with ChatServer(lambda text, before: answer("Said.") if text == "0" else Reply({}, fault="hang")) as server:
        answers = complete_many(endpoint(server, max_concurrency=2, timeout=0.5), range(2), chat)
        assert next(answers)[0] == 0
        answers.close()
        assert server.asked["1"] <= 1


def test_what_arrived_together_with_an_end_is_yielded_before_it():
    class Together:
        endpoint = Endpoint("http://127.0.0.1:1/v1", "tiny", max_concurrency=20)

        async def complete(self, messages):
            if messages[0]["content"] == "3":
                raise UserError("the end")
            return Completion("Said.", "stop", 1, 1, 0)

    found = []

    async def main():
        async for item, _ in _answers(Together(), iter(range(20)), chat):
            found.append(item)

    with pytest.raises(UserError, match="the end"):
        asyncio.run(main())
    assert sorted(found) == [0, 1, 2, *range(4, 20)]


def test_refusals_and_cut_answers_are_told_by_their_reason():
    replies = {"cut": answer("Half a sent", "length"), "none": answer("", "length")}
    replies |= {"filter": answer("", "content_filter"), "refusal": answer(None, refusal="I cannot.")}
    with ChatServer(lambda text, before: replies[text]) as server:
        found = {text: ask(endpoint(server), text) for text in replies}
    assert {text: said.finish_reason for text, said in found.items()} == {
        "cut": "length", "none": "length", "filter": "content_filter", "refusal": "content_filter"
    }  # fmt: skip
    assert len(server.requests) == 4


def test_an_empty_answer_is_drawn_again_with_another_seed():
    with ChatServer(lambda text, before: answer("Said." if before else "")) as server:
        ask(endpoint(server), seed=5)
    assert [body["seed"] for body in server.requests] == [5, 6]


def test_a_server_that_refuses_seeds_is_asked_without():
    def respond(text, before):
        return error(422, "extra_forbidden: body.seed") if "seed" in server.requests[-1] else answer("Said.")

    with ChatServer(respond) as server:
        assert ask(endpoint(server), seed=5).text == "Said."


def test_no_server_is_said_at_once_without_retries():
    with ChatServer(lambda text, before: answer("Said.")) as server:
        where = endpoint(server)
    clock = Clock()
    with pytest.raises(UserError, match=r"no server answers there .*Start it"):
        ask(where, clock=clock)
    assert clock.slept == []


def test_a_wrong_model_names_the_servers_models():
    with (
        ChatServer(lambda text, before: answer("Said."), models=("glm", "ministral")) as server,
        pytest.raises(UserError, match="no model 'tiny'; set model to one of: glm, ministral"),
    ):
        ask(endpoint(server))


def test_a_wrong_path_says_how_addresses_end():
    with ChatServer(lambda text, before: answer("Said.")) as server:
        where = endpoint(server, base_url=server.base_url + "/oops")
        with pytest.raises(UserError, match="ends in /v1"):
            ask(where)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_once_and_never_shown(monkeypatch, status):
    monkeypatch.setenv("TINY_KEY", SECRET)
    with (
        ChatServer(lambda text, before: error(status, f"Incorrect API key provided: {SECRET}")) as server,
        pytest.raises(UserError, match=f"key in TINY_KEY was refused .HTTP {status}") as caught,
    ):
        ask(endpoint(server, api_key_env="TINY_KEY"))
    assert SECRET not in str(caught.value)
    assert len(server.requests) == 1
    assert server.keys == {f"Bearer {SECRET}"}


def test_a_key_that_a_server_repeats_stands_in_no_failure(monkeypatch):
    monkeypatch.setenv("TINY_KEY", SECRET)
    with ChatServer(lambda text, before: error(400, f"bad header Bearer {SECRET}")) as server:
        found = failure(endpoint(server, api_key_env="TINY_KEY"))
        server.respond = lambda text, before: Reply(f"<p>{'x' * 40} {SECRET}</p>")
        page = failure(endpoint(server, api_key_env="TINY_KEY"))
    assert "bad header Bearer ***" in found.detail
    assert "***" in page.detail
    assert "sk-very" not in str(page)
    assert SECRET not in repr(found) + str(found)


def test_a_server_elsewhere_needs_its_key_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("ELSEWHERE_KEY", raising=False)
    where = Endpoint("https://models.example.org/v1", "tiny", api_key_env="ELSEWHERE_KEY")
    with pytest.raises(UserError, match=r"ELSEWHERE_KEY is not set, and models\.example\.org is not this machine"):
        ask(where)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:99999/v1"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="is not an address"):
        ask(Endpoint(address, "tiny"))


def test_the_servers_proxy_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ChatServer(lambda text, before: answer("Said.")) as server:
        assert ask(endpoint(server)).text == "Said."


def test_no_credit_ends_the_run():
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    with (
        ChatServer(lambda text, before: Reply(body, 429)) as server,
        pytest.raises(UserError, match=r"no credit left .*the same command goes on"),
    ):
        ask(endpoint(server))


def test_a_server_that_dies_ends_the_run_and_what_arrived_is_yielded():
    with ChatServer(lambda text, before: answer("Said.")) as server:
        answers = complete_many(endpoint(server, max_concurrency=4, max_retries=1), range(1000), chat)
        found = [next(answers) for _ in range(10)]
        server.stop()
        with pytest.raises(UserError, match=rf"{STOP_AFTER} requests in a row failed.*the same command goes on"):
            found.extend(answers)
    failed = [said.reason for _, said in found if isinstance(said, RequestFailed)]
    assert set(failed) <= {"connection"}
    assert len(failed) < STOP_AFTER
    assert 10 <= len(found) - len(failed) <= 18


def test_answers_between_failures_keep_a_run_going():
    def respond(text, before):
        return answer("Said.") if int(text) % STOP_AFTER == 0 else error(400, "bad")

    with ChatServer(respond) as server:
        where = endpoint(server, max_concurrency=1)
        found = list(complete_many(where, range(30), chat))
    assert len(found) == 30
    assert sum(isinstance(said, RequestFailed) for _, said in found) == 26
