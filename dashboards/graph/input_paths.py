"""The strongest paths from the inputs of a graph to its targets, as the database has them (attribute.paths): a list by target, and the steps of the
one that is drawn."""

import polars as pl
from dash import html

from cltdb.database.display.words import number, percent, token_text
from dashboards.drawn import drawn
from dashboards.graph.names import label, link, name
from dashboards.graph.walk import BACK, BETWEEN

MAX_LISTED, N_FIRST, N_ROUTES = 1000, 12, 4
VIAS = {"residual": None, "others": "many ways"}
"""How a line names the strongest route of a step that is no head."""
FACTORS = {
    "weight": "the part of the step's weight that takes this way: the product of the two factors",
    "input factor": "what depends on the prompt: the activation, the heads' patterns, the denominators of norms",
    "weight factor": "what is the same in every prompt: decoder, OV matrices with the gains of norms, encoder or unembedding",
}


def found(path_id, routes):
    """What store `graph-found-paths` holds of a stored path. routes: frame of named query path_routes; where it is empty there is no such path."""
    steps = _steps(routes)
    nodes = [*steps["source_id"].head(1), *steps["target_id"]]
    paths = [{"nodes": nodes, "weights": steps["weight"].to_list()}] if nodes else []
    return {"path": None, "stored_path": path_id, "paths": paths}


def _steps(routes):
    """The steps of a path in their order: their ends, and the sum of the weights of their routes."""
    steps = routes.group_by("step", "source_id", "target_id", maintain_order=True).agg(pl.col("weight").sum())
    return steps.sort("step")


def view(listed, nodes):
    """The list. listed: frame of named query input_paths; nodes: of `names.named`."""
    more = f"The first {number(MAX_LISTED)} are listed; named query input_paths has all. " if listed.height >= MAX_LISTED else ""
    return html.Div(
        [
            html.H3("Strongest paths from inputs to answers"),
            html.P("Click a path to draw it and to see what its steps go through.", className="quiet"),
            drawn("inputPaths", {"targets": _targets(listed, nodes), "n_first": N_FIRST}, name="Strongest paths to the answers"),
            html.P([more, *BETWEEN], className="quiet"),
        ]
    )


def _targets(listed, nodes):
    """The paths by target, in the order of the query."""
    largest = listed["weight"].abs().max() or 1.0
    return [
        {"name": name(nodes[target]), "said": _said(part), "paths": [_line(row, nodes, largest) for row in part.to_dicts()]}
        for (target,), part in listed.group_by("target_id", maintain_order=True)
    ]


def _said(part):
    """How much of all paths the listed ones are."""
    covered = part["share"].sum()
    paths = "This path carries" if part.height == 1 else f"These {number(part.height)} paths carry"
    return (
        f"{paths} {percent(covered)} of the absolute weight of all paths to it. {percent(max(0.0, 1 - covered))} is left out: weaker paths, longer "
        "ones, and those of a sign that attribute.paths leaves out."
    )


def _line(row, nodes, largest):
    """A path as assets/graph/lists.js draws it."""
    passed = [nodes[node_id] for node_id in row["node_ids"]]
    line = [_short(passed[0])]
    for via, node in zip(row["vias"], passed[1:], strict=True):
        line += [part for part in (VIAS.get(via, via), _short(node)) if part]
    return {
        "path_id": row["path_id"],
        "line": line,
        "title": " → ".join(map(name, passed)),
        "weight": number(row["weight"]),
        "share": percent(row["share"]),
        "bar": f"{abs(row['weight']) / largest:.3f}",
        "tone": _tone(row["weight"]),
    }


def _short(node):
    """A node on a line: of a token or answer the string alone."""
    if node["own"] or node["kind"] not in ("embedding", "logit"):
        return label(node)
    return f"“{token_text(node['string'], limit=14)}”"


def _tone(weight):
    return "promotes" if weight >= 0 else "suppresses"


def steps(path_id, listed, routes, nodes):
    """The path that is drawn: each step with the ways that it takes, and their factors. routes: frame of named query path_routes; listed, nodes:
    of `view`."""
    if routes.is_empty():
        return [html.P(f"This graph has no path {path_id}.", className="quiet"), BACK]
    said = [
        f"Weight {number(row['weight'])}: place {row['rank']} of the paths to {name(nodes[row['target_id']])}, {percent(row['share'])} of their weights."
        for row in listed.filter(path_id=path_id).to_dicts()
    ]
    shown = [_step(step, routes.filter(step=step["step"]).to_dicts(), nodes) for step in _steps(routes).to_dicts()]
    return [html.H3("The path that is drawn"), html.P(said, className="quiet"), html.Ol(shown, className="path-steps"), BACK]


def _step(step, routes, nodes):
    ends = [
        link(nodes[step["source_id"]]),
        html.Span(f" {number(step['weight'])} → ", className=f"step {_tone(step['weight'])}"),
        link(nodes[step["target_id"]]),
    ]
    head = html.Tr([html.Th("through", scope="col"), *(html.Th(text, scope="col", title=hint) for text, hint in FACTORS.items())])
    first, rest = ([_route(row) for row in part] for part in (routes[:N_ROUTES], routes[N_ROUTES:]))
    table = html.Table([html.Thead(head), html.Tbody(first)], className="numbers")
    more = html.Details(
        [
            html.Summary(f"{len(rest)} more {'way' if len(rest) == 1 else 'ways'}"),
            html.Table(html.Tbody(rest), className="numbers"),
        ],
        className="more",
    )
    return html.Li([html.Div(ends), table, more if rest else None])


def _route(row):
    """One way of a step; the token is the one that its last head reads."""
    via = "residual stream" if row["via"] == "residual" else "all others" if row["via"] == "others" else row["via"]
    reads = html.Small(["reads ", html.Bdi(token_text(row["string"], limit=14))]) if row["source_position"] is not None else None
    factors = [html.Td(number(row[column])) for column in ("weight", "input_factor", "weight_factor")]
    return html.Tr([html.Th([via, reads], scope="row"), *factors])
