"""Asking a provider that is busy, broken, or answers what is no answer: a small HTTP server that speaks OpenAI's protocol."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import stored_units
from explain.http_model import ANSWER, TEXT, Server, completion

from cltdb.engine.units import REPLIES, Units
from cltdb.errors import CltdbError
from cltdb.explain import calls
from cltdb.explain.calls import Caller

KEY = "sk-this-must-not-be-written"


@pytest.fixture
def serve(monkeypatch):
    """Starts a server that litellm asks for models `openai/…`; waits between tries are short."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.005)
    started = []

    def start(script):
        started.append(Server(script))
        monkeypatch.setenv("OPENAI_API_BASE", started[-1].address)
        return started[-1]

    yield start
    for server in started:
        server.close()


def asked(tmp_path, text="hi", *, model="openai/m", name="k"):
    return Caller(model, Units(tmp_path, tmp_path / "explain" / name)).ask([{"role": "user", "content": text}])


def fault(status, message="Something is wrong", code="c", **headers):
    return status, {"error": {"message": message, "type": "t", "code": code}}, headers


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(serve, tmp_path, status):
    server = serve(lambda n, body: ANSWER if n > 2 else fault(status))
    assert asked(tmp_path).text == TEXT and len(server.bodies) == 3


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_the_wait_is_the_one_asked_for(serve, tmp_path, kind):
    when = (
        "0.3" if kind == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=1.5), usegmt=True)
    )  # a whole second
    server = serve(lambda n, body: ANSWER if n > 1 else fault(429, **{"Retry-After": when}))
    began = time.monotonic()
    assert asked(tmp_path).text == TEXT and len(server.bodies) == 2
    assert 0.3 <= time.monotonic() - began < 5


def test_a_wait_that_is_too_long_is_a_failed_call(serve, tmp_path):
    server = serve(lambda n, body: fault(429, **{"Retry-After": "3600"}))
    began = time.monotonic()
    reply = asked(tmp_path)
    assert reply.text is None and "RateLimitError" in reply.error and len(server.bodies) == 1 and time.monotonic() - began < 5


@pytest.mark.parametrize("status", [429, 502])
def test_what_does_not_pass_is_a_failed_call(serve, tmp_path, status, monkeypatch):
    monkeypatch.setattr(calls, "RETRIES", 3)
    server = serve(lambda n, body: fault(status))
    reply = asked(tmp_path)
    assert reply.text is None and "Something is wrong" in reply.error and len(server.bodies) == 4


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_another_try_does_not_mend_is_asked_once(serve, tmp_path, status):
    server = serve(lambda n, body: fault(status, "Rate limit of this prompt: too long"))  # whatever the words say
    assert asked(tmp_path).text is None and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (completion(None) | {"choices": []}, "without choices"),
        (completion(None) | {"choices": None}, "choices"),
        ({"id": "x", "object": "chat.completion"}, "choices"),
        (completion(None), ""),
        (completion({"role": "assistant", "content": None}), "empty"),
        (completion({"role": "assistant", "content": ""}), "empty"),
        (completion({"role": "assistant", "content": " \n"}), "empty"),
        (completion({"role": "assistant", "content": [{"type": "text", "text": "hi"}]}), ""),
        (completion({"role": "assistant", "content": 3}), ""),
        (completion({"role": "assistant", "content": None, "refusal": "no"}), "empty"),
        ({"error": {"message": "broken", "code": "c"}}, ""),
        (b"<html>not found</html>", ""),
        (b"", ""),
    ],
)
def test_a_reply_that_is_none_is_a_failed_call_with_its_reason(serve, tmp_path, reply, said):
    server = serve(lambda n, body: (200, reply))
    found = asked(tmp_path)
    assert found.text is None and said in found.error and len(server.bodies) <= 2
    assert stored_units.keys(tmp_path, REPLIES) == []


def test_a_reply_with_half_a_character_is_kept_as_text(serve, tmp_path):
    server = serve(lambda n, body: (200, completion({"role": "assistant", "content": "a \ud83d b"})))
    assert asked(tmp_path).text == asked(tmp_path).text == "a ? b" and len(server.bodies) == 1


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
    ],
)
def test_what_no_call_gets_past_ends_the_run_at_once(serve, tmp_path, status, message, said):
    server = serve(lambda n, body: fault(status, message, code="insufficient_quota" if status == 429 else "c"))
    with pytest.raises(CltdbError, match=said):
        asked(tmp_path)
    assert len(server.bodies) == 1


