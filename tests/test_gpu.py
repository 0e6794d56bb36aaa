"""What a CUDA device computes is what the CPU computes: dictionaries, divergences, graphs, interventions, harvests, metrics and caches.

The training step is in train/test_module.py, the kernels are in model/test_triton_kernels.py, feature edges in harvest/test_feature_edges.py.
"""

import json
import math

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from activations.test_cache import packed_sequences, random_sequences
from explain.test_intervention_scorer import windows
from polars.testing import assert_frame_equal
from worlds import dictionaries, models, numbers
from worlds.device import DEVICE
from worlds.numbers import PROMPT

from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.attribution.ablation import ablate, most_influential
from cltdb.attribution.graph import attribute, check_edges
from cltdb.attribution.intervene import intervene
from cltdb.evaluate.evaluate import evaluate
from cltdb.evaluate.settings import Evaluate
from cltdb.explain.interventions import Prompted
from cltdb.groups.exchange import Exchange
from cltdb.groups.substitution import Change, Question, answers
from cltdb.harvest.harvest import harvest
from cltdb.harvest.settings import Harvest
from cltdb.model import transcoder
from cltdb.model.transcoder import load_dictionary
from cltdb.replacement.continuation import Sampling
from cltdb.replacement.interventions import Addition, Setting
from cltdb.replacement.responses import MODES
from cltdb.replacement.targets import DirectionTarget, FeatureTarget
from cltdb.train.finetune import ReplacedModel
from cltdb.train.module import Transcoder
from cltdb.train.settings import Train

pytestmark = pytest.mark.gpu
EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}
ROUNDED = EXACT | {torch.bfloat16: 3e-2}


def assert_near(found, wanted, tolerance):
    """Relative to the largest value."""
    assert found.shape == wanted.shape
    difference = (found.detach().cpu().double() - wanted.detach().cpu().double()).abs().max()
    assert difference <= tolerance * wanted.abs().max().clamp(min=1e-30), float(difference)


def assert_alike(found, wanted, tolerance=1e-5):
    """JSON values whose numbers with a fraction may differ by rounding."""
    if isinstance(wanted, dict | list):
        assert len(found) == len(wanted) and isinstance(found, type(wanted))
        pairs = (
            [(found[key], value) for key, value in wanted.items()]
            if isinstance(wanted, dict)
            else zip(found, wanted, strict=True)
        )
        for one, other in pairs:
            assert_alike(one, other, tolerance)
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance)
    else:
        assert found == wanted


def rows(directory):
    """{table: its rows} of all tables in a folder."""
    paths = sorted(directory.glob("tables/*/*.parquet"))
    return {str(path.relative_to(directory)): pq.read_table(path).to_pylist() for path in paths}


def made_on(devices, make):
    """What make(device) gives on each."""
    return [make(device) for device in devices]


