"""Named queries about matches of dictionaries: on a random experiment against its rows, plainly counted."""

from collections import Counter, defaultdict

from test_queries_of_features import best, same
from worlds.random_experiment import DICT, OLD
from worlds.tables import load

from cltdb.database.api import Database
from cltdb.database.load import save_records


def texts_of(tables):
    found = best(tables)
    return lambda dict_id, feature: found[dict_id, 0, feature][0]


def test_shares_stand_beside_chance_and_what_became_of_the_others(random_world):
    db, tables = random_world
    counts = Counter(row["relation"] for row in tables["feature_matches"])
    expected = []
    for layer in (None, 0):
        rows = {row["above"]: row for row in tables["dictionary_matches"] if row["layer"] == layer}
        row, strict = rows[0.7], rows[0.9]
        numbers = [row[name] for name in ("share_a", "share_a_low", "share_a_high", "control_share")]
        numbers += [strict[name] for name in ("share_a", "share_a_low", "share_a_high", "control_share")]
        expected.append(
            (
                layer,
                *numbers,
                row["share_b"],
                strict["share_b"],
                *(counts[name] for name in ("split", "merged", "appeared", "vanished")),
            )
        )
    columns = "layer share share_low share_high by_chance share_strict share_strict_low share_strict_high by_chance_strict of_b of_b_strict"
    same(db.query("match_shares", dict_a=DICT), columns + " n_split n_merged n_appeared n_vanished", expected)
    assert db.query("match_shares", dict_a=OLD).is_empty()


def test_what_appeared_and_vanished_by_density(random_world):
    db, tables = random_world
    density = {(row["dict_id"], row["feature"]): row["density"] for row in tables["features"] if row["layer"] == 0}
    text, expected = texts_of(tables), []
    for row in tables["feature_matches"]:
        if row["relation"] in ("appeared", "vanished"):
            one = (OLD, row["feature_b"]) if row["relation"] == "appeared" else (DICT, row["feature_a"])
            expected.append((row["relation"], *one, row["decoder_cosine"], density[one], text(*one)))
    expected.sort(key=lambda row: (row[0], -row[4], row[2]))
    frame = db.query("match_changes")
    assert frame.select("relation", "dict_id", "feature", "nearest", "density", "text").rows() == expected
    assert db.query("match_changes", relation="vanished", limit=2).height == 2


def test_splits_and_merges_list_the_several_with_both_explanations(random_world):
    db, tables = random_world
    text, of = texts_of(tables), defaultdict(list)
    for row in tables["feature_matches"]:
        if row["relation"] in ("matched", "split"):
            of["split", row["feature_a"]].append((row["relation"] == "matched", row["decoder_cosine"], row["feature_b"]))
        if row["relation"] in ("matched", "merged"):
            of["merged", row["feature_b"]].append((row["relation"] == "matched", row["decoder_cosine"], row["feature_a"]))
    expected = []
    for (kind, one), several in of.items():
        if not all(is_match for is_match, *_ in several):
            dict_one, other = (DICT, OLD) if kind == "split" else (OLD, DICT)
            expected += [
                (kind, one, feature, is_match, cosine, len(several), text(dict_one, one), text(other, feature))
                for is_match, cosine, feature in several
            ]
    expected.sort(key=lambda row: (row[0] == "merged", -row[5], row[1], not row[3], -row[4]))
    columns = ["relation", "one", "feature", "is_match", "similarity", "n", "text", "other_text"]
    assert db.query("match_splits").select(columns).rows() == expected
    kinds = [row for row in expected if row[0] == "merged"]
    assert db.query("match_splits", relation="merged", dict_b=OLD).select(columns).rows() == kinds and kinds


def test_partners_of_a_feature_on_either_side(random_world):
    db, tables = random_world
    text = texts_of(tables)
    for dict_id, mine, other in ((DICT, "a", "b"), (OLD, "b", "a")):
        for feature in range(10):
            rows = [row for row in tables["feature_matches"] if row[f"feature_{mine}"] == feature]
            rows.sort(key=lambda row: -row["decoder_cosine"])
            dict_other = OLD if other == "b" else DICT
            expected = [
                (
                    dict_other,
                    row[f"feature_{other}"],
                    mine == "a",
                    row["relation"],
                    row["decoder_cosine"],
                    text(dict_other, row[f"feature_{other}"]),
                )
                for row in rows
            ]
            frame = db.query("feature_partners", dict_id=dict_id, layer=0, feature=feature)
            assert frame.select("other", "other_feature", "is_first", "relation", "decoder_cosine", "text").rows() == expected


