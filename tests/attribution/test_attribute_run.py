"""The stage: its tables, and picking up where a kill left it."""

import polars as pl
import pyarrow.parquet as pq
import pytest
from worlds.numbers import PROMPT, dictionary, language_model

import cltdb
from cltdb.attribution import run
from cltdb.attribution.ablation import ablate, ablation_rows, most_influential, rank_correlation
from cltdb.attribution.settings import Attribute, Paths, Prompt
from cltdb.database import load
from cltdb.engine.units import Units, used_by
from cltdb.engine.workspace import write_parquet
from cltdb.errors import CltdbError

PROMPTS = [Prompt(id="first", text="7 3 19 3"), Prompt(id="second", text="5 5 8", target="4", foil="9")]
OTHERS = {
    *("n_layers", "token_strings", "total_influence", "label"),
    *("author", "note", "given", "text_without", "text_with", "probability_before", "probability_after"),
}  # what imported graphs have, groups that users make, and interventions by hand
TABLES = (
    *("graphs", "nodes", "edges", "prune_curves", "path_lengths", "paths", "path_steps"),
    *("supernodes", "interventions", "intervention_effects"),
)
N_ABLATIONS = 5
SETTINGS = Attribute(check_edges=30, ablations=N_ABLATIONS, sweep=[0.5, 0.9], supernode_similarity=0.2, paths=Paths(n=3))


def graph_key(prompt):
    return f"{len(prompt.text):08d}ffff"


