"""A finished artifact that a raised budget continues: planned, made from its units, and replaced at the end."""

from types import SimpleNamespace
from typing import Annotated

import pytest

from cltdb.engine import run as runner
from cltdb.engine.config import Loaded
from cltdb.engine.experiment import Experiment, composed
from cltdb.engine.plan import plan
from cltdb.engine.section import Neutral, Positive, Section
from cltdb.engine.stage import Gathering, Stage, nothing
from cltdb.engine.workspace import Workspace, read_json, write_json

N_ITEMS = 10
made, removed, fails_at = [], [], set()


class Draw(Section):
    """Ten items, one after the other."""

    at_most: Annotated[Positive | None, Neutral] = None


def draw(job):
    n = min(N_ITEMS, job.settings.at_most or N_ITEMS)
    for item in range(n):
        if job.units.get("draws", f"d/{item}") is None:
            if item in fails_at:
                raise RuntimeError(f"no item {item}")
            made.append(item)
            job.units.put("draws", f"d/{item}", {})
    write_json(job.directory / "draw.json", {"n": n})


def wants_more(experiment, directory):
    n, now = read_json(directory / "draw.json")["n"], min(N_ITEMS, experiment.draw.at_most or N_ITEMS)
    return f"was ended at {n}, now {now}" if now > n else None


class OnCpu(Experiment):
    device: str = "cpu"


STAGES = (
    Stage("draw", 1, draw, Draw, wants_more=wants_more),
    Stage(
        "all",
        1,
        nothing,
        gathers=Gathering(nothing, nothing, nothing, lambda project, key: removed.append(key), nothing, nothing),
    ),
)
Drawn = composed({stage.name: stage for stage in STAGES}, OnCpu)


@pytest.fixture
def loaded(tmp_path):
    """loaded(at_most): an experiment of the project."""
    for known in (made, removed, fails_at):
        known.clear()
    project = SimpleNamespace(root=tmp_path, workspace=tmp_path / "artifacts", database=tmp_path / "cltdb.duckdb")
    return lambda at_most: Loaded(Drawn(name="e", draw=Draw(at_most=at_most)), project, "", f"spec{at_most}")


def reasons(loaded):
    return [(item.action, item.reason) for item in plan(loaded)]


def n_drawn(loaded):
    [item, _] = plan(loaded)
    workspace = Workspace(loaded.project.workspace)
    assert workspace.is_finished("draw", item.key)
    return read_json(workspace.artifact("draw", item.key) / "draw.json")["n"]


def test_a_larger_budget_continues_and_a_smaller_one_does_not(loaded):
    runner.run(loaded(3))
    assert made == [0, 1, 2]
    assert [action for action, _ in reasons(loaded(3)) + reasons(loaded(2))] == ["cached"] * 4
    assert reasons(loaded(6)) == [("run", "was ended at 3, now 6"), ("run", "what it holds is made again")]
    assert [result.action for result in runner.run(loaded(6))] == ["run", "run"]
    assert made == [0, 1, 2, 3, 4, 5] and n_drawn(loaded(6)) == 6
    runner.run(loaded(None))
    assert made == list(range(10)) and n_drawn(loaded(None)) == 10
    assert {action for action, _ in reasons(loaded(None))} == {"cached"}
    assert removed == []  # what gathers takes out the rows of an artifact that was made again


def test_the_finished_artifact_stays_until_the_new_one_is_finished(loaded):
    runner.run(loaded(3))
    fails_at.add(5)
    with pytest.raises(RuntimeError):
        runner.run(loaded(8))
    assert n_drawn(loaded(3)) == 3 and removed == [] and made == [0, 1, 2, 3, 4]
    assert reasons(loaded(8))[0] == ("run", "was ended at 3, now 8") and reasons(loaded(3))[0] == ("cached", "finished")
    fails_at.clear()
    runner.run(loaded(8))
    assert n_drawn(loaded(8)) == 8 and made == [0, 1, 2, 3, 4, 5, 6, 7]
    assert not Workspace(loaded(8).project.workspace).unfinished("draw")


def test_what_another_process_has_continued_meanwhile_is_left_alone(loaded, monkeypatch):
    runner.run(loaded(3))
    earlier = plan(loaded(6))
    runner.run(loaded(6))
    monkeypatch.setattr(runner, "plan", lambda *arguments, **options: earlier)
    n_made = len(made)
    assert runner.run(loaded(6), only="draw")[0].action == "cached" and len(made) == n_made


def test_force_makes_all_of_it_again(loaded):
    runner.run(loaded(3))
    runner.run(loaded(4), force=["draw"])
    assert made == [0, 1, 2, 0, 1, 2, 3] and len(removed) == 1 and n_drawn(loaded(4)) == 4
