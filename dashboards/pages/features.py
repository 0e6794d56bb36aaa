"""Feature search: what an explanation says, what a feature promotes, what it fires on."""

import dash
import dash_ag_grid as dag
from dash import Input, Output, callback, dcc, html

from cltdb.database.display.words import number
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import notice
from dashboards.urls import SEARCH, feature_url

dash.register_page(__name__, path=SEARCH, name="Features", title="Features · cltdb", order=2)
QUERIES = ("page_dictionaries", "page_feature_search")

TEXT, DICT_SELECT, LAYER_SELECT, SORT, ALIVE = "search-text", "search-dict", "search-layer", "search-sort", "search-alive"
GRID, SUMMARY = "search-grid", "search-summary"
MAX_ROWS = 500
ALL_LAYERS = "all"
SORTS = {"score": "score", "density": "density", "max_activation": "max activation", "layer": "layer"}

_THREE_DIGITS = "params.value == null ? '–' : d3.format('.3~g')(params.value)"
_PERCENT = "params.value == null ? '–' : d3.format('.3~%')(params.value)"
COLUMNS = [
    {"field": "name", "headerName": "feature", "cellRenderer": "FeatureLink", "width": 120, "pinned": "left"},
    {"field": "text", "headerName": "explanation", "flex": 1, "minWidth": 260, "tooltipField": "text"},
    {"field": "score", "headerName": "score", "width": 84, "type": "rightAligned", "valueFormatter": {"function": _THREE_DIGITS}},
    {"field": "density", "headerName": "density", "width": 98, "type": "rightAligned", "valueFormatter": {"function": _PERCENT}},
    {
        "field": "max_activation",
        "headerName": "max act.",
        "width": 98,
        "type": "rightAligned",
        "valueFormatter": {"function": _THREE_DIGITS},
    },
    {"field": "found_in", "headerName": "found in", "width": 170, "tooltipField": "found_in"},
]


def layout(text="", dict_id=None, **_):
    """The page; the fields of the address fill in the form."""
    dictionaries = data.query("page_dictionaries")
    if dictionaries.is_empty():
        return notice("No features yet", "Run `cltdb run experiments/quickstart.yaml`; the stage `harvest` fills this page.")
    dict_ids = dictionaries["dict_id"].to_list()
    chosen = dict_id if dict_id in dict_ids else dict_ids[0]
    n_layers = max((n for n in dictionaries["n_layers"] if n is not None), default=0)
    return view(dict_ids, dict_id=chosen, n_layers=n_layers, text=text)


def view(dict_ids, *, dict_id=None, n_layers=0, text=""):
    """The form and the empty table."""
    layers = [{"label": "all layers", "value": ALL_LAYERS}] + [{"label": f"layer {i}", "value": str(i)} for i in range(n_layers)]
    return html.Main(
        [
            html.H1("Features"),
            html.Div(
                [
                    html.Label(
                        [
                            "Text in an explanation or token",
                            dcc.Input(id=TEXT, value=text, debounce=0.35, placeholder="capital, Paris, …"),
                        ],
                        className="wide",
                    ),
                    html.Label(
                        ["Dictionary", dcc.Dropdown(dict_ids, dict_id, id=DICT_SELECT, clearable=False)], className="wide"
                    ),
                    html.Label(["Layer", dcc.Dropdown(layers, ALL_LAYERS, id=LAYER_SELECT, clearable=False)]),
                    html.Label(
                        [
                            "Sort by",
                            dcc.Dropdown(
                                [{"label": label, "value": key} for key, label in SORTS.items()],
                                "score",
                                id=SORT,
                                clearable=False,
                            ),
                        ]
                    ),
                    dcc.Checklist([{"label": "hide dead", "value": "alive"}], ["alive"], id=ALIVE, className="check"),
                ],
                className="controls",
            ),
            html.P(id=SUMMARY, className="quiet"),
            dag.AgGrid(
                id=GRID,
                columnDefs=COLUMNS,
                rowData=[],
                defaultColDef={"sortable": False, "resizable": True, "suppressMovable": True},
                dashGridOptions={
                    "domLayout": "autoHeight",
                    "pagination": True,
                    "paginationPageSize": 25,
                    "paginationPageSizeSelector": [25, 50, 100],
                    "tooltipShowDelay": 300,
                    "suppressCellFocus": True,
                },
                style={"height": None, "width": "100%"},
                className="grid",
            ),
        ],
        className="search",
    )


def rows(found):
    """Rows of the table from rows of page_feature_search; NaN becomes unknown."""
    return [
        {
            "name": f"{row['layer']}:{row['feature']}",
            "href": feature_url(row["dict_id"], row["layer"], row["feature"]),
            "text": row["text"] or ("dead, never fires" if row["dead"] else "not explained"),
            "score": row["score"],
            "density": row["density"],
            "max_activation": row["max_activation"],
            "found_in": row["found_in"],
        }
        for row in found.fill_nan(None).to_dicts()
    ]


def summary(found):
    """How many were found and how many of them are shown."""
    if found.is_empty():
        return "No feature matches. Try a shorter text, all layers, or dead features too."
    n_found = found["n_found"][0]
    shown = f"{number(found.height)} of " if found.height < n_found else ""
    return f"{shown}{number(n_found)} features" if n_found != 1 else "1 feature"


@callback(
    Output(GRID, "rowData"),
    Output(SUMMARY, "children"),
    Input(TEXT, "value"),
    Input(DICT_SELECT, "value"),
    Input(LAYER_SELECT, "value"),
    Input(SORT, "value"),
    Input(ALIVE, "value"),
)
def find(text, dict_id, layer, sort, alive):
    chosen = {"text": text or None, "dict_id": dict_id, "layer": None if layer in (None, ALL_LAYERS) else int(layer)}
    try:
        found = data.query("page_feature_search", **chosen, alive=bool(alive), sort=sort, limit=MAX_ROWS)
    except CltdbError as error:
        return [], str(error)
    return rows(found), summary(found)
