"""One writer and four readers on a synthetic database, for a given time: how long they wait, what fails, what a killed writer leaves.

The writer makes small new experiments (1,000 features, 3 graphs) and loads each as stage database does. The readers ask as pages do, from
Python, in search, and with commands, each again a second after it has its answer (--pause). With --kills the writer is killed (-9) so many times,
evenly over the time, and a new one goes on. Afterwards `cltdb db check` tells whether the database is intact. Seconds of readers are those of
whole operations, their own work included; beside them the part that was waiting for the lock, and CPU seconds. With more work than processors
have time for, as with --pause 0 on two cores, seconds are those of a queue.

    python tests/benchmarks/database_concurrency.py FOLDER --seconds 600 --kills 2
    python tests/benchmarks/database_concurrency.py FOLDER --features 20000 --seconds 20
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from benchmarks import synthetic_database
from benchmarks.measured import cpu_s, load_average, noted_holds, waited_s

from cltdb.database.store import connect

READERS = {
    "page": ("page feature: its data", "page graph: whole", "page overview"),
    "api": (
        "api contexts(dict_id, feature",
        "api features(dict_id, layer",
        "api explanations(dict_id, feature",
        "api graph_edges",
        "api graphs",
    ),
    "search": ("api search", "page features: a word"),
    "cli": ("cltdb search capital", "cltdb sql --query feature_card"),
}
"""Which operations (database_operations.py) each asks, by how their names begin."""
PAUSE_S = 1.0  # of a reader between two operations, as a person takes who looks at an answer
WORDS = ("capital", "French", "years", "rain", "opposite of hot", "mountain", "guitar")


def write(folder, log, until, n_features=1000):
    """Makes and loads experiments until the time has come; what an earlier writer of the same run made of them is taken up."""
    n_vocabulary = synthetic_database.vocabulary_of(folder)
    number, sizes = 0, synthetic_database.Sizes.of(n_features, n_graphs=3, n_swept=0, n_vocabulary=n_vocabulary)
    while time.time() < until:
        name = f"later-{until:.0f}-{number:04d}"
        keys = synthetic_database.make(folder, sizes, name=name)
        with noted_holds() as holds:
            synthetic_database.load(folder, keys)
        if holds["write"]:
            note(log, experiment=name, artifacts=len(keys), holds=holds["write"])
        number += 1


def read(folder, log, until, kind, pause_s=PAUSE_S):
    """Asks one random thing after another until the time has come; failures are noted and the next is asked."""
    from benchmarks import database_operations as operations

    place, dice = operations.place(folder)._replace(waits=Path(f"{log}-{kind}")), random.Random(kind)
    features, is_over = place.ids["features"], False
    if kind == "cli":
        for name, _, prepare in operations.operations(place):
            if name.startswith(READERS[kind]):
                prepare(place)()  # compiles its modules, as installing does
    while not is_over:
        place.ids.update(feature=dice.choice(features), text=dice.choice(WORDS))
        asked = [one for one in operations.operations(place) if one[0].startswith(READERS[kind])]
        name, _, prepare = dice.choice(asked)
        function, error = prepare(place), None
        start, cpu = time.perf_counter(), cpu_s()
        with noted_holds() as holds:
            try:
                function()
            except Exception as caught:  # failures are what is counted
                error = " ".join(str(caught).split())[:200]
        taken = {
            "seconds": time.perf_counter() - start,
            "waited": waited_s(holds) + waited_outside(place.waits),
            "cpu": cpu_s() - cpu,
        }
        note(log, reader=kind, operation=name, error=error, **taken)
        time.sleep(pause_s)
        is_over = time.time() > until


def waited_outside(path):
    """Seconds that a command noted at `path` (measured.py), which is removed."""
    waited = sum(map(float, path.read_text().split())) if path.exists() else 0.0
    path.unlink(missing_ok=True)
    return waited


def note(log, **facts):
    """A line of JSON, written at once, so that a kill loses none."""
    with open(log, "a") as file:
        file.write(json.dumps(facts) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=1_000_000, help="of the database, where there is none yet")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pause", type=float, default=PAUSE_S, help="seconds between two operations of a reader (default 1)")
    parser.add_argument("--as", dest="role", nargs=3, metavar=("ROLE", "LOG", "UNTIL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        role, log, until = options.role
        if role == "writer":
            write(options.folder, log, float(until))
        else:
            read(options.folder, log, float(until), role, options.pause)
        return 0
    if not (options.folder / "cltdb.duckdb").exists():
        keys = synthetic_database.make(options.folder, synthetic_database.Sizes.of(options.features))
        synthetic_database.load(options.folder, keys)
    with connect(options.folder / "cltdb.duckdb", write=True):
        pass  # one of an earlier cltdb is brought up to date: its readers wait for a writer to do so
    with tempfile.TemporaryDirectory() as scratch:
        log, before = Path(scratch) / "log.jsonl", load_average()
        log.touch()
        used = -busy_s(), -cpu_s(), -time.perf_counter()
        kills = run(options.folder, log, seconds=options.seconds, n_kills=options.kills, pause_s=options.pause)
        used = used[0] + busy_s(), used[1] + cpu_s(), used[2] + time.perf_counter()
        notes = [json.loads(line) for line in log.read_text().splitlines()]
    print(
        f"Load average {before} before, {load_average()} after; in {used[2]:.0f} s {os.cpu_count()} processors worked {used[0]:.0f} s,"
        f" {used[1]:.0f} s of them for this.\n"
    )
    return report(notes, kills, check(options.folder))


def busy_s():
    """Seconds that the processors of this machine have worked so far, all together."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run(folder, log, *, seconds, n_kills, pause_s):
    """Starts all processes and kills the writer now and then; returns what each kill left, MB of the write-ahead log."""
    until, start = time.time() + seconds, time.time()
    others = [start_role(folder, kind, log, until, pause_s) for kind in READERS]
    writer, kills = start_role(folder, "writer", log, until), []
    for number in range(n_kills):
        time.sleep(max(0, start + seconds * (number + 1) / (n_kills + 1) - time.time()))
        ahead, latest = Path(f"{folder}/cltdb.duckdb.wal"), time.time() + seconds / (2 * n_kills + 2)
        while not ahead.exists() and time.time() < latest:  # while it writes
            time.sleep(0.001)
        writer.kill()
        writer.wait()
        kills.append(ahead.stat().st_size / 1e6 if ahead.exists() else 0.0)
        writer = start_role(folder, "writer", log, until)
    for process in (writer, *others):
        if process.wait():
            failed = {"operation": " ".join(process.args[-3:]), "error": f"exit status {process.returncode}"}
            note(log, reader="process", **failed, seconds=0, waited=0, cpu=0)
    return kills


