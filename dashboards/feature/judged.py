"""Behind the scores of a feature's explanations: what each scorer counted, and which windows were judged right and wrong. Scores keep counts alone; a job
(`cltdb judged`) makes questions and answers again. Nothing is asked before it is opened."""

import json
from collections import Counter

from dash import State, dcc, html

from cltdb.database.display.words import is_number, number
from dashboards import data, jobs, work
from dashboards.components import table
from dashboards.drawn import drawn
from dashboards.feature.contexts import heat
from dashboards.job_cards import NOT_HERE, Places, answer_press, followed, register_followed

OPENED, RUN, MESSAGE, JOBS, STORED = "judged-opened", "judged-run", "judged-message", "judged-jobs", "judged-stored"
TICK, SEEN, MEANT, PLACE = "judged-tick", "judged-seen", "judged-meant", "judged"
REFRESH_MS = 1000
FUZZING, POSITIVE = "fuzzing", "positive"
KINDS = {
    "random": "random",
    "same_tokens": "with tokens on which it fires elsewhere",
    "similar_decoder": "where a feature with a similar decoder fires",
    "coactivating": "where a feature fires that fires with it elsewhere",
    "wrong_tokens": "wrong tokens marked",
    "shuffled": "truths of other windows",
}
"""{kind of a negative: in words}."""


def panel(key, *, scale):
    """What is opened. key: dict_id, layer, feature; scale: the activation of full heat."""
    return html.Details(
        [
            html.Summary("Which examples were judged right and wrong", id=OPENED),
            dcc.Store(id=MEANT, data={"key": key, "scale": scale if is_number(scale) else None}),
            dcc.Store(id=SEEN),
            dcc.Interval(id=TICK, interval=REFRESH_MS, disabled=True),
            html.Div(id=STORED),
            html.P(html.Button("Show the examples", id=RUN, className="button quiet"), className="actions"),
            html.Div(id=MESSAGE, **{"aria-live": "polite"}),
            html.Div(id=JOBS, **{"aria-live": "polite"}),
        ],
        className="judged",
    )


def right(detail):
    """(right among those in which it fires, right among the others) of the detail of a score of yes and no."""
    return tuple(round(detail[share] * detail[n]) if detail[n] else 0 for share, n in (("tpr", "n_pos"), ("tnr", "n_neg")))


def counted(row):
    """What a score was counted from, in words. row: of page_judged."""
    detail = json.loads(row["detail"] or "{}")
    if "n_pos" in detail:
        found = right(detail)
        kinds = ", ".join(f"{n} {KINDS.get(kind, kind)}" for kind, n in (detail.get("negatives") or {}).items())
        what = ("right tokens marked", "others") if row["scorer"] == FUZZING else ("it fires", "others")
        told = [f"{what[0]}: {found[0]} of {detail['n_pos']} right", f"{what[1]}: {found[1]} of {detail['n_neg']} right"]
        told[1] += f" ({kinds})" if kinds else ""
    elif "n_right" in detail:
        told = [f"{detail['n_right']} of {number(row['n'])} choices right"]
    elif "n_tokens" in detail:
        told = [f"activations of {number(detail['n_tokens'])} tokens in {number(row['n'])} windows"]
    else:
        told = ["no counts are stored"]
    return told + ([f"{row['n_failed']} without a usable answer"] if row["n_failed"] else [])


def results(key, examples, scale):
    """The counts that are stored, then the examples. examples: what `cltdb judged` printed, None where it was not asked."""
    with data.session():
        rows = data.query("page_judged", **key).to_dicts()
    if not rows:
        return html.P("None of its explanations was scored.", className="quiet")
    counts = table(
        ("explanation", "scorer", "judged", "by"),
        [
            [row["explainer"], row["scorer"], html.Td([html.Div(one) for one in counted(row)]), row["judge"] or "–"]
            for row in rows
        ],
    )
    if examples is None:
        said = "Scores keep these counts, not which windows they are of; those can be made again where the harvest is."
        return [counts, html.P(said if jobs.here() else [said, " ", NOT_HERE[0], "."], className="quiet")]
    shown, lacking = behind(rows, examples, scale)
    said = "Made again from the harvest and the stored answers; shown where they count to the stored score, class by class."
    parts = [counts, html.P(said, className="quiet"), drawn("judged", shown) if shown["scores"] else None]
    return [*parts, html.Ul([html.Li(one) for one in lacking], className="quiet") if lacking else None]


