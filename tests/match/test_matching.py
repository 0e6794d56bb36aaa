"""Matches of dictionaries whose relation is known, and every number of a pair against a plain one."""

import numpy as np
import pytest
import torch
from activations.test_cache import packed_sequences
from torch.nn.functional import cosine_similarity
from worlds import dictionaries, models

from cltdb.errors import CltdbError
from cltdb.match.firings import firings_on
from cltdb.match.matching import match_layer, random_rotation
from cltdb.match.run import chosen_by
from cltdb.match.settings import Match
from cltdb.match.similarity import Firings
from cltdb.model.transcoder import Dictionary

SIZES = {"n_layers": 2, "n_features": 40, "d_model": 32, "dtype": torch.float32}


def changed(dictionary, change):
    """The dictionary with rows of features changed: change(rows [n_features, ...], layer, name)."""
    of = lambda name: torch.stack([change(rows, layer, name) for layer, rows in enumerate(getattr(dictionary, name))])  # noqa: E731
    return Dictionary(
        kind=dictionary.kind,
        activation=dictionary.activation,
        W_enc=of("W_enc"),
        b_enc=of("b_enc"),
        threshold=of("threshold"),
        W_dec=[change(rows, layer, "W_dec") for layer, rows in enumerate(dictionary.W_dec)],
        b_dec=dictionary.b_dec,
    )


def found(match, relation):
    here = match.relation == relation
    return dict(zip(match.feature_b[here].tolist(), match.feature_a[here].tolist(), strict=True))


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_a_dictionary_matches_itself_and_a_permuted_scaled_copy_whole(kind):
    d = dictionaries.random(kind=kind, **SIZES)
    order, scale = torch.randperm(40, generator=torch.Generator().manual_seed(1)), torch.rand(40) + 0.5
    factor = {"W_enc": 1 / scale, "b_enc": 1 / scale, "threshold": 1 / scale, "W_dec": scale}
    copy = changed(d, lambda rows, layer, name: (rows * factor[name].view(-1, *[1] * (rows.ndim - 1)))[order])
    for layer in range(2):
        same, other = match_layer(d, d, layer), match_layer(d, copy, layer)
        assert found(same, "matched") == {feature: feature for feature in range(40)}
        assert found(other, "matched") == dict(enumerate(order.tolist()))
        for match in (same, other):
            assert match.decoder_cosine == pytest.approx(1, abs=1e-5) and match.encoder_cosine == pytest.approx(1, abs=1e-5)
            assert np.isnan(match.activation_correlation).all() and (match.n_a, match.n_b) == (40, 40)


def test_a_rotated_dictionary_matches_no_better_than_the_control():
    d = dictionaries.random(**SIZES)
    rotation = random_rotation(32, 7).float()
    assert rotation @ rotation.T == pytest.approx(np.eye(32), abs=1e-5)
    rotated = changed(d, lambda rows, layer, name: rows @ rotation if name.startswith("W") else rows)
    match = match_layer(d, rotated, 0)
    assert {*match.relation} == {"appeared", "vanished"} and len(match.relation) == 80
    chance = match_layer(d, d, 0, seed=3).control
    assert match.assignment.similarity.mean() == pytest.approx(chance.similarity.mean(), abs=0.03)
    assert match.control.similarity.mean() == pytest.approx(chance.similarity.mean(), abs=0.03)
    assert match.decoder_cosine.max() < 0.7 and np.isnan(match.encoder_cosine).all()


def test_a_dictionary_of_twice_the_width_has_split_and_seen_from_it_merged():
    """Each feature stands in the second twice, a little apart."""
    d = dictionaries.random(**SIZES)
    noise = torch.Generator().manual_seed(2)
    wide = changed(d, lambda rows, layer, name: torch.cat([rows, rows * (1 + 0.1 * torch.randn(rows.shape, generator=noise))]))
    match, back = match_layer(d, wide, 0), match_layer(wide, d, 0)
    assert found(match, "matched") | found(match, "split") == {feature: feature % 40 for feature in range(80)}
    assert len(found(match, "matched")) == len(found(match, "split")) == 40 == len(found(back, "matched"))
    merged = back.relation == "merged"
    assert sorted(back.feature_a[merged]) == sorted(set(range(80)) - set(back.feature_a[back.relation == "matched"]))
    assert (back.feature_a[merged] % 40 == back.feature_b[merged]).all()


def test_of_many_features_weak_partners_are_matched_above_a_low_threshold(monkeypatch):
    monkeypatch.setattr("cltdb.match.assignment.EXACT", 0)
    weak = torch.eye(80)[:40] * 0.4 + torch.eye(80)[40:] * 0.84**0.5
    sides = []
    for rows in (torch.eye(80)[:40], weak):
        d = dictionaries.random(kind="plt", **SIZES | {"d_model": 80})
        sides.append(changed(d, lambda old, layer, name, rows=rows: rows[:, None] if name == "W_dec" else old))
    match = match_layer(*sides, 0, threshold=0.3)
    assert found(match, "matched") == {feature: feature for feature in range(40)} and len(match.relation) == 40


