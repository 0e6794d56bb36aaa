"""Interventions: what the modes hold and let go, and how one is written."""

import json

import polars as pl
import pytest
import torch
from worlds.numbers import N_FEATURES, N_LAYERS, PROMPT, dictionary, language_model

from cltdb.attribution.graph import attribute
from cltdb.attribution.intervene import intervene
from cltdb.errors import CltdbError
from cltdb.replacement.continuation import Sampling, continued, noisy_logits
from cltdb.replacement.freezing import frozen
from cltdb.replacement.interventions import Addition, Setting, parse_setting, placed
from cltdb.replacement.replacement_model import LocalReplacementModel
from cltdb.replacement.responses import MODES, respond


@pytest.fixture(
    scope="module",
    params=[(False, "jumprelu", 1), (True, "jumprelu", 1), (False, "topk", 1), (True, "jumprelu", 3)],
    ids=["no skip", "skip", "topk", "constant prefix"],
)
def graph(request):
    skip, activation, n_constant = request.param
    d = dictionary(skip=skip, activation=activation)
    return attribute(language_model(), d, PROMPT, constant_positions=n_constant)


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
        ("1:2@2:5=0", Setting(1, 2, slice(2, 5), "set", 0.0)),
        ("1:2@-3:=x2", Setting(1, 2, slice(-3, None), "scale", 2.0)),
        ("1:2@:-1=0", Setting(1, 2, slice(None, -1), "set", 0.0)),
    ],
)
def test_parse(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3:120",
        "3:120@5",
        "a:1@2=0",
        "3:120@5=",
        "3:120@5=nan",
        "3:120@5=xinf",
        "3:120@5=two",
        "3:-1@5=0",
        "3:1@1:2:3=0",
        "3:1@a:=0",
    ],
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


@pytest.mark.parametrize(
    "ends,expected",
    [((2, 5), [2, 3, 4]), ((-3, None), [4, 5, 6]), ((None, 3), [1, 2]), ((None, -5), [1]), ((-3, -1), [4, 5]), ((None, None), [*range(1, 7)])],
)  # fmt: skip
def test_a_slice_is_its_positions_without_the_end(ends, expected):
    d = dictionary()
    assert [s.position for s in placed([Setting(0, 0, slice(*ends), "set", 0)], d, 7)] == expected
    vector = [0.0] * 24
    assert [s.position for s in placed([Addition(vector, 0, slice(*ends))], d, 7)] == expected


@pytest.mark.parametrize(
    "ends,shown", [((0, 3), "0:3"), ((3, 3), "3:3"), ((5, 2), "5:2"), ((2, 8), "2:8"), ((-9, None), "-9:"), ((7, None), "7:")]
)
def test_a_slice_of_no_positions_or_beyond_the_prompt_is_refused(ends, shown):
    with pytest.raises(CltdbError, match=f"--feature position: found {shown};"):
        placed([Setting(0, 0, slice(*ends), "set", 0)], dictionary(), 7)


def test_settings_stand_after_the_constant_positions():
    d = dictionary()
    for position, expected in (
        (None, [3, 4, 5, 6]),
        (slice(None, -1), [3, 4, 5]),
        (slice(4, None), [4, 5, 6]),
        (3, [3]),
        (-4, [3]),
    ):
        assert [s.position for s in placed([Setting(0, 0, position, "set", 0)], d, 7, 3)] == expected
    for position, shown in ((2, "2"), (0, "0"), (-5, "-5"), (slice(2, 5), "2:5"), (slice(None, 3), ":3")):
        with pytest.raises(CltdbError, match=f"position: found {shown}; expected .*positions 0 to 2 are constant"):
            placed([Setting(0, 0, position, "set", 0)], d, 7, 3)


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


def test_slices_that_overlap_set_a_feature_twice():
    with pytest.raises(CltdbError, match="0:1 set twice at position 4"):
        placed([Setting(0, 1, slice(2, 5), "set", 0.0), Setting(0, 1, slice(4, None), "set", 2.0)], dictionary(), 7)


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
    predicted = torch.from_numpy(graph.total_effects({node: change})[index.features])
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


def values_and_output(lm, block):
    """(the module that gives values, its output [1, pos, …] to values [1, head, pos, d_head], the module that takes heads side by side)."""
    attention, n_heads = block.attention, lm.hf.config.num_attention_heads
    if lm.architecture == "gpt2":
        return attention.c_attn, lambda y: y.chunk(3, dim=-1)[2].unflatten(-1, (n_heads, -1)).transpose(1, 2), attention.c_proj
    if lm.architecture == "gpt_neox":
        per_head = lambda y: y.unflatten(-1, (n_heads, 3, -1))[..., 2, :].transpose(1, 2)  # noqa: E731
        return attention.query_key_value, per_head, attention.dense
    groups = n_heads // lm.hf.config.num_key_value_heads
    shared = lambda y: y.unflatten(-1, (n_heads // groups, -1)).repeat_interleave(groups, -2).transpose(1, 2)  # noqa: E731
    return attention.v_proj, shared, attention.o_proj


def by_plain_hooks(lm, d, tokens, settings):
    """The last logits, less their mean, of the model with its attention patterns of the run without settings, and with what the change of
    each (layer, feature, position, value) writes added to MLP outputs: torch's hooks on Hugging Face's modules alone."""
    hf, handles, changes = lm.hf, [], torch.zeros(lm.n_layers, len(tokens), lm.d_model, dtype=torch.float64)
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")  # which gives its patterns
    patterns = hf(torch.tensor([tokens]), output_attentions=True).attentions
    hf.set_attn_implementation(before)
    for layer, block in enumerate(lm.blocks):
        seen, (module, heads, output) = {}, values_and_output(lm, block)

        def keep(_, args, y, seen=seen, heads=heads):
            seen["values"] = heads(y)

        def fix(_, args, seen=seen, layer=layer):
            return ((patterns[layer] @ seen["values"]).transpose(1, 2).flatten(2),)

        def read(_, args, layer=layer):
            active = d.encode(args[0].expand(lm.n_layers, -1, -1).transpose(0, 1))[:, layer]
            for source, feature, position, value in settings:
                if source == layer:
                    change = value - active[position, feature]
                    changes[layer:, position] += change * d.W_dec[layer][feature]

        def write(_, args, y, layer=layer):
            return y + changes[layer]

        handles += [module.register_forward_hook(keep), output.register_forward_pre_hook(fix)]
        handles += [block.mlp.register_forward_pre_hook(read), block.mlp_output.register_forward_hook(write)]
    try:
        lm.hf(torch.tensor([tokens]))
        final = []
        handles.append(lm.final_norm.register_forward_hook(lambda _, args, y: final.append(y[0, -1])))
        changes.zero_()
        lm.hf(torch.tensor([tokens]))
    finally:
        for handle in handles:
            handle.remove()
    logits = lm.unembedding(final[0])
    return logits - logits.mean()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "mistral", "qwen3", "gemma2", "gemma3"])
