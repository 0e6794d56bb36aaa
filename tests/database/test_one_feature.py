"""All that is known of one feature, put together from small statements, is what the named queries say."""

import pytest
from polars.testing import assert_frame_equal
from worlds import capitals_experiment, random_experiment
from worlds.shared import made_once

from cltdb.database import Database, one_feature
from cltdb.database.export import export
from cltdb.database.one_feature import facts, strongest_windows
from cltdb.errors import CltdbError

QUERIES = {
    "contexts": "feature_contexts",
    "explanations": "page_explanations",
    "connected": "top_neighbours",
    "labels": "label_shares",
    "graphs": "page_feature_graphs",
    "interventions": "page_feature_interventions",
    "isolation": "feature_isolation",
    "similar": "nearest_features",
}
FRAMES = {"contexts": "contexts", "explanations": "explanations", "connected": "neighbours"}
LEFT_OUT = ("density", "max_activation", "score")


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """{name: Database}: both made-up experiments, and one as an exported folder."""
    capitals = made_once(tmp_path_factory, "dashboards", capitals_experiment.build) / "cltdb.duckdb"
    fill = lambda folder: random_experiment.build(folder / "cltdb.duckdb", folder / "artifacts", random_experiment.rows_of())  # noqa: E731
    paths = {"capitals": capitals, "random": made_once(tmp_path_factory, "random", fill) / "cltdb.duckdb"}
    exported = tmp_path_factory.mktemp("exported") / "folder"
    export(capitals, exported)
    return {name: Database(path) for name, path in {**paths, "exported": exported}.items()}


def in_text(rows):
    """Rows with their columns in order; NaN is equal to itself in text."""
    return [repr(sorted(row.items())) for row in rows]


def some_features(db, n):
    """Keys of features: those that were intervened on, and some others."""
    others = "SELECT dict_id, layer, feature FROM features ORDER BY hash((dict_id, layer, feature)) LIMIT ?"
    set_ones = "SELECT DISTINCT dict_id, one.layer, one.feature FROM (SELECT dict_id, unnest(settings) AS one FROM interventions) LIMIT 1"
    return [*db.sql(set_ones).rows(named=True), *db.sql(others, [n]).rows(named=True)]


@pytest.mark.parametrize(
    ("which", "n", "parts"),
    [
        ("capitals", 6, {"contexts", "explanations", "connected", "graphs", "interventions", "isolation"}),
        ("random", 5, {"contexts", "explanations", "connected", "labels", "similar"}),
        ("exported", 1, {"contexts", "explanations", "connected", "graphs", "interventions"}),
    ],
)
def test_facts_and_frames_are_what_named_queries_say(databases, which, n, parts):
    seen = set()
    with databases[which].session() as db:
        for key in some_features(db, n):
            found, feature, card = (
                facts(db, **key, n_neighbours=3),
                db.feature(**key, neighbours=3),
                db.query("feature_card", **key),
            )
            assert in_text([found.card]) == in_text([feature.card]) == in_text(card.to_dicts())
            assert list(feature.card) == card.columns
            for name, query in QUERIES.items():
                limit = {"limit": 3} if name in ("connected", "similar") else {}
                frame = db.query(query, **key, **limit)
                if name in FRAMES:
                    assert_frame_equal(getattr(feature, FRAMES[name]), frame)
                if name == "similar":
                    frame = frame.drop(LEFT_OUT)
                rows = list(getattr(found, name))
                if name in ("graphs", "interventions"):
                    assert getattr(found, f"n_{name}") == frame.height
                assert in_text(rows) == in_text(frame.to_dicts()), (name, key)
                seen |= {name} if rows else set()
    assert seen >= parts


def test_the_token_that_stands_before_a_text_begins_the_sequences_of_the_harvest(databases):
    with databases["random"].session() as db:
        windows = db.sql("SELECT * FROM windows JOIN harvested_text USING (dict_id, sequence)")
        [(dict_id, layer, feature)] = windows.select("dict_id", "layer", "feature").head(1).rows()
        begins = db.sql("SELECT tokens[1] FROM harvested_text WHERE dict_id = ?", [dict_id]).to_series()
        key = {"dict_id": dict_id, "layer": layer, "feature": feature, "n_neighbours": 1}
        assert facts(db, **key).bos in begins.to_list() and facts(db, **key, whole=False).bos is None
    own = (
        databases["capitals"]
        .sql("SELECT dict_id, layer, feature FROM windows WHERE tokens IS NOT NULL LIMIT 1")
        .row(0, named=True)
    )
    assert facts(databases["capitals"], **own, n_neighbours=1).bos is None, "its windows bring their own tokens"


@pytest.mark.parametrize("which", ["capitals", "random", "exported"])
def test_strongest_windows_are_what_the_named_query_says_of_each_feature(databases, which):
    with databases[which].session() as db:
        (dict_id,) = db.sql("SELECT dict_id FROM windows WHERE band = 'top' LIMIT 1")["dict_id"]
        of_it = "SELECT layer, feature FROM features WHERE dict_id = ? ORDER BY hash((layer, feature)) LIMIT 6"
        places = db.sql(of_it, [dict_id]).rows()
        found = strongest_windows(db, dict_id=dict_id, places=[*places, (0, 10**6)])
        for layer, feature in places:
            rows = db.query("feature_contexts", dict_id=dict_id, layer=layer, feature=feature, band="top").to_dicts()
            assert in_text(found[layer, feature]) == in_text(rows)
        assert sum(map(len, found.values())) > 3 and found[0, 10**6] == []
        assert strongest_windows(db, dict_id="no dictionary", places=places[:1]) == {places[0]: []}


def test_of_many_graphs_the_first_are_given_and_all_are_counted(databases, monkeypatch):
    db = databases["capitals"]
    often = "SELECT layer, feature, count(*) AS n FROM nodes JOIN graphs USING (graph_id) WHERE kind = 'feature' AND dict_id = ? GROUP BY ALL"
    layer, feature, n = db.sql(f"{often} ORDER BY n DESC, layer, feature", [capitals_experiment.DICT]).row(0)
    key = {"dict_id": capitals_experiment.DICT, "layer": layer, "feature": feature}
    whole = facts(db, **key, n_neighbours=3)
    monkeypatch.setattr(one_feature, "MAX_GRAPHS", 1)
    first = facts(db, **key, n_neighbours=3)
    assert n > 1 and (whole.n_graphs, first.n_graphs) == (n, n) and whole.graphs[:1] == first.graphs


def test_there_is_no_card_of_a_feature_that_is_not_there(databases):
    db, key = databases["capitals"], {"dict_id": capitals_experiment.DICT, "layer": 0, "feature": 10**9}
    assert facts(db, **key, n_neighbours=3).card is None
    with pytest.raises(CltdbError, match="no such feature"):
        db.feature(**key)