def attribute_prompts(
    directory, prompts=PROMPTS, *, workspace=None, graph_key=graph_key, dict_id="tiny-clt-00000000", **settings
):
    run.attribute_prompts(
        SETTINGS.model_copy(update=settings),
        [(prompt, graph_key(prompt)) for prompt in prompts],
        language_model(),
        dictionary(),
        directory=directory,
        units=Units(workspace or directory / "workspace", directory),
        dict_id=dict_id,
        seed=0,
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("attribute")
    attribute_prompts(directory)
    return directory


def read(artifact, table):
    return pl.concat([pl.read_parquet(path) for path in sorted((artifact / "tables" / table).glob("*.parquet"))])


def test_graph_ids_and_parts(artifact):
    for table in TABLES:
        assert sorted(path.stem for path in (artifact / "tables" / table).iterdir()) == [
            "first-00000008",
            "second-00000005",
        ]


def test_columns_are_those_of_the_database(artifact, tmp_path):
    load.load_artifact(tmp_path / "cltdb.duckdb", key="k", directory=artifact)
    described = cltdb.open(tmp_path / "cltdb.duckdb").tables()
    for table in TABLES:
        names = described.filter(table=table).drop_nulls("column")["column"].to_list()
        path = next((artifact / "tables" / table).iterdir())
        assert set(pq.read_schema(path).names) == set(names) - {"artifact_key"} - OTHERS, table


def test_rows(artifact):
    graphs, nodes, edges = read(artifact, "graphs"), read(artifact, "nodes"), read(artifact, "edges")
    assert graphs["n_nodes"].to_list() == nodes.group_by("graph_id", maintain_order=True).len()["len"].to_list()
    assert graphs["n_edges"].to_list() == edges.group_by("graph_id", maintain_order=True).len()["len"].to_list()
    assert edges.drop_nulls("measured").group_by("graph_id").len()["len"].to_list() == [30, 30]
    assert graphs["tokens"].to_list() == [[0, 7, 3, 19, 3], [0, 5, 5, 8]]
    assert graphs.select(pl.col("max_abs_error").max()).item() < 1e-8
    assert graphs["target"].to_list() == [None, "4"]


def test_constant_positions_rule_graphs_ablations_and_groups(tmp_path):
    attribute_prompts(tmp_path, constant_positions=3)
    nodes, effects, groups = read(tmp_path, "nodes"), read(tmp_path, "intervention_effects"), read(tmp_path, "supernodes")
    assert nodes.filter(pl.col("kind").is_in(["feature", "error"]))["position"].min() == 3
    assert nodes.filter(kind="embedding").group_by("graph_id", maintain_order=True).len()["len"].to_list() == [5, 4]
    assert effects.filter(kind="feature")["position"].min() == 3
    assert read(tmp_path, "interventions")["settings"].explode().struct.field("position").min() == 3
    grouped = groups.explode("node_ids").join(nodes, left_on=["graph_id", "node_ids"], right_on=["graph_id", "node_id"])
    assert grouped.height == 0 or grouped["position"].min() >= 3
    assert read(tmp_path, "graphs").select(pl.col("max_abs_error").max()).item() < 1e-8
    with pytest.raises(
        CltdbError, match="attribute.prompts second, attribute.constant_positions: found 4 of a prompt's 4 tokens"
    ):
        attribute_prompts(tmp_path / "short", constant_positions=4)


def test_ablations_have_a_prediction_beside_the_measurement(artifact):
    interventions, effects = read(artifact, "interventions"), read(artifact, "intervention_effects")
    assert (
        interventions.height == 2 * 2 * N_ABLATIONS
        and interventions["settings"].list.len().to_list() == [1] * interventions.height
    )
    assert set(effects["intervention_id"]) == set(interventions["intervention_id"])
    moved = (
        effects.filter(kind="feature")
        .drop_nulls("predicted")
        .select(measured=pl.col("after") - pl.col("before"), predicted=pl.col("predicted") - pl.col("before"))
    )
    assert moved.select(pl.corr("measured", "predicted")).item() > 0.5
    modes = interventions.group_by("mode").agg(pl.col("settings").list.first())
    assert dict(modes.iter_rows()).keys() == {"iterative", "free"} and modes["settings"][0].equals(modes["settings"][1])
    foil = effects.filter(kind="logit").filter(pl.col("intervention_id").str.starts_with("second"))
    assert foil["token"].unique().to_list() == [4]


def test_a_feature_without_incoming_edges_has_no_prediction():
    graph = cltdb.attribute(language_model(), dictionary(), PROMPT, max_features=10)
    computed = {graph.index.place(node): graph.effects.expanded[node] for node in range(graph.index.features.stop)}
    known, unknown = [], []
    for one in ablate(graph, most_influential(graph, 8)):
        for row in ablation_rows(graph, one, dict_id="d", prompt="x")[1]:
            place = row["layer"], row["position"], row["feature"]
            if row["kind"] == "feature" and place != graph.index.place(one.node):
                (known if computed.get(place, False) else unknown).append(row["predicted"])
    assert len(known) > 3 and None not in known and len(unknown) > 3 and {*unknown} == {None}


def test_agreement_of_influence_and_ablations_is_spearmans():
    """By ranks of the definition: 1 - 6 sum d^2 / (n (n^2 - 1)), there being no ties."""
    graph = cltdb.attribute(language_model(), dictionary(), PROMPT)
    effects = {one.node: one.effect for one in ablate(graph, most_influential(graph, 8))}
    ranks = [
        [sorted(values).index(value) for value in values]
        for values in (graph.influence[list(effects)].tolist(), list(effects.values()))
    ]
    expected = 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (8 * (64 - 1))
    assert rank_correlation(graph, effects) == pytest.approx(expected)
    assert rank_correlation(graph, dict(list(effects.items())[:2])) is None


def test_an_ablations_effect_is_the_weighted_change_of_the_logits():
    graph = cltdb.attribute(language_model(), dictionary(), PROMPT)
    [ablation] = ablate(graph, most_influential(graph, 1))
    tokens = graph.targets.tokens
    change = (ablation.after.logits - ablation.before.logits)[tokens].abs()
    assert ablation.effect == pytest.approx(float((change * graph.targets.weights).sum() / graph.targets.weights.sum()))


def test_curves(artifact):
    curves, graphs = read(artifact, "prune_curves"), read(artifact, "graphs")
    assert curves["node_threshold"].to_list() == [0.5, 0.9] * 2
    assert (curves.group_by("graph_id").agg(pl.col("n_nodes").is_sorted())["n_nodes"]).all()
    lengths = read(artifact, "path_lengths")
    assert lengths.group_by("graph_id").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1, 1])
    mean = lengths.group_by("graph_id", maintain_order=True).agg((pl.col("length") * pl.col("share")).sum())
    assert mean["length"].to_list() == pytest.approx(graphs["mean_path_length"].to_list())
    assert graphs["n_ablations"].to_list() == [N_ABLATIONS] * 2 and graphs["ablation_spearman"].is_between(-1, 1).all()


def test_supernodes_are_groups_of_kept_features(artifact, tmp_path):
    groups, nodes = read(artifact, "supernodes"), read(artifact, "nodes")
    members = groups.explode("node_ids").join(nodes, left_on=["graph_id", "node_ids"], right_on=["graph_id", "node_id"])
    assert members.height == groups["node_ids"].list.len().sum() >= 2 * groups.height > 0
    assert members["kept"].all() and members["kind"].unique().to_list() == ["feature"]
    assert not members.select("graph_id", "node_ids").is_duplicated().any()
    numbers = groups.with_columns(number=pl.int_range(pl.len()).over("graph_id"))
    assert numbers["supernode_id"].to_list() == numbers.select(pl.format("{}-s{}", "graph_id", "number")).to_series().to_list()
    attribute_prompts(tmp_path, supernode_similarity=0)
    none = read(tmp_path, "supernodes")
    assert none.is_empty() and none.schema == groups.schema


