"""Two thousand features explained and scored by a language model whose server fails in every way, through five kills."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from explain.http_model import Server, failing
from worlds import planted

from cltdb.engine.workspace import read_parquet, write_parquet
from cltdb.harvest.tables import NEIGHBOURS, POOL_ACTIVATIONS

N_FEATURES, CONCURRENCY, SEED = 2000, 32, 3
WINDOWS = 45
WORDS = ("w1", "w2", "w3")
EXPLAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from worlds.planted import explain_planted
from cltdb.engine.units import Units
from cltdb.explain.requests import faults
faults.FIRST_WAIT_S = 0.01
harvest, workspace, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = dict(model="openai/m", api_base=address, concurrency=32, scorers=["detection", "fuzzing"])
explain_planted(harvest, workspace / "explain/k", seed=3, units=Units(workspace, workspace / "explain/k"), **settings)
"""


def write_many(directory, n):
    """A harvest of n features: all but the last fire where one does that is told by a set, each with contexts of its own. The last is the neighbour
    of all, in whose windows are their near misses."""
    planted.write_harvest(directory, features={name: planted.FEATURES[name] for name in ("set", "bigram")}, seed=1)
    rng, last = np.random.default_rng(SEED), n - 1

    def spread(path, some=lambda rows: rows):
        """Rows of the first feature for all but the last, which gets those of the second."""
        rows = read_parquet(directory / path)
        parts = [some(rows.filter(feature=0)) for _ in range(last)] + [rows.filter(feature=1)]
        numbers = np.repeat(np.arange(n), [len(part) for part in parts])
        return pl.concat(parts).with_columns(feature=pl.Series(numbers, dtype=pl.Int32))

    def drawn(rows):
        return rows[np.sort(rng.choice(len(rows), WINDOWS, replace=False))].with_columns(
            rank=pl.int_range(WINDOWS, dtype=pl.Int32)
        )

    near = pl.when(pl.col("feature") == last).then(0).otherwise(last).cast(pl.Int32)
    path, kinds = "tables/windows/layer-00.parquet", {name: planted.KINDS[name] for name in ("layer", "feature")}
    write_parquet(directory / path, spread(path, drawn))
    write_parquet(directory / POOL_ACTIVATIONS, spread(POOL_ACTIVATIONS))
    write_parquet(directory / NEIGHBOURS, spread(NEIGHBOURS).with_columns(neighbour=near))
    features = pl.DataFrame(planted.feature_columns(n), schema_overrides=kinds)
    write_parquet(directory / "tables/features/layer-00.parquet", features)


def knows_the_set(body):
    """What a model says that knows the set, whatever it is asked."""
    content = json.loads(body["messages"][1]["content"])
    if "fires" in content:
        return json.dumps({"explanation": "fires on w1, w2 and w3", "why": "they are marked"})
    return json.dumps({number: fires_in(text) for number, text in content["excerpts"].items()})


def fires_in(text):
    return any(f"«{word}»" in text if "«" in text else word in text.split() for word in WORDS)


@pytest.mark.slow
def test_two_thousand_features(tmp_path):
    write_many(tmp_path / "harvest", N_FEATURES)
    server = Server(failing(knows_the_set), delay_s=0.02)
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", EXPLAIN, tmp_path / "harvest", tmp_path, server.address, tests]
    for share in (0.1, 0.5, 1, 2, 4):  # of what is sent in all, about 8 a feature
        child = subprocess.Popen(command, stderr=subprocess.PIPE)
        while len(server.bodies) < share * N_FEATURES and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        while server.n_in_flight:
            time.sleep(0.01)
    subprocess.run(command, check=True)
    server.close()
    explanations, scores, requests = (
        pl.read_parquet(tmp_path / f"explain/k/tables/{table}/*.parquet") for table in ("explanations", "scores", "requests")
    )
    explained = explanations.filter(explainer="llm")
    has_text = explained["text"].is_not_null()
    assert len(explained) == N_FEATURES and has_text.sum() >= 0.97 * N_FEATURES
    assert explained.filter(~has_text).select(pl.col("status").ne("ok").all() & pl.col("error").is_not_null().all()).item()
    scored = scores.filter(explainer="llm")
    assert len(scored) == 2 * has_text.sum()
    assert (scored["score"].is_not_null() | scored["detail"].str.contains("error")).all()
    assert scored["score"].mean() > 0.95  # answers that were mended among them
    assert sum(n - 1 for n in server.answered.values()) <= 5 * CONCURRENCY and server.most_in_flight <= CONCURRENCY
    assert len(server.answered) <= 8 * N_FEATURES and not requests["reused"].any()
    assert set(Counter(requests["status"])) <= {"ok", "unusable", "failed"} and requests["request_id"].n_unique() == len(requests)
