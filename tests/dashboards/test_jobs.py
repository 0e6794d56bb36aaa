"""Work that the browser starts: jobs, and the page that attributes a prompt."""

import json
import time
from types import SimpleNamespace

import pytest
from visit import by_id, elements, opened, show, texts
from worlds import capitals_experiment as world
from worlds import projects

from cltdb.__main__ import main
from cltdb.errors import CltdbError
from dashboards import jobs
from dashboards.graph import ids
from dashboards.jobs import Job, Jobs
from dashboards.pages import attribute

SPEC = "name: tiny\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}], context: 32}\ntrain: {n_features: 16, l0: 4}\n"
PATIENCE_S = 60


def ended(work, job_id):
    """The job once it is at its end."""
    deadline = time.monotonic() + PATIENCE_S
    while (job := work.job(job_id)).status in jobs.ALIVE and time.monotonic() < deadline:
        time.sleep(0.05)
    return job


@pytest.fixture
def work(tmp_path):
    work = Jobs(tmp_path / "jobs", tmp_path)
    yield work
    work.close()


def test_a_job_runs_its_command_and_keeps_what_it_printed(work):
    job_id = work.start("plan", "--json", spec=SPEC, title="a plan")
    assert work.job(job_id).status == "running"
    job = ended(work, job_id)
    assert (job.status, job.exit_status, job.title, job.error) == ("finished", 0, "a plan", None) and job.seconds > 0
    assert '"model"' in job.output and isinstance(json.loads(job.output), dict | list)
    assert work.all() == Jobs(work.folder, work.root).all() == [job], "another server reads the same"


def test_a_job_that_fails_says_why_in_one_line(work):
    job = ended(work, work.start("attribute", "--prompt=x", spec=SPEC + "widht: 3\n", title="x"))
    assert job.status == "failed" and job.exit_status == 1 and "widht" in job.error and "expected" in job.error
    assert "\n" not in job.error and not job.error.startswith("error")
    assert "widht" in texts(attribute.job_card(job))


def test_jobs_are_few_at_once_and_can_be_stopped(tmp_path):
    work = Jobs(tmp_path / "jobs", tmp_path, max_running=1)
    job_id = work.start("run", spec=SPEC, title="a long one")
    with pytest.raises(CltdbError, match="a long one"):
        work.start("plan", spec=SPEC, title="another")
    later = Jobs(tmp_path / "jobs", tmp_path, max_running=1)  # a server that was started after the first was killed
    assert later.job(job_id).status == "running"
    with pytest.raises(CltdbError, match="at most 1"):
        later.start("plan", spec=SPEC, title="another")
    later.stop(job_id)
    assert work.job(job_id).status in ("stopping", "stopped")
    assert ended(work, job_id).status == "stopped" and work.job(job_id).error is None
    assert [job.title for job in work.all()] == ["a long one"]


def test_a_job_that_ignores_an_interruption_is_killed(work, monkeypatch):
    monkeypatch.setattr(jobs, "GRACE_S", 0.2)
    monkeypatch.setattr(jobs.os, "killpg", lambda pid, number, killpg=jobs.os.killpg: number == 2 or killpg(pid, number))
    job_id = work.start("run", spec=SPEC, title="a long one")
    work.stop(job_id)
    job = ended(work, job_id)
    assert job.status == "stopped" and job.exit_status == -9


def test_jobs_end_with_the_server(work):
    job_id = work.start("run", spec=SPEC, title="a long one")
    work.close()
    assert work.job(job_id).status == "stopped"


def test_a_job_whose_end_nobody_saw_is_lost(work):
    job_id = work.start("nothing", spec=SPEC, title="no command")
    ended(work, job_id)
    path = work.folder / f"{job_id}.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "exit_status"}))
    assert work.job(job_id).status == "lost" and "gone" in texts(attribute.job_card(work.job(job_id)))


def test_only_the_newest_jobs_are_kept(work, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 1)
    first, second = (ended(work, work.start("nothing", spec=SPEC, title=title)) for title in ("first", "second"))
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
        work.start("attribute", f"--prompt={text}", spec=SPEC, title="x")
    assert work.all() == []


@pytest.mark.usefixtures("within_app")
def test_a_prompt_is_one_argument_and_the_spec_one_of_the_database():
    started = []
    work = SimpleNamespace(start=lambda *words, **given: started.append((words, given)))
    attribute.start(work, prompt="--set x=1; rm -rf ~ ${HOME}", dict_id=world.DICT)
    words = ("attribute", "--prompt=--set x=1; rm -rf ~ ${HOME}", "--json")
    assert started == [(words, {"spec": "name: toy", "title": "--set x=1; rm -rf ~ ${HOME}"})]
    for prompt, dict_id in (("", world.DICT), (" ", world.DICT), (None, world.DICT), ("x", "../x.yaml"), ("x", None)):
        with pytest.raises(CltdbError):
            attribute.start(work, prompt=prompt, dict_id=dict_id)
    assert len(started) == 1


