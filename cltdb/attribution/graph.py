"""The attribution graph of a prompt: `attribute` makes a `Graph`.

Four steps: the local replacement model of the prompt, what is to be explained, direct effects by backward passes, influence.
Source: Anthropic, "Circuit Tracing" (2025); node order, pruning and scores as circuit-tracer's.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from cltdb.attribution.settings import BATCH_SIZE, LOGIT_MASS, MAX_LOGITS
from cltdb.errors import CltdbError, check_count
from cltdb.graphs import influence, paths, pruning
from cltdb.graphs.nodes import NodeIndex
from cltdb.graphs.signed_paths import SignedPaths
from cltdb.replacement.constant_positions import check_constant, from_start, without_features
from cltdb.replacement.edge_checks import measure_edges
from cltdb.replacement.edges import Effects, direct_effects, target_weights
from cltdb.replacement.replacement_model import LocalReplacementModel, computing_in, in_dtype, prompt_token_ids
from cltdb.replacement.targets import FeatureTarget, Targets, choose_targets


@dataclass(frozen=True)
class PrunedGraph:
    """The kept part of a graph. nodes, edges: frames as of `Graph`. node_mask, edge_mask: which of the graph's nodes and edges
    these are. In the scores, all that was cut counts as error."""

    nodes: object
    edges: object
    node_mask: np.ndarray
    edge_mask: np.ndarray
    replacement_score: float
    completeness_score: float


@dataclass(frozen=True)
class Graph:
    """Nodes and direct effects of one prompt. `edges` and `dense` leave out edges of an absolute weight below `edge_threshold`;
    influence and scores count them, unless `effects` lacks them already. keep: the (node, edge) thresholds of the pruning in the
    columns `kept`. measured: {(source, target): effect} of the edges that were checked."""

    graph_id: str
    replacement: LocalReplacementModel
    index: NodeIndex
    targets: Targets
    effects: Effects
    edge_threshold: float
    keep: tuple[float, float]
    measured: dict = field(default_factory=dict)

    _adjacency = property(lambda self: self.effects.adjacency)

    @cached_property
    def _shares(self):
        return influence.Shares(self._adjacency)

    @cached_property
    def _target_weights(self):
        return target_weights(self.index, self.targets)

    _is_target = property(lambda self: self._target_weights > 0)

    @cached_property
    def _inner(self):
        """Features whose incoming edges were computed; the others count as errors."""
        return self.index.is_kind("feature") & self.effects.expanded & ~self._is_target

    @cached_property
    def _error(self):
        return self.index.is_kind("feature", "error") & ~self._inner & ~self._is_target

    @cached_property
    def influence(self):
        """Influence of every node on the targets, w^T B of the unpruned graph [n_nodes]."""
        return influence.influence(self._shares, self._target_weights)

    @cached_property
    def scores(self):
        """Replacement and completeness score of the unpruned graph."""
        return pruning.scores(
            self._adjacency, self._target_weights, is_error=self._error, is_embedding=self.index.is_kind("embedding")
        )

    @property
    def replacement_score(self):
        """Share of the influence of embeddings and errors that enters at embeddings; of the unpruned graph."""
        return self.scores.replacement

    @property
    def completeness_score(self):
        """Share of the nodes' input, weighted by their influence, that is not error; of the unpruned graph."""
        return self.scores.completeness

    def strongest_paths(self, n=10):
        """The strongest path to a target from each of the `n` most influential embeddings and errors: [(influence of the start,
        strength, node ids)]."""
        is_start = self.index.is_kind("embedding", "error")
        return paths.strongest_paths(self._shares, self._target_weights, is_start, self.influence, n)

    def signed_paths(self, n=50, *, max_length=6, sign="both"):
        """{target's node id: its `n` strongest paths of at most `max_length` edges from embeddings and errors, as `SignedPath`s}; features
        whose incoming edges were not computed count as errors. sign: both, or positive or negative paths alone."""
        check_count("signed_paths n", n)
        is_input = self._error | self.index.is_kind("embedding")
        found = SignedPaths(self._adjacency, self.feature_activations, is_input, max_length=max_length, sign=sign)
        return {target: found.to(target, n) for target in np.flatnonzero(self._is_target).tolist()}

    @cached_property
    def path_lengths(self):
        """Share of the embeddings' influence that goes along paths of 1, 2, … edges [longest]."""
        return paths.path_lengths(self._shares, self._target_weights, self.index.is_kind("embedding"))

    @property
    def mean_path_length(self):
        """Mean of `path_lengths` in edges; None where no path leads to an embedding."""
        shares = self.path_lengths
        return float(shares @ np.arange(1, len(shares) + 1)) if len(shares) else None

    @cached_property
    def max_abs_error(self):
        """Largest difference between the logits of the replacement model and the model's, over all positions."""
        return float((self.replacement.replaced_logits() - self.replacement.logits).abs().max())

    @cached_property
    def _kept(self):
        pruning.warn_without_influence(self.influence)
        return self._prune(*self.keep)

    @cached_property
    def _stored(self):
        """Which edges have a row [n_edges]."""
        return (np.abs(self._adjacency.weight) >= self.edge_threshold) | self._kept.edges

    def dense(self):
        """The adjacency matrix [n_nodes, n_nodes], a tensor: rows targets, columns sources."""
        return torch.from_numpy(self._adjacency.where(self._stored).dense())

    @cached_property
    def nodes(self):
        """One row per node, in the order of the matrix."""
        import polars as pl

        columns, n = self.index.columns(), len(self.index)
        computed = self.effects.expanded
        activations = self.feature_activations
        has_value = self.index.is_kind("feature", "logit").tolist()
        dropped = self._adjacency.dropped_without(~self._stored)
        unknown = self.index.is_kind("feature") & ~computed
        floats = {
            "activation": _where(self.index.is_kind("feature").tolist(), activations),
            "pre_activation": _where(has_value, self.effects.pre_activations),
            "bias": _where(has_value, self.effects.biases),
            "influence": self.influence.tolist(),
            "probability": _where(self._is_target.tolist(), self._target_weights),
            "dropped_mass": _where((~unknown).tolist(), dropped),
        }
        frame = pl.DataFrame(
            {
                "graph_id": [self.graph_id] * n,
                **columns,
                **floats,
                "expanded": computed.tolist(),
                "kept": self._kept.nodes.tolist(),
            },
            schema_overrides={
                **dict.fromkeys(("node_id", "layer", "position", "feature", "token"), pl.Int32),
                **dict.fromkeys(floats, pl.Float64),
            },
        )
        return frame.select(
            "graph_id",
            "node_id",
            "kind",
            "layer",
            "position",
            "feature",
            "activation",
            "pre_activation",
            "bias",
            "influence",
            "token",
            "probability",
            "expanded",
            "dropped_mass",
            "kept",
        )

    @property
    def feature_activations(self):
        """Activations [n_nodes] of features, 0 for the other nodes."""
        activations, places = (
            np.zeros(len(self.index)),
            (self.index.feature_position, self.index.feature_layer, self.index.feature),
        )
        found = self.replacement.activations[tuple(map(torch.from_numpy, places))]
        activations[self.index.features] = found.double().cpu().numpy()
        return activations

    @cached_property
    def edges(self):
        """One row per edge, ordered by target and source; `measured` is NULL until the edge was checked."""
        return self._edge_rows(self._stored, self._kept.edges)

    def _edge_rows(self, rows, kept):
        """The frame of the edges in mask `rows`, those in mask `kept` marked; both [n_edges]."""
        import polars as pl

        adjacency = self._adjacency
        measured = np.full(len(adjacency), np.nan)
        measured[adjacency.places(self.measured)] = list(self.measured.values())
        return pl.DataFrame(
            {
                "source_id": adjacency.source[rows],
                "target_id": adjacency.target[rows],
                "weight": adjacency.weight[rows].astype(float),
                "influence": self._edge_influence[rows],
                "kept": kept[rows],
                "measured": measured[rows],
            }
        ).select(pl.lit(self.graph_id).alias("graph_id"), pl.exclude("measured"), pl.col("measured").fill_nan(None))

    @cached_property
    def _edge_influence(self):
        return influence.edge_influence(self._shares, self._target_weights)

    def prune(self, node_threshold=0.8, edge_threshold=0.98):
        """The nodes that make up `node_threshold` of the influence, and of their edges `edge_threshold`."""
        import polars as pl

        same = (node_threshold, edge_threshold) == self.keep
        kept = self._kept if same else self._prune(node_threshold, edge_threshold)
        scores = pruning.pruned_scores(
            self._adjacency,
            self._target_weights,
            kept,
            is_error=self._error,
            is_embedding=self.index.is_kind("embedding"),
        )
        nodes = self.nodes.with_columns(kept=pl.Series(kept.nodes)).filter("kept")
        edges = self._edge_rows(kept.edges, kept.edges)
        return PrunedGraph(nodes, edges, kept.nodes, kept.edges, scores.replacement, scores.completeness)

    def _prune(self, node_threshold, edge_threshold):
        return pruning.prune(
            self._adjacency,
            self._target_weights,
            is_inner=self._inner,
            is_source=self._error,
            node_threshold=node_threshold,
            edge_threshold=edge_threshold,
        )

    def total_effects(self, changes, *, direct=False):
        """What changing features by `changes`, {node id: change}, does to every node's pre-activation along all paths, or along
        direct edges alone [n_nodes]."""
        return paths.total_effects(self._adjacency, self.feature_activations, changes, direct=direct)


