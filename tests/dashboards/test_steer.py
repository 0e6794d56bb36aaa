"""The panel Steer of the graph page: what it would set, what it starts, what it shows of interventions."""

import json
import re

import pytest
from test_jobs import ended
from visit import by_id, elements, opened, show, texts
from worlds import capitals_experiment as world

from cltdb.errors import CltdbError
from dashboards import jobs, steered, urls, work
from dashboards.feature import steering as of_feature
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
    assert steered.said([0, 7, 3, *expected]) == said


def test_of_two_settings_of_a_feature_at_a_place_the_later_one_counts():
    first, second = steer.settings([1, 2], "ablate", None, NODES), steer.settings([1], "double", None, NODES)
    assert steer.merged(first, second) == [second[0], first[1]] and steer.merged(None, first) == first
    said = texts(steer.changes(steer.merged(first, second), steer.naming(NODES)))
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
    said = texts(in_full(row, NODES))
    assert "– → –" in said and " 0 +2" in said and "set to 1" in said
    assert "L0 · 7 @ is set to 1" in texts(in_full(row | {"logits": None}, NODES))
    assert "0:7 set to 1" in texts(in_full(row | {"logits": None}, {}))


def in_full(row, nodes):
    chosen, named = steered.settings_of(row), steer.naming(nodes)
    said = {"title": steer.title(chosen, named), "changes": steer.changes(chosen, named)}
    return steered.intervention(row, [], named, is_open=False, **said)


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


# The same on the page of a feature.

KEY = {"dict_id": world.DICT, "layer": world.CAPITALS[0], "feature": world.CAPITALS[1]}
WHAT = {"dict_id": world.DICT, "prompt": "of --x=$(y)", "settings": [[2, 7, None, "scale", -2]], "mode": "free", "generate": 8}


@within_app
def test_a_feature_is_set_on_a_prompt_of_ones_own():
    asked = work.request("intervene", WHAT)
    given = ("--prompt=of --x=$(y)", "--no-prediction", "--mode=free", "--generate=8", "--json", "--feature=2:7@*=x-2")
    assert (asked.options, asked.fields, asked.spec) == (given, WHAT, "name: toy")
    assert work.request("intervene", WHAT | {"settings": [[2, 7, -1, "set", 0]]}).options[-1] == "--feature=2:7@-1=0"
    for wrong in ({"prompt": " "}, {"prompt": None}, {"dict_id": "gone"}, {"settings": [[-2, 7, 1, "set", 0]]}, {"mode": "x"}):
        with pytest.raises(CltdbError):
            work.request("intervene", WHAT | wrong)


def test_the_first_prompt_ends_where_the_feature_fires_most():
    window = {"strings": ["The", "capital", None, "Spain", "is"], "position": 9, "start": 6}
    assert of_feature.first_prompt([window, window]) == "The capital  Spain"
    assert of_feature.first_prompt([window | {"strings": [" The", " cap", "ital"], "position": 8}]) == "The capital"
    begun = window | {"strings": ["<bos>", "The", "capital"], "tokens": [0, 5, 6], "position": 8}
    assert of_feature.first_prompt([begun], bos=0) == "The capital"
    assert of_feature.first_prompt([begun], bos=6) == of_feature.first_prompt([begun]) == "<bos> The capital"
    assert of_feature.first_prompt([begun | {"start": 0, "position": 2}]) == "The capital", (
        "what begins a sequence stands before any text"
    )
    assert of_feature.first_prompt([]) == of_feature.first_prompt([window | {"strings": None}]) == ""


@pytest.mark.parametrize(
    "positions, said",
    [([None], "at all positions"), ([3], "at position 3"), ([2, 1, 3], "at positions 1 to 3"), ([1, 4], "at 2 positions")],
)
def test_one_change_at_several_positions_is_said_once(positions, said):
    settings = [[0, 7, position, "scale", -2.0] for position in positions]
    [(*_, found, _operation, _value), other] = steered.grouped([*settings, [0, 7, 9, "set", -2.0]])
    assert steered.where(found) == said and other == [0, 7, [9], "set", -2.0]


def follow(client):
    names = [of_feature.JOBS, of_feature.STORED, of_feature.SEEN]
    every = (one["output"] for one in client.get("/_dash-dependencies").json)
    tick = (
        next(one for one in every if one.startswith(f"..{of_feature.JOBS}.")).split("...")[-1].removeprefix(f"{of_feature.TICK}.")
    )
    outputs = [(names[0], "children"), (names[1], "children"), (names[2], "data"), (of_feature.TICK, tick.rstrip("."))]
    inputs = [(of_feature.TICK, "n_intervals", None), (of_feature.OPENED, "n_clicks", 1)]
    states = [(of_feature.SEEN, "data", None), (of_feature.MEANT, "data", {"key": KEY, "values": {}})]
    return call(client, outputs, f"{of_feature.OPENED}.n_clicks", inputs, states)


def press(client):
    states = {
        "PROMPT": "The capital of France is",
        "OPERATION": "ablate",
        "VALUE": None,
        "POSITION": None,
        "MODE": "free",
        "GENERATE": 8,
    }
    state = [(getattr(of_feature, name), "value", value) for name, value in states.items()]
    outputs = [(of_feature.MESSAGE, "children"), (of_feature.TICK, "disabled")]
    inputs = [(of_feature.RUN, "n_clicks", 1), [], []]
    state.append((of_feature.MEANT, "data", {"key": KEY, "values": {}}))
    return call(client, outputs, f"{of_feature.RUN}.n_clicks", inputs, state)[of_feature.MESSAGE]["children"]


def test_a_feature_is_set_from_its_page_and_what_was_stored_is_shown(local, database):
    there = local.application.config[jobs.JOBS]
    assert press(local) is None
    [job] = there.all()
    assert job.fields["settings"] == [[*world.CAPITALS, None, "set", 0.0]] and job.fields["dict_id"] == world.DICT
    assert "model" in ended(there, job.job_id).error, "its spec names no model"
    told = follow(local)
    assert "failed" in json.dumps(told[of_feature.JOBS])
    said = texts(told[of_feature.STORED]["children"])
    assert "ablated at position 5:  The capital of France is" in said and "now Berlin 70 %" in said and world.HOSTILE in said
    links = {one.get("href") for one in elements(told[of_feature.STORED]["children"])}
    assert {urls.feature_url(world.DICT, 3, 29), urls.graph_url(world.GRAPH)} <= links
    assert urls.feature_url(*KEY.values()) not in links, "what was set itself is not said to have changed most"
    elsewhere = opened(database)
    assert "this machine alone" in json.dumps(press(elsewhere)) and "Berlin" in json.dumps(follow(elsewhere)[of_feature.STORED])
    assert work.made(job._replace(status="finished", output="{}")) == [("See what it did", urls.feature_url(*KEY.values()))]


def test_what_the_form_of_a_feature_offers_first(database):
    found = by_id(show(database, urls.feature_url(*KEY.values())))
    values = found[of_feature.MEANT]["data"]["values"]
    assert (
        found[of_feature.VALUE]["value"] == values["set"] > 0 > values["scale"] and found[of_feature.OPERATION]["value"] == "set"
    )
    assert found[of_feature.PROMPT]["value"] and not found[of_feature.STORED].get("children"), "asked once it is opened"
    dead = by_id(show(database, urls.feature_url(world.DICT, *world.DEAD)))
    assert dead[of_feature.PROMPT]["value"] == "" and dead[of_feature.MEANT]["data"]["values"]["set"] is None
