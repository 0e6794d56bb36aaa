"""Peaks and the choice of contexts among candidates."""

import numpy as np
import pytest
from slow_harvest import slow_peaks

from cltdb.activations.tokens import Sequences
from cltdb.harvest.candidates import Candidates, Kept, Peaks, choose, joined
from cltdb.harvest.windows import document_spans, peaks


@pytest.mark.parametrize("window", [2, 5, 6])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_peaks_are_chosen_greedily_also_among_equal_and_ceaseless_firings(window, density):
    rng = np.random.default_rng(window)
    a = (rng.random((40, 24)) < density) * rng.integers(1, 30, (40, 24)).astype(np.float32)
    documents = np.cumsum(rng.random(a.shape) < 0.1).reshape(a.shape)
    sequence, position = np.nonzero(a)
    apart = 24 * sequence + position + window * (np.cumsum(np.diff(documents[sequence, position], prepend=0) > 0) + sequence)
    found = peaks(apart, a[sequence, position], window=window)
    text = Sequences(documents, documents, documents, [], ())
    assert sorted(zip(sequence[found], position[found], strict=True)) == sorted(
        place[1:] for place in slow_peaks(a, text, window)
    )


def test_of_equal_activations_the_earlier_places_are_kept_whichever_were_seen_first():
    def one(place, activation, luck):
        columns = ([0], [place], [activation], [luck], [1], [0], [activation])
        return Peaks(*(np.array(c, dtype=d) for c, d in zip(columns, ("i4", "i8", "f4", "u4", "i8", "u2", "f4"), strict=True)))

    candidates, taken = Candidates(1, top=2, sample=1), []
    for place in (70, 90, 80, 30, 50, 60):  # each a stretch of its own
        assert candidates.may_enter(np.array([0]), one(place, 2.0, 7).priorities)
        candidates.add(one(place, 2.0, 7))
        taken.append(candidates.take())
    assert not candidates.may_enter(np.array([0]), one(99, 1.0, 6).priorities)
    taken.sort(key=lambda peaks: peaks.place[0])
    whole = joined(taken)
    rows, band, rank = choose(whole, Kept(top=2, n_quantiles=1, per_quantile=1))
    assert (whole.place[rows].tolist(), band.tolist(), rank.tolist()) == ([30, 50, 60], [-1, -1, 0], [0, 1, 0])


def test_document_spans():
    start, stop = document_spans(np.array([[4, 4, 5, 5, 5, 6]]))
    assert start.tolist() == [[0, 0, 2, 2, 2, 5]]
    assert stop.tolist() == [[2, 2, 5, 5, 5, 6]]
