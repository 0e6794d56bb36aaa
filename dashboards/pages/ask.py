"""Ask: a new prompt, explanations, a larger harvest, a run of a spec. Each is a job that one can follow, stop and take up again."""

import dash
from dash import ALL, Input, Output, State, callback, dcc, html

from cltdb.errors import CltdbError
from dashboards import data, jobs, work
from dashboards.components import not_here, notice
from dashboards.job_cards import GO, NOT_HERE, STOP, answer_press, job_cards
from dashboards.urls import ASK, ATTRIBUTE

dash.register_page(__name__, path=ASK, name="Ask", title="Ask · cltdb", order=4)
QUERIES = ("page_specs",)
DICT_SELECT, MESSAGE, JOBS, TICK = "ask-dictionary", "ask-message", "ask-jobs", "ask-tick"
PROMPT, TARGET, FOIL, NODES, EDGES = "ask-prompt", "ask-target", "ask-foil", "ask-nodes", "ask-edges"
MAX_FEATURES, ATTRIBUTE_BUTTON = "ask-max-features", "ask-attribute"
WHERE, LIMIT, ESTIMATE = "ask-where", "ask-limit", "ask-estimate"
TOKENS, PLAN_HARVEST = "ask-tokens", "ask-plan-harvest"
SPEC, SETS, PLAN = "ask-spec", "ask-sets", "ask-plan"
FORMS = ("prompt", "explain", "harvest", "run")
REFRESH_MS = 1000
WHERE_HINT = "layer = 1 AND density > 0.01"


def layout(dict_id=None, prompt="", target="", foil="", where="", form="prompt", **_):
    """The page; the fields of the address fill in the forms, `form` says which one is open."""
    here = jobs.here()
    if here is None:
        return notice(*NOT_HERE)
    dict_ids = data.query("page_specs")["dict_id"].to_list()
    chosen = dict_id if dict_id in dict_ids else next(iter(dict_ids), None)
    form = form if form in FORMS and dict_ids else "run"
    asked = {"prompt": prompt, "target": target, "foil": foil}
    return html.Main(
        [
            dcc.Interval(id=TICK, interval=REFRESH_MS),
            html.H1("Ask"),
            not_here("dictionary", dict_id, dict_ids),
            html.Div(
                [
                    html.Div(forms(dict_ids, list(work.specs(here.root)), dict_id=chosen, where=where, form=form, **asked)),
                    html.Section([html.H2("Jobs"), html.Div(id=MESSAGE), html.Div(job_cards(here.all(), on=ASK), id=JOBS)]),
                ],
                className="columns ask",
            ),
        ]
    )


def forms(dict_ids, specs, *, dict_id, prompt, target, foil, where, form):
    """The forms, of which one is open."""
    dictionary = html.Label(["Dictionary", dcc.Dropdown(dict_ids, dict_id, id=DICT_SELECT, clearable=False)], className="wide")
    return [
        html.Div(dictionary, className="controls"),
        _form(
            "A new prompt",
            [
                _text("Prompt", PROMPT, prompt, "The capital of Spain is", className="wide prompt"),
                _text("Target, else the likeliest", TARGET, target, "Madrid"),
                _text("Foil of the target", FOIL, foil, "Paris"),
                _number("Nodes: share kept", NODES, "spec's", min=0, max=1, step="any"),
                _number("Edges: share kept", EDGES, "spec's", min=0, max=1, step="any"),
                _number("Features at most", MAX_FEATURES, "spec's", min=1, step=1),
                html.Button("Attribute", id=ATTRIBUTE_BUTTON, className="button"),
            ],
            is_open=form == "prompt",
            about="Makes the attribution graph of a prompt: which features, at which tokens, make the model say what it says.",
        ),
        _form(
            "Explain features",
            [
                _text("Which: a condition on columns of feature_cards", WHERE, where, WHERE_HINT, className="wide prompt"),
                _number("At most", LIMIT, "all of them", min=1, step=1),
                html.Button("Estimate", id=ESTIMATE, className="button"),
            ],
            is_open=form == "explain",
            about="Says first how many requests and dollars it would take, and then explains and scores them as the spec's section explain says.",
        ),
        _form(
            "Harvest more",
            [
                _number("Tokens to read", TOKENS, "1000000", min=1, step=1),
                html.Button("Plan", id=PLAN_HARVEST, className="button"),
            ],
            is_open=form == "harvest",
            about="Reads more text with the same dictionary: rarer features fire, contexts get better. What was made from the harvest is made anew.",
        ),
        _form(
            "Run or resume a spec",
            [
                html.Label(
                    ["Spec", dcc.Dropdown(specs, next(iter(specs), None), id=SPEC, clearable=False)], className="wide prompt"
                ),
                html.Label(
                    ["Settings, KEY=VALUE, one a line", dcc.Textarea(id=SETS, placeholder="train.l0=12", rows=2)],
                    className="wide prompt",
                ),
                html.Button("Plan", id=PLAN, className="button"),
            ],
            is_open=form == "run",
            about="Says first what would run and why. Finished stages stay; one that was stopped goes on where it was.",
        ),
    ]


