"""The rule grammar, its learner and the bootstrap, on windows small enough to check by hand."""

import numpy as np
import pytest
from worlds.planted import VOCABULARY

from cltdb.explain.examples import Windows
from cltdb.explain.rules.grammar import TokenView, token_classes
from cltdb.explain.rules.learner import learn_rule
from cltdb.explain.rules.lexicon import Lexicon
from cltdb.explain.rules.text import describe
from cltdb.explain.scores import bootstrap_interval, wrong_marks

CLASSES = token_classes(VOCABULARY)
NO_GROUPS = np.zeros(len(VOCABULARY) + 1, dtype=np.intp)
LEXICON = Lexicon(
    VOCABULARY, CLASSES, ["en", "fr"], np.arange(len(VOCABULARY) + 1), np.arange(len(VOCABULARY)), CLASSES, NO_GROUPS, [[]]
)
PARIS, ROME, IS, STOP = (VOCABULARY.index(word) for word in ("Paris", "Rome", "is", "."))


def view(rows, labels=None):
    return TokenView(np.array(rows, dtype=np.int32), np.array(labels or [None] * len(rows), dtype=object), CLASSES)


def slow_holds(condition, tokens, place, label):
    """A condition at one position, in plain Python."""
    kind, before = condition["kind"], tokens[:place]
    if kind == "previous":
        return place >= condition["back"] and tokens[place - condition["back"]] in condition["tokens"]
    if kind == "class":
        return place >= condition["back"] and VOCABULARY[tokens[place - condition["back"]]].isdigit()
    if kind == "in_window":
        return condition["token"] in before
    if kind == "in_sentence":
        ends = [index for index, token in enumerate(before) if VOCABULARY[token] == "."]
        return condition["token"] in before[ends[-1] + 1 if ends else 0 :]
    if kind == "label":
        return label == condition["label"]
    if kind == "repeated_pair":
        return place > 0 and (tokens[place - 1], tokens[place]) in zip(before, before[1:], strict=False)
    return tokens[place] in before


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "previous", "back": 2, "tokens": [1, 4]},
        {"kind": "class", "back": 0, "class": "number"},
        {"kind": "class", "back": 1, "class": "number"},
        {"kind": "in_window", "token": 3},
        {"kind": "in_sentence", "token": 3},
        {"kind": "label", "label": "fr"},
        {"kind": "repeated"},
        {"kind": "repeated_pair"},
    ],
    ids=lambda c: c["kind"],
)
def test_every_condition_against_plain_python(condition):
    rng = np.random.default_rng(0)
    tokens = rng.choice([0, 1, 2, 3, 4, 40, 41, STOP], (50, 9))
    labels = ["fr" if index % 3 else None for index in range(50)]
    wanted = [
        [slow_holds(condition, row.tolist(), place, label) for place in range(9)]
        for row, label in zip(tokens, labels, strict=True)
    ]
    assert np.array_equal(view(tokens, labels).holds(condition), wanted)


def test_nothing_matches_after_the_end_of_a_window():
    short = view([[1, 3, -1, -1]], ["fr"])
    rule = {"clauses": [{"tokens": None, "conditions": []}, {"tokens": None, "conditions": [{"kind": "label", "label": "fr"}]}]}
    assert short.matches(rule).tolist() == [[True, True, False, False]]
    assert not short.repeated()[:, 2:].any()


def test_text_of_a_rule():
    rule = {
        "clauses": [
            {
                "tokens": [PARIS, ROME],
                "conditions": [{"kind": "previous", "back": 1, "tokens": [IS]}, {"kind": "label", "label": "en"}],
            },
            {"tokens": list(range(9)), "conditions": [{"kind": "previous", "back": 3, "tokens": [STOP]}]},
        ]
    }
    assert (
        describe(rule, LEXICON)
        == "fires on 'Paris' or 'Rome' after 'is' in 'en' text; or on 'w0', 'w1' or others three tokens after '.'"
    )


def learned(fires, *, n=400, seed=0, labels=None):
    """The rule learned for a predicate fires(tokens, place), and the share of fresh windows it gets right."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 30, (2 * n, 12)).astype(np.int32)
    labels = np.array(labels or ["en", "fr"] * n, dtype=object)
    activations = np.array(
        [[float(fires(row.tolist(), place, label)) for place in range(12)] for row, label in zip(tokens, labels, strict=True)]
    )
    windows = Windows(
        tokens,
        (labels == "fr").astype(np.int16),
        activations,
        np.arange(2 * n),
        np.where(activations.any(axis=1), "positive", "random"),
    )
    fires = activations.any(axis=1)
    rule = learn_rule(windows.take(np.flatnonzero(fires[:n])), windows.take(np.flatnonzero(~fires[:n])), LEXICON)
    matched = view(tokens[n:], labels[n:].tolist()).matches(rule)
    return rule, (matched == (activations[n:] > 0)).mean()


def test_a_token_set_is_found_exactly():
    rule, accuracy = learned(lambda t, i, label: t[i] in (4, 5))
    assert [sorted(clause.pop("tokens")) for clause in rule["clauses"]] == [[4, 5]] and rule == {"clauses": [{"conditions": []}]}
    assert accuracy == 1


@pytest.mark.parametrize(
    "fires",
    [
        lambda t, i, label: i > 0 and t[i] in (4, 5, 6, 7) and t[i - 1] in (8, 9, 10, 11),
        lambda t, i, label: t[i] in (4, 5, 6, 7) and label == "fr",
        lambda t, i, label: t[i] in (4, 5, 6) and 7 in t[:i],
        lambda t, i, label: i > 2 and t[i] < 15 and t[i - 3] in (8, 9, 10) and label == "en",
        lambda t, i, label: t[i] == 4 or (i > 0 and t[i - 1] == 9 and t[i] < 10),
    ],
    ids=["bigram", "label", "seen before", "three conditions", "disjunction"],
)
def test_contexts_are_found(fires):
    assert learned(fires)[1] > 0.985


def test_nothing_is_learned_from_noise():
    rng = np.random.default_rng(1)
    rule, _ = learned(lambda t, i, label: rng.random() < 0.02)
    assert len(rule["clauses"]) <= 8


def test_wrong_marks_are_as_many_and_silent():
    tokens = np.array([[1, 2, 3, 4], [1, 2, -1, -1], [1, 2, 3, 4]], dtype=np.int32)
    activations = np.array([[0, 2, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=np.float32)
    windows = Windows(tokens, np.zeros(3, np.int16), activations, np.arange(3), np.full(3, "positive"))
    wrong = wrong_marks(windows, np.random.default_rng(0))
    assert wrong.sum(axis=1).tolist() == [1, 1, 1]
    assert not (wrong & (activations > 0)).any() and not (wrong & (tokens < 0)).any()


def test_bootstrap_interval_equals_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    right, also = np.arange(30) < 24, np.arange(40) < 28
    plain = [(rng.choice(right, 30).mean() + rng.choice(also, 40).mean()) / 2 for _ in range(4000)]
    assert bootstrap_interval(24 / 30, 30, 28 / 40, 40, rng) == pytest.approx(np.quantile(plain, (0.025, 0.975)), abs=0.015)
