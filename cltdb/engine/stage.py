"""A stage: all that the engine knows of it. And the job: all that a stage's functions get to do their work.

The table of stages is an ordered {name: Stage} (cltdb/stages.py). A stage that is not optional is part of every experiment; an optional
one where the spec has its section. Its artifact is `<workspace>/<name>/<key>/`; rows for the database go to
`<artifact>/tables/<table>/<part>.parquet`.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cltdb.engine.units import Units


class Gathering(NamedTuple):
    """What the stage does that puts the rows of all artifacts together, beside its run.

    missing(project, {stage: (key, directory)}): why what it made no longer stands, or "". restore(project): before a run,
    brings back what is gone. bring_in(project, *(key, directory)): loads single artifacts. remove(project, key): takes an artifact's rows out (key
    None: of none) and brings in all that is missing of the others; returns whether it had any.
    publish(project): brings run records in. publisher(project, key): a function of the directory of an unfinished artifact that
    brings in its metrics.
    """

    missing: Callable
    restore: Callable
    bring_in: Callable
    remove: Callable
    publish: Callable
    publisher: Callable


def nothing(*_arguments, **_options):
    """The default of what a stage may do and most do not."""


@dataclass(frozen=True)
class Stage:
    """The functions get (experiment, project) unless stated otherwise, and import what is heavy when they are called."""

    name: str
    """Its section in a spec, its argument on the command line, the folder of its artifacts."""
    version: int
    """Raised when its results change: it is part of its key."""
    run: Callable
    """run(job) fills `job.directory`. What a killed run left there is continued. In a launched stage each rank runs it."""
    section: type | None = None
    """Its `Section`; None of a stage without settings."""
    inputs: Callable = lambda experiment: ()
    """inputs(experiment): names of the stages whose artifacts it reads."""
    optional: bool = False
    """Whether it is part of those experiments alone whose spec has its section."""
    refers: Callable = nothing
    """refers(points, number): of a sweep's points, (experiment, {dotted key: its value}) pairs, the number of the one whose artifacts the point
    `number` reads beside its own, an earlier one; or None. `Experiment.reference` gives it."""
    awaits: Callable = nothing
    """awaits(experiment, project): which artifact of that other point is not there, or "". The point then does without the stage."""
    stands_for: str | None = None
    """The earlier stage in whose place later ones read this one's artifact."""
    idle: Callable = lambda experiment: ""
    """idle(experiment): why the experiment has no use for it, or ""."""
    fits: Callable = nothing
    """fits(experiment) raises `section.Conflict` where its section does not go with another."""
    left_out: Callable = lambda values, swept: ()
    """left_out(values, swept): paths of keys that a point of a sweep goes without, since a value that is swept leaves no use for them.
    values: of the point, as a file has them; swept: {key path: value}. What an override gives stays."""
    identity: Callable = lambda experiment, project: {}
    """{name: JSON value} of what is in its key beside version, inputs and section: contents of files, settings of others that it uses."""
    pinned: Callable = nothing
    """Its section with commits instead of branches, so that all processes read the same; None where nothing changes."""
    check_files: Callable = nothing
    """Raises what is wrong with the files that its section names, and with the section beside them and other sections. A plan says it too."""
    check: Callable = nothing
    """Raises what else can be known to fail before anything is computed."""
    preflight: Callable = nothing
    """Raises what the sizes and tokens of the model tell, before anything that costs is computed."""
    work: Callable = nothing
    """(number, unit) of what its time grows with, or None."""
    estimate: Callable = nothing
    """estimate(experiment, project, measure=): what a plan says of its disk or time, with `text` and `keys()`, or None."""
    wants_more: Callable = nothing
    """wants_more(experiment, directory): why a finished artifact is to be continued, since a budget that ended it was raised, or None. It is run
    again in a new directory, where units spare it what was done, and replaces the finished one at the end. For a stage that only the
    gathering one reads."""
    there: Callable = nothing
    """there(experiment, project, input_keys): the `units.There` of what other artifacts have made already, or None."""
    collect: Callable | None = None
    """collect(job): what one process puts together once the ranks of a launch have ended; None where nothing is left to do."""
    tables: tuple = ()
    """The tables of the database that it writes rows of."""
    known_hashes: Callable = nothing
    """known_hashes(directory): {name: sha256} of large files whose reader checks them, which need not be read again; or None."""
    faults: Callable = lambda directory: ()
    """faults(directory): errors of what the artifact holds elsewhere or checks itself, found by reading every byte."""
    lines: Callable = lambda made: ()
    """lines(made): what `cltdb run` says of it at the end. made: {stage: directory of its artifact}, its own among them."""
    compared: Callable = lambda directory, record: {}
    """compared(directory, record): {column: text} of the table of a sweep's points. record: of the run that made the artifact, or None."""
    gathers: Gathering | None = None
    """Of the stage that puts all artifacts together."""


def reads(*names):
    """The `inputs` of a stage that always reads the same."""
    return lambda experiment: names


class Share(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    world_size: int = 1


ALONE = Share()


@dataclass(frozen=True)
class Job:
    """The making of one artifact: the experiment, the stage's key and directory, the finished directories of its inputs (by the name
    that the stage asks for, whichever stage stands for it) and their keys; in a launched stage the share of this process."""

    stage: Stage
    experiment: Any
    project: Any
    key: str
    directory: Path
    inputs: dict[str, Path]
    input_keys: dict[str, str]
    share: Share = ALONE

    @property
    def settings(self):
        """The stage's own section."""
        return getattr(self.experiment, self.stage.name)

    @cached_property
    def units(self):
        """The `units.Units` that this artifact makes and uses."""
        return Units(self.project.workspace, self.directory, rank=self.share.rank)

    @property
    def publish(self):
        """A function of the directory that makes the metrics of this unfinished artifact visible."""
        return self.experiment.gathering.publisher(self.project, self.key)

    def seed(self, purpose):
        """A seed of its own for each purpose, fixed by the experiment's seed."""
        return zlib.crc32(f"{self.experiment.seed}/{purpose}".encode())
