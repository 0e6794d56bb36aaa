"""SQL: one read-only statement or a named query, its rows as a table, a figure and files; the schema beside the editor."""

import time
import uuid

import dash
import dash_ag_grid as dag
from dash import ALL, ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html, no_update

from cltdb.database.display import figures
from cltdb.database.named_queries import list_queries, named_query
from cltdb.errors import CltdbError
from dashboards import data, questions, sql_parts
from dashboards.components import notice
from dashboards.urls import SQL, address, sql_url

dash.register_page(__name__, path=SQL, name="SQL", title="SQL · cltdb", order=8)
QUERIES = ("describe_tables",)

EDITOR, QUERY_SELECT, ABOUT, FIELDS, RUN, HALT = "sql-editor", "sql-query", "sql-about", "sql-fields", "sql-run", "sql-halt"
WRITTEN, PAGE, ASKED = "sql-written", "sql-page", "sql-asked"
STATUS, FAILURE, RESULT, GRID = "sql-status", "sql-failure", "sql-result", "sql-grid"
FILES = {"csv": "sql-csv", "parquet": "sql-parquet"}
X, Y, COLOUR, KIND, FIGURE = "sql-x", "sql-y", "sql-colour", "sql-kind", "sql-figure"
FIRST = "SELECT layer, feature, text, score\nFROM feature_cards\nORDER BY score DESC NULLS LAST\nLIMIT 50"
EXAMPLES = {
    "features that promote a word": "SELECT layer, feature, t.value FROM features, unnest(top_logits) AS r(t)\n"
    "JOIN vocabulary AS v ON v.token = t.token\nWHERE v.string ILIKE '%paris%'\nORDER BY t.value DESC",
    "how dense features of each layer are": "SELECT layer, avg(density) AS mean_density, count(*) FILTER (dead) AS n_dead\n"
    "FROM features\nGROUP BY layer\nORDER BY layer",
    "every table": "SHOW TABLES",
}


def layout(q=None, query=None, **given):
    """The page; the address holds the question."""
    tables = data.query("describe_tables")
    questions.here().prepare()
    given = {name.removeprefix(questions.PARAMETER): value for name, value in given.items()}
    names = {one.name: f"{one.name}: {one.title}" for one in list_queries()}
    named = named_query(query) if query in names else None
    if query and named is None:
        return notice(f"There is no named query {query}", "`cltdb sql --list` explains those there are.", tone="alarm")
    return view(tables, names, q=q, named=named, given=given)


def view(tables, names, *, q=None, named=None, given=None):
    """The form, the place of the result, and the schema."""
    page = uuid.uuid4().hex
    options = [{"label": "none: your own SQL", "value": sql_parts.NONE}]
    options += [{"label": label, "value": name} for name, label in names.items()]
    samples = [piece for name, sql in EXAMPLES.items() for piece in (" · ", dcc.Link(name, href=sql_url(q=sql)))]
    return html.Main(
        [
            html.H1("SQL"),
            html.Div([_form(options, q=q, named=named, given=given or {}), _result(samples)]),
            html.Aside(
                [
                    html.H2("Tables"),
                    html.Label(
                        [
                            html.Span("Find a table or column", className="quiet"),
                            dcc.Input(id="sql-find", type="search", debounce=False),
                        ]
                    ),
                    sql_parts.schema(tables),
                ]
            ),
            dcc.Store(id=PAGE, data=page),
            dcc.Store(id=ASKED),
        ],
        className="columns sql",
        **{"data-stop": address(questions.STOP), "data-page": page},
    )


def _form(options, *, q, named, given):
    form = named_form(named, given)
    editor = dcc.Textarea(id=EDITOR, value=q or FIRST, rows=7, spellCheck=False, maxLength=questions.MAX_SQL_CHARS, wrap="off")
    return html.Section(
        [
            html.Label(
                [
                    "Named query",
                    dcc.Dropdown(options, named.name if named else sql_parts.NONE, id=QUERY_SELECT, clearable=False),
                ],
                className="which",
            ),
            html.Div(
                [
                    html.Label(["Statement", editor]),
                    html.Ul(id="sql-names", className="names", hidden=True, **{"aria-label": "names that go on like this"}),
                ],
                id=WRITTEN,
                hidden=named is not None,
            ),
            html.Div(form[0], id=ABOUT, className="about"),
            html.Div(form[1], id=FIELDS, className="controls"),
            html.P(
                [
                    html.Button("Ask", id=RUN, className="button", type="button", n_clicks=0 if q or named else None),
                    html.Button("Stop", id=HALT, className="button quiet", type="button", hidden=True),
                    html.Span("Ctrl+Enter asks · Tab takes the first name below the text, Esc hides them", className="quiet"),
                ],
                className="buttons",
            ),
        ],
        className="question",
    )


