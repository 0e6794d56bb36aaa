"""Stage activations as the runner calls it: cached, streamed, in parts, kept elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import models, projects

from cltdb.activations.reading import packed, packed_own, sources, trained_on
from cltdb.engine import run as runner
from cltdb.engine.plan import key_parts, plan
from cltdb.engine.stage import Job, Share
from cltdb.engine.workspace import Workspace
from cltdb.errors import CltdbError
from cltdb.model.source import language_model
from cltdb.spec import load
from cltdb.stages import STAGES

SPEC = """
name: tiny
model: {id: model}
activations: {text: [{files: [text.txt]}], context: 16, train_tokens: 3000, heldout_tokens: 300, shard_tokens: 800, codec: float32}
"""


@pytest.fixture
def project(tmp_path):
    models.saved(tmp_path / "model")
    projects.write_texts(tmp_path / "text.txt", [f"Document {n} of many, and {n * n} is its square." for n in range(300)])
    return projects.new(tmp_path, SPEC)


def ran(project, *overrides):
    """A context of stage train whose activations are there."""
    loaded = load(project / "tiny.yaml", overrides=overrides)
    runner.run(loaded, until="activations")
    keys = {item.stage: item.key for item in plan(loaded)}
    directory = Workspace(loaded.project.workspace).artifact("activations", keys["activations"])
    return Job(
        STAGES["train"], loaded.experiment, loaded.project, keys["train"], project / "train", {"activations": directory}, keys
    )


def files(job):
    return sorted(path.name for path in job.inputs["activations"].iterdir())


def test_both_modes_give_the_same_batches_and_a_stream_leaves_no_shards(project):
    cached, streamed = ran(project), ran(project, "activations.mode=stream")
    assert files(streamed) == ["cache.json", "manifest.json", "text.json"] and len(files(cached)) > 8
    lm = language_model(streamed)
    for left, right in zip(sources(cached, None, seed=1), sources(streamed, lm, seed=1), strict=True):
        assert left.n_rows == right.n_rows
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(left.batch(1, 70), right.batch(1, 70), strict=True))
    runner.run(load(project / "tiny.yaml", overrides=["activations.mode=stream"]), until="activations")


def test_shards_may_be_kept_elsewhere(project):
    here, there = ran(project), ran(project, f"activations.storage=file://{project}/bucket", "seed=1")
    assert files(there) == ["cache.json", "manifest.json", "text.json"]
    assert (project / "bucket" / there.inputs["activations"].name / "train-00000.arrow").is_file()
    assert sources(there, None, seed=1)[0].batch(0, 70).x.shape == sources(here, None, seed=1)[0].batch(0, 70).x.shape


def test_processes_write_their_parts_and_the_stage_ends_with_one_cache(project):
    whole = ran(project)
    loaded = load(project / "tiny.yaml")
    directory = Path(project / "parts")
    for rank in (2, 0, 1):
        assert not (directory / "cache.json").is_file()
        stage = STAGES["activations"]
        stage.run(Job(stage, loaded.experiment, loaded.project, "key", directory, {}, {}, Share(rank, 3)))
    written = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert written == {
        name: (whole.inputs["activations"] / name).read_bytes() for name in files(whole) if name != "manifest.json"
    }


def test_what_cannot_change_a_result_stays_out_of_the_keys(project):
    def keys(*overrides):
        loaded = load(project / "tiny.yaml", overrides=overrides)
        return [
            key_parts(stage, loaded.experiment, loaded.project, {"model": "m", "activations": "a"})
            for stage in ("activations", "train")
        ]

    plain = keys()
    for neutral in ("loader.memory_mb=99", "loader.threads=7", "loader.read_ahead=5", "storage=elsewhere", "launch.processes=2"):
        assert keys(f"activations.{neutral}") == plain
    activations, train = keys("activations.loader.shuffle_tokens=100")
    assert activations == plain[0] and train != plain[1]
    assert keys("activations.mode=stream")[0] != plain[0]


@pytest.mark.parametrize("mode", ["cache", "stream"])
def test_a_pool_that_cannot_fit_is_refused_before_anything_runs(project, mode):
    loaded = load(project / "tiny.yaml", overrides=["activations.loader.memory_mb=10", f"activations.mode={mode}"])
    with pytest.raises(CltdbError, match="activations.loader.memory_mb: found 10; expected at least"):
        runner.run(loaded, until="activations")
    assert not (project / "artifacts/activations").exists()


def test_a_shard_left_by_another_context_is_refused(project):
    done = ran(project)
    partial = Path(f"{done.inputs['activations']}.partial")
    done.inputs["activations"].rename(partial)
    for name in ("manifest.json", "cache.json"):
        (partial / name).unlink()
    index = json.loads((partial / "train-00001.arrow.index.json").read_text())
    (partial / "train-00001.arrow.index.json").write_text(json.dumps(index | {"context": 32}))
    with pytest.raises(CltdbError, match="train-00001.arrow: found a shard of another cache .context 32.; expected context 16"):
        ran(project)


def test_evaluation_on_other_text_never_measures_on_what_was_trained_on(project):
    lines = (project / "text.txt").read_text().split("\n\n")
    projects.write_texts(project / "other.txt", [*lines, *(f"Another document, number {n}." for n in range(100))])
    job = ran(project, "evaluate.text=[{files: [other.txt]}]")
    lm = language_model(job)

    def words(part):
        tokens, documents = part.tokens.ravel(), part.documents.ravel()
        every = (tokens[(documents == number) & (tokens != 0)] for number in np.unique(documents)[:-1])  # the last one may be cut
        return {lm.tokenizer.decode(document) for document in every}

    train, heldout = packed(job, lm, train_tokens=3000, heldout_tokens=300, note=False)
    known = trained_on(job, lm)
    assert len(known) == len(np.unique(train.documents))
    (project / "train").mkdir()
    found = words(packed_own(replace(job, stage=STAGES["evaluate"]), lm, 12_000, without=known))
    assert words(train) <= set(lines) and not words(train) & found
    assert words(heldout) <= found and any(text.startswith("Another") for text in found)
