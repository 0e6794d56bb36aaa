"""Attribution graphs as other tools read them: every field of a graph written down by hand, and round trips of graphs of a tiny model."""

import gzip
import json
import math
import random
import shutil

import polars as pl
import pytest
import torch
from command_line import in_one_form
from polars.testing import assert_frame_equal
from worlds import cat_graph as world
from worlds import dictionaries, projects
from worlds.shared import made_once

import cltdb
from cltdb import __version__
from cltdb.__main__ import main
from cltdb.database.artifacts import rebuild_database
from cltdb.database.check import check
from cltdb.engine import run as runner
from cltdb.engine.upkeep import collect_garbage
from cltdb.errors import CltdbError
from cltdb.interchange import save_published
from cltdb.interchange.feature_json import feature_pages
from cltdb.interchange.feature_numbers import cantor_pair, cantor_unpair
from cltdb.interchange.graph_file import read_file
from cltdb.interchange.graph_import import graph_frames, import_graph, node_places
from cltdb.interchange.graph_json import read_graph, scan_of, write_graph
from cltdb.spec import find_project, load
from cltdb.stages import STAGES

DEFAULTS = {"node_threshold": 0.8, "edge_threshold": 0.98}
ALL = {"node_threshold": 1.0, "edge_threshold": 1.0}


def test_cantor_pairs_are_exact_at_any_size():
    assert cantor_pair(1, 57794) == 1670217704
    seen = [cantor_unpair(number) for number in range(1000)]
    assert len(set(seen)) == 1000 and [cantor_pair(*pair) for pair in seen] == list(range(1000))
    dice = random.Random(0)
    for bits in (20, 31, 60, 200):
        pair = dice.getrandbits(bits), dice.getrandbits(bits)
        assert cantor_unpair(cantor_pair(*pair)) == pair


@pytest.fixture(scope="module")
def written_down(tmp_path_factory):
    """The folder of the project that holds the graph written down."""
    return made_once(tmp_path_factory, "cat-graph", lambda folder: world.build(projects.new(folder)))


@pytest.fixture
def project(tmp_path, written_down):
    shutil.copytree(written_down, tmp_path, dirs_exist_ok=True)
    return find_project(tmp_path)


def exported(project, folder, graph_id=world.GRAPH, *, scan=None, **thresholds):
    graph = read_graph(project.database, graph_id, **(thresholds or DEFAULTS))
    path = write_graph(graph, folder, scan=scan)
    return path, json.loads(path.read_text(encoding="utf-8"))


