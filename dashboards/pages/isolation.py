"""Isolation: what else moves when one feature is raised, and whether a fact follows its feature; of one dictionary, or of two side by side."""

import json
from typing import NamedTuple

import dash
from dash import Input, Output, State, callback, dcc, html, no_update

from cltdb.database.display.words import number, visible
from dashboards import annotations, data
from dashboards.components import captioned, not_here, notice, with_code
from dashboards.drawn import plain
from dashboards.isolation import figures, tables
from dashboards.own import with_own_labels
from dashboards.urls import ISOLATION, LOCATION, isolation_url, search_url, sql_url

dash.register_page(__name__, path=ISOLATION, name="Isolation", title="Isolation · cltdb", order=3.7)
QUERIES = ("isolation_by_layer", "isolation_facts", "isolation_features")

DICTIONARY, BESIDE, STRENGTH, SHOWN = "isolation-dictionary", "isolation-beside", "isolation-strength", "isolation-shown"
NONE = "none"
MOST, MOST_POINTS = 10, 5_000
MAKE_ONE = "Write `evaluate: {isolation: {}}` into a spec and run it: `cltdb run SPEC`. docs/isolation.md says what is measured, and how facts are given."
RAISED = (
    "One feature at a time is raised at the end of the same prompts, by multiples of its own 99th percentile, and the model itself responds. Leakage: the "
    "absolute changes of all other features over its own. All layers together; intervals are 95 %, over the features that were drawn."
)
NOT_SAME = "In the same layer it is not defined here: a transcoder reads the input of the MLP and writes its output, so nothing is read again."
WITH_FACTS = (
    "No facts were exchanged. `evaluate: {isolation: {facts: {toyworld: true}}}` asks those of the toy world, `facts: {file: facts.jsonl}` your own; "
    "docs/isolation.md says how they are written."
)


class Side(NamedTuple):
    """A dictionary that is shown: its short name, its rows of isolation_by_layer with those of isolation_facts, and of isolation_features."""

    dict_id: str
    name: str
    rows: list
    features: list


def layout(dict_a=None, dict_b=None, multiple=None, **_):
    """The page; the fields of the address fill in the choices."""
    with data.session():
        rows = data.query("isolation_by_layer").to_dicts()
        if not rows:
            return notice("Isolation was not measured yet", MAKE_ONE)
        rows = with_facts(rows, data.query("isolation_facts").to_dicts())
        dict_ids = chosen(rows, dict_a, dict_b)
        multiple = strength([row for row in rows if row["dict_id"] in dict_ids], multiple)
        names = short_names({row["dict_id"]: row["swept"] for row in rows if row["dict_id"] in dict_ids})
        sides = [
            Side(
                dict_id,
                names[dict_id],
                [row for row in rows if row["dict_id"] == dict_id],
                features_of(dict_id, multiple),
            )
            for dict_id in dict_ids
        ]
    known = list(dict.fromkeys(row["dict_id"] for row in rows))
    return view(sides, rows, multiple, [not_here("measurement of dictionary", asked, known) for asked in (dict_a, dict_b)])


def features_of(dict_id, multiple):
    """Rows of isolation_features of a dictionary at a strength, with users' own labels."""
    rows = data.query("isolation_features", dict_id=dict_id, multiple=multiple, limit=MOST_POINTS).to_dicts()
    labels = annotations.labels_of(dict_id)
    disturbed = {"layer": "most_layer", "feature": "most_feature", "text": "most_text"}
    return with_own_labels(with_own_labels(rows, labels), labels, **disturbed)


def with_facts(rows, facts):
    """Rows of isolation_by_layer, each with those of isolation_facts of its dictionary, strength and layer as drop and include."""
    found = {(row["dict_id"], row["multiple"], row["layer"]): row for row in facts}
    unknown = dict.fromkeys(f"{name}_{end}" for name in ("drop", "include") for end in ("rate", "low", "high"))
    together = [
        row | found.get((row["dict_id"], row["multiple"], row["layer"]), unknown) | {"n_features": row["n_features"]}
        for row in rows
    ]
    return [row | {name: row[f"{name}_rate"] for name in ("drop", "include")} for row in together]


