"""Table strongest_edges, which keeps 200 edges of a kind into each layer, and the queries that it answers: against all edges, plainly sorted."""

import random
import shutil
from collections import defaultdict

import pytest
from worlds.tables import load
from worlds.tiny_experiment import feature_edge_table, rows

from cltdb.database.api import Database
from cltdb.database.store import connect

N, KEPT = 30, 200
COLUMNS = "dict_id, source_layer, source_feature, target_layer, target_feature"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(path, {feature: (density, mean)}, edges) of dictionary d, with more edges into layers 1 and 2 than are kept, and of e, with few."""
    draw, path, features, edges = random.Random(7), tmp_path_factory.mktemp("edges") / "cltdb.duckdb", {}, []
    for dict_id, n in (("d", N), ("e", 3)):
        own = {
            (layer, feature): (draw.choice((0.001, 0.05, 0.1, 0.2)), draw.choice((0.0, 0.5, 1.0, 2.0)))
            for layer in range(3)
            for feature in range(n)
        }
        ends = [(*source, *target) for source in own for target in own if source[0] < target[0]]
        values = [
            (*end, draw.randint(-40, 40) / 16, 0.0, draw.random(), draw.choice((0.0, 1e-4, 5e-4, 1e-3, 0.002, 0.01)))
            for end in ends
        ]
        of_own = rows(
            "layer feature density mean_activation", [(*one, *facts) for one, facts in own.items()], dict_id=dict_id, dead=False
        )
        load(
            path, path.parent, f"of-{dict_id}", {"features": of_own, "feature_edges": feature_edge_table(values, dict_id=dict_id)}
        )
        features |= {(dict_id, *one): facts for one, facts in own.items()}
        edges += [(dict_id, *edge) for edge in values]
    return path, features, edges


def inhibiting(world, max_coactivation):
    """(effect, dict_id, ends) of the edges of inhibitory_edges in their order."""
    _, features, edges = world
    found = [
        (weight * features[d, *ends[:2]][1], d, *ends)
        for d, *ends, weight, _, _, share in edges
        if weight < 0 and share <= max_coactivation
    ]
    return sorted(found)


def together(world, max_density):
    """(-coactivation, dict_id, ends) of the edges of coactivating_pairs in their order."""
    _, features, edges = world
    dense = {one for one, (density, _) in features.items() if density > max_density}
    found = [
        (-share, d, *ends) for d, *ends, _, _, _, share in edges if share > 0 and not {(d, *ends[:2]), (d, *ends[2:])} & dense
    ]
    return sorted(found)


def test_the_table_keeps_the_foremost_edges_into_each_layer(world):
    path, features, _ = world
    expected = []
    foremost = {"inhibits": [one for one in inhibiting(world, 1e-3) if one[0] < 0], "together": together(world, 0.1)}
    for kind, found in foremost.items():
        groups = defaultdict(list)
        for one in found:
            groups[one[1], one[4]].append(one)
        for own in groups.values():
            sign = 1 if kind == "inhibits" else -1
            left_out = sign * own[KEPT][0] if len(own) > KEPT else None
            expected += [
                (kind, *ends, sign * strength, features[ends[0], *ends[1:3]][0], features[ends[0], *ends[3:]][0], left_out)
                for strength, *ends in own[:KEPT]
            ]
    there = Database(path).sql(
        f"SELECT kind, {COLUMNS}, if(kind = 'inhibits', effect, coactivation) AS strength, source_density, target_density, left_out FROM strongest_edges"
    )
    assert sorted(there.rows()) == sorted(expected)
    assert {row[-1] is None for row in expected} == {True, False}


ASKED = {
    "inhibitory_edges": ("max_coactivation", (1e-3, 5e-4, 0.0, 0.01), inhibiting),
    "coactivating_pairs": ("max_density", (0.1, 0.05, 0.001, 0.5), together),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_query_finds_what_all_edges_sorted_give(world, name):
    path, _, _ = world
    bound, values, plainly = ASKED[name]
    with Database(path).session() as s:
        for value in values:
            of_all = plainly(world, value)
            for dict_id in (None, "d"):
                own = [ends for _, *ends in of_all if dict_id in (None, ends[0])]
                for limit in (100, 1000):
                    found = s.query(name, dict_id=dict_id, limit=limit, **{bound: value}).select(*COLUMNS.split(", "))
                    assert [[*row] for row in found.rows()] == own[:limit], (value, dict_id, limit)


@pytest.mark.parametrize("name", ASKED)
def test_edges_that_are_not_kept_are_read_only_where_they_may_be_in_the_answer(world, tmp_path, name):
    """Seen by taking all edges away behind its back."""
    path, _, edges = world
    db = Database(shutil.copy(path, tmp_path / "cltdb.duckdb"))
    before = [db.query(name, dict_id="d", limit=limit) for limit in (10, 1000)]
    with connect(db.path, write=True) as connection:
        connection.execute("DELETE FROM edges_into WHERE dict_id = 'd'")
    few, all_of_them = (db.query(name, dict_id="d", limit=limit) for limit in (10, 1000))
    assert few.equals(before[0]) and few.height == 10 and all_of_them.is_empty() and before[1].height > 2 * KEPT
    with connect(db.path, write=True) as connection:
        connection.execute("INSERT INTO stale_groups (derived, dict_id, layer) VALUES ('strongest_edges', 'd', 1)")
    assert db.query(name, dict_id="d", limit=10).is_empty()


def test_a_database_of_before_gets_the_edges_that_a_load_keeps(world, tmp_path):
    path, _, _ = world
    old = Database(shutil.copy(path, tmp_path / "cltdb.duckdb"))
    wanted = old.sql("FROM strongest_edges ORDER BY ALL")
    with connect(old.path, write=True) as connection:
        connection.execute("DROP TABLE strongest_edges; DELETE FROM schema_migrations WHERE name = '0076_strongest_edges.sql'")
    with connect(old.path, write=True):
        pass
    assert old.sql("FROM strongest_edges ORDER BY ALL").equals(wanted) and wanted.height > 3 * KEPT
