"""The app around the pages: addresses, navigation, the prefix of a proxy, what is missing, and what a page file must hold."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import dash
import pytest
from command_line import PATIENCE_S, ROOT
from polars.testing import assert_frame_equal
from visit import answer, by_id, client_of, opened, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.database import instances, line, named_queries, store
from cltdb.database.export import export
from cltdb.database.store import connect
from cltdb.errors import CltdbError
from dashboards import ahead, app, urls
from dashboards.app import serve
from dashboards.graph import stored
from dashboards.jobs import Jobs
from dashboards.pages import features
from dashboards.shell import navigation

PAGES = sorted((ROOT / "dashboards/pages").glob("[!_]*.py"))
EXAMPLES = {
    "feature": urls.feature_url(world.DICT, *world.CAPITALS),
    "compare": urls.compare_url(world.GRAPH, world.SECOND_GRAPH),
    "run": urls.run_url("toy"),
}  # of pages whose address has variables


def ids_of(callback):
    outputs = callback["output"].strip(".").split("...")
    ids = {part["id"] for part in callback["inputs"] + callback["state"]} | {part.rpartition(".")[0] for part in outputs}
    return {name for name in ids if not name.startswith("{")}  # those stand for elements that come and go


def test_the_ids_of_every_callback_are_on_one_page(database, tmp_path):
    """A callback whose ids no page has never runs, and nothing says so."""
    client = opened(database, jobs=Jobs(tmp_path, tmp_path))
    names = {page["module"].rpartition(".")[2]: page["path"] for page in dash.page_registry.values()} | EXAMPLES
    layouts = [show(database, url, client=client) for url in names.values()]
    shell = by_id(client.get("/_dash-layout").json).keys()
    pages = [by_id(layout).keys() | shell for layout in layouts]
    callbacks = [callback for callback in client.get("/_dash-dependencies").json if "_pages_store" not in str(callback)]
    assert len(callbacks) >= 9
    assert [callback["output"] for callback in callbacks if not any(ids_of(callback) <= page for page in pages)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_names_the_queries_it_reads(path):
    module, source = sys.modules[f"dashboards.pages.{path.stem}"], path.read_text()
    asked = set(re.findall(r'data\.query\(\s*"(\w+)"', source))
    assert asked == set(module.QUERIES) and source.count("data.query(") == len(re.findall(r'data\.query\(\s*"', source))
    assert asked <= {found.name for found in named_queries.list_queries()}


@pytest.mark.parametrize(
    "url, title, text",
    [
        ("/", "Overview · cltdb", "Trainings that are not finished"),
        ("/runs", "Runs · cltdb", "time of stages"),
        (urls.run_url("toy"), "toy · Run · cltdb", "Stages"),
        (urls.run_url("a b/c"), "a b/c · Run · cltdb", "There is no experiment a b/c"),
        ("/sql", "SQL · cltdb", "Find a table"),
        ("/features", "Features · cltdb", "What it is about"),
        ("/features/", "Features · cltdb", "What it is about"),
        ("/frontier", "Frontier · cltdb", "Held-out FVU"),
        ("/graph", "The capital of France is · Graphs · cltdb", "Search in the graph"),
        (urls.graph_url(world.GRAPH), "The capital of France is · Graphs · cltdb", "Search in the graph"),
        (urls.graph_url("a b/c"), "There is no graph a b/c · Graphs · cltdb", "There is no graph a b/c"),
        (urls.feature_url("d-1", 2, 7), "There is no feature 2:7 · Feature 2:7 · cltdb", "There is no feature 2:7"),
        (urls.feature_url("a b/%2F", 2, 7), "There is no feature 2:7 · Feature 2:7 · cltdb", "of dictionary a b/%2F"),
        ("/feature/d/x/7", "There is no such page · Feature x:7 · cltdb", "There is no such page"),
        ("/feature/d/1/99999999999999999999", None, "There is no such page"),
        ("/feature/d/1", "There is no such page · cltdb", "There is no such page"),
        ("/nowhere", "There is no such page · cltdb", "Pages are Overview, Runs, "),
    ],
)
def test_addresses(database, url, title, text):
    given = answer(client_of(database), url)
    assert title in (None, given["_pages_store"]["data"]["title"])
    assert text in texts(given["_pages_content"]["children"])


def test_fields_of_an_address_that_no_page_knows_are_left_alone(database):
    for url in ("/", "/frontier", "/features", "/graph", EXAMPLES["feature"], "/nowhere"):
        changed = page_text(database, url, "?utm=1&self=2&page=3&given=4") != page_text(database, url)
        assert not changed, url
    assert by_id(show(database, "/features", "?text=Paris+is&text=b"))[features.TEXT]["value"] == "Paris is"


def test_the_navigation_has_the_pages_in_order_and_marks_the_current_one():
    def marked(pathname):
        return [link.children for link in navigation(pathname) if "here" in link.className]

    known = [
        ("Overview", "/"),
        ("Runs", "/runs"),
        ("Frontier", "/frontier"),
        ("Features", "/features"),
        ("Graphs", "/graph"),
        ("Ask", "/ask"),
        ("SQL", "/sql"),
    ]
    links = [(link.children, link.href) for link in navigation(None)]
    assert [link for link in links if link in known] == known and len(links) == len(dict(links))
    assert marked("/") == ["Overview"] and marked("/frontier") == ["Frontier"] and marked("/graph/a%20b") == ["Graphs"]
    assert marked("/runs") == marked("/run/a%2Fb") == ["Runs"] and marked("/sql") == ["SQL"]
    assert marked("/features") == marked("/feature/d/1/2") == ["Features"] and marked("/nowhere") == marked(None) == []


NEW_PAGE = '''"""Layers of all dictionaries."""

import dash
from dash import Input, Output, callback, dcc, html

from dashboards import data
from dashboards.components import notice

dash.register_page(__name__, path="/layers", name="Layers", title="Layers · cltdb", order=2.5)
QUERIES = ("layers_of_dictionaries",)
CHOICE, TEXT = "layers-choice", "layers-text"


def layout(**_):
    rows = data.query("layers_of_dictionaries").rows()
    return html.Main([dcc.Dropdown([name for name, _ in rows], id=CHOICE), html.P(id=TEXT), html.P(f"{rows[0][1]} layers")])


@callback(Output(TEXT, "children"), Input(CHOICE, "value"))
def choose(dict_id):
    return dict_id
'''
NEW_QUERY = """-- How deep dictionaries are.
-- Grain: one row per dict_id.
-- Order: dict_id.
-- Reads: dictionaries.
-- Parameters: none

