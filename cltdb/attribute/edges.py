"""Direct effects between nodes, by going backwards through the frozen linear maps.

For a batch of targets of one layer: carry each target's input vector (a feature's encoder, a logit's demeaned unembedding) down from its
place as a gradient, read the gradient g at every MLP output and at the embeddings; then
    feature s: a_s * sum over target layers of <W_dec[s -> layer], g[layer, position]>;  error: <e, g>;
    embedding: <E, g>.
Source: Anthropic, "Circuit Tracing" (2025), section "Attribution graphs"; batches of targets as in circuit-tracer.
"""

from typing import NamedTuple

import torch

from cltdb.attribute.adjacency import Adjacency, EdgeCollector
from cltdb.attribute.influence import Shares, influence
from cltdb.attribute.linear_maps import LinearMaps

HELD_BYTES = 2**31
"""Of decoder rows of active features, held while rows of the matrix are computed; the others are read again for every batch."""


class LogitTargets(NamedTuple):
    """tokens: vocabulary ids; directions [n_logits, d_model] and biases [n_logits] give the demeaned logit from the
    final norm's output; probabilities [n_logits] are the model's. All before a final soft-cap, except the
    probabilities. foil: the token whose logit is taken off."""

    tokens: list
    directions: torch.Tensor
    biases: torch.Tensor
    probabilities: torch.Tensor
    foil: int | None = None


class Effects(NamedTuple):
    """adjacency: an `Adjacency`, rows targets; pre_activations and biases [n_nodes], 0 but for features and logits; expanded [n_nodes]:
    whether a row was computed; min_weight: the absolute weight from which on edges were kept."""

    adjacency: Adjacency
    pre_activations: torch.Tensor
    biases: torch.Tensor
    expanded: torch.Tensor
    min_weight: float


def top_logits(replacement, *, mass, at_most):
    """The smallest set of next tokens that reaches probability `mass`, at most `at_most`, likeliest first."""
    probabilities = torch.softmax(replacement.logits[-1].double(), dim=-1)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    n = min(int((ordered.cumsum(0) < mass).sum()) + 1, at_most, len(tokens))
    return logit_targets(replacement, tokens[:n].tolist())


def logit_targets(replacement, tokens, foil=None):
    """The demeaned logits of `tokens`, or with a foil (one token) the differences to its logit."""
    lm = replacement.lm
    W_U, b_U = lm.unembedding_weight(), getattr(lm.unembedding, "bias", None)
    reference = W_U.mean(0) if foil is None else W_U[foil]
    biases = torch.zeros(len(tokens), dtype=W_U.dtype, device=W_U.device)
    if b_U is not None:
        biases = b_U[tokens] - (b_U.mean() if foil is None else b_U[foil])
    probabilities = torch.softmax(replacement.logits[-1].double(), dim=-1)[tokens]
    return LogitTargets(tokens, W_U[tokens] - reference, biases, probabilities.cpu(), foil)


def direct_effects(replacement, nodes, targets, *, max_features=None, max_edges=None, batch_size=128):
    """All direct effects on logits and features; with `max_features`, on the that many most influential features; with `max_edges`, the
    strongest, at most that many."""
    n_features = len(nodes.feature)
    budget = n_features if max_features is None else min(max_features, n_features)
    edges = EdgeCollector(len(nodes), dtype=replacement.lm.dtype, max_edges=max_edges)
    rows = _Rows(replacement, nodes, targets, batch=batch_size)
    expanded = torch.zeros(len(nodes), dtype=torch.bool)
    expanded[nodes.logits] = True
    rows.add_to(edges, torch.arange(nodes.logits.start, nodes.logits.stop))
    while (left := budget - int(expanded[nodes.features].sum())) > 0:
        chosen = torch.arange(n_features)
        if budget < n_features:
            chosen = _most_influential(edges.adjacency(), expanded, nodes, targets, min(left, batch_size))
        rows.add_to(edges, chosen)
        expanded[chosen] = True
    pre_activations, biases = _known(replacement, nodes, targets)
    return Effects(edges.finish(), pre_activations, biases, expanded, edges.min_weight)


def _known(replacement, nodes, targets):
    """Pre-activations from the model's run, biases from a forward pass without sources, both [n_nodes]."""
    constant = replacement.constant_part()
    layer, position, feature = nodes.feature_layer, nodes.feature_position, nodes.feature
    pre_activations, biases = (torch.zeros(len(nodes), dtype=replacement.lm.dtype) for _ in range(2))
    pre_activations[nodes.features] = replacement.pre_activations[position, layer, feature].cpu()
    for source, x in enumerate(constant.mlp_inputs):
        here = nodes.features.start + (layer == source).nonzero()[:, 0]
        at = (some[here].to(x.device) for some in (position, feature))
        biases[here] = replacement.dictionary.pre_activations_at(x[0], source, *at).cpu()
    direct = replacement.final()[-1] @ targets.directions.T + targets.biases
    pre_activations[nodes.logits] = direct.cpu()
    biases[nodes.logits] = (constant.final[0, -1] @ targets.directions.T + targets.biases).cpu()
    return pre_activations, biases