def node(identifier, feature, layer, position, feature_type, name, *, clerp="", activation=None, influence=None, **more):
    fixed = {"token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0}
    return fixed | more | {
        "node_id": identifier, "feature": feature, "layer": layer, "ctx_idx": position, "feature_type": feature_type,
        "jsNodeId": name, "clerp": clerp, "activation": activation, "influence": influence,
    }  # fmt: skip


def test_every_field_of_a_file(project, tmp_path):
    path, file = exported(project, tmp_path / "out", node_threshold=0.99, edge_threshold=0.98)
    assert path.name == "cat-aaaa1111.json" and list(file) == ["metadata", "qParams", "nodes", "links", "cltdb"]
    assert file["metadata"] == {
        "slug": "cat-aaaa1111",
        "scan": "owner/toy",
        "transcoder_list": [],
        "prompt_tokens": ["<bos>", "The", ' <b>"cat"</b>'],
        "prompt": 'The <b>"cat"</b>',
        "node_threshold": 0.99,
        "schema_version": 1,
        "info": {
            "creator_name": "cltdb",
            "creator_url": "",
            "source_urls": [],
            "generator": {"name": "cltdb", "version": __version__, "url": ""},
            "create_time_ms": 1767323045000,
        },
        "generation_settings": {"max_n_logits": 10, "desired_logit_prob": 0.95, "batch_size": 128, "max_feature_nodes": 3},
        "pruning_settings": {"node_threshold": 0.99, "edge_threshold": 0.98},
        "replacement_score": 0.5,
        "completeness_score": 0.875,
    }
    assert file["qParams"] == {
        "linkType": "both",
        "pinnedIds": ["1_57794_2", "0_1_1"],
        "clickedId": "",
        "supernodes": [["cats", "1_57794_2", "0_1_1"]],
        "sg_pos": "",
    }
    # influence, highest first: .5 .3 .06 .05 .04 .039 .01 .001
    feature, error, embedding = "cross layer transcoder", "mlp reconstruction error", "embedding"
    text = 'fires on <i>"cats"</i>'
    expected = [
        node("0_1_1", 2, "0", 1, feature, "0_1-0", activation=2.5, influence=0.8),
        node("1_57794_2", 1670217704, "1", 2, feature, "1_57794-0", activation=1.5, influence=0.5, clerp=text),
        node("0_0_1", -1, "0", 1, error, "0_-1-1", influence=0.91),  # jsNodeId 0_1-0 is the feature's
        node("1_-1_1", -1, "1", 1, error, "1_1-0", influence=0.95),  # node_id 0_1_1 is the feature's
        node("E_0_0", 0, "E", 0, embedding, "E_0-0", influence=0.999),
        node("E_1_1", 1, "E", 1, embedding, "E_1-1", influence=0.86),
        node("E_2_2", 2, "E", 2, embedding, "E_2-2", influence=0.989),
        node("3_3_2", 3, "3", 2, "logit", "L_3-2", clerp='Output " sat" (p=0.750)', token_prob=0.75, is_target_logit=True),
        node("3_4_2", 4, "3", 2, "logit", "L_4-2", clerp='Output "\\n" (p=0.125)', token_prob=0.125),
    ]
    extras = [one.pop("cltdb") for one in file["nodes"]]
    cumulative = [(one.pop("influence"), other.pop("influence")) for one, other in zip(file["nodes"], expected, strict=True)]
    assert file["nodes"] == expected
    assert all(found == other or found == pytest.approx(other, abs=1e-12) for found, other in cumulative)
    assert extras[1] == {
        "influence": 0.5, "pre_activation": 1.75, "bias": 0.125, "expanded": True, "dropped_mass": 0.0
    }  # fmt: skip
    assert extras[7]["dropped_mass"] == pytest.approx(1e-3)  # the edge that pruning cut
    links = [(link["source"], link["target"], link["weight"]) for link in file["links"]]
    assert links == [
        ("E_1_1", "0_1_1", 1.5),
        ("0_1_1", "1_57794_2", 0.75),
        ("0_0_1", "1_57794_2", -0.25),
        ("1_57794_2", "3_3_2", 2.0),
        ("1_-1_1", "3_3_2", 0.5),
        ("1_57794_2", "3_4_2", -1.0),
    ]
    assert [link["cltdb"].get("measured") for link in file["links"]] == [None, 0.7500001, None, None, None, None]


def test_the_index_has_one_entry_per_graph(project, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    other = {"slug": "theirs", "scan": "x", "prompt_tokens": [], "prompt": ""}
    (out / "graph-metadata.json").write_text(json.dumps({"graphs": [other]}))
    for share in (0.5, 0.9):
        _, file = exported(project, out, node_threshold=share, edge_threshold=0.9)
    index = json.loads((out / "graph-metadata.json").read_text())
    assert index == {"graphs": [other, file["metadata"]]} and file["metadata"]["node_threshold"] == 0.9
    (out / "graph-metadata.json").write_text('{"graphs": 3}')
    with pytest.raises(CltdbError, match="graph-metadata.json: found no list of graphs"):
        exported(project, out)


def test_a_file_that_cltdb_did_not_write_stays(project, tmp_path):
    path = exported(project, tmp_path)[0]
    graph = read_graph(project.database, world.GRAPH, **DEFAULTS)
    for content in ('{"nodes": []}', "notes", "[]", ""):
        path.write_text(content)
        with pytest.raises(CltdbError, match="did not write"):
            write_graph(graph, tmp_path)
        assert path.read_text() == content
    assert write_graph(graph, tmp_path, overwrite=True) == path and world.GRAPH in path.read_text()


@pytest.mark.parametrize("place", ["artifacts", "artifacts/mine", "cltdb.duckdb"])
@pytest.mark.parametrize(
    "command", [["export", "graph-json", world.GRAPH], ["export", "feature-json", world.DICT], ["db", "export"]]
)
def test_nothing_is_exported_into_the_workspace(project, monkeypatch, capsys, command, place):
    monkeypatch.chdir(project.root)
    before = sorted(path for path in project.root.rglob("*") if "duckdb." not in path.name)
    assert main([*command, "-o", place]) == 1 and place in in_one_form(capsys.readouterr().err)
    assert sorted(path for path in project.root.rglob("*") if "duckdb." not in path.name) == before


def test_the_difference_of_two_logits_is_a_target_after_the_vocabulary(tmp_path):
    def one_target(rows):
        return [row | {"target": " sat", "foil": "\\n"} for row in rows]

    world.build(tmp_path, {"graphs": one_target, "nodes": lambda rows: rows[:-1], "edges": lambda rows: rows[:-1]})
    path, file = exported(find_project(tmp_path), tmp_path / "out")
    logit = file["nodes"][-1]
    assert (logit["node_id"], logit["feature"], logit["jsNodeId"]) == ("3_5_2", 5, "L_5-2")
    assert logit["clerp"] == 'Output " sat - \\n" (p=0.750)'
    again = cltdb.open(tmp_path / "cltdb.duckdb").graph_nodes(import_graph(path, find_project(tmp_path)))
    assert again.filter(kind="logit")["token"].to_list() == [3]


def test_a_number_that_json_lacks_is_an_error(tmp_path):
    world.build(tmp_path, {"nodes": lambda rows: [row | {"bias": math.nan} for row in rows]})
    with pytest.raises(CltdbError, match="cat-aaaa1111: found nan as bias of node 0"):
        exported(find_project(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_of_models(project, tmp_path):
    assert exported(project, tmp_path / "a", scan="gemma-2-2b")[1]["metadata"]["scan"] == "gemma-2-2b"
    with pytest.raises(CltdbError, match="--scan"):
        exported(project, tmp_path / "b", scan="../../etc")
    facts = read_graph(project.database, world.GRAPH, **DEFAULTS).facts
    assert [scan_of(name) for name in ("/models/gpt2", "../my gpt2/", "a/b", None)] == ["gpt2", "my-gpt2", "a/b", "unknown"]
    assert scan_of(facts["model_id"], "/packed") == "/packed"


# Round trips


SPEC = """
name: tiny
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 1000, heldout_tokens: 200}
train: {from: {format: circuit-tracer, path: theirs}}
harvest: {tokens: 1000, window: 8, pool_windows: 100}
attribute:
  prompts: [{id: hello, text: hello}, {id: pair, text: "so it", target: a, foil: b}]
  check_edges: 5
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The project of a finished run of a random model of three layers."""
    folder = tmp_path_factory.mktemp("run")
    projects.with_model(folder, SPEC, n_documents=150, n_layers=3)
    d = dictionaries.random(n_layers=3, n_features=40, dtype=torch.float32, info={"model_id": "model", "mlp_input": "normed"})
    d.b_enc -= 0.4
    save_published(d, "circuit-tracer", folder / "theirs")
    wanted, project = {"model", "activations", "train", "harvest", "attribute"}, find_project(folder)
    results = {result.stage: result.directory for result in runner.run(load(folder / "tiny.yaml"), wanted=wanted)}
    nodes = pl.read_parquet(results["attribute"] / "tables/nodes/*.parquet").filter(pl.col("graph_id").str.starts_with("hello-"))
    features = nodes.filter(kind="feature", layer=2).sort("node_id")
    place = "{}:{}@{}".format(*features.select("layer", "feature", "position").row(-1))
    override = f"attribute.prompts=[{{id: place, text: hello, target_feature: '{place}'}}]"
    runner.run(load(folder / "tiny.yaml", overrides=[override]), wanted=wanted)
    rebuild_database(project)
    return project


def graph_of(run, prompt):
    return next(name for name in cltdb.open(run.database).graphs()["graph_id"] if name.rpartition("-")[0] == prompt)


def groups_of(db, graph_id, nodes):
    """[(name, members by NODE_KEY)] of the supernodes of a graph that artifacts brought, as far as frame `nodes` has them."""
    key = {row[0]: row[1:] for row in nodes.select("node_id", *NODE_KEY).iter_rows()}
    stored = "SELECT name, node_ids FROM supernodes WHERE graph_id = $g AND artifact_key IS NOT NULL"
    rows = db.sql(stored, {"g": graph_id}).rows()
    found = sorted((name, sorted(key[node] for node in ids if node in key)) for name, ids in rows)
    return [group for group in found if group[1]]


NODE_KEY = ("kind", "layer", "position", "feature", "token")


@pytest.mark.parametrize(
    ("prompt", "thresholds"),
    [
        ("hello", DEFAULTS),
        ("hello", ALL),
        ("place", ALL),
        ("pair", DEFAULTS),
        ("pair", {"node_threshold": 0.3, "edge_threshold": 0.5}),
    ],
)
def test_export_then_import_is_the_same_graph(run, tmp_path, prompt, thresholds):
    graph_id = graph_of(run, prompt)
    path, file = exported(run, tmp_path, graph_id, **thresholds)
    assert all(isinstance(value, str) for one in file["nodes"] for value in (one["layer"], one["clerp"], one["node_id"]))
    imported = import_graph(path, run)
    assert imported.startswith(f"{graph_id}-")
    with cltdb.open(run.database).session() as db:
        before, after = db.subgraph(graph_id, **thresholds), db.subgraph(imported, **ALL)
        found, edges = db.graph_nodes(imported), db.graph_edges(imported)
        rows = {row["graph_id"]: row for row in db.graphs().to_dicts()}
        places = before.nodes.select("node_id", *NODE_KEY)
        groups = [groups_of(db, one, table) for one, table in ((graph_id, places), (imported, found))]
    nodes = before.nodes.drop("graph_id", "node_id", "kept", "dropped_mass", "label")
    assert_frame_equal(found.select(nodes.columns), nodes, rel_tol=1e-6)
    ends = [
        frame.join(table.rename({"node_id": "source_id"}), on="source_id")
        .join(table.rename({"node_id": "target_id"}), on="target_id", suffix="_target")
        .drop("source_id", "target_id", "kept", "graph_id", strict=False)
        .sort(pl.all())
        for frame, table in ((before.edges, places), (edges, found.select(places.columns)))
    ]
    assert_frame_equal(ends[0].sort("weight"), ends[1].select(ends[0].columns).sort("weight"), rel_tol=1e-6)
    for name in ("dict_id", "model_id", "prompt", "prompt_id", "tokens", "target", "foil", "n_features_active", "seconds"):
        assert rows[imported][name] == rows[graph_id][name], name
    for name in ("replacement_score", "completeness_score", "max_abs_error"):
        assert rows[imported][name] == pytest.approx(rows[graph_id][name], rel=1e-6), name
    assert rows[imported]["pruned_replacement_score"] == pytest.approx(before.scores.replacement, rel=1e-6)
    assert groups[0] == groups[1] and (groups[0] or prompt != "hello")
    # what is not in the file still counts: the same scores, the same cumulative influence
    assert (after.nodes.height, after.edges.height) == (before.nodes.height, before.edges.height)
    assert after.scores == pytest.approx(before.scores, rel=1e-5)
    again = {one["node_id"]: one["influence"] for one in exported(run, tmp_path / "again", imported, **ALL)[1]["nodes"]}
    first = {one["node_id"]: one["influence"] for one in file["nodes"]}
    most = [name for name, share in first.items() if share is not None and share <= thresholds["node_threshold"] - 0.1]
    assert all(again[name] == pytest.approx(first[name], abs=1e-9) for name in most)
    assert most or thresholds["node_threshold"] == 0.3


def test_a_database_of_graphs_and_what_was_imported_of_them_is_sound(run, tmp_path):
    """With all that the test above imported, too."""
    graph_id = graph_of(run, "hello")
    imported = import_graph(exported(run, tmp_path, graph_id, **ALL)[0], run)
    assert imported.startswith(f"{graph_id}-") and check(run.database) == []


def without_extras(path, target):
    """The file as circuit-tracer would have written it."""
    file = json.loads(path.read_text(encoding="utf-8"))
    for part in (file, *file["nodes"], *file["links"]):
        part.pop("cltdb", None)
    target.write_text(json.dumps(file), encoding="utf-8")
    return target


def test_a_file_of_another_tool_gives_shares_of_influence(run, tmp_path):
    db, graph_id = cltdb.open(run.database), graph_of(run, "hello")
    path, _ = exported(run, tmp_path, graph_id, **ALL)
    imported = import_graph(without_extras(path, tmp_path / "theirs.json"), run, dictionary=db.dictionaries()["dict_id"][0])
    total = db.graph_nodes(graph_id)["influence"].sum()
    before, after = db.subgraph(graph_id, **ALL).nodes, db.graph_nodes(imported)
    inner = before["kind"] != "logit"
    expected, found = before.filter(inner)["influence"] / total, after.filter(inner)["influence"]
    large = expected > 1e-3  # the smallest were pruned, and their share went to the next that was not
    assert_frame_equal(expected.filter(large).to_frame(), found.filter(large).to_frame(), rel_tol=1e-4)
    assert after["pre_activation"].is_null().all() and after["dropped_mass"].is_null().all()
    assert after.filter(kind="feature")["expanded"].all()
    for share in (0.3, 0.6):
        first, second = (
            db.subgraph(name, node_threshold=share, edge_threshold=0.9).nodes.height for name in (graph_id, imported)
        )
        assert abs(first - second) <= 1


# What another tool might write


def theirs(**changes):
    """A file by circuit-tracer, of two layers, pruned; error ids as it writes them now."""

    def one(identifier, feature, layer, position, kind, influence=None, activation=None, **more):
        return {
            "node_id": identifier, "feature": feature, "layer": layer, "ctx_idx": position, "feature_type": kind,
            "token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": f"{identifier}-0",
            "clerp": "", "influence": influence, "activation": activation,
        } | more  # fmt: skip

    return {
        "metadata": {
            "slug": "a cat/../sat",
            "scan": "gemma-2-2b",
            "transcoder_list": [],
            "prompt_tokens": ["<bos>", "<script>alert(1)</script>", "\ud83d", "\ud83d\ude00"],
            "prompt": "hello",
            "node_threshold": 0.7,
            "schema_version": 1,
            "info": {"generator": {"name": "circuit-tracer"}},
        },
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": "", "supernodes": [["cats", *2 * ["1_57794_2"], "gone"]], "sg_pos": ""},
        "nodes": [
            one("3_9_3", 9, "3", 3, "logit", token_prob=0.25, clerp='Output "no" (p=0.250)'),
            one("3_7_3", 7, "3", 3, "logit", token_prob=0.5, clerp='Output "a "quoted" b" (p=0.500)'),
            one("E_5_1", 1, "E", 1, "embedding", 0.75),
            one("E_2_0", 0, "E", 0, "embedding", 1.0),
            one("1_-1_2", -1, "1", 2, "mlp reconstruction error", 0.65),
            one("1_57794_2", 1670217704, 1, 2, "cross layer transcoder", 0.5, 3.5, clerp="<b>my name</b>"),
            one("0_3_1", 9, "0", 1, "cross layer transcoder", 0.6, 2.5),
        ],
        "links": [
            {"source": "E_5_1", "target": "0_3_1", "weight": 2},
            {"source": "0_3_1", "target": "1_57794_2", "weight": -0.5},
            {"source": "1_57794_2", "target": "3_7_3", "weight": 3.0},
            {"source": "1_-1_2", "target": "3_7_3", "weight": -1.0},
        ],
    } | changes  # fmt: skip


def written(folder, value):
    path = folder / "theirs.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_file_of_another_tool(project, tmp_path, caplog):
    imported = import_graph(written(tmp_path, theirs()), project)
    assert imported.startswith("a-cat-..-sat-") and not [line for line in check(project.database) if imported in line]
    assert "'cats' names nodes that are not in the file" in caplog.text
    db = cltdb.open(project.database)
    nodes = db.query("graph_nodes", graph_id=imported)
    assert nodes.select("kind", "layer", "position", "feature", "token").rows() == [
        ("feature", 0, 1, 3, None),
        ("feature", 1, 2, 57794, None),
        ("error", 1, 2, None, None),
        ("embedding", None, 0, None, 2),
        ("embedding", None, 1, None, 5),
        ("logit", None, 3, None, 7),
        ("logit", None, 3, None, 9),
    ]
    # steps .5 .1 .05 .1 .25; none larger than the one before
    assert nodes["influence"].to_list() == pytest.approx([0.1, 0.5, 0.05, 0.05, 0.05, None, None])
    assert nodes["text"].to_list() == [None, "<b>my name</b>", None, None, None, None, None]
    tokens = ["<bos>", "<script>alert(1)</script>", "\ufffd", "😀"]
    assert nodes["string"].to_list() == [tokens[1], tokens[2], tokens[2], tokens[0], tokens[1], 'a "quoted" b', "no"]
    assert nodes["activation"].to_list() == [2.5, 3.5, None, None, None, None, None]
    assert nodes["probability"].to_list() == [None] * 5 + [0.5, 0.25] and nodes["pre_activation"].is_null().all()
    edges = db.graph_edges(imported)
    assert edges.select("source_id", "target_id", "weight").rows() == [(0, 1, -0.5), (1, 5, 3.0), (2, 5, -1.0), (4, 0, 2.0)]
    assert edges["influence"].to_list() == pytest.approx(
        [0.5, 0.375, 0.125, 0.1]
    )  # share of the target's input times its influence
    [row] = db.query("graph_list").filter(graph_id=imported).to_dicts()
    assert (row["dict_id"], row["model_id"], row["top_logit"], row["replacement_score"]) == (
        None,
        "gemma-2-2b",
        'a "quoted" b',
        None,
    )
    assert db.graph(imported)["source_text"].to_list()[:2] == [None, "<b>my name</b>"]
    listed = db.query("supernode_list", graph_id=imported).select("name", "node_ids", "author")
    assert listed.select("name", "node_ids").rows() == [("cats", [1])] * 2  # a user's, and the file's
    assert db.subgraph(imported, **ALL).nodes.height == 7
    _, again = exported(project, tmp_path / "out", imported, **ALL)
    by_id = {one["node_id"]: one for one in again["nodes"]}
    assert by_id["1_57794_2"]["influence"] == 0.5 and by_id["3_7_3"]["clerp"] == 'Output "a "quoted" b" (p=0.500)'
    assert again["metadata"]["prompt_tokens"] == tokens and again["metadata"]["generation_settings"] == {}


def test_a_file_without_influence_can_be_pruned(project, tmp_path):
    file = theirs()
    for one in file["nodes"]:
        del one["influence"]
    db, imported = cltdb.open(project.database), import_graph(written(tmp_path, file), project)
    assert db.graph_nodes(imported)["influence"].is_null().all()
    assert db.graphs().filter(graph_id=imported)["total_influence"].to_list() == [None]
    assert [db.subgraph(imported, node_threshold=share, edge_threshold=1.0).edges.height for share in (1.0, 0.0)] == [4, 3]


def test_it_survives_a_rebuild_and_gc_and_comes_once(project, tmp_path, unproved):
    path = written(tmp_path, theirs())
    imported = import_graph(path, project)
    assert import_graph(path, project) == imported
    db = cltdb.open(project.database)
    before = [db.graph_nodes(imported), db.graph_edges(imported), db.graphs()]
    path.unlink()
    assert not any("imports" in str(directory) for directory in collect_garbage(project, STAGES, delete=True)[0])
    world.build(project.root)
    project.database.unlink()
    rebuild_database(project)
    for first, second in zip(before, [db.graph_nodes(imported), db.graph_edges(imported), db.graphs()], strict=True):
        assert_frame_equal(first, second)


def changed(part, place, **values):
    """`theirs` with keys of one node or link replaced, None taking them out."""
    file = theirs()
    target = file[part] if place is None else file[part][place]
    target |= values
    for name in [name for name, value in target.items() if value is None]:
        del target[name]
    return file


def with_influence(value):
    """`theirs` with the same influence for every node that has one."""
    return theirs(nodes=[one if one["influence"] is None else one | {"influence": value} for one in theirs()["nodes"]])


BAD = {
    "no JSON": ("{", "theirs.json: found no JSON"),
    "another thing": ("[1, 2]", "expected"),
    "NaN": (json.dumps(changed("links", 0, weight=math.nan)), "NaN is no JSON number"),
    "infinite": (json.dumps(theirs()).replace('"weight": 2}', '"weight": 1e999}'), r"links\[0\] weight \(E_5_1 to 0_3_1\): found inf"),
    "too deep": ("[" * 100_000, "no JSON"),
    "old ids": (changed("metadata", None, schema_version=None), "found no schema_version"),
    "later version": (changed("metadata", None, schema_version=2), "found schema_version 2; expected schema_version 1"),
    "no slug": (changed("metadata", None, slug=None), "metadata slug: found nothing"),
    "token ids": (changed("metadata", None, prompt_tokens=[1, 2]), r"metadata prompt_tokens\[0\]: found 1; expected"),
    "no nodes": ({name: value for name, value in theirs().items() if name != "nodes"}, "nodes: found nothing"),
    "no type": (changed("nodes", 5, feature_type=None), r"nodes\[5\] feature_type \(1_57794_2\): found nothing"),
    "lorsa": (changed("nodes", 5, feature_type="lorsa"), r"nodes\[5\] \(1_57794_2\): found feature_type 'lorsa'"),
    "text for a number": (changed("nodes", 5, ctx_idx="2"), r"nodes\[5\] ctx_idx \(1_57794_2\): found '2'"),
    "position": (changed("nodes", 5, ctx_idx=4), r"nodes\[5\] \(1_57794_2\): found ctx_idx 4; expected a position of the 4"),
    "decimal id": (changed("nodes", 5, feature=157794), r"nodes\[5\] \(1_57794_2\): found feature 157794, .* expected 1670217704"),
    "huge id": (changed("nodes", 5, feature=10**300), r"nodes\[5\] \(1_57794_2\): found feature 1000"),
    "negative id": (changed("nodes", 5, feature=-3), "found feature -3"),
    "layer": (changed("nodes", 5, layer="one"), "found layer 'one'"),
    "embedding": (changed("nodes", 2, node_id="X_5_1"), "found node_id 'X_5_1'; expected E_<token id>_1"),
    "two of one id": (changed("nodes", 6, node_id="1_57794_2"), r"nodes\[6\] \(1_57794_2\): found a second node"),
    "two of one place": (theirs(nodes=[*theirs()["nodes"], theirs()["nodes"][6] | {"node_id": "x"}]), "the same node as 0_3_1"),
    "logits too low": (changed("nodes", 0, layer="2"), r"nodes\[0\] \(3_9_3\): found layer 2"),
    "unknown end": (changed("links", 1, source="9_9_9"), r"links\[1\] \(9_9_9 to 1_57794_2\): found no node '9_9_9'"),
    "backwards": (changed("links", 1, source="3_7_3"), r"links\[1\] \(3_7_3 to 1_57794_2\): found a link that does not lead"),
    "twice": (theirs(links=theirs()["links"] + theirs()["links"][:1]), r"links\[4\] .* a second link"),
    "no weight": (changed("links", 1, weight=None), r"links\[1\] weight \(0_3_1 to 1_57794_2\): found nothing"),
    "supernodes": (theirs(qParams={"supernodes": [["a", 3]]}), r"qParams supernodes\[0\]\[1\]: found 3"),
    "no node at all": (theirs(nodes=[], links=[]), "theirs.json nodes: found none; expected at least one"),
    "negative influence of every node": (with_influence(-0.1), r"nodes\[2\] influence \(E_5_1\): found -0.1"),
    "negative influence of one": (changed("nodes", 6, influence=-1e-9), r"nodes\[6\] influence .*: found -1e-09"),
    "influence above 1": (changed("nodes", 3, influence=1.5), r"nodes\[3\] influence \(E_2_0\): found 1.5"),
    "one influence for all": (with_influence(0.5), "found 0.5 for every node; expected cumulative shares"),
    "influence that is no number": (changed("nodes", 3, influence="high"), r"nodes\[3\] influence .*: found 'high'"),
    "negative probability": (changed("nodes", 0, token_prob=-0.25), r"nodes\[0\] token_prob \(3_9_3\): found -0.25"),
    "probability above 1": (changed("nodes", 0, token_prob=1.25), r"nodes\[0\] token_prob .*: found 1.25"),
    "probabilities above 1": (changed("nodes", 0, token_prob=0.75), "token_prob: found a sum of 1.25 over the logits; expected at most 1"),
    "activation beyond single precision": (changed("nodes", 5, activation=1e39), r"nodes\[5\] activation .*: found 1e\+39"),
    "huge whole number": (changed("links", 0, weight=10**400), r"links\[0\] weight .*: found 1000"),
    "score above 1": (changed("metadata", None, replacement_score=1.5), "metadata replacement_score: found 1.5"),
    "threshold below 0": (changed("metadata", None, pruning_settings={"node_threshold": -1}), "node_threshold: found -1"),
    "negative position": (changed("nodes", 5, ctx_idx=-1), r"nodes\[5\] ctx_idx .*: found -1"),
    "negative layer": (changed("nodes", 5, layer="-1"), "found layer '-1'"),
    "truth for a number": (changed("nodes", 5, ctx_idx=True), r"nodes\[5\] ctx_idx .*: found True"),
    "embedding of a layer": (changed("nodes", 2, layer="0"), r"nodes\[2\] \(E_5_1\): found layer '0'; expected E"),
    "to an error": (changed("links", 0, target="1_-1_2"), r"links\[0\] .* found a link that leads to an error"),
    "back in position": (
        json.dumps(changed("nodes", 6, ctx_idx=3)).replace("0_3_1", "0_3_3"),
        r"links\[1\] \(0_3_3 to 1_57794_2\): found a link from position 3 to position 2",
    ),
    "position of another id": (changed("nodes", 6, ctx_idx=3), r"nodes\[6\] \(0_3_1\): found layer 0, feature 9, ctx_idx 3, which are not"),
    "logit of another id": (changed("nodes", 0, feature=8), r"nodes\[0\] \(3_9_3\): found layer 3, feature 8, ctx_idx 3, which are not"),
    "error of another layer": (changed("nodes", 4, layer="0"), r"nodes\[4\] \(1_-1_2\): found layer 0, feature -1"),
    "feature of another layer": (changed("nodes", 6, node_id="1_3_1"), r"nodes\[6\] \(1_3_1\): found layer 0, feature 9"),
    "tokens of another prompt": (theirs(cltdb={"format_version": 1, "tokens": [1, 2]}), "cltdb tokens: found 2 ids; expected one for each of the 4"),
    "a name twice": (json.dumps(theirs()).replace('"weight": 2}', '"weight": 2, "weight": 3}'), "'weight' twice in one object"),
    "two features of one id": (changed("nodes", 6, node_id="1_57794_2", feature=1670217704, layer="1"), "a second node of this id"),
    "negative influence of ours": (changed("nodes", 6, cltdb={"influence": -0.5}), r"nodes\[6\] cltdb influence .*: found -0.5"),
    "negative dropped mass": (changed("nodes", 6, cltdb={"dropped_mass": -0.5}), "dropped_mass .*: found -0.5"),
    "negative influence of a link": (changed("links", 1, cltdb={"influence": -0.5}), r"links\[1\] cltdb influence .*: found -0.5"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_error_that_names_the_place(written_down, tmp_path, case):
    value, message = BAD[case]
    before = (written_down / "cltdb.duckdb").stat().st_mtime_ns
    with pytest.raises(CltdbError, match=message) as caught:
        import_graph(written(tmp_path, value), find_project(written_down))
    assert "theirs.json" in str(caught.value) and "\n" not in str(caught.value)
    assert not (written_down / "artifacts/imports").exists() and (written_down / "cltdb.duckdb").stat().st_mtime_ns == before


@pytest.mark.parametrize("name,content", [("cat.pt", b"PK\x03\x04 a zip"), ("cat.pt", b"{}"), ("cat.json", b"\x80\x02}q\x00.")])
def test_a_pickled_graph_is_refused_with_what_to_do_instead(project, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CltdbError, match=f"{name}: found a file of torch.save or pickle.*create_graph_files"):
        import_graph(tmp_path / name, project)


@pytest.mark.parametrize("value", [None, "missing"])
def test_what_a_file_may_leave_out(project, tmp_path, value):
    """Labels, settings of pruning and the frontend's part, null or missing: what is left is the same graph."""
    file = theirs()
    for part, name in [(one, name) for one in file["nodes"] for name in ("clerp", "jsNodeId")]:
        part[name] = value
    file["metadata"]["pruning_settings"] = file["qParams"] = value
    if value == "missing":
        for part, name in [(one, name) for one in file["nodes"] for name in ("clerp", "jsNodeId")]:
            del part[name]
        del file["metadata"]["pruning_settings"], file["qParams"]
    whole, imported = (import_graph(written(tmp_path, some), project) for some in (theirs(), file))
    db = cltdb.open(project.database)
    first, second = (db.graph_nodes(name).drop("graph_id", "label", strict=False) for name in (whole, imported))
    assert_frame_equal(first, second)
    assert_frame_equal(*(db.graph_edges(name).drop("graph_id") for name in (whole, imported)))
    texts = db.query("graph_nodes", graph_id=imported).filter(pl.col("kind").is_in(["feature", "logit"]))
    assert texts["text"].is_null().all() and texts.height == 4
    [row] = db.graphs().filter(graph_id=imported).to_dicts()
    assert (row["node_threshold"], row["edge_threshold"]) == (0.7, None)


SHARED = "0_1_1"
"""The id of feature 1 of layer 0 at position 1, and, as circuit-tracer's releases write it, of the error of layer 1 there."""


def with_shared_id(*links):
    """A file of three layers with a feature and an error of one id, and these links [(source, target)], weighted 1, 2, …"""
    plain = {"layer": "0", "clerp": "", "activation": 1.0, "feature_type": "cross layer transcoder"}
    upper = {"node_id": "2_0_1", "feature": cantor_pair(2, 0), "ctx_idx": 1} | plain | {"layer": "2"}
    nodes = [
        {"node_id": SHARED, "feature": cantor_pair(0, 1), "ctx_idx": 1} | plain,
        {"node_id": "1_0_1", "feature": cantor_pair(1, 0), "ctx_idx": 1} | plain | {"layer": "1"},
        {"node_id": SHARED, "feature": -1, "layer": "1", "ctx_idx": 1, "feature_type": "mlp reconstruction error"},
        upper,
        {"node_id": "E_5_1", "feature": 1, "layer": "E", "ctx_idx": 1, "feature_type": "embedding"},
        {"node_id": "4_9_1", "feature": 9, "layer": "4", "ctx_idx": 1, "feature_type": "logit", "token_prob": 0.5},
    ]
    weighted = [{"source": source, "target": target, "weight": float(n)} for n, (source, target) in enumerate(links, start=1)]
    metadata = theirs()["metadata"] | {"prompt_tokens": ["<bos>", "a"]}
    return {"metadata": metadata, "qParams": {"supernodes": [["s", SHARED]]}, "nodes": nodes, "links": weighted}


FED = ("E_5_1", SHARED)  # so that the feature is not one that nothing leads to


@pytest.mark.parametrize(
    "links,expected",
    [
        ([FED], [("embedding", None, "feature", 0, 1.0)]),  # nothing leads to an error
        ([FED, (SHARED, "1_0_1")], [("feature", 0, "feature", 1, 2.0)]),  # an error of layer 1 does not reach it
        ([FED, (SHARED, "2_0_1"), ("1_0_1", "2_0_1")], [("feature", 0, "feature", 2, 2.0)]),  # before a feature of layer 1
        ([FED, ("1_0_1", "2_0_1"), (SHARED, "2_0_1")], [("error", 1, "feature", 2, 3.0)]),  # after it
        ([FED, (SHARED, "4_9_1"), (SHARED, "4_9_1")], [("feature", 0, "logit", None, 2.0), ("error", 1, "logit", None, 3.0)]),
        ([(SHARED, "2_0_1")], [("error", 1, "feature", 2, 1.0)]),  # pruning leaves no feature without input
    ],
)  # fmt: skip
def test_links_of_an_id_that_an_error_and_a_feature_share(tmp_path, links, expected):
    path = written(tmp_path, with_shared_id(*links))
    file, _ = read_file(path)
    frames = graph_frames(file, node_places(file, path), graph_id="g", dictionary=None, path=path)
    kinds = [("feature", 0), ("feature", 1), ("feature", 2), ("error", 1), ("embedding", None), ("logit", None)]
    assert frames["nodes"].select("kind", "layer").rows() == kinds
    assert frames["nodes"]["feature"].to_list() == [1, 0, 0, None, None, None]
    ends = frames["edges"].select("source_id", "target_id", "weight").rows()
    assert len(ends) == len(links)
    assert set(expected) <= {(*kinds[source], *kinds[target], weight) for source, target, weight in ends}
    assert frames["supernodes"]["node_ids"].to_list() == [[0]]


def test_a_shared_id_comes_back_as_two(project, tmp_path):
    up = [FED, (SHARED, "1_0_1"), ("1_0_1", "2_0_1"), (SHARED, "2_0_1"), ("2_0_1", "4_9_1")]
    imported = import_graph(written(tmp_path, with_shared_id(*up)), project)
    _, file = exported(project, tmp_path / "out", imported, **ALL)
    assert [one["node_id"] for one in file["nodes"]] == [SHARED, "1_0_1", "2_0_1", "1_-1_1", "E_5_1", "4_9_1"]
    links = {(link["source"], link["target"]): link["weight"] for link in file["links"]}
    assert links[SHARED, "1_0_1"] == 2.0 and links["1_-1_1", "2_0_1"] == 4.0 and len(links) == 5


def test_a_graph_that_nothing_reaches_has_no_replacement_score_and_is_exported(project, tmp_path):
    imported = import_graph(written(tmp_path, theirs(links=theirs()["links"][:2])), project)
    _, file = exported(project, tmp_path / "out", imported, **ALL)
    assert not file["links"] and "pruned_replacement_score" not in file["cltdb"]  # a share of nothing


def test_a_link_that_either_of_two_nodes_could_have_is_no_guess(project, tmp_path):
    with pytest.raises(
        CltdbError, match=rf"links\[1\] \({SHARED} to 4_9_1\): found {SHARED}, the id of a feature and of an error"
    ):
        import_graph(written(tmp_path, with_shared_id(FED, (SHARED, "4_9_1"))), project)


def test_the_dictionary_must_fit(project, tmp_path):
    path = written(tmp_path, theirs())
    with pytest.raises(CltdbError, match="--dictionary: found 'nobody'; expected one of toy-clt-0123abcd"):
        import_graph(path, project, dictionary="nobody")
    imported = import_graph(path, project, dictionary=world.DICT)
    row = cltdb.open(project.database).graphs(world.DICT).filter(graph_id=imported).to_dicts()[0]
    assert row["model_id"] == world.MODEL
    with pytest.raises(CltdbError, match="found a graph of a model of 7 layers; expected features of toy-clt-0123abcd"):
        file = theirs()
        file["nodes"] = [one | {"layer": "8"} if one["feature_type"] == "logit" else one for one in file["nodes"]]
        import_graph(written(tmp_path, file), project, dictionary=world.DICT)


# Features


def test_every_field_of_a_feature(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    assert main(["export", "graph-json", world.GRAPH, "-o", "out", "--node-threshold", "0.9"]) == 0
    assert "features" in capsys.readouterr().out
    names = {
        path.relative_to("out").as_posix()
        for path in (project.root / "out").rglob("*.json")
        for path in [path.relative_to(project.root)]
    }
    assert names == {
        "cat-aaaa1111.json", "graph-metadata.json", "features/owner/toy/2.json", "features/owner/toy/1670217704.json"
    }  # fmt: skip
    page = json.loads((project.root / "out/features/owner/toy/1670217704.json").read_text())

    def example(peak):
        return {
            "tokens": ["The", ' <b>"cat"</b>', " sat"],
            "tokens_acts_list": [0.0, peak, 0.1],
            "train_token_ind": 1,
            "is_repeated_datapoint": False,
        }

    assert page == {
        "index": 57794,
        "layer": 1,
        "transcoder_id": world.DICT,
        "examples_quantiles": [
            {"quantile_name": "Top activations", "examples": [example(4.0)]},
            {"quantile_name": "Quantile 2 of 2", "examples": [example(3.0)]},
            {"quantile_name": "Quantile 1 of 2", "examples": [example(0.5)]},
        ],
        "top_logits": [" sat", "[9]"],
        "bottom_logits": ["The"],
        "act_min": 0.0,
        "act_max": 4.0,
        "histogram": [
            float(place in (2, 15)) for place in range(20)
        ],  # the peaks .5 and 3.0 of the sampled windows, by fifths of 1
        "quantile_values": [0.5, 3.0, 3.0],
        "activation_frequency": 0.25,
    }
    path = project.root / "out/features/owner/toy/2.json"
    path.write_text(path.read_text().replace(world.DICT, "another-clt"))
    assert main(["export", "graph-json", world.GRAPH, "-o", "out"]) == 1
    assert "a feature of another-clt" in in_one_form(capsys.readouterr().err)
    assert main(["export", "graph-json", world.GRAPH, "-o", "out", "--scan", "other/name"]) == 0


def test_the_histogram_that_circuit_tracer_requires(tmp_path):
    cases = [
        ({"top": [4.0, 3.9], "q0": [0.1, 0.1], "q1": [2.0]}, {0: 2, 10: 1}),  # the top ones are no sample
        ({"top": [4.0, 3.9, 0.3]}, {19: 2, 1: 1}),  # but all there are where no others are
        ({}, {}),
    ]

    def with_features(rows):
        return [rows[1] | {"feature": feature} for feature, _ in enumerate(cases)]

    def with_peaks(rows):
        return [
            rows[0] | {"feature": feature, "band": band, "rank": rank, "start": 10 * rank, "position": 10 * rank + 1}
            | {"max_activation": peak, "activations": [0.0, peak, 0.1]}
            for feature, (peaks, _) in enumerate(cases)
            for band, some in peaks.items()
            for rank, peak in enumerate(some)
        ]  # fmt: skip

    world.build(tmp_path, {"features": with_features, "contexts": with_peaks})
    pages = feature_pages(tmp_path / "cltdb.duckdb", world.DICT, 1, range(len(cases)))
    required = {"transcoder_id", "index", "examples_quantiles", "top_logits", "bottom_logits", "act_min", "act_max"}
    for page, (_, expected) in zip(pages, cases, strict=True):
        assert page["histogram"] == [float(expected.get(place, 0)) for place in range(20)]
        assert required | {"quantile_values", "histogram", "activation_frequency"} <= page.keys()


def test_packed_features_are_found_by_their_offsets(project, monkeypatch):
    monkeypatch.chdir(project.root)
    assert main(["export", "feature-json", world.DICT, "-o", "all", "--packed"]) == 0
    assert main(["export", "feature-json", world.DICT, "-o", "single"]) == 0
    index = json.loads(gzip.decompress((project.root / "all/features/index.json.gz").read_bytes()))
    assert list(index) == ["0", "1"] and all(len(layer["offsets"]) == 60001 for layer in index.values())
    for layer, feature in ((0, 1), (1, 57794)):
        start, end = index[str(layer)]["offsets"][feature : feature + 2]
        part = (project.root / "all/features" / index[str(layer)]["filename"]).read_bytes()[start:end]
        assert int.from_bytes(part[:4], "little") == len(part) - 4
        single = (project.root / f"single/features/owner/toy/{cantor_pair(layer, feature)}.json").read_text()
        assert json.loads(gzip.decompress(part[4:])) == json.loads(single)
    offsets = index["1"]["offsets"]
    assert offsets[57793] == offsets[57794] == 0 and offsets[57795] == offsets[60000]


# Command line


def test_the_commands(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run.root)
    graph_ids = [graph_of(run, prompt) for prompt in ("hello", "pair")]
    out = str(tmp_path / "out")
    assert main(["export", "graph-json", *graph_ids, "-o", out, "--edge-threshold", "0.9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(name in line for name, line in zip(graph_ids, lines, strict=True))
    index = json.loads((tmp_path / "out/graph-metadata.json").read_text())["graphs"]
    assert [entry["slug"] for entry in index] == graph_ids
    assert main(["import", "graph-json", f"{out}/{graph_ids[0]}.json"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"graph {graph_ids[0]}-") and "tiny-clt-" in shown
    pages = list((tmp_path / "out/features").rglob("*.json"))
    assert pages and all(json.loads(path.read_text())["examples_quantiles"] is not None for path in pages)
    for command in (
        ["export", "graph-json", "nobody", "-o", out],
        ["export", "graph-json", graph_ids[0], "-o", out, "--node-threshold", "2"],
        ["export", "graph-json", graph_ids[0], "-o", out, "--packed"],
        ["export", "circuit-tracer", "tiny", "-o", out, "--scan", "x"],
        ["export", "circuit-tracer", "one", "two", "-o", str(tmp_path / "new")],
        ["export", "feature-json", "nobody", "-o", out],
        ["import", "graph-json", f"{out}/gone.json"],
        ["import", "graph-json", f"{out}/{graph_ids[0]}.json", "-o", out],
        ["import", "graph-json", f"{out}/graph-metadata.json"],
        ["import", "circuit-tracer", "theirs"],
        ["import", "circuit-tracer", "theirs", "-o", str(tmp_path / "new"), "--dictionary", "x"],
    ):
        assert main(command) == 1, command
        in_one_form(capsys.readouterr().err)
