"""One feature: explanation and scores, statistics, contexts with heat per token, what it writes, where it takes part."""

from typing import NamedTuple

import dash
import polars as pl
from dash import dcc, html

from cltdb.database.display import figures
from cltdb.database.display.words import is_number, number, percent, token_text
from dashboards import data
from dashboards.components import no_such_page, notice, score_badge, stat, stats, window
from dashboards.urls import SEARCH, feature_url, graph_url, index, search_url

dash.register_page(
    __name__,
    path_template="/feature/<dict_id>/<layer>/<feature>",
    name="Feature",
    title=lambda layer="", feature="", **_: f"Feature {layer}:{feature} · cltdb",
    under=SEARCH,
)
QUERIES = ("feature_card", "feature_contexts", "page_explanations", "page_feature_graphs", "top_neighbours")
MAX_EFFECTS, N_NEIGHBOURS = 10, 8
EFFECT_TITLES = {"driven_by": "driven by", "inhibited_by": "inhibited by", "promoted": "promotes", "suppressed": "suppresses"}
STATUS_TEXT = {
    "failed": "the explainer failed",
    "skipped_budget": "skipped: the budget was spent",
    "too_few_contexts": "too few contexts to explain it",
}


class Found(NamedTuple):
    """What is known of one feature: `card` has one row or none."""

    card: pl.DataFrame
    contexts: pl.DataFrame
    explanations: pl.DataFrame
    graphs: pl.DataFrame
    neighbours: pl.DataFrame


def layout(dict_id=None, layer=None, feature=None, **_):
    """The page of one feature."""
    layer, feature = index(layer), index(feature)
    if layer is None or feature is None:
        return no_such_page()
    found = find(dict_id=dict_id, layer=layer, feature=feature)
    if found.card.is_empty():
        do = f'No harvest of dictionary {dict_id} holds it. Look it up with `cltdb sql "FROM features"` or on the page Features.'
        return notice(f"There is no feature {layer}:{feature}", do)
    return view(found)


def find(**key):
    """All that the page shows of the feature (dict_id, layer, feature)."""
    with data.session():
        return Found(
            card=data.query("feature_card", **key),
            contexts=data.query("feature_contexts", **key),
            explanations=data.query("page_explanations", **key),
            graphs=data.query("page_feature_graphs", **key),
            neighbours=data.query("top_neighbours", **key, limit=N_NEIGHBOURS),
        )


def view(found):
    """A feature that was found."""
    card = found.card.to_dicts()[0]
    return html.Main(
        [
            header(card),
            html.Div(
                [
                    html.Div([html.H2("Contexts"), *contexts(found.contexts, scale=card["max_activation"])], className="main"),
                    html.Aside(
                        [
                            statistics(card),
                            html.Figure(
                                [
                                    html.Figcaption("Activation on the tokens on which it fires"),
                                    dcc.Graph(
                                        figure=figures.activation_histogram(card),
                                        config=figures.GRAPH_CONFIG,
                                        style={"height": figures.LOW},
                                    ),
                                ]
                            ),
                            html.H2("Reads"),
                            token_effects(card, "driven_by", "inhibited_by", nothing="No tokens recorded that drive it."),
                            html.H2("Writes"),
                            token_effects(card, "promoted", "suppressed", nothing="No logit effects recorded."),
                            html.Figure(
                                [
                                    html.Figcaption("Decoder norm per target layer"),
                                    dcc.Graph(
                                        figure=figures.decoder_profile(card["decoder_norms"], layer=card["layer"]),
                                        config=figures.GRAPH_CONFIG,
                                        style={"height": figures.LOW},
                                    ),
                                ]
                            ),
                            html.H2("Explanations"),
                            *explanations(found.explanations),
                            html.H2("Circuit"),
                            circuit(found.neighbours, dict_id=card["dict_id"]),
                            html.H2("In graphs"),
                            graphs(found.graphs),
                        ]
                    ),
                ],
                className="columns",
            ),
        ],
        className="feature",
    )


def header(card):
    """Which feature it is and what it means."""
    layer, feature, dict_id = card["layer"], card["feature"], card["dict_id"]
    return html.Header(
        [
            html.P(
                [
                    dcc.Link(dict_id, href=search_url(dict_id=dict_id)),
                    f" · layer {layer} · feature {feature} ",
                    dcc.Link("‹ previous", href=feature_url(dict_id, layer, feature - 1)) if feature else None,
                    " ",
                    dcc.Link("next ›", href=feature_url(dict_id, layer, feature + 1)),
                ],
                className="crumbs",
            ),
            html.H1([card["text"] or ("A dead feature" if card["dead"] else "Not explained"), " ", score_badge(card["score"])]),
            html.P(f"explained by {card['explainer']}", className="quiet") if card["explainer"] else None,
        ]
    )


def statistics(card):
    """What the harvest measured."""
    return stats(
        stat("density", percent(card["density"]), hint="share of tokens on which it fires"),
        stat("max activation", number(card["max_activation"])),
        stat("mean activation", number(card["mean_activation"]), hint="over tokens on which it fires"),
        stat("deviation", number(card["std_activation"]), hint="standard deviation over the same tokens"),
        stat("contexts", number(card["n_contexts"]), hint="windows of the harvest, each place once"),
        stat("documents", number(card["n_documents"]), hint="that the windows come from"),
        stat("threshold", number(card["threshold"]), hint="JumpReLU threshold"),
        stat("encoder norm", number(card["encoder_norm"])),
    )


