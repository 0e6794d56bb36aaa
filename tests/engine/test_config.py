import pytest
from command_line import ROOT
from worlds import projects

from cltdb.engine.plan import key_parts
from cltdb.errors import CltdbError
from cltdb.spec import find_project, load, load_points

MINIMAL = "name: small\nmodel: {id: toyworld}\nactivations:\n  text: [{toyworld: true}]\n"


def spec(tmp_path, text=MINIMAL, *, project="workspace: artifacts\n", overrides=()):
    path = projects.new(tmp_path, settings=project) / "small.yaml"
    path.write_text(text)
    return load(path, overrides=overrides)


SHIPPED = {path.stem: path for path in (ROOT / "experiments").glob("*.yaml")}
SHIPPED |= {path.parent.name: path for path in (ROOT / "experiments").glob("*/spec.yaml")}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_spec_that_ships_is_valid(name):
    points = load_points(SHIPPED[name])
    assert {point.sweep or point.experiment.name for point in points} == {name}


def test_defaults_project_spec_and_set_are_laid_over_each_other(tmp_path):
    loaded = spec(
        tmp_path,
        MINIMAL + "train: {l0: 5}\n",
        project="train: {l0: 4, kind: plt}\n",
        overrides=["train.n_features=64", "attribute.prompts=[{text: hi}]"],
    )
    assert (loaded.experiment.train.l0, loaded.experiment.train.kind, loaded.experiment.train.n_features) == (5, "plt", 64)
    assert loaded.project.root == tmp_path and loaded.project.database == tmp_path / "cltdb.duckdb"
    assert loaded.spec_hash != spec(tmp_path, MINIMAL).spec_hash


def test_numbers_words_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CLTDB_TEST_LABEL", "zz")
    text = (
        MINIMAL.replace("{toyworld: true}", "{toyworld: true, label: '${CLTDB_TEST_LABEL}'}")
        + "train: {learning_rate: 1e-5, n_features: 1_000}\n"
    )
    loaded = spec(tmp_path, text)
    assert loaded.experiment.train.learning_rate == 1e-5 and loaded.experiment.train.n_features == 1000
    assert loaded.experiment.activations.text[0].label == "zz" and "${CLTDB_TEST_LABEL}" in loaded.text
    loaded = spec(tmp_path, MINIMAL + 'attribute: {prompts: [{text: "$${HOME} ${CLTDB_TEST_LABEL}"}]}')
    assert loaded.experiment.attribute.prompts[0].text == "${HOME} zz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "train: {n_feature: 3}\n",
            r"train.n_feature \(.*small.yaml:5\): found unknown key 'n_feature'; expected one of .*; do this: write 'n_features'",
        ),
        (
            MINIMAL + "train: {n_features: many}\n",
            r"train.n_features \(.*small.yaml:5\): found 'many'; expected an integer from 1",
        ),
        (MINIMAL + "train: {l0: 5, l0: 6}\n", r"train.l0 \(.*:5\): found the key twice"),
        (
            MINIMAL.replace("toyworld: true", "toyworld: true, label: no"),
            r"activations.text.0.label \(.*:4\): found a bare no; .*write \"no\"",
        ),
        (MINIMAL + "seed: .nan\n", "seed .*found nan"),
        ("name: x\n", r"model \(.*\): found nothing"),
        (MINIMAL + "train: {l0: 0}\n", "expected a number from 0.001 to"),
        (MINIMAL.replace("{toyworld: true}", "{toyworld: true, files: [a]}"), "expected exactly one of dataset, files, toyworld"),
        (MINIMAL + "attribute: {prompts: [{text: ''}]}\n", "found an empty prompt; expected a prompt with some text"),
        (MINIMAL + "x: ${NOT_SET_ANYWHERE}\n", "NOT_SET_ANYWHERE"),
        ("name: [\n", "small.yaml:2: found"),
        (MINIMAL + "train: {l0: 0.001, batch_tokens: 256}\n", r"train.l0 \(.*:5\): found l0 0.001; expected at least one active"),
        (MINIMAL + "harvest: {window: 257}\n", r"harvest.window \(.*small.yaml:5\): found 257; expected at most 256"),
        (MINIMAL + "workspace: here\n", r"workspace \(.*small.yaml:5\): found unknown key .*do this: write it in cltdb.yaml"),
        (MINIMAL + "n_features: 3\n", r"n_features \(.*small.yaml:5\): .*do this: move it: train.n_features is the key"),
        (MINIMAL + "train:\n  layers: [0, '1']\n", r"train.layers.1 \(.*small.yaml:6\): found '1'; expected an integer"),
        (MINIMAL + "evaluate: {Tokens: 3}\n", r"evaluate.Tokens \(.*:5\): .*do this: write 'tokens'"),
        ("name: x\nmodel: {Id: toyworld}\n", r"model.Id \(.*small.yaml:2\): found unknown key 'Id'; .*do this: write 'id'"),
        (MINIMAL + "train: {From: {format: cltdb, path: x}}\n", r"train.From \(.*:5\): .*do this: write 'from'"),
        (MINIMAL + "train: {from: {Format: cltdb, path: x}}\n", r"train.from.Format \(.*:5\): .*do this: write 'format'"),
        (MINIMAL + "attribute: {prompts: {files: x}}\n", r"attribute.prompts.files \(.*:5\): .*do this: write 'file'"),
        (MINIMAL + "attribute: {prompts: [{text: a, target: [b, 3]}]}\n", r"attribute.prompts.0.target.1 \(.*:5\): found 3"),
        (
            MINIMAL + "attribute: {prompts: [{messages: [{role: 3, content: a}]}]}\n",
            r"prompts.0.messages.0.role \(.*:5\): found 3",
        ),
        ("- a\n", "found a list"),
        (
            MINIMAL + "train: !!python/object/apply:os.system [echo]\n",
            "found the tag tag:yaml.org,2002:python/object/apply:os.system; expected plain values",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, text, message):
    with pytest.raises(CltdbError, match=message):
        spec(tmp_path, text)


