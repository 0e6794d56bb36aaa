"""Edges measured by interventions: what removing a node takes from another, by forward passes of the frozen model alone."""

import torch


def measure_edges(replacement, nodes, targets, pairs, *, batch_size=32):
    """The effect of each edge, measured by forward passes of the frozen model alone: by how much its target falls without its
    source.

    pairs: (source_id, target_id). Returns one number per pair, which the edge's `weight` should equal. The replacement model
    should be in float64, since effects can be small beside the pre-activations they change.
    """
    sources = sorted({source for source, _ in pairs})
    values = {}
    for start in range(0, len(sources), batch_size):
        chunk = sources[start : start + batch_size]
        with torch.no_grad():
            run = replacement.run(*_without(replacement, nodes, chunk))
        for row, source in enumerate(chunk, start=1):
            for target in {target for other, target in pairs if other == source}:
                read = _reader(replacement, nodes, targets, target)
                values[source, target] = float(read(run, 0) - read(run, row))
    return [values[pair] for pair in pairs]


def _without(replacement, nodes, sources):
    """Embeddings [1 + n_sources, pos, d_model] and MLP outputs per layer of that shape: row 0 as they are, then a row without
    each source."""
    n_rows = len(sources) + 1
    embeddings = replacement.embeddings.repeat(n_rows, 1, 1)
    sites = replacement.sites.transpose(0, 1)[:, None].repeat(1, n_rows, 1, 1)
    for row, source in enumerate(sources, start=1):
        layer, position, feature = nodes.place(source)
        kind = nodes.kind(source)
        if kind == "embedding":
            embeddings[row, position] = 0
        elif kind == "error":
            sites[layer, row, position] -= replacement.errors[position, layer]
        else:
            activations = replacement.activations[position].clone()
            activations[layer, feature] = 0
            decoded = replacement.dictionary.decode(activations, torch.zeros_like(replacement.mlp_inputs[position]))
            sites[:, row, position] = decoded + replacement.errors[position]
    return embeddings, sites


def _reader(replacement, nodes, targets, target):
    """A function of (`Pass`, row): the pre-activation of node `target` in that row, without its constant part."""
    if nodes.kind(target) == "logit":
        direction = targets.directions[target - nodes.logits.start].to(replacement.lm.dtype)
        return lambda run, row: (run.final if targets.layer is None else run.mlp_inputs[targets.layer])[row, -1] @ direction
    layer, position, feature = nodes.place(target)
    direction = replacement.dictionary.encoder(layer, feature)
    return lambda run, row: run.mlp_inputs[layer][row, position] @ direction
