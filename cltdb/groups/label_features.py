"""Label features: features that make the answer one of its label, such as a language, and what they read.

Candidates come from the prompts alone. Each prompt's graph explains the logit of its label's answer less the mean of those of all labels
(`LabelTarget`). A feature *recurs* over the prompts of a label where it is among those that make up most of the features' influence. Candidates are
ranked, within a label and layer, by their contrast: their mean influence on the label's prompts less that on the prompts of the other labels.
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
    """A feature of a label; rank from 1 within label and layer."""

    label: str
    layer: int
    feature: int
    rank: int
    recurrence: float
    influence: float
    contrast: float
    embedding_share: float | None


def candidates(traces, *, n_layers, n_features, settings):
    """{label: `Candidate`s by falling contrast}. traces: [(label, `traces.Trace` of its `LabelTarget`)]; settings: `LabelFeatures`."""
    shape, found = (n_layers, n_features), {}
    sums = defaultdict(
        lambda: np.zeros((4, *shape))
    )  # influence, recurrence, influence of known inputs, that times their embedding share
    n = defaultdict(int)
    for label, trace in traces:
        of_label, places = sums[label], (trace.layer, trace.feature)
        influence = np.zeros(shape)
        np.add.at(influence, places, trace.influence)
        of_label[0] += influence
        of_label[1] += influential(influence.ravel(), settings.influence).reshape(shape) & (influence > 0)
        known = ~np.isnan(trace.embedding_share)
        np.add.at(of_label[2], places, np.where(known, trace.influence, 0))
        np.add.at(of_label[3], places, np.where(known, trace.influence * np.nan_to_num(trace.embedding_share), 0))
        n[label] += 1
    mean = {label: of_label[0] / n[label] for label, of_label in sums.items()}
    for label in sorted(sums):
        contrast = mean[label] - np.mean([mean[other] for other in sums if other != label], axis=0)
        recurrence = sums[label][1] / n[label]
        recurs = (sums[label][1] >= 2) & (recurrence >= settings.recurrence) & (contrast > 0)
        chosen = []
        for layer in range(n_layers):
            features = np.flatnonzero(recurs[layer])
            order = features[np.lexsort((features, -contrast[layer, features]))][: settings.top]
            for rank, feature in enumerate(order.tolist(), start=1):
                at = (layer, feature)
                known, from_embeddings = sums[label][2:, layer, feature]
                values = (float(recurrence[at]), float(mean[label][at]), float(contrast[at]))
                share = float(from_embeddings / known) if known else None
                chosen.append(Candidate(label, layer, feature, rank, *values, share))
        found[label] = sorted(chosen, key=lambda one: (-one.contrast, one.layer, one.feature))
    return found


def feature_rows(found, chosen, scores, labels, cosines):
    """Rows of table label_features. found: as of `candidates`; chosen: {(layer, feature): column of scores}; scores: `text.Scores`; cosines
    [n_labels, n_chosen]: of the feature's encoder with the probe."""
    for label, of_label in found.items():
        code = labels.index(label)
        for one in sorted(of_label, key=lambda one: (one.layer, one.rank)):
            column = chosen[one.layer, one.feature]
            yield {
                **one._asdict(),
                "auc": auc(scores.mean[:, column], scores.label, code),
                "auc_matched": auc(scores.matched[:, column], scores.label, code),
                "probe_cosine": float(cosines[code, column]),
                "high": float(scores.high[code, column]),
            }


def score_rows(found, chosen, scores, labels, n_layers):
    """Rows of table label_scores: the features of highest contrast of the layers from a first one on, each in units of its `high`, added up."""
    for label, of_label in found.items():
        code = labels.index(label)
        n_pieces = int((scores.label == code).sum())
        for first in range(n_layers):
            usable = [chosen[one.layer, one.feature] for one in of_label if one.layer >= first]
            usable = [column for column in usable if scores.high[code, column] > 0]
            for size in sorted({size for size in SIZES if size < len(usable)} | ({len(usable)} - {0})):
                columns = usable[:size]
                mean, matched = (
                    (values[:, columns] / scores.high[code, columns]).sum(axis=1) for values in (scores.mean, scores.matched)
                )
                found_auc = {"auc": auc(mean, scores.label, code), "auc_matched": auc(matched, scores.label, code)}
                yield {"label": label, "first_layer": first, "n_features": size, **found_auc, "n_pieces": n_pieces}


def encoder_cosines(lm, dictionary, chosen, probe):
    """Cosine [n_labels, n_chosen] of the residual direction that each feature reads with each label's probe [n_labels, d_model]."""
    import torch

    probe, columns = torch.from_numpy(probe), []
    for layer, feature in chosen:
        vector = dictionary.encoder(layer, torch.tensor([feature], device=dictionary.device))
        read = lm.residual_directions(layer, vector.to(lm.device, lm.dtype)).detach().float().cpu()
        columns.append(torch.nn.functional.cosine_similarity(probe, read, dim=-1))
    return torch.stack(columns, dim=1).numpy() if columns else np.zeros((len(probe), 0))
