"""Files of labels made elsewhere, each against what stands in it, and one error with file and line for each thing that can be wrong."""

import gzip
import json
import logging
import re

import polars as pl
import pytest
from explain.http_model import Server, says
from polars.testing import assert_frame_equal
from pydantic import ValidationError
from worlds.planted import FEATURES, VOCABULARY, explain_planted

from cltdb.engine.units import Units
from cltdb.errors import CltdbError
from cltdb.explain.estimate import planned
from cltdb.explain.explainers import EXPLAINERS
from cltdb.explain.labels import neuronpedia
from cltdb.explain.labels.labels import MAX_CHARACTERS, check_labels, label_files, labels_content, labels_of
from cltdb.explain.labels.settings import OWN, Labels
from cltdb.explain.settings import Explain
from cltdb.explain.subjects import Subjects
from cltdb.interchange.feature_numbers import cantor_pair

ROW = {"modelId": "m", "layer": "1-x", "index": "3", "description": "cities", "explanationModelName": "gpt", "embedding": "[0.5]"}


def line(**fields):
    return json.dumps(ROW | fields, ensure_ascii=False) + "\n"


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads it, or the path that is given; returns rows (layer, feature, side, text, explainer, model)."""

    def read(name, content, format="neuronpedia", *, path=None, features=None, layer_names=None):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        section = Labels(name="theirs", path=path or name, format=format, layer_names=layer_names)
        return labels_of(section, tmp_path, features).rows()

    return read


def input_texts(rows):
    """{(layer, feature): text}, all of the input side and of explainer `theirs`."""
    assert all(row[2] == "input" and row[4] == "theirs" for row in rows)
    return {row[:2]: row[3] for row in rows}


# Neuronpedia


def test_an_export_in_batches(read, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = "exports/m/1-x"
    (tmp_path / folder / "features").mkdir(parents=True)
    (tmp_path / folder / "features/batch-0.jsonl").write_text("of other things\n")
    read(f"{folder}/explanations/batch-10.jsonl.gz", gzip.compress(line(description="ten").encode()))
    second = line(description="two") + "\n" + line(index=4, explanationModelName=None) + line(index="5", description=" ")
    rows = read(f"{folder}/explanations/batch-2.jsonl", second, path="exports")
    assert rows == [(1, 3, "input", "two", "theirs", "gpt"), (1, 4, "input", "cities", "theirs", None)]
    assert "2 texts, files read: 2; 1 left out, empty; 1 left out, after the first of their feature" in caplog.text


def test_the_answer_of_its_address(read):
    assert input_texts(read("e.json", json.dumps([ROW, ROW | {"index": 9}]))) == {(1, 3): "cities", (1, 9): "cities"}


def test_lines_read_at_once_are_those_read_one_by_one(tmp_path, monkeypatch):
    """Also where a chunk ends within a line, with a byte order mark, empty lines and texts that look like other types."""
    texts = ["cities", "[1]", "", "ünïcode «x»", "12", None, "line\nbreak", '"quoted"', "half \ud800 a pair"]
    rows = [line(index=number, description=texts[number % len(texts)]) for number in range(60)]
    rows = [json.dumps(json.loads(row)) + "\n" if "\ud800" in row else row for row in rows]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(rows[:30] + ["\n"] + rows[30:]).encode())
    frames = {}
    for name, at_once in (("slow", lambda chunk, n_lines: None), ("fast", neuronpedia._at_once)):
        monkeypatch.setattr(neuronpedia, "_at_once", at_once)
        monkeypatch.setattr(neuronpedia, "CHUNK_BYTES", 500)
        frames[name] = pl.concat(neuronpedia.frames([path]))
    assert_frame_equal(frames["slow"], frames["fast"])
    assert frames["fast"]["number"].to_list() == [*range(1, 31), *range(32, 62)]
    assert frames["fast"]["text"].to_list()[:8] == texts[:8]


def test_texts_are_cut_and_cleaned(read):
    text = "  a\u202eb\n\n\x00c\u0085d " + "x" * 5000
    (found,) = input_texts(read("e.jsonl", line(description=text))).values()
    assert found == "a b c d " + "x" * (MAX_CHARACTERS - 8)


def test_layers_by_name(read):
    two = line(layer="1-x", index=1) + line(layer="blocks.1.hook", index=2) + line(layer="1-y", index=3)
    names = {"blocks.1.hook": 7, "1-y": 0}
    assert input_texts(read("e.jsonl", two, layer_names=names)) == {(7, 2): "cities", (0, 3): "cities"}
    assert input_texts(read("f.jsonl", line(layer=2) + line(layer="10-x"))) == {(2, 3): "cities", (10, 3): "cities"}


OF_DICTIONARY = pl.DataFrame({"layer": [0, 1], "feature": [3, 3]})
WRONG = {
    "no JSON": (line() + "{\n", "line 2: found no JSON (Expecting"),
    "no object": (line() + "[1]\n", "line 2: found no field layer, only list; expected an object with layer, index, description"),
    "other fields": (line() + '{"layer": "1", "index": "2"}\n{}\n{', "line 2: found no field description, only layer, index"),
    "a list": (line(description=["a"]), "line 1: found description ['a']; expected a text"),
    "bytes": (line().encode() + b'{"layer": "\xff"}\n', "line 2: found bytes that are no UTF-8"),
    "index": (line() + line(index="3a"), "line 2: found index '3a'; expected a feature's number from 0"),
    "negative": (line(index=-1), "line 1: found index '-1'; expected a feature's number"),
    "no index": (line(index=None), "line 1: found no index; expected a feature's number"),
    "layer": (line() + line(layer="blocks.1"), "line 2: found layer 'blocks.1'; expected a layer's number, or a name that begins"),
    "no layer": (line(layer=None), "line 1: found no layer; expected a layer's number"),
    "two names": (line() + line() + line(layer="1-y"), "line 3: found layer '1-y'; expected one name of layer 1, which '1-x' is too"),
    "two models": (line() + line(modelId="n"), "line 2: found modelId 'n' after 'm'; expected explanations of one model"),
    "no texts": (line(description="\x00 "), "found 1 rows, none of them with a text; expected rows with a text as description"),
    "strange layer": (line() + line(layer="2-x"), "line 2: found layer '2-x'; expected one of the dictionary's layers, 0 to 1"),
    "strange feature": (line() + line(index=4), "line 2: found index '4'; expected one of the dictionary's 1 features per layer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_lines_are_named(read, name):
    content, message = WRONG[name]
    with pytest.raises(CltdbError) as error:
        read("e.jsonl", content, features=OF_DICTIONARY)
    assert f"e.jsonl, {message}" in str(error.value) or f"e.jsonl: {message}" in str(error.value)


def test_files_that_are_no_gzip(read):
    whole = gzip.compress(line().encode())
    for content in (whole[:-9], whole[:20], line().encode()):
        with pytest.raises(CltdbError, match=r"e\.jsonl\.gz: found a file that cannot be read .*; expected a whole JSON file"):
            read("e.jsonl.gz", content)


# Tables


def test_a_table(read, tmp_path):
    text = 'feature,text,layer,side,explainer,model,more\r\n5,"a ""b"", c",1,output,me,gpt,x\r\n\r\n5,"two\nlines",1,,,,\r\n6,,1,,,,\r\n'
    expected = [(1, 5, "output", 'a "b", c', "theirs:me", "gpt"), (1, 5, "input", "two lines", "theirs", None)]
    assert read("t.csv", b"\xef\xbb\xbf" + text.encode(), "table") == expected
    assert read("u.csv.gz", gzip.compress(text.encode()), "table") == expected
    assert read("t.tsv", "layer\tfeature\ttext\n1\t5\ta, b\n", "table") == [(1, 5, "input", "a, b", "theirs", None)]
    rows = {"layer": [1, 2], "feature": [5.0, 6.0], "text": ["a", "b"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
    assert input_texts(read("none", "", "table", path="t.parquet")) == {(1, 5): "a", (2, 6): "b"}


WRONG_TABLES = {
    "columns": ("layer,index,text\n", "w.csv: found the columns layer, index, text; expected a column feature"),
    "fields": ("layer,feature,text\n0,1,a\n0,2,a, b\n", "line 3: found 4 fields where the header has 3"),
    "quotes": ('layer,feature,text\n0,1,a\n0,2,"a\n', "line 3: found unexpected end of data"),
    "bytes": (b"layer,feature,text\n0,1,a\n0,2,\xff\n", "line 3: found bytes that are no UTF-8"),
    "nothing": ("", "w.csv: found empty CSV"),
    "side": ("layer,feature,text,side\n0,1,a,input\n0,2,b,both\n", "row 2: found side 'both'; expected input or output"),
    "half": ("layer,feature,text\n0,1.5,a\n", "row 1: found feature '1.5'; expected a feature's number"),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_wrong_tables_are_named(read, name):
    content, message = WRONG_TABLES[name]
    with pytest.raises(CltdbError) as error:
        read("w.csv", content, "table")
    assert message in str(error.value)


def test_a_broken_parquet_file(read):
    with pytest.raises(CltdbError, match=r"w\.parquet: found a file that cannot be read"):
        read("w.parquet", b"PAR1 and no more", "table")


# circuit-tracer


def test_feature_pages(read, tmp_path):
    pages = {(1, 3): {"index": 3, "layer": 1, "label": "cities"}, (2, 0): {"index": cantor_pair(2, 0), "explanation": "rivers"}}
    pages |= {(0, 4): {"index": 4, "top_logits": ["a"]}, (0, 5): {"label": "", "clerp": " seas "}}
    (tmp_path / "f/features/scan").mkdir(parents=True)
    for place, page in pages.items():
        (tmp_path / f"f/features/scan/{cantor_pair(*place)}.json").write_text(json.dumps(page))
    found = read("f/graph-metadata.json", "{}", "circuit_tracer", path="f")
    assert input_texts(found) == {(1, 3): "cities", (2, 0): "rivers", (0, 5): "seas"}
    with pytest.raises(CltdbError, match="found a page of layer 1, index 4; expected feature 3 of layer 1, which its place says"):
        read(f"{cantor_pair(1, 3)}.json", json.dumps({"layer": 1, "index": 4, "label": "a"}), "circuit_tracer")
    with pytest.raises(CltdbError, match=r"page\.json: found a name that is no number, and no graph"):
        read("page.json", json.dumps({"label": "a"}), "circuit_tracer")


def packed(pages):
    """(bytes, offsets) of pages, None where there is none."""
    content, offsets = b"", [0]
    for page in pages:
        piece = b"" if page is None else gzip.compress(json.dumps(page).encode())
        content += (len(piece).to_bytes(4, "little") + piece) if piece else b""
        offsets.append(len(content))
    return content, offsets


def test_packed_feature_pages(read, tmp_path):
    content, offsets = packed([{"label": "zero"}, None, {"index": 2}, {"index": 3, "label": "three"}])
    index = {"4": {"filename": "layer_4.bin", "offsets": offsets}}

    def write(value):
        return read("p/index.json.gz", gzip.compress(json.dumps(value).encode(), mtime=0), "circuit_tracer", path="p")

    (tmp_path / "p").mkdir()
    (tmp_path / "p/layer_4.bin").write_bytes(content)
    assert input_texts(write(index)) == {(4, 0): "zero", (4, 3): "three"}
    hashed = labels_content([Labels(name="t", path="p", format="circuit_tracer")], tmp_path)
    for wrong, message in (
        ({"4": {"filename": "../p/layer_4.bin", "offsets": offsets}}, "found another index"),
        ({"4": {"filename": "layer_4.bin", "offsets": offsets[::-1]}}, "found another index"),
        ({"4": {"filename": "layer_5.bin", "offsets": offsets}}, r"layer_5\.bin: found a file that cannot be read"),
        ({"4": {"filename": "layer_4.bin", "offsets": [0, 9]}}, r"layer_4\.bin, feature 0: found a page of another length"),
    ):
        with pytest.raises(CltdbError, match=message):
            write(wrong)
    write(index)
    ways = [Labels(name="t", path=path, format="circuit_tracer") for path in ("p", "p/index.json.gz")]
    assert labels_content(ways, tmp_path) == 2 * hashed
    (tmp_path / "p/layer_4.bin").write_bytes(content + b"\0")
    assert hashed[0] not in labels_content(ways, tmp_path)


def test_labels_in_graphs(read):
    node = {"feature_type": "cross layer transcoder", "layer": "1", "feature": cantor_pair(1, 3), "clerp": "cities"}
    nodes = [
        node,
        node,
        node | {"clerp": ""},
        {"feature_type": "logit", "layer": "5", "feature": 7, "clerp": 'Output "a" (p=0.1)'},
    ]
    assert input_texts(read("g.json", json.dumps({"nodes": nodes}), "circuit_tracer")) == {(1, 3): "cities"}
    old = {"nodes": [node, node | {"feature": 100003}]}
    with pytest.raises(CltdbError, match=r"g\.json nodes\[1\]: found feature 100003 in layer '1'; expected the Cantor pair"):
        read("g.json", json.dumps(old), "circuit_tracer")


# Scored


TEXTS = {
    "set": "'w1', 'w2' or 'w3'",
    "bigram": "w5 after one of 'w6', 'w7', 'w8'",
    "rare": "w39",
    "noisy": "things to do with doubt",
}


def labelled(folder):
    """The section of a table of texts about planted features, and about what one promotes."""
    rows = [(0, list(FEATURES).index(name), text, "input") for name, text in TEXTS.items()] + [(0, 0, "promotes w1", "output")]
    pl.DataFrame(rows, schema=["layer", "feature", "text", "side"], orient="row").write_csv(folder / "labels.csv")
    return {"labels": [Labels(name="theirs", path="labels.csv", format="table")]}


def detection(scores):
    """{name of a feature: score} of the labels, by detection."""
    return {
        list(FEATURES)[row["feature"]]: row["score"] for row in scores.filter(explainer="theirs", scorer="detection").to_dicts()
    }


def test_labels_are_scored_by_their_words(harvested, tmp_path):
    explanations, scores = explain_planted(
        harvested, tmp_path, seed=3, **labelled(tmp_path), scorers=["detection", "fuzzing", "pick_one"]
    )
    theirs = explanations.filter(explainer="theirs").sort("side", "feature")
    assert theirs["text"].to_list() == [*(TEXTS[name] for name in FEATURES if name in TEXTS), "promotes w1"]
    assert set(theirs["status"]) == {"ok"} and set(theirs["cost_usd"]) == {0.0}
    found = detection(scores)
    assert (
        found["set"] == 1.0
        and 0.5 < found["bigram"] < 0.9
        and found["noisy"] == 0.5
        and found.keys() == {"set", "bigram", "noisy"}
    )
    assert scores.filter(explainer="theirs", feature=0, scorer="fuzzing")["score"].to_list() == [1.0]
    assert scores.filter(explainer="theirs", side="output")["scorer"].to_list() == ["pick_one"]
    assert {json.loads(detail)["judge"] for detail in scores.filter(explainer="theirs")["detail"]} == {"words"}
    shuffled = explanations.filter(explainer="baseline:shuffled", side="input")  # rules lead
    assert set(shuffled["model"]) == {"cltdb-rules/v1"}


def test_labels_alone_are_scored_by_a_language_model(harvested, tmp_path):
    """Beside baselines of their own, on a server of OpenAI's protocol."""

    def script(number, body):
        content = json.loads(body["messages"][-1]["content"])
        words = re.findall(r"w\d+", content["claim"])
        shown = {n: re.findall(r"«(.*?)»", text) or text.split() for n, text in content["excerpts"].items()}
        return says(json.dumps({n: any(word in text for word in words) for n, text in shown.items()}))

    server = Server(script)
    try:
        asked = {"model": "openai/m", "api_base": server.address, "explainers": []}
        labels, subjects = labelled(tmp_path), Subjects(harvested, vocabulary=VOCABULARY, seed=3, base="b")
        frames = [labels_of(section, tmp_path) for section in labels["labels"]]
        expected = planned(Explain(**asked, **labels), subjects, units=Units(tmp_path, tmp_path / "explain/k"), labels=frames)
        explanations, scores = explain_planted(harvested, tmp_path, seed=3, **labels, **asked)
        assert expected.n_features == len(TEXTS) and expected.new.requests == len(server.bodies)
    finally:
        server.close()
    found = detection(scores)
    assert found["set"] == 1.0 and 0.5 < found["bigram"] < 0.95 and found["noisy"] == 0.5
    assert {json.loads(detail)["judge"] for detail in scores.filter(explainer="theirs")["detail"]} == {"language model"}
    assert {"theirs", "baseline:shuffled", "baseline:top_tokens"} <= set(scores["explainer"])
    assert explanations.filter(explainer="theirs", feature=0, side="input")["text"].to_list() == [TEXTS["set"]]
    labelled_features = set(explanations.filter(explainer="theirs")["feature"])
    assert set(explanations["feature"]) == labelled_features < set(range(len(FEATURES)))  # baselines stand beside labels alone


# The section


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (("none.csv", "found no file or folder none.csv"), ("empty", "found no file of this format in empty")):
        section = Labels(name="t", path=path, format="table")
        assert label_files(section, tmp_path) == []
        labels_content([section], tmp_path)
        with pytest.raises(CltdbError, match=f"explain.labels t path: {message}"):
            check_labels([section], tmp_path)


def test_the_first_rows_are_looked_at_before_anything_is_computed(tmp_path):
    section = Labels(name="t", path="e.jsonl", format="neuronpedia")
    (tmp_path / "e.jsonl").write_text(line(layer="9-x", index=10**6))  # the dictionary's size is not known yet
    check_labels([section], tmp_path)
    (tmp_path / "e.jsonl").write_text(line() + line(layer="nine"))
    with pytest.raises(CltdbError, match="line 2: found layer 'nine'"):
        check_labels([section], tmp_path)


@pytest.mark.parametrize("name", ["rules", "llm_output", "baseline:mine", "a b", ""])
def test_names_that_labels_cannot_have(name):
    with pytest.raises(ValidationError):
        Labels(name=name, path="x", format="table")


def test_names_of_our_explainers_are_those_in_their_table():
    assert set(OWN) == set(EXPLAINERS)
