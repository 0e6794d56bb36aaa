"""How long a stage is likely to take: the time that an earlier run of it took on this machine, by the amount of work.

Reads run records: `seconds`, and `work`, the number of units that a run did. Imports nothing heavy: `cltdb plan` uses it.
"""

import platform
from typing import NamedTuple

from cltdb.log import duration


class Duration(NamedTuple):
    """seconds: the estimate. n_units, took_s: of the run it comes from, that of `experiment`."""

    seconds: float
    unit: str
    experiment: str
    n_units: int
    took_s: float

    @property
    def text(self):
        """One clause for a plan."""
        unit = self.unit.removesuffix("s") if self.n_units == 1 else self.unit
        return f"about {duration(self.seconds)} ({self.n_units:,} {unit} took {duration(self.took_s)} in {self.experiment})"


def estimates(experiment, work, planned, records):
    """{stage: Duration} of the stages that will run and that have run before with the same model on this machine.

    experiment: its name, whose own runs count first. work: {stage: (number of units, unit)}; planned: `runner.PlannedStage`s; records:
    run records, oldest first.
    """
    found = {}
    for item in planned:
        if item.action != "run" or item.stage not in work:
            continue
        n_units, unit = work[item.stage]
        known = [record for record in records if _tells(record, item, unit)]
        known.sort(key=lambda record: record["experiment"] == experiment)  # stable: the latest of the best kind is last
        if known:
            last = known[-1]
            seconds = last["seconds"] * n_units / last["work"]["n"]
            found[item.stage] = Duration(seconds, unit, last["experiment"], last["work"]["n"], last["seconds"])
    return found


def _tells(record, item, unit):
    """Whether a run says how long another of its stage will take: whole, on this machine, with the same model."""
    work = record.get("work") or {}
    return (
        record["stage"] == item.stage
        and record["status"] == "done"
        and record["host"] == platform.node()
        and bool(record["seconds"])
        and work.get("unit") == unit
        and bool(work.get("n"))
        and record["key_parts"].get("input model") == item.parts.get("input model")
    )
