"""The panel Steer of the graph page: what it would set, what it starts, what it shows of interventions."""

import json
import re

import pytest
from test_jobs import ended
from visit import by_id, elements, opened, show, texts
from worlds import capitals_experiment as world

from cltdb.errors import CltdbError
from dashboards import jobs, urls, work
from dashboards.graph import ids, steer, steering

within_app = pytest.mark.usefixtures("within_app")
FEATURE = {"kind": "feature", "string": "is", "text": None, "own": None}
NODES = {
    1: {**FEATURE, "node_id": 1, "layer": 0, "feature": 7, "position": 3},
    2: {**FEATURE, "own": "mine", "node_id": 2, "layer": 2, "feature": 9, "position": 5},
    3: {"node_id": 3, "kind": "error", "layer": 0, "feature": None, "position": 3, "string": "of", "text": None, "own": None},
}
STATE = {"selected": 1, "also": [3, 2], "pinned": [3], "groups": [{"id": "g", "name": world.HOSTILE, "nodes": [2, 2, 99]}]}


def test_features_of_the_selection_of_pins_and_of_groups_can_be_set():
    found = steer.targets(STATE, NODES)
    assert [(name, node_ids) for name, _, node_ids in found] == [("selection", [1, 2]), ("group g", [2])]
    assert steer.targets(None, NODES) == [] and steer.targets(STATE | {"selected": None, "also": [], "groups": []}, NODES) == []


@pytest.mark.parametrize(
    "operation, value, expected, said",
    [
        ("ablate", 3, ("set", 0.0), "ablated"), ("negate", None, ("scale", -1.0), "times −1"), ("double", 9, ("scale", 2.0), "times 2"),
        ("scale", -2, ("scale", -2), "times −2"), ("set", 2.5, ("set", 2.5), "set to 2.5"),
    ],
)  # fmt: skip
def test_operations(operation, value, expected, said):
    assert steer.settings([1], operation, value, NODES) == [[0, 7, 3, *expected]]
    assert steer.said([0, 7, 3, *expected]) == said


def test_of_two_settings_of_a_feature_at_a_place_the_later_one_counts():
    first, second = steer.settings([1, 2], "ablate", None, NODES), steer.settings([1], "double", None, NODES)
    assert steer.merged(first, second) == [second[0], first[1]] and steer.merged(None, first) == first
    said = texts(steer.changes(steer.merged(first, second), NODES))
    assert "L0 · 7 @ is  times 2" in said and "mine @ is  ablated" in said


@within_app
def test_what_is_asked_for_is_one_command():
    settings = [[2, 7, 5, "set", 0.0], [0, 1, None, "scale", -1.5], [0, 3, 4, "set", 1e-7]]
    asked = work.request("intervene", {"graph_id": world.GRAPH, "settings": settings, "mode": "free", "generate": 3})
    given = ("--feature=2:7@5=0", "--feature=0:1@*=x-1.5", "--feature=0:3@4=1e-07")
    assert asked.options == (f"--graph={world.GRAPH}", "--mode=free", "--generate=3", "--json", *given)
    assert (asked.command, asked.spec) == ("intervene", "name: toy") and "The capital of France is" in asked.title


@within_app
@pytest.mark.parametrize(
    "fields",
    [
        {"settings": []}, {"settings": None}, {"settings": [[0, 1, 2, "set", None]]}, {"settings": [[0, 1, 2, "set", float("nan")]]},
        {"settings": [[0, 1, 2, "rm", 1]]}, {"settings": [[0, "1@*=0 --x", 2, "set", 1]]}, {"settings": [[0, 1]]}, {"settings": ["0:1@2=0"]},
        {"settings": [[-1, 1, 2, "set", 0]]}, {"mode": "--help"}, {"generate": -1}, {"generate": 10**6}, {"graph_id": "../x"}, {"graph_id": None},
    ],
)  # fmt: skip
def test_what_the_panel_does_not_ask_for_is_refused(fields):
    with pytest.raises(CltdbError):
        work.request("intervene", {"graph_id": world.GRAPH, "settings": [[2, 7, 5, "set", 0.0]]} | fields)


@within_app
def test_an_intervention_shows_what_was_measured_beside_what_was_predicted():
    [shown, _] = steering.results(world.GRAPH)
    said = texts(shown)
    assert "Paris 92 % → 21 %, now Berlin 70 %" in said and "free" in said and "ablated" in said
    rows = [re.sub(r"\s+", " ", texts(part)) for part in _tagged(shown, "Tr")]
    assert rows[1:] == ["Paris 92 % → 21 % −4 −6.5", "Berlin 5 % → 70 % +1 –"]
    assert world.HOSTILE in said and "1.5 → 0 (predicted 0)" in said
    [linked] = {part["data-node"] for part in elements(shown) if part.get("data-node")}
    assert steering._nodes(world.GRAPH)[int(linked)]["feature"] == world.CAPITALS[1], "the other feature is no node of the graph"


def _tagged(part, name):
    """The elements of one kind in a page, as they stand."""
    found = [part] if type(part).__name__ == name else []
    children = getattr(part, "children", part if isinstance(part, list | tuple) else None)
    return found + [
        one for child in (children if isinstance(children, list | tuple) else [children]) if child for one in _tagged(child, name)
    ]


