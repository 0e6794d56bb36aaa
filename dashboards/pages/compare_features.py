"""Two features side by side: what they share, and each with its numbers, tokens and contexts."""

import dash
from dash import dcc, html

from cltdb.database.display.words import number, token_text, visible
from dashboards import annotations, data
from dashboards.components import no_such_page, notice, score_badge
from dashboards.feature import figures
from dashboards.feature.contexts import contexts
from dashboards.feature.relations import token_effects
from dashboards.pages.feature import firings, heat_scale, statistics, title
from dashboards.urls import COMPARE_FEATURES, SEARCH, feature_url, index

dash.register_page(
    __name__, path_template=COMPARE_FEATURES, name="Compare features", title="Compare features · cltdb", under=SEARCH
)
QUERIES = ("feature_card", "feature_contexts", "feature_tokens", "nearest_features", "top_neighbours")
EFFECTS = {
    "fires on": "tokens",
    "promotes": "promoted",
    "suppresses": "suppressed",
    "driven by": "driven_by",
    "inhibited by": "inhibited_by",
}
MOST = 1000


def layout(a="", b="", **_):
    """The page of two features, each given as dictionary/layer/feature."""
    keys = [key_of(text) for text in (a, b)]
    if None in keys:
        return no_such_page()
    with data.session():
        found = [find(key) for key in keys]
        for key, one in zip(keys, found, strict=True):
            if one is None:
                return notice(
                    "There is no feature {layer}:{feature}".format(**key), f"No harvest of dictionary {key['dict_id']} holds it."
                )
        near = data.query("nearest_features", **keys[0], limit=MOST).to_dicts()
        edges = data.query("top_neighbours", **keys[0], limit=MOST).to_dicts()
    return view(found, near, edges)


def key_of(text):
    """{dict_id, layer, feature} of dictionary/layer/feature; None for another text."""
    dict_id, layer, feature = (["", "", *text.rsplit("/", 2)])[-3:]
    layer, feature = index(layer), index(feature)
    return None if not dict_id or layer is None or feature is None else {"dict_id": dict_id, "layer": layer, "feature": feature}


def find(key):
    """The card of a feature with its contexts and the tokens it fires on; None where there is none."""
    card = data.query("feature_card", **key)
    if card.is_empty():
        return None
    tokens = data.query("feature_tokens", **key).to_dicts()
    own = annotations.labels_of(key["dict_id"]).get((key["layer"], key["feature"]))
    return {
        "card": card.to_dicts()[0] | {"tokens": tokens, "own": own},
        "contexts": data.query("feature_contexts", **key).to_dicts(),
    }


def view(found, near, edges):
    """Both features. near, edges: rows of nearest_features and top_neighbours of the first."""
    return html.Main(
        [
            html.H1("Two features"),
            html.Div([header(one["card"]) for one in found], className="pair"),
            html.H2("What they share"),
            html.Dl(
                [part for name, said in shared(found, near, edges) for part in (html.Dt(name), html.Dd(said))],
                className="shared",
            ),
            html.Div([half(one) for one in found], className="pair"),
        ],
        className="feature compared",
    )


def header(card):
    """Which feature it is and what it means."""
    name = f"{card['dict_id']} · {card['layer']}:{card['feature']}"
    link = dcc.Link(name, href=feature_url(card["dict_id"], card["layer"], card["feature"]))
    own = html.P(["own: ", html.Bdi(visible(card["own"]))]) if card["own"] else None
    return html.Header([html.P(link, className="crumbs"), own, html.H2([html.Bdi(title(card)), " ", score_badge(card["score"])])])


def half(one):
    """The numbers, tokens and contexts of one of them."""
    card = one["card"]
    return html.Section(
        [
            statistics(card),
            html.Figure(
                [
                    html.Figcaption(f"Activation, on the {firings(card)}tokens on which it fires"),
                    figures.activation_histogram(card),
                ]
            ),
            html.Figure([html.Figcaption("Logits, the strongest of its effects"), figures.logit_extremes(card)]),
            html.H3("Reads"),
            token_effects(card, "driven_by", "inhibited_by", nothing="No tokens recorded that drive it."),
            html.H3("Writes"),
            token_effects(card, "promoted", "suppressed", nothing="No logit effects recorded."),
            html.H3("Contexts"),
            contexts(one["contexts"], scale=heat_scale(card, one["contexts"]))
            if one["contexts"]
            else html.P("No windows.", className="quiet"),
        ],
        **{"aria-label": f"feature {card['layer']}:{card['feature']}"},
    )


def shared(found, near, edges):
    """[(what, what there is of it)]."""
    first, second = (one["card"] for one in found)
    same_dictionary = first["dict_id"] == second["dict_id"]
    rows = []
    if same_dictionary and first["layer"] == second["layer"]:
        cosine = next((row["cosine"] for row in near if row["neighbour"] == second["feature"]), None)
        less = (
            f"less than {number(min((row['cosine'] for row in near), default=None))}: not among those most like it"
            if near
            else "not stored"
        )
        rows.append(("cosine of the decoders", less if cosine is None else number(cosine)))
    if same_dictionary and first["layer"] != second["layer"]:
        edge = next((row for row in edges if (row["layer"], row["feature"]) == (second["layer"], second["feature"])), None)
        rows.append(("edge between them", edge_text(edge)))
    places = [{(row["sequence"], row["position"]) for row in one["contexts"]} for one in found]
    if same_dictionary:
        said = f"{number(len(places[0] & places[1]))} of {number(len(places[0]))} and {number(len(places[1]))} windows"
        rows.append(("peaks at the same places", said))
    for name, column in EFFECTS.items():
        common = [
            one["string"] for one in first[column] or [] if one["string"] in {other["string"] for other in second[column] or []}
        ]
        said = " · ".join(token_text(string) for string in common)
        rows.append((name, html.Bdi(said) if said else "none"))
    return rows


def edge_text(row):
    """A row of top_neighbours in words; None: none is stored."""
    if row is None:
        return "none stored"
    way = "the second writes to the first" if row["direction"] == "from" else "the first writes to the second"
    return f"{way}, TWERA {number(row['twera'])}, virtual weight {number(row['virtual_weight'])}"
