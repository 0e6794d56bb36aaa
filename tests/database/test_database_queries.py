import csv
import io
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from polars.testing import assert_frame_equal
from worlds import random_experiment
from worlds import tiny_experiment as world
from worlds.tables import contents, rows, write_artifact

from cltdb.__main__ import main
from cltdb.database import query as query_module
from cltdb.database import sql_command, store, stream
from cltdb.database.api import Database
from cltdb.database.load import load_artifact, save_records
from cltdb.database.named_queries import TYPES, list_queries, named_query, named_query_params
from cltdb.database.tables import all_tables
from cltdb.engine.yaml_text import read_pair
from cltdb.errors import CltdbError
from cltdb.spec import find_project

GRAPH = "france-aaaa1111"
PARAMETERS = {
    "feature_search": {"text": "France"},
    "unknown_words": {"text": "Frence"},
    "feature_card": {"dict_id": world.DICT, "layer": 0, "feature": 1},
    "feature_contexts": {"dict_id": world.DICT, "layer": 0, "feature": 1},
    "metrics_curve": {"name": "l0"},
    "page_features": {"dict_id": world.DICT},
    "feature_pages": {"dict_id": world.DICT, "layer": 0, "features": [0, 1]},
    "feature_windows": {"dict_id": world.DICT, "layer": 0, "features": [0, 1]},
    "graph_nodes": {"graph_id": GRAPH},
    "graph_tokens": {"graph_id": GRAPH},
    "graph_edges": {"graph_id": GRAPH},
    "graph_members": {"graph_id": GRAPH},
    "node_edges": {"graph_id": GRAPH, "node_id": 0},
    "edges_between": {"graph_id": GRAPH, "node_ids": [0, 1, 70]},
    "edge_sums": {"graph_id": GRAPH},
    "graph_promotes": {"graph_id": GRAPH},
    "graph_paths": {"graph_id": GRAPH},
    "supernode_edges": {"graph_id": GRAPH},
    "supernode_features": {"graph_id": GRAPH, "name": "Paris (The@1)"},
    "compare_paths": {"graph_id": GRAPH, "other": GRAPH},
    "graph_features_compared": {"graph_id": GRAPH, "other": GRAPH},
    "shared_features": {"k": 1},
    "late_writers": {"layers_later": 1},
    "compare_at_l0": {"dict_id": world.DICT, "other": world.DICT},
    "top_neighbours": {"dict_id": world.DICT, "layer": 0, "feature": 0},
    "feature_circuit": {"dict_id": world.DICT, "layer": 0, "feature": 0},
}


ONE = {"dict_id": random_experiment.DICT, "layer": 1, "feature": 3}
OF_RANDOM = {
    "ablation_effects": {"graph_id": "graph-1"},
    "activation_histogram": ONE,
    "annotation_history": {"graph_id": "graph-1"},
    "annotation_list": {"kind": "pin"},
    "common_edges": {},
    "compare_explainers": {"explainer": "llm", "other": "rules"},
    "decoder_cosines": {},
    "decoder_duplicates": {},
    "dense_features": {},
    "explainer_disagreements": {},
    "explainers_compared": {},
    "explanation_costs": {},
    "explanation_distance": {"per_layer": 5},
    "failed_items": {},
    "feature_inputs": ONE,
    "feature_isolation": ONE,
    "feature_partners": ONE | {"layer": 0},
    "feature_lens": ONE | {"tokens": '["Paris", "of"]'},
    "feature_tokens": ONE,
    "features_of_label": {"label": "fr", "min_windows": 4},
    "features_of_token": {"token": "Paris"},
    "find_tokens": {"text": "paris"},
    "graph_features": {"graph_id": "graph-1"},
    "graph_interventions": {"graph_id": "graph-1", "by_hand": "false"},
    "graph_layers": {"graph_id": "graph-1"},
    "graph_positions": {"graph_id": "graph-1"},
    "graph_targets": {"graph_id": "graph-1"},
    "group_layers": {"groups_id": "random-groups-0"},
    "group_list": {"dict_id": random_experiment.DICT},
    "head_edges": {"dict_id": random_experiment.DICT, "layer": 0, "feature": 3},
    "input_paths": {"graph_id": "graph-1"},
    "intervention_features": {"intervention_id": "graph-1-ablate-0", "graph_id": "graph-1"},
    "isolation_by_layer": {"multiple": 4.0},
    "isolation_facts": {},
    "isolation_features": {"dict_id": random_experiment.DICT, "layer": 0},
    "label_features": {"label": "fr", "first_layer": 1},
    "label_layers": {},
    "label_profile": ONE,
    "label_scores": {},
    "label_shares": ONE,
    "label_specific": {"min_firings": 5},
    "match_changes": {"relation": "appeared"},
    "match_seeds": {},
    "match_shares": {},
    "match_splits": {},
    "metrics_by_label": {},
    "nearest_features": ONE,
    "overlap_by_layer": {"groups_id": "random-groups-1", "keyed_by": "end", "weighting": "influence"},
    "path_routes": {"graph_id": "graph-1"},
    "page_feature_interventions": {"dict_id": random_experiment.DICT, "layer": 1, "feature": 2},
    "page_judged": ONE | {"feature": 1},
    "page_steered": {"dict_id": random_experiment.DICT, "layer": 1, "feature": 2, "by_hand": "false"},
    "compare_graphs": {"dict_id": random_experiment.DICT, "other": random_experiment.DICT},
    "page_costs": {},
    "pullback_overlap": {},
    "prune_curve": {"graph_id": "graph-1"},
    "request_costs": {},
    "similar_graphs": {"graph_id": "graph-1"},
    "some_features": {"dict_ids": f'["{random_experiment.DICT}"]', "layers": "[1]", "features": "[3]"},
    "spec_differences": {"experiment": "one", "other": "two"},
    "substitution_grid": {"label_from": "de"},
    "substitution_results": {},
    "unexplained_features": {"min_contexts": 8, "min_documents": 3},
}
"""Parameters of queries that the tiny experiment has no rows for."""
BY_WORLD = sorted(list_queries(), key=lambda query: query.name in OF_RANDOM)
"""All queries; those of one database follow each other, since a reader of another one starts DuckDB anew (25 ms)."""


@pytest.fixture
def database(tiny):
    """Path of the tiny experiment's database itself, which tests here only read."""
    return tiny[1]


@pytest.fixture
def copied(tiny, tmp_path):
    """Path of a copy of it, which a test may write."""
    return shutil.copy(tiny[1], tmp_path / "cltdb.duckdb")


def test_a_score_that_is_no_number_counts_nowhere(copied):
    one = "explainer = 'rules' AND scorer = 'detection' AND (layer, feature) = (SELECT (layer, feature) FROM scores WHERE explainer = 'rules' LIMIT 1)"
    of_one = {"explainer": "rules", "other": "rules"}
    ask = lambda: (  # noqa: E731
        Database(copied).query("explanation_scores", threshold=0).filter(explainer="rules", scorer="detection").to_dicts(),
        Database(copied).query("compare_explainers", **of_one).filter(scorer="detection").to_dicts(),
    )
    found = []
    for value in ("NULL", "'nan'"):
        with store.connect(copied, write=True) as connection:
            connection.execute(f"UPDATE scores SET score = {value} WHERE {one}")
        found.append(ask())
    assert found[0] == found[1]
    [[scored], [compared]] = found[0]
    assert scored["n_scored"] == scored["n_good"] == compared["n_features"] > 0


