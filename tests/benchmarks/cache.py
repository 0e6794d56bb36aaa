"""Writing, reading back, size and signal-to-noise ratio of the activation cache, per codec and compression.

Activations are those of a real model on real text, kept in memory and replayed, so that writing is measured without the model; the
time that the model itself took stands above the table. Every repetition goes through all codecs and compressions in turn. Reading is
one epoch through the loader: checksums, decompression, shuffling and decoding included, files in the page cache. SNR is the lowest
layer's, as the cache stores it; with one channel of every layer 100 times larger, that over the other channels.

    python tests/benchmarks/cache.py --model MODEL --text TEXT.txt [TEXT.txt ...]
    python tests/benchmarks/cache.py            the embedded toy model on its own text
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from replay import BATCH_SEQS, Replay

from cltdb.activations import codec as codecs
from cltdb.activations.cache import write_cache
from cltdb.activations.loader import open_source
from cltdb.activations.settings import Activations, Loader, TextSource
from cltdb.activations.shards import SIDES
from cltdb.activations.tokens import Packing, pack
from cltdb.model.loading import load_model

COMPRESSIONS = ("none", "lz4", "zstd")
CONTEXT, OUTLIER = 256, 5


def write_and_read(replay, sequences, directory, *, codec, compression):
    """(seconds to write, seconds to read an epoch, bytes, summary)."""
    start = time.perf_counter()
    stored = {"codec": codec, "compression": compression, "shard_tokens": 64 * CONTEXT, "batch_seqs": BATCH_SEQS}
    settings = Activations(text=[TextSource(toyworld=True)], **stored)
    write_cache(settings, replay, {"train": sequences}, directory=directory)
    written = time.perf_counter()
    source = open_source(directory, seed=0, options=Loader())
    for _ in source.batches(0, source.n_rows // 1024, 1024):
        pass
    read = time.perf_counter()
    size = sum(path.stat().st_size for path in directory.iterdir())
    return written - start, read - written, size, json.loads((directory / "cache.json").read_text())


def outlier_snr_db(replay, codec):
    """Lowest SNR of a layer over the other channels when one is 100 times larger."""
    lowest = []
    for name in SIDES:
        x = replay.side(name).clone()
        x[..., OUTLIER] *= 100
        scale = codecs.channel_scale(x[: 64 * (CONTEXT - 1)])
        out = np.empty(x.shape, np.float32)
        codecs.decode(codecs.encode(x, codec, scale), codec, scale.numpy(), out)
        others = [channel for channel in range(x.shape[-1]) if channel != OUTLIER]
        noise = (x - torch.from_numpy(out))[..., others].double().square().sum((0, 2))
        lowest.append((10 * torch.log10(x[..., others].double().square().sum((0, 2)) / noise.clamp(min=1e-300))).min().item())
    return min(*lowest, 300.0)


def shown(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toyworld", help="a Hub id or local directory (default the embedded toy model)")
    parser.add_argument("--text", nargs="+", help=".txt files (default the toy model's text)")
    parser.add_argument("--tokens", type=int, default=131_072, help="tokens to cache (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="default %(default)s")
    options = parser.parse_args()
    lm = load_model(options.model, device="cpu")
    text = TextSource(files=[str(Path(path).resolve()) for path in options.text]) if options.text else TextSource(toyworld=True)
    context = min(CONTEXT, lm.max_context)
    sequences, _ = pack(lm, [text], Packing(context, 0, 0, Path("/")), train_tokens=options.tokens)
    replay = Replay(lm, sequences)
    measured = {(codec, compression): [] for codec in codecs.CODECS for compression in COMPRESSIONS}
    for _ in range(options.repetitions):
        for codec, compression in measured:
            with tempfile.TemporaryDirectory() as scratch:
                measured[codec, compression].append(
                    write_and_read(replay, sequences, Path(scratch), codec=codec, compression=compression)
                )
    print(f"{lm.model_id}: {sequences.tokens.size:,} tokens, {lm.n_layers} layers, d_model {lm.d_model}; the model alone took")
    print(f"{replay.seconds:.1f} s; {torch.get_num_threads()} torch threads, {options.repetitions} repetitions\n")
    print("| codec | compression | write, s | read, s | MB | SNR in, dB | SNR out, dB | others beside an outlier, dB |")
    print("|---|---|---|---|---|---|---|---|")
    for (codec, compression), runs in measured.items():
        write, read, size, summaries = zip(*runs, strict=True)
        snr = " | ".join(f"{min(summaries[0][f'{side}_snr_db']):.1f}" for side in SIDES)
        beside = f"{outlier_snr_db(replay, codec):.1f}" if compression == "none" else ""
        print(f"| {codec} | {compression} | {shown(write)} | {shown(read)} | {size[0] / 1e6:.0f} | {snr} | {beside} |")


if __name__ == "__main__":
    main()
