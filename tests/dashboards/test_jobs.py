"""Work that the browser starts: jobs, what watches them, and who may start them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import PATIENCE_S
from visit import texts
from worlds import capitals_experiment as world

from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError
from dashboards import job_cards, jobs
from dashboards.jobs import Job, Jobs, Request

SPEC = "name: tiny\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}], context: 32}\ntrain: {n_features: 16, l0: 4}\n"


def asks(command, *options, spec=SPEC, title="x", told=False):
    return Request(command, {}, command, spec, options, title, told)


def ended(work, job_id):
    """The job once it is at its end."""
    wait_for(lambda: work.job(job_id).status not in jobs.ALIVE)
    return work.job(job_id)


def wait_for(condition):
    """What `condition()` returns once that is true, or at the end of our patience."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def is_running(pid):
    """True of a process that is there and no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def work(tmp_path):
    work = Jobs(tmp_path / "jobs", tmp_path)
    yield work
    work.close()


PARENT = """
import signal, subprocess, sys, time
if sys.argv[3:] == ["stubborn"]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
print("train:  25%|##  | 1/4", file=sys.stderr, flush=True)
if sys.argv[3:] == ["ends"]:
    sys.exit(3)
time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """Jobs do not run cltdb but PARENT, which starts a child of its own session, says its id, and sleeps."""
    (tmp_path / "cltdb.py").write_text(PARENT)
    monkeypatch.setattr(jobs, "PACKAGE", str(tmp_path))


def child_of(work, job_id):
    return int(wait_for(lambda: (work.folder / f"{job_id}.out").read_text().strip()))


def test_a_job_runs_its_command_and_keeps_what_it_printed(work):
    job = ended(work, work.start(asks("plan", "--json", title="a plan")))
    assert (job.kind, job.status, job.exit_status, job.title, job.error) == ("plan", "finished", 0, "a plan", None)
    assert job.seconds > 0 and '"model"' in job.output and isinstance(json.loads(job.output), dict | list)
    assert work.all() == Jobs(work.folder, work.root).all() == [job] and work.n_running() == 0, "another server reads the same"


def test_a_job_that_fails_says_why_in_one_line(work):
    job = ended(work, work.start(asks("run", spec=SPEC + "widht: 3\n", told=True)))
    assert job.status == "failed" and job.exit_status == 1 and "widht" in job.error and "expected" in job.error
    assert "\n" not in job.error and not job.error.startswith("error")
    assert "widht" in texts(job_cards.job_card(job, on="ask"))


@pytest.mark.usefixtures("parent")
def test_jobs_are_few_at_once_and_can_be_stopped_with_all_they_started(tmp_path):
    work = Jobs(tmp_path / "jobs", tmp_path, max_running=1)
    job_id = work.start(asks("run", title="a long one"))
    with pytest.raises(CltdbError, match="a long one"):
        work.start(asks("plan"))
    child = child_of(work, job_id)
    assert work.job(job_id).status == "running" and work.n_running() == 1
    assert is_running(child) and wait_for(lambda: work.job(job_id).progress) == ("train", 0.25)
    work.stop(job_id)
    assert work.job(job_id).status in ("stopping", "stopped")
    job = ended(work, job_id)
    assert job.status == "stopped" and job.error is None and job.progress is None and not is_running(child)
    assert [job.title for job in work.all()] == ["a long one"]


@pytest.mark.usefixtures("parent")
def test_a_job_that_ignores_an_interruption_is_killed(work, monkeypatch):
    monkeypatch.setattr(jobs, "GRACE_S", 0.2)
    job_id = work.start(asks("run", "stubborn"))
    child = child_of(work, job_id)
    work.stop(job_id)
    job = ended(work, job_id)
    assert job.status == "stopped" and job.exit_status == -9 and not is_running(child)


@pytest.mark.usefixtures("parent")
def test_what_a_failed_job_started_ends_with_it(work):
    job_id = work.start(asks("run", "ends"))
    child = child_of(work, job_id)
    job = ended(work, job_id)
    assert job.status == "failed" and "exit status 3" in job.error and not is_running(child)