def test_frozen_attention_is_the_model_with_its_patterns_fixed(architecture):
    """MLPs and norms respond; a feature's change is from what it is by then, after changes below it."""
    lm, d = language_model(architecture=architecture), dictionary()
    replacement, settings = LocalReplacementModel.of(lm, d, PROMPT), [(0, 3, 2, 4.0), (1, 5, 4, -2.0), (1, 6, 2, 3.0)]
    given = [Setting(layer, feature, position, "set", value) for layer, feature, position, value in settings]
    found = {mode: respond(replacement, given, mode=mode).logits for mode in MODES}
    expected = by_plain_hooks(lm, d, PROMPT, settings)
    torch.testing.assert_close(
        found["frozen_attention"], expected, rtol=0, atol=5e-6
    )  # eager softmax is float32 in the Llama family
    for other in ("constrained", "iterative", "free"):
        assert (found[other] - expected).abs().max() > 1e-4, other


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


def test_a_slice_without_an_end_acts_on_new_tokens_and_one_with_an_end_does_not():
    lm, d, vector = language_model(), dictionary(), (100 * torch.randn(24, generator=torch.Generator().manual_seed(0))).tolist()
    last = len(PROMPT) - 1
    same = [[slice(-1, None), slice(last, None)], [slice(-1, len(PROMPT)), -1], [slice(None, None), None]]
    texts = [[continued(lm, d, PROMPT, [Addition(vector, 2, position)], 4) for position in pair] for pair in same]
    assert all(first == second for first, second in texts)
    changed = list(PROMPT)
    for _ in range(4):
        with lm.replaced_mlps(
            lambda layer, x, y: y + (layer == 2) * (torch.arange(y.shape[1]) >= last)[:, None] * torch.tensor(vector)
        ):
            changed.append(int(lm.logits(torch.tensor([changed]))[0, -1].argmax()))
    assert texts[0][0] == changed != texts[1][0]


def test_tokens_are_drawn_from_the_probabilities_at_a_temperature():
    logits, n = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5], dtype=torch.float64), 4000
    for sampling, allowed in ((Sampling(0.7), [0, 1, 2, 3, 4]), (Sampling(2.0, top_k=3), [0, 2, 4])):
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([noisy_logits(logits, sampling, generator).argmax() for _ in range(n)]).bincount(minlength=5) / n
        expected = torch.zeros(5, dtype=torch.float64)
        expected[allowed] = torch.softmax(logits[allowed] / sampling.temperature, dim=0)
        assert (drawn - expected).abs().max() < 0.025 and bool((drawn[expected == 0] == 0).all())


def test_the_draws_are_the_same_without_and_with_the_intervention():
    lm, d = language_model(), dictionary()
    for seed in range(3):
        sampling = Sampling(3.0, seed=seed)
        tokens = continued(lm, d, PROMPT, [], 6, sampling)
        nothing = Addition([1e-9] * 24, 2, None)
        outcome = intervene(lm, d, PROMPT, [nothing], n_generated=6, sampling=sampling)
        assert outcome.continuations == (lm.tokenizer.decode(tokens[len(PROMPT) :]),) * 2
        assert outcome.to_dict()["sampling"] == {"temperature": 3.0, "top_k": None, "seed": seed}
        assert continued(lm, d, PROMPT, [], 6, sampling) == tokens
    assert len({tuple(continued(lm, d, PROMPT, [], 6, Sampling(3.0, seed=seed))) for seed in range(3)}) == 3
    assert continued(lm, d, PROMPT, [], 4, Sampling(3.0, top_k=1, seed=5)) == continued(lm, d, PROMPT, [], 4)


@pytest.mark.parametrize(
    "sampling,found",
    [
        (Sampling(0.0), "--temperature: found 0.0"),
        (Sampling(float("nan")), "--temperature: found nan"),
        (Sampling(-1.0), "--temperature: found -1.0"),
        (Sampling(top_k=0), "--top-k: found 0"),
        (Sampling(seed=-1), "--seed: found -1"),
        (Sampling(seed=2**64), "--seed: found 18446744073709551616"),
    ],
)
def test_sampling_that_means_nothing_is_refused(sampling, found):
    with pytest.raises(CltdbError, match=found):
        intervene(language_model(), dictionary(), PROMPT, ["0:3@1=0"], n_generated=1, sampling=sampling)


def test_unknown_mode():
    with pytest.raises(CltdbError, match="constrained, iterative, free, frozen_attention"):
        intervene(language_model(), dictionary(), PROMPT, ["0:0@1=0"], mode="loose")
