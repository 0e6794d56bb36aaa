"""Seconds and memory of one training step on a CUDA device: cltdb's sparse kernels against the dense reference of the same mathematics.

Both sides hold the same BatchTopK CLT and take the same batch in one process. Dense: einsum over every feature under autocast, through
torch.compile, each source layer multiplied with the targets it has and no others; its cut is found as the sparse side finds its own, from
few candidates (autocast rounds its pre-activations, so that some more of them are tied with the cut). Both sides: the same parameters
in `--dtype`, torch's fused Adam, either on these parameters (`plain`) or on float32 copies of them (`masters`); learning rate 0. Each
repetition measures both sides in turn: two warm-up steps, then the median of `--steps`. Before that, loss and gradients of the two
sides are compared in float32 on few tokens; if they are not equal the script ends with status 1.

Floor: what no step can be faster than. The encoder's multiplications at the measured rate of that very matrix product, plus, at the
measured bandwidth of a copy, the bytes that must move through the device's memory: decoders of features that fired read once forward and
once backward, all weight gradients written once; for the whole step also Adam's pass (float32 masters: 28 bytes a parameter, plain bfloat16: 14).
At the default size that is 1.86 TFLOP and 9.3 GB (about 5 ms at 700 TFLOP/s and 4.2 TB/s), and 48 GB (11 ms) for Adam on masters; the dense
side multiplies 40 TFLOP (57 ms). Above the floor: each pair gathers its feature's decoder forward and its token's error gradient
backward, 15.7 GB each, mostly from the L2 cache; pre-activations are written and read once each; in bfloat16 the device waits for the host
a quarter of the time or more. RESULTS.md has figures.

    python tests/benchmarks/training_step_gpu.py
    python tests/benchmarks/training_step_gpu.py --orthogonality  what train.orthogonality adds to a step, without the dense side
    python tests/benchmarks/training_step_gpu.py --interpret      the same code, tiny, on the CPU in Triton's interpreter: no measurement
"""

import argparse
import os
import statistics
import sys
import time
from functools import partial
from itertools import count

import torch

from cltdb.model.nonlinearity import batch_top_k
from cltdb.train.module import Transcoder
from cltdb.train.orthogonality import Sample
from cltdb.train.settings import Orthogonality, Train

SIZES = {"layers": 12, "width": 768, "features": 24576, "batch": 4096, "l0": 32, "repetitions": 3, "steps": 10}
TINY = {"layers": 2, "width": 32, "features": 24, "batch": 6, "l0": 1, "repetitions": 1, "steps": 1}
INTERPRET = "--interpret" in sys.argv
COPY_BYTES = 2**16 if INTERPRET else 2**31
CHECK_TOKENS = 256
CHECK_TOLERANCE = 1e-4 if INTERPRET else 2e-2  # at full size, roundings may exchange a few pairs at the cut


class Sparse:
    """cltdb's transcoder as it trains, less DeepSpeed's engine."""

    def __init__(self, module, options):
        self.module = module
        self.coefficient = torch.zeros(options.layers, device=options.device)
        self.dead = torch.zeros(options.layers, options.features, dtype=torch.bool, device=options.device)
        self.lift = torch.zeros(options.layers, options.features, device=options.device)

    def loss(self, x, y, sample=None):
        return self.module(x, y, coefficient=self.coefficient, dead=self.dead, lift=self.lift, sample=sample).loss


def print_orthogonality(module, x, y, options):
    """Milliseconds of a step with Adam on float32 copies, without `train.orthogonality` and with each form of it, in turn."""
    sparse, n_targets, draws = Sparse(module, options), [module.n_targets(n) for n in range(options.layers)], count()
    optimizer = MasterAdam(module.parameters())

    def step_with(penalty):
        def step():
            module.zero_grad(set_to_none=True)
            sample = penalty and Sample(
                penalty,
                n_features=options.features,
                n_targets=n_targets,
                seed=[0, next(draws)],
                parallel=module.parallel,
                device=x.device,
            )
            sparse.loss(x, y, sample=sample).backward()
            optimizer.step()

        return step

    forms = [(scope, weight_by) for scope in ("source", "target") for weight_by in ("none", "coactivation")]
    steps = {"without": step_with(None)}
    steps |= {f"{scope}, {by}": step_with(Orthogonality(scope=scope, weight_by=by)) for scope, by in forms}
    times = {name: [] for name in steps}
    for _ in range(options.repetitions):
        for name, step in steps.items():
            seconds(step, 0 if INTERPRET else 2, options)
            times[name].append(statistics.median(seconds(step, options.steps, options)))
    without = statistics.median(times["without"])
    print("| orthogonality | ms of a step (median) | spread | more |")
    print("|---|---|---|---|")
    for name, some in times.items():
        median = statistics.median(some)
        print(f"| {name} | {median * 1e3:.2f} | {min(some) * 1e3:.2f} to {max(some) * 1e3:.2f} | {median / without - 1:.1%} |")