def test_what_queries_compute_of_stored_rows_is_what_the_graph_knows(artifact, tmp_path):
    """compare_graphs of a dictionary with another that has the same graphs, compare_paths of a graph with itself: Spearman's correlation, influence
    and path lengths."""
    for path in artifact.glob("tables/*/*.parquet"):
        frame = pl.read_parquet(path)
        ids = [name for name in ("graph_id", "intervention_id", "supernode_id", "dict_id") if name in frame.columns]
        write_parquet(
            tmp_path / "again" / path.relative_to(artifact),
            frame.with_columns(pl.format("again-{}", name).alias(name) for name in ids),
        )
    for key, directory in (("k", artifact), ("again", tmp_path / "again")):
        load.load_artifact(tmp_path / "cltdb.duckdb", key=key, directory=directory)
    db, graphs = cltdb.open(tmp_path / "cltdb.duckdb"), read(artifact, "graphs")
    rows = db.query("compare_graphs", dict_id="tiny-clt-00000000", other="again-tiny-clt-00000000")
    assert rows["replacement_spearman"].to_list() == pytest.approx(graphs["ablation_spearman"].to_list())
    assert rows["input_correlation"].to_list() == pytest.approx([1, 1]) and rows["model_error"].is_between(0, 10).all()
    graph_id = graphs["graph_id"][0]
    paths, nodes = db.query("compare_paths", graph_id=graph_id, other=graph_id), db.graph_nodes(graph_id)
    weighted = paths.join(nodes.filter(kind="logit").select("token", "probability"), on="token").with_columns(
        value=pl.col("influence") * pl.col("probability")
    )
    found = weighted.group_by("kind", "position").agg(pl.col("value").sum()).sort("kind", "position")
    expected = (
        nodes.filter(pl.col("kind").is_in(["embedding", "error"])).group_by("kind", "position").agg(pl.col("influence").sum())
    )
    assert found["value"].to_list() == pytest.approx(expected.sort("kind", "position")["influence"].to_list(), rel=1e-3)
    of_embeddings = weighted.filter(kind="embedding")
    mean_length = (of_embeddings["path_length"] * of_embeddings["value"]).sum() / of_embeddings["value"].sum()
    assert mean_length == pytest.approx(graphs["mean_path_length"][0], rel=1e-3)


def test_other_targets_of_a_spec(tmp_path):
    graph = cltdb.attribute(language_model(), dictionary(), [0, 7, 3, 19, 3])
    layer, feature, position = graph.nodes.filter(kind="feature", layer=1).select("layer", "feature", "position").row(0)
    prompts = [
        Prompt(id="feature", text="7 3 19 3", target_feature=f"{layer}:{feature}@{position}"),
        Prompt(id="earlier", text="7 3 19 3", target=["4", "9"], position=-2),
        Prompt(id="weighted", text="7 3 19 3", target={"4": 3, "9": 1}),
    ]
    attribute_prompts(tmp_path, prompts, graph_key=lambda prompt: prompt.id + "-" * 8)
    graphs = read(tmp_path, "graphs").sort("prompt_id")
    assert graphs["target"].to_list() == ["4, 9", f"feature {layer}:{feature}@{position}", "4 (weight 3), 9 (weight 1)"]
    assert graphs["tokens"].list.len().to_list() == [4, position + 1, 5]
    weighted = read(tmp_path, "nodes").filter(pl.col("kind") == "logit", pl.col("graph_id").str.starts_with("weighted"))
    assert weighted.select("token", "probability").rows() == [(4, 0.75), (9, 0.25)]
    effects = read(tmp_path, "intervention_effects")
    assert not effects.filter(kind="logit")["intervention_id"].str.starts_with("feature").any()


@pytest.fixture
def made(monkeypatch):
    """The prompts' tokens whose graphs are made from now on."""
    make, tokens = run.graphs.attribute, []

    def counting(lm, dictionary, prompt, **options):
        tokens.append(prompt)
        return make(lm, dictionary, prompt, **options)

    monkeypatch.setattr(run.graphs, "attribute", counting)
    return tokens