def test_a_refused_connection_ends_the_run_soon(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "UNREACHED_S", 0.05)
    serve(lambda n, body: ANSWER).close()
    with pytest.raises(CltdbError, match="no answer to any call: no connection to the server.*replies so far are kept"):
        asked(tmp_path)


def test_a_key_that_an_error_repeats_is_not_written(serve, tmp_path):
    serve(lambda n, body: fault(400, f"bad request to /v1?key={KEY}"))
    assert "key=…" in asked(tmp_path).error


def test_a_connection_that_is_lost_for_a_moment_is_waited_for(serve, tmp_path, monkeypatch):
    server = serve(lambda n, body: ANSWER)
    caller = Caller("openai/m", Units(tmp_path, tmp_path / "explain/k"))
    caller.ask([{"role": "user", "content": "first"}])
    monkeypatch.setattr(calls, "UNREACHED_S", 0)
    server.close()
    returned = []
    threading.Timer(0.1, lambda: returned.append(Server(lambda n, body: ANSWER, port=server.port))).start()
    assert caller.ask([{"role": "user", "content": "second"}]).text == TEXT
    returned[0].close()


def test_many_failed_calls_without_an_answer_end_the_run(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "FAILURES_IN_A_ROW", 3)
    server = serve(lambda n, body: fault(422))
    caller = Caller("openai/m", Units(tmp_path, tmp_path / "explain/k"))
    assert [caller.ask([{"role": "user", "content": text}]).text for text in "ab"] == [None, None]
    with pytest.raises(CltdbError, match="no answer to any call"):
        caller.ask([{"role": "user", "content": "c"}])
    with pytest.raises(CltdbError, match="no answer to any call"):  # and nobody is asked any more
        caller.ask([{"role": "user", "content": "d"}])
    assert len(server.bodies) == 3


def test_a_refusal_ends_the_waiting_of_all_threads(serve, tmp_path):
    serve(lambda n, body: fault(401) if n == 1 else fault(503, **{"Retry-After": "30"}))
    caller = Caller("openai/m", Units(tmp_path, tmp_path / "explain/k"))
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(caller.ask, [{"role": "user", "content": text}]) for text in "abcdefgh"]
    assert all(isinstance(one.exception(), CltdbError) for one in found) and time.monotonic() - began < 10


@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "openai/o3-mini", "openai/m"])
def test_models_that_refuse_a_temperature_are_asked_without(serve, tmp_path, model):
    """The first two as litellm knows; the third says so itself."""
    refused = fault(400, "Unsupported value: 'temperature' does not support 0 with this model")
    server = serve(lambda n, body: refused if "temperature" in body else ANSWER)
    assert asked(tmp_path, model=model).text == TEXT
    assert len(server.bodies) == (2 if model == "openai/m" else 1) and "temperature" not in server.bodies[-1]


def test_the_temperature_is_0_where_it_is_taken(serve, tmp_path):
    server = serve(lambda n, body: ANSWER)
    assert asked(tmp_path).text == TEXT and server.bodies[0]["temperature"] == 0


def test_replies_belong_to_the_workspace_and_no_key_is_in_them(serve, tmp_path):
    server = serve(lambda n, body: ANSWER)
    first = asked(tmp_path)
    assert asked(tmp_path, name="another") == first and len(server.bodies) == 1
    asked(tmp_path, model="openai/other")
    asked(tmp_path, text="another")
    assert len(server.bodies) == 3
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    stored = stored_units.records(tmp_path, REPLIES)  # which are compressed
    assert len(stored) == 3 and KEY not in json.dumps(stored)


def test_threads_that_ask_the_same_pay_once(serve, tmp_path):
    server = serve(lambda n, body: time.sleep(0.05) or ANSWER)
    caller = Caller("openai/m", Units(tmp_path, tmp_path / "explain/k"))
    with ThreadPoolExecutor(8) as pool:
        replies = set(pool.map(caller.ask, [[{"role": "user", "content": "hi"}]] * 16))
    assert len(replies) == len(server.bodies) == caller.spent.n_asked == 1


def test_a_damaged_reply_is_asked_again(serve, tmp_path, caplog):
    server = serve(lambda n, body: ANSWER)
    first = asked(tmp_path)
    [key] = stored_units.keys(tmp_path, REPLIES)
    stored_units.flip(tmp_path, REPLIES, key, 40)
    assert asked(tmp_path).text == first.text and len(server.bodies) == 2 and "is damaged" in caplog.text
