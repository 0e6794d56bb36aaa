"""How well weights alone predict which earlier features drive a feature: the overlap of its strongest pullbacks with its largest contributions.

Of target j, source i and a way between them, V is the virtual weight of feature_edges.py (along the residual stream) and head_edges.py (through one
head). At a token t where j fires, i contributes V times a factor of the input: along the residual stream a_i(t) s(t), with s the scale of the norm
that j reads through; through a head the sum over q of a_i(q) s_A(q) P(t, q) s_B(t) s(t), with P the pattern, s_A and s_B the scales of the norms
before and after attention. Overlap at k is the share of the k sources of largest |V| that are among the k whose mean contribution over these
tokens is largest, by its absolute value. The control puts another feature of the same layer, similarly dense, in the place of each of the former.
Source: Dunefsky, Chlenski and Nanda, "Transcoders find interpretable LLM feature circuits" (2024), whose notebooks compare the two for two features.
"""

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.harvest.head_edges import Heads, keep_largest, layers_before, read_directions_of, written_by
from cltdb.model.attention import attention_parts
from cltdb.model.freezing import norm_names, record

TOP = (10, 20, 50)
SUM_FLOATS = 2**28  # 1 GiB of float32: sums over the text that are held at once
DENSE_FLOATS = 2**25  # 128 MiB of float32: activations of a layer that are held at once
MATCHED = 16  # about so many features of similar density change places in the control


