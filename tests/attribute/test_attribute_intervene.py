"""Interventions: what the three modes hold and let go, and how one is written."""

import json

import polars as pl
import pytest
import torch
from attribute_worlds import N_FEATURES, N_LAYERS, PROMPT, dictionary, language_model

from cltdb.attribute.freezing import frozen
from cltdb.attribute.graph import attribute
from cltdb.attribute.intervene import intervene
from cltdb.attribute.responses import MODES, Addition, Setting, continued, parse_setting, placed, respond
from cltdb.errors import CltdbError


@pytest.fixture(
    scope="module", params=[(False, "jumprelu"), (True, "jumprelu"), (False, "topk")], ids=["no skip", "skip", "topk"]
)
def graph(request):
    skip, activation = request.param
    return attribute(language_model(), dictionary(skip=skip, activation=activation), PROMPT)


def strongest(graph, layer=0):
    """The node id of the most influential feature of a layer."""
    ids = [n for n in range(graph.index.features.stop) if graph.index.place(n)[0] == layer]
    return max(ids, key=lambda n: float(graph.influence[n]))


def setting_of(graph, node, operation="set", value=0.0):
    layer, position, feature = graph.index.place(node)
    return Setting(layer, feature, position, operation, value)


@pytest.mark.parametrize(
    "text,expected",
    [
        ("3:120@5=0", Setting(3, 120, 5, "set", 0.0)),
        ("0:7@-1=2.5", Setting(0, 7, -1, "set", 2.5)),
        ("1:2@*=x2", Setting(1, 2, None, "scale", 2.0)),
        ("1:2@3=-1e-1", Setting(1, 2, 3, "set", -0.1)),
    ],
)
def test_parse(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    "text", ["", "3:120", "3:120@5", "a:1@2=0", "3:120@5=", "3:120@5=nan", "3:120@5=xinf", "3:120@5=two", "3:-1@5=0"]
)
def test_parse_refuses(text):
    with pytest.raises(CltdbError, match="LAYER:FEATURE@POS=VALUE"):
        parse_setting(text)


def test_positions():
    d = dictionary()
    assert [s.position for s in placed([Setting(0, 0, None, "set", 0)], d, 4)] == [1, 2, 3]
    assert placed([Setting(0, 0, -1, "set", 0)], d, 4)[0].position == 3
    for wrong in (
        Setting(0, 0, 0, "set", 0),
        Setting(0, 0, -4, "set", 0),
        Setting(0, 0, 4, "set", 0),
        Setting(N_LAYERS, 0, 1, "set", 0),
        Setting(0, N_FEATURES, 1, "set", 0),
    ):
        with pytest.raises(CltdbError, match="--feature"):
            placed([wrong], d, 4)


