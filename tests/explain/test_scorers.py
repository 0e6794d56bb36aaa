"""What scorers ask and how answers are counted."""

import asyncio
import json
import zlib

import numpy as np
import pytest
from explain.rules_by_hand import matches
from worlds.planted import FEATURES, VOCABULARY, explain_planted

from cltdb.explain.examples import Windows
from cltdb.explain.judges import Answers, Explanation
from cltdb.explain.judges.rule import RuleJudge
from cltdb.explain.scorers import SCORERS, detection, fuzzing, intruder, pick_one, simulation
from cltdb.explain.scorers.groups import placed
from cltdb.explain.scorers.trials import Trial, accuracy, balanced_accuracy, correlation
from cltdb.explain.subjects import Subjects
from cltdb.intervals import wilson

NAMES = list(FEATURES)
NEVER = {"clauses": []}


@pytest.fixture(scope="module")
def subjects(harvested):
    return Subjects(harvested, vocabulary=VOCABULARY, seed=3, base="b")


def measured(subjects, scorer, name, rule, *, seed=0):
    """The Score of a planted feature by a rule, with the questions it was asked."""
    rng = np.random.default_rng(seed)
    judge = RuleJudge(label_names=subjects.windows.label_names, vocabulary=VOCABULARY)
    trial = scorer.trial(subjects.subject(0, NAMES.index(name)), "input", rng)
    answers = asyncio.run(getattr(judge, scorer.METHODS["input"])(Explanation("", rule), *trial.questions))
    return scorer.measure(trial, answers, rng), trial, answers


def tokens_rule(*tokens):
    return {"clauses": [{"tokens": list(tokens), "conditions": []}]}


def test_noise_lowers_the_score_as_computed(subjects):
    """The feature leaves out a fifth of its tokens. The true rule is right on every window in which it fires and wrong on just
    those silent ones that hold one of the tokens."""
    score, trial, _ = measured(subjects, detection, "noisy", tokens_rule(21, 22, 23))
    silent = trial.questions[0].tokens[~trial.truth].tolist()
    n_fooled = sum(bool({21, 22, 23} & set(row)) for row in silent)
    assert n_fooled >= 5
    assert score.detail["tpr"] == 1 and score.score == pytest.approx(1 - n_fooled / 30 / 2)


def test_shuffled_labels_are_at_chance_within_their_interval():
    rng = np.random.default_rng(0)
    truth = np.arange(60) < 30
    scores = []
    for _ in range(400):
        answers = Answers(np.where(rng.random(60) < 0.9, truth, ~truth).astype(np.int8))
        trial = Trial((), truth, np.where(truth, "positive", "random"))
        scores.append(balanced_accuracy(trial.shuffled(rng), answers, rng))
    assert np.mean([one.score for one in scores]) == pytest.approx(0.5, abs=0.015)
    assert 0.9 <= np.mean([one.ci_low <= 0.5 <= one.ci_high for one in scores]) <= 0.99


def test_wrong_marks_are_silent_and_as_many(subjects):
    trial = fuzzing.trial(subjects.subject(0, 0), "input", np.random.default_rng(0))
    windows, marked = trial.questions
    fires = windows.activations > 0
    assert (marked[trial.truth] == fires[trial.truth]).all() and not (marked & fires)[~trial.truth].any()
    n_silent = (~fires & (windows.tokens >= 0)).sum(axis=1)
    assert (marked.sum(axis=1) == np.where(trial.truth, fires.sum(axis=1), np.minimum(fires.sum(axis=1), n_silent))).all()


def test_a_simulation_is_the_correlation_over_all_tokens(subjects):
    score, trial, answers = measured(subjects, simulation, "set", tokens_rule(1, 2, 3))
    windows, training = trial.questions
    real = windows.tokens >= 0
    expected = np.corrcoef(answers.values[real], windows.activations[real])[0, 1]
    assert score.score == pytest.approx(expected) and score.n == 30 and score.detail["n_tokens"] == real.sum()
    assert 0.9 < score.ci_low < score.score < score.ci_high < 1
    assert set(np.unique(answers.values)) == {0, training.activations[training.activations > 0].mean()}
    # Windows end early: what stands after their ends counts nothing.
    shorter = real & (np.arange(real.shape[1]) < 9)
    cut = correlation(trial._replace(real=shorter), answers, np.random.default_rng(0))
    assert cut.score == pytest.approx(np.corrcoef(answers.values[shorter], windows.activations[shorter])[0, 1])


