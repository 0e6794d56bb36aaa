"""Made-up comparisons of labels for the page Groups: one with everything, one of prompts alone. Values say where they belong."""

from itertools import combinations, permutations, product

LABELS = ("<b>fr</b>", "de", "en")
CONCEPTS = ("hot", "cold", "wet")
WHOLE, BARE = "toy-groups-1111", "toy-groups-2222"
POINTS = tuple({"n_features": n, "positions": "last", "suppress": 0.0, "boost": boost} for n in (1, 3) for boost in (1.0, 2.0))


def overlap(layer, label_a, label_b, keyed_by, weighting):
    """The overlap of a pair of labels (None, None: all pairs), all different."""
    pair = 0 if label_a is None else 1 + list(combinations(LABELS, 2)).index((label_a, label_b))
    return 0.5 + 0.1 * layer + 0.01 * pair - 0.2 * (keyed_by == "end") - 0.1 * (weighting == "influence")


def tables(dict_id, bare_dict_id, n_layers):
    """Rows of the tables of stage groups; BARE, of bare_dict_id, has neither label features nor targets."""
    found = {"group_prompts": [], "group_overlaps": [], "label_features": [], "label_scores": [], "substitutions": []}
    for groups_id, of_dict in ((WHOLE, dict_id), (BARE, bare_dict_id)):
        same = {"groups_id": groups_id, "dict_id": of_dict}
        found["group_prompts"] += [same | _prompt(*one, n_layers, groups_id == WHOLE) for one in product(CONCEPTS, LABELS)]
        pairs = [(None, None), *combinations(LABELS, 2)]
        for way in product(range(n_layers), pairs, ("free", "end"), ("none", "influence")):
            found["group_overlaps"] += [same | row for row in _overlaps(*way)]
    same = {"groups_id": WHOLE, "dict_id": dict_id}
    for label, layer, rank in product(LABELS, range(n_layers), (1, 2)):
        found["label_features"].append(same | _label_feature(label, layer, rank))
        auc = 0.6 + 0.1 * layer + 0.01 * rank
        score = {"label": label, "first_layer": layer, "n_features": rank, "auc": auc, "auc_matched": auc - 0.05, "n_pieces": 12}
        score |= {"fitted_auc": auc + 0.02, "fitted_auc_matched": auc - 0.03}
        found["label_scores"].append(same | score)
    for pair in permutations(LABELS, 2):
        found["substitutions"] += [same | row for row in _substitutions(*pair)]
    return found


def label_metrics(dict_id):
    """What evaluation measured on the text of each label."""
    return [
        {"dict_id": dict_id, "stage": "evaluate", "step": 1000, "layer": None, "name": name, "value": value + place, "label": label}
        for place, label in enumerate(LABELS)
        for name, value in {"tokens": 1000, "fvu": 0.125, "l0": 7.5, "ce_original": 2.0, "ce_replacement": 2.25, "kl_nats": 0.5}.items()
    ]  # fmt: skip


def label_entropy(feature):
    """Of ten features in a row two are specific, three shared; one fires on no text with a label."""
    return (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, None)[feature % 10]


def _prompt(concept, label, n_layers, with_target):
    place = LABELS.index(label)
    answer = {"target": "Paris", "target_token": 6, "probability": 0.25 * (1 + place)} if with_target else {}
    return {
        "concept": concept, "label": label, "prompt": f"{concept} in {label}", "tokens": [0, 1, 2], "top_token": 6 if concept == "hot" else 7,
        "replacement_score": 0.5 + 0.1 * place, "n_active": [5] * n_layers, "feature_influence": [0.75 - 0.25 * place] * n_layers,
        "error_influence": [0.25 * (1 + place)] * n_layers, **answer,
    }  # fmt: skip


def _overlaps(layer, pair, keyed_by, weighting):
    way = dict(zip(("layer", "label_a", "label_b", "keyed_by", "weighting"), (layer, *pair, keyed_by, weighting), strict=True))
    own = overlap(layer, *pair, keyed_by, weighting)
    yield way | {"null_kind": "none", "value": own, "ci_low": own - 0.02, "ci_high": own + 0.03, "n": 3}
    for kind, share in (("same_label", 0.5), ("other_label", 0.25)):
        null = own * share
        less = {"corrected": own - null, "corrected_ci_low": own - null - 0.04, "corrected_ci_high": own - null + 0.05}
        yield way | {"null_kind": kind, "value": null, "ci_low": null - 0.01, "ci_high": null + 0.01, "n": 6} | less


def _label_feature(label, layer, rank):
    contrast = 0.4 / (rank + layer)
    return {
        "label": label, "layer": layer, "feature": 10 * LABELS.index(label) + rank + 4, "rank": rank, "influence": contrast + 0.1,
        "contrast": contrast, "recurrence": 0.75, "auc": 0.875, "auc_matched": None if rank == 2 else 0.625, "embedding_share": 0.125,
        "effect": 1.5, "matched_share": 0.5, "probe_cosine": -0.25, "high": 3.0,
    }  # fmt: skip


def _substitutions(label_from, label_to):
    same = {"label_from": label_from, "label_to": label_to}
    for place, point in enumerate(POINTS):
        rates = {"rate_label": 0.2 * (1 + place), "rate_concept": 0.9, "rate_right": 0.15 * (1 + place), "kl_nats": 1.5}
        yield same | {"part": "choice", "control": "none", "is_best": place == 3, "n": 20} | point | rates
    nowhere = dict.fromkeys(POINTS[3])
    of_test = [
        ("none", None, POINTS[3] | {"n_suppressed": 2, "n_boosted": 3}, 0.75, 0.5),
        ("untouched", None, nowhere, 0.2, 0.15),
        ("random", 0, POINTS[0], 0.05, 0.0),
        ("random", 1, POINTS[2], 0.15, 0.1),
        ("reverse", None, POINTS[3], 0.1, 0.0),
    ]
    for control, draw, point, label, right in of_test:
        rates = {"rate_label": label, "rate_concept": 0.9, "rate_right": right, "kl_nats": 2.5}
        yield same | {"part": "test", "control": control, "draw": draw, "is_best": True, "n": 20} | point | rates
