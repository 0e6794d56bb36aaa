"""What `cltdb intervene` keeps: a row per intervention, which a repetition neither doubles nor loses."""

from dataclasses import replace

import polars as pl

from cltdb.attribution.intervene import Outcome
from cltdb.database.api import open as open_database
from cltdb.database.stored_intervention import store_intervention
from cltdb.replacement.interventions import Setting
from cltdb.spec import Project


def outcome(*, predicted, continuations=None):
    numbers = {"before": [1.0], "after": [0.5], "predicted": [predicted]}
    probabilities = {"probability_before": [0.9], "probability_after": [0.2]}
    logits = pl.DataFrame(
        {"token": [7], "string": ["Paris"], **numbers, **probabilities}, schema_overrides={"predicted": pl.Float64}
    )
    places = {"layer": pl.Int32, "position": pl.Int32, "feature": pl.Int32}
    features = pl.DataFrame(schema=places | dict.fromkeys(numbers, pl.Float64))
    return Outcome("constrained", None, (0, 3), (Setting(0, 2, 1, "set", 0.0),), logits, features, continuations)


def test_what_was_predicted_is_kept_whether_or_not_it_was_asked_for_before(tmp_path):
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    for predicted in (None, 0.4, 0.4):
        store_intervention(project, outcome(predicted=predicted), name="one", dict_id="d", model_id="m", prompt="x")
    rows = open_database(project.database).sql("SELECT predicted FROM intervention_effects ORDER BY predicted NULLS FIRST")
    assert rows["predicted"].to_list() == [None, 0.4]


def test_probabilities_and_continuations_are_kept_whether_or_not_they_were_asked_for_before(tmp_path):
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    for texts in (None, ("Paris", "Rome"), ("Paris .", "Rome ."), None):
        one = outcome(predicted=None, continuations=texts)
        store_intervention(project, one, name="one", dict_id="d", model_id="m", prompt="x")
    database = open_database(project.database)
    kept = database.sql("SELECT text_without, text_with FROM interventions ORDER BY text_with NULLS FIRST").rows()
    assert kept == [(None, None), ("Paris", "Rome"), ("Paris .", "Rome .")]
    effects = database.sql("SELECT DISTINCT kind, token, probability_before, probability_after FROM intervention_effects").rows()
    assert effects == [("logit", 7, 0.9, 0.2)]


def test_what_was_given_is_kept_as_the_option_takes_it(tmp_path):
    """Of both rows the settings are the same, and the text that follows is not."""
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    for given in ("0:2@1:=0.0", "0:2@1=0.0"):
        one = replace(outcome(predicted=None, continuations=("a", "b")), given=(given,))
        store_intervention(project, one, name="one", dict_id="d", model_id="m", prompt="x")
    rows = open_database(project.database).sql("SELECT settings, given FROM interventions ORDER BY given").rows()
    assert [given for _, given in rows] == [["0:2@1:=0.0"], ["0:2@1=0.0"]] and rows[0][0] == rows[1][0]


def test_the_same_under_another_name_is_kept_beside_it(tmp_path):
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    ids = [
        store_intervention(project, outcome(predicted=None), name=name, dict_id="d", model_id="m", prompt="x")
        for name in ("one", "two")
    ]
    rows = open_database(project.database).sql("SELECT intervention_id FROM interventions ORDER BY intervention_id")
    assert rows["intervention_id"].to_list() == ids


def test_a_database_that_is_gone_comes_back_with_the_next_one(tmp_path):
    """`artifacts.bring_in`, through which graphs, interventions, imports and explanations of single commands go."""
    project = Project(tmp_path, tmp_path / "artifacts", tmp_path / "cltdb.duckdb")
    ids = []
    for name in ("one", "two", "three"):
        project.database.unlink(missing_ok=True)
        ids.append(store_intervention(project, outcome(predicted=None), name=name, dict_id="d", model_id="m", prompt="x"))
        rows = open_database(project.database).sql("SELECT intervention_id FROM interventions")
        assert sorted(rows["intervention_id"]) == sorted(ids)