def contexts(windows, *, scale):
    """Windows by band, the top band open. `scale`: activation of full heat."""
    if windows.is_empty():
        return [html.P("No windows: it never fired during the harvest.", className="quiet")]
    if not is_number(scale) or scale <= 0:
        scale = max((value for value in windows["max_activation"] if is_number(value)), default=0.0)
    bands = []
    for (band,), rows in windows.group_by("band", maintain_order=True):
        rows = rows.to_dicts()
        name = "strongest" if band == "top" else f"quantile band {band}"
        peaks = [row["max_activation"] for row in rows if is_number(row["max_activation"])]
        reach = f"{len(rows)} windows, peaks {number(min(peaks, default=None))} to {number(max(peaks, default=None))}"
        bands.append(
            html.Details(
                [
                    html.Summary([name, html.Small(reach)]),
                    html.Ol([_window(row, scale=scale) for row in rows], className="windows"),
                ],
                open=band == "top" or not bands,
            )
        )
    return bands


def _window(row, *, scale):
    where = f"document {row['document']} · sequence {row['sequence']} · position {row['position']}"
    label = html.Span(row["label"], className="tag") if row["label"] else None
    return html.Li(
        [html.Span([number(row["max_activation"]), label], className="peak-value", title=where), window(row, scale=scale)]
    )


def token_effects(card, positive, negative, *, nothing):
    """The tokens of two columns of the card side by side, those of `positive` first."""
    raising, lowering = (card[positive] or [])[:MAX_EFFECTS], (card[negative] or [])[:MAX_EFFECTS]
    if not raising and not lowering:
        return html.P(nothing, className="quiet")
    scale = max((abs(effect["value"]) for effect in raising + lowering if is_number(effect["value"])), default=0.0)
    return html.Div(
        [
            html.Div([html.H3(EFFECT_TITLES[positive]), _effects(raising, scale, "promotes")]),
            html.Div([html.H3(EFFECT_TITLES[negative]), _effects(lowering, scale, "suppresses")]),
        ],
        className="pair effects",
    )


def _effects(effects, scale, tone):
    return html.Ol(
        [
            html.Li(
                [
                    html.Span(token_text(effect["string"]), className="token"),
                    html.Span(number(effect["value"]), className="value"),
                ],
                style={"--share": f"{abs(effect['value']) / scale:.3f}" if is_number(effect["value"]) and scale else "0"},
                title=f"token {effect['token']}",
            )
            for effect in effects
        ],
        className=f"effect-list {tone}",
    )


def explanations(rows):
    """Every explanation with its scores; baselines marked as such."""
    if rows.is_empty():
        return [
            html.P(
                ["Not explained. Raise ", html.Code("explain.features.limit"), " in the spec and run it again."],
                className="quiet",
            )
        ]
    blocks = []
    for (side, explainer), scored in rows.group_by("side", "explainer", maintain_order=True):
        scored = scored.to_dicts()
        is_baseline = explainer.startswith("baseline:")
        first = scored[0]
        text = first["text"] or STATUS_TEXT.get(first["status"], first["status"])
        blocks.append(
            html.Article(
                [
                    html.P(text),
                    html.P([html.Span(explainer, className="tag"), f" {side} side", f" · {first['model']}" if first["model"] else ""],
                           className="quiet"),
                    html.P(first["error"], className="error") if first["error"] else None,
                    html.Ul([_score(row) for row in scored if row["scorer"]], className="scores"),
                ],
                className="explanation baseline" if is_baseline else "explanation",
            )
        )  # fmt: skip
    return blocks


def _score(row):
    interval = f"{number(row['ci_low'])} to {number(row['ci_high'])}, " if is_number(row["ci_low"]) else ""
    failed = f", {row['n_failed']} failed" if row["n_failed"] else ""
    judge = ", judged by its words" if row["judge"] == "words" else ""
    told = html.Small(f"{interval}n {number(row['n'])}{failed}{judge}")
    return html.Li([html.Span(row["scorer"]), score_badge(row["score"]) or "–", told])


def circuit(rows, *, dict_id):
    """The features it is most strongly connected to whatever the input, before and after it."""
    if rows.is_empty():
        return html.P("No edges to features of other layers.", className="quiet")
    return html.Div(
        [
            html.Div(
                [
                    html.H3(direction),
                    html.Ol([_neighbour(row, dict_id=dict_id) for row in ends.to_dicts()], className="plain"),
                ]
            )
            for (direction,), ends in rows.group_by("direction", maintain_order=True)
        ],
        className="effects",
    )


def _neighbour(row, *, dict_id):
    layer, feature = row["layer"], row["feature"]
    measured = f"{layer}:{feature}, TWERA {number(row['twera'])}, virtual weight {number(row['virtual_weight'])}"
    return html.Li(
        [dcc.Link(row["text"] or "Not explained", href=feature_url(dict_id, layer, feature)), " ", html.Small(measured)]
    )


def graphs(rows):
    """The graphs it is a node of."""
    if rows.is_empty():
        return html.P("In no graph so far.", className="quiet")
    return html.Ul(
        [
            html.Li(
                [
                    dcc.Link(row["prompt"] or row["graph_id"], href=graph_url(row["graph_id"])),
                    html.Small(
                        f"position {row['position']}, influence {number(row['influence'])}{'' if row['kept'] else ', pruned'}"
                    ),
                ]
            )
            for row in rows.to_dicts()
        ],
        className="plain",
    )
