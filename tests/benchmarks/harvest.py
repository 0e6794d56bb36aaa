"""CPU time of a harvest's pass beside its ceiling, the model and the encoder alone on the same batches, in one process; and the memory of a
pass over many features, simulated.

The dictionary is random; its thresholds give log-normal densities with `--l0` active features per layer and token. The pass is all that
happens per token: contexts, statistics, pool, files of the parts. What follows it (tables, neighbours) is listed apart. The ceiling is
measured before and after. CPU seconds are those of the process, so they hold on a busy machine; the load is printed.

    python tests/benchmarks/harvest.py --model MODEL --text TEXT.txt [TEXT.txt ...]
    python tests/benchmarks/harvest.py --simulate 20 50000    features fire at random; no model, no dictionary
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cltdb.activations.settings import TextSource
from cltdb.activations.tokens import Packing, Sequences, pack
from cltdb.engine.stage import ALONE
from cltdb.engine.workspace import write_parquet_groups
from cltdb.harvest.chosen_tokens import Firings
from cltdb.harvest.harvest import FEATURES_AT_ONCE, BatchText, HarvestPass, harvest, see_text
from cltdb.harvest.parts import Found
from cltdb.harvest.settings import Harvest
from cltdb.harvest.tables import WindowedText
from cltdb.harvest.windows import choose_pool
from cltdb.model.loading import load_model
from cltdb.model.transcoder import Dictionary

CONTEXT, SPREAD = 256, 1.5  # of the logarithm of densities
CALIBRATION_SEQS = 16


def densities(n_features, l0, rng):
    density = np.exp(SPREAD * rng.standard_normal(n_features))
    return np.minimum(l0 * density / density.sum(), 0.5)


def random_dictionary(lm, sequences, *, n_features, l0):
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    shape = (lm.n_layers, n_features, lm.d_model)
    parts = {
        "W_enc": torch.randn(shape, generator=generator),
        "b_enc": torch.zeros(shape[:2]),
        "threshold": torch.zeros(shape[:2]),
    }
    W_dec = [torch.randn(n_features, lm.n_layers - layer, lm.d_model, generator=generator) for layer in range(lm.n_layers)]
    dictionary = Dictionary(kind="clt", activation="jumprelu", W_dec=W_dec, b_dec=torch.zeros(shape[0], shape[2]), **parts)
    x = lm.run(torch.from_numpy(sequences.tokens[:CALIBRATION_SEQS]).long(), with_logits=False).mlp_input
    x = x[torch.from_numpy(sequences.ordinary[:CALIBRATION_SEQS])]
    for layer in range(lm.n_layers):
        h = dictionary.pre_activations_layer(x[:, layer], layer).numpy()
        rank = (len(h) * (1 - densities(n_features, l0, rng))).astype(int).clip(0, len(h) - 1)
        dictionary.threshold[layer] = torch.from_numpy(np.sort(h, axis=0)[rank, np.arange(n_features)]).clamp(min=1e-3)
    return dictionary


@torch.no_grad()
def ceiling(lm, dictionary, sequences, batch_seqs):
    """CPU seconds of the model and the encoder alone."""
    began = time.process_time()
    for first in range(0, len(sequences), batch_seqs):
        x = lm.run(torch.from_numpy(sequences.tokens[first : first + batch_seqs]).long(), with_logits=False).mlp_input
        for layer in dictionary.layers:
            dictionary.encode_layer(x[:, :, layer].to(dictionary.device, dictionary.dtype), layer)
    return time.process_time() - began


def measure(options):
    torch.set_num_threads(options.threads)
    lm = load_model(options.model, device="cpu")
    text = TextSource(files=[str(Path(path).resolve()) for path in options.text]) if options.text else TextSource(toyworld=True)
    sequences, _ = pack(lm, [text], Packing(min(CONTEXT, lm.max_context), 0, 0, Path("/")), train_tokens=options.tokens)
    dictionary = random_dictionary(lm, sequences, n_features=options.features, l0=options.l0)
    settings = Harvest(feature_edges=0, batch_seqs=options.batch)
    n_tokens, alone = sequences.tokens.size, [ceiling(lm, dictionary, sequences, options.batch)]
    with tempfile.TemporaryDirectory() as directory:
        began = time.process_time()
        pool = choose_pool(sequences, n_windows=settings.pool_windows, window=settings.window, seed=0)
        state = HarvestPass(settings, dictionary, sequences, pool=pool, counted=np.empty(0, dtype=np.int64), seed=0)
        see_text(lm, state, directory, batch_seqs=options.batch, share=ALONE)
        seen = time.process_time() - began
        written = sum(path.stat().st_size for path in Path(directory).rglob("*.safetensors"))
        alone.append(ceiling(lm, dictionary, sequences, options.batch))
        began = time.process_time()
        harvest(settings, lm, dictionary, sequences, directory=directory, dict_id="d", seed=0)
        after = time.process_time() - began
        l0 = _l0(directory, dictionary)
    print(
        f"{lm.model_id}, {n_tokens:,} tokens, {lm.n_layers} x {options.features:,} features, active per layer {l0}, batch {options.batch},"
    )
    print(
        f"{options.threads} threads, load average {os.getloadavg()[0]:.1f}, peak memory {peak_mb():,.0f} MB, parts {written / 1e6:,.0f} MB\n"
    )
    print("| | CPU s | CPU us per token |\n|---|---|---|")
    for name, seconds in (
        ("ceiling, before", alone[0]),
        ("pass", seen),
        ("ceiling, after", alone[1]),
        ("tables and the rest", after),
    ):
        print(f"| {name} | {seconds:.1f} | {1e6 * seconds / n_tokens:.0f} |")
    print(f"| pass at share of ceiling | {np.mean(alone) / seen:.2f} | |")


def _l0(directory, dictionary):
    import polars as pl

    frame = pl.read_parquet(f"{directory}/tables/features/*.parquet").group_by("layer").agg(pl.col("density").sum())
    return f"{frame['density'].min():.0f} to {frame['density'].max():.0f}"


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Simulated:
    """Stands for model and dictionary: features fire at random, log-normal in density and activation."""

    def __init__(self, n_layers, n_features, l0):
        self.layers, self.n_features, self.rng = tuple(range(n_layers)), n_features, np.random.default_rng(0)
        density = densities(n_features, l0, self.rng)
        self.l0, self.bounds = density.sum(), np.cumsum(density) / density.sum()

    def firings(self, n_tokens):
        n = self.rng.poisson(self.l0 * n_tokens)
        feature = np.searchsorted(self.bounds, self.rng.random(n)).clip(max=self.n_features - 1)
        pairs = np.unique(self.rng.integers(0, n_tokens, n) * self.n_features + feature)
        token, feature = np.divmod(pairs, self.n_features)
        return Firings(token, feature, np.exp(self.rng.standard_normal(len(pairs))).astype(np.float32))


class SimulatedPass(HarvestPass):
    def see(self, lm, first, stop):
        text = BatchText(self, first, stop)
        for layer in self.dictionary.layers:
            self.add(layer, text, self.dictionary.firings((stop - first) * CONTEXT))


def simulate(options):
    n_layers, n_features = options.simulate
    n_seqs = options.tokens // CONTEXT
    rng, shape = np.random.default_rng(1), (n_seqs, CONTEXT)
    tokens, documents = (
        rng.integers(1, 50_000, shape).astype(np.int32),
        np.repeat(np.arange(n_seqs * 2), CONTEXT // 2).reshape(shape),
    )
    sequences = Sequences(tokens, documents, np.zeros(shape, dtype=np.int16), ["en"], ())
    settings = Harvest(feature_edges=0, batch_seqs=options.batch)
    pool = choose_pool(sequences, n_windows=settings.pool_windows, window=settings.window, seed=0)
    simulated = Simulated(n_layers, n_features, options.l0)
    with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
        began = time.process_time()
        state = SimulatedPass(settings, simulated, sequences, pool=pool, counted=np.empty(0, dtype=np.int64), seed=0)
        see_text(None, state, directory, batch_seqs=options.batch, share=ALONE)
        of_pass, seen = peak_mb(), time.process_time() - began
        paths = list(Path(directory).rglob("*.safetensors"))
        written = sum(path.stat().st_size for path in paths)
        del state
        text, found = WindowedText(settings, sequences, dict_id="d"), Found(directory, n_seqs)
        for layer in simulated.layers:
            starts = range(0, n_features, FEATURES_AT_ONCE)
            made = (text.windows(layer, found.peaks(layer, range(n, min(n + FEATURES_AT_ONCE, n_features)))) for n in starts)
            write_parquet_groups(Path(directory) / f"{layer}.parquet", made)
        tables = sum(path.stat().st_size for path in Path(directory).glob("*.parquet"))
    print(
        f"{n_layers} x {n_features:,} features, {options.tokens:,} tokens, {options.l0} active per layer, batch {options.batch}, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"pass, drawing included: {seen:.0f} CPU s, peak memory {of_pass:,.0f} MB; {len(paths)} parts of {written / 1e6:,.0f} MB in all"
    )
    print(
        f"tables windows: {time.process_time() - began - seen:.0f} CPU s, peak memory of all {peak_mb():,.0f} MB, {tables / 1e6:,.0f} MB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toyworld", help="a Hub id or local directory (default the embedded toy model)")
    parser.add_argument("--text", nargs="+", help=".txt files (default the toy model's text)")
    parser.add_argument("--tokens", type=int, default=200_000, help="default %(default)s")
    parser.add_argument("--features", type=int, default=3072, help="per layer, default %(default)s")
    parser.add_argument("--l0", type=float, default=24, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="sequences, default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default %(default)s")
    parser.add_argument("--simulate", type=int, nargs=2, metavar=("LAYERS", "FEATURES"), help="features per layer")
    parser.add_argument("--scratch", help="folder for the files of a simulation")
    options = parser.parse_args()
    simulate(options) if options.simulate else measure(options)


if __name__ == "__main__":
    main()
