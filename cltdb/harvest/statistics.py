"""What is known of a feature as a whole: running statistics over text, and from its weights the tokens it promotes and is driven by, and
similar features."""

import numpy as np
import torch

from cltdb.model.norms import norm_gain

CHUNK_FLOATS = 2**25  # 128 MiB of float32 per intermediate matrix
DECODER_FLOATS = 2**27  # 512 MiB of float32 for decoders that are compared, twice
TOKENS_SHOWN = 10
NEIGHBOURS = 10


class RunningStatistics:
    """How often, how much and how strongly each feature of one layer fires: count int64 [n_features], totals float64 [n_segments,
    n_features] by segment of the text, so that their sum is rounded alike whoever saw which, maximum float32 [n_features]."""

    FIELDS = ("count", "totals", "maximum")

    def __init__(self, n_features, *, n_segments):
        self.count = np.zeros(n_features, dtype=np.int64)
        self.totals = np.zeros((n_segments, n_features))
        self.maximum = np.zeros(n_features, dtype=np.float32)

    @property
    def mean(self):
        """Of the activations above zero [n_features]; zero where there is none."""
        return self.totals.sum(0) / np.maximum(self.count, 1)

    def add(self, feature, activation, *, segment):
        """One entry per firing."""
        self.count += np.bincount(feature, minlength=len(self.count))
        self.totals[segment] += np.bincount(feature, weights=activation, minlength=len(self.count))
        np.maximum.at(self.maximum, feature, activation)

    def absorb(self, count, totals, maximum):
        """Those of other segments."""
        self.count += count
        self.totals += totals
        np.maximum(self.maximum, maximum, out=self.maximum)


@torch.no_grad()
def logit_effects(lm, dictionary, layer):
    """What each feature writes to the logits directly, as `_extremes` of W_U (final norm gain * sum over targets of W_dec), demeaned
    over the vocabulary."""
    W_U, gain = lm.unembedding_weight().float(), norm_gain(lm.final_norm).float()
    return _extremes(dictionary.decoder_sum(layer).float().to(W_U.device) * gain, W_U, demean=True)


@torch.no_grad()
def embedding_effects(lm, dictionary, layer):
    """What each token's embedding adds to each feature directly, along the residual stream alone, in units of the pre-activation before
    the norm's scale per token, as `_extremes` of <embedding, residual direction of W_enc>."""
    embeddings = lm.embedding(torch.arange(lm.vocab_size, device=lm.device))  # as they enter the residual stream
    directions = lm.residual_directions(layer, dictionary.W_enc[layer].to(lm.device))
    return _extremes(directions.float(), embeddings.float(), demean=False)


def _extremes(vectors, tokens, *, demean):
    """((token, value) of the largest, (token, value) of the smallest) products of vectors [n_features, d_model] with tokens [vocab,
    d_model], each [n_features, 10], most extreme first; demean: less the mean over the vocabulary."""
    n_shown = min(TOKENS_SHOWN, len(tokens))
    largest, smallest = [], []
    for rows in vectors.split(max(1, CHUNK_FLOATS // len(tokens))):
        effects = rows @ tokens.T
        if demean:
            effects -= effects.mean(dim=1, keepdim=True)
        largest.append(effects.topk(n_shown, dim=1))
        smallest.append(effects.topk(n_shown, dim=1, largest=False))
    return tuple(
        (
            torch.cat([part.indices for part in parts]).int().cpu().numpy(),
            torch.cat([part.values for part in parts]).cpu().numpy(),
        )
        for parts in (largest, smallest)
    )


@torch.no_grad()
def similar_features(dictionary, layer):
    """(neighbour, cosine), [n_features, up to 10]: the features of the layer with the most similar decoders (all targets
    together)."""
    W = dictionary.W_dec[layer].flatten(1)
    n_neighbours = min(NEIGHBOURS, len(W) - 1)
    n_columns = min(len(W), max(1, DECODER_FLOATS // W.shape[1]))
    n_rows = max(1, min(n_columns, CHUNK_FLOATS // n_columns))
    neighbours, cosines = [], []
    for first in range(0, len(W), n_rows):
        rows, found = _directions(W[first : first + n_rows]), []
        for start in range(0, len(W), n_columns):
            cosine = rows @ _directions(W[start : start + n_columns]).T
            itself = torch.arange(first - start, first - start + len(rows), device=W.device)
            here = ((itself >= 0) & (itself < cosine.shape[1])).nonzero()[:, 0]
            cosine[here, itself[here]] = -2  # never its own neighbour
            best = cosine.topk(min(n_neighbours, cosine.shape[1]), dim=1)
            found.append((best.values, best.indices + start))
        values, indices = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        order = values.sort(dim=1, descending=True, stable=True).indices[:, :n_neighbours]
        neighbours.append(indices.gather(1, order).int())
        cosines.append(values.gather(1, order))
    return torch.cat(neighbours).cpu().numpy(), torch.cat(cosines).cpu().numpy()


def _directions(decoders):
    """[n, width] in float32, each of length 1."""
    return torch.nn.functional.normalize(decoders.float(), dim=1)
