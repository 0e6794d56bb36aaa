"""Direct effects between nodes, by going backwards through the frozen linear maps.

For a batch of targets of one layer: start from each target's input vector (a feature's encoder, a logit's demeaned unembedding)
at its place, carry it down as a gradient, and read the gradient g at every MLP output and at the embeddings. Its edges weigh:
    feature s: a_s * sum over target layers of <W_dec[s -> layer], g[layer, position]>;  error: <e, g>;
    embedding: <E, g>.
Source: Anthropic, "Circuit Tracing" (2025), section "Attribution graphs"; batches of targets as in circuit-tracer.
"""

from typing import NamedTuple

import numpy as np
import torch

from cltdb.graphs.adjacency import Adjacency
from cltdb.replacement.edge_collector import EdgeCollector
from cltdb.replacement.linear_maps import LinearMaps

HELD_BYTES = 2**31
"""Decoder rows of active features that are held while rows of the matrix are computed; any others are read again for every
batch."""
GROWTH = 4
"""With max_features, influence is computed anew when a 64th, a 16th and a 4th of that many features are expanded. Together these
passes over the edges cost about a third of one pass over all."""
MIN_WEIGHT = 1e-30
"""Weight in influence of a chosen token whose probability is 0 in floating point, so that there is something to explain."""


class Effects(NamedTuple):
    """adjacency: an `Adjacency`, rows targets; pre_activations and biases [n_nodes] float64, 0 but for features and logits;
    expanded [n_nodes]: whether a row was computed; min_weight: edges of a smaller absolute weight were not kept."""

    adjacency: Adjacency
    pre_activations: np.ndarray
    biases: np.ndarray
    expanded: np.ndarray
    min_weight: float


def direct_effects(replacement, nodes, targets, *, max_features=None, max_edges=None, batch_size=128):
    """All direct effects on the `Targets` and on features. max_features: only on this many features, the most influential ones.
    max_edges: only the strongest effects, at most this many."""
    n_features = len(nodes.feature)
    budget = n_features if max_features is None else min(max_features, n_features)
    dtype = torch.promote_types(replacement.lm.dtype, torch.float32)
    edges = EdgeCollector(len(nodes), dtype=dtype, max_edges=max_edges, ranked=budget < n_features)
    rows = _Rows(replacement, nodes, targets, batch=batch_size)
    weights = target_weights(nodes, targets)
    expanded = weights > 0
    rows.add_to(edges, np.flatnonzero(expanded))
    for size in [n_features] if budget == n_features else _sizes(budget, batch_size):
        n_chosen = size - int(expanded[nodes.features].sum())
        if n_chosen > 0:
            chosen = np.flatnonzero(~expanded[nodes.features])
            if size < n_features:
                so_far = edges.influence(torch.from_numpy(weights)).numpy()[nodes.features]
                chosen = _most_influential(so_far, expanded[nodes.features], n_chosen)
            rows.add_to(edges, chosen)
            expanded[chosen] = True
    pre_activations, biases = _known(replacement, nodes, targets)
    return Effects(edges.finish(), pre_activations, biases, expanded, edges.min_weight)


