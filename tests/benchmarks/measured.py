"""What one operation costs: CPU seconds (user and system), wall time and peak memory, in a process of its own.

As a script: `measured.py FILE ARGUMENTS...` is `cltdb ARGUMENTS...`, and adds to FILE how many seconds it waited for the database.
"""

import json
import os
import resource
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ENOUGH_CPU_S = 3.0  # after this much an operation is not repeated


class Cost(NamedTuple):
    """Medians over n repetitions, after one that does not count; peak_mb: the largest memory of its process, or of those it started."""

    n: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    result: object


def cost(prepare, *, repetitions=7):
    """The `Cost` of the function that prepare() returns, whose result is plain JSON; what it raises is the result {"error": its message}.

    It runs in a fork of this process, which must not have used polars or DuckDB yet: their threads would be missing there.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        with os.fdopen(sender, "w") as stream:
            json.dump(_costs(prepare, repetitions), stream)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return Cost(*json.loads(text)) if text else Cost(0, 0, 0, 0, {"error": "the process ended without an answer"})


def _costs(prepare, repetitions):
    import statistics  # not by commands, which this file starts

    taken, result = [], None
    try:
        function = prepare()
        forget_peak()
        while len(taken) < repetitions + 1 and sum(cpu for cpu, _ in taken) < ENOUGH_CPU_S:
            before, start = cpu_s(), time.perf_counter()
            result = function()
            taken.append((cpu_s() - before, time.perf_counter() - start))
    except Exception as error:  # an operation that fails is a line of the table, and the others go on
        traceback.print_exc()
        result = {"error": " ".join(str(error).split())[:200] or type(error).__name__}
    counted = taken[1:] or taken or [(0.0, 0.0)]
    cpu, wall = (statistics.median(column) for column in zip(*counted, strict=True))
    return len(counted), cpu, wall, peak_mb(), result


def cpu_s():
    """CPU seconds of this process and of those it started, so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def forget_peak():
    """Makes the kernel measure this process's largest memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb():
    """Largest memory of this process since `forget_peak`, or of one that it started."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def load_average():
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


@contextmanager
def noted_holds():
    """Notes, within the block, each time this process held a database: {"write": [(waited, held, CPU while it held), …], "read": …}, all
    in seconds."""
    from cltdb.database import store

    notes, place_in_line = {"write": [], "read": []}, store.place_in_line

    @contextmanager
    def noted(path, *, write, deadline):
        start = time.perf_counter()
        with place_in_line(path, write=write, deadline=deadline):
            got, before = time.perf_counter(), time.process_time()
            try:
                yield
            finally:
                notes["write" if write else "read"].append((got - start, time.perf_counter() - got, time.process_time() - before))

    store.place_in_line = noted
    try:
        yield notes
    finally:
        store.place_in_line = place_in_line


def main():
    from cltdb import __main__ as command_line

    file, *sys.argv[1:] = sys.argv[1:]
    end_process = command_line.end_process

    def note():
        with open(file, "a") as stream:
            stream.write(f"{waited_s(holds)}\n")

    command_line.end_process = lambda: (note(), end_process())
    with noted_holds() as holds:
        status = command_line.main()
    note()
    return status


def waited_s(holds):
    """Seconds spent in waiting for a database, of what `noted_holds` noted."""
    return sum(waited for notes in holds.values() for waited, *_ in notes)


if __name__ == "__main__":
    sys.exit(main())
