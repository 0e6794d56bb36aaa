"""Asking a provider that is busy, broken, or answers what is no answer: a small HTTP server that speaks OpenAI's protocol."""

import asyncio
import json
import os
import queue
import signal
import threading
import time
from collections import Counter
from email.utils import formatdate

import pytest
from command_line import PATIENCE_S
from explain.asking import KEY, SCHEMA, ask_all, asked, client, many, request
from explain.http_model import ANSWER, FAULTS, TEXT, Late, completion, failing, fault, says, unusable

from cltdb.errors import CltdbError
from cltdb.explain.requests import faults
from cltdb.explain.requests.client import run
from cltdb.explain.settings import Parameters

# What passes, and what does not.


@pytest.mark.parametrize("kind", FAULTS)
def test_each_failure_that_passes_is_tried_again(serve, tmp_path, kind):
    server = serve(lambda n, body: FAULTS[kind] if n == 2 else ANSWER)
    asker = client(server, tmp_path, timeout_s=1.5 if kind == "timeout" else 20)
    replies = ask_all(asker, many(2))
    assert [reply.status for reply in replies] == ["ok", "ok"] and replies[0].value == json.loads(TEXT)
    n_attempts = sorted(entry.attempts for entry in asker.ledger)
    if kind == "timeout":  # which on a crowded machine may also end a request that was answered
        assert n_attempts[-1] > 1
    else:
        assert n_attempts == [1, 2] and set(server.answered.values()) == {1}


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 529])
def test_each_status_that_passes_is_tried_again(serve, tmp_path, status):
    server = serve(lambda n, body: ANSWER if n > 2 else fault(status))
    assert run(client(server, tmp_path).ask(request())).status == "ok" and len(server.bodies) == 3


@pytest.mark.parametrize("status", [429, 502])
def test_what_does_not_pass_is_a_failed_reply(serve, tmp_path, status, monkeypatch):
    monkeypatch.setattr(faults, "RETRIES", 3)
    server = serve(lambda n, body: fault(status))
    asker = client(server, tmp_path)
    reply = run(asker.ask(request()))
    assert (reply.value, reply.status) == (None, "failed") and "Something is wrong" in reply.error and len(server.bodies) == 4
    assert [entry.status for entry in asker.ledger] == ["failed"] and asker.spent.n_failed == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_another_try_does_not_mend_is_asked_once(serve, tmp_path, status):
    server = serve(lambda n, body: fault(status, "Rate limit of this prompt: too long"))  # whatever the words say
    assert run(client(server, tmp_path).ask(request())).status == "failed" and len(server.bodies) == 1


@pytest.mark.parametrize(
    "reply",
    [
        completion(None) | {"choices": []},
        completion(None) | {"choices": None},
        {"id": "x", "object": "chat.completion"},
        completion(None),
        completion({"role": "assistant", "content": 3}),
        {"error": {"message": "broken", "code": "c"}},
        b"<html>not found</html>",
    ],
)
def test_a_reply_that_is_none_is_a_failure_that_soon_ends_where_nothing_was_answered_yet(serve, tmp_path, reply):
    server = serve(lambda n, body: (200, reply))
    found = run(client(server, tmp_path).ask(request()))
    assert found.status == "failed" and found.error and len(server.bodies) == 2


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_the_wait_asked_for_is_kept_by_all(serve, tmp_path, kind):
    resume_at = []

    def script(n, body):
        if n > 1:  # two are on their way, whose answers come too late to let others go before the wait is known
            return 200, Late(0.5 if n <= 3 else 0, ANSWER[1])
        at, since_s = time.time(), time.monotonic()
        until = at + 0.4 if kind == "seconds" else int(at) + 2  # a date has whole seconds
        resume_at.append(since_s + until - at)
        return fault(429, **{"Retry-After": "0.4" if kind == "seconds" else formatdate(until, usegmt=True)})

    server = serve(script)
    replies = ask_all(client(server, tmp_path, concurrency=3), many(12))
    assert {reply.status for reply in replies} == {"ok"} and len(server.arrivals) == 13
    assert min(server.arrivals[3:]) > resume_at[0] - 0.01  # the clock that dates are of may be set right meanwhile


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "Incorrect API key", "key that the provider refuses"),
        (401, "Rate limit reached", "key that the provider refuses"),  # litellm goes by the words
        (403, "Not allowed", "key that the provider refuses"),
        (404, "The model `m` does not exist", "does not know"),
        (400, "Invalid model name passed in model=m: model not found", "does not know"),
        (402, "Insufficient credits", "no credit"),
        (429, "You exceeded your current quota", "no credit"),
        (503, "Come back tomorrow", "takes no requests for 60 min"),
    ],
)
def test_what_no_request_gets_past_ends_the_run_at_once(serve, tmp_path, status, message, said):
    code, headers = "insufficient_quota" if status == 429 else "c", {"Retry-After": "3600"} if status == 503 else {}
    server = serve(lambda n, body: fault(status, message, code=code, **headers))
    asker = client(server, tmp_path, concurrency=2)
    with pytest.raises(CltdbError, match=f"{said}.*replies so far are kept"):
        ask_all(asker, many(20))
    assert len(server.bodies) <= 2
    with pytest.raises(CltdbError, match=said):  # and nobody is asked any more
        run(asker.ask(request()))