def test_numbers_that_are_not_known_are_dashes_and_those_next_to_nothing_zero():
    logit = {"token": 1, "string": "x", "before": 1.0, "after": 1.0 - 1e-12, "predicted": 3.0, "probability_before": None}
    row = {"settings": [{"layer": 0, "feature": 7, "position": 3, "operation": "set", "value": 1.0}], "mode": "constrained"}
    row |= {"logits": [logit | {"probability_after": None}], "text_without": None, "text_with": None}
    said = texts(steer.intervention(row, [], NODES, is_open=False))
    assert "– → –" in said and " 0 +2" in said and "set to 1" in said
    assert "L0 · 7 @ is set to 1" in texts(steer.intervention(row | {"logits": None}, [], NODES, is_open=False))
    assert "0:7 set to 1" in texts(steer.intervention(row | {"logits": None}, [], {}, is_open=False))


def call(client, outputs, changed, inputs, state):
    """What the server answers to a callback of the panel; inputs, state: (id, property, value), in lists where ids are patterns."""

    def spelled(part):
        return (
            [spelled(one) for one in part]
            if isinstance(part, list)
            else dict(zip(("id", "property", "value"), part, strict=True))
        )

    output = "..".join(["", "...".join(f"{name}.{prop}" for name, prop in outputs), ""])
    asked = {"output": output, "outputs": [{"id": name.split("@")[0], "property": prop.split("@")[0]} for name, prop in outputs]}
    asked |= {"inputs": [spelled(one) for one in inputs], "state": [spelled(one) for one in state], "changedPropIds": [changed]}
    answer = client.post("/_dash-update-component", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json["response"]


def run(client, *, target="selection", listed=(), headers=None):
    state = STATE | {"graph_id": world.GRAPH, "selected": capitals_node(), "also": [], "pinned": []}
    states = [(steering.CHANGES, "data", list(listed)), (ids.STATE, "data", state), (steering.TARGET, "value", target)]
    states += [(steering.OPERATION, "value", "ablate"), (steering.VALUE, "value", None), (steering.MODE, "value", "free")]
    states += [(steering.GENERATE, "value", 0), (ids.SELECT, "value", world.GRAPH)]
    outputs = [(steering.MESSAGE, "children"), (steering.TICK, "disabled")]
    return call(client, outputs, f"{steering.RUN}.n_clicks", [(steering.RUN, "n_clicks", 1), [], []], states)[steering.MESSAGE][
        "children"
    ]


def capitals_node():
    return _place_of()[(*world.CAPITALS, 5)]


def _place_of():
    nodes = world.graph_nodes(3)
    return {(row["layer"], row["feature"], row["position"]): i for i, row in enumerate(nodes) if row["kind"] == "feature"}


def busy(_graph_id):
    raise CltdbError("database", found="a writer", expected="none", do="wait")


def test_the_button_starts_a_job_which_the_panel_follows(local, monkeypatch):
    there = local.application.config[jobs.JOBS]
    assert "0 features" in texts(run(local, target="pinned")) and not there.all()
    assert run(local) is None
    [job] = there.all()
    assert (job.kind, job.fields["settings"], job.fields["graph_id"]) == (
        "intervene",
        [[*world.CAPITALS, 5, "set", 0.0]],
        world.GRAPH,
    )
    assert "model" in ended(there, job.job_id).error, "its spec names no model"
    outputs = [(steering.JOBS, "children"), (steering.STORED, "children"), (steering.SEEN, "data"), (steering.TICK, "disabled")]
    duplicate = next(
        one["output"] for one in local.get("/_dash-dependencies").json if one["output"].startswith(f"..{steering.JOBS}.")
    ).split("...")[-1]
    outputs[-1] = (steering.TICK, duplicate.removeprefix(f"{steering.TICK}.").rstrip("."))
    states = [(steering.SEEN, "data", None), (ids.SELECT, "value", world.GRAPH)]
    inputs = [(steering.TICK, "n_intervals", 1), (steering.TAB, "n_clicks", None)]
    with monkeypatch.context() as changed:
        changed.setattr(steering, "results", busy)
        told = call(local, outputs, f"{steering.TICK}.n_intervals", inputs, states)
        assert "a writer" in json.dumps(told[steering.STORED]) and steering.SEEN not in told, "it is asked for again"
    told = call(local, outputs, f"{steering.TICK}.n_intervals", inputs, states)
    assert "failed" in json.dumps(told[steering.JOBS]) and "Berlin" in json.dumps(told[steering.STORED])
    assert told[steering.TICK]["disabled"] and told[steering.SEEN]["data"] == {"graph_id": world.GRAPH, "finished": []}


def test_elsewhere_the_panel_shows_and_starts_nothing(database, local):
    assert "this machine alone" in json.dumps(run(opened(database)))
    found = by_id(show(database, urls.graph_url(world.GRAPH), client=local))
    assert found[steering.RUN] and found[steering.MODE]["value"] in work.MODES
    assert {option["value"] for option in found[steering.MODE]["options"]} == set(work.MODES)
