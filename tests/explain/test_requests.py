"""Asking a provider that is busy, broken, or answers what is no answer: a small HTTP server that speaks OpenAI's protocol."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from explain.http_model import ANSWER, FAULTS, TEXT, Server, completion, failing, fault, key_of, says, unusable

from cltdb.engine.units import REPLIES, Units
from cltdb.errors import CltdbError
from cltdb.explain.requests import budget, faults, limits
from cltdb.explain.requests.access import load_litellm
from cltdb.explain.requests.client import Client, Request, run
from cltdb.explain.settings import Explain, Parameters

KEY = "sk-this-must-not-be-written"
PRICED = "openai/gpt-4o-mini"
N_LABELS = 6
SCHEMA = {"type": "object", "properties": {"1": {"type": "boolean"}}}


@pytest.fixture(scope="session", autouse=True)
def litellm():
    """litellm, which imports much when it is first called."""
    found = load_litellm()
    server = Server(lambda n, body: ANSWER)
    run(found.acompletion(model="openai/m", messages=[], api_base=server.address, api_key="none", max_retries=0))
    server.close()
    return found


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(faults, "FIRST_WAIT_S", 0.005)


@pytest.fixture
def serve():
    """Starts a server; all are closed in the end."""
    started = []

    def start(script, **options):
        started.append(Server(script, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


def read(text):
    """The labels of an answer, {word: value}."""
    value = json.loads(text)
    if len(value) != N_LABELS:
        raise ValueError(f"{N_LABELS} labels are wanted, {len(value)} found")
    return value


def request(text="hi", schema=None):
    return Request("detection", [{"role": "user", "content": text}], read, schema)


def client(server, workspace, *, name="k", **settings):
    section = Explain(**{"model": "openai/m", "api_base": server.address, "timeout_s": 5, **settings})
    return Client(section, Units(workspace, workspace / "explain" / name))


def ask_all(asker, requests):
    """The replies to requests that are asked at once."""

    async def main():
        return await asyncio.gather(*(asker.ask(one) for one in requests))

    return run(main())


def many(n):
    return [request(f"question {number}") for number in range(n)]


def asked(server):
    """{request: how often it came}."""
    return Counter(map(key_of, server.bodies))


# What passes, and what does not.


@pytest.mark.parametrize("kind", FAULTS)
def test_each_failure_that_passes_is_tried_again(serve, tmp_path, kind):
    server = serve(lambda n, body: FAULTS[kind] if n == 2 else ANSWER)
    asker = client(server, tmp_path, timeout_s=0.5 if kind == "timeout" else 5)
    replies = ask_all(asker, many(2))
    assert [reply.status for reply in replies] == ["ok", "ok"] and replies[0].value == json.loads(TEXT)
    assert sorted(entry.attempts for entry in asker.ledger) == [1, 2] and set(server.answered.values()) == {1}


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
    when = "0.4" if kind == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=1.5), usegmt=True)
    server = serve(lambda n, body: fault(429, **{"Retry-After": when}) if n == 1 else ANSWER)
    replies = ask_all(client(server, tmp_path, concurrency=3), many(12))
    assert {reply.status for reply in replies} == {"ok"}
    waited_s = [at - server.arrivals[0] for at in server.arrivals]
    n_before = sum(seconds < 0.4 for seconds in waited_s)
    assert 1 <= n_before <= 6 and len(waited_s) == 13  # those on their way, and no other


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
    server = serve(lambda n, body: fault(401) if n == 1 else fault(503, **{"Retry-After": "30"}))
    began = time.monotonic()
    with pytest.raises(CltdbError, match="refuses"):
        ask_all(client(server, tmp_path, concurrency=8), many(8))
    assert time.monotonic() - began < 10


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
    server = serve(failing(TEXT), delay_s=0.002)
    asker = client(server, tmp_path, concurrency=16)
    replies = ask_all(asker, many(200))
    statuses = Counter(reply.status for reply in replies)
    assert (
        statuses["ok"] >= 194
        and set(statuses) <= {"ok", "failed"}
        and all(reply.error for reply in replies if reply.value is None)
    )
    assert server.repeated() == 0 and server.most_in_flight <= 16
    assert len(asker.ledger) == len(server.answered) == asker.spent.n_asked


def test_after_a_kill_at_most_those_in_flight_are_asked_again(serve, tmp_path):
    n, concurrency = 120, 8
    server = serve(lambda number, body: ANSWER, delay_s=0.01)
    for moment in (1, 30, 55, 80, 110):
        before, child = len(server.bodies), os.fork()
        if child == 0:
            try:
                ask_all(client(server, tmp_path, concurrency=concurrency), many(n))
            finally:
                os._exit(0)
        while len(server.bodies) < max(moment, before + 1):
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while server.n_in_flight:
            time.sleep(0.002)
    asker = client(server, tmp_path, concurrency=concurrency)
    assert {reply.status for reply in ask_all(asker, many(n))} == {"ok"}
    n_twice = sum(times - 1 for times in asked(server).values())
    assert len(asked(server)) == n and n_twice <= 5 * concurrency and not any(entry.reused for entry in asker.ledger)


@pytest.mark.slow
def test_two_thousand_features_are_explained_and_scored_through_failures_and_kills(serve, tmp_path):
    """Of each an explanation, then four requests that score it; every third try fails in turn in every way, and five kills."""
    n_features, concurrency = 2000, 32

    async def feature(asker, number):
        explained = await asker.ask(request(f"explain {number}"))
        scored = (f"{scorer} {number} {part} of {explained.value}" for scorer in ("detection", "fuzzing") for part in range(2))
        return explained, await asyncio.gather(*(asker.ask(request(one)) for one in scored))

    def whole():
        async def main():
            return await asyncio.gather(*(feature(asker, number) for number in range(n_features)))

        asker = client(server, tmp_path, concurrency=concurrency)
        return asker, run(main())

    server = serve(failing(TEXT), delay_s=0.02)
    for share in (0.1, 0.5, 1, 1.5, 2):  # of what is sent in all, about 7.5 per feature
        child = os.fork()
        if child == 0:
            try:
                whole()
            finally:
                os._exit(0)
        while len(server.bodies) < share * n_features:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while server.n_in_flight:
            time.sleep(0.01)
    asker, found = whole()
    assert sum(explained.status == "ok" for explained, _ in found) >= 0.97 * n_features
    assert all(reply.error for explained, scored in found for reply in (explained, *scored) if reply.status != "ok")
    assert sum(times - 1 for times in server.answered.values()) <= 5 * concurrency and server.most_in_flight <= concurrency
    assert all(entry.status in ("ok", "unusable", "failed") and not entry.reused for entry in asker.ledger)


def test_ctrl_c_ends_what_is_in_flight_and_keeps_what_was_answered(serve, tmp_path, caplog):
    server = serve(lambda n, body: ANSWER if n <= 10 else fault(503, **{"Retry-After": "30"}))
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask_all(client(server, tmp_path, concurrency=4), many(30))
    assert time.monotonic() - began < 10 and not caplog.records
    server.script = lambda n, body: ANSWER
    ask_all(client(server, tmp_path), many(30))
    assert server.repeated() == 0


# Limits and budgets.


@pytest.mark.parametrize("limited", ["requests", "tokens"])
def test_limits_are_kept_as_the_server_measures_them(serve, tmp_path, monkeypatch, limited):
    """A minute of 0.4 s. The model counts its tokens in another way than is estimated, and some requests are as large as ten others."""
    monkeypatch.setattr(limits, "WINDOW_S", 0.4)
    monkeypatch.setattr(limits, "LOOK_EVERY_S", 0.01)

    def n_prompt(body):
        return 2 * len(body["messages"][0]["content"])

    def script(n, body):
        usage = {"prompt_tokens": n_prompt(body), "completion_tokens": 20, "total_tokens": n_prompt(body) + 20}
        return 200, {**ANSWER[1], "usage": usage}

    server = serve(script, delay_s=0.005)
    questions = [request(f"question {number}" + " word" * (10 if number % 4 else 100)) for number in range(30)]
    most = {"requests_per_minute": 12} if limited == "requests" else {"tokens_per_minute": 3000}
    settings = {**most, "parameters": Parameters(max_tokens=40)}
    assert {reply.status for reply in ask_all(client(server, tmp_path, **settings), questions)} == {"ok"}
    if limited == "requests":
        assert 8 <= server.most_within(0.4) <= 12
    else:
        assert 1500 <= server.most_within(0.4, lambda body: n_prompt(body) + 20) <= 3000


def test_a_request_larger_than_the_limit_goes_alone(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WINDOW_S", 0.1)
    server = serve(lambda n, body: ANSWER)
    replies = ask_all(client(server, tmp_path, tokens_per_minute=3), many(3))
    assert {reply.status for reply in replies} == {"ok"} and server.most_within(0.1) == 1


def priced(body):
    """What PRICED takes for an answer: (prompt tokens, answer)."""
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return 200, {**ANSWER[1], "usage": usage}


PRICE = 100 * 0.15e-6 + 50 * 0.6e-6


def test_half_the_budget_stops_within_a_request_of_it_and_more_goes_on(serve, tmp_path):
    server = serve(lambda n, body: priced(body), delay_s=0.005)
    settings = {"model": PRICED, "parameters": Parameters(max_tokens=50), "concurrency": 8}
    asker = client(server, tmp_path, max_cost_usd=20 * PRICE, **settings)
    questions = [request(f"{'word ' * 80}{number}") for number in range(40)]
    replies = ask_all(asker, questions)
    statuses = Counter(reply.status for reply in replies)
    assert statuses == {"ok": len(server.bodies), "skipped_budget": 40 - len(server.bodies)} and 19 <= len(server.bodies) <= 20
    assert (
        asker.spent.asked_usd == pytest.approx(len(server.bodies) * PRICE) and asker.spent.n_skipped == statuses["skipped_budget"]
    )
    assert "max_cost_usd" in next(reply.error for reply in replies if reply.status == "skipped_budget")
    more = client(server, tmp_path, max_cost_usd=40 * PRICE, **settings)
    assert {reply.status for reply in ask_all(more, questions)} == {"ok"} and server.repeated() == 0 and len(server.bodies) == 40
    assert more.spent.n_reused == statuses["ok"] and not any(entry.reused for entry in more.ledger)


def test_what_a_killed_run_has_paid_counts(serve, tmp_path):
    server = serve(lambda n, body: priced(body))
    settings = {"model": PRICED, "parameters": Parameters(max_tokens=50)}
    ask_all(client(server, tmp_path, **settings), many(10))
    new = [request(f"new {number}") for number in range(10)]
    replies = ask_all(client(server, tmp_path, max_cost_usd=12 * PRICE, **settings), [*new, *many(10)])
    assert [reply.status for reply in replies[10:]] == ["ok"] * 10 and 11 <= len(server.bodies) <= 12
    other = client(server, tmp_path, name="other", max_cost_usd=2 * PRICE, **settings)  # whose budget is its own
    assert {reply.status for reply in ask_all(other, many(10))} == {"ok"} and other.spent.n_reused == 10


def test_max_requests_counts_requests_and_no_tries(serve, tmp_path):
    server = serve(lambda n, body: fault(500) if n == 2 else ANSWER)
    replies = ask_all(client(server, tmp_path, max_requests=7), many(20))
    assert Counter(reply.status for reply in replies) == {"ok": 7, "skipped_budget": 13} and len(server.bodies) == 8
    assert "max_requests" in replies[-1].error


def test_unknown_prices_are_said_once_and_do_not_count(serve, tmp_path, caplog):
    server = serve(lambda n, body: ANSWER)
    replies = ask_all(client(server, tmp_path, max_cost_usd=0), many(5))
    assert {(reply.status, reply.cost_usd) for reply in replies} == {("ok", None)}
    assert caplog.text.count("does not know what openai/m costs") == 1


def test_an_estimate_is_near_what_is_paid(serve, tmp_path):
    schema = {"type": "object", "properties": {str(number): {"type": "boolean"} for number in range(1, 6)}}
    sample = [request("The quick brown fox jumps over the lazy dog. " * 20, schema)]
    found = budget.estimate(Explain(model=PRICED), sample, 1000)
    assert found.requests == 1000 and 190_000 <= found.prompt_tokens <= 220_000 and 15_000 <= found.completion_tokens <= 60_000
    assert found.usd == pytest.approx(found.prompt_tokens * 0.15e-6 + found.completion_tokens * 0.6e-6)
    assert budget.estimate(Explain(model="openai/m"), sample, 10).usd is None
    assert budget.estimate(Explain(model=PRICED, parameters=Parameters(max_tokens=5)), sample, 10).completion_tokens == 50


# Forms and parameters.


def test_a_form_that_a_server_refuses_is_asked_for_once(serve, tmp_path, caplog):
    server = serve(lambda n, body: fault(400, "Extra inputs are not permitted") if "response_format" in body else ANSWER)
    asker = client(server, tmp_path, concurrency=1)
    replies = ask_all(asker, [request(text, SCHEMA) for text in "abc"])
    assert {reply.status for reply in replies} == {"ok"} and len(server.bodies) == 4
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert caplog.text.count("takes no response_format") == 1


def test_a_bad_request_costs_no_form(serve, tmp_path):
    server = serve(lambda n, body: fault(400, "too long") if body["messages"][0]["content"] == "long" else ANSWER)
    asker = client(server, tmp_path)
    assert [run(asker.ask(request(text, SCHEMA))).status for text in ("long", "a", "b")] == ["failed", "ok", "ok"]
    assert all("response_format" in body for body in server.bodies[2:])


@pytest.mark.parametrize(("model", "has_form"), [("openai/m", False), (PRICED, True)])
def test_a_provider_is_asked_for_a_form_where_litellm_knows_that_it_has_them(serve, tmp_path, monkeypatch, model, has_form):
    server = serve(lambda n, body: ANSWER)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_BASE", server.address)
    run(client(server, tmp_path, model=model, api_base=None).ask(request(schema=SCHEMA)))
    assert ("response_format" in server.bodies[0]) == has_form and server.bodies[0]["temperature"] == 0


@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "openai/o3-mini", "openai/m"])
def test_models_that_refuse_a_temperature_are_asked_without(serve, tmp_path, model):
    """The first two as litellm knows; the third says so itself."""
    refused = fault(400, "Unsupported value: 'temperature' does not support 0 with this model")
    server = serve(lambda n, body: refused if "temperature" in body else ANSWER)
    asker = client(server, tmp_path, model=model)
    assert [run(asker.ask(request(text))).status for text in "ab"] == ["ok", "ok"]
    assert len(server.bodies) == (3 if model == "openai/m" else 2) and "temperature" not in server.bodies[-1]


def test_parameters_are_sent_as_they_stand(serve, tmp_path):
    server = serve(lambda n, body: ANSWER)
    given = Parameters(
        max_tokens=70, top_p=0.9, temperature=None, seed=3, extra_body={"chat_template_kwargs": {"thinking": False}}
    )
    run(client(server, tmp_path, parameters=given).ask(request()))
    body = server.bodies[0]
    assert (body["max_tokens"], body["top_p"], body["seed"], body["chat_template_kwargs"]) == (70, 0.9, 3, {"thinking": False})
    assert "temperature" not in body and "reasoning_effort" not in body


# Keys.


def test_the_key_of_the_spec_is_sent_and_a_server_of_ones_own_gets_no_other(serve, tmp_path, monkeypatch):
    server = serve(lambda n, body: ANSWER)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MINE", f" {KEY}-2\n")
    run(client(server, tmp_path).ask(request("a")))
    run(client(server, tmp_path, api_key_env="MINE").ask(request("b")))
    assert [headers["authorization"] for headers in server.headers] == ["Bearer none", f"Bearer {KEY}-2"]


@pytest.mark.parametrize(
    ("settings", "value", "said"),
    [
        ({"api_key_env": "MINE"}, None, "no MINE in the environment"),
        ({"api_key_env": "MINE"}, f"{KEY} {KEY}", "blanks"),
        ({}, None, "no OPENAI_API_KEY"),
        ({"model": "no-such-provider-at-all/m"}, None, "litellm model"),
    ],
)
def test_a_missing_key_or_provider_is_an_error_before_anything_is_done(tmp_path, monkeypatch, settings, value, said):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MINE", raising=False) if value is None else monkeypatch.setenv("MINE", value)
    with pytest.raises(CltdbError, match=said) as found:
        Client(Explain(**{"model": "openai/m", **settings}), Units(tmp_path, tmp_path / "explain/k"))
    assert KEY not in str(found.value) and not list(tmp_path.iterdir())


def test_no_key_is_written_whatever_fails(serve, tmp_path, monkeypatch, caplog, capfd):
    """A server that repeats the key wherever it can: in errors, pages, answers and refusals."""
    for name in ("RETRIES", "UNREACHED_S", "LOST_S"):
        monkeypatch.setattr(faults, name, 0)
    monkeypatch.setenv("MINE", KEY)
    monkeypatch.setenv("OTHER_API_KEY", f"{KEY}-of-another")
    caplog.set_level(logging.DEBUG, "cltdb")
    told = f"key {KEY} and {KEY}-of-another"
    said = [
        *(fault(status, told) for status in (400, 401, 403, 404, 413, 422, 429, 500)),
        (200, f"<html>{told}</html>".encode()),
        (200, {"error": {"message": told, "code": KEY}}),
        (200, f'{{"id": "{told}"'.encode()),
        says(told),
        (200, completion({"role": "assistant", "content": None, "refusal": told})),
        says(json.dumps({**json.loads(TEXT), "1": told})),
    ]
    texts = []
    for number, result in enumerate(said):
        server = serve(lambda n, body, result=result: result)
        asker = client(server, tmp_path, api_key_env="MINE", max_cost_usd=1)
        with contextlib.suppress(CltdbError):
            texts.append(repr(run(asker.ask(request(f"question {number}")))))
        texts += [repr(asker.ledger), str(asker.health.refusal)]
        server.close()
        with contextlib.suppress(CltdbError):
            asker.health.refusal = None
            run(asker.ask(request("nobody listens")))
        texts.append(str(asker.health.refusal))
    assert sum("refuses" in text for text in texts) and sum("…" in text for text in texts) > 10
    written = [*texts, caplog.text, *capfd.readouterr(), repr(asker.answers.units.used(REPLIES))]
    written += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY in text for text in written)


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


def test_costs_come_from_litellm(serve, tmp_path):
    server = serve(lambda n, body: priced(body))
    reply = run(client(server, tmp_path, model=PRICED).ask(request()))
    assert reply.cost_usd == pytest.approx(PRICE) and (reply.prompt_tokens, reply.completion_tokens) == (100, 50)