@pytest.mark.parametrize("below", ["", "/further"])
def test_a_workspace_is_no_file(tmp_path, below):
    (tmp_path / "cltdb.yaml").write_text(f"workspace: notes.txt{below}\n")
    assert find_project(tmp_path).workspace == tmp_path / f"notes.txt{below}"
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CltdbError, match="cltdb.yaml, workspace: found .*notes.txt, which is a file; expected a folder"):
        find_project(tmp_path)


def test_missing_spec_and_bad_set(tmp_path):
    with pytest.raises(CltdbError, match="no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(CltdbError, match="--set train.l0: found no key=value"):
        spec(tmp_path, overrides=["train.l0"])
    with pytest.raises(CltdbError, match=r"train.lo \(--set train.lo=3\).*write 'l0'"):
        spec(tmp_path, overrides=["train.lo=3"])


def parts(stage, tmp_path, *overrides):
    loaded = spec(tmp_path, overrides=overrides)
    return key_parts(
        stage,
        loaded.experiment,
        loaded.project,
        dict.fromkeys(("model", "activations", "train", "harvest", "evaluate", "explain", "attribute"), "0"),
    )


@pytest.mark.parametrize(
    ("stage", "override"),
    [
        ("model", "model.device=cpu"),
        ("train", "train.launch.hostfile=hosts"),
        ("train", "train.deepspeed={zero_optimization: {stage: 2}}"),
        ("train", "train.log_every_steps=3"),
        ("train", "train.checkpoint_every_steps=3"),
        ("evaluate", "evaluate.batch_seqs=3"),
        ("harvest", "harvest.batch_seqs=3"),
        ("explain", "explain.max_cost_usd=3"),
        ("attribute", "attribute.dtype=float32"),
    ],
)
def test_what_cannot_change_a_result_is_not_in_the_key(tmp_path, stage, override):
    assert parts(stage, tmp_path) == parts(stage, tmp_path, override)


@pytest.mark.parametrize(
    ("stage", "override"),
    [
        ("model", "model.dtype=bfloat16"),
        ("model", "model.mlp_input=residual"),
        ("activations", "activations.codec=float32"),
        ("activations", "seed=1"),
        ("activations", "activations.text.0.weight=2"),
        ("train", "seed=1"),
        ("train", "train.batch_tokens=7"),
        ("train", "train.deepspeed={bf16: {enabled: true}}"),
        ("explain", "explain.scorers=[detection]"),
        ("attribute", "attribute.check_edges=3"),
        ("attribute", "attribute.dtype=bfloat16"),
        ("attribute", "attribute.max_features=30"),
        ("harvest", "harvest.top=3"),
        ("harvest", "harvest.feature_edges=3"),
        ("harvest", "harvest.coactivation_tokens=3"),
    ],
)
def test_what_can_change_a_result_is_in_the_key(tmp_path, stage, override):
    assert parts(stage, tmp_path) != parts(stage, tmp_path, override)


def test_dictionaries_of_half_precision_whose_sums_were_rounded_are_not_taken_from_the_cache(tmp_path):
    assert parts("train", tmp_path, "train.deepspeed={bf16: {enabled: true}}")["errors"] == "float32"
    assert "errors" not in parts("train", tmp_path)


def test_reading_back_what_was_written_gives_the_same_experiment(tmp_path):
    experiment = spec(tmp_path).experiment
    assert type(experiment).model_validate(experiment.model_dump()) == experiment
    assert "launch" not in experiment.train.result_settings()