@pytest.mark.parametrize("query", BY_WORLD, ids=lambda query: query.name)
def test_every_query_runs_finds_rows_and_is_documented(tiny, random_world, query):
    assert query.title and query.grain.startswith("one row per") and query.order
    sql = query.sql.split("\n\n", 1)[1]
    read = set(re.findall(r"\b(?:FROM|JOIN) (\w+)", sql)) & all_tables().keys() - set(
        re.findall(r"(\w+) AS (?:(?:NOT )?MATERIALIZED )?\(", sql)
    )
    assert query.reads == f"{', '.join(sorted(read)) or 'the catalog'}."
    casts = {
        name: {kind for other, kind in re.findall(r"\$(\w+)(?:::(\w+(?:\[\])?))?", sql) if other == name}
        for name in query.parameters
    }
    assert set(re.findall(r"\$(\w+)", sql)) == casts.keys()
    for name, parameter in query.parameters.items():
        of_choice = ("INTEGER",) if re.fullmatch(r"[\d |]+", parameter.type) else ("VARCHAR",)
        assert casts[name] <= set(TYPES[parameter.type][1] if parameter.type in TYPES else of_choice) and parameter.meaning
    example = dict(read_pair(pair, option="-p", example="") for pair in shlex.split(query.example)[1::2])
    assert {name for name, parameter in query.parameters.items() if parameter.required} <= example.keys()
    named_query_params(query, example)
    db = random_world[0] if query.name in OF_RANDOM else Database(tiny[1])
    given = OF_RANDOM.get(query.name, PARAMETERS.get(query.name, {}))
    with db.session() as s:
        frame = s.query(query.name, **given)
        assert frame.height > 0
        if given:  # as text too, as `-p name=value` gives them
            as_text = s.query(query.name, **{name: str(value) for name, value in given.items()})
            assert_frame_equal(as_text, frame, rel_tol=1e-12)  # sums of floats are added up in another order


def test_feature_cards_hold_the_best_explanation_that_is_no_baseline(database):
    card = Database(database).feature_cards(world.DICT, layer=0)
    assert card["explainer"].to_list() == ["rules", "rules", None] and card["score"].to_list() == [0.9, 0.9, None]
    assert card.columns[:5] == ["dict_id", "layer", "feature", "text", "score"]


def test_the_query_of_the_introduction(database):
    frame = Database(database).sql(
        "SELECT layer, feature, text, score FROM feature_cards WHERE text ILIKE '%france%' ORDER BY score DESC"
    )
    assert frame.height == 4 and set(frame["score"]) == {0.9}


def test_paths_from_token_to_logit(database):
    paths = Database(database).query("graph_paths", graph_id=GRAPH)
    assert paths["node_ids"].to_list() == [[4, 0, 1, 5], [3, 5]] and paths["weights"].to_list() == [[1.0, 0.5, 2.0], [0.5]]
    assert paths["strength"].to_list() == pytest.approx([0.8, 0.2])
    assert Database(database).query("graph_paths", graph_id=GRAPH, position=0)["node_ids"].to_list() == [[3, 5]]
    assert Database(database).query("graph_paths", graph_id=GRAPH, min_weight=0.6).height == 0


def test_shares_of_paths_are_of_the_whole_input(copied, tmp_path):
    """Dropped mass counts: strengths are products of the shares that a walk over the rows gives."""
    tables = compared(copied, tmp_path)["a"]
    kinds = {row["node_id"]: row["kind"] for row in tables["nodes"]}
    logit = min(node for node, kind in kinds.items() if kind == "logit")
    expected = {tuple(path): strength for path, strength in slow_paths(tables, logit) if kinds[path[0]] == "embedding"}
    paths = Database(copied).query("graph_paths", graph_id="a", through="all", min_strength=0)
    found = dict(zip(map(tuple, paths["node_ids"].to_list()), paths["strength"].to_list(), strict=True))
    assert len(found) > 5 and found == pytest.approx(expected)


def test_the_strongest_path_of_each_start_by_its_influence(database):
    paths = Database(database).strongest_paths(GRAPH)
    assert paths["node_ids"].to_list() == [[4, 0, 1, 5], [3, 5]] and paths["influence"].to_list() == [0.2, 0.1]
    assert paths["strength"].to_list() == pytest.approx([0.9 * 0.8, 0.9 * 0.2])
    assert paths["path"][1] == "<bos>@0 → Paris@2"
    assert Database(database).strongest_paths(GRAPH, 1)["node_ids"].to_list() == [[4, 0, 1, 5]]


