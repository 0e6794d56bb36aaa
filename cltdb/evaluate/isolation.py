"""Isolation: what else moves in the model when one feature is raised.

1. Every feature has a scale of its own, `high`: the 99th percentile of its activations above 0 on the held-out text.
2. On the same prompts for all features, the beginnings of held-out sequences, a feature's activation at the last position is raised by a
   multiple of its `high`. What its decoders write more is added to the outputs, and the model itself responds (interventions call this
   mode free).
3. All features are read again at that position. Leakage is the sum of the others' absolute changes over the feature's own change. An
   activation counts times the norm of its feature's decoders, those of all target layers together.

So nothing here depends on how a feature's scale is shared between activation and decoder: a feature with half the decoder and twice the
activation has the same rows. An absolute strength, one for all dictionaries, would be little for one and out of range for another.
Same layer: an SAE reads the place that it writes to, so the changed place is encoded again. A transcoder reads the MLP's input and writes its
output, so nothing is read again in the same layer; `decoder_overlap` says how its decoders overlap there.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch

from cltdb import log
from cltdb.errors import DataError

HIGH = 0.99
"""The quantile of activations above 0 that is a feature's scale."""
CHUNK_FLOATS = 2**25
"""Of decoders that are compared at once."""


class Patch:
    """What stands for the MLPs in one forward pass: `change(read)`, with what the features of `layer` read [row, pos, d_model], gives what is
    added to the outputs of its target layers, [row, pos, n_targets, d_model].

    reads: of every layer what features read at the last position [row, d_model]; written: what was added.
    """

    def __init__(self, lm, dictionary, layer, change):
        self.lm, self.dictionary, self.layer, self.change = lm, dictionary, layer, change
        self.reads, self.written = [], None

    def __call__(self, layer, x, y):
        read = self.dictionary.read_of(x, y).to(self.dictionary.dtype)
        self.reads.append(read[:, -1])
        if layer == self.layer:
            self.written = self.change(read)
        if layer not in self.dictionary.target_layers(self.layer):
            return None
        added = self.written[:, :, layer - self.layer].to(y.dtype)
        return self.lm.output_with(layer, x, y, added, self.dictionary.writes)


def patched(lm, dictionary, tokens, layer, change):
    """(the `Patch` after its pass over tokens [row, pos], log-probabilities of the next token float64 [row, vocab])."""
    patch = Patch(lm, dictionary, layer, change)
    with lm.replaced_mlps(patch):
        logits = lm.logits(tokens)[:, -1]
    return patch, logits.double().log_softmax(-1)


def raising(dictionary, layer, features, amounts):
    """The `change` of a `Patch` that raises one feature per row at the last position. features [row]; amounts [row], in activations."""
    decoders = dictionary.decoder(layer, features) * amounts[:, None, None].to(dictionary.dtype)

    def change(read):
        out = decoders.new_zeros(*read.shape[:2], *decoders.shape[1:])
        out[:, -1] = decoders
        return out

    return change


class Clean(NamedTuple):
    """The prompts, tokens [prompt, pos], and the untouched model there. At the last position: reads, per layer [prompt, d_model]; activations,
    {layer: [prompt, n_features]}; log_p float64 [prompt, vocab]. silent: {layer: [prompt, n_features] bool}, true where a feature fires nowhere
    in the prompt."""

    tokens: torch.Tensor
    reads: list
    activations: dict
    silent: dict
    log_p: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, lm, dictionary, tokens, *, rows_at_once):
        parts = [cls._of(lm, dictionary, part) for part in tokens.split(rows_at_once)]
        together = {
            name: {layer: torch.cat([getattr(part, name)[layer] for part in parts]) for layer in dictionary.layers}
            for name in ("activations", "silent")
        }
        reads = list(map(torch.cat, zip(*(part.reads for part in parts), strict=True)))
        return cls(tokens, reads, **together, log_p=torch.cat([part.log_p for part in parts]))

    @classmethod
    def _of(cls, lm, dictionary, tokens):
        captured = lm.run(tokens)
        reads = dictionary.read_of(captured.mlp_input, captured.mlp_output).to(dictionary.dtype).unbind(2)
        activations, silent = {}, {}
        for layer in dictionary.layers:
            found = dictionary.encode_layer(reads[layer][:, 1:], layer)
            activations[layer], silent[layer] = found[:, -1], ~(found > 0).any(1)
        log_p = captured.logits[:, -1].double().log_softmax(-1)
        return cls(tokens, [read[:, -1] for read in reads], activations, silent, log_p)


