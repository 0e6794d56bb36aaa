"""`cltdb explain SPEC --where SQL`: exactly the features that a condition chooses, each reply asked for once."""

import json
import re

import pytest
from command_line import in_one_form
from explain.http_model import Server, fitting
from worlds import projects

import cltdb
from cltdb.__main__ import main
from cltdb.database.check import check
from cltdb.spec import find_project

SECTIONS = """
evaluate: {tokens: 500}
harvest: {tokens: 4_000, top: 8, per_quantile: 6, window: 16, pool_windows: 800, feature_edges: 0}
explain: {features: {limit: 2}}
"""
ROWS = (
    "SELECT layer, feature, explainer, text, status FROM explanations WHERE NOT starts_with(explainer, 'baseline:') ORDER BY ALL"
)


@pytest.fixture(scope="module")
def harvested(tmp_path_factory):
    """Folder of a project whose harvest is finished and not in the database yet: a random dictionary with a feature that never fires."""
    folder = projects.with_dictionary(tmp_path_factory.mktemp("harvested"), SECTIONS, n_features=48, silent=[(0, 7)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "small.yaml", "--until", "harvest"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(harvested, monkeypatch):
    monkeypatch.chdir(harvested)


@pytest.fixture
def server(monkeypatch):
    server = Server(lambda n, body: fitting(body))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", server.address)
    yield server
    server.close()


def explained(capsys, where, *options):
    """What is printed in the end of the features that a condition chooses."""
    capsys.readouterr()
    assert main(["explain", "small.yaml", "--where", where, *options]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if re.match(r" *\d+:\d+ |explained ", line)]


def test_only_chosen_features_are_explained_and_no_reply_is_paid_twice(server, capsys):
    told = explained(capsys, "layer = 1 AND feature IN (10, 19)")
    assert told[-1] == "explained 2 of 2 features by cltdb-rules/v1; scored 2 by detection, 2 by fuzzing"
    assert [line.split()[0] for line in told[:-1]] == ["1:10", "1:19"]
    database = cltdb.open("cltdb.duckdb")
    by_rules = database.sql(ROWS)
    assert by_rules.select("layer", "feature", "explainer").rows() == [(1, 10, "rules"), (1, 19, "rules")]

    paid = ["--set", "explain.model=openai/m", "--set", "explain.scorers=[detection]"]
    told = explained(capsys, "text IS NOT NULL", *paid)
    assert told[-1] == "explained 2 of 2 features by openai/m; scored 2 by detection"
    first = len(server.bodies)
    rows = database.sql(ROWS)
    assert first > 2 and rows.filter(explainer="rules").equals(by_rules)
    assert rows.filter(explainer="llm").select("layer", "feature").rows() == [(1, 10), (1, 19)]

    assert explained(capsys, "explainer IS NOT NULL AND layer = 1", *paid) == told and len(server.bodies) == first
    assert explained(capsys, "layer = 1 AND feature IN (10, 19, 26)", *paid)[-1].startswith("explained 3 of 3 features")
    assert first < len(server.bodies) < 2 * first
    assert len({json.dumps(body) for body in server.bodies}) == len(server.bodies)
    rows = database.sql(ROWS)
    assert len(rows.filter(explainer="llm")) == 3 and check(find_project(".").database, artifacts=[]) == []
    assert main(["db", "rebuild"]) == 0 and database.sql(ROWS).equals(rows)


def test_examples_behind_scores_are_made_again_and_count_to_them(server, capsys, monkeypatch):
    """Of rules and of a language model, which is not asked again."""
    paid = ["--set", "explain.model=openai/m", "--set", "explain.scorers=[detection, fuzzing]"]
    explained(capsys, "layer = 1 AND feature = 10")
    explained(capsys, "layer = 1 AND feature = 10", *paid)
    n_asked = len(server.bodies)
    assert main(["judged", "small.yaml", "--feature", "1:10", "--json", *paid]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {
        (row["explainer"], row["scorer"]): json.loads(row["detail"])
        for row in cltdb.open("cltdb.duckdb").sql("FROM scores WHERE layer = 1 AND feature = 10").to_dicts()
    }
    shown = {(one["explainer"], one["scorer"]): one["answers"] for one in found["scores"] if one["answers"] is not None}
    assert {"rules", "llm"} <= {explainer for explainer, _ in shown} and len(server.bodies) == n_asked
    assert all(one["why"] for one in found["scores"] if one["answers"] is None)
    for (explainer, scorer), answers in shown.items():
        windows, detail = found["windows"][scorer], rows[explainer, scorer]
        pairs = [(window["kind"] == "positive", answer) for window, answer in zip(windows, answers, strict=True)]
        of_firing, of_silent = (
            [answer for fires, answer in pairs if fires is which and answer is not None] for which in (True, False)
        )
        assert (len(of_firing), len(of_silent)) == (detail["n_pos"], detail["n_neg"])
        assert sum(of_firing) == pytest.approx(detail["tpr"] * len(of_firing))
        assert len(of_silent) - sum(of_silent) == pytest.approx(detail["tnr"] * len(of_silent))
    for scorer, windows in found["windows"].items():
        for one in windows:
            assert len(one["strings"]) == len(one["activations"])
            fires = {i for i, value in enumerate(one["activations"]) if value > 0}
            assert bool(fires) is (scorer == "fuzzing" or one["kind"] == "positive")
            if scorer == "fuzzing":
                assert one["marked"] and (set(one["marked"]) == fires) is (one["kind"] == "positive")
    monkeypatch.setattr("cltdb.explain.judged._equal", lambda *_: False)
    assert main(["judged", "small.yaml", "--feature", "1:10"]) == 0
    assert "do not count to the stored score" in (told := capsys.readouterr().out) and "said" not in told
    for feature, word in (("1:99999", "no score"), ("1", "LAYER:FEATURE")):
        assert main(["judged", "small.yaml", "--feature", feature]) == 1 and word in capsys.readouterr().err


def test_the_limit_of_the_spec_holds_where_it_is_asked_for_alone(capsys):
    assert "of 3 features" in explained(capsys, "layer = 2 AND feature IN (5, 24, 37)")[-1]
    strongest = ["--set", "explain.features.limit=1", "--set", "explain.features.top_by=max_activation"]
    told = explained(capsys, "layer = 2 AND feature IN (5, 24, 37)", *strongest)
    best = "SELECT feature FROM features WHERE layer = 2 AND feature IN (5, 24, 37) ORDER BY max_activation DESC LIMIT 1"
    assert "of 1 features" in told[-1] and told[0].split()[0] == f"2:{cltdb.open('cltdb.duckdb').sql(best)['feature'][0]}"


@pytest.mark.parametrize("features", ["{sample: 4}", "{limit: 4, top_by: layer}", "{top_by: layer}"])
def test_the_limit_of_the_command_holds_whatever_is_set(features, capsys):
    capsys.readouterr()
    assert main(["explain", "small.yaml", "--set", f"explain.features={features}", "--limit", "1"]) == 0
    assert "of 1 features" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "key", ["explain.api_key_env=sk-secret", "explain={api_key_env: sk-secret}", "explain.api_base=http://sk-secret@h"]
)
def test_what_may_be_a_secret_is_not_shown_in_errors(key, capsys):
    assert main(["explain", "small.yaml", "--set", key, "--limit", "1"]) == 1
    error = capsys.readouterr().err
    assert f"--set {key.partition('=')[0]}=…" in error and "sk-secret" not in error


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("", "an empty text"),
        ("layer = ", "syntax error"),
        ("layer = 1 LIMIT 3", "LIMIT"),
        ("true; DROP TABLE features", "syntax error"),
        ("true) UNION SELECT 1, 2, false WHERE (true", "more than a condition"),
        ("true) LIMIT (1", "more than a condition"),
        ("1), (2", "more than a condition"),
        ("nothing > 1", '"nothing" not found'),
        ("count(*) > 1", "aggregates"),
        ("layer = 99", "no feature"),
        ("dict_id <> 'x' AND layer = 99 OR dict_id = 'another'", "no feature"),
        ("layer = 0 AND feature IN (6, 7, 8)", "1 of 3 features dead, such as 0:7"),
    ],
)
def test_what_chooses_nothing_to_explain_is_one_error(where, word, capsys):
    before = len(list(find_project(".").workspace.glob("explain/*")))
    assert main(["explain", "small.yaml", "--where", where]) == 1
    error = in_one_form(capsys.readouterr().err)
    assert error.startswith("error: --where: found ") and word in error
    assert len(list(find_project(".").workspace.glob("explain/*"))) == before


def test_more_features_than_a_spec_can_name_are_refused(capsys, monkeypatch):
    monkeypatch.setattr("cltdb.commands.explain.MOST", 3)
    assert main(["explain", "small.yaml", "--where", "layer = 2 AND density > 0 AND feature < 8"]) == 1
    assert "features; expected 1 to 3 features" in in_one_form(capsys.readouterr().err)


def test_without_a_harvest_there_is_nothing_to_choose_from(capsys):
    assert main(["explain", "small.yaml", "--set", "harvest.top=9", "--where", "layer = 1"]) == 1
    assert "changed: harvest.top" in capsys.readouterr().err
