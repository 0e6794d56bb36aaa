"""Named queries about isolation: on a random experiment against its rows, plainly counted."""

from collections import defaultdict

import numpy as np
import pytest
from test_queries_of_features import best, key, mean_share, same
from worlds.random_experiment import DICT, LAYERS, OLD

from cltdb.database import store
from cltdb.database.api import Database


def mean_and_ends(rows, name):
    values = np.array([row[name] for row in rows if row.get(name) is not None])
    if len(values) < 2:
        return (*values, None, None, None)[:3]
    from scipy.stats import t  # takes a second, and all processes read this file

    error = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean(), max(values.mean() - error, 0), values.mean() + error


def by_place(rows):
    """((dict_id, multiple, layer or None), rows) in the order of the queries."""
    found = defaultdict(list)
    for row in rows:
        for layer in (None, row["layer"]):
            found[row["dict_id"], row["multiple"], -1 if layer is None else layer].append(row)
    return [((*place, None if layer < 0 else layer), own) for (*place, layer), own in sorted(found.items())]


def test_leakage_is_a_mean_over_the_features_that_were_drawn(random_world):
    db, tables = random_world
    names = ("leakage_later", "kl_nats", "decoder_overlap")
    sampled = [row for row in tables["isolation"] if row["is_sampled"]]
    expected = [
        (*place, len(own), *(end for name in names for end in mean_and_ends(own, name)), mean_and_ends(own, "most_change")[0])
        for place, own in by_place(sampled)
        if place[0] == DICT
    ]
    assert len(expected) == 2 * (1 + LAYERS) and len(sampled) < len(tables["isolation"])
    columns = "dict_id multiple layer n_features " + " ".join(f"{name} {name}_low {name}_high" for name in names) + " most_change"
    frame = db.query("isolation_by_layer", dict_id=DICT)
    same(frame, columns, expected)
    assert frame["leakage_same"].is_null().all() and db.query("isolation_by_layer", multiple=4.0)[
        "multiple"
    ].unique().to_list() == [4.0]
    assert set(db.query("isolation_by_layer", sweep="random")["dict_id"]) == {DICT, OLD}


def test_features_stand_beside_the_one_they_disturb_most(random_world):
    db, tables = random_world
    rows = [row for row in tables["isolation"] if row.get("leakage_later") is not None and row["multiple"] == 1]
    rows.sort(key=lambda row: -row["leakage_later"])
    texts = best(tables)
    frame = db.query("isolation_features", multiple=1, limit=7)
    columns = "dict_id layer feature leakage most_feature most_change"
    expected = [(*key(row), row["leakage_later"], row["most_feature"], row["most_change"]) for row in rows[:7]]
    same(frame, columns, expected)
    assert frame["text"].to_list() == [texts[key(row)][0] for row in rows[:7]]
    assert frame["most_text"].to_list() == [texts[row["dict_id"], row["most_layer"], row["most_feature"]][0] for row in rows[:7]]


def test_what_a_feature_moved_stands_with_what_became_of_its_fact(random_world):
    db, tables = random_world
    texts = best(tables)
    of_a_concept = next(row for row in tables["isolation"] if row.get("success_include") is not None and row.get("most_layer"))
    where = dict(zip(("dict_id", "layer", "feature"), key(of_a_concept), strict=True))
    own = [row for row in tables["isolation"] if key(row) == key(of_a_concept)]
    columns = "multiple high leakage_later most_feature most_change kl_nats concept n_drop success_drop n_include success_include"
    expected = [[row.get(name) for name in columns.split()] for row in sorted(own, key=lambda row: row["multiple"])]
    frame = db.query("feature_isolation", **where)
    same(frame, columns, expected)
    assert frame["most_text"].to_list() == [texts[row["dict_id"], row["most_layer"], row["most_feature"]][0] for row in own]


def test_success_is_a_mean_over_concepts_whose_layers_are_no_samples_of_their_own(random_world):
    db, tables = random_world
    expected = []
    for place, own in by_place([row for row in tables["isolation"] if row.get("concept")]):
        of_concepts = defaultdict(list)
        for row in own:
            of_concepts[row["concept"]].append(row)
        rates = []
        for name in ("drop", "include"):
            means = [mean_and_ends(rows, f"success_{name}")[0] for rows in of_concepts.values()]
            rates += mean_share([one for one in means if one is not None], most=sum(row[f"n_{name}"] for row in own))
        expected.append((*place, len(own), sum(row["n_drop"] for row in own), *rates))
    columns = "dict_id multiple layer n_features n_exchanges drop_rate drop_low drop_high include_rate include_low include_high"
    same(db.query("isolation_facts"), columns, expected)


@pytest.mark.parametrize(
    ("rate", "n_concepts", "ends"), [(0.0, 11, (0, 0.2775)), (1.0, 11, (0.7225, 1)), (0.5, 10, (0.4038, 0.5962))]
)
def test_a_rate_that_is_the_same_for_all_concepts_has_an_interval_with_a_width(tmp_path, rate, n_concepts, ends):
    """At 0 and at 1 that of as many exchanges as there are concepts, less one; between, that of all exchanges: 100."""
    row = {"dict_id": "d", "layer": 0, "multiple": 1.0, "is_sampled": False, "artifact_key": "k", "n_drop": 10, "n_include": 10}
    row |= {"success_drop": rate, "success_include": rate}
    with store.connect(tmp_path / "db", write=True) as connection:
        connection.executemany(
            f"INSERT INTO isolation ({', '.join(row)}, feature, concept) VALUES ({', '.join('?' * len(row))}, ?, ?)",
            [[*row.values(), number, str(number)] for number in range(n_concepts)],
        )
    found = Database(tmp_path / "db").query("isolation_facts").to_dicts()
    assert [row["layer"] for row in found] == [None, 0]
    for row in found:
        for name in ("drop", "include"):
            assert row[f"{name}_rate"] == rate
            assert [row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx(ends, abs=1e-4)
