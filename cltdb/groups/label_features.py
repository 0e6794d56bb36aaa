"""Label features: features that make the answer one of its label, such as a language, and what they read.

Candidates come from the prompts alone. Each prompt's graph explains the logit of its label's answer less the mean of those of all labels
(`LabelTarget`). A feature *recurs* over the prompts of a label where it is among those that make up most of the features' influence, and works for the label
where its mean effect, which has a sign as influence has none, is above 0. Those that do both are ranked, within a label and layer, by their
contrast: their mean influence on the label's prompts less that on the prompts of the other labels.
So the text that they are tried on, which no rank comes from, is held out.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from cltdb.graphs.pruning import influential
from cltdb.groups.text import auc

SIZES = (1, 2, 5, 10, 20, 50, 100)
"""How many label features are tried together."""


class Candidate(NamedTuple):
    """A feature of a label; rank from 1 within label and layer; effect: mean of `traces.Trace.effect`, summed over positions."""

    label: str
    layer: int
    feature: int
    rank: int
    recurrence: float
    influence: float
    contrast: float
    effect: float
    embedding_share: float | None


def candidates(traces, *, n_layers, n_features, settings):
    """{label: `Candidate`s by falling contrast}. traces: [(label, `traces.Trace` of its `LabelTarget`)]; settings: `LabelFeatures`."""
    shape, found = (n_layers, n_features), {}
    sums = defaultdict(
        lambda: np.zeros((5, *shape))
    )  # influence, recurrence, effect, influence of known inputs, that times their embedding share
    n = defaultdict(int)
    for label, trace in traces:
        of_label, places = sums[label], (trace.layer, trace.feature)
        influence = np.zeros(shape)
        np.add.at(influence, places, trace.influence)
        of_label[0] += influence
        of_label[1] += influential(influence.ravel(), settings.influence).reshape(shape) & (influence > 0)
        known = ~np.isnan(trace.embedding_share)
        np.add.at(of_label[2], places, trace.effect)
        np.add.at(of_label[3], places, np.where(known, trace.influence, 0))
        np.add.at(of_label[4], places, np.where(known, trace.influence * np.nan_to_num(trace.embedding_share), 0))
        n[label] += 1
    mean = {label: of_label[0] / n[label] for label, of_label in sums.items()}
    for label in sorted(sums):
        contrast = mean[label] - np.mean([mean[other] for other in sums if other != label], axis=0)
        recurrence = sums[label][1] / n[label]
        effect = sums[label][2] / n[label]
        recurs = (sums[label][1] >= 2) & (recurrence >= settings.recurrence) & (contrast > 0) & (effect > 0)
        chosen = []
        for layer in range(n_layers):
            features = np.flatnonzero(recurs[layer])
            order = features[np.lexsort((features, -contrast[layer, features]))][: settings.top]
            for rank, feature in enumerate(order.tolist(), start=1):
                at = (layer, feature)
                known, from_embeddings = sums[label][3:, layer, feature]
                values = (float(recurrence[at]), float(mean[label][at]), float(contrast[at]), float(effect[at]))
                share = float(from_embeddings / known) if known else None
                chosen.append(Candidate(label, layer, feature, rank, *values, share))
        found[label] = sorted(chosen, key=lambda one: (-one.contrast, one.layer, one.feature))
    return found


def text_rows(found, chosen, scores, labels, *, n_layers, cosines):
    """(rows of table label_features, rows of table label_scores). found: as of `candidates`; chosen: {(layer, feature): column of scores};
    scores: `text.Scores`; cosines [n_labels, n_chosen]: of the feature's encoder with the probe.

    Together are tried the features of highest contrast of the layers from a first one on: each in units of its `high`, added up; and with the weights
    that a logistic regression finds on the pieces that are not held out.
    """
    rows, of_sums = [], []
    for label, of_label in found.items():
        code = labels.index(label)
        columns, high = [chosen[one.layer, one.feature] for one in of_label], scores.high[code]
        sums = list(_together(of_label, chosen, high, n_layers))
        weights = np.zeros((scores.mean.shape[1], len(columns) + 2 * len(sums)))
        weights[columns, np.arange(len(columns))] = 1
        for place, (_, together) in enumerate(sums, start=len(columns)):
            weights[together, place] = 1 / high[together]
            weights[together, place + len(sums)] = fitted_weights(scores.fit_mean[:, together], scores.fit_label == code)
        matched, share = scores.matched.auc(code, weights)
        known = auc(scores.mean @ weights, scores.label, code)
        aucs = [
            {
                "auc": float(known[place]),
                "auc_matched": None if matched is None else float(matched[place]),
                "matched_share": share,
            }
            for place in range(weights.shape[1])
        ]
        for one, column, of_one in zip(of_label, columns, aucs[: len(columns)], strict=True):
            rows.append({**one._asdict(), **of_one, "probe_cosine": float(cosines[code, column]), "high": float(high[column])})
        n_pieces = int((scores.label == code).sum())
        of_both = aucs[len(columns) :]
        for (first, together), of_sum, of_fitted in zip(sums, of_both[: len(sums)], of_both[len(sums) :], strict=True):
            fitted = {f"fitted_{name}": of_fitted[name] for name in ("auc", "auc_matched")}
            same = {"label": label, "first_layer": first, "n_features": len(together), "n_pieces": n_pieces}
            of_sums.append(same | of_sum | fitted)
    return rows, of_sums


def fitted_weights(mean, is_of_label):
    """The weights [n_features] with which a logistic regression tells pieces of the label [n_pieces] by mean activations [n_pieces, n_features]."""
    from sklearn.linear_model import LogisticRegression

    scale = mean.std(axis=0)
    scale[scale == 0] = 1
    return LogisticRegression(class_weight="balanced", max_iter=1000).fit(mean / scale, is_of_label).coef_[0] / scale


def _together(of_label, chosen, high, n_layers):
    """Yields (first layer, columns of the features of highest contrast from there on), for each number that is tried."""
    for first in range(n_layers):
        columns = [chosen[one.layer, one.feature] for one in of_label if one.layer >= first]
        usable = [column for column in columns if high[column] > 0]
        for size in sorted({size for size in SIZES if size < len(usable)} | ({len(usable)} - {0})):
            yield first, usable[:size]


def encoder_cosines(lm, dictionary, chosen, probe):
    """Cosine [n_labels, n_chosen] of the residual direction that each feature reads with each label's probe [n_labels, d_model]."""
    import torch

    probe, columns = torch.from_numpy(probe), []
    for layer, feature in chosen:
        vector = dictionary.encoder(layer, torch.tensor([feature], device=dictionary.device))
        read = lm.residual_directions(layer, vector).detach().float().cpu()
        columns.append(torch.nn.functional.cosine_similarity(probe, read, dim=-1))
    return torch.stack(columns, dim=1).numpy() if columns else np.zeros((len(probe), 0))
