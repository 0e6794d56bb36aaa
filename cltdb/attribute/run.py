"""The attribute stage: one graph per prompt, checked edges, and ablations of its most influential features.

Writes: tables graphs, nodes, edges, interventions, intervention_effects, one part per graph, edges last; a prompt whose
edges are there is finished and not made again.
"""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from cltdb.attribute import graph as graphs
from cltdb.attribute.intervene import Setting, most_changed, respond
from cltdb.attribute.replacement_model import at_least_float32, in_dtype
from cltdb.errors import CltdbError
from cltdb.log import progress, stopwatch
from cltdb.workspace import write_parquet

log = logging.getLogger(__name__)

STORED_WEIGHT = 1e-5
"""Edges of a smaller absolute weight get no row unless pruning keeps them; their sum is the target's `dropped_mass`."""
MAX_EDGES = 2_000_000
"""Of more edges than this, only the strongest get a row."""
N_ABLATIONS, N_EFFECTS = 5, 20
"""Features ablated per graph, most influential first, and features whose response is stored per ablation, most changed
first."""


def attribute_prompts(
    lm,
    dictionary,
    prompts,
    *,
    directory,
    dict_id,
    graph_key,
    max_features,
    max_edges,
    node_threshold,
    edge_threshold,
    check_edges,
    seed,
):
    """Writes the tables of one graph per prompt into `directory`.

    prompts: objects with id, text or messages, target, foil. graph_key(prompt) identifies the graph's content;
    node_threshold and edge_threshold are those of pruning. Each graph's edges are compared with `check_edges`
    interventions.
    """
    lm = at_least_float32(lm)
    exact_lm = in_dtype(lm, torch.float64) if check_edges else None
    all_tokens = [_tokens(lm, prompt) for prompt in prompts]  # whatever is wrong with a prompt is said before the first graph
    with progress("attribute", total=len(prompts), unit="prompts") as bar:
        for prompt, tokens in zip(prompts, all_tokens, strict=True):
            graph_id = f"{prompt.id}-{graph_key(prompt)[:8]}"
            if not _part(directory, "edges", graph_id).is_file():
                with stopwatch() as seconds:
                    graph = graphs.attribute(
                        lm,
                        dictionary,
                        tokens,
                        max_features=max_features,
                        max_edges=max_edges,
                        target=prompt.target,
                        foil=prompt.foil,
                        keep=(node_threshold, edge_threshold),
                        graph_id=graph_id,
                    )
                    graph = replace(graph, edge_threshold=max(graph.edge_threshold, _stored_weight(graph.effects.adjacency)))
                    graph = _checked(graph, n=check_edges, seed=seed, exact_lm=exact_lm)
                    frames = _frames(graph, prompt, dict_id)
                    _write(directory, graph_id, frames, round(seconds(), 3))
            bar.advance(note=graph_id)


def _tokens(lm, prompt):
    """Token ids of the prompt's text or chat, BOS first; CltdbError, with the prompt's id, where they cannot be had."""
    text, where = prompt.text, f"attribute.prompts {prompt.id}"
    if text is None:
        if lm.tokenizer.chat_template is None:
            raise CltdbError(
                where,
                found=f"messages, for {lm.model_id}, whose tokenizer has no chat template",
                expected="a model for chats, or text",
                do="write text: instead of messages:",
            )
        text = lm.tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
    try:
        return lm.prompt_tokens(text)
    except CltdbError as error:
        raise CltdbError(where, found=error.found, expected=error.expected, do=error.do) from error


def _stored_weight(adjacency):
    """The absolute weight below which edges get no row."""
    weights = adjacency.weight.abs()
    if len(weights) <= MAX_EDGES:
        return STORED_WEIGHT
    return max(STORED_WEIGHT, float(weights.kthvalue(len(weights) - MAX_EDGES).values))


def _checked(graph, *, n, seed, exact_lm):
    """The graph with `n` edges measured; says so where a measurement and its weight differ."""
    if not n:
        return graph
    graph = graphs.check_edges(graph, n=n, seed=seed, exact_lm=exact_lm)
    adjacency, pairs = graph.effects.adjacency, list(graph.measured)
    weights = adjacency.weight[adjacency.places(pairs)].tolist()
    incoming = adjacency.by_target(lambda edges: adjacency.weight[edges].abs()).tolist()
    wrong = [
        pair
        for pair, weight in zip(pairs, weights, strict=True)
        if not abs(weight - graph.measured[pair]) <= 1e-3 * max(abs(weight), 1e-3 * incoming[pair[1]])
    ]
    if wrong:
        log.warning(
            "%s: %d of %d checked edges differ from their interventions",
            graph.graph_id,
            len(wrong),
            len(graph.measured),
        )
    return graph


def _part(directory, table, graph_id):
    return Path(directory) / "tables" / table / f"{graph_id}.parquet"


def _write(directory, graph_id, frames, seconds):
    """Writes the tables of one graph, `edges` last: its presence means that all are there."""
    import polars as pl

    frames["graphs"] = frames["graphs"].with_columns(seconds=pl.lit(seconds))
    for table in ("graphs", "nodes", "interventions", "intervention_effects", "edges"):
        write_parquet(_part(directory, table, graph_id), frames[table])


