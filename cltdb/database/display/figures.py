"""Frames to Plotly figures. Transparent, in mid tones that read on light and dark paper."""

import html
import json
import math

import plotly.graph_objects as go

from cltdb.database.display import histogram
from cltdb.database.display.words import is_number, number

INK, GRID = "#7d8590", "rgba(125,133,144,.22)"
POOLED = "#c77d1e"
FIRST_LAYER, LAST_LAYER = (84, 160, 160), (40, 116, 136)  # 3:1 on white and on the dark paper
ACTIVATION_COLOURS = {"batchtopk": "#1f8a99", "topk": "#c77d1e", "jumprelu": "#8a63b8", "relu": "#d1603d"}
KIND = ("train.kind", "train.activation")
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)  # of features.quantiles
KIND_SYMBOLS = {"clt": "circle", "plt": "diamond", "sae": "cross"}
FONT = "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif"
GRAPH_CONFIG = {"displayModeBar": False, "responsive": True}
HEIGHT, LOW = 300, 180  # pixels
DASHES = ("solid", "dash", "dot", "dashdot")
SHADES = ["#1f8a99", "#c77d1e", "#8a63b8", "#d1603d", "#4f8a3c", "#7d8590"]
METRICS = {
    "fvu": "FVU, share of variance unexplained",
    "fvu_model_units": "FVU in model units, share of variance unexplained",
    "l0": "L0, active features per layer and token",
    "dead_frac": "dead features, share",
    "dense_frac": "dense features, share",
    "density": "mean density, share of tokens",
    "usage_gini": "Gini coefficient of firings",
    "ce_recovered": "cross-entropy recovered, share",
    "top1_agreement": "top-1 agreement, share of tokens",
    "top1_agreement_confident": "top-1 agreement where the model is confident, share of tokens",
    "kl_nats": "KL divergence, nats",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
}
"""What axes call metrics, with units; others go by their name."""
NOT_MEASURED = "not measured in training"


def layer_colour(layer, n_layers):
    """A shade per layer, light to deep."""
    share = layer / max(1, n_layers - 1)
    channels = (round(a + (b - a) * share) for a, b in zip(FIRST_LAYER, LAST_LAYER, strict=True))
    return "rgb({}, {}, {})".format(*channels)


def metric_title(name):
    """A metric as the title of an axis, with its unit."""
    bare = name.removeprefix("heldout_")
    title = METRICS.get(bare, f"{name}, nats" if name.startswith("ce_") and name != "ce_recovered" else name)
    return f"held-out {title}" if bare != name else title


def training_curve(frame, *, name):
    """One quantity over training: a line per layer, the pooled one in amber. frame: step, layer, value."""
    figure = blank(x_title="step", y_title=metric_title(name))
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
    return figure if not frame.is_empty() else nothing(figure, NOT_MEASURED)


