import json

import fakes
import numpy as np
import pytest

from cltdb.activations.tokens import matching_files, pack
from cltdb.errors import DataError
from cltdb.spec import TextSource


@pytest.fixture
def lm():
    return fakes.language_model()


def sequences(lm, root, source, **options):
    return pack(
        lm,
        [TextSource(**source)],
        root=root,
        **{"context": 8, "seed": 0, "heldout_frac": 0.25, "train_tokens": 40, "heldout_tokens": 16, **options},
    )


def test_every_sequence_and_document_begins_with_bos_and_no_token_is_lost(lm, tmp_path):
    texts = ["abcdefghijklm", "xy", "0123456789012345678"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    train, _ = sequences(lm, tmp_path, {"files": ["t.jsonl"]}, heldout_frac=0, train_tokens=32, heldout_tokens=0)
    assert (train.tokens[:, 0] == 0).all() and train.tokens.shape == (4, 8)
    starts = np.flatnonzero(np.diff(train.documents.ravel(), prepend=-1))
    assert (train.tokens.ravel()[starts] == 0).all() and len(starts) >= 2
    for document in range(3):
        kept = train.tokens[(train.documents == document) & (train.tokens != 0)].tolist()
        assert any(lm.text_tokens(text)[: len(kept)] == kept for text in texts)


def test_parts_share_no_document_and_repeat(lm, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(f"paragraph number {n}" for n in range(60)))
    train, heldout = sequences(lm, tmp_path, {"files": ["*.txt"], "label": "en"}, train_tokens=200, heldout_tokens=50)
    assert not set(train.documents.ravel()) & set(heldout.documents.ravel())
    assert train.label_names == ["en"] and (train.labels == 0).all()
    again, _ = sequences(lm, tmp_path, {"files": ["*.txt"], "label": "en"}, train_tokens=200, heldout_tokens=0)
    assert np.array_equal(again.tokens, train.tokens)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"files": ["missing*.txt"]}, {}, "no file that matches"),
        ({"files": ["t.csv"]}, {}, "a file of type .csv"),
        ({"files": ["t.jsonl"], "column": "txet"}, {}, "found 'txet'; expected one of text"),
        ({"files": ["short.txt"]}, {}, "text shorter than one context of 8 tokens"),
        ({"files": ["t.jsonl"]}, {"train_tokens": 10_000}, "10,000 tokens asked for; expected at most the"),
        ({"dataset": "nowhere/nothing"}, {}, "expected a dataset on the Hub or in a local directory"),
        ({"files": ["t.jsonl"]}, {"context": 1000}, "found 1000; expected 2 to the 64 positions"),
    ],
)
def test_bad_text_is_one_clear_error(lm, tmp_path, source, options, message):
    (tmp_path / "t.csv").write_text("a,b")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": f"some text {n}"}) for n in range(30)))
    with pytest.raises(DataError, match=message):
        sequences(lm, tmp_path, source, **options)


def test_datasets_from_disk_and_parquet(lm, tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"body": [f"document number {n}" for n in range(40)]})
    data.save_to_disk(tmp_path / "disk")
    (tmp_path / "folder").mkdir()
    data.to_parquet(tmp_path / "folder/part.parquet")
    for source in (
        {"dataset": "disk", "column": "body"},
        {"dataset": "folder", "column": "body"},
        {"files": ["folder/*.parquet"], "column": "body"},
    ):
        train, heldout = sequences(lm, tmp_path, source)
        assert train.tokens.shape == (5, 8) and heldout.tokens.shape == (2, 8)


def test_sources_are_mixed_by_weight(lm, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name}{n:08d}" for n in range(400)))
    sources = [TextSource(files=["a.txt"], label="a", weight=3), TextSource(files=["b.txt"], label="b")]
    train, _ = pack(lm, sources, root=tmp_path, context=8, seed=0, heldout_frac=0, train_tokens=2000)
    assert np.mean(train.labels == 0) == pytest.approx(0.75, abs=0.02)


def test_equal_documents_go_to_the_same_part_under_one_number(lm, tmp_path):
    texts = [f"text {n % 37:02d} of 37" for n in range(400)]
    (tmp_path / "text.txt").write_text("\n\n".join(texts))
    train, heldout = pack(
        lm,
        [TextSource(files=["text.txt"])],
        root=tmp_path,
        context=16,
        seed=0,
        heldout_frac=0.25,
        train_tokens=2000,
        heldout_tokens=800,
    )
    spelled = {}
    for part in (train, heldout):
        text = lm.tokenizer.decode(part.tokens.flatten().tolist())
        spelled[id(part)] = {piece for piece in text.split("<bos>") if len(piece) == 13}
    assert spelled[id(train)] and spelled[id(heldout)] and not spelled[id(train)] & spelled[id(heldout)]
    assert len(set(train.documents.flatten().tolist()) | set(heldout.documents.flatten().tolist())) <= 37


def test_files_are_found_under_a_root_with_glob_characters(tmp_path):
    (tmp_path / "p [1]/sub").mkdir(parents=True)
    (tmp_path / "p [1]/sub/a.txt").write_text("a")
    assert matching_files(tmp_path / "p [1]", ["**"]) == [str(tmp_path / "p [1]/sub/a.txt")]


def test_text_in_object_storage_is_read_by_uri(lm, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "a/b").mkdir(parents=True)
    texts = [f"document number {n}" for n in range(40)]
    (tmp_path / "a/t.txt").write_text("\n\n".join(texts))
    (tmp_path / "a/b/t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a/b/t.parquet")
    base = f"file://{tmp_path}"
    assert matching_files("/", [f"{base}/a/*"]) == [f"{base}/a/t.txt"]
    assert matching_files("/", [f"{base}/**/*.jsonl", f"{base}/a/b/t.parquet"]) == [
        f"{base}/a/b/t.jsonl",
        f"{base}/a/b/t.parquet",
    ]
    local = sequences(lm, tmp_path, {"files": ["a/t.txt"]})[0].tokens
    for name in ("a/t.txt", "a/b/t.jsonl", "a/b/t.parquet"):
        assert np.array_equal(sequences(lm, tmp_path, {"files": [f"{base}/{name}"]})[0].tokens, local)
    with pytest.raises(DataError, match="no file that matches"):
        sequences(lm, tmp_path, {"files": [f"{base}/nothing/*.txt"]})
    (tmp_path / "a/bad.parquet").write_text("x")
    with pytest.raises(DataError, match="bad.parquet: found .*; expected a .parquet file that can be read"):
        sequences(lm, tmp_path, {"files": [f"{base}/a/bad.parquet"]})
