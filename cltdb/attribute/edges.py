"""Direct effects between nodes, by backward passes through the frozen linear maps.

For a batch of targets: inject each target's input vector (a feature's encoder, a logit's demeaned unembedding) as the
gradient at its place, read the gradient g at every MLP output and at the embeddings; then
    feature s: a_s * sum over target layers of <W_dec[s -> layer], g[layer, position]>;  error: <e, g>;
    embedding: <E, g>.
Source: Anthropic, "Circuit Tracing" (2025), section "Attribution graphs"; batches of targets as in circuit-tracer.
"""

from typing import NamedTuple

import torch

from cltdb.attribute.influence import influence, normalized


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
    """adjacency [n_nodes, n_nodes], rows targets; pre_activations and biases [n_nodes], 0 but for features and logits;
    expanded [n_nodes]: whether a row was computed."""

    adjacency: torch.Tensor
    pre_activations: torch.Tensor
    biases: torch.Tensor
    expanded: torch.Tensor


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


def direct_effects(replacement, nodes, targets, *, max_features=None, batch_size=64):
    """All direct effects on logits and features; with `max_features`, on the that many most influential features."""
    n_features = len(nodes.feature)
    budget = n_features if max_features is None else min(max_features, n_features)
    rows = _Rows(replacement, nodes, targets, batch=max(1, min(batch_size, max(budget, len(targets.tokens)))))
    effects = _empty(replacement, nodes, targets)
    logit_ids = list(range(nodes.logits.start, nodes.logits.stop))
    rows.fill(effects.adjacency, logit_ids)
    effects.expanded[logit_ids] = True
    while (left := budget - int(effects.expanded[nodes.features].sum())) > 0:
        chosen = list(range(n_features))
        if budget < n_features:
            chosen = _most_influential(effects, nodes, targets, min(left, 4 * batch_size))
        rows.fill(effects.adjacency, chosen)
        effects.expanded[chosen] = True
    return effects


def _empty(replacement, nodes, targets):
    """Effects without a row; pre-activations from the model's run, biases from a forward pass without sources."""
    dtype, constant = replacement.lm.dtype, replacement.constant_part()
    layer, position, feature = nodes.feature_layer, nodes.feature_position, nodes.feature
    pre_activations, biases = (torch.zeros(len(nodes), dtype=dtype) for _ in range(2))
    pre_activations[nodes.features] = replacement.pre_activations[position, layer, feature].cpu()
    constant_inputs = torch.stack([x[0] for x in constant.mlp_inputs], dim=1)  # [pos, n_layers, d_model]
    biases[nodes.features] = replacement.dictionary.pre_activations(constant_inputs)[position, layer, feature].cpu()
    direct = replacement.final()[-1] @ targets.directions.T + targets.biases
    pre_activations[nodes.logits] = direct.cpu()
    biases[nodes.logits] = (constant.final[0, -1] @ targets.directions.T + targets.biases).cpu()
    return Effects(
        torch.zeros(len(nodes), len(nodes), dtype=dtype),
        pre_activations,
        biases,
        torch.zeros(len(nodes), dtype=torch.bool),
    )


def _most_influential(effects, nodes, targets, n):
    """The `n` features not yet expanded with the highest influence in the graph so far, equal ones by id."""
    weights = torch.zeros(len(nodes), dtype=torch.float64)
    weights[nodes.logits] = targets.probabilities
    so_far = influence(normalized(effects.adjacency.double()), weights)[nodes.features]
    so_far[effects.expanded[nodes.features]] = -1
    return sorted(so_far.sort(descending=True, stable=True).indices[:n].tolist())


class _Rows:
    """Computes rows of the adjacency matrix, a batch at a time, on one kept forward pass."""

    def __init__(self, replacement, nodes, targets, *, batch):
        self.replacement, self.nodes, self.targets, self.batch = replacement, nodes, targets, batch
        self.embeddings = replacement.embeddings.expand(batch, -1, -1).clone().requires_grad_()
        self.sites = [site.expand(batch, -1, -1).clone().requires_grad_() for site in replacement.sites.transpose(0, 1)]
        with torch.enable_grad():
            self.run = replacement.run(self.embeddings, self.sites)
        self.writes = _writes(replacement, nodes)

    def fill(self, adjacency, ids):
        """Writes the rows `ids`, in batches of neighbouring ids."""
        for start in range(0, len(ids), self.batch):
            chunk = ids[start : start + self.batch]
            adjacency[chunk] = self._sources(*self._gradients(chunk))[: len(chunk)].to(adjacency)

    def _gradients(self, ids):
        """Gradients at the MLP outputs [batch, pos, n_layers, d_model] and at the embeddings [batch, pos, d_model]."""
        injected = {}
        for row, node in enumerate(ids):
            if self.nodes.kind(node) == "logit":
                at, position, vector = -1, -1, self.targets.directions[node - self.nodes.logits.start]
            else:
                at, position, feature = self.nodes.place(node)
                vector = self.replacement.dictionary.W_enc[at, feature]
            outputs = self.run.final if at == -1 else self.run.mlp_inputs[at]
            injected.setdefault(at, (outputs, torch.zeros_like(outputs)))[1][row, position] = vector
        outputs, vectors = zip(*injected.values(), strict=True)
        at_embeddings, *at_sites = torch.autograd.grad(
            outputs,
            [self.embeddings, *self.sites],
            vectors,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.stack(at_sites, dim=2), at_embeddings

    def _sources(self, at_sites, at_embeddings):
        """Effects of all nodes on the batch's targets [batch, n_nodes]."""
        nodes, replacement = self.nodes, self.replacement
        effects = at_sites.new_zeros(len(at_sites), len(nodes))
        for (layer, position), (here, writes) in self.writes.items():
            effects[:, here] = at_sites[:, position, layer : layer + writes.shape[1]].flatten(1) @ writes.flatten(1).T
        effects[:, nodes.errors] = torch.einsum("bpld,pld->blp", at_sites, replacement.errors)[:, :, 1:].flatten(1)
        effects[:, nodes.embeddings] = torch.einsum("bpd,pd->bp", at_embeddings, replacement.embeddings)
        return effects


def _writes(replacement, nodes):
    """What active features write, {(layer, position): (slice, activation * W_dec [n_here, n_targets, d_model])}."""
    writes = {}
    for layer in range(nodes.n_layers):
        for position in range(1, nodes.n_positions):
            here = nodes.features_at(layer, position)
            feature = nodes.feature[here].to(replacement.lm.device)
            if len(feature):
                activation = replacement.activations[position, layer, feature]
                writes[layer, position] = here, activation[:, None, None] * replacement.dictionary.W_dec[layer][feature]
    return writes
