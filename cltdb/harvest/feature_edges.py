"""Circuits that do not depend on the input: which feature drives which along the residual stream, weighted by how they fire together.

Virtual weight of source i on target j: V = <sum of W_dec_i over its target layers before j's, r_j>, where r_j is the direction of the
residual stream that W_enc_j reads (through the gain and, for LayerNorm, the centring of the MLP's norm, where the MLP input is normed).
So V times the scale (one over the denominator) of j's norm at a token is what a unit of i's activation there adds to j's pre-activation,
along the direct path alone: no attention, no MLP or W_skip in between. With expectations over the counted tokens,
    ERA = E[1(a_j > 0) a_i] V,    TWERA = E[a_j a_i] / E[a_j] V.
V alone is dominated by features that never fire together, ERA and TWERA do not see inhibition: the strongest of both kinds are kept.
Source: Anthropic, "Circuit Tracing" (2025), section "Global weights".
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.harvest.coactivation import coactivation, counted_firings, rows_of

BLOCK_PAIRS = 2**22  # pairs of features whose weights are computed at once: 32 MiB per float64 matrix


class Weights(NamedTuple):
    """Of targets and sources, float64 [n_targets, n_sources]; coactivation is the share of the counted tokens where both fire."""

    virtual_weight: torch.Tensor
    era: torch.Tensor
    twera: torch.Tensor
    coactivation: torch.Tensor


ENDS = ("source_layer", "source_feature", "target_layer", "target_feature")
KINDS = Weights(pa.float32(), pa.float32(), pa.float32(), pa.float64())._asdict()
"""Columns of the table's rows beside dict_id: both ends (int32), and the weights with their types."""


class Strongest:
    """The `k` strongest neighbours per feature of a layer, kept while candidates come by: strength [n, k] (0: none), neighbour [n, k]
    (layer * n_features + feature), weights [n, k, 4] in the order of `Weights`."""

    def __init__(self, n_features, k, device):
        self.strength = torch.zeros(n_features, k, dtype=torch.float64, device=device)
        self.neighbour = torch.zeros(n_features, k, dtype=torch.long, device=device)
        self.weights = torch.zeros(n_features, k, len(Weights._fields), dtype=torch.float64, device=device)

    def offer(self, rows, strength, neighbours, weights):
        """Candidates for the features `rows`, a slice: strength and each of weights [n_rows, n], neighbours [n]."""
        best = strength.topk(min(self.strength.shape[1], strength.shape[1]), dim=1)
        new_weights = torch.stack([weight.gather(1, best.indices) for weight in weights], dim=2)
        kept = torch.cat([self.strength[rows], best.values], dim=1).topk(self.strength.shape[1], dim=1)
        self.strength[rows] = kept.values
        self.neighbour[rows] = torch.cat([self.neighbour[rows], neighbours[best.indices]], dim=1).gather(1, kept.indices)
        all_weights = torch.cat([self.weights[rows], new_weights], dim=1)
        self.weights[rows] = all_weights.gather(1, kept.indices[..., None].expand(-1, -1, all_weights.shape[2]))

    def found(self):
        """(feature, neighbour [n], weights [n, 4]) of all that are kept, as arrays."""
        feature, slot = (self.strength > 0).nonzero(as_tuple=True)
        return tuple(x.cpu().numpy() for x in (feature, self.neighbour[feature, slot], self.weights[feature, slot]))


