"""Which windows the judges of a feature's explanations judged right and wrong. Scores keep counts alone, so questions and answers are made again: the
windows come from the harvest, rules and words answer as they did, replies of language models are in the workspace, and none is asked for.

Answers are shown only where they count to the score that is stored. Of scorers that ask yes or no; a choice or a simulation has no right window.
"""

import asyncio
import json
import math
import zlib

import numpy as np

from cltdb.explain.judges import NO_ANSWER, Explanation
from cltdb.explain.judges.words import WordJudge
from cltdb.explain.pipeline import OTHER, Labelled, Pipeline
from cltdb.explain.scorers import SCORERS
from cltdb.explain.settings import RULES_MODEL

SCORED = ("detection", "fuzzing")
OF_ITS_OWN = (OTHER, "baseline:top_tokens")
"""Baselines whose text is judged on the feature's own windows."""


def judged(settings, subjects, layer, feature, explanations, scores, *, units):
    """{"windows": {scorer: [window]}, "scores": [score]} as JSON values. explanations, scores: rows of the database of the feature.

    A window: strings, activations, kind (`positive` or the kind of negative), marked (places of the tokens that were marked, of fuzzing). A score: side,
    explainer, scorer, judge, answers (a bool per window, None where there was no answer), or `why` there are none.
    """
    settings = settings.model_copy(update={"max_requests": 0})  # nothing is asked or paid
    asks = any(row["judge"] == "language model" for row in scores) and settings.model != RULES_MODEL
    client = None
    if asks:
        from cltdb.explain.requests.client import Client

        client = Client(settings, units)
    pipeline = Pipeline(settings, subjects, client, Labelled(()), units=units, dict_id=None, advance=None)
    judges = {
        "rule": pipeline.rule_judge,
        "words": WordJudge(vocabulary=subjects.vocabulary),
        "language model": pipeline.language_model,
    }
    subject, said = subjects.subject(layer, feature), {(row["side"], row["explainer"]): row for row in explanations}
    windows, found = {}, []
    for row in scores:
        answers, why = _again(pipeline, subject, judges, row, said.get((row["side"], row["explainer"])))
        if answers is not None:
            windows[row["scorer"]] = _windows(pipeline.trial(subject, row["scorer"], row["side"]), subjects.vocabulary)
            answers = [None if value == NO_ANSWER else bool(value) for value in answers.tolist()]
        found.append({**{name: row[name] for name in ("side", "explainer", "scorer", "judge")}, "answers": answers, "why": why})
    return {"windows": windows, "scores": found}


def _again(pipeline, subject, judges, row, explanation):
    """(answers, None) of a row of table scores, or (None, why there are none)."""
    name, explainer = row["scorer"], row["explainer"]
    if name not in SCORED:
        return None, "no yes or no"
    if explainer.startswith("baseline:") and explainer not in OF_ITS_OWN:
        return None, "judged on other windows or against the truths of others"
    judge = judges.get(row["judge"])
    if judge is None or explanation is None or explanation["text"] is None:
        return None, "the database does not say who judged what" if row["judge"] is None else "its judge or its text is not there"
    trial = pipeline.trial(subject, name, row["side"])
    if trial is None:
        return None, "the harvest has too few windows now"
    own = Explanation(explanation["text"], json.loads(explanation["rule"]) if explanation["rule"] else None)
    answers = asyncio.run(getattr(judge, SCORERS[name].METHODS[row["side"]])(own, *trial.questions))
    again = SCORERS[name].measure(trial, answers, np.random.default_rng(zlib.crc32(name.encode())))
    if not _same(again, row):
        return None, "made again from this harvest, the answers do not count to the stored score"
    return answers.values, None


def _same(score, row):
    """Whether answers that were made again count to a row of table scores, class by class."""
    stored = json.loads(row["detail"] or "{}")
    return (score.n, score.n_failed) == (row["n"], row["n_failed"]) and all(
        _equal(value, stored.get(name)) for name, value in score.detail.items()
    )


def _equal(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)
    return one == other


def _windows(trial, vocabulary):
    windows, marked = trial.questions if len(trial.questions) == 2 else (trial.questions[0], None)
    found = []
    for i, (tokens, activations, kind) in enumerate(zip(windows.tokens, windows.activations, trial.kinds, strict=True)):
        n = int((tokens >= 0).sum())
        found.append(
            {
                "strings": [vocabulary[token] for token in tokens[:n]],
                "activations": [float(value) for value in activations[:n]],
                "kind": str(kind),
                "marked": None if marked is None else np.flatnonzero(marked[i][:n]).tolist(),
            }
        )
    return found
