"""Named queries about graphs, costs, failures and runs: on a random experiment against its rows, plainly counted."""

from collections import defaultdict

import polars as pl
import pytest
from test_queries_of_features import best, key, same
from worlds.random_experiment import DICT, LAYERS, OLD, STAGE_RUNS, WORDS

GRAPH = "graph-1"


def nodes_of(tables, graph_id=None, kind="feature"):
    return [row for row in tables["nodes"] if graph_id in (None, row["graph_id"]) and row["kind"] == kind]


def dictionary_of(tables):
    return {row["graph_id"]: row["dict_id"] for row in tables["graphs"]}


@pytest.mark.parametrize(("kept", "min_graphs"), [(True, 2), (False, 2), (False, 1), (False, 3)])
def test_edges_that_graphs_have_in_common(random_world, kept, min_graphs):
    db, tables = random_world
    place = {(row["graph_id"], row["node_id"]): row for row in nodes_of(tables) if row["kept"] or not kept}
    found, dicts = defaultdict(list), dictionary_of(tables)
    for row in tables["edges"]:
        source, target = (place.get((row["graph_id"], row[end])) for end in ("source_id", "target_id"))
        if source and target and (row["kept"] or not kept):
            ends = (source["layer"], source["feature"], target["layer"], target["feature"])
            found[dicts[row["graph_id"]], *ends].append(row)
    expected = []
    for ends, edges in found.items():
        n_graphs = len({row["graph_id"] for row in edges})
        if n_graphs >= min_graphs:
            positive = sum(row["weight"] > 0 for row in edges) / len(edges)
            expected.append((*ends, n_graphs, len(edges), sum(row["weight"] for row in edges) / len(edges), positive))
    expected.sort(key=lambda row: (-row[5], -row[6], row[:5]))
    frame = db.query("common_edges", kept=kept, min_graphs=min_graphs, limit=len(expected) + 1)
    columns = "dict_id source_layer source_feature target_layer target_feature n_graphs n_edges mean_weight positive_frac"
    same(frame, columns, expected)
    texts = best(tables)
    same(frame, "source_text target_text", [(texts[row[0], *row[1:3]][0], texts[row[0], *row[3:5]][0]) for row in expected])


def test_the_features_of_a_graph(random_world):
    db, tables = random_world
    found, texts = defaultdict(list), best(tables)
    for row in nodes_of(tables, GRAPH):
        found[row["layer"], row["feature"]].append(row)
    expected = [
        (*one, sum(row["influence"] for row in rows), len(rows), max(row["activation"] for row in rows), texts[DICT, *one][0])
        for one, rows in found.items()
    ]
    expected.sort(key=lambda row: (-row[2], row))
    frame = db.query("graph_features", graph_id=GRAPH)
    same(frame, "layer feature influence n_nodes max_activation text", expected)
    assert frame["positions"].to_list() == [sorted(row["position"] for row in found[one[:2]]) for one in expected]
    kept = {(row["layer"], row["feature"]) for row in nodes_of(tables, GRAPH) if row["kept"]}
    assert set(db.query("graph_features", graph_id=GRAPH, kept=True).select("layer", "feature").rows()) == kept


