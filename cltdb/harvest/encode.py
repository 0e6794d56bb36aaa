"""What features do on one text: the activations of chosen ones, or the strongest at each token. As in the harvest, nothing counts at tokens that
are not ordinary (activations/ordinary.py)."""

import logging
import re
from typing import NamedTuple

import numpy as np
import torch

from cltdb.activations.ordinary import ordinary_places
from cltdb.errors import CltdbError, shown
from cltdb.model.fit import check_fits

log = logging.getLogger(__name__)
FEATURE = re.compile(r"(\d{1,9}):(\d{1,9})")
POSITIONS_AT_ONCE = 64
"""Positions whose activations of all features of a layer are held at once."""


class Encoded(NamedTuple):
    """Features on a text. A position that is not ordinary has no activation: None in `features`, an empty list in `strongest`."""

    tokens: list
    """Token ids [pos], BOS first."""
    strings: list
    """The text of each token [pos]."""
    ordinary: list
    """Whether features count at each position [pos]."""
    features: list
    """The chosen features: {layer, feature, activations [pos]}."""
    strongest: list
    """Per position the strongest active features, {layer, feature, activation}, strongest first; empty where some were chosen."""


def parse_feature(text):
    """(layer, feature) of `3:120`."""
    found = FEATURE.fullmatch(text.strip())
    if not found:
        raise CltdbError("--feature", found=repr(text), expected="LAYER:FEATURE, for example 3:120", do="mend it")
    return int(found[1]), int(found[2])


def check_features(chosen, *, n_layers, n_features):
    """CltdbError for a (layer, feature) that a dictionary of this size does not have."""
    for layer, feature in chosen:
        for what, found, end in (("layer", layer, n_layers), ("feature", feature, n_features)):
            if found >= end:
                raise CltdbError(f"--feature {what}", found=found, expected=f"0 to {end - 1}", do="choose one of these")


@torch.no_grad()
def encode(lm, dictionary, text, *, chosen=(), top=10, excluded=()):
    """The `Encoded` of a text. chosen: (layer, feature) pairs; without any, the `top` strongest of all features at each token. excluded: ids
    of tokens that are not ordinary."""
    check_fits(dictionary, lm)
    check_features(chosen, n_layers=dictionary.n_layers, n_features=dictionary.n_features)
    tokens = lm.prompt_tokens(text)
    if unknown := lm.unknown_words(text):
        log.warning(
            "%s is read as %s: %s has no token for it", ", ".join(map(shown, unknown)), lm.tokenizer.unk_token, lm.model_id
        )
    ordinary = ordinary_places(np.array([tokens]), excluded)[0].tolist()
    seen = lm.run(torch.tensor([tokens]), with_logits=False)
    x = dictionary.read_of(seen.mlp_input, seen.mlp_output)[0]
    features = [
        {
            "layer": layer,
            "feature": feature,
            "activations": [a if counts else None for a, counts in zip(row, ordinary, strict=True)],
        }
        for (layer, feature), row in _of_chosen(dictionary, x, chosen).items()
    ]
    strongest = [] if chosen else _strongest(dictionary, x, top)
    strongest = [row if counts else [] for row, counts in zip(strongest, ordinary, strict=False)]
    return Encoded(tokens, lm.token_strings(tokens), ordinary, features, strongest)


def _of_chosen(dictionary, x, chosen):
    """{(layer, feature): activations [pos]} in the order of `chosen`. x [pos, n_layers, d_model], what they read."""
    values = {key: [] for key in chosen}
    for layer in sorted({layer for layer, _ in chosen}):
        for rows in _activations(dictionary, x, layer):
            for of, feature in chosen:
                if of == layer:
                    values[of, feature] += (rows[:, feature] + 0.0).tolist()  # no -0
    return values


def _strongest(dictionary, x, top):
    """Of each position the `top` strongest features that are active, equal ones by layer and feature."""
    found = [[] for _ in x]
    for layer in dictionary.layers:
        rows = (row for part in _activations(dictionary, x, layer) for row in part)
        for active, row in zip(found, rows, strict=True):
            values, features = (one.tolist() for one in row.topk(min(top, len(row))))
            active += [(-value, layer, feature) for value, feature in zip(values, features, strict=True) if value > 0]
    return [
        [{"layer": layer, "feature": feature, "activation": -negative} for negative, layer, feature in sorted(active)[:top]]
        for active in found
    ]


def _activations(dictionary, x, layer):
    """Activations [up to POSITIONS_AT_ONCE, n_features] of a layer, float32 on the CPU, from the first position to the last."""
    for rows in x[:, layer].split(POSITIONS_AT_ONCE):
        yield dictionary.encode_layer(rows.to(dictionary.device, dictionary.dtype), layer).float().cpu()
