"""What is read of text sources: which files, which rows, in which order; what is left out is counted."""

import bz2
import gzip
import json
import logging
import lzma
import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from cltdb.activations import texts
from cltdb.activations.settings import TextSource
from cltdb.activations.texts import Reading, documents
from cltdb.errors import DataError

TEXTS = [f"The king number {n} was old." for n in range(30)]


def read(root, *, reading=None, seed=0, **source):
    return list(documents(TextSource(**source), seed=seed, root=root, reading=reading or Reading()))


def contents(root, **options):
    return [document.content for document in read(root, **options)]


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


# Which files


def test_a_name_with_brackets_is_the_file_itself_and_its_neighbour_is_not_read(tmp_path):
    for folder in ("", "a [1]/"):
        for kind in ("jsonl", "parquet", "csv"):
            names = [f"{folder}data[1].{kind}", f"{folder}data1.{kind}"]
            for name in names:
                if kind == "parquet":
                    table(tmp_path / name, text=[name])
                elif kind == "csv":
                    (tmp_path / name).write_text(f"text\n{name}\n")
                else:
                    jsonl(tmp_path / name, [{"text": name}])
            assert contents(tmp_path, files=[names[0]]) == [names[0]]
            assert contents(tmp_path, files=[names[1]]) == [names[1]]
            assert sorted(contents(tmp_path, files=[f"{folder.replace('[', '[[]')}data*1*.{kind}"])) == sorted(names)
            for name in names:
                assert contents(tmp_path, files=[f"file://{tmp_path}/{name}"]) == [name]
    assert len(contents(tmp_path, files=["data[1].jsonl", "data*1*.jsonl"])) == 2  # each once
    assert contents(tmp_path, files=["data[12].csv"]) == ["data1.csv"]  # no such file: a pattern


@pytest.mark.parametrize("name", ["f[1]", "f*", "f?x", "plain"])
def test_a_dataset_folder_of_any_name(tmp_path, name):
    import datasets

    jsonl(tmp_path / "f1/data/train-00000-of-00001.jsonl", [{"text": "other"}])
    jsonl(tmp_path / name / "data/train-00000-of-00001.jsonl", [{"text": text} for text in TEXTS])
    assert sorted(contents(tmp_path, dataset=name)) == sorted(TEXTS)
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / f"{name}-saved")
    before = sorted((tmp_path / f"{name}-saved").iterdir())
    assert sorted(contents(tmp_path, dataset=f"{name}-saved")) == sorted(TEXTS)
    assert sorted((tmp_path / f"{name}-saved").iterdir()) == before, "reading wrote into the folder, whose content is in the key"


def test_ordinary_text_has_the_order_it_always_had(tmp_path):
    import datasets

    for name in ("b", "a"):
        jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name} {text}"} for text in TEXTS])
        table(tmp_path / f"folder/data/train-0000{'ab'.index(name)}-of-00002.parquet", text=[f"{name} {text}" for text in TEXTS])
    expected = [f"{name} {text}" for name in "ab" for text in TEXTS]
    theirs = datasets.Dataset.from_dict({"text": expected}).shuffle(seed=3)["text"]
    random.Random(3).shuffle(expected)
    assert contents(tmp_path, files=["*.jsonl"], seed=3) == expected
    assert contents(tmp_path, dataset="folder", seed=3) == list(theirs)
    datasets.load_dataset(
        "parquet", data_dir=str(tmp_path / "folder/data"), split="train", cache_dir=tmp_path / "c"
    ).save_to_disk(tmp_path / "saved")
    assert contents(tmp_path, dataset="saved", seed=3) == list(theirs)
    streamed = contents(tmp_path, dataset="folder", streaming=True)
    assert streamed == [f"{name} {text}" for name in "ab" for text in TEXTS]


