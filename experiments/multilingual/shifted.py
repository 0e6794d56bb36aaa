"""Tables of the notes on label features that are moved, by one shift for all prompts or by each prompt's own change, from shifted.json.

    python experiments/multilingual/shifted.py [cltdb.duckdb ...]

With databases of runs whose substitution has `values: shifted` or `exchanged`, each with one comparison of a dictionary, what they have is put into
shifted.json first. What the file has of other models and values stays in it.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from figures import best_points
from narrow import ENOUGH
from tables import table

import cltdb
from cltdb.intervals import wilson
from cltdb.toyworld.facts import LANGUAGES

HERE = Path(__file__).parent
OF_PAIR = ("n_features", "boost", "n", "right", "label", "kl_nats", "random_right", "random_right_most", "reverse_right")
PAIRS = ["-".join(pair) for pair in itertools.permutations(LANGUAGES, 2)]
MODELS = {"chosen on": (3, 4, 5), "looked at before": (0, 1, 2), "fresh": (6, 7, 8)}


def collect(db):
    """[{values: what features were set to, model, random_draws, pairs: {pair: what the database has of it}}] of each dictionary."""
    found = []
    for dict_id, model_id in db.sql("SELECT dict_id, model_id FROM dictionaries ORDER BY model_id").rows():
        rows, name = db.query("substitution_results", dict_id=dict_id).to_dicts(), Path(model_id).name
        whole = best_points(db, dict_id, name.rsplit("-", 1)[0])
        pairs = {f"{row['label_from']}-{row['label_to']}": {of: _short(row[of]) for of in OF_PAIR} for row in rows}
        pairs = {pair: of | {"whole": whole[pair]["whole"]} for pair, of in pairs.items()}
        known = {"values": rows[0]["set_to"], "model": name, "random_draws": rows[0]["n_random"]}
        found.append(known | {"pairs": pairs})
    return found


def _short(value):
    return round(value, 5) if isinstance(value, float) else value


def by_models(found):
    """{(models, values): what was found of each model}, of `MODELS`."""
    rows = {(name, values): [] for name in MODELS for values in ("shifted", "exchanged")}
    for one in sorted(found, key=lambda one: one["model"]):
        seed = int(one["model"].rsplit("-", 1)[1])
        [name] = [name for name, seeds in MODELS.items() if seed in seeds]
        rows[name, one["values"]].append(one)
    return {of: models for of, models in rows.items() if models}


def of_pairs(found):
    """Each pair: the share right of all models' questions with Wilson's interval, of each model, and of random features over the models."""
    rows = []
    for (name, values), models in by_models(found).items():
        for pair in PAIRS:
            of_pair = [one["pairs"][pair] for one in models]
            k, n = _counts(models, pair)
            low, high = wilson(k, n)
            each = ", ".join(f"{one['right']:.2f}" for one in of_pair)
            random = np.mean([one["random_right"] for one in of_pair])
            most = max(one["random_right_most"] for one in of_pair)
            said = f"{k / n:.2f} ({low:.2f} to {high:.2f})"
            rows.append((name, values, pair.replace("-", " to "), said, each, f"{random:.3f} ({most:.2f})"))
    return table(("models", "values", "pair", "right", "each model", "random"), rows)


def _counts(models, pair):
    """(right answers, questions) of all models."""
    of_pair = [one["pairs"][pair] for one in models]
    return sum(round(one["right"] * one["n"]) for one in of_pair), sum(one["n"] for one in of_pair)


def in_all(found):
    """Over all pairs: pairs whose mean over the models is ENOUGH or more, single pairs and models that are, and the controls."""
    rows = []
    for (name, values), models in by_models(found).items():
        right, whole, random, reverse = (
            np.array([[one["pairs"][pair][of] for pair in PAIRS] for one in models])
            for of in ("right", "whole", "random_right", "reverse_right")
        )
        of_pair = [k / n for k, n in (_counts(models, pair) for pair in PAIRS)]
        rows.append(
            (
                name,
                values,
                f"{right.mean():.3f} ({', '.join(f'{of:.2f}' for of in right.mean(axis=1))})",
                f"{sum(share >= ENOUGH for share in of_pair)} of {len(PAIRS)} ({min(of_pair):.2f})",
                f"{(right >= ENOUGH).sum()} of {right.size} ({right.min():.2f})",
                f"{whole.mean():.3f}",
                f"{random.mean():.3f} ({random.mean(axis=0).max():.3f}, {random.max():.2f})",
                f"{reverse.max():.2f}",
            )
        )
    return table(
        (
            *("models", "values", "right (each model)", "pairs at 0.80 on average (least)", "in single models (least)"),
            *("whole answer", "random (highest pair, in a single model)", "reverse, at most"),
        ),
        rows,
    )


def main(*databases):
    path = HERE / "shifted.json"
    known = json.loads(path.read_text()) if path.exists() else []
    kept = {(one["values"], one["model"]): one for one in known}
    for database in databases:
        kept |= {(one["values"], one["model"]): one for one in collect(cltdb.open(database))}
    found = [kept[place] for place in sorted(kept)]
    if databases:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"## Over all pairs\n\n{in_all(found)}\n## Each pair\n\n{of_pairs(found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
