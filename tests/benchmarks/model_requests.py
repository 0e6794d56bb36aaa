"""How close a run of requests to a language model comes to the server's own time.

    python tests/benchmarks/model_requests.py [--requests 2000] [--concurrency 32] [--seconds 0.5]

The server (tests/explain/http_model.py) runs in a process of its own and takes the given seconds for every answer, for any number at once. Its own
time is requests × seconds / concurrency. Prints a table for RESULTS.md: one line where it always answers; one where every third try fails,
in turn in every way but by silence, for which its own time counts what it was sent.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from explain.http_model import __file__ as SERVER
from measured import cpu_s, load_average

from cltdb.engine.units import Units
from cltdb.explain.requests.client import Client, Request, run
from cltdb.explain.settings import Explain

TOKENS = "the cat sat on the mat and looked at the dog " * 60


def ask(client, numbers):
    """Asks a request of about 700 tokens for each number; returns their replies."""

    async def main():
        asked = (Request("detection", [{"role": "user", "content": f"{number} {TOKENS}"}], json.loads) for number in numbers)
        return await asyncio.gather(*map(client.ask, asked))

    return run(main())


def measure(arguments, *options):
    """The line of the table for a server with options."""
    server = subprocess.Popen([sys.executable, SERVER, str(arguments.seconds), *options], stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            section = Explain(model="openai/m", api_base=address, concurrency=arguments.concurrency)
            ask(
                Client(section, Units(f"{folder}/first", f"{folder}/first/explain/k")), [-1]
            )  # litellm imports much when first used
            client = Client(section, Units(folder, f"{folder}/explain/k"))
            before, start = cpu_s(), time.perf_counter()
            replies = ask(client, range(arguments.requests))
            taken, cpu = time.perf_counter() - start, cpu_s() - before
        with urllib.request.urlopen(urllib.request.Request(f"{address}/counts", data=b"")) as response:
            counts = json.load(response)
    finally:
        server.kill()
        server.wait()
    own = (counts["requests"] - 1) * arguments.seconds / arguments.concurrency
    usable = sum(reply.status == "ok" for reply in replies) / len(replies)
    return (
        f"| {' '.join(options) or 'answers'} | {len(replies)}, {usable:.1%} | {counts['requests'] - 1} | {counts['repeated']} | "
        f"{counts['most_in_flight']} | {own:.1f} | {taken:.1f} | {taken / own:.2f} | {1000 * cpu / (counts['requests'] - 1):.1f} | {load_average()} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=0.5)
    arguments = parser.parse_args()
    print(
        "| server | requests, usable | sent | answered twice | most at once | its own time, s | taken, s | ratio | CPU ms a request | load |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for options in ([], ["failing"]):
        print(measure(arguments, *options), flush=True)


if __name__ == "__main__":
    main()