SELECT dict_id, n_layers FROM dictionaries ORDER BY dict_id
"""
VISIT = """
import json, sys
from pathlib import Path
from visit import answer, opened, texts
from dashboards import data
from dashboards.shell import navigation

client = opened(Path(sys.argv[1]))
shown = {url: texts(answer(client, url)["_pages_content"]["children"]) for url in sys.argv[3:]}
said = {"navigation": [link.children for link in navigation("/layers")]}
said["here"] = [link.children for link in navigation("/layers") if "here" in link.className]
said |= {"pages": shown, "callbacks": [callback["output"] for callback in client.get("/_dash-dependencies").json]}
said["torch"] = {"pages": "torch" in sys.modules}
from dashboards.graph import pruned
with client.application.app_context():
    sent = pruned.pruned_graph(sys.argv[2], node_share=0.8, edge_share=0.98)
said |= {"kept": len(sent["kept"]), "torch": said["torch"] | {"graph": "torch" in sys.modules}}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def with_a_new_page(database, tmp_path_factory):
    """What a process finds in which a page and its query were dropped into their folders."""
    root = tmp_path_factory.mktemp("copied")
    for folder in ("cltdb", "dashboards"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("*.pyc.*", "model.safetensors"))
    (root / "dashboards/pages/layers.py").write_text(NEW_PAGE)
    (root / "cltdb/database/queries/layers_of_dictionaries.sql").write_text(NEW_QUERY)
    urls_of_pages = ["/layers", "/", "/frontier", "/features", "/graph", "/ask", "/attribute", EXAMPLES["feature"], "/nowhere"]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{Path(__file__).parent}"}
    command = [sys.executable, "-c", VISIT, str(database), world.GRAPH, *urls_of_pages]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_a_file_dropped_into_the_folder_is_a_page(with_a_new_page):
    found = with_a_new_page
    place = found["navigation"].index("Layers")
    assert found["navigation"][place - 1 : place + 2] == ["Features", "Layers", "Graphs"] and found["here"] == ["Layers"]
    assert f"{world.N_LAYERS} layers" in found["pages"]["/layers"] and "layers-text.children" in found["callbacks"]
    assert ", Layers, " in found["pages"]["/nowhere"] and world.DICT in found["pages"]["/"]