def test_a_constant_simulation_predicts_nothing_and_failed_windows_are_left_out(subjects):
    score, trial, answers = measured(subjects, simulation, "set", NEVER)
    assert score.score == 0
    some = answers.values.copy()
    some[:3] = np.nan
    partial = correlation(trial, Answers(some), np.random.default_rng(0))
    assert (partial.n, partial.n_failed) == (27, 3)
    silent = trial._replace(truth=np.zeros_like(trial.truth))
    assert correlation(silent, answers, np.random.default_rng(0)).score is None


def test_the_true_rule_picks_the_one_window_and_a_wrong_one_guesses(subjects):
    score, trial, _ = measured(subjects, pick_one, "set", tokens_rule(1, 2, 3))
    (groups,) = trial.questions
    assert len(groups) == 20 and all(isinstance(group, Windows) and len(group.tokens) == 5 for group in groups)
    for group, place in zip(groups, trial.truth, strict=True):
        assert [bool((row > 0).any()) for row in group.activations] == [index == place for index in range(5)]
    assert score.score == 1 and score.ci_high == 1 and score.ci_low == pytest.approx(wilson(20, 20)[0])
    guesses = [measured(subjects, pick_one, "set", NEVER, seed=seed)[0].score for seed in range(40)]
    assert np.mean(guesses) == pytest.approx(0.2, abs=0.045)  # three standard errors of 800 guesses


def test_output_lists_are_what_the_explainer_did_not_see(subjects):
    subject = subjects.subject(0, 1)
    trial = pick_one.trial(subject, "output", np.random.default_rng(0))
    own = subject.promoted[1::2]
    assert own == [8, 10, 12] and not set(own) & set(subject.promoted[::2])
    for group, place in zip(trial.questions[0], trial.truth, strict=True):
        assert group[place] == own and len({tuple(tokens) for tokens in group}) == 5
        assert not any(set(tokens) & set(subject.promoted) for index, tokens in enumerate(group) if index != place)


def test_an_intruder_is_silent_and_marked_at_random(subjects):
    trial = intruder.trial(subjects.subject(0, 0), "input", np.random.default_rng(0))
    for (windows, marked), place in zip(trial.questions[0], trial.truth, strict=True):
        fires = (windows.activations > 0).any(axis=1)
        assert fires.tolist() == [index != place for index in range(5)] and marked.any(axis=1).all()
        assert (marked[fires] == (windows.activations[fires] > 0)).all()


def test_shuffled_places_are_right_as_often_as_guesses():
    rng, others = np.random.default_rng(0), np.arange(80).reshape(20, 4)
    shares = []
    for _ in range(500):
        groups, truth = placed(np.full(20, 99), others, rng)
        assert (groups[np.arange(20), truth] == 99).all() and np.bincount(truth).tolist() == [4] * 5
        trial = Trial((), truth, np.full(20, "positive"))
        shares.append(accuracy(trial.shuffled(rng), Answers(truth), rng).score)
    assert np.mean(shares) == pytest.approx(0.2, abs=0.012)  # three standard errors; places drawn one by one give 0.24


def test_the_list_with_most_strings_of_the_rule_is_chosen():
    vocabulary = [" Paris", "paris", "Rome", "ROME ", "is", "the"]
    judge = RuleJudge(label_names=[], vocabulary=vocabulary)
    groups = [[[4, 5], [1, 3], [2, 4]], [[4], [5], [2]], [[4], [5], [4, 5]]]
    answers = asyncio.run(judge.choose_tokens(Explanation("", {"promotes": [0, 2]}), groups, "intervention"))
    assert answers.values.tolist() == [1, 2, 0]  # the last has nothing in common with any: a guess


