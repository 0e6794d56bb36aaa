"""Named queries about matches of dictionaries: on a random experiment against its rows, plainly counted."""

from collections import Counter, defaultdict

from test_queries_of_features import best, same
from worlds.random_experiment import DICT, OLD


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
