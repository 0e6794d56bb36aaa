"""What training minimises and measures. Convention: sums over features and layers, means over tokens.

loss = mse + coefficient per layer * tanh penalty + preact_coefficient * pre-activation penalty + aux_coefficient * auxiliary loss
+ orthogonality (`orthogonality.Sample.loss`).
Source: Anthropic, "Circuit Tracing" (2025), CLT training; January 2025 update for the pre-activation penalty; Gao et al. 2024
(arXiv 2406.04093), section A.2, for the auxiliary loss that lets dead features model the residual error.
"""

from typing import NamedTuple

import torch


class Measured(NamedTuple):
    """The loss of this rank's tokens, to be differentiated, and the step's measurements: mse, l0 and sst [n_layers], over this rank's
    tokens; sparsity, preact, aux, orthogonality, kl as they enter the loss; fired [n_layers, n_features] bool."""

    loss: torch.Tensor
    mse: torch.Tensor
    sparsity: torch.Tensor
    preact: torch.Tensor
    aux: torch.Tensor
    orthogonality: torch.Tensor
    kl: torch.Tensor
    l0: torch.Tensor
    fired: torch.Tensor


def measure(module, x, y, *, coefficient, dead, lift, n_tokens=None, sample=None):
    """x, y [token, layer, d_model] in training units; coefficient of the tanh penalty now [n_layers]; dead [n_layers, n_features] bool;
    n_tokens: of all ranks, where these have different numbers; sample: the `orthogonality.Sample` whose decoders are to be orthogonal."""
    settings, parallel = module.settings, module.parallel
    reviving = settings.aux_coefficient > 0 and bool(parallel.gather_shards(dead.any()).any())
    written, output, revived = [], y.new_zeros(y.shape), y.new_zeros(y.shape) if reviving else None
    taken = sample.rows if sample else [None] * len(module.layers)
    for number, layer in enumerate(module.layers):
        of_dead = dead[number] if reviving else None
        part = layer(x[:, number], lift=lift[number], dead=of_dead, n_tokens=n_tokens, taken=taken[number])
        output = _Add.apply(output, number, part.output)
        if part.revived is not None:
            revived = _Add.apply(revived, number, part.revived)
        written.append(part._replace(output=None, revived=None))  # its outputs are not needed any more
    wide = torch.promote_types(y.dtype, torch.float32)  # in float16 a square may overflow, in bfloat16 a sum is off by 0.4 %
    error = y.to(wide) - module.finish(output, x).to(wide)
    mse = error.square().sum(-1).mean(0)
    sparsity, preact = (torch.stack([getattr(part, name) for part in written]) for name in ("sparsity", "preact"))
    penalties = torch.stack([coefficient * sparsity, settings.preact_coefficient * preact], dim=1).sum(0)
    sparsity, preact = parallel.sum_over_shards(penalties)
    aux = mse.new_zeros(())
    if reviving:
        left = error.detach() - parallel.sum_over_shards(revived)
        aux = settings.aux_coefficient * left.square().sum(-1).mean(0).sum()
    orthogonality = sample.loss(written) if sample else mse.new_zeros(())
    n_active = torch.stack([part.is_active.sum() for part in written])
    return Measured(
        loss=mse.sum() + sparsity + preact + aux + orthogonality,
        mse=mse.detach(),
        sparsity=sparsity.detach(),
        preact=preact.detach(),
        aux=aux.detach(),
        orthogonality=orthogonality.detach(),
        kl=mse.new_zeros(()),
        l0=parallel.gather_shards(n_active).sum(0) / len(x),
        fired=torch.stack([part.fired for part in written]),
    )


class _Add(torch.autograd.Function):
    """Adds what the features of `source` write [token, target, d_model] to the total [token, layer, d_model], in place: autograd's own
    slices would copy the whole gradient once per layer."""

    @staticmethod
    def forward(ctx, total, source, output):
        ctx.targets = slice(source, source + output.shape[1])
        total[:, ctx.targets] += output
        ctx.mark_dirty(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, gradient[:, ctx.targets]
