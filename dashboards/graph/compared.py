"""What the page Compare shows of two graphs: pure functions of rows and frames. A graph is its row of named query graph_list, with its
`name` (`components.named_by_prompt`)."""

import polars as pl
from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, token_text, visible
from dashboards.graph.names import name
from dashboards.own import with_own_labels
from dashboards.urls import feature_url, graph_url

N_FEATURES, MAX_TEXT_CHARS, MAX_PROMPT_CHARS = 40, 90, 60
MEASURES = {
    "replacement_score": ("replacement", "share of the influence that enters at tokens rather than errors"),
    "completeness_score": ("completeness", "share of the nodes' input that is not error"),
    "pruned_replacement_score": ("replacement, pruned", "at the thresholds of the spec"),
    "pruned_completeness_score": ("completeness, pruned", "at the thresholds of the spec"),
    "error_share": ("error's share", "share of the influence that errors have"),
    "mean_path_length": ("path length", "mean number of edges from a token to the answer, weighted by influence"),
    "ablation_spearman": ("ablations", "Spearman correlation of influence with the measured effect of ablation"),
    "n_nodes": ("nodes", None),
    "n_edges": ("edges", None),
}
"""{column of graph_list: (name, what it is)}."""
OF_A_PAIR = {
    "replacement_error": (
        "effects missed, replacement",
        "mean |measured - predicted| of ablations in the replacement model, divided by mean |measured|",
    ),
    "model_error": ("effects missed, model", "the same, measured in the model"),
    "model_spearman": ("ranks of effects, model", "rank correlation of influence with the effects measured in the model"),
}
"""{column of compare_graphs: (name, what it is)}, of two dictionaries on one prompt."""


def title(graph):
    """The prompt of a graph and its answer."""
    return f"{graph['name']} → {token_text(graph['top_logit'])}"


def scores(first, second, pair):
    """Scores side by side. pair: row of compare_graphs, where there is one."""
    rows = [("answer", None, *(f"{token_text(one['top_logit'])} {percent(one['top_probability'])}" for one in (first, second)))]
    rows += [(label, hint, number(first[column]), number(second[column])) for column, (label, hint) in MEASURES.items()]
    if pair:
        rows += [
            (label, hint, number(pair[column]), number(pair[f"other_{column}"])) for column, (label, hint) in OF_A_PAIR.items()
        ]
    heads = [html.Th(dcc.Link(html.Bdi(title(one)), href=graph_url(one["graph_id"])), scope="col") for one in (first, second)]
    body = [
        html.Tr([html.Th(label, scope="row", title=hint), html.Td(left), html.Td(right)]) for label, hint, left, right in rows
    ]
    return html.Table([html.Thead(html.Tr([html.Td(), *heads])), html.Tbody(body)], className="numbers pair-of-graphs")


def features(frame, first, second, *, own_labels):
    """The features of either graph: those of both, and those of one alone. frame: of named query graph_features_compared; own_labels: of
    `annotations.labels_of` their dictionary."""
    both = frame.filter(pl.col("kept") & pl.col("other_kept"))
    left, right = frame.filter(~pl.col("other_kept")), frame.filter(~pl.col("kept"))
    largest = max([value for name in ("influence", "other_influence") for value in frame[name] if is_number(value)], default=0.0)
    parts = {f"{number(both.height)} in both": both, f"{number(left.height)} in the first alone": left}
    parts[f"{number(right.height)} in the second alone"] = right
    return [
        html.Details(
            [html.Summary(label), _features(rows, first, second, largest, own_labels)],
            open=i == 0 or both.is_empty(),
            className="compared",
        )
        for i, (label, rows) in enumerate(parts.items())
    ]


def _features(rows, first, second, largest, own_labels):
    if rows.is_empty():
        return html.P("none", className="quiet")
    heads = ("feature", "influence in the first", "in the second")
    shown = with_own_labels(rows.head(N_FEATURES).to_dicts(), own_labels)
    body = [_feature(row, first, second, largest) for row in shown]
    more = f"and {number(rows.height - N_FEATURES)} more" if rows.height > N_FEATURES else None
    table = html.Table(
        [html.Thead(html.Tr([html.Th(text, scope="col") for text in heads])), html.Tbody(body)],
        className="numbers compared-features",
    )
    return html.Div([table, html.P(more, className="quiet") if more else None])


def _feature(row, first, second, largest):
    text = visible(row["text"] or "not explained")
    short = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
    page = feature_url(first["dict_id"], row["layer"], row["feature"])
    return html.Tr(
        [
            html.Th(
                [dcc.Link(f"{row['layer']}:{row['feature']}", href=page, className="feature-link"), f" {short}"],
                scope="row",
                title=text,
            ),
            _influence(first, row["influence"], row["node_id"], row["kept"], row["positions"], largest),
            _influence(second, row["other_influence"], row["other_node_id"], row["other_kept"], row["other_positions"], largest),
        ]
    )


def _influence(graph, influence, node_id, kept, positions, largest):
    """The influence of a feature in a graph, as a link that selects its node there."""
    if node_id is None:
        return html.Td("silent", className="quiet")
    share = influence / largest if is_number(influence) and largest else 0.0
    at = f"at position{'s' * (len(positions) > 1)} {', '.join(map(str, positions))}"
    link = dcc.Link(number(influence), href=graph_url(graph["graph_id"], sel=node_id))
    return html.Td([link, "" if kept else " pruned"], className="cell promotes", style={"--share": f"{share:.3f}"}, title=at)


def paths(graph, found, nodes):
    """The strongest paths of a graph, each step a link that selects its node there. found: of `stored_graph.strongest_paths`; nodes: of
    `names.named`."""
    items = []
    for influence, _, node_ids in found:
        steps = [dcc.Link(html.Bdi(name(nodes[i])), href=graph_url(graph["graph_id"], sel=i)) for i in node_ids]
        arrows = [piece for step in steps for piece in (" → ", step)][1:]
        items.append(html.Li([html.Span(percent(influence), className="value"), html.Span(arrows)]))
    return html.Div([html.H3(html.Bdi(title(graph))), html.Ol(items, className="paths")])


def sources(frame, first, second):
    """From which token the likeliest answer's value comes, in two graphs of one prompt. frame: of named query compare_paths."""
    if frame.is_empty():
        return None
    token = frame["token"].value_counts().sort("count", "token")["token"][-1] if first["top_logit"] is None else None
    rows = frame.filter(pl.col("logit") == first["top_logit"]) if token is None else frame.filter(pl.col("token") == token)
    rows = rows.sort("kind", "position")
    largest = max(
        [abs(value) for name in ("influence", "other_influence") for value in rows[name] if is_number(value)], default=0.0
    )
    body = [
        html.Tr(
            [
                html.Th([row["kind"], " ", html.Bdi(token_text(row["string"])), f" @ {row['position']}"], scope="row"),
                *(_share_of(row[name], largest) for name in ("influence", "other_influence")),
            ]
        )
        for row in rows.to_dicts()
    ]
    heads = html.Tr(
        [html.Th(text, scope="col") for text in ("enters at", f"share in {first['dict_id']}", f"in {second['dict_id']}")]
    )
    return html.Table([html.Thead(heads), html.Tbody(body)], className="numbers")


def _share_of(value, largest):
    return html.Td(percent(value), className="cell promotes", style={"--share": f"{value / largest if largest else 0:.3f}"})
