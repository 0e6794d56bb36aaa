"""Features of a dictionary: all of them in one table that is filtered and sorted by its columns, or those that have to do with a text."""

from functools import lru_cache
from pathlib import Path

import dash
import dash_ag_grid as dag
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html
from flask import current_app

from cltdb.database.display.words import visible
from cltdb.database.glossary import meant
from cltdb.database.search import may_have_unknown_words
from cltdb.errors import CltdbError
from dashboards import annotations, data
from dashboards.components import not_here, notice
from dashboards.feature import table
from dashboards.urls import SEARCH, random_url, starred_url

dash.register_page(__name__, path=SEARCH, name="Features", title="Features · cltdb", order=2)
QUERIES = ("page_dictionaries", "page_features", "unknown_words")

TEXT, DICT_SELECT, DEAD = "search-text", "search-dict", "search-dead"
GRID, SUMMARY, COMPARE, RANDOM = "search-grid", "search-summary", "search-compare", "search-random"
FIELDS, WANTED, ANSWER = "search-fields", "search-wanted", "search-answer"
N_KEPT = 8
ANOTHER = "Load the page again, and choose another one."


def layout(**fields):
    """The page; the fields of the address are the question that it shows the answer to."""
    dictionaries = data.query("page_dictionaries")
    if dictionaries.is_empty():
        return notice("No features yet", "Run `cltdb run experiments/quickstart.yaml`; the stage `harvest` fills this page.")
    dict_ids = dictionaries["dict_id"].to_list()
    fields = {name: value for name, value in fields.items() if name in table.FIELDS and value}
    unknown = not_here("dictionary", fields.get("dict_id"), dict_ids)
    fields["dict_id"] = fields["dict_id"] if fields.get("dict_id") in dict_ids else dict_ids[0]
    return view(dict_ids, fields, unknown)


def view(dict_ids, fields, unknown=None):
    """The form and the table, which asks for its rows. fields: a question (feature/table.py); unknown: what there is to say of the address."""
    return html.Main(
        [
            html.H1("Features"),
            unknown,
            html.Div(
                [
                    html.Label(
                        [
                            "What it is about, or layer:feature",
                            dcc.Input(
                                id=TEXT, value=fields.get("text", ""), debounce=0.35, placeholder="capital cities, Paris, 2:126 …"
                            ),
                        ],
                        className="wide",
                    ),
                    html.Label(
                        ["Dictionary", dcc.Dropdown(dict_ids, fields["dict_id"], id=DICT_SELECT, clearable=False)],
                        className="wide",
                    ),
                    dcc.Checklist(
                        [{"label": "dead ones too", "value": "1"}],
                        ["1"] if fields.get("dead") == "1" else [],
                        id=DEAD,
                        className="check",
                    ),
                    html.Span(id=COMPARE, className="check"),
                    dcc.Link("★ Starred", href=starred_url(), className="button quiet"),
                    html.A("Random feature", href=random_url(fields["dict_id"]), id=RANDOM, className="button quiet"),
                ],
                className="controls",
            ),
            html.P(id=SUMMARY, className="quiet", **{"aria-live": "polite"}),
            dag.AgGrid(
                id=GRID,
                columnDefs=table.columns(fields),
                rowModelType="infinite",
                getRowId="params.data.name",
                defaultColDef={
                    "sortable": True,
                    "resizable": True,
                    "suppressMovable": True,
                    "floatingFilter": True,
                    "suppressHeaderMenuButton": True,
                    "sortingOrder": ["desc", "asc", None],
                },
                dashGridOptions={
                    "cacheBlockSize": table.PART_ROWS,
                    "maxConcurrentDatasourceRequests": 1,
                    "rowSelection": {"mode": "multiRow", "headerCheckbox": False},
                    "selectionColumnDef": {"pinned": "left", "width": 44, "suppressHeaderMenuButton": True},
                    "rowHeight": table.HIT_HEIGHT if table.is_search(fields) else table.ROW_HEIGHT,
                    "headerHeight": 36,
                    "floatingFiltersHeight": 40,
                    "tooltipShowDelay": 300,
                },
                className="grid features hits" if table.is_search(fields) else "grid features",
                style={"height": None, "width": "100%"},
            ),
            dcc.Store(id=FIELDS, data=fields),
            dcc.Store(id=WANTED),
            dcc.Store(id=ANSWER),
        ],
        className="search",
    )


@callback(Output(ANSWER, "data"), Output(SUMMARY, "children"), Input(WANTED, "data"), prevent_initial_call=True)
def answer(wanted):
    question, first, limit = wanted["question"], int(wanted["first"]), min(int(wanted["limit"]), table.MOST_ROWS)
    try:
        with data.session():
            own = annotations.labels_of(question.get("dict_id"))
            found = table.part(question, first=first, limit=limit, query=ask, search=hits, own=own)
            if not found.n and question.get("dict_id") not in data.asked().sql("SELECT dict_id FROM dictionaries")["dict_id"]:
                found = found._replace(said=f"There is no dictionary {visible(str(question.get('dict_id')))} any more. {ANOTHER}")
    except CltdbError as error:
        found = table.Part([], 0, str(error))
    return {"number": wanted["number"], "rows": found.rows, "n": found.n}, found.said


def ask(_name, **params):
    """Rows of page_features."""
    return data.query("page_features", **params)


def hits(text, **chosen):
    """(features that have to do with a text, words of it that lead to none, whether neighbours in meaning are not known). The last few are
    kept while the database, and what a glossary says of the text, stay as they are."""
    path = Path(current_app.config[data.DATABASE])
    version = path.stat().st_mtime_ns, *(meant(text, path) or ())
    return _hits(path, version, text, tuple(sorted(chosen.items())))


@lru_cache(maxsize=N_KEPT)
def _hits(_path, _version, text, chosen):
    chosen = dict(chosen)
    found, dict_id = data.search(text, **chosen), chosen["dict_id"]
    may = may_have_unknown_words(text, found["found_in"])
    unknown = data.query("unknown_words", text=text, dict_id=dict_id).rows() if may else []
    return found, unknown, data.lacks_neighbours(dict_id)


def function(name):
    """A function of assets/features.js."""
    return ClientsideFunction("cltdb_features", name)


FORM = ((TEXT, "value"), (DICT_SELECT, "value"), (DEAD, "value"))
clientside_callback(
    function("want"),
    Output(WANTED, "data"),
    Input(GRID, "getRowsRequest"),
    *(State(*field) for field in FORM),
    State(FIELDS, "data"),
)
clientside_callback(function("answer"), Output(GRID, "className"), Input(ANSWER, "data"), prevent_initial_call=True)
clientside_callback(
    function("again"), Output(SUMMARY, "className"), *(Input(*field) for field in FORM), prevent_initial_call=True
)
clientside_callback(function("random"), Output(RANDOM, "href"), Input(DICT_SELECT, "value"), prevent_initial_call=True)
clientside_callback(function("compare"), Output(COMPARE, "children"), Input(GRID, "selectedRows"), State(DICT_SELECT, "value"))
