"""Pruning a graph by the influences that are stored with it: pure functions of frames.

As the pruning that `kept` records (cltdb.attribute), except that edge influences are those of the whole graph: they
are not normalised again after nodes were dropped. So a slider moves in milliseconds and needs no matrix.
"""

import polars as pl

ALWAYS_KEPT = ("embedding", "logit")


def smallest_share(influence, threshold):
    """The value of the weakest member of the smallest set that holds `threshold` (0 to 1) of the sum. influence: [n].

    Minus infinity where there is nothing to choose by.
    """
    ordered = influence.fill_nan(0).fill_null(0).sort(descending=True)
    total = ordered.sum()
    if not total or total <= 0:
        return float("-inf")
    reached = (ordered.cum_sum() / total >= threshold - 1e-12).arg_max()
    return ordered[reached] if reached is not None else float("-inf")


def prune(nodes, edges, *, node_threshold, edge_threshold):
    """(nodes, edges) that hold these shares of the influence, without loose ends.

    Embeddings and logits stay; a feature needs an edge in and one out, an error one out.
    """
    influence = pl.col("influence").fill_nan(0).fill_null(0)
    fixed = pl.col("kind").is_in(ALWAYS_KEPT)
    nodes = nodes.filter((influence >= smallest_share(nodes["influence"], node_threshold)) | fixed)
    edges = _between(edges, nodes)
    edges = edges.filter(influence >= smallest_share(edges["influence"], edge_threshold))
    while True:
        has_in, has_out = (pl.col("node_id").is_in(edges[end].to_list()) for end in ("target_id", "source_id"))
        connected = nodes.filter(fixed | (has_out & (has_in | (pl.col("kind") == "error"))))
        if connected.height == nodes.height:
            return nodes, edges
        nodes, edges = connected, _between(edges, connected)


def _between(edges, nodes):
    """The edges with both ends among the nodes."""
    there = nodes["node_id"].to_list()
    return edges.filter(pl.col("source_id").is_in(there) & pl.col("target_id").is_in(there))