class Dense:
    """Every feature multiplied: the obvious twin, its parameters copied from a `Transcoder` and in its order."""

    def __init__(self, module, options):
        self.module, self.options, self.layer, self.cut = torch.nn.ParameterDict(), options, _dense_layer, _cut
        for name, parameter in module.named_parameters():
            self.module[name.replace(".", " ")] = torch.nn.Parameter(parameter.detach().clone())

    def compile(self):
        torch._dynamo.config.recompile_limit = 2 * self.options.layers + 1  # every layer has shapes of its own
        self.layer = torch.compile(_dense_layer, backend=self.options.compile, dynamic=False)
        self.cut = torch.compiler.disable(_cut)

    def loss(self, x, y):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            error = y.float() - self.module["b_dec"].float()
            find_cut = partial(self.cut, n_wanted=self.options.l0 * len(x))
            for source in range(self.options.layers):
                weights = (self.module[f"layers {source} {name}"] for name in ("W_enc", "b_enc", "W_dec"))
                error = self.layer(error, x, *weights, source, find_cut)
            return error.square().sum(-1).mean(0).sum()


def _dense_layer(error, x, W_enc, b_enc, W_dec, source, find_cut):
    """error [token, layer, d_model] less what the features of one layer write."""
    h = torch.einsum("td,fd->tf", x[:, source], W_enc) + b_enc
    a = torch.where(h >= find_cut(h), h, 0)
    written = torch.einsum("tf,fld->tld", a, W_dec)
    return error - torch.nn.functional.pad(written, (0, 0, source, 0))


@torch.no_grad()
def _cut(h, n_wanted):
    """What the n_wanted largest values of h reach, positive."""
    h = h if h.is_cuda else h.float()
    return batch_top_k(lambda: [h], n_wanted, n_values=h.numel())[2].min()


class PlainAdam:
    """torch's fused Adam on the parameters as they are."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.adam = torch.optim.Adam(self.parameters, lr=0.0, fused=True)

    def step(self):
        self.adam.step()


class MasterAdam(PlainAdam):
    """torch's fused Adam on float32 copies of the parameters."""

    def __init__(self, parameters):
        self.rounded = list(parameters)
        super().__init__([parameter.detach().float().clone() for parameter in self.rounded])
        for master in self.parameters:
            master.grad = torch.empty_like(master)

    def step(self):
        torch._foreach_copy_([master.grad for master in self.parameters], [rounded.grad for rounded in self.rounded])
        self.adam.step()
        with torch.no_grad():
            torch._foreach_copy_(self.rounded, self.parameters)


def wait(options):
    if options.device == "cuda":
        torch.cuda.synchronize()


def make_step(side, x, y, optimizer):
    """A function that makes one step; without optimizer forward and backward alone."""

    def step():
        side.module.zero_grad(set_to_none=True)
        side.loss(x, y).backward()
        if optimizer is not None:
            optimizer.step()

    return step


def seconds(work, n, options):
    times = []
    for _ in range(n):
        wait(options)
        start = time.perf_counter()
        work()
        wait(options)
        times.append(time.perf_counter() - start)
    return times


def measure(sides, x, y, make_optimizer, options):
    """{side: (medians of the repetitions in seconds, peak bytes above what was held before the step, None off CUDA)}."""
    steps, peaks = {}, {}
    for name, side in sides.items():
        optimizer = make_optimizer(side.module.parameters()) if make_optimizer else None
        steps[name] = make_step(side, x, y, optimizer)
    times = {name: [] for name in sides}
    for _ in range(options.repetitions):
        for name, step in steps.items():
            seconds(step, 0 if INTERPRET else 2, options)
            sides[name].module.zero_grad(set_to_none=True)
            if options.device == "cuda":
                held = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            times[name].append(statistics.median(seconds(step, options.steps, options)))
            peaks[name] = torch.cuda.max_memory_allocated() - held if options.device == "cuda" else None
            sides[name].module.zero_grad(set_to_none=True)
    return {name: (times[name], peaks[name]) for name in sides}


def difference(sides, x, y):
    """Largest relative difference, over the loss and the parameters' gradients, between the sides."""
    losses, gradients = [], []
    for side in sides.values():
        side.module.zero_grad(set_to_none=True)
        loss = side.loss(x, y)
        loss.backward()
        losses.append(loss.detach().float())
        gradients.append([parameter.grad for parameter in side.module.parameters()])
    found = [_relative(*losses)] + [_relative(a, b) for a, b in zip(*gradients, strict=True)]
    for side in sides.values():
        side.module.zero_grad(set_to_none=True)
    return max(found)


def _relative(a, b):
    difference = torch.linalg.vector_norm(a - b, dtype=torch.float32)
    return float(difference / torch.linalg.vector_norm(b, dtype=torch.float32).clamp(min=1e-30))


