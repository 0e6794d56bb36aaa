"""The stage: its tables, and picking up where a kill left it."""

from types import SimpleNamespace

import polars as pl
import pyarrow.parquet as pq
import pytest
from attribute_worlds import dictionary, language_model

from cltdb.attribute import run

PROMPTS = [
    SimpleNamespace(id="first", text="7 3 19 3", messages=None, target=None, foil=None),
    SimpleNamespace(id="second", text="5 5 8", messages=None, target="4", foil="9"),
]
OPTIONS = {
    "dict_id": "tiny-clt-00000000",
    "graph_key": lambda prompt: f"{len(prompt.text):08d}ffff",
    "max_features": None,
    "max_edges": None,
    "node_threshold": 0.8,
    "edge_threshold": 0.98,
    "check_edges": 30,
    "seed": 0,
}


def attribute_prompts(directory, prompts=PROMPTS):
    run.attribute_prompts(language_model(), dictionary(), prompts, directory=directory, **OPTIONS)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("attribute")
    attribute_prompts(directory)
    return directory


def read(artifact, table):
    return pl.concat([pl.read_parquet(path) for path in sorted((artifact / "tables" / table).glob("*.parquet"))])


def test_graph_ids_and_parts(artifact):
    for table in ("graphs", "nodes", "edges", "interventions", "intervention_effects"):
        assert sorted(path.stem for path in (artifact / "tables" / table).iterdir()) == [
            "first-00000008",
            "second-00000005",
        ]


def test_columns_are_those_of_the_database(artifact):
    schema = (run.Path(run.__file__).parents[1] / "database/schema/0001_initial.sql").read_text()
    for table in ("graphs", "nodes", "edges", "interventions", "intervention_effects"):
        body = schema.split(f"CREATE TABLE {table} (")[1].split(");")[0]
        names = [line.split()[0] for line in body.splitlines() if line.strip()]
        path = next((artifact / "tables" / table).iterdir())
        assert set(pq.read_schema(path).names) == set(names) - {"artifact_key"}, table


def test_rows(artifact):
    graphs, nodes, edges = read(artifact, "graphs"), read(artifact, "nodes"), read(artifact, "edges")
    assert graphs["n_nodes"].to_list() == nodes.group_by("graph_id", maintain_order=True).len()["len"].to_list()
    assert graphs["n_edges"].to_list() == edges.group_by("graph_id", maintain_order=True).len()["len"].to_list()
    assert edges.drop_nulls("measured").group_by("graph_id").len()["len"].to_list() == [30, 30]
    assert graphs["tokens"].to_list() == [[0, 7, 3, 19, 3], [0, 5, 5, 8]]
    assert graphs.select(pl.col("max_abs_error").max()).item() < 1e-8
    assert graphs["target"].to_list() == [None, "4"]


def test_ablations_have_a_prediction_beside_the_measurement(artifact):
    interventions, effects = read(artifact, "interventions"), read(artifact, "intervention_effects")
    assert (
        interventions.height == 2 * run.N_ABLATIONS
        and interventions["settings"].list.len().to_list() == [1] * interventions.height
    )
    assert set(effects["intervention_id"]) == set(interventions["intervention_id"])
    moved = (
        effects.filter(kind="feature")
        .drop_nulls("predicted")
        .select(measured=pl.col("after") - pl.col("before"), predicted=pl.col("predicted") - pl.col("before"))
    )
    assert moved.select(pl.corr("measured", "predicted")).item() > 0.5
    foil = effects.filter(kind="logit").filter(pl.col("intervention_id").str.starts_with("second"))
    assert foil["token"].unique().to_list() == [4]


def test_finished_prompts_are_kept_and_unfinished_ones_made_again(artifact, tmp_path, monkeypatch):
    attribute_prompts(tmp_path, PROMPTS[:1])
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    attribute_prompts(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (tmp_path / "tables/edges/second-00000005.parquet").unlink()
    attribute_prompts(tmp_path)
    for table in ("nodes", "edges", "intervention_effects"):
        assert read(tmp_path, table).equals(read(artifact, table))
    assert read(tmp_path, "graphs").drop("seconds").equals(read(artifact, "graphs").drop("seconds"))


def test_more_edges_than_the_bound_leave_the_strongest(monkeypatch, artifact, tmp_path):
    monkeypatch.setattr(run, "MAX_EDGES", 500)
    attribute_prompts(tmp_path, PROMPTS[:1])
    edges, nodes = read(tmp_path, "edges"), read(tmp_path, "nodes")
    assert edges.filter(~pl.col("kept")).height <= 500 < read(artifact, "graphs")["n_edges"][0]
    assert nodes["dropped_mass"].sum() > 0
