"""A pruned graph to Cytoscape elements: placed by `cltdb.database.display.layered`."""

from cltdb.database.display.layered import (
    INK,
    KIND_COLOURS,
    LABEL_CHARS,
    PROMOTES,
    SUPPRESSES,
    Spacing,
    describe,
    edge_width,
    node_label,
    place,
    strength,
)
from cltdb.database.display.words import is_number, token_text

SPACING = Spacing(node_gap=30, sub_row_gap=24, max_per_row=6, min_column=84, min_row=78, aspect=0.6)  # fills a wide window
MAX_DRAWN_EDGES = 1500

STYLESHEET = [
    {
        "selector": "node",
        "style": {
            "width": 17,
            "height": 17,
            "background-color": KIND_COLOURS["feature"],
            "border-width": 0,
            "font-family": "system-ui, Liberation Sans, sans-serif",
            "font-size": 13,
            "color": INK,
        },
    },
    {"selector": ".feature", "style": {"shape": "ellipse", "background-opacity": "data(strength)"}},
    {"selector": ".error", "style": {"shape": "diamond", "background-color": KIND_COLOURS["error"], "width": 13, "height": 13}},
    {"selector": ".embedding", "style": {"shape": "round-rectangle", "background-color": KIND_COLOURS["embedding"]}},
    {
        "selector": ".logit",
        "style": {
            "shape": "round-hexagon",
            "background-color": KIND_COLOURS["logit"],
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


def elements(nodes, edges, *, tokens):
    """Cytoscape elements of pruned nodes and edges. tokens [pos]: the prompt's token strings."""
    placed = place(nodes, len(tokens), SPACING)
    largest = max((value for value in nodes["influence"] if is_number(value)), default=0.0)
    drawn = [
        {
            "data": {
                "id": node_key(node["node_id"]),
                "label": node_label(node) if node["kind"] == "logit" else "",
                "title": describe(node),
                "strength": strength(node["influence"], largest),
            },
            "classes": node["kind"],
            "position": {"x": x, "y": -y},
        }
        for node, x, y in placed.nodes
    ]
    scale = max((abs(weight) for weight in edges["weight"] if is_number(weight)), default=0.0)
    return drawn + _axis(tokens, placed) + [_edge(edge, scale) for edge in edges.to_dicts()]


def _axis(tokens, placed):
    """The prompt under the columns and the layers beside the rows, as labels that cannot be clicked."""
    left = min(placed.columns.values(), default=0) - SPACING.min_column / 2
    below = [
        ("token", position, placed.columns[position], 34, token_text(string, limit=LABEL_CHARS))
        for position, string in enumerate(tokens)
    ]
    beside = [("row", row, left, -placed.rows[row], name) for row, name in placed.row_names.items()]
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
    return {
        "data": {
            "id": f"e{edge['source_id']}-{edge['target_id']}",
            "source": node_key(edge["source_id"]),
            "target": node_key(edge["target_id"]),
            "width": edge_width(edge["weight"], scale),
        },
        "classes": "suppresses" if is_number(edge["weight"]) and edge["weight"] < 0 else "promotes",
    }


def highlight(selected):
    """The stylesheet with one node (its Cytoscape id) and its edges brought forward."""
    if selected is None:
        return STYLESHEET
    return [
        *STYLESHEET,
        {"selector": "edge", "style": {"opacity": 0.12}},
        {"selector": f'edge[source = "{selected}"], edge[target = "{selected}"]', "style": {"opacity": 0.95, "z-index": 9}},
        {
            "selector": f'node[id = "{selected}"]',
            "style": {"border-width": 3, "border-color": KIND_COLOURS["logit"], "background-opacity": 1},
        },
    ]