def floor(module, x, options):
    """(seconds of the encoder's multiplications, bytes per second of a copy, bytes of forward and backward, parameters)."""

    def encode():
        for number, layer in enumerate(module.layers):
            x[:, number] @ layer.W_enc.detach().T

    touched = 0
    for number, layer in enumerate(module.layers):
        pairs = layer.choose(x[:, number], lift=torch.zeros(len(layer.W_enc), device=x.device))[0]
        touched += len(pairs.feature.unique()) * layer.W_dec[0].numel()
    big = torch.ones(COPY_BYTES, dtype=torch.uint8, device=options.device)
    other = torch.zeros_like(big)
    encoder, copy = (min(seconds(work, 7, options)) for work in (encode, lambda: other.copy_(big)))
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    return encoder, 2 * COPY_BYTES / copy, (2 * touched + n_parameters) * module.b_dec.element_size(), n_parameters


def report(rows, encoder, bandwidth, options):
    """rows: {what: (measured, bytes that must move)}."""
    print("| what | side | ms (median) | spread | times faster | share of the floor | peak memory above state, GB |")
    print("|---|---|---|---|---|---|---|")
    for what, (measured, moved) in rows.items():
        bound = encoder + moved / bandwidth
        dense = statistics.median(measured["dense"][0])
        for side, (times, peak) in measured.items():
            median = statistics.median(times)
            faster, share = ("", "") if side == "dense" else (f"{dense / median:.2f}", f"{bound / median:.0%}")
            memory = "not measured" if peak is None else f"{peak / 1e9:.2f}"
            spread = f"{min(times) * 1e3:.2f} to {max(times) * 1e3:.2f}"
            print(f"| {what} | {side} | {median * 1e3:.2f} | {spread} | {faster} | {share} | {memory} |")
        print(f"| {what} | floor | {bound * 1e3:.2f} | | | | |")
    flops = 2 * options.batch * options.width * options.features * options.layers
    print(f"encoder {flops / 1e12:.3g} TFLOP at {flops / encoder / 1e12:.3g} TFLOP/s, copy {bandwidth / 1e9:.3g} GB/s")


def describe(options, n_parameters):
    where = "Triton's interpreter" if INTERPRET else torch.cuda.get_device_name()
    return (
        f"n_layers {options.layers}, d_model {options.width}, n_features {options.features}, batch {options.batch}, l0 {options.l0}, "
        f"{options.dtype}, {n_parameters / 1e9:.3g} G parameters, torch {torch.__version__}, {where}, "
        f"{options.repetitions} repetitions of {options.steps} steps"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (TINY if INTERPRET else SIZES).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of parameters and batch")
    parser.add_argument("--uneven", type=float, default=0.5, help="standard deviation of the encoder's biases, default 0.5")
    parser.add_argument("--compile", default="aot_eager" if INTERPRET else "inductor", help="torch.compile's backend")
    parser.add_argument("--orthogonality", action="store_true", help="measure what train.orthogonality adds instead")
    parser.add_argument("--interpret", action="store_true", help="tiny, on the CPU in Triton's interpreter: to test this script")
    options = parser.parse_args()
    options.device = "cpu" if INTERPRET else "cuda"
    if INTERPRET:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, and by cltdb.model.sparse
    elif not torch.cuda.is_available():
        sys.exit(
            "error: this benchmark needs a CUDA device and found none; --interpret runs it tiny on the CPU, measuring nothing"
        )
    settings = Train(n_features=options.features, l0=options.l0, batch_tokens=options.batch)
    generator = torch.Generator(options.device).manual_seed(0)
    with torch.device(options.device):
        module = Transcoder(settings, n_layers=options.layers, d_model=options.width, generator=generator)
        x, y = (torch.randn(options.batch, options.layers, options.width, generator=generator) for _ in range(2))
        with torch.no_grad():
            for layer in module.layers:
                layer.b_enc.normal_(std=options.uneven, generator=generator)
    if options.orthogonality:
        dtype = getattr(torch, options.dtype)
        print(describe(options, sum(parameter.numel() for parameter in module.parameters())))
        return print_orthogonality(module.to(dtype), x.to(dtype), y.to(dtype), options)
    sides = {"sparse": Sparse(module, options), "dense": Dense(module, options)}
    unequal = difference(sides, x[:CHECK_TOKENS], y[:CHECK_TOKENS])
    dtype = getattr(torch, options.dtype)
    x, y = x.to(dtype), y.to(dtype)
    for side in sides.values():
        side.module.to(dtype)
    sides["dense"].compile()
    encoder, bandwidth, moved, n_parameters = floor(module, x, options)
    adam_bytes = {"masters": 24 + 2 * dtype.itemsize, "plain": 7 * dtype.itemsize}
    rows = {
        "forward and backward": (measure(sides, x, y, None, options), moved),
        "step, Adam on masters": (measure(sides, x, y, MasterAdam, options), moved + adam_bytes["masters"] * n_parameters),
        "step, plain Adam": (measure(sides, x, y, PlainAdam, options), moved + adam_bytes["plain"] * n_parameters),
    }
    print(describe(options, n_parameters))
    report(rows, encoder, bandwidth, options)
    print(f"loss and gradients of the sides differ by at most {unequal:.1e} in float32")
    if unequal > CHECK_TOLERANCE:
        sys.exit(f"error: the sides do not compute the same: {unequal:.1e} is more than {CHECK_TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
