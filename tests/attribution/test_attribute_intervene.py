"""An intervention as a user asks for it: frames of what it does beside what the graph says, and what is refused."""

import json

import polars as pl
import pytest
import torch
from worlds.numbers import GRAPHS, N_FEATURES, PROMPT, dictionary, language_model, strongest

from cltdb.attribution.graph import attribute
from cltdb.attribution.intervene import intervene
from cltdb.errors import CltdbError
from cltdb.replacement.interventions import Addition, Setting
from cltdb.replacement.responses import MODES


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]()


@pytest.mark.parametrize("mode", MODES)
def test_an_intervention_leaves_constant_positions_without_features(mode):
    """All features that fire at other positions off: nothing is read or changed at the prefix, and what is kept tells of it."""
    lm, d = language_model(), dictionary()
    settings = [Setting(0, feature, None, "set", 0.0) for feature in range(N_FEATURES)]
    outcome = intervene(lm, d, PROMPT, settings, mode=mode, predict=True, constant_positions=4, n_generated=2)
    assert outcome.constant_positions == 4 and outcome.features["position"].min() >= 4
    assert {one.position for one in outcome.settings} == {4, 5, 6}
    with pytest.raises(CltdbError, match="constant_positions: found 7 of a prompt's 7 tokens"):
        intervene(lm, d, PROMPT, settings, mode=mode, constant_positions=7)


@pytest.mark.parametrize("mode", MODES)
def test_intervene_returns_frames(mode):
    lm, d = language_model(torch.float32), dictionary()
    graph = attribute(lm, d, PROMPT)
    layer, position, feature = graph.index.place(strongest(graph))
    outcome = intervene(lm, d, PROMPT, [f"{layer}:{feature}@{position - len(PROMPT)}=0"], mode=mode)
    row = outcome.features.filter(layer=layer, position=position, feature=feature).to_dicts()[0]
    assert row["after"] == 0 and row["before"] == pytest.approx(float(graph.feature_activations[strongest(graph)]), abs=1e-5)
    assert outcome.logits["probability_before"].is_sorted(descending=True)
    assert not outcome.logits["before"].equals(outcome.logits["after"])
    assert json.loads(outcome.to_json())["mode"] == mode and f"mode {mode}" in str(outcome)


def test_an_overflow_is_refused_and_no_number():
    lm, d = language_model(torch.float32), dictionary(dtype=torch.float32)
    with pytest.raises(CltdbError, match="an overflow"):
        intervene(lm, d, PROMPT, ["0:3@*=1e38"], mode="free")
    assert all(not module._forward_hooks for module in lm.hf.modules())


def test_scaling_a_silent_feature_is_said(graph, caplog):
    layer, position, feature = graph.index.place(strongest(graph))
    silent = next(
        f for f in range(N_FEATURES) if (layer, position, f) not in map(graph.index.place, range(graph.index.features.stop))
    )
    intervene(language_model(), dictionary(), PROMPT, [f"{layer}:{feature}@{position}=x2", f"{layer}:{silent}@{position}=x2"])
    assert f"1 of 2 scaled features are silent on this prompt, and stay so: {layer}:{silent}@{position}" in caplog.text


def test_up_to_the_last_layer_is_all_layers():
    whole, up_to = (
        intervene(language_model(), dictionary(), PROMPT, ["0:3@-1=2"], predict=True, until_layer=n) for n in (None, 2)
    )
    assert whole.logits.equals(up_to.logits) and whole.features.equals(up_to.features)


def test_fewer_than_no_tokens_cannot_be_generated():
    with pytest.raises(CltdbError, match="--generate"):
        intervene(language_model(), dictionary(), PROMPT, ["0:3@1=0"], n_generated=-1)


def test_several_features_at_once_do_what_their_edges_add_up_to(graph):
    """In mode constrained exactly, along direct edges; the prediction says so."""
    places = [graph.index.place(node) for node in (strongest(graph, 0), strongest(graph, 1))]
    texts = [f"{layer}:{feature}@{position}=x-1" for layer, position, feature in places]
    lm, d = graph.replacement.lm, graph.replacement.dictionary
    outcome = intervene(lm, d, PROMPT, texts, predict=True)
    assert outcome.logits["predicted"].to_list() == pytest.approx(outcome.logits["after"].to_list(), abs=1e-9)
    known = outcome.features.drop_nulls("predicted")
    assert known.height and known["predicted"].to_list() == pytest.approx(known["after"].to_list(), abs=1e-9)
    iterative = intervene(lm, d, PROMPT, [texts[0].replace("x-1", "x1.0001")], mode="iterative", predict=True).logits
    moved, said = (iterative[name] - iterative["before"] for name in ("after", "predicted"))
    assert abs(moved - said).max() < 0.5 * abs(moved).max()


def test_predictions_hold_which_features_are_the_k_largest():
    """An active feature is predicted to stay while its value is positive, also where it would leave the k largest."""
    lm, d = language_model(), dictionary(activation="topk")
    graph = attribute(lm, d, PROMPT)
    layer, position, feature = graph.index.place(strongest(graph))
    outcome = intervene(lm, d, PROMPT, [f"{layer}:{feature}@{position}=x-3"], mode="iterative", predict=True)
    said = outcome.features.filter(pl.col("before") > 0).drop_nulls("predicted")
    effects = graph.total_effects({strongest(graph): -4 * float(graph.feature_activations[strongest(graph)])})
    for row in said.filter(pl.col("layer") > layer).to_dicts():
        node = next(
            n for n in range(graph.index.features.stop) if graph.index.place(n) == (row["layer"], row["position"], row["feature"])
        )
        assert row["predicted"] == pytest.approx(max(0.0, row["before"] + float(effects[node])), abs=1e-9)
    assert said.height > 3


def test_what_the_graph_cannot_say_is_null(graph):
    lm, d, activations = graph.replacement.lm, graph.replacement.dictionary, graph.replacement.activations
    silent = next(f for f in range(N_FEATURES) if float(activations[3, 1, f]) == 0)
    for interventions, options in (
        ([f"1:{silent}@3=2"], {"predict": True}),
        ([Addition([0.1] * 24, 1, 3)], {"predict": True}),
        (["0:0@1=0"], {"predict": True, "until_layer": 1}),
        (["0:0@1=0"], {}),
    ):
        outcome = intervene(lm, d, PROMPT, interventions, **options)
        assert outcome.logits["predicted"].is_null().all() and outcome.features["predicted"].is_null().all()


def test_one_intervention_needs_no_list():
    alone, listed = (intervene(language_model(), dictionary(), PROMPT, given).logits for given in ("0:3@-1=2", ["0:3@-1=2"]))
    assert alone.equals(listed)


def test_unknown_mode():
    with pytest.raises(CltdbError, match="constrained, iterative, free, frozen_attention"):
        intervene(language_model(), dictionary(), PROMPT, ["0:0@1=0"], mode="loose")
