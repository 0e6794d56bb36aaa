"""What `attribute.paths: {}` adds to the whole command `cltdb attribute`: processor time of its process, with and without, on one large graph.

A random GPT-2 and a random CLT, as in attribution.py; the command loads model and dictionary, makes the graph, writes it and its paths into the
database and prints the strongest ones. Both are run in turn; the model's and dictionary's own stages are done before.

    python tests/benchmarks/attribute_command.py
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from attribution import dictionary
from measured import load_average
from worlds import models, projects

import cltdb

SPEC = """
name: paths
model: {id: model}
activations: {text: [{toyworld: true}], context: 32}
train: {from: {format: cltdb, path: dictionary}}
"""


def command(folder, *arguments):
    """CPU seconds of `cltdb` with these arguments, one thread for its sums."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "cltdb", *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 6), ("width", 192), ("features", 3072), ("active", 100), ("tokens", 96), ("repetitions", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--max-edges", type=int, default=10_000_000, help="at least half of these are held; the database stores 2 million"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = projects.new(Path(folder), SPEC, settings="workspace: artifacts\ndatabase: {path: cltdb.duckdb}\n")
        sizes = {"n_layers": options.layers, "d_model": options.width, "num_attention_heads": options.width // 32}
        models.saved(folder / "model", max_position_embeddings=options.tokens, **sizes)
        text = "".join(map(chr, torch.randint(97, 123, (options.tokens - 1,)).tolist()))
        lm = cltdb.load_model(folder / "model")
        made = dictionary(options, lm, lm.prompt_tokens(text))
        made.save(folder / "dictionary")
        adjacency = cltdb.attribute(lm, made, text, max_edges=options.max_edges).effects.adjacency
        command(folder, "run", "paths.yaml", "--until", "train")
        taken, asked = {False: [], True: []}, ["attribute", "paths.yaml", "--prompt", text, "--set"]
        for number in range(2 * options.repetitions):
            with_paths = bool(number % 2)
            settings = [
                f"attribute={{max_edges: {options.max_edges}, supernode_similarity: {0.4 + number / 1e4}"
            ]  # another graph each time
            settings[0] += ", paths: {}}" if with_paths else "}"
            taken[with_paths].append(command(folder, *asked, *settings))
    without, with_paths = (statistics.median(taken[key]) for key in (False, True))
    print("| nodes | edges | CPU s without paths | with paths | difference | load |\n|---|---|---|---|---|---|")
    print(
        f"| {adjacency.n_nodes:,} | {len(adjacency):,} | {without:.1f} | {with_paths:.1f} | {with_paths - without:.2f} | {load_average()} |"
    )


if __name__ == "__main__":
    main()
