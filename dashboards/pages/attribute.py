"""Attribute a prompt: `cltdb attribute` on the spec of a known dictionary, as a job that one can follow and stop."""

import json

import dash
from dash import ALL, Input, Output, State, callback, ctx, dcc, html, no_update

from cltdb.database.display.words import seconds
from cltdb.errors import CltdbError
from dashboards import data, jobs
from dashboards.components import error_notice, notice
from dashboards.urls import ATTRIBUTE, graph_url

dash.register_page(__name__, path=ATTRIBUTE, name="Attribute", title="Attribute · cltdb", order=4)
QUERIES = ("page_specs",)
PROMPT, DICT_SELECT, START, MESSAGE = "attribute-prompt", "attribute-dictionary", "attribute-start", "attribute-message"
STOP, JOBS, TICK = "attribute-stop", "attribute-jobs", "attribute-tick"
REFRESH_MS = 1000
STATUS = {
    "running": "runs",
    "stopping": "is being stopped",
    "finished": "finished",
    "failed": "failed",
    "stopped": "stopped",
    "lost": "ended after the server that started it was gone",
}
NOT_HERE = (
    "Work is started on this machine alone, for the project's own database",
    "Run `cltdb attribute SPEC --prompt TEXT` in a terminal. Pages that a proxy or another machine shows start no work, nor does `cltdb dash --from`.",
)


def layout(dict_id=None, prompt="", **_):
    """The page; the fields of the address fill in the form."""
    if jobs.here() is None:
        return notice(*NOT_HERE)
    dict_ids = data.query("page_specs")["dict_id"].to_list()
    if not dict_ids:
        return notice("No dictionary to attribute with", "Run `cltdb run SPEC`; the stage `train` makes one.")
    return view(dict_ids, dict_id=dict_id if dict_id in dict_ids else dict_ids[0], prompt=prompt)


def view(dict_ids, *, dict_id, prompt):
    """The form and the place of the jobs."""
    return html.Main(
        [
            dcc.Interval(id=TICK, interval=REFRESH_MS),
            html.H1("Attribute a prompt"),
            html.Div(
                [
                    html.Label(
                        ["Prompt", dcc.Input(id=PROMPT, value=prompt, placeholder="The capital of Spain is")],
                        className="wide prompt",
                    ),
                    html.Label(
                        ["Dictionary", dcc.Dropdown(dict_ids, dict_id, id=DICT_SELECT, clearable=False)], className="wide"
                    ),
                    html.Button("Attribute", id=START, className="button"),
                ],
                className="controls",
            ),
            html.Div(id=MESSAGE),
            html.Div(id=JOBS),
        ],
        className="attribute",
    )


def job_cards(found):
    """The jobs, the newest first."""
    return [job_card(job) for job in found] or html.P("What you start here appears here.", className="quiet")


def job_card(job):
    """One job: how far it is, what it says, where its graph is."""
    graph_id, name = graph_of(job), {"type": STOP, "job": job.job_id}
    took = f" · {seconds(job.seconds)}" if job.seconds is not None else ""
    return html.Article(
        [
            html.H3(job.title),
            html.P([STATUS[job.status], took], className="quiet"),
            html.P(dcc.Link("See the graph", href=graph_url(graph_id))) if graph_id else None,
            html.P(job.error, className="error") if job.error else None,
            html.Pre("\n".join(job.lines), className="log") if job.lines and not job.error else None,
            html.Button("Stop", id=name, className="button quiet") if job.status == "running" else None,
        ],
        className=f"card job {job.status}",
    )


def graph_of(job):
    """The graph that a job made; None where it made none."""
    try:
        return json.loads(job.output)["graph_id"]
    except (ValueError, TypeError, KeyError):
        return None


def start(work, *, prompt, dict_id):
    """Starts the attribution of a prompt. work: `jobs.Jobs`."""
    specs = data.query("page_specs", dict_id=dict_id or "")
    if specs.is_empty():
        raise CltdbError("dictionary", found=f"no spec of {dict_id}", expected="a dictionary of this database", do="choose one")
    if not (prompt or "").strip():
        raise CltdbError("prompt", found="no text", expected="a prompt", do="write one")
    work.start("attribute", f"--prompt={prompt}", "--json", spec=specs["spec_yaml"][0], title=prompt)


@callback(
    Output(MESSAGE, "children"),
    Output(TICK, "disabled"),
    Input(START, "n_clicks"),
    Input(PROMPT, "n_submit"),
    Input({"type": STOP, "job": ALL}, "n_clicks"),
    State(PROMPT, "value"),
    State(DICT_SELECT, "value"),
    prevent_initial_call=True,
)
def act(_clicks, _submits, _stops, prompt, dict_id):
    work, asked = jobs.here(), ctx.triggered_id
    if not ctx.triggered[0]["value"]:  # a button that has just appeared, which calls too
        return no_update, no_update
    if work is None:
        return notice(*NOT_HERE), True
    try:
        if asked in (START, PROMPT):
            start(work, prompt=prompt, dict_id=dict_id)
        else:
            work.stop(asked["job"])
    except CltdbError as error:
        return error_notice(error), False
    return None, False


@callback(
    Output(JOBS, "children"),
    Output(TICK, "disabled", allow_duplicate=True),
    Input(TICK, "n_intervals"),
    prevent_initial_call=True,
)
def follow(_ticks):
    work = jobs.here()
    found = work.all() if work else []
    return job_cards(found), not any(job.status in jobs.ALIVE for job in found)
