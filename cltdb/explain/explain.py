"""Explains features and scores the explanations. Reads: a harvest. Writes: `tables/explanations`, `tables/scores`, `tables/requests`,
`summary.json`.

Features are worked on in blocks, in their order. Of a block all explanations are made first, then scored. What explains or judges without a
call is a unit of the workspace (`cltdb.engine.units`); what asks a language model is kept reply by reply (`cltdb.explain.requests`): a larger limit,
another scorer or a killed run make and pay only what is new. Rows are the same however they come about: none depends on features of other
blocks, or on what else is asked.

Beside the first explainer of each side stand baselines: the same judgements against shuffled truths (`baseline:shuffled`: what guessing gets),
the explanation of a feature before it in its block (`baseline:other_feature`: would any do?) and the feature's five most frequent tokens
(`baseline:top_tokens`).
"""

import asyncio
import json
import logging
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from cltdb import log
from cltdb.engine.stage import ALONE
from cltdb.engine.units import EXPLANATIONS, SCORES
from cltdb.engine.workspace import digest, read_parquet, write_json, write_parquet
from cltdb.explain.explainers import BASELINES, EXPLAINERS, TOP_TOKENS, asks
from cltdb.explain.judges import Explanation
from cltdb.explain.judges.language_model import LanguageModelJudge
from cltdb.explain.judges.rule import RuleJudge
from cltdb.explain.keys import group
from cltdb.explain.prompts import EXPLANATION_OBJECT, read_explanation, request
from cltdb.explain.requests.client import Client
from cltdb.explain.requests.client import run as run_requests
from cltdb.explain.rules import token_classes
from cltdb.explain.scorers import SCORERS
from cltdb.explain.settings import RULES_MODEL
from cltdb.harvest.hashing import hash64

logger = logging.getLogger(__name__)
BLOCK, PART_BLOCKS = 256, 32
"""Features of a block; blocks of a file."""
BLOCKS_AHEAD = 2
"""Blocks in progress at once, so that requests are in flight while the last of a block are answered."""
OTHER_EVERY = 10
"""With a language model, baseline:other_feature is asked for every tenth feature only."""
GOOD_SCORE = 0.8
REASONS = 3
"""Of failed explanations, the commonest."""
SHUFFLED, OTHER = "baseline:shuffled", "baseline:other_feature"
TOO_FEW = "too_few_contexts"
PLACE = {"dict_id": pl.String, "layer": pl.Int32, "feature": pl.Int32, "side": pl.String, "explainer": pl.String}
EXPLANATION_SCHEMA = PLACE | {
    "text": pl.String,
    "rule": pl.String,
    "model": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "status": pl.String,
    "error": pl.String,
    "created_at": pl.Datetime("us"),
}
SCORE_SCHEMA = PLACE | {
    "scorer": pl.String,
    "score": pl.Float64,
    "n": pl.Int32,
    "n_failed": pl.Int32,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "detail": pl.String,
}
SCHEMAS = {"explanations": EXPLANATION_SCHEMA, "scores": SCORE_SCHEMA}


class Made(NamedTuple):
    """An explanation as it is stored. text is None where status is not ok. prompt_tokens to created_at: those of the reply."""

    status: str
    error: str | None = None
    text: str | None = None
    rule: dict | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    created_at: str | None = None


def explain(settings, subjects, *, directory, units, base, dict_id, share=ALONE):
    """Fills `directory`; what `units` (cltdb.engine.units.Units) has is not made again.

    settings: section `Explain`; subjects: `Subjects` of the harvest; base: `keys.base_of` it; share: of the blocks that this process makes.
    """
    directory = Path(directory)
    wanted = chosen(settings.features, subjects.windows)
    blocks = [wanted[first : first + BLOCK] for first in range(0, len(wanted), BLOCK)][share.rank :: share.world_size]
    client = Client(settings, units) if settings.model != RULES_MODEL else None
    with log.progress("explain", total=sum(map(len, blocks)), unit="features") as bar:
        pipeline = Pipeline(settings, subjects, client, units=units, base=base, dict_id=dict_id, advance=bar.advance)
        run_requests(_write_blocks(pipeline, blocks, directory, rank=share.rank))
    if client is not None:
        write_parquet(directory / f"tables/requests/{share.rank:03d}.parquet", client.ledger_frame(dict_id))
        client.say_cost()


async def _write_blocks(pipeline, blocks, directory, *, rank):
    """Makes blocks, a few at once, and writes their rows in their order, PART_BLOCKS to a file."""
    slots = asyncio.Semaphore(BLOCKS_AHEAD)

    async def made(block):
        async with slots:
            return await pipeline.block(block)

    tasks = [asyncio.ensure_future(made(block)) for block in blocks]
    for index, first in enumerate(range(0, len(tasks), PART_BLOCKS)):
        parts = await asyncio.gather(*tasks[first : first + PART_BLOCKS])
        rows = [[row for part in parts for row in part[table]] for table in range(len(SCHEMAS))]
        _write_part(directory, f"{rank:03d}-{index:05d}", dict(zip(SCHEMAS, rows, strict=True)))


