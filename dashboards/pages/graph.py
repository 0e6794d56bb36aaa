"""An attribution graph: choose it, prune it, walk it, pin, group and name what matters in it. The drawing is assets/graph/drawing.js; what is
selected and shown is the state of the browser, assets/graph_state.js."""

import dash
import polars as pl
from dash import Input, Output, State, callback, clientside_callback, dcc, html, no_update

from cltdb.database.display.words import is_spaced, visible
from cltdb.errors import CltdbError
from dashboards import annotations, data
from dashboards.components import SUBJECT, error_notice, named_by_prompt, notice
from dashboards.drawn import plain
from dashboards.graph import card, ids, input_paths, names, payload, pruned, scores, steering, stored, subgraph, walk
from dashboards.urls import GRAPH, LOCATION, ask_url, compare_url, graph_url

dash.register_page(__name__, path=GRAPH, path_template=f"{GRAPH}/<graph_id>", name="Graphs", title="Graphs · cltdb", order=3)
QUERIES = ("graph_list", "feature_contexts", "input_paths", "path_routes")
DEFAULT_NODE_SHARE, DEFAULT_EDGE_SHARE = 0.8, 0.98
MAX_OPTION_CHARS = 70


def layout(graph_id=None, n=None, e=None, **_):
    """The page of a graph, of the first one where none is named. n, e: shares of influence of nodes and edges, from the address."""
    with data.session():
        graphs = data.query("graph_list")
        if graphs.is_empty():
            do = "Run `cltdb attribute SPEC --prompt TEXT`, or list prompts under `attribute` in the spec and run it."
            return notice("No attribution graph yet", do)
        chosen = graphs.filter(pl.col("graph_id") == graph_id) if graph_id else graphs.head(1)
        if chosen.is_empty():
            return notice(f"There is no graph {graph_id}", 'Choose one on the page Graphs, or see `cltdb sql "FROM graphs"`.')
        row = chosen.to_dicts()[0]
        made = annotations.of_graph(row["graph_id"])
        usual = {
            "node_share": _share(row["node_threshold"], DEFAULT_NODE_SHARE),
            "edge_share": _share(row["edge_threshold"], DEFAULT_EDGE_SHARE),
        }
        asked = {"node_share": _share(n, usual["node_share"]), "edge_share": _share(e, usual["edge_share"])}
        known = payload.graph_data(stored.graph(row["graph_id"]), graph_id=row["graph_id"], prompt=row["prompt"], **usual)
        kept = pruned.pruned_graph(row["graph_id"], **asked)
    return view(_options(graphs), row=row, known=known, kept=kept, made=made, shares=asked)


def _share(given, usual):
    try:
        value = float(given)
    except (TypeError, ValueError):
        return usual
    return value if 0 <= value <= 1 else usual


def _options(graphs):
    """The graphs to choose among: prompt and answer, in few words."""
    short = named_by_prompt(graphs, MAX_OPTION_CHARS)
    return [
        {"label": f"{short[graph_id]} → {answer or '?'}", "value": graph_id, "title": visible(prompt or graph_id)}
        for graph_id, prompt, answer in graphs.select("graph_id", "prompt", "top_logit").iter_rows()
    ]


def view(options, *, row, known, kept, made, shares):
    """The page. row: of named query graph_list; known, kept, made: what the stores begin with; shares: where the sliders stand."""
    return html.Main(
        [
            dcc.Store(id=ids.DATA, data=known),
            dcc.Store(id=ids.PRUNED, data=kept),
            dcc.Store(id=ids.ANNOTATIONS, data=made),
            *(
                dcc.Store(id=name)
                for name in (ids.STATE, ids.SELECTED, ids.PART, ids.PATH, ids.FOUND_PATHS, ids.LISTED, ids.SUBGRAPH)
            ),
            html.Header(
                [
                    _prompt(row, known),
                    scores.summary(row),
                    html.P(id=ids.SCORES, className="quiet"),
                ]
            ),
            html.Div(
                [
                    html.Label(
                        ["Graph", dcc.Dropdown(options, row["graph_id"], id=ids.SELECT, clearable=False, maxHeight=420)],
                        className="wide",
                    ),
                    _slider("Nodes: share of influence kept", ids.NODE_SHARE, shares["node_share"]),
                    _slider("Edges: share of influence kept", ids.EDGE_SHARE, shares["edge_share"]),
                    *_fields(),
                ],
                className="controls",
            ),
            html.Div(
                [
                    html.Figure(
                        [
                            html.Div([html.Figcaption(kept["caption"], id=ids.CAPTION), _tools(row)], className="above-drawing"),
                            html.Div(id=ids.DRAWING, className="drawing"),
                        ]
                    ),
                    _panels(
                        node=("Node", html.Div(card.hint(), id=ids.CARD, **{"aria-live": "polite"})),
                        paths=("Paths", [html.Div(id=ids.PATHS), html.Div(id=ids.INPUT_PATHS)]),
                        groups=("Groups", html.Div(id=ids.GROUPS)),
                        steer=("Steer", html.Div(steering.panel(), id=ids.STEER)),
                    ),
                ],
                className="columns graph",
            ),
        ],
        className="graph-page",
        **{SUBJECT: row["prompt"] or row["graph_id"]},
    )