def chosen(rows, dict_a, dict_b):
    """The dict_ids that an address asks for, one or two; of one that asks for none the first two."""
    known = list(dict.fromkeys(row["dict_id"] for row in rows))
    if dict_a not in known:
        return known[:2]
    return [dict_a, dict_b] if dict_b in known and dict_b != dict_a else [dict_a]


def strength(rows, asked):
    """The multiple that an address asks for, else the one nearest to 0. rows: of the dictionaries that are shown."""
    known = {row["multiple"] for row in rows}
    try:
        wanted = float(asked or "")
    except ValueError:
        wanted = None
    return wanted if wanted in known else min(known, key=lambda one: (abs(one), one))


def short_names(swept):
    """{dict_id: the swept values that it has and the other has not, else its dict_id}. swept: {dict_id: values of a sweep's keys as JSON, or None}."""
    values = {dict_id: set(map(_swept_value, json.loads(text or "{}").items())) for dict_id, text in swept.items()}
    common = set.intersection(*values.values())
    return {dict_id: " · ".join(sorted(of - common)) or dict_id for dict_id, of in values.items()}


def _swept_value(item):
    key, value = item
    return f"{key.rpartition('.')[2]} {value if isinstance(value, str) else json.dumps(value)}"


def view(sides, rows, multiple, unknown=()):
    """The whole page. sides: `Side`s, one or two; rows: of all dictionaries; multiple: by which features are raised where one is shown; unknown: what
    there is to say of the address."""
    everything = [row for side in sides for row in side.rows]
    named = [(side.name, side.rows) for side in sides]
    measured = [figures.LATER, figures.KL]
    if any(row["leakage_same"] is not None for row in everything):
        measured.insert(0, figures.SAME)
    return html.Main(
        [
            html.H1("Isolation"),
            *unknown,
            controls(sides, rows, multiple),
            *map(said_of, sides),
            html.H2("Against strength"),
            html.P(RAISED if figures.SAME in measured else f"{RAISED} {NOT_SAME}", className="quiet"),
            html.Div([captioned(_upper(one.title), figures.against_strength(one, named)) for one in measured], className="trio"),
            html.H2("By layer"),
            _pairs(sides, measured, lambda one, side: figures.by_layer(one, side.rows, everything)),
            *overlap(sides, multiple),
            html.H2("Facts"),
            *facts(sides, named),
            html.H2("Features that move most else"),
            plain(html.Div([loudest(side, multiple) for side in sides])),
            html.H2("In numbers"),
            plain(html.Div([html.Details([html.Summary(visible(side.dict_id)), tables.layers(side.rows)]) for side in sides])),
            html.H2("All dictionaries"),
            html.P(f"All layers together, of the dictionaries that were raised by {number(multiple)} ×. A name shows that dictionary.", className="quiet"),
            plain(overview(sides, rows, multiple)),
            dcc.Store(id=SHOWN, data=[*(side.dict_id for side in sides), *[NONE] * (2 - len(sides)), multiple]),
        ],
        className="isolation",
    )  # fmt: skip


def controls(sides, rows, multiple):
    """Which dictionaries, and by how much features are raised where one strength is shown."""
    dict_ids = list(dict.fromkeys(row["dict_id"] for row in rows))
    options = [{"label": visible(dict_id), "value": dict_id} for dict_id in dict_ids]
    known = sorted({row["multiple"] for side in sides for row in side.rows})
    strengths = [{"label": f"{number(one)} ×", "value": one} for one in known]
    second = sides[1].dict_id if len(sides) > 1 else NONE
    return html.Div(
        [
            html.Label(["Dictionary", dcc.Dropdown(options, sides[0].dict_id, id=DICTIONARY, clearable=False)], className="wide"),
            html.Label(["Beside", dcc.Dropdown([{"label": "none", "value": NONE}, *options], second, id=BESIDE, clearable=False)], className="wide"),
            html.Label(["Raised by", dcc.Dropdown(strengths, multiple, id=STRENGTH, clearable=False)]),
        ],
        className="controls",
    )  # fmt: skip


