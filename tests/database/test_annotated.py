"""What users made as rows: loaded, rebuilt, merged, exported; with graphs that come and go."""

import shutil

import pytest
from compare_databases import differences
from polars.testing import assert_frame_equal
from worlds import tiny_experiment as world
from worlds.tables import contents, write_artifact

from cltdb.annotations.log import Log, all_events, all_logs
from cltdb.annotations.operations import FEATURES, GRAPH
from cltdb.annotations.state import graph_state
from cltdb.database.annotated import event_of, save_events
from cltdb.database.api import Database
from cltdb.database.artifacts import bring_in, rebuild_database, remove, save_annotations
from cltdb.database.check import check
from cltdb.database.export import export
from cltdb.database.load import save_records
from cltdb.database.merge import merge
from cltdb.database.rebuild import rebuild
from cltdb.database.store import connect
from cltdb.engine.upkeep import collect_garbage
from cltdb.spec import Project
from cltdb.stages import STAGES

GRAPH_ID = "france-aaaa1111"
HOSTILE = "<img src=x onerror=alert(1)>'); DROP TABLE annotations; --"


def annotate(workspace, author="me"):
    Log(workspace, GRAPH, GRAPH_ID).append(
        [
            {"op": "pin", "nodes": [0, 1, 5]},
            {"op": "group-create", "group": "g1", "name": HOSTILE, "nodes": [0, 1, 4000], "note": "why"},
            {"op": "hide", "nodes": [3]},
            {"op": "unpin", "nodes": [5]},
            {"op": "label", "node": 1, "text": "own name"},
            {"op": "note", "text": "of the graph"},
        ],
        author=author,
    )
    Log(workspace, FEATURES, world.DICT).append(
        [
            {"op": "label", "layer": 0, "feature": 1, "text": HOSTILE},
            {"op": "note", "layer": 1, "feature": 0, "text": "a\nb"},
            {"op": "list-create", "list": "l1", "name": "to read", "features": [[1, 1], [0, 99]]},
        ],
        author=author,
    )
    Log(workspace, GRAPH, "gone-00000000").append([{"op": "pin", "nodes": [1]}], author=author)
    return all_events(workspace)[0]


def rows_of(path):
    db = Database(path)
    annotations = db.sql("SELECT kind, graph_id, node_id, layer, feature, list, text FROM annotations ORDER BY ALL").rows()
    return annotations, db.sql("SELECT name, node_ids, note, author FROM supernodes WHERE artifact_key IS NULL").rows()


EXPECTED = (
    [
        ("hide", GRAPH_ID, 3, None, None, None, None),
        ("label", GRAPH_ID, 1, None, None, None, "own name"),
        ("label", None, None, 0, 1, None, HOSTILE),
        ("note", GRAPH_ID, None, None, None, None, "of the graph"),
        ("note", None, None, 1, 0, None, "a\nb"),
        ("pin", GRAPH_ID, 0, None, None, None, None),
        ("pin", GRAPH_ID, 1, None, None, None, None),
        ("star", None, None, 1, 1, "to read", None),
    ],
    [(HOSTILE, [0, 1], "why", "me")],
)
"""Without node 4000, feature 0:99 and graph gone, which the database does not have."""


def test_rows_are_what_the_logs_amount_to(database, artifacts, tmp_path):
    events = annotate(tmp_path / "w")
    assert save_events(database, events) and not save_events(database, events)
    assert rows_of(database) == EXPECTED
    assert check(database, artifacts=artifacts, events=events, full=True) == []
    stored = Database(database).query("annotation_history")
    assert [event_of(row) for row in stored.rows()] == sorted(events, key=lambda event: event["at"])
    cards = Database(database).feature_cards(world.DICT).filter(own_label=HOSTILE).select("layer", "feature", "text").rows()
    assert cards == [(0, 1, "fires on 'France' (rules)")]
    Log(tmp_path / "w", GRAPH, GRAPH_ID).append([{"op": "group-delete", "group": "g1"}, {"op": "unhide", "nodes": [3]}])
    later = all_events(tmp_path / "w")[0]
    [problem] = check(database, artifacts=artifacts, events=later)
    assert problem.startswith("annotation_events: 2 events of the logs")
    save_events(database, later)
    assert rows_of(database) == (EXPECTED[0][1:], [])


