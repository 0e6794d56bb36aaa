"""Which row and column of the adjacency matrix belongs to which node. No other file knows these offsets.

Order: features by (layer, position, feature), errors by (layer, position), embeddings by position, logits by falling
probability. The constant positions (position 0, or more) have embedding nodes but neither features nor errors: their MLP
outputs are constants of the prompt.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

KINDS = ("feature", "error", "embedding", "logit")


@dataclass(frozen=True)
class NodeIndex:
    """feature_layer, feature_position, feature [n_features_active] int64, sorted in that order, none at the first n_constant
    positions; tokens and logit_tokens are vocabulary ids, None for a direction that is no token's."""

    feature_layer: np.ndarray
    feature_position: np.ndarray
    feature: np.ndarray
    n_layers: int
    tokens: tuple[int, ...]
    logit_tokens: tuple[int, ...]
    n_constant: int = 1

    def __post_init__(self):
        assert not (self.feature_position < self.n_constant).any(), "features at constant positions"

    n_positions = property(lambda self: len(self.tokens))
    features = property(lambda self: slice(0, len(self.feature)))
    n_with_errors = property(lambda self: self.n_positions - self.n_constant)
    errors = property(lambda self: slice(self.features.stop, self.features.stop + self.n_layers * self.n_with_errors))
    embeddings = property(lambda self: slice(self.errors.stop, self.errors.stop + self.n_positions))
    logits = property(lambda self: slice(self.embeddings.stop, self.embeddings.stop + len(self.logit_tokens)))

    def __len__(self):
        return self.logits.stop

    @cached_property
    def _feature_starts(self):
        """The first feature of each (layer, position), and after all the end [n_layers * n_positions + 1]."""
        places = self.feature_layer * self.n_positions + self.feature_position
        return np.searchsorted(places, np.arange(self.n_layers * self.n_positions + 1)).tolist()

    def features_at(self, layer, position):
        """The slice of features of one layer and position."""
        place = layer * self.n_positions + position
        return slice(*self._feature_starts[place : place + 2])

    def feature_at(self, layer, position, feature):
        """The id of a feature that is there."""
        here = self.features_at(layer, position)
        node = here.start + int(np.searchsorted(self.feature[here], feature))
        assert node < here.stop and self.feature[node] == feature, "no such node"
        return node

    def error(self, layer, position):
        """The id of an error node, or an array of them; position at least n_constant."""
        assert np.all(position >= self.n_constant), "errors at constant positions"
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
        mask = np.zeros(len(self), dtype=bool)
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
