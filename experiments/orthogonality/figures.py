"""Tables (as Markdown) and a figure of this study, from the database that its run leaves.

    python experiments/orthogonality/figures.py cltdb.duckdb --figures FOLDER

Values are means over seeds with 95 % of Student's t. Differences from coefficient 0 are paired by seed: both dictionaries of a pair have read the
same text. Matches are those of seeds 1 and 2 with seed 0, which both share; they stand one by one, without an interval.
"""

import argparse
import json
import sys
from pathlib import Path

import polars as pl
from plotly.subplots import make_subplots

import cltdb

sys.path.append(str(Path(__file__).parents[1]))
from intervals import interval  # noqa: E402

SWEEP = "orthogonality"
COEFFICIENT, DECAY = "train.orthogonality.coefficient", "train.weight_decay"
MEASURES = {
    "fvu": ("FVU", 4),
    "ce_gap": ("cross-entropy, MLPs replaced, less the model's", 4),
    "cosine": ("mean abs. cosine of decoders", 4),
    "cosine_max": ("largest abs. cosine", 3),
    "norm": ("decoder norm", 3),
    "matched": ("matched across seeds above 0.9", 3),
    "leakage": ("leakage, later layers", 3),
    "overlap": ("sum of abs. cosines per feature", 1),
    "kl": ("KL on unrelated prompts", 4),
    "dropped": ("old answer gone", 3),
    "included": ("new answer there", 3),
    "alike": ("cosine of explanations", 4),
    "shuffled": ("of shuffled pairs", 4),
    "detection": ("detection", 3),
}
ONE_BY_ONE = {"matched"}
"""Measures whose values are not independent."""
RAISED, EXCHANGED = 1.0, 4.0
"""Multiples at which leakage and facts are shown."""
MOST_FVU, MOST_CE = 1.05, 0.01
"""What a recommended coefficient may cost: FVU as a multiple of that of coefficient 0, and nats."""


def points(db):
    """One row per dictionary: dict_id, kind, seed, coefficient, decay."""
    found = []
    for row in db.query("frontier", sweep=SWEEP).to_dicts():
        swept = json.loads(row["swept"])
        own = {"kind": swept["train.kind"], "seed": swept["seed"]}
        values = {"coefficient": float(swept.get(COEFFICIENT, 0)), "decay": float(swept.get(DECAY, 0))}
        found.append({"dict_id": row["dict_id"]} | own | values)
    return pl.DataFrame(found)


def matches(db, found):
    """dict_id, matched: the share of the features of the first seed's dictionary that each of the other seeds has too. found: `points`."""
    own = ["kind", "coefficient", "decay"]
    first = found.filter(pl.col("seed") == pl.col("seed").min()).select(*own, dict_a="dict_id")
    shares = db.sql(
        "SELECT dict_a, dict_b AS dict_id, share_a AS matched FROM dictionary_matches WHERE above = 0.9 AND layer IS NULL"
    )
    return found.join(first, on=own).join(shares, on=["dict_a", "dict_id"]).select("dict_id", "matched")


def measured(db):
    """`points` with a column for each of MEASURES; null where it was not measured."""
    frame = points(db)
    metrics = db.sql(
        "SELECT dict_id, name, value FROM metrics WHERE stage = 'evaluate' AND layer IS NULL AND variant IS NULL AND label IS NULL AND name IN"
        " ('fvu', 'ce_original', 'ce_replacement', 'decoder_cosine_target_mean', 'decoder_cosine_target_max')"
    ).pivot("name", index="dict_id", values="value")
    names = {"decoder_cosine_target_mean": "cosine", "decoder_cosine_target_max": "cosine_max"}
    metrics = metrics.with_columns(ce_gap=pl.col("ce_replacement") - pl.col("ce_original")).rename(names)
    norms = db.sql(
        "SELECT dict_id, avg(sqrt(list_sum(list_transform(decoder_norms, lambda one: one * one)))) AS norm FROM features WHERE NOT dead GROUP BY dict_id"
    )
    isolated = db.query("isolation_by_layer", sweep=SWEEP, multiple=RAISED).filter(pl.col("layer").is_null())
    facts = db.query("isolation_facts").filter(pl.col("layer").is_null(), pl.col("multiple") == EXCHANGED)
    said = db.query("explanation_distance", sweep=SWEEP, explainer="rules").filter(vectors="tf-idf", side="input")
    frames = (
        metrics,
        norms,
        matches(db, frame),
        isolated.select(
            "dict_id", pl.col("leakage_later").alias("leakage"), pl.col("decoder_overlap").alias("overlap"), kl="kl_nats"
        ),
        facts.select("dict_id", dropped="drop_rate", included="include_rate"),
        said.select("dict_id", "shuffled", "detection", alike="cosine"),
    )
    for one in frames:
        frame = frame.join(one, on="dict_id", how="left")
    return frame.select("dict_id", "kind", "seed", "coefficient", "decay", *MEASURES).sort("kind", "decay", "coefficient", "seed")


