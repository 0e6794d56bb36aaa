"""Overlaps of pullbacks with contributions against attribution graphs of the same text, whose steps carry both factors."""

from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_feature_edges import N_LAYERS, NAMED, SETTINGS, dictionary, language_model, read_gradients, slow_virtual_weight

from cltdb.activations.tokens import Sequences
from cltdb.attribution.graph import attribute
from cltdb.attribution.path_tables import routes_of
from cltdb.harvest import overlap as module
from cltdb.harvest.harvest import harvest
from cltdb.harvest.head_edges import pullback
from cltdb.harvest.settings import Harvest, PullbackOverlap

N_HEADS = 4
ALL = Harvest(**SETTINGS, feature_edges=0, pullback_overlap=PullbackOverlap(features=100, tokens=1000))


def sequences(n_seqs=2, context=5):
    tokens = np.random.default_rng(3).integers(1, 257, (n_seqs, context)).astype(np.int32)
    tokens[:, 0] = 0
    documents = np.repeat(np.arange(n_seqs), context).reshape(n_seqs, context)
    return Sequences(tokens, documents, np.full((n_seqs, context), -1, dtype=np.int16), [], (0,))


def slow_contributions(lm, d, text, layer, chosen):
    """({(route, feature): {(source layer, feature, head): sum over tokens}}, {feature: number of tokens where it fires})"""
    found, n_tokens = defaultdict(lambda: defaultdict(float)), defaultdict(int)
    for tokens in text.tokens.tolist():
        graph = attribute(lm, d, tokens)
        index, dense = graph.index, graph.dense()
        nodes = range(index.features.stop)
        targets = [node for node in nodes if index.place(node)[0] == layer and index.place(node)[2] in chosen]
        for target in targets:
            n_tokens[index.place(target)[2]] += 1
        edges = [(source, target) for target in targets for source in nodes if dense[target, source]]
        for (source, target), routes in routes_of(graph, edges).items():
            source_layer, _, i = index.place(source)
            for route in routes:
                if route.via in ("residual", route.head):
                    of = found["residual" if route.head is None else "heads", index.place(target)[2]]
                    of[source_layer, i, route.head] += route.input_factor * route.weight_factor
    return found, n_tokens


def slow_weights(lm, d, layer, feature, live):
    """{route: {(source layer, feature, head): V}} of the sources that fire."""
    gradients, _ = read_gradients(lm, d, layer)
    weights = {"residual": {}, "heads": {}}
    for source in range(layer):
        for i, V in enumerate(slow_virtual_weight(gradients, d, source, feature).tolist()):
            weights["residual"][source, i, None] = V
    for through in range(layer if lm.is_parallel else layer + 1):
        for number in range(N_HEADS):
            for source, V in pullback(lm, d, layer, [feature], head=(through, number)).items():
                weights["heads"] |= {(source, i, f"L{through}H{number}"): float(V[0, i]) for i in range(d.n_features)}
    return {route: {key: V for key, V in of.items() if V and live[key[0]][key[1]]} for route, of in weights.items()}


def strongest(weights, k):
    return sorted((key for key in weights if weights[key]), key=lambda key: -abs(weights[key]))[:k]


