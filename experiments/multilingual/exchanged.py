"""Tables of the notes on fitted weights, exchanged values and what could turn answers at all, from exchanged.json.

    python experiments/multilingual/exchanged.py [cltdb.duckdb] [artifacts] [FOLDER]

With the database of a run whose substitution has `values: exchanged`, what it has of each model is put into exchanged.json first, beside this
file or in FOLDER; models that the file has already and the database has not stay in it.
"""

import itertools
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
OF_SCORE = ("label", "n_features", "auc", "auc_matched", "fitted_auc", "fitted_auc_matched")


def collect(db, workspace):
    """{model: what the database has of it}, as JSON values."""
    found = {}
    for dict_id, model_id in db.sql("SELECT dict_id, model_id FROM dictionaries ORDER BY model_id").rows():
        name = Path(model_id).name
        if name in found:
            raise SystemExit(
                f"{name}: found more than one dictionary; expected the one whose values were exchanged, in a database of its own"
            )
        world = name.rsplit("-", 1)[0]
        rows, scores = (db.query(query, dict_id=dict_id).to_dicts() for query in ("substitution_results", "label_scores"))
        whole = best_points(db, dict_id, world)
        pairs = {f"{row['label_from']}-{row['label_to']}": {name: _short(row[name]) for name in OF_PAIR} for row in rows}
        found[name] = {
            "scores": [{name: _short(row[name]) for name in OF_SCORE} for row in scores if row["first_layer"] == LATE],
            "substitution": {pair: of | {"whole": whole[pair]["whole"]} for pair, of in pairs.items()},
            "ceilings": ceilings_of(db, dict_id, PROMPTS.format(world), workspace),
        }
    return found


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
            ", ".join(
                f"{min(late_score(one['scores'], language)[name] for language in LANGUAGES):.3f}" for one in of_seeds.values()
            )
            for name in ("auc", "auc_matched", "fitted_auc", "fitted_auc_matched")
        ]
        rows.append((world, *lowest))
    return table(("models", "added up", "at equal frequency", "fitted weights", "at equal frequency"), rows)


def of_pairs(models):
    """Substitution by exchanged values, each model."""
    rows = []
    for world, of_seeds in by_world(models).items():
        for pair in itertools.permutations(LANGUAGES, 2):
            found = [one["substitution"]["-".join(pair)] for one in of_seeds.values()]
            right, whole = (", ".join(f"{one[name]:.2f}" for one in found) for name in ("right", "whole"))
            random = ", ".join(f"{one['random_right']:.2f} ({one['random_right_most']:.2f})" for one in found)
            rows.append((world, " to ".join(pair), right, whole, random))
    return table(("models", "pair", "right", "whole answer", "random"), rows)


def of_ceilings(models):
    """Share right of the concepts that measure: pairs at ENOUGH or more, the mean, the least; of models 0 to 2, of 3 to 5."""
    rows, worlds = [], by_world(models)
    for name in next(iter(models.values()))["ceilings"]:
        said = []
        for of_seeds in worlds.values():
            shares = [shares[1] for one in of_seeds.values() for shares in one["ceilings"][name].values()]
            enough = sum(share >= ENOUGH for share in shares)
            said.append(f"{enough} of {len(shares)}, {np.mean(shares):.2f} ({min(shares):.2f})")
        rows.append((name, *said))
    return table(("put at the last word, layer 0", *worlds), rows)


def main(database=None, workspace="artifacts", folder=HERE):
    path = Path(folder) / "exchanged.json"
    models = json.loads(path.read_text()) if path.exists() else {}
    if database:
        models |= collect(cltdb.open(database), workspace)
        path.write_text(json.dumps(dict(sorted(models.items())), indent=1, ensure_ascii=False) + "\n")
    print(f"## Late label features\n\n{of_late(models)}")
    print(f"## Exchanged values\n\n{of_pairs(models)}")
    print(f"## What could turn answers\n\n{of_ceilings(models)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
