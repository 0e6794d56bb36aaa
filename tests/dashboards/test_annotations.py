"""What users make, as the server takes, keeps and gives it."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import visit
from command_line import PATIENCE_S
from worlds import capitals_experiment as world
from worlds import random_experiment

from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES, GRAPH
from cltdb.database.annotated import save_events
from cltdb.database.api import Database
from cltdb.database.store import connect
from cltdb.spec import Project
from dashboards import annotations, urls
from dashboards.annotations import Store, store_of
from dashboards.feature import table
from dashboards.graph import steering
from dashboards.pages import features as features_page
from dashboards.pages import graph as graph_page
from dashboards.pages import starred
from dashboards.writer import Writer

HOSTILE = "<img src=x onerror=alert(1)> \u202e javascript:alert(1) \ud800".encode("utf-16", "surrogatepass").decode(
    "utf-16", "replace"
)


class Woken:
    """A writer that only counts."""

    n = 0

    def wake(self):
        self.n += 1


@pytest.fixture
def saving(database, tmp_path):
    """(client of pages that save, its Store)."""
    store = Store(tmp_path / "w", Woken())
    return visit.opened(database, store=store), store


def send(client, *operations, status=200, **subject):
    answer = client.post("/annotations", json={**(subject or {GRAPH: world.GRAPH}), "operations": list(operations)})
    assert answer.status_code == status, answer.text
    return answer.json


def given(client, **fields):
    answer = client.get("/annotations", query_string=fields or {GRAPH: world.GRAPH})
    return answer.status_code, answer.json if answer.status_code == 200 else None


def test_what_is_sent_is_kept_and_given_to_all(saving, database):
    client, store = saving
    other = visit.opened(database, store=store)
    first = given(other)[1]
    assert first["writable"] and first["pinned"] == [] and first["groups"] == []
    assert given(other, **{GRAPH: world.GRAPH, "revision": first["revision"]}) == (204, None)
    operations = [
        {"id": "e1", "op": "pin", "nodes": [0, 1]},
        {"id": "e2", "op": "group-create", "group": "g", "name": HOSTILE, "nodes": [1]},
        {"id": "e3", "op": "note", "text": "of the graph"},
    ]
    told = send(client, *operations)
    assert send(client, *operations) == told  # a browser that got no answer sends again
    assert given(other, **{GRAPH: world.GRAPH, "revision": first["revision"]}) == (200, told)
    assert told["pinned"] == [0, 1] and told["notes"] == {"graph": "of the graph"}
    [group] = told["groups"]
    assert group["nodes"] == [1] and "\u202e" not in group["name"] and "<img src=x onerror=alert(1)>" in group["name"]
    send(other, {"op": "undo", "event": "e1"})
    assert given(client)[1]["pinned"] == [] and store.writer.n == 3
    changes = [("note", False), ("group-create", False), ("pin", True)]
    for limit in (2, 3, ""):
        history = client.get("/annotations", query_string={GRAPH: world.GRAPH, "history": limit}).json
        assert [(event["op"], event["undone"]) for event in history["changes"]] == changes[: limit or None] and history["n"] == 3


def test_a_page_begins_with_what_is_stored(saving, database):
    client, _ = saving
    send(client, {"op": "pin", "nodes": [2]})
    page = visit.show(database, f"/graph/{world.GRAPH}", client=client)
    assert visit.by_id(page)["graph-annotations"]["data"]["pinned"] == [2]


def test_labels_of_features_reach_the_nodes_of_graphs(saving, database):
    client, _ = saving
    rows = (
        Database(database)
        .sql(f"SELECT node_id, layer, feature FROM nodes WHERE graph_id = '{world.GRAPH}' AND kind = 'feature'")
        .rows()
    )
    node, layer, feature = rows[0]
    before = given(client)[1]["revision"]
    told = send(client, {"op": "label", "layer": layer, "feature": feature, "text": "mine"}, **{FEATURES: world.DICT})
    assert told["labels"] == {f"{layer}:{feature}": "mine"}
    after = given(client, **{GRAPH: world.GRAPH, "revision": before})[1]
    assert after["labels"] == {str(one): "mine" for one, *place in rows if place == [layer, feature]}
    send(client, {"op": "label", "node": node, "text": "here"})
    assert given(client)[1]["labels"][str(node)] == "here"


def test_a_graph_that_was_made_again_has_its_new_proposals(database, tmp_path):
    path = Path(shutil.copy(database, tmp_path))
    client = visit.opened(path, store=Store(tmp_path / "w", Woken()))
    before = given(client)[1]["proposals"]
    with connect(path, write=True) as connection:
        connection.execute(
            "INSERT INTO supernodes (supernode_id, graph_id, name, node_ids, artifact_key) VALUES (?, ?, 'new', [1], 'k')",
            [f"{world.GRAPH}-group-99", world.GRAPH],
        )
    assert [one["name"] for one in given(client)[1]["proposals"] if one not in before] == ["new"]


def test_own_labels_stand_first_in_the_table_of_features(saving):
    client, store = saving
    send(client, {"op": "label", "layer": 2, "feature": 7, "text": "mine"}, **{FEATURES: world.DICT})
    with client.application.app_context():
        labels = annotations.labels_of(world.DICT)
        found = table.part(
            {"dict_id": world.DICT, "about": "MINE"}, first=0, limit=9, query=features_page.ask, search=None, own=labels
        )
    assert [(row["name"], row["text"].split(" · ")[0]) for row in found.rows] == [("2:7", "own: mine")]


def test_starred_features_of_all_dictionaries_are_listed_the_last_first(saving):
    client, _ = saving
    assert "Nothing is starred yet" in visit.texts(visit.show(None, urls.STARRED, client=client))
    stars = {world.DICT: [[2, 7], [0, 4]], world.OTHER_DICT: [[1, 3]]}
    for dict_id, features in stars.items():
        send(client, {"op": "list-create", "list": "starred", "name": "Starred", "features": features}, **{FEATURES: dict_id})
    place, about = {"layer": 2, "feature": 7}, {FEATURES: world.DICT}
    send(client, {"op": "list-create", "list": "mine", "name": HOSTILE, "features": [[2, 7]]}, **about)
    send(client, {"op": "label", **place, "text": "my own"}, {"op": "note", **place, "text": "look again"}, **about)
    send(client, {"op": "unstar", "list": "starred", "features": [[0, 4]]}, **about)

    def rows(search=""):
        """(feature, dictionary) of each row, and all that the page says."""
        page = visit.show(None, urls.STARRED, search, client=client)
        links = [part["href"] for part in visit.elements(page) if part.get("className") == "feature-link"]
        return [tuple(link.split("/")[2:]) for link in links], visit.texts(page)

    found, said = rows()
    assert found == [(world.DICT, "2", "7"), (world.OTHER_DICT, "1", "3")] and "2 features" in said
    assert "my own" in said and "look again" in said and "names of countries" in said and "not explained" in said
    assert rows("?list=Starred")[0] == found and rows(f"?dict_id={world.OTHER_DICT}")[0] == found[1:]
    assert rows("?list=gone")[0] == found
    with client.application.test_request_context():
        name = annotations.features_of(world.DICT).lists[-1].name
        link = starred.choose(name, None)[1]
        assert visit.texts(starred.choose(name, world.OTHER_DICT)[0]).startswith("0 features")
    assert rows(link.removeprefix(urls.STARRED))[0] == found[:1]


def test_own_labels_stand_in_place_of_explanations_on_pages_of_two_dictionaries(random_database, tmp_path):
    client = visit.opened(random_database, store=Store(tmp_path / "w", Woken()))
    database, dict_ids = Database(random_database), (random_experiment.DICT, random_experiment.OLD)
    for dict_id in dict_ids:
        keys = database.sql("SELECT layer, feature FROM features WHERE dict_id = ?", [dict_id]).rows()
        labels = [{"op": "label", "layer": key[0], "feature": key[1], "text": f"{dict_id} {key[0]}:{key[1]}"} for key in keys]
        send(client, *labels, **{FEATURES: dict_id})
    matches, isolation = (visit.texts(visit.show(None, url, client=client)) for url in (urls.MATCHES, urls.ISOLATION))
    changed, split = database.query("match_changes").to_dicts(), database.query("match_splits").to_dicts()
    for row in changed:
        assert f"{row['dict_id']} {row['layer']}:{row['feature']}" in matches
    for row in split:
        one, other = dict_ids if row["relation"] == "split" else reversed(dict_ids)
        assert f"{one} {row['layer']}:{row['one']}" in matches and f"{other} {row['layer']}:{row['feature']}" in matches
    raised = database.query("isolation_features", dict_id=random_experiment.DICT, limit=10_000).to_dicts()
    loudest = [row for row in raised if row["most_feature"] is not None][0]
    assert f"{random_experiment.DICT} {loudest['most_layer']}:{loudest['most_feature']}" in isolation
    page = visit.show(None, urls.feature_url(random_experiment.DICT, loudest["layer"], loudest["feature"]), client=client)
    assert f"{random_experiment.DICT} {loudest['most_layer']}:{loudest['most_feature']}" in visit.texts(page)
    texts = [row[name] for rows in (changed, split, raised) for row in rows for name in row if name.endswith("text")]
    shown = [text for text in set(texts) - {None} if text in matches + isolation]
    assert changed and split and set(texts) - {None} and shown == []


def test_own_labels_stand_in_place_of_explanations_where_features_are_named(saving, database):
    client, _ = saving
    layer, feature = world.CAPITALS
    send(client, {"op": "label", "layer": layer, "feature": feature, "text": "mine"}, **{FEATURES: world.DICT})
    neighbour = visit.show(None, urls.feature_url(world.DICT, *world.HOSTILE_FEATURE), client=client)
    assert "mine" in visit.texts(neighbour) and "names of countries" not in visit.texts(neighbour)
    address, _, fields = urls.compare_features_url((world.DICT, *world.CAPITALS), (world.DICT, *world.HOSTILE_FEATURE)).partition(
        "?"
    )
    both = visit.texts(visit.show(None, address, f"?{fields}", client=client))
    assert "own:  mine" in both and both.count("own:") == 1 and "names of countries" in both
    graphs = visit.texts(visit.show(None, urls.compare_url(world.GRAPH, world.SECOND_GRAPH), client=client))
    assert "mine" in graphs and "names of countries" not in graphs
    ends = "SELECT source_id, target_id FROM edges SEMI JOIN (SELECT graph_id, node_id AS source_id FROM nodes WHERE layer = ? AND feature = ?)"
    source, target = (
        Database(database).sql(f"{ends} USING (graph_id, source_id) WHERE graph_id = ?", [layer, feature, world.GRAPH]).row(0)
    )
    send(client, {"op": "label", "node": target, "text": "whither"})
    way = Database(database).sql("SELECT target_id FROM path_steps WHERE path_id = 0 AND step = 0").item(0, 0)
    send(client, {"op": "label", "node": way, "text": "on the way"})
    with client.application.test_request_context():
        for node, other, label in ((target, source, "mine"), (source, target, "whither")):
            named = {
                one["node"]: (one["name"], one["text"])
                for data in visit.drawn(graph_page.card_of(world.GRAPH, node), "ends")
                for one in data["ends"]
            }
            assert named[other][0].startswith(f"{label} @ ") and (label == "whither" or "names of countries" in named[other][1])
        asked = {
            "graph_id": world.GRAPH,
            "node_share": 1,
            "edge_share": 1,
            "path": {"from": source, "to": target},
            "stored_path": None,
        }
        between = visit.texts(graph_page.find_paths(asked, None)[1])
        assert "from mine @ " in between and "to whither @ " in between
        nodes = steering._nodes(world.GRAPH)
        change = [layer, feature, nodes[source]["position"], "set", 0.0]
        assert "mine @ " in visit.texts(steering.steer.changes([change], steering.steer.naming(nodes)))
        listed = visit.drawn(graph_page.find_paths(asked | {"path": None}, None)[2], "inputPaths")[0]["targets"][0]["paths"]
        assert listed[0]["line"][2] == "on the way" and "on the way @ " in listed[0]["title"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({GRAPH: world.GRAPH, "operations": [{"op": "pin", "nodes": [10**6]}]}, "which the graph does not have"),
        ({GRAPH: world.GRAPH, "operations": [{"op": "pin"}]}, "nothing"),
        (
            {FEATURES: world.DICT, "operations": [{"op": "label", "layer": 99, "feature": 0, "text": "x"}]},
            "dictionary does not have",
        ),
        ({"operations": []}, "0 subjects"),
        ({GRAPH: world.GRAPH, "operations": "x"}, "operations as JSON"),
        ([1], "operations as JSON"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_kept(saving, body, words):
    client, store = saving
    answer = client.post("/annotations", json=body)
    assert answer.status_code == 400 and words in " ".join(answer.json.values())
    assert not store.workspace.exists() and not store.writer.n


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({GRAPH: "<script>", "operations": [{"op": "pin", "nodes": [1]}]}, "no graph '<script>'"),
        ({FEATURES: "none", "operations": [{"op": "note", "layer": 0, "feature": 0, "text": "x"}]}, "no dictionary 'none'"),
    ],
)
def test_what_the_database_does_not_have_now_may_be_sent_again(saving, body, words):
    """A browser drops what is answered with 400, and keeps what is answered with 503."""
    client, store = saving
    answer = client.post("/annotations", json=body)
    assert answer.status_code == 503 and words in " ".join(answer.json.values())
    assert not store.workspace.exists() and not store.writer.n


def test_requests_of_other_sites_change_nothing(saving):
    client, store = saving
    body = {GRAPH: world.GRAPH, "operations": [{"op": "pin", "nodes": [1]}]}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        assert client.post("/annotations", json=body, headers=headers).status_code == 403
    assert not store.workspace.exists()


def test_pages_over_another_database_show_its_rows_and_save_nothing(database, tmp_path):
    other = shutil.copy(database, tmp_path / "other.duckdb")
    save_events(other, Log(tmp_path / "w", GRAPH, world.GRAPH).append([{"op": "pin", "nodes": [3]}]))
    client = visit.opened(other)
    told = given(client)[1]
    assert told["pinned"] == [3] and not told["writable"]
    assert given(client, **{GRAPH: world.GRAPH, "revision": told["revision"]}) == (204, None)
    assert "the project's own" in " ".join(send(client, {"op": "pin", "nodes": [1]}, status=400).values())


def test_the_graph_as_a_file(saving):
    client, _ = saving
    send(client, {"op": "pin", "nodes": [0]}, {"op": "group-create", "group": "g", "name": "two", "nodes": [0, 1]})
    answer = client.get("/graph.json", query_string={GRAPH: world.GRAPH, "node": "1", "edge": "1", "selected": "0"})
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{world.GRAPH}.json"'
    file = json.loads(answer.data)
    [[name, *members]] = file["qParams"]["supernodes"]
    assert name == "two" and file["qParams"]["pinnedIds"] == members and file["qParams"]["clickedId"] == members[0]
    assert {node["node_id"] for node in file["nodes"]} >= set(members)
    assert client.get("/graph.json", query_string={GRAPH: "gone"}).status_code == 404


def test_a_full_disk_is_said_and_the_browser_may_try_again(saving, monkeypatch):
    client, _ = saving

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr("os.fsync", full)
        assert "no room to write" in send(client, {"id": "e", "op": "pin", "nodes": [1]}, status=507)["found"]
    assert send(client, {"id": "e", "op": "pin", "nodes": [1]})["pinned"] == [1]


def test_the_writer_brings_rows_in_once_others_let_go(database, tmp_path, monkeypatch):
    """While another process writes, the log and the pages have what is not in the database yet."""
    (tmp_path / "cltdb.yaml").write_text("{}\n")
    shutil.copy(database, tmp_path / "cltdb.duckdb")
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    monkeypatch.setattr("dashboards.writer.DELAY_S", 0.05)
    store = store_of(project)
    client = visit.opened(project.database, store=store)
    given(client)
    try:
        with connect(project.database, write=True):
            assert send(client, {"op": "pin", "nodes": [1]})["pinned"] == [1]
            send(client, {"op": "pin", "nodes": [2]})
            assert given(client)[1]["pinned"] == [1, 2]
        end = time.monotonic() + PATIENCE_S
        while Database(project.database).query("annotation_list").height < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert Database(project.database).query("annotation_list")["node_id"].sort().to_list() == [1, 2]
    finally:
        store.writer.close()
    assert isinstance(store.writer, Writer) and store.writer._process is None


def test_a_writer_whose_process_was_killed_says_so_and_starts_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dashboards.writer.DELAY_S", 0.01)
    (tmp_path / "x.duckdb").touch()
    writer, started = Writer(tmp_path, tmp_path / "x.duckdb"), []

    def killed():
        started.append(subprocess.Popen(["sh", "-c", "kill -9 $$"], stderr=subprocess.PIPE, text=True))
        return started[-1]

    monkeypatch.setattr(writer, "_start", killed)
    for n in (1, 2):
        writer.wake()
        end = time.monotonic() + PATIENCE_S
        while writer._thread is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert len(started) == n and writer._thread is None
    assert caplog.text.count("not in the database yet: the process ended with SIGKILL") == 2
    writer.close()
    writer.wake()
    assert len(started) == 2 and writer._thread is None