def test_many_documents_are_held_on_disk(tmp_path, monkeypatch):
    jsonl(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    expected = contents(tmp_path, files=["a.jsonl"])
    monkeypatch.setattr(texts, "HELD_BYTES", 100)
    assert contents(tmp_path, files=["a.jsonl"]) == expected


# Which kinds


def zstd(data):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as file:
        file.write(data)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "suffix, pack", [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)]
)
def test_kinds_of_files_and_compressions(tmp_path, suffix, pack):
    lines = "\n".join(json.dumps({"text": text, "meta": {"body": [text]}}) for text in TEXTS)
    rows = "\n".join(f'{n},"{text}"' for n, text in enumerate(TEXTS))
    whole = {
        "a.jsonl": lines,
        "b.json": lines,
        "c.json": json.dumps([{"text": text} for text in TEXTS], indent=1),
        "d.csv": f"id,text\n{rows}\n",
        "e.tsv": "text\tid\n" + "\n".join(f"{text}\t1" for text in TEXTS),
        "f.txt": "\n\n".join(TEXTS),
    }
    files = {name: text.encode() for name, text in whole.items()}
    for name, with_bom in list(files.items()):
        files[f"bom-{name}"] = b"\xef\xbb\xbf" + with_bom
    table(tmp_path / "x", text=TEXTS)
    files["g.parquet"] = (tmp_path / "x").read_bytes()
    for name, data in files.items():
        (tmp_path / (name + suffix)).write_bytes(pack(data))
        assert sorted(contents(tmp_path, files=[name + suffix])) == sorted(TEXTS), name
        assert sorted(contents(tmp_path, files=[f"file://{tmp_path}/{name + suffix}"])) == sorted(TEXTS), name


def test_nested_columns_by_dotted_name(tmp_path):
    rows = [{"meta": {"body": {"text": text}, "lang": "en"}} for text in TEXTS]
    jsonl(tmp_path / "a.jsonl", rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    jsonl(tmp_path / "plain.jsonl", [{"meta.body.text": text} for text in TEXTS])
    for name in ("a.jsonl", "a.parquet", "plain.jsonl"):
        assert sorted(contents(tmp_path, files=[name], column="meta.body.text")) == sorted(TEXTS)
    assert {
        document.label for document in read(tmp_path, files=["a.jsonl"], column="meta.body.text", label_column="meta.lang")
    } == {"en"}
    for name, known in (("a.jsonl", "meta"), ("a.parquet", "meta.body, meta.lang")):
        with pytest.raises(DataError, match=f"found 'meta.txet.text'; expected one of {known}"):
            read(tmp_path, files=[name], column="meta.txet.text")


def test_texts_that_look_like_dates_or_numbers_stay_texts(tmp_path):
    odd = ["2024-01-02", "2024-01-02T03:04:05", "12", "true", "null", "1e5"]
    jsonl(tmp_path / "a.jsonl", [{"text": text} for text in odd])
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(odd))
    jsonl(tmp_path / "folder/train.jsonl", [{"text": text} for text in odd])
    for source in ({"files": ["a.jsonl"]}, {"files": ["a.csv"]}, {"dataset": "folder"}):
        assert sorted(contents(tmp_path, **source)) == sorted(odd)


def test_empty_shards_among_good_ones(tmp_path):
    for folder, source in (("f", {"files": ["f/*"]}), ("d", {"dataset": "d"})):
        jsonl(tmp_path / folder / "train-1.jsonl", [{"text": text} for text in TEXTS])
        (tmp_path / folder / "train-0.jsonl").write_text("")
        (tmp_path / folder / "train-2.jsonl").write_text("\n\n")
        (tmp_path / folder / "train-3.jsonl.gz").write_bytes(gzip.compress(b""))
        assert sorted(contents(tmp_path, **source)) == sorted(TEXTS)
    table(tmp_path / "p/a.parquet", text=pa.array([], pa.string()))
    table(tmp_path / "p/b.parquet", other=pa.array([], pa.int64()))
    table(tmp_path / "p/c.parquet", text=TEXTS)
    for name in ("a.csv", "a.txt"):
        (tmp_path / "p" / name).write_text("")
    assert sorted(contents(tmp_path, files=["p/*"])) == sorted(TEXTS)


