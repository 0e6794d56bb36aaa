"""Tables of the notes on narrow dictionaries: how their setting was chosen on models 3 to 5 (settings.json), and what came of them on models 0 to 2, which
were made again (made-again.json).

    python experiments/multilingual/narrow.py [cltdb.duckdb] [FOLDER]

With the database of a run, made-again.json is written from it first, beside this file or in FOLDER.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from figures import SHARES, collect, dictionaries, token_shares
from tables import OVERLAPS, of_humps, of_layers, of_models, of_overlap, of_scores, of_substitution, said, table

import cltdb
from cltdb.toyworld.facts import LANGUAGES

HERE = Path(__file__).parent

ENOUGH = 0.8
"""Share of right answers that a pair should reach."""
LATE_FEATURES = 20


def late_score(scores, label):
    """Of a label, the score of twenty features; of all where there are fewer, None where there are none."""
    of_label = [score for score in scores if score["label"] == label and score["n_features"] <= LATE_FEATURES]
    return max(of_label, key=lambda score: score["n_features"], default=None)


def has_hump(corrected):
    """Whether a middle layer has more than the first and more than the last."""
    return max(corrected[1:-1]) > max(corrected[0], corrected[-1])


def of_settings(tried):
    """A row for each setting, over its models. tried: what settings.json holds."""
    rows = []
    for train, of_train in itertools.groupby(tried, key=lambda one: one["train"]):
        of_setting = list(of_train)
        pairs = [pair for one in of_setting for pair in one["substitution"].values()]
        right, random = ([pair[name] for pair in pairs] for name in ("right", "random_right"))
        lowest = min(late_score(one["scores"], label)["auc"] for one in of_setting for label in LANGUAGES)
        humps = [
            sum(has_hump(one["corrected"][f"free-{weighting}"]) for one in of_setting) for weighting in ("none", "influence")
        ]
        rows.append(
            (
                *(f"{train[name]:g}" for name in ("n_features", "l0", "weight_decay")),
                f"{sum(share >= ENOUGH for share in right)} of {len(right)}",
                f"{np.mean(right):.2f} ({min(right):.2f})",
                f"{np.mean(random):.3f} ({max(random):.2f})",
                f"{lowest:.3f}",
                "{}, {}".format(*humps),
                f"{np.mean([one['heldout_fvu'] for one in of_setting]):.3f}",
            )
        )
    columns = ("features", "L0", "weight decay", "pairs at 0.80", "right (least)", "random (highest pair)", "lowest AUC")
    return table((*columns, "humps", "FVU"), rows)


def of_pairs(results):
    """Substitution by narrow dictionaries beside that by the study's, each model."""
    rows = []
    for source, target in itertools.permutations(LANGUAGES, 2):
        row = [f"{source} to {target}"]
        for world in ("balanced, narrow", "balanced"):
            found = [one["substitution"][f"{source}-{target}"] for one in results["worlds"][world].values()]
            row += [", ".join(f"{one[name]:.2f}" for one in found) for name in ("right", "whole")]
            row.append(", ".join(f"{one['random_right']:.2f} ({one['random_right_most']:.2f})" for one in found))
        rows.append(row)
    columns = ("right", "whole answer", "random")
    return table(("pair", *(f"{column}, {width}" for width in (128, 256) for column in columns)), rows)


def of_late(results):
    """AUC of twenty late features, of text as it is and at equal token frequency, each model."""
    rows = []
    for world, of_seeds in results["worlds"].items():
        of_languages = [
            [
                ", ".join(_number(late_score(one["scores"], language), name) for one in of_seeds.values())
                for name in ("auc", "auc_matched")
            ]
            for language in LANGUAGES
        ]
        rows.append((world, *itertools.chain.from_iterable(of_languages)))
    return table(("dictionaries", *itertools.chain.from_iterable((language, "equal frequency") for language in LANGUAGES)), rows)


def _number(score, name):
    return "none" if score is None or score[name] is None else f"{score[name]:.3f}"


def of_six(results, tried):
    """Where the study's dictionaries of six models, 0 to 2 made again and 3 to 5, share most, and the mean of their middle layers less that of the ends."""
    rows, study = [], {"n_features": 256, "l0": 8, "weight_decay": 0}
    for keyed_by, weighting in OVERLAPS:
        each = [
            [row["corrected"] for row in one["overlap"][f"{keyed_by}-{weighting}-all"]]
            for one in results["worlds"]["balanced"].values()
        ]
        each += [one["corrected"][f"{keyed_by}-{weighting}"] for one in tried if one["train"] == study]
        most = ", ".join(str(int(np.argmax(of))) for of in each)
        less = ", ".join(f"{max(of[1:-1]) - of[-1]:.3f}" for of in each)
        hump = said([np.mean(of[1:-1]) - (of[0] + of[-1]) / 2 for of in each], 4)
        rows.append((f"{keyed_by}, {weighting}", most, less, hump))
    return table(("overlap", "most in layer", "most of a middle layer less the last", "middle less ends"), rows)


def counted(results):
    """Of each world, pairs at ENOUGH or more, mean shares right and random, pairs of which random features make more than 0.05 right."""
    rows = []
    for world, of_seeds in results["worlds"].items():
        pairs = [pair for one in of_seeds.values() for pair in one["substitution"].values()]
        right, random = ([pair[name] for pair in pairs] for name in ("right", "random_right"))
        each = ", ".join(str(sum(pair["right"] >= ENOUGH for pair in one["substitution"].values())) for one in of_seeds.values())
        more = sum(share > 0.05 for share in random)
        rows.append((world, each, len(right), f"{np.mean(right):.3f}", min(right), f"{np.mean(random):.3f}", max(random), more))
    return table(("world", "pairs at 0.80, each model", "of", "mean", "least", "random", "most", "above 0.05"), rows)


def main(database=None, folder=HERE):
    path = Path(folder) / "made-again.json"
    if database:
        db = cltdb.open(database)
        worlds = collect(db, dictionaries(db))
        results = {
            "models": dict(
                db.sql("SELECT model_id, artifact_key FROM models ORDER BY ALL").rows()
            ),  # keys that their files have made
            "token_shares": {world: token_shares(world) for world in SHARES},
            "worlds": worlds,
        }
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    results, tried = json.loads(path.read_text()), json.loads((HERE / "settings.json").read_text())
    print(f"## Settings tried\n\n{of_settings(tried)}")
    print(f"## Substitution\n\n{of_pairs(results)}\n{counted(results)}\n{of_substitution(results)}")
    print(f"## Late label features\n\n{of_late(results)}\n{of_scores(results)}")
    print(f"## Models and dictionaries\n\n{of_models(results)}")
    for key in ("free-none-all", "free-influence-all", "end-none-all", "end-influence-all"):
        print(f"## Overlap, {key}\n\n{of_overlap(results, key)}")
    print(f"## Where most is shared\n\n{of_humps(results)}\n{of_six(results, tried)}")
    print(f"## Specific and shared features\n\n{of_layers(results)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