def test_a_stored_graph_is_pruned_followed_and_grouped_without_torch(database):
    script = f"""
import sys
import cltdb
db = cltdb.open({str(database)!r})
pruned = db.subgraph({GRAPH!r}, node_threshold=0.9)
assert pruned.nodes.height and pruned.scores.replacement > 0 and db.strongest_paths({GRAPH!r}).height == 2
db.group_features({GRAPH!r}, node_threshold=1.0, edge_threshold=1.0)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_edges_between_groups(database):
    """Nodes 0 and 1 are a group, between them stands an edge; node 1 gets all of its input from node 0, node 0 from embedding 4."""
    edges = Database(database).query("supernode_edges", graph_id=GRAPH)
    assert edges["source_name"].to_list() == ["Paris (The@1)", "embedding The@1", "embedding <bos>@0"]
    assert edges["target"].to_list() == ["logit 5", f"{GRAPH}-s0", "logit 5"]
    assert edges["weight"].to_list() == pytest.approx([0.8, 0.5 / 0.9, 0.2])
    assert edges["influence"].to_list() == pytest.approx([0.8 * 1.9, 0.5, 0.2 * 1.9]) and edges["n_edges"].to_list() == [1, 1, 1]


def slow_group_edges(nodes, edges, groups):
    """{(source, target): (weight, signed weight)}, group by group, from rows of a stored graph that is all kept."""
    members = {**groups} | {
        f"{row['kind']} {row['node_id']}": [row["node_id"]]
        for row in nodes
        if all(row["node_id"] not in group for group in groups.values())
    }
    value = {row["node_id"]: row["influence"] + (row["probability"] or 0) for row in nodes}
    mass = {row["node_id"]: row["dropped_mass"] or 0 for row in nodes}
    for row in edges:
        mass[row["target_id"]] += abs(row["weight"])
    found = {}
    for source, target in product(members, members):
        parts = [
            (value[row["target_id"]] / sum(map(value.get, members[target])), row["weight"] / mass[row["target_id"]])
            for row in edges
            if row["source_id"] in members[source] and row["target_id"] in members[target]
        ]
        if parts and source != target:
            found[source, target] = sum(part * abs(share) for part, share in parts), sum(part * share for part, share in parts)
    return found


def test_edges_between_groups_are_those_of_the_definition(copied, tmp_path):
    """A random graph with dropped mass, negative edges and two groups that share a node."""
    rng = random.Random(0)
    tables = world.random_graph_tables("random", rng, n_features=9)
    groups = {"random-s0": [0, 3, 4], "random-s1": [4, 7]}
    rows = [{"supernode_id": name, "graph_id": "random", "name": name, "node_ids": ids} for name, ids in groups.items()]
    tables["supernodes"] = rows
    load_artifact(copied, **dict(zip(("key", "directory"), write_artifact(tmp_path, "random-key", tables), strict=True)))
    expected = slow_group_edges(tables["nodes"], tables["edges"], groups)
    frame = Database(copied).query("supernode_edges", graph_id="random")
    found = {(row["source"], row["target"]): (row["weight"], row["signed_weight"]) for row in frame.to_dicts()}
    assert len(found) > 20 and found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in found)


def compared(database, folder, *, seed=1):
    """Loads two random graphs of one prompt, of the dictionaries a and b; returns their tables."""
    rng, both = random.Random(seed), {}
    for name in "ab":
        tables = world.random_graph_tables(name, rng, n_features=7, dict_id=name)
        features = [row for row in tables["nodes"] if row["kind"] == "feature"]
        tables |= world.random_ablation_tables(name, rng, features, dict_id=name)
        key, directory = write_artifact(folder, f"{name}-key", tables | world.train_tables(name))
        load_artifact(database, key=key, directory=directory)
        both[name] = tables
    return both


def slow_agreement(tables, mode):
    """(error, Spearman's correlation by sorting; no ties are drawn) of the ablations in one mode."""
    weight = {row["token"]: row["probability"] for row in tables["nodes"] if row["kind"] == "logit"}
    influence = {(row["layer"], row["feature"]): row["influence"] for row in tables["nodes"] if row["kind"] == "feature"}
    rows = []
    for one in tables["interventions"]:
        effects = [row for row in tables["intervention_effects"] if row["intervention_id"] == one["intervention_id"]]
        effects = [row for row in effects if row["kind"] == "logit"]
        if one["mode"] == mode and "by-hand" not in one["intervention_id"]:
            change, miss = (
                sum(weight[row["token"]] * abs(row["after"] - row[name]) for row in effects) / sum(weight.values())
                for name in ("before", "predicted")
            )
            rows.append((influence[one["settings"][0]["layer"], one["settings"][0]["feature"]], change, miss))
    ranks = [[sorted(column).index(value) for value in column] for column in list(zip(*rows, strict=True))[:2]]
    n, squares = len(rows), sum((one - other) ** 2 for one, other in zip(*ranks, strict=True))
    return sum(row[2] for row in rows) / sum(row[1] for row in rows), 1 - 6 * squares / (n * (n * n - 1))


def test_two_dictionaries_on_one_prompt(copied, tmp_path):
    both, db = compared(copied, tmp_path), Database(copied)
    [row] = db.query("compare_graphs").to_dicts()  # the prompt of the tiny experiment has one dictionary
    assert (row["dict_id"], row["other"], row["kind"], row["prompt_id"]) == ("a", "b", "clt", "random")
    for prefix, name in (("", "a"), ("other_", "b")):
        for what, mode in (("replacement", "iterative"), ("model", "free")):
            error, spearman = slow_agreement(both[name], mode)
            assert row[f"{prefix}{what}_error"] == pytest.approx(error)
            assert row[f"{prefix}{what}_spearman"] == pytest.approx(spearman)
    assert row["supported"] == ("a" if row["model_error"] < row["other_model_error"] else "b")
    [turned] = db.query("compare_graphs", dict_id="b").to_dicts()
    assert (turned["other"], turned["supported"]) == ("a", row["supported"])
    assert db.query("compare_graphs", other="b")["dict_id"].to_list() == ["a"], "no graph beside itself"
    assert db.query("compare_graphs", dict_id="b", other="b").is_empty(), "nor where its dictionary is named twice"
    assert turned["model_error"] == pytest.approx(row["other_model_error"])  # threads add in any order
    assert abs(row["input_correlation"]) == pytest.approx(1)  # of two positions


def test_graphs_of_other_tokens_or_targets_are_no_pair(copied, tmp_path):
    both = compared(copied, tmp_path)
    for name, change in {"tokens": {"tokens": [0, 2]}, "target": {"target": "Paris"}, "model": {"model_id": "other"}}.items():
        graph = both["b"]["graphs"][0] | {"graph_id": name, "dict_id": name, "target": None} | change
        key, directory = write_artifact(tmp_path, f"{name}-key", {"graphs": [graph]})
        load_artifact(copied, key=key, directory=directory)
    assert Database(copied).query("compare_graphs").select("dict_id", "other").rows() == [("a", "b")]


def slow_paths(tables, logit):
    """[(nodes of a path, product of its shares)] of all paths into a logit that begin where nothing enters."""
    mass = {row["node_id"]: row["dropped_mass"] for row in tables["nodes"]}
    for row in tables["edges"]:
        mass[row["target_id"]] += abs(row["weight"])
    found, walks = [], [([logit], 1.0)]
    while walks:
        path, strength = walks.pop()
        longer = [
            ([row["source_id"], *path], strength * abs(row["weight"]) / mass[path[0]])
            for row in tables["edges"]
            if row["target_id"] == path[0]
        ]
        walks += longer
        found += [] if longer else [(path, strength)]
    return found


def test_paths_of_two_dictionaries(copied, tmp_path):
    both = compared(copied, tmp_path)
    frame = Database(copied).query("compare_paths", graph_id="a", other="b")
    assert frame.select("token", "kind", "position").is_unique().all() and frame.height == 2 * 3
    assert frame["difference"].abs().is_sorted(descending=True)
    for row in frame.to_dicts():
        for prefix, tables in (("", both["a"]), ("other_", both["b"])):
            ids = {(n["kind"], n["position"], n["token"]): n["node_id"] for n in tables["nodes"] if n["kind"] != "feature"}
            paths = slow_paths(tables, ids["logit", 1, row["token"]])
            source = ids[row["kind"], row["position"], None if row["kind"] == "error" else row["position"]]
            paths = [(len(path) - 1, strength) for path, strength in paths if path[0] == source]
            influence = sum(strength for _, strength in paths)
            assert row[f"{prefix}influence"] == pytest.approx(influence)
            assert row[f"{prefix}path_length"] == pytest.approx(sum(n * strength for n, strength in paths) / influence)
            assert row[f"{prefix}direct"] == pytest.approx(sum(strength for n, strength in paths if n == 1))
    [named] = frame.filter(token=6, kind="embedding", position=1).to_dicts()
    assert (named["logit"], named["string"]) == ("Paris", "The")


def test_groups_of_a_stored_graph(database):
    """Both features have one explanation; at other positions, they are no group by default."""
    db = Database(database)
    assert db.group_features(GRAPH, similarity=0.0).is_empty()
    [group] = db.group_features(GRAPH, similarity=0.0, same_position=False).to_dicts()
    assert group["node_ids"] == [0, 1] and group["name"] == "fires on 'France' (rules) (The@1, capital@2)"
    assert group["supernode_id"] == f"{GRAPH}-s0"


def test_failed_checks_and_too_few_windows(database):
    failed = Database(database).query("failed_edge_checks")
    assert failed.select("source_id", "target_id").rows() == [(1, 5)]
    few = Database(database).query("too_few_windows")
    assert few["n_contexts"].to_list() == [6] * 4  # dead features are not among them
    assert Database(database).query("too_few_windows", min_contexts=6, min_documents=6).height == 0


def test_the_circuit_around_a_feature(copied, tmp_path):
    """0:0 and 0:1 -> 1:0 -> 2:0 and 2:1, and 0:0 -> 2:0 beside; the weight of 0:1 is the weaker one."""
    edges = [
        (*ends, weight, 0.1, weight, 0.1)
        for ends, weight in {
            (0, 0, 1, 0): -3.0, (0, 1, 1, 0): 1.0, (1, 0, 2, 0): 1.0, (1, 0, 2, 1): 2.0, (0, 0, 2, 0): 0.5
        }.items()
    ]  # fmt: skip
    key, directory = write_artifact(tmp_path, "deep", {"feature_edges": world.feature_edge_table(edges, dict_id="deep")})
    load_artifact(copied, key=key, directory=directory)

    def circuit(layer, feature, **parameters):
        frame = Database(copied).query("feature_circuit", dict_id="deep", layer=layer, feature=feature, **parameters)
        return frame.select("direction", "step", "source_layer", "source_feature", "target_layer", "target_feature").rows()

    upstream = [("from", 1, 1, 0, 2, 0), ("from", 1, 0, 0, 2, 0), ("from", 2, 0, 0, 1, 0), ("from", 2, 0, 1, 1, 0)]
    assert circuit(2, 0) == upstream and circuit(2, 0, steps=1) == upstream[:2]
    assert circuit(2, 0, width=1) == [upstream[0], upstream[2]]
    assert circuit(1, 0) == [("from", 1, 0, 0, 1, 0), ("from", 1, 0, 1, 1, 0), ("to", 1, 1, 0, 2, 1), ("to", 1, 1, 0, 2, 0)]
    named = Database(copied).query("feature_circuit", dict_id=world.DICT, layer=0, feature=0)
    assert named.select("source_text", "target_text").rows() == [("fires on 'France' (rules)",) * 2]


def test_inhibition_is_found_by_the_virtual_weight(database):
    found = Database(database).query("inhibitory_edges", max_coactivation=0.0)
    assert found.select("source_feature", "target_feature", "virtual_weight").rows() == [(1, 0, -2.0)]


def test_a_card_names_the_tokens_of_both_sides(database):
    card = Database(database).query("feature_card", dict_id=world.DICT, layer=0, feature=1)
    for column, step in {"promoted": 1, "suppressed": -1, "driven_by": 1, "inhibited_by": -1}.items():
        assert [(effect["string"], effect["value"]) for effect in card[column][0]] == [("Paris", 1.5), ("The", 0.5)][::step]


def measured(dict_id, numbers):
    """An evaluation of one dictionary: (fvu, l0) per layer, pooled under None."""
    values = [(layer, name, value) for layer, pair in numbers.items() for name, value in zip(("fvu", "l0"), pair, strict=True)]
    return rows("layer name value", values, dict_id=dict_id, stage="evaluate", step=0)


def test_the_frontier_of_a_sweep_per_layer_and_pooled(copied, tmp_path):
    points = {
        "a": {None: (0.3, 2.0), 0: (0.1, 9.0)}, "b": {None: (0.2, 4.0), 0: (0.2, 8.0)}, "c": {None: (0.25, 5.0), 0: (0.3, 7.0)},
        "alone": {None: (0.01, 1.0)}, "residual": {None: (0.001, 0.5)},
    }  # fmt: skip
    experiments, stage_runs = [], []
    for name, numbers in points.items():
        tables = world.train_tables(name) | {"metrics": measured(name, numbers)}
        if name == "residual":  # reconstructs something else, so its FVU says nothing of the others
            tables["dictionaries"] = [tables["dictionaries"][0] | {"kind": "sae", "reads": "residual"}]
        key, directory = write_artifact(tmp_path, f"{name}-key", tables)
        load_artifact(copied, key=key, directory=directory)
        record = {"experiment": f"s-{name}", "spec_hash": name, "spec_yaml": ""}
        swept = {} if name in ("alone", "residual") else {"sweep": "s", "swept": {"seed": name}}
        experiments += [record | swept, record | {"spec_hash": f"{name}-again"}]
        stage_runs += [
            {
                **record,
                "run_id": run_id,
                "spec_hash": spec_hash,
                "stage": "train",
                "key": key,
                "status": "done",
                "seconds": seconds,
                "started_at": "2026-01-01T00:00:00+00:00",
            }
            for run_id, spec_hash, seconds in ((name, name, 2.5), (f"{name}-cached", f"{name}-again", 0.0))
        ]
    save_records(copied, experiments=experiments, stage_runs=stage_runs)
    frame = Database(copied).query("frontier", sweep="s")
    assert frame.select("dict_id", "l0", "fvu", "swept", "train_seconds", "on_frontier").rows() == [
        ("a", 2.0, 0.3, '{"seed": "a"}', 2.5, True),
        ("b", 4.0, 0.2, '{"seed": "b"}', 2.5, True),
        ("c", 5.0, 0.25, '{"seed": "c"}', 2.5, False),
    ]
    layer = Database(copied).query("frontier", sweep="s", layer=0)
    assert layer["dict_id"].to_list() == ["c", "b", "a"] and layer["on_frontier"].all() and layer["layer"].to_list() == [0, 0, 0]
    everything = Database(copied).query("frontier")
    assert {"a", "alone", world.DICT} <= set(everything["dict_id"])
    assert everything.filter("on_frontier")["dict_id"].sort().to_list() == ["alone", "residual"]
    assert Database(copied).query("frontier", sweep="s-alone")["dict_id"].to_list() == ["alone"]
    assert Database(copied).query("frontier", sweep="nothing").is_empty()


def test_a_training_without_a_dictionary_yet_is_listed_with_its_last_numbers(copied):
    save_records(
        copied,
        experiments=[],
        stage_runs=[
            {"run_id": str(i), "experiment": "tiny", "spec_hash": "h1", "stage": "train", "key": "unfinished-key",
             "status": status, "started_at": f"2026-01-0{i + 1}T00:00:00+00:00"}
            for i, status in enumerate(("killed", "running"))
        ],
    )  # fmt: skip
    [row] = Database(copied).query("page_in_training").to_dicts()
    assert (row["dict_id"], row["status"], row["step"], row["experiment"]) == ("tiny-plt-4567cdef", "running", 2, "tiny")
    assert (row["fvu"], row["l0"]) == pytest.approx((0.2 / 3, 4 / 3))
    assert Database(copied).query("metrics_curve", name="fvu", dict_id="tiny-plt-4567cdef").height == 9


def test_windows_are_decoded_in_order(database):
    windows = Database(database).query("feature_contexts", dict_id=world.DICT, layer=0, feature=0)
    assert windows["strings"][0].to_list() == ["The", "capital", "of", "France"]
    assert windows["band"].to_list() == ["top", "top", "q1", "q1", "q0", "q0"]


def test_python_answers_have_the_documented_columns(database):
    db = Database(database)
    assert db.features(world.DICT, layer=1).columns == [
        "dict_id",
        "layer",
        "feature",
        "density",
        "max_activation",
        "mean_activation",
        "threshold",
        "encoder_norm",
        "decoder_norms",
        "dead",
        "top_logits",
        "bottom_logits",
        "top_embeddings",
        "bottom_embeddings",
        "n_contexts",
        "n_documents",
        "std_activation",
        "quantiles",
        "histogram",
        "lens_logits",
        "label_entropy",
        "label_information_bits",
        "label_information_matched_bits",
    ]
    assert db.contexts(world.DICT, layer=0, feature=1, band="q1").columns == [
        "dict_id",
        "layer",
        "feature",
        "band",
        "rank",
        "document",
        "sequence",
        "start",
        "position",
        "label",
        "tokens",
        "activations",
        "max_activation",
    ]
    graph = db.graph(GRAPH)
    assert graph.height == 4 and graph.columns[:7] == [
        "graph_id",
        "source_id",
        "target_id",
        "weight",
        "influence",
        "kept",
        "measured",
    ]
    assert graph.filter(target_id=5, source_id=3)["source_text"].item() == "embedding <bos>"
    assert graph.filter(target_id=5, source_id=3)["target_string"].item() == "Paris"
    assert db.graph_nodes(GRAPH)["node_id"].to_list() == list(range(6)) and db.graph_edges(GRAPH).height == 4
    assert db.graphs()["graph_id"].to_list() == [GRAPH] and db.scores(world.DICT, scorer="fuzzing", explainer="llm").height == 4
    assert (
        db.metrics(world.DICT, stage="evaluate", name="l0").height == 3
        and db.explanations(world.DICT, layer=0, feature=0).height == 3
    )
    assert db.search("france", limit=2).height == 2 and db.experiments()["stage"].to_list() == ["model", "train"]


def test_frames_of_sums_and_repeated_names(database):
    frame = Database(database).sql("SELECT sum(layer) AS a, 1 AS a, 170141183460469231731687303715884105727 AS big FROM features")
    assert frame.columns == ["a", "a_1", "big"] and frame.row(0)[:2] == (3, 1)


@pytest.mark.parametrize("text", [world.HOSTILE, "%", "'", "\\", "x' OR '1'='1", "\0", "é\u202e"])
def test_hostile_text_is_only_text(database, text):
    db, before = Database(database), contents(database)
    db.search(text)
    assert db.sql("SELECT $text AS t", {"text": text}).item() == text
    for unknown in (db.features, db.graph):
        with pytest.raises(CltdbError, match="found no (dictionary|graph)"):
            unknown(text)
    assert contents(database) == before


def test_hostile_strings_come_back_as_they_went_in(copied, tmp_path, capsys):
    text = '\x1b[2J</td><script>alert(1)</script>\n"quoted",comma'
    tables = world.explain_tables(text=text)
    key, directory = write_artifact(tmp_path / "b", "hostile", tables, started_at="2027-01-01T00:00:00+00:00")
    load_artifact(copied, key=key, directory=directory)
    assert Database(copied).explanations(world.DICT, layer=0, feature=0, explainer="rules")["text"].item() == f"{text} (rules)"
    sql_command.run_query(copied, "SELECT text FROM explanations LIMIT 1", format="table")
    assert "\x1b" not in capsys.readouterr().out


VALUES = (
    "SELECT 1 AS i, NULL AS n, 'a,\"b\"\nc' AS s, [1.5, NULL, 'nan'::DOUBLE] AS l, {'a': 1, 'b': ['x']} AS d, 'nan'::DOUBLE AS f, "
    "'-inf'::FLOAT AS g, true AS t, sum(2) AS total, DATE '2026-01-02' AS day, 0.5::DECIMAL(4, 2) AS half"
)


def test_csv(database, capsys):
    sql_command.run_query(database, VALUES)  # capsys is no terminal, so csv
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["i", "n", "s", "l", "d", "f", "g", "t", "total", "day", "half"]
    assert row == [
        "1",
        "",
        'a,"b"\nc',
        "[1.5, null, null]",
        '{"a": 1, "b": ["x"]}',
        "nan",
        "-inf",
        "true",
        "2",
        "2026-01-02",
        "0.5",
    ]


def test_json(database, capsys):
    sql_command.run_query(database, VALUES, format="json")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == [
        {
            "i": 1,
            "n": None,
            "s": 'a,"b"\nc',
            "l": [1.5, None, None],
            "d": {"a": 1, "b": ["x"]},
            "f": None,
            "g": None,
            "t": True,
            "total": 2,
            "day": "2026-01-02",
            "half": 0.5,
        }
    ]
    sql_command.run_query(database, "SELECT 1 AS a WHERE false", format="json")
    assert json.loads(capsys.readouterr().out) == []


OF_EVERY_TYPE = {
    "bool": "true", "int": "-1::TINYINT", "u": "18446744073709551615::UBIGINT", "huge": "170141183460469231731687303715884105727::HUGEINT",
    "f": "0.1::FLOAT", "d": "0.1::DOUBLE", "e": "1e22::FLOAT", "nan": "'nan'::DOUBLE", "inf": "'-inf'::FLOAT", "dec": "1.50::DECIMAL(9, 2)",
    "wide": "12345678901234567890.123::DECIMAL(38, 3)", "text": "'ä\nb'", "blob": "'ab'::BLOB", "time": "TIME '01:02:03.4'",
    "day": "DATE '2026-01-02'", "ts": "TIMESTAMP '2026-01-02 03:04:05.678901'", "zoned": "TIMESTAMPTZ '2026-01-02 03:04:05+02'",
    "ns": "TIMESTAMP_NS '2026-01-02 03:04:05.678901234'", "span": "INTERVAL '1 month 2 days 3 hours'", "spans": "[INTERVAL 40 DAYS]",
    "uuid": "UUID '7d8ee2c8-1f0f-4a5a-b9d5-6ad4a1d5b2a8'", "kind": "'a'::ENUM('a', 'b')", "list": "[1.5::FLOAT, NULL]", "lists": "[[1], []]",
    "array": "[1, 2]::INTEGER[2]", "struct": "{'a': 1::HUGEINT, 'b': [{'day': DATE '2026-01-02'}]}", "map": "MAP {1: 'a', 2: NULL}",
    "row": "row(1, 'a')", "union": "union_value(k := 1)", "json": """'{"a": 1}'::JSON""", "null": "NULL", "empty": "[]",
}  # fmt: skip


def test_few_rows_are_printed_as_many_are(database, capsys, monkeypatch):
    """Few come as Python values from DuckDB, many through Arrow."""
    ways = []
    with Database(database).session() as session:
        for way in (query_module.rows_or_reader, query_module.answer):
            monkeypatch.setattr(sql_command, "rows_or_reader", way)
            for name, value in OF_EVERY_TYPE.items():
                sql_command.run_query(database, f"SELECT {value} AS {name}", format="json", connection=session._connection)
            ways.append(capsys.readouterr().out)
    assert ways[0] == ways[1] and ways[0].count("[\n") == len(OF_EVERY_TYPE)


def test_a_statement_that_is_asked_again_has_its_new_values(database):
    """It is parsed once in a process, whichever database and thread asks."""
    sql = "SELECT $n::INTEGER + i AS n, $text::VARCHAR AS text FROM range(2) AS r(i)"

    def asked(n):
        return Database(database)._own(sql, {"n": n, "text": None if n % 2 else str(n)}).rows()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(asked, range(20))) == [[(n + i, None if n % 2 else str(n)) for i in (0, 1)] for n in range(20)]
    assert query_module._parsed[sql].query == sql


