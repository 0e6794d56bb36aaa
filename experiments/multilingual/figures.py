"""What the notes report, from the database that the run of spec.yaml leaves: results.json beside this file, tables as Markdown, and figures.

    python experiments/multilingual/figures.py [cltdb.duckdb] [artifacts] [FOLDER]

Intervals: 95 %, Student's t over the three models of a world. Differences between worlds are paired: models of one seed begin with the same weights.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from make_models import N_DOCUMENTS, SHARES, SHUFFLED_BY

import cltdb
from cltdb.activations.tokens import Sequences
from cltdb.match.firings import firings_on
from cltdb.match.matching import match_layer
from cltdb.toyworld.facts import LANGUAGES
from cltdb.toyworld.languages import documents, facts
from cltdb.toyworld.train_model import token_batches

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from intervals import interval  # noqa: E402
from panels import Panel, svg  # noqa: E402

SWEEP = "multilingual"
WIDE = "balanced, wide"
"""The balanced models with the other dictionaries of the spec."""
WORLDS = (*SHARES, WIDE)
MIXTURES = ("balanced", "en60", "en90")
LATE = 2
"""The first of the last two layers."""
MATCHED = 0.7
"""Correlation of activations above which two features are the same."""
MATCH_SEED, MATCH_BATCHES = 2000, 4
"""Of the text on which features are matched, which no model and no dictionary was trained on; 64 sequences a batch."""
OVERLAPS = tuple(itertools.product(("free", "end"), ("none", "influence")))
"""(keyed_by, weighting)."""


def collect(db):
    """{world: {seed: what the database has of its model}} as JSON values."""
    results = {world: {} for world in WORLDS}
    for row in db.query("frontier", sweep=SWEEP).to_dicts():
        world, seed = _model_of(row["swept"])
        results[world][seed] = _of_dictionary(db, row["dict_id"])
    return {world: dict(sorted(of_seeds.items())) for world, of_seeds in results.items() if of_seeds}


def _of_dictionary(db, dict_id):
    def rows(name, **parameters):
        return db.query(name, dict_id=dict_id, **parameters).to_dicts()

    found = {
        "accuracy": {row["label"]: row["accuracy"] for row in rows("group_list")},
        "text": {
            row["label"] or "all": _without(row, "label", "layer") for row in rows("metrics_by_label") if row["layer"] is None
        },
        "error_share": {f"{row['label']}-{row['layer']}": row["error_share"] for row in rows("group_layers")},
        "label_layers": {row["layer"]: _without(row, "layer") for row in rows("label_layers")},
        "scores": [_without(row, "groups_id") for row in rows("label_scores") if row["first_layer"] == LATE],
        "substitution": {
            f"{row['label_from']}-{row['label_to']}": _without(row, "groups_id") for row in rows("substitution_results")
        },
        "overlap": {},
    }
    for keyed_by, weighting in OVERLAPS:
        for row in rows("overlap_by_layer", keyed_by=keyed_by, weighting=weighting):
            pair = "all" if row["label_a"] is None else f"{row['label_a']}-{row['label_b']}"
            if pair != "all" and (keyed_by, weighting) != OVERLAPS[0]:
                continue
            found["overlap"].setdefault(f"{keyed_by}-{weighting}-{pair}", []).append(
                _without(row, "groups_id", "label_a", "label_b")
            )
    late = db.query("label_features", dict_id=dict_id, first_layer=LATE, limit=1000).to_dicts()
    found["late"] = {
        label: {
            "n": sum(row["label"] == label for row in late),
            "contrast": sum(row["contrast"] for row in late if row["label"] == label),
            "best_auc": max((row["auc"] for row in late if row["label"] == label), default=None),
            "best_auc_matched": max((row["auc_matched"] for row in late if row["label"] == label), default=None),
        }
        for label in LANGUAGES
    }
    return found


def _without(row, *names):
    return {name: _short(value) for name, value in row.items() if name not in (*names, "dict_id")}


def _short(value):
    return round(value, 5) if isinstance(value, float) else value


def matches(db, workspace):
    """{"balanced with WORLD": {seed: {layer: {all or language: share of the features of the balanced model's dictionary that have a partner in the other's},
    "chance": the same of shuffled tokens}}}: one to one, by the correlation of activations on one text in equal shares. A language's
    features are those specific to it. With balanced: the next seed's, what is left between two models of one mixture."""
    fired, specific = {}, {}
    folders = dict(db.sql("SELECT dict_id, path FROM dictionaries").rows())
    for row in db.query("frontier", sweep=SWEEP).to_dicts():
        world, seed = _model_of(row["swept"])
        if world in MIXTURES:
            lm = cltdb.load_model(json.loads(row["swept"])["model.id"], device="cpu")
            text = token_batches(lm.tokenizer, documents(MATCH_SEED, shares=dict.fromkeys(LANGUAGES, 1)))
            tokens = np.concatenate([batch.numpy() for batch in itertools.islice(text, MATCH_BATCHES)]).astype(np.int32)
            nowhere = np.full(tokens.shape, -1)
            sequences = Sequences(tokens, nowhere, nowhere, [], excluded=(lm.bos_token_id,))
            fired[world, seed] = (
                firings_on(lm, dictionary := cltdb.load_dictionary(Path(workspace) / folders[row["dict_id"]]), sequences),
                dictionary,
            )
            rows = db.query("label_specific", dict_id=row["dict_id"], limit=100_000).to_dicts()
            specific[world, seed] = {(one["layer"], one["feature"]): one["label"] for one in rows}
    found, seeds = {}, sorted(seed for world, seed in fired if world == "balanced")
    for world in MIXTURES:
        for place, seed in enumerate(seeds):
            other = (world, seeds[(place + 1) % len(seeds)] if world == "balanced" else seed)
            one = _matched(fired["balanced", seed], fired[other], specific["balanced", seed])
            found.setdefault(f"balanced with {world}", {})[seed] = one
    return found


