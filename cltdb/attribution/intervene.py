"""Interventions on a prompt: features set, scaled or ablated, or directions added; their effects, and what the graph predicts."""

import json
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cltdb.attribution.graph import attribute
from cltdb.errors import CltdbError
from cltdb.replacement.constant_positions import check_constant
from cltdb.replacement.continuation import Sampling, continued
from cltdb.replacement.interventions import Setting, parse_setting, placed, setting_text
from cltdb.replacement.replacement_model import LocalReplacementModel, at_least_float32, prompt_token_ids
from cltdb.replacement.responses import most_changed, respond

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What an intervention did, as Polars frames.

    logits: token, string, before, after, predicted, probability_before, probability_after of the likeliest tokens. A logit is
    less the mean over the vocabulary, before a soft-cap. features: layer, position, feature, before, after, predicted, most
    changed first.
    predicted: what the prompt's graph says; along direct edges in mode constrained, along all paths in the others. NULL where the
    graph was not asked or cannot say: a feature that was silent is no node, and a graph knows neither added directions nor
    `until_layer`.
    continuations: texts (without, with) of the tokens that follow; sampling: how they were drawn, None for the likeliest.
    given: the features that were asked for, as texts; settings: everything, at each of its positions in the prompt."""

    mode: str
    until_layer: int | None
    tokens: tuple
    settings: tuple
    logits: Any
    features: Any
    continuations: tuple | None = None
    sampling: Sampling | None = None
    constant_positions: int = 1
    given: tuple = ()

    def to_dict(self):
        """The same as JSON values."""
        facts = {"mode": self.mode, "until_layer": self.until_layer, "logits": self.logits.to_dicts()}
        facts |= {"features": self.features.to_dicts()}
        if self.sampling is not None:
            facts |= {"sampling": self.sampling._asdict()}
        return facts if self.continuations is None else facts | dict(zip(("without", "with"), self.continuations, strict=True))

    def to_json(self):
        """The same as a JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def __str__(self):
        lines = [f"mode {self.mode}", str(self.logits), str(self.features)]
        if self.continuations is not None:
            lines += [f"{name}: {text!r}" for name, text in zip(("without", "with"), self.continuations, strict=True)]
        return "\n".join(lines)


class DictionarySizes(NamedTuple):
    """What `check_request` must know of a dictionary, also of one that is not made yet."""

    n_layers: int
    n_features: int
    d_model: int
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"


def check_request(lm, dictionary, prompt, interventions, *, mode, until_layer, n_generated, constant_positions=1):
    """CltdbError for a request to `intervene` that is wrong, as far as sizes and tokens tell. dictionary: `DictionarySizes`."""
    if until_layer is not None and not 0 <= until_layer < lm.n_layers:
        raise CltdbError("until_layer", found=until_layer, expected=f"0 to {lm.n_layers - 1}", do="choose one of these")
    if until_layer is not None and mode != "constrained":
        raise CltdbError("until_layer", found=f"mode {mode}", expected="mode constrained, whose layers hold", do="choose one")
    if n_generated < 0:
        raise CltdbError("--generate", found=n_generated, expected="0 or more", do="mend it")
    given = [parse_setting(item) if isinstance(item, str) else item for item in interventions]
    n_positions = len(prompt_token_ids(lm, prompt))
    check_constant(constant_positions, n_positions)
    settings = placed(given, dictionary, n_positions, constant_positions)
    beyond = [one.layer for one in settings if until_layer is not None and one.layer > until_layer]
    if beyond:
        expected = f"layers up to {until_layer}, whose outputs hold"
        raise CltdbError("until_layer", found=f"an intervention in layer {beyond[0]}", expected=expected, do="raise until_layer")