def test_accuracy_has_the_interval_of_wilson():
    """Against the root of the equation that defines it: |share - p| = z sqrt(p (1 - p) / n)."""
    trial, values = Trial((), np.zeros(20, np.int8), np.full(20, "positive")), np.array([0] * 13 + [1] * 5 + [-1] * 2)
    score = accuracy(trial, Answers(values), None)
    assert (score.score, score.n, score.n_failed) == (13 / 18, 18, 2)
    for end in (score.ci_low, score.ci_high):
        assert abs(13 / 18 - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 18))


def test_wrong_marks_are_as_many_and_silent():
    tokens = np.array([[1, 2, 3, 4], [1, 2, -1, -1], [1, 2, 3, 4]], dtype=np.int32)
    activations = np.array([[0, 2, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=np.float32)
    windows = Windows(tokens, np.zeros(3, np.int16), activations, np.arange(3), np.full(3, "positive"))
    wrong = fuzzing.random_marks(windows, (activations > 0).sum(axis=1), np.random.default_rng(0))
    assert wrong.sum(axis=1).tolist() == [1, 1, 1]
    assert not (wrong & (activations > 0)).any() and not (wrong & (tokens < 0)).any()


def test_the_interval_of_balanced_accuracy_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    truth, right = np.arange(70) < 30, np.concatenate([np.arange(30) < 24, np.arange(40) < 28])
    plain = [(rng.choice(right[truth], 30).mean() + rng.choice(right[~truth], 40).mean()) / 2 for _ in range(4000)]
    score = balanced_accuracy(Trial((), truth, np.full(70, "x")), Answers(np.where(right, truth, ~truth).astype(np.int8)), rng)
    assert (score.ci_low, score.ci_high) == pytest.approx(np.quantile(plain, (0.025, 0.975)), abs=0.015)


@pytest.mark.parametrize("name", SCORERS)
def test_no_scorer_shows_a_document_that_made_an_explanation(subjects, name):
    """Of every feature; what explainers see is of the other half."""
    for side in SCORERS[name].METHODS.keys() & {"input"}:
        for feature in range(len(NAMES)):
            subject = subjects.subject(0, feature)
            if subject.examples.shortage:
                continue
            trained = {int(one) for part in subject.examples[:2] for one in part.documents}
            trial = SCORERS[name].trial(subject, side, np.random.default_rng(0))
            shown = {int(document) for windows in shown_windows(trial.questions[:1]) for document in windows.documents}
            assert shown and not shown & trained


def shown_windows(questions):
    """All `Windows` in a trial's questions, however they are nested."""
    for part in questions:
        if isinstance(part, Windows):
            yield part
        elif isinstance(part, list | tuple):
            yield from shown_windows(part)


def test_scores_by_rules_are_those_counted_by_hand_from_stored_windows(subjects, harvested, tmp_path):
    """Detection and fuzzing of every feature, from the stored rule, the windows of the harvest and a plain loop over tokens."""
    explanations, scores = explain_planted(harvested, tmp_path, seed=3)
    rules = dict(explanations.filter(explainer="rules", status="ok").select("feature", "rule").iter_rows())
    for feature, scorer, score in scores.filter(explainer="rules").select("feature", "scorer", "score").iter_rows():
        rng = np.random.default_rng([3, 0, feature, zlib.crc32(scorer.encode())])
        trial = SCORERS[scorer].trial(subjects.subject(0, feature), "input", rng)
        right = {True: [], False: []}
        marks = trial.questions[1] if scorer == "fuzzing" else None
        for index, (tokens, truth) in enumerate(zip(trial.questions[0].tokens.tolist(), trial.truth.tolist(), strict=True)):
            label = ["en", "fr"][trial.questions[0].labels[index]]
            hits = [matches(json.loads(rules[feature]), tokens, place, label) for place in range(len(tokens))]
            if marks is None:
                says = any(hits)
            else:
                marked = [place for place in range(len(tokens)) if marks[index][place]]
                says = 2 * sum(hits[place] for place in marked) >= len(marked)
            right[truth].append(says == truth)
        assert score == (np.mean(right[True]) + np.mean(right[False])) / 2
