"""From the button Run of the panel Steer to what is stored: with a process of its own, and with one that waited (`cltdb.standby`).

    python tests/benchmarks/steering.py PROJECT SPEC GRAPH_ID LAYER:FEATURE@POSITION [N]

Prints per intervention its seconds, the CPU seconds of its process in that time, and the machine's load.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from dashboards.jobs import ALIVE, Jobs, Request


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command_of(supervisor):
    while not (children := Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()):
        time.sleep(0.01)
    return int(children[0])


def settled(pid):
    """CPU seconds of a process once it has slept for three seconds."""
    before, since = -1.0, time.monotonic()
    while time.monotonic() - since < 3:
        if (now := cpu_s(pid)) != before:
            before, since = now, time.monotonic()
        time.sleep(0.1)
    return before


def measured(jobs, spec, graph_id, place, pid=None):
    options = (f"--graph={graph_id}", f"--feature={place}=x{random.random():.9f}", "--mode=free", "--generate=3", "--json")
    spent, began = cpu_s(pid) if pid else 0.0, time.monotonic()
    job_id = jobs.start(Request("intervene", {}, "intervene", spec, options, "benchmark"))
    pid = pid or command_of(json.loads((jobs.folder / f"{job_id}.json").read_text())["pid"])
    last = spent
    while (job := jobs.job(job_id)).status in ALIVE:
        try:
            last = cpu_s(pid)
        except OSError:  # it has just ended
            pass
        time.sleep(0.01)
    print(f"{time.monotonic() - began:.1f} s, {last - spent:.2f} CPU s, load {os.getloadavg()[0]:.1f}, {job.status}")


def main(project, spec, graph_id, place, n="3"):
    jobs = Jobs(Path(project) / "artifacts/jobs", Path(project))
    text = Path(spec).read_text()
    for _ in range(int(n)):
        print("a process of its own:", end=" ", flush=True)
        measured(jobs, text, graph_id, place)
    jobs = Jobs(jobs.folder, jobs.root, standby=True)
    jobs.prepare()
    for _ in range(int(n)):
        waited_for = jobs._standby
        pid = command_of(waited_for[1].pid)
        print(f"one that waited, after {settled(pid):.2f} CPU s of imports:", end=" ", flush=True)
        measured(jobs, text, graph_id, place, pid)
        while jobs._standby in (None, waited_for):
            time.sleep(0.1)
    jobs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