def _matched(one, other, specific):
    found = {}
    for layer in one[1].layers:
        firings = one[0][layer], other[0][layer]
        match = match_layer(one[1], other[1], layer, by="activations", threshold=MATCHED, firings=firings, one_space=False)
        live = firings[0].features.tolist()
        paired = set(match.feature_a[match.relation == "matched"].tolist())
        parts = {language: [f for f in live if specific.get((layer, f)) == language] for language in LANGUAGES}
        parts = {"all": live, **parts}
        found[layer] = {name: _short(len(paired & set(part)) / len(part)) if part else None for name, part in parts.items()}
        found[layer]["chance"] = _short(float((match.control.similarity > MATCHED).sum() / len(live)))
    return found


def _model_of(swept):
    """(world, seed)."""
    swept = json.loads(swept)
    world, seed = Path(swept["model.id"]).name.rsplit("-", 1)
    return (WIDE if "train.n_features" in swept else world), seed


def token_shares(world):
    """{language: its share of the tokens that the models of a world were trained on}; sentences of parallel documents count for their language."""
    first = {fact.prompt[language].split()[0]: language for fact in facts() for language in LANGUAGES}
    n = dict.fromkeys(LANGUAGES, 0)
    drawn = documents(1, shares=SHARES[world], shuffled_by=SHUFFLED_BY.get(world))
    for text, _ in itertools.islice(drawn, N_DOCUMENTS):
        for sentence in text.removesuffix(" .").split(" . "):
            words = sentence.split()
            n[first[words[0]]] += len(words) + 1
    return {language: round(count / sum(n.values()), 3) for language, count in n.items()}


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


def layers(results):
    return range(len(next(iter(results["worlds"]["balanced"].values()))["label_layers"]))


def measures(results):
    """{name: path of its value} of what is followed over the mixtures."""
    found = {}
    for language in LANGUAGES:
        found[f"accuracy, {language}"] = ("accuracy", language)
        found[f"FVU, {language}"] = ("text", language, "fvu")
        found[f"KL in nats with all MLPs replaced, {language}"] = ("text", language, "kl_nats")
        found |= {
            f"error share in layer {layer}, {language}": ("error_share", f"{language}-{layer}") for layer in layers(results)
        }
        found[f"late label features, {language}"] = ("late", language, "n")
        found[f"their contrast, {language}"] = ("late", language, "contrast")
    for layer in layers(results):
        found[f"corrected overlap, layer {layer}"] = ("overlap", "free-none-all", layer, "corrected")
        found[f"corrected overlap by influence, layer {layer}"] = ("overlap", "free-influence-all", layer, "corrected")
    for pair in ("en-fr", "de-en", "de-fr"):
        for layer in layers(results):
            found[f"corrected overlap, {pair}, layer {layer}"] = ("overlap", f"free-none-{pair}", layer, "corrected")
    for layer in layers(results):
        found[f"share of specific features, layer {layer}"] = ("label_layers", str(layer), "specific_frac")
        found[f"share of shared features, layer {layer}"] = ("label_layers", str(layer), "shared_frac")
    for source, target in itertools.permutations(LANGUAGES, 2):
        found[f"substitution, {source} to {target}"] = ("substitution", f"{source}-{target}", "right")
    return found


