"""Overlaps of labels against closed forms of planted features, and against sets and loops."""

import random
from itertools import product

import numpy as np
import pytest

from cltdb.groups.overlap import END, FREE, INFLUENCE, NONE, OTHER_LABEL, SAME_LABEL, overlap_rows, overlaps, place_values
from cltdb.groups.traces import Trace

CONCEPTS, LABELS = ("hot", "big", "old", "wet"), ("de", "en", "fr")


def trace(places):
    """places: {(layer, position from the end, feature): influence}."""
    columns = (
        [np.array(column, dtype=np.int64) for column in zip(*places, strict=True)] if places else [np.zeros(0, np.int64)] * 3
    )
    return Trace(*columns, np.array(list(places.values())), *np.zeros((2, len(places))), {})


def rows_of(traces, *, n_layers=1, resamples=200, kinds=(None,) * 4):
    rows = overlap_rows(traces, kinds, LABELS, n_layers=n_layers, resamples=resamples, seed=0)
    way = ("layer", "label_a", "label_b", "keyed_by", "weighting", "null_kind")
    assert len({tuple(row[name] for name in way) for row in rows}) == len(rows)
    return {tuple(row[name] for name in way): row for row in rows}


def test_overlap_is_over_the_union_and_not_over_the_larger_set():
    """Published code divides by the larger set: of two sets of four with two in common it says 1/2, of one within the other too."""
    sets = [{0, 1, 2, 3}, {2, 3, 4, 5}, {0, 1}, set(), set()]
    traces = [trace({(0, -1, feature): 0.5 for feature in one}) for one in sets]
    found = overlaps(place_values(traces, 0, keyed_by=FREE, weighting=NONE))
    assert found[0, 1] == pytest.approx(2 / 6) and found[0, 2] == pytest.approx(2 / 4)
    assert found[0, 0] == 1 and found[1, 2] == 0 and found[0, 3] == 0 and np.isnan(found[3, 4])


