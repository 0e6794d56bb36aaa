"""What the graph page says of the node one clicked: pure functions of frames."""

import polars as pl
from dash import dcc, html

from cltdb.database.display.layered import node_label
from cltdb.database.display.words import is_number, number, percent, token_text
from dashboards.components import score_badge, stat, stats, window
from dashboards.urls import feature_url

N_EDGES, N_SNIPPETS = 8, 3


def node_card(node, graph, *, dict_id, card=None, contexts=None):
    """The card of a node (a row of graph_nodes); `card`, `contexts`: frames of its feature, where it is one."""
    return html.Div(
        [
            html.P(f"{node['kind']} {_where(node)}", className="quiet"),
            *(
                _feature(node, dict_id=dict_id, card=card, contexts=contexts)
                if node["kind"] == "feature"
                else [html.H2(_title(node))]
            ),
            _numbers(node),
            html.H3("Strongest inputs"),
            edge_list(node, graph, incoming=True),
            html.H3("Strongest outputs"),
            edge_list(node, graph, incoming=False),
        ],
        className="node-card",
    )


def hint():
    """The card before anything was clicked."""
    return html.Div(
        [
            html.H2("Click a node"),
            html.P("Its explanation, contexts and strongest edges appear here.", className="quiet"),
            html.Ul(
                [
                    html.Li([html.Span(className=f"key {kind}"), text])
                    for kind, text in {
                        "feature": "feature, darker with influence",
                        "error": "error: what the dictionary does not explain",
                        "embedding": "token embedding",
                        "logit": "logit",
                        "promotes": "edge that raises its target",
                        "suppresses": "edge that lowers its target",
                    }.items()
                ],
                className="legend",
            ),
        ],
        className="node-card",
    )


def _where(node):
    place = f"at position {node['position']} “{token_text(node['string'])}”"
    return f"of layer {node['layer']} {place}" if node["layer"] is not None else place if node["kind"] == "embedding" else ""


def _title(node):
    return "Reconstruction error" if node["kind"] == "error" else node_label(node)


def _feature(node, *, dict_id, card, contexts):
    score = card["score"][0] if card is not None and not card.is_empty() else None
    scale = max(
        [value for value in (contexts["max_activation"] if contexts is not None else []) if is_number(value)], default=0.0
    )
    snippets = contexts.head(N_SNIPPETS).to_dicts() if contexts is not None else []
    name = f"Feature {node['layer']}:{node['feature']}"
    link = name if dict_id is None else dcc.Link(f"{name} →", href=feature_url(dict_id, node["layer"], node["feature"]))
    return [
        html.H2([node["text"] or "Not explained", " ", score_badge(score)]),
        html.P(link),
        html.Div([window(row, scale=scale) for row in snippets], className="snippets"),
    ]


def _numbers(node):
    items = [stat("influence", number(node["influence"]), hint="on the logits, in the unpruned graph")]
    if node["kind"] == "feature":
        items = [stat("activation", number(node["activation"])), *items]
    if node["kind"] == "logit":
        items = [
            stat("probability", percent(node["probability"])),
            stat("logit", number(node["pre_activation"]), hint="demeaned"),
        ]
    if is_number(node["bias"]):
        items.append(stat("bias", number(node["bias"]), hint="the part no edge brings"))
    if is_number(node["dropped_mass"]) and node["dropped_mass"] > 0:
        items.append(
            stat("left out", number(node["dropped_mass"]), hint="sum of the absolute weights of inputs below the threshold")
        )
    return stats(*items)


def edge_list(node, graph, *, incoming):
    """The strongest edges of a node in the unpruned graph, by absolute weight."""
    end, other = ("target_id", "source_id") if incoming else ("source_id", "target_id")
    edges = graph.edges.filter((pl.col(end) == node["node_id"]) & pl.col("weight").is_not_nan())
    edges = edges.sort(pl.col("weight").abs(), pl.col(other), descending=[True, False]).head(N_EDGES)
    if edges.is_empty():
        return html.P("none", className="quiet")
    ends = edges.join(graph.nodes, left_on=other, right_on="node_id", how="left", suffix="_node").to_dicts()
    scale = max(abs(row["weight"]) for row in ends)
    return html.Ol([_edge(row, scale) for row in ends], className="edge-list")


def _edge(row, scale):
    measured = f"measured {number(row['measured'])}" if is_number(row["measured"]) else "not measured by intervention"
    text = row["text"] if row["kind"] == "feature" and row["text"] else ""
    at = f" @ {token_text(row['string'])}" if row["kind"] in ("feature", "error") else ""
    return html.Li(
        [
            html.Span([html.B(f"{node_label(row)}{at}"), f" {text}"], className="what"),
            html.Span(number(row["weight"]), className="value"),
        ],
        className="promotes" if row["weight"] >= 0 else "suppresses",
        style={"--share": f"{abs(row['weight']) / scale if scale else 0:.3f}"},
        title=measured,
    )