def test_a_refused_connection_ends_the_run_soon(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "UNREACHED_S", 0.05)
    server = serve(lambda n, body: ANSWER)
    server.close()
    with pytest.raises(CltdbError, match="no answer to any request: no connection to the server.*replies so far are kept"):
        run(client(server, tmp_path).ask(request()))


def test_a_connection_that_is_lost_for_a_moment_is_waited_for(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "UNREACHED_S", 0)
    server = serve(lambda n, body: ANSWER)
    asker = client(server, tmp_path)

    async def main():
        await asker.ask(request("first"))
        await asyncio.to_thread(server.close)
        asyncio.get_running_loop().call_later(0.1, lambda: serve(lambda n, body: ANSWER, port=server.port))
        return await asker.ask(request("second"))

    assert run(main()).status == "ok"


def test_many_failures_without_an_answer_end_the_run(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "FAILURES_IN_A_ROW", 3)
    server = serve(lambda n, body: fault(413))
    asker = client(server, tmp_path)
    assert [run(asker.ask(request(text))).status for text in "ab"] == ["failed", "failed"]
    with pytest.raises(CltdbError, match="no answer to any request"):
        run(asker.ask(request("c")))
    assert len(server.bodies) == 3


def test_an_end_for_all_ends_those_that_wait(serve, tmp_path):
    server = serve(lambda n, body: fault(401) if n == 1 else fault(503, **{"Retry-After": "170"}))
    began = time.monotonic()
    with pytest.raises(CltdbError, match="refuses"):
        ask_all(client(server, tmp_path, concurrency=8), many(8))
    assert time.monotonic() - began < PATIENCE_S  # of the 170 seconds that the server asks for


# Answers: complete ones are kept, whatever they say.


@pytest.mark.parametrize("kind", unusable(TEXT))
def test_an_unusable_answer_is_kept_and_mended_by_a_request_of_its_own(serve, tmp_path, kind):
    server = serve(lambda n, body: unusable(TEXT)[kind] if n == 1 else ANSWER)
    asker = client(server, tmp_path)
    reply = run(asker.ask(request()))
    assert (reply.value, reply.status, reply.prompt_tokens, reply.completion_tokens) == (json.loads(TEXT), "ok", 6, 4)
    assert [entry.status for entry in asker.ledger] == ["unusable", "ok"]
    first, shown, words = server.bodies[1]["messages"]
    assert [first] == request().messages and (shown["role"], words["role"]) == ("assistant", "user")
    assert asker.ledger[0].error in words["content"]
    again = client(server, tmp_path, name="another")
    assert run(again.ask(request())) == reply and len(server.bodies) == 2
    assert [entry.status for entry in again.ledger] == ["unusable", "ok"] and all(entry.reused for entry in again.ledger)


def test_an_answer_that_stays_unusable_fails_and_is_not_asked_again(serve, tmp_path):
    server = serve(lambda n, body: says('{"1": true}', finish="length"))
    reply = run(client(server, tmp_path).ask(request()))
    assert reply.status == "failed" and "6 labels are wanted, 1 found (it was cut off" in reply.error and reply.prompt_tokens == 9
    assert run(client(server, tmp_path).ask(request())) == reply and len(server.bodies) == 3


