"""One feature: what it means and how well that is known, how strongly it fires and where, what it reads and writes, where it takes part."""

import dash
from dash import dcc, html

from cltdb.database.display.words import is_number, number, percent, visible
from cltdb.database.one_feature import facts
from dashboards import annotations, data, jobs
from dashboards.components import SUBJECT, no_such_page, notice, score_badge, stat, stats
from dashboards.drawn import plain
from dashboards.feature import figures, judged, steering
from dashboards.feature.contexts import contexts
from dashboards.feature.explanations import explanations
from dashboards.feature.neighbours import neighbourhood
from dashboards.feature.relations import connections, graphs, interventions, isolation, label_shares, token_effects
from dashboards.feature.tried import form
from dashboards.own import own, with_own_labels
from dashboards.urls import SEARCH, ask_url, feature_json_url, feature_url, index, random_url, search_url, sql_url

dash.register_page(
    __name__,
    path_template="/feature/<dict_id>/<layer>/<feature>",
    name="Feature",
    title=lambda layer="", feature="", **_: f"Feature {layer}:{feature} · cltdb",
    under=SEARCH,
)
QUERIES = ()
"""What it shows named queries say too (`cltdb.database.one_feature`)."""
NEIGHBOURS = "feature-neighbours"

N_NEIGHBOURS = 8


def layout(dict_id=None, layer=None, feature=None, **_):
    """The page of one feature."""
    layer, feature = index(layer), index(feature)
    if layer is None or feature is None:
        return no_such_page()
    found = find(dict_id=dict_id, layer=layer, feature=feature)
    if found.card is None:
        do = f'No harvest of dictionary {dict_id} holds it. Look it up with `cltdb sql "FROM features"` or on the page Features.'
        return notice(f"There is no feature {layer}:{feature}", do)
    return view(found)


def find(**key):
    """All that the page shows of the feature (dict_id, layer, feature), with users' own labels: `Facts`."""
    with data.session(threads=1):
        own_labels = annotations.labels_of(key["dict_id"])
        found = facts(data.asked(), **key, n_neighbours=N_NEIGHBOURS)
    most = {"layer": "most_layer", "feature": "most_feature", "text": "most_text"}
    return found._replace(
        connected=with_own_labels(found.connected, own_labels),
        similar=with_own_labels([{"layer": key["layer"], **row} for row in found.similar], own_labels, feature="neighbour"),
        isolation=with_own_labels(found.isolation, own_labels, **most),
    )


def view(found):
    """A feature that was found."""
    card = found.card
    return html.Main(
        [
            plain(header(card)),
            html.Div(
                [html.Div(main(card, found), className="main"), plain(html.Aside(beside(card, found)))], className="columns"
            ),
            taking_part(card, found),
            *circuit(card, found),
        ],
        className="feature",
        **{SUBJECT: f"Feature {card['layer']}:{card['feature']}"},
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
                    dcc.Link("next ›", href=feature_url(dict_id, layer, feature + 1))
                    if feature + 1 < (card["n_features"] or 0)
                    else None,
                    " ",
                    html.A("random", href=random_url(dict_id), title="a live feature of this dictionary that chance chooses"),
                ],
                className="crumbs",
            ),
            own(dict_id=dict_id, layer=layer, feature=feature),
            html.H1([html.Bdi(title(card)), " ", score_badge(card["score"])]),
            html.P(
                [
                    f"explained by {card['explainer']} · " if card["explainer"] else None,
                    dcc.Link("explain it anew" if card["explainer"] else "explain it", href=explain_url(card)),
                    " · ",
                    html.A("JSON", href=feature_json_url(dict_id, layer, feature), title="the feature as a file"),
                ],
                className="quiet",
            ),
        ]
    )


def explain_url(card):
    """Address at which explanations of this feature alone are asked for."""
    return ask_url(form="explain", dict_id=card["dict_id"], where=f"layer = {card['layer']} AND feature = {card['feature']}")


