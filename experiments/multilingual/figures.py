"""What the notes report, from the database that the run of spec.yaml leaves: results.json beside this file, tables as Markdown, and figures.

    python experiments/multilingual/figures.py [cltdb.duckdb] [artifacts] [FOLDER]

Intervals: 95 %, Student's t over the three models of a world. Differences between worlds are paired: models of one seed begin with the same weights.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
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
from drawings import draw_all  # noqa: E402
from intervals import interval  # noqa: E402
from tables import (  # noqa: E402
    MIXTURES,
    OVERLAPS,
    layers,
    models_of,
    of_humps,
    of_layers,
    of_matches,
    of_models,
    of_overlap,
    of_scores,
    of_substitution,
    of_trends,
    values,
)

SWEEP = "multilingual"
WIDTHS = {128: "narrow", 512: "wide"}
"""The other dictionaries of the spec, by features per layer."""
WORLDS = (*SHARES, "balanced, wide", "balanced, narrow", "shuffled, narrow")
LATE = 2
"""The first of the last two layers."""
MATCHED = 0.7
"""Correlation of activations above which two features are the same."""
MATCH_SEED, MATCH_BATCHES = 2000, 4
"""Of the text on which features are matched, which no model and no dictionary was trained on; 64 sequences a batch."""


def dictionaries(db):
    """{(world, seed): dict_id} of the run, by seed."""
    found = {}
    for row in db.query("frontier", sweep=SWEEP).to_dicts():
        swept = json.loads(row["swept"])
        world, seed = Path(swept["model.id"]).name.rsplit("-", 1)
        if width := WIDTHS.get(swept.get("train.n_features")):
            world = f"{world}, {width}"
        one = found.setdefault((world, seed), row["dict_id"])
        n = db.query("group_list", dict_id=one)["groups_id"].n_unique()
        if one != row["dict_id"] or n != 1:
            raise SystemExit(
                f"{world}-{seed}: found more than one dictionary or comparison; run spec.yaml in a workspace of its own"
            )
    return dict(sorted(found.items(), key=lambda one: (WORLDS.index(one[0][0]), one[0][1])))


def collect(db, found):
    """{world: {seed: what the database has of its model}} as JSON values. found: `dictionaries`."""
    results = {}
    for (world, seed), dict_id in found.items():
        results.setdefault(world, {})[seed] = _of_dictionary(db, dict_id, world)
    return results


def _of_dictionary(db, dict_id, world):
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
    fvu = {language: found["text"][language]["fvu"] for language in LANGUAGES}
    found["fvu_less"] = {language: _short(fvu[language] - fvu["en"]) for language in LANGUAGES if language != "en"}
    for pair, of_pair in best_points(db, dict_id, world).items():
        found["substitution"][pair] |= of_pair
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


def best_points(db, dict_id, world):
    """{pair: {whole: share of the concepts that measure whose greedy answer is the right word, both pieces; set_layers: of each feature that is set}} at
    the best point."""
    known = facts(shuffled_by=SHUFFLED_BY.get(models_of(world)))
    asked = {fact.prompt[language]: fact for fact in known for language in LANGUAGES}
    (groups_id,), right, set_layers = set(db.query("group_list", dict_id=dict_id)["groups_id"]), {}, {}
    made = db.sql(
        "SELECT intervention_id, prompt, text_with, settings FROM interventions WHERE dict_id = $dict_id AND graph_id IS NULL",
        {"dict_id": dict_id},
    )
    for row in made.to_dicts():
        source, target, _ = row["intervention_id"].removeprefix(f"{groups_id}-").split("-", 2)
        answer, pair = asked[row["prompt"]].answer[target], f"{source}-{target}"
        right.setdefault(pair, []).append(f"{row['text_with']} ".startswith(f"{answer} "))
        set_at = {(one["layer"], one["feature"]) for one in row["settings"]}  # a row for each position
        set_layers[pair] = sorted(layer for layer, _ in set_at)
    return {pair: {"whole": _short(float(np.mean(of_pair))), "set_layers": set_layers[pair]} for pair, of_pair in right.items()}


def last_word_swapped(db, dicts):
    """{seed: {pair: [share of all facts whose answer begins rightly in the other language where the prompt's last word is that language's; the same where only
    what the first MLP writes at the last position comes from that prompt]}} of the balanced models themselves."""
    found, models = {}, dict(db.sql("SELECT dict_id, model_id FROM dictionaries").rows())
    for (world, seed), dict_id in dicts.items():
        if world == "balanced":
            lm = cltdb.load_model(models[dict_id], device="cpu")
            pairs = itertools.permutations(LANGUAGES, 2)
            found[seed] = {
                "-".join(pair): np.mean([_turned(lm, fact, *pair) for fact in facts()], axis=0).tolist() for pair in pairs
            }
    return found


@torch.no_grad()
def _turned(lm, fact, source, target):
    last, written = fact.prompt[target].split()[-1], {}
    own, swapped = (
        torch.tensor([lm.prompt_tokens(" ".join([*fact.prompt[source].split()[:-1], word]))])
        for word in (fact.prompt[source].split()[-1], last)
    )

    def keeps(layer, x, y):
        written[layer] = y[:, -1]
        return y

    def puts(layer, x, y):
        return torch.cat([y[:, :-1], written[0][:, None]], dim=1) if layer == 0 else y

    said = []
    for output, tokens in ((keeps, swapped), (puts, own)):
        with lm.replaced_mlps(output):
            said.append(int(lm.logits(tokens)[0, -1].argmax()))
    right = fact.answer[target].split()[0]
    return [token == right for token in lm.tokenizer.convert_ids_to_tokens(said)]


def _without(row, *names):
    return {name: _short(value) for name, value in row.items() if name not in (*names, "dict_id")}


def _short(value):
    return round(value, 5) if isinstance(value, float) else value


def matches(db, dicts, workspace):
    """{"balanced with WORLD": {seed: {layer: {all or language: share of the features of the balanced model's dictionary that have a partner in the other's},
    "chance": the same of shuffled tokens}}}: one to one, by the correlation of activations on one text in equal shares. A language's
    features are those specific to it. With balanced: the next seed's, what is left between two models of one mixture. dicts: `dictionaries`."""
    fired, specific = {}, {}
    places = {dict_id: of for dict_id, *of in db.sql("SELECT dict_id, model_id, path FROM dictionaries").rows()}
    for (world, seed), dict_id in dicts.items():
        if world in MIXTURES:
            model_id, folder = places[dict_id]
            lm = cltdb.load_model(model_id, device="cpu")
            text = token_batches(lm.tokenizer, documents(MATCH_SEED, shares=dict.fromkeys(LANGUAGES, 1)))
            tokens = np.concatenate([batch.numpy() for batch in itertools.islice(text, MATCH_BATCHES)]).astype(np.int32)
            nowhere = np.full(tokens.shape, -1)
            sequences = Sequences(tokens, nowhere, nowhere, [], excluded=(lm.bos_token_id,))
            fired[world, seed] = (
                firings_on(lm, dictionary := cltdb.load_dictionary(Path(workspace) / folder), sequences),
                dictionary,
            )
            rows = db.query("label_specific", dict_id=dict_id, limit=100_000).to_dicts()
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