def _where(mask, values):
    """The values as a list, None where the mask is false."""
    return [value if has else None for has, value in zip(mask, values.tolist(), strict=True)]


def attribute(
    model,
    dictionary,
    prompt,
    *,
    max_features=None,
    edge_threshold=0.0,
    target=None,
    foil=None,
    position=None,
    logit_mass=LOGIT_MASS,
    max_logits=MAX_LOGITS,
    keep=(0.8, 0.98),
    max_edges=None,
    batch_size=BATCH_SIZE,
    dtype="float32",
    constant_positions=1,
    graph_id="prompt",
):
    """The attribution graph of a prompt.

    prompt: text (BOS is put in front) or token ids, the first of them BOS.
    target: what is explained. Default: the likeliest next tokens, as few as reach probability `logit_mass`, at most `max_logits`.
    Else a token (text or id), alone or less the logit of `foil`; a list of tokens; {token: weight in influence}; a
    `FeatureTarget`; a `DirectionTarget`; a `LabelTarget`.
    position: where tokens and directions are read instead of the prompt's end, counted from the end where negative. The graph is
    that of the prompt up to there.
    max_features: of how many features incoming edges are computed, the most influential ones. All active features that can act on
    the target are nodes.
    edge_threshold: edges of a smaller absolute weight get no row, but for those that pruning keeps.
    max_edges: bounds memory (12 bytes an edge). Above this number only the strongest edges are kept. Influence is computed from
    these alone; the scores count the others as error.
    constant_positions: this many positions at the start (BOS and, of a chat, the prefix that all chats share) have neither
    features nor errors.
    dtype: float32 (also for models in half precision; float64 models in float64), or bfloat16. In bfloat16 weights have three
    digits, and features near their thresholds may be on or off.

    The absolute weights of a node's incoming edges without a row sum up to its `dropped_mass`. The graph's `edge_threshold` is the
    absolute weight from which on edges have rows; max_edges can raise it.
    """
    lm = computing_in(model, dtype)
    for name, bound in (("max_features", max_features), ("max_edges", max_edges)):
        if bound is not None and bound < 1:
            raise CltdbError(f"attribute.{name}", found=bound, expected="at least 1, or none for all", do="mend it")
    if max_logits < 1:
        raise CltdbError("attribute.max_logits", found=max_logits, expected="at least 1", do="mend it")
    if not edge_threshold >= 0:
        raise CltdbError("attribute.edge_threshold", found=edge_threshold, expected="0 or more", do="mend it")
    pruning.check_thresholds(*keep)
    if isinstance(target, FeatureTarget):
        if position is not None:
            found = f"{position} beside a FeatureTarget"
            raise CltdbError("attribute position", found=found, expected="the position of the target alone", do="drop position")
        position = target.position
    tokens = up_to(prompt_token_ids(lm, prompt), position, constant_positions)
    replacement = LocalReplacementModel.of(lm, dictionary, tokens, constant_positions=constant_positions)
    targets = choose_targets(replacement, target, foil, mass=logit_mass, at_most=max_logits)
    places = _reaching(replacement.activations, targets).transpose(0, 1).nonzero(as_tuple=True)
    places = [ids.cpu().numpy() for ids in places]
    index = NodeIndex(*places, lm.n_layers, tuple(tokens), tuple(targets.tokens), constant_positions)
    effects = direct_effects(
        replacement,
        index,
        targets,
        max_features=max_features,
        max_edges=max_edges,
        batch_size=batch_size,
    )
    return Graph(graph_id, replacement, index, targets, effects, max(edge_threshold, effects.min_weight), tuple(keep))


