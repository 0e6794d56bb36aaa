"""Fine-tuning through the replaced model: KL(model || model with every MLP replaced by the dictionary), errors compounding.

Source: Karvonen 2025 (arXiv 2503.17272), a short fine-tuning on KL and reconstruction after the training on reconstruction.
"""

import numpy as np
import torch
from torch.nn import functional as F

from cltdb.activations.loader import Batch


class Texts:
    """The training sequences in an order fixed by the seed, and the model `lm` to read them with."""

    def __init__(self, lm, sequences, *, seed):
        self.lm, self.sequences, self.seed = lm, sequences, seed

    def batch(self, step, batch_seqs, *, rank=0, world_size=1):
        """Tokens [batch, pos] of this rank's part of a batch; epochs follow one another without a gap."""
        places = np.arange(step * batch_seqs, (step + 1) * batch_seqs).reshape(world_size, -1)[rank]
        epochs, places = np.divmod(places, len(self.sequences))
        orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences)) for epoch in set(epochs)}
        chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        return torch.from_numpy(self.sequences.tokens[chosen]).long()

    def activations(self, tokens, layers):
        """The `Batch` of these layers in model units, position 0 left out."""
        captured = self.lm.run(tokens, with_logits=False)
        return Batch(*(side[:, 1:, layers].flatten(0, 1).float().cpu() for side in captured[:2]))


class ReplacedModel:
    """lm on tokens [batch, pos] with the MLPs of `layers` replaced by a `Transcoder`, whose layers these are in its own units."""

    def __init__(self, lm, tokens, layers, input_scale, output_scale, coefficient):
        self.lm, self.tokens, self.layers, self.coefficient = lm, tokens.to(lm.device), layers, coefficient
        self.input_scale, self.output_scale = input_scale.to(lm.device), output_scale.to(lm.device)

    def added_to(self, measured, module, *, lift):
        """`loss.Measured` with the divergence in its loss."""
        kl = self.coefficient * self.divergence(module, lift=lift)
        return measured._replace(loss=measured.loss + kl, kl=kl.detach())

    def divergence(self, module, *, lift):
        """KL in nats per predicted token, positions 1 to the last but one, with its gradient."""
        original = self.lm.logits(self.tokens)
        with self.lm.replaced_mlps(self._replace_by(module, lift)):
            replaced = self.lm.hf(input_ids=self.tokens, use_cache=False).logits
        log_p, log_q = (F.log_softmax(logits[:, 1:-1].flatten(0, 1).float(), dim=-1) for logits in (original, replaced))
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    def _replace_by(self, module, lift):
        dtype, outputs = module.b_dec.dtype, list(module.b_dec)

        def replace(layer, x, y):
            if layer not in self.layers:
                return None
            number = self.layers.index(layer)
            rows = (x[:, 1:] * self.input_scale[number]).flatten(0, 1).to(dtype)
            written = module.layers[number](rows, lift=lift[number]).output
            for target in range(written.shape[1]):
                outputs[number + target] = outputs[number + target] + written[:, target]
            output = outputs[number] + (rows @ module.W_skip[number] if module.settings.skip else 0)
            output = (output / self.output_scale[number]).to(y.dtype).unflatten(0, (len(x), -1))
            return torch.cat([y[:, :1], output], dim=1)

        return replace
