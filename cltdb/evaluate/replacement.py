"""The replacement model: every MLP output replaced by the dictionary's, errors compounding, beside zero- and mean-ablation."""

import torch
from torch.nn import functional as F

from cltdb.model.kinds import MLP_OUTPUT
from cltdb.model.transcoder import Outputs

CONFIDENT = 0.5  # the model's own top probability from which a prediction counts as confident


def replacer(lm, dictionary, ordinary, layers):
    """A function for `LanguageModel.replaced_mlps` and one forward pass that replaces the MLPs of `layers`; the true output stays where
    `ordinary` [batch, pos] is false (position 0, excluded tokens). Features of other layers read the model as it then is, and write to
    `layers` too."""
    outputs = Outputs(dictionary, dictionary.b_dec)

    def replace(layer, x, y):
        if not any(target in layers for target in dictionary.target_layers(layer)):
            return None
        read = dictionary.read_of(x, y).to(dictionary.dtype)
        outputs.add(dictionary.encode_layer(read, layer), layer)
        if layer not in layers:
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


class Original:
    """The model's own predictions in a batch: tokens, ordinary (a mask) [batch, pos], logits [batch, pos, vocab]. counted: mask of the places
    that predict something; of these, [n]: target, is_text, log_p [n, vocab], top, confident."""

    def __init__(self, tokens, ordinary, logits):
        self.counted = ordinary[:, :-1]
        self.target, self.is_text = tokens[:, 1:][self.counted], ordinary[:, 1:][self.counted]
        self.log_p = F.log_softmax(logits[:, :-1][self.counted].double(), dim=-1)
        top_probability, self.top = self.log_p.exp().max(-1)
        self.confident = top_probability >= CONFIDENT


class Agreement:
    """Sums over predictions of how far replaced logits are from the model's own.

    A prediction counts at an ordinary token that has a next one in its sequence: `n` of them in KL and agreement. In cross-entropies
    those count whose next token is ordinary too, `n_targets`: an excluded one (BOS where packing put the next document) is none of the
    text, and many models never learnt to predict it.
    """

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, original, replaced, parts=()):
        """A batch. original: `Original`; replaced: {"replacement" | "zero" | "mean": logits [batch, pos, vocab]}; parts: (`Agreement`, mask of the
        predictions) pairs; each gets its predictions too."""
        for name, values, counts in _compared(original, replaced):
            for one, rows in ((self, True), *parts):
                one.sums[name] = one.sums.get(name, 0.0) + float(values[counts & rows].sum())
                one.counts[name] = one.counts.get(name, 0) + int((counts & rows).sum())

    n = property(lambda self: self.counts.get("kl_nats", 0))
    n_targets = property(lambda self: self.counts.get("ce_original", 0))

    def rows(self):
        """(name, value) of the metrics; those without a prediction that counts are not there, nor is ce_recovered where zero ablation changes
        nothing."""
        values = {name: total / n for name, total in self.sums.items() if (n := self.counts[name])}
        if self.n_targets and (lost := values["ce_zero"] - values["ce_original"]):
            values["ce_recovered"] = (values["ce_zero"] - values["ce_replacement"]) / lost
        return list(values.items())


def _compared(original, replaced):
    """(name, its value at each prediction float64 [n], mask of those that count) of each mean that `Agreement` takes."""
    log_p, is_text = original.log_p, original.is_text
    everywhere, target = torch.ones_like(is_text), original.target[:, None]
    yield "ce_original", -log_p.gather(1, target)[:, 0], is_text
    for name, logits in replaced.items():
        log_q = F.log_softmax(logits[:, :-1][original.counted].double(), dim=-1)
        yield f"ce_{name}", -log_q.gather(1, target)[:, 0], is_text
        if name == "replacement":
            same = (log_q.argmax(-1) == original.top).double()
            yield "kl_nats", (log_p.exp() * (log_p - log_q)).sum(-1), everywhere
            yield "top1_agreement", same, everywhere
            yield "top1_agreement_confident", same, original.confident
