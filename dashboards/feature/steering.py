"""Steer: a feature is set in the running model on a prompt, and the answer stands beside that of the unchanged model. Work is a job (`cltdb intervene`);
results are rows of the database, so those of the command line are shown too. Nothing is asked of the database before it is opened."""

from dash import Input, Output, State, clientside_callback, ctx, dcc, html

from cltdb.database.display.words import is_number, is_spaced, number, visible
from dashboards import annotations, data, jobs, steered, work
from dashboards.job_cards import Places, answer_press, followed, register_followed
from dashboards.own import with_own_labels
from dashboards.urls import feature_url, graph_url, sql_url

PROMPT, OPERATION, VALUE, VALUE_LABEL = "set-prompt", "set-operation", "set-value", "set-value-label"
MODE, GENERATE, POSITION, RUN, OPENED = "set-mode", "set-generate", "set-position", "set-run", "set-opened"
MESSAGE, JOBS, STORED, TICK, SEEN, MEANT, PLACE = (
    "set-message", "set-jobs", "set-stored", "set-tick", "set-seen", "set-meant", "set"
)  # fmt: skip
REFRESH_MS, N_STORED, N_CHANGED, MOST_OTHERS, N_GENERATED, MAX_CHARS = 1000, 5, 50, 4, 8, 10_000
STRENGTH, FACTOR = 2, -2
"""What the form offers first: this multiple of the strongest activation of the harvest, and this factor."""
VALUES = """(operation, meant) => [operation !== 'scale' && operation !== 'set', meant.values[operation] ?? null]"""
"""In the browser: whether the field of the value is hidden, and what it offers."""


def panel(key, *, strongest, windows, bos=None):
    """The form, and the places of what comes of it. key: dict_id, layer, feature; strongest: its strongest activation, None where it is not known;
    windows: rows of feature_contexts, the strongest first; bos: the token that stands before a text, where it is known."""
    values = {"scale": FACTOR, "set": float(f"{STRENGTH * strongest:.3g}") if is_number(strongest) and strongest > 0 else None}
    asked = {"operation": "set", "value": values["set"], "generate": N_GENERATED}
    prompt = dcc.Textarea(id=PROMPT, value=first_prompt(windows, bos), rows=2, maxLength=MAX_CHARS)
    position = dcc.Input(id=POSITION, type="number", step=1, placeholder="all")
    hint = "0 is the first token, which stands before the prompt; −1 is the last; all: also the tokens that follow"
    form = [
        html.Label(["Prompt", prompt], className="wide"),
        *steered.fields((OPERATION, VALUE, VALUE_LABEL, MODE, GENERATE), **asked),
        html.Label(["At position", position], title=hint),
    ]
    said = "Sets this feature in the running model: what it then says, beside what it says unchanged."
    return html.Details(
        [
            html.Summary("Set it in the running model", id=OPENED),
            dcc.Store(id=MEANT, data={"key": key, "values": values}),
            dcc.Store(id=SEEN),
            dcc.Interval(id=TICK, interval=REFRESH_MS, disabled=True),
            html.P(said, className="quiet"),
            html.Div(form, className="controls steer form"),
            html.P(html.Button("Run", id=RUN, className="button"), className="actions"),
            html.Div(id=MESSAGE, **{"aria-live": "polite"}),
            html.Div(id=JOBS, **{"aria-live": "polite"}),
            html.Div(id=STORED),
        ],
        className="steering",
    )


def first_prompt(windows, bos=None):
    """The text of the strongest window up to its peak, where the feature has the most to say of what follows; "" where there is none. Without the
    token `bos` in front, as it is put before every prompt."""
    if not windows or not windows[0]["strings"]:
        return ""
    row = windows[0]
    peak = max(0, (row["position"] or 0) - (row["start"] or 0))
    strings = [string or "" for string in row["strings"]]
    begin = 1 if bos is not None and row["tokens"][0] == bos or row["start"] == 0 else 0
    return (" " if is_spaced(strings) else "").join(strings[begin : peak + 1]).strip()


def named(dict_id):
    """(layer, feature, position) to (what it is called, a link to its page)."""

    def of(layer, feature, position):
        at = "" if position is None else f" @ position {position}"
        return f"{layer}:{feature}", dcc.Link(f"{layer}:{feature}{at}", href=feature_url(dict_id, layer, feature))

    return of


