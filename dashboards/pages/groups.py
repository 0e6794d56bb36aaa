"""Groups: what labels such as languages share, layer by layer, beside what chance shares; and which features make a label."""

import json
from itertools import combinations
from typing import NamedTuple

import dash
import polars as pl
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html, no_update

from cltdb.database.display.words import number, visible
from dashboards import annotations, data
from dashboards.components import captioned, not_here, notice
from dashboards.drawn import plain
from dashboards.groups import figures, tables
from dashboards.own import with_own_labels
from dashboards.urls import GROUPS, LOCATION, groups_url, index, search_url, sql_url

dash.register_page(__name__, path=GROUPS, name="Groups", title="Groups · cltdb", order=3.5)
QUERIES = (
    "group_layers", "group_list", "label_features", "label_layers", "label_scores", "metrics_by_label",
    "overlap_by_layer", "substitution_grid", "substitution_results",
)  # fmt: skip

COMPARISON, PAIR, WEIGHTING, KEYED_BY = "groups-comparison", "groups-pair", "groups-weighting", "groups-keyed-by"
LABEL, FIRST_LAYER = "groups-label", "groups-first-layer"
OVERLAP, SUBSTITUTION, FEATURES = "groups-overlap", "groups-substitution", "groups-features"
SHOWN, ADDRESS = "groups-shown", "groups-address"
ALL = "all"
WEIGHTINGS = {"none": "where active (Jaccard)", "influence": "by influence on the answer"}
PLACES = {"free": "at any position", "end": "at each position from the end"}
MOST_FEATURES = 20
MAKE_ONE = (
    "Write `groups: {prompts: {toyworld: true}, label_features: {}, substitute: {}}` into a spec of the toy world whose text has labels, "
    "`activations: {text: [{toyworld: true, label_column: language}]}`, and run it: `cltdb run SPEC`. docs/groups.md says how to compare labels of your own."
)


class Choice(NamedTuple):
    """What the page shows. pair: two labels, None for all pairs; label, first_layer: of label features."""

    groups_id: str
    pair: tuple | None
    weighting: str
    keyed_by: str
    label: str
    first_layer: int

    def url(self):
        fields = {"groups_id": self.groups_id, "weighting": self.weighting, "keyed_by": self.keyed_by, "label": self.label}
        pair = dict(zip(("label_a", "label_b"), self.pair, strict=True)) if self.pair else {}
        return groups_url(**fields, **pair, first_layer=self.first_layer)


def layout(**fields):
    """The page; the fields of the address fill in the choices."""
    with data.session(threads=1):
        answers = data.query("group_list").to_dicts()
        if not answers:
            return notice("No labels were compared yet", MAKE_ONE)
        known = list(dict.fromkeys(row["groups_id"] for row in answers))
        groups_id = fields.get("groups_id") if fields.get("groups_id") in known else known[0]
        answers = [row for row in answers if row["groups_id"] == groups_id]
        layers = data.query("group_layers", groups_id=groups_id).to_dicts()
        choice = chosen(fields, answers, layers)
        return view(known, choice, answers, layers, not_here("comparison of labels", fields.get("groups_id"), known))


def chosen(fields, answers, layers):
    """The `Choice` that an address makes; what it names that is not there is left at its default."""
    labels = [row["label"] for row in answers]
    pair = tuple(sorted((fields.get("label_a") or "", fields.get("label_b") or "")))
    label, first_layer = fields.get("label"), index(fields.get("first_layer"))
    return Choice(
        answers[0]["groups_id"],
        pair if pair in set(combinations(labels, 2)) else None,
        fields["weighting"] if fields.get("weighting") in WEIGHTINGS else "none",
        fields["keyed_by"] if fields.get("keyed_by") in PLACES else "free",
        label if label in labels else labels[0],
        first_layer if first_layer in {row["layer"] for row in layers} else 0,
    )


