"""What events amount to, against a model that looks at each question by itself."""

import random

import pytest

from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES, GRAPH
from cltdb.annotations.state import features_state, graph_state, history
from cltdb.errors import CltdbError

NODES, GROUPS, NAMES = range(6), ("g1", "g2", "g3"), ("Paris", "capital", "say a city")


def events_of(*operations, writer="", start=0):
    """Events a second apart."""
    return [
        {"id": f"{writer}{start + i}", "at": f"2026-01-01T00:{(start + i) // 60:02d}:{(start + i) % 60:02d}.000000+00:00"}
        | {"author": writer, GRAPH: "g", **operation}
        for i, operation in enumerate(operations)
    ]


def random_operation(rng, earlier):
    nodes, group = rng.sample(NODES, rng.randint(1, 3)), rng.choice(GROUPS)
    return rng.choice(
        [
            {"op": rng.choice(["pin", "unpin", "hide", "unhide"]), "nodes": nodes},
            {"op": "group-create", "group": group, "name": rng.choice(NAMES), "nodes": nodes},
            {"op": rng.choice(["group-add", "group-remove"]), "group": group, "nodes": nodes},
            {"op": "group-rename", "group": group, "name": rng.choice(NAMES)},
            {"op": "group-note", "group": group, "text": rng.choice(["", "why"])},
            {"op": "group-delete", "group": group},
            {"op": "label", "node": nodes[0], "text": rng.choice(["", "own"])},
            {"op": "note", "node": nodes[0], "text": rng.choice(["", "note"])},
            {"op": "place", "places": {str(nodes[0]): rng.choice([None, [1.0, 2.0]])}},
            {"op": "undo", "event": rng.choice(earlier) if earlier else "none"},
        ]
    )


# The slow model: each question is answered by looking for the last event that says something of it.


def is_undone(event, events):
    later = events[events.index(event) + 1 :]
    return any(
        one["op"] == "undo" and one["event"] == event["id"] and not is_undone(one, events) for one in events if one in later
    )


def last(events, wanted):
    """The last event in force that `wanted` holds of."""
    found = [event for event in events if wanted(event) and event["op"] != "undo" and not is_undone(event, events)]
    return found[-1] if found else None


def has_mark(events, node, on, off):
    event = last(events, lambda one: one["op"] in (on, off) and node in one["nodes"])
    return event is not None and event["op"] == on


def is_there(events, group):
    event = last(events, lambda one: one.get("group") == group and one["op"] != "group-remove")
    return event is not None and event["op"] != "group-delete"


def in_group(events, group, node):
    says = ("group-create", "group-add", "group-remove")
    event = last(events, lambda one: one.get("group") == group and one["op"] in says and node in one["nodes"])
    return event is not None and event["op"] != "group-remove"


def said(events, field, wanted):
    event = last(events, wanted)
    return event[field] if event else ""


@pytest.mark.parametrize("seed", range(40))
def test_the_state_is_what_a_look_at_each_question_finds(seed):
    rng, operations = random.Random(seed), []
    for i in range(rng.randint(1, 40)):
        operations.append(random_operation(rng, [str(n) for n in range(i)]))
    events = events_of(*operations)
    state = graph_state(rng.sample(events, len(events)) + events[:3])  # in any order, some of them twice
    assert set(state.pinned) == {node for node in NODES if has_mark(events, node, "pin", "unpin")}
    assert set(state.hidden) == {node for node in NODES if has_mark(events, node, "hide", "unhide")}
    groups = {group.id: group for group in state.groups}
    assert set(groups) == {group for group in GROUPS if is_there(events, group)}
    for key, group in groups.items():
        of = lambda *ops, key=key: lambda one: one.get("group") == key and one["op"] in ops  # noqa: E731
        assert set(group.members) == {node for node in NODES if in_group(events, key, node)}
        assert group.name == (said(events, "name", of("group-create", "group-rename")) or key)
        assert group.note == said(events, "text", of("group-note"))
    for node in NODES:
        of = lambda op, node=node: lambda one: one["op"] == op and one["node"] == node  # noqa: E731
        assert state.labels.get(node, ("",))[0] == said(events, "text", of("label"))
        assert state.notes.get(node, ("",))[0] == said(events, "text", of("note"))