def _ask_alike(row):
    """Address of the page Ask with this graph's prompt and dictionary."""
    return ask_url(**{name: row[name] for name in ("prompt", "dict_id") if row[name]})


def _slider(label, component_id, value):
    marks = {share / 100: f"{share} %" for share in (0, 50, 100)}
    slider = dcc.Slider(0, 1, 0.01, value=value, id=component_id, marks=marks, updatemode="mouseup", allow_direct_input=False)
    return html.Div([html.Span(label), slider], className="slider")


def _panels(**panels):
    """The tabs beside the drawing, {name: (title, content)}; assets/graph/tabs.js shows one of them."""
    tabs = [
        html.Button(
            title,
            role="tab",
            id=f"graph-tab-{name}",
            className="tab",
            **{"data-tab": name, "aria-controls": f"graph-panel-{name}"},
        )
        for name, (title, _) in panels.items()
    ]
    shown = [
        html.Div(content, role="tabpanel", id=f"graph-panel-{name}", hidden=i > 0, **{"aria-labelledby": f"graph-tab-{name}"})
        for i, (name, (_, content)) in enumerate(panels.items())
    ]
    return html.Aside([html.Div(tabs, role="tablist", className="tabs", **{"aria-label": "About the graph"}), *shown])


def _prompt(row, known):
    """The prompt, wrapped: each token selects its node."""
    nodes = known["nodes"]
    node_of = {
        place: i for i, kind, place in zip(nodes["id"], nodes["kind"], nodes["position"], strict=True) if kind == "embedding"
    }
    if not known["tokens"]:
        return html.H1(html.Bdi(visible(row["prompt"] or row["graph_id"])), className="prompt-text")
    tokens = [
        html.Button(
            html.Bdi(string), className="link token", title=f"position {place}", **{"data-node": str(node_of.get(place, ""))}
        )
        for place, string in enumerate(known["tokens"])
    ]
    gap = " " if is_spaced(known["tokens"]) else ""
    return plain(html.H1([piece for token in tokens for piece in (token, gap)], className="prompt-text"))


def _fields():
    """Search and density: plain fields that assets/graph/actions.js answers, no round trip."""
    found = html.Span(id="graph-found", className="quiet", **{"aria-live": "polite"})
    search = dcc.Input(id="graph-find", type="search", placeholder="Paris, 2:17, layer 3", debounce=False)
    density = dcc.Input(id="graph-density", type="number", min=0, max=1, step=0.05, value=1, debounce=False)
    hint = "hides features that are active on a larger share of the prompt's tokens"
    return html.Label([html.Span(["Search in the graph ", found]), search], className="wide"), html.Label(
        ["Density at most", density], title=hint
    )


def _tools(row):
    """Buttons over the drawing, which assets/graph/actions.js answers, and where one goes from here."""
    names = {
        "edges": "All edges",
        "view": "What is pinned",
        "larger": "+",
        "smaller": "−",
        "fit": "Fit",
        "svg": "SVG",
        "png": "PNG",
    }
    buttons = [html.Button(text, className="button quiet", **{"data-act": act, "data-of": ""}) for act, text in names.items()]
    links = [
        dcc.Link("Ask another prompt", href=_ask_alike(row), className="button quiet"),
        dcc.Link("Compare with…", href=compare_url(row["graph_id"]), className="button quiet"),
    ]
    return plain(html.Div([*buttons, *links], className="tools"))


def card_of(graph_id, node_id):
    """The card of the node that was selected, from what the database holds."""
    graph = stored.graph(graph_id)
    node = graph.nodes.filter(pl.col("node_id") == node_id).to_dicts()
    if not node:
        return card.hint()
    edges = names.with_names(graph.strongest(node_id, card.N_MORE_EDGES), graph_id)
    ends = {"inputs": edges.filter(direction="in"), "outputs": edges.filter(direction="out")}
    contexts = None
    if node[0]["kind"] == "feature" and graph.dict_id is not None:
        key = {"dict_id": graph.dict_id, "layer": node[0]["layer"], "feature": node[0]["feature"]}
        contexts = data.query("feature_contexts", band="top", **key)
    return card.node_card(node[0], dict_id=graph.dict_id, contexts=contexts, **ends)