@pytest.mark.usefixtures("parent")
def test_jobs_end_with_the_server(work):
    job_id = work.start(asks("run"))
    work.close()
    assert work.job(job_id).status == "stopped"


SERVER = """
import sys, time
from dashboards import jobs
jobs.PACKAGE = sys.argv[2]
work = jobs.Jobs(sys.argv[1], sys.argv[2])
print(work.start(jobs.Request("run", {}, "run", "", (), "a long one")), flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("parent")
def test_a_job_outlives_a_killed_server_and_the_next_one_can_stop_it(work, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parents[1])}
    command = [sys.executable, "-c", SERVER, str(work.folder), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        job_id = server.stdout.readline().strip()
        child = child_of(work, job_id)
        server.kill()
    assert work.job(job_id).status == "running" and is_running(child), "a killed server takes nothing with it"
    with pytest.raises(CltdbError, match="at most 1"):
        Jobs(work.folder, tmp_path, max_running=1).start(asks("plan"))
    work.stop(job_id)
    job = ended(work, job_id)
    assert job.status == "stopped" and job.exit_status is not None and not is_running(child)


@pytest.mark.usefixtures("parent")
@pytest.mark.parametrize("waited_for", [True, False], ids=["waited for", "a zombie"])
def test_a_job_whose_supervisor_was_killed_can_be_stopped_and_is_else_lost(work, monkeypatch, waited_for):
    if not waited_for:
        monkeypatch.setattr(Jobs, "_follow", lambda *_: None)
    for stop in (True, False):
        job_id = work.start(asks("run"))
        child, pid = child_of(work, job_id), json.loads((work.folder / f"{job_id}.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda pid=pid: not is_running(pid) and not (waited_for and Path(f"/proc/{pid}").exists()))
        assert work.job(job_id).status == "running", "the command is there still"
        work.stop(job_id) if stop else os.killpg(pid, signal.SIGKILL)
        assert ended(work, job_id).status == ("stopped" if stop else "lost")
        os.kill(child, signal.SIGKILL)
    assert "nobody saw how" in texts(job_cards.job_card(work.job(job_id), on="ask"))


STANDBY = """
import json, sys
line = sys.stdin.readline()
print("arguments", json.loads(line)[0]) if line else None
"""


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """Jobs of which one is waited for; the process that waits prints what it is told, the others print nothing."""
    (tmp_path / "cltdb").mkdir()
    for name, text in {"__init__": "", "__main__": "", "standby": STANDBY}.items():
        (tmp_path / "cltdb" / f"{name}.py").write_text(text)
    monkeypatch.setattr(jobs, "PACKAGE", str(tmp_path))
    waiting = Jobs(tmp_path / "jobs", tmp_path, standby=True)
    yield waiting
    waiting.close()


def test_a_process_that_waits_takes_the_next_job_of_the_model_and_another_waits_after_it(waiting):
    waiting.prepare()
    waiting.prepare()
    first_id, first = waiting._standby
    assert waiting.all() == [] and waiting.n_running() == 0, "it is no job yet"
    assert ended(waiting, waiting.start(asks("plan"))).output == "" and waiting._standby == (first_id, first)
    job_id = waiting.start(asks("intervene"))
    job = ended(waiting, job_id)
    assert (job_id, job.status, job.output) == (first_id, "finished", "arguments intervene\n") and 0 < job.seconds < PATIENCE_S
    assert [one.kind for one in waiting.all()] == ["intervene", "plan"], "the newest first, whenever its process began"
    assert wait_for(lambda: waiting._standby) and waiting._standby[0] != first_id
    waiting._standby[1].kill()
    waiting._standby[1].wait()
    assert ended(waiting, waiting.start(asks("intervene"))).output == "", "where it is gone the job has a process of its own"


def test_a_process_that_waits_ends_with_the_server_and_leaves_no_files(waiting):
    waiting.prepare()
    job_id, process = waiting._standby
    waiting.close()
    assert process.poll() is not None and not waiting._is_alive(job_id)
    waiting.start(asks("plan"))
    assert not [path for path in waiting.folder.glob("*") if path.stem == job_id]


def test_only_the_newest_jobs_are_kept(work, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 1)
    first, second = (ended(work, work.start(asks("nothing", title=title))) for title in ("first", "second"))
    assert work.all() == [second] and not list(work.folder.glob(f"{first.job_id}*"))


def test_a_log_is_read_from_its_end_and_a_bar_as_it_stands(tmp_path):
    path = tmp_path / "log"
    path.write_text(
        "x" * 100_000 + "\nfirst\n\rattribute: 0%\rattribute: 50%\r        \r\n" + "".join(f"line {i}\n" for i in range(5))
    )
    lines = jobs._last_lines(path)
    assert lines[-7:] == ["first", "attribute: 50%", *(f"line {i}" for i in range(5))] and sum(map(len, lines)) < 20_000


@pytest.mark.parametrize("job_id", ["", "../../etc/passwd", "20260101-000000-123456/..", "x" * 5000])
def test_a_job_is_no_path(work, job_id):
    for ask in (work.job, work.stop):
        with pytest.raises(CltdbError, match="jobs"):
            ask(job_id)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 30_000])
def test_what_no_process_can_be_given_is_refused(work, text):
    with pytest.raises(CltdbError, match="an argument"):
        work.start(asks("attribute", f"--prompt={text}"))
    assert work.all() == []


def job(**given):
    known = {"job_id": "20260101-000000-123456", "kind": "attribute", "fields": {}, "title": world.HOSTILE, "status": "running"}
    known |= {"seconds": 1.5, "exit_status": None, "error": None, "lines": ["attribute:  50%|█ | 1/2"], "output": ""}
    return Job(**known | given)


@pytest.mark.parametrize(
    "headers, address, starts",
    [
        ({"Host": "localhost:8050"}, "127.0.0.1", True),
        ({"Host": "[::1]:8050"}, "::1", True),
        ({"Host": "127.0.0.1"}, "127.0.0.1", True),
        ({"Host": "localhost:8050", "Origin": "http://localhost:8050"}, "127.0.0.1", True),
        ({"Host": "localhost:8050", "Origin": "http://localhost:9000"}, "127.0.0.1", False),
        ({"Host": "localhost:8050", "Origin": "https://attacker.example"}, "127.0.0.1", False),
        ({"Host": "localhost:8050", "Origin": "null"}, "127.0.0.1", False),
        ({"Host": "attacker.example:8050"}, "127.0.0.1", False),
        ({"Host": "localhost:8050"}, "10.0.0.7", False),
        ({"Host": "localhost:8050", "X-Forwarded-For": "10.0.0.7"}, "127.0.0.1", False),
    ],
)
def test_work_is_started_for_this_machine_alone(local, headers, address, starts):
    with local.application.test_request_context("/", headers=headers, environ_overrides={"REMOTE_ADDR": address}):
        assert (jobs.here() is not None) == starts
    assert jobs.is_local("localhost") and jobs.is_local("127.0.0.1") and jobs.is_local("::1")
    assert not any(jobs.is_local(host) for host in ("0.0.0.0", "::", "", "10.0.0.7", "localhost.example"))


def test_the_masthead_counts_the_jobs_that_run(local, monkeypatch):
    with local.application.test_request_context(
        "/", headers={"Host": "localhost"}, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}
    ):
        assert job_cards.count(0) is None
        monkeypatch.setattr(Jobs, "n_running", lambda _: 2)
        assert "2 jobs" in texts(job_cards.count(0))
    with local.application.test_request_context("/", environ_overrides={"REMOTE_ADDR": "10.0.0.7"}):
        assert job_cards.count(0) is None


def test_a_job_that_makes_room_while_all_are_listed_is_passed_over(tmp_path, monkeypatch):
    record, listed = tmp_path / "20260101-000000-000000.json", Jobs(tmp_path, tmp_path)
    write_json(record, {"title": "x", "started_at": "2026-01-01T00:00:00+00:00"})
    with pytest.raises((FileNotFoundError, CltdbError)):  # its record is there, its log is not
        listed.all()
    monkeypatch.setattr(listed, "_is_alive", lambda job_id: record.unlink())
    assert listed.all() == []