def prompts_of(sequences, *, n, n_tokens, seed):
    """Token ids [n, n_tokens] of the beginnings of drawn sequences, those whose last token is ordinary; all where there are fewer."""
    usable = np.flatnonzero(sequences.ordinary[:, n_tokens - 1])
    if not len(usable):
        raise DataError(
            "evaluate.isolation.prompt_tokens",
            found=f"no sequence whose token {n_tokens} is ordinary",
            expected="held-out text with some",
            do="read more tokens, or lower it",
        )
    drawn = np.random.default_rng(seed).permutation(usable)[:n]
    return torch.from_numpy(sequences.tokens[np.sort(drawn), :n_tokens]).long()


def drawn_features(fired, layers, *, n, seed):
    """{layer: indices, rising} of at most n features of each layer, drawn among those that fire. fired [n_layers, n_features]: on how many
    tokens."""
    generator = np.random.default_rng(seed)
    return {layer: sorted(generator.permutation(np.flatnonzero(fired[layer]))[:n].tolist()) for layer in layers}


@torch.no_grad()
def scales(lm, dictionary, sequences, features, *, batch_seqs):
    """{(layer, feature): high} of features, {layer: indices}, over the ordinary tokens; 0 of one that never fires."""
    features = {layer: chosen for layer, chosen in features.items() if chosen}
    columns, values = defaultdict(list), defaultdict(list)
    with log.progress("evaluate", total=sequences.tokens.size, unit="tokens") as bar:
        for start in range(0, len(sequences), batch_seqs):
            part = sequences.part(start, start + batch_seqs)
            seen = lm.run(torch.from_numpy(part.tokens).long().to(lm.device), with_logits=False)
            ordinary = torch.from_numpy(part.ordinary).to(lm.device)
            read = dictionary.read_of(seen.mlp_input[ordinary], seen.mlp_output[ordinary]).to(dictionary.dtype)
            for layer, chosen in features.items():
                found = dictionary.encode_layer(read[:, layer], layer)[:, chosen].double().cpu().numpy()
                _, column = np.nonzero(found > 0)
                columns[layer].append(column)
                values[layer].append(found[found > 0])
            bar.advance(part.tokens.size)
    highs = {}
    for layer, chosen in features.items():
        column, value = np.concatenate(columns[layer]), np.concatenate(values[layer])
        order = np.argsort(column, stable=True)
        of_feature = np.split(value[order], np.searchsorted(column[order], np.arange(1, len(chosen))))
        highs |= {(layer, one): float(np.quantile(v, HIGH)) if len(v) else 0.0 for one, v in zip(chosen, of_feature, strict=True)}
    return highs


