"""Named queries about features, explanations and their windows: on a random experiment against its rows, plainly counted."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds.random_experiment import BANDS, DICT, FEATURES, LAYERS, OF_ALL_LABELS, OLD, WORDS

from cltdb.database.api import Database
from cltdb.database.named_queries import named_query, named_query_params
from cltdb.database.store import connect, views
from cltdb.intervals import NORMAL_975, wilson

SLOW = Path(__file__).parent / "slow_queries"
ONE = {"dict_id": DICT, "layer": 1, "feature": 3}


def same(frame, columns, expected):
    """The rows of the frame are the expected ones, in their order."""
    found = frame.select(columns.split()).rows()
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        assert [*row] == pytest.approx([*other])


def mean_share(values, *, most):
    """(mean, low, high) of shares: an end lies 1.96 standard errors of a share of the end from the mean, at the n at which a share varies so much."""
    if len(values) < 2:
        return (*values, None, None, None)[:3]
    mean, variance = np.mean(values), np.var(values)
    n = min(most, (len(values) - 1) * mean * (1 - mean) / variance) if variance else len(values) - 1 if mean in (0, 1) else most
    low, high = sorted(np.roots([1 + NORMAL_975**2 / n, -2 * mean - NORMAL_975**2 / n, mean**2]))
    return mean, max(low, 0), min(high, 1)


def key(row):
    return row["dict_id"], row["layer"], row["feature"]


def best(tables):
    """{feature: (text, score, detection, fuzzing, explainer)} by the rule of view feature_cards."""
    scores = defaultdict(dict)
    for row in tables["scores"]:
        scores[key(row), row["explainer"]][row["scorer"]] = row["score"]
    found = defaultdict(list)
    for row in tables["explanations"]:
        if row["status"] == "ok" and not row["explainer"].startswith("baseline:"):
            own = scores[key(row), row["explainer"]]
            detection, fuzzing = own.get("detection"), own.get("fuzzing")
            score = fuzzing if detection is None else detection
            rank = (score is None, -(score or 0), row["explainer"])
            found[key(row)].append((rank, (row["text"], score, detection, fuzzing, row["explainer"])))
    return defaultdict(lambda: (None,) * 5, {one: min(rows)[1] for one, rows in found.items()})


CASES = {
    "decoder_duplicates": [
        *({"min_cosine": -1, "limit": n} for n in (0, 1, 2, 7, 20, 2**63 - 2)), {"min_cosine": 0.5, "dict_id": DICT, "layer": 1}, {"min_cosine": 2},
    ],
    "feature_card": [ONE, {"dict_id": OLD, "layer": 0, "feature": 1}],
    "feature_circuit": [
        ONE | {"layer": layer, "steps": steps, "width": width, "measure": measure}
        for layer, steps, width, measure in ((0, 3, 2, "twera"), (1, 2, 5, "virtual_weight"), (2, 3, 3, "twera"), (2, 1, 2, "era"))
    ],
    "feature_contexts": [ONE, ONE | {"band": "q1"}, {"dict_id": OLD, "layer": 0, "feature": 1}],
    "feature_pages": [{"dict_id": DICT, "layer": 1, "features": [2, 3, 7]}],
    "feature_windows": [{"dict_id": DICT, "layer": 1, "features": [2, 3, 7]}, {"dict_id": OLD, "layer": 0, "features": [0, 1, 2]}],
    "graph_nodes": [{"graph_id": "graph-0"}, {"graph_id": "graph-5", "kept": True}],
    "inhibitory_edges": [{"max_coactivation": 0.01}, {"dict_id": DICT, "max_coactivation": 1.0, "limit": 20}],
    "label_specific": [{"max_entropy": 0.9, "min_firings": 5}, {"max_entropy": 1, "min_firings": 0, "dict_id": DICT, "limit": 3}],
    "late_writers": [{"layers_later": 1}, {"layers_later": 2, "min_frac": 0.1, "dict_id": DICT, "limit": 5}],
    "page_dictionaries": [{}],
    "page_explanations": [{}, ONE, {"dict_id": DICT, "limit": 7}],
    "page_feature_graphs": [{}, {"dict_id": DICT, "layer": 1, "feature": 2}, {"dict_id": OLD}],
    "shared_features": [{}, {"k": 3, "kept": False, "dict_id": DICT}],
    "too_few_windows": [{}, {"dict_id": DICT, "min_contexts": 8, "min_documents": 3}, {"dict_id": OLD, "min_contexts": 9}],
    "top_neighbours": [ONE, ONE | {"measure": "era", "limit": 3}, {"dict_id": DICT, "layer": 2, "feature": 5, "measure": "virtual_weight"}],
}  # fmt: skip
"""Questions to the queries of which slow_queries/ keeps a plain form."""


@pytest.mark.parametrize("name", sorted(path.stem for path in SLOW.glob("*.sql")))
def test_a_query_finds_what_its_plain_form_finds(random_world, name):
    db, _ = random_world
    plain = (SLOW / f"{name}.sql").read_text()
    found = 0
    with db.session() as s:
        for given in CASES[name]:
            frame = s.query(name, **given)
            expected = s.sql(plain, named_query_params(named_query(name), given))
            assert_frame_equal(frame, expected, abs_tol=0, rel_tol=1e-6)  # late_writers had squares in float32
            found += frame.height
    assert found > 0


def test_label_specific_reads_on_where_the_first_features_do_not_give_enough(tmp_path):
    """Of 3,000 features every fifth fires often; the last ones tell of fr, and of many equally much is told."""
    db = Database(tmp_path / "cltdb.duckdb")
    with connect(db.path, write=True) as connection:
        connection.execute(
            "INSERT INTO features BY NAME SELECT 'd' AS dict_id, i % 2 AS layer, i AS feature, 0.1 AS label_entropy, (3000 - i) // 7 / 500 AS "
            "label_information_bits, label_information_bits * (i % 3) / 3 AS label_information_matched_bits FROM range(3000) AS r(i);"
            "INSERT INTO feature_labels BY NAME SELECT dict_id, layer, feature, label, 1000 AS tokens, if(feature % 5 = 0, 15, 5) AS firings, 1.0 AS "
            "mass, 0.1 AS rate, 0.1 AS matched_rate, if((label = 'fr') = (feature > 2500), 0.8, 0.2) AS share "
            "FROM features, (SELECT unnest(['fr', 'de']) AS label)"
        )
    plain = (SLOW / "label_specific.sql").read_text()
    with db.session() as s:
        for given in (
            {},
            {"limit": 500},
            {"label": "fr"},
            {"label": "de", "limit": 1000},
            {"matched": False, "min_firings": 0, "limit": 1500},
        ):
            expected = s.sql(plain, named_query_params(named_query("label_specific"), given))
            assert_frame_equal(s.query("label_specific", **given), expected)
            assert expected.height >= 80


def test_what_is_written_a_negative_number_of_layers_later_is_all(random_world):
    db, _ = random_world
    whole = db.query("late_writers", layers_later=0)
    assert whole.height > 9 and set(whole["late_frac"]) == {1.0}
    assert_frame_equal(db.query("late_writers", layers_later=-3), whole)


def test_what_is_no_number_is_not_above_a_bound(random_world, tmp_path):
    """To DuckDB NaN is larger than all numbers; of a dictionary whose training diverged it may be a norm, a density or a cosine."""
    db, _ = random_world
    odd = Database(shutil.copy(db.path, tmp_path / "cltdb.duckdb"))
    with connect(odd.path, write=True) as connection:
        connection.execute(
            "UPDATE features SET density = 'nan', decoder_norms = list_transform(decoder_norms, lambda x: 'nan'::FLOAT) "
            f"WHERE dict_id = '{DICT}' AND layer = 1 AND feature = 3"
        )
        connection.execute("UPDATE feature_neighbours SET cosine = 'nan' WHERE layer = 1 AND 3 IN (feature, neighbour)")
    bounds = {"dense_features": {"min_density": 0}, "late_writers": {"min_frac": 0}, "decoder_duplicates": {"min_cosine": -1}}
    for name, bound in bounds.items():
        asked = {**bound, "dict_id": DICT, "limit": 10**6}
        before = db.query(name, **asked)
        its = (pl.col("layer") == 1) & (
            pl.any_horizontal(pl.col(c) == 3 for c in ("feature", "neighbour") if c in before.columns)
        )
        assert before.filter(its).height > 0
        assert_frame_equal(odd.query(name, **asked), before.filter(~its))
    dense = [one.query("feature_counts", dict_id=DICT, min_density=0)["n_dense"][0] for one in (db, odd)]
    assert dense[0] - dense[1] == 1


def test_the_lens_over_the_stored_tokens_and_over_chosen_ones(random_world):
    db, tables = random_world
    stored = {key(row): row["lens_logits"] for row in tables["features"] if row["dict_id"] == DICT}
    expected = [
        (*one[1:], entry["token"], WORDS[entry["token"]], entry["value"]) for one, entries in stored.items() for entry in entries
    ]
    columns = "layer feature token string value"
    same(db.query("feature_lens", dict_id=DICT), columns, expected)
    of_one = {entry["token"]: entry["value"] for entry in stored[tuple(ONE.values())]}
    asked = [*of_one][::-1][:2] + [next(token for token in range(len(WORDS)) if token not in of_one)]
    expected = [(1, 3, token, WORDS[token], of_one.get(token)) for token in sorted(asked, key=[*of_one, asked[-1]].index)]
    tokens = [*(WORDS[token] for token in asked), "no such word", WORDS[asked[0]]]
    assert db.query("feature_lens", **ONE, tokens=tokens).rows() == [
        *(pytest.approx(row) for row in expected),
        (1, 3, None, "no such word", None),
    ]
    assert db.query("feature_lens", dict_id=OLD, layer=0, feature=1, tokens=[WORDS[0]]).rows() == [(0, 1, 0, WORDS[0], None)]
    assert db.query("feature_lens", dict_id=OLD).is_empty()


def test_the_inputs_of_a_feature_directly_and_through_heads(random_world):
    db, tables = random_world
    [own] = [row for row in tables["features"] if key(row) == tuple(ONE.values())]
    edges = {("token", entry["token"], None): entry["value"] for entry in own["top_embeddings"]}
    edges |= {
        (row["kind"], row["input"], row["via"]): row["virtual_weight"] for row in tables["input_edges"] if key(row) == key(own)
    }
    ranked = sorted(edges, key=lambda edge: (edge[0] != "token", -abs(edges[edge])))
    expected = [(*edge[:2], WORDS[edge[1]] if edge[0] == "token" else None, edge[2], edges[edge]) for edge in ranked]
    columns = "kind input string via virtual_weight"
    same(db.query("feature_inputs", **ONE), columns, expected)
    first = [row for kind in ("token", "position") for row in [row for row in expected if row[0] == kind][:2]]
    same(db.query("feature_inputs", **ONE, limit=2), columns, first)
    for via in ("L0H2", "residual"):
        same(db.query("feature_inputs", **ONE, via=via), columns, [row for row in expected if (row[3] or "residual") == via])


def test_overlaps_are_means_over_features_with_the_interval_of_the_mean(random_world):
    db, tables = random_world
    rows = [row for row in tables["pullback_overlaps"] if row["n_tokens"] >= 10]
    grouped = defaultdict(list)
    for row in rows:
        for layer in (None, row["layer"]):
            grouped[row["route"] == "heads", row["k"], layer is not None, layer].append(row)
    from scipy.stats import t  # takes a second, and all processes read this file

    expected = []
    for (heads, k, _, layer), own in sorted(grouped.items(), key=lambda item: (item[0][:3], item[0][3] or 0)):
        overlap = np.array([row["overlap"] for row in own])
        gain = overlap - [row["control"] for row in own]
        half = t.ppf(0.975, len(own) - 1) * gain.std(ddof=1) / len(own) ** 0.5
        mean, low, high = mean_share(overlap, most=sum(row["n_tokens"] for row in own))
        place = (DICT, "heads" if heads else "residual", k, layer, len(own))
        expected.append((*place, mean, low, high, (overlap - gain).mean(), gain.mean(), gain.mean() - half, gain.mean() + half))
    columns = "dict_id route k layer n_features overlap overlap_ci_low overlap_ci_high control difference difference_ci_low difference_ci_high"
    same(db.query("pullback_overlap"), columns, expected)
    one = next(row for row in rows if row["n_tokens"] < 50)
    found = db.query("pullback_overlap", dict_id=DICT, layer=one["layer"], feature=one["feature"])
    same(
        found.filter(route=one["route"], k=one["k"], layer=one["layer"]),
        "overlap control n_features",
        [(one["overlap"], one["control"], 1)],
    )
    assert db.query("pullback_overlap", layer=one["layer"], feature=one["feature"], min_tokens=50).is_empty()


def test_some_features_of_two_dictionaries(random_world):
    """Those that are named, once each, and those that there are not left out."""
    db, tables = random_world
    wanted = [(OLD, 0, 1), (DICT, 1, 3), (DICT, 0, 3), (DICT, 1, 3), (DICT, 99, 0), ("none", 0, 0)]
    rows, said = {key(row): row for row in tables["features"]}, best(tables)
    expected = [
        (*one, *said[one][:2], rows[one]["max_activation"], rows[one]["dead"]) for one in sorted(set(wanted) & rows.keys())
    ]
    dict_ids, layers, features = (list(column) for column in zip(*wanted, strict=True))
    found = db.query("some_features", dict_ids=dict_ids, layers=layers, features=features)
    same(found, "dict_id layer feature text score max_activation dead", expected)
    assert len(expected) == 3 and db.query("some_features", dict_ids=[], layers=[], features=[]).is_empty()


def test_dense_features(random_world):
    db, tables = random_world
    texts = best(tables)
    expected = [(*key(row), row["density"], *texts[key(row)][:2]) for row in tables["features"] if row["density"] >= 0.05]
    expected.sort(key=lambda row: (-row[3], row[:3]))
    same(db.query("dense_features", min_density=0.05), "dict_id layer feature density text score", expected)
    assert db.query("dense_features", min_density=0.05, dict_id=DICT, layer=1, limit=1).height == 1


def test_neighbours_and_duplicates(random_world):
    db, tables = random_world
    texts, density = best(tables), {key(row): row["density"] for row in tables["features"]}
    own = [row for row in tables["feature_neighbours"] if key(row) == tuple(ONE.values())]
    expected = [
        (row["rank"], row["neighbour"], row["cosine"], density[DICT, 1, row["neighbour"]], texts[DICT, 1, row["neighbour"]][0])
        for row in own
    ]
    same(db.query("nearest_features", **ONE), "rank neighbour cosine density text", expected)
    same(db.query("nearest_features", **ONE, limit=2), "rank neighbour cosine density text", expected[:2])
    pairs = {}
    for row in tables["feature_neighbours"]:
        pair = (row["dict_id"], row["layer"], *sorted((row["feature"], row["neighbour"])))
        if row["cosine"] >= 0.5:
            pairs[pair] = max(row["cosine"], pairs.get(pair, 0))
    expected = sorted(
        ((*pair, cosine, density[pair[0], pair[1], pair[3]]) for pair, cosine in pairs.items()), key=lambda r: (-r[4], r)
    )
    same(db.query("decoder_duplicates", min_cosine=0.5), "dict_id layer feature neighbour cosine neighbour_density", expected)


def test_labels_of_windows_against_those_of_the_layer(random_world):
    db, tables = random_world
    labels = defaultdict(Counter)
    for row in tables["windows"]:
        if row["label"]:
            labels[key(row)][row["label"]] += 1
    base = defaultdict(Counter)
    for (dict_id, layer, _), counts in labels.items():
        base[dict_id, layer].update(counts)
    shares = {layer: {label: n / counts.total() for label, n in counts.items()} for layer, counts in base.items()}
    lift = {
        (*one, label): (n, n / counts.total(), shares[one[:2]][label])
        for one, counts in labels.items()
        for label, n in counts.items()
    }
    own = sorted(
        ((label, *lift.get((*ONE.values(), label), (0, 0, shares[DICT, 1][label]))) for label in ("en", "fr")),
        key=lambda r: -r[2] / r[3],
    )
    same(db.query("label_profile", **ONE), "label n_windows frac base_frac lift", [(*row, row[2] / row[3]) for row in own])
    assert db.query("label_profile", dict_id=DICT, layer=1, feature=99).is_empty()
    expected = [
        (*one, counts.total(), *lift[*one, "fr"]) for one, counts in labels.items() if counts["fr"] and counts.total() >= 4
    ]
    expected.sort(key=lambda row: (-row[5] / row[6], -row[4], row[:3]))
    frame = db.query("features_of_label", label="fr", min_windows=4)
    same(frame, "dict_id layer feature n_labelled n_windows frac base_frac", expected)
    assert frame["text"].to_list() == [best(tables)[row[:3]][0] for row in expected]


def test_features_of_a_token(random_world):
    db, tables = random_world
    peaks, n_windows = Counter((*key(row), row["peak_token"]) for row in tables["windows"] if row["band"] == "top"), BANDS["top"]
    meant = [token for token, word in enumerate(WORDS) if word.strip().lower() == "paris"]
    expected = [(*one, n / n_windows) for one, n in peaks.items() if one[3] in meant]
    expected.sort(key=lambda row: (-row[4], row))
    same(db.query("features_of_token", token="Paris"), "dict_id layer feature token weight", expected)
    promoted = [
        (*key(row), e["token"], e["value"]) for row in tables["features"] for e in row["top_logits"] if e["token"] in meant
    ]
    promoted.sort(key=lambda row: (-row[4], row))
    frame = db.query("features_of_token", token=" paris", role="promotes")
    same(frame, "dict_id layer feature token weight", promoted)
    same(frame, "string text", [(WORDS[row[3]], best(tables)[row[:3]][0]) for row in promoted])
    chosen = [row for row in promoted if row[:2] == (DICT, 2)][:1]
    same(
        db.query("features_of_token", token="paris", role="promotes", dict_id=DICT, layer=2, limit=1),
        "dict_id layer feature",
        [row[:3] for row in chosen],
    )
    own = [row for row in tables["windows"] if key(row) == tuple(ONE.values())]
    found = defaultdict(list)
    for row in own:
        found[row["peak_token"]].append(row["max_activation"])
    expected = [(token, WORDS[token], len(a), len(a) / len(own), max(a), sum(a) / len(a)) for token, a in found.items()]
    expected.sort(key=lambda row: (-row[2], row[0]))
    same(db.query("feature_tokens", **ONE), "token string n_windows frac max_activation mean_peak", expected)


def test_what_to_explain_next(random_world):
    db, tables = random_world
    texts = best(tables)
    live = [row for row in tables["features"] if not row["dead"] and row["n_contexts"] >= 8 and row["n_documents"] >= 3]
    expected = [(*key(row), row["density"], row["n_contexts"], row["n_documents"]) for row in live if key(row) not in texts]
    expected.sort(key=lambda row: -row[3])
    given = {"min_contexts": 8, "min_documents": 3}
    same(db.query("unexplained_features", **given), "dict_id layer feature density n_contexts n_documents", expected)
    assert {row[0] for row in expected} == {DICT, OLD}, "features whose harvest did not count windows are among them"


def test_explanations_by_their_scores(random_world):
    db, tables = random_world
    texts = best(tables)
    scored = [(*one, *row[1:4], row[0]) for one, row in texts.items() if row[1] is not None]
    columns = "dict_id layer feature score detection fuzzing text"
    same(db.query("ranked_explanations"), columns, sorted(scored, key=lambda row: (row[3], row[:3])))
    same(db.query("ranked_explanations", first="best", limit=3), columns, sorted(scored, key=lambda row: (-row[3], row[:3]))[:3])
    llm = [row for row in scored if texts[row[:3]][4] == "llm"]
    assert db.query("ranked_explanations", explainer="llm").height == len(llm) > 0
    gaps = [(*row[:3], row[4] - row[5]) for row in scored if None not in row[4:6]]
    same(db.query("scorer_disagreement"), "dict_id layer feature gap", sorted(gaps, key=lambda row: (-abs(row[3]), row[:3])))


def test_counts_of_features_by_layer(random_world):
    db, tables = random_world
    texts, expected = best(tables), []
    for dict_id, layer in [(DICT, None), *((DICT, layer) for layer in range(LAYERS)), (OLD, None), (OLD, 0)]:
        rows = [row for row in tables["features"] if row["dict_id"] == dict_id and layer in (None, row["layer"])]
        live = sum(row["n_contexts"] >= 20 and row["n_documents"] >= 10 for row in rows)
        scores = [texts[key(row)][1] for row in rows if key(row) in texts and texts[key(row)][1] is not None]
        counts = (sum(row["dead"] for row in rows), sum(row["density"] >= 0.1 for row in rows), live)
        median = pl.Series([row["density"] for row in rows if not row["dead"]]).median()
        expected.append(
            (dict_id, layer, len(rows), *counts, sum(key(row) in texts for row in rows), sum(scores) / len(scores), median)
        )
    assert expected[0][2] == LAYERS * FEATURES
    columns = "dict_id layer n_features n_dead n_dense n_live n_explained mean_score median_density"
    same(db.query("feature_counts"), columns, expected)


def test_pairs_that_fire_together(random_world):
    db, tables = random_world
    density = {key(row): row["density"] for row in tables["features"]}
    expected = [
        (DICT, e["source_layer"], e["source_feature"], e["target_layer"], e["target_feature"], e["coactivation"])
        for e in tables["feature_edges"]
        if "via" not in e
        and density[DICT, e["source_layer"], e["source_feature"]] <= 0.05
        and density[DICT, e["target_layer"], e["target_feature"]] <= 0.05
    ]
    expected.sort(key=lambda row: (-row[5], row))
    columns = "dict_id source_layer source_feature target_layer target_feature coactivation"
    same(db.query("coactivating_pairs", max_density=0.05, limit=30), columns, expected[:30])


def test_two_explainers_on_the_same_features(random_world):
    db, tables = random_world
    scores = {(key(row), row["explainer"], row["scorer"]): row["score"] for row in tables["scores"]}
    expected = []
    for dict_id in (DICT, OLD):
        for scorer in ("detection", "fuzzing"):
            both = [
                (score, scores.get((one, "rules", scorer)))
                for (one, explainer, kind), score in scores.items()
                if one[0] == dict_id and explainer == "llm" and kind == scorer
            ]
            both = [pair for pair in both if None not in pair]
            means = [sum(column) / len(both) for column in zip(*both, strict=True)]
            better, worse = sum(a > b for a, b in both), sum(a < b for a, b in both)
            error = pl.Series([a - b for a, b in both]).std() / len(both) ** 0.5 if len(both) > 1 else None
            expected.append((dict_id, "input", scorer, len(both), *means, means[0] - means[1], better, worse, error))
    frame = db.query("compare_explainers", explainer="llm", other="rules")
    columns = "dict_id side scorer n_features mean_score other_mean_score mean_difference n_better n_worse standard_error"
    same(frame, columns, expected)


def judge(row):
    return json.loads(row["detail"])["judge"]


def test_explainers_beside_baselines(random_world):
    db, tables = random_world
    rows = [row for row in tables["scores"] if row["score"] is not None]
    scored = {(row["dict_id"], row["scorer"], row["explainer"], key(row)) for row in rows}
    groups = defaultdict(dict)
    for row in rows:
        groups[row["dict_id"], row["scorer"], row["explainer"], judge(row)][key(row)] = row["score"]
    expected = []
    for (dict_id, scorer, *who), own in groups.items():
        shared = [own[one] for one in own if all((dict_id, scorer, name, one) in scored for name in ("rules", "llm"))]
        means = mean_share([*own.values()], most=40 * len(own))  # of 40 windows each
        expected.append((dict_id, "input", scorer, *who, len(own), *means, len(shared), pl.Series(shared).mean()))
    expected.sort(key=lambda row: (*row[:3], row[3].startswith("baseline:"), -row[6], row[3]))
    columns = "dict_id side scorer explainer judge n mean_score ci_low ci_high n_shared mean_shared"
    same(db.query("explainers_compared"), columns, expected)
    fuzzing = [row for row in expected if row[0] == DICT and row[2] == "fuzzing"]
    same(db.query("explainers_compared", dict_id=DICT, scorer="fuzzing"), columns, fuzzing)
    assert {row[4] for row in fuzzing} == {"rule", "words", "language model"}


def test_explainers_that_disagree(random_world):
    db, tables = random_world
    texts = {(key(row), row["explainer"]): row["text"] for row in tables["explanations"]}
    scores = {(key(row), row["scorer"], row["explainer"]): (row["score"], judge(row)) for row in tables["scores"]}
    expected, n_differs = [], 0
    for one in {place[0] for place in scores}:
        pairs = {}
        for scorer in ("detection", "fuzzing"):
            pair = [(*scores.get((one, scorer, name), (None, None)), name) for name in ("llm", "rules")]
            if all(score is not None for score, *_ in pair):
                pairs[scorer] = sorted(pair, key=lambda scored: (-scored[0], scored[2]))
        bests = [{name for score, _, name in pair if score == pair[0][0]} for pair in pairs.values()]
        differs = len(bests) > 1 and not set.intersection(*bests)
        for scorer, ((high, high_judge, best), (low, low_judge, worst)) in pairs.items():
            if high - low >= 0.2 or differs:
                said = (best, high, high_judge, texts[one, best], worst, low, low_judge, texts[one, worst])
                expected.append((*one, "input", scorer, 2, high - low, differs, *said))
                n_differs += differs
    expected.sort(key=lambda row: (-row[6], row[:5]))
    assert 0 < n_differs < len(expected)
    ends = "best best_score best_judge best_text worst worst_score worst_judge worst_text"
    columns = f"dict_id layer feature side scorer n_explainers gap best_differs {ends}"
    same(db.query("explainer_disagreements"), columns, expected)
    chosen = [row for row in expected if row[0] == DICT and row[1] == 1 and row[4] == "detection"]
    same(db.query("explainer_disagreements", dict_id=DICT, layer=1, scorer="detection"), columns, chosen)
    assert db.query("explainer_disagreements", min_gap=0.5, limit=3).height == 3


def test_a_histogram(random_world):
    db, tables = random_world
    [bins] = [row["histogram"] for row in tables["features"] if key(row) == tuple(ONE.values())]
    n = sum(row["n"] for row in bins)
    expected = [
        (row["low"], row["n"], row["n"] / n, sum(other["n"] for other in bins if other["low"] >= row["low"]) / n) for row in bins
    ]
    same(db.query("activation_histogram", **ONE), "low n frac frac_above", expected)
    assert db.query("activation_histogram", dict_id=OLD, layer=0, feature=1).is_empty()


def test_edges_through_heads(random_world):
    db, tables = random_world
    through, texts = [e for e in tables["feature_edges"] if "via" in e], best(tables)
    expected = []
    for direction, own, other in (("from", "target", "source"), ("to", "source", "target")):
        layer, feature = (0, 3) if direction == "to" else (2, 3)
        near = [
            (direction, e[f"{other}_layer"], e[f"{other}_feature"], e["via"], e["virtual_weight"])
            for e in through
            if (e[f"{own}_layer"], e[f"{own}_feature"]) == (layer, feature)
        ]
        near = sorted(near, key=lambda row: (-abs(row[4]), row[1:4]))[:4]
        expected = [(*row, texts[DICT, row[1], row[2]][0]) for row in near]
        frame = db.query("head_edges", dict_id=DICT, layer=layer, feature=feature, limit=4)
        same(frame.filter(direction=direction), "direction layer feature via virtual_weight text", expected)


@pytest.mark.parametrize("measure", ["virtual_weight", "twera"])
def test_circuits_along_the_residual_stream_leave_out_edges_through_heads(random_world, measure):
    db, tables = random_world
    direct = [e for e in tables["feature_edges"] if "via" not in e]
    ends = ("source_layer", "source_feature", "target_layer", "target_feature")
    own = sorted((e for e in direct if (e["source_layer"], e["source_feature"]) == (0, 3)), key=lambda e: -abs(e[measure]))
    near = db.query("top_neighbours", dict_id=DICT, layer=0, feature=3, measure=measure).filter(direction="to")
    assert near[measure].to_list() == pytest.approx([e[measure] for e in own][:20])
    circuit = db.query("feature_circuit", dict_id=DICT, layer=0, feature=3, measure=measure, width=50)
    assert {row for row in circuit.select(ends).rows()} <= {tuple(e[name] for name in ends) for e in direct}
    assert circuit["twera"].null_count() == 0
    assert db.sql("SELECT count(*) AS n FROM edges_into WHERE dict_id = $d", {"d": DICT})["n"].item() == len(direct)


def test_profiles_of_labels(random_world):
    db, tables = random_world
    profiles = defaultdict(list)
    for row in tables["feature_labels"]:
        profiles[key(row)].append(row)
    columns = "label tokens firings mass rate matched_rate share"
    for one in (ONE, *(dict(zip(ONE, place, strict=True)) for place in [*profiles][:3])):
        rows = sorted(profiles.get(tuple(one.values()), []), key=lambda row: (-row["share"], row["label"]))
        frame = db.query("label_shares", **one)
        assert [tuple(row) for row in frame.select(columns.split()).rows()] == [
            tuple(row[n] for n in columns.split()) for row in rows
        ]

    of_feature = {key(row): row for row in tables["features"] if row["dict_id"] == DICT}
    given = {"max_entropy": 0.6, "min_firings": 30, "min_layer": 1}
    tells_nothing = db.query("label_specific", max_entropy=1.0, min_firings=0, limit=1000).filter(
        pl.col("label_information_bits") < 1e-9
    )
    assert {(*row[:3], row[9]) for row in tells_nothing.rows()} == {(*OF_ALL_LABELS, False)}
    expected = []
    for one, rows in profiles.items():
        feature, most = of_feature[one], max(rows, key=lambda row: (row["share"], row["label"]))
        bits = feature["label_information_bits"], feature["label_information_matched_bits"]
        is_matched, firings = bits[1] >= bits[0] / 2, sum(row["firings"] for row in rows)
        if feature["label_entropy"] <= 0.6 and firings >= 30 and one[1] >= 1:
            expected.append((*one, most["label"], most["share"], firings, feature["label_entropy"], *bits, is_matched))
    expected.sort(key=lambda row: (-row[7], row[:3]))
    columns = (
        "dict_id layer feature label share firings label_entropy label_information_bits label_information_matched_bits matched"
    )
    same(db.query("label_specific", **given), columns, expected)
    for matched in (True, False):
        found = db.query("label_specific", **given, matched=matched, label="de")
        same(found, columns, [row for row in expected if row[9] == matched and row[3] == "de"])

    layers = defaultdict(list)
    for row in of_feature.values():
        if key(row) in profiles:
            kept = row["label_information_matched_bits"] >= row["label_information_bits"] / 2
            layers[row["layer"]].append((row["label_entropy"], kept))
    expected = [
        (
            layer,
            len(rows),
            sum(e <= 0.5 for e, _ in rows),
            sum(e <= 0.5 and kept for e, kept in rows),
            sum(e >= 0.9 for e, _ in rows),
        )
        for layer, rows in sorted(layers.items())
    ]
    same(db.query("label_layers", dict_id=DICT), "layer n_features n_specific n_matched n_shared", expected)


def test_metrics_by_label(random_world):
    db, tables = random_world
    values = {(row["label"], row["layer"], row["name"]): row["value"] for row in tables["metrics"] if row["variant"] is None}
    names = ["tokens", "fvu", "l0", "ce_original", "ce_replacement", "ce_recovered", "kl_nats", "top1_agreement"]
    frame = db.query("metrics_by_label", dict_id=DICT)
    assert frame.select("label", "layer").rows() == [
        (label, layer) for label in (None, "de", "en", "fr") for layer in (None, 0, 1)
    ]
    for label, layer, *row in frame.select("label", "layer", *names).rows():
        assert row == [values.get((label, layer, name)) for name in names]
    of_all = db.query("evaluation", dict_id=DICT)
    assert of_all.height == sum(label is None for label, _, _ in values)


def test_overlaps_of_decoders_stand_beside_chance(random_world):
    db, tables = random_world
    rows = {(row["name"], row["layer"]): row for row in tables["metrics"] if row["name"].startswith("decoder_cosine")}
    names = ["mean", "p99", "max", "mean_square", "random_mean", "random_mean_square", "welch_rms"]
    frame = db.query("decoder_cosines", scope="target")
    assert frame["layer"].to_list() == [None, 0, 1]
    for layer, *values in frame.select("layer", *names).rows():
        assert values == [rows[f"decoder_cosine_target_{name}", layer]["value"] for name in names]
    for name in names[:4]:
        ends = [
            tuple(rows[f"decoder_cosine_target_{name}", layer][end] for end in ("ci_low", "ci_high")) for layer in (None, 0, 1)
        ]
        assert frame.select(f"{name}_low", f"{name}_high").rows() == ends
    assert frame["excess"].to_list() == (frame["mean_square"] - frame["random_mean_square"]).to_list()


def with_macros():
    """An empty database with the macros that queries use."""
    connection = duckdb.connect()
    connection.execute(views().partition("\nCREATE OR REPLACE VIEW")[0])
    return connection


def test_explainers_of_thousands_of_dictionaries_are_compared():
    """Places of features are numbers of 64 bits that hold the dictionary too."""
    query = named_query("explainers_compared")
    with with_macros() as connection:
        connection.sql(
            """CREATE TABLE scores AS SELECT 'd' || d AS dict_id, 'input' AS side, 'fuzzing' AS scorer, explainer, 3000 AS layer,
                      2000000000 + f AS feature, f / 2 AS score, 9 AS n, 'rule' AS judge
               FROM range(3000) AS t(d), range(2) AS u(f), (VALUES ('rules'), ('llm')) AS e(explainer) WHERE explainer = 'rules' OR f = 1"""
        )
        found = connection.sql(query.sql, params=named_query_params(query, {})).pl()
    assert found.height == 6000 and set(found.select("explainer", "n", "n_shared", "mean_shared").rows()) == {
        ("rules", 2, 1, 0.5), ("llm", 1, 1, 0.5),
    }  # fmt: skip


def test_scores_that_are_all_the_same_have_an_interval_of_some_width():
    query = named_query("explainers_compared")
    with with_macros() as connection:
        connection.execute(
            """CREATE TABLE scores AS SELECT 'd' AS dict_id, 'input' AS side, scorer, 'llm' AS explainer, 0 AS layer, score, 9 AS n, f AS feature,
                      'rule' AS judge
               FROM range(5) AS u(f), (VALUES ('detection', 1.0), ('fuzzing', 0.5), ('simulation', -1.0)) AS s(scorer, score)"""
        )
        found = connection.sql(query.sql, params=named_query_params(query, {})).pl().select("scorer", "ci_low", "ci_high").rows()
    ends = {scorer: (low, high) for scorer, low, high in found}
    assert ends["detection"] == pytest.approx(wilson(4, 4)) and ends["fuzzing"] == pytest.approx(wilson(22.5, 45))
    assert ends["simulation"] == pytest.approx([2 * end - 1 for end in wilson(0, 4)])
