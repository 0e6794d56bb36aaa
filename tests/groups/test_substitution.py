"""Substitution: answers against interventions in mode free, rates against what was answered, and which concepts choose and which measure."""

import math

import numpy as np
import pytest
import torch
from worlds.numbers import dictionary, language_model

import cltdb
from cltdb.groups import substitution
from cltdb.groups.label_features import Candidate
from cltdb.groups.settings import Substitute
from cltdb.groups.stored import Made, intervention_rows
from cltdb.groups.substitution import (
    Answers,
    Point,
    Question,
    answer,
    halves,
    measured,
    random_features,
    substitution_rows,
    values_at,
)
from cltdb.replacement.continuation import continued
from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import free_logits

QUESTIONS = [Question((0, 7, 3, 19), {}), Question((0, 5, 5), {}), Question((0, 8, 2, 30), {})]
VALUES = {(0, 3): 2.5, (1, 3): 0.0, (2, 7): -1.0, (0, 5): 1.0}


@pytest.mark.parametrize("kind", ["clt", "plt"])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_answers_are_those_of_interventions_in_mode_free(kind, positions):
    lm, d = language_model(), dictionary(kind, skip=kind == "plt")
    found = answer(lm, d, QUESTIONS, VALUES, positions=positions, n_new=3)
    for question, logits, following in zip(QUESTIONS, found.logits, found.following, strict=True):
        tokens, n = list(question.tokens), len(question.tokens)
        start = n - 1 if positions == "last" else 1
        placed = [Setting(*key, place, "set", value) for key, value in VALUES.items() for place in range(start, n)]
        torch.testing.assert_close(logits, free_logits(lm, d, tokens, placed, 1))
        assert not torch.allclose(logits, lm.logits(torch.tensor([tokens]))[0, -1])
        open_ended = [Setting(*key, slice(start, None), "set", value) for key, value in VALUES.items()]
        assert following.tolist() == continued(lm, d, tokens, open_ended, 3)[n:]
    plain = answer(lm, d, QUESTIONS, {}, positions=positions)
    torch.testing.assert_close(plain.logits[1], lm.logits(torch.tensor([QUESTIONS[1].tokens]))[0, -1])
    assert plain.following[:, 0].tolist() == plain.logits.argmax(-1).tolist() and plain.following.shape == (3, 1)


def test_values_are_multiples_of_each_features_own_range():
    """Published code sets absolute values, whatever the feature's range; a feature of both labels is set as one of the target."""
    source, target = [(0, 1, 2.0), (1, 1, 10.0), (2, 5, 1.0)], [(0, 4, 5.0), (1, 1, 0.5)]
    assert values_at(Point(1, "last", -1.0, 2.0), source, target) == {(0, 1): -2.0, (0, 4): 10.0}
    assert values_at(Point(2, "last", -1.0, 2.0), source, target) == {(0, 1): -2.0, (1, 1): 1.0, (0, 4): 10.0}


def test_rates_count_answers_of_the_target_label_and_right_ones():
    """Tokens 1, 2, 3 are answers under a, 4, 5 and 3 under b: 3 is of both and so none of b's own."""
    words = {"a": {1, 2, 3}, "b": {4, 5, 3}}
    questions = [Question((0, 9), {"a": 1, "b": 4}), Question((0, 9), {"a": 2, "b": 5})] * 2
    logits = torch.zeros(4, 6).double()
    changed = logits.clone()
    changed[0, 4] = math.log(3)
    following = torch.tensor([[4, 0], [4, 5], [1, 4], [3, 2]])
    found = measured(questions, "a", "b", words, Answers(logits, following), Answers(changed, following))
    assert (found["n"], found["rate_label"], found["rate_right"], found["rate_concept"]) == (4, 2 / 4, 1 / 4, 2 / 4)
    assert (found["text_rate_label"], found["text_rate_right"]) == (3 / 4, 3 / 4)
    p, q = 1 / 6, [1 / 8] * 5 + [3 / 8]
    assert found["kl_nats"] == pytest.approx(sum(p * math.log(p / one) for one in q) / 4)


def test_random_features_are_of_the_same_layer_and_nearly_the_same_rate():
    rate = np.full((2, 40), 1e-4)
    rate[0, 10:25] = 0.1
    rate[1, 3] = 0.0
    found = {
        label: [Candidate(label, layer, feature, 1, 1, 1, 1, 1) for layer, feature in places] for label, places in PLACES.items()
    }
    drawn = random_features(found, rate, n=2, seed=0)
    assert drawn.keys() == {("a", 0, 10), ("a", 1, 0), ("b", 0, 11), ("b", 0, 12)}
    taken = {(layer, feature) for places in PLACES.values() for layer, feature in places}
    of_layer = [(layer, feature) for (_, layer, _), feature in drawn.items()]
    assert len(set(of_layer)) == 4 and not set(of_layer) & taken
    assert all(rate[layer, feature] == rate[layer, drawn[label, layer, feature]] for label, layer, feature in drawn)


PLACES = {"a": [(0, 10), (1, 0), (0, 13)], "b": [(0, 11), (0, 12)]}


