"""Labels made elsewhere on their whole way: from the files of an export to scores, SQL and the page of a feature, beside our own explanations."""

import contextlib
import gzip
import json

import pytest
from visit import page_text
from worlds import projects

import cltdb
from cltdb.__main__ import main

SECTIONS = """
evaluate: {tokens: 64}
harvest: {tokens: 2500, pool_windows: 400}
explain: {labels: [{name: neuronpedia, path: exports, format: neuronpedia}]}
"""
N_LAYERS = 4


@pytest.fixture(scope="module")
def imported(tmp_path_factory, request):
    """A finished project with an export of a label for each of so many features of each layer, in two batches."""
    n_features = request.param
    folder = projects.with_dictionary(tmp_path_factory.mktemp("labels") / "project", SECTIONS, n_features=n_features)
    for layer in range(N_LAYERS):
        source = f"{layer}-transcoder"
        texts = [f"mentions of 'capital', label {feature}" for feature in range(n_features)]
        rows = [
            {"modelId": "toy", "layer": source, "index": str(n), "description": text, "explanationModelName": "gpt"}
            for n, text in enumerate(texts)
        ]
        for batch in range(2):
            path = folder / f"exports/toy/{source}/explanations/batch-{batch}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows[batch::2])).encode()))
    with contextlib.chdir(folder):
        assert main(["run", "small.yaml"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("imported", [250], indirect=True)
def test_an_export_of_1000_labels_is_scored_beside_ours(imported):
    db = cltdb.open(imported / "cltdb.duckdb")
    told = db.sql(
        "SELECT layer, feature, text, model, status FROM explanations WHERE explainer = 'neuronpedia' ORDER BY ALL"
    ).rows()
    assert told == [
        (layer, feature, f"mentions of 'capital', label {feature}", "gpt", "ok")
        for layer in range(N_LAYERS)
        for feature in range(250)
    ]
    scored = db.sql("SELECT DISTINCT explainer, scorer, layer, feature, detail->>'judge' AS judge FROM scores").rows()
    of = {name: {row[1:4] for row in scored if row[0] == name} for name in ("neuronpedia", "rules", "baseline:shuffled")}
    assert of["neuronpedia"] == of["rules"] == of["baseline:shuffled"] and len(of["rules"]) > 20
    assert {row[4] for row in scored if row[0] == "neuronpedia"} == {"words"}
    compared = {row["explainer"]: row for row in db.query("explainers_compared", scorer="detection").to_dicts()}
    assert compared["neuronpedia"]["n_shared"] == compared["rules"]["n_shared"] == len(of["rules"]) // 2
    assert compared["rules"]["mean_score"] > compared["neuronpedia"]["mean_score"] > 0.4
    assert {row["best"] for row in db.query("explainer_disagreements").to_dicts()} >= {"rules"}


@pytest.mark.parametrize("imported", [16], indirect=True)
def test_a_page_shows_both(imported):
    db = cltdb.open(imported / "cltdb.duckdb")
    dict_id, layer, feature = db.sql("SELECT dict_id, layer, feature FROM scores WHERE explainer = 'rules' ORDER BY ALL").row(0)
    text = page_text(imported / "cltdb.duckdb", f"/feature/{dict_id}/{layer}/{feature}")
    (own,) = db.sql(f"SELECT text FROM explanations WHERE explainer = 'rules' AND layer = {layer} AND feature = {feature}").row(0)
    assert f"mentions of 'capital', label {feature}" in text and own in text and "neuronpedia" in text
    assert text.count("judged by its words") == 2
    not_scored = db.sql(
        "SELECT layer, feature, text FROM explanations ANTI JOIN scores USING (layer, feature) WHERE status = 'ok' ORDER BY ALL"
    ).row(0)
    assert not_scored[2] in page_text(imported / "cltdb.duckdb", f"/feature/{dict_id}/{not_scored[0]}/{not_scored[1]}")
    card = db.sql(f"SELECT text, explainer FROM feature_cards WHERE layer = {not_scored[0]} AND feature = {not_scored[1]}").row(0)
    assert card == (not_scored[2], "neuronpedia")
