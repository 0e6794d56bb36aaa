"""Substitution: answers against interventions in mode free, rates against what was answered, and which concepts choose and which measure."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from worlds.numbers import dictionary, language_model

import cltdb
from cltdb.groups import exchange, substitution
from cltdb.groups.controls import shortlist, with_randoms
from cltdb.groups.exchange import Exchange
from cltdb.groups.label_features import Candidate
from cltdb.groups.run import Comparison
from cltdb.groups.settings import Groups, Substitute
from cltdb.groups.stored import Made, intervention_rows, value_of
from cltdb.groups.substitution import (
    Answers,
    Change,
    Point,
    Question,
    Substitution,
    answers,
    halves,
    measured,
    values_at,
)
from cltdb.replacement.continuation import continued
from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import free_logits

QUESTIONS = [Question((0, 7, 3, 19), {}), Question((0, 5, 5), {}), Question((0, 8, 2, 30), {})]
VALUES = {(0, 3): 2.5, (1, 3): 0.0, (2, 7): -1.0, (0, 5): 1.0}


OTHER = {(1, 3): 4.0, (1, 6): -2.0}
EACH = {(0, 3): torch.tensor([2.5, 0.0, 1.0]), (1, 6): torch.tensor([-1.0, 3.0, 0.5]), (2, 7): 1.5}
"""Values of each question."""


@pytest.mark.parametrize("kind", ["clt", "plt", "topk"])
def test_answers_are_those_of_interventions_in_mode_free(kind, monkeypatch):
    """Of all changes together, in batches of two."""
    monkeypatch.setattr(substitution, "MOST_ROWS", 6)
    lm, d = language_model(), dictionary(kind, skip=True) if kind == "plt" else dictionary("clt")
    if kind == "topk":
        d.activation, d.k, d.threshold = "topk", 5, None
    changes = [Change(VALUES, "last"), Change(VALUES, "all"), Change(OTHER, "all"), Change({}), Change(OTHER, "last")]
    changes += [Change(VALUES, "last", continued=False), Change(OTHER, "all", continued=False), Change(EACH, "last")]
    every = list(answers(lm, d, QUESTIONS, changes, n_new=3))
    assert len(every) == 8
    for change, found in zip(changes, every, strict=True):
        for number, (question, logits, following) in enumerate(zip(QUESTIONS, found.logits, found.following, strict=True)):
            tokens, n = list(question.tokens), len(question.tokens)
            start = n - 1 if change.positions == "last" else 1
            values = {key: value_of(value, number) for key, value in change.values.items()}
            placed = [Setting(*key, place, "set", value) for key, value in values.items() for place in range(start, n)]
            torch.testing.assert_close(logits, free_logits(lm, d, tokens, placed, 1))
            assert torch.allclose(logits, lm.logits(torch.tensor([tokens]))[0, -1]) == (not change.values)
            span = slice(start, None if change.continued else n)
            spanned = [Setting(*key, span, "set", value) for key, value in values.items()]
            assert following.tolist() == continued(lm, d, tokens, spanned, 3)[n:]
    assert [found.following.tolist() for found in every[5:7]] != [found.following.tolist() for found in (every[0], every[2])]
    [plain] = answers(lm, d, QUESTIONS, [Change({})])
    assert plain.following[:, 0].tolist() == plain.logits.argmax(-1).tolist() and plain.following.shape == (3, 1)


def test_a_prompt_as_long_as_the_context_is_answered_by_one_token():
    lm, d = language_model(), dictionary()
    whole = Question(tuple(range(lm.max_context)), {})
    plain, changed = answers(lm, d, [whole, QUESTIONS[0]], [Change({}), Change(VALUES)], n_new=3)
    torch.testing.assert_close(plain.logits[0], lm.logits(torch.tensor([whole.tokens]))[0, -1])
    for found in (plain, changed):
        assert found.following[0].tolist() == [int(found.logits[0].argmax()), -1, -1] and (found.following[1] >= 0).all()


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
    found = measured(
        questions, source="a", target="b", words=words, clean=Answers(logits, following), changed=Answers(changed, following)
    )
    assert (found["n"], found["rate_label"], found["rate_right"], found["rate_concept"]) == (4, 2 / 4, 1 / 4, 2 / 4)
    assert (found["text_rate_label"], found["text_rate_right"]) == (3 / 4, 3 / 4)
    p, q = 1 / 6, [1 / 8] * 5 + [3 / 8]
    assert found["kl_nats"] == pytest.approx(sum(p * math.log(p / one) for one in q) / 4)


def test_random_features_fire_as_often_and_write_as_much():
    """Features 10 to 59 of layer 0 fire as often as the label features there; of these 30 to 49 write as much, high times norm."""
    rate, norms = np.full((2, 90), 1e-4), np.ones((2, 90))
    rate[0, 10:60], rate[1, 3:] = 0.1, 0.0
    norms[0, 30:50] = 2.0
    found = {
        label: [Candidate(label, layer, feature, *[1] * 6) for layer, feature in places]
        for label, places in {"a": [(0, 10), (1, 0), (0, 13)], "b": [(0, 11), (0, 12)]}.items()
    }
    late = {label: of_label[:2] for label, of_label in found.items()}
    partners = shortlist(found, late, rate)
    assert not set(partners) & {(0, 10), (0, 11), (0, 12), (0, 13), (1, 0)}
    assert {place for place in partners if place[0] == 1} == {(1, 1), (1, 2)} and {(0, f) for f in range(14, 60)} < set(partners)
    features = {label: [(one.layer, one.feature, 8.0) for one in of_label] for label, of_label in late.items()}
    others = [(*place, 4.0 if place[0] == 0 else 1.0) for place in partners]
    own, draws = with_randoms(features, others, rate, norms, n_draws=6, seed=0)
    assert own == features and len(draws) == 6
    for draw in draws:
        drawn = [one for of_label in draw.values() for one in of_label]
        assert {label: [one[0] for one in of_label] for label, of_label in draw.items()} == {"a": [0, 1], "b": [0, 0]}
        assert len({one[:2] for one in drawn}) == 4 and {one[1] for one in drawn if one[0] == 0} <= set(range(30, 50))
        assert all(one[2] == (4 if one[0] == 0 else 1) for one in drawn)
    assert len({tuple(draw["b"]) for draw in draws}) > 2
    few, [draw] = with_randoms(features, others[:1], rate, norms, n_draws=1, seed=0)
    assert few == {"a": [(0, 10, 8.0)], "b": []} and draw == {"a": [others[0]], "b": []}


def fake_answers(rule, calls):
    """A model that answers a question under each change by rule(question, values); KL is the number of features set."""

    def fake(lm, dictionary, questions, changes, *, n_new=1):
        for change in changes:
            calls.append((tuple(question.tokens[0] for question in questions), change.values))
            shown = torch.tensor([[rule(question, change.values)] * n_new for question in questions])
            yield Answers(torch.nn.functional.one_hot(torch.full((len(questions),), len(change.values)), 30).double(), shown)

    return fake


def test_each_arm_has_its_best_point_of_one_half_and_is_measured_on_the_other(monkeypatch):
    """A fake model answers under b, rightly, where feature 0:2 has the value 3, that is at boost 1. Of draw 1 of the random features 0:7
    at boost 2 makes it answer under b, but with another concept's answer on the half that measures."""
    concepts = [f"c{number}" for number in range(7)]
    first, second = halves(concepts, 5)
    assert len(first) == 4 and len(second) == 3 and sorted(first + second) == concepts
    asked = {c: {g: Question((n, ord(g)), {"a": 10 + n, "b": 20 + n}) for g in "ab"} for n, c in enumerate(concepts)}
    choosing = {concepts.index(one) for one in first}
    calls = []

    def rule(question, values):
        n = question.tokens[0]
        if question.tokens[1] == ord("b"):
            return 20 + n
        by_chance = values.get((0, 7)) == 2
        return 20 + n if values.get((0, 2)) == 3 or by_chance and n in choosing else 20 + (n + 1) % 7 if by_chance else 10 + n

    monkeypatch.setattr(substitution, "answers", fake_answers(rule, calls))
    settings = Substitute(features=[1, 3], positions=["last"], suppress=[0.0], boost=[0.5, 1.0, 2.0], new_tokens=2)
    features = {"a": [(0, 1, 4.0)], "b": [(0, 2, 3.0), (0, 1, 1.0)]}
    draws = [{"a": [(0, 8, 1.0)], "b": [(0, 9, 1.0)]}, {"a": [(0, 6, 1.0)], "b": [(0, 7, 1.0)]}]
    todo, advanced = Substitution(settings, None, None, asked, features, draws, seed=5), []
    of_ab, made = todo.of_pair("a", "b", lambda: advanced.append(1))
    assert made.label_to == "b" and made.change.values == {(0, 1): 0.0, (0, 2): 3.0} and todo.n_changes == len(advanced) == 3 * 6
    assert [question.tokens[0] for question in made.questions] == [concepts.index(one) for one in second]
    assert {(row["label_from"], row["label_to"]) for row in of_ab} == {("a", "b")}
    columns = ("n_features", "boost", "n_suppressed", "n_boosted", "rate_right", "is_best")
    assert [tuple(row[name] for name in columns) for row in of_ab[:6]] == [
        (1, 0.5, 1, 1, 0, False),
        (1, 1.0, 1, 1, 1, True),
        (1, 2.0, 1, 1, 0, False),
        (3, 0.5, 0, 2, 0, False),
        (3, 1.0, 0, 2, 1, False),
        (3, 2.0, 0, 2, 0, False),
    ]
    columns = ("control", "draw", "boost", "n_suppressed", "n_boosted", "rate_right", "rate_label")
    assert [tuple(row.get(name) for name in columns) for row in of_ab[6:]] == [
        ("untouched", None, None, None, None, 0, 0),
        ("none", None, 1.0, 1, 1, 1, 1),
        ("reverse", None, 1.0, 1, 1, 0, 0),
        ("random", 0, 0.5, 1, 1, 0, 0),
        ("random", 1, 2.0, 1, 1, 0, 1),
    ]
    assert {row["part"] for row in of_ab[:6]} == {"choice"} and {row["part"] for row in of_ab[6:]} == {"test"}
    assert [row["n"] for row in of_ab] == [4] * 6 + [3] * 5 and all(row["is_best"] for row in of_ab[6:])
    assert of_ab[0].get("text_rate_right") is None and of_ab[7]["text_rate_right"] == 1 and of_ab[6]["kl_nats"] == 0
    of_first = {number for numbers, values in calls if values.get((0, 2)) == 6.0 for number in numbers}
    assert of_first == choosing
    assert {(0, 1): 4.0, (0, 2): 0.0} in [values for _, values in calls]
    assert {row["rate_right"] for row in todo.of_pair("b", "a", lambda: None)[0]} == {0}


