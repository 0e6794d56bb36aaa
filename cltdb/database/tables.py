"""What each loaded table's rows are known by, and which rows stand or fall together.

The Parquet files of artifacts hold exactly the columns of the table except `artifact_key`. Two artifacts may hold the
same thing (the vocabulary of one model under two keys, one dictionary harvested twice): the artifact that was made
last then brings the whole group of rows, so a page never mixes two harvests, and the order of loading does not
matter.
"""

from typing import NamedTuple


class LoadedTable(NamedTuple):
    """`key`: columns that name a row. `group`: its leading columns that name what one artifact brings as a whole."""

    key: tuple[str, ...]
    group: tuple[str, ...]
    partition: tuple[str, ...] = ()
    """Columns that `export` makes folders of."""


EXPLANATION = ("dict_id", "layer", "feature", "side", "explainer")

LOADED_TABLES = {  # in the order they are loaded
    "models": LoadedTable(key=("model_id", "revision"), group=("model_id", "revision")),
    "vocabulary": LoadedTable(key=("model_id", "token"), group=("model_id",)),
    "dictionaries": LoadedTable(key=("dict_id",), group=("dict_id",)),
    "metrics": LoadedTable(key=("dict_id", "stage", "step", "layer", "name"), group=("dict_id", "stage"), partition=("dict_id",)),
    "features": LoadedTable(key=("dict_id", "layer", "feature"), group=("dict_id",), partition=("dict_id", "layer")),
    "contexts": LoadedTable(
        key=("dict_id", "layer", "feature", "band", "rank"), group=("dict_id",), partition=("dict_id", "layer")
    ),
    "explanations": LoadedTable(key=EXPLANATION, group=EXPLANATION, partition=("dict_id",)),
    "scores": LoadedTable(key=(*EXPLANATION, "scorer"), group=EXPLANATION, partition=("dict_id",)),
    "graphs": LoadedTable(key=("graph_id",), group=("graph_id",)),
    "nodes": LoadedTable(key=("graph_id", "node_id"), group=("graph_id",), partition=("graph_id",)),
    "edges": LoadedTable(key=("graph_id", "source_id", "target_id"), group=("graph_id",), partition=("graph_id",)),
    "prune_curves": LoadedTable(key=("graph_id", "node_threshold", "edge_threshold"), group=("graph_id",)),
    "path_lengths": LoadedTable(key=("graph_id", "length"), group=("graph_id",)),
    "interventions": LoadedTable(key=("intervention_id",), group=("intervention_id",)),
    "intervention_effects": LoadedTable(
        key=("intervention_id", "kind", "layer", "position", "feature", "token"), group=("intervention_id",)
    ),
    "feature_edges": LoadedTable(
        key=("dict_id", "source_layer", "source_feature", "target_layer", "target_feature"),
        group=("dict_id",),
        partition=("dict_id",),
    ),
    "supernodes": LoadedTable(key=("supernode_id",), group=("supernode_id",)),
    "annotations": LoadedTable(key=("annotation_id",), group=("annotation_id",)),
}

OWN_TABLES = {"experiments": ("experiment", "spec_hash"), "stage_runs": ("run_id",)}
"""Tables that the runner writes itself, with their key."""
