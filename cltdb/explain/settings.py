"""Section `explain` of a spec."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from cltdb.engine.section import (
    Added,
    Conflict,
    Expected,
    Launch,
    Neutral,
    Positive,
    Section,
    Server,
    Variable,
    Word,
    real,
    whole,
)
from cltdb.explain.labels.settings import Labels

Pair = Annotated[
    list[whole(0, 10**9, "no dictionary is larger")], Field(min_length=2, max_length=2), Expected("[layer, feature]")
]
Pairs = Annotated[list[Pair], Field(min_length=1), Expected("one feature or more, as [[layer, feature], …]")]


class Features(Section):
    top_by: Literal["density", "max_activation", "layer"] = "density"
    """Order in which features are explained."""
    limit: Positive | None = None
    """At most this many features; default all live ones."""
    only: Annotated[Pairs | None, Added] = None
    """Only these features, as [[layer, feature], …], whether they are live or not; `cltdb explain` sets it."""
    sample: Annotated[Positive | None, Added] = None
    """Draw this many features instead, as evenly as there are any from each stratum."""
    strata: Annotated[list[Literal["layer", "density"]], Added] = ["layer", "density"]
    """What strata of a `sample` are made of: layers, tenths of the features by density, or both."""

    @model_validator(mode="after")
    def _each_once(self):
        if self.only and len(set(map(tuple, self.only))) < len(self.only):
            raise Conflict("expected each feature once, found one twice", "only")
        if len(set(self.strata)) < len(self.strata):
            raise Conflict("expected each stratum once, found one twice", "strata")
        if self.sample and self.limit:
            raise Conflict("expected a limit or a sample, found both", "sample")
        return self


class Parameters(Section):
    """What a language model is asked with. `null` leaves the choice to the provider."""

    temperature: real(0, 2, "what providers take") | None = 0
    """0: the likeliest answer. Left out where a model refuses it."""
    top_p: real(0, 1, "a share") | None = None
    """Draw from the likeliest tokens that have this probability together."""
    max_tokens: Positive | None = None
    """At most so many tokens of an answer, reasoning included where the provider counts it."""
    seed: whole(0, 2**63 - 1, "what providers take") | None = None
    """Of the draws, where the provider has it."""
    reasoning_effort: Word | None = None
    """Of models that reason, such as `low`, where the provider has it."""
    extra_body: dict[str, JsonValue] = {}
    """What else the server takes, sent as it stands, such as `{chat_template_kwargs: {enable_thinking: false}}`."""


RULES_MODEL = "cltdb-rules/v1"
ASKING = ("llm", "llm_contrastive", "llm_graph", "llm_output", "intruder")
"""Explainers and scorers that ask a language model."""
OF_OUTPUT = ("llm_output", "top_logits")
"""Explainers of side output."""
ExplainerName = Literal["rules", "llm", "llm_contrastive", "llm_graph", "llm_output", "single_token", "top_logits"]
ScorerName = Literal["detection", "fuzzing", "simulation", "pick_one", "intruder", "intervention"]
DICTIONARIES = ("untrained", "neurons", "sparse_neurons")
"""Baselines that are dictionaries of their own."""
BaselineName = Literal["shuffled", "other_feature", "top_tokens", *DICTIONARIES]


class Explain(Section):
    """What features mean, in words with scores."""

    model: Word = "cltdb-rules/v1"
    """A litellm model, or `cltdb-rules/v1`: deterministic rules, no network, no language model."""
    api_base: Annotated[Server | None, Added] = None
    """Address of a server that speaks OpenAI's protocol, for `model: openai/NAME`. Answers are known by it: another server may have another
    model of the same name."""
    api_key_env: Annotated[Variable | None, Neutral] = None
    """Environment variable that holds the key. Default: the provider's own, such as OPENAI_API_KEY; with `api_base`, none."""
    parameters: Annotated[Parameters, Added] = Parameters()
    """How the language model answers."""
    explainers: Annotated[list[ExplainerName] | None, Added] = None
    """Who explains, all of them; beside the first of each side stand baselines. Default: `[rules]`, or `[llm]` where `model` is a language
    model. `llm`, `llm_contrastive` (with near misses), `llm_graph` (with the features that drive it and that it drives) and `llm_output` (what
    it promotes) ask the model; `rules`, `single_token` and `top_logits` (the tokens that it promotes) ask nobody. `[]` with
    `labels` alone."""
    labels: Annotated[list[Labels], Added] = []
    """Texts that were made elsewhere. They are scored beside the others: by the language model, or by their words where none is asked."""
    features: Features = Features()
    """Which features."""
    scorers: Annotated[list[ScorerName], Field(min_length=1)] = ["detection", "fuzzing"]
    """How explanations are scored. `intruder` scores the feature without an explanation and needs a language model. `intervention` scores what
    `llm_output` and `top_logits` say by what setting the feature raises; it runs the model."""
    baselines: Annotated[list[BaselineName], Added] = ["shuffled", "other_feature", "top_tokens"]
    """What stands beside the scores: `shuffled` truths, the text of an `other_feature`, the `top_tokens` of the feature; and features of other
    dictionaries of the same layer and nearly the same density, explained by the first explainer: `untrained` (weights as training begins with
    them, at the L0 of the dictionary), MLP `neurons` (which fire above zero), `sparse_neurons` (which fire above the value that gives the
    dictionary's L0). A dictionary is harvested once for all artifacts, which takes about as long as the harvest of the features."""
    baseline_features: Annotated[Positive, Added] = 200
    """How many of the explained features are compared with such dictionaries: as many of each layer and tenth by density as possible."""
    max_cost_usd: Annotated[real(0, 10**6, "US dollars") | None, Neutral] = None
    """Budget for the replies that this artifact has to ask for; replies that are there cost nothing. What the budget does not pay
    for gets the status skipped_budget, or a score of NULL. With a larger budget the next run goes on from there."""
    max_requests: Annotated[whole(0, 10**9, "larger counts would not end") | None, Neutral] = None
    """At most so many requests that this artifact has to send, retries not counted. What is left is treated as with `max_cost_usd`."""
    concurrency: Annotated[whole(1, 1024, "no provider takes more"), Neutral] = 16
    """Requests in flight at once."""
    requests_per_minute: Annotated[Positive | None, Neutral] = None
    """The provider's limit; retries count."""
    tokens_per_minute: Annotated[Positive | None, Neutral] = None
    """The provider's limit, of prompts and answers together."""
    timeout_s: Annotated[real(0, 86_400, "a day", above=True), Neutral] = 120
    """A request without an answer after so many seconds has failed, and is sent again."""

    launch: Annotated[Launch, Neutral] = Launch()
    """Processes that share the features. A language model is asked by one process, `concurrency` requests at once."""

    @model_validator(mode="after")
    def _fits(self):
        for what in ("explainers", "scorers", "baselines"):
            names = getattr(self, what) or ()
            if len(set(names)) < len(names):
                raise Conflict(f"expected each once, found {', '.join(names)}", what)
        if (names := [labels.name for labels in self.labels]) and len(set(names)) < len(names):
            raise Conflict(f"expected each name once, found {', '.join(names)}", "labels")
        if self.explainers == [] and not self.labels:
            raise Conflict("expected an explainer, or labels, found neither", "explainers")
        if self.explainers == [] and self.dictionaries():
            raise Conflict(f"expected an explainer for {self.dictionaries()[0]}, found none", "baselines")
        if "intervention" in self.scorers and not self.labels and not {*OF_OUTPUT} & {*self.who_explains()}:
            found = ", ".join(self.who_explains())
            raise Conflict(f"expected {' or '.join(OF_OUTPUT)} in explain.explainers for intervention, found {found}", "scorers")
        if self.model == RULES_MODEL:
            for what in ("explainers", "scorers"):
                if asking := [name for name in getattr(self, what) or () if name in ASKING]:
                    raise Conflict(f"expected a language model in explain.model for {asking[0]}, found {RULES_MODEL}", what)
        elif self.launch.processes * self.launch.nodes > 1:
            raise Conflict("expected one process, as a language model is asked by one, many requests at once", "launch")
        return self

    def who_explains(self):
        """Names of the explainers, in their order."""
        if self.explainers is not None:
            return self.explainers
        return ["rules"] if self.model == RULES_MODEL else ["llm"]

    def dictionaries(self):
        """Those of the baselines that are dictionaries."""
        return [name for name in self.baselines if name in DICTIONARIES]

    def of_baselines(self):
        """How features of baseline dictionaries are explained and scored: as those of the trained one, by the first explainer alone. These
        dictionaries are not kept, so there is nothing to intervene with."""
        scorers = [name for name in self.scorers if name != "intervention"]
        return self.model_copy(update={"explainers": self.who_explains()[:1], "scorers": scorers, "labels": [], "baselines": []})