def test_no_page_loads_torch(with_a_new_page):
    assert not with_a_new_page["torch"]["pages"]


def test_drawing_a_graph_loads_no_torch(with_a_new_page):
    assert with_a_new_page["kept"] > 10
    assert not with_a_new_page["torch"]["graph"]


def test_missing_and_empty_database_say_what_to_do(tmp_path):
    path, urls = tmp_path / "cltdb.duckdb", ("/", "/features", "/graph", "/feature/d/0/0", "/frontier")
    for url in urls:
        assert "cltdb run" in page_text(path, url), url
    with connect(path, write=True):
        pass
    for url in urls:
        shown = page_text(path, url)
        assert "Run" in shown or "cltdb" in shown, url


@pytest.mark.parametrize("url", ["/nowhere", "/graph/none", "/feature/none/0/0"])
def test_what_is_not_there_says_so(database, url):
    assert "There is no" in page_text(database, url)


def test_a_broken_database_is_a_notice(tmp_path):
    path = tmp_path / "cltdb.duckdb"
    path.write_bytes(b"not a database" * 1000)
    assert "rebuild" in page_text(path, "/")


def test_a_page_waits_for_a_writer_and_says_so_where_that_takes_too_long(database, monkeypatch):
    shown, waits, took = [], threading.Event(), line.took
    page = threading.Thread(target=lambda: shown.append(page_text(database, "/")))
    with store.connect(database, write=True):
        monkeypatch.setattr(line, "took", lambda *given: took(*given) or waits.set() or False)
        page.start()
        assert waits.wait(PATIENCE_S)
        page.join(0.1)
        assert not shown
        monkeypatch.setattr(store, "READ_TIMEOUT_S", 0.1)
        assert "expected" in page_text(database, "/frontier").lower()
    page.join(PATIENCE_S)
    assert world.DICT in shown[0]


def test_pages_open_the_database_once_and_for_reading_only(database, monkeypatch):
    asked = []
    original = store._open
    monkeypatch.setattr(store, "_open", lambda path, **options: asked.append(options) or original(path, **options))
    for url in ("/", "/features", "/frontier", urls.feature_url(world.DICT, 2, 7), "/graph"):
        show(database, url)
    assert [options["write"] for options in asked] == [False] * 5


def test_nothing_is_loaded_from_elsewhere(database):
    index = client_of(database).get("/")
    assert "default-src 'self'" in index.headers["Content-Security-Policy"]
    assert "http://" not in index.text.replace("http://localhost", "") and "https://" not in index.text


@pytest.fixture
def under_a_prefix(database):
    """A test client of the app as a proxy shows it under /tools/cltdb/."""
    yield opened(database, prefix="/tools/cltdb/")
    opened(database)  # addresses are those of the newest app


@pytest.mark.parametrize("stripped", [True, False])
def test_behind_a_proxy_every_address_begins_with_its_path(under_a_prefix, stripped):
    """Whether or not the proxy takes its path off."""
    before = "" if stripped else "/tools/cltdb"
    page = under_a_prefix.get(f"{before}/feature/tiny/0/1").text
    addresses = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    assert addresses and all(address.startswith("/tools/cltdb/") for address in addresses)
    for address in addresses:
        assert under_a_prefix.get(before + address.removeprefix("/tools/cltdb")).status_code == 200
    assert under_a_prefix.get(f"{before}/_dash-layout").status_code == 200


def test_browsers_keep_scripts_and_styles_whose_address_changes_with_them(tmp_path, monkeypatch):
    client = opened(Path("no.duckdb"))
    own = re.findall(r'(?:src|href)="(/assets/[^"]*)"', client.get("/").text)
    assert len(own) > 20 and all("immutable" in client.get(address).headers["Cache-Control"] for address in own)
    assert "immutable" not in client.get("/").headers.get("Cache-Control", "")
    assert "immutable" not in client.get(f"/{app.assets_path()}/gone.js").headers.get("Cache-Control", "")
    before = app.assets_path()
    monkeypatch.setattr(app, "ASSETS", shutil.copytree(app.ASSETS, tmp_path / "assets"))
    assert app.assets_path() == before
    (tmp_path / "assets/style.css").write_text("")
    assert app.assets_path() != before