@torch.no_grad()
def pullback_overlaps(settings, lm, dictionary, sequences, *, fired, dict_id, seed):
    """The rows of table pullback_overlaps, of features drawn in each layer. settings: section `Harvest`; fired {layer: [n_features]}: how often
    each feature fires."""
    rng, wanted = np.random.default_rng([seed, 2]), settings.pullback_overlap  # the pool has [seed], the counted tokens [seed, 1]
    n_seqs = min(len(sequences), -(-wanted.tokens // sequences.tokens.shape[1]))
    text = _Text(lm, dictionary, sequences, np.sort(rng.choice(len(sequences), n_seqs, replace=False)), settings.batch_seqs)
    matched = {layer: torch.from_numpy(_matched(fired[layer], rng)).to(lm.device) for layer in dictionary.layers}
    live = {layer: torch.from_numpy(fired[layer] > 0).to(lm.device) for layer in dictionary.layers}
    rows = []
    with log.progress("pullback overlaps", total=len(dictionary.layers), unit="layers") as bar:
        for layer in dictionary.layers:
            firing = np.flatnonzero(fired[layer])
            chosen = torch.from_numpy(np.sort(rng.choice(firing, min(wanted.features, len(firing)), replace=False))).to(lm.device)
            for route, ways in _ways(lm, dictionary, layer).items():
                for features in chosen.split(max(1, SUM_FLOATS // (dictionary.n_features * max(1, len(ways))))):
                    sums, n_tokens = text.sums(layer, features, ways)
                    lists = _lists(lm, dictionary, layer, features, sums, live)
                    partners = torch.cat(
                        [matched[source] + number * dictionary.n_features for number, (source, _) in enumerate(ways)]
                    )
                    rows += [(layer, route, *row) for row in _overlaps(*lists, partners, features, n_tokens)]
            bar.advance()
    columns = zip(*rows, strict=True) if rows else [[]] * 7
    layer, route, feature, k, overlap, control, n_tokens = columns
    return pa.table(
        {
            "dict_id": pa.array([dict_id] * len(rows), pa.string()),
            "layer": pa.array(layer, pa.int32()),
            "feature": pa.array(feature, pa.int32()),
            "route": pa.array(route, pa.string()),
            "k": pa.array(k, pa.int32()),
            "overlap": pa.array(overlap, pa.float64()),
            "control": pa.array(control, pa.float64()),
            "n_tokens": pa.array(n_tokens, pa.int64()),
        }
    ).sort_by([(name, "ascending") for name in ("layer", "feature", "route", "k")])


def _ways(lm, dictionary, layer):
    """{route: [(source layer, (layer of the head, its number) or None)]} to the features of a layer, where there are such."""
    n_heads = len(attention_parts(lm, layer).W_O)
    heads = [(through, number) for through in layers_before(lm, layer) for number in range(n_heads)]
    ways = {
        "residual": [(source, None) for source in dictionary.layers if source < layer],
        "heads": [(source, head) for head in heads for source in dictionary.layers if source < head[0]],
    }
    return {route: found for route, found in ways.items() if found}


def _matched(fired, rng):
    """Of each feature that fires another one of similar density, each once [n_features]: features in order of density, in groups of about
    MATCHED, in each of which all change places at random."""
    order = np.flatnonzero(fired)[np.argsort(fired[fired > 0], kind="stable")]
    partner = np.arange(len(fired))
    for group in np.array_split(order, max(1, len(order) // MATCHED)):
        shuffled = rng.permutation(group)
        partner[shuffled] = np.roll(shuffled, 1)
    return partner


class _Text:
    """The chosen sequences of a text, to be read with patterns and scales. chosen: their numbers."""

    def __init__(self, lm, dictionary, sequences, chosen, batch_seqs):
        self.lm, self.dictionary, self.names = lm, dictionary, norm_names(lm)
        self.tokens, self.ordinary = sequences.tokens[chosen], sequences.ordinary[chosen]
        self.step = max(1, min(batch_seqs, DENSE_FLOATS // (self.tokens.shape[1] * dictionary.n_features)))
        self.dtype = torch.promote_types(lm.dtype, torch.float32)

    def sums(self, layer, features, ways):
        """({way: sum of the factor of the input over the tokens where each of `features` [n] of `layer` fires [n, n_features]}, number of these
        tokens [n])."""
        total = {
            way: torch.zeros(len(features), self.dictionary.n_features, dtype=self.dtype, device=self.lm.device) for way in ways
        }
        n_tokens = 0
        for first in range(0, len(self.tokens), self.step):
            tokens = torch.from_numpy(self.tokens[first : first + self.step]).long()
            ordinary = torch.from_numpy(self.ordinary[first : first + self.step]).to(self.lm.device)
            with record(self.lm) as constants:
                x = self.lm.run(tokens, with_logits=False).mlp_input
            fires = ((self._activations(x, layer)[..., features] > 0) & ordinary[..., None]).to(self.dtype)
            n_tokens = n_tokens + fires.sum((0, 1))
            factors = constants().to(self.dtype)
            brought = {head: self._brought(factors, layer, head, fires).flatten(0, 1) for head in {head for _, head in ways}}
            for source in {source for source, _ in ways}:
                a = (self._activations(x, source) * ordinary[..., None]).flatten(0, 1)
                for head in [head for other, head in ways if other == source]:
                    total[source, head] += brought[head].T @ a
        return total, n_tokens.long()

    def _activations(self, x, layer):
        """[batch, pos, n_features] of x [batch, pos, n_layers, d_model]."""
        x = x[:, :, layer].to(self.dictionary.device, self.dictionary.dtype)
        return self.dictionary.encode_layer(x, layer).to(self.lm.device, self.dtype)

    def _brought(self, constants, layer, head, fires):
        """The factor by which an activation at each position counts for the tokens where features fire, `fires` [batch, pos, n]; summed over
        these tokens [batch, pos, n]."""
        block = self.lm.blocks[layer]
        if self.lm.mlp_input == "normed":
            fires = fires * constants.scales[self.names[block.mlp_norm]]
        if head is None:
            return fires
        through, number = head
        block = self.lm.blocks[through]
        if block.attention_output is not block.attention:
            fires = fires * constants.scales[self.names[block.attention_output]]
        return constants.patterns[through][:, number].mT @ fires * constants.scales[self.names[block.attention_norm]]


def _lists(lm, dictionary, layer, features, sums, live):
    """Codes [n, 50] of the sources of `features` of `layer` of largest |V| and of largest |contribution|, -1 where there are fewer; the code of
    a source is (number of its way in `sums`) * n_features + its feature."""
    directions = read_directions_of(lm, dictionary, layer)[features]
    best = [(directions.new_zeros(len(features), TOP[-1]), features.new_full((len(features), TOP[-1]), -1)) for _ in range(2)]
    for number, ((source, head), factor) in enumerate(sums.items()):
        if head is None:
            weights = directions @ written_by(lm, dictionary, source, layer).T
        else:
            heads = Heads(lm, head[0])
            weights = heads.reads(directions)[head[1]] @ heads.values(written_by(lm, dictionary, source, head[0]))[head[1]].T
        weights = weights * live[source]
        codes = number * dictionary.n_features + torch.arange(dictionary.n_features, device=lm.device)
        for (strength, code), candidates in zip(best, (weights, weights * factor), strict=True):
            keep_largest(strength, code, candidates, codes=codes)
    return [code.where(strength != 0, -1) for strength, code in best]


def _overlaps(by_weight, by_contribution, partners, features, n_tokens):
    """Yields (feature, k, overlap, control, n_tokens) of the lists of `_lists`, where both have k sources. partners: of each code that of
    another source."""
    for k in TOP:
        listed, largest = by_weight[:, :k], by_contribution[:, :k]
        full = ((listed >= 0) & (largest >= 0)).all(1).nonzero()[:, 0]
        listed, largest = listed[full], largest[full]
        shares = [(codes[:, :, None] == largest[:, None]).any(2).double().mean(1) for codes in (listed, partners[listed])]
        columns = (features[full], *shares, n_tokens[full])
        for feature, overlap, control, n in zip(*(column.tolist() for column in columns), strict=True):
            yield feature, k, overlap, control, n