ASKED = {
    "one": {"a": Question((0, 7, 3, 19), {"a": 4, "b": 9}), "b": Question((0, 8, 2, 30), {"a": 4, "b": 9})},
    "two": {"a": Question((0, 5, 19), {"a": 5, "b": 11}), "b": Question((0, 6, 8, 2, 31), {"a": 5, "b": 11})},
}


@pytest.mark.parametrize("kind", ["clt", "topk"])
def test_what_features_come_to_where_the_last_token_is_exchanged(kind):
    """Prompts of different lengths; random features move as far as the label features in whose places they stand, in units of each one's high."""
    lm, d = language_model(), dictionary()
    if kind == "topk":
        d.activation, d.k, d.threshold = "topk", 5, None
    every = [(0, 3), (0, 5), (2, 7), (2, 1), (1, 4)]
    moved = Exchange.of(lm, d, ASKED, ["two", "one"], "a", "b", every)
    for place, (now, then) in enumerate((((0, 5, 19), (0, 5, 31)), ((0, 7, 3, 19), (0, 7, 3, 30)))):
        before, after = (d.encode(lm.run(torch.tensor([tokens]), with_logits=False).mlp_input[0, -1]) for tokens in (now, then))
        for found, expected in ((moved.now, before), (moved.change, after - before)):
            assert [float(found[one][place]) for one in every] == pytest.approx([float(expected[one]) for one in every], abs=1e-6)
    change = moved.change
    assert any(change[one].any() for one in every)
    own = [(0, 3, 2.0), (2, 7, 4.0)], [(2, 1, 1.0), (1, 4, 5.0)]
    values = moved.values_at(Point(2, "last", 1.5, 1.5), *own, own=own)
    assert set(values) == {(0, 3), (2, 7), (2, 1), (1, 4)}
    for one, value in values.items():
        torch.testing.assert_close(value, moved.now[one] + 1.5 * change[one])
    values = moved.values_at(Point(1, "last", -1, -1), [(0, 5, 3.0), (1, 4, 9.0)], [(2, 7, 0.5), (0, 3, 9.0)], own=own)
    assert set(values) == {(0, 5), (2, 7)}
    torch.testing.assert_close(values[0, 5], moved.now[0, 5] - 3 / 2 * change[0, 3])
    torch.testing.assert_close(values[2, 7], moved.now[2, 7] - 0.5 * change[2, 1])
    shifted = Exchange.of(lm, d, ASKED, ["two"], "a", "b", every).shifted_as(moved)
    for one, value in shifted.values_at(Point(2, "last", 1.5, 1.5), *own, own=own).items():
        torch.testing.assert_close(value, moved.now[one][:1] + 1.5 * change[one].sum() / 2)


