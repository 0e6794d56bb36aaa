"""Paths between two nodes of a graph: the strongest ones, along edges that pruning keeps."""

from dash import html

from cltdb.database.display.words import is_number, number, percent
from cltdb.graphs.between import paths_between
from cltdb.graphs.stored_graph import strongest_paths
from dashboards.drawn import plain
from dashboards.graph.names import link, name

N_PATHS, N_STARTS = 5, 10
BACK = html.P(html.Button("Draw no path", className="button quiet", **{"data-act": "nopath", "data-of": ""}), className="actions")
"""A button of assets/graph/actions.js."""
BETWEEN = ("For paths between two nodes, press ", html.B("Path from here"), " and ", html.B("Path to here"), " on their cards.")


def found_paths(kept, path):
    """What store `graph-found-paths` holds. kept: `stored_graph.Subgraph`; path: {from, to}."""
    answer = {"path": path, "stored_path": None, "paths": []}
    order, influence = {}, {}
    for row in kept.nodes.select("node_id", "kind", "layer", "influence", "probability").iter_rows(named=True):
        order[row["node_id"]] = _height(row)
        influence[row["node_id"]] = sum(row[part] for part in ("influence", "probability") if is_number(row[part]))
    begin, end = path["from"], path["to"]
    if begin not in order or end not in order:
        return answer
    edges = (
        (source, target, weight, abs(value) / influence[target])
        for source, target, weight, value in kept.edges.select("source_id", "target_id", "weight", "influence").iter_rows()
        if is_number(value) and influence[target] > 0
    )
    found = paths_between(edges, order, begin, end, n=N_PATHS)
    return answer | {"paths": [one._asdict() for one in found]}


def _height(node):
    """A number that rises along every edge: embeddings, then layer by layer errors and features, then logits."""
    if node["layer"] is not None:
        return node["layer"]
    return -1 if node["kind"] == "embedding" else float("inf")


def strongest_view(graph, nodes):
    """The strongest path to an answer from each of the most influential tokens and errors of the whole graph. graph:
    `stored.StoredGraph`."""
    found = strongest_paths(graph.nodes, graph.edges, N_STARTS)
    shown = html.Div(
        [
            html.H3("From tokens and errors to the answers"),
            html.P("Each one's influence by all its paths, and its strongest path.", className="quiet"),
            html.Ol([_path(value, ids, None, nodes) for value, _, ids in found], className="paths"),
            html.P([*BETWEEN], className="quiet"),
        ]
    )
    return plain(shown)


def view(found, nodes):
    """The paths as rows of steps, each a link to its node. nodes: of `names.named`."""
    ends = [nodes.get(found["path"][end]) for end in ("from", "to")]
    if None in ends:
        return html.Div([html.P("One end of the path is no node of this graph.", className="quiet"), BACK])
    between = f"from {name(ends[0])} to {name(ends[1])}"
    if not found["paths"]:
        none = f"No path {between} along the edges that are kept. Keep more of them with the sliders."
        return html.Div([html.P(none, className="quiet"), BACK])
    shown = html.Div(
        [
            html.H3(f"Strongest paths {between}"),
            html.Ol(
                [_path(path["strength"], path["nodes"], path["weights"], nodes) for path in found["paths"]], className="paths"
            ),
            html.P(
                "A path's share is the product of the shares that its edges have in what enters their targets.", className="quiet"
            ),
            BACK,
        ]
    )
    return plain(shown)


def _path(share, node_ids, weights, nodes):
    steps = [link(nodes[node_ids[0]])]
    for i, node_id in enumerate(node_ids[1:]):
        weight = weights[i] if weights else None
        tone = "suppresses" if weight is not None and weight < 0 else "promotes"
        steps += [html.Span(" → " if weight is None else f" {number(weight)} → ", className=f"step {tone}"), link(nodes[node_id])]
    return html.Li([html.Span(percent(share), className="value"), html.Span(steps)])