@pytest.mark.slow
def test_the_graph_of_a_job_is_in_the_database(tmp_path, monkeypatch):
    projects.with_dictionary(tmp_path, "attribute: {ablations: 2}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["attribute", "small.yaml", "--prompt", "The capital of France is"]) == main(["db", "rebuild"]) == 0
    work = Jobs(tmp_path / "artifacts/jobs", tmp_path)
    client = opened(tmp_path / "cltdb.duckdb", jobs=work)
    [dict_id] = by_id(show(None, "/attribute", client=client))[attribute.DICT_SELECT]["options"]
    press(client, attribute.START, prompt="The capital of Spain is", dict_id=dict_id)
    [job] = work.all()
    job = ended(work, job.job_id)
    assert job.status == "finished" and any("attribute" in line for line in job.lines), job
    choice = by_id(show(None, f"/graph/{attribute.graph_of(job)}", client=client))[ids.SELECT]
    assert choice["value"] == attribute.graph_of(job) and "The capital of Spain is" in str(choice["options"])
    assert main(["db", "check"]) == main(["gc"]) == 0 and work.all() == [job], "jobs are no artifacts"


def job(**given):
    known = {"job_id": "20260101-000000-123456", "title": world.HOSTILE, "status": "running", "seconds": 1.5, "exit_status": None}
    return Job(**{**known, "error": None, "lines": ["attribute: 50%"], "output": "", **given})


def test_a_card_shows_how_far_a_job_is_and_leads_to_its_graph():
    running, finished = attribute.job_card(job()), attribute.job_card(job(status="finished", output='{"graph_id": "g 1"}'))
    assert "attribute: 50%" in texts(running) and "1.5 s" in texts(running) and world.HOSTILE in texts(running)
    assert [part["id"]["job"] for part in elements(running) if part.get("id")] == ["20260101-000000-123456"]
    assert "/graph/g%201" in [part.get("href") for part in elements(finished)] and not by_id(finished)
    for output in ("", "[]", "{}", "null", "no JSON"):
        assert attribute.graph_of(job(output=output)) is None


@pytest.fixture
def local(database, tmp_path):
    """A test client of an app that starts work."""
    return opened(database, jobs=Jobs(tmp_path / "jobs", tmp_path))


def test_the_page_offers_dictionaries_and_is_filled_in_by_its_address(database, local):
    found = by_id(show(database, "/attribute", f"?dict_id={world.OTHER_DICT}&prompt=a+b", client=local))
    assert world.DICT in found[attribute.DICT_SELECT]["options"] and found[attribute.PROMPT]["value"] == "a b"
    assert found[attribute.DICT_SELECT]["value"] in found[attribute.DICT_SELECT]["options"]


@pytest.mark.parametrize(
    "headers, address, starts",
    [
        ({"Host": "localhost:8050"}, "127.0.0.1", True),
        ({"Host": "[::1]:8050"}, "::1", True),
        ({"Host": "127.0.0.1"}, "127.0.0.1", True),
        ({"Host": "attacker.example:8050"}, "127.0.0.1", False),
        ({"Host": "localhost:8050"}, "10.0.0.7", False),
        ({"Host": "localhost:8050", "X-Forwarded-For": "10.0.0.7"}, "127.0.0.1", False),
    ],
)
def test_work_is_started_for_this_machine_alone(local, headers, address, starts):
    app = local.application
    with app.test_request_context("/", headers=headers, environ_overrides={"REMOTE_ADDR": address}):
        assert (jobs.here() is not None) == starts
        assert ("this machine alone" in texts(attribute.layout())) != starts


def test_an_app_that_others_reach_starts_nothing(database):
    assert "this machine alone" in texts(show(database, "/attribute"))
    assert jobs.is_local("localhost") and jobs.is_local("127.0.0.1") and jobs.is_local("::1")
    assert not any(jobs.is_local(host) for host in ("0.0.0.0", "::", "", "10.0.0.7", "localhost.example"))


def press(client, button, *, prompt="x", dict_id=world.DICT, stops=()):
    """What the page answers to a button that was pressed; `stops`: (job, times pressed) of the Stop buttons that are there."""
    of_stops = [{"id": {"type": attribute.STOP, "job": job}, "property": "n_clicks", "value": value} for job, value in stops]
    inputs = [
        {"id": attribute.START, "property": "n_clicks", "value": 1},
        {"id": attribute.PROMPT, "property": "n_submit", "value": None},
        of_stops,
    ]
    state = [
        {"id": name, "property": "value", "value": value}
        for name, value in ((attribute.PROMPT, prompt), (attribute.DICT_SELECT, dict_id))
    ]
    changed = button if isinstance(button, str) else json.dumps(button, separators=(",", ":"), sort_keys=True)
    outputs = [{"id": attribute.MESSAGE, "property": "children"}, {"id": attribute.TICK, "property": "disabled"}]
    output = f"..{attribute.MESSAGE}.children...{attribute.TICK}.disabled.."
    asked = {"output": output, "outputs": outputs, "inputs": inputs, "state": state, "changedPropIds": [f"{changed}.n_clicks"]}
    return client.post("/_dash-update-component", json=asked)


def test_the_buttons_of_the_page_start_and_stop_jobs(local, monkeypatch):
    work, stopped = local.application.config[jobs.JOBS], []
    assert (
        press(local, attribute.START, prompt="").json["response"][attribute.MESSAGE]["children"]["props"]["className"]
        == "notice alarm"
    )
    assert press(local, attribute.START, prompt="a b").json["response"][attribute.MESSAGE]["children"] is None
    [job] = work.all()
    assert job.title == "a b" and "model" in ended(work, job.job_id).error
    monkeypatch.setattr(work, "stop", stopped.append)
    new, old = ("20260101-000000-000002", None), ("20260101-000000-000001", 1)
    given = press(local, {"type": attribute.STOP, "job": new[0]}, stops=[new, old])  # which has just appeared
    assert not given.json["response"] and not stopped, given.json
    press(local, {"type": attribute.STOP, "job": old[0]}, stops=[new, old])
    assert stopped == [old[0]]


def test_buttons_start_nothing_for_another_machine(database, local):
    assert "this machine alone" in press(opened(database), attribute.START).text
    work = local.application.config[jobs.JOBS]
    local.environ_base["REMOTE_ADDR"] = "10.0.0.7"
    assert "this machine alone" in press(local, attribute.START).text and not work.all()