BOTH = ("cpu", DEVICE)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize(
    ("kind", "activation", "skip", "few"),
    [
        ("clt", "jumprelu", False, True),
        ("clt", "jumprelu", True, False),
        ("clt", "topk", True, True),
        ("clt", "topk", False, False),
        ("plt", "batchtopk", True, True),
        ("plt", "relu", False, False),
    ],
)
def test_a_dictionary_encodes_and_decodes(tmp_path, monkeypatch, kind, activation, skip, few, dtype):
    """few: so few features fire that decoding goes through them, not through a dense matrix product. Also with weights that stay on the CPU."""
    sizes = {"n_layers": 3, "n_features": 200, "d_model": 24, "k": 4 if few else 60, "least_threshold": 2.0 if few else 0.0}
    d = dictionaries.random(kind=kind, activation=activation, skip=skip, **sizes).to(dtype=dtype)
    x = torch.randn(2, 20, 3, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact, tolerance = d.to(dtype=torch.float64), ROUNDED[dtype]
    a = exact.encode(x.double()).to(dtype)
    h, y = exact.pre_activations(x.double()), exact.decode(a.double(), x.double())
    assert ((a > 0).double().mean() < 0.05) == few
    token, feature = a[0, :, 1].nonzero(as_tuple=True)
    d.save(tmp_path)
    monkeypatch.setattr(transcoder, "DEVICE_SHARE", 0)
    for there in (d.to(device=DEVICE), load_dictionary(tmp_path, device=DEVICE)):
        on_device = x.to(DEVICE)
        assert_near(there.pre_activations(on_device), h, tolerance)
        some = there.pre_activations_at(on_device[0, :, 1], 1, token.to(DEVICE), feature.to(DEVICE))
        assert_near(some, h[0, token, 1, feature], tolerance)
        if dtype != torch.bfloat16:  # which moves pre-activations across thresholds
            assert_near(there.encode(on_device), a, tolerance)
        assert_near(there.decode(a.to(DEVICE), on_device), y, tolerance)
        sources = a.unbind(2)
        assert_near(there.decode_layer([source.to(DEVICE) for source in sources], 2, on_device[:, :, 2]), y[:, :, 2], tolerance)
    silent = d.to(device=DEVICE).decode(torch.zeros_like(a).to(DEVICE), x.to(DEVICE))
    assert_near(silent, exact.decode(torch.zeros_like(a).double(), x.double()), tolerance)


@pytest.mark.parametrize(
    "settings", [{"activation": "topk", "skip": True}, {"activation": "jumprelu", "kind": "plt"}, {}], ids=str
)
def test_the_divergence_of_the_replaced_model_and_its_gradients(settings):
    tokens = torch.from_numpy(packed_sequences(6).tokens).long()
    scales = torch.tensor([[1.5, 0.5], [2.0, 3.0]])

    def made(device):
        lm = models.language_model()
        lm.hf.to(device)
        generator = torch.Generator().manual_seed(0)
        module = Transcoder(Train(n_features=200, l0=4, **settings), n_layers=2, d_model=lm.d_model, generator=generator).to(
            device
        )
        model = ReplacedModel(lm, tokens, tokens != 0, [0, 1], scales=scales, coefficient=1.0)
        kl = model.divergence(module, lift=torch.full((2, 200), 0.1, device=device))
        kl.backward()
        return kl, [parameter.grad for parameter in module.parameters() if parameter.grad is not None]

    (kl, gradients), (found, found_gradients) = made_on(BOTH, made)
    assert kl > 0
    assert_near(found, kl, 1e-4)
    for one, other in zip(found_gradients, gradients, strict=True):
        assert_near(one, other, 1e-3)


def graph_on(device, model_dtype, *, architecture="gpt2", of=None, **options):
    lm = numbers.language_model(model_dtype, architecture=architecture)
    lm.hf.to(device)
    return attribute(lm, numbers.dictionary(**of or {}), PROMPT, **options)


GRAPHS = [
    {},
    {"of": {"skip": True}, "architecture": "gemma2"},
    {"of": {"activation": "topk", "kind": "plt", "skip": True}, "architecture": "gpt_neox"},
    {"of": {"activation": "batchtopk"}, "architecture": "qwen3", "constant_positions": 2},
    {"max_features": 12, "max_edges": 300, "batch_size": 4},
    {"target": {7: 1.0, 9: 2.0}, "edge_threshold": 0.01},
    {"target": 7, "foil": 9, "position": -2},
    {"target": DirectionTarget(torch.arange(24.0), 2)},
]


@pytest.mark.parametrize("options", GRAPHS, ids=str)
@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_a_graph(dtype, options):
    """With the interventions that check its edges, and ablations of its features."""
    graph, found = made_on(BOTH, lambda device: check_edges(graph_on(device, dtype, **options), n=60, seed=0))
    assert found.replacement.logits.device.type == torch.device(DEVICE).type
    exact = dtype == torch.float64 and "architecture" not in options  # the others have norms or angles in float32 in any case
    tolerance = {"abs_tol": 1e-10, "rel_tol": 1e-10} if exact else {"abs_tol": 2e-4, "rel_tol": 1e-4}
    assert_frame_equal(found.nodes, graph.nodes, **tolerance)
    assert_frame_equal(found.edges, graph.edges, **tolerance)
    scores = [[one.replacement_score, one.completeness_score] for one in (found, graph)]
    assert_alike(*scores, tolerance["abs_tol"])
    assert found.max_abs_error < tolerance["abs_tol"]
    checked = found.edges.drop_nulls("measured")
    assert len(checked) == 60 and (checked["weight"] - checked["measured"]).abs().max() < 1e-3
    effects = [[one.effect for one in ablate(each, most_influential(graph, 3))] for each in (found, graph)]
    assert_alike(*effects, tolerance["abs_tol"])


def test_a_graph_of_a_feature_and_one_in_bfloat16():
    graph = graph_on("cpu", torch.float64)
    layer, position, feature = graph.index.place(numbers.strongest(graph, 2))
    target = FeatureTarget(layer, feature, position)
    found = [graph_on(device, torch.float64, target=target).edges for device in (DEVICE, "cpu")]
    assert_frame_equal(*found, abs_tol=1e-10, rel_tol=1e-10)
    rounded = graph_on(DEVICE, torch.float32, dtype="bfloat16")
    assert rounded.replacement.lm.dtype == torch.bfloat16 and rounded.edges["weight"].is_finite().all()
    assert abs(rounded.replacement_score - graph.replacement_score) < 0.05


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of", [{"skip": True}, {"activation": "topk", "kind": "plt"}], ids=str)
def test_an_intervention(mode, of):
    graph = graph_on("cpu", torch.float64, of=of)
    layer, position, feature = graph.index.place(numbers.strongest(graph))
    _, there, other = graph.index.place(numbers.strongest(graph, 1))
    interventions = [Setting(layer, feature, slice(position, None), "set", 1.5), f"1:{other}@{there}=x2"]

    def made(device, given, **options):
        lm = numbers.language_model()
        lm.hf.to(device)
        return intervene(lm, numbers.dictionary(**of), PROMPT, given, mode=mode, n_features=1000, **options)

    drawn = {"n_generated": 4, "sampling": Sampling(0.8, 5, 1)}
    for given, options in (
        (interventions, {"predict": True} | drawn),
        ([Addition(torch.ones(24), 1, None)], {"until_layer": 1 if mode == "constrained" else None}),
    ):
        wanted, found = (made(device, given, **options) for device in BOTH)
        assert len(wanted.logits) and found.continuations == wanted.continuations
        assert_frame_equal(found.logits, wanted.logits, abs_tol=1e-9, rel_tol=1e-9)
        moved = [one.features.filter((pl.col("after") - pl.col("before")).abs() > 1e-9) for one in (found, wanted)]
        assert_frame_equal(*moved, abs_tol=1e-9, rel_tol=1e-9)


def test_what_setting_features_raises():
    def made(device):
        lm = models.language_model("gemma2")
        lm.hf.to(device)
        prompted = Prompted(lm, dictionaries.random(dtype=torch.float32, skip=True).computing(device=lm.device), windows())
        return prompted.rises(0, [3, 7], [4.0, 1.5])

    wanted, found = made_on(BOTH, made)
    assert_near(found, wanted, 1e-4)


@pytest.mark.parametrize("of", [{"skip": True}, {"activation": "topk", "k": 5}], ids=str)
def test_exchanged_label_features_and_the_models_answers(of):
    """Values of each question, and the same for all; what they come to where the last token is the other label's."""
    questions = [Question((0, 7, 3, 19), {}), Question((0, 5, 6), {}), Question((0, 8, 2, 19), {})]
    others = [Question((*question.tokens[:-1], 30), {}) for question in questions]
    asked = {number: {"a": one, "b": other} for number, (one, other) in enumerate(zip(questions, others, strict=True))}
    places = [(0, 3), (1, 6), (2, 7)]

    def made(device):
        lm = numbers.language_model(torch.float64)
        lm.hf.to(device)
        d = numbers.dictionary(**of).computing(device=lm.device)
        moved = Exchange.of(lm, d, asked, [0, 1, 2], "a", "b", places)
        shift = moved.shifted_as(moved)
        exchanged, shifted = ({one: way.now[one] + 2 * way.change[one] for one in places} for way in (moved, shift))
        changes = [Change({}), Change(exchanged), Change(shifted, "all"), Change({(0, 3): 2.5, (2, 7): -1.0})]
        found = list(answers(lm, d, questions, changes, n_new=3))
        values = torch.stack([moved.change[one] for one in places])
        return values, torch.stack([one.logits for one in found]), torch.stack([one.following for one in found])

    (values, logits, following), found = made_on(BOTH, made)
    assert values.abs().max() > 0 and (logits[1:] - logits[0]).abs().amax(dim=(1, 2)).min() > 0
    assert_near(found[0], values, 1e-8)
    assert_near(found[1], logits, 1e-8)
    assert found[2].tolist() == following.tolist()


@pytest.mark.parametrize("of", [{"skip": True}, {"activation": "topk", "k": 2, "kind": "plt"}], ids=str)
def test_harvest_and_metrics(tmp_path, of):
    """All tables: the same features, windows, edges and neighbours, with the same numbers but for rounding."""
    settings = Harvest(top=3, per_quantile=2, n_quantiles=3, window=6, pool_windows=30, coactivation_tokens=200, batch_seqs=3)

    def made(device):
        lm = models.language_model("gpt2", dtype=torch.float64)
        lm.hf.to(device)
        d, folder = dictionaries.random(**of).computing(device=lm.device), tmp_path / device
        harvest(settings, lm, d, packed_sequences(40, 16), directory=folder, dict_id="d", seed=5)
        evaluate(Evaluate(dense_above=0.3, batch_seqs=4), lm, d, packed_sequences(9), directory=folder, dict_id="d")
        return rows(folder) | {"counts": json.loads((folder / "counts.json").read_text())}

    wanted, found = made_on(BOTH, made)
    assert len(wanted) > 10 and found.keys() == wanted.keys()
    for table, expected in wanted.items():
        assert_alike(found[table], expected)


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8", "int4"])
def test_an_activation_cache(tmp_path, codec):
    """int8 and int4: a value at a rounding's edge may become its neighbour, so that noise is compared, not values."""
    parts = {"train": random_sequences(20), "heldout": random_sequences(4, seed=1)}

    def made(device):
        lm = models.language_model()
        lm.hf.to(device)
        write_cache(models.activations(codec=codec), lm, parts, directory=tmp_path / device)
        return open_source(tmp_path / device, seed=0), json.loads((tmp_path / device / "cache.json").read_text())

    (wanted, summary), (found, found_summary) = made_on(BOTH, made)
    one, other = (source.batch(0, 64) for source in (found, wanted))
    tolerance = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 2e-2, "int4": 0.3}[codec]
    assert_near(one.x, other.x, tolerance)
    assert_near(one.y, other.y, tolerance)
    for side in ("mlp_input", "mlp_output"):
        assert_alike(found_summary[f"{side}_mean_norm"], summary[f"{side}_mean_norm"])
        if codec != "float32":
            assert_alike(found_summary[f"{side}_snr_db"], summary[f"{side}_snr_db"], 1e-2)


def test_a_model_and_a_dictionary_go_to_the_device_that_auto_means(tmp_path):
    from cltdb.devices import present_device
    from cltdb.model.loading import load_model

    lm = load_model("toyworld", device="auto")
    assert lm.device.type == torch.device(DEVICE).type
    assert present_device("auto") == ("cpu" if DEVICE == "cpu" else "cuda:0")
    tokens = torch.tensor([lm.prompt_tokens("the cat sat")])
    assert_near(lm.logits(tokens), load_model("toyworld", device="cpu").logits(tokens), 1e-4)
