"""The page Ask and the table of what may be started."""

import json

import pytest
from test_jobs import ended, job
from visit import by_id, elements, opened, show, texts
from worlds import capitals_experiment as world
from worlds import projects

from cltdb.__main__ import main
from cltdb.errors import CltdbError
from dashboards import job_cards, jobs, urls, work
from dashboards.graph import steering
from dashboards.jobs import Jobs
from dashboards.pages import ask

within_app = pytest.mark.usefixtures("within_app")


@within_app
def test_a_prompt_is_one_argument_and_the_spec_one_of_the_database():
    prompt = "--set x=1; rm -rf ~ ${HOME} `id`"
    asked = work.request("attribute", {"prompt": prompt, "dict_id": world.DICT})
    assert (asked.command, asked.options, asked.spec) == ("attribute", (f"--prompt={prompt}", "--json"), "name: toy")
    assert asked.title == prompt and asked.fields == {"prompt": prompt, "dict_id": world.DICT}
    more = {"target": "-x", "foil": "--y=z", "node_threshold": 0.5, "edge_threshold": 1, "max_features": 40}
    options = work.request("attribute", {"prompt": "x", "dict_id": world.DICT} | more).options[2:]
    sets = tuple(f"--set=attribute.{text}" for text in ("node_threshold=0.5", "edge_threshold=1.0", "max_features=40"))
    assert options == ("--target=-x", "--foil=--y=z", *sets)


@within_app
@pytest.mark.parametrize(
    "kind, fields",
    [
        ("attribute", {"prompt": ""}), ("attribute", {"prompt": " "}), ("attribute", {"prompt": None}), ("attribute", {"prompt": ["x"]}),
        ("attribute", {"dict_id": "../x.yaml"}), ("attribute", {"dict_id": None}), ("attribute", {"target": 3}),
        ("attribute", {"node_threshold": 1.5}), ("attribute", {"node_threshold": "0.5, x: 1"}), ("attribute", {"max_features": 2.5}),
        ("attribute", {"max_features": True}), ("attribute", {"shell": "x"}), ("rm", {}), ("explain", {"limit": 0}),
        ("explain", {"where": ["x"]}), ("run", {"spec": "dictionary:../x"}), ("run", {"spec": f"dictionary:{world.DICT}", "sets": ["x"]}),
    ],
)  # fmt: skip
def test_what_the_forms_do_not_ask_for_is_refused(kind, fields):
    given = (
        {"prompt": "x", "dict_id": world.DICT} if kind == "attribute" else {"dict_id": world.DICT} if kind == "explain" else {}
    )
    with pytest.raises(CltdbError):
        work.request(kind, given | fields)


@within_app
def test_explaining_begins_with_an_estimate_and_a_run_with_a_plan():
    fields = {"dict_id": world.DICT, "where": "--layer = 1", "limit": 3}
    estimate, explain = work.request("estimate", fields), work.request("explain", fields)
    assert explain.options == ("--where=--layer = 1", "--limit=3") and estimate.options == (*explain.options, "--dry-run")
    assert estimate.fields == explain.fields == fields and explain.told and not estimate.told
    fields = {"spec": f"dictionary:{world.DICT}", "sets": ["harvest.tokens=500000"]}
    plan, run = work.request("plan", fields), work.request("run", fields)
    assert (plan.command, run.command, plan.spec) == ("plan", "run", "name: toy") and run.told
    assert plan.options == run.options == ("--set=harvest.tokens=500000",) and plan.fields == run.fields == fields
    assert work.next_step(job(kind="plan", status="finished", fields=fields)) == ("Run it", "run")
    assert work.next_step(job(kind="run", status="stopped", fields=fields)) == ("Go on", "run")
    assert work.next_step(job(kind="run", status="running", fields=fields)) is None