def said_of(side):
    """Which dictionary a short name stands for, and how many features were raised."""
    n = max(row["n_features"] for row in side.rows if row["layer"] is None)
    named = [] if side.name == side.dict_id else [html.Strong(visible(side.name)), " · "]
    link = dcc.Link(visible(side.dict_id), href=search_url(dict_id=side.dict_id))
    return html.P([*named, link, f" · {number(n)} features were drawn and raised"], className="quiet")


def _upper(text):
    return text[0].upper() + text[1:]


def _pairs(sides, quantities, drawn):
    """A figure of each quantity of each dictionary, two dictionaries side by side. drawn(quantity, side): the figure."""
    name = lambda side: f", {visible(side.name)}" if len(sides) > 1 else ""  # noqa: E731
    return html.Div(
        [captioned(_upper(one.title) + name(side), drawn(one, side)) for one in quantities for side in sides], className="pair"
    )


def overlap(sides, multiple):
    """Leakage of each feature against the overlap of its decoders: of an SAE in the same layer, of a transcoder in later ones."""
    everything = [row for side in sides for row in side.features]
    quantities = [one for one in (figures.SAME, figures.LATER) if any(row[one.column] is not None for row in everything)]
    said = (
        f"Each feature raised by {number(multiple)} ×. An SAE whose features all were active and read along their decoders would leak as much in its own layer "
        "as they overlap. Features that were chosen for their concept are among them."
    )

    def told(one, side):
        is_raised = any(row["multiple"] == multiple for row in side.rows)
        return one if is_raised else one._replace(missing=f"not raised by {number(multiple)} ×")

    return [
        html.H2("Against the overlap of decoders"),
        html.P(said, className="quiet"),
        _pairs(sides, quantities, lambda one, side: figures.against_overlap(told(one, side), side.features, everything)),
    ]


def facts(sides, named):
    """How often the old answer goes and the new one comes, where facts were exchanged."""
    if not any(row["drop"] is not None for side in sides for row in side.rows):
        return [html.P(with_code(WITH_FACTS), className="quiet")]
    said = (
        "A concept's feature is set to 0 where it fires, and another concept's takes its place with a multiple of its own 99th percentile. All layers "
        "together; intervals are 95 %, over concepts."
    )
    drawn = [captioned(_upper(one.title), figures.against_strength(one, named)) for one in (figures.DROP, figures.INCLUDE)]
    return [html.P(said, className="quiet"), html.Div(drawn, className="pair")]


def loudest(side, multiple):
    """The features of a dictionary whose leakage is highest."""
    given = {"dict_id": side.dict_id, "multiple": multiple, "limit": MOST_POINTS}
    whole = sql_url(query="isolation_features", **{f"p.{name}": value for name, value in given.items()})
    said = f"{visible(side.name)}, raised by {number(multiple)} ×: leakage of the same and later layers together. "
    if not side.features:
        return html.P([said, "none is known."], className="quiet")
    return html.Section(
        [html.P([said, dcc.Link("All of them", href=whole)], className="quiet"), tables.loudest(side.features[:MOST])]
    )


def overview(sides, rows, multiple):
    """A row per dictionary; one that is shown stands out, a click on another shows that one alone."""
    shown = {side.dict_id for side in sides}

    def first(row):
        dict_id = row["dict_id"]
        link = isolation_url(dict_a=dict_id, multiple=multiple)
        name = html.Strong(visible(dict_id)) if dict_id in shown else html.A(visible(dict_id), href=link)
        swept = " · ".join(map(_swept_value, json.loads(row["swept"] or "{}").items()))
        return [html.Span(name, className="whole-name"), visible(swept) or "–"]

    return html.Div(tables.dictionaries([row for row in rows if row["layer"] is None and row["multiple"] == multiple], first))


@callback(
    Output(LOCATION, "href", allow_duplicate=True),
    Input(DICTIONARY, "value"),
    Input(BESIDE, "value"),
    Input(STRENGTH, "value"),
    State(SHOWN, "data"),
    prevent_initial_call=True,
)
def go(dict_a, dict_b, multiple, shown):
    """Every choice is another page."""
    if [dict_a, dict_b, multiple] == shown:  # Dash asks once when the page appears
        return no_update
    beside = {} if dict_b in (NONE, dict_a) else {"dict_b": dict_b}
    return isolation_url(dict_a=dict_a, **beside, multiple=multiple)
