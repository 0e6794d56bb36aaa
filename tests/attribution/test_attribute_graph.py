"""The three identities of an attribution graph, and the rules of nodes and errors, on tiny random models."""

import polars as pl
import pytest
import torch
from worlds.numbers import D_MODEL, FAMILIES, N_FEATURES, N_LAYERS, PROMPT, VOCAB, dictionary, language_model

from cltdb.attribution.graph import attribute, check_edges
from cltdb.errors import CltdbError
from cltdb.model.freezing import record
from cltdb.model.transcoder import Dictionary, load_dictionary
from cltdb.replacement import edges
from cltdb.replacement.edge_collector import EdgeCollector
from cltdb.replacement.replacement_model import LocalReplacementModel

DICTIONARIES = [("clt", False), ("clt", True), ("plt", False), ("plt", True)]


def conservation_error(graph):
    """Largest |sum of incoming edges + bias - pre-activation| over features and logits, from the frames."""
    incoming = graph.edges.group_by("target_id").agg(pl.col("weight").sum()).rename({"target_id": "node_id"})
    nodes = graph.nodes.filter(pl.col("kind").is_in(["feature", "logit"])).join(incoming, on="node_id", how="left")
    return nodes.select((pl.col("weight").fill_null(0) + pl.col("bias") - pl.col("pre_activation")).abs().max()).item()


def worst_check(graph):
    """Largest |weight - measured| over what is allowed: 1e-3 max(|weight|, 1e-3 sum |incoming|)."""
    incoming = pl.col("weight").abs().sum().over("target_id")
    excess = (pl.col("weight") - pl.col("measured")).abs() / (1e-3 * pl.max_horizontal(pl.col("weight").abs(), 1e-3 * incoming))
    checked = graph.edges.with_columns(excess=excess).drop_nulls("measured")
    return checked.height, checked["excess"].max()


@pytest.mark.parametrize("kind,skip", DICTIONARIES)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_identities(kind, skip, dtype, tolerance):
    graph = attribute(language_model(dtype), dictionary(kind, skip=skip), PROMPT)
    assert graph.max_abs_error < tolerance
    assert conservation_error(graph) < tolerance
    n_checked, worst = worst_check(check_edges(graph, n=200, seed=0))
    assert n_checked == 200 and worst < 1


@pytest.mark.parametrize("kind,skip", DICTIONARIES)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_identities_with_top_k(kind, skip, dtype, tolerance):
    """The k largest of a token are chosen on the prompt and frozen, as a threshold's side is."""
    lm, d = language_model(dtype), dictionary(kind, skip=skip, activation="topk")
    graph = attribute(lm, d, PROMPT)
    assert graph.max_abs_error < tolerance and conservation_error(graph) < tolerance
    n_checked, worst = worst_check(check_edges(graph, n=200, seed=0))
    assert n_checked == 200 and worst < 1
    features = graph.nodes.filter(kind="feature")
    counts = features.group_by("layer", "position").len()["len"]
    assert counts.len() == N_LAYERS * (len(PROMPT) - 1) and counts.unique().to_list() == [d.k]
    x = lm.run(torch.tensor([PROMPT])).mlp_input[0]
    h = torch.einsum("pld,lfd->plf", x, d.W_enc.to(dtype)) + d.b_enc.to(dtype)
    best = {
        (layer, p, f) for layer in range(N_LAYERS) for p in range(1, len(PROMPT)) for f in h[p, layer].topk(d.k).indices.tolist()
    }
    assert set(features.select("layer", "position", "feature").rows()) == best


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("kind,skip", DICTIONARIES)
def test_identities_on_every_architecture(architecture, kind, skip):
    """To 1e-8, although norms of the Llama family compute in float32 whatever the model's dtype: what that rounds off is a constant."""
    graph = attribute(language_model(architecture=architecture), dictionary(kind, skip=skip), PROMPT)
    assert graph.max_abs_error < 1e-8
    assert conservation_error(graph) < 1e-8
    n_checked, worst = worst_check(check_edges(graph, n=300, seed=0))
    assert n_checked == 300 and worst < 1