@pytest.mark.parametrize(
    "architecture,case,mlp_input", [("gpt2", "clt", "normed"), ("gemma2", "plt", "residual"), ("gpt_neox", "clt", "normed")]
)
def test_overlap_and_control_are_those_of_the_graphs(tmp_path, monkeypatch, architecture, case, mlp_input):
    monkeypatch.setattr("cltdb.replacement.routes.LISTED", 1000)
    monkeypatch.setattr(module, "TOP", (2, 5))
    monkeypatch.setattr(module, "SUM_FLOATS", 12 * 40 * 5)  # a few features at a time
    partners = lambda fired, rng: np.roll(np.arange(len(fired)), -1)  # noqa: E731
    monkeypatch.setattr(module, "_matched", partners)
    lm, d, text = language_model(architecture, mlp_input), dictionary(case), sequences()
    harvest(ALL, lm, d, text, directory=tmp_path, **NAMED)
    found = pq.read_table(tmp_path / "tables/pullback_overlaps").to_pylist()
    assert {row["k"] for row in found} == {2, 5} and {row["route"] for row in found} == {"residual", "heads"}
    rows = [pq.read_table(path).to_pydict() for path in sorted((tmp_path / "tables/features").glob("*.parquet"))]
    live = [~np.array(row["dead"]) for row in rows]
    by_key = {(row["layer"], row["feature"], row["route"], row["k"]): row for row in found}
    n_rows = 0
    for layer in (1, 2):
        chosen = np.flatnonzero(live[layer])[::5].tolist()
        contributions, n_tokens = slow_contributions(lm, d, text, layer, chosen)
        for feature in chosen:
            for route, V in slow_weights(lm, d, layer, feature, live).items():
                for k in (2, 5):
                    listed, largest = strongest(V, k), strongest(contributions[route, feature], k)
                    row = by_key.get((layer, feature, route, k))
                    assert (row is not None) == (len(listed) == len(largest) == k)
                    if row:
                        assert row["overlap"] == len(set(listed) & set(largest)) / k
                        others = {(source, (i + 1) % d.n_features, head) for source, i, head in listed}
                        assert row["control"] == len(others & set(largest)) / k
                        assert row["n_tokens"] == n_tokens[feature]
                        n_rows += 1
    assert n_rows > 10 and N_LAYERS == 3
    assert len({row["overlap"] for row in found}) > 3


def test_the_control_draws_from_the_same_layer_at_a_similar_density():
    fired = np.random.default_rng(0).integers(0, 1000, 300) * (np.arange(300) % 3 > 0)
    partner = module._matched(fired, np.random.default_rng(1))
    live = np.flatnonzero(fired)
    assert sorted(partner[live]) == live.tolist() and (partner[live] != live).all()
    rank = np.argsort(np.argsort(fired[live], kind="stable"))
    assert np.abs(rank - rank[np.searchsorted(live, partner[live])]).max() < 2 * module.MATCHED
    assert (partner != module._matched(fired, np.random.default_rng(2))).any()
    assert module._matched(np.array([0, 3]), np.random.default_rng(0)).tolist() == [0, 1]


def test_features_and_text_are_drawn_and_a_layer_without_firings_is_left_out(tmp_path):
    lm, d, text = language_model("llama", "normed"), dictionary("clt"), sequences()
    few = ALL.model_copy(update={"pullback_overlap": PullbackOverlap(features=2, tokens=5)})
    d.threshold[1] = 1e9
    harvest(few, lm, d, text, directory=tmp_path, **NAMED)
    found = pq.read_table(tmp_path / "tables/pullback_overlaps").to_pylist()
    assert {row["layer"] for row in found} == {2} and len({row["feature"] for row in found}) <= 2
    assert max(row["n_tokens"] for row in found) <= 4
    d.threshold[:] = 1e9
    harvest(few, lm, d, text, directory=tmp_path / "silent", **NAMED)
    assert pq.read_table(tmp_path / "silent/tables/pullback_overlaps").num_rows == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_few_bits_has_overlaps_near_those_of_its_numbers_in_float64(tmp_path, dtype):
    lm, text = language_model("llama", "normed"), sequences(n_seqs=4)
    found = []
    for of in (dtype, torch.float64):  # the numbers of the narrow type in both
        lm.hf.to(of)
        d = dictionary("clt").computing(dtype=torch.promote_types(of, torch.float32))
        harvest(ALL, lm, d, text, directory=tmp_path / str(of), **NAMED)
        rows = pq.read_table(tmp_path / str(of) / "tables/pullback_overlaps").to_pylist()
        found.append({(row["layer"], row["feature"], row["route"], row["k"]): row["overlap"] for row in rows})
    narrow, wide = found
    common = narrow.keys() & wide.keys()
    assert len(common) > 0.8 * len(wide) > 20 and {route for _, _, route, _ in common} == {"residual", "heads"}
    assert np.mean([abs(narrow[key] - wide[key]) for key in common]) < 0.05