def start_role(folder, role, log, until, pause_s=PAUSE_S):
    asked = ["--pause", str(pause_s), "--as", role, str(log), str(until)]
    return subprocess.Popen([sys.executable, __file__, str(folder), *asked])


def check(folder):
    """What `cltdb db check` says."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-m", "cltdb", "db", "check"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)
    return done.stdout.strip() or done.stderr.strip()


def report(notes, kills, checked):
    """Prints the tables; returns 1 where a reader failed or the database is not intact."""
    reads = [note for note in notes if "reader" in note]
    writes = [note for note in notes if "holds" in note]
    print("| readers | n | failed | p50 s | p95 s | max s | waited p50 | waited p95 | waited max | CPU s p50 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    if reads:
        print(f"| **all** | {read_cells(reads)} |")
    for kind in dict.fromkeys(note["reader"] for note in reads):
        of_kind = [note for note in reads if note["reader"] == kind]
        print(f"| **{kind}** | {read_cells(of_kind)} |")
        for name in sorted({note["operation"] for note in of_kind}):
            print(f"| {name} | {read_cells([note for note in of_kind if note['operation'] == name])} |")
    noted = [hold for note in writes for hold in note["holds"]] or [(0.0, 0.0, 0.0)]
    waits, holds, cpu = (list(column) for column in zip(*noted, strict=True))
    print("\n| writer | n | p50 s | p95 s | max s |\n|---|---|---|---|---|")
    for name, seconds in {"waits": waits, "holds": holds, "holds, CPU": cpu}.items():
        print(f"| {name} | {len(seconds)} | {spread(seconds)} |")
    ahead = ", ".join(f"{mb:.1f}" for mb in kills)
    print(f"\n{len(writes)} experiments loaded; kills: {len(kills)}, MB in the write-ahead log then: {ahead}")
    errors = sorted({f"{note['operation']}: {note['error']}" for note in reads if note["error"]})
    print(*errors, f"cltdb db check: {checked}", sep="\n")
    return int(bool(errors) or checked != "no problems")


def read_cells(reads):
    """The cells of a row of the table of readers."""
    failed = sum(note["error"] is not None for note in reads)
    columns = [[note[name] for note in reads] for name in ("seconds", "waited", "cpu")]
    return f"{len(reads)} | {failed} | {spread(columns[0])} | {spread(columns[1])} | {spread(columns[2]).split(' |')[0]}"


def spread(seconds):
    """p50, p95 and the maximum, as cells of a table."""
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95)]
    return " | ".join(f"{value:.2f}" for value in (*at, ordered[-1]))


if __name__ == "__main__":
    sys.exit(main())