def test_edges_of_one_node_and_edges_between_nodes(random_world):
    db, tables = random_world
    nodes = {row["node_id"]: row for row in tables["nodes"] if row["graph_id"] == GRAPH}
    edges = [row for row in tables["edges"] if row["graph_id"] == GRAPH]
    entering = defaultdict(list)
    for row in edges:
        entering[row["target_id"]].append(row)
    one, texts = max(entering, key=lambda node: len(entering[node]) * (nodes[node]["kind"] == "feature")), best(tables)
    expected = []
    for direction, here, there in (("in", "target_id", "source_id"), ("out", "source_id", "target_id")):
        near = sorted((row for row in edges if row[here] == one), key=lambda row: (-abs(row["weight"]), row[there]))
        for row in near[:3]:
            end = nodes[row[there]]
            text = texts[DICT, end["layer"], end["feature"]][0] if end["kind"] == "feature" else None
            expected.append((direction, row[there], end["kind"], end.get("position"), text, row["weight"], row["influence"]))
    assert {row[0] for row in expected} == {"in", "out"}
    frame = db.query("node_edges", graph_id=GRAPH, node_id=one, limit=3)
    same(frame, "direction node_id kind position text weight influence", expected)
    some = sorted(nodes)[::2]
    between = [row for row in edges if row["source_id"] in some and row["target_id"] in some]
    between.sort(key=lambda row: (row["target_id"], row["source_id"]))
    columns = "source_id target_id weight influence"
    same(
        db.query("edges_between", graph_id=GRAPH, node_ids=some),
        columns,
        [tuple(row[c] for c in columns.split()) for row in between],
    )
    assert db.query("edges_between", graph_id=GRAPH).height == len(edges)
    sums = [(target, len(rows), sum(abs(row["weight"]) for row in rows)) for target, rows in sorted(entering.items())]
    same(db.query("edge_sums", graph_id=GRAPH), "target_id n_edges mass", sums)
    assert db.query("edge_sums", graph_id=GRAPH, node_ids=some)["n_edges"].sum() == len(between)


def test_influence_by_layer_and_by_position(random_world):
    db, tables = random_world
    features, errors, embeddings = (nodes_of(tables, GRAPH, kind) for kind in ("feature", "error", "embedding"))

    def influence(rows, column, value):
        return sum(row["influence"] for row in rows if row[column] == value)

    expected = []
    for layer in range(LAYERS):
        own = [row for row in features if row["layer"] == layer]
        feature, error = influence(features, "layer", layer), influence(errors, "layer", layer)
        expected.append((layer, len(own), sum(row["kept"] for row in own), feature, error, error / (feature + error)))
    columns = "layer n_features n_kept_features feature_influence error_influence error_frac"
    same(db.query("graph_layers", graph_id=GRAPH), columns, expected)
    expected = [
        (position, WORDS[token], *(influence(rows, "position", position) for rows in (embeddings, features, errors)))
        for position, token in enumerate([0, 1, 3])
    ]
    same(
        db.query("graph_positions", graph_id=GRAPH),
        "position string embedding_influence feature_influence error_influence",
        expected,
    )


def test_what_a_graph_explains(random_world):
    db, tables = random_world
    expected = [
        (row["node_id"], row["token"], WORDS[row["token"]], row["probability"]) for row in nodes_of(tables, GRAPH, "logit")
    ]
    same(db.query("graph_targets", graph_id=GRAPH), "node_id token string probability", expected)


def test_graphs_that_share_features(random_world):
    db, tables = random_world
    dicts, held = dictionary_of(tables), defaultdict(set)
    for row in nodes_of(tables):
        if row["kept"]:
            held[row["graph_id"]].add((row["layer"], row["feature"]))
    expected = [
        (other, len(held[GRAPH] & held[other]), len(held[other]), len(held[GRAPH] & held[other]) / len(held[GRAPH] | held[other]))
        for other in held
        if other != GRAPH and dicts[other] == DICT and held[GRAPH] & held[other]
    ]
    expected.sort(key=lambda row: (-row[3], row[0]))
    same(db.query("similar_graphs", graph_id=GRAPH), "graph_id n_shared n_features jaccard", expected)


def test_scores_of_graphs_by_dictionary(random_world):
    db, tables = random_world
    expected = []
    for dict_id in (DICT, OLD):
        rows = [row for row in tables["graphs"] if row["dict_id"] == dict_id]
        scores = [row["completeness_score"] for row in rows]
        known = sum(row["ablation_spearman"] is not None for row in rows)
        expected.append((dict_id, len(rows), sum(scores) / len(rows), min(scores), known, 1.5 * len(rows)))
    expected.sort(key=lambda row: -row[2])
    columns = "dict_id n_graphs mean_completeness_score min_completeness_score n_ablated seconds"
    same(db.query("graph_quality"), columns, expected)
    curve = [
        (row["node_threshold"], row["edge_threshold"], row["n_nodes"])
        for row in tables["prune_curves"]
        if row["graph_id"] == GRAPH
    ]
    same(db.query("prune_curve", graph_id=GRAPH), "node_threshold edge_threshold n_nodes", sorted(curve))
    assert db.query("supernode_list", graph_id=GRAPH)["supernode_id"].to_list() == [f"{GRAPH}-s0"]
    assert db.query("supernode_list").select("graph_id", "n_nodes").rows() == [(row["graph_id"], 2) for row in tables["graphs"]]


