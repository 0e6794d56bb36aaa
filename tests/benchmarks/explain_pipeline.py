"""How close explaining and scoring by a language model comes to the server's own time, and how many requests a feature takes.

    python tests/benchmarks/explain_pipeline.py [--features 2000] [--concurrency 32] [--seconds 0.5]

Features are planted; each is explained by `llm` and scored in detection and fuzzing, with all baselines. The server (tests/explain/http_model.py) runs
in a process of its own and takes the given seconds for every answer, for any number at once. Its own time is requests × seconds / concurrency. Prints
a table for RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from explain.http_model import __file__ as SERVER
from explain.test_two_thousand_features import write_many
from measured import cpu_s, load_average
from worlds.planted import explain_planted

from cltdb.engine.units import Units
from cltdb.explain.requests.access import load_litellm


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.5)
    arguments = parser.parse_args()
    command = [sys.executable, SERVER, str(arguments.seconds), "fitting"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    load_litellm()
    try:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            write_many(folder / "harvest", arguments.features)
            settings = dict(
                model="openai/m", api_base=address, concurrency=arguments.concurrency, scorers=["detection", "fuzzing"]
            )
            units = Units(folder, folder / "explain/k")
            before, start = cpu_s(), time.perf_counter()
            explanations, _ = explain_planted(folder / "harvest", folder / "explain/k", seed=3, units=units, **settings)
            taken, cpu = time.perf_counter() - start, cpu_s() - before
        with urllib.request.urlopen(urllib.request.Request(f"{address}/counts", data=b"")) as response:
            counts = json.load(response)
    finally:
        server.kill()
        server.wait()
    n, n_ok = counts["requests"], len(explanations.filter(explainer="llm", status="ok"))
    own = n * arguments.seconds / arguments.concurrency
    print(
        "| features, explained | requests | a feature | answered twice | most at once | server's own time, s | taken, s | ratio | CPU ms a request | load |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
        f"| {arguments.features}, {n_ok} | {n} | {n / arguments.features:.2f} | {counts['repeated']} | {counts['most_in_flight']} | {own:.1f} | "
        f"{taken:.1f} | {taken / own:.2f} | {1000 * cpu / n:.1f} | {load_average()} |"
    )


if __name__ == "__main__":
    main()
