"""Feature search: by what explanations say, what features fire on and promote; without a text, features by their numbers."""

import dash
import dash_ag_grid as dag
from dash import Input, Output, callback, dcc, html

from cltdb.database.display.words import number
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import notice
from dashboards.urls import SEARCH, feature_url

dash.register_page(__name__, path=SEARCH, name="Features", title="Features · cltdb", order=2)
QUERIES = ("page_dictionaries", "page_features", "unknown_words")

TEXT, DICT_SELECT, LAYER_SELECT, SORT, ALIVE = "search-text", "search-dict", "search-layer", "search-sort", "search-alive"
GRID, SUMMARY = "search-grid", "search-summary"
MAX_ROWS = 500
ALL_LAYERS = "all"
RELEVANCE = "relevance"
SORTS = {RELEVANCE: "relevance", "score": "score", "density": "density", "max_activation": "max activation", "layer": "layer"}

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
    {"field": "found_in", "headerName": "found in", "width": 260, "tooltipField": "found_in"},
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
                            "What it is about",
                            dcc.Input(id=TEXT, value=text, debounce=0.35, placeholder="capital cities, Paris, …"),
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
                                RELEVANCE,
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
    """Rows of the table from rows of feature_search or page_features; NaN becomes unknown."""
    return [
        {
            "name": f"{row['layer']}:{row['feature']}",
            "href": feature_url(row["dict_id"], row["layer"], row["feature"]),
            "text": row["text"] or ("dead, never fires" if row["dead"] else "not explained"),
            "score": row["score"],
            "density": row["density"],
            "max_activation": row["max_activation"],
            "found_in": row.get("found_in"),
        }
        for row in found.fill_nan(None).to_dicts()
    ]


def features(text, *, sort, **chosen):
    """(frame of the features, what there is to say of it). sort: a key of SORTS; without a text relevance is the score."""
    if not (text or "").strip():
        found = data.query("page_features", **chosen, sort="score" if sort == RELEVANCE else sort, limit=MAX_ROWS)
        n_features = found["n_features"].first() or 0
        shown = f"{number(found.height)} of " if found.height < n_features else ""
        return found, f"{shown}{_counted(n_features)}"
    with data.session():
        found = data.search(text, **chosen, limit=MAX_ROWS)
        unknown = data.query("unknown_words", text=text, dict_id=chosen["dict_id"])
    if sort != RELEVANCE:
        found = found.fill_nan(None).sort(sort, descending=sort != "layer", nulls_last=True, maintain_order=True)
    said = "the most relevant " if found.height == MAX_ROWS else ""
    said = (
        f"{said}{_counted(found.height)}"
        if found.height
        else "No feature matches. Try other words, all layers, or dead features too."
    )
    return found, " · ".join([said, *map(_unknown, *unknown.to_dict(as_series=False).values())])


def _counted(n):
    return "1 feature" if n == 1 else f"{number(n)} features"


def _unknown(word, spelled_like):
    return f"no word is like “{word}”" + (f" (spelled like it: {', '.join(spelled_like)})" if spelled_like else "")


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
    chosen = {"dict_id": dict_id, "layer": None if layer in (None, ALL_LAYERS) else int(layer), "alive": bool(alive)}
    try:
        found, said = features(text, sort=sort, **chosen)
    except CltdbError as error:
        return [], str(error)
    return rows(found), said
