"""The tables of notes.md, from the database of the run.

    python experiments/genesis/figures.py cltdb.duckdb

Values are means over seeds, in brackets the lowest and the highest seed. Intervals over concepts stand beside each seed's own value.
"""

import argparse
from itertools import combinations

import numpy as np
import polars as pl

import cltdb

SWEEP = "genesis"
ONE_LANGUAGE = ("english-kjv", "english-web")
"""Two translations into one language: what a pair shares whose words are mostly the same."""
TOGETHER = (1, 5, 20)
LATE = 2
"""How many of the last layers late features are of."""


def said(values, digits=3, percent=False):
    """The mean of values, in brackets the lowest and the highest where there are several; a dash without values."""
    known = [100 * value if percent else value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{np.mean(known):.{digits}f}"
    ends = f" ({min(known):.{digits}f} to {max(known):.{digits}f})" if len(known) > 1 else ""
    return mean + ends + (" %" if percent else "")


def table(names, rows):
    """A table in Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (names, ["---"] * len(names), *rows)]
    return "\n".join(lines)


def comparisons(db):
    """{groups_id: dict_id} of the sweep's comparisons, by seed."""
    points = db.sql(f"SELECT experiment FROM experiments WHERE sweep = '{SWEEP}' ORDER BY experiment")["experiment"]
    found = dict(db.query("group_list").select("groups_id", "dict_id").unique().rows())
    of_points = {name: [groups_id for groups_id in sorted(found) if groups_id.startswith(f"{name}-groups-")] for name in points}
    if any(len(known) != 1 for known in of_points.values()):
        counted = ", ".join(f"{name} {len(known)}" for name, known in of_points.items())
        raise SystemExit(
            f"one comparison per seed expected, found {counted}: use the database of a workspace with this run alone"
        )
    return {groups_id: found[groups_id] for [groups_id] in of_points.values()}


def pooled(db, groups_ids, **way):
    """Rows of overlap_by_layer of all pairs together, of these comparisons."""
    return db.query("overlap_by_layer", **way).filter(pl.col("groups_id").is_in(groups_ids), pl.col("label_a").is_null())


def overlaps(frame):
    """Per layer the overlap, its nulls, and of each seed what is left without chance, with its interval over concepts."""
    rows = []
    for (layer,), of in frame.sort("layer", "groups_id").group_by("layer", maintain_order=True):
        rows.append((layer, *(said(of[name]) for name in ("overlap", "same_label", "other_label")), each_seed(of)))
    return table(("layer", "overlap", "same label", "other label", "less other label, each seed (95 % over concepts)"), rows)


def each_seed(frame):
    """What is left without chance, of each seed, with its interval over concepts."""
    rows = frame.sort("groups_id").to_dicts()
    return ", ".join(f"{one['corrected']:.3f} ({one['corrected_low']:.3f} to {one['corrected_high']:.3f})" for one in rows)


def of_pairs(db, groups_ids, **way):
    """Rows of overlap_by_layer of two labels each, with whether they are of one language."""
    frame = db.query("overlap_by_layer", **way).filter(pl.col("groups_id").is_in(groups_ids), pl.col("label_a").is_not_null())
    one_language = (pl.col("label_a") == ONE_LANGUAGE[0]) & (pl.col("label_b") == ONE_LANGUAGE[1])
    return frame.with_columns(one_language=one_language)


def languages(frame, tokens):
    """Per layer what two translations into one language share without chance, and what two languages do: the mean over their pairs and seeds, in
    brackets the pairs with least and most (means over seeds); how these pairs correlate with what they share of tokens."""
    rows = []
    for (layer,), of in frame.sort("layer").group_by("layer", maintain_order=True):
        others = of.filter(~pl.col("one_language")).group_by("label_a", "label_b").agg(pl.mean("corrected")).rows()
        values = [value for *_, value in others]
        own, other = zip(*(tokens[a, b] for a, b, _ in others), strict=True)
        of_tokens = np.subtract(own, other)
        correlation = f"{np.corrcoef(values, of_tokens)[0, 1]:.2f}" if np.ptp(of_tokens) > 0 else "–"
        rows.append((layer, each_seed(of.filter("one_language")) or "–", said(values), correlation))
    return table(("layer", "one language, each seed (95 % over concepts)", "two languages", "correlation with tokens"), rows)


def pairs(frame, layer):
    """What two labels share without chance in a layer, every pair."""
    frame = frame.filter(layer=layer)
    labels = sorted({*frame["label_a"], *frame["label_b"]})
    found = {pair: of["corrected"] for pair, of in frame.group_by("label_a", "label_b")}
    rows = [(a, *(f"{found[a, b].mean():.3f}" if (a, b) in found else "" for b in labels[1:])) for a in labels[:-1]]
    return table(("", *labels[1:]), rows)


def shared_tokens(db, groups_id):
    """{(label, label): (overlap of the tokens of two prompts of one concept, of two concepts)}, BOS aside: what is shared before any feature."""
    prompts = db.sql(f"SELECT concept, label, tokens FROM group_prompts WHERE groups_id = '{groups_id}' ORDER BY label").rows()
    found = {}
    for (concept, a, tokens), (other_concept, b, other_tokens) in combinations(prompts, 2):
        one, other = set(tokens[1:]), set(other_tokens[1:])
        found.setdefault((a, b), ([], []))[concept != other_concept].append(len(one & other) / len(one | other))
    return {pair: tuple(map(np.mean, of)) for pair, of in found.items() if pair[0] != pair[1]}


def tokens_table(tokens):
    """What prompts share of tokens, as features do in `languages`."""
    rows = []
    for name, pairs in (("one language", [ONE_LANGUAGE]), ("two languages", tokens.keys() - {ONE_LANGUAGE})):
        of = [tokens[pair] for pair in pairs if pair in tokens]
        rows.append((name, *(said([pair[i] for pair in of]) for i in (0, 1)), said([own - other for own, other in of])))
    return table(("prompts in", "one concept", "two concepts", "difference"), rows)


def served(db, groups_ids, dict_ids):
    """How well the model knows the text and the prompts of each label, and how well the dictionary serves it."""
    text = db.query("metrics_by_label").filter(
        pl.col("dict_id").is_in(dict_ids), pl.col("label").is_not_null(), pl.col("layer").is_null()
    )
    asked = db.query("group_list").filter(pl.col("groups_id").is_in(groups_ids))
    layers = db.query("group_layers").filter(pl.col("groups_id").is_in(groups_ids))
    rows = []
    for label in sorted(set(asked["label"])):
        of_text, of_prompts, of_layers = (frame.filter(label=label) for frame in (text, asked, layers))
        share = of_layers.group_by("groups_id").agg(
            share=pl.sum("error_influence") / (pl.sum("error_influence") + pl.sum("feature_influence"))
        )
        rows.append(
            (
                label, *(said(of_text[name]) for name in ("fvu", "ce_original", "ce_replacement", "kl_nats")), said(of_text["l0"], 1),
                said(of_prompts["accuracy"][:1], 0, percent=True), said(of_prompts["replacement_score"], 2), said(share["share"], 2),
            )
        )  # fmt: skip
    return table(
        ("label", "FVU", "cross-entropy", "replaced", "KL", "L0", "prompts answered", "replacement score", "error share"), rows
    )


def shares(db, dict_ids):
    """Features of few labels and of all, by layer."""
    frame = db.query("label_layers").filter(pl.col("dict_id").is_in(dict_ids))
    rows = [
        (
            layer,
            *(said(of[name], 1, percent=True) for name in ("specific_frac", "shared_frac")),
            said(of["n_matched"] / of["n_specific"], 2),
        )
        for (layer,), of in frame.sort("layer").group_by("layer", maintain_order=True)
    ]
    return table(("layer", "specific", "shared", "of the specific, at equal frequency"), rows)


def label_scores(db, groups_ids, first_layer):
    """How well late label features tell held-out text, alone and together."""
    frame = db.query("label_scores").filter(pl.col("groups_id").is_in(groups_ids), pl.col("first_layer") == first_layer)
    rows = []
    for (label,), of in frame.sort("label").group_by("label", maintain_order=True):
        by_size = [of.filter(n_features=size) for size in TOGETHER]
        rows.append((label, *(said(one["auc"]) for one in by_size), *(said(one["auc_matched"]) for one in by_size)))
    names = [f"{size}{what}" for what in ("", ", matched") for size in TOGETHER]
    return table(("label", *names), rows)


def substitutions(db, groups_ids):
    """Of all ordered pairs of labels: means over pairs, of each seed."""
    frame = db.query("substitution_results").filter(pl.col("groups_id").is_in(groups_ids))
    names = ("right", "untouched_right", "random_right", "label", "untouched_label", "random_label", "kl_nats", "random_kl_nats")
    means = frame.sort("groups_id").group_by("groups_id", maintain_order=True).agg(pl.mean(*names), pl.len())
    rows = [(name, said(means[name], 2)) for name in names]
    return table(("mean over pairs", "value"), rows) + f"\n\n{means['len'].to_list()} pairs of each seed."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database")
    db = cltdb.open(parser.parse_args().database)
    of = comparisons(db)
    groups_ids, dict_ids = list(of), list(of.values())
    n_layers = 1 + pooled(db, groups_ids)["layer"].max()
    print(f"{len(of)} seeds\n\n## Served\n\n{served(db, groups_ids, dict_ids)}\n")
    tokens = shared_tokens(db, groups_ids[0])
    print(f"## Tokens\n\n{tokens_table(tokens)}\n")
    for weighting in ("none", "influence"):
        for keyed_by in ("free", "end"):
            way = {"weighting": weighting, "keyed_by": keyed_by}
            print(f"## Overlap, {weighting}, {keyed_by}\n\n{overlaps(pooled(db, groups_ids, **way))}\n")
            print(f"{languages(of_pairs(db, groups_ids, **way), tokens)}\n")
    print(f"## Pairs, layer {n_layers // 2}\n\n{pairs(of_pairs(db, groups_ids), n_layers // 2)}\n")
    print(f"## Specific and shared\n\n{shares(db, dict_ids)}\n")
    for first_layer in (0, n_layers - LATE):
        print(f"## AUC from layer {first_layer} on\n\n{label_scores(db, groups_ids, first_layer)}\n")
    print(f"## Substitutions\n\n{substitutions(db, groups_ids)}")


if __name__ == "__main__":
    main()
