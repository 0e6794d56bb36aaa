"""Loader against training step: tokens per second of both, and the loader's memory on a cache and on one 20 times larger.

The caches hold random activations of the given sizes in int8. Each repetition measures, one after the other in this process: the
loader alone (its threads beside an idle consumer), the training step alone (one batch over and over, as `cltdb run` executes it, on
all cores), and the two together, the step taking its batches from the loader. Files come from the page cache where they fit there.
Memory: a fresh process per cache reads an epoch of the small cache, or as many batches of the large one; what counts is the highest
resident memory less what the process had before it opened the cache. `--memory-mb` is the configured bound.

    python tests/benchmarks/loader.py
    python tests/benchmarks/loader.py --layers 12 --width 768 --features 4096 --batch 512 --tokens 40000
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.activations.settings import Activations, Loader, TextSource
from cltdb.activations.tokens import Sequences
from cltdb.memory import keep_freed_memory
from cltdb.model.language_model import Captured
from cltdb.train.settings import Train

CONTEXT = 256
WARM_STEPS = 5


class RandomModel:
    """Stands in for a language model: the activations of a token are rows of a bank of random numbers."""

    model_id, revision, mlp_input, input_hook, dtype = "random", "main", "normed", "mlp.hook_in", torch.float32

    def __init__(self, n_layers, d_model):
        self.n_layers, self.d_model = n_layers, d_model
        self.bank = torch.randn(2, 4096, n_layers, d_model, generator=torch.Generator().manual_seed(0))

    def run(self, tokens, *, with_logits=False):
        return Captured(self.bank[0][tokens], self.bank[1][tokens], None)


def random_sequences(n_tokens):
    n_seqs = -(-n_tokens // CONTEXT)
    tokens = np.random.default_rng(0).integers(0, 4096, (n_seqs, CONTEXT), dtype=np.int32)
    documents = np.repeat(np.arange(n_seqs), CONTEXT).reshape(n_seqs, CONTEXT)
    return Sequences(tokens, documents, np.full((n_seqs, CONTEXT), -1, np.int16), [])


def make_cache(directory, n_tokens, options):
    stored = {"codec": options.codec, "compression": options.compression, "shard_tokens": 16_384}
    settings = Activations(text=[TextSource(toyworld=True)], **stored)
    lm, parts = RandomModel(options.layers, options.width), {"train": random_sequences(n_tokens)}
    write_cache(settings, lm, parts, directory=directory)


def settings_of(options):
    return Loader(
        shuffle_tokens=options.shuffle_tokens, memory_mb=options.memory_mb, threads=options.threads, read_ahead=options.read_ahead
    )


def tokens_per_second(function, n_steps, batch_tokens):
    """Of function(), which makes n_steps steps and yields after each; the first WARM_STEPS do not count."""
    steps = function()
    for _ in range(WARM_STEPS):
        next(steps)
    start = time.perf_counter()
    for _ in range(n_steps):
        next(steps)
    seconds = time.perf_counter() - start
    steps.close()
    return n_steps * batch_tokens / seconds


def measure_speed(directory, options):
    """Rows of the table: (name, tokens/s of each repetition)."""
    from cltdb.train.run import TrainingRun

    source = open_source(directory, seed=0, options=settings_of(options))
    settings = Train(n_features=options.features, batch_tokens=options.batch, epochs=10**6, learning_rate=1e-9)
    run = TrainingRun(settings, source=source, heldout=source, seed=0, device="cpu")
    fixed = source.batch(0, options.batch)

    def loader():
        yield from source.batches(0, 10**6, options.batch)

    def training():
        while True:
            yield run.make_step(fixed)

    def together():
        for batch in source.batches(0, 10**6, options.batch):
            yield run.make_step(batch)

    found = {"loader alone": [], "training step alone": [], "training step fed by the loader": []}
    for _ in range(options.repetitions):
        for name, function, steps in zip(
            found, (loader, training, together), (10 * options.steps, options.steps, options.steps), strict=True
        ):
            found[name].append(tokens_per_second(function, steps, options.batch))
    return found


def peak_memory(directory, n_batches, options):
    """(resident bytes before the cache is opened, highest resident bytes after n_batches), in this process."""
    keep_freed_memory()
    before = memory_of_this_process("VmRSS")
    source = open_source(directory, seed=0, options=settings_of(options))
    for _ in source.batches(0, n_batches, options.batch):
        pass
    return before, memory_of_this_process("VmHWM")


def memory_of_this_process(name):
    """Linux's own count; getrusage would give the parent's peak, which a new process inherits."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def memory_in_fresh_process(directory, n_batches, arguments):
    command = [sys.executable, __file__, *arguments, "--peak", str(directory), str(n_batches)]
    before, after = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return after - before


def shown(values):
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
        ("layers", 6, "n_layers"),
        ("width", 192, "d_model"),
        ("features", 3072, "features per layer of the training step"),
        ("batch", 1024, "tokens per batch"),
        ("tokens", 65_536, "tokens of the small cache; the large one has 20 times as many"),
        ("shuffle-tokens", 16_384, "activations.loader.shuffle_tokens"),
        ("memory-mb", 200, "activations.loader.memory_mb"),
        ("threads", 2, "activations.loader.threads"),
        ("read-ahead", 2, "activations.loader.read_ahead"),
        ("steps", 20, "training steps per measurement"),
        ("repetitions", 3, "measurements"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--codec", default="int8")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--directory", help="where the caches are made for the while (default the system's)")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(*peak_memory(options.peak[0], int(options.peak[1]), options))
        return
    arguments = [argument for argument in sys.argv[1:]]
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        make_cache(small, options.tokens, options)
        make_cache(large, 20 * options.tokens, options)
        n_batches = 2 * options.tokens // options.batch
        memory = {name: memory_in_fresh_process(path, n_batches, arguments) for name, path in (("1x", small), ("20x", large))}
        size = {name: sum(file.stat().st_size for file in path.iterdir()) for name, path in (("1x", small), ("20x", large))}
        speed = measure_speed(large, options)
    print(f"{options.codec}, {options.compression}; {options.layers} layers, d_model {options.width}, batch {options.batch},")
    print(
        f"{torch.get_num_threads()} torch threads, {options.threads} loader threads, pools of {options.shuffle_tokens} tokens\n"
    )
    print("| tokens/s, median (range) | |\n|---|---|")
    for name, values in speed.items():
        print(f"| {name} | {shown(values)} |")
    ratio = statistics.median(speed["loader alone"]) / statistics.median(speed["training step alone"])
    print(f"| loader alone / training step alone | {ratio:.1f} |\n")
    print(f"| peak memory of the loader, bound {options.memory_mb} MB | cache, MB | memory, MB |\n|---|---|---|")
    for name in memory:
        print(f"| {name} | {size[name] / 1e6:,.0f} | {memory[name] / 1e6:,.0f} |")


if __name__ == "__main__":
    main()
