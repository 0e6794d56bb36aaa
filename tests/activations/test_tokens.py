import json

import numpy as np
import pytest
from worlds import models, projects

from cltdb.activations.labels import names_labels
from cltdb.activations.settings import TextSource
from cltdb.activations.text_files import matching_files
from cltdb.activations.texts import Reading
from cltdb.activations.tokens import Packing, pack, trained_on
from cltdb.errors import DataError
from cltdb.spec import load
from cltdb.stages import STAGES


@pytest.fixture
def lm():
    return models.language_model()


def sequences(lm, root, source, **options):
    options = {"context": 8, "seed": 0, "heldout_frac": 0.25, "train_tokens": 40, "heldout_tokens": 16, **options}
    packing = Packing(root=root, **{name: options.pop(name) for name in ("context", "seed", "heldout_frac")})
    return pack(lm, [TextSource(**source)], packing, **options)


def test_every_sequence_and_document_begins_with_bos_and_no_token_is_lost(lm, tmp_path):
    texts = ["abcdefghijklm", "xy", "0123456789012345678"]
    projects.write_texts(tmp_path / "t.jsonl", texts)
    train, _ = sequences(lm, tmp_path, {"files": ["t.jsonl"]}, heldout_frac=0, train_tokens=32, heldout_tokens=0)
    assert (train.tokens[:, 0] == 0).all() and train.tokens.shape == (4, 8)
    starts = np.flatnonzero(np.diff(train.documents.ravel(), prepend=-1))
    assert (train.tokens.ravel()[starts] == 0).all() and len(starts) >= 2
    for document in range(3):
        kept = train.tokens[(train.documents == document) & (train.tokens != 0)].tolist()
        assert any(lm.text_tokens(text)[: len(kept)] == kept for text in texts)


def test_parts_share_no_document_and_repeat(lm, tmp_path):
    projects.write_texts(tmp_path / "t.txt", [f"paragraph number {n}" for n in range(60)])
    train, heldout = sequences(lm, tmp_path, {"files": ["*.txt"], "label": "en"}, train_tokens=200, heldout_tokens=50)
    assert not set(train.documents.ravel()) & set(heldout.documents.ravel())
    assert train.label_names == ["en"] and (train.labels == 0).all()
    again, _ = sequences(lm, tmp_path, {"files": ["*.txt"], "label": "en"}, train_tokens=200, heldout_tokens=0)
    assert np.array_equal(again.tokens, train.tokens)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"files": ["missing*.txt"]}, {}, "no file that matches"),
        ({"files": ["t.docx"]}, {}, "a file of type .docx"),
        ({"files": ["t.jsonl"], "column": "txet"}, {}, "found 'txet'; expected one of text"),
        ({"files": ["short.txt"]}, {}, "text shorter than one context of 8 tokens"),
        ({"files": ["t.jsonl"]}, {"train_tokens": 10_000}, "10,000 tokens asked for; expected at most the"),
        ({"dataset": "nowhere/nothing"}, {}, "expected a dataset on the Hub or in a local directory"),
        ({"files": ["t.jsonl"]}, {"context": 1000}, "found 1000; expected 2 to the 64 positions"),
    ],
)
def test_bad_text_is_one_clear_error(lm, tmp_path, source, options, message):
    (tmp_path / "t.docx").write_text("a,b")
    (tmp_path / "short.txt").write_text("abc")
    projects.write_texts(tmp_path / "t.jsonl", [f"some text {n}" for n in range(30)])
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
        projects.write_texts(tmp_path / f"{name}.txt", [f"{name}{n:08d}" for n in range(400)])
    sources = [TextSource(files=["a.txt"], label="a", weight=3), TextSource(files=["b.txt"], label="b")]
    train, _ = pack(lm, sources, Packing(8, 0, 0, tmp_path), train_tokens=2000)
    assert np.mean(train.labels == 0) == pytest.approx(0.75, abs=0.02)


