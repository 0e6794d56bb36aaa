"""What the graph page says of the selected node: pure functions of rows and frames."""

from dash import dcc, html

from cltdb.database.display.layered import node_label
from cltdb.database.display.words import is_number, number, percent, token_text, visible
from dashboards.components import score_badge, stat, stats
from dashboards.drawn import drawn, plain
from dashboards.feature.contexts import snippets
from dashboards.graph.names import name
from dashboards.own import own
from dashboards.urls import feature_url

N_EDGES, N_MORE_EDGES, N_SNIPPETS = 8, 40, 3


def node_card(node, *, dict_id, inputs, outputs, contexts=None):
    """The card of a node, a row of graph_nodes.

    inputs, outputs: its edges in the unpruned graph, as `edge_list` has them. contexts: frame of the windows of its feature, where it is one
    of a known dictionary.
    """
    shown = html.Div(
        [
            html.P(f"{node['kind']} {_where(node)}", className="quiet"),
            *(_feature(node, dict_id=dict_id, contexts=contexts) if node["kind"] == "feature" else [html.H2(_title(node))]),
            _actions(node),
            own(dict_id=dict_id, layer=node["layer"], feature=node["feature"], node=node["node_id"]),
            _numbers(node),
            html.H3("Strongest inputs"),
            edge_list(inputs, "strongest inputs"),
            html.H3("Strongest outputs"),
            edge_list(outputs, "strongest outputs"),
        ],
        className="node-card",
    )
    return plain(shown)


def hint():
    """The card before anything was clicked."""
    shown = html.Div(
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
    return plain(shown)


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


def _feature(node, *, dict_id, contexts):
    scale = max(
        [value for value in (contexts["max_activation"] if contexts is not None else []) if is_number(value)], default=0.0
    )
    shown = contexts.head(N_SNIPPETS).to_dicts() if contexts is not None else []
    feature = f"Feature {node['layer']}:{node['feature']}"
    page = feature if dict_id is None else dcc.Link(f"{feature} →", href=feature_url(dict_id, node["layer"], node["feature"]))
    return [
        html.H2([node["text"] or "Not explained", " ", score_badge(node["score"])]),
        html.P(page),
        snippets(shown, scale=scale),
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


def edge_list(ends, called):
    """The edges of a node: frame of named query node_edges with `own` (`names.with_names`), the strongest first; called: to a screen reader."""
    rows = ends.to_dicts()
    scale = max((abs(row["weight"]) for row in rows), default=0.0)
    return drawn("ends", {"ends": [_end(row, scale) for row in rows], "n_first": N_EDGES}, name=called)


def _end(row, scale):
    """An edge as assets/graph/ends.js draws it: the node at its other end, and its weight."""
    return {
        "node": row["node_id"],
        "name": name(row),
        "text": visible(row["text"]) if row["text"] else None,
        "weight": number(row["weight"]),
        "measured": f"measured {number(row['measured'])}" if is_number(row["measured"]) else None,
        "share": f"{abs(row['weight']) / scale if scale else 0:.3f}",
        "tone": "promotes" if row["weight"] >= 0 else "suppresses",
    }
