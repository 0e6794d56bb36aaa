"""Figures of what labels share, layer by layer."""

import plotly.graph_objects as go

from cltdb.database.display.figures import SHADES, blank, error_bars, nothing, over_layers
from cltdb.database.display.words import is_number

OVERLAPS = {
    "overlap": ("one concept, two labels", SHADES[0], "solid", "circle"),
    "same_label": ("null: two concepts, one label", SHADES[1], "dash", "square"),
    "other_label": ("null: two concepts, two labels", SHADES[2], "dot", "diamond"),
}
"""{column of overlap_by_layer: (name, colour, line, mark)}."""
SHARES = {
    "n_shared": ("shared", SHADES[0]),
    "n_between": ("between", SHADES[5]),
    "n_specific": ("specific", SHADES[1]),
}
"""{column of label_layers, with n_between: (name, colour)}."""


def overlap(rows):
    """The overlap of two labels and its two nulls: lines over layers with the bands of their intervals. rows: dicts of overlap_by_layer."""
    figure = blank(x_title="layer", y_title="overlap")
    known = False
    for column, (name, colour, dash, symbol) in OVERLAPS.items():
        band = [(row["layer"], row[f"{column}_low"], row[f"{column}_high"]) for row in rows if is_number(row[f"{column}_low"])]
        values = [row[column] if is_number(row[column]) else None for row in rows]
        known |= any(value is not None for value in values)
        figure.add_trace(
            go.Scatter(
                x=[layer for layer, *_ in band] + [layer for layer, *_ in reversed(band)],
                y=[low for _, low, _ in band] + [high for *_, high in reversed(band)],
                fill="toself", fillcolor=_faint(colour), line={"width": 0}, hoverinfo="skip", showlegend=False, mode="lines",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[row["layer"] for row in rows], y=values, name=name, mode="lines+markers", line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 7}, hovertemplate="layer %{x}: %{y:.3f}",
            )
        )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return over_layers(figure, rows) if known else nothing(figure, "no feature is active in any of its prompts")


def corrected(rows):
    """What labels share because the concept is the same: the overlap less its null of two labels, with intervals."""
    figure = blank(x_title="layer", y_title="overlap less chance")
    rows = [row for row in rows if is_number(row["corrected"])]
    values = [row["corrected"] for row in rows]
    if not rows:
        return nothing(figure, "no feature is active in any of its prompts")
    figure.add_trace(
        go.Scatter(
            x=[row["layer"] for row in rows], y=values, mode="lines+markers", line={"color": SHADES[0], "width": 2}, marker={"size": 7},
            error_y=error_bars(rows, "corrected"), hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
            name="overlap less chance",
        )
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": SHADES[5], "width": 1})
    return over_layers(figure, rows)


def label_shares(rows):
    """How many features of each layer fire on few labels, on all, or between: stacked bars. rows: dicts of label_layers."""
    figure = blank(x_title="layer", y_title="features, share of those that fire")
    for column, (name, colour) in SHARES.items():
        values = [_count(row, column) / row["n_features"] for row in rows]
        bar = {"marker_color": colour, "hovertemplate": "layer %{x}: %{y:.1%}"}
        figure.add_trace(go.Bar(x=[row["layer"] for row in rows], y=values, name=name, **bar))
    figure.update_layout(barmode="stack")
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return over_layers(figure, rows)


def _count(row, column):
    return row["n_features"] - row["n_specific"] - row["n_shared"] if column == "n_between" else row[column]


def _faint(colour):
    """A colour of SHADES, nearly transparent."""
    return "rgba({}, {}, {}, .16)".format(*(int(colour[start : start + 2], 16) for start in (1, 3, 5)))
