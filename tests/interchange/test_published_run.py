"""An experiment that starts from a published dictionary instead of training one."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from command_line import in_one_form
from safetensors.torch import load_file, save_file
from worlds import dictionaries, models, projects
from worlds.shared import made_once

import cltdb
from cltdb.__main__ import main
from cltdb.engine import run as runner
from cltdb.engine.plan import plan
from cltdb.engine.workspace import read_parquet
from cltdb.errors import CltdbError, SpecError
from cltdb.harvest.contexts import Contexts
from cltdb.interchange import load_published, local_copy, save_published
from cltdb.spec import load


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = made_once(tmp_path_factory, "published [1]", projects.with_published)  # no path is a glob, in any stage
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("published") / "p [1]"))


def test_all_later_stages_work_on_it(project):
    database = cltdb.open(project / "cltdb.duckdb")
    [dict_id] = database.dictionaries()["dict_id"]
    assert dict_id.startswith("published-clt-")
    fvu = database.metrics(dict_id, stage="evaluate", name="fvu")
    assert len(fvu) == 3 and fvu["value"].is_finite().all()
    counts = {
        table: database.sql(f"SELECT count(*) FROM {table}").item() for table in ("features", "contexts", "scores", "edges")
    }
    assert counts["features"] == 24 and all(counts.values())
    assert database.sql("SELECT DISTINCT model_id FROM dictionaries").item() == "model"
    wrong = database.sql("SELECT count(*) FROM edges WHERE abs(weight - measured) > 1e-4").item()
    assert wrong == 0 and database.sql("SELECT count(measured) FROM edges").item() == 20
    assert not (project / "artifacts/activations").exists(), "activations that nothing reads"


def test_a_second_run_does_nothing_and_other_files_are_another_dictionary(project):
    loaded = load(project / "published.yaml")
    assert {result.action for result in runner.run(loaded)} == {"cached"}
    path = project / "theirs/W_enc_0.safetensors"
    before = path.read_bytes()
    tensors = load_file(path)
    save_file({name: 2 * value for name, value in tensors.items()}, path)
    found = {item.stage: (item.action, item.reason) for item in plan(loaded)}
    assert found["train"] == ("run", "changed: files") and found["activations"][0] == "cached"
    path.write_bytes(before)


def test_what_hook_normalized_means_is_said_in_the_spec_or_the_run_stops(project):
    """The model is a GPT-2, the dictionary random: no text tells which of the two meanings is right."""
    folder = project / "old"
    d = dictionaries.random(dtype=torch.float32, info={"mlp_input": "normed", "input_hook": "ln2.hook_normalized"})
    save_published(d, "circuit-tracer", folder)
    overrides = ["train.from.path=old"]
    with pytest.raises(CltdbError, match="does not tell which is meant.* say hook_normalized: after or before under train.from"):
        runner.run(load(project / "published.yaml", overrides=overrides), until="train")
    encoders = {}
    for meaning in ("after", "before"):
        overrides = ["train.from.path=old", f"train.from.hook_normalized={meaning}"]
        results = runner.run(load(project / "published.yaml", overrides=overrides), until="train")
        read = cltdb.load_dictionary(next(result.directory for result in results if result.stage == "train"))
        assert read.info["input_hook"] == "mlp.hook_in" and read.info["from"]["hook_normalized"] == meaning
        encoders[meaning] = read.b_enc
    assert torch.equal(encoders["after"], d.b_enc)
    with pytest.raises(SpecError, match="hook_normalized"):
        load(project / "published.yaml", overrides=["train.from.hook_normalized=between"])


def test_a_top_k_set_has_k_features_active_at_every_stage(project):
    d = dictionaries.random(kind="plt", activation="topk", k=3, dtype=torch.float32, info={"mlp_input": "normed"})
    d.b_enc += 2  # more than k are positive everywhere
    save_published(d, "circuit-tracer", project / "largest")
    results = runner.run(load(project / "published.yaml", overrides=["train.from.path=largest"]), until="harvest")
    folders = {result.stage: result.directory for result in results}
    read = cltdb.load_dictionary(folders["train"])
    assert (read.activation, read.k) == ("topk", 3)
    l0 = read_parquet(*(folders["evaluate"] / "tables/metrics").glob("*.parquet")).filter(name="l0")["value"].to_list()
    assert l0 == [3.0] * 3
    density = (
        read_parquet(*(folders["harvest"] / "tables/features").glob("*.parquet")).group_by("layer").agg(pl.col("density").sum())
    )
    assert density["density"].to_list() == pytest.approx([3.0] * 2, abs=1e-6)
    assert read_parquet(*(folders["harvest"] / "tables/features").glob("*.parquet"))["threshold"].is_null().all()


def plan_of(project, *overrides):
    return {item.stage: item for item in plan(load(project / "published.yaml", overrides=overrides))}


def test_no_activations_are_needed_and_plan_says_so(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    for command in (["plan", "published.yaml"], ["run", "published.yaml", "--only", "activations", "--force", "activations"]):
        assert main(command) == 0
        assert "activations" in (out := capsys.readouterr().out) and "not needed" in out
    assert main(["plan", "published.yaml", "--json"]) == 0
    facts = {fact["stage"]: fact for fact in json.loads(capsys.readouterr().out)}
    assert facts["activations"]["action"] == "cached" and facts["activations"]["key"] is None
    assert not (project / "artifacts/activations").exists()


@pytest.mark.parametrize(
    "overrides, again",
    [
        (["activations.context=8"], {"evaluate", "harvest"}),
        (["activations.text=[{files: [other.txt]}]"], {"evaluate", "harvest"}),
        (["activations.train_tokens=3000"], {"evaluate", "harvest"}),  # other documents are held out
        (["activations.codec=float32", "activations.max_bad_documents=0.5"], set()),
        (["harvest.text=[{files: [other.txt]}]"], {"harvest"}),
        (["evaluate.text=[{files: [other.txt]}]"], {"evaluate"}),
        (["harvest.text=[{files: [text.jsonl]}]"], set()),  # what it reads anyway
        (["activations.special_tokens_in_text=true"], {"evaluate", "harvest", "attribute"}),
    ],
)
def test_the_text_of_a_published_dictionary_renames_neither_it_nor_its_graphs(project, overrides, again):
    projects.write_texts(project / "other.txt", [f"Other text, number {n}." for n in range(200)])
    before, after = plan_of(project), plan_of(project, *overrides)
    changed = {stage for stage in before if before[stage].key != after[stage].key}
    assert changed - {"explain", "database"} == again
    assert {after[stage].action for stage in ("model", "train", "activations")} == {"cached"}
    assert {stage for stage in changed if after[stage].action == "run"} == changed


def test_other_text_is_harvested_and_evaluated_without_training(project, caplog):
    words = [f"Wholly other text, number {n}, for a harvest." for n in range(100)]
    projects.write_texts(project / "rows.jsonl", ["", *words])
    text = "[{files: [rows.jsonl]}]"
    overrides = [f"harvest.text={text}", f"evaluate.text={text}", "harvest.tokens=1000", "evaluate.tokens=600"]
    results = {
        result.stage: result for result in runner.run(load(project / "published.yaml", overrides=overrides), until="harvest")
    }
    assert {stage for stage, result in results.items() if result.action == "run"} == {"evaluate", "harvest"}
    for stage in ("evaluate", "harvest"):
        noted = json.loads((results[stage].directory / "text.json").read_text())
        assert (noted["documents"], noted["left_out"]) == (101, {"empty": 1}) and noted["first"][0][
            "place"
        ] == "rows.jsonl, row 1"
    contexts, lm = Contexts(results["harvest"].directory), models.language_model()
    windows = contexts.tokens(0, len(contexts.rows), width=contexts.longest)
    seen = {lm.tokenizer.decode([token for token in tokens if token > 0]) for tokens in windows.tolist()}
    assert seen and all(any(window in text for text in words) for window in seen)
    with pytest.raises(CltdbError, match="evaluate.tokens: found .*; expected at most the"):
        runner.run(
            load(project / "published.yaml", overrides=[f"evaluate.text={text}", "evaluate.tokens=100000"]), until="evaluate"
        )
    for stage, *more in (("harvest",), ("evaluate", "activations.heldout_tokens=10_000_000")):  # of the activations' text
        with pytest.raises(CltdbError, match=f"^{stage}.tokens: found .*; expected at most the"):
            runner.run(load(project / "published.yaml", overrides=[f"{stage}.tokens=9_000_000", *more]), until=stage)
    with pytest.raises(CltdbError, match="harvest.text.files: found no file that matches gone.txt"):
        runner.run(load(project / "published.yaml", overrides=["harvest.text=[{files: [gone.txt]}]"]), until="harvest")


def test_a_dictionary_in_bfloat16_is_measured_in_float32(project):
    rough = dictionaries.random(dtype=torch.float32).to(dtype=torch.bfloat16)
    fvu = {}
    for name, d in (("bfloat16", rough), ("float32", rough.to(dtype=torch.float32))):
        save_published(d, "circuit-tracer", project / name)
        results = runner.run(load(project / "published.yaml", overrides=[f"train.from.path={name}"]), until="evaluate")
        directory = next(result.directory for result in results if result.stage == "evaluate")
        rows = read_parquet(*(directory / "tables/metrics").glob("*.parquet"))
        fvu[name] = rows.filter(pl.col("name") == "fvu")["value"].to_list()
    assert fvu["bfloat16"] == fvu["float32"] and len(fvu["float32"]) == 3


def test_a_dictionary_of_another_model_is_refused(project):
    deep = dictionaries.random(n_layers=3, dtype=torch.float32)
    save_published(deep, "circuit-tracer", project / "deep")
    with pytest.raises(CltdbError, match="3 layers of width 16; expected the 2 layers of width 16"):
        runner.run(load(project / "published.yaml", overrides=["train.from.path=deep"]))
    residual = dictionaries.random(dtype=torch.float32, info={"mlp_input": "residual"})
    save_published(residual, "circuit-tracer", project / "residual")
    with pytest.raises(CltdbError, match="reads the MLP input 'residual'"):
        runner.run(load(project / "published.yaml", overrides=["train.from.path=residual"]))
    named = dictionaries.random(dtype=torch.float32, info={"model_id": "google/gemma-2-2b"})
    save_published(named, "circuit-tracer", project / "named")
    with pytest.raises(CltdbError, match="one of the model google/gemma-2-2b; expected one of toyworld"):
        runner.run(
            load(
                project / "published.yaml",
                overrides=["train.from.path=named", "model.id=toyworld", "activations.text=[{toyworld: true}]"],
            )
        )


def test_a_run_says_which_stage_it_has_no_use_for(project, caplog):
    with caplog.at_level("INFO"):
        runner.run(load(project / "published.yaml"), until="activations")
    assert "activations  not needed: the dictionary of train.from is trained already" in caplog.text


def test_import_and_export_commands(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    [dict_id] = cltdb.open(project / "cltdb.duckdb").dictionaries()["dict_id"]
    assert main(["export", "circuit-tracer", dict_id, "-o", "again"]) == 0
    assert main(["import", "circuit-tracer", "again", "-o", "native"]) == 0
    assert "clt, 2 layers of 12 features, d_model 16" in capsys.readouterr().out
    theirs, ours = load_published("circuit-tracer", project / "theirs"), cltdb.load_dictionary(project / "native")
    assert torch.equal(theirs.W_enc, ours.W_enc) and all(map(torch.equal, theirs.W_dec, ours.W_dec))
    for command in (["export", "saelens", dict_id, "-o", "x"], ["export", "cltdb", "nobody", "-o", "x"]):
        assert main(command) == 1 and in_one_form(capsys.readouterr().err)
    for command in (["import", "saelens", "gone", "-o", "x"], ["import", "cltdb", "native", "-o", "native"]):
        assert main(command) == 1 and in_one_form(capsys.readouterr().err)


def test_what_the_spec_can_get_wrong(project):
    with pytest.raises(SpecError, match="found l0; expected no other key beside train.from"):
        load(project / "published.yaml", overrides=["train.l0=3"])
    with pytest.raises(CltdbError, match="no folder"):
        runner.run(load(project / "published.yaml", overrides=["train.from.path=gone"]))
    with pytest.raises(CltdbError, match="hf://owner/name"):
        local_copy("hf://nothing", root=project)
    with pytest.raises(SpecError, match="circuit-tracer"):
        load(project / "published.yaml", overrides=["train.from.format=gguf"])