def _write_part(directory, name, rows):
    for table, listed in rows.items():
        frame = pl.DataFrame(listed, schema=SCHEMAS[table], orient="row")
        frame = frame.sort("layer", "feature", "side", "explainer", maintain_order=True)
        write_parquet(directory / f"tables/{table}/{name}.parquet", frame)


def chosen(features, windows):
    """[(layer, feature)] of those to explain, in the wanted order."""
    candidates = windows.live() if features.only is None else windows.named(features.only)
    if features.sample is not None:
        candidates = stratified(candidates, features.sample, features.strata, windows.seed)
    order = {"layer": ["layer", "feature"]}.get(features.top_by, [features.top_by, "layer", "feature"])
    ordered = candidates.sort(order, descending=[column in ("density", "max_activation") for column in order])
    rows = ordered if features.limit is None else ordered.head(features.limit)
    return list(zip(rows["layer"].to_list(), rows["feature"].to_list(), strict=True))


def stratified(candidates, n, strata, seed):
    """n of the candidates, as evenly from each stratum as there are any: one of each in turn, in a random order that is fixed by the seed."""
    drawn = hash64(seed, candidates["layer"].to_numpy().astype(np.int64), candidates["feature"].to_numpy().astype(np.int64), 3)
    tenth = (pl.col("density").rank("ordinal") - 1) * 10 // pl.len()
    keys = [{"layer": pl.col("layer"), "density": tenth}[name].alias(f"stratum_{name}") for name in strata] or [pl.lit(0).alias("stratum_all")]
    ranked = candidates.with_columns(*keys, drawn=pl.Series(drawn)).sort("drawn")
    turn = pl.int_range(pl.len()).over([key.meta.output_name() for key in keys])
    return ranked.with_columns(turn=turn).sort("turn", "drawn").head(n).select(candidates.columns)


class Voice(NamedTuple):
    """Who says something of each feature, of one side of it. leads: baselines stand beside it."""

    name: str
    side: str
    leads: bool = False


