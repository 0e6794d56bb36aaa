"""Text with labels, which the prompts' labels name: where features fire on it, how well they tell its label, a probe of the label.

A piece is what a sequence holds of one document. Half of a label's documents are for what is fitted or measured to be used (a probe, the 99th
percentile of activations), the pieces of the other half for how well labels are told apart.
"""

from typing import NamedTuple

import numpy as np
import torch

from cltdb import log
from cltdb.errors import DataError
from cltdb.groups.matching import MOST_PIECES, Matched, frequency_classes

LEAST_TOKENS = 4
"""Ordinary tokens of a piece; in fewer a label can hardly show."""
MOST_PROBE_TOKENS = 20_000
PROBE_LAYER = 1
"""The layer whose MLP input the probe reads (0 in a model of one layer)."""
HIGH = 0.99
"""The quantile of activations above 0 that is called high."""


class LabelledText(NamedTuple):
    """Of each place of the text, all [n_seqs, context] int64, -1 where it is not counted: label; piece; frequency, its class
    (`frequency_classes`). label_of [n_pieces]; is_held_out [n_pieces]: the same for all pieces of a document."""

    sequences: object
    labels: list
    label: np.ndarray
    piece: np.ndarray
    frequency: np.ndarray
    label_of: np.ndarray
    is_held_out: np.ndarray

    @classmethod
    def of(cls, sequences, labels, *, where="groups.text"):
        """labels: those of the prompts. DataError where the text has too little of one of them; where: the key that names it."""
        codes = np.array([labels.index(name) if name in labels else -1 for name in sequences.label_names] or [-1])
        label = np.where(sequences.labels >= 0, codes[np.maximum(sequences.labels, 0)], -1)
        label[~sequences.ordinary] = -1
        begins = np.diff(sequences.documents, axis=1, prepend=-1) != 0
        begins[:, 0] = True
        piece = begins.ravel().cumsum().reshape(begins.shape) - 1
        n = np.bincount(piece[label >= 0], minlength=piece.max() + 1)
        label[n[piece] < LEAST_TOKENS] = -1
        counts = label >= 0
        found, piece[counts] = np.unique(piece[counts], return_inverse=True)
        piece[~counts] = -1
        label_of, document_of = np.zeros((2, len(found)), dtype=np.int64)
        label_of[piece[counts]], document_of[piece[counts]] = label[counts], sequences.documents[counts]
        is_held_out = np.zeros(len(found), dtype=bool)
        for code, name in enumerate(labels):
            of_label = label_of == code
            is_held_out[of_label] = np.unique(document_of[of_label], return_inverse=True)[1] % 2
            _check_enough(name, is_held_out[of_label], document_of[of_label], where)
        frequency = np.full(label.shape, -1)
        frequency[counts] = frequency_classes(sequences.tokens[counts], label[counts], len(labels))
        return cls(sequences, labels, label, piece, frequency, label_of, is_held_out)

    @property
    def matched_pieces(self):
        """Held-out pieces that are compared at equal token frequency: of each label at most MOST_PIECES, evenly chosen."""
        held = [np.flatnonzero(self.is_held_out & (self.label_of == code)) for code in range(len(self.labels))]
        return np.concatenate([of[np.linspace(0, len(of) - 1, min(len(of), MOST_PIECES)).astype(int)] for of in held])


def _check_enough(label, is_held_out, documents, where):
    """DataError where one of the two halves of a label's pieces has fewer than two."""
    if min(is_held_out.sum(), (~is_held_out).sum()) < 2:
        n, n_documents = len(documents), len(set(documents.tolist()))
        raise DataError(
            where,
            found=f"{n} piece{'s' * (n != 1)} of {n_documents} document{'s' * (n_documents != 1)} with label {label!r}",
            expected=f"two pieces of {LEAST_TOKENS} tokens or more in every other document, and two in the others",
            do="raise groups.tokens, or give sources of that text a label or label_column",
        )


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
    directions = lm.residual_directions(layer_of_probe, torch.from_numpy(vectors)).detach()
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
    """mean [n_held_out_pieces, n_chosen]: the mean activation of the chosen features on each piece; label [n_held_out_pieces]; fit_mean, fit_label:
    the same of the pieces that are not held out; matched: the chosen features' `Matched`; high [n_labels, n_chosen + n_more]: the 99th
    percentile of activations above 0 on the pieces of a label that are not held out, 0 where a feature never fires there."""

    mean: np.ndarray
    label: np.ndarray
    fit_mean: np.ndarray
    fit_label: np.ndarray
    matched: Matched
    high: np.ndarray


def scores(lm, dictionary, text, chosen, more=(), *, batch_seqs, seed):
    """The `Scores` of chosen features [(layer, feature)]; more: those of which `high` alone is wanted; seed: of the tokens that are matched."""
    from scipy.sparse import csr_array, vstack

    n_pieces, n_labels, n_chosen, every = len(text.label_of), len(text.labels), len(chosen), [*chosen, *more]
    sums, n = np.zeros((n_pieces, n_chosen)), np.bincount(text.piece[text.piece >= 0], minlength=n_pieces)
    matched, place = text.matched_pieces, np.full(n_pieces, -1)
    place[matched] = np.arange(len(matched))
    columns = {layer: [column for column, one in enumerate(every) if one[0] == layer] for layer in dictionary.layers}
    firings, of_matched = [], []
    for counts, x, rows in batches(lm, dictionary, text, batch_seqs):
        piece, label, frequency = (values[rows][counts] for values in (text.piece, text.label, text.frequency))
        values = np.zeros((len(piece), len(every)), np.float32)
        for layer, of_layer in columns.items():
            if of_layer:
                features = [every[column][1] for column in of_layer]
                found = dictionary.encode_layer(x[:, layer].to(dictionary.dtype), layer)[:, features]
                values[:, of_layer] = found.float().cpu().numpy()
        np.add.at(sums, piece, values[:, :n_chosen])
        here = place[piece] >= 0
        of_matched.append((place[piece[here]], frequency[here], csr_array(values[here, :n_chosen])))
        row, column = np.nonzero((values > 0) & ~text.is_held_out[piece][:, None])
        firings.append((label[row] * len(every) + column, values[row, column]))
    held, high = text.is_held_out, _high(*map(np.concatenate, zip(*firings, strict=True)), n_labels * len(every))
    of_parts = [values for part in (held, ~held) for values in (sums[part] / n[part, None], text.label_of[part])]
    *codes, values = zip(*of_matched, strict=True)
    of_pieces = Matched.of(text.label_of[matched], *map(np.concatenate, codes), vstack(values), seed=seed)
    return Scores(*of_parts, of_pieces, high.reshape(n_labels, len(every)))


def _high(cell, values, n_cells):
    """The quantile HIGH of the values of each cell [n_cells], 0 where it has none."""
    order = np.argsort(cell, kind="stable")
    parts = np.split(values[order], np.searchsorted(cell[order], np.arange(1, n_cells)))
    return np.array([np.quantile(part.astype(float), HIGH) if len(part) else 0.0 for part in parts])


def auc(values, label, code):
    """How well values [n, n_sums] tell pieces of label `code` from those of each other label [n_sums]: the mean over the others of the
    probability that a piece of the label has the larger value, equal ones counting half."""
    from scipy.stats import rankdata

    own, found = values[label == code], []
    for other in sorted(set(label.tolist()) - {code}):
        ranks = rankdata(np.concatenate([own, values[label == other]]), axis=0)[: len(own)].sum(axis=0)
        found.append((ranks - len(own) * (len(own) + 1) / 2) / (len(own) * (label == other).sum()))
    return np.mean(found, axis=0)
