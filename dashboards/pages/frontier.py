"""Frontier: FVU against L0, a point per evaluated dictionary of a sweep or experiment, pooled or per layer, with what was swept."""

import dash
from dash import Input, Output, callback, dcc, html, no_update

from cltdb.database.display import figures
from cltdb.database.display.words import number, percent, seconds
from cltdb.errors import CltdbError
from dashboards import data
from dashboards.components import not_here, notice
from dashboards.urls import FRONTIER, LOCATION, frontier_url, search_url

dash.register_page(__name__, path=FRONTIER, name="Frontier", title="Frontier · cltdb", order=1)
QUERIES = ("frontier",)

SWEEP_SELECT, LAYER_SELECT = "frontier-sweep", "frontier-layer"
FIGURE, TABLE = "frontier-figure", "frontier-table"
ALL, POOLED = "all", "pooled"
PREFIX = ":"  # before the name of a sweep in the list: a sweep may be named `all`
HEIGHT = 420  # pixels


def layout(sweep=None, layer=None, **_):
    """The page; the fields of the address fill in the choices."""
    everything = data.query("frontier")
    if everything.is_empty():
        return notice("Nothing to compare yet", "Run `cltdb run SPEC`; the stage `evaluate` measures what this page shows.")
    names = sorted({name for name in everything["sweep"] if name is not None})
    layers = max((n for n in everything["n_layers"] if n is not None), default=0)
    sweep = dict(everything.select("experiment", "sweep").iter_rows()).get(sweep, sweep) if sweep not in names else sweep
    unknown = not_here("sweep or experiment", sweep, names)
    return view(names, sweep=sweep, n_layers=layers, layer=layer, unknown=unknown)


def view(names, *, sweep=None, n_layers=0, layer=None, unknown=None):
    """The choices, the empty figure and the place of the table. unknown: what there is to say of the address."""
    sweeps = [{"label": "all", "value": ALL}] + [{"label": name, "value": PREFIX + name} for name in names]
    layers = [{"label": POOLED, "value": POOLED}] + [{"label": f"layer {i}", "value": str(i)} for i in range(n_layers)]
    first = PREFIX + sweep if sweep in names else PREFIX + names[0] if len(names) == 1 else ALL
    return html.Main(
        [
            html.H1("Frontier"),
            unknown,
            html.Div(
                [
                    html.Label(
                        ["Sweep or experiment", dcc.Dropdown(sweeps, first, id=SWEEP_SELECT, clearable=False)], className="wide"
                    ),
                    html.Label(
                        [
                            "Layer",
                            dcc.Dropdown(
                                layers,
                                layer if layer in [choice["value"] for choice in layers] else POOLED,
                                id=LAYER_SELECT,
                                clearable=False,
                            ),
                        ]
                    ),
                ],
                className="controls",
            ),
            html.Figure(
                [
                    html.Figcaption("Held-out FVU against L0. Lower and further left is better; a point leads to its features."),
                    dcc.Graph(id=FIGURE, config=figures.GRAPH_CONFIG, style={"height": HEIGHT}),
                ]
            ),
            html.Div(id=TABLE, className="scrolls"),
        ],
        className="frontier",
    )


def table(rows, *, one_sweep):
    """A row per dictionary that leads to its features; those on the frontier in bold."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row["swept"]))
    names = ["dictionary", "L0", "FVU", "dead", "CE recovered", "training", "kind", *keys, *([] if one_sweep else ["sweep"])]
    body = [
        html.Tr(
            [
                html.Td(dcc.Link(row["dict_id"], href=row["href"]), title=row["dict_id"]),
                html.Td(number(row["l0"])),
                html.Td(number(row["fvu"])),
                html.Td(percent(row["dead_frac"])),
                html.Td(percent(row["ce_recovered"])),
                html.Td(seconds(row["train_seconds"])),
                html.Td(figures.kind_of(row)),
                *(html.Td(row["swept"].get(key, ""), title=row["swept"].get(key)) for key in keys),
                *([] if one_sweep else [html.Td(_sweep_link(row["sweep"]))]),
            ],
            className="best" if row["on_frontier"] else None,
        )
        for row in rows
    ]
    return html.Table([html.Thead(html.Tr([html.Th(name) for name in names])), html.Tbody(body)], className="numbers")


def _sweep_link(name):
    return dcc.Link(name, href=frontier_url(sweep=name)) if name else None


@callback(Output(FIGURE, "figure"), Output(TABLE, "children"), Input(SWEEP_SELECT, "value"), Input(LAYER_SELECT, "value"))
def draw(sweep, layer):
    name = sweep[len(PREFIX) :] if sweep and sweep != ALL else None
    try:
        rows = data.query("frontier", sweep=name, layer=None if layer in (None, POOLED) else int(layer)).to_dicts()
    except CltdbError as error:
        return figures.frontier([], height=HEIGHT), html.P(str(error), className="error")
    rows = [row | {"swept": figures.swept(row["swept"]), "href": search_url(dict_id=row["dict_id"])} for row in rows]
    return figures.frontier(rows, height=HEIGHT), table(rows, one_sweep=name is not None)


@callback(Output(LOCATION, "href"), Input(FIGURE, "clickData"), prevent_initial_call=True)
def go(click):
    place = click["points"][0].get("customdata") if click else None
    return place if place else no_update
