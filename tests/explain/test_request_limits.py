"""Limits as the server measures them, budgets, and what a server is asked for beside the messages."""

import asyncio
from collections import Counter

import pytest
from command_line import PATIENCE_S
from explain.asking import KEY, PRICED, SCHEMA, ask_all, client, many, request
from explain.http_model import ANSWER, fault

from cltdb.engine import units
from cltdb.explain.requests import budget, limits
from cltdb.explain.requests.client import run
from cltdb.explain.settings import Explain, Parameters

# Limits and budgets.


@pytest.mark.parametrize("limited", ["requests", "tokens"])
def test_limits_are_kept_as_the_server_measures_them(serve, tmp_path, monkeypatch, limited):
    """A minute of 0.4 s. The model counts its tokens in another way than is estimated, and some requests are as large as ten others."""
    monkeypatch.setattr(limits, "WINDOW_S", 0.4)
    monkeypatch.setattr(limits, "TRAVEL_S", PATIENCE_S)
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
        assert server.most_within(0.4) <= 12
    else:
        assert server.most_within(0.4, lambda body: n_prompt(body) + 20) <= 3000


@pytest.mark.parametrize("most", [(12, None), (None, 3000), (12, 10_000)])
def test_what_a_limit_allows_need_not_wait(most):
    async def main():
        given = limits.Limits(*most)
        for _ in range(12):
            assert given._admits(250)
            await given.wait(250)
        assert not given._admits(250)

    asyncio.run(main())


def test_a_request_larger_than_the_limit_goes_alone(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WINDOW_S", 0.1)
    monkeypatch.setattr(limits, "TRAVEL_S", PATIENCE_S)
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


@pytest.mark.parametrize("is_forced", [False, True])
def test_what_a_killed_run_or_a_forced_artifact_has_paid_counts(serve, tmp_path, is_forced):
    server = serve(lambda n, body: priced(body))
    settings = {"model": PRICED, "parameters": Parameters(max_tokens=50)}
    ask_all(client(server, tmp_path, **settings), many(10))
    if is_forced:
        units.forget(tmp_path, [tmp_path / "explain/k"])
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


def test_costs_come_from_litellm(serve, tmp_path):
    server = serve(lambda n, body: priced(body))
    reply = run(client(server, tmp_path, model=PRICED).ask(request()))
    assert reply.cost_usd == pytest.approx(PRICE) and (reply.prompt_tokens, reply.completion_tokens) == (100, 50)


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
