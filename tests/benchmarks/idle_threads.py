"""What several runs at once cost, when torch's idle threads sleep (as the command line has it) and when they spin (OpenMP's default).

    python tests/benchmarks/idle_threads.py [--runs 1 2] [--tokens 60000]

A run is the quickstart's model, activations, train and evaluate on fewer tokens, in a process and a project of its own, on the CPU. The two ways take
turns, three times; figures are medians. Prints a table for RESULTS.md. Both ways train the same bytes.
Source: GOMP_SPINCOUNT, in the manual of GNU libgomp: 300,000 is what it does where OMP_WAIT_POLICY is not set.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from measured import cpu_s, load_average

ROOT = Path(__file__).parents[2]
WAYS = {"spin": {"GOMP_SPINCOUNT": "300000"}, "sleep": {}}
REPETITIONS = 3


def once(way, n_runs, tokens):
    """(CPU seconds, wall seconds, digest of each run's dictionary) of so many runs at once."""
    with tempfile.TemporaryDirectory() as folder:
        projects = [Path(folder) / str(number) for number in range(n_runs)]
        for project in projects:
            project.mkdir()
            shutil.copy(ROOT / "cltdb.yaml", project)
            shutil.copy(ROOT / "experiments/quickstart.yaml", project)
        options = ["--until", "evaluate", "--set", "model.device=cpu", "--set", f"activations.train_tokens={tokens}"]
        command = [sys.executable, "-m", "cltdb", "run", "quickstart.yaml", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **WAYS[way]}
        before, start = cpu_s(), time.perf_counter()
        runs = [subprocess.Popen(command, cwd=one, env=environment, stdout=subprocess.DEVNULL) for one in projects]
        assert [run.wait() for run in runs] == [0] * n_runs
        taken = cpu_s() - before, time.perf_counter() - start
        digests = {
            sha256(path.read_bytes()).hexdigest() for one in projects for path in one.glob("artifacts/train/*/*.safetensors")
        }
    return *taken, digests


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, default=60_000)
    arguments = parser.parse_args()
    print("| runs at once | idle threads | CPU s | wall s | load |\n|---|---|---|---|---|")
    digests = set()
    for n_runs in arguments.runs:
        taken = {way: [] for way in WAYS}
        for _ in range(REPETITIONS):
            for way, costs in taken.items():
                *cost, found = once(way, n_runs, arguments.tokens)
                costs.append(cost)
                digests |= found
        for way, costs in taken.items():
            cpu, wall = (statistics.median(column) for column in zip(*costs, strict=True))
            print(f"| {n_runs} | {way} | {cpu:.1f} | {wall:.1f} | {load_average()} |", flush=True)
    print(f"different dictionaries: {len(digests)} (1 expected)")


if __name__ == "__main__":
    main()