def test_an_answer_of_just_as_many_rows_as_few_are(database, capsys, monkeypatch):
    monkeypatch.setattr(query_module, "FEW_ROWS", 3)
    db = Database(database)
    with db.session() as session:
        for n in range(6):
            sql_command.run_query(database, f"SELECT i FROM range({n}) AS t(i)", connection=session._connection)
            assert capsys.readouterr().out.split() == ["i", *map(str, range(n))]


@pytest.mark.parametrize("day", ["DATE '2026-01-02'", "TIMESTAMP '2026-01-02 03:04:05.678901'"])
def test_an_answer_whose_first_rows_take_long_is_computed_once(database, capsys, day):
    """Random numbers go on where a statement is computed a second time."""
    slow = f"SELECT random() AS r, {day} AS day, n FROM range(5000) CROSS JOIN (SELECT count(*) AS n FROM range(3000000) AS t(i) WHERE i % 7 = hash(i) % 7)"
    with Database(database).session() as session:
        connection = session._connection
        connection.execute("SELECT setseed(0.5)").fetchall()
        expected = connection.execute(slow).fetchall()
        connection.execute("SELECT setseed(0.5)").fetchall()
        sql_command.run_query(database, slow, connection=connection)
    assert capsys.readouterr().out.split("\n")[1:-1] == [f"{r!r},{day.isoformat()},{n}" for r, day, n in expected]