def measures(results):
    """{name: path of its value} of what is followed over the mixtures."""
    found = {}
    for language in LANGUAGES:
        found[f"accuracy, {language}"] = ("accuracy", language)
        found[f"FVU, {language}"] = ("text", language, "fvu")
        if language != "en":
            found[f"FVU, {language} less en"] = ("fvu_less", language)
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


def main(database="cltdb.duckdb", workspace="artifacts", folder=HERE):
    db = cltdb.open(database)
    dicts = dictionaries(db)
    results = {
        "token_shares": {world: token_shares(world) for world in SHARES},
        "worlds": collect(db, dicts),
        "matches": matches(db, dicts, workspace),
        "last_word_swapped": last_word_swapped(db, dicts),
    }
    results = json.loads(json.dumps(results))  # keys as they are read from the file
    results["trends"] = trends(results)
    (Path(folder) / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"## Models and dictionaries\n\n{of_models(results)}")
    for key in ("free-none-all", "free-influence-all", "end-none-all", "end-influence-all"):
        print(f"## Overlap, {key}\n\n{of_overlap(results, key)}")
    print(f"## Where most is shared\n\n{of_humps(results)}")
    print(f"## Late label features tell the language\n\n{of_scores(results)}")
    print(f"## Substitution\n\n{of_substitution(results)}")
    print(f"## Specific and shared features\n\n{of_layers(results)}")
    print(f"## Trends over the mixtures\n\n{of_trends(results['trends'])}")
    print(f"## Features matched\n\n{of_matches(results)}")
    draw_all(results, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