@pytest.mark.parametrize("architecture", ["gpt_neox", "gemma3"])
@pytest.mark.parametrize("kind,skip", DICTIONARIES)
def test_identities_with_constant_positions(architecture, kind, skip):
    """What the MLPs write at a chat's prefix is booked in `bias`; pruning and scores know of no error there."""
    graph = attribute(language_model(architecture=architecture), dictionary(kind, skip=skip), PROMPT, constant_positions=4)
    assert graph.max_abs_error < 1e-8 and conservation_error(graph) < 1e-8
    n_checked, worst = worst_check(check_edges(graph, n=200, seed=0))
    assert n_checked == min(200, len(graph.edges)) and worst < 1
    assert graph.prune(0.9, 0.99).nodes.filter(pl.col("kind").is_in(["feature", "error"]))["position"].min() >= 4


@pytest.mark.parametrize(
    ("n_constant", "position", "message"),
    [
        (7, None, "constant_positions: found 7 of a prompt's 7 tokens; expected 1 to 6"),
        (0, None, "constant_positions: found 0 of"),
        (4, 3, r"position: found 3; expected 4 to 6 .positions 0 to 3 are constant, without features"),
        (4, -5, "position: found -5; expected 4 to 6"),
        (1, 0, r"position: found 0; expected 1 to 6 .position 0 has no features"),
    ],
)
def test_a_prompt_without_a_position_after_the_constant_ones_is_refused(n_constant, position, message):
    with pytest.raises(CltdbError, match=message):
        attribute(language_model(), dictionary(), PROMPT, position=position, constant_positions=n_constant)


@pytest.mark.parametrize("n_constant", [1, 3])
def test_only_edges_from_embeddings_of_constant_positions_lack_paths_through_their_skip(n_constant):
    """As circuit-tracer has it, the skip path of W_skip is differentiated at these positions too: the one difference (docs/coming-from.md)."""
    lm, d = language_model(), dictionary("plt", skip=True)
    graph = attribute(lm, d, PROMPT, constant_positions=n_constant)
    replacement, index = graph.replacement, graph.index

    class SkippingEverywhere(LocalReplacementModel):
        def skip(self, layer, x):
            skip, here = x @ d.W_skip[layer], torch.arange(x.shape[-2])[:, None] < n_constant
            return torch.where(here, skip - skip.detach(), skip)  # of the value that the model has, now with a gradient

    theirs = SkippingEverywhere(**vars(replacement))
    embeddings = replacement.embeddings[None].clone().requires_grad_()
    sites = replacement.sites.transpose(0, 1)[:, None].clone().requires_grad_()
    run, dense = theirs.run(embeddings, sites), graph.dense()
    differs = set()
    for target in range(index.features.stop):
        layer, position, feature = index.place(target)
        read = run.mlp_inputs[layer][0, position] @ d.encoder(layer, torch.tensor([feature]))[0]
        gradients = torch.autograd.grad(read, (embeddings, sites), retain_graph=True, materialize_grads=True)
        at_embeddings = (gradients[0][0] * replacement.embeddings).sum(-1)
        at_errors = (gradients[1][:, 0] * replacement.errors.transpose(0, 1)).sum(-1)[:, n_constant:].flatten()
        torch.testing.assert_close(dense[target, index.errors], at_errors, rtol=0, atol=1e-10)
        change = (dense[target, index.embeddings] - at_embeddings).abs()
        differs |= set((change > 1e-10).nonzero()[:, 0].tolist())
    assert differs == set(range(n_constant))


def test_identities_when_the_dictionary_reads_the_residual_stream():
    graph = attribute(language_model(mlp_input="residual"), dictionary(), PROMPT)
    assert graph.max_abs_error < 1e-8 and conservation_error(graph) < 1e-8
    assert worst_check(check_edges(graph, n=100, seed=0))[1] < 1


@pytest.mark.parametrize("held_bytes", [0, 5000])
def test_a_dictionary_read_from_its_file_gives_the_same_graph(tmp_path, monkeypatch, held_bytes):
    lm, stored = language_model(), dictionary(skip=True, dtype=torch.bfloat16)
    in_memory = attribute(lm, stored.to(dtype=torch.float64), PROMPT)
    stored.save(tmp_path)
    monkeypatch.setattr(edges, "HELD_BYTES", held_bytes)
    graph = attribute(lm, load_dictionary(tmp_path), PROMPT)
    assert graph.nodes.equals(in_memory.nodes) and graph.edges.equals(in_memory.edges)
    assert worst_check(check_edges(graph, n=50, seed=0))[1] < 1


