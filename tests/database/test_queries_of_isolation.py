"""Named queries about isolation: on a random experiment against its rows, plainly counted."""

from collections import defaultdict

import numpy as np
from test_queries_of_features import best, key, same
from worlds.random_experiment import DICT, LAYERS, OLD


def mean_and_ends(rows, name):
    values = np.array([row[name] for row in rows if row.get(name) is not None])
    if len(values) < 2:
        return (*values, None, None, None)[:3]
    error = 1.96 * values.std(ddof=1) / len(values) ** 0.5
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


def test_success_is_a_mean_over_concepts_whose_layers_are_no_samples_of_their_own(random_world):
    db, tables = random_world
    expected = []
    for place, own in by_place([row for row in tables["isolation"] if row.get("concept")]):
        rates = []
        of_concepts = defaultdict(list)
        for row in own:
            of_concepts[row["concept"]].append(row)
        for name in ("success_drop", "success_include"):
            means = [{name: mean_and_ends(rows, name)[0]} for rows in of_concepts.values() if any(name in row for row in rows)]
            mean, low, high = mean_and_ends(means, name)
            rates += [mean, low, None if high is None else min(high, 1)]
        expected.append((*place, len(own), sum(row["n_drop"] for row in own), *rates))
    columns = "dict_id multiple layer n_features n_exchanges drop_rate drop_low drop_high include_rate include_low include_high"
    same(db.query("isolation_facts"), columns, expected)
