"""The replacement model: every MLP output replaced by the dictionary's, errors compounding, beside zero- and mean-ablation."""

import torch
from torch.nn import functional as F

from cltdb.model.transcoder import Outputs

CONFIDENT = 0.5  # the model's own top probability from which a prediction counts as confident


def replacer(dictionary):
    """A function for `LanguageModel.replaced_mlps` and one forward pass; the true output stays at position 0, and at layers that were not
    trained."""
    outputs = Outputs(dictionary, dictionary.b_dec)

    def replace(layer, x, y):
        x = x.to(dictionary.dtype)
        outputs.add(dictionary.encode_layer(x, layer), layer)
        if layer not in dictionary.layers:
            return None
        return keep_first(outputs.output(layer, x).to(y.dtype), y)

    return replace


def constant(vectors, layers):
    """Replaces the MLP outputs of `layers` by a constant per layer: vectors [n_layers, d_model]."""
    return lambda layer, x, y: keep_first(vectors[layer].to(y).expand_as(y), y) if layer in layers else None


def keep_first(new, y):
    """`new` with the true output y at position 0; both [batch, pos, d_model]."""
    return torch.cat([y[:, :1], new[:, 1:]], dim=1)


class Agreement:
    """Sums over predicted tokens of how far replaced logits are from the model's own."""

    def __init__(self):
        self.n = self.n_confident = 0
        self.sums = {}

    def add(self, tokens, original, replaced):
        """tokens [batch, pos]; original logits; replaced: {"replacement" | "zero" | "mean": logits}, all [batch, pos, vocab].

        Predictions at positions 1 to pos - 2 count: position 0 is left out everywhere, and the last has no next token.
        """
        target = tokens[:, 2:].flatten()
        log_p = F.log_softmax(original[:, 1:-1].flatten(0, 1).double(), dim=-1)
        top_probability, top = log_p.exp().max(-1)
        confident = top_probability >= CONFIDENT
        self.n += len(target)
        self.n_confident += int(confident.sum())
        self._sum("ce_original", F.nll_loss(log_p, target, reduction="sum"))
        for name, logits in replaced.items():
            log_q = F.log_softmax(logits[:, 1:-1].flatten(0, 1).double(), dim=-1)
            self._sum(f"ce_{name}", F.nll_loss(log_q, target, reduction="sum"))
            if name == "replacement":
                same = log_q.argmax(-1) == top
                self._sum("kl_nats", (log_p.exp() * (log_p - log_q)).sum())
                self._sum("top1_agreement", same.sum())
                self._sum("top1_agreement_confident", (same & confident).sum())

    def _sum(self, name, value):
        self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def rows(self):
        """(None, name, value) of the pooled metrics; without a confident prediction there is no confident agreement."""
        values = {name: total / self.n for name, total in self.sums.items() if name != "top1_agreement_confident"}
        if self.n_confident:
            values["top1_agreement_confident"] = self.sums["top1_agreement_confident"] / self.n_confident
        values["ce_recovered"] = (values["ce_zero"] - values["ce_replacement"]) / (values["ce_zero"] - values["ce_original"])
        return [(None, name, value) for name, value in values.items()]