def decoder_overlaps(dictionary, layer, features):
    """Sum over the other features of a layer of |cosine| of their decoders with those of each of `features` [n], all target layers together."""
    places = torch.tensor(features, dtype=torch.int64, device=dictionary.device)
    own, total = _unit_decoders(dictionary, layer, places), torch.zeros(len(features), dtype=torch.float64)
    everything = torch.arange(dictionary.n_features, device=dictionary.device)
    for chunk in everything.split(max(1, CHUNK_FLOATS // own.shape[1])):
        cosines = (own @ _unit_decoders(dictionary, layer, chunk).T).abs()
        total += cosines.masked_fill(places[:, None] == chunk, 0).sum(1).double().cpu()
    return total.tolist()


def _unit_decoders(dictionary, layer, features):
    flat = dictionary.decoder(layer, features).flatten(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)


class Raised(NamedTuple):
    """A feature, what its activation is raised by in multiples of `high`, and `high`."""

    feature: int
    multiple: float
    high: float


@torch.no_grad()
def leakages(lm, dictionary, clean, asked, *, rows_at_once):
    """Yields (layer, `Raised`, {column: value} of table isolation) of everything in `asked`, {layer: [`Raised`]}. clean: `Clean`; rows_at_once: most
    rows of a forward pass, where the prompts are not more."""
    norms = {layer: decoder_norms(dictionary, layer) for layer in dictionary.layers}
    n_prompts = len(clean.tokens)
    at_once = max(1, rows_at_once // n_prompts)
    total = n_prompts * sum(map(len, asked.values()))
    with log.progress("evaluate", total=total, unit="interventions") as bar:
        for layer, raised in asked.items():
            for start in range(0, len(raised), at_once):
                group = raised[start : start + at_once]
                yield from (
                    (layer, *row) for row in zip(group, _measured(lm, dictionary, clean, layer, group, norms), strict=True)
                )
                bar.advance(n_prompts * len(group))


def decoder_norms(dictionary, layer):
    """The norm of each feature's decoders, all target layers together, float64 [n_features]."""
    return dictionary.decoder_norms(layer).double().norm(dim=-1).cpu()


def _measured(lm, dictionary, clean, layer, group, norms):
    """The columns of a group of `Raised` features of one layer: one pass over all prompts for each. norms: {layer: [n_features]}."""
    n_prompts, shape = len(clean.tokens), (len(group), len(clean.tokens))
    feature = torch.tensor([one.feature for one in group], device=dictionary.device)
    amount = torch.tensor([one.multiple * one.high for one in group], dtype=torch.float64, device=dictionary.device)
    change = raising(dictionary, layer, feature.repeat_interleave(n_prompts), amount.repeat_interleave(n_prompts))
    patch, log_q = patched(lm, dictionary, clean.tokens.repeat(len(group), 1), layer, change)
    reads = {target: patch.reads[target] for target in dictionary.layers if target > layer}
    if dictionary.reconstructs:
        reads[layer] = clean.reads[layer].repeat(len(group), 1) + patch.written[:, -1, 0]
    each, feature, amount = torch.arange(len(group)), feature.cpu(), amount.cpu()
    own, leaked, response = amount.abs() * norms[layer][feature], {}, None
    most, most_place = torch.zeros(len(group), dtype=torch.float64), torch.zeros(len(group), 2, dtype=torch.int64)
    for target, read in reads.items():
        moved = dictionary.encode_layer(read, target).unflatten(0, shape) - clean.activations[target]
        changes = moved.abs().double().mean(1).cpu() * norms[target] / own[:, None]  # [group, n_features]
        if target == layer:
            response = moved.double().mean(1).cpu()[each, feature] / amount
            changes[each, feature] = 0
        leaked[target] = changes.sum(1)
        value, place = changes.max(1)
        place = torch.stack([torch.full_like(place, target), place], dim=1)
        most, most_place = torch.maximum(most, value), torch.where((value > most)[:, None], place, most_place)
    later = [values for target, values in leaked.items() if target > layer]
    kl = (clean.log_p.exp() * (clean.log_p - log_q.unflatten(0, shape))).sum(-1).cpu()
    unrelated = clean.silent[layer].cpu()[:, feature].T  # [group, prompt]
    n_unrelated = unrelated.sum(1)
    for number in range(len(group)):
        yield {
            "n_prompts": n_prompts,
            "leakage_same": float(leaked[layer][number]) if layer in leaked else None,
            "leakage_later": float(sum(values[number] for values in later)) if later else None,
            "own_response": None if response is None else float(response[number]),
            "most_layer": int(most_place[number, 0]) if most[number] > 0 else None,
            "most_feature": int(most_place[number, 1]) if most[number] > 0 else None,
            "most_change": float(most[number]) if most[number] > 0 else None,
            "n_unrelated": int(n_unrelated[number]),
            "kl_nats": float(kl[number][unrelated[number]].mean()) if n_unrelated[number] else None,
        }
