"""A graph pruned to shares of influence, as the browser gets it at each step of a slider."""

from functools import lru_cache

import numpy as np
import polars as pl

from cltdb.database.display.words import number, percent
from cltdb.graphs.stored_graph import candidates, prune_stored
from dashboards.graph import stored

MAX_PER_NODE = 12
"""So many edges into a node and so many out of it are sent, fewer where these would be more than MAX_SENT_EDGES."""
MAX_SENT_EDGES, N_STRONGEST = 16_000, 3_000
DIGITS = 4
NO_EDGES = pl.DataFrame(schema={"source_id": pl.Int32, "target_id": pl.Int32, "weight": pl.Float64, "influence": pl.Float64})


def subgraph(graph_id, *, node_share, edge_share):
    """The `Subgraph` of a stored graph at these shares (0 to 1), the same that `prune_stored` makes of the whole graph; only edges between
    nodes that may be kept are read, and `dropped_mass` of its nodes counts the others. `stored.TooManyEdges` where even these are too many."""
    graph = stored.graph(graph_id)
    prune = _subgraph if graph.n_edges <= stored.KEPT_EDGES else _subgraph.__wrapped__  # what is large is not kept
    return prune(graph, node_share, edge_share)


@lru_cache(maxsize=2)
def _subgraph(graph, node_share, edge_share):
    edges = graph.edges_between(candidates(graph.nodes, node_share, total_influence=graph.total_influence))
    shares = {"node_threshold": node_share, "edge_threshold": edge_share}
    return prune_stored(graph.nodes_beside(edges), edges, **shares, total_influence=graph.total_influence)


def pruned_graph(graph_id, *, node_share, edge_share):
    """What store `graph-pruned` holds."""
    graph = stored.graph(graph_id)
    try:
        kept = subgraph(graph_id, node_share=node_share, edge_share=edge_share)
        nodes, edges, without = kept.nodes["node_id"].to_list(), kept.edges, ""
    except stored.TooManyEdges as error:
        nodes, edges = candidates(graph.nodes, node_share, total_influence=graph.total_influence).tolist(), NO_EDGES
        without = (
            f". No edges are drawn: found {error.found}; expected {error.expected}; {error.do}. Cards have all edges of a node"
        )
    sent = sendable(edges, n_nodes=len(nodes))
    caption = (
        f"{number(len(nodes))} of {number(graph.nodes.height)} nodes ({percent(node_share)} of their influence), "
        f"{number(edges.height)} of {number(graph.n_edges)} edges ({percent(edge_share)}){without}"
    )
    if sent.height < edges.height:
        caption += f"; {number(sent.height)} of them can be drawn: the strongest of each node"
    return {
        "graph_id": graph_id,
        "node_share": node_share,
        "edge_share": edge_share,
        "kept": nodes,
        "edges": {
            "source": sent["source_id"].to_list(),
            "target": sent["target_id"].to_list(),
            "weight": rounded(sent["weight"].to_numpy()).tolist(),
            "influence": rounded(sent["influence"].to_numpy()).tolist(),
        },
        "n_kept_nodes": len(nodes),
        "n_kept_edges": edges.height,
        "n_sent_edges": sent.height,
        "caption": caption,
    }


def emptied(graph_id, error):
    """What store `graph-pruned` holds of a graph that cannot be read any more."""
    edges = {name: [] for name in ("source", "target", "weight", "influence")}
    counts = {name: 0 for name in ("n_kept_nodes", "n_kept_edges", "n_sent_edges")}
    return {
        "graph_id": graph_id,
        "node_share": None,
        "edge_share": None,
        "kept": [],
        "edges": edges,
        **counts,
        "caption": str(error),
    }


def sendable(edges, *, n_nodes):
    """The most influential edges into and out of each node, and of all; in the order of influence."""
    strength = pl.col("influence").fill_nan(0).fill_null(0).abs()
    per_node = max(1, min(MAX_PER_NODE, MAX_SENT_EDGES // (2 * max(1, n_nodes))))
    ranked = edges.with_columns(weight=pl.col("weight").fill_nan(0).fill_null(0), influence=strength)
    ranked = ranked.sort("influence", "target_id", "source_id", descending=[True, False, False]).with_row_index("rank")
    return ranked.filter(
        (pl.col("rank") < N_STRONGEST)
        | (pl.col("rank").cum_count().over("source_id") <= per_node)
        | (pl.col("rank").cum_count().over("target_id") <= per_node)
    )


def rounded(values):
    """Numbers with DIGITS significant digits, which is more than a drawing shows."""
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.where(size > 0, size, 1))))
    return np.round(values * scale) / scale
