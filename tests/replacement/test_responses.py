"""What the modes of an intervention hold and let go."""

import pytest
import torch
from worlds.numbers import GRAPHS, N_FEATURES, PROMPT, dictionary, language_model, strongest

from cltdb.attribution.graph import attribute
from cltdb.attribution.intervene import intervene
from cltdb.errors import CltdbError
from cltdb.model.freezing import frozen
from cltdb.replacement.interventions import Addition, Setting, placed
from cltdb.replacement.replacement_model import LocalReplacementModel
from cltdb.replacement.responses import MODES, respond


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]()


def setting_of(graph, node, operation="set", value=0.0):
    layer, position, feature = graph.index.place(node)
    return Setting(layer, feature, position, operation, value)


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


@pytest.mark.parametrize("until_layer", [None, -1])
def test_a_feature_that_is_set_to_the_value_it_has_keeps_it(graph, until_layer):
    """Active features scaled by 1 and silent ones set to 0, while the input of their layer changes."""
    until_layer = None if until_layer is None else graph.replacement.lm.n_layers - 2
    clean, layer = graph.replacement.activations, 1
    changed = [
        setting_of(graph, node, "set", 50.0) for node in range(graph.index.features.stop) if graph.index.place(node)[0] == 0
    ]
    alone = respond(graph.replacement, changed, mode="constrained", until_layer=until_layer).activations
    places = [tuple(place) for place in (alone[:, layer] != clean[:, layer]).nonzero().tolist()]
    held = [
        Setting(layer, feature, at, "scale", 1.0) if clean[at, layer, feature] else Setting(layer, feature, at, "set", 0.0)
        for at, feature in places
    ]
    assert {one.operation for one in held} == {"set", "scale"}
    after = respond(graph.replacement, changed + held, mode="constrained", until_layer=until_layer).activations
    torch.testing.assert_close(after[:, layer], clean[:, layer], rtol=0, atol=1e-10)
    torch.testing.assert_close(after[:, 0], alone[:, 0], rtol=0, atol=0)


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
