"""Seconds and memory of attribution graphs by length of the prompt, with every edge kept and with max_features.

A random GPT-2 and a random CLT of which about `--active` features fire per position over all layers; each row in a process of its own.
"all": every active feature is a target, every edge is kept. Memory: what the process's peak is above its size before `attribute`.
Floor: the multiplications of the frozen maps backwards and of the read-outs, over positions and layers that can be reached, at the
measured rate of a matrix product of the same width.

    python tests/benchmarks/attribution.py
    python tests/benchmarks/attribution.py --tokens 64 256 --max-features 2000
    python tests/benchmarks/attribution.py --tokens 96 --max-edges 7000000    # paths: a graph of 10,000 nodes and 5 million edges

Paths: processor time of the rows of `attribute.paths: {}`, searching and splitting into routes included; before it in the process stands what
every graph computes (scores, influence).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

sys.path[:0] = [str(Path(__file__).parents[2])]

from cltdb.attribution.graph import attribute
from cltdb.attribution.path_tables import path_frames
from cltdb.attribution.settings import Paths
from cltdb.memory import keep_freed_memory
from cltdb.model.language_model import LanguageModel
from cltdb.model.transcoder import Dictionary


class NumberTokenizer:
    """Prompts are given as token ids."""

    bos_token_id = eos_token_id = 0


def language_model(options):
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=options.width, n_layer=options.layers, n_head=options.width // 32, n_positions=max(options.tokens), vocab_size=1000
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return LanguageModel(model, NumberTokenizer(), model_id="random")


def dictionary(options, lm, tokens):
    """A random CLT whose thresholds let `--active` features per position through on this prompt."""
    L, F, D = options.layers, options.features, options.width
    W_enc = torch.randn(L, F, D) / D**0.5
    x = lm.run(torch.tensor([tokens]), with_logits=False).mlp_input[0, 1:]
    h = torch.einsum("pld,lfd->plf", x, W_enc)
    n_kept = round(options.active / L * len(x))
    cuts = torch.stack([h[:, layer].flatten().topk(n_kept).values[-1] for layer in range(L)])
    return Dictionary(
        kind="clt",
        activation="jumprelu",
        W_enc=W_enc,
        b_enc=torch.zeros(L, F),
        W_dec=[torch.randn(F, L - layer, D) / 30 for layer in range(L)],
        b_dec=torch.zeros(L, D),
        threshold=cuts[:, None].expand(L, F).clamp(min=0).contiguous(),
    )


def matmul_rate(width):
    """Multiply-adds per second, twice counted."""
    a, b = torch.randn(16_384, width), torch.randn(width, width)
    best = min(_timed(lambda: a @ b) for _ in range(7))
    return 2 * a.numel() * width / best


def _timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def flops(graph, options):
    """Of all expanded targets: the maps of the layers below on positions up to the target's, and a product per edge and target layer."""
    index, D, total = graph.index, options.width, 0
    expanded = graph.effects.expanded[index.features]
    at_end = np.ones(len(index.logit_tokens), dtype=np.int64)
    layers = np.concatenate([index.feature_layer[expanded], at_end * options.layers])
    positions = np.concatenate([index.feature_position[expanded], at_end * (index.n_positions - 1)]) + 1
    n_attentions = layers + (layers < options.layers)
    total += int((n_attentions * positions * 2 * 2 * D * D).sum())
    total += int((n_attentions * positions * positions * D).sum())
    counts = np.zeros((options.layers, index.n_positions), dtype=np.int64)
    np.add.at(counts, (index.feature_layer, index.feature_position), 1)
    reached = counts.cumsum(1)  # features of a layer up to a position
    for source in range(options.layers):
        above = layers > source
        total += int((reached[source, positions[above] - 1] * (layers[above] - source) * 2 * D).sum())
    return total


def measure(options):
    """One row, printed as JSON: runs in a process of its own."""
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    (n_tokens,) = options.tokens
    lm, tokens = language_model(options), [0, *torch.randint(1, 1000, (n_tokens - 1,)).tolist()]
    d = dictionary(options, lm, tokens)
    rate = matmul_rate(options.width)
    settings = {"max_features": options.max_features, "max_edges": options.max_edges}
    attribute(lm, d, tokens[:8], **settings)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    graph = attribute(lm, d, tokens, **settings)
    seconds = time.perf_counter() - start
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    facts = {
        "features": len(graph.index.feature),
        "targets": int(graph.effects.expanded.sum()),
        "edges": len(graph.effects.adjacency),
        "seconds": seconds,
        "memory": peak * 1024 - before,
        "floor": flops(graph, options) / rate,
    }
    start = time.perf_counter()
    _ = graph.scores
    facts |= {"scores": time.perf_counter() - start, "nodes": len(graph.index), "logits": len(graph.index.logit_tokens)}
    start = time.process_time()
    frames = path_frames(graph, Paths())
    facts |= {"paths": time.process_time() - start} | {f"n_{name}": frame.height for name, frame in frames.items()}
    print(json.dumps(facts | {"load": os.getloadavg()[0]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 6), ("width", 192), ("features", 3072), ("active", 100), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--max-features", type=int, default=2000)
    parser.add_argument("--max-edges", type=int, default=200_000_000)
    parser.add_argument("--all-up-to", type=int, default=256, help="longest prompt of which all features are targets")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.max_features = options.max_features or None
        return measure(options)
    columns = ["tokens", "targets", "nodes", "active features", "edges", "seconds", "share of the floor", "memory, MB"]
    columns += ["seconds for the scores", "CPU s for the paths", "targets of paths", "paths", "rows of their steps", "load"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for n_tokens in options.tokens:
        for limit in (0, options.max_features):
            if limit == 0 and n_tokens > options.all_up_to:
                continue
            words = [sys.executable, __file__, "--one", "--tokens", str(n_tokens), "--max-features", str(limit)]
            for name in ("layers", "width", "features", "active", "threads", "max_edges"):
                words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
            facts = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            kind = "all" if limit == 0 else f"{limit}"
            print(
                f"| {n_tokens} | {kind} | {facts['nodes']:,} | {facts['features']:,} | {facts['edges']:,} | {facts['seconds']:.2f} | "
                f"{facts['floor'] / facts['seconds']:.0%} | {facts['memory'] / 1e6:,.0f} | {facts['scores']:.2f} | "
                f"{facts['paths']:.2f} | {facts['logits']} | {facts['n_paths']} | {facts['n_path_steps']:,} | {facts['load']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
