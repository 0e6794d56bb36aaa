"""Who may ask the server: names, origins, the token of the link."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from visit import answer, opened, texts
from worlds import capitals_experiment as world

from dashboards import app, security

STYLE = f"/{app.assets_path()}/style.css"

TOKEN = "a-token-of-the-link"
CALL = "/_dash-update-component"


@pytest.fixture(scope="module")
def alone(database):
    """A client of pages that only this machine reaches."""
    return opened(database)


@pytest.fixture(scope="module")
def behind_a_link(database):
    """Pages that ask for a token."""
    client = opened(database, token=TOKEN)  # its first request is refused
    yield client
    opened(database)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8050", "127.0.0.1:8050", "127.0.0.1:9000", "[::1]:8050", "127.1.2.3"])
def test_names_of_this_machine_are_answered(alone, host):
    assert alone.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8050", "localhost.evil.example", "127.0.0.1.evil.example:8050", "10.0.0.7:8050", "0.0.0.0:8050",
     "[::2]:8050", "localhost@evil.example", "evil.example/localhost", "<b>x</b>"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/_dash-layout", STYLE])
def test_other_names_are_refused(alone, host, path):
    refused = alone.get(path, headers={"Host": host})
    assert refused.status_code == 403 and "<b>x" not in refused.text and "localhost" in refused.text


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:1234"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_can_ask_nothing_of_callbacks(alone, headers):
    assert alone.post(CALL, json={}, headers=headers).status_code == 403


def test_the_pages_themselves_may_ask(alone):
    assert world.DICT in texts(answer(alone, "/")["_pages_content"]["children"])
    assert world.DICT in texts(
        answer(alone, "/", headers={"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"})["_pages_content"]["children"]
    )


def test_what_has_no_token_sees_nothing(behind_a_link):
    client = behind_a_link.application.test_client()
    for path in ("/", "/_dash-layout", STYLE, "/?token=", "/?token=another", "/?token=%FF", f"/?token={TOKEN}x"):
        refused = client.get(path, headers={"Host": "machine.example:8050"})
        assert refused.status_code == 403 and "link" in refused.text and TOKEN not in refused.text, path
    client.set_cookie("cltdb-token-80", "another")
    assert client.get("/").status_code == client.post(CALL, json={}).status_code == 403


@pytest.mark.parametrize(
    "path, then", [("/", "/"), ("/feature/a%20b/1/2?x=1&", "/feature/a%20b/1/2?x=1"), ("/%2Fevil.example/", "/evil.example/")]
)
def test_the_link_lets_a_browser_in_and_leaves_the_address(behind_a_link, path, then):
    client = behind_a_link.application.test_client()
    led = client.get(f"{path}{'' if '?' in path else '?'}token={TOKEN}", base_url="http://machine.example:8050")
    assert led.status_code == 302 and led.headers["Location"] == then
    cookie = led.headers["Set-Cookie"]
    assert cookie.startswith(f"cltdb-token-8050={TOKEN};") and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert client.get("/_dash-layout", base_url="http://machine.example:8050").status_code == 200
    for headers in FOREIGN:
        assert client.post(CALL, json={}, headers=headers, base_url="http://machine.example:8050").status_code == 403


def test_behind_a_proxy_the_cookie_and_the_address_are_under_its_path(database):
    client = opened(database, prefix="/tools/cltdb/", token=TOKEN).application.test_client()
    led = client.get(f"/tools/cltdb/graph?token={TOKEN}")
    assert led.headers["Location"] == "/tools/cltdb/graph" and "Path=/tools/cltdb/" in led.headers["Set-Cookie"]
    foreign = {"Origin": "https://proxy.example"}
    assert client.post(f"/tools/cltdb{CALL}", json={}, headers=foreign).status_code == 403
    own = foreign | {"X-Forwarded-Host": "proxy.example"}
    assert client.post(f"/tools/cltdb{CALL}", json={}, headers=own).status_code != 403
    opened(database)


@pytest.mark.parametrize("host, prefix, alone", [("127.0.0.1", "/", True), ("0.0.0.0", "/", False), ("127.0.0.1", "/x/", False)])
def test_the_link_that_is_printed_has_a_token_where_others_may_reach_the_server(
    host, prefix, alone, database, monkeypatch, capsys
):
    made = []
    served = SimpleNamespace(port=8050, serve_forever=lambda: None)
    monkeypatch.setattr(app, "make_server", lambda host, port, server, **_: made.append(server) or served)
    project = SimpleNamespace(workspace=Path("artifacts"), root=Path(), database=Path("elsewhere"))
    app.serve(project, host, 0, database=database, prefix=prefix)
    said = capsys.readouterr()
    [token] = re.findall(r"\?token=([\w-]{32,})", said.out) or [None]
    assert (token is None) == alone and ("encrypted" in said.err) == (host == "0.0.0.0")
    client = made[0].test_client()
    assert client.get(f"{prefix}{STYLE[1:]}").status_code == (200 if alone else 403)
    assert client.get(f"{prefix}?token={token}").status_code == (200 if alone else 302)
    opened(database)


def test_every_answer_says_what_browsers_may_do_with_it(alone):
    for path, status in (("/", 200), (STYLE, 200), ("/_dash-layout", 200)):
        given = alone.get(path)
        assert given.status_code == status and security.HEADERS.items() <= dict(given.headers).items()
    assert "default-src 'self'" in alone.get("/", headers={"Host": "evil.example"}).headers["Content-Security-Policy"]
