"""Supernodes: the features of a pruned graph in groups of the same role, as one draws them by hand.

The similarity of two features is the geometric mean of up to three, as far as they are known: cosine of what they write, cosine
of where their input comes from and their output goes, similarity of their explanations. So one of them alone is not enough.
Groups are those of average linkage: the two most similar groups become one, as long as the mean similarity of their pairs reaches
a threshold. By default only features at one token position are grouped, as supernodes in "Circuit Tracing" (Anthropic, 2025) are;
the same feature at two positions mostly has two roles.
"""

import re
from datetime import UTC, datetime

import numpy as np

from cltdb.errors import CltdbError, check_share, shown

MAX_LABEL = 60
"""Characters of an explanation in a name."""
MAX_GROUPED = 4096
"""Features at one position that are grouped, the most influential ones; any others stay alone."""


def group_features(nodes, edges, *, similarity, dictionary=None, same_position=True):
    """Groups of at least two features, [[node ids, rising]], the most influential group first.

    nodes, edges: frames of a pruned graph with the columns of the tables; all rows count. Where nodes have a column `text`, these
    explanations are compared too. similarity: the threshold, 0 to 1. dictionary: without it, what features write is not compared.
    A feature that is itself the graph's target is in no group.
    """
    import polars as pl

    check_share("group_features similarity", similarity)
    if dictionary is not None and not hasattr(dictionary, "decoder"):
        expected = "a dictionary, as `cltdb.load_dictionary` gives it"
        raise CltdbError("group_features dictionary", found=shown(dictionary), expected=expected, do="load it")
    features = nodes.filter(kind="feature").filter(pl.col("probability").is_null())
    profiles = _profiles(nodes, edges)
    groups = []
    for block in features.partition_by("position", maintain_order=True) if same_position else [features]:
        block = block.sort("influence", "node_id", descending=[True, False], nulls_last=True)[:MAX_GROUPED].sort("node_id")
        ids, influence = (block[column].fill_null(0).to_numpy() for column in ("node_id", "influence"))
        parts = average_linkage(feature_similarity(block, profiles, dictionary), similarity)
        groups += [(-influence[part].sum(), ids[part].tolist()) for part in parts if len(part) > 1]
    return [group for _, group in sorted(groups)]


def supernode_rows(graph_id, groups, nodes, *, labels, words):
    """Frame of table supernodes. nodes: a frame with the groups' nodes. labels: a text or None for each group. words: the
    prompt's tokens as text. A group's name is its label, shortened, and its position: `Paris (France@4)`."""
    import polars as pl

    position = dict(nodes.select("node_id", "position").iter_rows())
    places = [
        ", ".join(f"{words[place].strip()}@{place}" for place in sorted({position[node] for node in group})) for group in groups
    ]
    return pl.DataFrame(
        {
            "supernode_id": [f"{graph_id}-s{number}" for number in range(len(groups))],
            "graph_id": [graph_id] * len(groups),
            "name": [f"{_short(label)} ({place})" if label else place for label, place in zip(labels, places, strict=True)],
            "node_ids": groups,
            "created_at": [datetime.now(UTC).replace(tzinfo=None)] * len(groups),
        },
        schema={
            "supernode_id": pl.String,
            "graph_id": pl.String,
            "name": pl.String,
            "node_ids": pl.List(pl.Int32),
            "created_at": pl.Datetime("us"),
        },
    )


def _short(label):
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"


def feature_similarity(features, profiles, dictionary=None):
    """Similarity [n, n] of the rows of a frame of feature nodes: the geometric mean of what is known, 0 where one of these is
    negative."""
    kinds = [edge_similarity(features["node_id"], profiles)]
    if dictionary is not None:
        kinds.append(decoder_similarity(dictionary, features["layer"].to_numpy(), features["feature"].to_numpy()))
    if "text" in features.columns:
        kinds.append(text_similarity(features["text"].to_list()))
    product = np.prod([np.nan_to_num(kind, nan=1.0).clip(min=0) for kind in kinds], axis=0)
    return product ** (1 / sum(~np.isnan(kind) for kind in kinds))


