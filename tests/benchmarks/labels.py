"""What reading files of labels costs: a Neuronpedia export in gzipped batches with and without embeddings, and a table, beside the plain loop.

    python tests/benchmarks/labels.py --labels 1000000

Prints a table for RESULTS.md: CPU seconds and peak memory of each, in a process of its own.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.measured import cost, load_average

WORDS = "names of capital cities and phrases about rivers verbs that express doubt numbers in tables code comments legal terms".split()
EMBEDDING = json.dumps([round(index / 997, 6) for index in range(256)])
LAYERS, BATCH = 26, 1024


def write(folder, n):
    """Exports of n labels, one with an embedding for every tenth as many, and a table."""
    rng = random.Random(0)
    for name, count, embedding in (("export", n, None), ("embedded", n // 10, EMBEDDING)):
        for first in range(0, count, BATCH):
            path = folder / f"{name}/explanations/batch-{first // BATCH}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = (
                {"id": f"c{index:024d}", "modelId": "gemma-2-2b", "layer": f"{index % LAYERS}-gemmascope-transcoder-16k", "index": str(index // LAYERS),
                 "description": " ".join(rng.choices(WORDS, k=9)), "embedding": embedding, "typeName": "oai_token-act-pair",
                 "explanationModelName": "gpt-4o-mini"}
                for index in range(first, min(first + BATCH, count))
            )  # fmt: skip
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), 1))
    lines = (f"{index % LAYERS},{index // LAYERS},{' '.join(rng.choices(WORDS, k=9))}\n" for index in range(n))
    (folder / "table.csv").write_text("layer,feature,text\n" + "".join(lines))


def read(folder, format, path):
    def prepare():
        from cltdb.explain.labels.labels import labels_of
        from cltdb.explain.labels.settings import Labels

        return lambda: labels_of(Labels(name="theirs", path=path, format=format), folder).height

    return prepare


def loop(folder):
    """Every line through json.loads into a list of tuples."""

    def rows():
        for path in sorted((folder / "export/explanations").iterdir()):
            with gzip.open(path, "rb") as file:
                for row in map(json.loads, file):
                    yield row["layer"], row["index"], row["description"]

    return lambda: lambda: len(list(rows()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1_000_000)
    n = parser.parse_args().labels
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, n)
        ways = {
            "Neuronpedia export": read(folder, "neuronpedia", "export"),
            "json.loads of its lines": loop(folder),
            "export with embeddings, a tenth of the labels": read(folder, "neuronpedia", "embedded"),
            "table": read(folder, "table", "table.csv"),
        }
        print("| read | labels | CPU s | peak MB |\n|---|---|---|---|")
        for name, prepare in ways.items():
            found = cost(prepare, repetitions=3)
            print(f"| {name} | {found.result:,} | {found.cpu_s:.2f} | {found.peak_mb:.0f} |")
    print(f"\nload average {load_average()}", file=sys.stderr)


if __name__ == "__main__":
    main()