def title(card):
    """Its best explanation, or why it has none."""
    return visible(card["text"] or ("A dead feature" if card["dead"] else "Not explained"))


def main(card, found):
    """How strongly it fires, what is said of it, and where it fires."""
    known = [
        html.Div(
            [
                _figure(f"Activation, on the {firings(card)}tokens on which it fires", figures.activation_histogram(card)),
                _figure("Logits, the strongest of its effects", figures.logit_extremes(card)),
            ],
            className="pair figures",
        ),
        html.H2("Explanations"),
        explanations(found.explanations),
    ]
    where = [
        html.H2("Contexts"),
        contexts(found.contexts, scale=heat_scale(card, found.contexts))
        if found.contexts
        else html.P("No windows: it never fired during the harvest.", className="quiet"),
        html.H2("Try a text"),
    ]
    scale, key = heat_scale(card, found.contexts), key_of(card)
    return [
        plain(html.Div(known)),
        judged.panel(key, scale=scale) if any(row["scorer"] for row in found.explanations) else None,
        plain(html.Div(where)),
        form(key, scale=scale, here=jobs.here()),
        html.H2("Steer"),
        steering.panel(key, strongest=scale, windows=found.contexts, bos=found.bos),
    ]


def firings(card):
    """On how many tokens of the harvest it fires, as text before `tokens`; "" where that is not known."""
    n = sum(one["n"] for one in card["histogram"] or [])
    return f"{number(n)} " if n else ""


def key_of(card):
    """Which feature it is, as parameters of queries."""
    return {name: card[name] for name in ("dict_id", "layer", "feature")}


def heat_scale(card, windows):
    """The activation of full heat: the feature's maximum, or that of its windows where it is not known."""
    peaks = [value for value in (card["max_activation"], *(row["max_activation"] for row in windows)) if is_number(value)]
    return card["max_activation"] if is_number(card["max_activation"]) else max(peaks, default=0.0)


def beside(card, found):
    """Its numbers, the labels it fires on, the tokens it reads and writes."""
    given = {f"p.{name}": value for name, value in key_of(card).items()}
    return [
        statistics(card),
        html.P(dcc.Link("all its numbers as a table or file", href=sql_url(query="feature_card", **given)), className="quiet"),
        *label_shares(found.labels),
        html.H2("Reads"),
        token_effects(card, "driven_by", "inhibited_by", nothing="No tokens recorded that drive it."),
        html.H2("Writes"),
        token_effects(card, "promoted", "suppressed", nothing="No logit effects recorded."),
        _figure("Decoder norm per target layer", figures.decoder_profile(card["decoder_norms"], layer=card["layer"])),
        *isolation(found.isolation, dict_id=card["dict_id"]),
    ]


def taking_part(card, found):
    """The graphs that hold it and the interventions on it."""
    lists = [
        html.Section([html.H2("In graphs"), *graphs(found.graphs, n=found.n_graphs, key=key_of(card))]),
        html.Section(
            [html.H2("Interventions on it"), *interventions(found.interventions, n=found.n_interventions, key=key_of(card))]
        ),
    ]
    return plain(html.Div(lists, className="taking-part"))


def circuit(card, found):
    """The features around it, as a drawing and as lists."""
    drawing = neighbourhood(card, found.connected, found.similar, id=NEIGHBOURS)
    said = "Whatever the input: layers from left to right, edges by TWERA, dashed where decoders are alike. A click goes to that feature."
    return [
        html.H2("Neighbours"),
        *([] if drawing is None else [html.P(said, className="quiet"), html.Div(drawing, className="scrolls neighbourhood")]),
        plain(connections(found.connected, found.similar, dict_id=card["dict_id"], layer=card["layer"])),
    ]


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


def _figure(caption, drawing):
    return html.Figure([html.Figcaption(caption), drawing])


judged.register()
steering.register()