def same_rows(directory, artifact):
    for table in TABLES:
        here, there = (read(place, table).drop("seconds", "created_at", strict=False) for place in (directory, artifact))
        assert here.equals(there), table


def test_one_more_prompt_makes_one_more_graph(artifact, tmp_path, made):
    attribute_prompts(tmp_path / "one", PROMPTS[:1], workspace=tmp_path)
    attribute_prompts(tmp_path / "two", workspace=tmp_path)
    attribute_prompts(tmp_path / "again", workspace=tmp_path)
    assert len(made) == 2
    for name in ("two", "again"):
        same_rows(tmp_path / name, artifact)
    assert used_by(tmp_path / "one") < used_by(tmp_path / "two") == used_by(tmp_path / "again") | {""}


def test_another_id_of_a_prompt_is_the_same_graph_under_another_name(artifact, tmp_path, made):
    other = [prompt.model_copy(update={"id": f"a-longer-{prompt.id}"}) for prompt in PROMPTS]
    attribute_prompts(tmp_path / "other", [*other, *PROMPTS], workspace=tmp_path, dict_id="earlier-clt-00000000")
    attribute_prompts(tmp_path / "usual", workspace=tmp_path)
    assert len(made) == 2
    same_rows(tmp_path / "usual", artifact)
    attribute_prompts(tmp_path / "scratch", other, dict_id="earlier-clt-00000000")
    (tmp_path / "renamed").mkdir()
    attribute_prompts(tmp_path / "renamed", other, workspace=tmp_path, dict_id="earlier-clt-00000000")
    same_rows(tmp_path / "renamed", tmp_path / "scratch")


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove", "record"])
def test_a_damaged_graph_is_said_and_made_again(artifact, tmp_path, made, caplog, damage):
    attribute_prompts(tmp_path / "one", PROMPTS[:1], workspace=tmp_path)
    [folder] = (tmp_path / "units/graphs").iterdir()
    path = folder / ("unit.json" if damage == "record" else "edges.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the artifact's file may be the same one
    if damage != "remove":
        path.write_bytes(content if damage in ("flip", "record") else content[:-8])
    attribute_prompts(tmp_path / "two", workspace=tmp_path)
    assert len(made) == 3 and "is damaged" in caplog.text
    same_rows(tmp_path / "two", artifact)
    attribute_prompts(tmp_path / "three", workspace=tmp_path)
    assert len(made) == 3


def test_a_killed_graph_is_made_again_and_a_faster_process_is_believed(artifact, tmp_path, made, monkeypatch):
    write = run._write

    def dies(folder, frames, seconds):
        write(folder, {"graphs": frames["graphs"]}, seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        attribute_prompts(tmp_path / "one", workspace=tmp_path)

    def is_slower(folder, frames, seconds):
        monkeypatch.setattr(run, "_write", write)
        attribute_prompts(tmp_path / "faster", workspace=tmp_path)
        write(folder, frames, seconds)

    monkeypatch.setattr(run, "_write", is_slower)
    attribute_prompts(tmp_path / "one", workspace=tmp_path)
    for name in ("one", "faster"):
        same_rows(tmp_path / name, artifact)
    assert len(made) == 4  # one died, one was made twice, one once


def test_graphs_in_bfloat16_have_all_tables_near_those_of_float64(artifact, tmp_path, caplog):
    attribute_prompts(tmp_path, PROMPTS[1:], dtype="bfloat16")
    assert not [record for record in caplog.records if "differ from their interventions" in record.message]
    coarse, exact = (read(folder, "graphs").filter(prompt_id="second").to_dicts()[0] for folder in (tmp_path, artifact))
    for name in ("replacement_score", "completeness_score", "mean_path_length", "error_share"):
        assert coarse[name] == pytest.approx(exact[name], rel=0.03), name
    assert coarse["max_abs_error"] > 1e-4 > exact["max_abs_error"]
    for table in TABLES:
        assert read(tmp_path, table).schema == read(artifact, table).schema and read(tmp_path, table).height > 0, table


def test_more_edges_than_the_bound_leave_the_strongest(monkeypatch, artifact, tmp_path):
    monkeypatch.setattr(run, "MAX_EDGES", 500)
    attribute_prompts(tmp_path, PROMPTS[:1])
    edges, nodes = read(tmp_path, "edges"), read(tmp_path, "nodes")
    assert edges.filter(~pl.col("kept")).height <= 500 < read(artifact, "graphs")["n_edges"][0]
    assert nodes["dropped_mass"].sum() > 0
