"""The Triton kernels against slow, obvious twins: on a CUDA device (marker gpu), and the same tests on CPU in Triton's interpreter.

The interpreter must be chosen before triton is imported, so these run in a process of their own. It tolerates what the compiler does
not, so that every kernel is compiled too, for devices that need not be there.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from worlds.device import DEVICE, INTERPRETED

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
BAGS = {
    "no active pair": [0, 0, 0],
    "one token": [5],
    "one pair": [0, 1],
    "all features active": [9] * 3,
    "uneven": [0, 3, 0, 1, 26, 2, 9, 8, 0, 13, 0],
    "one bag of all": [30],
    "no bag": [],
}
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: pip install cltdb[test] on Linux")


@pytest.fixture
def kernels():
    from cltdb.model import triton_kernels

    return triton_kernels


@pytest.fixture
def short_segments(kernels, monkeypatch):
    """Bags of more than 8 pairs are cut, so that small tests meet every way of cutting."""
    monkeypatch.setattr(kernels, "SEGMENT", 8)
    return kernels


def run(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_all_of_these_in_tritons_interpreter():
    """But one: that two runs give the same bytes says nothing where programs run one after the other."""
    chosen = ("-m", "gpu", "-k", "not twice_the_same_bytes")
    fast = {"TRITON_INTERPRET": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    out = run("-m", "pytest", __file__, *chosen, "-p", "no:cacheprovider", **fast)
    assert "passed" in out and "skipped" not in out


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_the_kernels_compile_without_a_device(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compile_kernels(90)
    assert list(tmp_path.rglob("*.cubin"))


@pytest.mark.slow
def test_the_benchmark_of_a_training_step_runs_in_the_interpreter():
    """It compares loss and gradients of both sides itself."""
    out = run("tests/benchmarks/training_step_gpu.py", "--interpret")
    assert "| step, Adam on masters | floor |" in out and "differ by at most" in out


def random_bags(lengths, *, n_rows, dtype=torch.float32, index=torch.int64, seed=0):
    """row, weight [n_pairs], offsets [n_bags], bag of each pair."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths, dtype=torch.int64)
    n_pairs = int(lengths.sum())
    row = torch.randint(n_rows, (n_pairs,), generator=generator).to(index)
    weight = torch.randn(n_pairs, generator=generator).to(dtype)
    bag = torch.arange(len(lengths)).repeat_interleave(lengths)
    return [part.to(DEVICE) for part in (row, weight, (lengths.cumsum(0) - lengths).to(index), bag)]


def random_table(n_rows, width, *, dtype=torch.float32, strided=False, seed=1):
    table = torch.randn(n_rows, 3 if strided else 1, width, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)
    return table[:, -1]


def assert_near(found, wanted, dtype=torch.float32):
    scale = wanted.abs().max().clamp(min=1) if wanted.numel() else 1
    assert found.shape == wanted.shape
    assert torch.allclose(found.double() / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype])


def slow_weighted_rows(table, row, weight, bag, n_bags):
    out = torch.zeros(n_bags, table.shape[1], dtype=torch.float64, device=table.device)
    for i in range(len(row)):
        out[bag[i]] += weight[i].double() * table[row[i]].double()
    return out


def slow_pair_dots(left, left_row, right, right_row):
    return (left.double()[left_row.long()] * right.double()[right_row.long()]).sum(1)


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", BAGS.values(), ids=BAGS)
@pytest.mark.parametrize(
    ("width", "dtype", "out_dtype", "index", "strided"),
    [
        (60, torch.float32, None, torch.int64, True),
        (5, torch.bfloat16, None, torch.int32, False),
        (1, torch.bfloat16, torch.float32, torch.int64, True),
    ],
)
def test_weighted_rows(short_segments, lengths, width, dtype, out_dtype, index, strided):
    row, weight, offsets, bag = random_bags(lengths, n_rows=9, dtype=dtype, index=index)
    table = random_table(9, width, dtype=dtype, strided=strided)
    found = short_segments.weighted_rows(table, row, weight, offsets, out_dtype=out_dtype)
    assert found.dtype == (out_dtype or dtype)
    assert_near(found, slow_weighted_rows(table, row, weight, bag, len(lengths)), found.dtype)