def test_exchanged_features_answer_where_each_concept_wants_a_value_of_its_own(monkeypatch):
    """A fake model answers rightly under b where feature 0:2 has the value that it has where the last token is exchanged, another one for each concept.
    So the whole change is the best point, random features in its place do nothing, nor does the change the other way; multiples answer one
    concept at most."""
    wants = {number: 1.0 + number for number in range(8)}
    asked = {f"c{n}": {g: Question((n, 50 + (g == "b")), {"a": 10 + n, "b": 30 + n}) for g in "ab"} for n in wants}

    def at_last(lm, dictionary, rows, features):
        """Feature 0:2 fires with the prompt's last token of b alone, the others never."""
        values = [[wants[tokens[0]] * (tokens[-1] == 51 and one == (0, 2)) for tokens in rows] for one in features]
        return dict(zip(features, torch.tensor(values), strict=True))

    def fake(lm, dictionary, questions, changes, *, n_new=1):
        for change in changes:
            said = []
            for place, question in enumerate(questions):
                value = value_of(change.values[0, 2], place) if (0, 2) in change.values else 0.0
                said.append(question.answers["b" if value == wants[question.tokens[0]] else "a"])
            yield Answers(
                torch.nn.functional.one_hot(torch.tensor(said), 40).double(), torch.tensor([[one] * n_new for one in said])
            )

    monkeypatch.setattr(exchange, "_at_last", at_last)
    monkeypatch.setattr(substitution, "answers", fake)
    features, draw = {"a": [(0, 1, 4.0)], "b": [(0, 2, 2.0)]}, {"a": [(0, 6, 1.0)], "b": [(0, 7, 1.0)]}
    settings = Substitute(features=[1], positions=["last"], values="exchanged", boost=[0.5, 1, 2], new_tokens=1)
    rows, made = Substitution(settings, None, None, asked, features, [draw], seed=0).of_pair("a", "b", lambda: None)
    columns = ("control", "boost", "suppress", "rate_right", "set_to", "n_suppressed", "n_boosted")
    assert [tuple(row.get(name) for name in columns) for row in rows] == [
        ("none", 0.5, 0.5, 0, "exchanged", 1, 1),
        ("none", 1, 1, 1, "exchanged", 1, 1),
        ("none", 2, 2, 0, "exchanged", 1, 1),
        ("untouched", None, None, 0, None, None, None),
        ("none", 1, 1, 1, "exchanged", 1, 1),
        ("reverse", -1, -1, 0, "exchanged", 1, 1),
        ("random", 0.5, 0.5, 0, "exchanged", 1, 1),
    ]
    assert made.change.values[0, 2].tolist() == [wants[question.tokens[0]] for question in made.questions]
    settings = Substitute(features=[1], positions=["last"], suppress=[0], boost=[0.5, 1, 2, 3, 4], new_tokens=1)
    rows, _ = Substitution(settings, None, None, asked, features, [draw], seed=0).of_pair("a", "b", lambda: None)
    assert max(row["rate_right"] for row in rows) == 1 / 4 and {row.get("set_to") for row in rows} == {"multiples", None}