@pytest.mark.parametrize("mode", MODES)
def test_no_setting_changes_nothing(graph, mode):
    response = respond(graph.replacement, [], mode=mode)
    torch.testing.assert_close(response.activations, graph.replacement.activations, rtol=0, atol=1e-10)
    logits = graph.replacement.logits[-1]
    torch.testing.assert_close(response.logits, logits - logits.mean(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("operation,value,factor", [("set", 0.0, -1), ("scale", 3.0, 2)])
def test_constrained_does_exactly_what_the_edges_say(graph, operation, value, factor):
    node = strongest(graph)
    response = respond(graph.replacement, [setting_of(graph, node, operation, value)], mode="constrained")
    logits = graph.replacement.logits[-1]
    change = (response.logits - (logits - logits.mean()))[list(graph.index.logit_tokens)]
    torch.testing.assert_close(change, factor * graph.dense()[graph.index.logits, node], rtol=0, atol=1e-10)
    layer, position, feature = graph.index.place(node)
    assert float(response.activations[position, layer, feature]) == pytest.approx(
        (1 + factor) * float(graph.feature_activations[node])
    )


def test_iterative_counts_all_paths(graph):
    """With nothing turning on or off and norms hardly moving, a small change does what the sum over paths predicts."""
    node = strongest(graph)
    change = 1e-4 * float(graph.feature_activations[node])
    response = respond(graph.replacement, [setting_of(graph, node, "scale", 1 + 1e-4)], mode="iterative")
    index = graph.index
    moved = (response.activations - graph.replacement.activations)[index.feature_position, index.feature_layer, index.feature]
    predicted = graph.total_effects({node: change})[index.features]
    predicted[node] = change
    direct = graph.dense()[index.features, node] * 1e-4
    correlation = torch.corrcoef(torch.stack([moved, predicted]))[0, 1]
    assert correlation > 0.9
    assert (moved - predicted).norm() < (moved - direct).norm()


def test_free_is_the_model_itself_with_the_decoders_added(graph):
    lm, d, node = graph.replacement.lm, graph.replacement.dictionary, strongest(graph)
    layer, position, feature = graph.index.place(node)
    response = respond(graph.replacement, [setting_of(graph, node)], mode="free")

    def take_off(target_layer, x, y):
        y = y.clone()
        y[0, position] -= graph.feature_activations[node] * d.W_dec[layer][feature, target_layer - layer]
        return y

    with lm.replaced_mlps(take_off):
        logits = lm.logits(graph.replacement.tokens[None])[0, -1]
    torch.testing.assert_close(response.logits, logits - logits.mean(), rtol=0, atol=1e-10)


def test_constrained_up_to_a_layer_lets_later_layers_respond(graph):
    setting = setting_of(graph, strongest(graph))
    held = respond(graph.replacement, [setting], mode="constrained")
    loose = respond(graph.replacement, [setting], mode="constrained", until_layer=0)
    assert not torch.allclose(held.logits, loose.logits)
    torch.testing.assert_close(held.activations[:, 0], loose.activations[:, 0])


def test_layers_beyond_the_held_ones_respond_and_are_not_written_to(graph):
    """Constrained up to a layer, written out: outputs up to it clamped with the feature's decoders, later MLPs as the model's own."""
    replacement, node = graph.replacement, strongest(graph)
    lm, d = replacement.lm, replacement.dictionary
    layer, position, feature = graph.index.place(node)
    response = respond(replacement, [setting_of(graph, node)], mode="constrained", until_layer=1)
    clean = lm.run(replacement.tokens[None]).mlp_output[0]

    def clamped(target, x, y):
        if target > 1:
            return y
        output = clean[:, target].clone()
        output[position] -= graph.feature_activations[node] * d.W_dec[layer][feature, target - layer]
        return (output + replacement.skip(target, x[0]) - replacement.skip(target, replacement.mlp_inputs[:, target]))[None]

    with frozen(lm, replacement.constants, norms=False), lm.replaced_mlps(clamped):
        logits = lm.logits(replacement.tokens[None])[0, -1]
    torch.testing.assert_close(response.logits, logits - logits.mean(), rtol=0, atol=1e-9)
    with pytest.raises(CltdbError, match="an intervention in layer 2"):
        intervene(lm, d, PROMPT, ["2:0@1=1"], until_layer=1)


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


@pytest.mark.parametrize("mode", MODES)
def test_an_added_direction_stands_in_the_mlp_output(graph, mode):
    """What a feature writes, added as a direction to its one target layer, does what setting the feature does."""
    lm, d = language_model(), dictionary("plt")
    replacement = attribute(lm, d, PROMPT).replacement
    silent = next(f for f in range(N_FEATURES) if float(replacement.activations[3, 1, f]) == 0)
    vector = 2.0 * d.W_dec[1][silent, 0]
    added, set_to = (
        respond(replacement, placed([one], d, len(PROMPT)), mode=mode)
        for one in (Addition(vector.tolist(), 1, 3), Setting(1, silent, 3, "set", 2.0))
    )
    torch.testing.assert_close(added.logits, set_to.logits, rtol=0, atol=1e-6)


def test_a_feature_is_set_once():
    with pytest.raises(CltdbError, match="0:1 set twice at position 3"):
        placed([Setting(0, 1, None, "set", 0.0), Setting(0, 1, -1, "set", 2.0)], dictionary(), 4)


@pytest.mark.parametrize(
    "setting,found",
    [
        (Setting(0, 3, 1, "set", float("nan")), "nan"),
        (Setting(0, 3, 1, "set", 1e39), "1e\\+39"),
        (Setting(0, 3, 1, "double", 2.0), "'double'"),
        (Setting(0.5, 3, 1, "set", 2.0), "0.5"),
        (Setting(0, 3, -99, "set", 2.0), "-99"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting, found):
    with pytest.raises(CltdbError, match=f"found {found};"):
        placed([setting], dictionary(dtype=torch.float32), len(PROMPT))


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


@pytest.mark.parametrize("vector", [[1.0], [float("nan")] * 24])
def test_a_bad_vector_is_refused(vector):
    with pytest.raises(CltdbError, match="added vector"):
        placed([Addition(vector, 0, 1)], dictionary(), 4)


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ablated", [True, False])
def test_a_feature_set_by_hand_leaves_the_k_largest_of_its_token_as_they_are(mode, ablated):
    """Ablated, it lets no other in; set, it drives none out: the k largest are those by pre-activation."""
    lm, d = language_model(), dictionary(activation="topk")
    graph = attribute(lm, d, PROMPT)
    clean, at = graph.replacement.activations, graph.replacement.pre_activations[3, 1]
    order = at.argsort(descending=True).tolist()
    first, next_best = order[0], order[d.k]
    assert clean[3, 1, first] > 0 and clean[3, 1, next_best] == 0 < at[next_best]
    feature, value = (first, 0.0) if ablated else (next_best, 5.0)
    response = respond(graph.replacement, [Setting(1, feature, 3, "set", value)], mode=mode)
    others = [f for f in range(N_FEATURES) if f != feature]
    torch.testing.assert_close(response.activations[3, 1, others], clean[3, 1, others], rtol=0, atol=1e-10)
    assert response.activations[3, 1, feature] == value
    assert int((response.activations[3, 1] > 0).sum()) == d.k + (-1 if ablated else 1)


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


def test_continuations_are_those_of_the_model_with_its_outputs_changed():
    lm, d = language_model(), dictionary()
    expected = list(PROMPT)
    for _ in range(4):
        expected.append(int(lm.logits(torch.tensor([expected]))[0, -1].argmax()))
    assert continued(lm, d, PROMPT, [], 4) == expected
    assert len(continued(lm, d, PROMPT, [], 100)) == lm.max_context

    vector, changed = 100 * torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64), list(PROMPT)

    def everywhere(layer, x, y):
        return torch.cat([y[:, :1], y[:, 1:] + vector], dim=1) if layer == 2 else y

    for _ in range(4):
        with lm.replaced_mlps(everywhere):
            changed.append(int(lm.logits(torch.tensor([changed]))[0, -1].argmax()))
    assert continued(lm, d, PROMPT, [Addition(vector.tolist(), 2, None)], 4) == changed != expected
    outcome = intervene(lm, d, PROMPT, [Addition(vector.tolist(), 2, None)], n_generated=4)
    assert outcome.continuations == tuple(lm.tokenizer.decode(some[len(PROMPT) :]) for some in (expected, changed))


def test_unknown_mode():
    with pytest.raises(CltdbError, match="constrained, iterative, free"):
        intervene(language_model(), dictionary(), PROMPT, ["0:0@1=0"], mode="loose")