def behind(rows, examples, scale):
    """(what is drawn, in a line each which scores have no examples). rows: of page_judged; examples: what `cltdb judged` printed."""
    made = {(one["side"], one["explainer"], one["scorer"]): one for one in examples["scores"]}
    shown, why = [], Counter()
    for row in rows:
        one = made.get((row["side"], row["explainer"], row["scorer"])) or {"answers": None, "why": "scored since"}
        if one["answers"] is None:
            why[one["why"]] += 1
            continue
        windows = examples["windows"][row["scorer"]]
        groups = _groups(windows, one["answers"], row["scorer"])
        found = tuple(
            sum(len(group["windows"]) for group in groups if group["right"] and group["fires"] is fires)
            for fires in (True, False)
        )
        if found != right(json.loads(row["detail"])):  # scored anew since the examples were made
            why["scored since"] += 1
            continue
        title = f"{row['scorer']} of {row['explainer']}: {sum(found)} of {len(windows)} right"
        shown.append({"title": title, "scorer": row["scorer"], "groups": groups})
    windows = {name: [_window(one, scale) for one in some] for name, some in examples["windows"].items()}
    return {"windows": windows, "scores": shown}, [
        f"without examples: {n} score{'s' * (n > 1)}, {reason}" for reason, n in why.items()
    ]


def _groups(windows, answers, scorer):
    """Windows that were judged alike, those judged wrong first: [{title, fires, right, windows: their indices}]."""
    what = (
        {True: "the right tokens are marked", False: "wrong tokens are marked"}
        if scorer == FUZZING
        else {True: "it fires", False: "it is silent"}
    )
    found = {}
    for i, (window, answer) in enumerate(zip(windows, answers, strict=True)):
        fires = window["kind"] == POSITIVE
        found.setdefault((None if answer is None else answer == fires, fires), []).append(i)
    said = {True: "right", False: "wrong", None: "no usable answer"}
    order = sorted(found, key=lambda one: ((False, None, True).index(one[0]), not one[1]))
    return [
        {"title": f"{said[is_right].capitalize()}: {what[fires]}{'' if is_right is None else ', judged ' + ('yes' if fires == is_right else 'no')}",
         "fires": fires, "right": is_right is True, "windows": found[is_right, fires]}
        for is_right, fires in order
    ]  # fmt: skip


def _window(one, scale):
    activations, strings = one["activations"], one["strings"]
    peak = activations.index(max(activations)) if any(value > 0 for value in activations) else None
    kind = None if one["kind"] in (POSITIVE, "wrong_tokens") else KINDS.get(one["kind"], one["kind"])
    place = {"first": 0, "end": len(strings), "start": 0, "peak": peak}
    return {**heat(strings, activations, scale=scale), **place, "marked": one["marked"], "kind": kind}


def run(meant, **_inputs):
    """Starts making the examples."""
    return answer_press(lambda _button: work.request("judged", meant["key"]))


def follow(_ticks, _opened, seen, meant):
    """The jobs of this feature that run or went wrong; the counts, and the examples of the newest job that made them."""
    here, key = jobs.here(), meant["key"]
    found = [job for job in (here.all() if here else []) if job.kind == "judged" and job.fields == key]
    made = next((json.loads(job.output.splitlines()[-1]) for job in found if job.status == "finished"), None)
    return followed(found, seen, {"key": key}, lambda: results(key, made, meant["scale"]), on=PLACE)


def register():
    """Makes the callbacks known to the app that is being made."""
    places = Places(
        on=PLACE,
        pressed=RUN,
        opened=OPENED,
        message=MESSAGE,
        tick=TICK,
        cards=JOBS,
        stored=STORED,
        seen=SEEN,
        about=State(MEANT, "data"),
    )
    state = {"meant": State(MEANT, "data")}
    register_followed(run, follow, places, state)