def view(known, choice, answers, layers, unknown=None):
    """The whole page, within a session. known: ids of all comparisons; answers, layers: rows of group_list and group_layers of this one; unknown: what
    there is to say of the address."""
    labels, groups_id, dict_id = [row["label"] for row in answers], choice.groups_id, answers[0]["dict_id"]
    n_layers = 1 + max(row["layer"] for row in layers)
    pairs = [{"label": tables.ALL_PAIRS, "value": ALL}]
    pairs += [{"label": " · ".join(map(visible, pair)), "value": json.dumps(pair)} for pair in combinations(labels, 2)]
    of_features = [
        _choice("Label", [{"label": visible(label), "value": label} for label in labels], choice.label, LABEL),
        _choice("From layer", [{"label": f"layer {layer}", "value": layer} for layer in range(n_layers)], choice.first_layer, FIRST_LAYER),
    ]  # fmt: skip
    return html.Main(
        [
            html.H1("Groups"),
            unknown,
            html.Div(
                [
                    _choice("Comparison", known, choice.groups_id, COMPARISON, className="wide"),
                    _choice("Labels", pairs, json.dumps(choice.pair) if choice.pair else ALL, PAIR, className="wide"),
                    _choice("Features count", _options(WEIGHTINGS), choice.weighting, WEIGHTING, className="wide"),
                    _choice("They are shared", _options(PLACES), choice.keyed_by, KEYED_BY, className="wide"),
                ],
                className="controls",
            ),
            html.P(
                [
                    f"{number(answers[0]['n_concepts'])} concepts, each asked under {number(len(labels))} labels · ",
                    dcc.Link(dict_id, href=search_url(dict_id=dict_id)),
                ],
                className="quiet",
            ),
            html.H2("What labels share"),
            html.Div(overlap(groups_id, choice.pair, choice.weighting, choice.keyed_by), id=OVERLAP),
            html.H2("How well each label is served"),
            plain(html.Div(served(answers, layers, dict_id))),
            html.H2("Features of few labels and of all"),
            html.Div(shares(dict_id)),
            html.H2("Substitution"),
            html.Div(substitution(groups_id, choice.pair), id=SUBSTITUTION),
            html.H2("Label features"),
            html.Div(of_features, className="controls"),
            html.Div(label_features(groups_id, choice.label, choice.first_layer), id=FEATURES),
            dcc.Store(id=SHOWN, data=groups_id),
            dcc.Store(id=ADDRESS),
        ],
        className="groups",
    )


def _choice(name, options, value, id, **properties):
    return html.Label([name, dcc.Dropdown(options, value, id=id, clearable=False)], **properties)


def _options(names):
    return [{"label": name, "value": value} for value, name in names.items()]


def overlap(groups_id, pair, weighting, keyed_by):
    """Overlap and nulls by layer, and what is left without chance."""
    frame = data.query("overlap_by_layer", groups_id=groups_id, weighting=weighting, keyed_by=keyed_by)
    label_a, label_b = pair or (None, None)
    rows = frame.filter(pl.col("label_a").eq_missing(label_a), pl.col("label_b").eq_missing(label_b)).to_dicts()
    said = "Overlap, beside what prompts of different concepts share. Bands are 95 %, over concepts."
    less = "Overlap less that of two concepts and two labels: what is shared because the concept is the same."
    return [
        html.Div([captioned(said, figures.overlap(rows)), captioned(less, figures.corrected(rows))], className="pair"),
        plain(html.Details([html.Summary("In numbers"), tables.overlaps(rows)])),
    ]


def served(answers, layers, dict_id):
    """Answers and metrics of each label, and the share of errors."""
    measured = data.query("metrics_by_label", dict_id=dict_id).to_dicts()
    metrics = {row["label"]: row for row in measured if row["layer"] is None and row["label"] is not None}
    said = (
        "Answered: the share of prompts whose likeliest next token is the answer; probability is that of the answer. FVU to KL: on held-out text of the "
        "label, cross-entropies and KL in nats, replaced with all MLPs replaced."
    )
    parts = [html.P(said, className="quiet"), tables.labels(answers, metrics)]
    if not metrics:
        do = "Text has no labels: give the sources of activations.text a label or label_column, and run it again."
        parts.append(html.P(do, className="quiet"))
    said = "Errors' share of each layer's influence on the answers. Where it is large, little can be said about features."
    return [*parts, html.H3("Error share"), html.P(said, className="quiet"), tables.errors(layers)]


def shares(dict_id):
    """How many features fire on few labels, and how many on all."""
    rows = data.query("label_layers", dict_id=dict_id).to_dicts()
    if not rows:
        do = "The harvest counted no labels: give the sources of activations.text a label or label_column, and run it again."
        return html.P(do, className="quiet")
    said = "Features by the entropy of the labels on whose text they fire: specific up to 0.5, shared from 0.9 (1: all labels at one rate)."
    return [
        captioned(said, figures.label_shares(rows)),
        plain(html.Details([html.Summary("In numbers"), tables.label_shares(rows)])),
    ]


def substitution(groups_id, pair):
    """What setting label features does: from every label to every other one, or all grid points of two labels; and its controls."""
    rows = data.query("substitution_results", groups_id=groups_id).to_dicts()
    if not rows:
        return _missing("No substitutions", "groups.label_features and groups.substitute")
    if pair is None:
        said = "Share of the prompts of one label (row) whose next token becomes the right answer under another (column), at the best point."
        return [
            html.P(said, className="quiet"),
            plain(html.Div([tables.results(rows), html.H3("Beside controls"), tables.controls(rows)])),
        ]
    pairs = (pair, pair[::-1])
    grids = []
    for label_from, label_to in pairs:
        found = data.query("substitution_grid", groups_id=groups_id, label_from=label_from, label_to=label_to).to_dicts()
        if found:
            grids.append(html.Section([html.H3(f"{visible(label_from)} to {visible(label_to)}"), tables.grid(found)]))
    rows = [row for row in rows if (row["label_from"], row["label_to"]) in pairs]
    multiples = (
        "what those of the first label are held at and those of the second set to, in multiples of their 99th percentile."
        if not any(map(tables.is_moved, rows))
        else "how far they move, in multiples of what each changes by, in each prompt (exchanged) or on average (shifted), where the prompt's last token "
        "alone is that of the second label's prompt."
    )
    said = (
        "Share of right answers at every point, on the concepts that choose the best one (in bold). Rows: features of each label, and positions. Columns: "
        + multiples
    )
    return [
        html.P(said, className="quiet"), plain(html.Div(grids, className="pair")),
        plain(html.Div([html.H3("Best points beside controls, on the other concepts"), tables.controls(rows)])),
    ]  # fmt: skip