@pytest.mark.gpu
def test_weighted_rows_of_a_feature_that_fires_on_every_token(kernels):
    row, weight, offsets, bag = random_bags([3, 2 * kernels.SEGMENT + 7, 0, 2], n_rows=40)
    table = random_table(40, 32)
    assert_near(kernels.weighted_rows(table, row, weight, offsets), slow_weighted_rows(table, row, weight, bag, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", BAGS.values(), ids=BAGS)
@pytest.mark.parametrize(("width", "dtype", "strided"), [(60, torch.float32, True), (31, torch.bfloat16, False)])
def test_decoder_gradients(short_segments, lengths, width, dtype, strided):
    token, value, offsets, feature = random_bags(lengths, n_rows=9, dtype=dtype)
    gradient = random_table(9, width, dtype=dtype, strided=strided)
    rows = random_table(len(lengths), width, dtype=dtype, seed=2)
    row_weight = torch.randn(len(lengths), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    wanted = slow_weighted_rows(gradient, token, value, feature, len(lengths))
    dots = slow_pair_dots(gradient, token, rows, feature)
    if dtype == torch.bfloat16:  # with a share of the rows themselves, and sums in float32
        wanted += row_weight.double()[:, None] * rows.double()
        more = dict(row_weight=row_weight, out_dtype=torch.float32)
    else:
        more = {}
    row_gradient, value_gradient = short_segments.decoder_gradients(gradient, token, value, offsets, rows, **more)
    assert row_gradient.dtype == value_gradient.dtype == torch.float32
    assert_near(row_gradient, wanted)
    assert_near(value_gradient, dots)


@pytest.mark.gpu
def test_twice_the_same_bytes(short_segments):
    token, value, offsets, _ = random_bags(BAGS["uneven"], n_rows=9)
    gradient, rows = random_table(9, 32), random_table(len(offsets), 32, seed=2)
    once, again = (short_segments.decoder_gradients(gradient, token, value, offsets, rows) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", BAGS.values(), ids=BAGS)
@pytest.mark.parametrize(
    ("width", "dtype", "index", "strided"), [(60, torch.float32, torch.int32, True), (33, torch.bfloat16, torch.int64, False)]
)
def test_pair_dots_and_bag_sums(kernels, lengths, width, dtype, index, strided):
    right_row, weight, offsets, bag = random_bags(lengths, n_rows=9, index=index)
    left, right = random_table(len(lengths), width, dtype=dtype, strided=strided), random_table(9, width, dtype=dtype, seed=2)
    found = kernels.pair_dots(left, bag.to(index), right, right_row)
    assert found.dtype == torch.float32
    assert_near(found, slow_pair_dots(left, bag, right, right_row))
    ones = torch.ones(9, 1, dtype=torch.float64, device=DEVICE)
    assert_near(kernels.bag_sums(weight, offsets), slow_weighted_rows(ones, right_row, weight, bag, len(lengths))[:, 0])


@pytest.mark.gpu
def test_wide_rows_take_several_blocks(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK_BYTES", 128)
    row, weight, offsets, bag = random_bags([4, 0, 9], n_rows=7)
    table, rows = random_table(7, 100), random_table(3, 100, seed=2)
    total, dots = kernels.decoder_gradients(table, row, weight, offsets, rows)
    assert_near(total, slow_weighted_rows(table, row, weight, bag, 3))
    assert_near(dots, slow_pair_dots(table, row, rows, bag))
    assert_near(kernels.pair_dots(table, row, rows, bag), slow_pair_dots(table, row, rows, bag))


@pytest.mark.gpu
def test_tables_of_more_than_two_to_the_31_elements(kernels):
    """Rows beyond 2^31 elements, in memory that is asked for but hardly touched."""
    stride = 2**30 + 2**10
    table = torch.empty(3 * stride, dtype=torch.float16, device=DEVICE).as_strided((3, 64), (stride, 1))
    table.copy_(random_table(3, 64, dtype=torch.float16))
    row, weight, offsets, bag = random_bags([3, 4], n_rows=3)
    row[:] = 2
    rows = random_table(2, 64, dtype=torch.float16)
    assert_near(kernels.weighted_rows(table, row, weight, offsets), slow_weighted_rows(table, row, weight, bag, 2), table.dtype)
    assert_near(kernels.pair_dots(table, row, rows, bag), slow_pair_dots(table, row, rows, bag))
    token, feature = kernels.select_above(table, 0.5)
    assert torch.equal(torch.stack([token, feature], 1), (table > 0.5).nonzero())


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("n_tokens", "n_features", "dtype"),
    [(3, 203, torch.float32), (1, 1, torch.float32), (2, 64, torch.bfloat16), (1, 9000, torch.float16), (0, 40, torch.float32)],
)
def test_select_above(kernels, n_tokens, n_features, dtype):
    h = random_table(n_tokens, n_features, dtype=dtype, strided=True)
    if n_features > 1 and n_tokens:
        h[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    per_feature = torch.rand(n_features, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    for cut, bias in (
        (0.5, per_feature),
        (float("inf"), None),
        (-float("inf"), None),
        (torch.tensor(1.0), None),
        (per_feature, None),
    ):
        cut = cut.to(DEVICE) if torch.is_tensor(cut) else cut
        token, feature = kernels.select_above(h, cut, bias=bias)
        assert torch.equal(torch.stack([token, feature], 1), (h.float() + (0 if bias is None else bias) > cut).nonzero())


def compile_kernels(capability):
    """Each kernel for one NVIDIA architecture, in bfloat16; nothing of this needs the device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from cltdb.model import triton_kernels as kernels

    blocks = dict(SEGMENT=256, PAIRS=2, COLUMNS=128)
    sums = dict(offsets="*i64", out="*bf16", partial="*fp32")
    rows = sums | dict(table="*bf16", row="*i64", weight="*fp32", own="*bf16", own_weight="*fp32", dots="*fp32")
    pairs = dict(left="*bf16", left_row="*i64", right="*bf16", right_row="*i32", out="*fp32")
    for kernel, pointers, constants in (
        (kernels._weighted_rows_kernel, rows, blocks | dict(DOTS=False, OWN_WEIGHT=False)),
        (kernels._weighted_rows_kernel, rows, blocks | dict(DOTS=True, OWN_WEIGHT=True)),
        (kernels._add_pieces_kernel, sums, blocks),
        (kernels._pair_dots_kernel, pairs, dict(PAIRS=2, COLUMNS=128)),
        (kernels._bag_sums_kernel, dict(value="*fp32", offsets="*i64", out="*fp32"), dict(PAIRS=128)),
        (
            kernels._mark_above_kernel,
            dict(h="*bf16", bias="*fp32", cut="*fp32", mask="*i32", count="*i32"),
            dict(BLOCK=256, BIAS=True, PER_FEATURE=True),
        ),
        (
            kernels._list_marked_kernel,
            dict(mask="*i32", end="*i64", token_out="*i64", feature_out="*i64"),
            dict(BLOCK=256),
        ),
    ):
        names = kernel.arg_names
        signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
        source = ASTSource(kernel, signature, constexprs={(names.index(name),): value for name, value in constants.items()})
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1}).asm["cubin"]
