"""A pruned graph to Cytoscape elements: token position by layer, embeddings at the bottom, logits on top."""

import polars as pl

from dashboards.components import is_number, number, percent, token_text

NODE_GAP, MIN_ROW, MIN_COLUMN = 30, 78, 84  # in pixels of the unzoomed drawing
ASPECT = 0.6  # height over width that fills a wide window
MAX_PER_ROW = 6
SUBROW_GAP = 24
MAX_DRAWN_EDGES = 1500
LABEL_CHARS = 14

PROMOTES, SUPPRESSES, INK = "#2a9d8f", "#d1603d", "#7d8590"
FEATURE, ERROR, EMBEDDING, LOGIT = "#3f8fb0", "#9aa0a6", "#c77d1e", "#8a63b8"

STYLESHEET = [
    {
        "selector": "node",
        "style": {
            "width": 17,
            "height": 17,
            "background-color": FEATURE,
            "border-width": 0,
            "font-family": "system-ui, Liberation Sans, sans-serif",
            "font-size": 13,
            "color": INK,
        },
    },
    {"selector": ".feature", "style": {"shape": "ellipse", "background-opacity": "data(strength)"}},
    {"selector": ".error", "style": {"shape": "diamond", "background-color": ERROR, "width": 13, "height": 13}},
    {"selector": ".embedding", "style": {"shape": "round-rectangle", "background-color": EMBEDDING}},
    {
        "selector": ".logit",
        "style": {
            "shape": "round-hexagon",
            "background-color": LOGIT,
            "label": "data(label)",
            "text-valign": "top",
            "text-margin-y": -5,
            "text-rotation": -0.5,
            "text-halign": "right",
            "text-margin-x": -8,
        },
    },
    {
        "selector": ".axis",
        "style": {
            "label": "data(label)",
            "background-opacity": 0,
            "events": "no",
            "text-valign": "center",
            "font-size": 14,
        },
    },
    {"selector": ".axis.row", "style": {"text-halign": "left", "font-size": 12}},
    {
        "selector": "edge",
        "style": {
            "curve-style": "straight",
            "width": "data(width)",
            "line-color": PROMOTES,
            "opacity": 0.5,
        },
    },
    {"selector": ".suppresses", "style": {"line-color": SUPPRESSES}},
]


def node_key(node_id):
    """The Cytoscape id of a node."""
    return f"n{node_id}"


def strongest(edges, *, limit=MAX_DRAWN_EDGES):
    """At most `limit` edges, those of the largest influence."""
    order = pl.col("influence").fill_nan(0).fill_null(0)
    return edges.sort(order, pl.col("source_id"), pl.col("target_id"), descending=[True, False, False]).head(limit)


def elements(nodes, edges, *, tokens):
    """Cytoscape elements of pruned nodes and edges. tokens [pos]: the prompt's token strings."""
    n_layers = _n_layers(nodes)
    cells = _cells(nodes, n_layers)
    columns = _column_centres(cells, len(tokens))
    width = max(columns.values(), default=0) - min(columns.values(), default=0)
    rows = _row_heights(cells, n_layers, row_gap=max(MIN_ROW, ASPECT * width / (n_layers + 1)))
    strongest_node = max((value for value in nodes["influence"] if is_number(value)), default=0.0)
    drawn = [
        {
            "data": {
                "id": node_key(node["node_id"]),
                "label": node_label(node) if node["kind"] == "logit" else "",
                "title": describe(node),
                "strength": round(_strength(node["influence"], strongest_node), 3),
            },
            "classes": node["kind"],
            "position": {"x": columns[position] + dx, "y": -rows[row] - dy},
        }
        for (row, position), members in cells.items()
        for node, (dx, dy) in zip(members, _offsets(len(members)), strict=True)
    ]
    scale = max((abs(weight) for weight in edges["weight"] if is_number(weight)), default=0.0)
    return drawn + _axis(tokens, columns, rows, n_layers) + [_edge(edge, scale) for edge in edges.to_dicts()]


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
    return f"{line} — {node['text'][:200]}" if node["text"] else line


