"""The sparse training step against the dense reference: loss and every gradient."""

import copy

import dense_reference
import pytest
import torch
from worlds.device import DEVICE, INTERPRETED

from cltdb.train.module import Transcoder
from cltdb.train.settings import Train

KINDS = [
    {},
    {"kind": "plt"},
    {"skip": True},
    {"decoder_span": 2},
    {"activation": "topk", "l0": 3},
    {"activation": "relu"},
    {"activation": "jumprelu"},
    {"activation": "jumprelu", "preact_coefficient": 0, "kind": "plt", "skip": True},
    {"activation": "jumprelu", "bandwidth": 6.0},
]

GPU_PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)]


def step(settings, *, dtype, device="cpu", n_tokens=20, shift=0.0, n_dead=0, n_layers=3, d_model=8):
    """(module, its `loss.Measured`; tensors with gradients, loss and l0 of the dense reference, in float64 on the CPU)."""
    generator = torch.Generator().manual_seed(0)
    module = Transcoder(settings, n_layers=n_layers, d_model=d_model, generator=generator).to(dtype)
    x, y = (torch.randn(n_tokens, n_layers, d_model, generator=generator, dtype=dtype) for _ in range(2))
    with torch.no_grad():
        for layer in module.layers:
            layer.b_enc.copy_(torch.randn(settings.n_features, generator=generator) / 2 + shift)
        module.b_dec.copy_(torch.randn(n_layers, d_model, generator=generator))
        if settings.skip:
            module.W_skip.copy_(torch.randn(n_layers, d_model, d_model, generator=generator))
    coefficient = torch.tensor([0.3, 0.7, 0.2], dtype=dtype)
    dead = torch.zeros(n_layers, settings.n_features, dtype=torch.bool)
    dead[:, :n_dead] = True
    lift = torch.rand(n_layers, settings.n_features, generator=generator, dtype=dtype)
    tensors = dense_reference.tensors_of(copy.deepcopy(module).double())
    state = {"coefficient": coefficient.double(), "dead": dead, "lift": lift.double()}
    wanted, l0 = dense_reference.loss(settings, tensors, x.double(), y.double(), **state)
    wanted.backward()
    state = {"coefficient": coefficient, "dead": dead, "lift": lift}
    measured = module.to(device)(x.to(device), y.to(device), **{name: value.to(device) for name, value in state.items()})
    measured.loss.backward()
    return module.cpu(), measured, tensors, wanted, l0


def check(module, measured, tensors, wanted, l0, *, tolerance):
    assert torch.allclose(measured.loss.cpu().double(), wanted, rtol=tolerance, atol=0)
    assert torch.allclose(measured.l0.cpu().float(), l0)
    for name, tensor in tensors.items():
        for layer in range(module.n_layers):
            got = getattr(module if name in ("b_dec", "W_skip") else module.layers[layer], name).grad
            got = got[layer] if name in ("b_dec", "W_skip") else got
            expected = tensor.grad[layer]
            if name == "W_dec":
                expected = expected[:, layer : layer + module.n_targets(layer)]
            scale = tensor.grad.abs().max().clamp(min=1e-8)
            got = torch.zeros_like(expected) if got is None else got.double()
            assert ((got - expected).abs().max() / scale) < tolerance, (name, layer)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_loss_and_every_gradient_are_the_dense_ones(settings, dtype, tolerance):
    settings = Train(**{"n_features": 40, "l0": 3.5, "aux_features": 4, "aux_coefficient": 0.03, **settings})
    check(*step(settings, dtype=dtype, n_dead=7), tolerance=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), GPU_PRECISIONS, ids=str)
@pytest.mark.parametrize("n_features", [40, 200])
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_gpu_makes_the_same_step(settings, n_features, dtype, tolerance):
    """Of 200 features so few are active that the kernels serve; of relu and jumprelu because most biases are low."""
    settings = Train(**{"n_features": n_features, "l0": 3.5, "aux_features": 4, "aux_coefficient": 0.03, **settings})
    shift = -2.0 if n_features == 200 and settings.activation in ("relu", "jumprelu") else 0.0
    check(*step(settings, dtype=dtype, device=DEVICE, n_dead=7, shift=shift), tolerance=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_gpu_makes_the_same_step_again_to_the_byte(settings):
    settings = Train(**{"n_features": 200, "l0": 3.5, "aux_features": 4, "aux_coefficient": 0.03, **settings})
    size = dict(dtype=torch.float32, device=DEVICE, n_dead=7, n_tokens=20 if INTERPRETED else 4000)
    made = [step(settings, **size)[:2] for _ in range(3)]
    for module, measured in made[1:]:
        assert torch.equal(measured.loss, made[0][1].loss)
        for one, other in zip(module.parameters(), made[0][0].parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("case", ["no active feature", "one token", "all features active"])
def test_extreme_batches(settings, case):
    settings = Train(
        **{"n_features": 30, "l0": 30 if case.startswith("all") else 3, "aux_features": 4, "aux_coefficient": 0.03}
        | {k: v for k, v in settings.items() if k != "l0"}
    )
    cases = {"no active feature": {"shift": -100.0}, "one token": {"n_tokens": 1}, "all features active": {"shift": 100.0}}
    result = step(settings, dtype=torch.float64, **cases[case])
    check(*result, tolerance=1e-10)
    if case != "one token":
        assert (result[1].l0 == (0 if case.startswith("no") else 30)).all()
