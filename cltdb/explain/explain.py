"""Explains features and scores the explanations. Reads: a harvest. Writes: `tables/explanations`, `tables/scores`,
`summary.json`.

A feature's explanation and its score by each scorer are units of the workspace (`cltdb.engine.units`), as replies are: a larger limit, another
scorer or a killed run make only what is new. They are the same however they come about, so no feature's rows depend on the features after
it. Beside each explanation stand three baselines: the same judgements against shuffled window labels (`baseline:shuffled`: chance,
expected 0.5), the explanation of a feature before it in the order (`baseline:other_feature`: would any do?) and the feature's five most
frequent tokens (`baseline:top_tokens`).
"""

import json
import logging
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from cltdb import log
from cltdb.engine.units import EXPLANATIONS, SCORES, score_group
from cltdb.engine.workspace import digest, read_parquet, write_json, write_parquet
from cltdb.explain.calls import RULES_MODEL, Caller, Reply, check_access, now
from cltdb.explain.examples import HarvestedWindows
from cltdb.explain.judges import Explanation, LanguageModelJudge, RuleJudge
from cltdb.explain.prompts import explain_prompt, read_explanation
from cltdb.explain.rules import Lexicon, describe_tokens, explain_by_rules, token_classes
from cltdb.explain.scores import SCORERS, score
from cltdb.harvest.hashing import hash64

logger = logging.getLogger(__name__)
PART_FEATURES = 8192  # of one file; what is lost of it by a kill lies in the units
TOP_TOKENS = 5
OTHER_EVERY = 10  # with a language model, baseline:other_feature is asked for every tenth feature only
GOOD_SCORE = 0.8
SHUFFLED, OTHER, TOP = "baseline:shuffled", "baseline:other_feature", "baseline:top_tokens"
EXPLANATION_SCHEMA = {
    "dict_id": pl.String,
    "layer": pl.Int32,
    "feature": pl.Int32,
    "side": pl.String,
    "explainer": pl.String,
    "text": pl.String,
    "model": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "status": pl.String,
    "error": pl.String,
    "created_at": pl.Datetime("us"),
}
SCORE_SCHEMA = {
    "dict_id": pl.String,
    "layer": pl.Int32,
    "feature": pl.Int32,
    "side": pl.String,
    "explainer": pl.String,
    "scorer": pl.String,
    "score": pl.Float64,
    "n": pl.Int32,
    "n_failed": pl.Int32,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "detail": pl.String,
}


class Explained(NamedTuple):
    """A feature's explanation as it is stored: `rule` where rules explained it; `top`, `top_rule`: the baseline of its most frequent tokens.
    text is None where status is not ok. prompt_tokens to created_at: those of the reply."""

    status: str
    error: str | None
    text: str | None
    rule: dict | None
    top: str | None
    top_rule: dict | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    created_at: str


def explain(settings, *, directory, units, base, harvest_directory, dict_id, vocabulary, seed):
    """Fills `directory`; what `units` (cltdb.engine.units.Units) has is not made again.

    settings: section `Explain`; base: of the keys of units, made of what all explanations depend on: model, harvest and seed; vocabulary:
    string per token id.
    """
    check_access(settings.model)
    directory, windows = Path(directory), HarvestedWindows(harvest_directory, seed=seed)
    live = windows.live()
    wanted = _choose(live if settings.features.only is None else windows.named(settings.features.only), settings.features)
    explainer = Explainer(settings, units, base, windows, dict_id=dict_id, vocabulary=vocabulary, seed=seed)
    parts = [wanted[first : first + PART_FEATURES] for first in range(0, len(wanted), PART_FEATURES)]
    with log.progress("explain", total=len(wanted), unit="features") as bar:
        for index, part in enumerate(parts):
            frames = explainer.part(part, advance=bar.advance)
            for table, frame in zip(("explanations", "scores"), frames, strict=True):
                write_parquet(directory / f"tables/{table}/{index:05d}.parquet", frame)
    _summarise(directory, model=settings.model, n_live=len(live), n_chosen=len(wanted))
    if settings.model != RULES_MODEL:
        _say_cost(settings.model, explainer.caller.spent)


def _say_cost(model, spent):
    """Logs what the stage cost anew, and what it did not cost again."""
    cost = f"new cost ${spent.asked_usd:.4f}" + (f" and that of {spent.n_unpriced}, unknown" if spent.n_unpriced else "")
    before = f", which cost ${spent.reused_usd:.4f} when they were paid" if spent.reused_usd else ""
    logger.info("explain: %d replies of %s asked for, %s; %d reused%s", spent.n_asked, model, cost, spent.n_reused, before)


def _choose(candidates, features):
    """[(layer, feature)] of those to explain, in the wanted order."""
    order = {"layer": ["layer", "feature"]}.get(features.top_by, [features.top_by, "layer", "feature"])
    ordered = candidates.sort(order, descending=[column in ("density", "max_activation") for column in order])
    chosen = ordered if features.limit is None else ordered.head(features.limit)
    return list(zip(chosen["layer"].to_list(), chosen["feature"].to_list(), strict=True))


