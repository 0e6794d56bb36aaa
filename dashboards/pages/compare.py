"""Two graphs beside each other: scores, the features of both and of one alone, their strongest paths."""

import dash
import polars as pl
from dash import Input, Output, State, callback, dcc, html, no_update

from cltdb.database.display.words import percent
from cltdb.errors import CltdbError
from cltdb.graphs.stored_graph import strongest_paths
from dashboards import annotations, data
from dashboards.components import SUBJECT, error_notice, named_by_prompt, notice
from dashboards.graph import compared, names, stored
from dashboards.urls import COMPARE, GRAPH, LOCATION, compare_url

dash.register_page(__name__, path_template=f"{COMPARE}/<graph_id>/<other>", title="Compare · cltdb", under=GRAPH)
QUERIES = ("compare_graphs", "compare_paths", "graph_features_compared", "graph_list", "similar_graphs")
FIRST, SECOND = "compare-first", "compare-second"
N_PATHS, N_SIMILAR = 8, 100
ALL = 10**9
"""The features of two graphs are counted, so all of them are asked for."""


def layout(graph_id=None, other=None, **_):
    """The page of two graphs; of a graph and the one that shares most features with it, where one is named."""
    with data.session():
        known = data.query("graph_list")
        called = named_by_prompt(known, compared.MAX_PROMPT_CHARS)
        graphs = {row["graph_id"]: row | {"name": called[row["graph_id"]]} for row in known.to_dicts()}
        missing = [one for one in (graph_id, other) if one is not None and one not in graphs]
        if missing:
            return notice(f"There is no graph {missing[0]}", 'Choose one on the page Graphs, or see `cltdb sql "FROM graphs"`.')
        similar = data.query("similar_graphs", graph_id=graph_id, limit=N_SIMILAR).to_dicts()
        if other is None:
            others = [row["graph_id"] for row in similar] + [one for one in graphs if one != graph_id]
            if not others:
                return notice("There is no other graph", "Ask another prompt on the page Ask, or run `cltdb attribute`.")
            other = others[0]
        first, second = graphs[graph_id], graphs[other]
        same_prompt = first["tokens"] == second["tokens"] and first["model_id"] == second["model_id"]
        pair = (
            data.query("compare_graphs", dict_id=first["dict_id"], other=second["dict_id"])
            if first["dict_id"] and same_prompt
            else None
        )
        sources = data.query("compare_paths", graph_id=graph_id, other=other) if same_prompt and graph_id != other else None
        features = None
        if _one_dictionary(first, second):
            features = data.query("graph_features_compared", graph_id=graph_id, other=other, limit=ALL)
        return view(graphs, similar, first=first, second=second, pair=pair, sources=sources, features=features)


def _one_dictionary(first, second):
    return first["dict_id"] is not None and first["dict_id"] == second["dict_id"]


def view(graphs, similar, *, first, second, pair, sources, features):
    """The page. pair, sources, features: frames, None where they say nothing of these two."""
    shared = {row["graph_id"]: f" · {percent(row['jaccard'])} of features shared" for row in similar}
    order = [*shared, *(one for one in graphs if one not in shared)]
    options = [{"label": f"{compared.title(graphs[one])}{shared.get(one, '')}", "value": one} for one in order]
    row = None
    if pair is not None:
        of_these = (pl.col("graph_id") == first["graph_id"]) & (pl.col("other_graph_id") == second["graph_id"])
        row = next(iter(pair.filter(of_these).to_dicts()), None)
    parts = [
        html.H1("Two graphs"),
        html.Div(
            [
                html.Label(
                    ["First", dcc.Dropdown(options, first["graph_id"], id=FIRST, clearable=False)], className="wide prompt"
                ),
                html.Label(
                    ["Second", dcc.Dropdown(options, second["graph_id"], id=SECOND, clearable=False)], className="wide prompt"
                ),
            ],
            className="controls",
        ),
        html.Div(compared.scores(first, second, row), className="scrolls"),
        html.H2("Features that survive pruning"),
    ]
    if features is None:
        parts.append(
            html.P("The graphs are of different dictionaries: a feature of one is none of the other.", className="quiet")
        )
    else:
        parts += compared.features(features, first, second, own_labels=annotations.labels_of(first["dict_id"]))
    if sources is not None:
        parts += [
            html.H2("Where the answer's value comes from"),
            html.Div(compared.sources(sources, first, second), className="scrolls"),
        ]
    parts += [html.H2("Strongest paths from tokens and errors"), html.Div([_paths(first), _paths(second)], className="pair")]
    return html.Main(parts, className="compare", **{SUBJECT: f"{first['prompt']} and {second['prompt']}"})


def _paths(row):
    try:
        graph = stored.graph(row["graph_id"], promotes=False)
        found = strongest_paths(graph.nodes, graph.edges, N_PATHS)
    except CltdbError as error:
        return error_notice(error)
    return compared.paths(row, found, names.named(graph, {node_id for *_, path in found for node_id in path}))


@callback(
    Output(LOCATION, "pathname", allow_duplicate=True),
    Input(FIRST, "value"),
    Input(SECOND, "value"),
    State(LOCATION, "pathname"),
    prevent_initial_call=True,
)
def go(first, second, pathname):
    url = compare_url(first, second)
    return no_update if url == pathname else url


dash.register_page(
    f"{__name__}_alike", path_template=f"{COMPARE}/<graph_id>", title="Compare · cltdb", layout=layout, under=GRAPH
)