BEYOND_PYTHON = {
    "DATE '9999-12-31'": "9999-12-31", "DATE '0001-01-01'": "0001-01-01", "DATE '10000-01-01'": "10000-01-01", "'-infinity'::DATE": "-infinity",
    "TIMESTAMP '9999-12-31 23:59:59.999999'": "9999-12-31T23:59:59.999999", "'infinity'::TIMESTAMP": "infinity", "'infinity'::TIMESTAMPTZ": "infinity",
    "'infinity'::TIMESTAMP_NS": "infinity", "'-infinity'::TIMESTAMP_NS": "-infinity", "TIME '24:00:00'": "24:00:00",
    "'-infinity'::TIMESTAMP_MS": "-infinity", "TIMESTAMPTZ '20000-01-01 00:00:00+00'": "20000-01-01 00:00:00+00",
    "['infinity'::DATE, NULL, DATE '2026-01-02']": ["infinity", None, "2026-01-02"], "['infinity'::DATE]::DATE[1]": ["infinity"],
    "{'a': DATE '10000-01-01', 'b': MAP {'-infinity'::DATE: ['infinity'::TIMESTAMP], DATE '2026-01-02': NULL}}": {
        "a": "10000-01-01", "b": [["-infinity", ["infinity"]], ["2026-01-02", None]],
    },
    "union_value(k := 'infinity'::DATE)": "infinity",
}  # fmt: skip