def test_the_point_is_chosen_on_one_half_and_measured_on_the_other(monkeypatch):
    """A fake model answers under b, rightly, where feature 0:2 has the value 3, that is at boost 1."""
    concepts = [f"c{number}" for number in range(7)]
    first, second = halves(concepts, 5)
    assert len(first) == 4 and len(second) == 3 and sorted(first + second) == concepts
    asked = {c: {g: Question((n, ord(g)), {"a": 10 + n, "b": 20 + n}) for g in "ab"} for n, c in enumerate(concepts)}
    calls = []

    def fake(lm, dictionary, questions, values, *, positions, n_new=1):
        calls.append((tuple(question.tokens[0] for question in questions), dict(values)))
        rows = []
        for question in questions:
            own = question.answers["a" if question.tokens[1] == ord("a") else "b"]
            set_to = values.get((0, 2)) == 3 and question.tokens[1] == ord("a")
            rows.append([question.answers["b"] if set_to else own] * n_new)
        return Answers(torch.zeros(len(questions), 30).double(), torch.tensor(rows))

    monkeypatch.setattr(substitution, "answer", fake)
    settings = Substitute(features=[1], positions=["last"], suppress=[0.0], boost=[0.5, 1.0, 2.0], new_tokens=2)
    features, randoms = {"a": [(0, 1, 4.0)], "b": [(0, 2, 3.0)]}, {"a": [(0, 8, 1.0)], "b": [(0, 9, 1.0)]}
    rows, made = substitution_rows(settings, None, None, asked, features, randoms, seed=5)
    assert [one.label_to for one in made] == ["b", "a"] and made[0].values == {(0, 1): 0.0, (0, 2): 3.0}
    assert [question.tokens[0] for question in made[0].questions] == [concepts.index(one) for one in second]
    of_ab = [row for row in rows if row["label_from"] == "a"]
    assert [(row["part"], row["control"], row["boost"], row["rate_right"], row["is_best"]) for row in of_ab] == [
        ("choice", "none", 0.5, 0, False),
        ("choice", "none", 1.0, 1, True),
        ("choice", "none", 2.0, 0, False),
        ("test", "none", 1.0, 1, True),
        ("test", "random", 1.0, 0, True),
        ("test", "reverse", 1.0, 0, True),
    ]
    assert (
        [row["n"] for row in of_ab] == [4, 4, 4, 3, 3, 3]
        and of_ab[0].get("text_rate_right") is None
        and of_ab[3]["text_rate_right"] == 1
    )
    of_first = {number for numbers, values in calls if values.get((0, 2)) == 6.0 for number in numbers}
    assert of_first == {concepts.index(one) for one in first}
    assert {(0, 8): 0.0, (0, 9): 1.0} in [values for _, values in calls] and {(0, 2): 0.0, (0, 1): 4.0} in [
        values for _, values in calls
    ]
    assert {row["rate_right"] for row in rows if row["label_from"] == "b"} == {0}


def test_concepts_with_one_answer_under_both_labels_are_left_out(monkeypatch):
    asked = {c: {g: Question((n,), {"a": 1, "b": 1 + n}) for g in "ab"} for n, c in enumerate(("same", "two", "three"))}

    def plain(lm, dictionary, questions, values, **_):
        return Answers(torch.zeros(len(questions), 9), torch.ones(len(questions), 1, dtype=int))

    monkeypatch.setattr(substitution, "answer", plain)
    rows, _ = substitution_rows(Substitute(features=[1]), None, None, asked, {"a": [], "b": []}, {"a": [], "b": []}, seed=0)
    assert {row["n"] for row in rows} == {1}


def test_substitutions_are_stored_as_interventions_that_can_be_made_again():
    """The settings of a row, made by hand, have the logits and the text that are stored."""
    lm, d = language_model(), dictionary()
    questions = [one._replace(answers={"a": 4, "b": 9}) for one in QUESTIONS]
    clean, changed = (answer(lm, d, questions, values, positions="last", n_new=1) for values in ({}, VALUES))
    rows, effects = intervention_rows(Made("b", questions, VALUES, "last", clean, changed), lm, groups_id="g")
    assert len({row["intervention_id"] for row in rows}) == 3 and rows[1]["tokens"] == [0, 5, 5] and rows[1]["prompt"] == "5 5"
    for row in rows:
        again = cltdb.intervene(lm, d, row["tokens"], [Setting(**one) for one in row["settings"]], mode="free", n_logits=40)
        of_token = {one["token"]: one for one in again.logits.to_dicts()}
        of_row = [effect for effect in effects if effect["intervention_id"] == row["intervention_id"]]
        assert {4, 9} < {effect["token"] for effect in of_row} and len(of_row) >= 5
        for effect in of_row:
            for name in ("before", "after", "probability_before", "probability_after"):
                assert effect[name] == pytest.approx(of_token[effect["token"]][name], abs=1e-6)
        likeliest = max(of_token.values(), key=lambda one: one["after"])
        assert row["text_with"] == str(likeliest["token"])
