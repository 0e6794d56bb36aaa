"""The whole pipeline on the toy world, small: killed in every stage, run again, changed, rebuilt; the database always ends the
same."""

import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import stored_units
import torch
from command_line import in_one_form, kill_when
from damage import cut, flip, forget, rot
from explain.http_model import Server, fitting
from worlds import projects
from worlds.tables import contents

import cltdb
from cltdb.__main__ import main
from cltdb.database.artifacts import rebuild_database
from cltdb.database.check import check
from cltdb.database.load import load_artifact
from cltdb.engine import run as runner
from cltdb.engine.closing import headlines
from cltdb.engine.plan import plan
from cltdb.engine.units import SCORES, used_by
from cltdb.engine.upkeep import collect_garbage, damage
from cltdb.engine.workspace import INTERVENTIONS, Workspace
from cltdb.errors import CltdbError
from cltdb.spec import load
from cltdb.stages import STAGES

SPEC = """
name: small
model: {id: toyworld}
activations:
  {text: [{toyworld: true, label_column: language}], context: 32, train_tokens: 8_000, heldout_tokens: 2_000, shard_tokens: 2_048, batch_seqs: 8}
train: {n_features: 24, l0: 3, batch_tokens: 256, init_l0: 6, checkpoint_every_steps: 10}
harvest: {tokens: 8_000, top: 8, per_quantile: 6, window: 16, pool_windows: 800}
attribute:
  prompts: [{text: "The capital of France is"}, {text: "The capital of Spain is"}]
  check_edges: 20
"""
UNITS = {
    "activations": "train-00001.arrow",
    "train": "checkpoints/*/state.json",
    "harvest": "parts/*.safetensors",
    "explain": None,
    "attribute": "tables/edges/*.parquet",
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder of a project whose spec ran once, without a kill."""
    folder = projects.new(tmp_path_factory.mktemp("uninterrupted"), SPEC)
    runner.run(load(folder / "small.yaml"))
    return folder


def statuses(folder):
    return set(cltdb.open(folder / "cltdb.duckdb").sql("SELECT status FROM stage_runs")["status"])


@pytest.mark.slow
def test_killed_in_every_stage_the_database_ends_the_same(uninterrupted, tmp_path):
    folder = projects.new(tmp_path, SPEC)
    for stage, unit in UNITS.items():
        has_score = partial(stored_units.keys, folder / "artifacts", SCORES)
        kill_when(f"{stage}/*.partial/{unit}" if unit else has_score, folder, "run", "small.yaml")
        assert list((folder / "artifacts" / stage).glob("*.partial")), f"{stage} ended before the kill"
    assert {result.action for result in runner.run(load(folder / "small.yaml"))} == {"cached", "run"}
    assert statuses(folder) == {"done", "killed"}
    killed, whole = contents(folder / "cltdb.duckdb"), contents(uninterrupted / "cltdb.duckdb")
    for table in whole:
        assert killed[table] == whole[table], table
    assert (
        min(len(whole[table]) for table in ("windows", "explanations", "scores", "metrics", "edges", "intervention_effects")) > 20
    )


def test_a_second_run_computes_nothing_and_a_changed_key_reruns_what_depends_on_it(uninterrupted):
    assert {result.action for result in runner.run(load(uninterrupted / "small.yaml"))} == {"cached"}
    planned = plan(load(uninterrupted / "small.yaml", overrides=["explain.scorers=[detection]"]))
    explanations = cltdb.open(uninterrupted / "cltdb.duckdb").sql("SELECT status FROM explanations WHERE explainer = 'rules'")
    n_explained, n_scored = len(explanations), len(explanations.filter(status="ok"))
    assert {item.stage: item.reason for item in planned if item.action == "run"} == {
        "explain": f"changed: explain.scorers; {n_explained} explanations, {n_scored} scores by detection of this harvest are there",
        "database": "changed: input explain",
    }


def found_by(results):
    return headlines(STAGES, {result.stage: result.directory for result in results})


def test_a_run_ends_with_what_it_found(uninterrupted):
    database = cltdb.open(uninterrupted / "cltdb.duckdb")
    [dict_id] = database.dictionaries()["dict_id"]
    [fvu] = [row["value"] for row in database.metrics(dict_id, stage="evaluate", name="fvu").to_dicts() if row["layer"] is None]
    results = runner.run(load(uninterrupted / "small.yaml"))
    lines, keys = found_by(results), {result.stage: result.directory.name[:8] for result in results}
    assert lines[0] == f"dictionary {dict_id}" and lines[1].startswith(f"  evaluate {keys['evaluate']}: FVU {fvu:.4f} at L0")
    fvus = {row["label"]: row["fvu"] for row in database.query("metrics_by_label").to_dicts() if row["layer"] is None}
    assert [*fvus] == [None, "de", "en", "fr"]
    assert any(line.endswith(f"FVU by label: de {fvus['de']:.4f}, en {fvus['en']:.4f}, fr {fvus['fr']:.4f}") for line in lines)
    [graphs] = [index for index, line in enumerate(lines) if line == f"  attribute {keys['attribute']}: 2 graphs"]
    assert (
        all(line.startswith("  graph ") and "replacement 0." in line for line in lines[graphs + 1 :]) and len(lines[graphs:]) == 3
    )
    rules = database.sql(
        "SELECT count(score) AS n, count(*) FILTER (score >= 0.8) AS n_good FROM scores WHERE explainer = 'rules' AND scorer = 'detection'"
    ).to_dicts()[0]
    said = f"  explain {keys['explain']}: detection of rules: {rules['n_good']} of {rules['n']} features scored at 0.8 or more"
    assert any(line.startswith(said) and "shuffled" in line for line in lines)


def test_a_stored_graph_pruned_as_the_spec_says_is_what_was_kept(uninterrupted):
    database = cltdb.open(uninterrupted / "cltdb.duckdb")
    for graph in database.graphs().iter_rows(named=True):
        nodes, edges = database.graph_nodes(graph["graph_id"]), database.graph_edges(graph["graph_id"])
        found = database.subgraph(graph["graph_id"])
        assert found.nodes["node_id"].to_list() == nodes.filter("kept")["node_id"].to_list()
        ends = lambda frame: set(frame.select("source_id", "target_id").rows())  # noqa: E731
        assert ends(found.edges) == ends(edges.filter("kept"))
        assert found.scores.replacement == pytest.approx(graph["pruned_replacement_score"], abs=1e-4)
        assert found.scores.completeness == pytest.approx(graph["pruned_completeness_score"], abs=1e-4)
    with pytest.raises(CltdbError, match="no graph 'gone'"):
        database.subgraph("gone")


def test_an_intervention_is_stored_with_what_the_graph_predicts(uninterrupted, monkeypatch, capsys):
    """By place, and by the name of a supernode; asked again it is the same row."""
    monkeypatch.chdir(uninterrupted)
    database = cltdb.open("cltdb.duckdb")
    [graph] = database.graphs().filter(prompt="The capital of France is").to_dicts()
    nodes = database.graph_nodes(graph["graph_id"]).filter(kind="feature").sort("influence", descending=True).head(2)
    place, *_ = ("{layer}:{feature}@{position}".format(**node) for node in nodes.to_dicts())
    row = {
        "supernode_id": "s1",
        "graph_id": graph["graph_id"],
        "name": "capital = a city",
        "node_ids": nodes["node_id"].to_list(),
    }
    frame = pl.DataFrame([row], schema_overrides={"node_ids": pl.List(pl.Int32)})
    directory = Workspace("artifacts").store(INTERVENTIONS, "s", {"supernodes": frame}, part="s1", about={"version": 1})
    load_artifact("cltdb.duckdb", key="s", directory=directory)
    for command in (
        ["--prompt", graph["prompt"], "--feature", f"{place}=0"],
        ["--graph", graph["graph_id"], "--supernode", "capital = a city=x-1", "--mode", "iterative", "--generate", "2"],
    ):
        ids = set()
        for _ in range(2):
            assert main(["intervene", "small.yaml", "--json", *command]) == 0
            outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
            ids.add(outcome["intervention_id"])
        [intervention_id] = ids
        effects = database.sql("SELECT * FROM intervention_effects WHERE intervention_id = ?", [intervention_id])
        shown = {row["token"]: row["predicted"] for row in outcome["logits"]}
        assert {row["token"]: row["predicted"] for row in effects.filter(kind="logit").to_dicts()} == shown
        assert None not in shown.values()
    assert outcome["with"].split() and len(outcome["without"].split()) == 2
    drawn = [
        "--prompt",
        graph["prompt"],
        "--feature",
        place.split("@")[0] + "@2:=x1.5",
        "--mode",
        "frozen_attention",
        "--generate",
        "3",
    ]
    texts = []
    for seed in (7, 7, 8):
        options = ["--no-prediction", "--temperature", "5", "--top-k", "40", "--seed", str(seed)]
        assert main(["intervene", "small.yaml", "--json", *drawn, *options]) == 0
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        texts.append((said["without"], said["with"]))
        assert said["mode"] == "frozen_attention" and said["sampling"] == {"temperature": 5.0, "top_k": 40, "seed": seed}
    assert texts[0] == texts[1] != texts[2]
    last = database.sql("SELECT settings FROM interventions WHERE intervention_id = ?", [said["intervention_id"]]).to_dicts()
    assert [one["position"] for one in last[0]["settings"]] == list(range(2, len(graph["tokens"])))
    [stored] = database.sql("SELECT * FROM interventions WHERE intervention_id = ?", [intervention_id]).to_dicts()
    assert stored["graph_id"] == graph["graph_id"] and [one["operation"] for one in stored["settings"]] == ["scale", "scale"]
    assert check("cltdb.duckdb") == []


def test_features_on_a_text_are_those_of_its_graph(uninterrupted, monkeypatch, capsys):
    monkeypatch.chdir(uninterrupted)
    database = cltdb.open("cltdb.duckdb")
    [graph] = database.graphs().filter(prompt="The capital of France is").to_dicts()
    nodes = database.graph_nodes(graph["graph_id"]).filter(kind="feature")
    layer, feature = nodes.select("layer", "feature").row(0)
    text = ["encode", "small.yaml", "--text", graph["prompt"]]
    assert main([*text, "--json", "--feature", f"{layer}:{feature}"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["dict_id"] == graph["dict_id"] and found["tokens"] == graph["tokens"] and found["ordinary"][0] is False
    [one], known = found["features"], nodes.filter(layer=layer, feature=feature)
    assert one["activations"][0] is None and sum(value > 0 for value in one["activations"][1:]) == known.height
    for row in known.to_dicts():
        assert one["activations"][row["position"]] == pytest.approx(row["activation"], abs=1e-4)
    assert main([*text, "--top", "2"]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first.split() == ["position", "token", "strongest", "features"] and len(lines) == len(graph["tokens"]) - 1


def test_a_graph_of_chosen_targets_from_the_command_line(uninterrupted, monkeypatch, capsys):
    monkeypatch.chdir(uninterrupted)
    command = ["attribute", "small.yaml", "--json", "--prompt", "The capital of Spain is", "--position", "-1"]
    rows = {}
    for name, options in {
        "foil": ["--target", "Paris", "--foil", "Madrid"],
        "weights": ["--target", "Paris", "--target", "Madrid", "--weight", "1", "--weight", "3"],
    }.items():
        assert main([*command, *options]) == 0
        rows[name] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (rows["foil"]["target"], rows["foil"]["foil"]) == ("Paris", "Madrid")
    assert rows["weights"]["target"] == "Paris (weight 1), Madrid (weight 3)"
    database = cltdb.open("cltdb.duckdb")
    foil, weights = (database.query("graph_nodes", graph_id=row["graph_id"]).filter(kind="logit") for row in rows.values())
    assert weights["string"].str.strip_chars().to_list() == ["Madrid", "Paris"] and weights["probability"].to_list() == [
        0.75,
        0.25,
    ]
    lm = cltdb.load_model("toyworld")
    logits = lm.logits(torch.tensor([lm.prompt_tokens("The capital of Spain is")]))[0, -1]
    expected = float(logits[weights["token"][1]] - logits[weights["token"][0]])
    assert foil["pre_activation"].to_list() == pytest.approx([expected], abs=1e-4)


def test_the_strongest_paths_are_printed_where_the_spec_asks_for_them(uninterrupted, monkeypatch, capsys):
    monkeypatch.chdir(uninterrupted)
    command = [
        "attribute",
        "small.yaml",
        "--prompt",
        "The capital of Spain is",
        "--target",
        "Paris",
        "--set",
        "attribute.paths.n=12",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    graph_id = out[-1].split("graph_id=")[1]
    rows = cltdb.open("cltdb.duckdb").query("input_paths", graph_id=graph_id).to_dicts()
    assert len(rows) == 12 and f"the 12 stored have {rows[-1]['covered']:.1%} of" in out[-13]
    assert [line.split(maxsplit=2) for line in out[-11:-1]] == [
        [f"{row['weight']:+.4f}", f"{row['share']:.1%}", row["path"]] for row in rows[:10]
    ]
    routes = cltdb.open("cltdb.duckdb").query("path_routes", graph_id=graph_id, path_id=0)
    assert routes["step"].max() + 1 == rows[0]["n_edges"] and routes["source"][0] == rows[0]["path"].split(" →")[0]


@pytest.mark.parametrize(
    "command,said",
    [
        (["--prompt", "x", "--graph", "g", "--feature", "0:1@1=0"], "found both of --prompt and --graph"),
        (["--prompt", "x"], "nothing to set"),
        (["--prompt", "x", "--supernode", "a=0"], "no --graph"),
        (["--graph", "gone", "--feature", "0:1@1=0"], "'gone'"),
        (["--prompt", "The capital", "--feature", "0:1@1=0", "--until-layer", "1", "--mode", "free"], "mode free"),
        (["--prompt", "The capital", "--feature", "0:1@1=0", "--until-layer", "9"], "until_layer: found 9"),
        (["--prompt", "The capital", "--feature", "0:1@2:1=0"], "--feature position: found 2:1"),
        (["--prompt", "The capital", "--feature", "0:1@1=0", "--seed", "3"], "--seed: found no --generate"),
        (
            ["--prompt", "The capital", "--feature", "0:1@1=0", "--generate", "2", "--temperature", "-1"],
            "--temperature: found -1",
        ),
    ],
)
def test_a_bad_intervention_is_one_error(uninterrupted, monkeypatch, capsys, command, said):
    monkeypatch.chdir(uninterrupted)
    assert main(["intervene", "small.yaml", *command]) == 1
    assert said in in_one_form(capsys.readouterr().err)


def test_a_forced_stage_and_a_rebuild_give_the_same_database(uninterrupted):
    before = contents(uninterrupted / "cltdb.duckdb")
    results = runner.run(load(uninterrupted / "small.yaml"), force=["explain"])
    assert [result.stage for result in results if result.action == "run"] == ["explain", "database"]
    assert contents(uninterrupted / "cltdb.duckdb") == before
    results = runner.run(load(uninterrupted / "small.yaml"), force=["evaluate"], only="evaluate")
    assert [result.action for result in results] == ["run"] and contents(uninterrupted / "cltdb.duckdb") == before
    rebuild_database(load(uninterrupted / "small.yaml").project)
    assert contents(uninterrupted / "cltdb.duckdb") == before


def test_a_stage_forced_by_another_experiment_keeps_what_others_know_it_by(uninterrupted):
    """Two experiments that differ in their name alone share every artifact; the dictionary's id stays that of the first."""
    (uninterrupted / "other.yaml").write_text(SPEC.replace("name: small", "name: other"))
    runner.run(load(uninterrupted / "other.yaml"), force=["train"])
    database = cltdb.open(uninterrupted / "cltdb.duckdb")
    assert set(database.dictionaries()["dict_id"]) == set(database.sql("SELECT DISTINCT dict_id FROM features")["dict_id"])
    assert check(uninterrupted / "cltdb.duckdb") == []


# Units that artifacts share (cltdb.engine.units).


def stage_of(results, name):
    return next(result for result in results if result.stage == name)


@pytest.fixture
def made(monkeypatch):
    """{"graphs", "scores": how many are made from now on}."""
    from cltdb.attribution import graph
    from cltdb.explain.scorers import detection, fuzzing

    counts = {"graphs": 0, "scores": 0}

    def counting(module, name, of):
        make = getattr(module, name)

        def count(*args, **options):
            counts[of] += 1
            return make(*args, **options)

        monkeypatch.setattr(module, name, count)

    counting(graph, "attribute", "graphs")
    counting(fuzzing, "trial", "scores")
    counting(detection, "trial", "scores")
    return counts


def reasons(spec, *overrides):
    return {item.stage: item.reason for item in plan(load(spec, overrides=overrides)) if item.action == "run"}


def test_one_more_prompt_and_another_limit_make_only_what_is_new(uninterrupted, unproved, made):
    """And a rebuilt database is the same, and what nothing refers to any more is found by gc."""
    spec = uninterrupted / "small.yaml"
    more = 'attribute.prompts=[{id: mine, text: "The capital of Spain is"}, {text: "The capital of Italy is"}]'
    planned = reasons(spec, more)
    assert planned == {
        "attribute": "changed: attribute.prompts; 1 of 2 graphs are there",
        "database": "changed: input attribute",
    }
    results = runner.run(load(spec, overrides=[more]))
    assert made == {"graphs": 1, "scores": 0}
    graphs = pl.read_parquet(stage_of(results, "attribute").directory / "tables/graphs/*.parquet")
    database = cltdb.open(uninterrupted / "cltdb.duckdb")
    earlier = pl.read_parquet(stage_of(runner.run(load(spec)), "attribute").directory / "tables/graphs/*.parquet")
    [first] = earlier.filter(prompt="The capital of Spain is")["graph_id"]
    [mine] = graphs.filter(prompt_id="mine")["graph_id"]
    assert mine == f"mine-{first[-8:]}"
    for table in ("nodes", "edges"):
        rows = [
            database.sql(f"SELECT * EXCLUDE (graph_id, artifact_key) FROM {table} WHERE graph_id = ? ORDER BY ALL", [one])
            for one in (mine, first)
        ]
        assert rows[0].equals(rows[1])
    before = contents(uninterrupted / "cltdb.duckdb", leave_out=("stage_runs", "loaded_parts"))
    rebuild_database(load(spec).project)
    assert contents(uninterrupted / "cltdb.duckdb", leave_out=("stage_runs", "loaded_parts")) == before
    limited = "explain.features={top_by: density, limit: 5}"
    assert "explanations" in reasons(spec, limited)["explain"]
    runner.run(load(spec, overrides=[limited]))  # the database too: later tests compare it with all artifacts
    assert made == {"graphs": 1, "scores": 0}


def test_closing_lines_speak_of_their_own_run_and_a_language_model_is_paid_once(uninterrupted, monkeypatch):
    """The rules' explanations and two graphs of the first run are in the database too."""
    server = Server(lambda n, body: fitting(body))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", server.address)
    spec = uninterrupted / "small.yaml"
    first = cltdb.open(uninterrupted / "cltdb.duckdb").sql(
        "SELECT status FROM explanations WHERE explainer = 'rules' ORDER BY layer, feature"
    )
    one, two = [place + 1 for place, status in enumerate(first["status"]) if status == "ok"][:2]
    asked, few = [], ["explain.model=openai/m", "attribute.prompts=[{id: mine, text: The capital of Spain is}]"]
    for scorers, limit in (("[detection]", one), ("[detection, fuzzing]", one), ("[detection, fuzzing]", two)):
        settings = [*few, f"explain.scorers={scorers}", f"explain.features={{top_by: layer, limit: {limit}}}"]
        before = len(server.bodies)
        results = runner.run(load(spec, overrides=settings))
        asked.append(len(server.bodies) - before)
    lines = found_by(results)
    server.close()
    assert len({json.dumps(body) for body in server.bodies}) == len(server.bodies) and min(asked) > 0
    key = stage_of(results, "explain").directory.name[:8]
    told = [line for line in lines if line.startswith("  explain ")]
    assert told[0].startswith(f"  explain {key}: {two} of ") and "live features by llm (openai/m), side input: 2 ok" in told[0]
    assert [line.split(": ")[1] for line in told[1:]] == ["detection of llm", "fuzzing of llm", "requests"]
    assert " of 2 features scored" in told[1] and "10 ok; new cost $0.0000 and that of" in told[3]
    assert [line.split(":")[0] for line in lines if line.startswith("  graph ")] == [f"  graph {graph_of(results)}"]


def graph_of(results):
    [path] = (stage_of(results, "attribute").directory / "tables/graphs").iterdir()
    return path.stem


def test_what_is_forced_is_made_again_and_garbage_goes(uninterrupted, made):
    spec, project = uninterrupted / "small.yaml", load(uninterrupted / "small.yaml").project
    before = contents(uninterrupted / "cltdb.duckdb")
    key = stage_of(runner.run(load(spec), force=["attribute"]), "attribute").directory.name
    assert made == {"graphs": 2, "scores": 0} and contents(uninterrupted / "cltdb.duckdb") == before
    assert collect_garbage(project, STAGES, delete=False) == ([], ([], {}))
    workspace = Workspace(project.workspace)
    for path in (workspace.root / "runs").glob("*-attribute-*.json"):
        if json.loads(path.read_text())["key"] != key:
            path.unlink()
    unwanted, unused = collect_garbage(project, STAGES, delete=False)
    assert {directory.parent.name for directory in unwanted} == {"attribute"}
    kept = used_by(workspace.artifact("attribute", key))
    assert {f"graphs/{path.name}" for path in unused.folders} == set().union(*map(used_by, unwanted)) - kept != set()
    assert collect_garbage(project, STAGES, delete=True) == (unwanted, unused)
    assert {f"graphs/{path.name}" for path in (workspace.root / "units/graphs").iterdir()} == kept - {""}
    assert collect_garbage(project, STAGES, delete=False) == ([], ([], {}))


@pytest.mark.parametrize("unit", ["units/graphs/*/nodes.parquet", "units/graphs/*/unit.json"])
def test_a_damaged_unit_is_found_by_a_check(uninterrupted, unit):
    project = load(uninterrupted / "small.yaml").project
    assert list(damage(project, STAGES)) == []
    path = sorted(project.workspace.glob(unit))[0]
    whole = path.read_bytes()
    aside = path.with_name("." + path.name)
    aside.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    os.replace(path, path.with_name(".whole"))
    os.replace(aside, path)
    [error] = damage(project, STAGES)
    os.replace(path.with_name(".whole"), path)
    assert str(path.parent) in str(error) and "remove it" in str(error) and list(damage(project, STAGES)) == []


# Damage of finished files: said in one line, and what the line says mends it.

USES = {"model": "evaluate", "activations": "train", "train": "evaluate", "harvest": "explain"}
"""Whose stage reads the files of which, apart from those of the database."""
UNREAD = ("heldout-", "replies", "summary.json", "loaded.json")
"""Files that no later stage reads."""


@pytest.fixture(scope="module")
def settled(uninterrupted, tmp_path_factory):
    """A copy of the project with the artifacts of its spec alone, all of them in the database, and the content of that."""
    folder = Path(shutil.copytree(uninterrupted, tmp_path_factory.mktemp("settled") / "project"))
    loaded = load(folder / "small.yaml")
    runner.run(loaded)
    wanted = {(item.stage, item.key) for item in plan(loaded)}
    for stage, key, directory in Workspace(folder / "artifacts").artifacts():
        if stage in STAGES and (stage, key) not in wanted:
            shutil.rmtree(directory)
    loaded.project.database.unlink()  # which a rebuild would keep, as it has rows of these
    rebuild_database(loaded.project)
    return folder, contents(folder / "cltdb.duckdb")


@pytest.fixture
def copied(settled, tmp_path, monkeypatch):
    """A copy of the finished project, to spoil, and the content of its database."""
    folder = Path(shutil.copytree(settled[0], tmp_path / "copied"))
    monkeypatch.chdir(folder)
    forget()
    return folder, settled[1]


def use_of(path):
    """The command that reads a file of an artifact again; None where there is none."""
    stage = path.parts[path.parts.index("artifacts") + 1]
    if "tables" in path.parts:
        return ["db", "rebuild"]
    return (
        None if stage not in USES or any(word in str(path) for word in UNREAD) else ["run", "small.yaml", "--force", USES[stage]]
    )


def said_of(path, capsys):
    """The one error line, which names the file."""
    error = in_one_form(capsys.readouterr().err)
    assert str(path) in error, error
    return error


def is_said(path, damage, capsys, database, before):
    """That damage of a file is found by every command that meets it, and changes no row; the file is left damaged. Returns the line."""
    damage(path)
    forget()
    assert main(["db", "check", "--artifacts"]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if str(path) in line]
    if damage in (cut, os.remove) and path.relative_to(database.parent / "artifacts").parts[0] not in ("activations", "database"):
        forget()
        assert main(["db", "check"]) == 1 and capsys.readouterr().out == f"{line}\n"  # as its size tells, or that it is gone
    for command in (["run", "small.yaml"], use_of(path)):
        forget()
        unseen = damage is rot or damage is flip and path.suffix == ".arrow"  # a shard is compared by its reader alone
        if command and not (unseen and command[-1] == "small.yaml"):  # that nothing reads it is no harm
            assert main(command) == 1, command
            assert "--force" in said_of(path, capsys) or path.name == "manifest.json"
    assert contents(database) == before
    return line


def mends(line, capsys, database, before):
    """That what a line says, and another run, bring everything back."""
    [stage] = re.findall(r"`cltdb run SPEC --force (\w+)`", line)
    forget()
    for command in (["run", "small.yaml", "--force", stage], ["run", "small.yaml"], ["db", "check", "--artifacts"]):
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert contents(database) == before
    capsys.readouterr()


@pytest.mark.parametrize(
    "pattern,damage",
    [
        ("model/*/model.json", flip),
        ("activations/*/cache.json", flip),
        ("train/*/dictionary.safetensors", rot),
        ("train/*/dictionary.json", os.remove),
        ("evaluate/*/manifest.json", flip),
        ("harvest/*/pool.parquet", rot),
        ("harvest/*/tables/windows/*.parquet", rot),
        ("attribute/*/tables/edges/*.parquet", cut),
    ],
)
def test_damage_is_one_line_and_changes_no_row(copied, pattern, damage, capsys):
    folder, before = copied
    path = sorted((folder / "artifacts").glob(pattern))[0]
    is_said(path, damage, capsys, folder / "cltdb.duckdb", before)


@pytest.mark.slow
def test_damage_is_mended_by_what_its_line_says(copied, capsys):
    folder, before = copied
    line = is_said(
        next(folder.glob("artifacts/evaluate/*/tables/metrics/*.parquet")), flip, capsys, folder / "cltdb.duckdb", before
    )
    mends(line, capsys, folder / "cltdb.duckdb", before)


def kinds(folder):
    """One file of every kind in a finished workspace: kinds differ in more than digits of their names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found.setdefault(re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "", str(path.relative_to(folder))), path)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["model", "activations", "train", "evaluate", "harvest", "explain", "attribute", "database"])
def test_damage_of_every_kind_of_file_is_said_and_mended(copied, stage, capsys):
    folder, before = copied
    database, line = folder / "cltdb.duckdb", None
    shutil.copytree(folder, folder.parent / "whole")
    for path in kinds(folder / "artifacts" / stage):
        whole, times = path.read_bytes(), path.stat()
        for spoil in (flip, cut, rot, os.remove):
            if (spoil, path.name) != (os.remove, "manifest.json"):
                line = is_said(path, spoil, capsys, database, before)
                path.write_bytes(whole)
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        flip(path)
        mends(line, capsys, database, before)
        assert main(["db", "rebuild"]) == 0 and contents(database) == before
        shutil.rmtree(folder)
        shutil.copytree(folder.parent / "whole", folder)
        os.chdir(folder)


@pytest.mark.parametrize(
    "stage", ["evaluate", *(pytest.param(name, marks=pytest.mark.slow) for name in (*USES, "explain", "attribute"))]
)
def test_a_lost_manifest_heals_by_running_again(copied, unproved, stage, capsys):
    """Also by another experiment that shares the artifact: what others know it by stays, and so does the database, rebuilt or not."""
    folder, before = copied
    next(folder.glob(f"artifacts/{stage}/*/manifest.json")).unlink()
    (folder / "third.yaml").write_text(SPEC.replace("name: small", "name: third"))
    assert main(["db", "check", "--artifacts"]) == 1 and f"stage {stage}): found no manifest.json" in capsys.readouterr().out
    assert main(["run", "third.yaml"]) == 0 and main(["db", "check", "--artifacts"]) == 0
    before = before | {"experiments": None}
    for command in ([], ["db", "rebuild"]):
        assert not command or main(command) == 0
        assert contents(folder / "cltdb.duckdb") | {"experiments": None} == before


def test_a_lost_artifact_costs_no_rows(copied, unproved, capsys):
    """Its rows, and that a run made it, are known: a database that is made anew without them does not take the place of one that has them."""
    folder, before = copied
    [place] = folder.glob("artifacts/evaluate/*/manifest.json")
    elsewhere = place.parent.rename(place.parent.with_name("0" * 16))
    for command in (["db", "check"], ["db", "check", "--full"], ["db", "rebuild"]):
        assert main(command) == 1
        said = "".join(capsys.readouterr())
        assert f"{place.parent} (stage evaluate): found no finished artifact there, while the database has its rows" in said
        assert ("--full" in command) == (f"{elsewhere}: found the artifact evaluate/{place.parent.name}" in said)
    assert contents(folder / "cltdb.duckdb") == before
    (folder / "cltdb.duckdb").rename(folder / "moved.duckdb")
    assert main(["db", "rebuild"]) == 0
    elsewhere.rename(place.parent)
    assert main(["db", "rebuild"]) == 0 and contents(folder / "cltdb.duckdb") == before


@pytest.mark.parametrize("damage", [flip, *(pytest.param(other, marks=pytest.mark.slow) for other in (cut, os.remove))])
def test_damaged_records_stop_nothing(copied, damage, capsys):
    """They are set aside, `gc` still knows which artifacts they are of, a run writes them anew."""
    folder, before = copied
    kinds = ("runs/*-evaluate-*", f"experiments/small-{load('small.yaml').spec_hash}")
    lost = [path for kind in kinds for path in (folder / "artifacts").glob(f"{kind}.json")]
    for path in lost:
        damage(path)
    for options in ([], ["--artifacts"]) if damage is not os.remove else ():
        assert main(["db", "check", *options]) == 1
        printed = capsys.readouterr().out
        assert all(f"{path} (a record of a run)" in printed and path.is_file() for path in lost)
    for command in (["status"], ["plan", "small.yaml"], ["gc"], ["run", "small.yaml"], ["db", "rebuild"]):
        assert main(command) == 0, (command, capsys.readouterr().err)
        printed = capsys.readouterr()
        assert command != ["gc"] or damage is os.remove or "0 artifacts" in printed.out
    aside = {path.name for path in Workspace(folder / "artifacts").damaged_records()}
    assert aside == (set() if damage is os.remove else {f"{path.name}.damaged" for path in lost}) and lost
    assert contents(folder / "cltdb.duckdb") == before  # and sound, as a rebuild checks


def test_a_damaged_database_is_said_by_every_reader_and_rebuilt_as_it_was(copied, unproved, capsys):
    """Also what no run brings: imports, interventions, other experiments."""
    folder, before = copied
    database = folder / "cltdb.duckdb"
    whole = database.read_bytes()
    flipped = bytearray(whole)
    for place in range(50, len(whole), 5_000):
        flipped[place] ^= 1
    for damaged in (whole[:-300_000], b"", flipped):
        database.write_bytes(damaged)
        n_said = 0
        for command in (["run", "small.yaml"], ["sql", "SELECT * FROM edges"], ["search", "a"], ["db", "check", "--artifacts"]):
            if main(command):  # else no damaged block was read
                assert "do this: run `cltdb db rebuild`" in said_of(database, capsys), command
                n_said += 1
            capsys.readouterr()
        assert n_said == 4 or damaged == whole[:-300_000] and n_said
    assert main(["db", "rebuild"]) == 0
    assert main(["run", "small.yaml"]) == 0 and contents(database) == before


def test_a_database_that_is_gone_is_made_anew_by_a_run(copied):
    folder, before = copied
    (folder / "cltdb.duckdb").unlink()
    assert main(["run", "small.yaml"]) == 0 and contents(folder / "cltdb.duckdb") == before


def test_a_database_and_an_artifact_may_be_damaged_together(copied, capsys):
    """Each line leads on: the rebuilt database lacks the damaged artifact until it is made again."""
    folder, before = copied
    database, path = folder / "cltdb.duckdb", next(folder.glob("artifacts/evaluate/*/tables/metrics/*.parquet"))
    flip(path)
    assert main(["db", "rebuild"]) == 1 and "--force evaluate" in said_of(path, capsys)
    assert contents(database) == before  # the old one stays while it is whole
    data = bytearray(database.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    database.write_bytes(data)
    assert main(["db", "rebuild"]) == 1 and "--force evaluate" in said_of(path, capsys)
    assert main(["run", "small.yaml", "--force", "evaluate"]) == 0
    assert contents(database) == before
