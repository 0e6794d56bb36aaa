"""Jobs as pages show them: a card each, and how many run now in the masthead."""

from typing import NamedTuple

from dash import ALL, Input, Output, State, callback, ctx, dcc, html, no_update

from cltdb.database.display.words import percent, seconds
from cltdb.errors import CltdbError
from dashboards import jobs, work
from dashboards.components import error_notice, notice
from dashboards.urls import ASK, address

STOP, GO = "job-stop", "job-go"
"""Types of the ids of buttons, {"type": …, "job": its id, "on": where the card is}."""
BADGE, BADGE_TICK = "jobs-badge", "jobs-badge-tick"
BADGE_MS = 4000
N_TOLD = 3
"""Jobs that a panel of results shows at most."""
STATUS = {
    "running": "runs",
    "stopping": "is being stopped",
    "finished": "finished",
    "failed": "failed",
    "stopped": "stopped",
    "lost": "ended, and nobody saw how: it was killed, or the machine was",
}
NOT_HERE = (
    "Work is started on this machine alone, for the project's own database",
    "Run `cltdb attribute SPEC --prompt TEXT` in a terminal. Pages that a proxy or another machine shows start no work, nor does `cltdb dash --from`.",
)


def job_cards(found, *, on):
    """The jobs, the newest first. on: the part of a page that shows them, whose callback answers their buttons."""
    return [job_card(job, on=on) for job in found] or html.P("What you start here appears here.", className="quiet")


def followed(found, seen, about, results, *, on):
    """(cards of the jobs that run or went wrong since one finished, what is stored, what was seen now, whether the clock may stand still): the
    answer of a callback that follows jobs whose results are rows. found: jobs; about, seen: what they are about, and what was seen before;
    results(): what is stored, asked for anew once a job is finished."""
    since = next((i for i, job in enumerate(found) if job.status == "finished"), len(found))
    told = [job for i, job in enumerate(found) if job.status in jobs.ALIVE or i < since]
    now = {**about, "finished": [job.job_id for job in found if job.status == "finished"]}
    try:
        shown = no_update if seen == now else results()
    except CltdbError as error:
        shown, now = error_notice(error), no_update  # so that the next call tries again
    return [job_card(job, on=on) for job in told[:N_TOLD]], shown, now, not any(job.status in jobs.ALIVE for job in found)


class Places(NamedTuple):
    """Where a panel that starts jobs and follows them to rows has its parts: ids, but for `about`."""

    on: str
    """What its cards say of where they are."""
    pressed: str
    """The button that starts a job."""
    opened: str
    message: str
    tick: str
    cards: str
    stored: str
    seen: str
    about: State
    """What its jobs and rows are about."""


def register_followed(run, follow, places, state):
    """Makes known the two callbacks of such a panel. run: what its button or a button of a card starts, by the names of `state`;
    follow(ticks, opened, seen, about): as `followed` answers; places: `Places`."""
    buttons = [Input({"type": kind, "job": ALL, "on": places.on}, "n_clicks") for kind in (STOP, GO)]
    callback(
        Output(places.message, "children"),
        Output(places.tick, "disabled"),
        inputs={"_runs": Input(places.pressed, "n_clicks"), "_of_jobs": buttons},
        state=state,
        prevent_initial_call=True,
    )(run)
    callback(
        Output(places.cards, "children"),
        Output(places.stored, "children"),
        Output(places.seen, "data"),
        Output(places.tick, "disabled", allow_duplicate=True),
        Input(places.tick, "n_intervals"),
        Input(places.opened, "n_clicks"),
        State(places.seen, "data"),
        places.about,
        prevent_initial_call=True,
    )(follow)


def job_card(job, *, on):
    """One job: how far it is, what it says, what it made, what can be done next."""
    took = f" · {seconds(job.seconds)}" if job.seconds is not None else ""
    told = job.output if job.status == "finished" and job.kind in work.FOLLOWED_BY else "\n".join(job.lines)
    return html.Article(
        [
            html.H3(job.title),
            html.P([STATUS[job.status], took], className="quiet"),
            _progress(job),
            *(html.P(dcc.Link(text, href=href)) for text, href in work.made(job)),
            html.P(job.error, className="error") if job.error else None,
            html.Pre(told, className="log") if told and not job.error else None,
            _buttons(job, on),
        ],
        className=f"card job {job.status}",
    )


def _progress(job):
    if job.progress is None:
        return None
    stage, share = job.progress
    bar = html.Div(
        style={"--share": f"{share:.3f}"},
        className="bar",
        role="progressbar",
        **{"aria-label": stage, "aria-valuenow": f"{100 * share:.0f}", "aria-valuemin": "0", "aria-valuemax": "100"},
    )
    return html.Div([html.Span(f"{stage} {percent(share)}"), bar], className="progress")


def _buttons(job, on):
    step = work.next_step(job)
    texts = {STOP: "Stop" if job.status == "running" else None, GO: step and step[0]}
    buttons = [
        html.Button(text, id={"type": kind, "job": job.job_id, "on": on}, className="button quiet" if kind == STOP else "button")
        for kind, text in texts.items()
        if text
    ]
    return html.P(buttons) if buttons else None


def pressed():
    """The id of the component whose press the callback answers; None where buttons have just appeared, which calls it too. Both may come in one
    call."""
    found = next((one["prop_id"] for one in ctx.triggered if one["value"]), None)
    return found and ctx.triggered_prop_ids[found]


def answer_press(asked):
    """(message, whether the clock that follows jobs stands still) of a callback that buttons call: those of cards, and those that start work.
    asked(button): the `jobs.Request` of one that starts work, by its id."""
    there, button = jobs.here(), pressed()
    if button is None:
        return no_update, no_update
    if there is None:
        return notice(*NOT_HERE), True
    try:
        if isinstance(button, str):
            there.start(asked(button))
        else:
            _press(there, button)
    except CltdbError as error:
        return error_notice(error), False
    return None, False


def _press(there, button):
    """Does what a button of a card says. there: `jobs.Jobs`; button: its id."""
    if button["type"] == STOP:
        there.stop(button["job"])
    elif step := work.next_step(job := there.job(button["job"])):
        there.start(work.request(step[1], job.fields))


def badge():
    """For the masthead: how many jobs run, with a link to them; nothing where none does."""
    return html.Span([dcc.Interval(id=BADGE_TICK, interval=BADGE_MS), html.Span(id=BADGE)], className="badge")


def count(_ticks):
    there = jobs.here()
    n = there.n_running() if there else 0
    return dcc.Link(f"{n} job{'s' * (n > 1)} running", href=address(ASK)) if n else None


def register():
    """Makes the callback of the badge known to the app that is being made."""
    callback(Output(BADGE, "children"), Input(BADGE_TICK, "n_intervals"))(count)
