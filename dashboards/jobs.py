"""The one way to start work from the browser: a `cltdb` command in a process of its own, with a record in <workspace>/jobs/.

What may be started is a table: work.py. A job is a few files: `<id>.json` (what was started), `<id>.yaml` (its spec), `<id>.log` (what it says),
`<id>.out` (what it prints), `<id>.end` (how it ended) and `<id>.lock`, which is held for as long as it lives. So a job outlives a reload of its
page. It ends with the server; where the server was killed the job goes on, and the next server finds it. A process of its own (supervisor.py)
stays with each job, writes its end and leaves nothing of it behind.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import flask

from cltdb.engine.locks import took
from cltdb.engine.records import process_stat
from cltdb.engine.workspace import read_json, write_json
from cltdb.errors import CltdbError, shown, shown_end
from dashboards.security import host_name, is_local

MAX_RUNNING, KEPT = 4, 20
OF_STANDBY = ("attribute", "intervene")
"""Commands that a process which waits is told; they spend most of their time on imports else."""
JOB_ID = re.compile(r"\d{8}-\d{6}-\d{6}")
ALIVE = ("running", "stopping")
GRACE_S = 10.0
"""A job that is stopped is interrupted, and killed when it is still there after so long."""
READ_BYTES, MAX_LINES = 16_384, 12
"""So much of the end of a log is read, and so many of its lines are shown."""
MAX_ARGUMENT_CHARS = 20_000
BAR = re.compile(r"^(?P<stage>[^:|]{1,60}): +(?P<percent>\d{1,3})%\|")
"""A bar as it stands in a log (`cltdb.log.Bar`)."""
WORDLESS = "the process ended without an error message ({})"
PACKAGE = str(Path(__file__).parents[1])
"""The folder that holds the package cltdb."""
JOBS = "CLTDB_JOBS"
"""Where an app keeps its `Jobs`: a key of `app.server.config`."""
PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


class Request(NamedTuple):
    """A command to start. kind: its name in the table of work.py; fields: what it was asked for with, as JSON values; spec: the text of its
    spec; options: what follows the spec."""

    kind: str
    fields: dict
    command: str
    spec: str
    options: tuple
    title: str
    told: bool = False
    """True of a command whose log is what it prints."""


class Job(NamedTuple):
    """One command that was started. status: running, stopping, finished, failed, stopped, or lost where nobody saw how it ended."""

    job_id: str
    kind: str
    fields: dict
    title: str
    status: str
    seconds: float | None
    exit_status: int | None
    error: str | None  # in one line, of a job that failed
    lines: list  # the last of its log
    output: str  # what it printed; empty while it runs

    @property
    def progress(self):
        """(what its last bar counts, the share that is done, 0 to 1) while it runs; None where its log ends in no bar."""
        found = BAR.match(self.lines[-1]) if self.status in ALIVE and self.lines else None
        return found and (found["stage"], min(1.0, int(found["percent"]) / 100))


def here():
    """The `Jobs` of the app that answers; None where the request may come from elsewhere, which starts no work.

    The name in the address is looked at too: a page of another site can lead its own name to this machine. So is where a request says that its
    page came from: any site can send one here.
    """
    request = flask.request
    foreign = not is_local(request.remote_addr or "") or any(name in request.headers for name in PROXY_HEADERS)
    foreign |= request.headers.get("Origin") not in (None, request.host_url.rstrip("/"))
    return None if foreign or not is_local(host_name(request.host)) else flask.current_app.config.get(JOBS)


class Jobs:
    """The jobs of a project. folder: where their records are; root: the folder in which commands run; standby: whether a process may wait for
    the next job of OF_STANDBY, which takes some 600 MB of memory."""

    def __init__(self, folder, root, *, max_running=MAX_RUNNING, standby=False):
        self.folder, self.root, self.max_running = Path(folder), Path(root), max_running
        self._lock = threading.Lock()  # over the records
        self._starting = threading.Lock()
        self._followed = {}  # the threads that wait for the processes this server started
        self._standby = None  # (id of the job that it will be, its process): what waits for a command of OF_STANDBY
        self._may_stand_by, self._wants_standby = standby, False

    def start(self, request):
        """Starts the command of a `Request`; returns the job's id. CltdbError where `max_running` run already."""
        _check(request.options)
        with self._starting:
            self._make_room()
            running = [shown(job.title) for job in self.all() if job.status in ALIVE]
            if len(running) >= self.max_running:
                found, expected = f"{len(running)} that run ({', '.join(running)})", f"at most {self.max_running} at once"
                raise CltdbError("jobs", found=found, expected=expected, do="wait for one to end, or stop one")
            record = {"kind": request.kind, "fields": request.fields, "title": request.title}
            record |= {"started_at": datetime.now(UTC).isoformat()}
            self._wants_standby |= self._may_stand_by and request.command in OF_STANDBY
            job_id, process = self._told_standby(request) or self._begun(_new_id(), request)
            self._save(job_id, **record, pid=process.pid)
            self._followed[job_id] = threading.Thread(target=self._follow, args=(job_id, process), daemon=True)
            self._followed[job_id].start()
        return job_id

    def prepare(self):
        """Starts a process that imports what work with a model needs, and waits for the next such job. After each job one waits again."""
        with self._starting:
            self._wants_standby = self._may_stand_by
            if self._wants_standby and (self._standby is None or self._standby[1].poll() is not None):
                self._make_room()
                job_id = _new_id()
                self._standby = job_id, self._open(job_id, "cltdb.standby", stdin=subprocess.PIPE)

    def all(self):
        """Every job on record, the newest first."""
        found = {}
        for path in self.folder.glob("*.json"):
            try:
                found[read_json(path)["started_at"], path.stem] = self.job(path.stem)
            except (FileNotFoundError, CltdbError):
                if path.exists():
                    raise
                # it has made room for another job meanwhile
        return [found[began] for began in sorted(found, reverse=True)]

    def n_running(self):
        """How many jobs run now."""
        return sum(self._is_alive(path.stem) for path in self.folder.glob("*.json"))

    def job(self, job_id):
        """The `Job` of that id."""
        path, alive = self._path(job_id, "json"), self._is_alive(job_id)
        record, end = read_json(path), self._path(job_id, "end")
        record |= read_json(end) if not alive and end.exists() else {}
        exit_status, ended_at = record.get("exit_status"), time.time() if alive else record.get("ended_at")
        seconds = ended_at and ended_at - datetime.fromisoformat(record["started_at"]).timestamp()
        if alive:
            status = "stopping" if record.get("stopped") else "running"
        elif exit_status == 0:
            status = "finished"
        else:
            status = "stopped" if record.get("stopped") else "lost" if exit_status is None else "failed"
        output, lines = "", _last_lines(self._path(job_id, "log"))
        if not alive:
            output = self._path(job_id, "out").read_text(encoding="utf-8", errors="replace")
        error = _error(lines, exit_status) if status == "failed" else None
        kind, fields = record.get("kind", ""), record.get("fields", {})
        return Job(job_id, kind, fields, record["title"], status, seconds, exit_status, error, lines, output)

    def stop(self, job_id):
        """Interrupts a job that runs; its supervisor kills it when that does not end it."""
        pid = read_json(self._path(job_id, "json"))["pid"]
        if self._is_alive(job_id):  # so the number is still that of its processes
            self._save(job_id, stopped=True)
            with suppress(ProcessLookupError):
                try:
                    if _is_zombie(pid):
                        raise ProcessLookupError
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:  # the supervisor was killed, the command was not
                    os.killpg(pid, signal.SIGKILL)

    def close(self):
        """Ends what this server started, before the server itself ends."""
        with self._starting:
            self._wants_standby = False
            if self._standby:
                self._standby[1].terminate()
                self._standby[1].wait()
            followed = list(self._followed.items())
        for job_id, _ in followed:
            self.stop(job_id)
        for _, thread in followed:
            thread.join(GRACE_S + 5)

    def _told_standby(self, request):
        """(job's id, process) of the process that waited, which is now told the request; None where there is none for it."""
        waiting, self._standby = self._standby, None if request.command in OF_STANDBY else self._standby
        if waiting is None or request.command not in OF_STANDBY:
            return None
        job_id, process = waiting
        if process.poll() is not None:  # it has waited for too long, or was killed
            process.stdin.close()
            return None
        try:
            process.stdin.write(json.dumps(self._arguments(job_id, request)).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:  # just now
            return None
        return job_id, process

    def _begun(self, job_id, request):
        return job_id, self._open(job_id, "cltdb", *self._arguments(job_id, request), told=request.told)

    def _arguments(self, job_id, request):
        """The arguments of `cltdb`, whose spec is written."""
        path = self._path(job_id, "yaml")
        path.write_text(request.spec, encoding="utf-8")
        return [request.command, str(path), *request.options]

    def _open(self, job_id, module, *arguments, told=False, stdin=subprocess.DEVNULL):
        """A process of that module, within its supervisor."""
        environment = {**os.environ, "CLTDB_BARS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-P", "-m", module, *arguments]  # -P: modules in the project's folder are not meant
        with (
            open(self._path(job_id, "lock"), "w") as lock,
            open(self._path(job_id, "log"), "wb") as log,
            open(self._path(job_id, "out"), "wb") as out,
        ):
            took(lock, fcntl.LOCK_EX, lock.name)
            how = [str(self._path(job_id, "end")), str(GRACE_S), str(lock.fileno())]
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")), *how, *command],
                cwd=self.root,
                env=environment,
                stdin=stdin,
                stdout=log if told else out,
                stderr=log,
                pass_fds=[lock.fileno()],  # its processes have the lock from here on
                start_new_session=True,
            )

    def _follow(self, job_id, process):
        process.wait()
        self._followed.pop(job_id, None)
        if self._wants_standby:
            self.prepare()

    def _is_alive(self, job_id):
        """True while a process of a job holds its lock."""
        with open(self._path(job_id, "lock"), "a") as lock:
            return not took(lock, fcntl.LOCK_SH | fcntl.LOCK_NB, lock.name)

    def _save(self, job_id, **changes):
        """Writes a job's record anew with these changes."""
        path = self._path(job_id, "json")
        with self._lock:
            write_json(path, (read_json(path) if path.exists() else {}) | changes)

    def _make_room(self):
        """Makes room: removes the files of all but the newest jobs, and of processes that waited for a job and got none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        idle = [path.stem for path in self.folder.glob("*.lock") if not path.with_suffix(".json").exists()]
        for job_id in [*idle, *(job.job_id for job in self.all()[KEPT - 1 :])]:
            if not self._is_alive(job_id):
                for path in (
                    self._path(job_id, "json"),
                    *self.folder.glob(f"{job_id}.*"),
                ):  # the record first: without it there is no job
                    path.unlink(missing_ok=True)

    def _path(self, job_id, suffix):
        if not JOB_ID.fullmatch(job_id):  # it may come from the browser
            raise CltdbError("jobs", found=f"no job {shown(job_id)}", expected="the id of a job", do="load the page again")
        return self.folder / f"{job_id}.{suffix}"


def _new_id():
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def _is_zombie(pid):
    """True of a process that has ended and that nobody has waited for, which takes signals without an error. False where the system does not say."""
    with suppress(OSError):
        return process_stat(pid)[0] == "Z"
    return False


def _check(arguments):
    """CltdbError for arguments that no process can be given."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
            fits = len(argument) <= MAX_ARGUMENT_CHARS and "\0" not in argument
        except UnicodeEncodeError:
            fits = False
        if not fits:
            found, expected = (
                f"one of {len(argument):,} characters",
                f"text of at most {MAX_ARGUMENT_CHARS:,} characters without NUL",
            )
            raise CltdbError("an argument of a job", found=found, expected=expected, do="shorten or mend it")


def _last_lines(path):
    """The last lines of a log; of a bar, which is written over itself, what it says last."""
    with open(path, "rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - READ_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    lines = ([piece.rstrip() for piece in line.split("\r") if piece.strip()] for line in text.split("\n"))
    return [pieces[-1] for pieces in lines if pieces][-MAX_LINES:]


def _error(lines, exit_status):
    """The one line in which a command said what was wrong."""
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return said[-1] if said else WORDLESS.format(shown_end(exit_status))
