"""Label profiles of planted features: closed forms, and a text in which labels have other numbers of tokens."""

from math import log, log2

import numpy as np
import pytest

from cltdb.activations.labels import labels_apart
from cltdb.activations.tokens import Sequences
from cltdb.harvest.labels import Cells, LabelCounts, Profiles, TextLabels, summed

WORDS = {"a": {0: 500} | {word: 25 for word in range(1, 21)}, "b": {word: 25 for word in range(21, 41)}, "c": {41: 25, 42: 25}}
"""How often each label's text has each word; word 0 is half of a's text."""
NAMES = ["b", "unseen", "a", "c"]


def coin(p):
    return 0 if p in (0, 1) else -p * log2(p) - (1 - p) * log2(1 - p)


def information(*rates):
    return coin(sum(rates) / len(rates)) - sum(map(coin, rates)) / len(rates)


FIRES = {
    "on a": lambda label, word: label == "a",
    "on all": lambda label, word: True,
    "on a's frequent word": lambda label, word: word == 0,
    "on a and b": lambda label, word: label != "c",
    "never": lambda label, word: False,
}
EXPECTED = {
    "on a": (0, information(1, 0, 0), information(1, 0, 0)),
    "on all": (1, 0, 0),
    "on a's frequent word": (0, information(1 / 2, 0, 0), information(1 / 21, 0, 0)),
    "on a and b": (log(2) / log(3), information(1, 1, 0), information(1, 1, 0)),  # not 1: there are three labels
    "never": (np.nan, 0, 0),
}
"""label_entropy, label_information_bits, label_information_matched_bits of each feature."""


def text(times, context=51):
    """(`Sequences`, words, labels) of the text, that of a label `times` so often, in some order, some tokens without a label among it."""
    said = [
        (NAMES.index(label), word)
        for label, words in WORDS.items()
        for word, n in words.items()
        for _ in range(n * times.get(label, 1))
    ]
    said += [(-1, 0)] * (context - 1 + -len(said) % (context - 1))
    said = np.random.default_rng(1).permutation(said).reshape(-1, context - 1, 2)
    codes, words = np.insert(said, 0, (2, 0), axis=1).transpose(2, 0, 1)
    return Sequences(words.astype(np.int32), 0 * words, codes.astype(np.int16), NAMES, by_label=True)


def profiles(sequences, n_parts=3):
    """The `Profiles` of the planted features, whose activations are 0.5."""
    labels = TextLabels.of(sequences)
    names = np.array([*sequences.label_names, None], dtype=object)[sequences.labels].ravel()
    words, ordinary = sequences.tokens.ravel(), sequences.ordinary.ravel()
    fires = [
        (place, feature)
        for place in np.flatnonzero(ordinary)
        for feature, rule in enumerate(FIRES.values())
        if rule(names[place], words[place])
    ]
    parts = []
    for part in np.array_split(np.array(fires), n_parts):
        counts = LabelCounts(labels)
        for place, feature in (batch.T for batch in np.array_split(part, 4)):
            counts.add(feature, place, np.full(len(place), 0.5, dtype=np.float32))
        parts.append(counts.take())
        assert not len(counts.take().cell)
    return labels, Profiles.of(summed(parts), labels, range(len(FIRES)))


@pytest.fixture(scope="module")
def plain():
    return profiles(text({}))


def test_planted_features_have_the_entropy_and_information_of_closed_forms(plain):
    labels, found = plain
    assert labels.names == ["b", "a", "c"] and labels.n_tokens.tolist() == [500, 1000, 50]
    columns = found.columns()
    for feature, expected in enumerate(EXPECTED.values()):
        assert [values[feature] for values in columns.values()] == pytest.approx(list(expected), abs=1e-9, nan_ok=True)
    kept = columns["label_information_matched_bits"] >= columns["label_information_bits"] / 2
    verdict = dict(zip(FIRES, kept & (columns["label_information_bits"] > 1e-9), strict=True))
    assert verdict == {"on a": True, "on all": False, "on a's frequent word": False, "on a and b": True, "never": False}


def test_rows_say_how_often_a_feature_fires_on_each_label(plain):
    labels, found = plain
    rows = found.rows(labels, dict_id="d", layer=2, first=7).to_pylist()
    assert len(rows) == 3 * 4  # none of the feature that never fires
    of_word = [row for row in rows if row["feature"] == 9]
    assert [(row["label"], row["tokens"], row["firings"], row["mass"], row["rate"], row["share"]) for row in of_word] == [
        ("b", 500, 0, 0, 0, 0),
        ("a", 1000, 500, 250, 0.5, 1),
        ("c", 50, 0, 0, 0, 0),
    ]
    assert [row["matched_rate"] for row in of_word] == pytest.approx([0, 1 / 21, 0], abs=1e-9)
    everywhere = [row for row in rows if row["feature"] == 8]
    assert [row["share"] for row in everywhere] == pytest.approx([1 / 3] * 3)  # of rates, not of counts
    assert {(row["dict_id"], row["layer"]) for row in rows} == {("d", 2)}


@pytest.mark.parametrize("times", [{"a": 7}, {"c": 40, "b": 3}])
def test_how_many_tokens_a_label_has_changes_nothing(plain, times):
    _, other = profiles(text(times), n_parts=5)
    for name in ("rate", "matched_rate", "share"):
        assert np.allclose(getattr(other, name), getattr(plain[1], name), rtol=0, atol=1e-9, equal_nan=True), name
    for name, values in plain[1].columns().items():
        assert np.allclose(other.columns()[name], values, rtol=0, atol=1e-9, equal_nan=True), name


def test_sums_do_not_depend_on_the_order_of_firings():
    rng, labels = np.random.default_rng(0), TextLabels.of(text({}))
    place, feature = rng.integers(1, 1500, 4000), rng.integers(0, 9, 4000)
    activation = np.exp(4 * rng.standard_normal(4000)).astype(np.float32)
    made = []
    for rows, n_batches in ((np.arange(4000), 1), (np.argsort(activation), 50), (np.argsort(-activation), 7)):
        counts = LabelCounts(labels)
        for batch in np.array_split(rows, n_batches):
            counts.add(feature[batch], place[batch], activation[batch])
        made.append(counts.take())
    for other in made[1:]:
        assert all(np.array_equal(getattr(other, name), getattr(made[0], name)) for name in Cells._fields)


@pytest.mark.parametrize(
    "names, asked, said", [(1, True, "the one label b"), (300, True, "300 labels, more than 256"), (3, False, "")]
)
def test_a_text_without_several_labels_has_no_profiles(caplog, names, asked, said):
    whole = text({})
    codes = np.arange(whole.tokens.size, dtype=np.int16).reshape(whole.tokens.shape) % names
    sequences = whole.changed(labels=codes, label_names=["b", *map(str, range(1, names))], by_label=asked)
    assert labels_apart(sequences) is None and TextLabels.of(sequences) is None
    assert said in caplog.text and bool(caplog.text) == asked
