"""Features on one text against an obvious computation at each position."""

import pytest
import torch
from worlds import dictionaries, models

from cltdb.errors import CltdbError
from cltdb.harvest import encode as module
from cltdb.harvest.encode import encode, parse_feature

TEXT = "a cat sat, a cat ran"


@pytest.fixture(scope="module", params=["batchtopk", "topk"])
def world(request):
    k = 4 if request.param == "topk" else None
    return models.language_model(), dictionaries.random(activation=request.param, k=k, n_layers=2, d_model=16, n_features=20)


def slow_activations(lm, dictionary):
    """[pos, n_layers, n_features], a position at a time."""
    tokens = lm.prompt_tokens(TEXT)
    captured = lm.run(torch.tensor([tokens]), with_logits=False).mlp_input[0]
    return tokens, torch.stack([dictionary.encode(x.to(dictionary.dtype)) for x in captured]).float()


def test_chosen_features_have_their_activations_at_ordinary_tokens(world, monkeypatch):
    monkeypatch.setattr(module, "POSITIONS_AT_ONCE", 3)
    tokens, expected = slow_activations(*world)
    chosen, space = [(1, 7), (0, 3), (1, 0)], world[0].text_tokens(" ")[0]
    found = encode(*world, TEXT, chosen=chosen, excluded=(space,))
    assert found.tokens == tokens and "".join(found.strings[1:]) == TEXT and found.strongest == []
    assert found.ordinary == [i > 0 and token != space for i, token in enumerate(tokens)] and not all(found.ordinary[1:])
    assert [(one["layer"], one["feature"]) for one in found.features] == chosen
    for one in found.features:
        for value, slow, counts in zip(
            one["activations"], expected[:, one["layer"], one["feature"]], found.ordinary, strict=True
        ):
            assert value == (pytest.approx(float(slow), abs=1e-5) if counts else None)


def test_the_strongest_features_of_each_token_are_those_of_all_layers(world):
    _, expected = slow_activations(*world)
    found = encode(*world, TEXT, top=3)
    assert found.strongest[0] == [] and found.features == []
    for position, row in enumerate(found.strongest[1:], start=1):
        values, places = expected[position].flatten().topk(3)
        active = [(divmod(int(place), 20), float(value)) for place, value in zip(places, values, strict=True) if value > 0]
        assert [(one["layer"], one["feature"]) for one in row] == [key for key, _ in active]
        assert [one["activation"] for one in row] == pytest.approx([value for _, value in active], abs=1e-5)


def test_an_sae_reads_the_mlp_output():
    lm, d = models.language_model(), dictionaries.random(kind="sae", n_layers=2, d_model=16, n_features=20)
    place = lm.run(torch.tensor([lm.prompt_tokens(TEXT)]), with_logits=False).mlp_output[0]
    expected = d.encode(place.to(d.dtype))[1:, 1].T.tolist()
    found = encode(lm, d, TEXT, chosen=[(1, feature) for feature in range(20)])
    for one, of_feature in zip(found.features, expected, strict=True):
        assert one["activations"][1:] == pytest.approx(of_feature, abs=1e-5)


def test_what_is_no_feature_is_refused(world):
    assert parse_feature(" 3:120") == (3, 120)
    for text in ("3", "3:", "x:1", "3:-1", "3:1@2"):
        with pytest.raises(CltdbError, match="LAYER:FEATURE"):
            parse_feature(text)
    for key, words in (((2, 0), "--feature layer: found 2"), ((0, 20), "--feature feature: found 20; expected 0 to 19")):
        with pytest.raises(CltdbError, match=words):
            encode(*world, TEXT, chosen=[key])
    with pytest.raises(CltdbError, match="an empty prompt"):
        encode(*world, "")
