"""Explaining and scoring blocks of features: what asks nobody for all of a block at once, what asks a language model feature by feature.

What explains or judges without a call is a unit of the workspace; replies of language models are kept by their client. No row depends on features
of other blocks, on what else is asked, or on when answers come.
"""

import asyncio
import json
import zlib
from datetime import datetime
from typing import NamedTuple

import numpy as np

from cltdb.engine.units import EXPLANATIONS, SCORES
from cltdb.engine.workspace import digest
from cltdb.explain.explainers import BASELINES, EXPLAINERS, TOP_TOKENS, asks
from cltdb.explain.judges import Explanation
from cltdb.explain.judges.language_model import LanguageModelJudge
from cltdb.explain.judges.rule import RuleJudge
from cltdb.explain.judges.words import WordJudge
from cltdb.explain.keys import group
from cltdb.explain.prompts import EXPLANATION_OBJECT, read_explanation, request
from cltdb.explain.requests.answers import now
from cltdb.explain.scorers import SCORERS
from cltdb.explain.settings import DICTIONARIES, RULES_MODEL
from cltdb.harvest.hashing import hash64

OTHER_EVERY = 10
"""With a language model, baseline:other_feature is asked for every tenth feature only."""
SHUFFLED, OTHER = "baseline:shuffled", "baseline:other_feature"
TOO_FEW = "too_few_contexts"
LABEL_COLUMNS = ("layer", "feature", "side", "text", "explainer", "model")


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


class Voice(NamedTuple):
    """Who says something of each feature, of one side of it. leads: baselines stand beside it."""

    name: str
    side: str
    leads: bool = False


class Labelled:
    """Texts that were made elsewhere. texts: {Voice: {(layer, feature): (text, model)}}."""

    def __init__(self, frames):
        self.texts = {}
        for frame in frames:
            for layer, feature, side, text, explainer, model in frame.select(LABEL_COLUMNS).iter_rows():
                self.texts.setdefault(Voice(explainer, side), {})[layer, feature] = text, model

    @property
    def places(self):
        """(layer, feature) of all that have a text."""
        return set().union(*self.texts.values())

    def made(self, voice, subject):
        """The `Made` of a feature, None where it has no text."""
        text, model = self.texts[voice].get((subject.layer, subject.feature), (None, None))
        return None if text is None else Made("ok", None, text, model=model, created_at=now())