def intervene(
    model,
    dictionary,
    prompt,
    interventions,
    *,
    mode="constrained",
    until_layer=None,
    predict=False,
    n_logits=10,
    n_features=50,
    n_generated=0,
    sampling=None,
    constant_positions=1,
):
    """What `interventions` do to the next token's logits and to the other features: an `Outcome`.

    interventions: texts such as `3:120@5=0`, or one of them; `Setting`s, `Addition`s. To set a supernode, set its features.
    model, prompt, constant_positions: as in `attribute`.
    mode: who responds: constrained, iterative, free or frozen_attention (docs/interventions.md, responses.py).
    until_layer: in mode constrained, the last layer whose MLP outputs keep their values; interventions may not be in later ones.
    predict: also make the graph of the prompt, and give what it predicts.
    n_logits: the likeliest tokens, before or after, to give.
    n_features: the most changed features to give.
    n_generated: tokens that follow, whose text is given, each the likeliest or drawn as `sampling` says; they are always made in
    mode free.
    """
    interventions = [interventions] if isinstance(interventions, str) else interventions
    lm = at_least_float32(model)
    sizes = DictionarySizes(dictionary.n_layers, dictionary.n_features, dictionary.d_model, lm.dtype, lm.device)
    check_request(
        lm,
        sizes,
        prompt,
        interventions,
        mode=mode,
        until_layer=until_layer,
        n_generated=n_generated,
        constant_positions=constant_positions,
    )
    if sampling is not None:
        sampling.check()
    tokens = prompt_token_ids(lm, prompt)
    replacement = LocalReplacementModel.of(lm, dictionary, tokens, constant_positions=constant_positions)
    given = [parse_setting(item) if isinstance(item, str) else item for item in interventions]
    settings = placed(given, replacement.dictionary, replacement.n_positions, constant_positions)
    _warn_of_silent(replacement, settings)
    before, after = (respond(replacement, some, mode=mode, until_layer=until_layer) for some in ([], settings))
    shown = {token for one in (before, after) for token in one.probabilities.topk(min(n_logits, lm.vocab_size)).indices.tolist()}
    prediction = (
        _Prediction(lm, dictionary, replacement, settings, shown, mode)
        if predict and until_layer in (None, lm.n_layers - 1)
        else None
    )
    texts = None
    if n_generated:
        texts = tuple(
            lm.tokenizer.decode(
                continued(lm, replacement.dictionary, tokens, some, n_generated, sampling, constant_positions)[len(tokens) :]
            )
            for some in ([], given)
        )
    return Outcome(
        mode,
        until_layer,
        tuple(tokens),
        tuple(settings),
        _logit_frame(lm, before, after, shown, prediction),
        _feature_frame(before, after, n_features, prediction),
        texts,
        sampling,
        constant_positions,
        tuple(setting_text(one) for one in given if isinstance(one, Setting)),
    )


def _warn_of_silent(replacement, settings):
    """Warns of settings that scale a silent feature: they do nothing, unless another setting wakes the feature."""
    scaled = [one for one in settings if isinstance(one, Setting) and one.operation == "scale"]
    silent = [one for one in scaled if float(replacement.activations[one.position, one.layer, one.feature]) == 0]
    if silent:
        places = ", ".join(f"{one.layer}:{one.feature}@{one.position}" for one in silent[:5]) + ", …" * (len(silent) > 5)
        log.warning("%d of %d scaled features are silent on this prompt, and stay so: %s", len(silent), len(scaled), places)


class _Prediction:
    """What the graph of a prompt predicts: `logit(token, before)` and `feature(place, before)`, None where it cannot say."""

    def __init__(self, lm, dictionary, replacement, settings, tokens, mode):
        self.graph = attribute(
            lm,
            dictionary,
            replacement.tokens.tolist(),
            target=sorted(tokens),
            constant_positions=replacement.n_constant,
        )
        index, activations = self.graph.index, self.graph.feature_activations
        self.nodes = {index.place(node): node for node in range(index.features.stop)}
        self.dictionary = replacement.dictionary
        places = {(one.layer, one.position, one.feature): one for one in settings if isinstance(one, Setting)}
        self.changes = None
        if len(places) == len(settings) and places.keys() <= self.nodes.keys():
            changes = {self.nodes[place]: one for place, one in places.items()}
            for node, one in changes.items():
                now = float(activations[node])
                changes[node] = one.value * (now if one.operation == "scale" else 1) - now
            self.changes = changes
            self.effects = self.graph.total_effects(changes, direct=mode == "constrained")

    def logit(self, token, before):
        """The logit it should have."""
        if self.changes is None:
            return None
        return before + float(self.effects[self.graph.index.logits.start + self.graph.index.logit_tokens.index(token)])

    def feature(self, place, before):
        """The activation it should have, 0 where its pre-activation is not above the threshold. The k largest of topk stay the
        same features."""
        node = self.nodes.get(place)
        if self.changes is None or node is None:
            return None
        if node in self.changes:
            return before + self.changes[node]
        after = before + float(self.effects[node])
        return after if after > self.dictionary.threshold_of(place[0], place[2]) else 0.0


def _logit_frame(lm, before, after, tokens, prediction):
    import polars as pl

    rows = [
        {
            "token": token,
            "string": lm.token_text(token),
            "before": float(before.logits[token]),
            "after": float(after.logits[token]),
            "predicted": None if prediction is None else prediction.logit(token, float(before.logits[token])),
            "probability_before": float(before.probabilities[token]),
            "probability_after": float(after.probabilities[token]),
        }
        for token in tokens
    ]
    rows.sort(key=lambda row: (-row["probability_before"], row["token"]))
    return pl.DataFrame(rows, schema_overrides={"predicted": pl.Float64})


def _feature_frame(before, after, n, prediction):
    import polars as pl

    rows = []
    for layer, position, feature in most_changed(before, after, n):
        then = float(before.activations[position, layer, feature])
        rows.append(
            {
                "layer": layer,
                "position": position,
                "feature": feature,
                "before": then,
                "after": float(after.activations[position, layer, feature]),
                "predicted": None if prediction is None else prediction.feature((layer, position, feature), then),
            }
        )
    places, values = dict.fromkeys(("layer", "position", "feature"), pl.Int32), ("before", "after", "predicted")
    return pl.DataFrame(rows, schema=places | dict.fromkeys(values, pl.Float64))
