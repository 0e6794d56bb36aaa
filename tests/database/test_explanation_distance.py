"""How much alike explanations are: cosines by loops over pairs, scikit-learn's TF-IDF, and vectors at known angles."""

import hashlib
import math
from itertools import combinations

import numpy as np
import pytest
from worlds import tables

from cltdb.database.api import Database
from cltdb.database.store import connect
from cltdb.intervals import wilson

DICTS = ("a-clt-00000000", "b-clt-00000000")
WORDS = "on the last Straße of Paris or Rome after 2000 words in été".split()


def said(generator):
    return " ".join(generator.choice(WORDS, size=generator.integers(1, 7)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(Database, {(dict_id, explainer, layer, feature): text}): two dictionaries of a model, of two layers, and one of another model. Explainer angles: of
    layer 0 two texts whose vectors meet at 60° and one whose vector has no direction, of layer 1 one that stands on both."""
    folder, generator = tmp_path_factory.mktemp("distance"), np.random.default_rng(0)
    path, texts = folder / "cltdb.duckdb", {}
    models = {key: rows for key, rows in tables.model("toy", ["x"]).items()}
    other = tables.model("other", ["x"])
    rows = {name: models[name] + other[name] for name in models}
    rows["dictionaries"] = [
        {"dict_id": name, "experiment": name[0], "model_id": model, "kind": "clt", "n_layers": 2, "n_features": 9}
        for name, model in (*((name, "toy") for name in DICTS), ("c-clt-00000000", "other"))
    ]
    for name in (*DICTS, "c-clt-00000000"):
        texts |= {(name, "rules", layer, feature): said(generator) for layer in (0, 1) for feature in range(7 - layer)}
    texts[DICTS[0], "rules", 1, 6] = "…"  # no word
    texts |= {(DICTS[0], "angles", *place): f"angle {place}" for place in ((0, 0), (0, 5), (1, 2), (0, 6))}
    explained = [
        {"dict_id": d, "layer": layer, "feature": f, "side": "input", "explainer": e, "text": text, "status": "ok"}
        for (d, e, layer, f), text in sorted(texts.items())
    ]
    rows["explanations"] = [
        *explained,
        explained[0] | {"explainer": "baseline:shuffled"},
        explained[0] | {"feature": 8, "status": "failed", "text": None, "error": "late"},
    ]
    rows["scores"] = [
        {
            "dict_id": DICTS[1],
            "layer": 0,
            "feature": f,
            "side": "input",
            "explainer": "rules",
            "scorer": "detection",
            "score": score,
            "n": 9,
        }
        for f, score in enumerate((0.5, 0.75, 1.0))
    ]
    tables.load(path, folder, "key", rows)
    angle = math.pi / 3
    vectors = {(0, 0): [1, 0, 0], (0, 5): [math.cos(angle), math.sin(angle), 0], (1, 2): [0, 0, 1], (0, 6): [0, 0, 0]}
    with connect(path, write=True) as connection:
        for place, vector in vectors.items():
            text = hashlib.md5(texts[DICTS[0], "angles", *place].encode()).hexdigest()
            connection.execute("INSERT INTO text_embeddings VALUES ('small', ?, ?)", [text, vector])
    return Database(path), texts


def test_of_no_explanations_nothing_is_said(world):
    assert world[0].query("explanation_distance", per_layer=0).is_empty()


def test_tf_idf_cosines_are_those_of_pairs_one_by_one(world):
    db, texts = world
    frame = db.query("explanation_distance", explainer="rules").to_dicts()
    assert [row["dict_id"] for row in frame] == [*DICTS, "c-clt-00000000"] and {row["vectors"] for row in frame} == {"tf-idf"}
    of_model = {place: text for place, text in texts.items() if place[0] in DICTS and place[1] == "rules" and text != "…"}
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds, and all processes read this file

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+", strip_accents="unicode")
    vectors = dict(zip(of_model, vectorizer.fit_transform(of_model.values()).toarray(), strict=True))
    for row in frame[:2]:
        own = [place for place in of_model if place[0] == row["dict_id"]]
        assert row["n"] == len(own)
        pairs = [(a, b, float(vectors[a] @ vectors[b])) for a, b in combinations(own, 2)]
        for name, is_same in (("cosine", True), ("shuffled", False)):
            found = [(a, b, cosine) for a, b, cosine in pairs if (a[2] == b[2]) == is_same]
            mean = np.mean([cosine for *_, cosine in found])
            part = [sum(cosine - mean for a, b, cosine in found if one in (a, b)) / len(found) for one in own]
            assert row[name] == pytest.approx(mean)
            assert (row[f"{name}_high"] - row[name]) / 1.96 == pytest.approx(np.linalg.norm(part))
    assert frame[0]["detection"] is None and (frame[1]["n_scored"], frame[1]["detection"]) == (3, 0.75)
    assert (frame[1]["detection_low"], frame[1]["detection_high"]) == pytest.approx(wilson(0.75 * 9, 9))  # of 0.5, 0.75, 1
    one = db.query("explanation_distance", dict_id=DICTS[1], explainer="rules").to_dicts()
    assert one == [pytest.approx(frame[1])]  # rarity is that of all dictionaries of the model
    assert db.query("explanation_distance", sweep="b")["dict_id"].to_list() == [DICTS[1]]


def test_embeddings_at_a_known_angle_have_its_cosine(world):
    db, _ = world
    rows = {row["vectors"]: row for row in db.query("explanation_distance", explainer="angles").to_dicts()}
    assert rows.keys() == {"small", "tf-idf"} and rows["small"]["n"] == 3
    assert rows["small"]["cosine"] == pytest.approx(0.5, abs=1e-6) and rows["small"]["shuffled"] == pytest.approx(0, abs=1e-6)
    assert rows["small"]["cosine_low"] is None and rows["small"]["shuffled_low"] is not None  # one pair says nothing of others


def test_so_many_of_each_layer_are_drawn(world):
    db, _ = world
    assert db.query("explanation_distance", explainer="rules", per_layer=3)["n"].to_list()[1:] == [6, 6]
    alone = db.query("explanation_distance", explainer="rules", per_layer=1).to_dicts()[1]
    assert alone["n"] == 2 and alone["cosine"] is None and alone["shuffled"] is not None