class Pipeline:
    """What explains and what scores, and the units that are there. client: None where no language model is asked; advance(): called after each
    feature."""

    def __init__(self, settings, subjects, client, labels, *, units, dict_id, advance):
        self.subjects, self.client, self.units, self.dict_id, self.labels = subjects, client, units, dict_id, labels
        self.scorers, self.model, self.advance = settings.scorers, settings.model, advance
        self.baselines = [f"baseline:{name}" for name in settings.baselines if name not in DICTIONARIES]
        self.seed = subjects.windows.seed
        self.rule_judge = RuleJudge(label_names=subjects.windows.label_names, vocabulary=subjects.vocabulary)
        self.language_model = client and LanguageModelJudge(client, vocabulary=subjects.vocabulary, seed=self.seed)
        self.text_judge = self.language_model or WordJudge(vocabulary=subjects.vocabulary)
        self.busy = asyncio.Semaphore(2 * settings.concurrency)  # features that are asked about
        self.voices = self._voices(settings.who_explains())

    def _voices(self, names):
        """Of the explainers, then of texts that were made elsewhere; the first of each side leads. Then of the baselines that are texts of their own."""
        voices, sides = [], set()
        for name, side in [*((name, EXPLAINERS[name].SIDE) for name in names), *(voice[:2] for voice in self.labels.texts)]:
            voices.append(Voice(name, side, side not in sides))
            sides.add(side)
        if "input" in sides and TOP_TOKENS in self.baselines:
            voices.append(Voice(TOP_TOKENS, "input"))
        return voices

    async def block(self, features):
        """(rows of explanations, rows of scores) of some features, the next ones in the order. What asks nobody is made for all of them first;
        of what asks a language model each feature is explained and scored before much of the next ones."""
        subjects = [self.subjects.subject(*place) for place in features]
        free = {voice: self._without_asking(voice, subjects) for voice in self.voices if not asks(voice.name)}
        found = [{voice: made[index] for voice, made in free.items()} for index in range(len(subjects))]
        for scorer in map(SCORERS.get, self.scorers):
            if hasattr(scorer, "prepare") and any(voice.side in scorer.METHODS for voice in self.voices):
                await asyncio.to_thread(scorer.prepare, subjects)
        explained, new = [asyncio.get_running_loop().create_future() for _ in subjects], {}
        made = await asyncio.gather(
            *(self._feature(index, subject, found, explained, new) for index, subject in enumerate(subjects))
        )
        self.units.put_many(SCORES, new)
        return tuple([row for tables in made for row in tables[which]] for which in (0, 1))

    async def _feature(self, index, subject, found, explained, new):
        """(rows of explanations, rows of scores) of one feature of a block. found: {voice: Made} of each feature, filled in here; explained: a
        future of each, done when that is full; new: gets the units that were made."""
        async with self.busy:
            asked = [voice for voice in self.voices if asks(voice.name)]
            answers = await asyncio.gather(*(self._asked(voice.name, subject) for voice in asked))
            found[index] |= dict(zip(asked, answers, strict=True))
            explained[index].set_result(None)
            others = await self._others(index, subject, found, explained)
            own = {voice: found[index][voice] for voice in self.voices if found[index][voice] is not None}
            scores = await self._scored(subject, own, others, new)
        self.advance()
        return self._rows(subject, own, others), scores

    # Explanations.

    def _without_asking(self, voice, subjects):
        """The `Made` of each subject by who asks nobody, from the workspace or new; None where there is no text from elsewhere."""
        if (elsewhere := Voice(voice.name, voice.side)) in self.labels.texts:
            return [self.labels.made(elsewhere, subject) for subject in subjects]
        keys = [f"{group(self.subjects.base, voice.name)}/{subject.layer}-{subject.feature}" for subject in subjects]
        records = self.units.get_many(EXPLANATIONS, keys)
        missing = {key: subject for key, subject in zip(keys, subjects, strict=True) if key not in records}
        made = self._made(voice.name, list(missing.values()))
        new = {key: one._asdict() for key, one in zip(missing, made, strict=True)}
        self.units.put_many(EXPLANATIONS, new)
        records |= new
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

    def _asks_about(self, made):
        """Whether a language model judges an explanation."""
        return self.language_model is not None and not made.rule

    async def _others(self, index, subject, found, explained):
        """{voice that leads: the explanation of a feature before this one in the block}; what asks a language model is compared for every tenth
        feature only."""
        others = {}
        for voice, own in found[index].items():
            if not voice.leads or OTHER not in self.baselines or own is None or own.text is None:
                continue
            if self._asks_about(own) and (subject.feature + subject.layer) % OTHER_EVERY:
                continue
            await asyncio.gather(*(one for one in explained[:index] if not one.done()))
            before = [made[voice] for made in found[:index] if made[voice] and made[voice].text is not None]
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
        if SCORERS[name].OF_FEATURE:  # whoever explained it: asked once
            judge, other = self.language_model if voice.leads else None, None
        is_free = judge is not self.language_model
        ask = getattr(judge, SCORERS[name].METHODS[voice.side], None)
        if ask is None:
            return []
        key = f"{group(self.subjects.base, voice.name, name)}/{subject.layer}-{subject.feature}-{digest([own, other, self.baselines])}"
        if is_free and (record := self.units.get(SCORES, key)):
            return record["rows"]
        rows = await self._judged(subject, name, voice, (own, other), judge.name, ask)
        if is_free:
            new[key] = {"rows": rows}
        return rows

    def trial(self, subject, name, side):
        """The `Trial` of a scorer for explanations of a side, None where there is too little: the same for all explanations of a feature."""
        if (name, side) not in subject.trials:
            rng = np.random.default_rng([self.seed, subject.layer, subject.feature, zlib.crc32(name.encode())])
            is_short = side == "input" and subject.examples.shortage is not None
            subject.trials[name, side] = None if is_short else SCORERS[name].trial(subject, side, rng)
        return subject.trials[name, side]

    async def _judged(self, subject, name, voice, explanations, judge_name, ask):
        scorer, (own, other) = SCORERS[name], explanations
        if (trial := self.trial(subject, name, voice.side)) is None:
            return []
        rng = np.random.default_rng([self.seed, subject.layer, subject.feature, zlib.crc32(name.encode()), 1])
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