def pooled_curves(frame, *, name):
    """One quantity over training, pooled over layers: a line per dictionary. frame: dict_id, step, layer, value."""
    figure = blank(x_title="step", y_title=metric_title(name))
    pooled = frame.filter(frame["layer"].is_null()).sort("dict_id", "step")
    for number_, ((dict_id,), rows) in enumerate(pooled.group_by("dict_id", maintain_order=True)):
        values = [value if is_number(value) else None for value in rows["value"]]
        line = {"color": SHADES[number_ % len(SHADES)], "width": 1.6, "dash": DASHES[number_ // len(SHADES) % len(DASHES)]}
        figure.add_trace(go.Scatter(x=rows["step"].to_list(), y=values, name=html.escape(dict_id), line=line, mode="lines"))
    figure.update_layout(hovermode="closest", legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"})
    return figure if not pooled.is_empty() else nothing(figure, NOT_MEASURED)


def evaluation_bars(frame, *, name):
    """One quantity of the evaluation: a bar per layer, the pooled value as a line. frame: layer, value."""
    figure = blank(x_title="layer", y_title=metric_title(name))
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
    return figure if not rows.is_empty() or pooled else nothing(figure, "not measured in evaluation")


def frontier(rows, *, height=420):
    """FVU against L0: a point per dictionary, its colour the activation, its symbol the kind; a line through the best.

    rows: dicts of named query frontier, `swept` a dict of texts, in pages `href` where a click leads.
    """
    figure = blank(x_title=METRICS["l0"], y_title=METRICS["fvu"])
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
                customdata=[row.get("href") for row in group], text=[_point_text(row) for row in group], hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    for axis, values in ((figure.update_xaxes, {row["l0"] for row in rows}), (figure.update_yaxes, {row["fvu"] for row in rows})):
        axis(rangemode="tozero" if len(values) < 2 else "nonnegative")  # Plotly puts a margin of 1 around a single value
    figure.update_layout(height=height)
    return figure if rows else nothing(figure, "nothing was evaluated")


def swept(text):
    """{key: value as text} of the values that a sweep gave a point. Those of KIND have a column of their own and are left out. A key is
    cut to its last part where no other key ends in the same."""
    values = {key: value for key, value in json.loads(text or "{}").items() if key not in KIND}
    ends = [key.rpartition(".")[2] for key in values]
    return {
        (end if ends.count(end) == 1 else key): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for (key, value), end in zip(values.items(), ends, strict=True)
    }


def kind_of(row):
    """Kind and activation of a dictionary as one label."""
    return " ".join(part for part in (row["kind"], row["activation"]) if part) or "unknown kind"


def _point_text(row):
    lines = [row["dict_id"], kind_of(row), f"FVU {number(row['fvu'])} at L0 {number(row['l0'])}"]
    lines += [f"{key} {value}" for key, value in row["swept"].items()]
    return "<br>".join(html.escape(line if len(line) <= 80 else line[:79] + "…") for line in lines)


def activation_histogram(card):
    """On how many tokens a feature is how active, on a logarithmic axis; the quantiles as lines. card: a row of feature_card."""
    figure = blank(x_title="activation, model units", y_title="tokens")
    figure.update_layout(height=LOW, showlegend=False)
    edges, counts = histogram.steps(card["histogram"])
    if not counts:
        return nothing(figure, histogram.missing(card))
    text = [
        f"{number(low)} to {number(high)}: {number(n)} tokens" for low, high, n in zip(edges, edges[1:], counts, strict=False)
    ]
    line = {"shape": "hv", "color": SHADES[0], "width": 1.2}
    figure.add_trace(
        go.Scatter(
            x=edges, y=[*counts, 0], line=line, fill="tozeroy", fillcolor="rgba(31,138,153,.35)", text=[*text, ""],
            hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    for level, value in zip(LEVELS, card["quantiles"] or [], strict=False):
        if level in (0.5, 0.99) and is_number(value) and value > 0:
            figure.add_vline(x=value, line={"color": POOLED, "width": 1.2, "dash": "dot"})
            label = {"text": "median" if level == 0.5 else "99 %", "font": {"color": POOLED, "size": 11}, "showarrow": False}
            side = "right" if level == 0.5 else "left"  # of the label that is at its line, so that two labels never meet
            figure.add_annotation(x=math.log10(value), y=1, yref="paper", xanchor=side, yanchor="bottom", **label)
    figure.update_xaxes(
        type="log",
        tickangle=0,
        tickvals=(marks := histogram.ticks(edges[0], edges[-1])),
        ticktext=[number(mark) for mark in marks],
    )
    return figure


def decoder_profile(norms, *, layer):
    """Where a feature writes: the norm of its decoder per target layer. norms: own layer first."""
    figure = blank(x_title="target layer", y_title="decoder norm")
    values = [value if is_number(value) else None for value in norms or []]
    targets = list(range(layer, layer + len(values)))
    figure.add_trace(go.Bar(x=targets, y=values, marker_color=[layer_colour(1, 2)] + [layer_colour(0, 2)] * len(values)))
    figure.update_layout(height=LOW, showlegend=False)
    figure.update_xaxes(dtick=1 if len(values) <= 16 else None)
    return figure if values else nothing(figure, "no decoder norms recorded")


def blank(*, x_title, y_title):
    """A figure without anything in it, as all others begin."""
    return go.Figure(  # with all of its layout at once: one change of it after the other takes eight times as long
        layout={
            "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "height": HEIGHT, "margin": {"l": 56, "r": 12, "t": 26, "b": 44},
            "font": {"family": FONT, "size": 12, "color": INK}, "hovermode": "x unified" if x_title == "step" else "closest",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}, "bargap": 0.35,
            "hoverlabel": {"font": {"family": FONT}},
            "xaxis": {"title": {"text": x_title}, "gridcolor": GRID, "zeroline": False, "linecolor": GRID},
            "yaxis": {"title": {"text": html.escape(y_title), "font": {"size": 11}}, "gridcolor": GRID, "zerolinecolor": GRID},
        }
    )  # fmt: skip


def over_layers(figure, rows):
    """The figure, whose x is layers, with a mark at each where they are few. rows: one per layer."""
    figure.update_xaxes(dtick=1 if len(rows) <= 16 else None, gridcolor=GRID)
    return figure


def error_bars(rows, name):
    """The 95 % intervals of a column, for `error_y` of a trace; of rows without one they have no length. rows: dicts with name, name_low, name_high."""
    ends = {
        "array": [row[f"{name}_high"] - row[name] if is_number(row[f"{name}_high"]) else 0 for row in rows],
        "arrayminus": [row[name] - row[f"{name}_low"] if is_number(row[f"{name}_low"]) else 0 for row in rows],
    }
    return {"type": "data", "symmetric": False, "thickness": 1.4, **ends}


def nothing(figure, text):
    """The figure with a text in place of axes."""
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
