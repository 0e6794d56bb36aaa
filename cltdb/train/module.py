"""The trainable transcoder, in training units: MLP inputs and outputs of each layer scaled to mean norm sqrt(d_model).

One `SourceLayer` per layer holds the features that read there. `export` folds the scales in and gives the `Dictionary` in model units.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cltdb.model.kinds import KINDS
from cltdb.model.nonlinearity import JumpReLU, above, batch_top_k, joined, token_best, token_top_k
from cltdb.model.sparse import NO_FEATURES, Pairs, decode, decode_and_more, pre_activations, summed
from cltdb.model.transcoder import Dictionary
from cltdb.train.loss import measure
from cltdb.train.parallel import Parallel

TILE_VALUES = 2**22  # 16 MB; smaller blocks make slower matrix products
CUDA_TILE_VALUES = 2**28


class Written(NamedTuple):
    """What the features of one layer do in a batch: `output` [token, target, d_model]; the tanh and pre-activation penalties without
    their coefficients; `pairs`, of which those fired that `is_active` [n_pairs] says; `fired` [n_features] bool; `revived` [token, target,
    d_model], what dead features could write, or None; `taken` [n, d_model], the decoders asked for, or None."""

    output: torch.Tensor
    sparsity: torch.Tensor
    preact: torch.Tensor
    pairs: Pairs
    is_active: torch.Tensor
    fired: torch.Tensor
    revived: torch.Tensor | None
    taken: torch.Tensor | None


class SourceLayer(nn.Module):
    """W_enc [n_features, d_model], b_enc [n_features], W_dec [n_features, n_targets, d_model], for jumprelu log_threshold
    [n_features]; n_features of this rank's shard."""

    def __init__(self, settings, *, W_enc, W_dec, parallel):
        super().__init__()
        self.settings, self.parallel = settings, parallel
        self.W_enc, self.W_dec = nn.Parameter(W_enc), nn.Parameter(W_dec)
        self.b_enc = nn.Parameter(torch.zeros(len(W_enc)))
        if settings.activation == "jumprelu":
            self.log_threshold = nn.Parameter(torch.full((len(W_enc),), math.log(settings.threshold_init)))
        for parameter in self.parameters():
            parameter.model_parallel = True  # DeepSpeed counts its gradient on every shard

    def tiles(self, x, bias):
        """Blocks h [token, n_features] of the pre-activations of x [token, d_model] with their bias [n_features], None: without; in float32
        at least and without a gradient. One exists at a time, so that memory does not grow with the batch times n_features."""
        rows = max(1, (CUDA_TILE_VALUES if x.is_cuda else TILE_VALUES) // len(self.W_enc))
        dtype, W_enc = torch.promote_types(x.dtype, torch.float32), self.W_enc.detach()
        if not x.is_cuda:
            W_enc, x = W_enc.to(dtype), x.to(dtype)
        for block in x.split(rows):
            if bias is None:
                yield torch.mm(block, W_enc.T, out_dtype=dtype)
            else:
                yield torch.addmm(bias, block, W_enc.T)

    @torch.no_grad()
    def choose(self, x, *, lift, dead=None, n_tokens=None):
        """(`Pairs`, their pre-activations [n_pairs]) that fire in x [token, d_model], for jumprelu with those in the straight-through
        window; and, where `dead` [n_features] bool is given, those of each token's most activated dead features. n_tokens: of all ranks,
        where these have different numbers."""
        settings, parallel = self.settings, self.parallel
        dead_features = dead.nonzero().flatten() if dead is not None else None
        best_dead = []
        dtype = torch.promote_types(x.dtype, torch.float32)
        raised = self.b_enc.detach().to(dtype) + lift.to(dtype)
        # In half precision on CUDA they would cost another pass over h; where h is read they cost nothing.
        raised, bias = (None, raised) if x.is_cuda and x.dtype != dtype else (raised, None)

        def tiles():
            best_dead.clear()
            for h in self.tiles(x, raised):
                if dead is not None:
                    of_dead = h[:, dead_features] if bias is None else h[:, dead_features] + bias[dead_features]
                    values, places = token_best(of_dead, settings.aux_features)
                    best_dead.append((values, dead_features[places] if len(dead_features) else places))
                yield h

        if settings.activation == "batchtopk":
            n_tokens = len(x) * parallel.n_data if n_tokens is None else n_tokens
            n_values = n_tokens * settings.n_features
            n_wanted = min(round(settings.l0 * n_tokens), n_values)
            chosen = batch_top_k(tiles, n_wanted, n_values=n_values, bias=bias, parallel=parallel)
        elif settings.activation == "topk":
            best = [token_best(h if bias is None else h + bias, round(settings.l0)) for h in tiles()]
            chosen = token_top_k(*map(torch.cat, zip(*best, strict=True)), parallel=parallel)
        else:
            jump = settings.activation == "jumprelu"
            bound = self.log_threshold.exp() - settings.bandwidth / 2 if jump else torch.zeros(())
            chosen = joined([(len(h), above(h, bound.to(h.dtype), bias)) for h in tiles()])
        pairs = lambda token, feature: Pairs(token, feature, n_tokens=len(x), n_features=len(self.W_enc))  # noqa: E731
        revived = None
        if dead is not None:
            token, feature, value = token_top_k(*map(torch.cat, zip(*best_dead, strict=True)), parallel=parallel)
            revived = pairs(token, feature), value
        return pairs(*chosen[:2]), chosen[2], revived

    def forward(self, x, *, lift, dead=None, n_tokens=None, taken=None):
        """x [token, d_model], the layer's MLP inputs; dead [n_features] bool, where dead features are to be revived; n_tokens as in
        `choose`; taken: as in `decode_and_more`. -> `Written`"""
        settings = self.settings
        pairs, values, best_dead = self.choose(x, lift=lift, dead=dead, n_tokens=n_tokens)
        values = pre_activations(x, self.W_enc, self.b_enc, values, pairs)
        threshold = None
        if settings.activation == "jumprelu":
            threshold = self.log_threshold.float().exp() if values.dtype == torch.float32 else self.log_threshold.exp()
        active = values if threshold is None else JumpReLU.apply(values, threshold[pairs.feature], settings.bandwidth)
        is_active = active.detach() > 0
        n_fired = torch.zeros(pairs.n_features, dtype=torch.int32, device=x.device)
        fired = n_fired.index_add_(0, pairs.feature, is_active.int()) > 0
        sparsity = preact = values.new_zeros(())
        if settings.activation in ("relu", "jumprelu"):
            everywhere = threshold is not None and settings.preact_coefficient > 0
            features = None if everywhere else pairs.feature.unique()  # with the window's: their thresholds feel the penalty
            output, norms, taken = decode_and_more(active, pairs, self.W_dec, features=features, taken=taken)
            if features is not None:
                norms = values.new_zeros(pairs.n_features).index_copy(0, features, norms) if len(features) else None
            if norms is not None:
                sparsity = torch.tanh(settings.tanh_c * norms[pairs.feature] * active).sum() / len(x)
            if everywhere:
                preact = (self._below(x, values, pairs, threshold, lift) * norms).sum() / len(x)
        else:
            output, _, taken = decode_and_more(active, pairs, self.W_dec, features=NO_FEATURES, taken=taken)
        revived = None
        if best_dead is not None:  # on every rank alike, also where it is empty: ZeRO 3 gathers the decoders for it
            dead_values = pre_activations(x, self.W_enc, self.b_enc, best_dead[1], best_dead[0])
            revived = decode(F.relu(dead_values), best_dead[0], self.W_dec)
        return Written(output, sparsity, preact, pairs, is_active, fired, revived, taken)

    def _below(self, x, values, pairs, threshold, lift):
        """[n_features]: sum over tokens of relu(threshold - h). That is the sum of threshold - h over all tokens, which is linear, plus the
        sum of h - threshold over the pairs above."""
        dtype = values.dtype
        everywhere = len(x) * (threshold - self.b_enc.to(dtype) - lift.to(dtype)) - self.W_enc.to(dtype) @ x.to(dtype).sum(0)
        return everywhere + summed(F.relu(values - threshold[pairs.feature]), pairs)


class Transcoder(nn.Module):
    """`layers` (`SourceLayer`), b_dec [n_layers, d_model], with skip W_skip [n_layers, d_model, d_model]. settings: `spec.Train`."""

    def __init__(self, settings, *, n_layers, d_model, generator, parallel=None):
        super().__init__()
        self.settings, self.n_layers, self.d_model = settings, n_layers, d_model
        self.parallel = parallel or Parallel()
        mine = self.parallel.features(settings.n_features)

        def uniform(*shape, bound):
            return ((torch.rand(*shape, generator=generator) * 2 - 1) * bound)[mine].clone()

        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_model))
        if settings.skip:
            self.W_skip = nn.Parameter(torch.zeros(n_layers, d_model, d_model))
        self.layers = nn.ModuleList(
            SourceLayer(
                settings,
                W_enc=uniform(settings.n_features, d_model, bound=math.sqrt(3 / d_model)),
                W_dec=uniform(settings.n_features, self.n_targets(layer), d_model, bound=1 / math.sqrt(n_layers * d_model)),
                parallel=self.parallel,
            )
            for layer in range(n_layers)
        )

    def n_targets(self, layer):
        """How many layers the features of `layer` write to, its own first."""
        return min(KINDS[self.settings.kind].n_targets(layer, self.n_layers), self.settings.decoder_span or self.n_layers)

    @torch.no_grad()
    def calibrate(self, x, y):
        """Sets b_dec to the mean output and b_enc so that each feature fires at an equal rate. x, y [token, layer, d_model].

        Source: Anthropic's January 2025 circuits update, "bias initialisation" (rate 10,000 / n_features), at most 10 %.
        """
        self.b_dec.copy_(y.mean(0))
        rate = min(0.1, self.settings.init_l0 / self.settings.n_features)
        for number, layer in enumerate(self.layers):
            h = x[:, number] @ layer.W_enc.T
            cut = h.float().T.contiguous().quantile(1 - rate, dim=1)  # along a stride a sort takes five times as long
            threshold = layer.log_threshold.exp() if self.settings.activation == "jumprelu" else 0
            layer.b_enc.copy_(threshold - cut)

    @torch.no_grad()
    def take(self, dictionary, layers, *, input_scale, output_scale):
        """Sets all weights to those of `layers` of a `Dictionary` in model units: the inverse of `export`, with its scales."""
        mine = self.parallel.features(self.settings.n_features)
        for number, (layer, own) in enumerate(zip(layers, self.layers, strict=True)):
            targets = layers[number : number + self.n_targets(number)]
            decoders = dictionary.W_dec[layer][mine][:, [target - layer for target in targets]].float()
            own.W_dec.copy_(decoders * output_scale[number : number + len(targets), None])
            own.W_enc.copy_(dictionary.W_enc[layer, mine].float() / input_scale[number])
            own.b_enc.copy_(dictionary.b_enc[layer, mine])
            if self.settings.activation == "jumprelu":
                own.log_threshold.copy_(dictionary.threshold[layer, mine].float().log())
        self.b_dec.copy_(dictionary.b_dec[layers].float() * output_scale[:, None])
        if self.settings.skip:
            self.W_skip.copy_(dictionary.W_skip[layers].float() * (output_scale / input_scale)[:, None, None])

    def forward(self, x, y, *, through=None, **state):
        """`loss.Measured` of a batch: x, y [token, layer, d_model], state as in `loss.measure`; through: a `finetune.ReplacedModel`
        that adds its divergence."""
        measured = measure(self, x, y, **state)
        return through.added_to(measured, self, lift=state["lift"]) if through else measured

    def finish(self, output, x):
        """MLP outputs [token, layer, d_model] from what this rank's features write, of the same shape."""
        output = self.parallel.sum_over_shards(output) + self.b_dec
        return output + torch.einsum("tld,lde->tle", x, self.W_skip) if self.settings.skip else output


