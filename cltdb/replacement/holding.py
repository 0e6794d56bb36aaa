"""What a model answers when only some of its MLPs' units respond and all others are held at given values: how much of an answer a circuit
carries.

Units are the features of a transcoder that stands for all MLPs, without errors, or the MLPs' own neurons. Attention, norms and the units
that are kept respond. The MLP outputs at the constant positions stay the model's own.
Source: mean ablation as in Dunefsky et al., "Transcoders find interpretable LLM feature circuits" (2024), section on the greater-than
circuit; there of one MLP, here of all.
"""

from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.model.fit import check_fits, check_transcoder
from cltdb.model.transcoder import Outputs
from cltdb.replacement.constant_positions import check_constant, with_constant


class Features:
    """The features of `dictionary`, a transcoder that stands for the MLPs of `lm`: n_units in each of n_layers."""

    def __init__(self, lm, dictionary):
        check_transcoder(dictionary.kind)
        check_fits(dictionary, lm)
        self.lm, self.dictionary = lm, dictionary.computing(device=lm.device, dtype=lm.dtype)
        self.n_layers, self.n_units = lm.n_layers, dictionary.n_features

    @contextmanager
    def responding(self, change, n_constant):
        """Within the block, one forward pass writes change(layer, activations [batch, pos, n_units]) in place of activations."""
        written = Outputs(self.dictionary, self.dictionary.b_dec)

        def replace(layer, x, y):
            written.add(change(layer, self.dictionary.encode_layer(x, layer)), layer)
            if layer not in self.dictionary.layers:
                return None
            return with_constant(written.output(layer, x), y, n_constant, dim=1)

        with self.lm.replaced_mlps(replace):
            yield


class Neurons:
    """The neurons of the MLPs of `lm`: what their nonlinearity gives, in gated MLPs times what it gates."""

    def __init__(self, lm):
        self.lm, self._parts = lm, [lm.family.neurons(block.mlp) for block in lm.blocks]
        self.n_layers, self.n_units = lm.n_layers, len(self._parts[0].W_out)

    @contextmanager
    def responding(self, change, n_constant):
        """As of `Features`."""

        def hook(layer):
            return lambda module, args: (with_constant(change(layer, args[0]), args[0], n_constant, dim=1),)

        handles = [part.output.register_forward_pre_hook(hook(layer)) for layer, part in enumerate(self._parts)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Run(NamedTuple):
    """values [batch, pos, n_layers, n_units]: what the units gave before any was held; logits [batch, vocab] of the last position."""

    values: Any
    logits: torch.Tensor


def run_all(units, tokens, *, n_constant=1):
    """The `Run` in which all units respond: of the model itself for `Neurons`, of its replacement model without errors for `Features`.
    tokens [batch, pos]."""
    everything = torch.ones(1, dtype=torch.bool)
    return run_held(units, tokens, everything, torch.zeros(1), n_constant=n_constant)


@torch.no_grad()
def run_held(units, tokens, kept, values, *, n_constant=1):
    """The `Run` in which the units of mask `kept` respond and the others give `values`.

    tokens [batch, pos]. kept, values: of any shape that broadcasts to [batch, pos, n_layers, n_units], such as [n_layers, n_units].
    """
    check_constant(n_constant, tokens.shape[1])
    shape = (*tokens.shape, units.n_layers, units.n_units)
    kept, values = (_broadcast(name, given, shape, units.lm) for name, given in (("kept", kept), ("values", values)))
    seen = []

    def hold(layer, activations):
        seen.append(activations)
        return torch.where(kept[..., layer, :], activations, values[..., layer, :].to(activations.dtype))

    with units.responding(hold, n_constant):
        logits = units.lm.logits(tokens)[:, -1]
    return Run(torch.stack(seen, dim=-2), logits)


def _broadcast(name, given, shape, lm):
    try:
        return torch.broadcast_to(given.to(lm.device), shape)
    except RuntimeError as error:
        found = f"shape {list(given.shape)}"
        raise CltdbError(
            f"held units, {name}", found=found, expected=f"one that broadcasts to {list(shape)}", do="mend it"
        ) from error