def test_a_page_is_made_once_ahead_of_the_question_for_it(database, monkeypatch):
    application, found = app.create_app(database).server, []
    ahead.install(application)
    client = application.test_client()
    client.get("/_dash-layout")
    page = sys.modules["dashboards.pages.feature"]  # of this app, which imported it anew
    facts = page.facts
    path, other = (urls.feature_url(world.DICT, *key) for key in (world.CAPITALS, world.DEAD))
    expected = show(None, path, client=client)
    noted = lambda database, **key: found.append(key["feature"]) or facts(database, **key)  # noqa: E731
    monkeypatch.setattr(page, "facts", noted)
    given = []
    for times, fresh_s in (
        (1, PATIENCE_S),
        (2, PATIENCE_S),
        (3, 0),
    ):  # made ahead; given once, so made anew; made ahead, but too long ago
        monkeypatch.setattr(ahead, "FRESH_S", fresh_s)
        if times != 2:
            assert client.get(path, environ_overrides={"REQUEST_URI": path}).status_code == 200
        assert show(None, other, client=client) != expected
        given.append(show(None, path, client=client))
        n = found.count(world.CAPITALS[1])
        assert n == times if fresh_s else n >= times
    assert given == [expected] * 3


def test_links_and_routes_know_the_prefix(under_a_prefix):
    assert urls.feature_url("d", 1, 2) == "/tools/cltdb/feature/d/1/2"
    assert "There is no feature 1:2" in texts(show(None, "/tools/cltdb/feature/d/1/2", client=under_a_prefix))
    for url in ("/tools/cltdb/", "/tools/cltdb"):
        assert world.DICT in texts(show(None, url, client=under_a_prefix))
    assert "There is no feature 1:2" in texts(show(None, "/feature/d/1/2", client=under_a_prefix)), "beside the proxy"
    assert {link.href for link in navigation("/tools/cltdb/")} >= {"/tools/cltdb/", "/tools/cltdb/frontier"}


@pytest.mark.parametrize("prefix", ["", "cltdb", "/cltdb", "cltdb/", "//x/", "/a b/", "/'/", "/x?/"])
def test_a_prefix_is_a_path(prefix):
    with pytest.raises(CltdbError, match="--prefix"):
        serve(Path("project"), "127.0.0.1", 0, prefix=prefix, database=Path("project/cltdb.duckdb"))


def rounded(shown):
    """A page with its numbers to 12 digits: sums of floats are added up in another order."""
    if isinstance(shown, dict):
        return {name: rounded(value) for name, value in shown.items()}
    if isinstance(shown, list):
        return [rounded(value) for value in shown]
    return float(f"{shown:.12g}") if isinstance(shown, float) else shown


def test_an_exported_folder_shows_the_same_pages(database, tmp_path):
    export(database, tmp_path / "exported")
    for url in ("/", "/runs", EXAMPLES["run"], "/frontier", "/features", EXAMPLES["feature"], urls.graph_url(world.GRAPH)):
        assert rounded(show(tmp_path / "exported", url)) == rounded(show(database, url)), url
    for ask in (
        lambda: features.hits("capital", dict_id=world.DICT)[0],
        lambda: stored.graph(world.GRAPH).edges,
    ):
        answers = []
        for path in (database, tmp_path / "exported"):
            with client_of(path).application.app_context():
                answers.append(ask())
        assert_frame_equal(*answers, rel_tol=1e-12)
        assert answers[0].height


@pytest.mark.parametrize("prefix", ["/", "/tools/cltdb/"])
def test_scripts_of_tables_and_small_graphs_are_served_but_not_part_of_the_document(database, prefix):
    client = opened(database, prefix=prefix)
    page = client.get("/").text
    assert not re.search(r'src="[^"]*dash_(ag_grid|cytoscape)', page) and 'src="' in page
    held = json.loads(re.search(r'id="cltdb-bundles" type="application/json">(.*?)</script>', page)[1])
    assert {name: library["components"] for name, library in held.items()} == {
        "dash_ag_grid": ["AgGrid"],
        "dash_cytoscape": ["Cytoscape"],
    }
    for library in held.values():
        assert library["url"].startswith(f"{prefix}_dash-component-suites/")
        assert len(client.get(library["url"].removeprefix(prefix.rstrip("/"))).data) > 400_000
    opened(database)


def test_a_server_gets_ready_before_it_is_asked(database, tmp_path):
    """What the first page would load is there; a database that is missing still is left to the pages."""
    app.get_ready(tmp_path / "none.duckdb")
    app.get_ready(database)
    assert "plotly.io" in sys.modules
    assert instances._kept[False, None].path == instances._kept[False, 1].path == Path(database).absolute()