def _sizes(budget, batch_size):
    """The numbers of expanded features, rising, at which influence is computed anew; the last is the budget."""
    sizes = [budget]
    while sizes[0] > batch_size:
        sizes.insert(0, -(-sizes[0] // GROWTH))
    return sizes


def target_weights(nodes, targets):
    """The weight in influence of each node [n_nodes] float64: that of the targets, 0 for the others."""
    weights = np.zeros(len(nodes))
    weights[nodes.logits] = targets.weights.clamp(min=MIN_WEIGHT).numpy()
    if targets.feature:
        weights[nodes.feature_at(*targets.feature)] = 1
    return weights


def _known(replacement, nodes, targets):
    """Pre-activations from the model's run, biases from a forward pass without sources, both [n_nodes] float64."""
    constant = replacement.constant_part()
    layer, position, feature = map(torch.from_numpy, (nodes.feature_layer, nodes.feature_position, nodes.feature))
    pre_activations, biases = (torch.zeros(len(nodes), dtype=torch.float64) for _ in range(2))
    pre_activations[nodes.features] = replacement.pre_activations[position, layer, feature].cpu().double()
    for source, x in enumerate(constant.mlp_inputs):
        here = (layer == source).nonzero()[:, 0]
        at = (some[here].to(x.device) for some in (position, feature))
        biases[here] = replacement.dictionary.pre_activations_at(x[0], source, *at).cpu().double()
    direct = targets.values(replacement, replacement.final()[-1], replacement.mlp_inputs[-1])
    pre_activations[nodes.logits] = direct.cpu().double()
    last_inputs = torch.stack([x[0, -1] for x in constant.mlp_inputs])
    biases[nodes.logits] = targets.values(replacement, constant.final[0, -1], last_inputs).cpu().double()
    return pre_activations.numpy(), biases.numpy()


def _most_influential(so_far, expanded, n):
    """The `n` features not yet expanded with the highest influence `so_far`, equal ones by id; both [n_features_active]."""
    return np.sort(np.argsort(np.where(expanded, 1, -so_far), stable=True)[:n])


class _Rows:
    """Computes rows of the adjacency matrix, a batch of targets of one layer at a time."""

    def __init__(self, replacement, nodes, targets, *, batch):
        self.replacement, self.nodes, self.targets, self.batch = replacement, nodes, targets, batch
        self.maps, self.device = LinearMaps(replacement), replacement.lm.device
        self.writes = _Writes(replacement, nodes)

    @torch.no_grad()
    def add_to(self, edges, ids):
        """Gives the rows `ids`, rising, all of features or all of logits, to an `EdgeCollector`."""
        nodes, dictionary = self.nodes, self.replacement.dictionary
        if len(ids) and ids[0] >= nodes.logits.start:
            places = np.full_like(ids, nodes.n_positions - 1)
            layer = nodes.n_layers if self.targets.layer is None else self.targets.layer
            self._add(edges, ids, layer, places, self.targets.directions[torch.from_numpy(ids - nodes.logits.start)])
            return
        for layer in range(nodes.n_layers):
            here = ids[nodes.feature_layer[ids] == layer]
            for start in range(0, len(here), self.batch):
                chunk = here[start : start + self.batch]
                vectors = dictionary.encoder(layer, torch.from_numpy(nodes.feature[chunk]))
                self._add(edges, chunk, layer, nodes.feature_position[chunk], vectors)

    def _add(self, edges, ids, layer, positions, vectors):
        """Rows of targets that read MLP input `layer` at `positions` by `vectors`."""
        positions = torch.from_numpy(positions).to(self.device)
        *at_outputs, (_, at_embeddings) = self.maps.gradients(layer, positions, vectors.to(self.device))
        n_positions = at_embeddings.shape[1]
        gradients = at_embeddings.new_empty(n_positions, len(ids), layer, at_embeddings.shape[2])  # a position's side by side
        for source, gradient in at_outputs:
            gradients[:, :, source] = gradient.transpose(0, 1)
        sources, blocks, first = [], [], self.nodes.n_constant
        for source in range(layer):
            start = self.nodes.features_at(source, 0).start
            sources.append(np.arange(start, self.nodes.features_at(source, n_positions - 1).stop))
            for position in range(first, n_positions):
                written = self.writes.of(source, position, before=layer)
                if written is not None:
                    read = gradients[position, :, source : source + written.shape[1]].flatten(1)
                    blocks.append(read @ written.flatten(1).T)
        if layer and n_positions > first:
            errors = self.replacement.errors[first:n_positions, :layer]
            blocks.append(torch.einsum("pbld,pld->blp", gradients[first:], errors).flatten(1))
            sources.append(self.nodes.error(np.arange(layer)[:, None], np.arange(first, n_positions)).flatten())
        blocks.append(torch.einsum("bpd,pd->bp", at_embeddings, self.replacement.embeddings[:n_positions]))
        sources.append(self.nodes.embeddings.start + np.arange(n_positions))
        edges.add(torch.from_numpy(ids), torch.from_numpy(np.concatenate(sources)), torch.cat(blocks, dim=1))


class _Writes:
    """What active features write, by layer and position: activation * W_dec [n_here, n_targets, d_model]. HELD_BYTES of this are
    held; the rest is read and multiplied again each time."""

    def __init__(self, replacement, nodes):
        self.replacement, self.nodes, self.held, self.room = replacement, nodes, {}, HELD_BYTES

    def of(self, layer, position, *, before):
        """What the features at one place write to target layers below `before`; None where there are no features."""
        targets = slice(before - layer)
        if (layer, position) in self.held:
            return self.held[layer, position][:, targets]
        here, dictionary = self.nodes.features_at(layer, position), self.replacement.dictionary
        feature = torch.from_numpy(self.nodes.feature[here])
        if not len(feature):
            return None
        activation = self.replacement.activations[position, layer, feature.to(dictionary.device)][:, None, None]
        n_bytes = len(feature) * len(dictionary.target_layers(layer)) * dictionary.d_model * dictionary.dtype.itemsize
        if n_bytes > self.room:
            return activation * dictionary.decoder(layer, feature, targets)
        self.room -= n_bytes
        self.held[layer, position] = activation * dictionary.decoder(layer, feature)
        return self.held[layer, position][:, targets]