def _most_influential(adjacency, expanded, nodes, targets, n):
    """The `n` features not yet expanded with the highest influence in the graph so far, equal ones by id."""
    weights = torch.zeros(len(nodes), dtype=torch.float64)
    weights[nodes.logits] = targets.probabilities
    so_far = influence(Shares(adjacency), weights)[nodes.features]
    so_far[expanded[nodes.features]] = -1
    return so_far.sort(descending=True, stable=True).indices[:n].sort().values


class _Rows:
    """Computes rows of the adjacency matrix, a batch of targets of one layer at a time."""

    def __init__(self, replacement, nodes, targets, *, batch):
        self.replacement, self.nodes, self.targets, self.batch = replacement, nodes, targets, batch
        self.maps, self.device = LinearMaps(replacement), replacement.lm.device
        self.writes = _Writes(replacement, nodes)

    @torch.no_grad()
    def add_to(self, edges, ids):
        """Gives the rows `ids`, rising, to an `EdgeCollector`."""
        nodes, dictionary = self.nodes, self.replacement.dictionary
        if len(ids) and ids[0] >= nodes.logits.start:
            places = torch.full_like(ids, nodes.n_positions - 1)
            self._add(edges, ids, nodes.n_layers, places, self.targets.directions[ids - nodes.logits.start])
            return
        for layer in range(nodes.n_layers):
            here = ids[nodes.feature_layer[ids] == layer]
            for start in range(0, len(here), self.batch):
                chunk = here[start : start + self.batch]
                vectors = dictionary.encoder(layer, nodes.feature[chunk])
                self._add(edges, chunk, layer, nodes.feature_position[chunk], vectors)

    def _add(self, edges, ids, layer, positions, vectors):
        """Rows of targets that read MLP input `layer` at `positions` by `vectors`."""
        *at_outputs, (_, at_embeddings) = self.maps.gradients(layer, positions.to(self.device), vectors.to(self.device))
        n_positions = at_embeddings.shape[1]
        gradients = at_embeddings.new_empty(n_positions, len(ids), layer, at_embeddings.shape[2])  # a position's stand together
        for source, gradient in at_outputs:
            gradients[:, :, source] = gradient.transpose(0, 1)
        sources, blocks = [], []
        for source in range(layer):
            start = self.nodes.features_at(source, 0).start
            sources.append(torch.arange(start, self.nodes.features_at(source, n_positions - 1).stop))
            for position in range(1, n_positions):
                written = self.writes.of(source, position, before=layer)
                if written is not None:
                    read = gradients[position, :, source : source + written.shape[1]].flatten(1)
                    blocks.append(read @ written.flatten(1).T)
        if layer and n_positions > 1:
            errors = self.replacement.errors[1:n_positions, :layer]
            blocks.append(torch.einsum("pbld,pld->blp", gradients[1:], errors).flatten(1))
            sources.append(self.nodes.error(torch.arange(layer)[:, None], torch.arange(1, n_positions)).flatten())
        blocks.append(torch.einsum("bpd,pd->bp", at_embeddings, self.replacement.embeddings[:n_positions]))
        sources.append(self.nodes.embeddings.start + torch.arange(n_positions))
        edges.add(ids, torch.cat(sources), torch.cat(blocks, dim=1))


class _Writes:
    """What active features write: activation * W_dec [n_here, n_targets, d_model] by layer and position; HELD_BYTES of it are held, the
    rest is read and multiplied again each time."""

    def __init__(self, replacement, nodes):
        self.replacement, self.nodes, self.held, self.room = replacement, nodes, {}, HELD_BYTES

    def of(self, layer, position, *, before):
        """Of the features at one place, to target layers below `before`; None where there are none."""
        targets = slice(before - layer)
        if (layer, position) in self.held:
            return self.held[layer, position][:, targets]
        feature, dictionary = self.nodes.feature[self.nodes.features_at(layer, position)], self.replacement.dictionary
        if not len(feature):
            return None
        activation = self.replacement.activations[position, layer, feature.to(dictionary.device)][:, None, None]
        n_bytes = len(feature) * len(dictionary.target_layers(layer)) * dictionary.d_model * dictionary.dtype.itemsize
        if n_bytes > self.room:
            return activation * dictionary.decoder(layer, feature, targets)
        self.room -= n_bytes
        self.held[layer, position] = activation * dictionary.decoder(layer, feature)
        return self.held[layer, position][:, targets]