class Explainer:
    """One model with its judge, and the units that are there."""

    def __init__(self, settings, units, base, windows, *, dict_id, vocabulary, seed):
        self.units, self.base, self.windows, self.dict_id = units, base, windows, dict_id
        self.vocabulary, self.seed = vocabulary, seed
        self.model, self.scorers, self.max_cost_usd = settings.model, settings.scorers, settings.max_cost_usd
        self.caller, self.warned, self.explained = Caller(self.model, units), False, []
        self.rule_judge = RuleJudge(label_names=windows.label_names, classes=token_classes(vocabulary))
        self.by_rules = self.model == RULES_MODEL
        self.judge = self.rule_judge if self.by_rules else LanguageModelJudge(self.caller, vocabulary=vocabulary, seed=seed)
        self.name = "rules" if self.by_rules else "llm"

    @cached_property
    def lexicon(self):
        return Lexicon.learnt(self.windows, self.vocabulary)

    def part(self, features, *, advance=lambda: None):
        """(explanations, scores) frames of some features, the next ones in the order; advance() is called after each."""
        rows, score_rows = [], []
        for layer, feature in features:
            examples = cache(lambda layer=layer, feature=feature: self.windows.examples(layer, feature))
            found = self._explanation(layer, feature, examples)
            place = (layer, feature)
            rows.append(
                self._row(*place, self.name, found, text=found.text, status=found.status, error=found.error, is_paid=True)
            )
            if found.text is not None:
                other = self._other(layer, feature)
                texts = {SHUFFLED: found.text, TOP: found.top, **({OTHER: other.text} if other else {})}
                rows += [self._row(*place, explainer, found, text=text) for explainer, text in texts.items()]
                for scorer in self.scorers:
                    score_rows += [
                        (self.dict_id, *place, "input", explainer, scorer, *numbers)
                        for explainer, *numbers in self._scores(layer, feature, scorer, found, other, examples)
                    ]
                self.explained.append(Explanation(found.text, found.rule))
            advance()
        frames = (
            pl.DataFrame(rows, schema=EXPLANATION_SCHEMA, orient="row"),
            pl.DataFrame(score_rows, schema=SCORE_SCHEMA, orient="row"),
        )
        return tuple(frame.sort("layer", "feature", "explainer", maintain_order=True) for frame in frames)

    def _other(self, layer, feature):
        """The explanation of another feature, drawn from those explained before this one, so that the features after it do not matter. With a
        language model, for every tenth feature only."""
        if not self.explained or not self.by_rules and (feature + layer) % OTHER_EVERY:
            return None
        return self.explained[int(hash64(self.seed, layer, feature, 2) % np.uint64(len(self.explained)))]

    def _row(self, layer, feature, explainer, found, *, text, status="ok", error=None, is_paid=False):
        """A row of table explanations; of baselines, which borrow another's text, without its cost."""
        cost = (found.prompt_tokens, found.completion_tokens, found.cost_usd) if is_paid else (0, 0, 0.0)
        model, made = None if explainer == TOP else self.model, datetime.fromisoformat(found.created_at)
        return (self.dict_id, layer, feature, "input", explainer, text, model, *cost, status, error, made)

    # Units: one that is there is taken; one that is made is kept if all that it needed was answered.

    def _unit(self, kind, key, make):
        """The value of the unit, made by make() -> (value, whether it may be kept) where it is not there."""
        record = self.units.get(kind, key)
        if record is not None:
            is_own = record["made_by"] == self.units.artifact
            cost, own = record["spent"], record["spent"]["budget_usd"] if is_own else 0.0
            n_replies, reply_usd = cost["n_asked"] + cost["n_reused"], cost["asked_usd"] + cost["reused_usd"]
            self.caller.spent = self.caller.spent.plus(n_reused=n_replies, reused_usd=reply_usd, budget_usd=own)
            return record["value"]
        before = self.caller.spent
        value, is_whole = make()
        if is_whole:
            spent = self.caller.spent.minus(before)._asdict()
            self.units.put(kind, key, {"value": value, "made_by": self.units.artifact, "spent": spent})
        return value

    def _explanation(self, layer, feature, examples):
        """The Explained of a feature; examples(): its `Examples`."""

        def make():
            found = self._explain(layer, feature, examples())
            return found._asdict(), found.status in ("ok", "too_few_contexts")

        return Explained(**self._unit(EXPLANATIONS, f"{self.base}/{layer}-{feature}", make))

    def _explain(self, layer, feature, examples):
        if examples.shortage:
            return _without_text("too_few_contexts", examples.shortage)
        if spent := self._spent_budget():
            return _without_text("skipped_budget", spent)
        top, top_rule = self._top_tokens(examples)
        if self.by_rules:
            ((text, rule),) = explain_by_rules([(layer, feature, examples)], self.lexicon)
            return Explained("ok", None, text, rule, top, top_rule, 0, 0, 0.0, now())
        shown = examples.training_positives, examples.training_negatives
        reply = self.caller.ask(explain_prompt(*shown, vocabulary=self.vocabulary))
        self._warn_of_unknown_cost(reply.cost_usd)
        text = None if reply.text is None else read_explanation(reply.text)
        if text is None:
            return _without_text("failed", reply.error or "a reply without an explanation in JSON", reply)
        return Explained("ok", None, text, None, top, top_rule, *reply[1:4], reply.created_at)

    def _spent_budget(self):
        """In words, that the budget is spent; None where it is not."""
        spent = self.caller.spent.budget_usd
        if self.max_cost_usd is None or self.by_rules or spent < self.max_cost_usd:
            return None
        return f"${spent:.4f} of max_cost_usd ${self.max_cost_usd:.4f} are spent; raise it and run with --force explain"

    def _warn_of_unknown_cost(self, cost_usd):
        if cost_usd is None and self.max_cost_usd is not None and not self.warned:
            logger.warning(
                "explain: litellm does not know what %s costs; its calls do not count against max_cost_usd", self.model
            )
            self.warned = True

    def _top_tokens(self, examples):
        """(text, rule) of the baseline that the feature fires on its most frequent tokens."""
        training = examples.training_positives
        tokens, counts = np.unique(training.tokens[training.activations > 0], return_counts=True)
        top = sorted(int(token) for token in tokens[np.argsort(-counts, kind="stable")[:TOP_TOKENS]])
        return "fires on " + describe_tokens(top, self.vocabulary), {"clauses": [{"tokens": top, "conditions": []}]}

    def _scores(self, layer, feature, scorer, found, other, examples):
        """[explainer, *numbers of a row of table scores] of the explanation and its baselines, by one scorer."""
        own, top = Explanation(found.text, found.rule), Explanation(found.top, found.top_rule)
        key = f"{score_group(self.base, scorer)}/{layer}-{feature}-{digest([own, top, other])}"

        def make():
            if spent := self._spent_budget():
                return [[self.name, None, 0, 0, None, None, json.dumps({"error": spent})]], False
            rows, errors = [], []
            for explainer, explanation, judge in (
                (self.name, own, self.judge),
                (TOP, top, self.rule_judge),
                (OTHER, other, self.judge),
            ):
                if explanation is not None:
                    rng = np.random.default_rng([self.seed, layer, feature, list(SCORERS).index(scorer)])
                    trial = SCORERS[scorer](judge, explanation, examples(), rng=rng)
                    rows.append(_numbers(explainer, score(trial, rng=rng)))
                    errors.append(trial.judged.error)
                    if explainer == self.name:
                        rows.append(_numbers(SHUFFLED, score(trial.with_shuffled_labels(rng=rng), rng=rng)))
            return rows, not any(errors)

        return self._unit(SCORES, key, make)


