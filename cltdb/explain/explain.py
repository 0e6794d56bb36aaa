"""Explains features and scores the explanations. Reads: a harvest. Writes: `tables/explanations`, `tables/scores`,
`summary.json`.

The unit is a part of features: both its files are there or it is done again, with the replies that were kept. Beside each
explanation stand three baselines: the same judgements against shuffled window labels (`baseline:shuffled`: chance, expected 0.5),
the explanation of another feature (`baseline:other_feature`: would any do?) and the feature's five most frequent tokens
(`baseline:top_tokens`).
"""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from cltdb import log
from cltdb.errors import CltdbError
from cltdb.explain import scores as scorers_module
from cltdb.explain.calls import RULES_MODEL, Caller, check_access
from cltdb.explain.examples import HarvestedWindows
from cltdb.explain.judges import Explanation, LanguageModelJudge, RuleJudge
from cltdb.explain.prompts import explain_prompt, read_explanation
from cltdb.explain.rule_prompts import rules_prompt
from cltdb.explain.rules import describe_tokens, token_classes
from cltdb.workspace import write_json, write_parquet

logger = logging.getLogger(__name__)
PART_FEATURES = 128
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


def explain(*, directory, harvest_directory, dict_id, model, vocabulary, features, scorers, seed, max_cost_usd=None):
    """Fills `directory`; parts that an earlier, killed run finished are kept.

    model: a litellm model or cltdb-rules/v1; vocabulary: string per token id; features: `top_by` (density, max_activation, layer)
    and `limit` (None: all live ones); scorers: of detection, fuzzing; max_cost_usd: what is left when it is spent is
    skipped_budget.
    """
    check_access(model)
    directory, windows = Path(directory), HarvestedWindows(harvest_directory, seed=seed)
    wanted = _choose(windows.live(), features)
    explainer = Explainer(
        model, directory, windows, dict_id=dict_id, vocabulary=vocabulary, scorers=scorers, seed=seed, max_cost_usd=max_cost_usd
    )
    parts = [wanted[first : first + PART_FEATURES] for first in range(0, len(wanted), PART_FEATURES)]
    with log.progress("explain", total=len(wanted), unit="features") as bar:
        for index, part in enumerate(parts):
            paths = [directory / f"tables/{table}/{index:05d}.parquet" for table in ("explanations", "scores")]
            if all(path.is_file() for path in paths):
                explainer.spent += _cost(*map(pl.read_parquet, paths))
            else:
                frames = explainer.part(part)
                _refuse_silence(model, frames[0])
                for path, frame in zip(paths, frames, strict=True):
                    write_parquet(path, frame)
            bar.advance(len(part))
    _summarise(directory, n_live=len(windows.live()), n_chosen=len(wanted))


def _choose(live, features):
    """[(layer, feature)] in the wanted order."""
    order = {"layer": ["layer", "feature"]}.get(features.top_by, [features.top_by, "layer", "feature"])
    ordered = live.sort(order, descending=[column in ("density", "max_activation") for column in order])
    chosen = ordered if features.limit is None else ordered.head(features.limit)
    return list(zip(chosen["layer"].to_list(), chosen["feature"].to_list(), strict=True))


def _refuse_silence(model, explanations):
    """CltdbError where not one call of a part was answered: the rows would say nothing about the features."""
    asked = explanations.filter(pl.col("status").is_in(["ok", "failed"]))
    unanswered = asked.filter(pl.col("prompt_tokens") == 0, pl.col("status") == "failed")
    if len(asked) and len(unanswered) == len(asked):
        raise CltdbError(
            f"explain.model {model}",
            found=f"no answer to any call: {unanswered['error'][0]}",
            expected="explanations",
            do="check the model's name and the network, and run again: replies so far are kept",
        )


def _cost(explanations, scores):
    """US dollars that the rows of a part took, as far as known."""
    scoring = (json.loads(detail)["cost_usd"] for detail in scores["detail"])
    return (explanations["cost_usd"].sum() or 0.0) + sum(cost or 0.0 for cost in scoring)


