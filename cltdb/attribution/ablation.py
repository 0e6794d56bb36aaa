"""Ablations: the most influential features of a graph are set to 0, one at a time; the effect stands beside the predicted one.

The effect of an ablation is the absolute change of each target's value (logit, feature or direction), with the targets' weights
in influence. Source: Anthropic, "Circuit Tracing" (2025), section on validating graphs with perturbations.
"""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import torch

from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import Response, most_changed, respond

N_EFFECTS = 20
"""Features whose response is stored per ablation, most changed first."""
MODE, MODEL_MODE = "iterative", "free"
"""Who responds. iterative: the replacement model; effects along all paths count, and features may turn on and off. free: the
model itself; the dictionary only says what the ablation takes away."""


class Ablation(NamedTuple):
    """A feature's node, what its ablation did to the targets, and the `Response`s without and with it."""

    node: int
    effect: float
    before: Response
    after: Response


def ablate(graph, nodes, *, mode=MODE):
    """Yields an `Ablation` for each of the features `nodes`. Do not keep them: responses hold all activations of the prompt."""
    before = respond(graph.replacement, [], mode=mode)
    weights, start = graph.targets.weights, _target_values(graph, before)
    if graph.targets.feature:
        weights = torch.ones(1, dtype=torch.float64)
    for node in nodes:
        layer, position, feature = graph.index.place(node)
        after = respond(graph.replacement, [Setting(layer, feature, position, "set", 0.0)], mode=mode)
        change = (_target_values(graph, after) - start).abs()
        yield Ablation(node, float((weights * change).sum() / weights.sum()), before, after)


def _target_values(graph, response):
    """The values of what the graph explains [n_targets] float64, in a response."""
    targets = graph.targets
    if targets.feature:
        layer, position, feature = targets.feature
        values = response.activations[position, layer, feature][None]
    else:
        values = targets.values(graph.replacement, response.final, response.mlp_inputs)
    return values.double().cpu()


def most_influential(graph, n):
    """Node ids of at most `n` features by falling influence, equal ones by id; the target itself is none of them."""
    features = graph.influence[graph.index.features]
    return np.argsort(-features, stable=True)[: min(n, int((features > 0).sum()))].tolist()


def rank_correlation(graph, effects):
    """Spearman's correlation of influence with measured effects, {node: effect}. None for fewer than three, or where all are
    equal."""
    import polars as pl

    if len(effects) < 3:
        return None
    frame = pl.DataFrame({"influence": graph.influence[list(effects)].tolist(), "effect": list(effects.values())})
    found = frame.select(pl.corr("influence", "effect", method="spearman")).item()
    return None if found is None or found != found else found


def ablation_rows(graph, ablation, *, dict_id, prompt, mode=MODE):
    """(row of table interventions, rows of intervention_effects) of an `Ablation`; mode: that of `ablate`. By the form of their
    ids, query compare_graphs tells these ablations from interventions that were made by hand."""
    layer, position, feature = graph.index.place(ablation.node)
    intervention_id = f"{graph.graph_id}-ablate-{layer}-{feature}-{position}" + ("" if mode == MODE else f"-{mode}")
    row = {
        "intervention_id": intervention_id,
        "graph_id": graph.graph_id,
        "dict_id": dict_id,
        "model_id": graph.replacement.lm.model_id,
        "prompt": prompt,
        "tokens": list(graph.index.tokens),
        "mode": mode,
        "until_layer": None,
        "settings": [Setting(layer, feature, position, "set", 0.0)._asdict()],
        "created_at": datetime.now(UTC).replace(tzinfo=None),
    }
    return row, [{"intervention_id": intervention_id, **effect} for effect in _effects(graph, ablation)]


def _effects(graph, ablation):
    """Rows of the logits explained and of the features most changed by an ablation."""
    index, before, after = graph.index, ablation.before, ablation.after
    predicted = graph.total_effects({ablation.node: -float(graph.feature_activations[ablation.node])})
    values, then = (_target_values(graph, response).tolist() for response in (before, after))
    for place, token in enumerate(index.logit_tokens):
        yield {
            "kind": "logit",
            "layer": None,
            "position": index.n_positions - 1,
            "feature": None,
            "token": token,
            "before": values[place],
            "after": then[place],
            "predicted": values[place] + float(predicted[index.logits.start + place]),
        }
    nodes = {index.place(node): node for node in range(index.features.start, index.features.stop)}
    for place in most_changed(before, after, N_EFFECTS):
        layer, position, feature = place
        node, value = nodes.get(place), float(before.activations[position, layer, feature])
        threshold = graph.replacement.dictionary.threshold_of(layer, feature)
        yield {
            "kind": "feature",
            "layer": layer,
            "position": position,
            "feature": feature,
            "token": None,
            "before": value,
            "after": float(after.activations[position, layer, feature]),
            "predicted": _predicted(graph, value, predicted, node, ablation.node, threshold=threshold),
        }


def _predicted(graph, before, predicted, node, ablated, *, threshold):
    """The activation that a feature should have, 0 where its pre-activation is not above the threshold. None for a feature that
    is not in the graph, or whose incoming edges are not."""
    if node is None or node != ablated and not graph.effects.expanded[node]:
        return None
    after = 0.0 if node == ablated else before + float(predicted[node])
    return after if after > threshold else 0.0