# Which rows


BAD = {
    "NULL": "null",
    "empty": '""',
    "int values": "3",
    "list values": '["a"]',
    "lone surrogates or bytes that are not UTF-8": '"\\ud83d alone"',
}


@pytest.mark.parametrize("reason, value", BAD.items())
def test_single_rows_without_text_are_left_out_and_counted(tmp_path, caplog, reason, value):
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:7], f'{{"text": {value}}}', *lines[7:]]))
    texts._said.clear()
    reading = Reading()
    assert sorted(contents(tmp_path, files=["a.jsonl"], reading=reading)) == sorted(TEXTS)
    first = {"place": "a.jsonl, row 8", "reason": reason}
    assert reading.summary() == {"documents": 31, "left_out": {reason: 1}, "first": [first]}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            reading.check()
            reading.say()
    assert [record.message for record in caplog.records] == [
        f"text: left out 1 of 31 documents (1 {reason}), the first at a.jsonl, row 8"
    ]
    strict = Reading(0)
    contents(tmp_path, files=["a.jsonl"], reading=strict)
    with pytest.raises(DataError, match=f"a.jsonl, row 8: found {reason} instead of text, the first of 1 of 31 documents"):
        strict.check()


def test_rows_of_no_use_in_other_kinds(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,x\ngood,1\n\xff\xfe,1\n,1\n")
    (tmp_path / "a.txt").write_bytes(b"good\n\nb\xffd\n\n")
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n3\nnull\n{"other": 1}\n')
    bad = pa.array([b"good", b"b\xffd", None], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    for name, n_documents, n_left_out in (("a.csv", 3, 2), ("a.txt", 2, 1), ("a.jsonl", 4, 3), ("a.parquet", 3, 2)):
        reading = Reading(1)
        assert contents(tmp_path, files=[name], reading=reading) == ["good"]
        assert (reading.n_documents, reading.n_left_out) == (n_documents, n_left_out)


def test_too_many_rows_without_text_stop_with_file_and_row(tmp_path):
    rows = [{"text": None if n in (500, 1500, 1700) else f"text {n}"} for n in range(3000)]
    jsonl(tmp_path / "a.jsonl", rows)
    reading = Reading(0.001)
    contents(tmp_path, files=["a.jsonl"], reading=reading)
    reading.check()  # 3 of 3,000
    reading = Reading(0.0009)
    contents(tmp_path, files=["a.jsonl"], reading=reading)
    with pytest.raises(
        DataError, match=r"a.jsonl, row 501: found NULL .*3 of 3,000 documents \(3 NULL\); expected at most 0.0009"
    ):
        reading.check()


def test_bad_rows_that_stand_together_are_a_share_of_all_and_an_endless_stream_of_them_ends(tmp_path, monkeypatch):
    jsonl(tmp_path / "f/a.jsonl", [{"text": None}] * 40 + [{"text": "good"}] * 4000)
    for source in ({"files": ["f/a.jsonl"]}, {"dataset": "f"}, {"dataset": "f", "streaming": True}):
        reading = Reading(0.01)
        assert len(contents(tmp_path, reading=reading, **source)) == 4000
        reading.check()
    monkeypatch.setattr(texts, "JUDGED_DOCUMENTS", 1000)
    with pytest.raises(DataError, match=r"f/a.jsonl, row 1: found NULL instead of text, the first of 11 of 11 documents"):
        contents(tmp_path, dataset="f", streaming=True, reading=Reading(0.01))


def test_a_damaged_file_is_named_and_is_no_trouble_with_the_network(tmp_path):
    table(tmp_path / "whole", text=TEXTS * 50)
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    damaged = {
        "a.parquet": (tmp_path / "whole").read_bytes()[:-20],
        "b.parquet": b"",
        "c.jsonl.gz": gzip.compress(lines.encode())[:-20],
        "d.jsonl.gz": b"no gzip",
        "e.jsonl.zst": zstd(lines.encode())[:-4],
        "f.arrow": b"no arrow",
    }
    for name, data in damaged.items():
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(data)
        for source in ({"files": [f"{folder.name}/{name}"]}, {"dataset": folder.name}):
            with pytest.raises(DataError, match=f"{name}: found a file that cannot be read .*restore") as error:
                contents(tmp_path, **source)
            assert "network" not in str(error.value)
    (tmp_path / "g.jsonl").write_text(lines[:-10])
    with pytest.raises(DataError, match=r"g.jsonl, row 30: found no JSON .*it may be cut short"):
        contents(tmp_path, files=["g.jsonl"])


def test_a_damaged_saved_dataset_is_no_trouble_with_the_network(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    [data] = (tmp_path / "saved").glob("*.arrow")
    data.unlink()
    with pytest.raises(DataError, match="activations.text saved: found .*restore its files") as error:
        contents(tmp_path, dataset="saved")
    assert "network" not in str(error.value)


def test_splits_of_folders_and_of_saved_datasets(tmp_path):
    import datasets

    parts = {"train": [f"a {n}" for n in range(20)], "test": ["b"]}
    for name, values in parts.items():
        jsonl(tmp_path / f"folder/{name}.jsonl", [{"text": text} for text in values])
    saved = {name: datasets.Dataset.from_dict({"text": values}) for name, values in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    for name in ("folder", "saved"):
        assert contents(tmp_path, dataset=name, split="test") == ["b"]
        assert sorted(contents(tmp_path, dataset=name)) == sorted(parts["train"])
        assert sorted(contents(tmp_path, dataset=name, split="train[:10%]+test")) == ["a 0", "a 1", "b"]
        with pytest.raises(DataError, match=f"split of {name}: found 'valid'; expected one of train, test"):
            contents(tmp_path, dataset=name, split="valid")
    assert contents(tmp_path, dataset="saved/test") == ["b"]  # one split's own folder


def test_configurations_of_a_folder(tmp_path):
    for name in "ab":
        jsonl(tmp_path / f"folder/{name}/x.jsonl", [{"text": name}])
    configs = "\n".join(f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.jsonl" for name in "ab")
    (tmp_path / "folder/README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    assert contents(tmp_path, dataset="folder", config="b") == ["b"]
    with pytest.raises(DataError, match="several configurations, a, b"):
        contents(tmp_path, dataset="folder")


def test_labels_come_from_a_column(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": text, "lang": label} for text, label in zip("abcd", ["en", 3, None, ""], strict=True)])
    found = {document.content: document.label for document in read(tmp_path, files=["a.jsonl"], label_column="lang")}
    assert found == {"a": "en", "b": "3", "c": None, "d": None}
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="label_column of .*a.txt: found 'lang'"):
        read(tmp_path, files=["a.txt"], label_column="lang")


def test_a_folder_that_cannot_be_written_and_no_network_are_told_apart(tmp_path, monkeypatch):
    import datasets

    for failure, words in (
        (PermissionError(13, "Permission denied", "/home/.cache"), "Permission denied.*set HF_HOME"),
        (ConnectionError("no route"), "no route.*and network for the Hub"),
        (ValueError("Unknown split 'x'"), "Unknown split.*check its name, config and split"),
    ):

        def fails(*_, failure=failure, **__):
            raise failure

        monkeypatch.setattr(datasets, "load_dataset", fails)
        monkeypatch.setattr("cltdb.engine.revisions.limits", lambda *_, **__: {})
        with pytest.raises(DataError, match=f"activations.text owner/name: found .*{words}"):
            contents(tmp_path, dataset="owner/name")
