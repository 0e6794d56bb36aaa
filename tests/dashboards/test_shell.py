"""What surrounds the pages: titles of tabs, the masthead, what is shown while a first run goes on."""

import shutil

import pytest
from dash import html
from visit import answer, client_of, elements, opened, show, texts
from worlds import capitals_experiment as world

from cltdb.__main__ import main
from cltdb.database.store import connect
from dashboards import app, shell, urls
from dashboards.runs import live, underway

TRAINING = underway.Running(
    experiment="toy", stage="train", key="k", seconds=12.0, host="here", device="cpu", label="train", done=100, total=400, unit="steps",
    per_second=2.0, note=None, left_s=150.0, like=None,
)  # fmt: skip


@pytest.mark.parametrize(
    "content, named, expected",
    [
        (html.Main([html.H1("Overview")]), "Overview · cltdb", "Overview · cltdb"),
        (
            html.Main([html.Header(html.H1(["capital of", " ", html.B("0.9")]))]),
            "Feature 2:7 · cltdb",
            "capital of · Feature 2:7 · cltdb",
        ),
        (html.Main([html.H1("Graph")], **{"data-subject": "a\u202eb\n<b>"}), "Graphs · cltdb", "a\\u202eb⏎<b> · Graphs · cltdb"),
        (html.Section([html.H2("x" * 10_000)]), "cltdb", "x" * 69 + "… · cltdb"),
        (html.Main("text"), "cltdb", "cltdb"),
    ],
)
def test_the_title_of_a_tab_tells_subject_and_page(content, named, expected):
    assert shell.title(content, named) == expected


def test_the_masthead_says_which_database_in_which_folder(tmp_path):
    source = [part for part in elements(shell.shell(tmp_path / "mine" / "cltdb.duckdb")) if "source" in part.get("className", "")]
    assert [(part["children"], part["title"]) for part in source] == [("mine/cltdb.duckdb", str(tmp_path / "mine/cltdb.duckdb"))]


@pytest.mark.parametrize("url", ["/frontier", "/features", "/graph", "/feature/d/0/0"])
def test_during_a_first_run_pages_say_how_far_it_is(tmp_path, monkeypatch, url):
    path = tmp_path / "cltdb.duckdb"
    client = opened(path)
    assert "run `cltdb run SPEC` first" in texts(show(path, url, client=client)).replace("\n", " ") or "cltdb run" in texts(
        show(path, url, client=client)
    )
    monkeypatch.setattr(live, "running", lambda only: [TRAINING])
    page = show(path, url, client=client)
    for expected in ("Under way", "toy", "train", "100 of 400 steps", "Nothing to show yet"):
        assert expected in texts(page), expected
    assert "waits" in page["props"]["className"] and "no database" not in texts(page)
    with connect(path, write=True):
        pass
    page = show(path, url, client=client)
    assert "100 of 400 steps" in texts(page) and "Nothing to show yet" not in texts(page)


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>", "javascript:alert(1)", "a\u202eb\u200d", "x" * 10_000, "%00", "..%2F..%2Fetc", "\ud83d"],
)
def test_hostile_addresses_are_text(database, name):
    for url in (
        urls.graph_url(name.encode("utf-8", "replace").decode()),
        f"/{name}",
        f"/feature/{name}/1/2",
        f"/feature/d/{name}/2",
    ):
        given = answer(client_of(database), url)
        assert "There is no" in texts(given["_pages_content"]["children"]) and len(given["_pages_store"]["data"]["title"]) < 200
    assert world.DICT in texts(show(database, "/", f"?dict_id={name}&{name}=1"))


@pytest.mark.parametrize("option", ["--database", "--from"])
def test_the_database_of_another_project_is_shown_as_that_projects(database, tmp_path, monkeypatch, option):
    path = shutil.copy(database, tmp_path / "cltdb.duckdb")
    asked = []
    monkeypatch.setattr(app, "serve", lambda project, *_, **given: asked.append((project.root, given["database"])))
    for source in (path, database):
        assert main(["dash", option, str(source)]) == 0
    assert asked[0] == (tmp_path, path) and asked[1][1] == database