def trends(results):
    """Rows of what changes from the balanced mixture to en90: {name, the mean of each mixture, change: [mean, low, high], seen}."""
    rows = []
    for name, path in measures(results).items():
        of = {world: values(results, world, *path) for world in MIXTURES}
        change = interval(np.subtract(of["en90"], of["balanced"]))
        row = {"name": name, **{world: float(np.mean(of[world])) for world in MIXTURES}}
        rows.append(row | {"change": list(change), "seen": bool(change[1] > 0 or change[2] < 0)})
    return rows


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""])


def of_models(results):
    rows = []
    for world, of_seeds in results["worlds"].items():
        for seed, one in of_seeds.items():
            shares = " / ".join(f"{results['token_shares'][world.split(',')[0]][language]:.0%}" for language in LANGUAGES)
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
                for name in ("right", "label", "random_right", "random_right_most", "reverse_right", "kl_nats")
            ]
            points = "; ".join(f"{one['n_features']} {one['positions']} {one['suppress']:g} {one['boost']:g}" for one in found)
            rows.append((world, f"{source} to {target}", each[0], said([one["right"] for one in found], 2), *each[1:], points))
    columns = (
        "world",
        "pair",
        "right",
        "mean",
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


def draw_all(results, folder):
    for weighting in ("none", "influence"):
        _draw_overlap(results, weighting, folder / f"overlap-{weighting}.svg")


def _draw_overlap(results, weighting, path):
    """Of each world, overlap by layer beside its nulls: lines are means over seeds, bars each seed's interval over concepts."""
    panels, n = [], len(layers(results))
    of = {
        world: [values(results, world, "overlap", f"free-{weighting}-all", layer) for layer in layers(results)]
        for world in results["worlds"]
    }
    highs = ("overlap_high", "same_label_high", "other_label_high")
    top = (
        max(row[name] for of_layers in of.values() for rows in of_layers for row in rows for name in highs) * 1.3
    )  # room for the key
    label = "overlap of active features" if weighting == "none" else "overlap, weighted by influence"
    for world, of_layers in of.items():
        panel = Panel(len(panels), world, x=(-0.2, n - 0.8), y=(0, top), x_label="layer", y_label=label)
        panel.ticks({layer: layer for layer in range(n)}, {step * top / 4: f"{step * top / 4:.2f}" for step in range(5)})
        for name, colour in (("same_label", "#e08e0b"), ("other_label", "#888"), ("overlap", "#1f5fa8")):
            means = [(layer, np.mean([row[name] for row in rows])) for layer, rows in enumerate(of_layers)]
            panel.line(means, colour, dashed=name != "overlap")
            for layer, rows in enumerate(of_layers):
                for place, row in enumerate(rows):
                    panel.bar(layer + (place - 1) * 0.05, row[f"{name}_low"], row[f"{name}_high"], colour)
        panels.append(panel)
    keys = (("one concept, two languages", "#1f5fa8", False), ("two concepts, two languages", "#888", True))
    panels[0].key([*keys, ("two concepts, one language", "#e08e0b", True)])
    svg(panels, path)


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


def main(database="cltdb.duckdb", workspace="artifacts", folder=HERE):
    db = cltdb.open(database)
    worlds = collect(db)
    results = {
        "token_shares": {world: token_shares(world) for world in SHARES},
        "worlds": worlds,
        "matches": matches(db, workspace),
    }
    results = json.loads(json.dumps(results))  # keys as they are read from the file
    results["trends"] = trends(results)
    (Path(folder) / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"## Models and dictionaries\n\n{of_models(results)}")
    for key in ("free-none-all", "free-influence-all", "end-none-all", "end-influence-all"):
        print(f"## Overlap, {key}\n\n{of_overlap(results, key)}")
    print(f"## Late label features tell the language\n\n{of_scores(results)}")
    print(f"## Substitution\n\n{of_substitution(results)}")
    print(f"## Specific and shared features\n\n{of_layers(results)}")
    print(f"## Trends over the mixtures\n\n{of_trends(results['trends'])}")
    print(f"## Features matched\n\n{of_matches(results)}")
    draw_all(results, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
