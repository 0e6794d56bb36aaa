import pytest
from explain.http_model import ANSWER, Server
from worlds import planted


@pytest.fixture(scope="session")
def harvested(tmp_path_factory):
    """The folder of a harvest of planted features; tests only read it."""
    return planted.write_harvest(tmp_path_factory.mktemp("harvest"))


@pytest.fixture(scope="session")
def litellm():
    """litellm, which imports much when it is imported and when it is first called."""
    from cltdb.explain.requests.access import load_litellm
    from cltdb.explain.requests.client import run

    found, server = load_litellm(), Server(lambda n, body: ANSWER)
    run(found.acompletion(model="openai/m", messages=[], api_base=server.address, api_key="none", max_retries=0))
    server.close()
    return found


@pytest.fixture
def serve(litellm, monkeypatch):
    """Starts a model server for which waits are short; all are closed in the end."""
    monkeypatch.setattr("cltdb.explain.requests.faults.FIRST_WAIT_S", 0.005)
    started = []

    def start(script, **options):
        started.append(Server(script, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()
