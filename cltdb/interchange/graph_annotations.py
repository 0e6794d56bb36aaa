"""What users made of a graph, in its JSON file: qParams (pinnedIds, supernodes, sg_pos), which the frontends show, and what these have no place
for under the key `cltdb`. Both ways: `view` and `extras` write, `operations` reads.
"""

import logging

from cltdb.annotations.operations import FEATURES, GRAPH, MAX_NAME, MAX_NOTE, clean, one_line
from cltdb.annotations.state import NamedSet, features_state, graph_state, node_labels
from cltdb.database.annotated import events_of

log = logging.getLogger(__name__)


def made_by_users(db, workspace, *, graph_id, dict_id, nodes):
    """(the `GraphState` of a graph, {node_id: a user's label}). db: a `Database`, whose groups of artifacts are taken where users made none;
    workspace: where the logs are, None: what of them is in the database counts; nodes: rows of table nodes."""
    of = {"workspace": workspace, "query": db.query}
    made = graph_state(events_of(GRAPH, graph_id, **of))
    features = features_state(events_of(FEATURES, dict_id, **of) if dict_id is not None else [])
    if not made.groups:
        stored = (
            "SELECT supernode_id, coalesce(name, '') AS name, node_ids FROM supernodes WHERE graph_id = $g AND artifact_key IS NOT NULL"
            " ORDER BY created_at, len(supernode_id), supernode_id"
        )
        rows = db.sql(stored, {"g": graph_id}).rows()
        groups = (NamedSet(key, name, tuple(members), "", "proposal", "", "") for key, name, members in rows)
        made = made._replace(groups=tuple(groups))
    return made, node_labels(made, features, [(node["node_id"], node["layer"], node["feature"]) for node in nodes])


def view(made, ids, clicked=None):
    """qParams. ids: {node_id: id in the file} of the nodes in it. The frontends count all members of groups as pinned."""
    groups = [[group.name, *(ids[node] for node in group.members if node in ids)] for group in made.groups]
    groups = [group for group in groups if len(group) > 1]
    pinned = [ids[node] for node in made.pinned if node in ids]
    return {
        "linkType": "both",
        "pinnedIds": list(dict.fromkeys([*pinned, *(member for group in groups for member in group[1:])])),
        "clickedId": ids.get(clicked, ""),
        "supernodes": groups,
        "sg_pos": made.sg_pos,
    }


def extras(made, ids):
    """What users made and qParams has no place for; {} where they made nothing."""
    texts = {
        name: {ids[node]: text.text for node, text in getattr(made, name).items() if node in ids} for name in ("labels", "notes")
    }
    found = {
        "pinned": [ids[node] for node in made.pinned if node in ids],
        "hidden": [ids[node] for node in made.hidden if node in ids],
        **texts,
        "note": made.notes[None].text if None in made.notes else "",
        "group_notes": {group.name: group.note for group in made.groups if group.note},
    }
    found = {name: value for name, value in found.items() if value}
    return {"annotations": found} if found else {}


def left_out(made, nodes, kept):
    """How many of the `nodes` (ids) that users pinned or grouped are not among those that are `kept`."""
    named = {*made.pinned, *(node for group in made.groups if group.source != "proposal" for node in group.members)}
    return len(named & set(nodes) - set(kept))


def operations(file, number):
    """The operations that make what a `GraphFile` says of pins, groups and texts; each has an id of its own, so that a second import of the
    file adds nothing. number: {key of a node: node_id}."""
    shown, own = file.qParams, file.cltdb and file.cltdb.annotations
    groups, done = shown and shown.supernodes or [], []

    def known(keys):
        return list(dict.fromkeys(number[key] for key in keys if key in number))

    def add(key, op, **fields):
        done.append({"id": f"import-{key}", "op": op, **fields})

    if pinned := known(own.pinned if own else shown and shown.pinnedIds or []):
        add("pin", "pin", nodes=pinned)
    for place, group in enumerate(groups):
        label, members = "".join(group[:1]), group[1:]
        name = _cut(one_line(label), MAX_NAME) or f"group {place + 1}"
        note = _cut(clean(own.group_notes.get(label, "")), MAX_NOTE) if own else ""
        if nodes := known(members):
            add(f"group-{place}", "group-create", group=f"import-{place}", name=name, nodes=nodes, note=note, source="import")
    if shown and shown.sg_pos:
        if len(shown.sg_pos) <= MAX_NOTE:
            add("sg-pos", "sg-pos", text=shown.sg_pos)
        else:
            log.warning("places of the subgraph (sg_pos) are longer than %d characters and left out", MAX_NOTE)
    if own:
        if hidden := known(own.hidden):
            add("hide", "hide", nodes=hidden)
        for op, texts, most, tidy in (("label", own.labels, MAX_NAME, one_line), ("note", own.notes, MAX_NOTE, clean)):
            for key, text in texts.items():
                if key in number:
                    add(f"{op}-{number[key]}", op, node=number[key], text=_cut(tidy(text), most))
        if own.note:
            add("note", "note", text=_cut(clean(own.note), MAX_NOTE))
    return done


def _cut(text, most):
    return text if len(text) <= most else f"{text[: most - 1]}…"
