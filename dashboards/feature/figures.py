"""Small figures of one feature, as assets/bars.js draws them. Places and heights are shares of the axes, 0 to 1."""

from cltdb.database.display import histogram
from cltdb.database.display.figures import LEVELS
from cltdb.database.display.words import is_number, number, token_text
from dashboards.drawn import drawn

N_NAMED = 3
"""Tokens at each end of the logits whose names stand in the figure."""


def activation_histogram(card):
    """On how many tokens it is how active, median and 99 % as lines. card: a row of feature_card."""
    edges, counts = histogram.steps(card["histogram"])
    if not counts:
        return _nothing(histogram.missing(card))
    width, most = 1 / len(counts), max(counts)
    bars = [
        {"x": i * width, "width": width, "height": n / most, "hint": f"{number(low)} to {number(high)}: {number(n)} tokens"}
        for i, (low, high, n) in enumerate(zip(edges, edges[1:], counts, strict=False))
        if n
    ]
    quantiles = dict(zip(LEVELS, card["quantiles"] or [], strict=False))
    lines = [
        {"x": histogram.place(edges, quantiles[level]), "text": text}
        for level, text in ((0.5, "median"), (0.99, "99 %"))
        if is_number(quantiles.get(level))
    ]
    ticks = [{"x": histogram.place(edges, mark), "text": number(mark)} for mark in histogram.ticks(edges[0], edges[-1])]
    said = f"{number(sum(counts))} tokens on which it fires, at most {number(most)} in a bar"
    return _figure(bars, ticks, lines=lines, axis=f"activation, model units; highest bar {number(most)} tokens", name=said)


def logit_extremes(card):
    """The tokens whose logits it raises and lowers most, on an axis of these effects. All others lie between; their effects are not stored."""
    effects = [one for column in ("suppressed", "promoted") for one in card[column] or [] if is_number(one["value"])]
    if not effects:
        return _nothing("no logit effects recorded")
    least, most = min(0.0, *(one["value"] for one in effects)), max(0.0, *(one["value"] for one in effects))
    span = (most - least) or 1.0
    place = lambda value: (value - least) / span  # noqa: E731
    bars = [
        {
            "x": place(one["value"]),
            "width": None,
            "height": 1,
            "hint": f"{token_text(one['string'])}: {number(one['value'])}",
            "tone": "promotes" if one["value"] > 0 else "suppresses",
        }
        for one in effects
    ]
    ticks = [{"x": place(value), "text": number(value)} for value in sorted({least, 0.0, most})]
    named = {
        "tokens": [
            ", ".join(token_text(one["string"]) for one in (card[column] or [])[:N_NAMED])
            for column in ("suppressed", "promoted")
        ]
    }
    said = f"effects on logits from {number(least)} to {number(most)}: the {len(effects)} strongest"
    return _figure(bars, ticks, axis="effect on the logit", name=said, **named)


def decoder_profile(norms, *, layer):
    """Where it writes: the norm of its decoder per target layer. norms: own layer first."""
    known = [value for value in norms or [] if is_number(value)]
    if not known:
        return _nothing("no decoder norms recorded")
    width, most = 1 / len(norms), max(known) or 1.0
    bars = [
        {"x": (i + 0.1) * width, "width": 0.8 * width, "height": value / most, "hint": f"layer {layer + i}: {number(value)}"}
        for i, value in enumerate(norms)
        if is_number(value)
    ]
    step = max(1, len(norms) // 8)
    ticks = [{"x": (i + 0.5) * width, "text": str(layer + i)} for i in range(0, len(norms), step)]
    said = f"decoder norms at layers {layer} to {layer + len(norms) - 1}"
    return _figure(bars, ticks, axis=f"target layer; highest bar {number(most)}", name=said)


def _figure(bars, ticks, *, axis, name, lines=(), tokens=None):
    return drawn("bars", {"bars": bars, "ticks": ticks, "lines": list(lines), "axis": axis, "tokens": tokens}, name=name)


def _nothing(text):
    return drawn("bars", {"nothing": text})
