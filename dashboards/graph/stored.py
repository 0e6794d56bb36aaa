"""A stored graph as the page asks for it: its nodes, and of its edges no more than a question needs.

A graph may hold more edges than fit into memory. Up to KEPT_EDGES they are kept, until the artifact of the graph changes; of larger graphs
each question reads its own, and no question reads more than MAX_EDGES.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from flask import current_app

from cltdb.database.display.words import number
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.data import DATABASE

KEPT_EDGES = 4_000_000
"""24 bytes each."""
MAX_EDGES = 20_000_000
N_KEPT_NODES, N_KEPT_EDGES = 4, 2
ENDS = (
    "direction", "node_id", "kind", "layer", "position", "feature", "string", "probability", "text", "weight", "influence", "measured",
)  # fmt: skip
MEASURED = "SELECT source_id, target_id, measured FROM edges WHERE graph_id = $graph_id AND measured IS NOT NULL"
FACTS = """
SELECT g.dict_id, g.total_influence, g.artifact_key, a.made_at, (SELECT count(*) FROM edges WHERE graph_id = $graph_id) AS n_edges
FROM graphs AS g LEFT JOIN loaded_artifacts AS a USING (artifact_key)
WHERE g.graph_id = $graph_id
"""


class TooManyEdges(CltdbError):
    """A question that would read more than MAX_EDGES."""


class StoredGraph:
    """nodes: frame of named query graph_nodes, with `promotes`, the token that a feature promotes most. n_edges: of the whole graph. dict_id: None
    where its dictionary is not known. total_influence: of an imported graph, whose file holds a part of the nodes; the influence of all of
    them."""

    def __init__(self, path, graph_id, nodes, facts):
        self.graph_id, self.nodes, self.n_edges = graph_id, nodes, facts["n_edges"]
        self.dict_id, self.total_influence = facts["dict_id"], facts["total_influence"]
        self._path, self._version = path, (facts["artifact_key"], facts["made_at"], facts["n_edges"])

    @property
    def edges(self):
        """All edges, ordered by target_id and source_id; `TooManyEdges` where there are more than MAX_EDGES."""
        if self.n_edges > MAX_EDGES:
            raise self.too_many(self.n_edges, "edges")
        if self.n_edges > KEPT_EDGES:
            return _edges_between(self.graph_id, None)
        return _kept_edges(self._path, self.graph_id, self._version)

    def edges_between(self, node_ids):
        """The edges between these nodes, in the same order; `TooManyEdges` where there are more than MAX_EDGES."""
        if self.n_edges <= KEPT_EDGES:
            is_in = np.zeros(self.nodes.height, bool)
            is_in[node_ids] = True
            edges = self.edges
            return edges.filter(is_in[edges["source_id"].to_numpy()] & is_in[edges["target_id"].to_numpy()])
        ids = np.asarray(node_ids).tolist()
        if self.n_edges > MAX_EDGES:
            n = data.query("edge_sums", graph_id=self.graph_id, node_ids=ids)["n_edges"].sum()
            if n > MAX_EDGES:
                raise self.too_many(n, f"edges between {number(len(ids))} nodes")
        return _edges_between(self.graph_id, ids)

    def strongest(self, node_id, n):
        """The `n` strongest edges into a node and out of it, as named query node_edges has them."""
        if self.n_edges > KEPT_EDGES:
            return data.query("node_edges", graph_id=self.graph_id, node_id=node_id, limit=n)
        edges, measured = self.edges, _measured(self._path, self.graph_id, self._version)
        first, end = np.searchsorted(edges["target_id"].to_numpy(), [node_id, node_id + 1]).tolist()
        outgoing = np.flatnonzero(edges["source_id"].to_numpy() == node_id)
        found = pl.concat([_ends(edges[first:end], "in", "source_id", n), _ends(edges[outgoing], "out", "target_id", n)])
        named = self.nodes.select("node_id", "kind", "layer", "position", "feature", "string", "probability", "text")
        known = found.join(measured, on=["source_id", "target_id"], how="left").join(named, on="node_id", how="left")
        return known.sort("direction", pl.col("weight").abs(), "node_id", descending=[False, True, False]).select(*ENDS)

    def too_many(self, n, what):
        return TooManyEdges(
            f"graph {self.graph_id}",
            found=f"{number(n)} {what}",
            expected=f"at most {number(MAX_EDGES)}, which is what the page reads at once",
            do="keep fewer nodes with the slider, or ask the database with `cltdb sql`",
        )

    def nodes_beside(self, edges):
        """The nodes with a `dropped_mass` to which all edges count that are not among these rows."""
        here = np.bincount(edges["target_id"].to_numpy(), edges["weight"].abs().to_numpy(), minlength=self.nodes.height)
        return self.nodes.with_columns(dropped_mass=np.maximum(self.input_mass - here, 0))

    @property
    def input_mass(self):
        """The sum of the absolute weights of each node's incoming edges, those without a row too [n_nodes]."""
        stored = _input_mass(self._path, self.graph_id, self._version, self.nodes.height)
        return stored + self.nodes["dropped_mass"].fill_null(0).cast(float).to_numpy()


def graph(graph_id, *, promotes=True):
    """The `StoredGraph` of this name; CltdbError where there is none, or no longer. promotes: with that column of its nodes, half of what they cost."""
    path = Path(current_app.config[DATABASE])
    found = _graph(path, path.stat().st_mtime_ns if path.exists() else None, graph_id, promotes)
    if found is None:
        raise CltdbError(
            f"graph {graph_id}",
            found="no such graph in the database, or no longer",
            expected="a graph of table graphs",
            do="choose another one, or attribute its prompt again",
        )
    return found


@lru_cache(maxsize=N_KEPT_NODES)
def _graph(path, _version, graph_id, promotes):
    with data.asked().session() as database:
        facts = database.sql(FACTS, {"graph_id": graph_id}).to_dicts()
        if not facts:
            return None
        nodes = database.query("graph_nodes", graph_id=graph_id)
        if promotes:
            tokens = database.query("graph_promotes", graph_id=graph_id).select("node_id", promotes="string")
            nodes = nodes.join(tokens, on="node_id", how="left", maintain_order="left")
        return StoredGraph(path, graph_id, nodes, facts[0])


def _ends(edges, direction, end, n):
    """The `n` strongest of the edges of a node. end: the column of the node at the other end."""
    strongest = edges.filter(pl.col("weight").is_not_nan()).sort(pl.col("weight").abs(), end, descending=[True, False]).head(n)
    return strongest.with_columns(direction=pl.lit(direction), node_id=end)


def _edges_between(graph_id, node_ids):
    return data.query("edges_between", graph_id=graph_id, node_ids=node_ids)


# Answers are kept by the path of the database that was asked.


@lru_cache(maxsize=N_KEPT_EDGES)
def _kept_edges(_path, graph_id, _version):
    return _edges_between(graph_id, None)


@lru_cache(maxsize=N_KEPT_EDGES)
def _measured(_path, graph_id, _version):
    """What interventions measured of edges: source_id, target_id, measured."""
    return data.asked().sql(MEASURED, {"graph_id": graph_id})


@lru_cache(maxsize=N_KEPT_NODES)
def _input_mass(_path, graph_id, _version, n_nodes):
    """The sum of the absolute weights of each node's stored incoming edges [n_nodes]."""
    known = data.query("edge_sums", graph_id=graph_id)
    masses = np.zeros(n_nodes)
    masses[known["target_id"].to_numpy()] = known["mass"].to_numpy()
    return masses
