"""Named queries about groups of prompts: on a random experiment against its rows, plainly counted."""

from collections import defaultdict
from statistics import mean

import pytest
from test_queries_of_features import best, key, same
from worlds.random_experiment import DICT, LAYERS

from cltdb.intervals import NORMAL_975


def test_overlaps_stand_beside_their_nulls(random_world):
    db, tables = random_world
    found = defaultdict(dict)
    for row in tables["group_overlaps"]:
        if (row["groups_id"], row["keyed_by"], row["weighting"]) == ("random-groups-1", "free", "influence"):
            found[row["label_a"] or "", row["label_b"] or "", row["layer"]][row["null_kind"]] = row
    expected = []
    for (label_a, label_b, layer), kinds in sorted(found.items()):
        own, alike, other = (kinds[kind] for kind in ("none", "same_label", "other_label"))
        ends = [row.get(name) for row in (own, alike, other) for name in ("value", "ci_low", "ci_high")]
        less = [other.get(name) for name in ("corrected", "corrected_ci_low", "corrected_ci_high")]
        expected.append((label_a or None, label_b or None, layer, *ends, *less, own["n"]))
    assert len(expected) == 4 * LAYERS and any(row[9] is None for row in expected)
    columns = "label_a label_b layer overlap overlap_low overlap_high same_label same_label_low same_label_high"
    columns += " other_label other_label_low other_label_high corrected corrected_low corrected_high n"
    same(db.query("overlap_by_layer", groups_id="random-groups-1", weighting="influence"), columns, expected)
    assert set(db.query("overlap_by_layer", dict_id=DICT)["groups_id"]) == {"random-groups-0", "random-groups-1"}


def test_layers_and_answers_of_each_label(random_world):
    db, tables = random_world
    of_label = defaultdict(list)
    for row in tables["group_prompts"]:
        of_label[row["groups_id"], row["label"]].append(row)
    layers, answers = [], []
    for (groups_id, label), rows in sorted(of_label.items()):
        for layer in range(LAYERS):
            features, errors, n = (
                [row[name][layer] for row in rows] for name in ("feature_influence", "error_influence", "n_active")
            )
            share = sum(errors) / (sum(errors) + sum(features))
            layers.append((groups_id, label, layer, len(rows), mean(n), mean(features), mean(errors), share))
        right = [row["top_token"] == row["target_token"] for row in rows if row["target"] is not None]
        known = [row["probability"] for row in rows if row["probability"] is not None]
        shared = (mean(len(row["tokens"]) for row in rows), mean(right) if right else None, mean(known) if known else None)
        answers.append((groups_id, label, len(rows), *shared, mean(row["replacement_score"] for row in rows)))
    columns = "groups_id label layer n_prompts n_active feature_influence error_influence error_share"
    same(db.query("group_layers"), columns, layers)
    same(db.query("group_layers", groups_id="random-groups-0"), columns, [row for row in layers if row[0] == "random-groups-0"])
    same(db.query("group_list"), "groups_id label n_concepts mean_tokens accuracy probability replacement_score", answers)


def test_label_features_stand_beside_what_they_mean(random_world):
    db, tables = random_world
    rows = sorted((row for row in tables["label_features"]), key=lambda row: (row["label"], -row["contrast"]))
    texts, columns = (
        best(tables),
        "label layer feature contrast influence effect recurrence auc auc_matched matched_share embedding_share probe_cosine high",
    )
    frame = db.query("label_features")
    same(frame, columns, [tuple(row[name] for name in columns.split()) for row in rows])
    assert frame["text"].to_list() == [texts[key(row)][0] for row in rows] and any(text is not None for text in frame["text"])
    late = db.query("label_features", label="fr", first_layer=2, limit=2)
    wanted = [row["feature"] for row in rows if row["label"] == "fr" and row["layer"] == 2]
    assert late["feature"].to_list() == wanted[:2]
    few, expected = db.query("label_features", limit=1), {}
    for row in rows:
        expected.setdefault(row["label"], row["feature"])
    assert (
        dict(few.select("label", "feature").rows()) == expected and few.height == len(expected) > 1 and len(rows) > len(expected)
    )
    columns = "groups_id label first_layer n_features auc auc_matched matched_share fitted_auc fitted_auc_matched n_pieces"
    same(
        db.query("label_scores", dict_id=DICT),
        columns,
        [tuple(row[name] for name in columns.split()) for row in tables["label_scores"]],
    )


def test_substitutions_at_the_best_point_stand_beside_their_controls(random_world):
    db, tables = random_world
    found = defaultdict(lambda: defaultdict(list))
    for row in tables["substitutions"]:
        if row["part"] == "test":
            found[row["label_from"], row["label_to"]][row["control"]].append(row)
    expected = []
    for pair, kinds in sorted(found.items()):
        [own], [untouched], [reverse], randoms = (kinds[kind] for kind in ("none", "untouched", "reverse", "random"))
        p, n, z = own["rate_right"], own["n"], NORMAL_975
        ends = [
            (p + z * z / 2 / n + sign * z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5) / (1 + z * z / n) for sign in (-1, 1)
        ]
        point = [
            own[name]
            for name in ("n_features", "n_suppressed", "n_boosted", "positions", "set_to", "suppress", "boost", "n", "rate_right")
        ]
        rest = [own[name] for name in ("rate_label", "rate_concept", "text_rate_right", "kl_nats")]
        controls = [one[name] for one in (untouched, reverse) for name in ("rate_right", "rate_label")]
        of_random = [mean(row[name] for row in randoms) for name in ("rate_right", "rate_label", "kl_nats")]
        most = max(row["rate_right"] for row in randoms)
        expected.append((*pair, *point, *ends, *rest, *controls, *of_random, most, len(randoms)))
    columns = "label_from label_to n_features n_suppressed n_boosted positions set_to suppress boost n right right_low right_high label concept"
    columns += (
        " text_right kl_nats untouched_right untouched_label reverse_right reverse_label random_right random_label random_kl_nats"
    )
    columns += " random_right_most n_random"
    frame = db.query("substitution_results")
    for row, other in zip(frame.select(columns.split()).rows(), expected, strict=True):
        assert row[:2] == other[:2] and row[5:7] == other[5:7]
        assert [*row[2:5], *row[7:]] == pytest.approx([*other[2:5], *other[7:]])
    grid = db.query("substitution_grid", label_from="fr")
    wanted = [row for row in tables["substitutions"] if row["label_from"] == "fr" and row["part"] == "choice"]
    columns = "n_features positions set_to suppress boost n_suppressed n_boosted is_best rate_right"
    assert grid.select(columns.split()).rows() == [tuple(row[name] for name in columns.split()) for row in wanted]
