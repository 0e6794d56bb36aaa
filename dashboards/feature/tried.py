"""Try a text: where does a feature fire? Each text is a job (`cltdb encode`), so what was tried is there after a reload too."""

import json

from dash import Input, Output, State, callback, ctx, dcc, html

from cltdb.database.display.words import is_number, number, visible
from cltdb.errors import CltdbError
from dashboards import jobs, work
from dashboards.components import error_notice
from dashboards.feature.contexts import text_with_heat
from dashboards.job_cards import NOT_HERE, STATUS

TEXT, BUTTON, RESULTS, TICK, MEANT = "tried-text", "tried-button", "tried-results", "tried-tick", "tried-meant"
N_SHOWN, REFRESH_MS, MAX_CHARS = 3, 700, 10_000


def form(key, *, scale, here):
    """The text box, and what came of the texts tried last. key: dict_id, layer, feature; scale: the activation of full heat; here:
    `jobs.Jobs`, None where no work is started."""
    if here is None:
        return html.P(NOT_HERE[0], className="quiet")
    results, runs = tried(here, key, scale=scale)
    return html.Div(
        [
            html.Div(
                [
                    html.Label(
                        ["A text", dcc.Input(id=TEXT, placeholder="The capital of Spain is", maxLength=MAX_CHARS)],
                        className="wide prompt",
                    ),
                    html.Button("Where does it fire?", id=BUTTON, className="button"),
                ],
                className="controls",
            ),
            html.Div(results, id=RESULTS, **{"aria-live": "polite"}),
            dcc.Interval(id=TICK, interval=REFRESH_MS, disabled=not runs),
            dcc.Store(id=MEANT, data={"key": key, "scale": scale if is_number(scale) else None}),
        ]
    )


def tried(here, key, *, scale):
    """(what came of the texts tried last on the feature, whether one of them still runs)."""
    found = [job for job in here.all() if job.kind == "encode" and {name: job.fields.get(name) for name in key} == key][:N_SHOWN]
    return [_one(job, scale) for job in found], any(job.status in jobs.ALIVE for job in found)


def _one(job, scale):
    text = html.Bdi(visible(job.fields["text"]))
    if job.status != "finished":
        said = job.error or STATUS[job.status]
        return html.Article([html.P(text), html.P(said, className="error" if job.error else "quiet")], className="tried")
    answer = json.loads(job.output.splitlines()[-1])
    [one] = answer["features"]
    values = [value for value in one["activations"] if value is not None]
    shown = text_with_heat(answer["strings"], one["activations"], scale=scale)
    return html.Article([shown, html.P(summary(values, scale), className="quiet")], className="tried")


def summary(values, scale):
    """In words where it fires. values: its activations at the tokens that count."""
    active = [value for value in values if value > 0]
    if not active:
        return f"It is silent on these {number(len(values))} tokens."
    most = max(active)
    share = f", {100 * most / scale:.0f} % of its maximum in the harvest" if is_number(scale) and scale > 0 else ""
    return f"It fires on {number(len(active))} of {number(len(values))} tokens, at most with {number(most)}{share}."


@callback(
    Output(RESULTS, "children"),
    Output(TICK, "disabled"),
    Input(BUTTON, "n_clicks"),
    Input(TEXT, "n_submit"),
    Input(TICK, "n_intervals"),
    State(TEXT, "value"),
    State(MEANT, "data"),
    prevent_initial_call=True,
)
def try_text(_clicks, _submitted, _ticks, text, meant):
    here, refused = jobs.here(), None
    if here is None:
        return html.P(NOT_HERE[0], className="quiet"), True
    if ctx.triggered_id != TICK:
        try:
            here.start(work.request("encode", meant["key"] | {"text": text}))
        except CltdbError as error:
            refused = error_notice(error)
    results, runs = tried(here, meant["key"], scale=meant["scale"])
    return [refused, *results], not runs
