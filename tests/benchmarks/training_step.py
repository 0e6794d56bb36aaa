"""Seconds and memory of one training step on the CPU: cltdb's sparse step, DeepSpeed's engine and all, against the dense reference.

Both sides train the same CLT on the same batches in one process: forward, backward, clipping at the global norm, torch's fused Adam, with
about `--l0` active features per layer and token, kept there by a learning rate that changes nothing. The dense side multiplies
every feature by every decoder (one matrix product per source layer). Floor: the encoder's multiplications at the measured rate of
a matrix product of that shape, plus the bytes that must move (decoder rows that fired read twice, gradients written once, Adam's
seven passes) at the measured bandwidth of a copy. Memory: peak resident size of a process of its own for each side, less parameters,
gradients and optimizer states.

    python tests/benchmarks/training_step.py                                      n_layers 12, d_model 768, n_features 4096, batch 512
    python tests/benchmarks/training_step.py --layers 6 --width 192 --features 3072 --batch 1024
    python tests/benchmarks/training_step.py --orthogonality                      what train.orthogonality adds to a step, and no dense side
"""

import argparse
import gc
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1])]
from worlds.batches import random_source

from cltdb.memory import keep_freed_memory
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Orthogonality, Train

STANDING_STILL = 1e-30  # a learning rate that moves no float32 weight


def settings_of(options, **deepspeed):
    return Train(
        n_features=options.features,
        l0=options.l0,
        batch_tokens=options.batch,
        learning_rate=STANDING_STILL,
        epochs=1000,
        deepspeed=deepspeed,
    )


def cltdb_side(options, source, **deepspeed):
    """A function that makes one step as `cltdb run` does, and the run."""
    run = TrainingRun(settings_of(options, **deepspeed), source=source, heldout=None, seed=0, device="cpu")
    batches = iter(run.batches())

    def step():
        facts = run.make_step(next(batches))
        assert abs(facts.l0.mean().item() - options.l0) < 1, facts.l0

    return step, run


def kernels_side(options, source):
    """The same step without DeepSpeed's engine."""
    step, run = cltdb_side(options, source)
    module, optimizer = run.engine.module, run.engine.optimizer
    coefficient, dead = torch.zeros(options.layers), run.dead()

    def bare():
        x, y = run.scaled(source.batch(0, options.batch))
        module(x, y, coefficient=coefficient, dead=dead, lift=run.lift).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    optimizer.grad_scale = None
    return bare, run


class DenseTranscoder(torch.nn.Module):
    """The same parameters, every feature multiplied."""

    def __init__(self, options, run):
        super().__init__()
        copy = lambda name: torch.nn.ParameterList(getattr(layer, name).detach().clone() for layer in run.engine.module.layers)  # noqa: E731
        self.W_enc, self.b_enc, self.W_dec = copy("W_enc"), copy("b_enc"), copy("W_dec")
        self.b_dec = torch.nn.Parameter(run.engine.module.b_dec.detach().clone())
        self.n_active = round(options.l0 * options.batch)

    def loss(self, x, y):
        error = y - self.b_dec
        self.counts = []
        for source, (W_enc, b_enc, W_dec) in enumerate(zip(self.W_enc, self.b_enc, self.W_dec, strict=True)):
            h = torch.addmm(b_enc, x[:, source], W_enc.T)
            cut = h.detach().flatten().topk(self.n_active, sorted=False).values.min()
            a = h * ((h >= cut) & (h > 0))
            self.counts.append((a.detach() > 0).sum())
            error[:, source:] -= (a @ W_dec.flatten(1)).unflatten(1, W_dec.shape[1:])
        return error.square().sum(-1).mean(0).sum()


def dense_side(options, source, run):
    module = DenseTranscoder(options, run)
    optimizer = torch.optim.Adam(module.parameters(), lr=STANDING_STILL, fused=True)

    def step():
        x, y = run.scaled(source.batch(0, options.batch))
        module.loss(x, y).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert abs(torch.stack(module.counts).float().mean() / options.batch - options.l0) < 1

    return step


def seconds(step, n, clock=time.perf_counter):
    times = []
    for _ in range(n):
        start = clock()
        step()
        times.append(clock() - start)
    return times


def orthogonality(options, source):
    """Prints the CPU seconds of a step with each form of `train.orthogonality`, in turn with those of a step without it."""
    step, run = cltdb_side(options, source)
    penalties = {"without": None}
    for scope in ("source", "target"):
        for weight_by in ("none", "coactivation"):
            penalties[f"{scope}, {weight_by}"] = Orthogonality(scope=scope, weight_by=weight_by, coefficient=1e-6)
    measured = {name: [] for name in penalties}
    for _ in range(options.repetitions):
        for name, penalty in penalties.items():
            run.settings = run.settings.model_copy(update={"orthogonality": penalty})
            seconds(step, 1)
            measured[name].append(statistics.median(seconds(step, options.steps, clock=time.process_time)))
    without = min(measured["without"])  # other work on the machine only adds
    print(f"load {os.getloadavg()[0]:.1f}, {describe(options)}")
    print("| orthogonality | CPU seconds of a step (median) | spread | least, more |")
    print("|---|---|---|---|")
    for name, times in measured.items():
        median = statistics.median(times)
        print(f"| {name} | {median:.3f} | {min(times):.3f} to {max(times):.3f} | {min(times) / without - 1:.1%} |")


