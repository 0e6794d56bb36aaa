"""Overview: what runs now, dictionaries with headline numbers, graphs, curves of every metric, also of trainings that go on."""

import dash
from dash import Input, Output, State, callback, dcc, html, no_update

from cltdb.database.display import figures
from cltdb.database.display.words import is_number, number, percent
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import error_notice, named_by_prompt, notice, stat, stats, table
from dashboards.drawn import plain
from dashboards.runs import disk, live, parts, underway
from dashboards.urls import FRONTIER, OVERVIEW, RUNS, address, graph_url, run_url, search_url

dash.register_page(__name__, path=OVERVIEW, name="Overview", title="Overview · cltdb", order=0)
QUERIES = (
    "page_runs", "page_dictionaries", "page_in_training", "graph_list", "page_metric_names", "metrics_curve", "page_costs",
)  # fmt: skip

BODY, DICT_SELECT, METRIC_SELECT = "overview-body", "overview-dictionary", "overview-metric"
CURVES = "overview-curves"
TRAIN_FIGURE, EVALUATE_FIGURE = "overview-train-figure", "overview-evaluate-figure"
FIRST_METRIC = "fvu"
MAX_DICTIONARIES, MAX_GRAPHS, MAX_EXPERIMENTS = 24, 12, 12


def layout(**_):
    """The page, from what the database holds and what runs now."""
    shown, measured = body()
    return html.Main(
        [
            html.H1("Overview"),
            live.section(always=not measured or not underway.is_known()),
            html.Div(shown, id=BODY),
            curves(measured),
        ],
        className="overview",
    )


def body():
    """(elements of what the database holds, ids of the dictionaries that have curves)."""
    running = live.running(None)
    try:
        with data.session():
            runs, dictionaries = data.query("page_runs"), data.query("page_dictionaries")
            training, graphs, asked = data.query("page_in_training"), data.query("graph_list"), data.query("page_costs")
    except CltdbError as error:  # a first run makes the database later
        do = "A run is under way; its rows appear here as its stages finish."
        return [notice("Nothing to show yet", do) if running else error_notice(error)], []
    if runs.is_empty() and dictionaries.is_empty() and training.is_empty():
        do = (
            "Its rows appear here as its stages finish."
            if running
            else "Run `cltdb run experiments/quickstart.yaml`; results appear here."
        )
        return [notice("A run is under way" if running else "This database is empty", do)], []
    found, begun = [], parts.newest(underway.in_step(runs.to_dicts()))
    if left := underway.trainings(training.to_dicts()):
        found += [
            html.H2("Trainings that are not finished"),
            html.Div([parts.training_card(row) for row in left], className="cards"),
        ]
    if not dictionaries.is_empty():
        found += [html.H2(["Dictionaries", html.Small(number(dictionaries.height))]), *dictionary_cards(dictionaries, begun)]
    elif training.is_empty():
        found.append(notice("No dictionary yet", "The stage `train` makes one; `cltdb status` says how far it is."))
    if dictionaries.height > 1:
        found.append(html.P(dcc.Link("Compare them: FVU against L0", href=address(FRONTIER))))
    if not graphs.is_empty():
        found += [html.H2("Attribution graphs"), graph_list(graphs)]
    if not runs.is_empty():
        found += [html.H2("Experiments"), *experiments(begun, dictionaries, asked)]
    return found, [*training["dict_id"], *dictionaries["dict_id"]]


def dictionary_cards(dictionaries, begun):
    """The dictionaries: those of the newest experiments as cards, of many the others as rows that unfold. begun: of `parts.newest`."""
    place = {name: number for number, name in enumerate(begun)}
    rows = sorted(dictionaries.to_dicts(), key=lambda row: place.get(row["experiment"], len(place)))
    shown = {row["dict_id"] for row in rows[:MAX_DICTIONARIES]}
    yield html.Div([dictionary_card(row) for row in dictionaries.to_dicts() if row["dict_id"] in shown], className="cards")
    if others := [row for row in dictionaries.to_dicts() if row["dict_id"] not in shown]:
        yield plain(html.Details([html.Summary(f"and {len(others):,} more, of earlier experiments"), dictionary_rows(others)]))


def dictionary_rows(rows):
    """Dictionaries as a table, a row each that leads to its features and its experiment."""
    names = ("dictionary", "experiment", "kind", "layers × features", "FVU", "L0", "dead", "explained", "graphs")
    body = [
        [
            html.Td(dcc.Link(row["dict_id"], href=search_url(dict_id=row["dict_id"])), title=row["dict_id"]),
            html.Td(dcc.Link(row["experiment"], href=run_url(row["experiment"])) if row["experiment"] else None),
            " ".join(part for part in (row["kind"], row["activation"]) if part),
            f"{number(row['n_layers'])} × {number(row['n_features'])}",
            number(row["fvu"]),
            number(row["l0"]),
            percent(row["dead_frac"]),
            number(row["n_explained"]),
            number(row["n_graphs"]),
        ]
        for row in rows
    ]
    return table(names, body)


