"""The panel Steer of the graph page: sets features in the running model, and shows what it then says. Work is a job (`cltdb intervene`); results
are rows of the database, so those of the command line are shown too."""

import polars as pl
from dash import Input, Output, State, callback, clientside_callback, ctx, dcc, html, no_update

from cltdb.errors import CltdbError
from dashboards import data, jobs, steered, work
from dashboards.components import error_notice
from dashboards.graph import ids, names, steer, stored
from dashboards.job_cards import Places, answer_press, followed, register_followed

TARGET, OPERATION, VALUE, MODE = "steer-target", "steer-operation", "steer-value", "steer-mode"
VALUE_LABEL, GENERATE, ADD, CLEAR, RUN = "steer-value-label", "steer-generate", "steer-add", "steer-clear", "steer-run"
CHANGES, LISTED, MESSAGE, JOBS, STORED = "steer-changes", "steer-listed", "steer-message", "steer-jobs", "steer-stored"
TICK, SEEN, PLACE, TAB = "steer-tick", "steer-seen", "steer", "graph-tab-steer"
REFRESH_MS, N_STORED = 1000, 10
NAMING = ("node_id", "kind", "layer", "feature", "position", "string", "text")


def panel():
    """The panel before anything is known; its callbacks fill it."""
    form = [
        html.Label(
            ["Change", dcc.Dropdown([], id=TARGET, clearable=False, placeholder="select or pin a feature")], className="wide"
        ),
        *steered.fields((OPERATION, VALUE, VALUE_LABEL, MODE, GENERATE)),
    ]
    buttons = {RUN: ("Run", "button"), ADD: ("Add to the list", "button quiet"), CLEAR: ("Empty the list", "button quiet")}
    return [
        dcc.Store(id=CHANGES, data=[]),
        dcc.Store(id=SEEN),
        dcc.Interval(id=TICK, interval=REFRESH_MS),
        html.P(
            "Sets features in the running model, and measures what it then says beside what the graph predicts.",
            className="quiet",
        ),
        html.Div(form, className="controls steer"),
        html.Div(id=LISTED),
        html.P([html.Button(text, id=name, className=kind) for name, (text, kind) in buttons.items()], className="actions"),
        html.Div(id=MESSAGE, **{"aria-live": "polite"}),
        html.Div(id=JOBS, **{"aria-live": "polite"}),
        html.Div(id=STORED),
    ]


def _nodes(graph_id):
    """{node id: row} of the features of a graph, with what names them."""
    features = stored.graph(graph_id).nodes.filter(pl.col("kind") == "feature").select(NAMING)
    return {row["node_id"]: row for row in names.with_names(features, graph_id).iter_rows(named=True)}


def _asked(state, target, operation, value, nodes):
    """The settings that the form asks for; [] where nothing is chosen."""
    node_ids = next((found for name, _, found in steer.targets(state, nodes) if name == target), [])
    return steer.settings(node_ids, operation, value, nodes)


def results(graph_id):
    """The interventions of a graph, the newest in full."""
    nodes = _nodes(graph_id)
    named = steer.naming(nodes)
    with data.session():
        rows = data.query("graph_interventions", graph_id=graph_id, by_hand=False, limit=1000).to_dicts()
        by_hand = [row for row in rows if not row["of_stage"]]
        shown = [_shown(row, graph_id, named, is_open=i == 0) for i, row in enumerate(by_hand[:N_STORED])]
    if len(by_hand) > N_STORED:
        more = f"and {len(by_hand) - N_STORED} earlier ones: cltdb sql --query graph_interventions -p graph_id={graph_id}"
        shown.append(html.P(more, className="quiet"))
    return [*shown, steer.ablations([row for row in rows if row["of_stage"]], nodes)]


def _shown(row, graph_id, named, *, is_open):
    features = data.query("intervention_features", intervention_id=row["intervention_id"], graph_id=graph_id).to_dicts()
    chosen = steered.settings_of(row)
    said = {"title": steer.title(chosen, named), "changes": steer.changes(chosen, named)}
    return steered.intervention(row, features, named, is_open=is_open, **said)


def offer(state, listed, target, graph_id):
    """What can be set now, and what is on the list."""
    try:
        nodes = _nodes(graph_id)
    except CltdbError as error:
        return no_update, no_update, error_notice(error)
    found = steer.targets(state, nodes)
    options = [
        {"label": f"{label}: {len(node_ids)} feature{'s' * (len(node_ids) > 1)}", "value": name}
        for name, label, node_ids in found
    ]
    there = [name for name, *_ in found]
    chosen = target if target in there else next(iter(there), None)
    return (
        options,
        chosen,
        [html.P("To be changed together:", className="quiet"), steer.changes(listed, steer.naming(nodes))] if listed else None,
    )


def note(_adds, _clears, listed, state, target, operation, value, graph_id):
    if ctx.triggered_id == CLEAR:
        return []
    return steer.merged(listed, _asked(state, target, operation, value, _nodes(graph_id)))


def run(listed, asked, graph_id, mode, generate, **_inputs):
    """Starts what is on the list, or what the form asks for where the list is empty."""

    def request(_button):
        settings = listed or _asked(*asked, _nodes(graph_id))
        return work.request("intervene", {"graph_id": graph_id, "settings": settings, "mode": mode, "generate": generate})

    return answer_press(request)


def follow(_ticks, _opened, seen, graph_id):
    """The jobs of this graph that run or went wrong, and once one is finished what is stored."""
    here = jobs.here()
    if here and ctx.triggered_id == TAB:  # its first intervention needs no imports then
        here.prepare()
    found = [job for job in (here.all() if here else []) if job.kind == "intervene" and job.fields.get("graph_id") == graph_id]
    return followed(found, seen, {"graph_id": graph_id}, lambda: results(graph_id), on=PLACE)


def register():
    """Makes the callbacks of the panel known to the app that is being made."""
    clientside_callback(
        steered.HIDES_VALUE,
        Output(VALUE_LABEL, "hidden"),
        Input(OPERATION, "value"),
    )
    callback(
        Output(TARGET, "options"),
        Output(TARGET, "value"),
        Output(LISTED, "children"),
        Input(ids.STATE, "data"),
        Input(CHANGES, "data"),
        State(TARGET, "value"),
        State(ids.SELECT, "value"),
        prevent_initial_call=True,
    )(offer)
    callback(
        Output(CHANGES, "data"),
        Input(ADD, "n_clicks"),
        Input(CLEAR, "n_clicks"),
        State(CHANGES, "data"),
        State(ids.STATE, "data"),
        State(TARGET, "value"),
        State(OPERATION, "value"),
        State(VALUE, "value"),
        State(ids.SELECT, "value"),
        prevent_initial_call=True,
    )(note)
    places = Places(
        on=PLACE,
        pressed=RUN,
        opened=TAB,
        message=MESSAGE,
        tick=TICK,
        cards=JOBS,
        stored=STORED,
        seen=SEEN,
        about=State(ids.SELECT, "value"),
    )
    state = {
        "listed": State(CHANGES, "data"),
        "asked": [State(ids.STATE, "data"), State(TARGET, "value"), State(OPERATION, "value"), State(VALUE, "value")],
        "mode": State(MODE, "value"),
        "generate": State(GENERATE, "value"),
        "graph_id": State(ids.SELECT, "value"),
    }
    register_followed(run, follow, places, state)
