import database_world as world
import pytest

from cltdb.database.load import load_artifact, save_records


@pytest.fixture
def artifacts(tmp_path):
    """(key, directory) of every artifact of the tiny experiment."""
    stages = {"model": world.model_tables(), "train": world.train_tables(), "evaluate": {"metrics": world.metric_table("evaluate")},
              "harvest": {"features": world.feature_table(), "contexts": world.context_table()}, "explain": world.explain_tables(), "attribute": world.graph_tables(),
              "circuits": {"feature_edges": world.feature_edge_table()}}
    return [world.write_artifact(tmp_path / "artifacts", f"{stage}-key", tables) for stage, tables in stages.items()]


@pytest.fixture
def database(tmp_path, artifacts):
    """Path of the database made of the tiny experiment."""
    path = tmp_path / "cltdb.duckdb"
    for key, directory in artifacts:
        load_artifact(path, key=key, directory=directory)
    save_records(path, **world.RECORDS)
    return path