def test_effects_of_interventions(random_world):
    db, tables = random_world
    own = [row for row in tables["intervention_effects"] if row["intervention_id"].startswith(GRAPH) and row["kind"] == "logit"]
    expected = [
        (WORDS[row["token"]], row["after"] - row["before"], row["predicted"] - row["before"], 1, 2, 1, 2, 3) for row in own
    ]
    expected.sort(key=lambda row: -abs(row[1]))
    columns = "string effect predicted_effect layer feature feature_position n_features n_settings"
    same(db.query("ablation_effects", graph_id=GRAPH), columns, expected)
    assert db.query("ablation_effects", graph_id=GRAPH, mode="iterative").is_empty()


def test_an_intervention_at_several_positions_is_one_row_of_its_feature(random_world):
    db, tables = random_world
    of = {"dict_id": DICT, "layer": 1}
    found = db.query("page_feature_interventions", **of, feature=2)
    assert sorted(found["intervention_id"]) == sorted(
        row["intervention_id"] for row in tables["interventions"] if row["dict_id"] == DICT
    )
    done = {"operation": "set", "value": 0.0}
    assert found["settings"].to_list() == [[{"position": at, **done} for at in (1, 2)]] * found.height
    assert found["n_features"].to_list() == [2] * found.height
    other = db.query("page_feature_interventions", **of, feature=3)
    assert other["settings"].to_list() == [[{"position": 1, **done}]] * found.height
    assert db.query("page_feature_interventions", **of, feature=4).is_empty()


def test_interventions_of_a_graph_say_all_that_was_measured(random_world):
    db, tables = random_world
    own = [row for row in tables["intervention_effects"] if row["intervention_id"] == f"{GRAPH}-ablate-0"]
    [found] = db.query("graph_interventions", graph_id=GRAPH, by_hand=False).to_dicts()
    assert (found["text_without"], found["text_with"], found["of_stage"], found["mode"]) == ("a", "b", True, "free")
    assert db.query("graph_interventions", graph_id=GRAPH).is_empty(), "it is an ablation of the stage, by its name"
    logits = [row for row in own if row["kind"] == "logit"]
    names = ("token", "before", "after", "predicted", "probability_before", "probability_after")
    expected = [{"string": WORDS[row["token"]]} | {name: row[name] for name in names} for row in logits]
    expected.sort(key=lambda row: -abs(row["probability_after"] - row["probability_before"]))
    assert found["logits"] == expected
    one = found["settings"][0]
    of_it = {"dict_id": dictionary_of(tables)[GRAPH], "layer": one["layer"], "feature": one["feature"]}
    of_feature = db.query("page_steered", by_hand=False, **of_it, limit=1000).to_dicts()
    assert [row for row in of_feature if row["intervention_id"] == found["intervention_id"]] == [
        {name: found[name] for name in found if name != "of_stage"} | {"graph_id": GRAPH, "prompt": of_feature[0]["prompt"]}
    ]
    assert db.query("page_steered", **of_it).is_empty() and db.query("page_steered", **of_it | {"layer": 99}).is_empty()
    [changed] = db.query("intervention_features", intervention_id=found["intervention_id"], graph_id=GRAPH).to_dicts()
    nodes = [row for row in tables["nodes"] if row["graph_id"] == GRAPH and row["kind"] == "feature"]
    place = {(row["layer"], row["position"], row["feature"]): row["node_id"] for row in nodes}
    assert changed["node_id"] == place.get((1, 1, 2)) and (changed["before"], changed["after"], changed["predicted"]) == (
        1.0,
        0.0,
        0.5,
    )