@pytest.mark.parametrize("seed", range(20))
def test_two_writers_lose_nothing_of_each_other(tmp_path, seed):
    """Each works on nodes and groups of its own in a shared log, in any interleaving: its part is as if it had been alone."""
    rng = random.Random(seed)
    log, alone = Log(tmp_path, GRAPH, "g"), {}
    scripts = {}
    for writer, nodes, group in (("a", (0, 1, 2), "ga"), ("b", (3, 4, 5), "gb")):
        scripts[writer] = [
            {"op": "pin", "nodes": list(nodes)},
            {"op": "group-create", "group": group, "name": writer, "nodes": list(nodes)},
            {"op": rng.choice(["unpin", "hide"]), "nodes": [nodes[0]]},
            {"op": "group-remove", "group": group, "nodes": [nodes[1]]},
            {"op": "label", "node": nodes[2], "text": f"of {writer}"},
        ]
        alone[writer] = graph_state(Log(tmp_path, GRAPH, f"alone {writer}").append(scripts[writer]))
    for writer in rng.sample("aaaaabbbbb", 10):
        log.append([scripts[writer].pop(0)], author=writer)
    both = graph_state(log.events())
    for part in ("pinned", "hidden", "labels"):
        assert {k: v.text for k, v in getattr(both, part).items()} == {
            k: v.text for one in alone.values() for k, v in getattr(one, part).items()
        }
    assert {(g.id, g.name, g.members) for g in both.groups} == {
        (g.id, g.name, g.members) for one in alone.values() for g in one.groups
    }


def test_the_later_of_two_renames_holds_and_the_earlier_is_in_the_history():
    create = {"op": "group-create", "group": "g1", "name": "first", "nodes": [1]}
    renames = [{"op": "group-rename", "group": "g1", "name": name} for name in ("by a", "by b")]
    events = events_of(create, *renames)
    assert graph_state(events).groups[0].name == "by b"
    assert [event.get("name") for event in history(events)] == ["by b", "by a", "first"]
    taken_back = [*events, *events_of({"op": "undo", "event": "2"}, start=3)]
    assert graph_state(taken_back).groups[0].name == "by a"
    assert [event["undone"] for event in history(taken_back)] == [False, True, False, False]
    assert graph_state([*taken_back, *events_of({"op": "undo", "event": "3"}, start=4)]).groups[0].name == "by b"


def test_work_on_a_group_that_another_deleted_brings_it_back():
    create = {"op": "group-create", "group": "g1", "name": "city", "nodes": [1, 2]}
    events = events_of(create, {"op": "group-delete", "group": "g1"})
    assert graph_state(events).groups == ()
    [group] = graph_state([*events, *events_of({"op": "group-add", "group": "g1", "nodes": [3]}, start=2)]).groups
    assert (group.name, group.members) == ("city", (1, 2, 3))
    [group] = graph_state([*events, *events_of({"op": "undo", "event": "1"}, start=2)]).groups
    assert group.members == (1, 2)


def test_labels_and_lists_of_features(tmp_path):
    log = Log(tmp_path, FEATURES, "d")
    star = {"op": "star", "list": "l1", "features": [[0, 5], [1, 7]]}
    first = [{"op": "label", "layer": 0, "feature": 5, "text": "  cats\n and \u202e dogs "}]
    log.append([*first, {"op": "list-create", "list": "l1", "name": "to look at"}, star])
    log.append(
        [{"op": "unstar", "list": "l1", "features": [[0, 5]]}, {"op": "note", "layer": 1, "feature": 7, "text": "a\nb\x00"}]
    )
    state = features_state(log.events())
    assert {key: text.text for key, text in state.labels.items()} == {(0, 5): "cats and dogs"}
    assert {key: text.text for key, text in state.notes.items()} == {(1, 7): "a\nb"}
    assert [(one.name, one.members) for one in state.lists] == [("to look at", ((1, 7),))]
    log.append([{"op": "label", "layer": 0, "feature": 5, "text": " "}, {"op": "list-delete", "list": "l1"}])
    assert features_state(log.events()).labels == {} and features_state(log.events()).lists == ()


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"op": "pin"}, "nodes: found nothing"),
        ({"op": "pin", "nodes": ["1"]}, "found '1'; expected Input should be a valid integer"),
        ({"op": "pin", "nodes": [True]}, "valid integer"),
        ({"op": "pin", "nodes": [-1]}, "greater than or equal to 0"),
        ({"op": "pin", "nodes": [7]}, "found 7, which the graph does not have"),
        ({"op": "pin", "nodes": [1], "more": 1}, "Extra inputs are not permitted"),
        ({"op": "eval", "text": "x"}, "expected"),
        ({"op": "group-create", "group": "a b", "name": "x", "nodes": []}, "found 'a b'"),
        ({"op": "group-create", "group": "g", "name": " \u202e ", "nodes": []}, "a name that can be seen"),
        ({"op": "group-rename", "group": "g", "name": "x" * 10_000}, "at most 200 characters"),
        ({"op": "note", "text": "x" * 10_001}, "at most 10,000 characters"),
        ({"op": "place", "places": {"1": [float("nan"), 0.0]}}, "finite number"),
        ({"op": "pin", "nodes": [1], "id": "<b>"}, "annotation id: found '<b>'"),
        ("pin", "found 'pin'"),
    ],
)
def test_what_is_no_operation_is_refused_and_changes_nothing(tmp_path, operation, words):
    log = Log(tmp_path, GRAPH, "g")
    with pytest.raises(CltdbError, match="annotation") as error:
        log.append([{"op": "pin", "nodes": [1]}, operation], is_known=lambda node: node < 6)
    assert words in str(error.value)
    assert log.events() == []
