"""What a graph explains: the likeliest next tokens, chosen tokens, the difference of two logits, a feature, or any direction.

A target is read at the last position of the graph's prompt. Later tokens cannot act on earlier positions; so a target at an
earlier position is explained by the graph of the prompt up to there.
"""

import math
import re
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import torch

from cltdb.errors import CltdbError
from cltdb.replacement.replacement_model import prompt_token_ids


class FeatureTarget(NamedTuple):
    """The pre-activation of an active feature. position: counted from the end where negative."""

    layer: int
    feature: int
    position: int = -1

    @classmethod
    def at(cls, place):
        """The target at a place that is written LAYER:FEATURE@POSITION."""
        return cls(*map(int, re.split("[:@]", place)))


class LabelTarget(NamedTuple):
    """What makes an answer one of its label, such as a language: the logit of the label's word less the mean of the logits of all labels'
    words. words: {label: word or token id}; label: one of them."""

    words: Any
    label: str


class DirectionTarget(NamedTuple):
    """The product of `vector` [d_model] with the MLP input of `layer`, or with the final norm's output where it is None."""

    vector: Any
    layer: int | None = None


class Targets(NamedTuple):
    """Directions [n_logits, d_model] and biases [n_logits] that read the final norm's output, or the MLP input of `layer` where
    that is given. weights [n_logits]: their weights in influence; for tokens the model's probabilities, unless weights were
    given.

    tokens: vocabulary ids, None for a direction that is no token's. Their logits are taken before a final soft-cap, less the mean
    over the vocabulary or less the logit of `foil`. feature: (layer, position, feature) where a feature is explained; then there
    are no logits.
    """

    tokens: list
    directions: torch.Tensor
    biases: torch.Tensor
    weights: torch.Tensor
    foil: int | None = None
    layer: int | None = None
    feature: tuple | None = None

    @property
    def first_layer_not_reached(self):
        """The first layer whose features can have no effect on the targets, as those of later layers; None where all can."""
        return self.feature[0] if self.feature else self.layer

    def values(self, replacement, final, mlp_inputs):
        """What the directions read, biases included [n_logits], at the last position: final [d_model], mlp_inputs [n_layers,
        d_model]."""
        return (final if self.layer is None else mlp_inputs[self.layer]) @ self.directions.T + self.biases


def choose_targets(replacement, target, foil, *, mass, at_most):
    """The `Targets` of a prompt's replacement model; target, foil as in `attribute`."""
    lm = replacement.lm
    if foil is not None and not isinstance(target, str | Integral):
        raise CltdbError("attribute foil", found=f"the target {target!r}", expected="one token as target beside it", do="name it")
    if target is None:
        return top_logits(replacement, mass=mass, at_most=at_most)
    if isinstance(target, FeatureTarget):
        return _feature(replacement, target)
    if isinstance(target, DirectionTarget):
        return _direction(replacement, target)
    if isinstance(target, LabelTarget):
        return _label(lm, target)
    tokens, foil_id = target_tokens(lm, target, foil)
    weights = [float(weight) for weight in target.values()] if isinstance(target, Mapping) else None
    return logit_targets(replacement, tokens, foil_id, weights)


def target_tokens(lm, target, foil):
    """(token ids of one target or several, id of the foil or None). CltdbError for what is no token of the model, for a token
    that is there twice, and for a weight that is not a number above 0."""
    for token, weight in target.items() if isinstance(target, Mapping) else ():
        if not 0 < weight < math.inf:
            raise CltdbError(
                "attribute target", found=f"the weight {weight} of {token!r}", expected="a number above 0", do="mend it"
            )
    named = [target] if isinstance(target, str | Integral) else list(target)
    tokens = [token_id(lm, token) for token in named]
    if not tokens or len(set(tokens)) < len(tokens):
        found = f"tokens {named}" + (f", whose ids are {tokens}" if tokens != named else "")
        raise CltdbError("attribute target", found=found, expected="one or more, each once", do="mend the list")
    foil_id = None if foil is None else token_id(lm, foil, what="foil")
    if foil_id in tokens:
        found = f"{foil!r}, which is the target itself (id {foil_id})"
        raise CltdbError("attribute foil", found=found, expected="another token", do="choose another foil")
    return tokens, foil_id


def top_logits(replacement, *, mass, at_most):
    """The smallest set of next tokens that reaches probability `mass`, at most `at_most`, likeliest first."""
    probabilities = torch.softmax(replacement.logits[-1].double(), dim=-1)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    n = min(int((ordered.cumsum(0) < mass).sum()) + 1, at_most, len(tokens))
    return logit_targets(replacement, tokens[:n].tolist())


