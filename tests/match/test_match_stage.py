"""The stage: points of a sweep against the first or across a key, dictionaries named by hand, what is refused, and what the database holds."""

import json
import shutil

import polars as pl
import pytest
import torch
from worlds import dictionaries, models, projects

import cltdb
from cltdb.__main__ import main
from cltdb.database.artifacts import bring_in, rebuild_database
from cltdb.database.check import check
from cltdb.database.export import export
from cltdb.database.store import connect
from cltdb.engine.plan import plan
from cltdb.engine.run import run
from cltdb.engine.upkeep import collect_garbage
from cltdb.errors import CltdbError
from cltdb.match.folders import match_folders
from cltdb.match.settings import Match
from cltdb.match.stage import STAGE, lines
from cltdb.model.transcoder import Dictionary
from cltdb.spec import load, load_points
from cltdb.stages import STAGES
from cltdb.train.trained import dict_id

SPEC = """
name: pair
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 2000, heldout_tokens: 400}
train: {from: {format: cltdb, path: one}}
match: {}
"""
PATHS = "sweep.train.from.path=[one, permuted, wide]"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Dictionaries in folders: one, permuted (and scaled), wide (each feature twice, a little apart), narrow (of another d_model)."""
    folder = projects.with_model(tmp_path_factory.mktemp("match"), SPEC, n_documents=150)
    models.saved(folder / "other", seed=1)
    one = dictionaries.random(dtype=torch.float32, n_features=20)
    parts = {name: getattr(one, name) for name in ("kind", "activation", "W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    scaled = {name: parts[name][:, order] / 2 for name in ("W_enc", "b_enc", "threshold")}
    permuted = parts | scaled | {"W_dec": [2 * W[order] for W in one.W_dec]}
    noise = 1 + 0.1 * torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(1))
    twice = {name: torch.cat([parts[name]] * 2, dim=1) for name in ("b_enc", "threshold")}
    wide = (
        parts
        | twice
        | {"W_enc": torch.cat([one.W_enc, one.W_enc * noise], 1), "W_dec": [torch.cat([W, 0.9 * W + 0.02]) for W in one.W_dec]}
    )
    for name, content in {"one": parts, "permuted": permuted, "wide": wide}.items():
        Dictionary(**content).save(folder / name)
    dictionaries.random(dtype=torch.float32, d_model=8).save(folder / "narrow")
    return folder


def points_of(project, *overrides):
    return load_points(project / "pair.yaml", overrides=overrides)


def made(loaded):
    results = run(loaded, wanted=loaded.experiment.needed("match"))
    return next(result.directory for result in results if result.stage == "match")


def planned(loaded):
    return next(item for item in plan(loaded) if item.stage == "match")


def read(directory, table):
    return pl.read_parquet(directory / f"tables/{table}/*.parquet")


def test_each_point_is_compared_with_the_first(project, caplog):
    points = points_of(project, PATHS)
    assert planned(points[0]).key == "" and "nothing to compare with" in planned(points[0]).reason
    assert len({planned(point).key for point in points}) == 3
    with pytest.raises(CltdbError, match="no finished dictionary of pair-path_one"):
        run(points[2], wanted={"model", "activations", "train"})
        run(points[2], only="match")
    assert made(points[2]) is None and "without stage match: found no finished dictionary of pair-path_one" in caplog.text
    made_of = [made(point) for point in points]
    assert made_of[0] is None
    matches, shares = read(made_of[1], "feature_matches"), read(made_of[1], "dictionary_matches")
    assert matches["relation"].unique().to_list() == ["matched"] and matches.height == 40
    assert matches["decoder_cosine"].min() > 0.999 and matches["encoder_cosine"].min() > 0.999
    assert matches["activation_correlation"].drop_nulls().min() > 0.999
    assert shares["share_a"].to_list() == [1.0] * 6 and shares["layer"].to_list() == [0, 0, 1, 1, None, None]
    assert shares["matched_by"].unique().to_list() == ["decoder"] and shares["n_tokens"].min() > 100
    assert shares["control_share"].max() < 0.3 and shares["control_highest"].max() < 0.8 < shares["highest_a"].min()
    relations = read(made_of[2], "feature_matches").group_by("relation").len().sort("relation").rows()
    assert relations == [("matched", 40), ("split", 40)]
    assert read(made_of[2], "dictionary_matches").filter(above=0.7)["share_b"].to_list() == [0.5] * 3
    assert "100.0% are matched above 0.7" in lines({"match": made_of[1]})[0]
    assert STAGE.compared(made_of[2], None) == {"matched above 0.7": "100.0%", "matched above 0.9": "100.0%"}
    assert planned(points_of(project, PATHS)[1]).action == "cached"
    for directory in made_of[1:]:
        bring_in(points[0].project, (directory.name, directory))
    assert [line for line in check(points[0].project.database) if "match" in line] == []


def test_across_a_key_points_differ_in_it_alone(project):
    points = points_of(project, "sweep={train.from.path: [one, wide], seed: [4, 5]}", "match={across: seed}")
    names = [getattr(point.experiment.reference("match"), "name", None) for point in points]
    assert names == [None, "pair-path_one-seed_4", None, "pair-path_wide-seed_4"]
    of_one = load(
        project / "pair.yaml",
        overrides=["sweep={train.from.path: [one, wide], seed: [4, 5]}", "match={across: seed}"],
        point=points[3].experiment.name,
    )
    assert of_one.experiment.reference("match").name == names[3] and planned(of_one).key == planned(points[3]).key
    with pytest.raises(CltdbError, match=r"match.across: found l0; expected a key that the sweep varies: train.from.path"):
        points_of(project, PATHS, "match={across: l0}")


def test_one_spec_names_the_other_by_folder_and_reads_no_text_where_none_is_wanted(project):
    [loaded] = points_of(project, "match={against: wide, correlation: false}")
    directory = made(loaded)
    matches, shares = read(directory, "feature_matches"), read(directory, "dictionary_matches")
    assert matches.group_by("relation").len().sort("relation").rows() == [("matched", 40), ("merged", 40)]
    assert matches["activation_correlation"].null_count() == 80 and shares["n_tokens"].null_count() == 6
    assert shares["dict_a"].unique().to_list() == ["wide"]
    assert "nothing to compare with" in planned(load(project / "pair.yaml")).reason
    [by_path] = points_of(project, f"match={{against: {project / 'wide'}, correlation: false}}")
    assert planned(by_path).key == directory.name  # the same one under another name


def test_a_dictionary_of_a_known_model_is_not_its_copy_of_an_unknown_one(project):
    """The copy is taken for one of the same model, by the name of that. What is known to be of another is not compared as the copy was."""
    models.saved(project / "again/model", seed=1)
    [other] = points_of(project, "model.id=again/model", "name=known")
    known, copy = run(other, wanted={"model", "train"})[1].directory, project / "copy"
    copy.mkdir()
    for name in ("dictionary.json", "dictionary.safetensors"):
        shutil.copy(known / name, copy)
    of_copy, of_known = (
        points_of(project, f"match={{against: {one}, correlation: false}}")[0] for one in ("copy", dict_id(known))
    )
    assert read(made(of_copy), "dictionary_matches")["matched_by"].unique().to_list() == ["decoder"]
    with pytest.raises(CltdbError, match="match: found dictionaries of different models, and no text to read"):
        made(of_known)
    of_this = run(points_of(project)[0], wanted={"model", "train"})[1].directory
    match_folders((copy, of_this), Match(correlation=False), other.project)
    with pytest.raises(CltdbError, match="different models"):
        match_folders((known, of_this), Match(correlation=False), other.project)


def test_dictionaries_of_two_models_are_matched_by_activations(project):
    points = points_of(project, "sweep={model.id: [model, other]}")
    directory = [made(point) for point in points][1]
    matches, shares = read(directory, "feature_matches"), read(directory, "dictionary_matches")
    assert shares["matched_by"].unique().to_list() == ["activations"]
    assert matches["decoder_cosine"].null_count() == matches["encoder_cosine"].null_count() == matches.height > 20
    assert matches["activation_correlation"].null_count() == 0 and shares["control_share"].max() < 1
    _, loaded = points_of(project, "sweep={model.id: [model, other]}", "match={by: decoder}")
    with pytest.raises(CltdbError, match="found decoder for dictionaries of different models"):
        made(loaded)
    _, loaded = points_of(project, "sweep={model.id: [model, other]}", "match={correlation: false}")
    with pytest.raises(CltdbError, match="match: found dictionaries of different models, and no text to read"):
        made(loaded)


def test_the_command_compares_dictionaries_of_this_project_on_text_and_folders_by_weights(project, unproved, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr("cltdb.commands.match.this_project", lambda: load(project / "pair.yaml").project)
    names = [dict_id(run(point, wanted={"model", "train"})[1].directory) for point in points_of(project, PATHS)]

    def rows(*arguments):
        assert main(["match", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = rows(names[0], names[2], "--tokens", "200")
    assert [row["layer"] for row in found] == [None, 0, 1] and [row["n_split"] for row in found] == [40, 20, 20]
    database = cltdb.open(project / "cltdb.duckdb")
    assert database.sql(f"SELECT DISTINCT n_tokens < 200 FROM dictionary_matches WHERE dict_b = '{names[2]}'").rows() == [(True,)]
    assert database.query("match_splits", dict_a=names[0]).height == 80
    by_folder = rows("wide", "permuted")
    assert by_folder[0]["dict_a"] == "wide" and by_folder[0]["of_b"] == 1 and by_folder[0]["n_merged"] == 40
    assert main(["match", "wide", "permuted"]) == 0
    assert "of the first one's features those matched" in capsys.readouterr().out
    assert check(project / "cltdb.duckdb") == []
    assert collect_garbage(load(project / "pair.yaml").project, STAGES, delete=False)[0] == []
    rebuild_database(load(project / "pair.yaml").project)
    assert database.query("match_shares", dict_a="wide", dict_b="permuted").height == 3
    assert rows(names[0], names[2], "--no-correlation", "--by", "decoder")[0]["n_split"] == 40
    across = database.query("match_seeds", across="train.from.path")
    assert across["setting"].to_list() == ["{}"] * 2 and across["share"].to_list() == [1, 1]
    for point in points_of(project, PATHS, "name=several")[:2]:
        run(point, wanted={"model", "train"})
    for arguments, said in (
        (("wide", "permuted", "--by", "activations"), "--by: found a folder as the second dictionary"),
        (("wide", "permuted", "--threshold", "7"), "error: --threshold: found 7.0; expected"),
        ((*names[:2], "--threshold", "7"), "error: --threshold: found 7.0; expected"),
        ((*names[:2], "--tokens", "0"), "error: --tokens: found 0; expected"),
        ((*names[:2], "--by", "activations", "--no-correlation"), "error: --by: found --no-correlation beside it"),
        (("wide", names[0], "--no-correlation", "--tokens", "7"), "--tokens: found --no-correlation beside it"),
        (("nowhere", "permuted"), "cltdb match: found 'nowhere'"),
        (("several", "permuted"), "cltdb match: found 'several', a sweep of 2 experiments; expected one dictionary"),
    ):
        assert main(["match", *arguments]) == 1
        assert said in capsys.readouterr().err
    monkeypatch.setattr("cltdb.engine.plan.plan", lambda loaded: [item._replace(key="another") for item in plan(loaded)])
    assert main(["match", names[0], names[2]]) == 1
    assert "no longer makes this dictionary" in (said := capsys.readouterr().err) and "with --no-correlation" in said
    assert rows(names[0], names[2], "--no-correlation")[0]["n_split"] == 40


def test_the_comparison_that_is_asked_for_is_printed_and_held(project, unproved, monkeypatch, capsys):
    """Decoders, then activations, then decoders again: each answer is its own, no other rows stay beside it, and what makes room is told."""
    monkeypatch.chdir(project)
    of_project = load(project / "pair.yaml").project
    monkeypatch.setattr("cltdb.commands.match.this_project", lambda: of_project)
    told = []
    monkeypatch.setattr("cltdb.commands.match.logger.warning", lambda text, *values: told.append(text % values))
    names = [dict_id(run(point, wanted={"model", "train"})[1].directory) for point in points_of(project, PATHS)][::2]

    def asked(*options):
        assert main(["match", *names, *options, "--json"]) == 0
        rows, replaced = json.loads(capsys.readouterr().out), [told.pop() for _ in told[:]]
        held = cltdb.open(of_project.database)
        assert held.query("match_shares", dict_a=names[0], dict_b=names[1]).to_dicts() == rows
        count = held.sql("SELECT count(*) FROM feature_matches WHERE dict_a = ? AND dict_b = ?", names).rows()[0][0]
        return rows, count, replaced

    ways = (), ("--by", "activations"), ("--threshold", "0.9999")
    first = [asked(*options) for options in ways]
    assert [rows[0]["matched_by"] for rows, *_ in first] == ["decoder", "activations", "decoder"]
    assert len({json.dumps(one[0]) for one in first}) == 3
    again = asked()
    assert again[:2] == first[0][:2] and asked() == (*first[0][:2], [])
    of_decoders, of_activations = (
        "another comparison of the two, by cosine of decoders",
        "another comparison of the two, by correlation of activations",
    )
    assert all(
        said in replaced[0]
        for said, (*_, replaced) in zip((of_decoders, of_activations, of_decoders), (*first[1:], again), strict=True)
    )
    rebuild_database(of_project)
    last = cltdb.open(of_project.database).query("match_shares", dict_a=names[0], dict_b=names[1]).to_dicts()
    assert last == first[0][0]
    export(of_project.database, project / "exported")
    assert check(of_project.database) == check(project / "exported") == []
    with connect(of_project.database, write=True) as connection:
        connection.execute("DELETE FROM feature_matches WHERE rowid IN (SELECT min(rowid) FROM feature_matches GROUP BY layer_a)")
        connection.execute("UPDATE dictionary_matches SET share_b_low = share_b_low / 2")
    said = " ".join(check(of_project.database))
    assert "as many features of a in feature_matches as n_a says" in said and "expected Wilson's interval of share_b" in said


def test_how_dictionaries_are_compared_is_not_swept(project):
    with pytest.raises(CltdbError, match=r"sweep.match.by: found comparisons in several ways"):
        points_of(project, "match={against: wide}", "sweep={match.by: [decoder, activations]}")
    assert len(points_of(project, "sweep={match.against: [wide, permuted]}")) == 2


def test_what_cannot_be_compared_is_refused(project):
    with pytest.raises(CltdbError, match=r"match.against .*found its own name; expected another experiment than this one"):
        points_of(project, "match={against: pair}")
    [loaded] = points_of(project, "match={against: narrow}")
    with pytest.raises(CltdbError, match="found dictionaries of widths 8 and 16"):
        made(loaded)
    [loaded] = points_of(project, "match={against: nowhere}")
    with pytest.raises(CltdbError, match="match.against: found 'nowhere'; expected a dict_id of this workspace"):
        plan(loaded)
    for section in ("{against: wide, across: seed}", "{by: activations, correlation: false}"):
        with pytest.raises(CltdbError, match="match"):
            points_of(project, f"match={section}")