def said(name, values, sign=""):
    """What a cell says of the values of a measure over seeds."""
    digits = MEASURES[name][1]
    if name in ONE_BY_ONE or not len(values):
        return ", ".join(f"{value:{sign}.{digits}f}" for value in values)
    mean, low, high = interval(values)
    return f"{mean:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def differences(frame, kind, name, **arm):
    """[value less that of coefficient 0 of the same seed] of a kind at an arm (coefficient= or decay=)."""
    own = frame.filter(kind=kind, **{"coefficient": 0.0, "decay": 0.0} | arm).select("seed", name)
    base = frame.filter(kind=kind, coefficient=0.0, decay=0.0).select("seed", base=name)
    return own.join(base, on="seed").drop_nulls().select(pl.col(name) - pl.col("base")).to_series().to_list()


def arms(frame):
    """[(label, arm)] of all that was swept, coefficient 0 first, the placebo last."""
    found = [(f"{one:g}", {"coefficient": one}) for one in sorted(frame.filter(decay=0.0)["coefficient"].unique())]
    return found + [(f"decay {one:g}", {"decay": one}) for one in sorted(frame["decay"].unique()) if one]


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def panel(frame, kind):
    """A row per arm, a column per measure."""
    rows = []
    for label, arm in arms(frame):
        own = frame.filter(kind=kind, **{"coefficient": 0.0, "decay": 0.0} | arm)
        rows.append((label, *(said(name, own[name].drop_nulls()) for name in MEASURES)))
    return table(("coefficient", *(label for label, _ in MEASURES.values())), rows)


def changes(frame, kind):
    """The same as differences from coefficient 0, paired by seed."""
    rows = [
        (label, *(said(name, differences(frame, kind, name, **arm), "+") for name in MEASURES)) for label, arm in arms(frame)[1:]
    ]
    return table(("coefficient", *(label for label, _ in MEASURES.values())), rows)


def recommended(frame, kind):
    """The largest coefficient whose mean FVU and cross-entropy stay within MOST_FVU and MOST_CE of those of coefficient 0; 0 where none does."""
    means = frame.filter(kind=kind, decay=0.0).group_by("coefficient").agg(pl.col("fvu", "ce_gap").mean()).sort("coefficient")
    [base] = means.filter(coefficient=0.0).to_dicts()
    fits = (pl.col("fvu") <= MOST_FVU * base["fvu"]) & (pl.col("ce_gap") <= base["ce_gap"] + MOST_CE)
    return means.filter(fits)["coefficient"].max()


def placebo(frame, kind, coefficient):
    """The weight decay that changes the norm of decoders as much as a coefficient does, whichever way: the penalty on cosines lets norms grow."""
    norms = frame.filter(kind=kind).group_by("coefficient", "decay").agg(pl.col("norm").mean())
    without, penalised = (norms.filter(coefficient=one, decay=0.0)["norm"][0] for one in (0.0, coefficient))
    decayed = norms.filter(pl.col("decay") > 0)
    off = ((pl.col("norm") - without).abs() - abs(penalised - without)).abs()
    return None if decayed.is_empty() else decayed.sort(off, "decay")["decay"][0]


def figure(frame):
    """A panel per measure against the coefficient, a line per kind, bars over seeds; as crosses each coefficient's `placebo`."""
    kinds = sorted(frame["kind"].unique())
    drawn = make_subplots(rows=(len(MEASURES) + 3) // 4, cols=4, subplot_titles=[label for label, _ in MEASURES.values()])
    coefficients = [arm["coefficient"] for _, arm in arms(frame) if "coefficient" in arm]
    for number, name in enumerate(MEASURES):
        place = {"row": number // 4 + 1, "col": number % 4 + 1}
        for kind, color in zip(kinds, ("#d62728", "#1f77b4"), strict=False):
            ends = [interval(frame.filter(kind=kind, coefficient=one, decay=0.0)[name].drop_nulls()) for one in coefficients]
            drawn.add_scatter(
                x=[f"{one:g}" for one in coefficients],
                y=[mean for mean, *_ in ends],
                error_y=None if name in ONE_BY_ONE else {"array": [high - mean for mean, _, high in ends]},
                name=kind,
                legendgroup=kind,
                showlegend=number == 0,
                line={"color": color},
                **place,
            )
            decays = {f"{one:g}": placebo(frame, kind, one) for one in coefficients if one}
            drawn.add_scatter(
                x=list(decays),
                y=[frame.filter(kind=kind, decay=one)[name].mean() for one in decays.values()],
                mode="markers",
                marker={"symbol": "x", "color": color},
                name=f"{kind}, weight decay that changes norms as much",
                showlegend=number == 0,
                **place,
            )
    return drawn.update_layout(height=260 * ((len(MEASURES) + 3) // 4), width=1300, template="plotly_white")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database")
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    frame = measured(cltdb.open(arguments.database))
    for kind in sorted(frame["kind"].unique()):
        chosen = recommended(frame, kind)
        print(f"## {kind}\n\n{panel(frame, kind)}\n\n### Less coefficient 0\n\n{changes(frame, kind)}\n")
        print(
            f"Recommended coefficient: {chosen:g}; weight decay that changes the norm as much: {placebo(frame, kind, chosen)}\n"
        )
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        figure(frame).write_html(arguments.figures / "panel.html", include_plotlyjs="cdn")


if __name__ == "__main__":
    main()
