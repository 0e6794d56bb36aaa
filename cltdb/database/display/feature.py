"""One feature in a notebook: what it means, its statistics, where it fires, what it writes, its neighbours."""

from typing import NamedTuple

import polars as pl

from cltdb.database.display import histogram
from cltdb.database.display.markup import FONT, QUIET, element, escaped, figures, folded, isolated, joined, score
from cltdb.database.display.words import is_number, is_spaced, number, percent, token_text, visible

N_WINDOWS, N_TEXT_WINDOWS, N_EFFECTS = 8, 3, 8
"""Windows of a band, windows of the plain text, tokens of a list that are shown."""
WIDTH, HEIGHT, MARGIN = 340, 110, 48
HEAT = "224,138,40"
BARS, LINES = "#1f8a99", "#c77d1e"
EFFECTS = {"promoted": "promotes", "suppressed": "suppresses", "driven_by": "driven by", "inhibited_by": "inhibited by"}


class Feature(NamedTuple):
    """One feature with all that is known of it; a notebook shows it as HTML, `print` as text."""

    card: dict
    """The row of named query feature_card: best explanation, statistics, histogram, tokens."""
    contexts: pl.DataFrame
    """Windows with their tokens as text: named query feature_contexts."""
    explanations: pl.DataFrame
    """Every explanation with its scores: named query page_explanations."""
    neighbours: pl.DataFrame
    """The features most strongly connected to it, whatever the input: named query top_neighbours."""

    @property
    def title(self):
        """Its best explanation, or why it has none."""
        return self.card["text"] or ("A dead feature" if self.card["dead"] else "Not explained")

    def __repr__(self):
        numbers = ", ".join(f"{label} {text}" for label, text in self._numbers()[:5])
        top = self.contexts.filter(band="top").head(N_TEXT_WINDOWS).to_dicts()
        lines = [f"feature {self._name}: {visible(self.title)}", f"  {numbers}", *(f"  {_window_text(row)}" for row in top)]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self):
        head = element("div", self._name, style=QUIET)
        title = element("div", isolated(self.title), " ", score(self.card["score"]), style="font-size:17px;font-weight:600")
        effects = [_effects(label, self.card[column]) for column, label in EFFECTS.items() if self.card[column]]
        lists = element("div", *effects, style="display:flex;flex-wrap:wrap;gap:0 1.6em")
        side_by_side = element(
            "div", element("div", self.histogram_svg()), lists, style="display:flex;flex-wrap:wrap;gap:1em 2em"
        )
        parts = [head, title, figures(self._numbers()), side_by_side, *self._bands(), self._explained(), self._connected()]
        return str(element("div", *parts, style=FONT))

    @property
    def _name(self):
        return f"{self.card['layer']}:{self.card['feature']} of {visible(self.card['dict_id'])}"

    def _numbers(self):
        known = self.card
        pairs = [
            ("density", percent(known["density"])),
            ("max activation", number(known["max_activation"])),
            ("mean", number(known["mean_activation"])),
            ("deviation", number(known["std_activation"])),
            ("threshold", number(known["threshold"])),
            ("contexts", number(known["n_contexts"])),
            ("documents", number(known["n_documents"])),
            ("encoder norm", number(known["encoder_norm"])),
        ]
        return [(label, text) for label, text in pairs if text != number(None)]

    def histogram_svg(self):
        """On how many tokens it is how active, as SVG."""
        return histogram_svg(self.card)

    def _bands(self):
        peaks = [value for value in self.contexts["max_activation"] if is_number(value)]
        scale = self.card["max_activation"] if is_number(self.card["max_activation"]) else max(peaks, default=0.0)
        for (band,), rows in self.contexts.group_by("band", maintain_order=True):
            name = "Strongest contexts" if band == "top" else f"Quantile band {band}"
            shown = rows.head(N_WINDOWS).to_dicts()
            note = element("span", f" {len(shown)} of {rows.height}", style=f"{QUIET};font-weight:400")
            windows = [element("div", _window(row, scale), style="margin:.15em 0") for row in shown]
            yield folded(joined(name, note), *windows, is_open=band == "top")
        if self.contexts.is_empty():
            yield element("div", "No contexts: it never fired in the harvest.", style=QUIET)

    def _explained(self):
        if self.explanations.is_empty():
            return None
        items = []
        for (side, explainer), rows in self.explanations.group_by("side", "explainer", maintain_order=True):
            first, scored = rows.row(0, named=True), rows.filter(pl.col("scorer").is_not_null()).to_dicts()
            text = isolated(first["text"]) if first["text"] else element("i", first["status"])
            scores = [joined(" ", row["scorer"], " ", score(row["score"]) or "–") for row in scored]
            items.append(element("li", text, element("span", f" {explainer}, {side} side", style=QUIET), *scores))
        return folded(f"Explanations, {len(items)}", element("ul", *items, style="margin:.2em 0"))

    def _connected(self):
        if self.neighbours.is_empty():
            return None
        lists = [
            element(
                "div",
                element("b", "before it" if direction == "from" else "after it"),
                element("ul", *map(_neighbour, rows.to_dicts())),
            )
            for (direction,), rows in self.neighbours.group_by("direction", maintain_order=True)
        ]
        return folded(f"Connected features, {self.neighbours.height}", *lists)


