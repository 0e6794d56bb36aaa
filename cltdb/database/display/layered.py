"""Where the nodes of a pruned graph stand: token position by layer, embeddings at the bottom, logits on top; and what they are called."""

from typing import NamedTuple

import polars as pl

from cltdb.database.display.words import is_number, number, percent, token_text, visible

PROMOTES, SUPPRESSES, INK = "#2a9d8f", "#d1603d", "#7d8590"
KIND_COLOURS = {"feature": "#3f8fb0", "error": "#9aa0a6", "embedding": "#c77d1e", "logit": "#8a63b8"}
LABEL_CHARS = 14


class Spacing(NamedTuple):
    """Distances in pixels of an unzoomed drawing."""

    node_gap: int
    sub_row_gap: int
    max_per_row: int
    """Nodes of one cell side by side; more stand in sub-rows above."""
    min_column: int
    min_row: int
    aspect: float
    """Height over width that rows are spread to, where they would be lower."""


class Placed(NamedTuple):
    """A drawing with y upward from the row of the embeddings."""

    nodes: list
    """(row of the frame as a dict, x, y) of every node."""
    columns: dict
    """{position: x of its centre}."""
    rows: dict
    """{0 for embeddings, 1 + layer, n_layers + 1 for logits: y}."""

    @property
    def row_names(self):
        """{row: what stands in it}."""
        last = max(self.rows)
        return {0: "tokens", last: "logits"} | {row: f"layer {row - 1}" for row in range(1, last)}


def place(nodes, n_tokens, spacing):
    """The `Placed` nodes of a frame of graph_nodes; a column for each of `n_tokens` positions at least."""
    highest = nodes.filter(pl.col("kind").is_in(["feature", "error"]))["layer"].max()
    n_layers = 0 if highest is None else highest + 1
    cells = _cells(nodes, n_layers)
    columns = _column_centres(cells, n_tokens, spacing)
    width = max(columns.values(), default=0) - min(columns.values(), default=0)
    row_gap = max(spacing.min_row, spacing.aspect * width / (n_layers + 1))
    rows = _row_heights(cells, n_layers, row_gap, spacing)
    placed = [
        (node, columns[position] + dx, rows[row] + dy)
        for (row, position), members in cells.items()
        for node, (dx, dy) in zip(members, _offsets(len(members), spacing), strict=True)
    ]
    return Placed(placed, columns, rows)


def _cells(nodes, n_layers):
    """{(row, position): nodes}."""
    cells = {}
    for node in nodes.sort("node_id").to_dicts():
        row = {"embedding": 0, "logit": n_layers + 1}.get(node["kind"])
        row = 1 + node["layer"] if row is None else row
        cells.setdefault((row, node["position"] or 0), []).append(node)
    return cells


def _offsets(n, spacing):
    """Places of n nodes in a cell, centred, in sub-rows of at most `max_per_row`."""
    places = []
    for first in range(0, n, spacing.max_per_row):
        width = min(spacing.max_per_row, n - first)
        height = first // spacing.max_per_row * spacing.sub_row_gap
        places += [((i - (width - 1) / 2) * spacing.node_gap, height) for i in range(width)]
    return places


def _column_centres(cells, n_tokens, spacing):
    """x of every position: a column is as wide as its widest cell."""
    widest = {}
    for (_, position), members in cells.items():
        widest[position] = max(widest.get(position, 0), min(len(members), spacing.max_per_row))
    centres, left = {}, 0.0
    for position in range(max([n_tokens, *(p + 1 for p in widest)])):
        width = max(spacing.min_column, (widest.get(position, 0) + 1) * spacing.node_gap)
        centres[position] = left + width / 2
        left += width
    return centres


def _row_heights(cells, n_layers, row_gap, spacing):
    """Height of every row above the embeddings: rows are `row_gap` apart, more where a cell is full."""
    fullest = {}
    for (row, _), members in cells.items():
        fullest[row] = max(fullest.get(row, 1), -(-len(members) // spacing.max_per_row))
    heights, height = {}, 0.0
    for row in range(n_layers + 2):
        heights[row] = height
        height += row_gap + (fullest.get(row, 1) - 1) * spacing.sub_row_gap
    return heights


def strongest(edges, *, limit):
    """At most `limit` edges, those of the largest influence."""
    order = pl.col("influence").fill_nan(0).fill_null(0)
    return edges.sort(order, pl.col("source_id"), pl.col("target_id"), descending=[True, False, False]).head(limit)


def edge_width(weight, scale):
    """Pixels, 0.5 to 6; `scale`: the largest absolute weight."""
    return round(0.5 + 5.5 * (abs(weight) / scale if is_number(weight) and scale else 0.0), 2)


def strength(influence, largest):
    """Opacity of a feature: 0.35 without influence, 1 for the strongest."""
    share = influence / largest if is_number(influence) and influence > 0 and largest > 0 else 0.0
    return round(0.35 + 0.65 * share**0.5, 3)


def tokens_of(nodes):
    """The prompt's token strings [pos], from the embedding nodes of a graph."""
    embeddings = {n["position"]: n["string"] for n in nodes.filter(pl.col("kind") == "embedding").to_dicts()}
    return [embeddings.get(position) for position in range(max(embeddings, default=-1) + 1)]


def node_label(node):
    """A node in a few words."""
    match node["kind"]:
        case "feature":
            return f"L{node['layer']} · {node['feature']}"
        case "error":
            return f"error L{node['layer']}"
        case "logit":
            return f"{token_text(node['string'], limit=LABEL_CHARS)} {percent(node['probability'])}"
    return f"token “{token_text(node['string'])}”"


def describe(node):
    """A node in one line: what it is, where, and what it means."""
    where = f"position {node['position']} “{token_text(node['string'])}”" if node["kind"] in ("feature", "error") else ""
    parts = [node_label(node), where, f"influence {number(node['influence'])}"]
    if node["kind"] == "feature":
        parts.append(f"activation {number(node['activation'])}")
    line = " · ".join(part for part in parts if part)
    return f"{line} — {visible(node['text'][:200])}" if node["text"] else line
