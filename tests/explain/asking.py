"""Asking the tests' model server: requests, clients, and what the server saw."""

import asyncio
import json
from collections import Counter

from explain.http_model import key_of

from cltdb.engine.units import Units
from cltdb.explain.requests.client import Client, Request, run
from cltdb.explain.settings import Explain

KEY = "sk-this-must-not-be-written"
PRICED = "openai/gpt-4o-mini"
N_LABELS = 6
SCHEMA = {"type": "object", "properties": {"1": {"type": "boolean"}}}


def read(text):
    """The labels of an answer, {word: value}."""
    value = json.loads(text)
    if len(value) != N_LABELS:
        raise ValueError(f"{N_LABELS} labels are wanted, {len(value)} found")
    return value


def request(text="hi", schema=None):
    return Request("detection", [{"role": "user", "content": text}], read, schema)


def client(server, workspace, *, name="k", **settings):
    section = Explain(**{"model": "openai/m", "api_base": server.address, "timeout_s": 20, **settings})
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
