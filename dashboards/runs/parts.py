"""Runs as elements: the table of experiments, the stages of one, what was asked of language models, trainings without a dictionary."""

from collections import Counter
from datetime import datetime

from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, seconds, size, visible
from dashboards.components import stat, stats, table
from dashboards.urls import run_url, runs_url, search_url

MAX_EXPERIMENTS = 200
KEY_DIGITS = 8
TRAINING_STATUS = {
    "running": "in training when its rows were written",
    "done": "trained; its stage database has not run",
    "failed": "training failed",
    "killed": "training was ended; run it again to continue",
}


def training_card(row):
    """A training without a dictionary: how far it came. row: of `underway.trainings`."""
    status = TRAINING_STATUS.get(row["status"], "not finished")
    return html.Article(
        [
            html.H3(row["dict_id"]),
            html.P(f"{status} · step {number(row['step'])}", className="quiet"),
            stats(
                stat("FVU", number(row["fvu"]), hint="of the last training batch on record, pooled"),
                stat("L0", number(row["l0"]), hint="active features per layer and token"),
                stat("dead", percent(row["dead_frac"]), hint="share of features that have not fired for long"),
            ),
            html.P(visible(row["error"]), className="error") if row["error"] else None,
        ],
        className="card training",
    )


def last_runs(runs):
    """The last run of every stage of one spec, in the order in which they began: of rows of named query page_runs. A note that an artifact was
    there already gives way to the run that made it."""
    last = {}
    for row in sorted(runs, key=_began):
        known = last.get(row["stage"])
        if not (known and row["cached"] and known["key"] == row["key"] and known["status"] == "done"):
            last[row["stage"]] = row
    return sorted(last.values(), key=_began)


def _began(row):
    return row["started_at"] or datetime.min


def dict_id_of(last):
    """The dictionary that an experiment trained or used; None where it has none yet. last: of `last_runs`."""
    return next((row["dict_id"] for row in last if row["dict_id"]), None)


def newest(runs):
    """{experiment: rows of its newest spec}, the newest first. runs: rows of named query page_runs."""
    found, specs = {}, {}
    for row in runs:
        if specs.setdefault(row["experiment"], row["spec_hash"]) == row["spec_hash"]:
            found.setdefault(row["experiment"], []).append(row)
    return found


def experiments(found, dictionaries, sizes, asked):
    """A row per experiment: its stages, its dictionary, what it took. found: of `newest`; dictionaries: {dict_id: row of page_dictionaries};
    sizes: {(stage, key): bytes} or None; asked: rows of named query page_costs."""
    rows = []
    for name, runs in found.items():
        last = last_runs(runs)
        dict_id = dict_id_of(last)
        numbers = dictionaries.get(dict_id, {})
        taken = None if sizes is None else sum(sizes.get((row["stage"], row["key"]), 0) for row in last)
        paid = [row for row in asked if row["dict_id"] == dict_id]
        rows.append(
            [
                html.Td(dcc.Link(name, href=run_url(name)), title=name),
                html.Td(dcc.Link(runs[0]["sweep"], href=runs_url(sweep=runs[0]["sweep"])) if runs[0]["sweep"] else None),
                _counted(last),
                moment(max((row["started_at"] for row in last if row["started_at"]), default=None)),
                seconds(sum(row["seconds"] or 0 for row in last)),
                size(taken),
                paid_for(paid),
                html.Td(dcc.Link(dict_id, href=search_url(dict_id=dict_id)) if dict_id else None, title=dict_id),
                number(numbers.get("fvu")),
                number(numbers.get("l0")),
            ]
        )
    return table(["experiment", "sweep", "stages", "last began (UTC)", "time", "disk", "cost", "dictionary", "FVU", "L0"], rows)


def _counted(last):
    """What became of the stages."""
    counts = Counter(row["status"] for row in last)
    failed = [row["stage"] for row in last if row["status"] in ("failed", "killed")]
    if failed:
        return html.Td(f"{counts['done']} done, {', '.join(failed)} failed", className="error")
    running = [row["stage"] for row in last if row["status"] == "running"]
    return f"{counts['done']} done" + (f", {', '.join(running)} began" if running else "")


def stages(last, usage):
    """The stages of a spec as a table, errors spelled out. last: of `last_runs`; usage: `disk.Usage` or None."""
    rows = []
    for row in last:
        status = "cached" if row["cached"] else row["status"]
        taken = usage.artifacts.get((row["stage"], row["key"])) if usage else None
        rows.append(
            [
                html.B(row["stage"]),
                html.Td(html.Span(status, className=f"status {row['status']}")),
                moment(row["started_at"]),
                "–" if row["cached"] else seconds(row["seconds"]),
                size(taken),
                visible(row["host"] or "–"),
                row["device"] or "–",
                html.Td(html.Code(row["key"][:KEY_DIGITS]), title=row["key"]),
                html.Td(_versions(row["versions"]), title=row["versions"]),
            ]
        )
    errors = [html.P([html.B(f"{row['stage']}: "), visible(row["error"])], className="error") for row in last if row["error"]]
    names = ["stage", "status", "began (UTC)", "time", "disk", "host", "device", "artifact", "versions"]
    return html.Div([table(names, rows), *errors])


def _versions(text):
    """The first of the versions that a run notes; all are in the hint."""
    return visible((text or "–").strip("{}").split(",")[0].replace('"', ""))[:24]


def attempts(runs, last):
    """Runs of stages before the last ones, as a list to unfold; nothing where there are none."""
    shown = {row["run_id"] for row in last}
    rows = [
        [row["stage"], row["status"], moment(row["started_at"]), seconds(row["seconds"]), visible(row["error"] or "")]
        for row in runs
        if row["run_id"] not in shown and not row["cached"]
    ]
    if not rows:
        return None
    return html.Details(
        [
            html.Summary(f"Earlier runs of its stages: {len(rows)}"),
            table(["stage", "status", "began (UTC)", "time", "reason"], rows),
        ]
    )


def costs(found):
    """What language models were asked, by purpose. found: rows of named query request_costs."""
    rows = [
        [
            row["purpose"],
            row["model"],
            number(row["n_requests"]),
            number(row["n_unusable"] + row["n_failed"] + row["n_skipped_budget"]),
            number(row["prompt_tokens"]),
            number(row["completion_tokens"]),
            paid_for([row]),
            visible(row["commonest_error"] or ""),
        ]
        for row in found
    ]
    return table(
        ["purpose", "model", "requests", "without an answer", "tokens sent", "received", "cost", "commonest reason"], rows
    )


def paid_for(asked):
    """What answers cost, and how many have no known price. asked: rows of named query page_costs or request_costs."""
    known = [row["cost_usd"] for row in asked if row["cost_usd"] is not None]
    unknown = sum(row["n_unknown_cost"] for row in asked)
    return dollars(sum(known) if known else None) + (f" ({unknown:,} unknown)" if unknown else "")


def dollars(value):
    """A cost; a dash where none is known."""
    return f"${value:,.2f}" if is_number(value) and value >= 0.01 else f"${value:.2g}" if is_number(value) else "–"


def moment(value):
    """A time as text."""
    return f"{value:%Y-%m-%d %H:%M}" if value else "–"
