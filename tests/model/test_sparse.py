import pytest
import torch

from cltdb.model.nonlinearity import batch_top_k, largest_positive, token_best, token_top_k
from cltdb.model.sparse import Pairs, decode, pair_dots, pre_activations, weighted_rows

SHAPES = [(7, 11, 0.0), (1, 40, 0.1), (1, 1, 1.0), (9, 6, 1.0), (40, 300, 0.01), (33, 50, 0.2)]
EXACT = [(torch.float64, 1e-10), (torch.float32, 1e-4)]


def random_pairs(n_tokens, n_features, share, generator):
    mask = torch.rand(n_tokens, n_features, generator=generator) < share
    return Pairs(*mask.nonzero(as_tuple=True), n_tokens=n_tokens, n_features=n_features), mask


def relative(got, wanted):
    return ((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)).item() if wanted.numel() else 0.0


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT, ids=str)
@pytest.mark.parametrize(("n_tokens", "n_features", "share"), SHAPES)
def test_decoding_and_its_gradients_are_the_dense_ones(n_tokens, n_features, share, dtype, tolerance):
    generator = torch.Generator().manual_seed(n_tokens)
    pairs, mask = random_pairs(n_tokens, n_features, share, generator)
    a = (torch.randn(n_tokens, n_features, generator=generator, dtype=dtype) * mask).requires_grad_()
    W = torch.randn(n_features, 3, 8, generator=generator, dtype=dtype, requires_grad=True)
    upstream = torch.randn(n_tokens, 5, 8, generator=generator, dtype=dtype)[:, 1:4]
    sparse, dense = decode(a[pairs.token, pairs.feature], pairs, W), torch.einsum("tf,fld->tld", a, W)
    got, wanted = (torch.autograd.grad(out, (a, W), upstream) for out in (sparse, dense))
    assert relative(sparse, dense) < tolerance and relative(got[1], wanted[1]) < tolerance
    assert relative(got[0], wanted[0] * mask) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT, ids=str)
@pytest.mark.parametrize(("n_tokens", "n_features", "share"), SHAPES)
def test_pre_activations_and_their_gradients_are_the_dense_ones(n_tokens, n_features, share, dtype, tolerance):
    generator = torch.Generator().manual_seed(n_features)
    pairs, mask = random_pairs(n_tokens, n_features, share, generator)
    x, W, b = (
        torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)
        for shape in ((n_tokens, 8), (n_features, 8), (n_features,))
    )
    dense = (x @ W.T + b)[pairs.token, pairs.feature]
    sparse = pre_activations(x, W, b, dense.detach(), pairs)
    upstream = torch.randn(len(pairs), generator=generator, dtype=dtype)
    for got, wanted in zip(*(torch.autograd.grad(out, (x, W, b), upstream) for out in (sparse, dense)), strict=True):
        assert relative(got, wanted) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_primitives_take_either_path(dtype, share):
    generator = torch.Generator().manual_seed(0)
    pairs, _ = random_pairs(30, 200, share, generator)
    left, right = torch.randn(30, 16, generator=generator).to(dtype), torch.randn(200, 16, generator=generator).to(dtype)
    weight = torch.randn(len(pairs), generator=generator)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    dots = torch.stack([left[t].double() @ right[f].double() for t, f in zip(pairs.token, pairs.feature, strict=True)])
    assert relative(pair_dots(left, right, pairs).double(), dots) < tolerance
    sums = torch.zeros(30, 16, dtype=torch.float64)
    for t, f, w in zip(pairs.token, pairs.feature, weight, strict=True):
        sums[t] += w.double() * right[f].double()
    assert relative(weighted_rows(right, pairs.feature, weight, pairs.token_offsets).double(), sums) < tolerance


@pytest.mark.parametrize("shift", [0.0, -2.0, -10.0, 3.0])
def test_batch_top_k_is_that_of_all_values(shift):
    h = torch.randn(600, 300, generator=torch.Generator().manual_seed(0)) + shift
    token, feature, value = batch_top_k(lambda: h.split(128), 6000, n_values=h.numel())
    wanted = (h >= h.flatten().topk(6000).values.min()) & (h > 0)
    found = torch.zeros_like(wanted)
    found[token, feature] = True
    assert torch.equal(found, wanted) and torch.equal(value, h[token, feature]) and torch.equal(token, token.sort().values)


@pytest.mark.parametrize("shift", [0.0, -10.0])
def test_batch_top_k_adds_a_bias(shift):
    generator = torch.Generator().manual_seed(0)
    h, bias = torch.randn(600, 300, generator=generator), torch.randn(300, generator=generator) + shift
    found = batch_top_k(lambda: h.split(128), 6000, n_values=h.numel(), bias=bias)
    wanted = batch_top_k(lambda: [h + bias], 6000, n_values=h.numel())
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_the_candidates_are_few():
    h = torch.randn(2000, 500, generator=torch.Generator().manual_seed(1))
    assert 10_000 <= len(largest_positive(lambda: h.split(300), 10_000, n_values=h.numel())[0]) < 40_000


def test_token_top_k_keeps_each_tokens_largest_positive():
    h = torch.randn(50, 20, generator=torch.Generator().manual_seed(1)) - 1
    token, feature, value = token_top_k(*token_best(h, 4))
    found = torch.zeros_like(h, dtype=torch.bool)
    found[token, feature] = True
    assert torch.equal(found, (h >= h.topk(4, dim=1).values[:, -1:]) & (h > 0)) and torch.equal(token, token.sort().values)
