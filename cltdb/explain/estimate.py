"""What language models would be asked, and at what price, before anybody is asked."""

import asyncio
from copy import copy
from typing import NamedTuple

from cltdb.explain.explain import chosen
from cltdb.explain.pipeline import Labelled, Pipeline
from cltdb.explain.requests.access import parameters
from cltdb.explain.requests.answers import Answers, now
from cltdb.explain.requests.budget import estimate
from cltdb.explain.requests.client import Reply

SAMPLE = 20
"""Features whose requests are counted."""
PLACEHOLDER = "fires on names of places and on words that stand beside them in lists of places"
"""Stands for an explanation that is not there yet, in questions about it."""


class Planned(NamedTuple):
    """n_features: to explain; new: the `budget.Estimate` of requests that nobody has answered yet; n_there: about how many have been."""

    n_features: int
    new: tuple
    n_there: int


class _Recorder:
    """A client that asks nobody: notes what it is asked, the same once, and answers from the workspace alone. Explanations that are not there get a
    placeholder, each explainer's its own."""

    def __init__(self, section, units):
        self.answers, self.new, self.there = Answers(section, parameters(section), units), {}, set()

    async def ask(self, request):
        key = self.answers.key(request.messages, request.schema)
        answer = self.answers.get(key)
        if answer is None:
            self.new[key] = request
        else:
            self.there.add(key)
        try:
            value = request.read(answer.text) if answer else None
        except ValueError:
            value = None
        if value is None and request.purpose.startswith("explain:"):
            value = f"{PLACEHOLDER}; {request.purpose}"
        return Reply(value, "failed" if value is None else "ok", None, 0, 0, 0.0, now())


def planned(settings, subjects, *, units, labels=()):
    """The Planned requests of a run, from those of a sample of its features. units: only read. What setting
    features raises is not measured; what they promote stands for it."""
    subjects = copy(subjects)
    labels, recorder = Labelled(labels), _Recorder(settings, units)
    subjects.raised = lambda layer, features: {feature: subjects.subject(layer, feature).promoted for feature in features}
    wanted = chosen(settings, subjects.windows, labels.places)
    sample = wanted[:: max(1, len(wanted) // SAMPLE)][:SAMPLE]
    pipeline = Pipeline(settings, subjects, recorder, labels, units=_ReadOnly(units), dict_id="", advance=lambda: None)
    asyncio.run(pipeline.block(sample))
    share = len(wanted) / max(1, len(sample))
    beside, share_beside = _beside(settings, subjects, sample, len(wanted), units=units)
    n_new = round(len(recorder.new) * share + len(beside) * share_beside)
    asked = [*recorder.new.values(), *beside]
    return Planned(len(wanted), estimate(settings, asked, n_new), round(len(recorder.there) * share))


def _beside(settings, subjects, sample, n_wanted, *, units):
    """(requests as baseline dictionaries would need for a sample of features, how many times as many they need); as if no answer were there."""
    dictionaries, nothing = settings.dictionaries(), _ReadOnly(units)
    recorder = _Recorder(settings, nothing)
    if dictionaries:
        pipeline = Pipeline(
            settings.of_baselines(), subjects, recorder, Labelled(()), units=nothing, dict_id="", advance=lambda: None
        )
        asyncio.run(pipeline.block(sample))
    n = min(settings.baseline_features, n_wanted) * len(dictionaries)
    return [*recorder.new.values()], n / max(1, len(sample))


class _ReadOnly:
    """Units of which none is there and none is kept: an estimate leaves nothing."""

    def __init__(self, units):
        self.artifact = units.artifact

    def get(self, kind, key):
        return None

    def get_many(self, kind, keys):
        return {}

    def put_many(self, kind, records):
        pass


def told(planned):
    """An estimate in one line."""
    new = planned.new
    price = "at a price that litellm does not know" if new.usd is None else f"for about ${new.usd:.2f}"
    there = f"; {planned.n_there:,} more are there" if planned.n_there else ""
    return (
        f"about {new.requests:,} requests for {planned.n_features:,} features, {new.prompt_tokens:,} tokens of prompts and "
        f"{new.completion_tokens:,} of answers, {price}{there}"
    )