def test_a_star_is_of_who_set_it_and_when(database, tmp_path):
    """Not of who made the list."""
    annotate(tmp_path / "w")
    log = Log(tmp_path / "w", FEATURES, world.DICT)
    star = {"op": "star", "list": "l1", "features": [[0, 1]]}
    log.append([star, {**star, "op": "unstar"}], author="you")
    [set_anew] = log.append([star], author="she")
    log.append([star], author="late")
    save_events(database, log.events())
    rows = Database(database).sql("SELECT layer, author, created_at FROM annotations WHERE kind = 'star' ORDER BY layer").rows()
    assert [row[:2] for row in rows] == [(0, "she"), (1, "me")]
    assert rows[0][2].isoformat() == set_anew["at"].removesuffix("+00:00")


def test_rows_that_someone_changed_are_found_and_made_anew(database, tmp_path):
    events = annotate(tmp_path / "w")
    save_events(database, events)
    with connect(database, write=True) as connection:
        connection.execute(
            "DELETE FROM annotations WHERE kind = 'star'; UPDATE supernodes SET name = 'x' WHERE artifact_key IS NULL"
        )
    assert [problem.partition(":")[0] for problem in check(database)] == ["annotations", "supernodes"]
    assert save_events(database, events) and check(database) == [] and rows_of(database) == EXPECTED


def test_a_rebuilt_database_has_them_again(database, artifacts, tmp_path):
    save_events(database, annotate(tmp_path / "w"))
    before = contents(database)
    rebuild(database, artifacts=artifacts, events=all_events(tmp_path / "w")[0], **world.RECORDS)
    assert rows_of(database) == EXPECTED and contents(database) == before


@pytest.fixture
def project(tmp_path):
    """A project with the tiny experiment's graph and what users made of it."""
    made = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    tables = [world.model_tables(), world.train_tables(), {"features": world.feature_table()}, world.graph_tables()]
    keys = []
    for stage, rows in zip(("model", "train", "harvest", "attribute"), tables, strict=True):
        keys.append(write_artifact(made.workspace / stage, f"{stage:0<16.16}", rows))
    bring_in(made, *keys)
    annotate(made.workspace)
    return made


def test_rows_go_with_their_graph_and_come_back_with_it(project):
    assert save_annotations(project) and rows_of(project.database) == EXPECTED
    *others, graph = [(key, place) for _, key, place in sorted_artifacts(project)]
    remove(project, graph[0])
    of_features = [row for row in EXPECTED[0] if row[1] is None]
    assert rows_of(project.database) == (of_features, []) and check(project.database) == []
    bring_in(project, graph)
    assert rows_of(project.database) == EXPECTED
    project.database.unlink()
    assert rebuild_database(project) == [] and rows_of(project.database) == EXPECTED
    assert len(others) == 3


def test_what_gc_removes_takes_no_log_with_it(project):
    save_annotations(project)
    logs = {path: path.read_bytes() for path in all_logs(project.workspace)}
    removed, _ = collect_garbage(project, STAGES, delete=True)  # no run record refers to any artifact
    assert len(removed) == 4 and len(logs) == 3
    assert {path: path.read_bytes() for path in all_logs(project.workspace)} == logs
    assert rows_of(project.database) == ([], []) and check(project.database) == []
    assert Database(project.database).query("annotation_history").height == len(all_events(project.workspace)[0])


def sorted_artifacts(project):
    from cltdb.engine.workspace import Workspace

    return sorted(Workspace(project.workspace).artifacts(), key=lambda one: one[0] == "attribute")


