"""The replacement model: every MLP output replaced by the dictionary's, errors compounding, beside zero- and mean-ablation."""

import torch
from torch.nn import functional as F

from cltdb.model.kinds import MLP_OUTPUT
from cltdb.model.transcoder import Outputs

CONFIDENT = 0.5  # the model's own top probability from which a prediction counts as confident


def replacer(lm, dictionary, ordinary):
    """A function for `LanguageModel.replaced_mlps` and one forward pass; the true output stays where `ordinary` [batch, pos] is false
    (position 0, excluded tokens), and at layers that were not trained."""
    outputs = Outputs(dictionary, dictionary.b_dec)

    def replace(layer, x, y):
        read = dictionary.read_of(x, y).to(dictionary.dtype)
        outputs.add(dictionary.encode_layer(read, layer), layer)
        if layer not in dictionary.layers:
            return None
        new = outputs.output(layer, read).to(y.dtype)
        if dictionary.writes != MLP_OUTPUT:
            new = lm.output_with(layer, x, y, new - x, dictionary.writes)
        return where_ordinary(ordinary, new, y)

    return replace


def constant(vectors, layers, ordinary):
    """Replaces the MLP outputs of `layers` by a constant per layer, vectors [n_layers, d_model], where `ordinary` [batch, pos] is true."""
    return lambda layer, x, y: where_ordinary(ordinary, vectors[layer].to(y), y) if layer in layers else None


def where_ordinary(ordinary, new, y):
    """`new` with the true output y where the mask ordinary [batch, pos] is false; both [batch, pos, d_model]."""
    return torch.where(ordinary.to(y.device)[..., None], new, y)


class Agreement:
    """Sums over predictions of how far replaced logits are from the model's own.

    A prediction counts at an ordinary token that has a next one in its sequence: `n` of them in KL and agreement. In cross-entropies
    those count whose next token is ordinary too, `n_targets`: an excluded one (BOS where packing put the next document) is none of the
    text, and many models never learnt to predict it.
    """

    def __init__(self):
        self.n = self.n_targets = self.n_confident = 0
        self.sums = {}

    def add(self, tokens, ordinary, original, replaced):
        """tokens, ordinary (a mask) [batch, pos]; original logits; replaced: {"replacement" | "zero" | "mean": logits}, all [batch, pos,
        vocab]."""
        counted = ordinary[:, :-1]
        target, is_text = tokens[:, 1:][counted], ordinary[:, 1:][counted]
        log_p = F.log_softmax(original[:, :-1][counted].double(), dim=-1)
        top_probability, top = log_p.exp().max(-1)
        confident = top_probability >= CONFIDENT
        self.n += len(target)
        self.n_targets += int(is_text.sum())
        self.n_confident += int(confident.sum())
        self._sum("ce_original", F.nll_loss(log_p[is_text], target[is_text], reduction="sum"))
        for name, logits in replaced.items():
            log_q = F.log_softmax(logits[:, :-1][counted].double(), dim=-1)
            self._sum(f"ce_{name}", F.nll_loss(log_q[is_text], target[is_text], reduction="sum"))
            if name == "replacement":
                same = log_q.argmax(-1) == top
                self._sum("kl_nats", (log_p.exp() * (log_p - log_q)).sum())
                self._sum("top1_agreement", same.sum())
                self._sum("top1_agreement_confident", (same & confident).sum())

    def _sum(self, name, value):
        self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def _count(self, name):
        """How many predictions the metric `name` is a mean over."""
        if name == "top1_agreement_confident":
            return self.n_confident
        return self.n_targets if name.startswith("ce_") else self.n

    def rows(self):
        """(None, name, value) of the pooled metrics; those without a prediction that counts are not there."""
        values = {name: total / n for name, total in self.sums.items() if (n := self._count(name))}
        if not self.n_targets:
            return [(None, name, value) for name, value in values.items()]
        values["ce_recovered"] = (values["ce_zero"] - values["ce_replacement"]) / (values["ce_zero"] - values["ce_original"])
        return [(None, name, value) for name, value in values.items()]
