"""Runs: what runs now, every experiment with its stages and what it took, and two or more of them compared."""

import dash
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html, no_update

from cltdb.database.display import figures
from cltdb.database.display.words import number, seconds, size
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import error_notice, not_here, notice, stat, stats
from dashboards.runs import compare, disk, live, parts, underway
from dashboards.urls import RUNS, frontier_url, runs_url

dash.register_page(__name__, path=RUNS, name="Runs", title="Runs · cltdb", order=0.5)
QUERIES = (
    "page_runs",
    "page_dictionaries",
    "page_costs",
    "spec_differences",
    "evaluation",
    "metrics_curve",
    "page_metric_names",
)

BODY, COMPARE, COMPARISON, METRIC, CURVES, ADDRESS, SWEEP = (
    "runs-body", "runs-compare", "runs-comparison", "runs-metric", "runs-curves", "runs-address", "runs-sweep",
)  # fmt: skip
FIRST_METRIC = "fvu"
ADD = "Choose two experiments or more above."


def layout(compare="", sweep=None, **_):
    """The page; the address says which experiments are compared, or which sweep's points are listed alone."""
    shown, names = body(sweep)
    chosen = [name for name in compare.split(",") if name in names]
    return html.Main(
        [
            html.H1(f"Runs of {sweep}" if sweep else "Runs"),
            live.section(always=not names),
            html.Div(shown, id=BODY),
            html.Section(
                [
                    html.H2("Compare"),
                    html.Label(
                        [
                            html.Span("Experiments, the first one beside the others", className="quiet"),
                            dcc.Dropdown(names, chosen, id=COMPARE, multi=True, placeholder="two or more", clearable=False),
                        ]
                    ),
                    *(not_here("experiment", name, names) for name in compare.split(",")),
                    html.Div(id=COMPARISON),
                    html.Div(
                        [
                            html.Label(
                                ["Metric over training", dcc.Dropdown([FIRST_METRIC], FIRST_METRIC, id=METRIC, clearable=False)]
                            ),
                            dcc.Graph(id=CURVES, config=figures.GRAPH_CONFIG, style={"height": figures.HEIGHT}),
                        ],
                        id=f"{CURVES}-part",
                        hidden=True,
                    ),
                ],
                className="compare",
                hidden=len(names) < 2,
            ),
            dcc.Store(id=ADDRESS),
            dcc.Store(id=SWEEP, data=sweep),
        ],
        className="runs",
    )


def body(sweep=None):
    """(elements of what the database holds, names of the experiments in it); of one sweep or of all."""
    running = live.running(None)
    try:
        with data.session():
            runs, dictionaries = data.query("page_runs"), data.query("page_dictionaries")
            asked = data.query("page_costs")
    except CltdbError as error:
        do = "A run is under way; it is listed here when its first stages are in the database."
        return [notice("Nothing to list yet", do) if running else error_notice(error)], []
    found = parts.newest([row for row in underway.in_step(runs.to_dicts()) if sweep in (None, row["sweep"])])
    if not found and not runs.is_empty():
        return [notice(f"There is no sweep {sweep}", "The page Runs without one lists all experiments.")], []
    if not found:
        return [notice("Nothing has run yet", "Run `cltdb run experiments/quickstart.yaml`; experiments are listed here.")], []
    used = disk.here()
    last = [row for rows in found.values() for row in parts.last_runs(rows)]
    totals = stats(
        stat("experiments", number(len(found))),
        stat("time of stages", seconds(sum(row["seconds"] or 0 for row in last))),
        stat("stages that failed", number(sum(row["status"] in ("failed", "killed") for row in last))),
        stat("asked of language models", parts.dollars(asked["cost_usd"].sum() if asked["cost_usd"].count() else None)),
        *([stat("workspace", size(used.total), hint=_others(used)), stat("free on its disk", size(used.free))] if used else []),
    )
    by_id = {row["dict_id"]: row for row in dictionaries.to_dicts()}
    link = dcc.Link("FVU against L0 of all of them", href=frontier_url(**({"sweep": sweep} if sweep else {})))
    listed = dict(list(found.items())[: parts.MAX_EXPERIMENTS])
    more = len(found) - len(listed)
    said = html.P(f"and {more:,} more: `cltdb status`, or table stage_runs on page SQL", className="quiet") if more else None
    return [totals, parts.experiments(listed, by_id, used and used.artifacts, asked.to_dicts()), said, html.P(link)], list(found)