def test_pairs_that_differ_in_the_seed_alone(random_world):
    """Both dictionaries are of both points here, so each pair counts in two ways."""
    db, tables = random_world
    rows = {row["above"]: row for row in tables["dictionary_matches"] if row["layer"] is None}
    expected = [
        ("seeds", '{"train.l0":3}', above, 2, *[row["share_a"]] * 3, row["control_share"]) for above, row in sorted(rows.items())
    ]
    frame = db.query("match_seeds")
    assert (
        frame.select("sweep", "setting", "above", "n_pairs", "share", "share_least", "share_most", "by_chance").rows() == expected
    )
    assert db.query("match_seeds", across="train.l0").is_empty() and db.query("match_seeds", sweep="no").is_empty()


def shares(dict_a, dict_b, share, **changed):
    """The rows of dictionary_matches of a pair, of all layers together."""
    row = {"dict_a": dict_a, "dict_b": dict_b, "layer": None, "matched_by": "decoder", "n_a": 10, "n_b": 10, "n_matched": 5}
    row |= dict.fromkeys([f"share_{side}{end}" for side in "ab" for end in ("", "_low", "_high")], share)
    row |= dict.fromkeys(("control_share", "highest_a", "highest_b", "control_highest"), 0.1)
    return [row | {"above": above, "n_tokens": 9} | changed for above in (0.7, 0.9)]


def test_of_each_point_of_a_sweep_the_dictionary_of_its_last_training_counts(tmp_path):
    """A sweep that ran twice, with another spec: the first pair found all again, the second nothing."""
    path, experiments, runs = tmp_path / "cltdb.duckdb", [], []
    for generation, share in (("old", 1.0), ("new", 0.0)):
        names = [f"{generation}-{seed}" for seed in (0, 1)]
        for seed, name in enumerate(names):
            facts = {
                "dict_id": name,
                "experiment": f"s-{seed}",
                "model_id": "toy",
                "kind": "clt",
                "n_layers": 1,
                "n_features": 10,
            }
            load(path, tmp_path / "artifacts", name, {"dictionaries": [facts]})
            spec = {"experiment": f"s-{seed}", "spec_hash": generation}
            at = f"2026-01-0{1 + (generation == 'new')}T0{seed}:00:00+00:00"
            experiments.append(spec | {"spec_yaml": "", "created_at": at, "sweep": "s", "swept": {"seed": seed}})
            runs.append(spec | {"run_id": name, "stage": "train", "key": name, "status": "done", "started_at": at})
        load(path, tmp_path / "artifacts", f"match-{generation}", {"dictionary_matches": shares(*names, share)})
    save_records(path, experiments=experiments, stage_runs=runs)
    frame = Database(path).query("match_seeds")
    assert frame.select("n_pairs", "share", "share_most").rows() == [(1, 0.0, 0.0)] * 2


def test_where_pairs_were_chosen_by_activations_the_correlation_is_their_similarity(tmp_path):
    path, pair = tmp_path / "cltdb.duckdb", {"dict_a": "a", "dict_b": "b"}
    names = ("layer_a", "feature_a", "layer_b", "feature_b", "decoder_cosine", "activation_correlation", "relation")
    rows = [
        (0, 1, 0, 1, -0.015, 1.0, "matched"),
        (0, 1, 0, 2, 0.3, 0.8, "split"),
        (0, 1, 0, 3, 0.2, 0.9, "split"),
        (None, None, 0, 4, None, 0.4, "appeared"),
    ]
    matches = [pair | {"encoder_cosine": 0.5} | dict(zip(names, row, strict=True)) for row in rows]
    tables = {"feature_matches": matches, "dictionary_matches": shares("a", "b", 0.5, matched_by="activations")}
    load(path, tmp_path / "artifacts", "match", tables)
    db = Database(path)
    splits = db.query("match_splits").select("feature", "is_match", "similarity").rows()
    assert splits == [(1, True, 1.0), (3, False, 0.9), (2, False, 0.8)]
    assert db.query("match_changes").select("feature", "nearest").rows() == [(4, 0.4)]
    partners = db.query("feature_partners", dict_id="a", layer=0, feature=1)
    assert partners.select("other_feature", "relation").rows() == [(1, "matched"), (3, "split"), (2, "split")]