def test_what_failed_and_why(random_world):
    db, tables = random_world
    expected = [
        ("explanation", *key(row), row["explainer"], row["status"], None, row["error"])
        for row in tables["explanations"]
        if row["status"] in ("failed", "skipped_budget")
    ]
    for row in tables["scores"]:
        if row["n_failed"] or row["score"] is None:
            status, reason = "no score" if row["score"] is None else "windows failed", "no answer" if row["n_failed"] else None
            expected.append(("score", *key(row), f"{row['explainer']} {row['scorer']}", status, row["n_failed"], reason))
    expected.sort(key=lambda row: row[:5])
    for name in ("failed", "killed"):
        for row in STAGE_RUNS:
            if row["status"] == name:
                expected.append(("stage_run", None, None, None, f"{row['experiment']} {row['stage']}", name, None, row["error"]))
    columns = "kind dict_id layer feature name status n_failed reason"
    same(db.query("failed_items"), columns, expected)
    same(db.query("failed_items", kind="stage_run"), columns, expected[-2:])
    old = [row for row in expected if row[1] == OLD]
    same(db.query("failed_items", dict_id=OLD), columns, old)


def test_costs(random_world):
    db, tables = random_world
    expected = []
    for dict_id in (DICT, OLD):
        rows = [row for row in tables["explanations"] if row["dict_id"] == dict_id and row["explainer"] == "llm"]
        known = [row for row in rows if row["cost_usd"] is not None]
        cost, n_ok = sum(row["cost_usd"] for row in known), sum(row["status"] == "ok" for row in rows)
        each = cost / sum(row["status"] == "ok" for row in known)
        expected.append(
            (dict_id, "llm", "gpt", len(rows), n_ok, 100 * len(rows), 5 * len(rows), cost, len(rows) - len(known), each)
        )
    frame = db.query("explanation_costs").filter(explainer="llm")
    columns = (
        "dict_id explainer model n_explanations n_ok prompt_tokens completion_tokens cost_usd n_unknown_cost cost_per_explanation"
    )
    same(frame, columns, sorted(expected, key=lambda row: -row[7]))
    scores = [row for row in tables["scores"] if (row["dict_id"], row["explainer"], row["scorer"]) == (DICT, "llm", "fuzzing")]
    n_ok = sum(row["score"] is not None for row in scores)
    frame = db.query("scoring_costs", dict_id=DICT).filter(explainer="llm", scorer="fuzzing")
    n_failed = sum(row["n_failed"] for row in scores)
    expected = (len(scores), n_ok, n_failed, 20 * len(scores), 0.125 * len(scores), 0.125 * len(scores) / n_ok)
    same(frame, "n_scores n_ok n_failed_windows prompt_tokens cost_usd cost_per_score", [expected])


def test_costs_of_requests(random_world):
    db, tables = random_world
    expected = []
    for purpose in ("explain:llm", "detection"):
        rows = [row for row in tables["requests"] if row["purpose"] == purpose]
        answered = [row for row in rows if row["status"] in ("ok", "unusable")]
        costs, errors = [row["cost_usd"] for row in answered], sorted(row["error"] for row in rows if row["error"])
        counts = [sum(row["status"] == status for row in rows) for status in ("ok", "unusable", "failed", "skipped_budget")]
        tokens = [sum(row[name] for row in answered) for name in ("prompt_tokens", "completion_tokens")]
        seconds = sum(row["seconds"] for row in answered) / len(answered)
        spent = sum(cost for cost in costs if cost is not None), costs.count(None)
        rest = seconds, max(row["attempts"] for row in answered), max(dict.fromkeys(errors), key=errors.count)
        expected.append((DICT, purpose, "gpt", len(rows), *counts, sum(row["reused"] for row in rows), *tokens, *spent, *rest))
    columns = (
        "dict_id purpose model n_requests n_ok n_unusable n_failed n_skipped_budget n_reused prompt_tokens completion_tokens cost_usd "
        "n_unknown_cost mean_seconds most_attempts commonest_error"
    )
    same(db.query("request_costs"), columns, sorted(expected, key=lambda row: -row[11]))
    spent, unknown = (sum(row[at] for row in expected) for at in (11, 12))
    same(db.query("page_costs"), "dict_id cost_usd n_unknown_cost", [(DICT, spent, unknown)])


