"""How far a graph, what is shown of it and what is pinned account for the model's answer."""

import numpy as np
import polars as pl
from dash import html

from cltdb.database.display.words import number, percent
from cltdb.graphs.stored_graph import part_scores
from dashboards.components import stat, stats
from dashboards.drawn import plain

HINTS = {
    "replacement": "share of the influence that enters at tokens rather than at errors",
    "completeness": "share of the nodes' input that is not error",
    "shown": "of what is shown: all that is pruned away or hidden counts as error",
    "pinned": "of tokens, answers and pinned nodes alone: all else counts as error",
}


def summary(row):
    """The scores of a whole graph, a row of named query graph_list: three, and the others on request."""
    shown = html.Div(
        [
            stats(
                stat("answer", f"{row['top_logit'] or '?'} {percent(row['top_probability'])}"),
                stat("replacement", number(row["replacement_score"]), hint=HINTS["replacement"]),
                stat("completeness", number(row["completeness_score"]), hint=HINTS["completeness"]),
            ),
            html.Details(
                [
                    html.Summary("more"),
                    stats(
                        stat(
                            "replacement, pruned", number(row["pruned_replacement_score"]), hint="at the thresholds of the spec"
                        ),
                        stat(
                            "completeness, pruned", number(row["pruned_completeness_score"]), hint="at the thresholds of the spec"
                        ),
                        stat(
                            "path length",
                            number(row["mean_path_length"]),
                            hint="mean number of edges from a token to the answer, weighted by influence",
                        ),
                        stat(
                            "ablations",
                            number(row["ablation_spearman"]),
                            hint="Spearman correlation of influence with the measured effect of ablation, "
                            f"{row['n_ablations'] or 0} features",
                        ),
                        stat("nodes", number(row["n_nodes"])),
                        stat("edges", number(row["n_edges"])),
                        stat(
                            "largest error",
                            number(row["max_abs_error"]),
                            hint="largest difference between an identity's two sides",
                        ),
                    ),
                ],
                className="more",
            ),
        ],
        className="graph-summary",
    )
    return plain(shown)


def of_shown(graph, kept, *, hidden):
    """`pruning.Scores` of what the page shows: the kept edges (frame of `stored_graph.Subgraph`) but for those of hidden nodes."""
    gone = list(hidden)
    shown = kept.edges.filter(~pl.col("source_id").is_in(gone), ~pl.col("target_id").is_in(gone))
    return _of(graph, shown)


def of_pinned(graph, *, pinned):
    """`pruning.Scores` of the pinned nodes with all tokens and answers, and of all edges between these."""
    nodes = graph.nodes.filter(pl.col("node_id").is_in(list(pinned)) | pl.col("kind").is_in(["embedding", "logit"]))["node_id"]
    return _of(graph, graph.edges_between(nodes.to_numpy()))


def _of(graph, edges):
    return part_scores(graph.nodes_beside(edges), edges, np.ones(edges.height, bool))


def line(name, scores):
    """One line of scores, for what is shown or what is pinned."""
    return html.Span(
        f"{name}: replacement {number(scores.replacement)}, completeness {number(scores.completeness)}", title=HINTS[name]
    )