def _others(used):
    return "artifacts " + ", ".join(
        [size(sum(used.artifacts.values())), *(f"{name} {size(n)}" for name, n in used.others.items())]
    )


@callback(
    Output(live.LIVE, "children"),
    Output(live.CHANGED, "data"),
    Output(live.TICK, "disabled"),
    Input(live.TICK, "n_intervals"),
    State(live.CHANGED, "data"),
    State(live.ONLY, "data"),
    prevent_initial_call=True,
)
def refresh(_ticks, known, only):
    """What runs now, on whichever page; the last time when nothing runs any more."""
    found = live.running(only)
    state = live.state_of(found)
    return live.cards(found), no_update if state == known else state, not state and bool(known)


@callback(
    Output(BODY, "children"),
    Output(COMPARE, "options"),
    Input(live.CHANGED, "data"),
    State(SWEEP, "data"),
    prevent_initial_call=True,
)
def follow(_changed, sweep):
    return body(sweep)


@callback(
    Output(COMPARISON, "children"),
    Output(METRIC, "options"),
    Output(f"{CURVES}-part", "hidden"),
    Output(ADDRESS, "data"),
    Input(COMPARE, "value"),
)
def contrast(names):
    chosen = names or []
    names = chosen[: compare.MAX_COMPARED]
    url = runs_url(compare=",".join(names)) if names else runs_url()
    if len(names) < 2:
        return html.P(ADD, className="quiet"), [FIRST_METRIC], True, url if names else no_update
    with data.session():
        of = last_of(names)
        differences = {other: data.query("spec_differences", experiment=names[0], other=other).to_dicts() for other in names[1:]}
        measured = {name: pooled(parts.dict_id_of(of[name])) for name in names}
        metrics = sorted({row for name in names if (dict_id := parts.dict_id_of(of[name])) for row in trained(dict_id)})
    times = {name: {row["stage"]: row["seconds"] for row in of[name] if row["seconds"]} for name in names}
    tables = [
        html.H3("Specs"), compare.spec_table(names, differences), html.H3("Results"), compare.metric_table(names, measured, times),
    ]  # fmt: skip
    if len(chosen) > len(names):
        tables.insert(0, html.P(f"Of the {len(chosen)} that are chosen, the first {len(names)} are compared.", className="quiet"))
    return tables, metrics or [FIRST_METRIC], False, url


def last_of(names):
    """{experiment: the last runs of the stages of its newest spec}."""
    return {
        name: parts.last_runs(parts.newest(data.query("page_runs", experiment=name).to_dicts()).get(name, [])) for name in names
    }


def pooled(dict_id):
    """{metric: value} of a dictionary's evaluation, pooled over layers."""
    found = data.query("evaluation", dict_id=dict_id).to_dicts() if dict_id else []
    return {row["name"]: row["value"] for row in found if row["layer"] is None}


def trained(dict_id):
    """Names of what was measured while a dictionary was trained."""
    return [row["name"] for row in data.query("page_metric_names", dict_id=dict_id).to_dicts() if row["stage"] == "train"]


@callback(Output(CURVES, "figure"), Input(COMPARE, "value"), Input(METRIC, "value"))
def draw(names, metric):
    names = (names or [])[: compare.MAX_COMPARED]
    if len(names) < 2:
        return no_update
    with data.session():
        wanted = [dict_id for one in last_of(names).values() if (dict_id := parts.dict_id_of(one))]
        frame = data.query("metrics_curve", name=metric or FIRST_METRIC, stage="train")
    return figures.pooled_curves(frame.filter(frame["dict_id"].is_in(wanted)), name=metric or FIRST_METRIC)


clientside_callback(
    ClientsideFunction("cltdb_page", "remember"),
    Output(ADDRESS, "modified_timestamp"),
    Input(ADDRESS, "data"),
    prevent_initial_call=True,
)