def logit_targets(replacement, tokens, foil=None, weights=None):
    """The logits of `tokens` less the mean over the vocabulary, or less the logit of `foil` (one token). weights: one per token,
    divided by their sum; default the model's probabilities. Ordered by falling weight, then likeliest first."""
    lm = replacement.lm
    probabilities = torch.softmax(replacement.logits[-1].double(), dim=-1).cpu()
    if weights is None:
        weights = probabilities[tokens]
    else:
        weights = torch.tensor(weights, dtype=torch.float64) / math.fsum(weights)
    order = sorted(range(len(tokens)), key=lambda place: (-float(weights[place]), -float(probabilities[tokens[place]])))
    tokens, weights = [tokens[place] for place in order], weights[order]
    W_U, b_U = lm.unembedding_weight(), getattr(lm.unembedding, "bias", None)
    reference = W_U.mean(0) if foil is None else W_U[foil]
    biases = torch.zeros(len(tokens), dtype=W_U.dtype, device=W_U.device)
    if b_U is not None:
        biases = b_U[tokens] - (b_U.mean() if foil is None else b_U[foil])
    return Targets(tokens, W_U[tokens] - reference, biases, weights, foil)


def _feature(replacement, target):
    position = replacement.n_positions - 1
    check_place(target, *replacement.activations.shape[1:])
    where = f"attribute target feature {target.layer}:{target.feature}"
    if not float(replacement.activations[position, target.layer, target.feature]) > 0:
        raise CltdbError(
            where,
            found=f"a feature that is not active at position {position}",
            expected="an active one, as a graph explains what is there",
            do="choose another position, or one of the features of the prompt's graph",
        )
    lm = replacement.lm
    nothing = torch.zeros(0, lm.d_model, dtype=lm.dtype, device=lm.device)
    return Targets([], nothing, nothing[:, 0], torch.zeros(0).double(), feature=(target.layer, position, target.feature))


def check_place(target, n_layers, n_features):
    """CltdbError where a `FeatureTarget` names no feature. n_features: None where that is not known yet."""
    if 0 <= target.layer < n_layers and 0 <= target.feature and (n_features is None or target.feature < n_features):
        return
    expected = f"a layer below {n_layers}" + (f" and a feature below {n_features}" if n_features is not None else "")
    where = f"attribute target feature {target.layer}:{target.feature}"
    raise CltdbError(where, found="no such feature", expected=expected, do="choose one of these")


def _direction(replacement, target):
    lm = replacement.lm
    vector = torch.as_tensor(target.vector, dtype=lm.dtype, device=lm.device)
    if vector.shape != (lm.d_model,) or not bool(vector.isfinite().all()):
        found = f"a vector of shape {list(vector.shape)}" + ("" if vector.isfinite().all() else " that is not finite")
        raise CltdbError("attribute target direction", found=found, expected=f"[{lm.d_model}], finite", do="give another vector")
    if target.layer is not None and not 0 <= target.layer < lm.n_layers:
        expected = f"0 to {lm.n_layers - 1}, or None for the final norm's output"
        raise CltdbError("attribute target direction", found=f"layer {target.layer}", expected=expected, do="choose one")
    return Targets([None], vector[None], torch.zeros_like(vector[:1]), torch.ones(1).double(), layer=target.layer)


def _label(lm, target):
    place, tokens = label_tokens(lm, target)
    W_U, b_U = lm.unembedding_weight(), getattr(lm.unembedding, "bias", None)
    bias = torch.zeros(1, dtype=W_U.dtype, device=W_U.device) if b_U is None else (b_U[tokens[place]] - b_U[tokens].mean())[None]
    return Targets([None], (W_U[tokens[place]] - W_U[tokens].mean(0))[None], bias, torch.ones(1).double())


def label_tokens(lm, target):
    """(place of the label, token ids of all labels' words in order) of a `LabelTarget`. CltdbError where the label has no word, where a word
    is no token, or where all are the same one, so that nothing tells the labels apart."""
    labels, tokens = list(target.words), [token_id(lm, word) for word in target.words.values()]
    if target.label not in labels:
        raise CltdbError(
            "attribute target_label",
            found=repr(target.label),
            expected=f"one of {', '.join(labels)}",
            do="name a label of target",
        )
    if len(set(tokens)) < 2:
        words = ", ".join(map(str, target.words.values()))
        raise CltdbError(
            "attribute target", found=f"the words {words}", expected="two tokens or more", do="choose words that differ"
        )
    return labels.index(target.label), tokens


def token_id(lm, target, *, what="target"):
    """The id of a target that is given as an id, or as the text of one token with or without the space before it. what: target or
    foil."""
    if not isinstance(target, str):
        return prompt_token_ids(lm, [target, target])[0]
    for text in (target, f" {target}") if target else ():
        tokens = lm.text_tokens(text, special=True)
        if len(tokens) == 1 and (tokens[0] != lm.tokenizer.unk_token_id or target == lm.tokenizer.unk_token):
            return tokens[0]
    if lm.text_tokens(target, special=True) == [lm.tokenizer.unk_token_id]:
        raise CltdbError(
            f"attribute {what}",
            found=f"{target!r}, which {lm.model_id} has no token for",
            expected="one token",
            do="choose a word of its vocabulary",
        )
    raise CltdbError(
        f"attribute {what}",
        found=f"{target!r}, which is {len(lm.text_tokens(target, special=True))} tokens",
        expected="one token",
        do="give the answer's first token",
    )
