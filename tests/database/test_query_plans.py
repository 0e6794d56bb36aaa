"""What named queries read: of one feature no table of windows, edges, explanations or scores as a whole."""

import json

import duckdb
import pytest

from cltdb.database import store
from cltdb.database.api import Database
from cltdb.database.named_queries import list_queries, named_query_params

LARGE = ("windows", "feature_edges", "edges_into", "explanations", "scores")
"""Tables with several rows per feature, which grow with the dictionary."""
ROWS = """
INSERT INTO features BY NAME
SELECT 'large' AS dict_id, layer, feature, 0.01 AS density, false AS dead FROM range(3) AS l(layer), range(2000) AS f(feature) ORDER BY ALL;
INSERT INTO windows BY NAME
SELECT 'large' AS dict_id, layer, feature, 'top' AS band, rank, 0 AS sequence, 0 AS start, 0 AS position, 1 AS length, [0] AS offsets,
       [1.0] AS activations, 1 AS peak_token, [1] AS tokens
FROM range(3) AS l(layer), range(2000) AS f(feature), range(7) AS r(rank) ORDER BY layer, feature, rank;
INSERT INTO feature_edges BY NAME
SELECT 'large' AS dict_id, layer AS source_layer, feature AS source_feature, layer + 1 AS target_layer, (feature + k) % 2000 AS target_feature,
       k / 10 AS twera, k / 10 AS virtual_weight, k / 10 AS era, 0.1 AS coactivation, layer * 4294967296 + feature AS source_place
FROM range(2) AS l(layer), range(2000) AS f(feature), range(1, 11) AS r(k) ORDER BY layer, feature, target_feature;
INSERT INTO edges_into BY NAME
SELECT * EXCLUDE (artifact_key, via, source_place), target_layer * 4294967296 + target_feature AS target_place
FROM feature_edges WHERE dict_id = 'large' ORDER BY target_layer, target_feature, source_layer, source_feature;
INSERT INTO explanations BY NAME
SELECT 'large' AS dict_id, layer, feature, 'input' AS side, 'who ' || k AS explainer, 'text' AS text, 'ok' AS status
FROM range(3) AS l(layer), range(2000) AS f(feature), range(7) AS r(k) ORDER BY layer, feature, k;
INSERT INTO scores BY NAME
SELECT dict_id, layer, feature, side, explainer, 'fuzzing' AS scorer, 0.5 AS score FROM explanations WHERE dict_id = 'large'
ORDER BY layer, feature, explainer;
INSERT INTO best_explanations BY NAME
SELECT dict_id, layer, feature, side, explainer, text, 0.5 AS score FROM explanations WHERE dict_id = 'large' AND explainer = 'who 0'
ORDER BY layer, feature;
"""


ROW_GROUP = 2048
"""Rows of which a table keeps the smallest and largest value of each column, 122,880 in the databases of cltdb: a small table here has as
many groups as a large one there."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A database with one dictionary whose tables have many row groups."""
    path = tmp_path_factory.mktemp("large") / "cltdb.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS cltdb (ROW_GROUP_SIZE {ROW_GROUP}); USE cltdb")
        store.apply(connection)
        connection.execute(ROWS)
    return Database(path)


def scans(node):
    """The scans of tables in a plan."""
    if "Table" in node["extra_info"]:
        yield node
    for child in node.get("children", ()):
        yield from scans(child)


def scanned(session, query, given):
    """{table: shares of its row groups that were read, of each scan} where a named query runs."""
    text = f"EXPLAIN (ANALYZE, FORMAT json) {query.sql.split(chr(10) * 2, 1)[1]}"
    plan = json.loads(session.sql(text, named_query_params(query, given))["explain_value"].item())
    found = {}
    for scan in (scan for root in plan["operator"] for scan in scans(root)):
        share = scan["row_groups_scanned"] / max(scan["total_row_groups_to_scan"], 1)  # 0 where nothing was needed
        found.setdefault(scan["extra_info"]["Table"].split(".")[-1], []).append(share)
    return found


def test_of_one_feature_no_large_table_is_read_as_a_whole(large):
    """Row groups that a filter on the feature's columns rules out are not read."""
    asked, read = 0, set()
    with large.session() as session:
        for query in list_queries():
            if {"dict_id", "layer", "feature"} <= query.parameters.keys():
                given = {"dict_id": "large", "layer": 2, "feature": 900}
            elif {"dict_ids", "layers", "features"} <= query.parameters.keys():
                given = {"dict_ids": ["large"] * 2, "layers": [2, 2], "features": [900, 901]}
            elif "features" in query.parameters:
                given = {"dict_id": "large", "layer": 2, "features": [900, 901]}
            else:
                continue
            found = {table: shares for table, shares in scanned(session, query, given).items() if table in LARGE}
            whole = {table for table, shares in found.items() if max(shares) > 0.5}
            assert not whole, f"{query.name} reads all of {whole}"
            asked += 1
            read |= found.keys()
        everything = scanned(session, next(query for query in list_queries() if query.name == "explanation_scores"), {})
    assert asked > 10 and read == set(LARGE)
    assert everything["scores"] == [1.0], "what reads a table as a whole is seen"
