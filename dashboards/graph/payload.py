"""The nodes of a graph as the browser gets them: columns of plain JSON."""

import math
import re

from cltdb.database.display.layered import describe, node_label, tokens_of
from cltdb.database.display.words import token_text, visible

MAX_LABEL_CHARS = 20
QUOTES = str.maketrans("", "", "\"'“”‘’")
MAX_NODES = 20_000
"""So many nodes are sent, the most influential ones and all logits and embeddings."""


def graph_data(graph, *, graph_id, prompt, node_share, edge_share):
    """What store `graph-data` holds. graph: `stored.StoredGraph`; shares: where the sliders stand without a word in the address."""
    nodes = graph.nodes
    if nodes.height > MAX_NODES:
        order = nodes.with_row_index("row").sort(nodes["kind"].is_in(["logit", "embedding"]), nodes["influence"], descending=True)
        nodes = order.head(MAX_NODES).sort("node_id")
    rows = nodes.to_dicts()
    tokens = [token_text(string) for string in tokens_of(graph.nodes)]
    layers = [row["layer"] for row in rows if row["kind"] in ("feature", "error")]
    return {
        "graph_id": graph_id,
        "dict_id": graph.dict_id,
        "prompt": visible(prompt or ""),
        "tokens": tokens,
        "n_layers": max(layers, default=-1) + 1,
        "total_nodes": graph.nodes.height,
        "total_edges": graph.n_edges,
        "node_share": node_share,
        "edge_share": edge_share,
        "nodes": {
            "id": [row["node_id"] for row in rows],
            "kind": [row["kind"] for row in rows],
            "layer": [row["layer"] for row in rows],
            "position": [row["position"] for row in rows],
            "feature": [row["feature"] for row in rows],
            "activation": [_number(row["activation"]) for row in rows],
            "influence": [_number(row["influence"]) for row in rows],
            "probability": [_number(row["probability"]) for row in rows],
            "label": [short_label(row) for row in rows],
            "title": [describe(row) for row in rows],
        },
    }


def short_label(node):
    """What stands beside a node's mark: at most MAX_LABEL_CHARS characters of its explanation, else the token it promotes, else what it is."""
    if node["kind"] == "feature" and not node["text"] and node["promotes"]:
        return f"→ {token_text(node['promotes'].strip() or node['promotes'], limit=MAX_LABEL_CHARS - 2)}"
    if node["kind"] != "feature" or not node["text"]:
        return node_label(node)
    text = re.sub(r"^fires on ", "", visible(node["text"]).strip()).translate(QUOTES)
    if len(text) <= MAX_LABEL_CHARS:
        return text
    cut = text[: MAX_LABEL_CHARS - 1]
    words = cut.rpartition(" ")[0].rstrip(" ,;:.")
    return f"{words if len(words) > MAX_LABEL_CHARS // 2 else cut}…"


def _number(value):
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else None
