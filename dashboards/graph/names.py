"""What the nodes of a graph are called in texts: a user's own label first, then what the machine knows. What draws in the browser has the same from
assets/graph_state.js (`labelOf`, `titleOf`)."""

from dash import html

from cltdb.database.display.layered import node_label
from cltdb.database.display.words import token_text, visible
from dashboards import annotations
from dashboards.graph.payload import short_label
from dashboards.own import with_own


def named(graph, node_ids=None):
    """{node id: row of graph_nodes, with `own`: a user's own label of the node or its feature, or None}. graph: `stored.StoredGraph`. node_ids: these
    alone."""
    nodes = graph.nodes if node_ids is None else graph.nodes.filter(graph.nodes["node_id"].is_in(node_ids))
    return {row["node_id"]: row for row in with_names(nodes, graph.graph_id).iter_rows(named=True)}


def with_names(frame, graph_id):
    """A frame of nodes of a graph, by column node_id, with column `own`."""
    return with_own(frame, annotations.labels_of_nodes(graph_id), "node_id")


def name(node):
    """A node in a few words, with its token."""
    at = f" @ {token_text(node['string'], limit=14)}" if node["kind"] in ("feature", "error") else ""
    return f"{visible(node['own']) if node['own'] else node_label(node)}{at}"


def label(node):
    """A node in at most twenty characters: what it means rather than where it is."""
    return visible(node["own"]) if node["own"] else short_label(node)


def link(node):
    """A button that selects a node."""
    said = " — ".join(part for part in (node["own"] and node_label(node), node["text"]) if part)
    return html.Button(html.Bdi(name(node)), className="link", title=visible(said) or None, **{"data-node": str(node["node_id"])})