def test_planted_features_have_the_overlaps_of_their_counts():
    """7 features fire on every prompt, 5 are of a label, 3 of a concept, 2 of one prompt alone."""
    everywhere, of_label, of_concept, of_one = 7, 5, 3, 2
    numbers = {key: number for number, key in enumerate([*LABELS, *CONCEPTS, *product(CONCEPTS, LABELS)])}

    def features(concept, label):
        yield from range(everywhere)
        for key, n in ((label, of_label), (concept, of_concept), ((concept, label), of_one)):
            yield from range(1000 + 100 * numbers[key], 1000 + 100 * numbers[key] + n)

    traces = [trace({(0, -1, f): 1.0 for f in features(*key)}) for key in product(CONCEPTS, LABELS)]
    rows = rows_of(traces)
    expected = {
        "none": (everywhere + of_concept) / (everywhere + of_concept + 2 * (of_label + of_one)),
        "same_label": (everywhere + of_label) / (everywhere + of_label + 2 * (of_concept + of_one)),
        "other_label": everywhere / (everywhere + 2 * (of_label + of_concept + of_one)),
    }
    for pair, kind, keyed_by in product([("de", "en"), ("en", "fr"), (None, None)], expected, (FREE, END)):
        row = rows[0, *pair, keyed_by, NONE, kind]
        assert [row["value"], row["ci_low"], row["ci_high"]] == pytest.approx([expected[kind]] * 3)
        if kind != "none":
            less = expected["none"] - expected[kind]
            assert [row["corrected"], row["corrected_ci_low"], row["corrected_ci_high"]] == pytest.approx([less] * 3)
    c, pairs, labels = len(CONCEPTS), 3, 3
    counts = {"none": pairs * c, "same_label": labels * c * (c - 1) // 2, "other_label": pairs * c * (c - 1)}
    assert {kind: rows[0, None, None, FREE, NONE, kind]["n"] for kind in counts} == counts


def test_a_feature_at_another_place_counts_when_positions_are_free():
    """Under one label the same features fire one position earlier, as in a longer prompt."""
    shift = {"de": 0, "en": 0, "fr": -1}
    traces = [trace({(0, -1 + shift[label], 5): 0.5, (0, -2 + shift[label], 6): 0.25}) for _ in CONCEPTS for label in LABELS]
    rows = rows_of(traces)
    for weighting in (NONE, INFLUENCE):
        assert rows[0, "de", "fr", FREE, weighting, "none"]["value"] == 1
        assert rows[0, "de", "fr", END, weighting, "none"]["value"] == 0
        assert rows[0, "de", "en", END, weighting, "none"]["value"] == 1


def random_traces(seed):
    """Two layers; one prompt has no feature in layer 1."""
    rng = random.Random(seed)
    places = list(product((0, 1), (-1, -2, -3), range(6)))
    drawn = [{place: rng.random() for place in places if rng.random() < 0.3} for _ in range(len(CONCEPTS) * len(LABELS))]
    drawn[4] = {place: value for place, value in drawn[4].items() if place[0] == 0}
    return drawn


def naive(one, other, layer, keyed_by, weighting):
    """The overlap of two prompts, by dictionaries."""
    sums = []
    for places in (one, other):
        found = {}
        for (at, position, feature), value in places.items():
            if at == layer:
                key = feature if keyed_by == FREE else (position, feature)
                found[key] = 1 if weighting == NONE else found.get(key, 0) + value
        sums.append(found)
    keys = sums[0].keys() | sums[1].keys()
    least, most = (sum(f(found.get(key, 0) for found in sums) for key in keys) for f in (min, max))
    return least / most if most else None


def test_chance_is_what_concepts_of_one_kind_share():
    """2 features fire on every prompt, 4 on those of one kind, 1 on those of a concept: of these the last alone is no chance."""
    kinds, n = ("x", "x", "y", "y"), 6 + 1
    sets = [
        {0, 1, *range(100 * (1 + "xy".index(kind)), 100 * (1 + "xy".index(kind)) + 4), 1000 + place}
        for place, kind in enumerate(kinds)
    ]
    rows = {
        of: rows_of([trace({(0, -1, f): 1.0 for f in one}) for one in sets for _ in LABELS], kinds=of)
        for of in (kinds, (None,) * 4)
    }
    expected = {kinds: 1 - 6 / (n + 1), (None,) * 4: 1 - (4 * 6 / (n + 1) + 8 * 2 / (2 * n - 2)) / 12}
    for of, value in expected.items():
        for kind in (SAME_LABEL, OTHER_LABEL):
            assert rows[of][0, "de", "en", FREE, NONE, kind]["corrected"] == pytest.approx(value)


@pytest.mark.parametrize("kinds", [(None,) * 4, ("x", "y", "x", "x")])
@pytest.mark.parametrize(("keyed_by", "weighting"), product((FREE, END), (NONE, INFLUENCE)))
def test_values_and_intervals_are_those_of_loops_over_pairs(keyed_by, weighting, kinds):
    places, n = random_traces(1), len(CONCEPTS)
    rows, of = (
        rows_of([trace(one) for one in places], n_layers=2, resamples=60, kinds=kinds),
        dict(zip(product(CONCEPTS, LABELS), places, strict=True)),
    )
    drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=60)
    every, kind_of = [[1] * n, *drawn.tolist()], dict(zip(CONCEPTS, kinds, strict=True))
    for layer, (a, b) in product((0, 1), (("de", "en"), ("en", "fr"))):

        def mean(pairs, counts, layer=layer):
            """(mean, how often one counts). pairs: (concepts, (prompt, prompt)); counts: how often each concept was drawn."""
            total = weight = 0
            for concepts, ends in pairs:
                value, times = naive(*(of[end] for end in ends), layer, keyed_by, weighting), 1
                for concept in concepts:
                    times *= counts[CONCEPTS.index(concept)]
                if value is not None:
                    total, weight = total + times * value, weight + times
            return (total / weight if weight else np.nan), weight

        def beside(same, apart, counts):
            """(chance, overlap less chance), of kinds that have both, each as often as it has overlaps."""
            found = []
            for kind in dict.fromkeys(kinds):
                own, times = mean([pair for pair in same if kind_of[pair[0][0]] == kind], counts)
                null, there = mean([pair for pair in apart if {kind_of[one] for one in pair[0]} == {kind}], counts)
                if times and there:
                    found.append((times, null, own - null))
            whole = sum(times for times, *_ in found)
            return [sum(one[0] * one[k] for one in found) / whole if whole else np.nan for k in (1, 2)]

        same = [([c], ((c, a), (c, b))) for c in CONCEPTS]
        apart = [(c, d) for c, d in product(CONCEPTS, CONCEPTS) if c != d]
        nulls = {
            SAME_LABEL: [([c, d], ((c, label), (d, label))) for c, d in apart for label in (a, b)],
            OTHER_LABEL: [([c, d], ((c, a), (d, b))) for c, d in apart],
        }
        own = np.array([mean(same, counts)[0] for counts in every])
        row = rows[layer, a, b, keyed_by, weighting, "none"]
        assert [row["value"], row["ci_low"], row["ci_high"]] == pytest.approx([own[0], *np.nanquantile(own[1:], [0.025, 0.975])])
        assert row["corrected"] is None and row["n"] == sum(
            naive(*(of[e] for e in ends), layer, keyed_by, weighting) is not None for _, ends in same
        )
        for kind, pairs in nulls.items():
            row = rows[layer, a, b, keyed_by, weighting, kind]
            columns = np.array([beside(same, pairs, counts) for counts in every]).T
            for names, of_way in zip((("value", "ci_low", "ci_high"), CORRECTED), columns, strict=True):
                expected = [of_way[0], *np.nanquantile(of_way[1:], [0.025, 0.975])]
                assert [row[name] for name in names] == pytest.approx(expected)


CORRECTED = ("corrected", "corrected_ci_low", "corrected_ci_high")


def test_labels_that_share_nothing_but_chance_stay_within_the_null():
    """Features are drawn for each prompt by itself: the interval of the corrected overlap holds 0."""
    rng = random.Random(3)
    traces = [trace({(0, -1, feature): 1.0 for feature in range(60) if rng.random() < 0.2}) for _ in range(80)]
    rows = overlap_rows(traces, [None] * 40, ("a", "b"), n_layers=1, resamples=400, seed=0)
    [row] = [r for r in rows if (r["label_a"], r["keyed_by"], r["weighting"], r["null_kind"]) == (None, FREE, NONE, OTHER_LABEL)]
    assert row["corrected_ci_low"] < 0 < row["corrected_ci_high"] and row["corrected_ci_high"] - row["corrected_ci_low"] < 0.06


def test_a_layer_in_which_nothing_fires_has_no_value():
    rows = rows_of([trace({(0, -1, 1): 1.0})] * 12, n_layers=2)
    row = rows[1, "de", "en", FREE, NONE, OTHER_LABEL]
    assert [row[name] for name in ("value", "ci_low", "ci_high", "corrected", "n")] == [None, None, None, None, 0]