def test_times_of_stages(random_world):
    db, _ = random_world
    frame = db.query("stage_times")
    columns = "experiment stage n_runs n_cached n_failed seconds longest_seconds"
    expected = [("one", "train", 1, 1, 1, 10.0, 8.0), ("one", "harvest", 1, 0, 0, 3.0, 3.0), ("two", "train", 0, 0, 1, 1.0, 1.0)]
    frame = frame.filter(pl.col("experiment").is_in(["one", "two"]))  # others are of points that were matched
    same(frame, columns, expected)
    assert frame["devices"].to_list() == [["cpu", "cuda:0"], ["cpu"], ["cpu"]]
    assert db.query("stage_times", experiment="two").height == 1


def test_differences_of_two_specs(random_world):
    """Of experiment one the newest of two specs; lists are numbered, what only one names is NULL in the other."""
    db, _ = random_world
    assert db.query("spec_differences", experiment="one", other="two").rows() == [
        ("activations.text[0].toyworld", None, "true"),
        ("activations.text[1].files", None, "a.txt"),
        ("activations.text[1].label", None, "fr"),
        ("name", "one", "two"),
        ("train.kind", "clt", None),
        ("train.l0", "6", "8"),
    ]
    assert db.query("spec_differences", experiment="one", other="one").is_empty()


def test_what_is_in_the_database(random_world):
    db, tables = random_world
    same(db.query("model_list"), "model_id n_dictionaries n_graphs", [("toy", 2, len(tables["graphs"]))])
    assert db.query("find_tokens", text="PARIS")["string"].to_list() == ["Paris", " paris"]
    rows = {row["table"]: row["n_rows"] for row in db.query("loaded_rows", artifact_key="all-key").to_dicts()}
    assert rows["edges"] == len(tables["edges"]) and rows["feature_neighbours"] == len(tables["feature_neighbours"])
    assert set(db.query("loaded_rows")["artifact_key"]) == {"model-key", "all-key", "old-key"}


def test_paths_and_the_routes_of_their_steps(random_world):
    db, tables = random_world
    nodes = {row["node_id"]: row for row in tables["nodes"] if row["graph_id"] == GRAPH}
    paths, steps = ([row for row in tables[name] if row["graph_id"] == GRAPH] for name in ("paths", "path_steps"))
    name = lambda node: f"{WORDS[nodes[node]['token']]}@{nodes[node]['position']}"  # noqa: E731
    starts = {row["path_id"]: row["source_id"] for row in steps}
    covered, expected = defaultdict(float), []
    for row in sorted(paths, key=lambda row: (-nodes[row["target_id"]]["probability"], row["rank"])):
        covered[row["target_id"]] += row["share"]
        words = f"{name(starts[row['path_id']])} →(L0H1 L1H0) {name(row['target_id'])}"
        known = (row["rank"], row["weight"], row["share"], covered[row["target_id"]], 1, words)
        expected.append((row["path_id"], row["target_id"], *known))
    assert len({row[1] for row in expected}) == 2
    columns = "path_id target_id rank weight share covered n_edges path"
    same(db.query("input_paths", graph_id=GRAPH), columns, expected)
    for sign, of_sign in (
        ("positive", [row for row in expected if row[3] > 0]),
        ("negative", [row for row in expected if row[3] < 0]),
    ):
        same(db.query("input_paths", graph_id=GRAPH, sign=sign), columns, of_sign)
    target = expected[-1][1]
    same(db.query("input_paths", graph_id=GRAPH, target_id=target), columns, [row for row in expected if row[1] == target])
    path = expected[0][0]
    weight = next(row["weight"] for row in paths if row["path_id"] == path)
    same(
        db.query("path_routes", graph_id=GRAPH, path_id=path),
        "step source target via head source_position string weight",
        [
            (0, name(starts[path]), name(expected[0][1]), via, head, position, string, share * weight)
            for via, head, position, string, share in (
                ("L0H1 L1H0", "L1H0", 1, WORDS[1], 0.5), ("others", None, None, None, 0.25), ("residual", None, None, None, 0.25),
            )
        ],
    )  # fmt: skip
