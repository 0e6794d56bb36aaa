"""Named queries to Polars frames; one short read-only connection per call, or per `session`. Numbers are never formatted here.

Every connection waits for its place in line (`cltdb.database.store`): while another process writes, for a minute at most.
"""

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import polars as pl
from flask import current_app, g

from cltdb.database import Database

N_CACHED_GRAPHS = 4
DATABASE = "CLTDB_DATABASE"
"""Where an app keeps the path of its database: a key of `app.server.config`."""


class Graph(NamedTuple):
    """One attribution graph, unpruned: nodes ordered by node_id, edges by target_id and source_id.

    dict_id: None where its dictionary is not known. total_influence: of an imported graph, whose file holds a part of the nodes; the
    influence of all of them.
    """

    nodes: pl.DataFrame
    edges: pl.DataFrame
    dict_id: str | None
    total_influence: float | None = None


@contextmanager
def session():
    """Within the block every `query` goes over one connection: of a page that asks several."""
    with Database(current_app.config[DATABASE]).session() as g.session:
        try:
            yield
        finally:
            del g.session


def query(name, /, **params):
    """The rows of the named query `name`, of the database of the app that answers."""
    return _asked().query(name, **params)


def search(text, **chosen):
    """The features that have to do with a text, as `cltdb search` finds them."""
    return _asked().search(text, **chosen)


def _asked():
    return g.get("session", Database(current_app.config[DATABASE]))


def graph(graph_id):
    """Nodes and edges of a graph. The last few are kept in memory until the database file, or the exported folder, changes."""
    path = Path(current_app.config[DATABASE])
    version = path.stat().st_mtime_ns if path.exists() else None
    return _graph(path, version, graph_id)


@lru_cache(maxsize=N_CACHED_GRAPHS)
def _graph(path, _version, graph_id):
    with Database(path).session() as database:
        nodes, edges = database.query("graph_nodes", graph_id=graph_id), database.query("graph_edges", graph_id=graph_id)
        said = database.sql("SELECT dict_id, total_influence FROM graphs WHERE graph_id = $graph_id", {"graph_id": graph_id})
    return Graph(nodes, edges.sort("target_id", "source_id"), said["dict_id"].first(), said["total_influence"].first())
