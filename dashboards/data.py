"""Named queries to Polars frames; one short read-only connection per call. Numbers are never formatted here."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cltdb.database import Database

N_NEIGHBOURS = 8
N_CACHED_GRAPHS = 4


class Feature(NamedTuple):
    """What is known of one feature: `card` has one row or none."""

    card: pl.DataFrame
    contexts: pl.DataFrame
    explanations: pl.DataFrame
    graphs: pl.DataFrame
    neighbours: pl.DataFrame


class Graph(NamedTuple):
    """One attribution graph, unpruned: nodes by node_id, edges by target_id and source_id; of an imported one the influence of the
    nodes before it was pruned."""

    nodes: pl.DataFrame
    edges: pl.DataFrame
    total_influence: float | None = None


def stage_runs(database_path):
    """The last run of every stage of every experiment."""
    return Database(database_path).query("experiments_overview")


def dictionaries(database_path):
    """All dictionaries with their headline numbers."""
    return Database(database_path).query("page_dictionaries")


def in_training(database_path):
    """Trainings whose dictionary is not there yet, with their last numbers."""
    return Database(database_path).query("page_in_training")


def frontier(database_path, *, sweep, layer):
    """FVU and L0 of the evaluated dictionaries of a sweep or experiment (None: all), of a layer or pooled (None)."""
    return Database(database_path).query("frontier", sweep=sweep, layer=layer)


def metric_names(database_path, dict_id):
    """What was measured of a dictionary: name, stage."""
    return Database(database_path).query("page_metric_names", dict_id=dict_id)


def metric(database_path, *, dict_id, name, stage):
    """One quantity: step, layer (null pooled), value."""
    return Database(database_path).query("metrics_curve", dict_id=dict_id, name=name, stage=stage)


def search(database_path, *, text, dict_id, layer, alive, sort, limit):
    """Features found; n_found counts those beyond the limit too."""
    return Database(database_path).query(
        "page_feature_search", text=text or None, dict_id=dict_id, layer=layer, alive=alive, sort=sort, limit=limit
    )


def feature(database_path, *, dict_id, layer, feature):
    """Everything the page of a feature shows."""
    database, key = Database(database_path), {"dict_id": dict_id, "layer": layer, "feature": feature}
    return Feature(
        card=database.query("feature_card", **key),
        contexts=database.query("feature_contexts", **key),
        explanations=database.query("page_explanations", **key),
        graphs=database.query("page_feature_graphs", **key),
        neighbours=database.query("top_neighbours", **key, limit=N_NEIGHBOURS),
    )


def snippet(database_path, *, dict_id, layer, feature):
    """(card, top contexts) of a feature: what a graph shows of a node."""
    database, key = Database(database_path), {"dict_id": dict_id, "layer": layer, "feature": feature}
    return database.query("feature_card", **key), database.query("feature_contexts", band="top", **key)


def graphs(database_path):
    """All graphs with their scores and likeliest logit."""
    return Database(database_path).query("graph_list")


def graph(database_path, graph_id):
    """Nodes and edges of a graph. The last few are kept in memory until the database file changes."""
    path = Path(database_path)
    version = path.stat().st_mtime_ns if path.is_file() else None
    return _graph(path, version, graph_id)


@lru_cache(maxsize=N_CACHED_GRAPHS)
def _graph(path, _version, graph_id):
    database = Database(path)
    edges = database.query("graph_edges", graph_id=graph_id).sort("target_id", "source_id")
    total = database.sql("SELECT total_influence FROM graphs WHERE graph_id = $graph_id", {"graph_id": graph_id})
    return Graph(database.query("graph_nodes", graph_id=graph_id), edges, total["total_influence"].first())
