"""Which row and column of the adjacency matrix belongs to which node: the only place that knows offsets.

Order: features by (layer, position, feature), errors by (layer, position), embeddings by position, logits by falling
probability. The constant positions (position 0, or more) have embedding nodes but neither features nor errors: their MLP
outputs are constants of the prompt.
"""

from dataclasses import dataclass

import torch

KINDS = ("feature", "error", "embedding", "logit")


@dataclass(frozen=True)
class NodeIndex:
    """feature_layer, feature_position, feature [n_features_active], sorted in that order; tokens and logit_tokens are
    vocabulary ids, None for a direction that is no token's."""

    feature_layer: torch.Tensor
    feature_position: torch.Tensor
    feature: torch.Tensor
    n_layers: int
    tokens: tuple[int, ...]
    logit_tokens: tuple[int, ...]
    n_constant: int = 1

    @classmethod
    def of(cls, activations, *, tokens, logit_tokens, n_constant=1):
        """The nodes of a prompt: activations [pos, n_layers, n_features], with zeros at the first n_constant positions."""
        layer, position, feature = activations.transpose(0, 1).nonzero(as_tuple=True)
        assert not bool((position < n_constant).any()), "features at constant positions"
        places = (layer.cpu(), position.cpu(), feature.cpu())
        return cls(*places, activations.shape[1], tuple(tokens), tuple(logit_tokens), n_constant)

    n_positions = property(lambda self: len(self.tokens))
    features = property(lambda self: slice(0, len(self.feature)))
    n_with_errors = property(lambda self: self.n_positions - self.n_constant)
    errors = property(lambda self: slice(self.features.stop, self.features.stop + self.n_layers * self.n_with_errors))
    embeddings = property(lambda self: slice(self.errors.stop, self.errors.stop + self.n_positions))
    logits = property(lambda self: slice(self.embeddings.stop, self.embeddings.stop + len(self.logit_tokens)))

    def __len__(self):
        return self.logits.stop

    def features_at(self, layer, position):
        """The slice of features of one layer and position."""
        place = self.feature_layer * self.n_positions + self.feature_position
        bounds = torch.searchsorted(
            place, torch.tensor([layer * self.n_positions + position, layer * self.n_positions + position + 1])
        )
        return slice(*bounds.tolist())

    def feature_at(self, layer, position, feature):
        """The id of a feature that is there."""
        here = self.features_at(layer, position)
        place = int(torch.searchsorted(self.feature[here], feature))
        assert int(self.feature[here][place]) == feature, "no such node"
        return here.start + place

    def error(self, layer, position):
        """The id of an error node, or a tensor of them; position at least n_constant."""
        assert bool(torch.as_tensor(position >= self.n_constant).all()), "errors at constant positions"
        return self.errors.start + layer * self.n_with_errors + position - self.n_constant

    def kind(self, node):
        """The kind of node id `node`."""
        return KINDS[sum(node >= end for end in (self.features.stop, self.errors.stop, self.embeddings.stop))]

    def place(self, node):
        """(layer, position, feature) of node id `node`, None where it has none; a logit stands at the last position."""
        kind = self.kind(node)
        if kind == "feature":
            return int(self.feature_layer[node]), int(self.feature_position[node]), int(self.feature[node])
        if kind == "error":
            layer, position = divmod(node - self.errors.start, self.n_with_errors)
            return layer, position + self.n_constant, None
        return None, node - self.embeddings.start if kind == "embedding" else self.n_positions - 1, None

    def token(self, node):
        """The vocabulary id of an embedding or logit node, None for the others."""
        ids = {"embedding": (self.tokens, self.embeddings.start), "logit": (self.logit_tokens, self.logits.start)}.get(
            self.kind(node)
        )
        return None if ids is None else ids[0][node - ids[1]]

    def is_kind(self, *kinds):
        """Mask [n_nodes] of the nodes of these kinds."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        for kind in kinds:
            mask[getattr(self, f"{kind}s")] = True
        return mask

    def columns(self):
        """node_id, kind, layer, position, feature and token of every node, as lists by name."""
        places = [self.place(node) for node in range(len(self))]
        return {
            "node_id": list(range(len(self))),
            "kind": [self.kind(node) for node in range(len(self))],
            "layer": [place[0] for place in places],
            "position": [place[1] for place in places],
            "feature": [place[2] for place in places],
            "token": [self.token(node) for node in range(len(self))],
        }