def test_a_merged_database_has_what_was_done_on_all_machines(database, tmp_path, monkeypatch):
    """Both had the same graph and worked on it, one of them further on the other's log."""
    other = shutil.copy(database, tmp_path / "other.duckdb")
    save_events(database, annotate(tmp_path / "w"))
    shutil.copytree(tmp_path / "w", tmp_path / "w2")
    Log(tmp_path / "w2", GRAPH, GRAPH_ID).append([{"op": "group-create", "group": "g2", "name": "theirs", "nodes": [2]}])
    save_events(other, all_events(tmp_path / "w2")[0])
    Log(tmp_path / "w", GRAPH, GRAPH_ID).append([{"op": "group-add", "group": "g1", "nodes": [4]}])
    save_events(database, all_events(tmp_path / "w")[0])
    merge([database, other], tmp_path / "merged.duckdb")
    annotations, groups = rows_of(tmp_path / "merged.duckdb")
    assert annotations == EXPECTED[0]
    assert sorted(group[:2] for group in groups) == [(HOSTILE, [0, 1, 4]), ("theirs", [2])]
    export(database, tmp_path / "exported")
    save_records(tmp_path / "empty.duckdb", experiments=[], stage_runs=[])
    monkeypatch.setattr("cltdb.database.merge.check", lambda _: [])  # what is the same as another is as sound
    merge([tmp_path / "exported", tmp_path / "empty.duckdb"], tmp_path / "again.duckdb")
    assert differences(database, tmp_path / "again.duckdb") == []
    history = Database(tmp_path / "exported").query("annotation_history", graph_id=GRAPH_ID).rows()
    assert [group.members for group in graph_state(map(event_of, history)).groups] == [(0, 1, 4000, 4)]


def test_queries_of_groups_take_those_that_users_made(database, tmp_path):
    db = Database(database)
    listed = lambda: db.query("supernode_list").select("name", "source").rows()  # noqa: E731
    named = lambda name: db.query("supernode_features", graph_id=GRAPH_ID, name=name)["node_id"].to_list()  # noqa: E731
    ends = lambda: set(db.query("supernode_edges", graph_id=GRAPH_ID)["source_name"])  # noqa: E731
    proposed = "Paris (The@1)"
    assert listed() == [(proposed, "attribute")] and named(proposed) == [0, 1] and proposed in ends()
    take_over = {"op": "group-create", "group": "a", "name": proposed, "nodes": [0], "source": "proposal"}
    save_events(database, Log(tmp_path / "w", GRAPH, GRAPH_ID).append([take_over]))
    assert listed() == [(proposed, "user"), (proposed, "attribute")] and named(proposed) == [0]
    assert "1:1@2" in ends()
    save_events(database, Log(tmp_path / "w", GRAPH, GRAPH_ID).append([{"op": "group-rename", "group": "a", "name": "mine"}]))
    assert named("mine") == [0] and named(proposed) == [0, 1] and ends() >= {"mine", "1:1@2"}


def test_own_labels_are_searched_and_change_no_score(database, tmp_path):
    db = Database(database)
    before = db.search("france").drop("found_in")
    assert db.search("Zébra").is_empty() and db.query("unknown_words", text="zebra")["word"].to_list() == ["zebra"]
    label = {"op": "label", "layer": 1, "feature": 1, "text": "Zebras, my word"}
    save_events(database, Log(tmp_path / "w", FEATURES, world.DICT).append([label]))
    assert db.search("Zébra").select("layer", "feature", "text", "found_in").rows() == [
        (1, 1, "fires on 'France' (rules)", "own label 'Zebras, my word'")
    ]
    assert db.query("unknown_words", text="zebra").is_empty() and db.search("zebra", layer=0).is_empty()
    assert_frame_equal(db.search("france").drop("found_in"), before, rel_tol=1e-12)
    of_label = lambda text: db.search(text)["found_in"].str.contains("own label").any()  # noqa: E731
    assert of_label("my") and of_label("zebr") and not of_label("z") and not of_label("m"), "of short words whole ones"
    assert db.query("unknown_words", text="my z")["word"].to_list() == ["z"]
