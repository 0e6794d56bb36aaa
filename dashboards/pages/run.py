"""One experiment: what runs of it, its stages with time, disk and failures, what it says at its end, its curves, its cost, its spec."""

import dash
from dash import Input, Output, State, callback, dcc, html
from flask import current_app

from cltdb.database.display import figures
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import SUBJECT, error_notice, named_by_prompt, notice
from dashboards.runs import disk, live, parts, underway
from dashboards.urls import RUNS, address, graph_url, runs_url, search_url

dash.register_page(__name__, path_template="/run/<experiment>", name="Run", title="Run · cltdb", under=RUNS)
QUERIES = ("page_runs", "request_costs", "metrics_curve", "page_metric_names", "graph_list", "page_in_training")

BODY, METRIC, FIGURE, DICT = "run-body", "run-metric", "run-figure", "run-dictionary"
FIRST_METRIC = "fvu"
MAX_GRAPHS = 12


def layout(experiment=None, **_):
    """The page of an experiment."""
    shown, dict_id, metrics = body(experiment)
    return html.Main(
        [
            html.P(dcc.Link("Runs", href=address(RUNS)), className="crumbs"),
            html.H1(experiment),
            live.section(only=experiment, always=not dict_id),
            html.Div(shown, id=BODY),
            html.Section(
                [
                    html.Div(
                        [
                            html.H2("Training"),
                            html.Label(["Metric", dcc.Dropdown(metrics, FIRST_METRIC, id=METRIC, clearable=False)]),
                        ],
                        className="controls",
                    ),
                    dcc.Graph(id=FIGURE, config=figures.GRAPH_CONFIG, style={"height": figures.HEIGHT}),
                ],
                className="metrics",
                id=f"{FIGURE}-part",
                hidden=not dict_id,
            ),
            dcc.Store(id=DICT, data=dict_id),
        ],
        className="run",
        **{SUBJECT: experiment},
    )


def body(experiment):
    """(elements of what the database holds of an experiment, id of its dictionary or training, names of its metrics)."""
    running = live.running(experiment)
    waits = notice(f"{experiment} is under way", "Its stages are listed here when the first of them are in the database.")
    try:
        with data.session():
            runs = underway.in_step(data.query("page_runs").to_dicts())
            training = data.query("page_in_training").to_dicts()
            rows = parts.newest(runs).get(experiment, [])
            last = parts.last_runs(rows)
            dict_id = parts.dict_id_of(last) or next(
                (row["dict_id"] for row in training if row["experiment"] == experiment), None
            )
            asked = data.query("request_costs", dict_id=dict_id or "")
            graphs = data.query("graph_list", dict_id=dict_id or "")
            names = data.query("page_metric_names", dict_id=dict_id or "")
    except CltdbError as error:
        return [waits if running else error_notice(error)], None, [FIRST_METRIC]
    runs = [row for row in runs if row["experiment"] == experiment]
    if not rows:
        missing = notice(f"There is no experiment {experiment}", "Page Runs lists those there are.")
        return [waits if running else missing], None, [FIRST_METRIC]
    shown = [_facts(runs, dict_id), html.H2("Stages"), parts.stages(last, disk.here()), parts.attempts(rows, last), closing(last)]
    if not asked.is_empty():
        shown += [html.H2("Asked of language models"), parts.costs(asked.to_dicts())]
    if not graphs.is_empty():
        links = [
            html.Li(dcc.Link(name, href=graph_url(graph_id)))
            for graph_id, name in list(named_by_prompt(graphs).items())[:MAX_GRAPHS]
        ]
        shown += [html.H2("Attribution graphs"), html.Ul(links, className="rows")]
    shown.append(html.Details([html.Summary("Its spec"), html.Pre(rows[0]["spec_yaml"] or "", tabIndex=0)]))
    measured = sorted(set(names.filter(names["stage"] == "train")["name"]))
    return shown, dict_id, measured or [FIRST_METRIC]


def _facts(runs, dict_id):
    """Where else to go, in one line."""
    links = [dcc.Link(f"features of {dict_id}", href=search_url(dict_id=dict_id))] if dict_id else []
    if sweep := runs[0]["sweep"]:
        links.append(dcc.Link(f"the points of sweep {sweep}", href=runs_url(sweep=sweep)))
    links.append(dcc.Link("compare it", href=runs_url(compare=runs[0]["experiment"])))
    n_specs = len({row["spec_hash"] for row in runs})
    said = f"the newest of {n_specs} specs" if n_specs > 1 else None
    return html.P([piece for link in [*links, said] if link for piece in (link, " · ")][:-1])


def closing(last):
    """What `cltdb run` says of the artifacts at its end; nothing where the app knows of no workspace."""
    root, lines = (current_app.config.get(name) for name in (underway.WORKSPACE, underway.CLOSING))
    if not root or not lines:
        return None
    made = {row["stage"]: root / row["stage"] / row["key"] for row in last if row["status"] == "done"}
    try:
        said = lines({stage: path for stage, path in made.items() if path.is_dir()})
    except CltdbError as error:
        return html.P(str(error), className="error")
    return (
        html.Div([html.H2("What it says at its end"), html.Pre("\n".join(said), className="log", tabIndex=0)]) if said else None
    )


@callback(
    Output(BODY, "children"),
    Output(DICT, "data"),
    Output(METRIC, "options"),
    Output(f"{FIGURE}-part", "hidden"),
    Input(live.CHANGED, "data"),
    State(live.ONLY, "data"),
    prevent_initial_call=True,
)
def follow(_changed, experiment):
    """A stage began or ended."""
    shown, dict_id, metrics = body(experiment)
    return shown, dict_id, metrics, not dict_id


@callback(Output(FIGURE, "figure"), Input(METRIC, "value"), Input(DICT, "data"), Input(live.TICK, "n_intervals"))
def draw(metric, dict_id, _ticks):
    if not dict_id:
        return dash.no_update
    return figures.training_curve(
        data.query("metrics_curve", dict_id=dict_id, name=metric or FIRST_METRIC), name=metric or FIRST_METRIC
    )
