"""The penalty on the cosine of decoders against the obvious loops over all pairs, and the published penalty's faults."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from train.test_module import GPU_PRECISIONS
from train.test_train import SETTINGS, make_steps, metrics, trained
from train.test_train import a_run as plain_run
from worlds.device import DEVICE

from cltdb.model.sparse import Pairs
from cltdb.train import orthogonality
from cltdb.train.module import Transcoder
from cltdb.train.orthogonality import Sample
from cltdb.train.parallel import Parallel
from cltdb.train.settings import Orthogonality, Train

SCOPES, WEIGHTINGS, D, L, F, TOKENS = ("source", "target"), ("none", "coactivation"), 5, 2, 6, 12


def features_of(scope, layer, W_dec):
    """(source, feature, decoder) of every feature of a layer of the scope. W_dec: per source layer [n_features, n_targets, d_model]."""
    if scope == "source":
        return [(layer, feature, W.flatten()) for feature, W in enumerate(W_dec[layer])]
    return [
        (source, feature, W[layer - source])
        for source in range(layer + 1)
        if layer - source < W_dec[source].shape[1]
        for feature, W in enumerate(W_dec[source])
    ]


def over_all_pairs(penalty, W_dec, fires):
    """The penalty as `orthogonality` defines it. fires [source layer, token, feature] bool."""
    of_layers = []
    for layer in range(len(W_dec)):
        total = weights = 0
        for (s, i, v), (r, j, w) in itertools.combinations(features_of(penalty.scope, layer, W_dec), 2):
            square = (v @ w) ** 2 / ((v @ v) * (w @ w) if penalty.normalize else 1)
            together = (fires[s, :, i] & fires[r, :, j]).sum() if penalty.weight_by == "coactivation" else 1
            total, weights = total + together * square, weights + together
        of_layers.append(total / max(1, weights))
    return penalty.coefficient * len(W_dec) * W_dec[0].shape[2] * sum(of_layers) / len(of_layers)


def random_state(n_targets=(2, 1)):
    """(decoders that want gradients, which features fire), float64. One decoder is twice another; features overlap in all."""
    generator = torch.Generator().manual_seed(0)
    W_dec = [torch.randn(F, n, D, generator=generator, dtype=torch.float64) + 0.5 for n in n_targets]
    W_dec[0][1] = 2 * W_dec[0][0]
    return [W.requires_grad_() for W in W_dec], torch.rand(len(n_targets), TOKENS, F, generator=generator) < 0.4


def sampled(penalty, W_dec, fires, draw=0):
    """The loss of one draw, as `loss.measure` asks for it."""
    n_targets = [W.shape[1] for W in W_dec]
    sample = Sample(penalty, n_features=F, n_targets=n_targets, seed=[0, draw], parallel=Parallel(), device="cpu")
    written = []
    for W, rows, fired in zip(W_dec, sample.rows, fires, strict=True):
        pairs = Pairs(*torch.ones_like(fired).nonzero(as_tuple=True), n_tokens=TOKENS, n_features=F)
        written.append(SimpleNamespace(taken=W.flatten(0, 1)[rows], pairs=pairs, is_active=fired.flatten()))
    return sample.loss(written)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight_by", WEIGHTINGS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("n_targets", [(2, 1), (1, 1)], ids=["clt", "plt"])
def test_a_sample_of_everything_is_the_mean_over_all_pairs(n_targets, scope, weight_by, normalize):
    penalty = Orthogonality(coefficient=3.0, scope=scope, weight_by=weight_by, normalize=normalize, sample=100)
    W_dec, fires = random_state(n_targets)
    loss, wanted = sampled(penalty, W_dec, fires), over_all_pairs(penalty, W_dec, fires)
    assert torch.allclose(loss, wanted, rtol=1e-12)
    for got, gradient in zip(torch.autograd.grad(loss, W_dec), torch.autograd.grad(wanted, W_dec), strict=True):
        assert torch.allclose(got, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_draws", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("weight_by", WEIGHTINGS)
@pytest.mark.parametrize("scope", SCOPES)
def test_the_sampled_loss_and_its_gradient_are_unbiased(scope, weight_by, n_draws, monkeypatch):
    """Of 5 decoders of a layer per draw (of scope source 2 features of one, 5 of the other), in groups of at most 3."""
    monkeypatch.setattr(orthogonality, "GROUP", 3)
    penalty = Orthogonality(scope=scope, weight_by=weight_by, sample=5)
    W_dec, fires = random_state()
    wanted = over_all_pairs(penalty, W_dec, fires)
    wanted = torch.cat([wanted[None], *(gradient.flatten() for gradient in torch.autograd.grad(wanted, W_dec))]).detach()
    draws = []
    for draw in range(n_draws):
        loss = sampled(penalty, W_dec, fires, draw)
        draws.append(torch.cat([loss[None], *(gradient.flatten() for gradient in torch.autograd.grad(loss, W_dec))]).detach())
    draws = torch.stack(draws)
    errors = (draws.mean(0) - wanted) / (draws.std(0) / len(draws) ** 0.5)
    assert draws[:, 0].std() > 0.1 * wanted[0] and (draws[:, 1:].std(0) > 0).all()
    assert errors[0].abs() < 3 and errors.square().mean() < 2 and errors.abs().max() < 4
    along = draws[:, 1:] @ wanted[1:]  # the gradient's own direction
    assert abs(along.mean() - wanted[1:].square().sum()) < 3 * along.std() / len(draws) ** 0.5


@pytest.mark.parametrize("weight_by", WEIGHTINGS)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_rank_of_whose_features_none_is_drawn_gives_nothing(scope, weight_by):
    penalty, (W_dec, fires) = Orthogonality(scope=scope, weight_by=weight_by, sample=2), random_state((1, 1))
    parallel, n_without = Parallel(), 0
    parallel.n_shards, parallel.sum_over_shards = 2, lambda tensor: tensor  # what the other rank gives is left out
    half = [W[: F // 2].detach().requires_grad_() for W in W_dec]
    for draw in range(8):
        sample = Sample(penalty, n_features=F, n_targets=[1, 1], seed=[0, draw], parallel=parallel, device="cpu")
        written = []
        for W, rows, fired in zip(half, sample.rows, fires[..., : F // 2], strict=True):
            pairs = Pairs(*torch.ones_like(fired).nonzero(as_tuple=True), n_tokens=TOKENS, n_features=F // 2)
            written.append(SimpleNamespace(taken=W.flatten(0, 1)[rows], pairs=pairs, is_active=fired.flatten()))
        gradients = torch.autograd.grad(sample.loss(written), half)
        for gradient, rows in zip(gradients, sample.rows, strict=True):
            n_without += not len(rows)
            assert len(rows) or not gradient.any()
    assert n_without > 1


def of_one_layer(W, **penalty):
    """The loss of a layer with decoders W [n_features, d_model] to itself alone."""
    sample = Sample(Orthogonality(**penalty), n_features=len(W), n_targets=[1], seed=[0], parallel=Parallel(), device="cpu")
    return sample.loss([SimpleNamespace(taken=W[sample.rows[0]])])


def test_a_feature_without_a_decoder_costs_nothing_and_gets_no_gradient():
    W = torch.eye(4, 8, dtype=torch.float32)
    W[3] = 0
    W[2] = W[1]
    W.requires_grad_()
    loss = of_one_layer(W)
    assert loss.item() == pytest.approx(8 * 2 / 12) and not torch.autograd.grad(loss, W)[0][3].any()


def step(penalty, *, dtype=torch.float64, device="cpu", with_penalty=True):
    """(module, `loss.Measured`, gradients of the decoders) of one step of three layers of jumprelu with decoder_span 2."""
    settings = Train(n_features=F, l0=2, activation="jumprelu", decoder_span=2, orthogonality=penalty)
    generator = torch.Generator().manual_seed(0)
    module = Transcoder(settings, n_layers=3, d_model=D, generator=generator)
    x, y = (torch.randn(TOKENS, 3, D, generator=generator).to(device, dtype) for _ in range(2))
    module = module.to(device, dtype)
    zeros = torch.zeros(3, F, device=device)
    state = {"coefficient": torch.ones(3, device=device, dtype=dtype), "dead": zeros.bool(), "lift": zeros.to(dtype)}
    n_targets = [module.n_targets(layer) for layer in range(3)]
    sample = Sample(penalty, n_features=F, n_targets=n_targets, seed=[0], parallel=Parallel(), device=device)
    measured = module(x, y, **state, sample=sample if with_penalty else None)
    h = torch.stack([x[:, n] @ layer.W_enc.T + layer.b_enc for n, layer in enumerate(module.layers)])
    fires = h > torch.stack([layer.log_threshold for layer in module.layers]).exp()[:, None]
    W_dec = [layer.W_dec for layer in module.layers]
    return measured, torch.autograd.grad(measured.loss, W_dec), W_dec, fires


def test_the_loss_of_a_step_holds_the_penalty_and_the_decoders_its_gradient():
    """With and without it, the loss and the gradients of the decoders differ by those of the penalty, which the features that fire weigh."""
    penalty = Orthogonality(coefficient=0.3, scope="target", weight_by="coactivation")
    (without, before, _, _), (with_it, after, W_dec, fires) = (step(penalty, with_penalty=some) for some in (False, True))
    assert [W.shape[1] for W in W_dec] == [2, 2, 1] and without.orthogonality == 0
    wanted = over_all_pairs(penalty, W_dec, fires)
    assert with_it.orthogonality.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert (with_it.loss - without.loss).item() == pytest.approx(wanted.item(), rel=1e-9)
    for one, other, gradient in zip(before, after, torch.autograd.grad(wanted, W_dec), strict=True):
        assert torch.allclose(other - one, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.gpu
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("dtype", "tolerance"), GPU_PRECISIONS, ids=str)
def test_a_gpu_adds_the_same_penalty(dtype, tolerance, scope):
    for weight_by in WEIGHTINGS if dtype in (torch.float64, torch.float32) else WEIGHTINGS[:1]:  # else others may fire
        penalty = Orthogonality(coefficient=10.0, scope=scope, weight_by=weight_by)
        wanted, gradients, *_ = step(penalty)
        (found, got, *_), (_, again, *_) = (step(penalty, dtype=dtype, device=DEVICE) for _ in range(2))
        assert found.orthogonality.item() == pytest.approx(wanted.orthogonality.item(), rel=tolerance)
        assert all(map(torch.equal, got, again))
        for one, other in zip(got, gradients, strict=True):
            assert (one.cpu().double() - other).abs().max() < 3 * tolerance * other.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("weight_by", WEIGHTINGS)
@pytest.mark.parametrize("scope", SCOPES)
def test_the_host_never_waits_for_a_gpu(scope, weight_by):
    W_dec, fires = random_state()
    W_dec, fires = [W.detach().to(DEVICE).requires_grad_() for W in W_dec], fires.to(DEVICE)
    parts = [Pairs(*torch.ones_like(fired).nonzero(as_tuple=True), n_tokens=TOKENS, n_features=F) for fired in fires]
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        penalty = Orthogonality(scope=scope, weight_by=weight_by, sample=8)
        sample = Sample(penalty, n_features=F, n_targets=[2, 1], seed=[0], parallel=Parallel(), device=DEVICE)
        written = []
        for W, rows, pairs, fired in zip(W_dec, sample.rows, parts, fires, strict=True):
            written.append(SimpleNamespace(taken=W.flatten(0, 1).index_select(0, rows), pairs=pairs, is_active=fired.flatten()))
        torch.autograd.grad(sample.loss(written), W_dec)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def a_run(**penalty):
    return plain_run(orthogonality={"coefficient": 0.1, **penalty})


def test_training_lowers_the_cosines_and_logs_the_term_alone_where_it_is_on():
    runs = [plain_run(), a_run(coefficient=0), a_run(coefficient=30.0), a_run(coefficient=30.0, sample=20)]
    facts = [make_steps(run, run.n_steps) for run in runs]
    without, zero = ({name: parts["value"] for name, parts in run.engine.tensors()} for run in runs[:2])
    assert all(torch.equal(without[name], zero[name]) for name in without)  # coefficient 0 is the run without it, to the bit
    cosines = [over_all_pairs(Orthogonality(), [p.W_dec.detach() for p in run.engine.module.layers], None) for run in runs]
    assert cosines[2] < 0.6 * cosines[0] and cosines[3] < 0.8 * cosines[0]
    named = [{name: value for _, layer, name, value in fact.rows(1, [0, 1]) if layer is None} for fact in facts]
    assert "loss_orthogonality" not in named[0] and "loss_orthogonality" not in named[1]
    parts = sum(value for name, value in named[2].items() if name.startswith("loss_"))
    assert named[2]["loss"] == pytest.approx(parts, rel=1e-5) and named[2]["loss_orthogonality"] > 0


def test_bf16_computes_cosines_in_float32():
    penalty, generator = Orthogonality(sample=100), torch.Generator().manual_seed(0)
    W = torch.randn(200, 64, generator=generator).bfloat16()
    loss, exact = of_one_layer(W), of_one_layer(W.double())
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-5)
    run = plain_run(orthogonality=penalty.model_dump(), deepspeed={"bf16": {"enabled": True}})
    assert make_steps(run, 4).orthogonality > 0


def test_a_resumed_run_draws_what_the_uninterrupted_one_draws(tmp_path, monkeypatch):
    penalty = {"coefficient": 0.5, "sample": 12, "scope": "target", "weight_by": "coactivation"}
    whole = trained(tmp_path / "whole", orthogonality=penalty)
    save, stopped = orthogonality.Sample.__init__, []

    def dies(self, *arguments, **options):
        if options["seed"][1] == 7 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        save(self, *arguments, **options)

    monkeypatch.setattr(orthogonality.Sample, "__init__", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", orthogonality=penalty)
    again = trained(tmp_path / "again", orthogonality=penalty)
    assert all(map(torch.equal, whole.W_dec, again.W_dec)) and metrics(tmp_path / "whole").equals(metrics(tmp_path / "again"))
    assert "loss_orthogonality" in metrics(tmp_path / "whole")["name"].unique()
    assert again.info["train"]["orthogonality"] == {"normalize": True, **penalty}


# Faults of the published penalty.


def test_smaller_decoders_satisfy_dot_products_and_not_cosines():
    W_dec, fires = random_state()
    for normalize, ratio in ((True, 1.0), (False, 1e-4)):
        penalty = Orthogonality(normalize=normalize)
        whole, small = (sampled(penalty, [scale * W for W in W_dec], fires).item() for scale in (1.0, 0.1))
        assert small / whole == pytest.approx(ratio)
        gradient = torch.autograd.grad(sampled(penalty, W_dec, fires), W_dec)
        shrinks = sum((g * W).sum() for g, W in zip(gradient, W_dec, strict=True)).item()
        assert abs(shrinks) < 1e-9 if normalize else shrinks > 1


def test_the_mean_is_over_the_pairs_that_were_summed():
    """Two decoders at 60 degrees and any number of equal ones: the sum over i < j divided by all n² pairs would be half of it, or less."""
    for W, cosine in ((torch.tensor([[1.0, 0], [1, 3**0.5]]), 0.25), (torch.ones(4, 3), 1.0)):
        assert of_one_layer(W).item() == pytest.approx(cosine * W.shape[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orthogonality": {"sample": 1}}, "sample"),
        ({"orthogonality": {"coefficient": -1.0}}, "coefficient"),
        ({"orthogonality": {"scope": "layer"}}, "scope"),
        ({"orthogonality": {}, "n_features": 1, "l0": 1, "init_l0": 1}, "at least 2 features per layer with orthogonality"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Train(**{**SETTINGS, **settings})