def test_shifted_features_move_by_one_value_for_all_prompts_the_mean_over_the_concepts_that_choose(monkeypatch):
    """A fake model answers rightly under b where feature 0:2 has moved by twice that mean."""
    asked = {f"c{n}": {g: Question((n, 50 + (g == "b")), {"a": 10 + n, "b": 30 + n}) for g in "ab"} for n in range(8)}
    choosing = {int(concept[1:]) for concept in halves(list(asked), 0)[0]}
    mean = sum(1 + n for n in choosing) / 4
    assert mean != sum(1 + n for n in range(8)) / 8

    def at_last(lm, dictionary, rows, features):
        """Each feature is at n / 2 on the prompt of concept n and at 1 + 3 n / 2 with the last token of b."""
        values = [tokens[0] / 2 + (1 + tokens[0]) * (tokens[-1] == 51) for tokens in rows]
        return {one: torch.tensor(values) for one in features}

    def fake(lm, dictionary, questions, changes, *, n_new=1):
        for change in changes:
            moved = [
                {one: value_of(value, place) - question.tokens[0] / 2 for one, value in change.values.items()}
                for place, question in enumerate(questions)
            ]
            said = [
                question.answers["b" if of.get((0, 2)) == 2 * mean else "a"]
                for question, of in zip(questions, moved, strict=True)
            ]
            seen.append(moved)
            yield Answers(
                torch.nn.functional.one_hot(torch.tensor(said), 40).double(), torch.tensor([[one] * n_new for one in said])
            )

    seen = []
    monkeypatch.setattr(exchange, "_at_last", at_last)
    monkeypatch.setattr(substitution, "answers", fake)
    features, draw = {"a": [(0, 1, 4.0)], "b": [(0, 2, 2.0)]}, {"a": [(0, 6, 1.0)], "b": [(0, 7, 6.0)]}
    settings = Substitute(features=[1], positions=["last"], values="shifted", boost=[1, 2], new_tokens=1)
    rows, _ = Substitution(settings, None, None, asked, features, [draw], seed=0).of_pair("a", "b", lambda: None)
    columns = ("control", "boost", "rate_right", "set_to")
    assert [tuple(row.get(name) for name in columns) for row in rows] == [
        ("none", 1, 0, "shifted"),
        ("none", 2, 1, "shifted"),
        ("untouched", None, 0, None),
        ("none", 2, 1, "shifted"),
        ("reverse", -2, 0, "shifted"),
        ("random", 1, 0, "shifted"),
    ]
    assert all(of == pytest.approx(of_prompts[0]) for of_prompts in seen for of in of_prompts)
    own, drawn = {(0, 1): 1, (0, 2): 1}, {(0, 6): 1 / 4, (0, 7): 3}
    moves = [{}, *({one: times * by * mean for one, by in of.items()} for of in (own, drawn) for times in (1, 2))]
    moves += [{}, *({one: times * by * mean for one, by in of.items()} for of, times in ((own, 2), (own, -2), (drawn, 1)))]
    assert [of_prompts[0] for of_prompts in seen] == [pytest.approx(of) for of in moves]


