"""Fine-tuning through the replaced model: KL(model || model with every MLP replaced by the dictionary), errors compounding.

Source: Karvonen 2025 (arXiv 2503.17272), a short fine-tuning on KL and reconstruction after the training on reconstruction.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from cltdb.activations.loader import Batch
from cltdb.activations.ordinary import ordinary_places
from cltdb.model.kinds import both_sides


class Texts:
    """The training sequences in which something is predicted, in an order fixed by the seed, and the model `lm` to read them with."""

    def __init__(self, lm, sequences, *, seed):
        with_some = np.flatnonzero(sequences.ordinary[:, :-1].any(1))
        self.lm, self.sequences, self.seed = lm, sequences.take(with_some), seed

    def batch(self, step, batch_seqs, *, rank=0, world_size=1):
        """Tokens [batch, pos] of this rank's part of a batch; a batch may reach from one epoch into the next."""
        places = np.arange(step * batch_seqs, (step + 1) * batch_seqs).reshape(world_size, -1)[rank]
        epochs, places = np.divmod(places, len(self.sequences))
        orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences)) for epoch in set(epochs)}
        chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        return torch.from_numpy(self.sequences.tokens[chosen]).long()

    def ordinary(self, tokens):
        """Mask of tokens [batch, pos]."""
        return torch.from_numpy(ordinary_places(tokens.numpy(), self.sequences.excluded))

    def activations(self, tokens, layers):
        """The `Batch` of these layers in model units, of the ordinary tokens."""
        captured, ordinary = self.lm.run(tokens, with_logits=False), self.ordinary(tokens).to(self.lm.device)
        return Batch(*(side[ordinary][:, layers].float().cpu() for side in captured[:2]))

    def counts(self, step, batch_seqs, n_parts):
        """(ordinary tokens, predictions) of each of the n_parts parts of a batch [n_parts, 2]: they have different numbers of both."""
        masks = self.ordinary(self.batch(step, batch_seqs)).chunk(n_parts)
        return torch.tensor([[int(mask.sum()), int(mask[:, :-1].sum())] for mask in masks])


class Share(NamedTuple):
    """A part of a batch. per_token, per_prediction: factors of the part's means, with which the mean over all parts is that of the whole
    batch. n_tokens: ordinary tokens that all ranks look at together with this part; None: its own alone."""

    per_token: float = 1.0
    per_prediction: float = 1.0
    n_tokens: int | None = None


ALONE = Share()


class ReplacedModel:
    """lm on tokens [batch, pos] with the MLPs of `layers` replaced, where `ordinary` (a mask) is true, by a `Transcoder`, whose layers
    these are in its own units. share: what part of a batch this is."""

    def __init__(self, lm, tokens, ordinary, layers, *, scales, coefficient, share=ALONE):
        """scales: (input_scale, output_scale), each [n_layers]."""
        self.lm, self.tokens, self.ordinary = lm, tokens.to(lm.device), ordinary.to(lm.device)
        self.layers, self.coefficient, self.share = layers, coefficient, share
        self.input_scale, self.output_scale = (scale.to(lm.device) for scale in scales)

    @property
    def n_rows(self):
        """Ordinary tokens."""
        return int(self.ordinary.sum())

    def added_to(self, measured, module, *, lift):
        """`loss.Measured` with the divergence in its loss, weighted as a part of the batch."""
        kl = self.share.per_prediction * self.coefficient * self.divergence(module, lift=lift)
        means = ("mse", "sparsity", "preact", "aux", "orthogonality", "l0")
        weighted = {name: self.share.per_token * getattr(measured, name) for name in means}
        return measured._replace(**weighted, loss=self.share.per_token * measured.loss + kl, kl=kl.detach())

    def divergence(self, module, *, lift):
        """KL in nats per prediction, of the ordinary tokens that have a next one, with its gradient."""
        original, counted = self.lm.logits(self.tokens), self.ordinary[:, :-1]
        with self.lm.replaced_mlps(self._replace_by(module, lift)):
            replaced = self.lm.hf(input_ids=self.tokens, use_cache=False).logits
        log_p, log_q = (F.log_softmax(logits[:, :-1][counted].float(), dim=-1) for logits in (original, replaced))
        return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / max(1, len(log_p))

    def _replace_by(self, module, lift):
        dtype, outputs = module.b_dec.dtype, list(module.b_dec)

        def replace(layer, x, y):
            if layer not in self.layers:
                return None
            number = self.layers.index(layer)
            read, _ = both_sides(x, y, module.settings.place)
            rows = (read[self.ordinary] * self.input_scale[number]).to(dtype)
            written = module.layers[number](rows, lift=lift[number], n_tokens=self.share.n_tokens).output
            for target in range(written.shape[1]):
                outputs[number + target] = outputs[number + target] + written[:, target]
            output = outputs[number] + (rows @ module.W_skip[number] if module.settings.skip else 0)
            output = (output / self.output_scale[number]).to(y.dtype)
            return y.masked_scatter(self.ordinary[..., None], output)

        return replace
