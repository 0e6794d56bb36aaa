"""What commands print and write, on streams and paths that are not as they should be."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import PATIENCE_S, ROOT, cltdb, in_one_form, said

from cltdb import log, output
from cltdb.__main__ import main
from cltdb.database import store
from cltdb.errors import CltdbError
from cltdb.spec import Project, find_project

COMMAND = [sys.executable, "-m", "cltdb"]
ENDLESS = "SELECT count(*) FROM range(10000000000) a, range(1000) b"
SPOOLED = "SELECT md5(md5(md5(i::VARCHAR))) FROM range(10000000000) AS t(i)"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with cltdb.yaml, a spec, a workspace and an empty database."""
    root = tmp_path_factory.mktemp("project")
    (root / "cltdb.yaml").write_text("workspace: artifacts\ndatabase: {path: cltdb.duckdb}\n")
    (root / "experiments").mkdir()
    (root / "experiments/mine.yaml").write_text("name: mine\n")
    (root / "artifacts/train/0123").mkdir(parents=True)
    with store.connect(root / "cltdb.duckdb", write=True):
        pass
    return root


def environment(**given):
    return {**os.environ, "PYTHONPATH": str(ROOT), **given}


# Files: what is there stays there


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("cltdb.duckdb", "the database"),
        ("./experiments/../cltdb.duckdb", "the database"),
        ("cltdb.duckdb.lock", "the database"),
        ("cltdb.duckdb.wal", "the database"),
        ("soft.csv", "the database"),
        ("hard.csv", "the database"),
        ("cltdb.yaml", "YAML"),
        ("experiments/mine.yaml", "YAML"),
        ("artifacts/train/0123/dictionary.json", "the workspace"),
        ("artifacts/new.csv", "the workspace"),
        ("experiments", "a folder"),
    ],
)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_answer_is_written_over_what_cltdb_needs(project, monkeypatch, capsys, target, word, overwrite):
    monkeypatch.chdir(project)
    for name, link in (("soft.csv", os.symlink), ("hard.csv", os.link)):
        if not os.path.lexists(name):
            link("cltdb.duckdb", name)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    for form in ("csv", "json", "parquet"):
        assert main(["sql", "SELECT 1 AS a", "--format", form, "-o", target, *overwrite]) == 1
        assert word in in_one_form(capsys.readouterr().err)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_file_of_the_users_is_overwritten_when_told_to_alone(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    notes = project / "notes.csv"
    notes.write_text("mine\n")
    assert main(["sql", "SELECT 1 AS a", "-o", "notes.csv"]) == 1
    assert "--overwrite" in in_one_form(capsys.readouterr().err) and notes.read_text() == "mine\n"
    assert main(["sql", "SELECT 1 AS a", "-o", "notes.csv", "--overwrite"]) == 0
    assert notes.read_text() == "a\n1\n"
    assert main(["sql", "SELECT 1 AS a", "-o", "new.csv"]) == 0 and (project / "new.csv").read_text() == "a\n1\n"


def test_a_device_is_written_to_and_stays_one(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    assert main(["sql", "SELECT 1 AS a", "-o", "/dev/null"]) == 0
    assert not Path("/dev/null").is_file() and Path("/dev/null").exists()


def test_the_names_of_a_projects_files_are_those_of_its_cltdb_yaml(tmp_path):
    project = Project(tmp_path, tmp_path / "work", tmp_path / "features.db")
    for path in ("features.db", "features.db.turn", "work/x"):
        with pytest.raises(CltdbError, match="found"):
            output.check_target(tmp_path / path, project=project, overwrite=True)
    output.check_target(tmp_path / "cltdb.duckdb", project=project, overwrite=False)


# Streams


def run(project, shell, **given):
    return subprocess.run(["bash", "-c", shell], cwd=project, capture_output=True, text=True, env=environment(**given))


SQL = f"{sys.executable} -m cltdb sql \"SELECT 'é→猫' AS a\" --format table"


def test_a_terminal_that_cannot_show_a_character_shows_its_code(project):
    done = cltdb(project, "sql", "SELECT 'é→猫' AS a", "--format", "table", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\xe9\\u2192\\u732b" in done.stdout
    failed = cltdb(project, "sql", "SELECT é→猫", PYTHONIOENCODING="ascii")
    assert "\\u732b" in said(failed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [SQL, f"{sys.executable} -m cltdb --help", f"{sys.executable} -m cltdb sql --list"])
def test_a_full_stdout_is_one_line(project, command):
    assert "standard output" in said(run(project, f"{command} > /dev/full"))


def test_a_closed_stdout_or_stdin_is_no_failure_and_its_number_goes_to_no_file(project):
    for shell in (f"{SQL} <&- >&-", f"{SQL} >&- 2>&-", f"{sys.executable} -m cltdb status >&-"):
        done = run(project, shell)
        assert done.returncode == 0 and done.stderr == "", shell
    with store.connect(project / "cltdb.duckdb") as connection:  # which nothing was printed into
        assert connection.sql("SELECT 1").fetchall() == [(1,)]


def test_a_reader_that_leaves_early_is_no_failure(project):
    done = run(project, f"set -o pipefail; {sys.executable} -m cltdb sql 'FROM range(200000)' | head -1")
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_work_that_is_done_does_not_fail_because_of_what_it_prints(project):
    done = run(project, f"{sys.executable} -m cltdb init from-here > /dev/full")
    assert done.returncode == 0 and "the work is done" in done.stderr and len(done.stderr.splitlines()) == 1
    assert (project / "experiments/from-here.yaml").is_file()


def test_a_removed_working_directory_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    assert "was removed" in said(run(gone, f"rmdir {gone}; {sys.executable} -m cltdb status"))


@pytest.mark.parametrize("arguments", ["sql $'SELECT \\xff'", "search $'caf\\xe9'", "run $'sp\\xe9c.yaml'"])
def test_arguments_in_another_encoding_are_one_line(project, arguments):
    assert "no text in utf-8" in said(run(project, f"{sys.executable} -m cltdb {arguments}"))


# Queries that are ended


def wait_for_query(process, database):
    """Waits until the process holds the database and computes."""
    deadline, clock = time.monotonic() + PATIENCE_S, Path(f"/proc/{process.pid}/stat")
    ticks = lambda: int(clock.read_text().rpartition(")")[2].split()[11])  # noqa: E731
    while is_free(database) and time.monotonic() < deadline:
        time.sleep(0.01)
    began = ticks()
    while ticks() < began + 30 and time.monotonic() < deadline:
        time.sleep(0.01)


def is_free(database):
    with open(f"{database}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("statement", "number", "status"),
    [(ENDLESS, signal.SIGINT, 130), (ENDLESS, signal.SIGTERM, 143), (SPOOLED, signal.SIGTERM, 143)],
)
def test_a_signal_ends_a_query_at_once_and_leaves_nothing(project, tmp_path, statement, number, status):
    process = subprocess.Popen(
        [*COMMAND, "sql", statement],
        cwd=project,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_query(process, project / "cltdb.duckdb")
    deadline = time.monotonic() + PATIENCE_S
    while statement == SPOOLED and not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bool(list(tmp_path.iterdir())) == (statement == SPOOLED)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    with store.connect(project / "cltdb.duckdb", write=True, timeout_s=0.1):  # it is free
        pass


def test_a_time_limit_ends_a_query(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    for query, limit, word in (
        (ENDLESS, "0.2", "longer than 0.2 s"),
        *(("SELECT 1", w, "--timeout") for w in ("0", "-1", "nan", "soon")),
    ):
        assert main(["sql", query, "--timeout", limit]) == 1 and word in in_one_form(capsys.readouterr().err)


# JSON, names, the version


def test_json_has_no_nan_and_each_name_once(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["sql", "SELECT 1 AS a, 2 AS a, 3 AS a_1, 'inf'::DOUBLE AS i", "--format", "json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == [{"a": 1, "a_2": 2, "a_1": 3, "i": None}]
    assert json.loads(output.json_text({"x": [float("-inf"), {"y": float("nan")}]})) == {"x": [None, {"y": None}]}
    assert output.unique_names(["a", "b", "a", "a"]) == ["a", "b", "a_1", "a_2"]


def test_the_version_is_that_of_the_package(project):
    from importlib.metadata import version

    assert cltdb(project, "--version").stdout.split() == ["cltdb", version("cltdb")]


def test_project_is_found(project):
    assert find_project(project).database == project / "cltdb.duckdb"


# The log of a long stage


def test_a_log_says_once_a_minute_where_a_stage_is(caplog):
    now = [0.0]
    lines = log.Lines("harvest", total=1000, unit="tokens", done=100, clock=lambda: now[0])
    with caplog.at_level(logging.INFO, logger="cltdb"):
        for seconds in (30, 59, 61, 100, 122):
            now[0] = seconds
            lines.advance(61)
    assert [record.message for record in caplog.records] == [
        "harvest: 283 of 1,000 tokens (28%), 3 a second, 4 min left",
        "harvest: 405 of 1,000 tokens (40%), 2.5 a second, 4 min left",
    ]
    assert [log.duration(seconds) for seconds in (40, 600, 7200)] == ["40 s", "10 min", "2.0 h"]


def test_off_a_terminal_progress_is_in_the_log_of_one_rank_alone(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.delenv("CLTDB_BARS", raising=False)
    with log.progress("train", total=10, unit="steps") as bar:
        assert isinstance(bar, log.Lines)
    monkeypatch.setenv("RANK", "1")
    with log.progress("train", total=10, unit="steps") as bar:
        assert type(bar) is log.Progress


def test_a_stage_says_in_a_file_how_far_it_is_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("CLTDB_BARS", raising=False)
    path, now = tmp_path / "run.progress", [0.0]
    with log.reported(path):
        with log.progress("train", total=10, unit="steps", done=2) as bar:
            assert isinstance(bar, log.Report)
            assert json.loads(path.read_text()) == {"label": "train", "total": 10, "unit": "steps", "done": 2, "per_second": None}
        report = log.Report(log.Progress(), path, clock=lambda: now[0], label="train", total=10, unit="steps", done=2)
        for seconds, n in ((1, 1), (4, 2), (5, 1)):
            now[0] = seconds
            report.advance(n, "fvu 0.1")
        said = json.loads(path.read_text())
        assert (said["done"], said["per_second"], said["note"]) == (5, 0.75, "fvu 0.1")
        report.path = tmp_path / "gone" / "run.progress"
        now[0] = 100
        report.advance()
    assert list(tmp_path.iterdir()) == [] and log.REPORT not in os.environ
