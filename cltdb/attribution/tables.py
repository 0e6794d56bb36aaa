"""The rows of a graph as the database has them: {table: frame}, one part per graph."""

import torch

from cltdb.attribution.ablation import MODE, MODEL_MODE, ablate, ablation_rows, most_influential, rank_correlation
from cltdb.attribution.path_tables import path_frames
from cltdb.attribution.prompts import prompt_text
from cltdb.graphs.supernodes import group_features, supernode_rows
from cltdb.model.norms import times_gain

SMALL = ("activation", "pre_activation", "bias", "dropped_mass")
"""Columns of nodes that are stored in single precision."""


def graph_tables(settings, graph, prompt, *, dict_id):
    """Frames of all tables of a graph. settings: the section of the spec (`settings.Attribute`), prompt: its entry there."""
    import polars as pl

    text = prompt_text(prompt)
    ablated, rows, effects, measured = most_influential(graph, settings.ablations), [], [], {}
    for mode in (MODE, MODEL_MODE):
        for ablation in ablate(graph, ablated, mode=mode):
            row, more = ablation_rows(graph, ablation, dict_id=dict_id, prompt=text, mode=mode)
            rows.append(row)
            effects += more
            if mode == MODE:
                measured[ablation.node] = ablation.effect
    facts = {"dict_id": dict_id, "prompt_id": prompt.id, "prompt": text, "target": _target(prompt), "foil": prompt.foil}
    validation = {"n_ablations": len(ablated), "ablation_spearman": rank_correlation(graph, measured)}
    return {
        "graphs": _graph_row(graph, facts | validation),
        "nodes": graph.nodes.cast(dict.fromkeys(SMALL, pl.Float32)),
        "prune_curves": _prune_curve(graph, settings.sweep),
        "path_lengths": _path_lengths(graph),
        **(path_frames(graph, settings.paths) if settings.paths else {}),
        "supernodes": _supernodes(graph, settings.supernode_similarity),
        **intervention_frames(rows, effects),
        "edges": graph.edges,
    }


def _target(prompt):
    """The target of a prompt of the spec as one text, None where there is none."""
    if prompt.target_feature is not None:
        return f"feature {prompt.target_feature}"
    if prompt.target_label is not None:
        return f"{prompt.target[prompt.target_label]} less the mean of {', '.join(prompt.target.values())}"
    if isinstance(prompt.target, dict):
        return ", ".join(f"{token} (weight {weight:g})" for token, weight in prompt.target.items())
    return ", ".join(prompt.target) if isinstance(prompt.target, list) else prompt.target


def _graph_row(graph, facts):
    import polars as pl

    pruned, nodes = graph.prune(*graph.keep), graph.nodes
    total = nodes["influence"].sum()
    row = {
        "graph_id": graph.graph_id,
        "model_id": graph.replacement.lm.model_id,
        "tokens": list(graph.index.tokens),
        "n_nodes": nodes.height,
        "n_edges": graph.edges.height,
        "n_features_active": len(graph.index.feature),
        "node_threshold": graph.keep[0],
        "edge_threshold": graph.keep[1],
        "replacement_score": graph.replacement_score,
        "completeness_score": graph.completeness_score,
        "pruned_replacement_score": pruned.replacement_score,
        "pruned_completeness_score": pruned.completeness_score,
        "error_share": nodes.filter(kind="error")["influence"].sum() / total if total else None,
        "mean_path_length": graph.mean_path_length,
        "max_abs_error": graph.max_abs_error,
        **facts,
    }
    text = dict.fromkeys(("target", "foil"), pl.String)
    numbers = dict.fromkeys(("error_share", "mean_path_length", "ablation_spearman"), pl.Float64)
    return pl.DataFrame(
        [row], schema_overrides={"tokens": pl.List(pl.Int32), "n_nodes": pl.Int32, "n_ablations": pl.Int32, **text, **numbers}
    )


def _prune_curve(graph, node_thresholds):
    """The graph pruned at further thresholds of nodes, its edges at the graph's own."""
    import polars as pl

    edge_threshold, rows = graph.keep[1], []
    for node_threshold in node_thresholds:
        pruned = graph.prune(node_threshold, edge_threshold)
        rows.append(
            {
                "graph_id": graph.graph_id,
                "node_threshold": node_threshold,
                "edge_threshold": edge_threshold,
                "n_nodes": int(pruned.node_mask.sum()),
                "n_edges": int(pruned.edge_mask.sum()),
                "replacement_score": pruned.replacement_score,
                "completeness_score": pruned.completeness_score,
            }
        )
    numbers = ("node_threshold", "edge_threshold", "replacement_score", "completeness_score")
    schema = {"graph_id": pl.String, **dict.fromkeys(numbers, pl.Float64), "n_nodes": pl.Int32, "n_edges": pl.Int64}
    return pl.DataFrame(rows, schema=schema)


def _path_lengths(graph):
    import polars as pl

    shares = graph.path_lengths.tolist()
    return pl.DataFrame(
        {"graph_id": [graph.graph_id] * len(shares), "length": list(range(1, len(shares) + 1)), "share": shares},
        schema={"graph_id": pl.String, "length": pl.Int32, "share": pl.Float64},
    )


def _supernodes(graph, similarity):
    """Groups of kept features of at least this similarity (0: no groups), named by the token they promote."""
    pruned, text_of = graph.prune(*graph.keep), graph.replacement.lm.token_text
    dictionary = graph.replacement.dictionary
    groups = group_features(pruned.nodes, pruned.edges, similarity=similarity, dictionary=dictionary) if similarity else []
    return supernode_rows(
        graph.graph_id,
        groups,
        pruned.nodes,
        labels=[text_of(promoted_token(graph, group)).strip() for group in groups],
        words=[text_of(token) for token in graph.index.tokens],
    )


@torch.no_grad()
def promoted_token(graph, group):
    """The token that a group of features of a graph promotes most by its direct effects: the largest of W_U (final norm gain *
    sum of activation times decoder vectors)."""
    lm, dictionary = graph.replacement.lm, graph.replacement.dictionary
    written = torch.zeros(dictionary.d_model, dtype=lm.dtype, device=lm.device)
    for node in group:
        layer, position, feature = graph.index.place(node)
        written += graph.replacement.activations[position, layer, feature] * dictionary.decoder(layer, torch.tensor([feature]))[
            0
        ].sum(0)
    return int((lm.unembedding_weight() @ times_gain(lm.final_norm, written)).argmax())


def intervention_frames(rows, effects):
    """Frames of the tables interventions and intervention_effects."""
    import polars as pl

    setting = {"layer": pl.Int32, "feature": pl.Int32, "position": pl.Int32, "operation": pl.String, "value": pl.Float64}
    texts = ("intervention_id", "graph_id", "dict_id", "model_id", "prompt")
    return {
        "interventions": pl.DataFrame(
            rows,
            schema={
                **dict.fromkeys(texts, pl.String),
                "tokens": pl.List(pl.Int32),
                "mode": pl.String,
                "until_layer": pl.Int32,
                "settings": pl.List(pl.Struct(setting)),
                "created_at": pl.Datetime("us"),
            },
        ),
        "intervention_effects": pl.DataFrame(
            effects,
            schema={
                "intervention_id": pl.String,
                "kind": pl.String,
                **dict.fromkeys(("layer", "position", "feature", "token"), pl.Int32),
                **dict.fromkeys(("before", "after", "predicted"), pl.Float64),
            },
        ),
    }
