"""How a model or its replacement model responds when features are set, or directions added.

Modes, by what keeps its value of the clean run:
constrained: the other features, attention patterns and norm denominators. So only direct effects show. With `until_layer`:
attention patterns, and MLP outputs up to that layer. Norms and later MLPs respond, and nothing is added to their outputs.
iterative: errors and attention patterns. The replacement model responds: every feature is read again, layer by layer.
free: nothing. The model itself responds; the change of what the features' decoders write is added to its MLP outputs. What a
cross-layer feature writes to a later layer can then count twice: that layer also responds to what the feature wrote before.
frozen_attention: attention patterns; all else as in free (circuit-tracer's default).
With activation topk, the k largest are chosen by pre-activation before anything is set: setting or ablating a feature neither
admits nor displaces another, and more or fewer than k may be active.
Source: Anthropic, "Circuit Tracing" (2025), section on validating graphs with perturbations; circuit-tracer's interventions.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.model.freezing import frozen, hooks
from cltdb.model.transcoder import Outputs
from cltdb.replacement.constant_positions import blank, with_constant
from cltdb.replacement.interventions import Addition, Setting

MODES = ("constrained", "iterative", "free", "frozen_attention")


class Response(NamedTuple):
    """activations [pos, n_layers, n_features]. The rest is of the last position: logits less their mean and probabilities
    [vocab], final [d_model], the final norm's output, and mlp_inputs [n_layers, d_model]."""

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
    """(the final norm's output [d_model], the logits after a soft-cap [vocab]) at the last of `tokens` [pos], with `mlps` for
    MLPs."""
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
    """What stands in for the MLPs; called layer by layer. `activations` and `inputs` collect each layer's activations [pos,
    n_features] and its MLP input at the last position. `written`: what the changes so far write to each layer."""

    def __init__(self, dictionary, interventions, n_constant):
        self.dictionary, self.n_constant, self.activations, self.inputs = dictionary, n_constant, [], []
        self.settings = [one for one in interventions if isinstance(one, Setting)]
        self.additions = [one for one in interventions if isinstance(one, Addition)]
        self.written = Outputs(dictionary, torch.zeros_like(dictionary.b_dec))

    def __call__(self, layer, x, y):
        """What takes the place of y. x, y [1, pos, d_model]: the input and output of the MLP of `layer`."""
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
        """Notes the activations at x, with the settings' values, and what the change that the settings make to `base` writes.

        A feature that is set to the value that it has in `base` is set too: it does not respond to what changes below it.
        """
        changed, activations = self.changed(base, layer), self.read(x, layer)
        self.written.add(changed - base, layer)
        for setting in self.settings:
            if setting.layer == layer:
                activations[setting.position, setting.feature] = changed[setting.position, setting.feature]
        self.activations.append(activations)


class _Constrained(_Mlps):
    def __init__(self, replacement, interventions, until_layer):
        super().__init__(replacement.dictionary, interventions, replacement.n_constant)
        self.replacement, self.until_layer = replacement, until_layer

    def output(self, layer, x, y):
        self.keep(x, layer, self.replacement.activations[:, layer])
        if layer > self.until_layer:
            return y  # it responds to the changes below; what the features' decoders write to it would count these twice
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