def label_features(groups_id, label, first_layer):
    """The features of a label with their strongest windows, and how well they tell its text together."""
    frame = data.query("label_features", groups_id=groups_id, label=label, first_layer=first_layer, limit=MOST_FEATURES)
    scores = data.query("label_scores", groups_id=groups_id)
    if frame.is_empty() and scores.is_empty():
        return _missing("No label features", "groups.label_features")
    if frame.is_empty():
        return html.P(f"No feature of {visible(label)} recurs from layer {first_layer} on.", className="quiet")
    dict_id = frame["dict_id"][0]
    rows = with_own_labels(frame.to_dicts(), annotations.labels_of(dict_id))
    contexts = data.strongest_windows(dict_id, [(row["layer"], row["feature"]) for row in rows])
    said = f"AUC of the features of highest contrast together, from layer {first_layer} on: how well they tell a label's held-out text."
    given = {"groups_id": groups_id, "label": label, "first_layer": first_layer, "limit": 1_000_000}
    whole = sql_url(query="label_features", **{f"p.{name}": value for name, value in given.items()})
    return plain(
        html.Div(
            [
                html.P(said, className="quiet"),
                tables.together(scores.filter(first_layer=first_layer).to_dicts()),
                html.P(
                    [f"Up to {MOST_FEATURES} features of highest contrast, with their strongest windows. ", dcc.Link("All of them", href=whole)],
                    className="quiet",
                ),
                tables.label_features(rows, contexts, dict_id=dict_id),
            ]
        )
    )  # fmt: skip


def _missing(what, sections):
    return html.P(
        f"{what}: write {sections} into the spec, and run it again. docs/groups.md says what they do.", className="quiet"
    )


SHOWN_IN = State(SHOWN, "data")
GO = Output(LOCATION, "href", allow_duplicate=True)
PAIR_IN, WEIGHTING_IN, PLACES_IN, LABEL_IN, LAYER_IN = (
    Input(name, "value") for name in (PAIR, WEIGHTING, KEYED_BY, LABEL, FIRST_LAYER)
)


@callback(
    GO, Input(COMPARISON, "value"), SHOWN_IN, State(WEIGHTING, "value"), State(KEYED_BY, "value"), prevent_initial_call=True
)
def go(groups_id, shown, weighting, keyed_by):
    """Another comparison has other labels and layers: it is another page."""
    if groups_id == shown:  # Dash asks once when the page appears
        return no_update
    return groups_url(groups_id=groups_id, weighting=weighting, keyed_by=keyed_by)


@callback(Output(OVERLAP, "children"), SHOWN_IN, PAIR_IN, WEIGHTING_IN, PLACES_IN, prevent_initial_call=True)
def show_overlap(groups_id, pair, weighting, keyed_by):
    return overlap(groups_id, pair_of(pair), weighting, keyed_by)


@callback(Output(SUBSTITUTION, "children"), SHOWN_IN, PAIR_IN, prevent_initial_call=True)
def show_substitution(groups_id, pair):
    with data.session():
        return substitution(groups_id, pair_of(pair))


@callback(Output(FEATURES, "children"), SHOWN_IN, LABEL_IN, LAYER_IN, prevent_initial_call=True)
def show_features(groups_id, label, first_layer):
    with data.session(threads=1):
        return label_features(groups_id, label, first_layer)


@callback(
    Output(ADDRESS, "data"),
    SHOWN_IN,
    PAIR_IN,
    WEIGHTING_IN,
    PLACES_IN,
    LABEL_IN,
    LAYER_IN,
    prevent_initial_call=True,
)
def link(groups_id, pair, *others):
    return Choice(groups_id, pair_of(pair), *others).url()


def pair_of(value):
    """The pair of labels that the choice PAIR stands for; None: all pairs."""
    return None if value == ALL else tuple(json.loads(value))


clientside_callback(
    ClientsideFunction("cltdb_page", "remember"),
    Output(ADDRESS, "modified_timestamp"),
    Input(ADDRESS, "data"),
    prevent_initial_call=True,
)
