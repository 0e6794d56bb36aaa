"""How a language model is reached: its address and the name of its key in a spec, which shows neither a key nor a password."""

import pytest
from pydantic import ValidationError

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
