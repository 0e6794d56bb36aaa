"""How a model or its replacement model responds when features are set, or directions added.

Modes. constrained: the other features hold their values of the clean run, attention patterns and norm denominators too, so that only direct
effects show; with `until_layer`, that holds for MLP outputs up to that layer, and later layers and all norms respond, without what the
features' decoders write there. iterative: the replacement model responds, every feature read again layer by layer, with errors and
attention patterns held. free: the model itself responds, with the change of the features' decoder vectors added to its MLP outputs; what a
cross-layer feature writes to later layers then counts twice as far as these respond to what it wrote before. frozen_attention: as free,
but with the attention patterns of the clean run, while MLPs and norms respond (circuit-tracer's default).
With activation topk the k largest are those by pre-activation, before anything is set: a feature that is set or ablated by hand lets no other
in and drives none out, so that more or fewer than k may be active.
Source: Anthropic, "Circuit Tracing" (2025), section on validating graphs with perturbations; circuit_tracer, `feature_intervention`.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.model.transcoder import Outputs
from cltdb.replacement.constant_positions import blank, with_constant
from cltdb.replacement.freezing import frozen, hooks
from cltdb.replacement.interventions import Addition, Setting

MODES = ("constrained", "iterative", "free", "frozen_attention")


class Response(NamedTuple):
    """activations [pos, n_layers, n_features]; at the last position, logits less their mean and probabilities [vocab], the final norm's
    output [d_model] and mlp_inputs [n_layers, d_model]."""

    activations: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor
    final: torch.Tensor
    mlp_inputs: torch.Tensor


def respond(replacement, interventions, *, mode, until_layer=None):
    """How the model or replacement model responds to `interventions` (positions spelled out)."""
    if mode not in MODES:
        raise CltdbError("--mode", found=repr(mode), expected=", ".join(MODES), do="choose one")
    lm = replacement.lm
    held = lm.n_layers - 1 if until_layer is None else until_layer
    mlps = {
        "constrained": lambda: _Constrained(replacement, interventions, held),
        "iterative": lambda: _Iterative(replacement, interventions),
        "free": lambda: _Free(replacement.dictionary, interventions, replacement.n_constant),
        "frozen_attention": lambda: _Free(replacement.dictionary, interventions, replacement.n_constant),
    }[mode]()
    direct = mode == "constrained" and held == lm.n_layers - 1
    freezing = nullcontext() if mode == "free" else frozen(lm, replacement.constants, norms=direct)
    with freezing:
        final, output = _forward(lm, replacement.tokens, mlps)
    if not bool(output.isfinite().all()):
        expected = f"finite logits in {str(lm.dtype).removeprefix('torch.')}"
        raise CltdbError("intervention", found="an overflow", expected=expected, do="set smaller values")
    logits = lm.unembedding(final)
    return Response(
        torch.stack(mlps.activations, dim=1),
        logits - logits.mean(),
        torch.softmax(output.double(), dim=-1),
        final,
        torch.stack(mlps.inputs),
    )


@torch.no_grad()
def _forward(lm, tokens, mlps):
    """(the final norm's output [d_model], the logits after a soft-cap [vocab]) at the last of `tokens` [pos], with `mlps` for MLPs."""
    final = []
    with (
        lm.replaced_mlps(mlps),
        hooks([("final", lm.final_norm)], lambda name, module: lambda _, args, x: final.append(x)),
    ):
        output = lm.hf(input_ids=tokens[None], use_cache=False).logits
    return final[0][0, -1], output[0, -1]


def free_logits(lm, dictionary, tokens, interventions, n_constant):
    """The logits [vocab] after `tokens` (ids) in mode free; interventions with positions spelled out."""
    return _forward(lm, torch.tensor(tokens, device=lm.device), _Free(dictionary, interventions, n_constant))[1]


class _Mlps:
    """What stands in for the MLPs, called layer by layer; keeps the activations [pos, n_features] it saw and what it read at the last
    position. `written`: what the changes so far write to each layer."""

    def __init__(self, dictionary, interventions, n_constant):
        self.dictionary, self.n_constant, self.activations, self.inputs = dictionary, n_constant, [], []
        self.settings = [one for one in interventions if isinstance(one, Setting)]
        self.additions = [one for one in interventions if isinstance(one, Addition)]
        self.written = Outputs(dictionary, torch.zeros_like(dictionary.b_dec))

    def __call__(self, layer, x, y):
        """x, y [1, pos, d_model], the input and output of the MLP of `layer`, to what takes the output's place."""
        self.inputs.append(x[0, -1])
        output = self.output(layer, x[0], y[0]).clone()
        for one in self.additions:
            if one.layer == layer:
                output[one.position] += one.vector
        return output[None]

    def read(self, x, layer):
        """Activations at x [pos, d_model], nothing at the constant positions."""
        return blank(self.dictionary.encode_layer(x, layer), self.n_constant)

    def changed(self, activations, layer):
        """The activations with this layer's settings applied."""
        activations = activations.clone()
        for setting in self.settings:
            if setting.layer == layer:
                before = activations[setting.position, setting.feature]
                activations[setting.position, setting.feature] = setting.value * (before if setting.operation == "scale" else 1)
        return activations

    def keep(self, x, layer, base):
        """Notes the activations at x with the settings' values, and the change that the settings make to `base`."""
        change = self.changed(base, layer) - base
        self.written.add(change, layer)
        self.activations.append(torch.where(change != 0, self.changed(base, layer), self.read(x, layer)))


class _Constrained(_Mlps):
    def __init__(self, replacement, interventions, until_layer):
        super().__init__(replacement.dictionary, interventions, replacement.n_constant)
        self.replacement, self.until_layer = replacement, until_layer

    def output(self, layer, x, y):
        self.keep(x, layer, self.replacement.activations[:, layer])
        if layer > self.until_layer:
            return y  # it responds to what was changed below; the features' decoders into it would count that twice
        return self.replacement.sites[:, layer] + self.replacement.skip(layer, x) + self.written.sum(layer)


class _Iterative(_Mlps):
    def __init__(self, replacement, interventions):
        super().__init__(replacement.dictionary, interventions, replacement.n_constant)
        self.replacement, self.decoded = replacement, Outputs(self.dictionary, self.dictionary.b_dec)

    def output(self, layer, x, y):
        self.activations.append(self.changed(self.read(x, layer), layer))
        self.decoded.add(self.activations[-1], layer)
        output = self.decoded.output(layer, x) + self.replacement.errors[:, layer]
        return with_constant(output, self.replacement.sites[:, layer], self.n_constant)


class _Free(_Mlps):
    def output(self, layer, x, y):
        self.keep(x, layer, self.read(x, layer))
        return y + self.written.sum(layer)


def most_changed(before, after, n):
    """(layer, position, feature) of at most `n` features whose activations differ, most changed first."""
    change = (after.activations - before.activations).abs()
    position, layer, feature = change.nonzero(as_tuple=True)
    order = change[position, layer, feature].sort(descending=True, stable=True).indices[:n]
    return list(zip(layer[order].tolist(), position[order].tolist(), feature[order].tolist(), strict=True))
