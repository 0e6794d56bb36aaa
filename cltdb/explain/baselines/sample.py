"""Thresholds that give a wanted L0, measured on a sample of the text that is harvested."""

from copy import copy

import numpy as np
import torch

from cltdb.model.kinds import both_sides

SAMPLE_TOKENS = 32_768


class SampledText:
    """About SAMPLE_TOKENS tokens of a text, in whole sequences at equal distances."""

    def __init__(self, lm, sequences, *, batch_seqs):
        n_wanted = min(len(sequences), -(-SAMPLE_TOKENS // sequences.tokens.shape[1]))
        self.lm, self.batch_seqs, self.reads = lm, batch_seqs, None
        self.sequences = sequences.take(np.arange(n_wanted) * len(sequences) // n_wanted)
        self.n_tokens = int(self.sequences.ordinary.sum())

    def of(self, reads):
        """The same text of which an SAE sees one place, one of `kinds.READS`, as input and as output; None: as a transcoder does."""
        other = copy(self)
        other.reads = reads
        return other

    @torch.no_grad()
    def batches(self):
        """Yields the MLP inputs and outputs of batches, at ordinary tokens alone: both [token, n_layers, d_model]."""
        for first in range(0, len(self.sequences), self.batch_seqs):
            batch = self.sequences.part(first, first + self.batch_seqs)
            seen = self.lm.run(torch.from_numpy(batch.tokens).long(), with_logits=False)
            ordinary = torch.from_numpy(batch.ordinary).to(seen.mlp_input.device)
            yield both_sides(seen.mlp_input[ordinary], seen.mlp_output[ordinary], self.reads)


@torch.no_grad()
def cuts(text, values, l0):
    """{layer: the number that l0[layer] units per token exceed, on average over the sample}. text: `SampledText`; values(x, layer): x [token,
    d_model] to [token, n_units]."""
    n_kept = {layer: round(mean * text.n_tokens) + 1 for layer, mean in l0.items()}  # the last one is the cut
    largest = {layer: np.empty(0, dtype=np.float32) for layer in l0}
    for x, _ in text.batches():
        for layer, n in n_kept.items():
            both = np.concatenate([largest[layer], values(x[:, layer], layer).float().cpu().numpy().ravel()])
            largest[layer] = np.partition(both, len(both) - n)[len(both) - n :] if len(both) > n else both
    return {layer: float(kept.min()) for layer, kept in largest.items()}


@torch.no_grad()
def n_above(text, values, cut):
    """{layer: at how many tokens of the sample each unit exceeds cut[layer], int64 [n_units]}."""
    counts = dict.fromkeys(cut, 0)
    for x, _ in text.batches():
        for layer, bound in cut.items():
            counts[layer] = counts[layer] + (values(x[:, layer], layer) > bound).sum(0)
    return {layer: count.cpu().numpy() for layer, count in counts.items()}
