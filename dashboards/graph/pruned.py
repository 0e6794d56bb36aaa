"""A graph pruned to shares of influence, as the browser gets it at each step of a slider."""

from cltdb.database.display.layered import strongest
from cltdb.database.display.words import is_number, number, percent
from cltdb.graphs.stored_graph import prune_stored
from dashboards import data

MAX_SENT_EDGES = 20_000


def subgraph(graph_id, *, node_share, edge_share):
    """The `Subgraph` of a stored graph at these shares (0 to 1)."""
    graph = data.graph(graph_id)
    shares = {"node_threshold": node_share, "edge_threshold": edge_share}
    return prune_stored(graph.nodes, graph.edges, **shares, total_influence=graph.total_influence)


def pruned_graph(graph_id, *, node_share, edge_share):
    """What store `graph-pruned` holds."""
    kept, graph = subgraph(graph_id, node_share=node_share, edge_share=edge_share), data.graph(graph_id)
    sent = strongest(kept.edges, limit=MAX_SENT_EDGES)
    caption = (
        f"{number(kept.nodes.height)} of {number(graph.nodes.height)} nodes ({percent(node_share)} of their influence), "
        f"{number(kept.edges.height)} of {number(graph.edges.height)} edges ({percent(edge_share)})"
    )
    return {
        "graph_id": graph_id,
        "node_share": node_share,
        "edge_share": edge_share,
        "kept": kept.nodes["node_id"].to_list(),
        "edges": {
            "source": sent["source_id"].to_list(),
            "target": sent["target_id"].to_list(),
            **{name: [value if is_number(value) else 0 for value in sent[name]] for name in ("weight", "influence")},
        },
        "n_kept_nodes": kept.nodes.height,
        "n_kept_edges": kept.edges.height,
        "n_sent_edges": sent.height,
        "caption": caption,
    }
