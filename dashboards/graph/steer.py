"""What the panel Steer of the graph page would set, and the names of what was set: pure functions of rows and frames. What came of it: steered.py."""

from dash import html

from cltdb.database.display.words import is_number, number, token_text, visible
from dashboards.graph.names import link, name
from dashboards.steered import done, said

N_NAMED = 4


def targets(state, nodes):
    """What can be set: [(name, label, ids of its nodes)] of the selection, of what is pinned, and of each group. nodes: {node id: row}."""
    if not state:
        return []
    chosen = [("selection", "the selection", [*([] if state["selected"] is None else [state["selected"]]), *state["also"]])]
    chosen.append(("pinned", "what is pinned", state["pinned"]))
    chosen += [(f"group {group['id']}", f"group “{visible(group['name'])}”", group["nodes"]) for group in state["groups"]]
    found = [(name, label, _features(ids, nodes)) for name, label, ids in chosen]
    return [one for one in found if one[2]]


def _features(ids, nodes):
    return [node_id for node_id in dict.fromkeys(ids) if node_id in nodes and nodes[node_id]["kind"] == "feature"]


def settings(node_ids, operation, value, nodes):
    """[[layer, feature, position, operation, value]] of `work.intervene` for features of a graph."""
    rows = [nodes[node_id] for node_id in node_ids]
    return [[row["layer"], row["feature"], row["position"], *done(operation, value)] for row in rows]


def merged(earlier, later):
    """Two lists of settings as one; where both set a feature at a position, the later one counts."""
    places = {tuple(one[:3]): one for one in [*(earlier or []), *later]}
    return list(places.values())


def naming(nodes):
    """(layer, feature, position) to (what it is called, a link to its node) in a graph. nodes: of `names.named`."""
    by_place = _by_place(nodes)

    def named(*place):
        node = by_place.get(place)
        layer, feature, position = place
        if node is None:
            return f"{layer}:{feature}", f"{layer}:{feature} @ position {'all' if position is None else position}"
        return name(node), link(node)

    return named


def _by_place(nodes):
    return {(row["layer"], row["feature"], row["position"]): row for row in nodes.values() if row["kind"] == "feature"}


def title(chosen, named):
    """In a line what an intervention set. chosen: list of settings; named: of `naming`."""
    others = f" and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    return html.Bdi(f"{named(*chosen[0][:3])[0]}{others} {said(chosen[0])}")


def changes(chosen, named):
    """The settings that would be run or were, each feature a link. chosen: list of settings; named: of `naming`."""
    items = [html.Li([named(*setting[:3])[1], f" {said(setting)}"]) for setting in chosen[:N_NAMED]]
    more = html.Li(f"and {len(chosen) - N_NAMED} more", className="quiet") if len(chosen) > N_NAMED else None
    return html.Ul([*items, more] if more else items, className="changes")


def ablations(rows, nodes):
    """The ablations of stage attribute, rows of named query graph_interventions: each in a line."""
    if not rows:
        return None
    by_place, items = _by_place(nodes), []
    for row in rows:
        setting = row["settings"][0]
        node, logits = by_place.get((setting["layer"], setting["feature"], setting["position"])), row["logits"]
        if node and logits:
            first = max(logits, key=lambda one: abs(one["after"] - one["before"]))
            predicted = f", predicted {number(first['predicted'] - first['before'])}" if is_number(first["predicted"]) else ""
            effect = f"{token_text(first['string'])} {number(first['after'] - first['before'])}{predicted}"
            items.append(html.Li([link(node), html.Span(f" {row['mode']}: {effect}", className="quiet")]))
    return html.Details([html.Summary(f"{len(items)} ablations that stage attribute made"), html.Ul(items)], className="more")