def test_label_features_of_some_layers_alone_are_set():
    found = {"a": [Candidate("a", layer, 7, 1, 1.0, 1.0, 1.0, 1.0, None) for layer in (2, 0, 3, 1)], "b": []}

    def layers(**asked):
        settings = Groups(prompts={"toyworld": True}, label_features={}, substitute=asked)
        lm = SimpleNamespace(n_layers=4)
        comparison = Comparison(settings, [], lm, None, None, key="", key_of=None, seed=None, write=None, groups_id="")
        return [one.layer for one in comparison._late(found)["a"]]

    assert layers(features=[3]) == [2, 0, 3] and layers(features=[1, 9]) == [2, 0, 3, 1]
    assert layers(first_layer=1, features=[2]) == [2, 3] and layers(last_layer=0, features=[3]) == [0]
    assert layers(first_layer=1, last_layer=2, features=[3]) == [2, 1]
    with pytest.raises(ValueError, match="expected first_layer or a later one as last_layer, found 1"):
        Substitute(first_layer=2, last_layer=1)


def test_prompts_whose_last_tokens_are_no_exchange_are_left_out():
    def lacks(*tokens):
        asked = {str(n): {g: Question(of[g == "b"], {"a": 2 * n, "b": 2 * n + 1}) for g in "ab"} for n, of in enumerate(tokens)}
        settings = Substitute(positions=["last"], values="exchanged", boost=[1])
        features = {"a": [(0, 1, 1.0)], "b": [(0, 2, 1.0)]}
        return Substitution(settings, None, None, asked, features, [features], seed=0).lacks("a", "b")

    assert lacks(((1, 2), (3, 4)), ((5, 2), (6, 4))) == "" == lacks(((1, 2), (3, 2)), ((5, 2), (6, 4)))
    assert lacks(((1, 2), (3, 2)), ((5, 2), (6, 2))) == "their prompts end with the same token"
    two = "prompts that are the same under the one end with different tokens under the other"
    assert lacks(((1, 2), (3, 4)), ((1, 2), (6, 5))) == two and lacks(((1, 2), (3, 4)), ((1, 2), (6, 4))) == ""