def _without_text(status, error, reply=None):
    """The Explained of a feature that has no explanation."""
    reply = reply or Reply(None, 0, 0, 0.0, None, now())
    return Explained(status, error, None, None, None, None, *reply[1:4], reply.created_at)


def _numbers(explainer, score):
    detail = json.dumps(score.detail, ensure_ascii=False)
    return [explainer, score.score, score.n, score.n_failed, score.ci_low, score.ci_high, detail]


def _summarise(directory, *, model, n_live, n_chosen):
    """Counts and means of the whole stage, logged and written to `summary.json`."""
    summary = {"model": model, "n_live": n_live, "n_chosen": n_chosen, "status": {}, "scores": {}}
    if n_chosen:
        explanations, scores = (
            read_parquet(*sorted((directory / "tables" / table).glob("*.parquet"))) for table in ("explanations", "scores")
        )
        own = explanations.filter(~pl.col("explainer").str.starts_with("baseline:"))
        summary["status"] = dict(own["status"].value_counts(sort=True, name="n").sort("status").iter_rows())
        for (explainer, scorer), group in sorted(scores.group_by("explainer", "scorer")):
            measured = group["score"].drop_nulls()
            summary["scores"].setdefault(explainer, {})[scorer] = {
                "n_scored": len(measured),
                "mean": measured.mean(),
                "n_good": int((measured >= GOOD_SCORE).sum()),
                "n_failed_windows": int(group["n_failed"].sum()),
            }
    write_json(directory / "summary.json", summary)
    for explainer, by_scorer in summary["scores"].items():
        for scorer, numbers in by_scorer.items():
            logger.info(
                "explain: %s %s: mean %.3f, %d of %d live features at %.1f or more",
                explainer,
                scorer,
                numbers["mean"] or float("nan"),
                numbers["n_good"],
                n_live,
                GOOD_SCORE,
            )
