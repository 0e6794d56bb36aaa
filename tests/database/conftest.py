import shutil

import pytest
from worlds import random_experiment
from worlds import tiny_experiment as world
from worlds.shared import made_once
from worlds.tables import write_artifact

from cltdb.database.api import Database
from cltdb.database.load import load_artifacts, save_records


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(artifacts, database) made once; tests work on copies."""
    root = made_once(tmp_path_factory, "tiny", _make_tiny)
    stages = ("model", "train", "evaluate", "harvest", "explain", "attribute", "circuits", "unfinished")
    return [(f"{stage}-key", root / f"artifacts/{stage}-key") for stage in stages], root / "cltdb.duckdb"


def _make_tiny(root):
    stages = {
        "model": world.model_tables(),
        "train": world.train_tables(),
        "evaluate": {"metrics": world.metric_table("evaluate")},
        "harvest": {"features": world.feature_table(), "contexts": world.context_table()},
        "explain": world.explain_tables(),
        "attribute": world.graph_tables(),
        "circuits": {"feature_edges": world.feature_edge_table()},
    }
    artifacts = [write_artifact(root / "artifacts", f"{stage}-key", tables) for stage, tables in stages.items()]
    artifacts.append(
        write_artifact(
            root / "artifacts", "unfinished-key", {"metrics": world.metric_table("train", "tiny-plt-4567cdef")}, started_at=None
        )
    )
    load_artifacts(root / "cltdb.duckdb", artifacts)
    save_records(root / "cltdb.duckdb", **world.RECORDS)


@pytest.fixture
def artifacts(tiny):
    """(key, directory) of every artifact of the tiny experiment."""
    return tiny[0]


@pytest.fixture
def database(tmp_path, tiny):
    """Path of a copy of the database made of the tiny experiment."""
    return shutil.copy(tiny[1], tmp_path / "cltdb.duckdb")


@pytest.fixture(scope="session")
def random_world(tmp_path_factory):
    """(Database, rows of its tables) of the random experiment; tests only read it."""
    tables = random_experiment.rows_of()
    folder = made_once(
        tmp_path_factory, "random", lambda folder: random_experiment.build(folder / "cltdb.duckdb", folder / "artifacts", tables)
    )
    return Database(folder / "cltdb.duckdb"), tables
