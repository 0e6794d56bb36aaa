"""The features around one feature, whatever the input, as a small graph to walk: layers from left to right, a click goes to that feature."""

import dash_cytoscape as cyto

from cltdb.database.display.words import is_number, number, visible
from dashboards.urls import feature_url

COLUMN, ROW, MARGIN = 204, 46, 16  # pixels between the middles of two columns, of two rows; around all
NODE_WIDTH, NODE_HEIGHT = 168, 36
LABEL_CHARS = 46  # two lines of a node
N_SIMILAR = 4
STYLESHEET = [
    {
        "selector": "node",
        "style": {
            "shape": "round-rectangle", "width": NODE_WIDTH, "height": NODE_HEIGHT, "background-color": "#2b6a78", "label": "data(label)",
            "color": "#ffffff", "font-size": 12, "font-family": "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif", "text-valign": "center",
            "text-wrap": "wrap", "text-max-width": NODE_WIDTH - 10, "line-height": 1.1,
        },
    },
    {"selector": "node.here", "style": {"background-color": "#8a4b12", "font-weight": "bold"}},
    {"selector": "node.similar", "style": {"background-color": "#5d5a78"}},
    {
        "selector": "edge",
        "style": {
            "width": "data(width)", "curve-style": "bezier", "line-color": "#2a9d8f", "target-arrow-color": "#2a9d8f", "target-arrow-shape": "triangle",
            "arrow-scale": 0.8,
        },
    },
    {"selector": "edge.negative", "style": {"line-color": "#d1603d", "target-arrow-color": "#d1603d"}},
    {"selector": "edge.similar", "style": {"line-style": "dashed", "target-arrow-shape": "none", "line-color": "#7d8590"}},
]  # fmt: skip


def neighbourhood(card, connected, similar, *, id):
    """The graph of a feature (a row of feature_card), of rows of top_neighbours and of nearest_features; None where it has no neighbour."""
    found = elements(card, connected, similar)
    if len(found) < 2:
        return None
    xs, ys = zip(*((one["position"]["x"], one["position"]["y"]) for one in found if "position" in one), strict=True)
    size = {"width": max(xs) + NODE_WIDTH / 2 + MARGIN, "height": max(ys) + NODE_HEIGHT / 2 + MARGIN}
    return cyto.Cytoscape(
        id=id, elements=found, layout={"name": "preset", "fit": False}, stylesheet=STYLESHEET, style={name: f"{value:.0f}px" for name, value in size.items()},
        zoom=1, pan={"x": 0, "y": 0}, userZoomingEnabled=False, userPanningEnabled=False, autoungrabify=True, boxSelectionEnabled=False,
    )  # fmt: skip


def elements(card, connected, similar):
    """Nodes and edges: a column per layer, in it the strongest at the top; this feature in the middle of its column, between those whose
    decoders are like its own."""
    here = (card["layer"], card["feature"])
    near = [row for row in similar if is_number(row["cosine"])][:N_SIMILAR]
    own = [(here[0], row["neighbour"]) for row in near]
    columns = {here[0]: [*own[: len(own) // 2], here, *own[len(own) // 2 :]]}
    texts = {here: card["text"], **{key: row["text"] for key, row in zip(own, near, strict=True)}}
    edges = []
    for row in connected:
        key = (row["layer"], row["feature"])
        if key not in texts:
            columns.setdefault(key[0], []).append(key)
            texts[key] = row["text"]
        ends = (key, here) if row["direction"] == "from" else (here, key)
        edges.append((*ends, row["twera"], ""))
    edges += [(here, key, row["cosine"], "similar") for key, row in zip(own, near, strict=True)]
    return [*_nodes(columns, texts, here, card["dict_id"]), *_edges(edges)]


def _nodes(columns, texts, here, dict_id):
    most = max(len(keys) for keys in columns.values())
    for column, layer in enumerate(sorted(columns)):
        keys = columns[layer]
        for row, key in enumerate(keys):
            name = f"{key[0]}:{key[1]}"
            text = visible(texts[key] or "not explained")
            room = LABEL_CHARS - len(name) - 1
            place = {
                "x": MARGIN + NODE_WIDTH / 2 + COLUMN * column,
                "y": MARGIN + NODE_HEIGHT / 2 + ROW * (row + (most - len(keys)) / 2),
            }
            yield {
                "data": {
                    "id": name,
                    "label": f"{name} {text if len(text) <= room else text[: room - 1] + '…'}",
                    "href": None if key == here else feature_url(dict_id, *key),
                },
                "position": place,
                "classes": "here" if key == here else "similar" if key[0] == here[0] else "",
            }


def _edges(edges):
    scale = max((abs(weight) for *_, weight, kind in edges if is_number(weight) and not kind), default=1.0) or 1.0
    for source, target, weight, kind in edges:
        known = weight if is_number(weight) else 0.0
        yield {
            "data": {
                "source": f"{source[0]}:{source[1]}",
                "target": f"{target[0]}:{target[1]}",
                "width": 1.5 if kind else round(1 + 4 * abs(known) / scale, 2),
                "hint": f"{'cosine' if kind else 'TWERA'} {number(weight)}",
            },
            "classes": kind or ("negative" if known < 0 else ""),
        }
