"""Frames to Plotly figures. Transparent, in mid tones that read on light and dark paper."""

import html

import plotly.graph_objects as go

from cltdb.database.display.words import is_number, number

INK, GRID = "#7d8590", "rgba(125,133,144,.22)"
POOLED = "#c77d1e"
FIRST_LAYER, LAST_LAYER = (122, 190, 189), (36, 110, 130)
ACTIVATION_COLOURS = {"batchtopk": "#1f8a99", "topk": "#c77d1e", "jumprelu": "#8a63b8", "relu": "#d1603d"}
KIND_SYMBOLS = {"clt": "circle", "plt": "diamond"}
FONT = "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif"
GRAPH_CONFIG = {"displayModeBar": False, "responsive": True}
HEIGHT, LOW = 300, 180  # pixels


def layer_colour(layer, n_layers):
    """A shade per layer, light to deep."""
    share = layer / max(1, n_layers - 1)
    channels = (round(a + (b - a) * share) for a, b in zip(FIRST_LAYER, LAST_LAYER, strict=True))
    return "rgb({}, {}, {})".format(*channels)


def training_curve(frame, *, name):
    """One quantity over training: a line per layer, the pooled one in amber. frame: step, layer, value."""
    figure = _figure(x_title="step", y_title=name)
    layers = sorted(layer for layer in frame["layer"].unique() if layer is not None)
    for layer in [*layers, None]:
        rows = frame.filter(frame["layer"].is_null() if layer is None else frame["layer"] == layer).sort("step")
        if rows.is_empty():
            continue
        line = {"color": POOLED, "width": 2.5} if layer is None else {"color": layer_colour(layer, len(layers)), "width": 1.3}
        label = "pooled" if layer is None else f"layer {layer}"
        values = [value if is_number(value) else None for value in rows["value"]]
        mode = "lines" if rows.height > 1 else "markers"
        figure.add_trace(go.Scatter(x=rows["step"].to_list(), y=values, name=label, line=line, mode=mode))
    return figure if not frame.is_empty() else _nothing(figure, "not measured in training")


def evaluation_bars(frame, *, name):
    """One quantity of the evaluation: a bar per layer, the pooled value as a line. frame: layer, value."""
    figure = _figure(x_title="layer", y_title=name)
    rows = frame.filter(frame["layer"].is_not_null()).sort("layer")
    if not rows.is_empty():
        colours = [layer_colour(layer, rows.height) for layer in range(rows.height)]
        values = [value if is_number(value) else None for value in rows["value"]]
        figure.add_trace(go.Bar(x=rows["layer"].to_list(), y=values, marker_color=colours, name="layer", showlegend=False))
        figure.update_xaxes(dtick=1 if rows.height <= 16 else None)
    pooled = [value for value in frame.filter(frame["layer"].is_null())["value"] if is_number(value)]
    if pooled:
        figure.add_hline(y=pooled[0], line={"color": POOLED, "width": 2, "dash": "dot"})
        label = {"text": f"pooled {number(pooled[0])}", "font": {"color": POOLED}, "showarrow": False}
        figure.add_annotation(x=0, y=1.02, xref="paper", yref="paper", xanchor="left", yanchor="bottom", **label)
    return figure if not rows.is_empty() or pooled else _nothing(figure, "not measured in evaluation")


def frontier(rows, *, height):
    """FVU against L0: a point per dictionary, its colour the activation, its symbol the kind; a line through the best.

    rows: dicts of named query frontier, `swept` a dict of texts, `href` where a click leads.
    """
    figure = _figure(x_title="L0, active features per layer and token", y_title="FVU")
    rows = [row for row in rows if is_number(row["l0"]) and is_number(row["fvu"])]
    best = sorted((row["l0"], row["fvu"]) for row in rows if row["on_frontier"])
    if len(best) > 1:
        x, y = zip(*best, strict=True)
        line = {"color": INK, "width": 1.2, "dash": "dot"}
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name="best"))
    for label in sorted({kind_of(row) for row in rows}):
        group = [row for row in rows if kind_of(row) == label]
        marker = {
            "color": ACTIVATION_COLOURS.get(group[0]["activation"], INK),
            "symbol": KIND_SYMBOLS.get(group[0]["kind"], "square"),
            "size": 10,
            "line": {"width": 1, "color": "rgba(255,255,255,.7)"},
        }
        figure.add_trace(
            go.Scatter(
                x=[row["l0"] for row in group], y=[row["fvu"] for row in group], mode="markers", marker=marker, name=html.escape(label),
                customdata=[row["href"] for row in group], text=[_point_text(row) for row in group], hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(height=height)
    return figure if rows else _nothing(figure, "nothing was evaluated")


def kind_of(row):
    """Kind and activation of a dictionary as one label."""
    return " ".join(part for part in (row["kind"], row["activation"]) if part) or "unknown kind"


def _point_text(row):
    lines = [row["dict_id"], kind_of(row), f"FVU {number(row['fvu'])} at L0 {number(row['l0'])}"]
    lines += [f"{key} {value}" for key, value in row["swept"].items()]
    return "<br>".join(html.escape(line if len(line) <= 80 else line[:79] + "…") for line in lines)


def decoder_profile(norms, *, layer):
    """Where a feature writes: the norm of its decoder per target layer. norms: own layer first."""
    figure = _figure(x_title="target layer", y_title="decoder norm")
    values = [value if is_number(value) else None for value in norms or []]
    targets = list(range(layer, layer + len(values)))
    figure.add_trace(go.Bar(x=targets, y=values, marker_color=[layer_colour(1, 2)] + [layer_colour(0, 2)] * len(values)))
    figure.update_layout(height=LOW, showlegend=False)
    figure.update_xaxes(dtick=1 if len(values) <= 16 else None)
    return figure if values else _nothing(figure, "no decoder norms recorded")


def _figure(*, x_title, y_title):
    figure = go.Figure()
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", height=HEIGHT, margin={"l": 56, "r": 12, "t": 26, "b": 44},
        font={"family": FONT, "size": 12, "color": INK}, hovermode="x unified" if x_title == "step" else "closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}, bargap=0.35,
        hoverlabel={"font": {"family": FONT}},
    )  # fmt: skip
    figure.update_xaxes(title=x_title, gridcolor=GRID, zeroline=False, linecolor=GRID)
    figure.update_yaxes(title=html.escape(y_title), gridcolor=GRID, zerolinecolor=GRID)
    return figure


def _nothing(figure, text):
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
