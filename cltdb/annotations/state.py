"""What the events of a log amount to: pure functions.

Events count in the order of their time, each id once. Of two that set the same thing the later holds; both stay in the log (`history`).
What is done to a group that another browser has deleted meanwhile brings the group back: a deletion too few is made again with a click.
"""

from typing import NamedTuple


class NamedSet(NamedTuple):
    """A group of nodes of a graph, or a list of features. members: node ids, or (layer, feature) pairs, in the order of their coming."""

    id: str
    name: str
    members: tuple
    note: str
    source: str
    author: str
    created_at: str


class Text(NamedTuple):
    """A label or note, who wrote it and when."""

    text: str
    author: str
    at: str


class GraphState(NamedTuple):
    """What users made of a graph. pinned, hidden: {node: `Text` without text}; labels {node: `Text`}; notes {node, or None for the graph:
    `Text`}; places {"node:<id>" or "group:<id>": [x, y]}; sg_pos: the places as another tool's file has them."""

    pinned: dict
    hidden: dict
    groups: tuple
    labels: dict
    notes: dict
    places: dict
    sg_pos: str = ""


class FeaturesState(NamedTuple):
    """What users made of the features of a dictionary. labels, notes: {(layer, feature): `Text`}; stars: {(id of a list, (layer, feature)):
    `Text` without text} of the features in lists."""

    labels: dict
    notes: dict
    lists: tuple
    stars: dict


def in_order(events):
    """The events by time, each id once."""
    ordered = sorted(events, key=lambda event: (event["at"], event["id"]))
    return list({event["id"]: event for event in reversed(ordered)}.values())[::-1]


def undone(events):
    """Ids of those ordered events that others take back."""
    taken_back = set()
    for event in reversed(events):
        if event["op"] == "undo" and event["id"] not in taken_back:
            taken_back.add(event["event"])
    return taken_back


def graph_state(events):
    """The `GraphState` of the events of one graph."""
    pinned, hidden, labels, notes, places, groups, sg_pos = {}, {}, {}, {}, {}, _Sets(), ""
    for event in _in_force(events):
        match event["op"]:
            case "pin" | "hide":
                marked = pinned if event["op"] == "pin" else hidden
                marked.update({node: _text(event) for node in event["nodes"] if node not in marked})
            case "unpin" | "unhide":
                for node in event["nodes"]:
                    (pinned if event["op"] == "unpin" else hidden).pop(node, None)
            case "label":
                _set(labels, event["node"], event)
            case "note":
                _set(notes, event.get("node"), event)
            case "place":
                places.update(event["places"])
            case "sg-pos":
                sg_pos = event["text"]
            case "group-create" | "group-add" | "group-remove" | "group-rename" | "group-note" | "group-delete":
                groups.apply(event["op"].removeprefix("group-"), event["group"], event.get("nodes", ()), event)
    placed = {key: place for key, place in places.items() if place is not None}
    return GraphState(pinned, hidden, groups.present(), labels, notes, placed, sg_pos)


def features_state(events):
    """The `FeaturesState` of the events of one dictionary."""
    labels, notes, lists, stars = {}, {}, _Sets(), {}
    verbs = {"star": "add", "unstar": "remove"}
    for event in _in_force(events):
        match event["op"]:
            case "label" | "note":
                _set(labels if event["op"] == "label" else notes, (event["layer"], event["feature"]), event)
            case "list-create" | "list-rename" | "list-delete" | "star" | "unstar":
                features = [tuple(pair) for pair in event.get("features", ())]
                for feature in features:
                    if event["op"] == "unstar":
                        stars.pop((event["list"], feature), None)
                    else:
                        stars.setdefault((event["list"], feature), _text(event))
                lists.apply(verbs.get(event["op"], event["op"].removeprefix("list-")), event["list"], features, event)
    return FeaturesState(labels, notes, lists.present(), stars)


def node_labels(state, features, nodes):
    """{node_id: a user's own label} of `nodes`, (node_id, layer, feature) triples: the node's own, else that of its feature. features: the
    `FeaturesState` of the graph's dictionary."""
    found = {node: features.labels.get((layer, feature)) for node, layer, feature in nodes if feature is not None}
    return {node: text.text for node, text in (found | state.labels).items() if text}


def history(events):
    """The events, the last first, each with `undone`: whether another takes it back."""
    ordered = in_order(events)
    taken_back = undone(ordered)
    return [event | {"undone": event["id"] in taken_back} for event in reversed(ordered)]


def _in_force(events):
    ordered = in_order(events)
    taken_back = undone(ordered)
    return [event for event in ordered if event["op"] != "undo" and event["id"] not in taken_back]


def _text(event):
    return Text(event.get("text", ""), event["author"], event["at"])


def _set(texts, key, event):
    """Sets a text; an empty one takes it away."""
    texts.pop(key, None)
    if event["text"]:
        texts[key] = _text(event)


class _Sets:
    """Named sets in the making."""

    def __init__(self):
        self._sets, self._deleted = {}, set()

    def apply(self, verb, key, members, event):
        """verb: create, add, remove, rename, note or delete."""
        if verb in ("remove", "delete"):
            if key in self._sets and verb == "delete":
                self._deleted.add(key)
            elif key in self._sets:
                gone = set(members)
                left = tuple(member for member in self._sets[key].members if member not in gone)
                self._sets[key] = self._sets[key]._replace(members=left)
            return
        self._deleted.discard(key)
        now = self._sets.get(key) or NamedSet(key, key, (), "", event.get("source", "user"), event["author"], event["at"])
        changed = {name: event[field] for name, field in (("name", "name"), ("note", "note"), ("note", "text")) if field in event}
        self._sets[key] = now._replace(members=tuple(dict.fromkeys((*now.members, *members))), **changed)

    def present(self):
        return tuple(one for key, one in self._sets.items() if key not in self._deleted)