def describe(options):
    return (
        f"n_layers {options.layers}, d_model {options.width}, n_features {options.features}, batch {options.batch}, l0 {options.l0}, "
        f"{options.threads} threads, torch {torch.__version__}, float32, {options.repetitions} repetitions of {options.steps} steps"
    )


def floor(options, run):
    """(seconds no step can be faster than, its description)."""
    x, W = torch.randn(options.batch, options.width), torch.randn(options.features, options.width)
    best = lambda work: min(seconds(work, 7))  # noqa: E731
    encoder = options.layers * best(lambda: x @ W.T)
    n = sum(parameter.numel() for parameter in run.engine.module.parameters())
    big = torch.zeros(min(n, 50_000_000))
    other = torch.ones_like(big)
    rate = 8 * len(big) / best(lambda: big.copy_(other))
    x, _ = run.scaled(run.source.batch(0, options.batch))
    touched = 0
    for number, layer in enumerate(run.engine.module.layers):
        pairs = layer.choose(x[:, number], lift=run.lift[number])[0]
        touched += len(pairs.feature.unique()) * layer.W_dec[0].numel()
    moved = 4 * (2 * touched + n + 7 * n)
    flops = 2 * options.batch * options.width * options.features * options.layers
    return encoder + moved / rate, (
        f"encoder {flops / 1e9:.0f} GFLOP at {flops / encoder / 1e9:.0f} GFLOP/s = {encoder:.3f} s, "
        f"{moved / 1e9:.1f} GB at {rate / 1e9:.0f} GB/s = {moved / rate:.3f} s"
    )


def memory(options, side):
    """Peak resident bytes of one side in a process of its own, less parameters, gradients and optimizer states."""
    words = [sys.executable, __file__, "--memory-of", side]
    for name in ("layers", "width", "features", "batch", "l0", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_memory(options):
    source = random_source(2 * options.batch, options.layers, options.width)
    step, run = cltdb_side(options, source)
    state = sum(parameter.numel() for parameter in run.engine.module.parameters()) * 4
    if options.memory_of == "dense":
        run.engine.deepspeed.optimizer = None
        step = dense_side(options, source, run)
        run.engine.module.to("meta")
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    for _ in range(3):
        step()
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(peak * 1024 - before - 3 * state))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 12), ("width", 768), ("features", 4096), ("batch", 512), ("l0", 10), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="measured steps per repetition")
    parser.add_argument("--zero", type=int, nargs="*", default=[1, 2], help="further ZeRO stages to measure")
    parser.add_argument("--orthogonality", action="store_true", help="measure what train.orthogonality adds instead")
    parser.add_argument("--memory-of", choices=("cltdb", "dense"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        return print_memory(options)
    keep_freed_memory()
    source = random_source(4 * options.batch, options.layers, options.width)
    if options.orthogonality:
        return orthogonality(options, source)
    step, run = cltdb_side(options, source)
    sides = {"dense reference": dense_side(options, source, run), "cltdb run (ZeRO 0)": step}
    measured = {name: [] for name in sides}
    for _ in range(options.repetitions):
        for name, work in sides.items():
            seconds(work, 2)
            measured[name].append(statistics.median(seconds(work, options.steps)))
            print(f"{name}: {measured[name][-1]:.3f} s", file=sys.stderr, flush=True)
    del sides["dense reference"]
    bound, words = floor(options, run)
    further = {"without the engine": lambda: kernels_side(options, source)}
    further |= {f"ZeRO {n}": lambda n=n: cltdb_side(options, source, zero_optimization={"stage": n}) for n in options.zero}
    run.engine.deepspeed.destroy()
    del step, run, sides
    for name, make in further.items():
        gc.collect()  # engines are full of cycles, and one holds gigabytes
        step, run = make()
        seconds(step, 2)
        measured[name] = [statistics.median(seconds(step, options.steps)) for _ in range(options.repetitions)]
        run.engine.deepspeed.destroy()
        del step, run
    print(describe(options))
    dense = statistics.median(measured["dense reference"])
    print(f"| {'step':24} | seconds (median) | spread | times faster | share of the floor |")
    print("|---|---|---|---|---|")
    for name, times in measured.items():
        median = statistics.median(times)
        share = "" if name == "dense reference" else f"{bound / median:.0%}"
        print(f"| {name:24} | {median:.3f} | {min(times):.3f} to {max(times):.3f} | {dense / median:.1f} | {share} |")
    print(f"floor {bound:.3f} s: {words}")
    used = {side: memory(options, side) for side in ("cltdb", "dense")}
    print(
        f"peak memory less parameters, gradients and optimizer states: cltdb {used['cltdb'] / 1e6:,.0f} MB, "
        f"dense {used['dense'] / 1e6:,.0f} MB, share {used['cltdb'] / used['dense']:.2f}"
    )


if __name__ == "__main__":
    main()