def frozen_gpt2(lm, tokens):
    """A GPT-2 written out: a function of token embeddings and MLP outputs (a function of layer and MLP input), frozen
    at `tokens`."""
    model, n_heads = lm.hf.transformer, lm.hf.config.n_head
    frozen = {}

    def norm(name, module, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = frozen.setdefault(name, (centred.square().mean(-1, keepdim=True) + module.eps).sqrt().detach())
        return centred / scale * module.weight + module.bias

    def attention(layer, block, x):
        q, k, v = (
            part.unflatten(-1, (n_heads, -1)).transpose(0, 1)
            for part in (x @ block.c_attn.weight + block.c_attn.bias).split(x.shape[-1], dim=-1)
        )
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
        pattern = frozen.setdefault(layer, scores.softmax(-1).detach())
        return (pattern @ v).transpose(0, 1).flatten(1) @ block.c_proj.weight + block.c_proj.bias

    def forward(embeddings, mlp):
        x, inputs = embeddings + model.wpe.weight[: len(tokens)], []
        for layer, block in enumerate(model.h):
            x = x + attention(layer, block.attn, norm((layer, 1), block.ln_1, x))
            inputs.append(norm((layer, 2), block.ln_2, x))
            x = x + mlp(layer, inputs[-1])
        return torch.stack(inputs, dim=1), norm("final", model.ln_f, x)

    forward(model.wte.weight[tokens], lambda layer, x: model.h[layer].mlp(x))
    return forward


@pytest.mark.parametrize("n_constant", [1, 3])
@pytest.mark.parametrize("kind,skip", DICTIONARIES)
def test_adjacency_equals_the_jacobian_of_a_gpt2_written_out(kind, skip, n_constant):
    lm, d = language_model(), dictionary(kind, skip=skip)
    graph = attribute(lm, d, PROMPT, constant_positions=n_constant)
    forward, replacement = frozen_gpt2(lm, PROMPT), graph.replacement

    def targets(activations, errors, embeddings):
        """Every feature's pre-activation [pos, n_layers, n_features] and every demeaned logit, as a function of the
        three."""

        def mlp(layer, x):
            y = d.b_dec[layer] + (x @ d.W_skip[layer] if skip else 0) + errors[:, layer]
            for source, W_dec in enumerate(d.W_dec):
                if 0 <= layer - source < W_dec.shape[1]:
                    y = y + activations[:, source] @ W_dec[:, layer - source]
            true = replacement.lm.run(replacement.tokens[None]).mlp_output[0, :, layer]
            return torch.stack([true[p] if p < n_constant else y[p] for p in range(len(PROMPT))])

        inputs, final = forward(embeddings, mlp)
        logits = final[-1] @ lm.unembedding_weight().T
        return torch.cat([d.pre_activations(inputs).flatten(), logits - logits.mean()])

    point = (replacement.activations, replacement.errors, replacement.embeddings)
    by_activation, by_error, by_embedding = torch.autograd.functional.jacobian(targets, point, vectorize=True)
    index, expected = graph.index, torch.zeros(len(graph.index), len(graph.index), dtype=torch.float64)
    row_of = [
        int((p * N_LAYERS + layer) * N_FEATURES + f) for layer, p, f in (index.place(n) for n in range(index.features.stop))
    ]
    row_of += [len(PROMPT) * N_LAYERS * N_FEATURES + token for token in index.logit_tokens]
    rows = [*range(index.features.stop), *range(index.logits.start, index.logits.stop)]
    for source in range(index.embeddings.stop):
        layer, p, f = index.place(source)
        if index.kind(source) == "feature":
            column = by_activation[:, p, layer, f] * replacement.activations[p, layer, f]
        elif index.kind(source) == "error":
            column = by_error[:, p, layer] @ replacement.errors[p, layer]
        else:
            column = by_embedding[:, p] @ replacement.embeddings[p]
        expected[rows, source] = column[row_of]
    torch.testing.assert_close(graph.dense(), expected, rtol=0, atol=1e-10)
    assert graph.nodes["pre_activation"].drop_nulls().to_list() == pytest.approx(targets(*point)[row_of].tolist(), abs=1e-10)


@pytest.mark.parametrize("n_constant", [1, 4])
def test_nodes_are_all_active_features_in_order(n_constant):
    lm, d = language_model(), dictionary()
    graph = attribute(lm, d, PROMPT, constant_positions=n_constant)
    captured = lm.run(torch.tensor([PROMPT]))
    activations = d.encode(captured.mlp_input[0])
    expected = [
        (layer, p, f)
        for layer in range(N_LAYERS)
        for p in range(n_constant, len(PROMPT))
        for f in range(N_FEATURES)
        if activations[p, layer, f] > 0
    ]
    nodes = graph.nodes
    assert nodes.filter(kind="feature").select("layer", "position", "feature").rows() == expected
    errors = nodes.filter(kind="error").select("layer", "position").rows()
    assert errors == [(layer, p) for layer in range(N_LAYERS) for p in range(n_constant, len(PROMPT))]
    assert [graph.index.error(layer, p) for layer, p in errors] == nodes.filter(kind="error")["node_id"].to_list()
    assert nodes.filter(kind="embedding").select("position", "token").rows() == list(enumerate(PROMPT))
    logits = nodes.filter(kind="logit")
    assert logits["probability"].is_sorted(descending=True) and 1 <= logits.height <= 10
    assert logits["probability"].to_list() == pytest.approx(
        torch.softmax(captured.logits[0, -1], -1)[logits["token"].to_list()].tolist()
    )
    assert nodes["node_id"].to_list() == list(range(len(nodes)))


def test_position_0_has_an_embedding_and_its_mlp_outputs_are_bias():
    """Moving b_dec and the decoders changes nothing there: the bias holds the model's own MLP output of position 0."""
    lm = language_model()
    graph = attribute(lm, dictionary(), PROMPT)
    at_first = graph.nodes.filter(position=0)
    assert at_first["kind"].to_list() == ["embedding"]
    silent = dictionary()
    silent = Dictionary(
        kind="clt",
        activation="jumprelu",
        W_enc=silent.W_enc,
        b_enc=silent.b_enc - 1e6,
        W_dec=silent.W_dec,
        b_dec=0 * silent.b_dec,
        threshold=silent.threshold,
    )
    empty = attribute(lm, silent, PROMPT)
    assert empty.nodes.filter(kind="feature").height == 0 and empty.index.errors == slice(0, N_LAYERS * (len(PROMPT) - 1))
    assert conservation_error(empty) < 1e-8
    assert empty.replacement_score < 1


def test_pruned_graph_is_a_part_of_the_graph():
    graph = attribute(language_model(), dictionary(), PROMPT)
    small = graph.prune(0.6, 0.9)
    assert 0 < small.nodes.height < graph.nodes.height and 0 < small.edges.height < graph.edges.height
    ends = set(small.edges["source_id"]) | set(small.edges["target_id"])
    assert ends <= set(small.nodes["node_id"])
    assert set(small.nodes["kind"]) >= {"embedding", "logit"}
    assert small.completeness_score <= graph.completeness_score and small.replacement_score <= graph.replacement_score
    assert graph.prune().nodes["node_id"].to_list() == graph.nodes.filter("kept")["node_id"].to_list()
    assert graph.edges.filter("kept").height == graph.prune().edges.height


def test_stored_edges_and_dropped_mass():
    lm, d = language_model(), dictionary()
    whole, part = attribute(lm, d, PROMPT), attribute(lm, d, PROMPT, edge_threshold=0.05)
    assert part.edges.height < whole.edges.height
    assert part.edges.filter(pl.col("weight").abs() < 0.05, ~pl.col("kept")).height == 0
    left_out = (whole.dense() - part.dense()).abs().sum(1)
    assert part.nodes["dropped_mass"].to_list() == pytest.approx(left_out.tolist())
    assert part.scores == whole.scores and whole.nodes["dropped_mass"].sum() == 0


def test_of_more_edges_than_memory_allows_the_strongest_stay():
    lm, d = language_model(), dictionary()
    whole, part = attribute(lm, d, PROMPT), attribute(lm, d, PROMPT, max_edges=800)
    assert len(whole.effects.adjacency) > 800 >= len(part.effects.adjacency) > 200
    assert part.edges["weight"].abs().min() >= part.edge_threshold > whole.dense()[part.dense() == 0].abs().max()
    left_out = (whole.dense() - part.dense()).abs().sum(1)
    assert part.nodes["dropped_mass"].to_list() == pytest.approx(left_out.tolist(), rel=1e-6)
    shares, whole_shares = (
        graph.dense().abs() / whole.dense().abs().sum(1, keepdim=True).clamp(min=1e-10) for graph in (part, whole)
    )
    weights = torch.zeros(len(shares), dtype=torch.float64)
    weights[part.index.logits] = part.targets.weights
    inverse = torch.linalg.inv(torch.eye(len(shares), dtype=torch.float64) - shares)
    torch.testing.assert_close(torch.from_numpy(part.influence), weights @ inverse - weights, rtol=1e-9, atol=1e-12)
    assert (whole_shares >= shares).all()
    assert part.replacement_score < whole.replacement_score and part.completeness_score < whole.completeness_score


def test_max_features_expands_the_most_influential():
    lm, d = language_model(), dictionary()
    whole, part = attribute(lm, d, PROMPT), attribute(lm, d, PROMPT, max_features=40, batch_size=5)
    expanded = part.nodes.filter(kind="feature").filter("expanded")["node_id"].to_list()
    assert len(expanded) == 40 and part.nodes.height == whole.nodes.height
    torch.testing.assert_close(part.dense()[expanded], whole.dense()[expanded])
    unexpanded = part.nodes.filter(kind="feature").filter(~pl.col("expanded"))
    assert unexpanded["dropped_mass"].null_count() == unexpanded.height
    assert part.completeness_score < whole.completeness_score
    assert sum(whole.influence[expanded]) > 0.8 * sum(sorted(whole.influence[whole.index.features])[-40:])
    every = attribute(lm, d, PROMPT, max_features=10_000)
    torch.testing.assert_close(every.dense(), whole.dense())


@pytest.mark.parametrize("left_out", [-5, 0, 1, 20])
def test_a_bound_near_the_number_of_active_features_costs_no_more_than_none(monkeypatch, left_out):
    """Counted: no copy of the edges is made before the last, and passes to rank features go over a third of the rows."""
    lm, d = language_model(), dictionary()
    whole, passed = attribute(lm, d, PROMPT), []
    finish, add_flow = EdgeCollector.finish, EdgeCollector._add_flow
    monkeypatch.setattr(EdgeCollector, "finish", lambda self: passed.append("whole") or finish(self))

    def counted(self, total, flow, edges):
        passed.append(len(flow))
        add_flow(self, total, flow, edges)

    monkeypatch.setattr(EdgeCollector, "_add_flow", counted)
    graph = attribute(lm, d, PROMPT, max_features=len(whole.index.feature) - left_out, batch_size=4)
    assert passed.pop() == "whole" and bool(passed) == (left_out > 0)
    n_features, n_logits, n_passes = len(whole.index.feature), len(graph.targets.tokens), 4
    assert sum(passed) <= (n_features / 3 + n_passes) + n_passes * n_logits
    assert int(graph.effects.expanded[graph.index.features].sum()) == len(whole.index.feature) - max(left_out, 0)
    kept = graph.nodes.filter("expanded")["node_id"].to_list()
    torch.testing.assert_close(graph.dense()[kept], whole.dense()[kept])
    lowest = sum(sorted(whole.influence[whole.index.features])[: max(left_out, 0)])
    left = float(whole.influence[whole.index.features][~graph.effects.expanded[graph.index.features]].sum())
    assert left <= 3 * lowest  # the least influential, but for some that were ranked early


def test_target_and_foil():
    lm, d = language_model(), dictionary()
    logits = lm.logits(torch.tensor([PROMPT]))[0, -1]
    graph = attribute(lm, d, PROMPT, target="12", foil=30)
    row = graph.nodes.filter(kind="logit").to_dicts()
    assert [node["token"] for node in row] == [12]
    assert row[0]["pre_activation"] == pytest.approx(float(logits[12] - logits[30]))
    assert conservation_error(graph) < 1e-8
    alone = attribute(lm, d, PROMPT, target=12).nodes.filter(kind="logit").to_dicts()[0]
    assert alone["pre_activation"] == pytest.approx(float(logits[12] - logits.mean()))


def test_text_gets_one_bos_and_is_the_same_as_its_tokens():
    lm, d = language_model(), dictionary()
    text = " ".join(map(str, PROMPT[1:]))
    torch.testing.assert_close(attribute(lm, d, text).dense(), attribute(lm, d, PROMPT).dense())


def test_half_precision_models_are_attributed_in_float32():
    graph = attribute(language_model(torch.bfloat16), dictionary(dtype=torch.float32), PROMPT)
    assert graph.dense().dtype == torch.float32 and graph.max_abs_error < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama", "gemma2", "gemma3"])
def test_in_bfloat16_on_request_a_graph_has_the_edges_of_float32_to_about_a_hundredth(architecture):
    lm, d = language_model(torch.float32, architecture=architecture), dictionary(dtype=torch.float32)
    exact, coarse = (attribute(lm, d, PROMPT, target=[3, 4, 5], dtype=dtype) for dtype in ("float32", "bfloat16"))
    place = ["kind", "layer", "position", "feature", "token"]
    nodes = exact.nodes.join(coarse.nodes, on=place, how="inner", nulls_equal=True, maintain_order="left")
    assert nodes.height >= 0.98 * exact.nodes.height  # features near their thresholds may be on or off
    weights, others = (
        graph.dense()[ids][:, ids].double() for graph, ids in ((exact, nodes["node_id"]), (coarse, nodes["node_id_right"]))
    )
    assert 0 < float((weights - others).abs().sum() / weights.abs().sum()) < 0.02
    assert nodes.select(pl.corr("influence", "influence_right")).item() > 0.999
    assert coarse.replacement_score == pytest.approx(exact.replacement_score, abs=0.01)
    assert coarse.completeness_score == pytest.approx(exact.completeness_score, abs=0.01)
    assert lm.dtype == torch.float32 and coarse.replacement.lm.dtype == torch.bfloat16
    checked = check_edges(coarse, n=30, seed=0).edges.drop_nulls("measured")
    assert checked.select(((pl.col("weight") - pl.col("measured")).abs() / pl.col("measured").abs().mean()).max()).item() < 0.1


def test_another_dtype_is_refused():
    with pytest.raises(CltdbError, match="attribute.dtype: found 'float16'; expected float32 or bfloat16"):
        attribute(language_model(), dictionary(), PROMPT, dtype="float16")


def test_same_input_same_bytes():
    lm, d = language_model(torch.float32), dictionary()
    first, second = (check_edges(attribute(lm, d, PROMPT), n=50, seed=3) for _ in range(2))
    assert first.edges.equals(second.edges) and first.nodes.equals(second.nodes)


def state(lm):
    hooks = [(name, len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in lm.hf.named_modules()]
    return hooks, lm.hf.config._attn_implementation, {name: value.clone() for name, value in lm.hf.state_dict().items()}


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail):
    lm, d, tokens = language_model(), dictionary(), torch.tensor([PROMPT])
    (hooks, attention, weights), logits = state(lm), lm.logits(tokens)
    replacement = LocalReplacementModel.of(lm, d, PROMPT)
    if fail:
        wrong_shape = replacement.sites.transpose(0, 1)[:, None, :, :3]
        with pytest.raises(RuntimeError):
            replacement.run(replacement.embeddings[None], wrong_shape)
        with pytest.raises(ZeroDivisionError), record(lm):
            raise ZeroDivisionError
    else:
        check_edges(attribute(lm, d, PROMPT), n=10, seed=0)
    hooks_now, attention_now, weights_now = state(lm)
    assert hooks_now == hooks and attention_now == attention
    assert all(torch.equal(weights_now[name], value) for name, value in weights.items())
    assert torch.equal(lm.logits(tokens), logits)


def test_what_a_user_can_mend():
    lm, d = language_model(), dictionary()
    with pytest.raises(CltdbError, match="empty|no tokens|1 tokens"):
        attribute(lm, d, [0])
    with pytest.raises(CltdbError, match=f"0 to {VOCAB - 1}"):
        attribute(lm, d, [0, VOCAB])
    with pytest.raises(CltdbError, match="one token"):
        attribute(lm, d, PROMPT, target="1 2")
    with pytest.raises(CltdbError, match="foil: found the target None; expected one token"):
        attribute(lm, d, PROMPT, foil=3)
    with pytest.raises(CltdbError, match="node_threshold: found 2; expected a share"):
        attribute(lm, d, PROMPT, keep=(2, 0.5))
    with pytest.raises(CltdbError, match="max_features"):
        attribute(lm, d, PROMPT, max_features=0)
    with pytest.raises(CltdbError, match="edge_threshold"):
        attribute(lm, d, PROMPT, edge_threshold=-1)
    narrow = Dictionary(
        kind="plt",
        activation="relu",
        W_enc=torch.zeros(2, 5, D_MODEL),
        b_enc=torch.zeros(2, 5),
        W_dec=[torch.zeros(5, 1, D_MODEL)] * 2,
        b_dec=torch.zeros(2, D_MODEL),
    )
    with pytest.raises(CltdbError, match="2 layers"):
        attribute(lm, narrow, PROMPT)
    other = dictionary()
    other.info["model_id"] = "openai-community/gpt2"
    with pytest.raises(CltdbError, match="one of the model openai-community/gpt2; expected one of tiny-gpt2"):
        attribute(lm, other, PROMPT)