@pytest.mark.parametrize("values", ["exchanged", "shifted"])
def test_features_move_at_last_positions_by_multiples_of_boost_alone(values):
    made = Substitute(positions=["last"], values=values, boost=[1, 2], features=[3])
    assert Substitute.model_validate(made.model_dump()) == made
    assert substitution.points(made) == [Point(3, "last", 1, 1), Point(3, "last", 2, 2)]
    for wrong, said in (
        ({}, f"positions: .last. beside values: {values}"),
        ({"positions": ["last"], "suppress": [0]}, f"expected no suppress beside values: {values}"),
    ):
        with pytest.raises(ValueError, match=said):
            Substitute(values=values, **wrong)


def test_of_points_with_as_many_right_answers_most_answers_of_the_label_count_and_then_the_nearest_change():
    def point(right, label, kl):
        return {"rate_right": right, "rate_label": label, "kl_nats": kl}

    found = [point(0.0, 0.2, kl) for kl in (0.1, 2.4, 3.1, 9.0)] + [point(0.0, 0.1, kl) for kl in (0.0, 2.9)]
    assert substitution._best(found, 2.9) == 2 and substitution._best(found, 0) == 0
    assert substitution._best([*found, point(0.0, 0.3, 99)], 2.9) == 6
    assert substitution._best([*found, point(0.0, 0.3, 99), point(0.1, 0.1, 99)], 2.9) == 7


