"""How much of what a model uses two labels share, layer by layer, beside what prompts share by chance.

The overlap of two prompts is the sum of minima over the sum of maxima of what each has at every place. Of sets, 1 at each member, that is
Jaccard's |A and B| / |A or B|: 1/3 for two sets of four with two in common. (Published code divides by the larger set, which gives 1/2.)

The overlap of two labels is the mean over concepts c of overlap(c in a, c in b). It means something beside two nulls of pairs of concepts
c, d: same label, overlap(c in a, d in a) and overlap(c in b, d in b); other label, overlap(c in a, d in b). Where concepts are of several
kinds, such as capitals and opposites, c and d are of one kind, and each kind counts as much as it has concepts: what prompts share because
they ask the same kind of question is chance. Intervals are percentiles of a bootstrap over concepts, in which a null is the mean over
pairs of different drawn concepts; that of a difference is paired.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import sparse

FREE, END = "free", "end"
NONE, INFLUENCE = "none", "influence"
OVERLAP, SAME_LABEL, OTHER_LABEL = "none", "same_label", "other_label"
INTERVAL = (0.025, 0.975)


class Estimate(NamedTuple):
    """A value and its interval, None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def overlap_rows(traces, kinds, labels, *, n_layers, resamples, seed):
    """Rows of table group_overlaps as dicts, without the columns of the artifact. traces: `traces.Trace`s by (concept, label), concept by
    concept; kinds: of each concept. The pair of labels None, None is all pairs together."""
    generator = np.random.default_rng(seed)
    n_concepts, of_kind = len(kinds), np.array([[kind == one for one in kinds] for kind in dict.fromkeys(kinds)], dtype=float)
    drawn = generator.multinomial(n_concepts, [1 / n_concepts] * n_concepts, size=resamples)
    weights = np.concatenate([np.ones((1, n_concepts)), drawn])
    rows = []
    for layer in range(n_layers):
        for keyed_by in (FREE, END):
            for weighting in (NONE, INFLUENCE):
                values = place_values(traces, layer, keyed_by=keyed_by, weighting=weighting)
                alike = overlaps(values).reshape(n_concepts, len(labels), n_concepts, len(labels))
                same = {"layer": layer, "keyed_by": keyed_by, "weighting": weighting}
                rows += [same | row for row in _rows_of_pairs(alike, labels, weights, of_kind)]
    return rows


def place_values(traces, layer, *, keyed_by, weighting):
    """What each trace has at each place of a layer, sparse [n_traces, n_places]: 1 or the influence of an active feature. A place is a
    feature at any position (influences are summed), or with keyed_by end a feature at a position counted from the end."""
    rows, keys, values = [], [], []
    for number, trace in enumerate(traces):
        here = trace.layer == layer
        places = trace.feature[here] if keyed_by == FREE else (trace.feature[here] << 32) - trace.position[here]
        rows.append(np.full(len(places), number))
        keys.append(places)
        values.append(trace.influence[here])
    rows, values = np.concatenate(rows), np.concatenate(values)
    places, columns = np.unique(np.concatenate(keys), return_inverse=True)
    matrix = sparse.csr_array((values, (rows, columns)), shape=(len(traces), len(places)))
    matrix.sum_duplicates()
    if weighting == NONE:
        matrix.data = np.ones_like(matrix.data)
    return matrix


def overlaps(values):
    """The sum of minima over the sum of maxima of every two rows of values [n, n_places], none negative: [n, n]; NaN where both rows are
    empty."""
    by_place, total = values.tocsc(), values.sum(axis=1)
    minima = np.zeros((values.shape[0],) * 2)
    for number in range(len(minima)):
        own = values[[number]]
        minima[number] = np.minimum(by_place[:, own.indices].toarray(), own.data).sum(axis=1)
    maxima = total[:, None] + total - minima
    with np.errstate(invalid="ignore"):
        return np.where(maxima > 0, minima / np.where(maxima > 0, maxima, 1), np.nan)


def _rows_of_pairs(alike, labels, weights, of_kind):
    """Rows of every pair of labels and of all pairs. alike [concept, label, concept, label]; weights [1 + n_resamples, n_concepts]: how
    often each concept counts; of_kind [n_kinds, n_concepts]: 1 at each kind's concepts."""
    apart = ~np.eye(len(alike), dtype=bool) & (of_kind.T @ of_kind > 0)
    pairs = list(combinations(range(len(labels)), 2))
    for some, (label_a, label_b) in [*(([pair], [labels[one] for one in pair]) for pair in pairs), (pairs, (None, None))]:
        own, n_own = _summed(np.diagonal(alike[:, a, :, b]) for a, b in some)
        found, n = (weights @ own) / _positive(weights @ n_own), int(n_own.sum())
        names = {"label_a": label_a, "label_b": label_b}
        yield names | _row(OVERLAP, found, n)
        of_kinds = ((weights * own) @ of_kind.T, (weights * n_own) @ of_kind.T)  # sums and numbers [1 + n_resamples, n_kinds]
        for kind, tables, counted in (
            (SAME_LABEL, (alike[:, one, :, one] for one in {one for pair in some for one in pair}), np.triu(apart)),
            (OTHER_LABEL, (alike[:, a, :, b] for a, b in some), apart),
        ):
            null, n_null = _summed(np.where(counted, table, np.nan) for table in tables)
            by_chance, less = _beside(of_kinds, *(((weights @ table) * weights) @ of_kind.T for table in (null, n_null)))
            yield names | _row(kind, by_chance, int(n_null.sum()), less)


def _beside(of_kinds, null, n_null):
    """(chance, overlap less chance), both [1 + n_resamples]: means over kinds, each counting as many overlaps as it has, of those kinds that have
    both. of_kinds: (sums, numbers) of the overlaps; null, n_null: of the pairs by chance; all [1 + n_resamples, n_kinds]."""
    total, n = of_kinds
    counts = np.where(n_null > 0, n, 0)
    chance = np.where(counts > 0, null / _positive(n_null), 0)
    whole = _positive(counts.sum(axis=1))
    by_chance = (counts * chance).sum(axis=1) / whole
    return by_chance, np.where(counts > 0, total, 0).sum(axis=1) / whole - by_chance


def _summed(tables):
    """The sum of tables and how many of them have a number, both of their shape; NaN counts nowhere."""
    tables = np.stack(list(tables))
    return np.nansum(tables, axis=0), (~np.isnan(tables)).sum(axis=0)


def _positive(values):
    return np.where(values > 0, values, np.nan)


def _row(null_kind, values, n, corrected=None):
    """values, corrected [1 + n_resamples]: first that of all concepts, then those of the resamples."""
    found, less = estimate(values), Estimate(None, None, None) if corrected is None else estimate(corrected)
    return {
        "null_kind": null_kind,
        **{"value": found.value, "ci_low": found.low, "ci_high": found.high, "n": n},
        **{"corrected": less.value, "corrected_ci_low": less.low, "corrected_ci_high": less.high},
    }


def estimate(values):
    """The `Estimate` of a value and its resamples [1 + n]; resamples without a value do not count."""
    if np.isnan(values[0]):
        return Estimate(None, None, None)
    return Estimate(float(values[0]), *np.nanquantile(values[1:], INTERVAL).tolist())
