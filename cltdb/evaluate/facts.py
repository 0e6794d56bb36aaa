"""Facts that are exchanged: the feature of one concept, such as a country, is set to 0 and that of another takes its place. Does the model still
give the old answer, and does it give the new one?

In every layer a concept has at most one feature, and a feature at most one concept: those of highest contrast, the feature's mean peak (times the
norm of its decoders) on the concept's prompts less that on the prompts of the others. So the features come from what fires, in each dictionary
anew; what an exchange does has no part in the choice. An exchange acts wherever the old concept's feature fires: there it is set to 0, and the
other is set to a multiple of its own `high` (isolation.py). Only prompts that the model answers rightly are asked.
Source: the drop and include tests of Miller, Draye and Schölkopf (arXiv 2602.04718), with multiples in place of the value 200 and features
chosen for each dictionary in place of a list that was made for one.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch

from cltdb import log
from cltdb.evaluate.isolation import decoder_norms, patched
from cltdb.evaluate.questions import Fact

ROUNDING = 1e-5
"""Contrasts below this part of a feature's mean peak are none: a feature that fires alike on all questions of a way of asking, on `capital` or in German,
has no contrast, and its float32 activations and their sums are off in the last digit."""


class Known(NamedTuple):
    """The facts that the model answers rightly. peaks: {layer: [fact, n_features]}, each feature's largest activation after position 0."""

    facts: list
    peaks: dict


@torch.no_grad()
def known_facts(lm, dictionary, facts, *, rows_at_once):
    """The `Known` among `facts`; rows_at_once: most facts of a forward pass."""
    right, peaks = [], defaultdict(list)
    for tokens, of_length in _by_length(facts, rows_at_once):
        captured = lm.run(tokens)
        is_right = [int(top) == fact.answer for top, fact in zip(captured.logits[:, -1].argmax(-1), of_length, strict=True)]
        right += [fact for fact, one in zip(of_length, is_right, strict=True) if one]
        for layer in dictionary.layers:
            read = dictionary.read_of(captured.mlp_input[:, 1:, layer], captured.mlp_output[:, 1:, layer])[is_right]
            peaks[layer].append(dictionary.encode_layer(read.to(dictionary.dtype), layer).amax(1).cpu())
    return Known(right, {layer: torch.cat(found) for layer, found in peaks.items()})


def _by_length(facts, rows_at_once):
    """Yields (tokens [fact, pos], facts), at most so many of one length."""
    by_length = defaultdict(list)
    for fact in facts:
        by_length[len(fact.tokens)].append(fact)
    for _, found in sorted(by_length.items()):
        for start in range(0, len(found), rows_at_once):
            part = found[start : start + rows_at_once]
            yield torch.tensor([fact.tokens for fact in part]), part


def concept_features(known, dictionary):
    """{layer: {concept: feature}}; concepts without a feature of contrast above 0, beyond rounding, are not there."""
    concepts = sorted({fact.concept for fact in known.facts})
    if len(concepts) < 2:
        return {layer: {} for layer in known.peaks}
    member = torch.tensor([[fact.concept == concept for fact in known.facts] for concept in concepts], dtype=torch.float64)
    found = {}
    for layer, peaks in known.peaks.items():
        means = member @ (peaks.double() * decoder_norms(dictionary, layer)) / member.sum(1, keepdim=True)
        contrast = (means - (means.sum(0) - means) / (len(concepts) - 1)).numpy()
        number, feature = np.nonzero(contrast > ROUNDING * means.numpy())
        order, of_layer = np.argsort(-contrast[number, feature], stable=True), {}
        for name, one in zip((concepts[place] for place in number[order]), feature[order].tolist(), strict=True):
            if name not in of_layer and one not in of_layer.values():
                of_layer[name] = one
        found[layer] = of_layer
    return found


class Exchange(NamedTuple):
    """What is asked: the fact, the feature that is dropped and the one that takes its place with a value, and the answer that would be right
    then. multiple: value in units of `high`."""

    fact: Fact
    dropped: int
    included: int
    value: float
    multiple: float
    new_answer: int


def exchanges(known, layer, of_layer, highs, *, multiples, pairs, seed):
    """The `Exchange`s of a layer: each known fact whose concept's feature fires, with `pairs` other concepts, drawn, whose answer to the same
    question is another. of_layer: {concept: feature}."""
    generator = np.random.default_rng(seed)
    answers = {(fact.concept, fact.label): fact.answer for fact in known.facts}
    asked, concepts = [], sorted(of_layer)
    others = {
        one: [concepts[place] for place in generator.permutation(len(concepts)) if concepts[place] != one] for one in concepts
    }
    for fact, peaks in zip(known.facts, known.peaks[layer], strict=True):
        dropped = of_layer.get(fact.concept)
        if dropped is None or not peaks[dropped] > 0:
            continue
        usable = [one for one in others[fact.concept] if answers.get((one, fact.label), fact.answer) != fact.answer][:pairs]
        for other in usable:
            included = of_layer[other]
            asked += [
                Exchange(fact, dropped, included, multiple * highs[layer, included], multiple, answers[other, fact.label])
                for multiple in multiples
            ]
    return asked


class Rates(NamedTuple):
    """Of a feature: how many exchanges drop it, after which share of them the old answer is gone, how many include it, after which share the
    new one is there. A share of none is None."""

    n_drop: int
    success_drop: float | None
    n_include: int
    success_include: float | None


@torch.no_grad()
def success(lm, dictionary, layer, asked, *, rows_at_once):
    """{(feature, multiple): `Rates`} of the `Exchange`s of a layer."""
    drops, includes, lengths = defaultdict(list), defaultdict(list), defaultdict(list)
    for one in asked:
        lengths[len(one.fact.tokens)].append(one)
    with log.progress("evaluate", total=len(asked), unit="exchanges") as bar:
        for of_length in lengths.values():
            for start in range(0, len(of_length), rows_at_once):
                group = of_length[start : start + rows_at_once]
                tops = exchanged(lm, dictionary, layer, group).argmax(-1).tolist()
                for one, top in zip(group, tops, strict=True):
                    drops[one.dropped, one.multiple].append(top != one.fact.answer)
                    includes[one.included, one.multiple].append(top == one.new_answer)
                bar.advance(len(group))
    share = lambda found: sum(found) / len(found) if found else None  # noqa: E731
    return {
        key: Rates(len(drops[key]), share(drops[key]), len(includes[key]), share(includes[key]))
        for key in sorted(drops.keys() | includes.keys())
    }


def exchanged(lm, dictionary, layer, group):
    """Log-probabilities of the next token [exchange, vocab] after `Exchange`s of prompts of one length."""
    dropped, included = (
        torch.tensor([getattr(one, name) for one in group], device=dictionary.device) for name in ("dropped", "included")
    )
    values = torch.tensor([one.value for one in group], dtype=dictionary.dtype, device=dictionary.device)
    decoders = [dictionary.decoder(layer, features)[:, None] for features in (dropped, included)]  # [row, 1, n_targets, d_model]
    rows = torch.arange(len(group), device=dictionary.device)

    def change(read):
        activations = dictionary.encode_layer(read, layer)
        old, new = (activations[rows, :, features] for features in (dropped, included))  # [row, pos]
        fires = old > 0
        fires[:, 0] = False
        fall, rise = -old * fires, (values[:, None] - new) * fires
        return fall[..., None, None] * decoders[0] + rise[..., None, None] * decoders[1]

    return patched(lm, dictionary, torch.tensor([one.fact.tokens for one in group]), layer, change)[1]