class Explainer:
    """One model with its judge, and what it has spent."""

    def __init__(self, model, directory, windows, *, dict_id, vocabulary, scorers, seed, max_cost_usd):
        self.model, self.windows, self.dict_id, self.vocabulary, self.scorers, self.seed = (
            model,
            windows,
            dict_id,
            vocabulary,
            scorers,
            seed,
        )
        self.caller, self.spent, self.warned, self.max_cost_usd = Caller(model, directory / "replies"), 0.0, False, max_cost_usd
        self.rule_judge = RuleJudge(label_names=windows.label_names, classes=token_classes(vocabulary))
        self.by_rules = model == RULES_MODEL
        self.judge = self.rule_judge if self.by_rules else LanguageModelJudge(self.caller, vocabulary=vocabulary, seed=seed)
        self.name = "rules" if self.by_rules else "llm"

    def part(self, features):
        """(explanations, scores) frames of some features."""
        rows, score_rows, explained = [], [], []
        for layer, feature in features:
            examples = self.windows.examples(layer, feature)
            row, explanation = self._explain(layer, feature, examples)
            rows.append(row)
            if explanation is not None:
                rows.append(self._row(layer, feature, SHUFFLED, text=explanation.text, cost_usd=0.0))
                score_rows += self._score(layer, feature, self.name, explanation, examples, self.judge, with_chance=True)
                row, top = self._top_tokens(layer, feature, examples)
                rows.append(row)
                score_rows += self._score(layer, feature, TOP, top, examples, self.rule_judge)
                explained.append((layer, feature, explanation, examples))
        for (layer, feature, _, examples), borrowed in zip(explained, self._borrowed(explained), strict=True):
            if len(explained) > 1 and (self.by_rules or (feature + layer) % OTHER_EVERY == 0):
                rows.append(self._row(layer, feature, OTHER, text=borrowed.text, cost_usd=0.0))
                score_rows += self._score(layer, feature, OTHER, borrowed, examples, self.judge)
        frames = (
            pl.DataFrame(rows, schema=EXPLANATION_SCHEMA, orient="row"),
            pl.DataFrame(score_rows, schema=SCORE_SCHEMA, orient="row"),
        )
        return tuple(frame.sort("layer", "feature", "explainer", maintain_order=True) for frame in frames)

    def _borrowed(self, explained):
        """Another feature's explanation for each of the part's features: neighbours on a random circle, since those in order are
        related."""
        circle = np.random.default_rng([self.seed, len(explained)]).permutation(len(explained))
        following = dict(zip(circle.tolist(), np.roll(circle, -1).tolist(), strict=True))
        return [explained[following[index]][2] for index in range(len(explained))]

    def _row(
        self,
        layer,
        feature,
        explainer,
        *,
        text=None,
        prompt_tokens=0,
        completion_tokens=0,
        cost_usd=None,
        status="ok",
        error=None,
        created_at=None,
    ):
        made = datetime.fromisoformat(created_at) if created_at else datetime.now(UTC).replace(tzinfo=None)
        model = None if explainer == TOP else self.model
        return (
            self.dict_id,
            layer,
            feature,
            "input",
            explainer,
            text,
            model,
            prompt_tokens,
            completion_tokens,
            cost_usd,
            status,
            error,
            made,
        )

    def _explain(self, layer, feature, examples):
        """(row, Explanation or None)."""
        if examples.shortage:
            return self._row(layer, feature, self.name, status="too_few_contexts", error=examples.shortage, cost_usd=0.0), None
        if self.max_cost_usd is not None and not self.by_rules and self.spent >= self.max_cost_usd:
            found = f"${self.spent:.4f} of max_cost_usd ${self.max_cost_usd:.4f} are spent"
            return self._row(layer, feature, self.name, status="skipped_budget", error=found, cost_usd=0.0), None
        shown = examples.training_positives, examples.training_negatives
        reply = self.caller.ask(
            rules_prompt(*shown, label_names=self.windows.label_names, vocabulary=self.vocabulary)
            if self.by_rules
            else explain_prompt(*shown, vocabulary=self.vocabulary)
        )
        self._spend(reply.cost_usd)
        known = dict(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cost_usd=reply.cost_usd,
            created_at=reply.created_at,
        )
        text = (
            None
            if reply.text is None
            else read_explanation(reply.text)
            if not self.by_rules
            else json.loads(reply.text)["explanation"]
        )
        if text is None:
            return self._row(
                layer, feature, self.name, status="failed", error=reply.error or "a reply without an explanation in JSON", **known
            ), None
        rule = json.loads(reply.text)["rule"] if self.by_rules else None
        return self._row(layer, feature, self.name, text=text, **known), Explanation(text, rule)

    def _spend(self, cost_usd):
        if cost_usd is None and self.max_cost_usd is not None and not self.warned:
            logger.warning(
                "explain: litellm does not know what %s costs; its calls do not count against max_cost_usd", self.model
            )
            self.warned = True
        self.spent += cost_usd or 0.0

    def _score(self, layer, feature, explainer, explanation, examples, judge, *, with_chance=False):
        """A score row per scorer; `with_chance`: and one of the same judgements against shuffled labels."""
        rows = []
        for scorer in self.scorers:
            rng = np.random.default_rng([self.seed, layer, feature, ("detection", "fuzzing").index(scorer)])
            trial = getattr(scorers_module, scorer)(judge, explanation, examples, rng=rng)
            self._spend(trial.judged.cost_usd)
            rows.append(self._score_row(layer, feature, explainer, scorer, scorers_module.score(trial, rng=rng)))
            if with_chance:
                chance = scorers_module.score(trial.with_shuffled_labels(rng=rng), rng=rng)
                rows.append(self._score_row(layer, feature, SHUFFLED, scorer, chance))
        return rows

    def _score_row(self, layer, feature, explainer, scorer, score):
        detail = json.dumps(score.detail, ensure_ascii=False)
        return (
            self.dict_id,
            layer,
            feature,
            "input",
            explainer,
            scorer,
            score.score,
            score.n,
            score.n_failed,
            score.ci_low,
            score.ci_high,
            detail,
        )

    def _top_tokens(self, layer, feature, examples):
        """The baseline that the feature fires on its most frequent tokens: (row, Explanation)."""
        training = examples.training_positives
        tokens, counts = np.unique(training.tokens[training.activations > 0], return_counts=True)
        top = sorted(int(token) for token in tokens[np.argsort(-counts, kind="stable")[:TOP_TOKENS]])
        text = "fires on " + describe_tokens(top, self.vocabulary)
        rule = {"clauses": [{"tokens": top, "conditions": []}]}
        return self._row(layer, feature, TOP, text=text, cost_usd=0.0), Explanation(text, rule)


def _summarise(directory, *, n_live, n_chosen):
    """Counts and means of the whole stage, logged and written to `summary.json`."""
    summary = {"n_live": n_live, "n_chosen": n_chosen, "status": {}, "scores": {}}
    if n_chosen:
        explanations, scores = (pl.read_parquet(directory / f"tables/{table}/*.parquet") for table in ("explanations", "scores"))
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
