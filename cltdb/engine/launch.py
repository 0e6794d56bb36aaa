"""Runs a stage in several processes with DeepSpeed's launcher, on one machine or on those of a hostfile.

`run_stage` does a job; where the stage's `launch` asks for more than one process it starts the launcher, which starts
`python -m cltdb.engine.launch REQUEST MODULE` once per rank. A rank rebuilds the job from the request, with the types of the module
that the experiment is defined in, and does its part. What a rank
cannot do it writes to `error-<rank>.json` beside the request, and the process that asked says it. Ranks end with that process,
however it ends. With several machines the workspace must be on a file system that all of them see.
"""

import json
import logging
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from cltdb import log
from cltdb.devices import resolved_device
from cltdb.engine.integrity import believe, check_content
from cltdb.engine.stage import Job, Share
from cltdb.engine.workspace import explain_full_disk, read_json, write_json
from cltdb.errors import CltdbError, shown, shown_end
from cltdb.memory import keep_freed_memory

FOLDER = ".launch"
LOG_LEVEL = "CLTDB_LOG_LEVEL"
"""The level from which on the process that asked logs; its ranks say no more (those of other machines may not hear of it)."""
HOST_LINE = re.compile(r"^([^\s#]\S*)\s+slots=([0-9]{1,6})")
LAUNCHER_LINE = re.compile(rb"^\[\d{4}-\d\d-\d\d [^\]]*\] \[[A-Z]+\] \[")


def check_hosts(stage, launch, root):
    """Refuses a host file that is not there, or that DeepSpeed's launcher could not use for so many machines and processes."""
    if launch.hostfile is None:
        return
    where, path = f"{stage}.launch.hostfile ({launch.hostfile})", Path(root) / launch.hostfile
    wanted = {"expected": "a line `NAME slots=N` per machine", "do": "mend the file or the path, which is relative to cltdb.yaml"}
    if not path.is_file():
        raise CltdbError(where, found="no such file", **wanted)
    slots = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = HOST_LINE.match(line.strip())
        if match is None and line.strip() and not line.strip().startswith("#"):
            raise CltdbError(f"{where}, line {number}", found=shown(line.strip()), **wanted)
        if match and match[1] in slots:
            raise CltdbError(f"{where}, line {number}", found=f"{shown(match[1])} twice", **wanted)
        slots |= {match[1]: int(match[2])} if match else {}
    fitting = sum(n >= launch.processes for n in slots.values())
    if fitting < launch.nodes:
        raise CltdbError(
            where,
            found=f"{fitting} machines of {launch.processes} slots or more",
            expected=f"at least {stage}.launch.nodes, {launch.nodes}",
            do=f"name more machines, or lower {stage}.launch.nodes or processes",
        )


def run_stage(job):
    """Does a stage's work, in this process or in those that its `launch` asks for."""
    launch = getattr(job.settings, "launch", None) if job.stage.section else None
    _forget_ranks(job.directory / FOLDER)
    if launch is None or launch.processes * launch.nodes == 1:
        job.stage.run(job)
        return
    _run_ranks(job, launch)
    if job.stage.collect:
        job.stage.collect(job)


