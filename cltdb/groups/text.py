"""Text with labels, which the prompts' labels name: where features fire on it, how well they tell its label, a probe of the label.

A piece is what a sequence holds of one document. Half of the pieces are for what is fitted or measured to be used (a probe, the 99th
percentile of activations), the other half for how well labels are told apart.
"""

from typing import NamedTuple

import numpy as np
import torch

from cltdb import log
from cltdb.errors import DataError

LEAST_TOKENS = 4
"""Ordinary tokens of a piece; in fewer a label can hardly show."""
MOST_PROBE_TOKENS = 20_000
PROBE_LAYER = 1
"""The layer whose MLP input the probe reads (0 in a model of one layer)."""
HIGH = 0.99
"""The quantile of activations above 0 that is called high."""


class LabelledText(NamedTuple):
    """Of each place of the text, all [n_seqs, context]: label, int64, -1 where it is not counted; piece, int64. label_of [n_pieces];
    is_held_out [n_pieces]; weight float64 [n_seqs, context]: what a token counts at equal token frequency (`matched_weights`)."""

    sequences: object
    labels: list
    label: np.ndarray
    piece: np.ndarray
    label_of: np.ndarray
    is_held_out: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, sequences, labels):
        """labels: those of the prompts. DataError where the text has too little of one of them."""
        codes = np.array([labels.index(name) if name in labels else -1 for name in sequences.label_names] or [-1])
        label = np.where(sequences.labels >= 0, codes[np.maximum(sequences.labels, 0)], -1)
        label[~sequences.ordinary] = -1
        begins = np.diff(sequences.documents, axis=1, prepend=-1) != 0
        begins[:, 0] = True
        piece = begins.ravel().cumsum().reshape(begins.shape) - 1
        n = np.bincount(piece[label >= 0], minlength=piece.max() + 1)
        label[n[piece] < LEAST_TOKENS] = -1
        counted, piece[label >= 0] = np.unique(piece[label >= 0], return_inverse=True)
        piece[label < 0] = -1
        label_of = np.zeros(len(counted), dtype=np.int64)
        label_of[piece[label >= 0]] = label[label >= 0]
        place = np.zeros(len(counted), dtype=np.int64)  # of each piece among those of its label
        for code, name in enumerate(labels):
            of_label = label_of == code
            place[of_label] = np.arange(of_label.sum())
            if of_label.sum() < 4:
                where = "groups.text" if sequences.label_names else "groups.text, whose sources have no label"
                found = f"{of_label.sum()} pieces of text with label {name!r}"
                raise DataError(
                    where, found=found, expected="four or more", do="read more tokens, or give sources a label or label_column"
                )
        is_held_out = place % 2 == 1
        weight = np.zeros(label.shape)
        used = (label >= 0) & is_held_out[piece]
        weight[used] = matched_weights(sequences.tokens[used], label[used], len(labels))
        return cls(sequences, labels, label, piece, label_of, is_held_out, weight)


def matched_weights(tokens, label, n_labels):
    """What each token counts [n], so that all labels have tokens of the same frequencies: in every octave of how often a token id occurs in the
    text, the weights of each label's tokens sum up to the least share of its tokens that any label has there."""
    _, ids, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    octave = np.log2(counts[ids]).astype(np.int64)
    n = np.zeros((n_labels, octave.max() + 1))
    np.add.at(n, (label, octave), 1)
    least = (n / n.sum(axis=1, keepdims=True)).min(axis=0)
    return least[octave] / n[label, octave]


def batches(lm, dictionary, text, batch_seqs):
    """Yields (mask of the places that count [n, context], what features read at them [n_places, n_layers, d_model], rows of the text)."""
    with log.progress("groups", total=text.label.size, unit="tokens") as bar:
        for start in range(0, len(text.label), batch_seqs):
            rows = slice(start, start + batch_seqs)
            counts = text.label[rows] >= 0
            with torch.no_grad():
                seen = lm.run(torch.from_numpy(text.sequences.tokens[rows]).long().to(lm.device), with_logits=False)
                mask = torch.from_numpy(counts).to(lm.device)
                yield counts, dictionary.read_of(seen.mlp_input[mask], seen.mlp_output[mask]), rows
            bar.advance(counts.size)


class Survey(NamedTuple):
    """rate [n_layers, n_features]: the share of tokens on which each feature fires, every label counting the same. probe [n_labels,
    d_model]: directions of the residual stream that a logistic regression of the label reads, less their mean."""

    rate: np.ndarray
    probe: np.ndarray


