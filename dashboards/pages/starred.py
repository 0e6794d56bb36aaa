"""Starred features: the lists that users made, over all dictionaries."""

import dash
from dash import ClientsideFunction, Input, Output, callback, clientside_callback, dcc, html

from dashboards import annotations, data
from dashboards.components import not_here, notice
from dashboards.feature import starred
from dashboards.urls import SEARCH, STARRED, search_url, starred_url

dash.register_page(__name__, path_template=STARRED, name="Starred", title="Starred · cltdb", under=SEARCH)
QUERIES = ("some_features",)

LIST, DICTIONARY, BODY, ADDRESS = "starred-list", "starred-dictionary", "starred-body", "starred-address"


def layout(dict_id=None, **fields):
    """The page; the address says which `list`, of which dictionary."""
    found = everything()
    names = sorted({name for one in found for name in one.lists})
    dict_ids = sorted({one.dict_id for one in found})
    asked, of = fields.get("list"), dict_id
    name, dict_id = (given if given in known else None for given, known in ((asked, names), (of, dict_ids)))
    return html.Main(
        [
            html.P(dcc.Link("Features", href=search_url()), className="crumbs"),
            html.H1("Starred features"),
            not_here("list", asked, names),
            not_here("starred feature of dictionary", of, dict_ids),
            html.Div(
                [
                    html.Label(["List", dcc.Dropdown(names, name, id=LIST, placeholder="all lists")], className="wide"),
                    html.Label(
                        ["Dictionary", dcc.Dropdown(dict_ids, dict_id, id=DICTIONARY, placeholder="all")], className="wide"
                    ),
                ],
                className="controls",
            ),
            html.Div(shown(found, name, dict_id), id=BODY),
            dcc.Store(id=ADDRESS),
        ],
        className="starred",
    )


def everything():
    """The starred features of all dictionaries."""
    with data.session():
        dict_ids = data.asked().sql("SELECT dict_id FROM dictionaries")["dict_id"].to_list()
        return starred.starred({dict_id: annotations.features_of(dict_id) for dict_id in dict_ids})


def shown(found, name, dict_id):
    """The table of a list, of a dictionary."""
    if not found:
        do = "A feature's page has the button ☆ Star, and lists with names of your own; what is in them appears here."
        return notice("Nothing is starred yet", do)
    chosen = starred.chosen(found, name, dict_id)
    keys = [(one.dict_id, one.layer, one.feature) for one in chosen[: starred.MAX_ROWS]]
    dict_ids, layers, features = ([key[i] for key in keys] for i in range(3))
    known = data.query("some_features", dict_ids=dict_ids, layers=layers, features=features)
    count = f"{len(chosen):,} feature{'s' * (len(chosen) != 1)}"
    return [html.P(count, className="quiet", **{"aria-live": "polite"}), starred.table(chosen, known.to_dicts())]


@callback(
    Output(BODY, "children"),
    Output(ADDRESS, "data"),
    Input(LIST, "value"),
    Input(DICTIONARY, "value"),
    prevent_initial_call=True,
)
def choose(name, dict_id):
    fields = {"list": name, "dict_id": dict_id}
    return shown(everything(), name, dict_id), starred_url(**{key: value for key, value in fields.items() if value})


clientside_callback(
    ClientsideFunction("cltdb_page", "remember"),
    Output(ADDRESS, "modified_timestamp"),
    Input(ADDRESS, "data"),
    prevent_initial_call=True,
)
