"""How a language model is reached: its address and the name of its key in a spec, and no key anywhere else than in the environment."""

import contextlib
import json
import logging

import pytest
from explain.asking import KEY, client, request
from explain.http_model import ANSWER, TEXT, completion, fault, says
from pydantic import ValidationError

from cltdb.engine.units import REPLIES, Units
from cltdb.errors import CltdbError
from cltdb.explain.requests import faults
from cltdb.explain.requests.client import Client, run
from cltdb.explain.settings import Explain, Parameters


@pytest.mark.parametrize(
    "address", ["http://localhost:8000/v1", "https://models.example.org/openai/v1", "http://[::1]:8000", "http://10.0.0.7"]
)
def test_an_address_enters_the_key_and_the_ways_to_ask_do_not(address):
    section = Explain(model="openai/m", api_base=address, api_key_env="MY_KEY", concurrency=3, max_requests=5, timeout_s=9)
    assert section.result_settings() == {**Explain(model="openai/m").result_settings(), "api_base": address}
    assert "parameters" not in section.result_settings()
    asked = Explain(model="openai/m", parameters=Parameters(max_tokens=50)).result_settings()["parameters"]
    assert asked["max_tokens"] == 50 and asked["temperature"] == 0


@pytest.mark.parametrize(
    "address",
    [
        "http://me:sk-secret@h/v1",
        "http://sk-secret@h",
        "http://h/v1?key=sk-secret",
        "http://h/#sk-secret",
        "sk-secret",
        "ftp://sk-secret",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(address):
    with pytest.raises(ValidationError) as found:
        Explain(api_base=address)
    assert "sk-secret" not in found.value.errors()[0]["msg"]


@pytest.mark.parametrize("word", ["sk-secret", "sk_secret", "", "A B", "1A", "KEY\n"])
def test_a_key_where_the_name_of_a_variable_belongs_is_refused_and_not_shown(word):
    with pytest.raises(ValidationError) as found:
        Explain(api_key_env=word)
    assert "secret" not in found.value.errors()[0]["msg"]


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
