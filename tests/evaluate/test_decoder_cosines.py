"""Overlap of decoders against plain loops over pairs, known frames and drawn directions."""

from itertools import combinations
from math import ceil

import numpy as np
import pytest
import torch
from worlds import dictionaries

from cltdb.evaluate import decoder_cosines as dc
from cltdb.evaluate.reconstruction import gini


def slow(cosines, counts):
    """{measure: value} over the pairs of different features, one by one, each as often as both its features count."""
    pairs = sorted(value for (i, a), (j, b) in combinations(enumerate(counts), 2) for value in [cosines[i][j]] * int(a * b))
    mean, square = (sum(value**power for value in pairs) / len(pairs) for power in (1, 2))
    return {"mean": mean, "mean_square": square, "p99": pairs[ceil(0.99 * len(pairs)) - 1], "max": pairs[-1]}


def rows_of(dictionary, **options):
    return {(row.layer, row.name): row for row in dc.decoder_cosines(dictionary, seed=0, **options)}


def cosines(vectors):
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    return (unit @ unit.T).abs().float().numpy()


@pytest.mark.parametrize("top_share", [0.03, 0.0])
def test_measures_are_over_pairs_and_resamples_count_features(monkeypatch, top_share):
    monkeypatch.setattr(dc, "TOP_SHARE", top_share)
    generator = np.random.default_rng(1)
    matrix = cosines(torch.from_numpy(generator.normal(size=(30, 5))))
    counts = generator.poisson(1.0, (5, 30)).astype(np.float32)
    values, resampled = dc.measures(matrix, counts)
    assert values == pytest.approx(slow(matrix, np.ones(30)), rel=1e-5)
    for number, of in enumerate(counts):
        assert {name: found[number] for name, found in resampled.items()} == pytest.approx(slow(matrix, of), rel=1e-5)


def test_a_mean_over_the_lower_triangle_is_divided_by_its_own_pairs():
    """Two of three features are the same: one pair of three, not one of nine."""
    duplicates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    values, _ = dc.measures(cosines(duplicates), np.ones((1, 3), dtype=np.float32))
    assert values == pytest.approx({"mean": 1 / 3, "mean_square": 1 / 3, "p99": 1, "max": 1})


def test_the_welch_bound_is_met_by_tight_frames():
    angles = torch.arange(3) * 2 * torch.pi / 3
    frame = torch.stack([angles.cos(), angles.sin()], dim=1)
    values, _ = dc.measures(cosines(frame), np.ones((1, 3), dtype=np.float32))
    assert values["mean_square"] == pytest.approx(dc.welch(3, 2)) and values["max"] == pytest.approx(dc.welch(3, 2) ** 0.5)
    assert dc.welch(64, 64) == 0 and dc.welch(65_536, 2304) == pytest.approx(4.19e-4, rel=1e-3)


