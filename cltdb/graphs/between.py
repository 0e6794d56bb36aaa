"""The strongest paths between two nodes of a graph."""

import heapq
from collections import defaultdict
from typing import NamedTuple


class Path(NamedTuple):
    """strength: the product of the shares of its edges; nodes: ids from the source to the target; weights: of its edges, one fewer."""

    strength: float
    nodes: tuple
    weights: tuple


def paths_between(edges, order, source, target, *, n):
    """At most `n` `Path`s from node `source` to node `target`, the strongest first; ties by their nodes.

    edges: (source, target, weight, share) of each edge that may be walked. share: the part that the edge has in what enters its target, 0 to 1,
    so a strongest path is one of largest product. order: {node id: number} that rises along every edge. The slow twin lists all paths.

    From the source on, every node keeps its `n` strongest paths: those that go on from any weaker one are weaker too.
    """
    into = defaultdict(list)
    for begin, end, weight, share in edges:
        if share > 0:
            into[end].append((begin, weight, share))
    best = {source: [Path(1.0, (source,), ())]}
    last = order[target]
    for node in sorted((node for node in into if order[source] < order[node] <= last), key=order.__getitem__):
        found = (
            Path(path.strength * share, (*path.nodes, node), (*path.weights, weight))
            for begin, weight, share in into[node]
            for path in best.get(begin, ())
        )
        if kept := heapq.nsmallest(n, found, key=lambda path: (-path.strength, path.nodes)):
            best[node] = kept
    return best.get(target, [])