@pytest.mark.parametrize("value", BEYOND_PYTHON)
def test_infinite_times_and_years_that_python_lacks(database, capsys, monkeypatch, value):
    """Of few rows, and through Arrow, as many come. The last days that Python has are days."""
    for way in (query_module.rows_or_reader, query_module.answer):
        monkeypatch.setattr(sql_command, "rows_or_reader", way)
        sql_command.run_query(database, f"SELECT {value} AS v FROM range(2)", format="json")
        assert json.loads(capsys.readouterr().out) == 2 * [{"v": BEYOND_PYTHON[value]}]


def test_intervals_are_printed_in_their_parts(database, capsys):
    spans = "[INTERVAL '14 months 3 days', INTERVAL '-1.5 seconds', INTERVAL '2 days 25 hours', INTERVAL 0 DAY, NULL]"
    sql_command.run_query(database, f"SELECT INTERVAL 3 YEAR AS y, {spans} AS spans", format="json")
    assert json.loads(capsys.readouterr().out) == [{"y": "P36M", "spans": ["P14M3D", "PT-1.5S", "P2DT90000S", "PT0S", None]}]


def test_decimals_lose_no_digit(database, capsys):
    sql_command.run_query(
        database,
        "SELECT 12345678901234567890.123::DECIMAL(38, 3) AS wide, 0.10::DECIMAL(5, 2) AS e, [1e-30::DECIMAL(38, 33)] AS f",
    )
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1] == ["12345678901234567890.123", "0.1", "[1e-30]"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
        ("'101'::BIT", "101"),
        ("123456789012345678901234567890123456789012345::BIGNUM", "123456789012345678901234567890123456789012345"),
        ("'01:02:03+02'::TIMETZ", "01:02:03+02:00"),
        ("[1]::VARIANT", "[1]"),
        ("[{'a': '101'::BIT}]", '[{"a": "101"}]'),
    ],
)
def test_what_arrow_would_have_another_value_of_is_printed_or_refused(database, capsys, value, text):
    sql_command.run_query(database, f"SELECT {value} AS v", format="table")
    assert capsys.readouterr().out.splitlines()[2] == text
    with pytest.raises(CltdbError, match="column v of type .* cast it, for example v::VARCHAR"):
        sql_command.run_query(database, f"SELECT {value} AS v FROM range({query_module.BATCH_ROWS})")
    with pytest.raises(CltdbError, match="column v of type"):
        Database(database).sql(f"SELECT {value} AS v")


