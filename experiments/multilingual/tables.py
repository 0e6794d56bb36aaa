"""The tables of the notes as Markdown, from what results.json holds. Intervals: 95 %, Student's t over models."""

import itertools
import sys
from pathlib import Path

import numpy as np

from cltdb.toyworld.facts import LANGUAGES

sys.path.append(str(Path(__file__).parent.parent))
from intervals import interval  # noqa: E402

MIXTURES = ("balanced", "en60", "en90")
OVERLAPS = tuple(itertools.product(("free", "end"), ("none", "influence")))
"""(keyed_by, weighting)."""


def said(values, digits=3):
    mean, low, high = interval(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def values(results, world, *path):
    """One value of each seed's model; path: the keys that lead to it."""
    found = []
    for of_seed in results["worlds"][world].values():
        for key in path:
            of_seed = of_seed[key]
        found.append(of_seed)
    return found


def models_of(world):
    """The world that the models of "balanced, wide" are of: balanced."""
    return world.split(",")[0]


def layers(results):
    return range(len(next(iter(results["worlds"]["balanced"].values()))["label_layers"]))


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""])


def of_models(results):
    rows = []
    for world, of_seeds in results["worlds"].items():
        for seed, one in of_seeds.items():
            shares = " / ".join(f"{results['token_shares'][models_of(world)][language]:.0%}" for language in LANGUAGES)
            right = " / ".join(f"{one['accuracy'][language]:.2f}" for language in LANGUAGES)
            fvu, kl, error = (
                " / ".join(format(value, form) for value in of)
                for form, of in (
                    (".3f", [one["text"][language]["fvu"] for language in LANGUAGES]),
                    (".3f", [one["text"][language]["kl_nats"] for language in LANGUAGES]),
                    (
                        ".2f",
                        [
                            np.mean([one["error_share"][f"{language}-{layer}"] for layer in layers(results)])
                            for language in LANGUAGES
                        ],
                    ),
                )
            )
            l0 = f"{one['text']['all']['l0']:.1f}"
            rows.append((world, seed, shares, right, l0, fvu, kl, error))
    return table(("world", "seed", "tokens", "accuracy", "L0", "FVU", "KL, nats", "error share"), rows)


def of_overlap(results, key):
    """Means over seeds with their intervals, and of each seed what is corrected, with its interval over concepts."""
    rows = []
    for world in results["worlds"]:
        for layer in layers(results):
            of_layer = values(results, world, "overlap", key, layer)
            means = [f"{np.mean([row[name] for row in of_layer]):.3f}" for name in ("overlap", "same_label", "other_label")]
            each = ", ".join(
                f"{row['corrected']:.3f} ({row['corrected_low']:.3f} to {row['corrected_high']:.3f})" for row in of_layer
            )
            rows.append((world, layer, *means, said([row["corrected"] for row in of_layer]), each))
    return table(("world", "layer", "overlap", "same label", "other label", "corrected", "each seed (95 % over concepts)"), rows)


def of_humps(results):
    """Of each seed the layer with most corrected overlap; that layer less the first and less the last; and over seeds the mean of the middle layers less
    that of the two ends, which no choice goes into. Of several worlds a seed counts once, by the mean of its models: they begin with the same weights."""
    rows, last = [], len(layers(results)) - 1
    several = [MIXTURES] if set(MIXTURES) <= set(results["worlds"]) else []
    for worlds, (keyed_by, weighting) in itertools.product([*((one,) for one in results["worlds"]), *several], OVERLAPS):
        key = f"{keyed_by}-{weighting}-all"
        each = [[row["corrected"] for row in of_layers] for one in worlds for of_layers in values(results, one, "overlap", key)]
        most = [int(np.argmax(of)) for of in each]
        less = [", ".join(f"{of[top] - of[end]:.3f}" for of, top in zip(each, most, strict=True)) for end in (0, last)]
        humps = np.array([np.mean(of[1:last]) - (of[0] + of[last]) / 2 for of in each])
        hump = said(humps.reshape(len(worlds), -1).mean(0), 4)
        rows.append((", ".join(worlds), f"{keyed_by}, {weighting}", ", ".join(map(str, most)), *less, hump))
    return table(("world", "overlap", "most in layer", "less the first", "less the last", "middle less ends"), rows)


def of_scores(results):
    rows = []
    for world, of_seeds in results["worlds"].items():
        for language in LANGUAGES:
            of_seed = [
                {score["n_features"]: score for score in one["scores"] if score["label"] == language} for one in of_seeds.values()
            ]
            for size in sorted(set().union(*of_seed)):
                auc, matched = (
                    ", ".join(f"{of[size][name]:.3f}" if size in of else "–" for of in of_seed) for name in ("auc", "auc_matched")
                )
                rows.append((world, language, size, auc, matched))
    return table(("world", "language", "features", "AUC of each seed", "at equal token frequency"), rows)


def of_substitution(results):
    rows = []
    for world in results["worlds"]:
        for source, target in itertools.permutations(LANGUAGES, 2):
            found = values(results, world, "substitution", f"{source}-{target}")
            each = [
                ", ".join(f"{one[name]:.2f}" for one in found)
                for name in ("right", "whole", "label", "random_right", "random_right_most", "reverse_right", "kl_nats")
            ]
            points = "; ".join(
                f"{one['n_features']} {one['positions']} {one['suppress']:g} {one['boost']:g} in {one['set_layers']}"
                for one in found
            )
            rows.append((world, f"{source} to {target}", each[0], said([one["right"] for one in found], 2), *each[1:], points))
    columns = (
        "world",
        "pair",
        "right",
        "mean",
        "both pieces",
        "in the language",
        "random right",
        "most of any draw",
        "reverse right",
        "KL, nats",
        "chosen point",
    )
    return table(columns, rows)


def of_layers(results):
    rows = []
    for world in results["worlds"]:
        for layer in layers(results):
            of = ("label_layers", str(layer))
            shares = [said(values(results, world, *of, name)) for name in ("specific_frac", "shared_frac")]
            late = [np.mean(values(results, world, "label_layers", str(layer), name)) for name in ("n_features", "n_matched")]
            rows.append((world, layer, f"{late[0]:.0f}", *shares, f"{late[1]:.0f}"))
    return table(("world", "layer", "live features", "specific", "shared", "specific at equal frequency"), rows)


def of_trends(rows):
    return table(
        ("what", *MIXTURES, "en90 less balanced", "seen"),
        [
            (
                row["name"],
                *(f"{row[world]:.3f}" for world in MIXTURES),
                "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["change"]),
                "yes" if row["seen"] else "no",
            )
            for row in rows
        ],
    )


def of_matches(results):
    rows = []
    for pair, of_seeds in results["matches"].items():
        for layer in layers(results):
            of_layer = [of_seed[str(layer)] for of_seed in of_seeds.values()]
            shares = [
                said([one[name] for one in of_layer]) if all(one[name] is not None for one in of_layer) else ""
                for name in ("all", *LANGUAGES)
            ]
            rows.append((pair, layer, *shares, f"{max(one['chance'] for one in of_layer):.3f}"))
    return table(
        ("dictionaries", "layer", "matched", *(f"specific to {language}" for language in LANGUAGES), "by chance, at most"), rows
    )