class Pipeline:
    """What explains and what scores, and the units that are there. client: None where no language model is asked; advance(): called after each
    feature."""

    def __init__(self, settings, subjects, client, *, units, base, dict_id, advance):
        self.subjects, self.client, self.units, self.base, self.dict_id = subjects, client, units, base, dict_id
        self.scorers, self.model, self.advance = settings.scorers, settings.model, advance
        self.baselines = [f"baseline:{name}" for name in settings.baselines]
        self.seed = subjects.windows.seed
        self.rule_judge = RuleJudge(label_names=subjects.windows.label_names, classes=token_classes(subjects.vocabulary))
        self.text_judge = client and LanguageModelJudge(client, vocabulary=subjects.vocabulary, seed=self.seed)
        self.busy = asyncio.Semaphore(2 * settings.concurrency)  # features that are asked about
        self.voices = self._voices(settings.who_explains())

    def _voices(self, names):
        """Of the explainers, in their order; the first of each side leads. Then of the baselines that are texts of their own."""
        voices, sides = [], set()
        for name in names:
            side = EXPLAINERS[name].SIDE
            voices.append(Voice(name, side, side not in sides))
            sides.add(side)
        if "input" in sides and TOP_TOKENS in self.baselines:
            voices.append(Voice(TOP_TOKENS, "input"))
        return voices

    async def block(self, features):
        """(rows of explanations, rows of scores) of some features, the next ones in the order. What asks nobody is made for all of them first;
        of what asks a language model each feature is explained and scored before much of the next ones."""
        subjects = [self.subjects.subject(*place) for place in features]
        free = {voice: self._made_or_there(voice.name, subjects) for voice in self.voices if not asks(voice.name)}
        found = [{voice: made[index] for voice, made in free.items()} for index in range(len(subjects))]
        explained, new = [asyncio.get_running_loop().create_future() for _ in subjects], []
        made = await asyncio.gather(*(self._feature(index, subject, found, explained, new) for index, subject in enumerate(subjects)))
        self.units.put_many(SCORES, new)
        return tuple([row for rows in table for row in rows] for table in zip(*made, strict=True))

    async def _feature(self, index, subject, found, explained, new):
        """(rows of explanations, rows of scores) of one feature of a block. found: {voice: Made} of each feature, filled in here; explained: a
        future of each, done when that is full; new: gets the units that were made."""
        async with self.busy:
            asked = [voice for voice in self.voices if asks(voice.name)]
            answers = await asyncio.gather(*(self._asked(voice.name, subject) for voice in asked))
            found[index] |= dict(zip(asked, answers, strict=True))
            explained[index].set_result(None)
            others = await self._others(index, subject, found, explained)
            own = {voice: found[index][voice] for voice in self.voices}
            scores = await self._scored(subject, own, others, new)
        self.advance()
        return self._rows(subject, own, others), scores

    # Explanations.

    def _made_or_there(self, name, subjects):
        """The `Made` of each subject by an explainer that asks nobody."""
        keys = [f"{group(self.base, name)}/{subject.layer}-{subject.feature}" for subject in subjects]
        records = self.units.get_many(EXPLANATIONS, keys)
        missing = [index for index, record in enumerate(records) if record is None]
        made = self._made(name, [subjects[index] for index in missing])
        new = [(keys[index], one._asdict()) for index, one in zip(missing, made, strict=True)]
        self.units.put_many(EXPLANATIONS, new)
        records = dict(zip(keys, records, strict=True)) | dict(new)
        return [Made(**{field: records[key][field] for field in Made._fields}) for key in keys]

    def _made(self, name, subjects):
        explainer = EXPLAINERS.get(name) or BASELINES[name]
        short = [explainer.shortage(subject) for subject in subjects]
        enough = [subject for subject, shortage in zip(subjects, short, strict=True) if shortage is None]
        explained = iter(explainer.explain(enough) if enough else ())
        model, made_at = RULES_MODEL if name == "rules" else None, now()
        return [
            Made(TOO_FEW, shortage, created_at=made_at)
            if shortage
            else Made("ok", None, *next(explained), model=model, created_at=made_at)
            for shortage in short
        ]

    async def _asked(self, name, subject):
        """The `Made` of one subject by an explainer that asks the language model."""
        explainer = EXPLAINERS[name]
        if shortage := explainer.shortage(subject):
            return Made(TOO_FEW, shortage, model=self.model, created_at=now())
        wanted = dict(read=read_explanation, schema=EXPLANATION_OBJECT, **explainer.slots(subject))
        reply = await self.client.ask(request(explainer.PROMPT, f"explain:{name}", **wanted))
        cost = reply.prompt_tokens, reply.completion_tokens, reply.cost_usd
        return Made(reply.status, reply.error, reply.value, None, self.model, *cost, reply.created_at)

    async def _others(self, index, subject, found, explained):
        """{voice that leads: the explanation of a feature before this one in the block}; what asks a language model is compared for every tenth
        feature only."""
        others = {}
        for voice, own in found[index].items():
            if not voice.leads or OTHER not in self.baselines or own.text is None:
                continue
            if own.rule is None and (subject.feature + subject.layer) % OTHER_EVERY:
                continue
            await asyncio.gather(*explained[:index])
            before = [made[voice] for made in found[:index] if made[voice].text is not None]
            if before:
                other = before[int(hash64(self.seed, subject.layer, subject.feature, 2) % np.uint64(len(before)))]
                others[voice] = Explanation(other.text, other.rule)
        return others

    def _rows(self, subject, found, others):
        """Rows of table explanations. Those of baselines that borrow a text have its model and time, and no cost."""
        rows = []
        for voice, made in found.items():
            if made.text is not None or voice.name not in BASELINES:
                rows.append(self._row(subject, voice.side, voice.name, made))
            if voice.leads and made.text is not None:
                free = made._replace(prompt_tokens=0, completion_tokens=0, cost_usd=0.0)
                if SHUFFLED in self.baselines:
                    rows.append(self._row(subject, voice.side, SHUFFLED, free))
                if other := others.get(voice):
                    rows.append(self._row(subject, voice.side, OTHER, free._replace(text=other.text, rule=other.rule)))
        return rows

    def _row(self, subject, side, explainer, made):
        rule = made.rule and json.dumps(made.rule, ensure_ascii=False)
        cost = made.prompt_tokens, made.completion_tokens, made.cost_usd
        when = datetime.fromisoformat(made.created_at)
        place = self.dict_id, subject.layer, subject.feature, side, explainer
        return (*place, made.text, rule, made.model, *cost, made.status, made.error, when)

    # Scores.

    async def _scored(self, subject, found, others, new):
        """Rows of table scores of a feature."""
        jobs = [
            self._score(subject, scorer, voice, Explanation(made.text, made.rule), others.get(voice), new)
            for voice, made in found.items()
            for scorer in self.scorers
            if made.text is not None and voice.side in SCORERS[scorer].METHODS
        ]
        return [(self.dict_id, subject.layer, subject.feature, *row) for rows in await asyncio.gather(*jobs) for row in rows]

    async def _score(self, subject, name, voice, own, other, new):
        """[side, explainer, scorer, *numbers] of an explanation by one scorer, with those of the baselines beside it; nothing where nobody
        can judge it."""
        judge = self.rule_judge if own.rule else self.text_judge
        ask = getattr(judge, SCORERS[name].METHODS[voice.side], None)
        if ask is None:
            return []
        key = f"{group(self.base, voice.name, name)}/{subject.layer}-{subject.feature}-{digest([own, other, self.baselines])}"
        if judge is self.rule_judge and (record := self.units.get(SCORES, key)):
            return record["rows"]
        rows = await self._judged(subject, name, voice, (own, other), judge.name, ask)
        if judge is self.rule_judge:
            new.append((key, {"rows": rows}))
        return rows

    async def _judged(self, subject, name, voice, explanations, judge_name, ask):
        scorer, (own, other) = SCORERS[name], explanations
        rng = np.random.default_rng([self.seed, subject.layer, subject.feature, zlib.crc32(name.encode())])
        trial = None if subject.cannot_be_scored(voice.side) else scorer.trial(subject, voice.side, rng)
        if trial is None:
            return []
        answers = await ask(own, *trial.questions)
        entries = [(voice.name, trial, answers)]
        if voice.leads and SHUFFLED in self.baselines:
            free = answers._replace(prompt_tokens=0, completion_tokens=0, cost_usd=0.0)
            entries.append((SHUFFLED, trial.shuffled(rng), free))
        if other is not None:
            entries.append((OTHER, trial, await ask(other, *trial.questions)))
        rows = []
        for explainer, asked, answers in entries:
            score = scorer.measure(asked, answers, rng)
            took = {field: getattr(answers, field) for field in ("prompt_tokens", "completion_tokens", "cost_usd", "error")}
            detail = json.dumps({**score.detail, "judge": judge_name, "chance": scorer.CHANCE, **took}, ensure_ascii=False)
            rows.append([voice.side, explainer, name, *score[:5], detail])
        return rows