def dictionary_card(row):
    """One dictionary: what it is and how good."""
    what = [row["kind"], row["activation"], row["model_id"]]
    size = f"{number(row['n_layers'])} layers × {number(row['n_features'])} features"
    return html.Article(
        [
            html.H3(row["dict_id"]),
            html.P(" · ".join([part for part in what if part] + [size]), className="quiet"),
            stats(
                stat("FVU", number(row["fvu"]), hint="share of the MLP outputs' variance left unexplained, pooled"),
                stat("L0", number(row["l0"]), hint="active features per layer and token"),
                stat("dead", percent(row["dead_frac"]), hint="share of features that never fire on the evaluation's text"),
                stat("CE recovered", percent(row["ce_recovered"]), hint=_baselines(row)),
                stat("top-1", percent(row["top1_agreement"]), hint="the replacement model's first token is the model's"),
                stat(
                    "top-1 confident",
                    percent(row["top1_agreement_confident"]),
                    hint="the same where the model's own top probability is at least 0.5",
                ),
            ),
            html.P(
                [
                    dcc.Link(f"{number(row['n_explained'])} explained features", href=search_url(dict_id=row["dict_id"])),
                    f", mean score {number(row['mean_score'])}" if is_number(row["mean_score"]) else "",
                    f" · {number(row['n_graphs'])} graph{'s' * (row['n_graphs'] > 1)}" if row["n_graphs"] else "",
                ],
                className="foot",
            ),
        ],
        className="card",
    )


def _baselines(row):
    names = {"ce_original": "model", "ce_replacement": "replacement", "ce_mean": "mean-ablated", "ce_zero": "zero-ablated"}
    return "cross-entropy in nats: " + ", ".join(f"{label} {number(row[name])}" for name, label in names.items())


def curves(dict_ids):
    """The curves with their two choices; callbacks fill them, again and again while something runs."""
    return html.Section(
        [
            html.Div(
                [
                    html.H2("Metrics"),
                    html.Label(
                        [
                            "Dictionary",
                            dcc.Dropdown(dict_ids, dict_ids[0] if dict_ids else None, id=DICT_SELECT, clearable=False),
                        ],
                        className="wide",
                    ),
                    html.Label(["Metric", dcc.Dropdown([FIRST_METRIC], FIRST_METRIC, id=METRIC_SELECT, clearable=False)]),
                ],
                className="controls",
            ),
            html.Div(
                [
                    _figure("Training", TRAIN_FIGURE),
                    _figure("Evaluation, on held-out text", EVALUATE_FIGURE),
                ],
                className="pair",
            ),
        ],
        id=CURVES,
        className="metrics",
        hidden=not dict_ids,
    )


def _figure(title, component_id):
    return html.Figure(
        [html.Figcaption(title), dcc.Graph(id=component_id, config=figures.GRAPH_CONFIG, style={"height": figures.HEIGHT})]
    )


def graph_list(graphs):
    """The first graphs as rows that lead to their pages."""
    names = named_by_prompt(graphs)
    rows = [
        html.Li(
            [
                dcc.Link(names[row["graph_id"]], href=graph_url(row["graph_id"])),
                html.Span(f"→ {row['top_logit'] or '?'} {percent(row['top_probability'])}", className="accent"),
                html.Span(f"completeness {number(row['completeness_score'])}", className="quiet"),
            ]
        )
        for row in graphs.head(MAX_GRAPHS).to_dicts()
    ]
    more = graphs.height - len(rows)
    return html.Ul(
        [*rows, html.Li(f"and {more:,} more on the graph page", className="quiet") if more > 0 else None], className="rows"
    )


def experiments(found, dictionaries, asked):
    """The newest experiments, a row each, and where all of them are. found: of `parts.newest`; dictionaries, asked: frames of page_dictionaries
    and page_costs."""
    newest = dict(list(found.items())[:MAX_EXPERIMENTS])
    sizes = disk.sizes(row for rows in newest.values() for row in parts.last_runs(rows))
    by_id = {row["dict_id"]: row for row in dictionaries.to_dicts()}
    more = f"All {len(found):,} experiments" if len(found) > len(newest) else "Stages, failures and comparison"
    return [parts.experiments(newest, by_id, sizes, asked.to_dicts()), html.P(dcc.Link(more, href=address(RUNS)))]


@callback(
    Output(BODY, "children"),
    Output(DICT_SELECT, "options"),
    Output(DICT_SELECT, "value"),
    Output(CURVES, "hidden"),
    Input(live.CHANGED, "data"),
    State(DICT_SELECT, "value"),
    prevent_initial_call=True,
)
def follow(_changed, chosen):
    """A stage began or ended: what the database holds may be other now."""
    shown, measured = body()
    return shown, measured, chosen if chosen in measured else next(iter(measured), None), not measured


@callback(
    Output(METRIC_SELECT, "options"), Output(METRIC_SELECT, "value"), Input(DICT_SELECT, "value"), State(METRIC_SELECT, "value")
)
def offer_metrics(dict_id, chosen):
    if not dict_id:
        return [FIRST_METRIC], FIRST_METRIC
    names = sorted(set(data.query("page_metric_names", dict_id=dict_id)["name"]))
    return names, next((name for name in (chosen, FIRST_METRIC, *names) if name in names), FIRST_METRIC)


@callback(
    Output(TRAIN_FIGURE, "figure"),
    Output(EVALUATE_FIGURE, "figure"),
    Input(DICT_SELECT, "value"),
    Input(METRIC_SELECT, "value"),
    Input(live.TICK, "n_intervals"),
)
def draw(dict_id, name, _ticks):
    if not dict_id:
        return no_update, no_update
    with data.session():
        train, evaluate = (
            data.query("metrics_curve", dict_id=dict_id, name=name or "", stage=stage) for stage in ("train", "evaluate")
        )
    return figures.training_curve(train, name=name), figures.evaluation_bars(evaluate, name=name)
