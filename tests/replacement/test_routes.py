"""Routes of direct effects against their slow twin: forward passes of the frozen model in which only some heads attend."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from worlds.numbers import FAMILIES, N_LAYERS, PROMPT, dictionary, language_model

from cltdb.attribution.graph import attribute
from cltdb.replacement import routes
from cltdb.replacement.edge_checks import measure_edges
from cltdb.replacement.routes import OTHERS, Routes

ARCHITECTURES = ["gpt2", "llama", "gemma2", "gpt_neox"]


def graph_of(architecture="gpt2", prompt=PROMPT, **of_dictionary):
    return attribute(language_model(architecture=architecture), dictionary(**of_dictionary), prompt)


def edges_of(graph, n=6):
    """{(source, target): weight} of the likeliest logit and of some features of the last layer, from sources of all kinds."""
    index, dense, generator = graph.index, graph.dense(), torch.Generator().manual_seed(0)
    last = [node for node in range(index.features.stop) if index.place(node)[:2] == (N_LAYERS - 1, index.n_positions - 1)]
    found = {}
    for target in (index.logits.start, *last[:2]):
        sources = dense[target].nonzero()[:, 0]
        chosen = sources[torch.randperm(len(sources), generator=generator)[:n]].tolist()
        found |= {(source, target): float(dense[target, source]) for source in [*chosen, index.embeddings.start + 1]}
    return found


def with_heads(replacement, heads, middle=None):
    """The replacement model in which only `heads`, [(layer, head)], attend, the last of them to position `middle` alone where given."""
    patterns = [torch.zeros_like(pattern) for pattern in replacement.constants.patterns]
    for place, (layer, head) in enumerate(heads):
        keys = slice(middle, middle + 1) if middle is not None and place == len(heads) - 1 else slice(None)
        patterns[layer][:, head, :, keys] = replacement.constants.patterns[layer][:, head, :, keys]
    return replace(replacement, constants=replacement.constants._replace(patterns=patterns))


def measured(graph, source, target):
    """{(via, source_position): weight} of the routes of at most two heads, by passes with these heads alone less those with fewer."""
    position, n_heads = graph.index.place(source)[1], graph.replacement.constants.patterns[0].shape[1]

    def effect(*heads, middle=None):
        model = with_heads(graph.replacement, heads, middle)
        return measure_edges(model, graph.index, graph.targets, [(source, target)])[0]

    name, none = "L{}H{}".format, effect()
    heads = list(product(range(N_LAYERS), range(n_heads)))
    one = {head: effect(head) - none for head in heads}
    found = {("residual", None): none} | {(name(*head), position): one[head] for head in heads}
    for first, second in product(heads, heads):
        if first[0] < second[0] and first[1] == second[1]:  # a quarter of them
            for middle in range(position, len(graph.index.tokens)):
                direct = effect(second, middle=middle) - none
                found[f"{name(*first)} {name(*second)}", middle] = (
                    effect(first, second, middle=middle) - none - one[first] - direct
                )
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_routes_are_those_of_passes_in_which_only_their_heads_attend(architecture, monkeypatch):
    monkeypatch.setattr(routes, "LISTED", 10_000)
    graph, n_checked = graph_of(architecture, PROMPT[:4]), 0
    index, split = graph.index, Routes(graph.replacement, graph.index, graph.targets)
    pairs = [(index.embeddings.start + 2, index.logits.start), (index.features_at(0, 1).start, index.features_at(2, 3).start)]
    for source, target in pairs:
        [found] = split.of({(source, target): float(graph.dense()[target, source])}).values()
        products = {(route.via, route.source_position): route.input_factor * route.weight_factor for route in found}
        assert len(products) == len(found)
        for route, expected in measured(graph, source, target).items():
            assert products.get(route, 0) == pytest.approx(expected, abs=1e-10), route
            n_checked += abs(expected) > 1e-8
    assert n_checked > 30


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("skip", [False, True])
def test_the_factors_of_all_routes_multiply_and_sum_to_the_edge(architecture, skip, monkeypatch):
    graph = graph_of(architecture, skip=skip)
    split = Routes(graph.replacement, graph.index, graph.targets)
    edges = edges_of(graph)
    some = split.of(edges)
    monkeypatch.setattr(routes, "LISTED", 10_000)
    monkeypatch.setattr(routes, "HELD_BYTES", 1)
    every = split.of(edges)
    assert some.keys() == every.keys() == edges.keys()
    for edge, weight in edges.items():
        for found in (some[edge], every[edge]):
            assert sum(route.input_factor * route.weight_factor for route in found) == pytest.approx(weight, abs=1e-8)
        strengths = [abs(route.input_factor * route.weight_factor) for route in every[edge] if route.via != OTHERS]
        assert strengths == sorted(strengths, reverse=True)
        listed, first = ([route for route in found if route.via != OTHERS] for found in (some[edge], every[edge]))
        assert [route[:3] for route in listed] == [route[:3] for route in first[:20]]
        for route, other in zip(listed, first, strict=False):
            assert route[3:] == pytest.approx(other[3:], abs=1e-12)
        if not any(route.via == OTHERS for route in every[edge]):  # nothing is hidden in the rest
            assert sum(route.input_factor * route.weight_factor for route in every[edge]) == pytest.approx(weight, abs=1e-12)


def test_a_skip_path_is_a_hop_of_its_own():
    graph = graph_of(skip=True)
    found = Routes(graph.replacement, graph.index, graph.targets).of(edges_of(graph, 30))
    vias = {route.via for of_edge in found.values() for route in of_edge}
    assert "L2skip" in vias and any(via.startswith("L1skip L2H") for via in vias)


def test_the_factor_of_weights_is_the_same_in_another_prompt():
    """Edges between the same features, and from the same tokens, at other places of another prompt."""
    factors = []
    for prompt in (PROMPT, [0, 11, 30, 7, 3, 25, 19, 12]):
        graph, known = graph_of("gemma2", prompt), {}
        split, dense = Routes(graph.replacement, graph.index, graph.targets), graph.dense()
        some = [node for node in range(graph.index.features.stop) if graph.index.place(node)[2] % 5 == 0]
        tokens = range(graph.index.embeddings.start, graph.index.embeddings.stop)
        targets = [node for node in some if graph.index.place(node)[0] == 2]
        edges = {(s, t): float(dense[t, s]) for t in targets for s in (*some, *tokens) if dense[t, s]}
        for (source, target), found in split.of(edges).items():
            ends = tuple(graph.index.place(node)[::2] for node in (source, target)), graph.index.token(source)
            known |= {(ends, route.via): route.weight_factor for route in found if route.via != OTHERS}
        factors.append(known)
    same = factors[0].keys() & factors[1].keys()
    assert len({via for _, via in same}) > 10
    for route in same:
        assert factors[0][route] == pytest.approx(factors[1][route], abs=1e-10)
