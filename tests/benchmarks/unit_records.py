"""What records of units cost: 100,000 scores as rows of one SQLite file, beside a JSON file and a line of a list for each.

    python tests/benchmarks/unit_records.py [--records 100000]

Prints a table for RESULTS.md: CPU time per record (user and system), disk per record with what says who uses it, and files.
"""

import argparse
import json
import os
import random
import tempfile
from pathlib import Path

from measured import cpu_s, load_average

from cltdb.engine import integrity, units
from cltdb.engine.units import SCORES, Units

PART = 8192
EXPLAINERS = ("rules", "baseline:shuffled", "baseline:top_tokens", "baseline:other_feature")


def score(draw):
    """A record as stage explain keeps it: a feature's scores by one scorer, with three baselines."""
    rows = []
    for explainer in EXPLAINERS:
        n_hit, n_right = draw.randrange(31), draw.randrange(31)
        facts = {"n_pos": 30, "n_neg": 30, "tpr": n_hit / 30, "tnr": n_right / 30, "cost_usd": 0.0, "error": None}
        detail = json.dumps(facts | {"negatives": {"random": 15, "same_tokens": 8, "similar_decoder": 7}})
        rows.append([explainer, (n_hit + n_right) / 60, 60, 0, draw.random(), draw.random(), detail])
    return {"value": rows, "made_by": "explain/399159d1759c000e", "spent": {"n_asked": 0, "asked_usd": 0.0, "n_reused": 0}}


class Files:
    """The slow twin: a sealed JSON file per record, written aside and renamed in place, and a line per record that is used."""

    def __init__(self, workspace, directory):
        self.root, self.list = workspace / "units", directory / "units-0.txt"
        directory.mkdir(parents=True)

    def _note(self, name):
        with open(self.list, "a") as file:
            file.write(f"\n{name}\n")

    def put(self, kind, key, record):
        path = self.root / kind / f"{key}.json"
        self._note(f"{kind}/{key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_text(json.dumps(integrity.sealed({**record, "unit": f"{kind}/{key}"})))
        os.replace(aside, path)

    def get(self, kind, key):
        self._note(f"{kind}/{key}")
        record = integrity.read_sealed(self.root / kind / f"{key}.json")
        return {name: value for name, value in record.items() if name != "unit"}


def timed(work):
    before = cpu_s()
    result = work()
    return cpu_s() - before, result


def used(folder):
    """(bytes on the disk, files) below a folder."""
    facts = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(one.st_blocks * 512 for one in facts), len(facts)


def measured(name, store, of, records):
    """A line of the table. store(workspace, artifact): what keeps records; of: how it puts and gets them."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        put_s, _ = timed(lambda: of["put"](store(workspace, workspace / "explain/a"), records))
        get_s, found = timed(lambda: of["get"](store(workspace, workspace / "explain/b"), list(records)))
        assert found == records
        n_bytes, n_files = used(workspace)
        n = len(records)
        print(f"| {name} | {put_s / n * 1e6:.0f} | {get_s / n * 1e6:.0f} | {n_bytes / n:.0f} | {n_files:,} |")
        if store is Units:
            count_s, _ = timed(lambda: units.count(workspace, SCORES, "81b8f3296dd5dfd5-detection"))
            check_s, _ = timed(lambda: list(units.damage(workspace)))
            (workspace / "explain/a").rmdir()
            (workspace / "explain/b").rmdir()
            gc_s, unused = timed(lambda: units.unused(workspace, delete=True))
            assert unused.records == {SCORES: n}
            return f"count {count_s:.3f} CPU s, check of every record {check_s:.2f}, gc of all {gc_s:.2f}"


def one_by_one():
    def put(store, records):
        for key, record in records.items():
            store.put(SCORES, key, record)

    return {"put": put, "get": lambda store, keys: {key: store.get(SCORES, key) for key in keys}}


def in_parts():
    def put(store, records):
        items = list(records.items())
        for first in range(0, len(items), PART):
            store.put_many(SCORES, dict(items[first : first + PART]))

    def get(store, keys):
        found = {}
        for first in range(0, len(keys), PART):
            found |= store.get_many(SCORES, keys[first : first + PART])
        return found

    return {"put": put, "get": get}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    n, draw = parser.parse_args().records, random.Random(0)
    records = {f"81b8f3296dd5dfd5-detection/{k // 512}-{k % 512}-{draw.randbytes(8).hex()}": score(draw) for k in range(n)}
    print(f"{n:,} records of {sum(len(json.dumps(record)) for record in records.values()) / n:.0f} characters of JSON")
    print("| way | put, CPU µs | get by another artifact, CPU µs | bytes on the disk | files |\n|---|---|---|---|---|")
    measured("a JSON file each, and a line of a list", Files, one_by_one(), records)
    measured("SQLite, one by one", Units, one_by_one(), records)
    print(measured("SQLite, in parts of 8,192", Units, in_parts(), records))
    print(f"load average {load_average()}")


if __name__ == "__main__":
    main()
