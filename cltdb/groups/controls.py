"""Random features in the place of label features: of the same layer, that fire about as often and write about as much.

What a feature writes at its `high` (`text.Scores`) has the size `high` times the norm of its decoder over all layers that it writes to. Both rates and
sizes compare by the logarithm of their ratio; the distance of two features is the sum of both.
"""

import numpy as np

NEAREST = 10
"""A random feature is drawn among so many of the nearest ones."""
SHORTLIST = 50
"""Of these nearest rates of firing the size is looked up."""
TINY = 1e-30


def shortlist(found, late, rate):
    """[(layer, feature)] of features that may stand in the place of label features. found, late: {label: `Candidate`s}: all of them, none of
    which may, and those that want a partner; rate [n_layers, n_features]: how often each fires."""
    taken, chosen = _places(found), set()
    for layer, feature in _places(late):
        free = [f for f in np.flatnonzero(rate[layer] > 0).tolist() if (layer, f) not in taken]
        away = _log_ratio(rate[layer, free], rate[layer, feature])
        chosen |= {(layer, free[place]) for place in np.argsort(away, stable=True)[:SHORTLIST]}
    return sorted(chosen)


def with_randoms(late, partners, rate, norms, *, n_draws, seed):
    """({label: label features that have a partner in every draw}, [{label: the random features in their place}] of each draw).

    late: {label: label features}; partners: features that may stand in their place, in a draw only once; a feature is (layer, feature, high).
    norms [layer][feature]: of decoders.
    """
    generator, partners, draws = np.random.default_rng(seed), np.array(partners, dtype=float).reshape(-1, 3), []
    layer, feature = partners[:, :2].astype(int).T
    sizes = partners[:, 2] * np.array([norms[one][other] for one, other in zip(layer, feature, strict=True)])
    for _ in range(n_draws):
        drawn, free = {}, np.ones(len(partners), dtype=bool)
        for label, of_label in late.items():
            for place, (own_layer, own, high) in enumerate(of_label):
                usable = np.flatnonzero(free & (layer == own_layer))
                if high > 0 and len(usable):
                    away = _log_ratio(rate[own_layer, feature[usable]], rate[own_layer, own])
                    away = away + _log_ratio(sizes[usable], high * norms[own_layer][own])
                    chosen = usable[generator.choice(np.argsort(away, stable=True)[:NEAREST])]
                    free[chosen] = False
                    drawn[label, place] = (int(layer[chosen]), int(feature[chosen]), float(partners[chosen, 2]))
        draws.append(drawn)
    paired = {
        label: [place for place in range(len(of)) if all((label, place) in drawn for drawn in draws)]
        for label, of in late.items()
    }
    features = {label: [late[label][place] for place in places] for label, places in paired.items()}
    return features, [{label: [drawn[label, place] for place in places] for label, places in paired.items()} for drawn in draws]


def _log_ratio(values, value):
    """How far values [n] are from one, by the absolute logarithm of their ratio."""
    return np.abs(np.log(np.maximum(values, TINY)) - np.log(max(value, TINY)))


def _places(found):
    return {(one.layer, one.feature) for of_label in found.values() for one in of_label}