def test_table(database, capsys):
    sql_command.run_query(database, "SELECT layer, feature, text FROM feature_cards ORDER BY ALL LIMIT 2", format="table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "feature", "text"] and lines[-1] == "(2 rows)" and len(lines) == 5


def test_parquet_is_written_by_us(database, tmp_path):
    import pyarrow.parquet as pq

    sql_command.run_query(database, "SELECT * FROM contexts", format="parquet", output=tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 24
    with pytest.raises(CltdbError, match="-o FILE"):
        sql_command.run_query(database, "SELECT 1", format="parquet")
    with pytest.raises(CltdbError, match="cannot hold"):
        sql_command.run_query(database, "SELECT INTERVAL 1 MONTH AS m", format="parquet", output=tmp_path / "bad.parquet")
    assert not (tmp_path / "bad.parquet").exists()


def test_output_files_and_formats(database, tmp_path):
    sql_command.run_query(database, "SELECT 1 AS a", output=tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "a\n1\n"
    with pytest.raises(CltdbError, match="xml"):
        sql_command.run_query(database, "SELECT 1", format="xml")


@pytest.mark.parametrize(
    "statement",
    [
        "SELEC 1",
        "SELECT nope FROM features",
        "SELECT 'x'::INTEGER",
        "SELECT $missing",
        "SELECT (CASE WHEN x > 400000 THEN 'a' ELSE '1' END)::INTEGER FROM range(500000) AS t(x)",
    ],
)
def test_query_errors_are_one_line_from_sql(database, statement, capsys):
    with pytest.raises(CltdbError, match="^sql: found .*Error") as caught:
        sql_command.run_query(database, statement)
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""


def test_named_queries_on_the_command_line(database, capsys):
    sql_command.run_query(database, named_query("shared_features"), params={"k": "1"}, format="json")
    assert {row["feature"] for row in json.loads(capsys.readouterr().out)} == {0, 1}
    assert dict(sql_command.list_queries())["shared_features"].startswith("Features that appear in at least k graphs.")
    for name in ("nothing", "../schema/views", "", "a" * 300):
        with pytest.raises(CltdbError, match="cltdb sql --list"):
            named_query(name)
    with pytest.raises(CltdbError, match=r"no query 'feature_crd'.*did you mean feature_card\?"):
        named_query("feature_crd")


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("shared_features", {"z": 1}, r"unknown parameter 'z'; expected parameters k, kept, dict_id; .*--describe shared_features"),
        ("feature_search", {"text": "a", "limt": 1}, r"unknown parameter 'limt'.*did you mean limit\?"),
        ("feature_search", {}, "no value for text"),
        ("feature_search", {"text": None}, "no value for text"),
        ("feature_card", {"dict_id": "d", "layer": "three", "feature": 1},
         "^query feature_card, parameter layer: found 'three'; expected an integer"),
        ("shared_features", {"k": 1.5}, "parameter k: found 1.5; expected an integer"),
        ("shared_features", {"k": True}, "parameter k: found true; expected an integer"),
        ("shared_features", {"k": None}, "parameter k: found null; expected an integer"),
        ("shared_features", {"kept": "yes"}, "parameter kept: found 'yes'; expected true or false"),
        ("shared_features", {"dict_id": ["d"]}, r"parameter dict_id: found \['d'\]; expected text"),
        ("late_writers", {"min_frac": "half"}, "parameter min_frac: found 'half'; expected a number"),
        ("feature_pages", {"dict_id": "d", "layer": 0, "features": 3}, "parameter features: found 3; expected a list of integers"),
        ("feature_pages", {"dict_id": "d", "layer": 0, "features": "3, 4"}, "expected a list of integers"),
        ("feature_lens", {"dict_id": "d", "tokens": "[Paris]"}, r"found '\[Paris\]'; expected a list of texts, such as"),
        ("feature_lens", {"dict_id": "d", "tokens": '"Paris"'}, "expected a list of texts, such as"),
        ("feature_lens", {"dict_id": "d", "tokens": {"Paris": 1}}, "found {'Paris': 1}; expected a list of texts, such as"),
        ("feature_lens", {"dict_id": "d", "tokens": '{"Paris": 1}'}, "expected a list of texts, such as"),
        ("feature_search", {"text": "a", "limit": -1}, "parameter limit: found -1; expected an integer, at least 0"),
        ("feature_search", {"text": "a", "limit": 10**30}, "parameter limit: found 10{30}; expected an integer, at least 0"),
        ("feature_search", {"text": ["a"]}, "parameter text: found .*; expected text"),
        ("dense_features", {"layer": 2**31}, "parameter layer: found 2147483648; expected an integer"),
        ("late_writers", {"layers_later": 2**31 - 1}, "parameter layers_later: found 2147483647; expected an integer"),
        ("late_writers", {"min_frac": float("nan")}, "parameter min_frac: found nan; expected a number"),
        ("late_writers", {"min_frac": "nan"}, "parameter min_frac: found 'nan'; expected a number"),
        ("feature_pages", {"dict_id": "d", "layer": 0, "features": [2**40]}, "parameter features: found .*; expected a list of integers"),
        ("graph_paths", {"graph_id": "g", "logit": -1}, "parameter logit: found -1; expected an integer, at least 0"),
        ("top_neighbours", {"dict_id": "d", "layer": 0, "feature": 1, "measure": "coactivation"},
         "found 'coactivation'; expected one of twera, era, virtual_weight"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(name, given, message):
    with pytest.raises(CltdbError, match=message) as caught:
        named_query_params(named_query(name), given)
    assert "\n" not in str(caught.value)


def test_an_empty_answer_of_a_named_query_says_what_can_be_known_of_why(database, caplog, capsys):
    for name, given, said in (
        ("feature_search", {"text": "zzzz"}, "no rows with text=zzzz (empty: annotations)"),
        ("label_scores", {}, "no rows (empty: label_scores)"),
        (
            "label_scores",
            {"dict_id": "gone"},
            "no rows with dict_id=gone (empty: label_scores; no dict_id gone: the database has tiny-clt-0123abcd)",
        ),
        (
            "graph_edges",
            {"graph_id": "france-aaaa111"},
            "no rows with graph_id=france-aaaa111 (no graph_id france-aaaa111: did you mean france-aaaa1111?)",
        ),
    ):
        caplog.clear()
        sql_command.run_query(database, named_query(name), params=given, format="csv")
        assert caplog.messages[-1] == f"query {name}: {said}"
        assert len(capsys.readouterr().out.splitlines()) == 1
    sql_command.run_query(database, "SELECT 1 WHERE false", format="csv")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda db: db.features("tiny-clt-0123abce"), "features: found no dictionary 'tiny-clt-0123abce'; .*did you mean tiny-clt-0123abcd?"),
        (lambda db: db.contexts(world.DICT, 9), "contexts: found no layer 9; expected 0 to "),
        (lambda db: db.explanations(world.DICT, 0, 99), "explanations: found no feature 99; expected 0 to "),
        (lambda db: db.scores(world.DICT, scorer="detectoin"), "scores: found no scorer 'detectoin'; .*did you mean detection?"),
        (lambda db: db.metrics(world.DICT, name="fuv"), "metrics: found no name 'fuv'; .*did you mean fvu?"),
        (lambda db: db.graphs("nothing"), "graphs: found no dictionary 'nothing'"),
        (lambda db: db.graph_nodes("france-aaaa111"), "nodes: found no graph 'france-aaaa111'; .*did you mean france-aaaa1111?"),
        (lambda db: db.search("capital", dict_id="nothing"), "search: found no dictionary 'nothing'"),
        (lambda db: db.search("capital", layer=9), "search: found no layer 9"),
        (lambda db: db.features(None), "features dict_id: found null; expected a text"),
        (lambda db: db.graph(None), "named_edges graph_id: found null; expected a text"),
        (lambda db: db.features(world.DICT, layer=1.5), "features layer: found 1.5; expected a whole number"),
        (lambda db: db.features(world.DICT, layer=True), "features layer: found true; expected a whole number"),
        (lambda db: db.feature(world.DICT, "0", 0), "feature layer: found '0'; expected a whole number"),
        (lambda db: db.scan(["features"]), r"scan: found \['features'\]; expected a text"),
        (lambda db: db.sql(3), "sql: found 3; expected a text"),
        (lambda db: db.sql("SELECT ?", "x"), "sql params: found 'x'; expected a dict"),
        (lambda db: db.sql("SELECT 1", timeout_s="1"), "sql timeout_s: found '1'; expected a number of seconds above 0"),
        (lambda db: db.sql("SELECT 1", timeout_s=-1), "sql timeout_s: found -1"),
        (lambda db: db.search(["capital"]), "parameter text: found .*; expected text"),
        (lambda db: db.subgraph(GRAPH, node_threshold="x"), "node_threshold: found 'x'; expected a share between 0 and 1"),
        (lambda db: db.group_features(GRAPH, dictionary=world.DICT), "group_features dictionary: found .*; expected a dictionary"),
        (lambda db: db.session(threads=0).__enter__(), "session threads: found 0; expected 1 or more"),
        (lambda db: Database(None), "cltdb.open: found null; expected the path"),
    ],
)  # fmt: skip
def test_what_is_unknown_or_of_another_type_is_one_error_of_python(database, ask, message):
    with pytest.raises(CltdbError, match=message.replace("?", "[?]")):
        ask(Database(database))


def test_what_is_known_and_has_no_rows_is_an_empty_frame(copied):
    with store.connect(copied, write=True) as connection:
        connection.execute("DELETE FROM scores")
    db = Database(copied)
    assert db.scores(world.DICT, scorer="fuzzing").is_empty()
    assert db.features(world.DICT, np.int64(1)).height == db.features(world.DICT, 1).height > 0
    assert db.sql("SELECT $n + 1 AS n", {"n": np.int64(1)}).item() == db.sql("SELECT ? + 1", [np.int32(1)]).item() == 2


def test_a_named_query_in_python_warns_of_a_name_that_is_unknown(database, caplog):
    assert Database(database).query("graph_edges", graph_id="france-aaaa111").is_empty()
    assert caplog.messages == ["query graph_edges: no rows (no graph_id france-aaaa111: did you mean france-aaaa1111?)"]


@pytest.mark.parametrize("nothing", ["", " ;", "-- a comment"])
def test_no_statement_is_said(database, nothing):
    with pytest.raises(CltdbError, match="sql: found no statement; expected one statement; do this: write cltdb sql"):
        sql_command.run_query(database, nothing)


def test_parameters_become_values_of_their_types():
    given = {"text": 2026, "layer": "3", "min_score": 1, "alive": "false", "dict_id": None}
    assert named_query_params(named_query("feature_search"), given) == given | {
        "text": "2026", "layer": 3, "min_score": 1.0, "alive": False, "limit": 50, "glossary": None, "order": None
    }  # fmt: skip
    pages = named_query_params(named_query("feature_pages"), {"dict_id": "d", "layer": 0, "features": "[1, 2]"})
    assert pages == {"dict_id": "d", "layer": 0, "features": [1, 2]}


def test_a_query_is_described(capsys):
    assert main(["sql", "--describe", "top_neighbours"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("The features most strongly connected")
    assert re.fullmatch(r"-p layer= +integer +the layer the feature reads from \(required\)", lines[2])
    assert any(re.match(r"-p measure=twera +twera \| era \| virtual_weight ", line) for line in lines)
    assert lines[-1] == "example: cltdb sql --query top_neighbours -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222"
    assert "reads: best_explanations, edges_into, feature_edges." in lines
    assert main(["sql", "--describe", "top_neigbours"]) == 1 and "did you mean top_neighbours?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "statement",
    [
        "LOAD json",
        "INSTALL json",
        "CREATE TEMP TABLE t AS SELECT 1",
        "CREATE TEMP MACRO f() AS 1",
        "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
        "explain /* so */ (analyze) CREATE TEMP VIEW t AS SELECT 1",
        "-- EXPLAIN\nEXPLAIN ANALYZE LOAD json",
        "PREPARE v AS SELECT 1",
        "EXECUTE v",
        "BEGIN",
        "CHECKPOINT",
        "CALL pragma_version()",
        "PRAGMA table_info('models')",
        "IMPORT DATABASE '/tmp'",
        "SET VARIABLE a = 1",
        "USE main",
        "VACUUM",
    ],
)
def test_what_asks_nothing_is_refused(database, statement, capsys):
    with pytest.raises(CltdbError, match="expected a question"):
        sql_command.run_query(database, statement)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "statement",
    [
        "FROM models",
        "VALUES (1)",
        "WITH a AS (SELECT 1) FROM a",
        "SHOW TABLES",
        "DESCRIBE models",
        "SUMMARIZE models",
        "PIVOT features ON layer USING count(*)",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE -- all of it\nFROM models",
    ],
)
def test_every_kind_of_question_is_answered(database, statement, capsys):
    sql_command.run_query(database, statement, format="csv")
    assert capsys.readouterr().out.strip()


def test_a_reader_takes_no_more_than_its_memory_and_a_spool_no_more_than_half_the_disk(database, tmp_path, monkeypatch):
    limit = Database(database).sql("SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'").item()
    assert float(limit.split()[0]) < 4.0 and limit.endswith("GiB")
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free._replace(free=2_000_000))
    big = "SELECT repeat('x', 1000) || i AS t FROM range(100000) AS r(i)"
    monkeypatch.setattr(stream, "QUEUED", 0)  # whatever streams goes through a file
    monkeypatch.setattr(stream, "PATIENCE_S", 0.0)
    for ask in (lambda: sql_command.run_query(database, big), lambda: list(Database(database).arrow(big))):
        with pytest.raises(CltdbError, match="more than 1 MB, half of what is free"):
            ask()
        assert list((tmp_path / "spool").iterdir()) == []