def results(key):
    """The interventions on the feature, the newest in full."""
    with data.session():
        rows = data.query("page_steered", **key, limit=N_STORED + 1).to_dicts()
        labels = annotations.labels_of(key["dict_id"])
        shown = [_shown(row, key, labels, is_open=i == 0) for i, row in enumerate(rows[:N_STORED])]
    if len(rows) > N_STORED:
        given = {f"p.{name}": value for name, value in {**key, "limit": 1000}.items()}
        shown.append(html.P(dcc.Link("earlier ones", href=sql_url(query="page_steered", **given)), className="quiet"))
    return shown or html.P("Nobody has set it so far.", className="quiet")


def _shown(row, key, labels, *, is_open):
    """One intervention. key: of the feature, whose setting is said first."""
    settings = steered.settings_of(row)
    chosen = sorted(steered.grouped(settings), key=lambda one: one[:2] != [key["layer"], key["feature"]])
    about = {"intervention_id": row["intervention_id"], "graph_id": row["graph_id"] or "", "limit": N_CHANGED + len(settings)}
    is_set = {tuple(one[:2]) for one in chosen}
    changed = [
        one for one in data.query("intervention_features", **about).to_dicts() if (one["layer"], one["feature"]) not in is_set
    ]
    prompt = html.Bdi(visible(row["prompt"] or row["intervention_id"]))
    others = f", with {len(chosen) - 1} more" if len(chosen) > 1 else ""
    return steered.intervention(
        row,
        with_own_labels(changed, labels),
        named(key["dict_id"]),
        title=html.Span([f"{steered.said(chosen[0])} {steered.where(chosen[0][2])}{others}: ", prompt]),
        changes=_changes(row, chosen, key),
        is_open=is_open,
    )


def _changes(row, chosen, key):
    """What was set beside the feature, and the graph on which it was."""
    others = [
        html.Li([named(key["dict_id"])(*one[:2], None)[1], f" {steered.said(one)} {steered.where(one[2])}"]) for one in chosen[1:]
    ]
    on = html.P(dcc.Link("on a graph", href=graph_url(row["graph_id"])), className="quiet") if row["graph_id"] else None
    return html.Div([html.Ul(others[:MOST_OTHERS], className="changes") if others else None, _more(others), on])


def _more(others):
    n = len(others) - MOST_OTHERS
    return html.P(f"and {number(n)} more", className="quiet") if n > 0 else None


def run(prompt, asked, position, mode, generate, meant, **_inputs):
    """Starts what the form asks for."""

    def request(_button):
        key = meant["key"]
        settings = [[key["layer"], key["feature"], position, *steered.done(*asked)]]
        fields = {"dict_id": key["dict_id"], "prompt": prompt, "settings": settings, "mode": mode, "generate": generate}
        return work.request("intervene", fields)

    return answer_press(request)


def follow(_ticks, _opened, seen, meant):
    """The jobs of this feature that run or went wrong, and once one is finished what is stored."""
    here, key = jobs.here(), meant["key"]
    if here and ctx.triggered_id == OPENED:  # its first intervention needs no imports then
        here.prepare()
    found = [job for job in (here.all() if here else []) if job.kind == "intervene" and _is_of(job.fields, key)]
    return followed(found, seen, {"key": key}, lambda: results(key), on=PLACE)


def _is_of(fields, key):
    return fields.get("dict_id") == key["dict_id"] and fields["settings"][0][:2] == [key["layer"], key["feature"]]


def register():
    """Makes the callbacks known to the app that is being made."""
    clientside_callback(
        VALUES, Output(VALUE_LABEL, "hidden"), Output(VALUE, "value"), Input(OPERATION, "value"), State(MEANT, "data")
    )
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
    state = {
        "prompt": State(PROMPT, "value"),
        "asked": [State(OPERATION, "value"), State(VALUE, "value")],
        "position": State(POSITION, "value"),
        "mode": State(MODE, "value"),
        "generate": State(GENERATE, "value"),
        "meant": State(MEANT, "data"),
    }
    register_followed(run, follow, places, state)
