"""Training that goes on from a finished dictionary: its weights to the bit, which one a name means, and what does not fit."""

from types import SimpleNamespace

import polars as pl
import pytest
import torch
from train.test_train import HELDOUT, SETTINGS, TRAINED, metrics
from worlds import projects

from cltdb.engine.plan import plan
from cltdb.engine.run import run
from cltdb.errors import CltdbError
from cltdb.model.transcoder import load_dictionary
from cltdb.spec import load, load_points
from cltdb.train.loop import train
from cltdb.train.run import TrainingRun
from cltdb.train.schedule import target_l0
from cltdb.train.settings import Train
from cltdb.train.start import start_dictionary


def begun(project, **settings):
    """A `TrainingRun` with these settings; project: the folder of cltdb.yaml, for settings.start."""
    settings = Train(**{**SETTINGS, **settings})
    start = start_dictionary(settings, project_of(project), TRAINED.summary) if settings.start else None
    return TrainingRun(settings, source=TRAINED, heldout=HELDOUT, seed=1, device="cpu", start=start)


def project_of(folder):
    return SimpleNamespace(root=folder, workspace=folder / "artifacts")


def trained(directory, project=None, **settings):
    train(begun(project, **settings), directory=directory, dict_id=f"{directory.name}-id", experiment=directory.name)
    return load_dictionary(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {"skip": True},
        {"activation": "jumprelu"},
        {"kind": "sae", "activation": "topk"},
        {"layers": [1], "activation": "relu"},
        {"decoder_span": 1, "deepspeed": {"zero_optimization": {"stage": 3}}},
    ],
    ids=str,
)
def test_a_run_that_changes_nothing_gives_the_dictionary_it_started_from(tmp_path, settings):
    first = trained(tmp_path / "first", **settings)
    again = trained(tmp_path / "again", tmp_path, **settings, start="first", learning_rate=1e-30, revive_rate=0.0)
    for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip"):
        one, other = getattr(first, name), getattr(again, name)
        assert (one is None) == (other is None) and (one is None or torch.allclose(one, other, rtol=1e-5, atol=1e-7)), name
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-7) for pair in zip(first.W_dec, again.W_dec, strict=True))
    assert again.info["train"]["start"] == "first-id" and first.info["train"]["start"] is None


def test_it_goes_on_with_the_error_of_the_first_and_the_controller_at_the_target(small):
    exported, rows = load_dictionary(small / "first").info["steps"], metrics(small / "first")
    ended = rows.filter(pl.col("layer").is_null(), step=exported, name="heldout_fvu")["value"].item()
    run = begun(small, start="first")
    run.check_heldout()
    assert run.checks[0]["fvu"] == pytest.approx(ended, rel=1e-4)
    settings = Train(**{**SETTINGS, "activation": "jumprelu"})
    assert [target_l0(one, step=0, n_steps=10) for one in (settings, settings.model_copy(update={"start": "x"}))] == [6, 3]


def test_fine_tuning_is_exported_at_its_last_step_though_the_penalty_costs_error(small):
    run = begun(small, start="first", orthogonality={"coefficient": 100}, heldout_every_steps=1, early_stop_checks=1)
    train(run, directory=small / "tuned", dict_id="tuned-id", experiment="tuned")
    assert run.checks[-1]["fvu"] > run.checks[0]["fvu"] and load_dictionary(small / "tuned").info["steps"] == run.n_steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "plt"}, "found kind clt in first-id; expected kind plt"),
        ({"n_features": 12}, "found n_features 24 in first-id; expected n_features 12"),
        ({"activation": "topk"}, "found activation batchtopk .*expected activation topk"),
        ({"layers": [1]}, r"found layers \[0, 1\] .*expected layers \[1\]"),
        ({"skip": True}, "found skip false .*expected skip true"),
        ({"decoder_span": 1}, "found decoders beyond decoder_span true"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(small, settings, message):
    with pytest.raises(CltdbError, match=f"^train.start: {message}"):
        begun(small, start="first", **settings)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    trained(folder / "first", epochs=4)
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_id": "other/another"}, "found model random in first-id; expected model another"),
        ({"n_layers": 3}, "found n_layers 2"),
        ({"d_model": 8}, "found d_model 16"),
        ({"mlp_input": "residual"}, "found mlp_input normed"),
    ],
)
def test_a_dictionary_of_another_model_is_refused(small, changed, message):
    settings = Train(**{**SETTINGS, "start": "first"})
    with pytest.raises(CltdbError, match=message):
        start_dictionary(settings, project_of(small), TRAINED.summary | changed)


BASE = """
name: base
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 2000, heldout_tokens: 400}
train: {kind: plt, n_features: 16, l0: 4, batch_tokens: 100, heldout_every_steps: 10}
"""
TUNED = BASE.replace("name: base", "name: tuned").replace("train: {", "train: {start: base, ") + (
    "sweep: {train.orthogonality.coefficient: [0, 10]}\n"
)


def test_points_of_a_sweep_start_from_the_experiment_that_is_named(tmp_path):
    folder = projects.with_model(tmp_path, BASE, TUNED)

    def planned(spec="tuned", *overrides):
        """The `PlannedStage` of stage train of each point."""
        points = load_points(folder / f"{spec}.yaml", overrides=overrides)
        return [next(item for item in plan(loaded) if item.stage == "train") for loaded in points]

    with pytest.raises(CltdbError, match="^train.start: found 'base'; .*run that experiment first"):
        planned()
    made = run(load(folder / "base.yaml"), until="train")[-1].directory
    dict_id = load_dictionary(made).info["dict_id"]
    for loaded in load_points(folder / "tuned.yaml"):
        tuned = load_dictionary(run(loaded, until="train")[-1].directory)
        assert tuned.info["train"]["start"] == dict_id
    assert tuned.info["train"]["orthogonality"]["coefficient"] == 10
    assert [item.action for item in planned()] == ["cached", "cached"]
    for start in (dict_id, str(made)):  # however it is named
        assert [item.parts["start"] for item in planned("tuned", f"train.start={start}")] == [planned()[0].parts["start"]] * 2
        assert [item.action for item in planned("tuned", f"train.start={start}")] == ["cached", "cached"]
    run(load(folder / "base.yaml", overrides=["train.n_features=20"]), until="train")
    with pytest.raises(CltdbError, match="found n_features 20 .*expected n_features 16"):  # the last that base has finished
        run(load_points(folder / "tuned.yaml")[0], until="train")
    assert (
        run(load(folder / "base.yaml"), until="train")[-1].action == "cached"
    )  # the spec is as it was, and its dictionary base's last again
    assert [item.action for item in planned()] == ["cached", "cached"]
    with pytest.raises(CltdbError, match="expected another experiment than this one"):
        planned("base", "train.start=base")
    (folder / "theirs").mkdir()
    with pytest.raises(CltdbError, match="a folder without dictionary.json; .*cltdb import"):
        planned("base", "train.start=theirs")