def test_specs_are_those_of_the_database_and_of_the_projects_files(local, tmp_path):
    projects.new(tmp_path, "name: mine\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/other.yaml").write_text("name: other\n")
    with local.application.test_request_context(
        "/", headers={"Host": "localhost"}, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}
    ):
        found = work.specs(tmp_path)
        assert (
            found["file:mine.yaml"] == "name: mine\n"
            and "file:experiments/other.yaml" in found
            and "file:cltdb.yaml" not in found
        )
        assert "name: toy" in found.values() and work.request("run", {"spec": "file:mine.yaml"}).spec == "name: mine\n"
        for name in ("file:../x.yaml", "file:cltdb.yaml", "mine.yaml", None, ["file:mine.yaml"]):
            with pytest.raises(CltdbError):
                work.request("run", {"spec": name})


def test_a_card_shows_how_far_a_job_is_and_leads_to_what_it_made():
    running = job_cards.job_card(job(), on=urls.ASK)
    finished = job_cards.job_card(job(status="finished", output='{"graph_id": "g 1"}'), on=urls.ASK)
    assert "50%" in texts(running) and "attribute 50 %" in texts(running) and "1.5 s" in texts(running)
    assert world.HOSTILE in texts(running)
    of_job = {"job": "20260101-000000-123456", "on": urls.ASK}
    assert [part["id"] for part in elements(running) if part.get("id")] == [{"type": job_cards.STOP, **of_job}]
    assert "/graph/g%201" in [part.get("href") for part in elements(finished)] and not by_id(finished)
    for output in ("", "[]", "{}", "null", "no JSON"):
        assert work.made(job(status="finished", output=output)) == []
    plan = job_cards.job_card(
        job(kind="plan", fields={"spec": "x"}, status="finished", output="train\trun\tnever run"), on=urls.ASK
    )
    assert "never run" in texts(plan) and "Run it" in texts(plan)
    assert [part["id"] for part in elements(plan) if part.get("id")] == [{"type": job_cards.GO, **of_job}]


@pytest.mark.parametrize("place", [urls.ASK, steering.PLACE])
def test_the_buttons_of_cards_are_those_that_their_page_answers(local, place):
    asked = [
        one
        for one in local.get("/_dash-dependencies").json
        if "job-stop" in str(one["inputs"]) and f'"{place}"' in str(one["inputs"])
    ]
    assert len(asked) == 1
    patterns = [json.loads(one["id"]) for one in asked[0]["inputs"] if one["id"].startswith("{")]
    shown = [job_cards.job_card(job(status=status, fields={"x": 1}), on=place) for status in ("running", "failed")]
    found = [part["id"] for card in shown for part in elements(card) if isinstance(part.get("id"), dict)]
    assert [one | {"job": ["ALL"]} for one in found] == patterns


@pytest.mark.parametrize("url", [urls.ASK, urls.ATTRIBUTE])
def test_the_page_is_filled_in_by_its_address(database, local, url):
    fields = f"?dict_id={world.OTHER_DICT}&prompt=a+b&target=c&where=layer+%3D+1&form=explain"
    page = show(database, url, fields, client=local)
    found = by_id(page)
    assert world.DICT in found[ask.DICT_SELECT]["options"] and found[ask.PROMPT]["value"] == "a b"
    assert found[ask.DICT_SELECT]["value"] in found[ask.DICT_SELECT]["options"]
    assert (found[ask.TARGET]["value"], found[ask.WHERE]["value"]) == ("c", "layer = 1")
    assert [part["open"] for part in elements(page) if "open" in part] == [False, True, False, False]


def test_pages_that_others_reach_start_nothing(database):
    assert "this machine alone" in texts(show(database, urls.ASK))
    assert "this machine alone" in press(opened(database), ask.ATTRIBUTE_BUTTON).text


