"""Figures of isolation: how much else moves when a feature is raised, by how strongly and in which layer, of one dictionary or two."""

import html
from collections.abc import Callable
from typing import NamedTuple

import plotly.graph_objects as go

from cltdb.database.display.figures import SHADES, blank, error_bars, nothing, over_layers
from cltdb.database.display.words import is_number, number, percent, visible, with_interval

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")
MAX_TEXT_CHARS = 80
APART = 0.07
"""Between the marks of two lines at one place, so that their intervals can be told apart: in layers, or in the least strength."""


class Quantity(NamedTuple):
    """A column of isolation_by_layer or isolation_facts with its interval (_low, _high): what it is called, why it may not be there, how it is said."""

    column: str
    title: str
    missing: str
    said: Callable = number


SAME = Quantity("leakage_same", "leakage, same layer", "not defined: nothing is read again in the layer of a transcoder")
LATER = Quantity("leakage_later", "leakage, later layers", "not defined: no layer comes later")
KL = Quantity("kl_nats", "KL on unrelated prompts, nats", "no feature is silent in any of the prompts")
DROP = Quantity("drop", "old answer gone", "no facts were exchanged", percent)
INCLUDE = Quantity("include", "new answer there", "no facts were exchanged", percent)


def against_strength(quantity, named):
    """A quantity of all layers together against the strength: a line with intervals per dictionary. named: [(name, rows of the dictionary)]."""
    figure = blank(x_title="× own 99th percentile", y_title=quantity.title)
    named = [(name, [row for row in rows if row["layer"] is None]) for name, rows in named]
    multiples = sorted({row["multiple"] for _, rows in named for row in rows})
    for place, (name, rows) in enumerate(named):
        shift = APART * (place - (len(named) - 1) / 2) * min(map(abs, multiples))
        _add_line(figure, quantity, rows, place, name=name, x=lambda row: row["multiple"] + shift)  # noqa: B023
    figure.update_xaxes(tickvals=multiples, ticktext=[_times(multiple) for multiple in multiples])
    return _on_axis(figure, quantity, [row for _, rows in named for row in rows])


def by_layer(quantity, rows, beside):
    """A quantity of one dictionary in each layer: a line with intervals per strength. rows: its rows; beside: those of all dictionaries that are
    shown, which have the same axes."""
    figure = blank(x_title="layer", y_title=quantity.title)
    beside = [row for row in beside if row["layer"] is not None]
    layers, multiples = {row["layer"] for row in beside}, sorted({row["multiple"] for row in beside})
    for place, multiple in enumerate(multiples):
        shift = APART * (place - (len(multiples) - 1) / 2)
        of_strength = [row for row in rows if row["multiple"] == multiple and row["layer"] is not None]
        _add_line(figure, quantity, of_strength, place, name=_times(multiple), x=lambda row: row["layer"] + shift)  # noqa: B023
    figure.update_xaxes(range=[min(layers) - 0.4, max(layers) + 0.4])
    return _on_axis(over_layers(figure, layers), quantity, beside)


def _add_line(figure, quantity, rows, place, *, name, x):
    """Adds what is known of a quantity; the line of this place has a colour and a mark of its own. x: of a row."""
    rows = [row for row in rows if is_number(row[quantity.column])]
    if not rows:
        return
    figure.add_trace(
        go.Scatter(
            x=list(map(x, rows)), y=[row[quantity.column] for row in rows], error_y=error_bars(rows, quantity.column),
            name=html.escape(visible(name)), mode="lines+markers", line={"color": SHADES[place % len(SHADES)], "width": 2},
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
            text=[_place(row) + with_interval(row, quantity.column, quantity.said) for row in rows], hovertemplate="%{text}",
        )
    )  # fmt: skip


def _place(row):
    layer = "" if row["layer"] is None else f"layer {row['layer']}, "
    return f"{layer}{_times(row['multiple'])}: "


def _times(multiple):
    return f"{number(multiple)} ×"


def _on_axis(figure, quantity, rows):
    """The figure with an axis from 0 that holds all of these rows; one that says why where nothing is drawn."""
    if not figure.data:
        return nothing(figure, quantity.missing)
    ends = [row[name] for row in rows for name in (quantity.column, f"{quantity.column}_high") if is_number(row[name])]
    figure.update_yaxes(range=[0, 1.06 * max(ends) or 1], tickformat=".0%" if quantity.said is percent else None)
    return figure.update_layout(showlegend=True)


def against_overlap(quantity, rows, beside):
    """Leakage of each feature against the overlap of its decoders with those of its layer: a colour and mark per layer. rows: dicts of isolation_features of
    one dictionary; beside: those of all dictionaries that are shown, which have the same axes."""
    figure = blank(x_title="decoder overlap, Σ |cos| with the layer's other features", y_title=quantity.title)
    for place, layer in enumerate(sorted({row["layer"] for row in beside})):
        of_layer = [row for row in rows if row["layer"] == layer and is_number(row[quantity.column])]
        if of_layer:
            figure.add_trace(
                go.Scatter(
                    x=[row["decoder_overlap"] for row in of_layer], y=[row[quantity.column] for row in of_layer], name=f"layer {layer}", mode="markers",
                    marker={"color": SHADES[place % len(SHADES)], "symbol": SYMBOLS[place // len(SHADES) % len(SYMBOLS)], "size": 6, "opacity": 0.75},
                    text=[_told(row, quantity) for row in of_layer], hovertemplate="%{text}<extra></extra>",
                )
            )  # fmt: skip
    if not figure.data:
        return nothing(figure, quantity.missing)
    for axis, column in ((figure.update_xaxes, "decoder_overlap"), (figure.update_yaxes, quantity.column)):
        axis(range=[0, 1.06 * max(row[column] for row in beside if is_number(row[column])) or 1])
    return figure.update_layout(showlegend=True)


def _told(row, quantity):
    said = f"{row['layer']}:{row['feature']}, overlap {number(row['decoder_overlap'])}, leakage {number(row[quantity.column])}"
    lines = [said, *([f"feature of {row['concept']}"] if row["concept"] else []), row["text"] or "not explained"]
    return "<br>".join(
        html.escape(visible(line if len(line) <= MAX_TEXT_CHARS else line[: MAX_TEXT_CHARS - 1] + "…")) for line in lines
    )
