"""What stage groups writes of parallel prompts: overlaps of labels, features of each label, what setting these does; drawn at random."""

from itertools import combinations, permutations, product

import numpy as np
import polars as pl
from benchmarks.synthetic_text import LABELS

N_CONCEPTS, N_TOKENS, TOP = 60, 12, 20
NULLS = ("none", "same_label", "other_label")


def tables(vocabulary, traits, rng):
    """{table: columns}."""
    n_layers, _ = traits.count.shape
    features = label_features(traits, rng)
    return {
        "group_prompts": prompts(vocabulary, n_layers, rng),
        "group_overlaps": overlaps(n_layers, rng),
        "label_features": features,
        "label_scores": scores(n_layers, rng),
        "substitutions": substitutions(rng),
    }


def prompts(vocabulary, n_layers, rng):
    """Every concept under each label."""
    rows = []
    for number, label in product(range(N_CONCEPTS), LABELS):
        tokens = rng.integers(1, len(vocabulary), N_TOKENS).tolist()
        target = int(rng.integers(1, len(vocabulary)))
        influence, errors = rng.uniform(0.2, 1, n_layers), rng.uniform(0, 0.3, n_layers)
        rows.append(
            {
                "concept": f"concept-{number:03d}",
                "kind": f"kind-{number % 3}",
                "label": label,
                "prompt": f"a question about concept {number} in {label}",
                "target": vocabulary.strings[target],
                "tokens": [0, *tokens],
                "target_token": target,
                "probability": float(rng.uniform(0.05, 0.95)),
                "top_token": target if rng.random() < 0.8 else tokens[0],
                "replacement_score": float(rng.uniform(0.4, 0.95)),
                "n_active": rng.integers(20, 300, n_layers).tolist(),
                "feature_influence": influence.tolist(),
                "error_influence": errors.tolist(),
            }
        )
    return pl.DataFrame(rows).to_dict()


def overlaps(n_layers, rng):
    """Of all pairs of labels, and of each, by each way of counting, beside both nulls."""
    rows, pairs = [], [(None, None), *combinations(sorted(LABELS), 2)]
    for layer, (a, b), keyed_by, weighting in product(range(n_layers), pairs, ("free", "end"), ("none", "influence")):
        value = float(rng.uniform(0.1, 0.6))
        for null in NULLS:
            lower = value * float(rng.uniform(0.1, 0.9)) if null != "none" else value
            found = {"value": lower, "ci_low": max(0, lower - 0.02), "ci_high": lower + 0.02, "n": N_CONCEPTS}
            if null != "none":
                less = value - lower
                found |= {"corrected": less, "corrected_ci_low": less - 0.03, "corrected_ci_high": less + 0.03}
            about = {"layer": layer, "label_a": a, "label_b": b, "keyed_by": keyed_by, "weighting": weighting, "null_kind": null}
            rows.append(about | found)
    return pl.DataFrame(rows, infer_schema_length=None).to_dict()


def label_features(traits, rng):
    """A few features of each label and layer, those of highest contrast first."""
    rows = []
    for label, layer in product(LABELS, range(len(traits.count))):
        chosen = rng.permutation(np.flatnonzero(traits.count[layer]))[:TOP]
        influence = np.sort(rng.gamma(2, 0.01, len(chosen)))[::-1]
        auc = rng.uniform(0.5, 1, (2, len(chosen)))
        rows.append(
            pl.DataFrame(
                {
                    "label": label,
                    "layer": layer,
                    "feature": chosen,
                    "rank": np.arange(1, len(chosen) + 1),
                    "recurrence": rng.uniform(0.1, 1, len(chosen)),
                    "influence": influence,
                    "contrast": 0.9 * influence,
                    "effect": 0.5 * influence,
                    "embedding_share": rng.random(len(chosen)),
                    "probe_cosine": rng.uniform(-0.2, 0.6, len(chosen)),
                    "auc": auc.max(axis=0),
                    "auc_matched": auc.min(axis=0),
                    "matched_share": rng.uniform(0.3, 0.9, len(chosen)),
                    "high": traits.maximum[layer, chosen].astype(float),
                }
            )
        )
    return pl.concat(rows).to_dict()


def scores(n_layers, rng):
    rows = [
        {
            "label": label,
            "first_layer": layer,
            "n_features": n,
            "auc": float(rng.uniform(0.7, 1)),
            "auc_matched": 0.7,
            "fitted_auc": 0.9,
            "fitted_auc_matched": 0.8,
            "n_pieces": 200,
        }
        for label, layer, n in product(LABELS, range(0, n_layers, 4), (1, 3, 10))
    ]
    return pl.DataFrame(rows).to_dict()


def substitutions(rng):
    """Of each ordered pair of labels all points on one half of the concepts; on the other the best one, draws of random features, the reverse,
    and the untouched model."""
    rows, points = [], list(product((1, 3, 10), ("last", "all"), (0.0, -1.0), (0.5, 1.0, 2.0, 4.0)))
    names = ("n_features", "positions", "suppress", "boost")
    for source, target in permutations(LABELS, 2):
        n = N_CONCEPTS // 2
        n_right = rng.integers(0, n // 2, len(points))
        best = int(n_right.argmax())
        asked = [("choice", "none", None, point, number == best) for number, point in enumerate(points)]
        asked += [("test", control, None, points[best], True) for control in ("none", "reverse")]
        asked += [("test", "random", draw, points[int(rng.integers(len(points)))], True) for draw in range(10)]
        asked.append(("test", "untouched", None, (None,) * 4, True))
        for number, (part, control, draw, point, is_best) in enumerate(asked):
            right = int(n_right[number] if part == "choice" else rng.integers(0, n // 2))
            row = {"label_from": source, "label_to": target, "part": part, "control": control, "draw": draw}
            row |= dict(zip(names, point, strict=True)) | {"n_suppressed": point[0] or 0, "n_boosted": point[0] or 0}
            row |= {"is_best": is_best, "n": n, "rate_right": right / n, "rate_concept": (right + 3) / n}
            row |= {"rate_label": (right + 6) / n, "kl_nats": float(rng.gamma(2))}
            rows.append(row | ({"text_rate_label": (right + 6) / n, "text_rate_right": right / n} if part == "test" else {}))
    return pl.DataFrame(rows, infer_schema_length=None).to_dict()