def _frames(graph, prompt, dict_id):
    """The rows of every table, as the database has them."""
    import polars as pl

    interventions, effects = _ablations(graph, prompt, dict_id)
    small = dict.fromkeys(("activation", "pre_activation", "bias", "dropped_mass"), pl.Float32)
    return {
        "graphs": _graph_row(graph, prompt, dict_id),
        "nodes": graph.nodes.cast(small),
        "edges": graph.edges,
        "interventions": interventions,
        "intervention_effects": effects,
    }


def _graph_row(graph, prompt, dict_id):
    import polars as pl

    pruned = graph.prune(*graph.keep)
    return pl.DataFrame(
        [
            {
                "graph_id": graph.graph_id,
                "dict_id": dict_id,
                "model_id": graph.replacement.lm.model_id,
                "prompt_id": prompt.id,
                "prompt": _text(prompt),
                "tokens": list(graph.index.tokens),
                "target": prompt.target,
                "foil": prompt.foil,
                "n_nodes": graph.nodes.height,
                "n_edges": graph.edges.height,
                "n_features_active": len(graph.index.feature),
                "node_threshold": graph.keep[0],
                "edge_threshold": graph.keep[1],
                "replacement_score": graph.replacement_score,
                "completeness_score": graph.completeness_score,
                "pruned_replacement_score": pruned.replacement_score,
                "pruned_completeness_score": pruned.completeness_score,
                "max_abs_error": graph.max_abs_error,
            }
        ],
        schema_overrides={"tokens": pl.List(pl.Int32), "n_nodes": pl.Int32, "target": pl.String, "foil": pl.String},
    )


def _text(prompt):
    return prompt.text if prompt.text is not None else json.dumps(prompt.messages, ensure_ascii=False)


def _ablations(graph, prompt, dict_id):
    """The most influential features set to 0, one at a time, and the replacement model's response beside what the graph
    predicts.

    The response is iterative, so that effects along paths count and features may turn on and off; the prediction is the
    sum over all paths.
    """
    import polars as pl

    settings_type = pl.List(
        pl.Struct({"layer": pl.Int32, "feature": pl.Int32, "position": pl.Int32, "operation": pl.String, "value": pl.Float64})
    )
    made_at = datetime.now(UTC).replace(tzinfo=None)
    rows, effects = [], []
    before = respond(graph.replacement, [], mode="iterative")
    top = graph.influence[graph.index.features].sort(descending=True, stable=True).indices[:N_ABLATIONS].tolist()
    for node in top:
        layer, position, feature = graph.index.place(node)
        setting = Setting(layer, feature, position, "set", 0.0)
        intervention_id = f"{graph.graph_id}-ablate-{layer}-{feature}-{position}"
        rows.append(
            {
                "intervention_id": intervention_id,
                "graph_id": graph.graph_id,
                "dict_id": dict_id,
                "model_id": graph.replacement.lm.model_id,
                "prompt": _text(prompt),
                "tokens": list(graph.index.tokens),
                "mode": "iterative",
                "until_layer": None,
                "settings": [setting._asdict()],
                "created_at": made_at,
            }
        )
        effects += [
            {"intervention_id": intervention_id, **effect}
            for effect in _effects(graph, node, before, respond(graph.replacement, [setting], mode="iterative"))
        ]
    return (
        pl.DataFrame(
            rows,
            schema={
                **dict.fromkeys(("intervention_id", "graph_id", "dict_id", "model_id", "prompt"), pl.String),
                "tokens": pl.List(pl.Int32),
                "mode": pl.String,
                "until_layer": pl.Int32,
                "settings": settings_type,
                "created_at": pl.Datetime("us"),
            },
        ),
        pl.DataFrame(
            effects,
            schema={
                "intervention_id": pl.String,
                "kind": pl.String,
                **dict.fromkeys(("layer", "position", "feature", "token"), pl.Int32),
                **dict.fromkeys(("before", "after", "predicted"), pl.Float64),
            },
        ),
    )


def _effects(graph, ablated, before, after):
    """Rows of the logits explained and of the features most changed by ablating node `ablated`."""
    index = graph.index
    predicted = graph.total_effects(ablated, -float(graph.feature_activations[ablated]))
    last = index.n_positions - 1
    foil, thresholds = graph.targets.foil, graph.replacement.dictionary.threshold
    for place, token in enumerate(index.logit_tokens):
        value, then = (
            float(response.logits[token] - (0 if foil is None else response.logits[foil])) for response in (before, after)
        )
        yield {
            "kind": "logit",
            "layer": None,
            "position": last,
            "feature": None,
            "token": token,
            "before": value,
            "after": then,
            "predicted": value + float(predicted[index.logits.start + place]),
        }
    nodes = {index.place(node): node for node in range(index.features.start, index.features.stop)}
    for place in most_changed(before, after, N_EFFECTS):
        layer, position, feature = place
        node, value = nodes.get(place), float(before.activations[position, layer, feature])
        yield {
            "kind": "feature",
            "layer": layer,
            "position": position,
            "feature": feature,
            "token": None,
            "before": value,
            "after": float(after.activations[position, layer, feature]),
            "predicted": _predicted(
                value, predicted, node, ablated, threshold=0.0 if thresholds is None else float(thresholds[layer, feature])
            ),
        }


def _predicted(before, predicted, node, ablated, *, threshold):
    """The activation a feature should have, NULL for one that is not in the graph; what is not above the threshold is 0."""
    if node is None:
        return None
    after = 0.0 if node == ablated else before + float(predicted[node])
    return after if after > threshold else 0.0
