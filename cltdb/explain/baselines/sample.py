"""Thresholds that give a wanted L0, measured on a sample of the text that is harvested."""

import numpy as np
import torch

SAMPLE_TOKENS = 32_768


class SampledText:
    """About SAMPLE_TOKENS tokens of a text, in whole sequences at equal distances."""

    def __init__(self, lm, sequences, *, batch_seqs):
        n_wanted = min(len(sequences), -(-SAMPLE_TOKENS // sequences.tokens.shape[1]))
        self.lm, self.batch_seqs = lm, batch_seqs
        self.sequences = sequences.take(np.arange(n_wanted) * len(sequences) // n_wanted)

    @torch.no_grad()
    def batches(self):
        """Yields the MLP inputs and outputs of batches, at ordinary tokens alone: both [token, n_layers, d_model]."""
        for first in range(0, len(self.sequences), self.batch_seqs):
            batch = self.sequences.part(first, first + self.batch_seqs)
            seen = self.lm.run(torch.from_numpy(batch.tokens).long(), with_logits=False)
            ordinary = torch.from_numpy(batch.ordinary).to(seen.mlp_input.device)
            yield seen.mlp_input[ordinary], seen.mlp_output[ordinary]


@torch.no_grad()
def cuts(text, values, l0):
    """{layer: (cut, n_above int64 [n_units])}: the number that l0[layer] units per token exceed, on average over the sample, and how often
    each unit does. text: `SampledText`; values(x, layer): x [token, d_model] to [token, n_units]."""
    n_wanted = {
        layer: round(mean * int(text.sequences.ordinary.sum())) + 1 for layer, mean in l0.items()
    }  # the last one is the cut
    largest = {layer: (np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)) for layer in l0}
    width = {}
    for x, _ in text.batches():
        for layer, n in n_wanted.items():
            h = values(x[:, layer], layer).float().cpu().numpy()
            width[layer] = h.shape[1]
            value, unit = largest[layer]
            rows = np.flatnonzero(h.ravel() > value.min()) if len(value) == n else np.arange(h.size)
            value, unit = np.concatenate([value, h.ravel()[rows]]), np.concatenate([unit, rows % h.shape[1]])
            best = np.argpartition(-value, n - 1)[:n] if len(value) > n else slice(None)
            largest[layer] = value[best], unit[best]
    found = {}
    for layer, (value, unit) in largest.items():
        cut = float(value.min())
        found[layer] = cut, np.bincount(unit[value > cut], minlength=width[layer])
    return found