def _neighbour(row):
    measured = f" {row['layer']}:{row['feature']}, TWERA {number(row['twera'])}, virtual weight {number(row['virtual_weight'])}"
    return element("li", isolated(row["text"] or "Not explained"), element("span", measured, style=QUIET))


def _window(row, scale):
    """A row of feature_contexts: active tokens on a ground as strong as their activation, the peak underlined."""
    tokens = row["tokens"] or []
    strings, activations = row["strings"] or [None] * len(tokens), row["activations"] or [0.0] * len(tokens)
    pieces, gap = [], " " if is_spaced(strings) else ""
    for place, (string, activation) in enumerate(zip(strings, activations, strict=True), start=row["start"] or 0):
        piece = escaped(token_text(string))
        if is_number(activation) and activation > 0:
            share = min(1.0, activation / scale) if scale and scale > 0 else 1.0
            line = ";text-decoration:underline" if place == row["position"] else ""
            style = f"background:rgba({HEAT},{0.12 + 0.5 * share:.2f});border-radius:2px{line}"
            piece = element("span", piece, style=style, title=f"activation {number(activation)}, position {place}")
        pieces += [piece, gap]
    where = f"document {row['document']}, sequence {row['sequence']}, position {row['position']}"
    label = element("span", f" {row['label']}", style=f"{QUIET};font-size:11px") if row["label"] else None
    peak = element("span", number(row["max_activation"]), style=f"{QUIET};display:inline-block;min-width:3.5em", title=where)
    return joined(peak, element("bdi", *pieces), label)


def _window_text(row):
    """The same on one line: the peak between « and »."""
    strings = row["strings"] or [None] * len(row["tokens"] or [])
    gap = " " if is_spaced(strings) else ""
    places = enumerate(strings, start=row["start"] or 0)
    text = gap.join(f"«{token_text(string)}»" if place == row["position"] else token_text(string) for place, string in places)
    return f"{number(row['max_activation'])}  {text}"


def _effects(label, effects):
    items = [
        element("div", isolated(token_text(effect["string"])), element("span", f" {number(effect['value'])}", style=QUIET))
        for effect in effects[:N_EFFECTS]
    ]
    return element("div", element("b", label), *items)


def histogram_svg(card):
    """Bars of the histogram of a row of feature_card, on a logarithmic axis of activations, with median and 99 % as lines."""
    edges, counts = histogram.steps(card["histogram"])
    if not counts:
        return element("div", f"Histogram: {histogram.missing(card)}.", style=QUIET)
    bar, most = WIDTH / len(counts), max(counts)

    def place(value):
        return WIDTH * histogram.place(edges, value)

    drawn = [
        element(
            "rect", element("title", f"{number(low)} to {number(high)}: {number(n)} tokens"), x=f"{i * bar:.1f}", width=f"{max(1.0, bar - 1):.1f}",
            y=f"{HEIGHT * (1 - n / most):.1f}", height=f"{HEIGHT * n / most:.1f}", fill=BARS,
        )
        for i, (low, high, n) in enumerate(zip(edges, edges[1:], counts, strict=False)) if n
    ]  # fmt: skip
    ground = element("line", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT, stroke="currentColor", stroke_opacity=".4")
    marks = [_text(number(mark), place(mark), HEIGHT + 13, anchor="middle") for mark in histogram.ticks(edges[0], edges[-1])]
    lines = [
        joined(
            element(
                "line", x1=f"{place(value):.1f}", x2=f"{place(value):.1f}", y1=0, y2=HEIGHT, stroke=LINES, stroke_dasharray="3 3"
            ),
            _text(name, place(value), -4, anchor=anchor),
        )
        for name, anchor, value in zip(("median", "99 %"), ("end", "start"), (card["quantiles"] or [None] * 6)[2::3], strict=True)
        if is_number(value)
    ]
    titles = [_text("activation, model units", WIDTH / 2, HEIGHT + 27, anchor="middle"), _text(f"{number(most)} tokens", 0, -4)]
    box = f"-{MARGIN / 2:.0f} -16 {WIDTH + MARGIN} {HEIGHT + 48}"
    text = f"histogram of the activation, {number(sum(counts))} tokens"
    return element("svg", *drawn, ground, *lines, *marks, *titles, viewBox=box, width=WIDTH + MARGIN, role="img", aria_label=text)


def _text(text, x, y, *, anchor="start"):
    style = {"fill": "currentColor", "fill_opacity": ".75", "font_size": "10", "text_anchor": anchor}
    return element("text", text, x=f"{x:.1f}", y=y, **style)