def now():
    """The time in UTC as ISO 8601 text."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


# What a run says of it.


def summarise(directory, *, n_live, n_chosen):
    """Counts and means of the whole stage, logged and written to `summary.json`."""
    directory = Path(directory)
    explanations, scores, requests = (_table(directory, table) for table in ("explanations", "scores", "requests"))
    summary = {"n_live": n_live, "n_chosen": n_chosen, "explainers": {}, "scores": {}, "requests": _spent(requests)}
    if explanations is not None:
        own = explanations.filter(~pl.col("explainer").str.starts_with("baseline:"))
        for (explainer, side), rows in own.group_by("explainer", "side", maintain_order=True):
            failed = rows.filter(pl.col("status") == "failed")["error"].value_counts(sort=True, name="n").sort("n", "error", descending=[True, False])
            summary["explainers"].setdefault(explainer, {})[side] = {
                "model": rows["model"].drop_nulls().first(),
                "status": dict(rows["status"].value_counts(sort=True, name="n").sort("status").iter_rows()),
                "reasons": failed.head(REASONS).rows(),
            }
        for (explainer, side, scorer), rows in sorted(scores.group_by("explainer", "side", "scorer")):
            measured = rows["score"].drop_nulls()
            half = 1.96 * (measured.std() or 0.0) / max(1, len(measured)) ** 0.5
            summary["scores"].setdefault(explainer, {})[scorer if side == "input" else f"{scorer} ({side})"] = {
                "n_scored": len(measured),
                "mean": measured.mean(),
                "ci": [measured.mean() - half, measured.mean() + half] if len(measured) else None,
                "n_good": int((measured >= GOOD_SCORE).sum()),
                "n_failed_windows": int(rows["n_failed"].sum()),
            }
    write_json(directory / "summary.json", summary)
    for explainer, by_scorer in summary["scores"].items():
        for scorer, found in by_scorer.items():
            if found["n_scored"]:
                logger.info(
                    "explain: %s %s: mean %.3f (95 %% %.3f to %.3f) of %d, %d at %.1f or more",
                    *(explainer, scorer, found["mean"], *found["ci"], found["n_scored"], found["n_good"], GOOD_SCORE),
                )


def _table(directory, name):
    """All rows of a table of the artifact; None where it has none."""
    paths = sorted((directory / "tables" / name).glob("*.parquet"))
    return read_parquet(*paths) if paths else None


def _spent(requests):
    """Of the requests that were used: how many by status, what the new ones cost, how many of them at unknown price."""
    if requests is None:
        return None
    new = requests.filter(pl.col("status") != "reused")
    return {
        "status": dict(requests["status"].value_counts(sort=True, name="n").sort("status").iter_rows()),
        "new_usd": new["cost_usd"].sum(),
        "n_unpriced": int(new.filter(pl.col("status") == "ok")["cost_usd"].null_count()),
        "reused_usd": requests.filter(pl.col("status") == "reused")["cost_usd"].sum(),
    }
