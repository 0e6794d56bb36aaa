"""Tables (as Markdown) and figures of this study, from the database that its run leaves.

    python experiments/transcoders-vs-saes/figures.py cltdb.duckdb artifacts --figures FOLDER

Differences are paired by seed: both dictionaries of a pair have read the same text. Values at an L0 are linear between the measured ones
of the same dictionary kind, seed and layer, never beyond them. Intervals: 95 %, Student's t over the seeds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from plotly.subplots import make_subplots

import cltdb
from cltdb.toyworld.text import documents

sys.path.append(str(Path(__file__).parents[1]))
from intervals import interval  # noqa: E402

SWEEP = "transcoders-vs-saes"
COLORS = {
    "sae": "#888888",
    "plt": "#1f77b4",
    "plt with skip": "#2ca02c",
    "clt": "#d62728",
    "sae, longer": "#333333",
    "plt, longer": "#0b3d66",
}
"""Kinds; longer: trained for six epochs instead of two."""
LEVELS = (4, 6, 8, 10, 12, 14, 16)
"""Values of L0 at which curves are compared."""
TEXT_SEED, N_DOCUMENTS = 123_456, 100
"""Of the text on which the skip path is measured; no training text has this seed."""


def measured(db):
    """One row per dictionary and layer (null: pooled) with kind, seed, asked (the L0 asked for), l0, fvu, dead_frac, and of the splice of that
    MLP alone (null: of all) ce_original, ce_replacement, ce_zero, ce_mean, kl_nats."""
    points = [
        {
            "dict_id": row["dict_id"],
            "kind": _named(row["kind"], swept := json.loads(row["swept"])),
            "seed": swept["seed"],
            "asked": float(swept["train.l0"]),
        }
        for row in db.query("frontier", sweep=SWEEP).to_dicts()
    ]
    values = db.sql(
        "SELECT dict_id, layer, name, value FROM metrics WHERE stage = 'evaluate' AND label IS NULL "
        "AND (variant = 'single' OR variant IS NULL) AND name IN ('l0', 'fvu', 'dead_frac', 'ce_original', 'ce_replacement', 'ce_zero', 'ce_mean', 'kl_nats')"
    ).pivot("name", index=["dict_id", "layer"], values="value")
    return pl.DataFrame(points).join(values, on="dict_id").sort("kind", "seed", "layer", "asked")


def _named(kind, swept):
    return f"{kind}{' with skip' if swept.get('train.skip') else ''}{', longer' if 'train.epochs' in swept else ''}"


def curve(frame, kind, seed, layer, name):
    """(l0, value) of a kind, seed and layer, rising in l0."""
    rows = frame.filter(kind=kind, seed=seed).filter(pl.col("layer").eq_missing(layer)).sort("l0")
    return rows["l0"].to_numpy(), rows[name].to_numpy()


def differences(frame, kind, base, layer, name):
    """{seed: {l0: value of `kind` less that of `base`}} at LEVELS that lie within both curves; of a kind with one L0, at that."""
    found = {}
    for seed in frame.filter(kind=kind)["seed"].unique().sort():
        (x, y), (base_x, base_y) = (curve(frame, which, seed, layer, name) for which in (kind, base))
        if not len(x) or not len(base_x):
            continue
        low, high = max(x[0], base_x[0]), min(x[-1], base_x[-1])
        levels = [level for level in (LEVELS if len(x) > 1 else x) if low <= level <= high]
        if levels:
            found[seed] = {float(level): np.interp(level, x, y) - np.interp(level, base_x, base_y) for level in levels}
    return found


def said(values, digits=5):
    mean, low, high = interval(values)
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def layers_of(frame):
    return frame["layer"].drop_nulls().unique().sort().to_list()


def what_ran(frame):
    """Means over seeds per kind and asked L0."""
    means = frame.filter(pl.col("layer").is_null()).group_by("kind", "asked", maintain_order=True)
    names = ("l0", "fvu", "dead_frac", "ce_original", "ce_replacement", "kl_nats")
    rows = means.agg(pl.len().alias("n"), *(pl.col(name).mean() for name in names)).sort("kind", "asked").rows()
    columns = ("kind", "L0 asked", "seeds", "L0", "FVU", "dead", "CE of the model", "CE, all MLPs replaced", "KL")
    return table(
        columns,
        [
            (kind, asked, n, f"{l0:.2f}", f"{fvu:.4f}", f"{dead:.2%}", f"{ce:.4f}", f"{spliced:.4f}", f"{kl:.4f}")
            for kind, asked, n, l0, fvu, dead, ce, spliced, kl in rows
        ],
    )


def worth(frame):
    """What each MLP is worth: cross-entropy of the model, and with the MLP at zero or at its mean."""
    rows = (
        frame.drop_nulls("layer").group_by("layer").agg(pl.col("ce_original", "ce_zero", "ce_mean").mean()).sort("layer").rows()
    )
    return table(
        ("layer", "CE of the model", "zero", "mean"), [(layer, *(f"{ce:.4f}" for ce in values)) for layer, *values in rows]
    )


def recovered(frame):
    """Share of what zero ablation of an MLP costs that its replacement alone recovers, a column per layer; means over seeds."""
    share = (pl.col("ce_zero") - pl.col("ce_replacement")) / (pl.col("ce_zero") - pl.col("ce_original"))
    means = frame.drop_nulls("layer").group_by("kind", "asked", "layer").agg(share.mean().alias("share")).sort("layer")
    by_layer = means.pivot("layer", index=["kind", "asked"], values="share").sort("kind", "asked")
    rows = [(kind, asked, *(f"{value:.2%}" for value in values)) for kind, asked, *values in by_layer.rows()]
    return table(("kind", "L0 asked", *(f"layer {layer}" for layer in layers_of(frame))), rows)


def comparison(frame, kind, base, name):
    """Per layer the paired difference of `name` at some L0, and as mean over LEVELS."""
    rows = []
    for layer in [*layers_of(frame), None]:
        found = differences(frame, kind, base, layer, name)
        if not found:
            continue
        levels = sorted(set.intersection(*map(set, found.values())))
        at = {level: said([by[level] for by in found.values()]) for level in levels if level in (4, 8, 16)}
        mean = [np.mean(list(by.values())) for by in found.values()]
        each = ", ".join(f"{value:+.5f}" for value in mean)
        where = "all" if layer is None else layer
        rows.append((where, *(at.get(level, "") for level in (4.0, 8.0, 16.0)), said(mean), each))
    return table(("layer", "at L0 4", "at L0 8", "at L0 16", "mean over the L0 compared", "of each seed"), rows)


def detection(db, frame):
    """Mean detection score per kind, L0 and explainer (baselines too) over features, then over seeds."""
    scores = db.query("explanation_scores").filter(scorer="detection").select("dict_id", "explainer", "mean_score", "n_scored")
    points = frame.filter(pl.col("layer").is_null()).select("dict_id", "kind", "seed", "asked")
    joined = points.join(scores, on="dict_id").sort("kind", "asked", "explainer", "seed")
    rows = []
    for (kind, asked, explainer), part in joined.group_by("kind", "asked", "explainer", maintain_order=True):
        mean, low, high = interval(part["mean_score"])
        rows.append((kind, asked, explainer, len(part), f"{mean:.3f} ({low:.3f} to {high:.3f})"))
    pairs = []
    own = joined.filter(explainer="rules")
    for kind in list(COLORS)[1:]:
        both = own.filter(kind=kind).join(own.filter(kind="sae"), on=["seed", "asked"])
        for (asked,), part in both.group_by("asked", maintain_order=True):
            pairs.append((kind, asked, said(part["mean_score"] - part["mean_score_right"], 3)))
    shown = table(("kind", "L0 asked", "explainer", "seeds", "mean detection score"), rows)
    return shown + "\n\n" + table(("kind", "L0 asked", "less that of sae"), pairs)


@torch.no_grad()
def skip_shares(db, frame, workspace):
    """{(asked, layer): shares of the seeds}: sum of |x W_skip|^2 over the sum of |output|^2 of each dictionary with skip, on fresh text, BOS
    aside."""
    lm = cltdb.load_model("toyworld", device="cpu")
    texts = documents(TEXT_SEED)
    encoded = [
        lm.tokenizer(next(texts)[0], truncation=True, max_length=lm.max_context - 1)["input_ids"] for _ in range(N_DOCUMENTS)
    ]
    runs = [lm.run(torch.tensor([[lm.hf.config.bos_token_id, *ids]]), with_logits=False) for ids in encoded]
    x = torch.cat([run.mlp_input[0, 1:] for run in runs])
    paths = dict(db.sql("SELECT dict_id, path FROM dictionaries").rows())
    found = {}
    for row in frame.filter(kind="plt with skip").filter(pl.col("layer").is_null()).to_dicts():
        dictionary = cltdb.load_dictionary(Path(workspace) / paths[row["dict_id"]], device="cpu")
        for layer in range(dictionary.n_layers):
            sources = [None] * layer + [dictionary.encode_layer(x[:, layer], layer)]
            output = dictionary.decode_layer(sources, layer, x[:, layer])
            skipped = x[:, layer] @ dictionary.W_skip[layer]
            share = float(skipped.square().sum() / output.square().sum())
            found.setdefault((row["asked"], layer), []).append(share)
    return found


def frontier_figure(frame, name, title):
    """`name` against measured L0, a panel per layer: thin lines are seeds, thick ones their mean."""
    layers = layers_of(frame)
    figure = make_subplots(1, len(layers), subplot_titles=[f"layer {layer}" for layer in layers])
    for column, layer in enumerate(layers, start=1):
        for kind in [kind for kind in COLORS if len(frame.filter(kind=kind))]:
            curves = [curve(frame, kind, seed, layer, name) for seed in frame.filter(kind=kind)["seed"].unique().sort()]
            common = [pair for pair in curves if len(pair[0]) == max(len(x) for x, _ in curves)]
            thin = dict(color=COLORS[kind], width=1)
            for x, y in curves:
                figure.add_scatter(x=x, y=y, line=thin, opacity=0.4, showlegend=False, mode="lines+markers", col=column, row=1)
            x, y = (np.mean(side, axis=0) for side in zip(*common, strict=True))
            thick = dict(color=COLORS[kind], width=3)
            figure.add_scatter(x=x, y=y, line=thick, name=kind, showlegend=column == 1, mode="lines+markers", col=column, row=1)
    figure.update_xaxes(title="L0", type="log")
    return figure.update_yaxes(type="log").update_layout(
        title=title, template="simple_white", width=300 * len(layers), height=400
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database")
    parser.add_argument("workspace", help="where the run's artifacts are")
    parser.add_argument("--figures", type=Path, help="folder for figures as HTML")
    options = parser.parse_args()
    db = cltdb.open(options.database)
    frame = measured(db)
    print(f"## What ran\n\n{what_ran(frame)}\n\n## What each MLP is worth\n\n{worth(frame)}\n")
    print(f"## Recovered by one MLP's replacement\n\n{recovered(frame)}\n")
    for kind, base, name in (
        ("plt", "sae", "ce_replacement"),
        ("plt", "sae", "kl_nats"),
        ("plt", "sae", "fvu"),
        ("plt with skip", "plt", "fvu"),
        ("plt with skip", "plt", "ce_replacement"),
        ("clt", "plt", "fvu"),
        ("clt", "plt", "ce_replacement"),
        *(("plt, longer", "sae, longer", name) for name in ("ce_replacement", "kl_nats", "fvu")),
    ):
        if len(frame.filter(kind=kind)):
            print(f"## {name}: {kind} less {base}\n\n{comparison(frame, kind, base, name)}\n")
    print(f"## Detection\n\n{detection(db, frame)}\n")
    shares = skip_shares(db, frame, options.workspace)
    rows = [(asked, layer, ", ".join(f"{share:.3f}" for share in found)) for (asked, layer), found in sorted(shares.items())]
    print(f"## Share of the skip path\n\n{table(('L0 asked', 'layer', 'of each seed'), rows)}")
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        lost = frame.with_columns(lost=pl.col("ce_replacement") - pl.col("ce_original"))
        for name, source, title in (
            ("fvu", frame, "FVU on held-out text"),
            ("kl", frame.rename({"kl_nats": "kl"}), "KL in nats, one MLP replaced"),
            ("lost", lost.with_columns(pl.col("lost").clip(1e-5)), "Cross-entropy lost in nats, one MLP replaced"),
        ):
            frontier_figure(source, name, title).write_html(options.figures / f"{name}.html", include_plotlyjs="cdn")


if __name__ == "__main__":
    main()