def _result(samples):
    return html.Section(
        [
            html.P(["Try", *samples], id=STATUS, className="quiet", role="status"),
            html.P(id=FAILURE, className="error", role="alert"),
            html.Div(
                [
                    html.P(
                        [html.A("CSV", id=FILES["csv"], href=""), html.A("Parquet", id=FILES["parquet"], href="")]
                        + ["All rows as a file; numbers in the table are rounded to 6 digits, in files they are not."],
                        className="files quiet",
                    ),
                    dag.AgGrid(
                        id=GRID,
                        columnDefs=[],
                        rowData=[],
                        defaultColDef={"resizable": True, "sortable": True},
                        columnSize="autoSize",
                        dashGridOptions={
                            "rowHeight": 32,
                            "headerHeight": 36,
                            "tooltipShowDelay": 300,
                            "enableCellTextSelection": True,
                            "ensureDomOrder": True,
                        },
                        style={"height": 420, "width": "100%"},
                        className="grid",
                    ),
                    html.H2("Figure"),
                    html.Div(
                        [
                            _choice("x", X, "none"),
                            _choice("y", Y, "none"),
                            _choice("colour", COLOUR, "one colour"),
                            html.Label(["kind", dcc.Dropdown(list(sql_parts.KINDS), sql_parts.POINTS, id=KIND, clearable=False)]),
                        ],
                        className="controls",
                    ),
                    dcc.Graph(id=FIGURE, config=figures.GRAPH_CONFIG, style={"height": figures.HEIGHT + 60}),
                ],
                id=RESULT,
                hidden=True,
            ),
        ]
    )


def _choice(label, place, placeholder):
    return html.Label([label, dcc.Dropdown([], None, id=place, placeholder=placeholder, clearable=False)])


def named_form(query, given):
    """(what is said of a named query, fields of its parameters); nothing of both where there is none."""
    return ([], []) if query is None else (sql_parts.about(query), sql_parts.fields(query, given))


@callback(
    Output(ABOUT, "children"),
    Output(FIELDS, "children"),
    Output(WRITTEN, "hidden"),
    Input(QUERY_SELECT, "value"),
    prevent_initial_call=True,
)
def choose(name):
    is_named = name not in (None, sql_parts.NONE)
    return *named_form(named_query(name) if is_named else None, {}), is_named


def asked_fields(text, name, values, places):
    """The fields of the address that asks what the form says."""
    if name in (None, sql_parts.NONE):
        return {"q": text or ""}
    given = {place["name"]: value for place, value in zip(places, values, strict=True) if value not in (None, "")}
    return {"query": name} | {questions.PARAMETER + name: str(value) for name, value in given.items()}


@callback(
    output={
        "status": Output(STATUS, "children"),
        "failure": Output(FAILURE, "children"),
        "hidden": Output(RESULT, "hidden"),
        "columns": Output(GRID, "columnDefs"),
        "rows": Output(GRID, "rowData"),
        "sized": Output(GRID, "columnSize"),
        "choices": [Output(place, "options") for place in (X, Y, COLOUR)],
        "chosen": [Output(place, "value") for place in (X, Y, COLOUR, KIND)],
        "files": [Output(place, "href") for place in FILES.values()],
        "asked": Output(ASKED, "data"),
    },
    inputs={"clicks": Input(RUN, "n_clicks")},
    state={
        "text": State(EDITOR, "value"),
        "name": State(QUERY_SELECT, "value"),
        "values": State({"type": sql_parts.FIELD, "name": ALL}, "value"),
        "places": State({"type": sql_parts.FIELD, "name": ALL}, "id"),
        "page": State(PAGE, "data"),
    },
    running=[
        (Output(HALT, "hidden"), False, True),
        (Output(RESULT, "className"), "waits", ""),
        (Output(RUN, "disabled"), True, False),
    ],
)
def ask(clicks, text, name, values, places, page):
    """Asks when the button is clicked, and at once where the address holds a question."""
    if clicks is None:
        return _unchanged()
    fields = asked_fields(text, name, values, places)
    began = time.monotonic()
    try:
        there = questions.here()
        found = there.ask(questions.question(fields, there.database), page=page)
    except CltdbError as error:
        return _unchanged() | {"status": "", "failure": str(error), "hidden": True, "asked": sql_url(**fields)}
    x, y, kind = sql_parts.first_choices(found)
    return {
        "status": sql_parts.counted(found, time.monotonic() - began),
        "failure": "",
        "hidden": False,
        "columns": sql_parts.columns(found),
        "rows": sql_parts.rows(found),
        "sized": "autoSize",
        "choices": [sql_parts.choices(found), sql_parts.choices(found), sql_parts.colours(found)],
        "chosen": [x, y, sql_parts.NONE, kind],
        "files": [address(path) for path in questions.files_of(fields).values()],
        "asked": sql_url(**fields),
    }


def _unchanged():
    single = ("status", "failure", "hidden", "columns", "rows", "sized", "asked")
    several = {"choices": 3, "chosen": 4, "files": len(FILES)}
    return {name: no_update for name in single} | {name: [no_update] * n for name, n in several.items()}


@callback(Output(HALT, "n_clicks"), Input(HALT, "n_clicks"), State(PAGE, "data"), prevent_initial_call=True)
def halt(_clicks, page):
    questions.here().stop(page)
    return no_update


@callback(
    Output(FIGURE, "figure"),
    Input(X, "value"),
    Input(Y, "value"),
    Input(COLOUR, "value"),
    Input(KIND, "value"),
    Input(GRID, "rowData"),
    State(GRID, "columnDefs"),
    prevent_initial_call=True,
)
def draw(x, y, colour, kind, table, columns):
    names = {column["field"]: column["headerName"] for column in columns}
    return sql_parts.plot(table, names, x=x, y=y, colour=colour, kind=kind)


clientside_callback(
    ClientsideFunction("cltdb_page", "remember"),
    Output(ASKED, "modified_timestamp"),
    Input(ASKED, "data"),
    prevent_initial_call=True,
)
clientside_callback(ClientsideFunction("cltdb_sql", "arrive"), Output(PAGE, "modified_timestamp"), Input(PAGE, "data"))