def _form(title, fields, *, is_open, about):
    return html.Details(
        [html.Summary(title), html.P(about, className="quiet"), html.Div(fields, className="controls")],
        open=is_open,
        className="form",
    )


def _text(label, component_id, value, placeholder, *, className=None):
    return html.Label([label, dcc.Input(id=component_id, value=value, placeholder=placeholder)], className=className)


def _number(label, component_id, placeholder, **limits):
    return html.Label([label, dcc.Input(id=component_id, type="number", placeholder=placeholder, **limits)])


def asked(button, given):
    """(kind, fields) of what a button of the forms asks for. given: {id of a field: its value}."""
    dict_id = given[DICT_SELECT]
    if button == ESTIMATE:
        return "estimate", {"dict_id": dict_id, "where": given[WHERE], "limit": given[LIMIT]}
    if button == PLAN_HARVEST:
        if given[TOKENS] is None:
            raise CltdbError("tokens", found="no number", expected="how many tokens to read", do="write one")
        return "plan", {"spec": f"dictionary:{dict_id}", "sets": [f"harvest.tokens={given[TOKENS]}"]}
    if button == PLAN:
        return "plan", {"spec": given[SPEC], "sets": [line.strip() for line in (given[SETS] or "").splitlines() if line.strip()]}
    prompt = {"prompt": given[PROMPT], "dict_id": dict_id, "target": given[TARGET], "foil": given[FOIL]}
    thresholds = {"node_threshold": given[NODES], "edge_threshold": given[EDGES], "max_features": given[MAX_FEATURES]}
    return "attribute", prompt | thresholds


BUTTONS = (ATTRIBUTE_BUTTON, ESTIMATE, PLAN_HARVEST, PLAN)
FIELDS = (DICT_SELECT, PROMPT, TARGET, FOIL, NODES, EDGES, MAX_FEATURES, WHERE, LIMIT, TOKENS, SPEC, SETS)


@callback(
    Output(MESSAGE, "children"),
    Output(TICK, "disabled"),
    inputs={
        "_buttons": [Input(name, "n_clicks") for name in BUTTONS],
        "_submitted": Input(PROMPT, "n_submit"),
        "_of_jobs": [Input({"type": kind, "job": ALL, "on": ASK}, "n_clicks") for kind in (STOP, GO)],
        "values": [State(name, "value") for name in FIELDS],
    },
    prevent_initial_call=True,
)
def act(values, **_inputs):
    return answer_press(lambda button: work.request(*asked(button, dict(zip(FIELDS, values, strict=True)))))


@callback(
    Output(JOBS, "children"),
    Output(TICK, "disabled", allow_duplicate=True),
    Input(TICK, "n_intervals"),
    prevent_initial_call=True,
)
def follow(_ticks):
    here = jobs.here()
    found = here.all() if here else []
    return job_cards(found, on=ASK), not any(job.status in jobs.ALIVE for job in found)


dash.register_page(f"{__name__}_earlier", path_template=ATTRIBUTE, title="Ask · cltdb", layout=layout, under=ASK)