def _run_ranks(job, launch):
    folder = job.directory / FOLDER
    for place in job.inputs.values():  # once for all ranks
        check_content(place)
    request = {
        "stage": job.stage.name,
        "experiment": json.loads(job.experiment.model_dump_json()),
        "project": [str(part) for part in job.project],
        "key": job.key,
        "directory": str(job.directory),
        "inputs": {name: str(path) for name, path in job.inputs.items()},
        "input_keys": job.input_keys,
        "host": platform.node(),
        "pid": os.getpid(),
    }
    write_json(folder / "request.json", request)
    output = []
    process = subprocess.Popen(
        _command(launch, job, folder / "request.json"),
        env=_environment(launch, job),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _forward(process.stdout, output)
        status = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _end_leftovers(folder)
    _raise_errors(job.stage.name, folder, status, output)
    shutil.rmtree(folder)


def _command(launch, job, request):
    words = [sys.executable, "-m", "deepspeed.launcher.runner", "--no_local_rank", "--master_port", str(_free_port())]
    words += ["--num_gpus", str(launch.processes)]
    if launch.nodes > 1:
        words += ["--num_nodes", str(launch.nodes)]
    if launch.hostfile:
        words += ["--hostfile", str(job.project.root / launch.hostfile)]
    return [*words, "--module", "cltdb.engine.launch", str(request), type(job.experiment).__module__]


def _environment(launch, job):
    on_cpu = not resolved_device(job.experiment.device).startswith("cuda")
    threads = max(1, (os.cpu_count() or 1) // launch.processes)
    quiet = {
        "DEEPSPEED_LOG_LEVEL": "error",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": str(threads),
        LOG_LEVEL: str(logging.getLogger("cltdb").getEffectiveLevel()),
        "CLTDB_BARS": str(int(sys.stderr.isatty())),
    }
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**quiet, **os.environ, "PYTHONPATH": path, **({"DS_ACCELERATOR": "cpu"} if on_cpu else {})}


def _free_port():
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def _forward(stream, output):
    """Passes on what the ranks print, lines to the log and bars to stderr, without what the launcher itself says; keeps the last of it."""
    line, lines = b"", log.stream()
    while True:
        piece = stream.read1(65_536)
        *ended, line = re.split(rb"(?<=[\r\n])", line + piece) if piece else (line, b"")
        for text in filter(None, ended):
            if not LAUNCHER_LINE.match(text):
                said = text.decode(errors="replace")
                output[:] = [*output[-200:], said]
                place = sys.stderr if said.endswith("\r") else lines
                with suppress(OSError):  # a log that takes no more does not end the work
                    place.write(said)
                    place.flush()
        if not piece:
            return


def _raise_errors(stage, folder, status, output):
    """The error of the rank that failed first, as this process's own."""
    failures = sorted((read_json(path) for path in folder.glob("error-*.json")), key=lambda failure: failure["at"])
    if failures:
        first = failures[0]
        raise CltdbError(first["where"], found=first["found"], expected=first["expected"], do=first["do"])
    if status:
        raise CltdbError(
            f"stage {stage}",
            found=f"a process that ended with {shown_end(status)}" + (f" ({output[-1].strip()})" if output else ""),
            expected="every process to end well",
            do=f"look at the lines above; run again to go on from the last finished unit, with fewer {stage}.launch.processes if memory ran out",
        )


def _forget_ranks(folder):
    """Ends ranks that outlived the process that asked for them, and removes what they and it left, which is no part of the artifact."""
    _end_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _end_leftovers(folder):
    """Ends ranks that outlived the process that asked for them."""
    for path in folder.glob("rank-*.pid"):
        host, pid = path.read_text().split()
        command = Path(f"/proc/{pid}/cmdline")
        if host == platform.node() and command.exists() and b"cltdb.engine.launch" in command.read_bytes():
            os.kill(int(pid), signal.SIGKILL)
            while command.exists() and b"cltdb.engine.launch" in command.read_bytes():
                time.sleep(0.05)
        path.unlink()


# In each rank.


def _end_with(request):
    """Ends this rank when the process that asked for it is gone."""
    while request["host"] == platform.node():
        try:
            os.kill(request["pid"], 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(0.5)


def _job(request, types, share):
    """The job of a request. types: the module that has `Experiment` and `Project`."""
    experiment = types.Experiment.model_validate(request["experiment"])
    return Job(
        experiment.stages[request["stage"]],
        experiment,
        types.Project(*map(Path, request["project"])),
        request["key"],
        Path(request["directory"]),
        {name: Path(path) for name, path in request["inputs"].items()},
        request["input_keys"],
        share,
    )


def main(path, module):
    """The work of one rank. module: the name of the module that has the types of the experiment and the project."""
    keep_freed_memory()
    log.setup(stream=sys.stdout, level=int(os.environ.get(LOG_LEVEL, logging.INFO)))
    folder, request = Path(path).parent, read_json(path)
    share = Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    (folder / f"rank-{share.rank}.pid").write_text(f"{platform.node()} {os.getpid()}")
    threading.Thread(target=_end_with, args=(request,), daemon=True).start()
    for place in request["inputs"].values():  # which the process that asked has looked at
        believe(place)
    try:
        with explain_full_disk(Path(request["directory"]) / request["stage"]):
            job = _job(request, import_module(module), share)
            job.stage.run(job)
    except CltdbError as error:
        failure = {"where": error.where, "found": error.found, "expected": error.expected, "do": error.do}
        write_json(folder / f"error-{share.rank}.json", failure | {"at": time.time()})
        os._exit(1)
    os._exit(0)  # without waiting for the other ranks' groups to be taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
