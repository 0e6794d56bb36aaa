"""A graph in the database: seconds to load 5,000 nodes and a million edges, and to get its pruned subgraph back at several thresholds,
connection included.

    python tests/benchmarks/stored_graph.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import cltdb
from cltdb.database import load
from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, influence

N_FEATURES, N_ERRORS, N_EMBEDDINGS, N_LOGITS, N_LAYERS = 4000, 900, 90, 10, 12
THRESHOLDS = ((0.5, 0.9), (0.8, 0.98), (0.95, 0.99), (1.0, 1.0))


def random_graph(n_edges, seed=0):
    """(nodes, edges) frames: features of N_LAYERS layers read features of earlier ones, errors and embeddings; logits read all."""
    rng = np.random.default_rng(seed)
    n = N_FEATURES + N_ERRORS + N_EMBEDDINGS + N_LOGITS
    layer = np.concatenate(
        [
            np.sort(rng.integers(0, N_LAYERS, N_FEATURES)),
            np.sort(rng.integers(0, N_LAYERS, N_ERRORS)),
            np.full(N_EMBEDDINGS, -1),
            np.full(N_LOGITS, N_LAYERS),
        ]
    )
    has_input = np.arange(n) < N_FEATURES
    has_input[-N_LOGITS:] = True
    target, source = np.nonzero((layer[:, None] > layer[None, :]) & has_input[:, None])
    chosen = np.sort(rng.permutation(len(target))[:n_edges])
    target, source, weight = target[chosen], source[chosen], rng.standard_normal(n_edges) ** 3
    adjacency = Adjacency.of_rows(n, source.astype(np.int32), target, weight, np.zeros(n))
    probability = np.zeros(n)
    probability[-N_LOGITS:] = 0.09
    kinds = ["feature"] * N_FEATURES + ["error"] * N_ERRORS + ["embedding"] * N_EMBEDDINGS + ["logit"] * N_LOGITS
    nodes = pl.DataFrame(
        {
            "graph_id": "g",
            "node_id": pl.Series(np.arange(n), dtype=pl.Int32),
            "kind": kinds,
            "layer": pl.Series(layer, dtype=pl.Int32),
            "position": pl.Series(rng.integers(1, N_EMBEDDINGS, n), dtype=pl.Int32),
            "influence": influence(Shares(adjacency), probability),
            "probability": probability,
            "expanded": has_input,
            "dropped_mass": 0.0,
            "kept": True,
        }
    )
    edges = pl.DataFrame(
        {
            "graph_id": "g",
            "source_id": pl.Series(source, dtype=pl.Int32),
            "target_id": pl.Series(target, dtype=pl.Int32),
            "weight": weight,
            "influence": rng.random(n_edges),
            "kept": rng.random(n_edges) < 0.1,
            "measured": pl.Series([None] * n_edges, dtype=pl.Float64),
        }
    )
    return nodes, edges


def seconds(function, repeats):
    """(median, lowest, highest) of the seconds of `function`, after one call that does not count."""
    function()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), min(taken), max(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    nodes, edges = random_graph(options.edges)
    with tempfile.TemporaryDirectory() as folder:
        artifact, path = Path(folder) / "artifacts/attribute/k", Path(folder) / "cltdb.duckdb"
        for table, frame in (("nodes", nodes), ("edges", edges)):
            (artifact / "tables" / table).mkdir(parents=True)
            frame.write_parquet(artifact / "tables" / table / "g.parquet")
        print("| what | nodes | edges | seconds, median (lowest to highest) |\n|---|---|---|---|")

        def loaded():
            load.unload_artifact(path, key="k")
            start = time.perf_counter()
            load.load_artifact(path, key="k", directory=artifact)
            return time.perf_counter() - start

        load.load_artifact(path, key="k", directory=artifact)
        taken = [loaded() for _ in range(3)]
        print(f"| load | {nodes.height:,} | {edges.height:,} | {_row((statistics.median(taken), min(taken), max(taken)))} |")
        db = cltdb.open(path)
        for node_threshold, edge_threshold in THRESHOLDS:

            def ask(node=node_threshold, edge=edge_threshold):
                return db.subgraph("g", node_threshold=node, edge_threshold=edge)

            found = ask()
            print(
                f"| subgraph at {node_threshold}, {edge_threshold} | {found.nodes.height:,} | {found.edges.height:,} | "
                f"{_row(seconds(ask, options.repeats))} |"
            )


def _row(taken):
    median, lowest, highest = taken
    return f"{median:.3f} ({lowest:.3f} to {highest:.3f})"


if __name__ == "__main__":
    main()
