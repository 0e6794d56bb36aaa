"""A pruned graph in a notebook: its strongest nodes and edges in layers, as SVG, and what the features of the drawing mean."""

from typing import NamedTuple

import polars as pl

from cltdb.database.display.layered import (
    KIND_COLOURS,
    PROMOTES,
    SUPPRESSES,
    Spacing,
    describe,
    edge_width,
    node_label,
    place,
    strength,
    strongest,
)
from cltdb.database.display.markup import FONT, QUIET, element, figures, isolated, joined, score
from cltdb.database.display.words import is_number, number, percent, token_text, visible

SPACING = Spacing(node_gap=46, sub_row_gap=34, max_per_row=4, min_column=62, min_row=58, aspect=0.3)
LEFT, RIGHT, ABOVE, BELOW = 64, 110, 72, 52  # pixels around the places of nodes
RADIUS = 6.5
N_LISTED, N_EDGES, MAX_TEXT = 15, 10, 160
"""Features that are listed under the drawing; edges in plain text; characters of an explanation."""


class Drawing(NamedTuple):
    """The strongest part of a pruned graph; a notebook shows it as a drawing, `print` as its most influential edges."""

    graph: dict
    """The row of table graphs."""
    nodes: pl.DataFrame
    """The nodes that are drawn: columns of named query graph_nodes."""
    edges: pl.DataFrame
    """The edges that are drawn: columns of table edges, the most influential first."""
    n_nodes: int
    """Nodes of the pruned graph."""
    n_edges: int
    """Edges of the pruned graph."""
    tokens: list
    """The prompt's token strings [pos]."""

    def __repr__(self):
        names = {node["node_id"]: node_name(node, self.tokens) for node in self.nodes.to_dicts()}
        edges = self.edges.head(N_EDGES).to_dicts()
        lines = [f"  {names[e['source_id']]} → {names[e['target_id']]}  weight {number(e['weight'])}" for e in edges]
        return "\n".join(
            [f"graph {visible(self.graph['graph_id'])}: {visible(self.graph['prompt'] or '')}", f"  {self._extent}", *lines]
        )

    __str__ = __repr__

    def _repr_html_(self):
        head = element("div", self.graph["graph_id"], style=QUIET)
        prompt = element("div", isolated(self.graph["prompt"] or ""), style="font-size:17px;font-weight:600")
        numbers = figures(
            [
                ("replacement score", number(self.graph["replacement_score"])),
                ("completeness score", number(self.graph["completeness_score"])),
                *((token_text(node["string"]), percent(node["probability"])) for node in self._of_kind("logit")[:3]),
            ]
        )
        extent = element("div", f"{self._extent} ", *_key(), style=f"{QUIET};font-size:12px")
        return str(element("div", head, prompt, numbers, self.svg, extent, self._features(), style=FONT))

    @property
    def _extent(self):
        nodes, edges = f"{self.nodes.height} of {self.n_nodes:,} nodes", f"{self.edges.height} of {self.n_edges:,} edges"
        return f"{nodes} and {edges} of the pruned graph, by influence"

    def _of_kind(self, kind):
        return self.nodes.filter(kind=kind).sort("influence", descending=True, nulls_last=True).to_dicts()

    @property
    def svg(self):
        """The drawing alone, for a file of its own: embeddings at the bottom, logits on top, a column per token with a node."""
        positions = sorted(set(self.nodes["position"].fill_null(0)))
        columns = self.nodes["position"].fill_null(0).replace_strict(positions, range(len(positions)), return_dtype=pl.Int32)
        placed = place(self.nodes.with_columns(position=columns), len(positions), SPACING)
        top, width = max(placed.rows.values()) + ABOVE, max((x for _, x, _ in placed.nodes), default=0.0) + RIGHT
        at = {node["node_id"]: (x, top - y) for node, x, y in placed.nodes}
        scale = max((abs(weight) for weight in self.edges["weight"] if is_number(weight)), default=0.0)
        largest = max((value for value in self.nodes["influence"] if is_number(value)), default=0.0)
        rows = [_text(name, -10, top - placed.rows[row] + 4, anchor="end") for row, name in placed.row_names.items()]
        words = [
            joined(
                _text(
                    token_text(_at(self.tokens, position), limit=10), placed.columns[column], top + 32, anchor="middle", size=12
                ),
                _text(str(position), placed.columns[column], top + 45, anchor="middle", size=9),
            )
            for column, position in enumerate(positions)
        ]
        edges = [_edge(edge, at, scale) for edge in reversed(self.edges.to_dicts())]
        nodes = [_node(node, *at[node["node_id"]], largest) for node in self.nodes.to_dicts()]
        whole, height = width + LEFT, top + BELOW
        box = f"-{LEFT} 0 {whole:.0f} {height:.0f}"
        text = f"attribution graph of the prompt: {self.graph['prompt'] or ''}"
        style = f"width:100%;max-width:{whole:.0f}px;height:auto"
        return element(
            "svg",
            *edges,
            *nodes,
            *rows,
            *words,
            xmlns=SVG,
            viewBox=box,
            style=style,
            role="img",
            aria_label=text,
            font_family="sans-serif",
        )

    def _features(self):
        rows = [
            element(
                "tr", _cell(f"{node['layer']}:{node['feature']}"), _cell(f"{token_text(_at(self.tokens, node['position']), limit=12)}@{node['position']}"),
                _cell(isolated(_short(node["text"] or "Not explained")), " ", score(node["score"])), _cell(number(node["influence"])),
            )
            for node in self._of_kind("feature")[:N_LISTED]
        ]  # fmt: skip
        heads = [
            element("th", name, style="text-align:left;padding:1px 12px 1px 0")
            for name in ("feature", "at", "explanation", "influence")
        ]
        return (
            element("table", element("tr", *heads), *rows, style="border-collapse:collapse;font-size:12px;margin-top:.5em")
            if rows
            else None
        )