@callback(Output(LOCATION, "pathname"), Input(ids.SELECT, "value"), State(LOCATION, "pathname"), prevent_initial_call=True)
def go(graph_id, pathname):
    url = graph_url(graph_id)
    return no_update if url == pathname else url


@callback(
    Output(ids.PRUNED, "data"),
    Output(ids.CAPTION, "children"),
    Input(ids.NODE_SHARE, "value"),
    Input(ids.EDGE_SHARE, "value"),
    State(ids.SELECT, "value"),
    prevent_initial_call=True,
)
def prune(node_share, edge_share, graph_id):
    try:
        kept = pruned.pruned_graph(graph_id, node_share=node_share, edge_share=edge_share)
    except CltdbError as error:
        return pruned.emptied(graph_id, error), str(error)
    return kept, kept["caption"]


@callback(Output(ids.CARD, "children"), Input(ids.SELECTED, "data"), State(ids.SELECT, "value"), prevent_initial_call=True)
def show_card(node_id, graph_id):
    if node_id is None:
        return card.hint()
    try:
        return card_of(graph_id, node_id)
    except CltdbError as error:
        return error_notice(error)


@callback(Output(ids.SUBGRAPH, "data"), Input(ids.STATE, "data"), prevent_initial_call=True)
def sum_up(state):
    """The boxes of what is pinned and grouped, while these are looked at."""
    if not state or state["view"] != "subgraph":
        return no_update
    return subgraph.subgraph(stored.graph(state["graph_id"]), state)


@callback(Output(ids.SCORES, "children"), Input(ids.PART, "data"), prevent_initial_call=True)
def score(part):
    """The scores of what is shown and of what is pinned."""
    if not part:
        return no_update
    try:
        graph, kept = stored.graph(part["graph_id"]), _kept(part)
        lines = [scores.line("shown", scores.of_shown(graph, kept, hidden=part["hidden"]))]
        if part["pinned"]:
            lines.append(scores.line("pinned", scores.of_pinned(graph, pinned=part["pinned"])))
    except CltdbError as error:
        return str(error)
    return lines


@callback(
    Output(ids.FOUND_PATHS, "data"),
    Output(ids.PATHS, "children"),
    Output(ids.INPUT_PATHS, "children"),
    Output(ids.LISTED, "data"),
    Input(ids.PATH, "data"),
    State(ids.LISTED, "data"),
    prevent_initial_call=True,
)
def find_paths(asked, listed):
    """The paths that are drawn, what is said of them, and below it the list of those that are stored; of a graph that has none, the strongest
    from each input. The list stays as long as it says the same."""
    if not asked:
        return (no_update,) * 4
    try:
        graph = stored.graph(asked["graph_id"])
        nodes, path_id = names.named(graph), asked["stored_path"]
        with data.session():
            known = data.query("input_paths", graph_id=graph.graph_id, limit=input_paths.MAX_LISTED)
            if asked["path"]:
                found = walk.found_paths(_kept(asked), asked["path"])
                shown = walk.view(found, nodes)
            else:
                routes = data.query("path_routes", graph_id=graph.graph_id, path_id=-1 if path_id is None else path_id)
                found = input_paths.found(path_id, routes)
                shown = None if path_id is None else input_paths.steps(path_id, known, routes, nodes)
        now = [graph.graph_id, annotations.revision(annotations.GRAPH, graph.graph_id), known.height]
        if listed == now:
            return found, shown, no_update, no_update
        return found, shown, walk.strongest_view(graph, nodes) if known.is_empty() else input_paths.view(known, nodes), now
    except CltdbError as error:
        return no_update, error_notice(error), no_update, no_update


def _kept(asked):
    return pruned.subgraph(asked["graph_id"], node_share=asked["node_share"], edge_share=asked["edge_share"])


for _store, _name in ((ids.DATA, "data"), (ids.PRUNED, "pruned"), (ids.FOUND_PATHS, "paths"), (ids.SUBGRAPH, "subgraph")):
    clientside_callback(f"window.cltdb.receive({_name!r})", Output(_store, "modified_timestamp"), Input(_store, "data"))
clientside_callback("window.cltdb.openAnnotations", Output(ids.ANNOTATIONS, "modified_timestamp"), Input(ids.ANNOTATIONS, "data"))
steering.register()
