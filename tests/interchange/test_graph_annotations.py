"""What users made of a graph, in its JSON file and back."""

import json
import shutil

import jsonschema
import pytest
from worlds import cat_graph as world
from worlds import projects
from worlds.shared import made_once

from cltdb.__main__ import main
from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES, GRAPH
from cltdb.annotations.state import graph_state
from cltdb.database.api import Database
from cltdb.database.check import check
from cltdb.interchange.graph_import import import_graph
from cltdb.spec import Project

STRING, NUMBER, NULL = {"type": "string"}, {"type": "number"}, {"type": "null"}
STRINGS = {"type": "array", "items": STRING}
SCHEMA = {  # what Neuronpedia's validator asks of a file (formats: attribution graph JSON)
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": STRING,
                "scan": STRING,
                "prompt_tokens": STRINGS,
                "prompt": STRING,
                "schema_version": {"const": 1},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "linkType": STRING,
                "pinnedIds": STRINGS,
                "clickedId": STRING,
                "supernodes": {"type": "array", "items": STRINGS | {"minItems": 2}},
                "sg_pos": STRING,
            },
            "additionalProperties": False,
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    "node_id": STRING,
                    "feature": {"anyOf": [{"type": "integer"}, NULL]},
                    "layer": STRING,
                    "ctx_idx": {"type": "integer", "minimum": 0},
                    "feature_type": STRING,
                    "jsNodeId": STRING,
                    "clerp": STRING,
                    "influence": {"anyOf": [NUMBER, NULL]},
                    "activation": {"anyOf": [NUMBER, NULL]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": STRING, "target": STRING, "weight": NUMBER},
            },
        },
    },
}
HOSTILE = "<script>alert('x')</script> \u202e"


@pytest.fixture
def project(tmp_path_factory, tmp_path, monkeypatch):
    made = made_once(tmp_path_factory, "cat-graph", lambda folder: world.build(projects.new(folder)))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")


def export(folder, *options):
    assert main(["export", "graph-json", world.GRAPH, "-o", str(folder), *options]) == 0
    [path] = [path for path in folder.glob("*.json") if path.name != "graph-metadata.json"]
    return path, json.loads(path.read_text(encoding="utf-8"))


def valid(file):
    jsonschema.validate(file, SCHEMA)
    ids = [node["node_id"] for node in file["nodes"]]
    named = [*file["qParams"]["pinnedIds"], *(node for group in file["qParams"]["supernodes"] for node in group[1:])]
    return len(ids) == len(set(ids)) and set(named) <= set(ids)


def test_what_users_made_goes_into_the_file_and_comes_back(project, tmp_path, capsys):
    Log(project.workspace, GRAPH, world.GRAPH).append(
        [
            {"op": "pin", "nodes": [8, 1, 2]},
            {"op": "group-create", "group": "a", "name": HOSTILE, "nodes": [1, 0], "note": "why\nnot"},
            {"op": "hide", "nodes": [4]},
            {"op": "label", "node": 0, "text": "own"},
            {"op": "note", "node": 1, "text": "of a node"},
            {"op": "note", "text": "of the graph"},
            {"op": "sg-pos", "text": "1 2 3 4"},
        ]
    )
    Log(project.workspace, FEATURES, world.DICT).append([{"op": "label", "layer": 1, "feature": 57794, "text": "cats, I say"}])
    path, file = export(tmp_path / "out", "--node-threshold", "0.99")
    assert "1 of the pinned or grouped nodes are not among those that are kept" in capsys.readouterr().out
    assert valid(file)
    name = HOSTILE.removesuffix(" \u202e")
    assert file["qParams"] == {
        "linkType": "both",
        "pinnedIds": ["3_3_2", "1_57794_2", "0_1_1"],
        "clickedId": "",
        "supernodes": [[name, "1_57794_2", "0_1_1"]],
        "sg_pos": "1 2 3 4",
    }
    assert [node["clerp"] for node in file["nodes"][:2]] == ["own", "cats, I say"]
    graph_id = import_graph(path, project)
    log = Log(project.workspace, GRAPH, graph_id)
    made = graph_state(log.events())
    assert (list(made.pinned), list(made.hidden), made.sg_pos) == ([7, 1], [3], "1 2 3 4")
    assert [(group.name, group.members, group.note) for group in made.groups] == [(name, (1, 0), "why\nnot")]
    assert {node: text.text for node, text in made.notes.items()} == {1: "of a node", None: "of the graph"}
    assert {node: text.text for node, text in made.labels.items()} == {0: "own"}
    assert not [
        problem for problem in check(project.database, events=log.events()) if "annotation" in problem or graph_id in problem
    ]
    assert Database(project.database).query("annotation_list", graph_id=graph_id, kind="pin").height == 2
    log.append([{"op": "unpin", "nodes": [1]}])
    import_graph(path, project)
    assert list(graph_state(log.events()).pinned) == [7]  # a second import brings nothing back


def test_a_file_with_names_that_are_none_is_read(project, tmp_path):
    """Long, empty and broken names of groups, nodes that are not there, places that are too long."""
    _, file = export(tmp_path / "out")
    file["qParams"] |= {
        "supernodes": [["", "0_1_1"], ["x" * 10_000, "1_57794_2"], [], ["gone", "9_9_9"]],
        "pinnedIds": ["gone", "0_1_1"],
    }
    file["qParams"]["sg_pos"] = "1 " * 10_000
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(file))
    made = graph_state(Log(project.workspace, GRAPH, import_graph(changed, project)).events())
    assert [(group.name[:8], len(group.name), group.members) for group in made.groups] == [
        ("group 1", 7, (0,)),
        ("xxxxxxxx", 200, (1,)),
    ]
    assert list(made.pinned) == [0] and made.sg_pos == ""


def test_groups_that_were_proposed_are_written_where_users_made_none(project, tmp_path):
    _, file = export(tmp_path / "out")
    assert (
        valid(file) and file["qParams"]["supernodes"] == [["cats", "1_57794_2", "0_1_1"]] and "annotations" not in file["cltdb"]
    )