def test_the_random_level_is_that_of_drawn_directions():
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(20):
        matrix = cosines(torch.randn(200, 24, generator=generator))
        found.append(dc.measures(matrix, np.ones((1, 200), dtype=np.float32))[0])
    drawn = {name: np.array([one[name] for one in found]) for name in found[0]}
    for name, value in dc.random_level(24).items():
        assert value == pytest.approx(drawn[name].mean(), rel=0.01)
    maximum = dc.random_maximum([(200 * 199 // 2, 24)])
    assert 4 <= (drawn["max"] < maximum).sum() <= 16  # a median
    assert dc.random_maximum([(10, 24), (190 * 105 - 60, 24)]) == pytest.approx(maximum)


def test_scopes_are_the_concatenated_decoders_of_a_layer_and_all_that_write_to_one():
    d = dictionaries.random(n_layers=3, n_features=10, d_model=6, dtype=torch.float32)
    d.W_dec[0][4] = 0
    found = rows_of(d)
    live = [feature for feature in range(10) if feature != 4]
    source = {0: d.W_dec[0][live].flatten(1), 1: d.W_dec[1].flatten(1), 2: d.W_dec[2].flatten(1)}
    target = {
        layer: torch.cat([d.W_dec[s][live if s == 0 else slice(None), layer - s] for s in range(layer + 1)]) for layer in range(3)
    }
    for scope, vectors in (("source", source), ("target", target)):
        for layer, of in vectors.items():
            for name, value in slow(cosines(of), np.ones(len(of))).items():
                row = found[layer, f"decoder_cosine_{scope}_{name}"]
                assert row.value == pytest.approx(value, rel=1e-4) and row.interval[0] < row.interval[1]
            assert found[layer, f"decoder_cosine_{scope}_welch_mean_square"].value == pytest.approx(dc.welch(*of.shape))
            assert found[layer, f"decoder_cosine_{scope}_random_mean_square"].value == pytest.approx(1 / of.shape[1])
        for name, together in (("mean", np.mean), ("p99", np.mean), ("max", np.max)):
            of_layers = [found[layer, f"decoder_cosine_{scope}_{name}"].value for layer in range(3)]
            assert found[None, f"decoder_cosine_{scope}_{name}"].value == pytest.approx(together(of_layers))


def test_without_later_targets_both_scopes_are_the_same_and_layers_that_were_not_trained_are_left_out():
    d = dictionaries.random(kind="plt", n_layers=3, n_features=10, dtype=torch.float32, info={"layers": [0, 2]})
    found = rows_of(d)
    assert {layer for layer, _ in found} == {None, 0, 2}
    for (layer, name), row in found.items():
        assert row[2:] == found[layer, name.replace("_source_", "_target_")][2:]


def test_the_random_level_has_the_dimensions_that_are_written_to():
    """Of 6 layers features write to their own alone: 16 dimensions of them, not up to 96. So too where only layers 1 and 4 were trained."""
    d = dictionaries.random(n_layers=6, n_features=64, d_model=16, dtype=torch.float32)
    for W in d.W_dec:
        W[:, 1:] = 0
    for trained in (range(6), (1, 4)):
        d.info["layers"] = list(trained)
        found = {name: row.value for (layer, name), row in rows_of(d).items() if layer is None}
        for scope in ("source", "target"):
            level = {
                name: found[f"decoder_cosine_{scope}_{name}"]
                for name in ("random_mean_square", "welch_mean_square", "random_max")
            }
            maximum = dc.random_maximum([(64 * 63 // 2, 16)] * len(trained))
            assert level == pytest.approx({"random_mean_square": 1 / 16, "welch_mean_square": 3 / 63, "random_max": maximum})
    d.W_dec[1][:, 3] = 1  # and to layer 4
    found = {row.name: row.value for (layer, _), row in rows_of(d).items() if layer == 1}
    assert found["decoder_cosine_source_random_mean_square"] == pytest.approx(1 / 32)


def test_of_many_features_a_sample_is_looked_at(monkeypatch):
    """The mean of the sample is near that of all pairs, within its interval; the maximum is of the sample alone."""
    d = dictionaries.random(n_layers=2, n_features=400, d_model=16, dtype=torch.float32)
    exact = rows_of(d)
    monkeypatch.setattr(dc, "SAMPLE", 100)
    found = rows_of(d)
    for key, row in found.items():
        if key[1].endswith("_mean") and row.interval:
            assert abs(row.value - exact[key].value) < row.interval[1] - row.interval[0] < 0.1 * row.value
        elif key[1].endswith("welch_mean_square"):
            assert row == exact[key]
        elif key[1].endswith("_max"):
            assert row.value <= exact[key].value


def test_resamples_without_a_pair_do_not_count():
    """Of two features most resamples have no pair; those that have one have its cosine."""
    with np.errstate(all="raise"):
        found = rows_of(dictionaries.random(n_features=2))
    for measure in ("mean", "mean_square", "p99", "max"):
        row = found[0, f"decoder_cosine_source_{measure}"]
        assert row.interval == pytest.approx((row.value, row.value), rel=1e-4)


def test_features_without_decoders_have_no_overlap():
    d = dictionaries.random(n_features=4)
    for W in d.W_dec:
        W[1:] = 0
    assert {name for _, name in rows_of(d)} & {"decoder_cosine_source_mean"} == set()


def test_gini_is_half_the_mean_difference_by_the_mean():
    values = torch.tensor([0.0, 3.0, 1.0, 1.0, 7.0], dtype=torch.float64)
    wanted = (values[:, None] - values).abs().mean() / 2 / values.mean()
    assert gini(values) == pytest.approx(float(wanted))
    assert gini(torch.ones(5, dtype=torch.float64)) == pytest.approx(0)
    assert gini(torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)) == pytest.approx(0.75)