def _short(text):
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


SVG = "http://www.w3.org/2000/svg"


def _at(tokens, position):
    return tokens[position] if position is not None and position < len(tokens) else None


def node_name(node, tokens):
    """A node on a line of text: 0:69@4 Spain, error 1@4, Madrid 98 %."""
    where = f"@{node['position']} {token_text(_at(tokens, node['position']))}"
    match node["kind"]:
        case "feature":
            return f"{node['layer']}:{node['feature']}{where}"
        case "error":
            return f"error {node['layer']}{where}"
        case "logit":
            return node_label(node)
    return f"{token_text(node['string'])}@{node['position']}"


def _cell(*children):
    return element("td", *children, style="text-align:left;vertical-align:top;padding:1px 12px 1px 0")


def _key():
    """What shapes and colours mean, in a line of words."""
    colours = {"promotes": PROMOTES, "suppresses": SUPPRESSES, "feature": KIND_COLOURS["feature"], "error": KIND_COLOURS["error"]}
    return [joined(element("span", "■", style=f"color:{colour}"), f" {name} ") for name, colour in colours.items()]


def _text(text, x, y, *, anchor="start", size=10, **look):
    look |= {"fill": "currentColor", "fill_opacity": ".8", "font_size": size, "text_anchor": anchor}
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", **look)


def _edge(edge, at, scale):
    (x1, y1), (x2, y2) = at[edge["source_id"]], at[edge["target_id"]]
    colour = SUPPRESSES if is_number(edge["weight"]) and edge["weight"] < 0 else PROMOTES
    title = element("title", f"weight {number(edge['weight'])}, influence {number(edge['influence'])}")
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return element("line", title, **ends, stroke=colour, stroke_width=edge_width(edge["weight"], scale), stroke_opacity=".45")


def _node(node, x, y, largest):
    """A node's shape with its label: numbers under features, the token and its probability over logits."""
    title, fill = element("title", describe(node)), KIND_COLOURS[node["kind"]]
    label = _text(f"{node['layer']}:{node['feature']}", x, y + 16, anchor="middle", size=9)
    match node["kind"]:
        case "feature":
            shape = element(
                "circle",
                title,
                cx=f"{x:.1f}",
                cy=f"{y:.1f}",
                r=RADIUS,
                fill=fill,
                fill_opacity=strength(node["influence"], largest),
            )
        case "error":
            corners = f"{x:.1f},{y - RADIUS:.1f} {x + RADIUS:.1f},{y:.1f} {x:.1f},{y + RADIUS:.1f} {x - RADIUS:.1f},{y:.1f}"
            shape, label = element("polygon", title, points=corners, fill=fill), None
        case _:
            corner = 4 if node["kind"] == "logit" else 1
            size = {"width": 2 * RADIUS, "height": 2 * RADIUS, "rx": corner}
            shape = element("rect", title, x=f"{x - RADIUS:.1f}", y=f"{y - RADIUS:.1f}", **size, fill=fill)
            turned = {"transform": f"rotate(-30 {x:.1f} {y:.1f})"}
            label = _text(node_label(node), x + RADIUS + 5, y + 3, size=11, **turned) if node["kind"] == "logit" else None
    return joined(shape, label)


def draw(graph, nodes, edges, *, tokens, max_nodes, max_edges):
    """The `Drawing` of a pruned graph (frames of graph_nodes and edges): its most influential nodes, all logits among them, and of the
    edges between these the most influential. A node without a drawn edge is left out."""
    order = [pl.col("kind") != "logit", -pl.col("influence").fill_nan(0).fill_null(0), pl.col("node_id")]
    chosen = nodes.sort(order).head(max_nodes)
    ids = chosen["node_id"].implode()
    between = edges.filter(pl.col("source_id").is_in(ids), pl.col("target_id").is_in(ids))
    drawn = strongest(between, limit=max_edges)
    ends = pl.concat([drawn["source_id"], drawn["target_id"]]).unique().implode()
    shown = chosen.filter((pl.col("kind") == "logit") | pl.col("node_id").is_in(ends))
    return Drawing(graph, shown, drawn, nodes.height, edges.height, tokens)