def survey(lm, dictionary, text, *, batch_seqs, seed):
    """The `Survey` of the pieces that are not held out."""
    n_labels = len(text.labels)
    fired, n, inputs, labels = np.zeros((n_labels, dictionary.n_layers, dictionary.n_features)), np.zeros(n_labels), [], []
    layer_of_probe = min(PROBE_LAYER, lm.n_layers - 1)
    for counts, x, rows in batches(lm, dictionary, text, batch_seqs):
        label, fits = text.label[rows][counts], ~text.is_held_out[text.piece[rows][counts]]
        x, label = x[torch.from_numpy(fits).to(x.device)], label[fits]
        for layer in dictionary.layers:
            active = (dictionary.encode_layer(x[:, layer].to(dictionary.dtype), layer) > 0).cpu().numpy()
            for code in range(n_labels):
                fired[code, layer] += active[label == code].sum(axis=0)
        n += np.bincount(label, minlength=n_labels)
        inputs.append(x[:, layer_of_probe].float().cpu().numpy())
        labels.append(label)
    vectors = _probe(np.concatenate(inputs), np.concatenate(labels), n_labels, seed)
    directions = lm.residual_directions(layer_of_probe, torch.from_numpy(vectors).to(lm.device, lm.dtype)).detach()
    return Survey((fired / n[:, None, None]).mean(axis=0), directions.float().cpu().numpy())


def _probe(x, label, n_labels, seed):
    """What a logistic regression reads for each label [n_labels, d_model], less the mean; labels count the same."""
    from sklearn.linear_model import LogisticRegression

    generator, most = np.random.default_rng(seed), MOST_PROBE_TOKENS // n_labels
    chosen = np.concatenate([generator.permutation(np.flatnonzero(label == code))[:most] for code in range(n_labels)])
    x, label = x[chosen], label[chosen]
    scale = x.std(axis=0) + 1e-6
    model = LogisticRegression(class_weight="balanced", max_iter=300).fit(x / scale, label)
    read = model.coef_ / scale if n_labels > 2 else np.concatenate([-model.coef_, model.coef_]) / scale
    return read - read.mean(axis=0)


class Scores(NamedTuple):
    """Of chosen features: mean, matched [n_held_out_pieces, n_chosen], the mean activation on each piece, at equal token frequency in
    `matched` (NaN where no token of the piece counts then); label [n_held_out_pieces]; high [n_labels, n_chosen]: the 99th percentile of
    activations above 0 on the pieces of a label that are not held out, 0 where it never fires there."""

    mean: np.ndarray
    matched: np.ndarray
    label: np.ndarray
    high: np.ndarray


def scores(lm, dictionary, text, chosen, *, batch_seqs):
    """The `Scores` of chosen features [(layer, feature)]."""
    n_pieces, n_labels = len(text.label_of), len(text.labels)
    sums, n = np.zeros((2, n_pieces, len(chosen))), np.zeros((2, n_pieces))
    firings = [[[] for _ in chosen] for _ in text.labels]
    places = {layer: [place for place, one in enumerate(chosen) if one[0] == layer] for layer in dictionary.layers}
    for counts, x, rows in batches(lm, dictionary, text, batch_seqs):
        piece, label, weight = (values[rows][counts] for values in (text.piece, text.label, text.weight))
        values = np.zeros((len(piece), len(chosen)))
        for layer, columns in places.items():
            if columns:
                features = [chosen[place][1] for place in columns]
                found = dictionary.encode_layer(x[:, layer].to(dictionary.dtype), layer)[:, features]
                values[:, columns] = found.double().cpu().numpy()
        for way, counted in enumerate((np.ones(len(piece)), weight)):
            np.add.at(sums[way], piece, values * counted[:, None])
            np.add.at(n[way], piece, counted)
        fits = ~text.is_held_out[piece]
        for row, column in zip(*np.nonzero((values > 0) & fits[:, None]), strict=True):
            firings[label[row]][column].append(values[row, column])
    high = [[np.quantile(found, HIGH) if found else 0.0 for found in of_label] for of_label in firings]
    held = text.is_held_out
    with np.errstate(invalid="ignore"):
        mean, matched = sums[:, held] / n[:, held, None]
    return Scores(mean, matched, text.label_of[held], np.array(high).reshape(n_labels, len(chosen)))


def auc(values, label, code):
    """How well values [n] tell pieces of label `code` from those of each other label: the mean over the others of the probability that a piece of
    the label has the larger value, equal ones counting half. NaN values are left out; None where a label has no piece left."""
    from scipy.stats import rankdata

    known, found = ~np.isnan(values), []
    own = values[known & (label == code)]
    for other in set(np.unique(label)) - {code}:
        others = values[known & (label == other)]
        if not len(own) or not len(others):
            return None
        ranks = rankdata(np.concatenate([own, others]))[: len(own)]
        found.append((ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * len(others)))
    return float(np.mean(found)) if found else None