def test_equal_documents_go_to_the_same_part_under_one_number(lm, tmp_path):
    texts = [f"text {n % 37:02d} of 37" for n in range(400)]
    projects.write_texts(tmp_path / "text.txt", texts)
    sources, sizes = [TextSource(files=["text.txt"])], {"train_tokens": 2000, "heldout_tokens": 800}
    train, heldout = pack(lm, sources, Packing(16, 0, 0.25, tmp_path), **sizes)
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
    projects.write_texts(tmp_path / "a/t.txt", texts)
    projects.write_texts(tmp_path / "a/b/t.jsonl", texts)
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
    with pytest.raises(DataError, match="no file that matches .* relative to /.*, the folder of cltdb.yaml"):
        sequences(lm, tmp_path, {"files": [f"{base}/nothing/*.txt"]})
    (tmp_path / "a/bad.parquet").write_text("x")
    with pytest.raises(DataError, match="bad.parquet: found .*; expected a whole parquet file"):
        sequences(lm, tmp_path, {"files": [f"{base}/a/bad.parquet"]})


def test_documents_that_bring_bos_have_one_and_control_tokens_in_text_are_text(lm, tmp_path):
    bare = [f"The king number {n} said that he was old." for n in range(40)]
    kinds = {"plain": bare, "bos": [f"<bos>{text}" for text in bare], "twice": [f"<bos><bos>{text}" for text in bare]}
    for name, texts in kinds.items():
        projects.write_texts(tmp_path / f"{name}.jsonl", texts)
    (tmp_path / "stories.txt").write_text("".join(f"<bos>\n\n{text}\n\n" for text in bare))
    expected = sequences(lm, tmp_path, {"files": ["plain.jsonl"]}, train_tokens=400)[0]
    for name in ("bos.jsonl", "twice.jsonl"):
        for special in (False, True):
            lm.special_tokens_in_text = special
            found = sequences(lm, tmp_path, {"files": [name]}, train_tokens=400)[0]
            assert np.array_equal(found.tokens, expected.tokens) and np.array_equal(found.documents, expected.documents)
    lm.special_tokens_in_text = False
    stories = sequences(lm, tmp_path, {"files": ["stories.txt"]}, train_tokens=400)[0].tokens.ravel()
    assert not ((stories[1:] == 0) & (stories[:-1] == 0)).any()
    projects.write_texts(tmp_path / "inside.jsonl", [text.replace("said", "<bos>") for text in bare])
    inside = sequences(lm, tmp_path, {"files": ["inside.jsonl"]}, train_tokens=400)[0]
    starts = np.flatnonzero(np.diff(inside.documents.ravel(), prepend=-1))
    firsts = set(starts.tolist()) | set(range(0, inside.tokens.size, 8))
    assert set(np.flatnonzero(inside.tokens.ravel() == 0).tolist()) == firsts  # BOS where documents and sequences begin alone