def test_endless_nesting_and_half_a_character_are_answers_too(serve, tmp_path):
    texts = ["[" * 100_000, '{"1": "a \ud83d b"}', TEXT]
    server = serve(lambda n, body: says(texts[n - 1]))
    asker = client(server, tmp_path)
    assert run(asker.ask(request("half \udc80"))).status == "ok"
    assert [entry.status for entry in asker.ledger] == ["unusable"] * 2 + ["ok"]
    assert server.bodies[0]["messages"][0]["content"] == "half ?"
    assert len(server.bodies[1]["messages"][1]["content"]) == 2000


def test_the_same_asked_at_once_is_asked_once(serve, tmp_path):
    server = serve(lambda n, body: ANSWER, delay_s=0.05)
    asker = client(server, tmp_path)
    replies = ask_all(asker, [request()] * 16)
    assert all(reply == replies[0] for reply in replies) and len(server.bodies) == asker.spent.n_asked == len(asker.ledger) == 1


def test_answers_are_known_by_all_that_they_depend_on(serve, tmp_path, monkeypatch):
    server, other = serve(lambda n, body: ANSWER), serve(lambda n, body: ANSWER)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for where, settings, schema in (
        (server, {}, None),
        (server, {"model": "openai/other"}, None),
        (server, {"parameters": Parameters(max_tokens=7)}, None),
        (server, {}, SCHEMA),
        (other, {}, None),
    ):
        n_before = len(where.bodies)
        for _ in range(2):
            run(client(where, tmp_path, **settings).ask(request(schema=schema)))
        assert len(where.bodies) == n_before + 1
    for here in (server, other):  # an address in the environment is no part of it
        monkeypatch.setenv("OPENAI_API_BASE", here.address)
        run(client(here, tmp_path, api_base=None).ask(request()))
    assert (len(server.bodies), len(other.bodies)) == (5, 1)


def test_a_third_of_all_requests_fails_in_every_way_and_all_are_answered_once(serve, tmp_path):
    server = serve(failing(lambda body: TEXT), delay_s=0.002)
    asker = client(server, tmp_path, concurrency=16)
    replies = ask_all(asker, many(100))
    statuses = Counter(reply.status for reply in replies)
    assert (
        statuses["ok"] >= 97
        and set(statuses) <= {"ok", "failed"}
        and all(reply.error for reply in replies if reply.value is None)
    )
    assert server.repeated() == 0 and server.most_in_flight <= 16
    assert len(asker.ledger) == len(server.answered) == asker.spent.n_asked


def test_after_a_kill_at_most_those_in_flight_are_asked_again(serve, tmp_path):
    n, concurrency = 120, 8
    children = queue.SimpleQueue()
    server = serve(None, delay_s=0.01)
    for moment in (1, 30, 55, 80, 110):
        last = max(moment, len(server.bodies) + 1)
        server.script = lambda number, body, last=last: (number == last and os.kill(children.get(), signal.SIGKILL)) or ANSWER
        child = os.fork()
        if child == 0:
            try:
                ask_all(client(server, tmp_path, concurrency=concurrency), many(n))
            finally:
                os._exit(0)
        children.put(child)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while server.n_in_flight:
            time.sleep(0.002)
    server.script = lambda number, body: ANSWER
    asker = client(server, tmp_path, concurrency=concurrency)
    assert {reply.status for reply in ask_all(asker, many(n))} == {"ok"}
    n_twice = sum(times - 1 for times in asked(server).values())
    assert len(asked(server)) == n and n_twice <= 5 * concurrency and not any(entry.reused for entry in asker.ledger)


def test_ctrl_c_ends_what_is_in_flight_and_keeps_what_was_answered(serve, tmp_path, caplog):
    server = serve(lambda n, body: ANSWER if n <= 10 else fault(503, **{"Retry-After": "170"}))
    asker = client(server, tmp_path, concurrency=4)

    def interrupt():
        while asker.spent.n_asked < 10 or not asker.health.resume_at:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_all(asker, many(30))
    assert time.monotonic() - began < PATIENCE_S and not caplog.records
    server.script = lambda n, body: ANSWER
    ask_all(client(server, tmp_path), many(30))
    assert server.repeated() == 0


# The loop.


def test_of_several_errors_the_one_that_a_user_can_mend_is_raised(serve, tmp_path):
    server = serve(lambda n, body: fault(401))
    asker = client(server, tmp_path)

    async def main():
        async with asyncio.TaskGroup() as group:
            for one in many(5):
                group.create_task(asker.ask(one))

    with pytest.raises(CltdbError, match="refuses"):
        run(main())
