"""The live part of a page: what runs now, refreshed while something runs. It is on several pages, so its callback is in one of them (runs.py).

A page that shows more than what runs listens to `CHANGED`, whose data change when a stage or a run begins or ends.
"""

from dash import dcc, html

from cltdb.database.display.words import number, percent, seconds, visible
from dashboards.components import stat, stats
from dashboards.runs import underway
from dashboards.urls import run_url

TICK, LIVE, CHANGED, ONLY = "runs-tick", "runs-live", "runs-changed", "runs-only"
REFRESH_MS = 5_000
BETWEEN = "between two stages"


def section(*, only=None, always=False):
    """The live part. only: of this experiment; always: it is refreshed also while nothing runs, on a page that waits for a first run."""
    found = running(only)
    state = state_of(found)
    return html.Div(
        [
            dcc.Interval(id=TICK, interval=REFRESH_MS, disabled=not state and not always),
            dcc.Store(id=ONLY, data=only),
            dcc.Store(id=CHANGED, data=state),
            html.Div(cards(found), id=LIVE, **{"aria-live": "polite"}),
        ]
    )


def running(only):
    """The stages that run now, of one experiment or of all."""
    return [one for one in underway.running() if only in (None, one.experiment)]


def state_of(found):
    """What changes when a stage or a run begins or ends; empty where nothing runs and no run is between two stages."""
    return [[one.experiment, one.stage, one.key] for one in found] or ([BETWEEN] if underway.is_busy() else [])


def cards(found):
    """A card per stage that runs; nothing where none does."""
    return [html.H2("Under way"), html.Div([card(one) for one in found], className="cards")] if found else []


def card(one):
    """A stage that runs: how far it is, how fast, for how long still."""
    done = None if one.done is None else f"{one.done:,.0f}" + (f" of {one.total:,.0f}" if one.total else "") + f" {one.unit}"
    rate = None if one.per_second is None else f"{number(float(one.per_second))} {one.unit}/s"
    left = None if one.left_s is None else ("about " if one.left_s else "") + seconds(one.left_s)
    hint = f"by the time that it took in {one.like}" if one.like else "at the rate so far"
    bar = (
        html.Progress(value=str(one.share), max="1", **{"aria-label": f"{one.stage} {percent(one.share)}"})
        if one.share is not None
        else None
    )
    return html.Article(
        [
            html.H3([dcc.Link(one.experiment, href=run_url(one.experiment)), html.Small(one.stage)]),
            html.P(
                " · ".join(filter(None, [done, visible(one.note or "")])) or "began; it does not say yet how far it is",
                className="quiet",
            ),
            bar,
            stats(
                stat("running for", seconds(one.seconds), hint=f"on {one.host}, {one.device}"),
                stat("rate", rate or "–"),
                stat("left", left or "–", hint=hint if left else None),
            ),
        ],
        className="card training",
    )