def _n_layers(nodes):
    """How many layers the drawing needs."""
    highest = nodes.filter(pl.col("kind").is_in(["feature", "error"]))["layer"].max()
    return 0 if highest is None else highest + 1


def _cells(nodes, n_layers):
    """{(row, position): nodes}: row 0 holds embeddings, row 1 + layer features and errors, the last one logits."""
    cells = {}
    for node in nodes.sort("node_id").to_dicts():
        row = {"embedding": 0, "logit": n_layers + 1}.get(node["kind"])
        row = 1 + node["layer"] if row is None else row
        cells.setdefault((row, node["position"] or 0), []).append(node)
    return cells


def _offsets(n):
    """Places of n nodes in a cell, centred, in sub-rows of at most MAX_PER_ROW."""
    places = []
    for first in range(0, n, MAX_PER_ROW):
        width = min(MAX_PER_ROW, n - first)
        places += [((i - (width - 1) / 2) * NODE_GAP, first // MAX_PER_ROW * SUBROW_GAP) for i in range(width)]
    return places


def _column_centres(cells, n_tokens):
    """x of every position: a column is as wide as its widest cell."""
    widest = {}
    for (_, position), members in cells.items():
        widest[position] = max(widest.get(position, 0), min(len(members), MAX_PER_ROW))
    centres, left = {}, 0.0
    for position in range(max([n_tokens, *(p + 1 for p in widest)])):
        width = max(MIN_COLUMN, widest.get(position, 0) * NODE_GAP + NODE_GAP)
        centres[position] = left + width / 2
        left += width
    return centres


def _row_heights(cells, n_layers, *, row_gap):
    """Height of every row above the embeddings: rows are `row_gap` apart, more where a cell is full."""
    fullest = {}
    for (row, _), members in cells.items():
        fullest[row] = max(fullest.get(row, 1), -(-len(members) // MAX_PER_ROW))
    heights, height = {}, 0.0
    for row in range(n_layers + 2):
        heights[row] = height
        height += row_gap + (fullest.get(row, 1) - 1) * SUBROW_GAP
    return heights


def _axis(tokens, columns, rows, n_layers):
    """The prompt under the columns and the layers beside the rows, as labels that cannot be clicked."""
    names = {0: "tokens", n_layers + 1: "logits"} | {1 + layer: f"layer {layer}" for layer in range(n_layers)}
    left = min(columns.values(), default=0) - MIN_COLUMN / 2
    below = [
        ("token", position, columns[position], 34, token_text(string, limit=LABEL_CHARS))
        for position, string in enumerate(tokens)
    ]
    beside = [("row", row, left, -rows[row], name) for row, name in names.items()]
    return [
        {
            "data": {"id": f"{kind}{index}", "label": label},
            "classes": f"axis {kind}",
            "position": {"x": x, "y": y},
            "selectable": False,
            "grabbable": False,
        }
        for kind, index, x, y, label in below + beside
    ]


def _edge(edge, scale):
    weight = edge["weight"] if is_number(edge["weight"]) else 0.0
    return {
        "data": {
            "id": f"e{edge['source_id']}-{edge['target_id']}",
            "source": node_key(edge["source_id"]),
            "target": node_key(edge["target_id"]),
            "width": round(0.5 + 5.5 * (abs(weight) / scale if scale else 0.0), 2),
        },
        "classes": "promotes" if weight >= 0 else "suppresses",
    }


def _strength(influence, largest):
    """Opacity of a feature: 0.35 without influence, 1 for the strongest."""
    return 0.35 + 0.65 * (influence / largest) ** 0.5 if is_number(influence) and influence > 0 and largest > 0 else 0.35


def highlight(selected):
    """The stylesheet with one node (its Cytoscape id) and its edges brought forward."""
    if selected is None:
        return STYLESHEET
    return [
        *STYLESHEET,
        {"selector": "edge", "style": {"opacity": 0.12}},
        {"selector": f'edge[source = "{selected}"], edge[target = "{selected}"]', "style": {"opacity": 0.95, "z-index": 9}},
        {"selector": f'node[id = "{selected}"]', "style": {"border-width": 3, "border-color": LOGIT, "background-opacity": 1}},
    ]
