"""Tables of the notes on fitted weights, what could turn answers at all and exchanged values of several dictionaries, from exchanged.json.

    python experiments/multilingual/exchanged.py [cltdb.duckdb] [artifacts] [FOLDER]

With the database of a run whose substitution has `values: exchanged`, what it has of each dictionary is put into exchanged.json first, beside this
file or in FOLDER: of the study's 256 features and L0 8 under `models`, of others under `settings`. What the file has of other models and settings
stays in it.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ceilings import ceilings_of
from figures import LATE, best_points
from narrow import ENOUGH, late_score
from tables import table

import cltdb
from cltdb.toyworld.facts import LANGUAGES

HERE = Path(__file__).parent
PROMPTS = "multilingual-models/prompts-{}.jsonl"
OF_PAIR = (
    "n_features",
    "boost",
    "n",
    "right",
    "label",
    "kl_nats",
    "random_right",
    "random_right_most",
    "random_kl_nats",
    "reverse_right",
)
STUDY = {"n_features": 256, "l0": 8}
OF_SCORE = ("label", "n_features", "auc", "auc_matched", "fitted_auc", "fitted_auc_matched")


def collect(db, workspace):
    """({model: what the database has of its dictionary of STUDY}, [the same of each other dictionary, without scores and ceilings]) as JSON values."""
    models, settings = {}, []
    made = db.sql("SELECT dict_id, model_id, path FROM dictionaries ORDER BY model_id, dict_id").rows()
    for dict_id, model_id, path in made:
        name = Path(model_id).name
        world = name.rsplit("-", 1)[0]
        train = json.loads((Path(workspace) / path / "dictionary.json").read_text())["train"]
        setting = {of: train[of] for of in ("n_features", "l0")}
        rows, scores = (db.query(query, dict_id=dict_id).to_dicts() for query in ("substitution_results", "label_scores"))
        whole = best_points(db, dict_id, world)
        pairs = {f"{row['label_from']}-{row['label_to']}": {name: _short(row[name]) for name in OF_PAIR} for row in rows}
        substitution = {pair: of | {"whole": whole[pair]["whole"]} for pair, of in pairs.items()}
        fvu = {"heldout_fvu": _heldout_fvu(db, dict_id)}
        if setting != STUDY:
            known = {"model": name, "train": setting, "random_draws": rows[0]["n_random"]} | fvu
            settings.append(known | {"substitution": substitution})
            continue
        if name in models:
            raise SystemExit(
                f"{name}: found more than one dictionary of {STUDY}; expected the one whose values were exchanged, in a database of its own"
            )
        models[name] = fvu | {
            "scores": [{name: _short(row[name]) for name in OF_SCORE} for row in scores if row["first_layer"] == LATE],
            "substitution": substitution,
            "ceilings": ceilings_of(db, dict_id, PROMPTS.format(world), workspace),
        }
    return models, settings


def _heldout_fvu(db, dict_id):
    """[of all layers, of layer 0] when training had ended."""
    of_layer = dict(
        db.sql(
            """SELECT layer, arg_max(value, step) FROM metrics WHERE dict_id = $dict_id AND stage = 'train' AND name = 'heldout_fvu'
            GROUP BY layer""",
            {"dict_id": dict_id},
        ).rows()
    )
    return [_short(of_layer[layer]) for layer in (None, 0)]


def _short(value):
    return round(value, 5) if isinstance(value, float) else value


def by_world(models):
    """{world: {seed: model}}, models of balanced in two: those that settings were chosen on (3 and later) and the others."""
    found = {}
    for name, one in sorted(models.items()):
        world, seed = name.rsplit("-", 1)
        part = ", chosen on" if world == "balanced" and int(seed) > 2 else ""
        found.setdefault(world + part, {})[seed] = one
    return found


def of_late(models):
    """The lowest AUC of twenty late features (all, where there are fewer) of three languages, each model."""
    rows = []
    for world, of_seeds in by_world(models).items():
        lowest = [
            ", ".join(_lowest([late_score(one["scores"], language) for language in LANGUAGES], name) for one in of_seeds.values())
            for name in ("auc", "auc_matched", "fitted_auc", "fitted_auc_matched")
        ]
        rows.append((world, *lowest))
    return table(("models", "added up", "at equal frequency", "fitted weights", "at equal frequency"), rows)


def _lowest(scores, name):
    values = [score and score[name] for score in scores]
    return "none" if None in values else f"{min(values):.3f}"


def of_ceilings(models):
    """Share right of the concepts that measure: pairs at ENOUGH or more, the mean, the least; a column for each of `by_world`."""
    rows, worlds = [], by_world(models)
    for name in next(iter(models.values()))["ceilings"]:
        said = []
        for of_seeds in worlds.values():
            shares = [shares[1] for one in of_seeds.values() for shares in one["ceilings"][name].values()]
            enough = sum(share >= ENOUGH for share in shares)
            said.append(f"{enough} of {len(shares)}, {np.mean(shares):.2f} ({min(shares):.2f})")
        rows.append((name, *said))
    return table(("put at the last word, layer 0", *worlds), rows)


def of_settings(models, settings):
    """A row for each dictionary, STUDY first: substitution and held-out FVU over the models that settings were chosen on; after them over the others."""
    study = [{"model": name, "train": STUDY} | one for name, one in models.items() if name.startswith("balanced-")]
    of_rows = {}
    for one in [*study, *settings]:
        chosen_on = int(one["model"].rsplit("-", 1)[1]) > 2
        of_rows.setdefault((not chosen_on, *one["train"].values()), []).append(one)
    rows = []
    for (others, n_features, l0), of_row in sorted(of_rows.items(), key=lambda row: (row[0][0], row[1][0]["train"] != STUDY)):
        pairs = [pair for one in of_row for pair in one["substitution"].values()]
        right, whole, random = ([pair[name] for pair in pairs] for name in ("right", "whole", "random_right"))
        rows.append(
            (
                "balanced" if others else "balanced, chosen on",
                n_features,
                f"{l0:g}",
                f"{sum(share >= ENOUGH for share in right)} of {len(right)}",
                f"{np.mean(right):.3f} ({min(right):.2f})",
                f"{np.mean(whole):.3f}",
                f"{np.mean(random):.3f} ({max(random):.2f})",
                sum(share > 0.05 for share in random),
                *(f"{one:.4f}" for one in np.mean([one["heldout_fvu"] for one in of_row], axis=0)),
            )
        )
    columns = (
        "models",
        "features",
        "L0",
        "pairs at 0.80",
        "right (least)",
        "whole answer",
        "random (highest pair)",
        "above 0.05",
    )
    return table((*columns, "FVU", "of layer 0"), rows)


def main(database=None, workspace="artifacts", folder=HERE):
    path = Path(folder) / "exchanged.json"
    found = json.loads(path.read_text()) if path.exists() else {"models": {}, "settings": []}
    if database:
        models, settings = collect(cltdb.open(database), workspace)
        found["models"] = dict(sorted((found["models"] | models).items()))
        kept = {_place(one): one for one in [*found["settings"], *settings]}
        found["settings"] = [kept[place] for place in sorted(kept)]
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    models, settings = found["models"], found["settings"]
    print(f"## Late label features\n\n{of_late(models)}")
    print(f"## What could turn answers\n\n{of_ceilings(models)}")
    print(f"## Other dictionaries\n\n{of_settings(models, settings)}")


def _place(one):
    return one["model"], *one["train"].values()


if __name__ == "__main__":
    main(*sys.argv[1:])