def press(client, button, *, of_jobs=(), headers=None, beside=None, **values):
    """What the page answers to a button that was pressed; `of_jobs`: (id, times pressed) of the buttons of jobs that are there; `beside`: one that
    calls too."""
    values = {ask.PROMPT: "x", ask.DICT_SELECT: world.DICT} | values
    forms = [{"id": name, "property": "n_clicks", "value": int(name == button)} for name in ask.BUTTONS]
    jobs_of = [
        [{"id": name, "property": "n_clicks", "value": times} for name, times in of_jobs if name["type"] == kind]
        for kind in (job_cards.STOP, job_cards.GO)
    ]
    inputs = [*forms, {"id": ask.PROMPT, "property": "n_submit", "value": None}, *jobs_of]
    state = [{"id": name, "property": "value", "value": values.get(name)} for name in ask.FIELDS]
    named = [
        one if isinstance(one, str) else json.dumps(one, separators=(",", ":"), sort_keys=True) for one in (beside, button) if one
    ]
    changed = [f"{one}.n_clicks" for one in named]
    outputs = [{"id": ask.MESSAGE, "property": "children"}, {"id": ask.TICK, "property": "disabled"}]
    output = f"..{ask.MESSAGE}.children...{ask.TICK}.disabled.."
    asked = {"output": output, "outputs": outputs, "inputs": inputs, "state": state, "changedPropIds": changed}
    return client.post("/_dash-update-component", json=asked, headers=headers)


def said(answer):
    return answer.json["response"][ask.MESSAGE]["children"]


def test_the_buttons_of_the_page_start_stop_and_start_again(local, monkeypatch):
    there, stopped = local.application.config[jobs.JOBS], []
    assert said(press(local, ask.ATTRIBUTE_BUTTON, **{ask.PROMPT: ""}))["props"]["className"] == "notice alarm"
    assert said(press(local, ask.ATTRIBUTE_BUTTON, **{ask.PROMPT: "a b"})) is None
    [first] = there.all()
    assert first.title == "a b" and "model" in ended(there, first.job_id).error
    monkeypatch.setattr(there, "stop", stopped.append)
    new, old = ({"type": job_cards.STOP, "job": f"20260101-000000-00000{i}", "on": urls.ASK} for i in (1, 2))
    given = press(local, new, of_jobs=[(new, None), (old, 1)])  # which has just appeared
    assert not given.json["response"] and not stopped, given.json
    press(local, old, of_jobs=[(new, None), (old, 1)])
    press(local, old, of_jobs=[(new, None), (old, 1)], beside=new)  # which has appeared as the other was pressed
    assert stopped == [old["job"]] * 2
    go = {"type": job_cards.GO, "job": first.job_id, "on": urls.ASK}
    assert said(press(local, go, of_jobs=[(go, 1)])) is None
    again, _ = there.all()
    assert (again.title, again.fields) == (first.title, first.fields) and "model" in ended(there, again.job_id).error


def test_buttons_start_nothing_for_another_machine_or_site(local):
    there = local.application.config[jobs.JOBS]
    assert (
        press(local, ask.ATTRIBUTE_BUTTON, headers={"Origin": "https://attacker.example"}).status_code != 500 and not there.all()
    )
    local.environ_base["REMOTE_ADDR"] = "10.0.0.7"
    assert "this machine alone" in press(local, ask.ATTRIBUTE_BUTTON).text and not there.all()


@pytest.mark.slow
def test_the_graph_of_a_job_is_in_the_database(tmp_path, monkeypatch):
    projects.with_dictionary(tmp_path, "attribute: {ablations: 2}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["attribute", "small.yaml", "--prompt", "The capital of France is"]) == main(["db", "rebuild"]) == 0
    there = Jobs(tmp_path / "artifacts/jobs", tmp_path)
    client = opened(tmp_path / "cltdb.duckdb", jobs=there)
    [dict_id] = by_id(show(None, urls.ASK, client=client))[ask.DICT_SELECT]["options"]
    press(client, ask.ATTRIBUTE_BUTTON, **{ask.PROMPT: "The capital of Spain is", ask.DICT_SELECT: dict_id})
    [found] = there.all()
    found = ended(there, found.job_id)
    assert found.status == "finished" and any("attribute" in line for line in found.lines), found
    [(_, href)] = work.made(found)
    assert "The capital of Spain is" in str(show(None, href, client=client))
    assert main(["db", "check"]) == main(["gc"]) == 0 and there.all() == [found], "jobs are no artifacts"