def test_concepts_with_one_answer_under_both_labels_are_left_out(monkeypatch):
    asked = {c: {g: Question((n,), {"a": 1, "b": 1 + n}) for g in "ab"} for n, c in enumerate(("same", "two", "three"))}
    monkeypatch.setattr(substitution, "answers", fake_answers(lambda question, values: 1, []))
    features = {"a": [(0, 1, 1.0)], "b": [(0, 2, 1.0)]}
    todo = Substitution(Substitute(features=[1]), None, None, asked, features, [features], seed=0)
    rows, _ = todo.of_pair("a", "b", lambda: None)
    assert {row["n"] for row in rows} == {1} and todo.lacks("a", "b") == ""
    none = Substitution(todo.settings, None, None, asked, {"a": [], "b": []}, [], seed=0)
    assert none.lacks("a", "b") == "neither has label features to set, each with a random one for its place"
    del asked["two"]
    assert todo.lacks("b", "a") == "fewer than two concepts have different answers"


def test_concepts_with_one_prompt_are_one_intervention():
    """A homograph asks the same under one label; the logits of the answers of both concepts are kept."""
    lm, d, change = language_model(), dictionary(), Change(VALUES)
    questions = [QUESTIONS[0]._replace(answers={"a": 4, "b": token}) for token in (9, 11)]
    clean, changed = answers(lm, d, questions, [Change({}), change])
    rows, effects = intervention_rows(Made("a", "b", questions, change, clean, changed), lm, groups_id="g")
    [alone], its_effects = intervention_rows(Made("a", "b", questions[:1], change, clean, changed), lm, groups_id="g")
    assert [row | {"created_at": None} for row in rows] == [alone | {"created_at": None}]
    assert {one["token"] for one in effects} == {one["token"] for one in its_effects} | {11}
    assert len(effects) == len({one["token"] for one in effects})


@pytest.mark.parametrize(
    "change", [Change(VALUES, *how) for how in itertools.product(("last", "all"), (True, False))] + [Change(EACH)]
)
def test_substitutions_are_stored_as_interventions_that_can_be_made_again(change):
    """What a row says was given, made by hand, has the logits and the text that are stored; so has its settings the logits."""
    lm, d = language_model(), dictionary()
    questions = [one._replace(answers={"a": 4, "b": 9}) for one in QUESTIONS]
    other = change._replace(continued=not change.continued)
    clean, changed, continued_otherwise = answers(lm, d, questions, [Change({}), change, other], n_new=3)
    assert changed.following.tolist() != continued_otherwise.following.tolist()
    rows, effects = intervention_rows(Made("a", "b", questions, change, clean, changed), lm, groups_id="g")
    assert len({row["intervention_id"] for row in rows}) == 3 and rows[1]["tokens"] == [0, 5, 5] and rows[1]["prompt"] == "5 5"
    of_other, _ = intervention_rows(Made("c", "b", questions, change, clean, changed), lm, groups_id="g")
    assert not {row["intervention_id"] for row in of_other} & {row["intervention_id"] for row in rows}
    for row in rows:
        again = cltdb.intervene(lm, d, row["tokens"], row["given"], mode="free", n_logits=40, n_generated=3)
        assert [one._asdict() for one in again.settings] == row["settings"]
        assert again.given == tuple(row["given"]) and again.continuations == (row["text_without"], row["text_with"])
        of_token = {one["token"]: one for one in again.logits.to_dicts()}
        of_row = [effect for effect in effects if effect["intervention_id"] == row["intervention_id"]]
        assert {4, 9} < {effect["token"] for effect in of_row} and len(of_row) >= 5
        for effect in of_row:
            for name in ("before", "after", "probability_before", "probability_after"):
                assert effect[name] == pytest.approx(of_token[effect["token"]][name], abs=1e-6)
