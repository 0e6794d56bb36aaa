"""What is pinned and grouped, as a graph of boxes: the part of a graph that one would print."""

import numpy as np
import polars as pl


def boxes_of(state, known):
    """{key: node ids} of the boxes of store graph-state: its groups, and pinned nodes in none of them. known: ids of the graph; a node of
    several groups stands in the first one."""
    boxes, left = {}, set(known)
    for group in state["groups"]:
        if members := [node for node in group["nodes"] if node in left]:
            boxes[f"group {group['id']}"] = members
            left -= set(members)
    return boxes | {f"node {node}": [node] for node in state["pinned"] if node in left}


def edges_of(graph, boxes):
    """Rows source, target (keys of boxes), weight and share of the edges between boxes. graph: `stored.StoredGraph`, of which all edges count,
    pruned away or not.

    weight: the sum of the weights between members. share: of what enters the target from outside itself, with the sign of the weights; the
    members of a target count by the share of their input that comes from outside. This is how viewers of attribution graphs sum up edges of
    groups (there over the edges of their file).
    """
    ids = [node for nodes in boxes.values() for node in nodes]
    keys, box = list(boxes), np.full(graph.nodes.height, -1)
    for number, nodes in enumerate(boxes.values()):
        box[nodes] = number
    edges = graph.edges_between(ids).filter(pl.col("weight").is_not_nan())
    source, target, weight = (edges[name].to_numpy() for name in ("source_id", "target_id", "weight"))
    inside = box[source] == box[target]
    total = graph.input_mass
    within = np.bincount(target[inside], np.abs(weight[inside]), minlength=total.size)
    outside = np.maximum(total - within, 0)
    counts = np.divide(outside, total, out=np.zeros_like(total), where=total > 0)
    per_box = np.bincount(box[ids], counts[ids], minlength=len(keys)) if ids else np.zeros(0)
    sums = {}
    for s, t, w in zip(source[~inside], target[~inside], weight[~inside], strict=True):
        share = w / outside[t] * counts[t] / per_box[box[t]] if outside[t] > 0 else 0.0
        found = sums.setdefault((int(box[s]), int(box[t])), [0.0, 0.0])
        found[0] += float(w)
        found[1] += float(share)
    return [{"source": keys[s], "target": keys[t], "weight": w, "share": share} for (s, t), (w, share) in sorted(sums.items())]


def subgraph(graph, state):
    """What store `graph-subgraph` holds."""
    boxes = boxes_of(state, graph.nodes["node_id"].to_list())
    return {
        "graph_id": graph.graph_id,
        "boxes": [{"key": key, "nodes": nodes} for key, nodes in boxes.items()],
        "edges": edges_of(graph, boxes),
    }
