"""An attribution graph: choose it, prune it with two sliders, click a node for its card."""

import dash
import dash_cytoscape as cyto
import polars as pl
from dash import Input, Output, State, callback, clientside_callback, dcc, html, no_update

from cltdb.database.display.layered import strongest, tokens_of
from cltdb.database.display.words import is_number, number, percent
from cltdb.errors import CltdbError
from cltdb.graphs.stored_graph import prune_stored
from dashboards import data, graph_elements, node_card
from dashboards.components import error_notice, notice, stat, stats
from dashboards.urls import ATTRIBUTE, GRAPH, LOCATION, address, graph_url

dash.register_page(__name__, path=GRAPH, path_template=f"{GRAPH}/<graph_id>", name="Graphs", title="Graphs · cltdb", order=3)
QUERIES = ("graph_list", "graph_nodes", "graph_edges", "feature_card", "feature_contexts")

SELECT, NODE_SHARE, EDGE_SHARE = "graph-select", "graph-node-share", "graph-edge-share"
DRAWING, CAPTION, HOVER, CARD = "graph-drawing", "graph-caption", "graph-hover", "graph-card"
DEFAULT_NODE_SHARE, DEFAULT_EDGE_SHARE = 0.8, 0.98
HOVER_HINT = "Point at a node to read it, click it for its card."

_SHOW_TITLE = f"function (node) {{ return node && node.title ? node.title : {HOVER_HINT!r}; }}"


def layout(graph_id=None, **_):
    """The page of a graph, of the first one where none is named."""
    graphs = data.query("graph_list")
    if graphs.is_empty():
        do = "Run `cltdb attribute SPEC --prompt TEXT`, or list prompts under `attribute` in the spec and run it."
        return notice("No attribution graph yet", do)
    chosen = graphs.filter(pl.col("graph_id") == graph_id) if graph_id else graphs.head(1)
    if chosen.is_empty():
        return notice(f"There is no graph {graph_id}", 'Choose one on the page Graphs, or see `cltdb sql "FROM graphs"`.')
    options = [
        {"label": f"{row['prompt'] or row['graph_id']} → {row['top_logit'] or '?'}", "value": row["graph_id"]}
        for row in graphs.to_dicts()
    ]
    return view(options, row=chosen.to_dicts()[0])


def view(options, *, row):
    """Controls, drawing and card. row: of named query graph_list."""
    node_share = row["node_threshold"] if is_number(row["node_threshold"]) else DEFAULT_NODE_SHARE
    edge_share = row["edge_threshold"] if is_number(row["edge_threshold"]) else DEFAULT_EDGE_SHARE
    drawing = cyto.Cytoscape(
        id=DRAWING,
        elements=[],
        layout={"name": "preset", "fit": True, "padding": 24},
        stylesheet=graph_elements.STYLESHEET,
        style={"width": "100%", "height": "100%"},
        minZoom=0.1,
        maxZoom=4,
        responsive=True,
    )
    return html.Main(
        [
            html.H1(["Attribution graph", html.Small(dcc.Link("attribute another prompt", href=address(ATTRIBUTE)))]),
            html.Div(
                [
                    html.Label(
                        ["Prompt", dcc.Dropdown(options, row["graph_id"], id=SELECT, clearable=False, maxHeight=420)],
                        className="wide prompt",
                    ),
                    _share("Nodes: share of influence kept", NODE_SHARE, node_share),
                    _share("Edges: share of influence kept", EDGE_SHARE, edge_share),
                ],
                className="controls",
            ),
            scores(row),
            html.Div(
                [
                    html.Figure(
                        [
                            html.Figcaption(id=CAPTION),
                            html.Div(drawing, className="canvas"),
                            html.P(HOVER_HINT, id=HOVER, className="reading quiet"),
                        ]
                    ),
                    html.Aside(node_card.hint(), id=CARD),
                ],
                className="columns graph",
            ),
        ],
        className="graph-page",
    )


def _share(label, component_id, value):
    marks = {share / 100: f"{share} %" for share in (0, 50, 100)}
    slider = dcc.Slider(0, 1, 0.01, value=value, id=component_id, marks=marks, updatemode="mouseup", allow_direct_input=False)
    return html.Div([html.Span(label), slider], className="slider")


