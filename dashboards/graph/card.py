"""What the graph page says of the selected node: pure functions of rows and frames."""

from dash import dcc, html

from cltdb.database.display.layered import node_label
from cltdb.database.display.words import is_number, number, percent, token_text
from dashboards.components import score_badge, stat, stats, window
from dashboards.graph.walk import link, name
from dashboards.urls import feature_url

N_EDGES, N_MORE_EDGES, N_SNIPPETS = 8, 40, 3


def node_card(node, *, dict_id, inputs, outputs, card=None, contexts=None):
    """The card of a node, a row of graph_nodes.

    inputs, outputs: its edges in the unpruned graph, rows of named query node_edges, the strongest first. card, contexts: frames of its
    feature, where it is one of a known dictionary.
    """
    return html.Div(
        [
            html.P(f"{node['kind']} {_where(node)}", className="quiet"),
            *(
                _feature(node, dict_id=dict_id, card=card, contexts=contexts)
                if node["kind"] == "feature"
                else [html.H2(_title(node))]
            ),
            _actions(node),
            _numbers(node),
            html.H3("Strongest inputs"),
            edge_list(inputs),
            html.H3("Strongest outputs"),
            edge_list(outputs),
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
                        "feature": "feature, larger with influence",
                        "error": "error: what the dictionary does not explain",
                        "embedding": "token embedding",
                        "logit": "answer",
                        "promotes": "edge that raises its target",
                        "suppresses": "edge that lowers its target",
                    }.items()
                ],
                className="legend",
            ),
            html.P(
                "Keys: arrows walk, Enter selects, p pins, h hides, g groups, / searches, Esc clears. Shift+drag selects several.",
                className="quiet",
            ),
        ],
        className="node-card",
    )


def _where(node):
    place = f"at position {node['position']} “{token_text(node['string'])}”"
    return f"of layer {node['layer']} {place}" if node["layer"] is not None else place if node["kind"] == "embedding" else ""


def _title(node):
    return "Reconstruction error" if node["kind"] == "error" else node_label(node)


def _actions(node):
    """Buttons that assets/graph/actions.js answers."""
    names = {"pin": "Pin", "hide": "Hide", "from": "Path from here", "to": "Path to here"}
    return html.P(
        [
            html.Button(text, className="button quiet", **{"data-act": act, "data-of": str(node["node_id"])})
            for act, text in names.items()
        ],
        className="actions",
    )


def _feature(node, *, dict_id, card, contexts):
    score = card["score"][0] if card is not None and not card.is_empty() else None
    scale = max(
        [value for value in (contexts["max_activation"] if contexts is not None else []) if is_number(value)], default=0.0
    )
    snippets = contexts.head(N_SNIPPETS).to_dicts() if contexts is not None else []
    feature = f"Feature {node['layer']}:{node['feature']}"
    page = feature if dict_id is None else dcc.Link(f"{feature} →", href=feature_url(dict_id, node["layer"], node["feature"]))
    return [
        html.H2([node["text"] or "Not explained", " ", score_badge(score)]),
        html.P(page),
        html.Div([window(row, scale=scale) for row in snippets], className="snippets"),
    ]


def _numbers(node):
    items = [stat("influence", number(node["influence"]), hint="on the answers, in the unpruned graph")]
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


def edge_list(ends):
    """The edges of a node: frame of named query node_edges. Each other end is a link."""
    if ends.is_empty():
        return html.P("none", className="quiet")
    rows = ends.to_dicts()
    scale = max(abs(row["weight"]) for row in rows)
    first = html.Ol([_edge(row, scale) for row in rows[:N_EDGES]], className="edge-list")
    rest = rows[N_EDGES:]
    if not rest:
        return first
    more = html.Details(
        [html.Summary(f"{len(rest)} more"), html.Ol([_edge(row, scale) for row in rest], className="edge-list")], className="more"
    )
    return html.Div([first, more])


def _edge(row, scale):
    measured = f"measured {number(row['measured'])}" if is_number(row["measured"]) else None
    text = row["text"] if row["kind"] == "feature" and row["text"] else ""
    values = [number(row["weight"]), html.Small(measured, title="what the target loses when an intervention removes the source")]
    return html.Li(
        [
            html.Span([link(row, name(row)), f" {text}"], className="what"),
            html.Span(values if measured else values[:1], className="value"),
        ],
        className="promotes" if row["weight"] >= 0 else "suppresses",
        style={"--share": f"{abs(row['weight']) / scale if scale else 0:.3f}"},
    )