@torch.no_grad()
def export(tensors, settings, *, input_scale, output_scale, threshold=None, info):
    """The `Dictionary` in model units. tensors: {name: whole tensor} of a `Transcoder`; scales [n_layers] multiply model units;
    threshold [n_layers, n_features] of batchtopk. The k of topk is the l0 of training."""
    n_layers = len(input_scale)
    stack = lambda name: torch.stack([tensors[f"layers.{layer}.{name}"] for layer in range(n_layers)])  # noqa: E731
    if settings.activation == "jumprelu":
        threshold = stack("log_threshold").exp()
    W_dec = []
    for layer in range(n_layers):
        W = tensors[f"layers.{layer}.W_dec"] / output_scale[layer : layer + tensors[f"layers.{layer}.W_dec"].shape[1], None]
        W_dec.append(F.pad(W, (0, 0, 0, KINDS[settings.kind].n_targets(layer, n_layers) - W.shape[1])))
    return Dictionary(
        kind=settings.kind,
        activation=settings.activation,
        W_enc=stack("W_enc") * input_scale[:, None, None],
        b_enc=stack("b_enc"),
        W_dec=W_dec,
        b_dec=tensors["b_dec"] / output_scale[:, None],
        threshold=threshold,
        k=round(settings.l0) if settings.activation == "topk" else None,
        W_skip=tensors["W_skip"] * (input_scale / output_scale)[:, None, None] if settings.skip else None,
        info=info,
    )