def scores(row):
    """How far the graph accounts for the model's answer."""
    return stats(
        stat("top logit", f"{row['top_logit'] or '?'} {percent(row['top_probability'])}"),
        stat(
            "replacement",
            number(row["replacement_score"]),
            hint="share of the influence that enters at tokens rather than errors",
        ),
        stat("completeness", number(row["completeness_score"]), hint="share of the nodes' input that is not error"),
        stat("replacement, pruned", number(row["pruned_replacement_score"]), hint="at the thresholds of the spec"),
        stat("completeness, pruned", number(row["pruned_completeness_score"]), hint="at the thresholds of the spec"),
        stat(
            "path length",
            number(row["mean_path_length"]),
            hint="mean number of edges from a token to the answer, weighted by influence",
        ),
        stat(
            "ablations",
            number(row["ablation_spearman"]),
            hint=f"Spearman correlation of influence with the measured effect of ablation, {row['n_ablations'] or 0} features",
        ),
        stat("nodes", number(row["n_nodes"])),
        stat("edges", number(row["n_edges"])),
        stat("largest error", number(row["max_abs_error"]), hint="largest difference between an identity's two sides"),
    )


def draw(graph, *, node_share, edge_share):
    """(elements, caption) of a graph pruned to these shares of influence."""
    shares = {"node_threshold": node_share, "edge_threshold": edge_share}
    pruned = prune_stored(graph.nodes, graph.edges, **shares, total_influence=graph.total_influence)
    nodes, edges = pruned.nodes, pruned.edges
    drawn = strongest(edges, limit=graph_elements.MAX_DRAWN_EDGES)
    caption = (
        f"{number(nodes.height)} of {number(graph.nodes.height)} nodes ({percent(node_share)} of their influence), "
        f"{number(edges.height)} of {number(graph.edges.height)} edges ({percent(edge_share)})"
    )
    if drawn.height < edges.height:
        caption += f"; the {number(drawn.height)} most influential edges are drawn"
    return graph_elements.elements(nodes, drawn, tokens=tokens_of(graph.nodes)), caption


def card_of(graph_id, node_key):
    """The card of the node that was clicked, from what the database holds."""
    graph = data.graph(graph_id)
    node = next(row for row in graph.nodes.to_dicts() if graph_elements.node_key(row["node_id"]) == node_key)
    if node["kind"] != "feature" or graph.dict_id is None:
        return node_card.node_card(node, graph, dict_id=graph.dict_id)
    key = {"dict_id": graph.dict_id, "layer": node["layer"], "feature": node["feature"]}
    with data.session():
        card, contexts = data.query("feature_card", **key), data.query("feature_contexts", band="top", **key)
    return node_card.node_card(node, graph, dict_id=graph.dict_id, card=card, contexts=contexts)


@callback(Output(LOCATION, "pathname"), Input(SELECT, "value"), State(LOCATION, "pathname"), prevent_initial_call=True)
def go(graph_id, pathname):
    url = graph_url(graph_id)
    return no_update if url == pathname else url


@callback(
    Output(DRAWING, "elements"),
    Output(CAPTION, "children"),
    Input(NODE_SHARE, "value"),
    Input(EDGE_SHARE, "value"),
    State(SELECT, "value"),
)
def prune_and_draw(node_share, edge_share, graph_id):
    try:
        return draw(data.graph(graph_id or ""), node_share=node_share, edge_share=edge_share)
    except CltdbError as error:
        return [], str(error)


@callback(
    Output(CARD, "children"),
    Output(DRAWING, "stylesheet"),
    Input(DRAWING, "tapNodeData"),
    State(SELECT, "value"),
    prevent_initial_call=True,
)
def show_card(node, graph_id):
    if not node:
        return node_card.hint(), graph_elements.highlight(None)
    try:
        return card_of(graph_id, node["id"]), graph_elements.highlight(node["id"])
    except CltdbError as error:
        return error_notice(error), no_update


clientside_callback(_SHOW_TITLE, Output(HOVER, "children"), Input(DRAWING, "mouseoverNodeData"), prevent_initial_call=True)
