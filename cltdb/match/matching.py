"""The features of a layer of two dictionaries, matched one to one, beside the level that chance reaches.

By `decoder`: cosine of the decoders to all target layers that both write to, in a row; signed, so that a feature and its opposite are none. The control
turns all decoders of the first dictionary by one random rotation of activation space, drawn from all rotations and reflections alike: cosines within the
dictionary stay, all that the two have in common goes. By `activations`: Pearson correlation of activations at the tokens of one text, which takes no
common space and so compares dictionaries of different models. The control puts the first dictionary's activations at other tokens.

A feature without a decoder (by activations: one that does not fire on the text) is compared with none and counts nowhere.
"""

from typing import NamedTuple

import numpy as np
import torch

from cltdb.errors import CltdbError
from cltdb.match.assignment import FLOOR, Assignment, assign
from cltdb.match.relations import relations
from cltdb.match.similarity import (
    Decoders,
    correlations,
    correlations_of_pairs,
    cosines_of_pairs,
    decoder_cosines,
    shared_targets,
)
from cltdb.model.parts import not_finite

DECODER, ACTIVATIONS = "decoder", "activations"


class LayerMatch(NamedTuple):
    """The matches of one layer, a row per relation [n]. feature_a, feature_b: indices in the layer, -1 where there is none. relation: as in `relations`.

    decoder_cosine, encoder_cosine, activation_correlation [n]: NaN where unknown. Of what appeared or vanished only the one that was matched by is
    known: the highest that it has with any feature of the other side. n_a, n_b: features that were compared. assignment, control: all pairs that were
    assigned, whatever their similarity; of the two dictionaries, and with the first one rotated or shuffled."""

    layer: int
    feature_a: np.ndarray
    feature_b: np.ndarray
    relation: np.ndarray
    decoder_cosine: np.ndarray
    encoder_cosine: np.ndarray
    activation_correlation: np.ndarray
    n_a: int
    n_b: int
    assignment: Assignment
    control: Assignment


@torch.no_grad()
def match_layer(a, b, layer, *, by=DECODER, threshold=0.7, firings=None, one_space=True, seed=0):
    """The `LayerMatch` of the features of `layer` of two dictionaries; None where one of them has none to compare.

    by: decoder or activations. firings: the `similarity.Firings` of a and b on the same text; None: correlations stay unknown. one_space: whether
    both read and write the activations of one model; where not, cosines mean nothing and stay unknown.
    """
    if by == DECODER:
        targets = shared_targets(a, b, layer)
        sides = Decoders(a, layer, targets), Decoders(b, layer, targets)
        blocks, features = decoder_cosines(*sides), [side.features.cpu().numpy() for side in sides]
    else:
        if firings is None:
            raise CltdbError(
                "match", found="by activations without a text", expected="the firings of both on one text", do="give them"
            )
        sides, blocks, features = firings, correlations(*firings), [side.features for side in firings]
    n_a, n_b = map(len, features)
    if not n_a or not n_b:
        return None
    floor = min(FLOOR, threshold)
    assignment = assign(blocks, n_a, n_b, floor=floor)
    control = assign(_by_chance(by, sides, seed), n_a, n_b, floor=floor)
    found = relations(assignment, threshold)
    first, second = (np.where(places < 0, -1, of[places]) for places, of in zip(found[:2], features, strict=True))
    both = (first >= 0) & (second >= 0)
    measured = {name: np.full(len(first), np.nan) for name in ("decoder_cosine", "encoder_cosine", "activation_correlation")}
    if one_space:
        compared = (("decoder_cosine", "W_dec", _decoders(shared_targets(a, b, layer))), ("encoder_cosine", "W_enc", _encoders))
        for name, tensor, rows in compared:
            measured[name][both] = cosines_of_pairs(rows(a, layer), rows(b, layer), first[both], second[both])
            if np.isnan(measured[name][both]).any():
                raise not_finite(layer, tensor)
    if firings is not None:
        measured["activation_correlation"][both] = correlations_of_pairs(*firings, first[both], second[both])
    measured["decoder_cosine" if by == DECODER else "activation_correlation"] = found.similarity.astype(np.float64)
    return LayerMatch(layer, first, second, found.relation, **measured, n_a=n_a, n_b=n_b, assignment=assignment, control=control)


def _by_chance(by, sides, seed):
    """Blocks of the similarities of the control."""
    if by == DECODER:
        rotation = random_rotation(sides[0].dictionary.d_model, seed)
        sides[0].rotation = rotation.to(sides[0].norms)
        return decoder_cosines(*sides)
    return correlations(sides[0].shuffled(np.random.default_rng(seed)), sides[1])


def random_rotation(d, seed):
    """An orthogonal matrix [d, d], float64, drawn uniformly. Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups"."""
    drawn = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(drawn)
    return q * r.diagonal().sign()


def _decoders(targets):
    def rows(dictionary, layer):
        places = [target - layer for target in targets]
        return lambda features: dictionary.decoder(layer, features)[:, places].flatten(1)

    return rows


def _encoders(dictionary, layer):
    return lambda features: dictionary.encoder(layer, features)