def test_names_that_repeat_are_numbered_in_every_format(database, tmp_path, capsys):
    import pyarrow.parquet as pq

    statement = "SELECT 1 AS a, 2 AS a, 3 AS a_1"
    sql_command.run_query(database, statement, format="parquet", output=tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [{"a": 1, "a_2": 2, "a_1": 3}]
    sql_command.run_query(database, statement, format="csv")
    assert capsys.readouterr().out == "a,a_2,a_1\n1,2,3\n"
    assert Database(database).sql(statement).to_dicts() == [{"a": 1, "a_2": 2, "a_1": 3}]


def test_questions_of_a_session_share_a_connection(database, monkeypatch):
    opened, original = [], store._open
    monkeypatch.setattr(store, "_open", lambda path, **options: opened.append(path) or original(path, **options))
    db = Database(database)
    with db.session() as s:
        assert_frame_equal(s.query("feature_search", text="france", limit=2), s.search("france", limit=2), rel_tol=1e-12)
        assert s.strongest_paths(GRAPH).height == 2 and s.arrow("FROM models").read_all().num_rows == 1
        with pytest.raises(CltdbError, match="^sql: found .*Error"):
            s.sql("SELECT nope")
        assert s.dictionaries().height == 1 and len(opened) == 1  # an error ends nothing
    with pytest.raises(CltdbError, match="closed"):
        s.dictionaries()
    assert db.dictionaries().height == 1 and len(opened) == 2


def reader_settings(path):
    frame = Database(path).sql("SELECT name, value FROM duckdb_settings() WHERE name IN ('memory_limit', 'threads')")
    return dict(frame.iter_rows())


def test_readers_take_what_the_project_allows(copied, tmp_path, monkeypatch):
    """Where the database lies in the project's folder, and where it lies elsewhere and the working directory is the project's."""
    (tmp_path / "cltdb.yaml").write_text("database: {path: cltdb.duckdb, memory_limit: 300 MB, threads: 1}\nno_key_of_ours: 1\n")
    assert reader_settings(copied) == {"memory_limit": "286.1 MiB", "threads": "1"}
    elsewhere = shutil.copy(copied, tmp_path / "other.duckdb")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/cltdb.yaml").write_text("database: {path: ../other.duckdb, threads: 3}\n")
    monkeypatch.chdir(tmp_path / "project")
    assert reader_settings(elsewhere)["threads"] == "3"
    assert find_project(tmp_path / "project").database.resolve() == elsewhere.resolve()
    store.reader_config.cache_clear()
    (tmp_path / "project/cltdb.yaml").write_text("database: {path: ../other.duckdb, memory_limit: much}\n")
    with pytest.raises(CltdbError, match=r"^memory_limit \(.*cltdb.yaml:1\): found 'much'; expected a size such as 8GB or 500MB"):
        Database(elsewhere).dictionaries()
    with pytest.raises(CltdbError, match=r"^database.memory_limit .*expected a size such as 8GB"):
        find_project(tmp_path / "project")