@torch.no_grad()
def feature_edges(lm, dictionary, found, *, dict_id, n_kept, n_counted, live):
    """{source layer: rows of table feature_edges}: of every feature the `n_kept` incoming and outgoing edges of largest |TWERA|, and
    half as many of largest |V| alone.

    found: `parts.Found`, of which the firings at the counted tokens are read; live: per layer, which features fire at all [n_features];
    the others have no edges.
    """
    layers, F, device = dictionary.layers, dictionary.n_features, dictionary.device
    live = {layer: torch.from_numpy(live[layer]).to(device) for layer in layers}
    sizes = (n_kept, -(-n_kept // 2))  # by |TWERA|, by |V|
    incoming, outgoing = ({layer: [Strongest(F, k, device) for k in sizes] for layer in layers} for _ in range(2))
    for target, source, rows, weights in _weights_by_block(lm, dictionary, found, n_counted=n_counted):
        sources, targets = (layer * F + torch.arange(F, device=device) for layer in (source, target))
        both_live = live[target][rows, None] & live[source]
        for kind, strength in enumerate((weights.twera.abs(), weights.virtual_weight.abs() * both_live)):
            incoming[target][kind].offer(rows, strength, sources, weights)
            outgoing[source][kind].offer(slice(None), strength.T, targets[rows], [weight.T for weight in weights])
    strongest = []
    for layer in layers:
        for feature, neighbour, weights in (kept.found() for kept in incoming[layer]):
            strongest.append((neighbour, layer * F + feature, weights))
        for feature, neighbour, weights in (kept.found() for kept in outgoing[layer]):
            strongest.append((layer * F + feature, neighbour, weights))
    return _tables(*map(np.concatenate, zip(*strongest, strict=True)), layers=layers, n_features=F, dict_id=dict_id)


def _weights_by_block(lm, dictionary, found, *, n_counted):
    """Yields (target layer, source layer, rows, `Weights` of the target's features `rows`, a slice, on all of the source's)."""
    layers, shape, device = dictionary.layers, (n_counted, dictionary.n_features), dictionary.device
    with log.progress("feature edges", total=len(layers) * (len(layers) - 1) // 2, unit="pairs of layers") as bar:
        for target in layers[1:]:
            directions = lm.residual_directions(target, dictionary.encoder(target)).float().to(device)
            of_target = counted_firings(found, target, shape=shape, device=device).t().coalesce()
            for source in (layer for layer in layers if layer < target):
                written = _direct_writes(dictionary, source, target)
                of_source = counted_firings(found, source, shape=shape, device=device)
                for rows in blocks(dictionary.n_features, n=dictionary.n_features):
                    yield target, source, rows, _weights(directions[rows] @ written.T, rows_of(of_target, rows), of_source)
                bar.advance()


def _direct_writes(dictionary, source, target):
    """What the features of layer `source` write to the residual stream before the MLP of layer `target`, per unit of activation
    [n_features, d_model]."""
    return dictionary.decoder_sum(source, slice(target - source)).float()


def _weights(virtual_weight, targets, sources):
    """`Weights` of virtual weights [n_targets, n_sources] and the firings of both: sparse [n_targets, n_counted], [n_counted, n_sources]."""
    n_counted = len(sources)
    sums, virtual_weight = coactivation(targets, sources), virtual_weight.double()
    total = torch.bincount(targets.indices()[0], weights=targets.values(), minlength=len(targets))[:, None]
    return Weights(
        virtual_weight,
        era=sums.sources / n_counted * virtual_weight,
        twera=sums.products / torch.where(total > 0, total, 1) * virtual_weight,
        coactivation=sums.tokens / n_counted,
    )


def blocks(n_sources, *, n):
    """Slices of n target features that make up BLOCK_PAIRS pairs with n_sources features."""
    step = max(1, BLOCK_PAIRS // n_sources)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _tables(source, target, weights, *, layers, n_features, dict_id):
    """The rows by source layer, each pair once, in the order of the table's key."""
    _, first = np.unique(np.stack([source, target]), axis=1, return_index=True)
    source, target, weights = source[first], target[first], weights[first]
    tables = {}
    for layer in layers:
        here = source // n_features == layer
        ends = zip(("source", "target"), (source[here], target[here]), strict=True)
        numbers = {
            f"{end}_{name}": pa.array(values.astype(np.int32))
            for end, flat in ends
            for name, values in zip(("layer", "feature"), np.divmod(flat, n_features), strict=True)
        }
        measures = {name: pa.array(weights[here, column]).cast(kind) for column, (name, kind) in enumerate(KINDS.items())}
        tables[layer] = pa.table({"dict_id": pa.array([dict_id] * int(here.sum()), pa.string()), **numbers, **measures})
    return tables