def test_tokens_of_a_column_are_read_as_they_are_and_checked_against_the_vocabulary(lm, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    texts = [f"document number {n} of some" for n in range(40)]
    tokens = [lm.text_tokens(text) for text in texts]
    projects.write_texts(tmp_path / "text.jsonl", texts)
    (tmp_path / "tokens.jsonl").write_text("\n".join(json.dumps({"ids": [0, *ids]}) for ids in tokens))
    parquet.write_table(pa.table({"ids": pa.array(tokens, pa.list_(pa.uint16()))}), tmp_path / "tokens.parquet")
    expected = sequences(lm, tmp_path, {"files": ["text.jsonl"]}, train_tokens=400)[0]
    for name in ("tokens.jsonl", "tokens.parquet"):
        found = sequences(lm, tmp_path, {"files": [name], "tokens_column": "ids"}, train_tokens=400)[0]
        assert np.array_equal(found.tokens, expected.tokens)
    for wrong in (257, -1, 10**12):
        (tmp_path / "wrong.jsonl").write_text("\n".join(json.dumps({"ids": [*ids, wrong]}) for ids in tokens))
        with pytest.raises(DataError, match=f"tokens_column ids: found token {wrong}; expected ids of the vocabulary .*0 to 256"):
            sequences(lm, tmp_path, {"files": ["wrong.jsonl"], "tokens_column": "ids"}, train_tokens=400)
    for value in ([], [1.5], [True], "text", None):
        lines = [json.dumps({"ids": ids}) for ids in tokens]
        (tmp_path / "bad.jsonl").write_text("\n".join([json.dumps({"ids": value}), *lines]))
        reading = Reading()
        sequences(lm, tmp_path, {"files": ["bad.jsonl"], "tokens_column": "ids"}, train_tokens=400, reading=reading)
        assert reading.n_left_out == 1
    for source in ({"column": "x", "tokens_column": "ids", "files": ["x"]}, {"tokens_column": "ids", "toyworld": True}):
        with pytest.raises(ValueError, match="tokens_column"):
            TextSource(**source)


def test_labels_of_a_column_are_codes_of_sorted_names(lm, tmp_path):
    rows = [{"text": f"document number {n}", "lang": ["fr", "en", None][n % 3]} for n in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, heldout = sequences(lm, tmp_path, {"files": ["t.jsonl"], "label_column": "lang"}, train_tokens=400)
    for part in (train, heldout):
        assert part.label_names == ["en", "fr"]
        text = [
            lm.tokenizer.decode(document)
            for document in np.split(part.tokens.ravel(), np.flatnonzero(np.diff(part.documents.ravel())) + 1)
        ]
        labels = [part.labels.ravel()[0], *part.labels.ravel()[1:][np.diff(part.documents.ravel()) != 0]]
        for words, label in zip(text[:-1], labels, strict=False):
            if number := words.replace("<bos>", "").removeprefix("document number "):
                assert not number.isdigit() or label == [1, 0, -1][int(number) % 3]


def test_what_was_trained_on_is_known_and_can_be_left_out(lm, tmp_path):
    projects.write_texts(tmp_path / "t.txt", [f"paragraph {n:02d}" for n in range(60)])
    packing, source = Packing(32, 0, 0.25, tmp_path), [TextSource(files=["t.txt"])]
    split = {"train_tokens": 300, "heldout_tokens": 50}
    known = trained_on(lm, source, packing, max_bad=0.001, **split)
    train, heldout = pack(lm, source, packing, **split)
    other, _ = pack(lm, source, packing._replace(heldout_frac=0), train_tokens=320, without=known)
    assert len(known) == len(np.unique(train.documents))
    [trained, held, found] = [
        {text for text in lm.tokenizer.decode(part.tokens.ravel()).split("<bos>") if len(text) == 12}
        for part in (train, heldout, other)
    ]
    assert trained and held and found and not trained & found and held <= found


def test_languages_of_the_toy_world_are_labels_where_the_spec_asks(tmp_path):
    """Documents in all three languages have none then; else that of their first sentence, as ever."""
    lm = models.language_model()
    plain, asked = (
        sequences(lm, tmp_path, {"toyworld": True, **column}, context=64, train_tokens=20_000, heldout_tokens=0)[0]
        for column in ({}, {"label_column": "language"})
    )
    assert plain.label_names == asked.label_names == ["de", "en", "fr"] and np.array_equal(plain.tokens, asked.tokens)
    assert (plain.by_label, asked.by_label) == (False, True)
    is_parallel = asked.labels < 0
    assert 0.05 < is_parallel.mean() < 0.3 and (plain.labels[is_parallel] == 1).all()
    assert np.array_equal(plain.labels[~is_parallel], asked.labels[~is_parallel])
    text = lm.tokenizer.decode(asked.tokens[is_parallel])
    assert "capital of" in text and "capitale" in text and "Hauptstadt" in text
    for code, without in enumerate(("capitale", "Hauptstadt", "Hauptstadt")):
        assert without not in lm.tokenizer.decode(asked.tokens[asked.labels == code])
    with pytest.raises(ValueError, match="expected label_column: language with toyworld: true, found lang"):
        TextSource(toyworld=True, label_column="lang")


def test_a_spec_that_names_labels_asks_that_counts_are_kept_apart(tmp_path):
    files = {"files": ["x.txt"]}
    asks = lambda *sources: names_labels([TextSource(**source) for source in sources])  # noqa: E731
    assert asks(files | {"label_column": "lang"}) and asks(files | {"label": "en"}, files | {"label": "fr"}, files)
    assert not asks(files | {"label": "en"}, files) and not asks(files | {"label": "en"}, files | {"label": "en"})
    spec = "name: x\nmodel: {id: toyworld}\nactivations: {text: [%s], context: 16, train_tokens: 100, heldout_tokens: 50}\n"
    for text, own in (("{toyworld: true}", {}), ("{toyworld: true, label_column: language}", {"by_label": 1})):
        loaded = load(projects.new(tmp_path, spec % text) / "x.yaml")
        for stage in ("harvest", "evaluate"):
            identity = STAGES[stage].identity(loaded.experiment, loaded.project)
            assert {name: identity[name] for name in identity if name == "by_label"} == own