def test_what_has_no_decoder_is_left_out_and_what_is_new_appeared():
    d = dictionaries.random(**SIZES)
    other = changed(d, lambda rows, layer, name: rows.clone())
    other.W_dec[0][5] = 0
    other.W_dec[0][6] = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    match = match_layer(d, other, 0)
    assert (match.n_a, match.n_b) == (40, 39) and 5 not in match.feature_b
    assert found(match, "appeared") == {6: -1}
    vanished = match.relation == "vanished"
    assert sorted(match.feature_a[vanished]) == [5, 6] and (match.feature_b[vanished] == -1).all()
    cosines = cosine_similarity(d.W_dec[0][6].flatten(), other.W_dec[0][[f for f in range(40) if f != 5]].flatten(1), dim=1)
    assert match.decoder_cosine[vanished][match.feature_a[vanished] == 6] == pytest.approx(float(cosines.max()), abs=1e-5)


@pytest.mark.parametrize(("tensor", "value"), [("W_dec", float("nan")), ("W_dec", float("inf")), ("W_enc", float("nan"))])
def test_a_dictionary_with_a_value_that_is_not_finite_is_refused(tensor, value):
    d = dictionaries.random(**SIZES)
    other = changed(d, lambda rows, layer, name: rows.clone())
    getattr(other, tensor)[0][5].view(-1)[3] = value
    with pytest.raises(CltdbError, match=f"dictionary, layer 0 {tensor}: found a value that is not finite"):
        match_layer(d, other, 0)


def test_a_clt_and_a_plt_are_compared_where_both_write():
    d = dictionaries.random(**SIZES)
    own = Dictionary(
        **{name: getattr(d, name) for name in ("activation", "W_enc", "b_enc", "b_dec", "threshold")},
        kind="plt",
        W_dec=[W[:, :1] for W in d.W_dec],
    )
    assert found(match_layer(d, own, 0), "matched") == {feature: feature for feature in range(40)}


@pytest.fixture(scope="module")
def text():
    return models.language_model(), packed_sequences(12)


def test_correlations_are_those_of_activations_token_by_token(text):
    lm, sequences = text
    a, b = (dictionaries.random(dtype=torch.float32, d_model=lm.d_model, seed=seed) for seed in (0, 1))
    firings = [firings_on(lm, d, sequences, batch_seqs=5) for d in (a, b)]
    x = lm.run(torch.from_numpy(sequences.tokens).long()).mlp_input[torch.from_numpy(sequences.ordinary)]
    for layer in range(2):
        dense = [d.encode(x)[:, layer].double().detach().numpy() for d in (a, b)]
        here = tuple(one[layer] for one in firings)
        for one, other in zip(here, dense, strict=True):
            assert one.matrix.toarray() == pytest.approx(other, abs=1e-5)
        match = match_layer(a, b, layer, by="activations", threshold=0.3, firings=here, one_space=False)
        assert len(set(match.relation)) >= 2 and np.isnan(match.decoder_cosine).all() and np.isnan(match.encoder_cosine).all()
        wanted = np.corrcoef(dense[0].T, dense[1].T)[:12, 12:]
        both = (match.feature_a >= 0) & (match.feature_b >= 0)
        assert match.activation_correlation[both] == pytest.approx(wanted[match.feature_a[both], match.feature_b[both]], abs=1e-5)
        match = match_layer(a, b, layer, threshold=0.1, firings=here)
        both = (match.feature_a >= 0) & (match.feature_b >= 0)
        assert both.sum() > 5
        rows = match.feature_a[both], match.feature_b[both]
        assert match.activation_correlation[both] == pytest.approx(wanted[rows], abs=1e-5)
        assert match.encoder_cosine[both] == pytest.approx(
            cosine_similarity(a.W_enc[layer][rows[0]], b.W_enc[layer][rows[1]], dim=1).numpy(), abs=1e-5
        )
        assert match.decoder_cosine[both] == pytest.approx(
            cosine_similarity(a.W_dec[layer][rows[0]].flatten(1), b.W_dec[layer][rows[1]].flatten(1), dim=1).numpy(), abs=1e-5
        )


def test_by_activations_a_copy_in_another_space_matches_and_shuffled_tokens_do_not():
    generator = np.random.default_rng(0)
    dense = generator.random((400, 30)) * (generator.random((400, 30)) < 0.1)
    dense[:, 7] = 0  # never fires
    order = generator.permutation(30)

    def firings(values):
        token, feature = values.nonzero()
        return Firings(token, feature, values[token, feature], n_tokens=400, n_features=30)

    match = match_layer(None, None, 0, by="activations", firings=(firings(dense), firings(3 * dense[:, order])), one_space=False)
    assert found(match, "matched") == {b: a for b, a in enumerate(order.tolist()) if a != 7} and match.n_a == match.n_b == 29
    assert match.activation_correlation == pytest.approx(1) and match.control.similarity.max() < 0.7


def test_correlations_that_do_not_vary_are_unknown():
    lone = Firings(np.array([3]), np.array([1]), np.array([1.0]), n_tokens=9, n_features=4)
    from cltdb.match.similarity import correlations_of_pairs

    got = correlations_of_pairs(lone, lone, np.array([1, 1, 0]), np.array([1, 2, 0]))
    assert got[0] == pytest.approx(1) and np.isnan(got[1:]).all()


def test_dictionaries_that_share_no_layer_are_refused_with_the_layers_of_both():
    a, b = (dictionaries.random(n_layers=3, info={"layers": layers}) for layers in ([0], [1, 2]))
    with pytest.raises(CltdbError, match="no layer in common: the dictionaries have layers 0 and 1, 2"):
        chosen_by(Match(), a, b, one_model=True)