def decoder_similarity(dictionary, layers, features):
    """Cosines [n, n] of what features write: of the sums of their decoder vectors over the layers that both write to. Features
    that share no such layer (of per-layer transcoders) are compared by all they write. layers, features [n]."""
    layers, features = (np.array(ids, dtype=np.int64) for ids in (layers, features))
    exact = lambda tensor: tensor.double().cpu().numpy()  # noqa: E731
    decoders = {layer: dictionary.decoder(layer, features[layers == layer].tolist()) for layer in set(layers.tolist())}
    totals = np.zeros((len(layers), dictionary.d_model))
    for layer, W in decoders.items():
        totals[layers == layer] = exact(W).sum(1)
    later = np.zeros_like(totals)  # what each writes to `first` and later layers
    cosines = np.zeros((len(layers), len(layers)))
    for first in reversed(range(dictionary.n_layers)):
        for layer, W in decoders.items():
            if first in dictionary.target_layers(layer):
                later[layers == layer] += exact(W[:, first - layer])
        before, here = np.flatnonzero(layers <= first), np.flatnonzero(layers == first)
        written = np.where((later != 0).any(1, keepdims=True), later, totals)
        unit = written / np.maximum(np.linalg.norm(written, axis=1, keepdims=True), 1e-12)
        of_pairs = unit[before] @ unit[here].T
        cosines[before[:, None], here] = of_pairs
        cosines[here[:, None], before] = of_pairs.T
    return cosines


def _profiles(nodes, edges):
    """Where each node's input comes from and its output goes, as rows of node_id, end, value. end: side (in or out), sign, and
    the kind and position of the other end, whatever its layer. value: influence of these edges, of unit norm per node and
    side."""
    import polars as pl

    number = (
        pl.when(pl.col("probability").is_not_null()).then(-1 - pl.col("node_id")).otherwise(pl.col("position"))
    )  # each target is an end of its own
    ends = nodes.select("node_id", end=pl.struct("kind", number=number))
    strength = edges.select(
        "source_id", "target_id", positive=pl.col("weight") > 0, value=pl.col("influence").fill_null(pl.col("weight")).abs()
    )
    sides = []
    for side, this, other in (("in", "target_id", "source_id"), ("out", "source_id", "target_id")):
        found = strength.join(ends, left_on=other, right_on="node_id", maintain_order="left")
        end = pl.struct(pl.lit(side).alias("side"), "positive", "end").alias("end")
        summed = found.group_by(pl.col(this).alias("node_id"), end, maintain_order=True).agg(pl.col("value").sum())
        norm = (pl.col("value") ** 2).sum().over("node_id").sqrt()
        sides.append(summed.with_columns(pl.col("value") / norm))
    return pl.concat(sides)


def edge_similarity(node_ids, profiles):
    """Cosines [n, n] of the profiles of a column of nodes."""
    rows = node_ids.rename("node_id").to_frame().with_row_index("row").join(profiles, on="node_id", maintain_order="left_right")
    matrix = np.zeros((len(node_ids), rows["end"].n_unique()))
    matrix[rows["row"].to_numpy(), rows["end"].rank("dense").to_numpy() - 1 if rows.height else []] = rows["value"].to_numpy()
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-30)
    return matrix @ matrix.T


def text_similarity(texts):
    """Cosines [n, n] of the texts' words, each weighted by log((1 + n) / (1 + number of texts with it)) + 1; NaN where a text has
    none."""
    words = [set(re.findall(r"\w+", (text or "").casefold())) for text in texts]
    known = np.array([bool(found) for found in words], dtype=bool)
    place = {word: number for number, word in enumerate(sorted(set().union(*words)))}
    matrix = np.zeros((len(texts), len(place)))
    for row, found in enumerate(words):
        matrix[row, [place[word] for word in found]] = 1
    matrix *= np.log((1 + known.sum()) / (1 + matrix.sum(0))) + 1
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-30)
    return np.where(known[:, None] & known, matrix @ matrix.T, np.nan)


def average_linkage(similarity, threshold):
    """The groups, [rising indices], of a similarity [n, n]: the two groups with the highest mean similarity of their pairs become
    one, as long as that mean is at least `threshold`.

    A group stands in the row of its first member. Each row remembers its best partner; after a step only rows whose partner took
    part in it look again. So the work is mostly of order n^2.
    """
    between = similarity.astype(float)
    np.fill_diagonal(between, -np.inf)
    groups = [[member] for member in range(len(between))]
    if len(groups) < 2:
        return groups
    partner = between.argmax(1)
    best = between[np.arange(len(between)), partner]
    while best[row := int(best.argmax())] >= threshold:
        one, other = sorted((row, int(partner[row])))
        sizes = len(groups[one]), len(groups[other])
        merged = (sizes[0] * between[one] + sizes[1] * between[other]) / sum(sizes)
        merged[one] = -np.inf
        between[one], between[:, one] = merged, merged
        between[other], between[:, other] = -np.inf, -np.inf
        groups[one], groups[other] = sorted(groups[one] + groups[other]), []
        again = np.flatnonzero((partner == one) | (partner == other))
        again = np.unique([*again, one, other])
        partner[again] = between[again].argmax(1)
        best[again] = between[again, partner[again]]
    return [group for group in groups if group]