def up_to(tokens, position, constant_positions=1):
    """The tokens up to and including `position`, which is none of the constant ones."""
    check_constant(constant_positions, len(tokens))
    if position is None:
        return tokens
    place = from_start(position, len(tokens), constant_positions)
    if place is None:
        without = without_features(constant_positions)
        expected = f"{constant_positions} to {len(tokens) - 1} ({without}), or counted from the end"
        raise CltdbError("attribute position", found=position, expected=expected, do="choose one of these")
    return tokens[: place + 1]


def _reaching(activations, targets):
    """The activations [pos, n_layers, n_features] with zeros for features that cannot act on the targets."""
    first = targets.first_layer_not_reached
    if first is None:
        return activations
    reaching = activations.clone()
    reaching[:, first:] = 0
    if targets.feature:
        layer, position, feature = targets.feature
        reaching[position, layer, feature] = activations[position, layer, feature]
    return reaching


def check_edges(graph, *, n, seed, exact_lm=None):
    """The graph with `n` of its edges measured by interventions in its frozen replacement model, equally many of each kind as far
    as there are.

    Measured in float64: the graph's own weights, patterns and scales are converted. exact_lm: the model in float64, where there
    is one.
    """
    pairs = _draw(graph, n, torch.Generator().manual_seed(seed))
    if graph.replacement.lm.dtype == torch.float64:
        exact = graph.replacement
    else:
        exact = graph.replacement.in_dtype(torch.float64, lm=exact_lm or in_dtype(graph.replacement.lm, torch.float64))
    measured = measure_edges(exact, graph.index, graph.targets, pairs)
    return replace(graph, measured={**graph.measured, **dict(zip(pairs, measured, strict=True))})


def _draw(graph, n, generator):
    """At most `n` random edges (source_id, target_id), as evenly as possible over the kinds of source and target."""
    adjacency = graph.effects.adjacency
    target, source = (ends[graph._stored] for ends in (adjacency.target, adjacency.source))
    groups = [
        np.flatnonzero(graph.index.is_kind(first)[source] & graph.index.is_kind(second)[target])
        for first in ("feature", "error", "embedding")
        for second in ("feature", "logit")
    ]
    drawn, left = [], n
    for done, group in enumerate(sorted(groups, key=len)):
        take = group[torch.randperm(len(group), generator=generator)[: -(-left // (len(groups) - done))].numpy()]
        drawn += zip(source[take].tolist(), target[take].tolist(), strict=True)
        left -= len(take)
    return sorted(drawn)
