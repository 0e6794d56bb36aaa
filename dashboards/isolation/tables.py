"""Tables of isolation. Dash and the browser escape every string in them."""

from dash import html

from cltdb.database.display.words import number, percent, visible, with_interval
from dashboards.components import table
from dashboards.urls import feature_url

MEASURES = {
    "leakage, same layer": ("leakage_same", number),
    "leakage, later layers": ("leakage_later", number),
    "KL on unrelated prompts, nats": ("kl_nats", number),
    "decoder overlap": ("decoder_overlap", number),
    "old answer gone": ("drop", percent),
    "new answer there": ("include", percent),
}
"""{name: (column with its interval, how it is said)}."""


def dictionaries(rows, first):
    """All layers together, a row per dictionary. rows: dicts of isolation_by_layer with isolation_facts; first(row): its first cells."""
    return table(["dictionary", "swept", *MEASURES], [[*first(row), *_measures(row)] for row in rows])


def layers(rows):
    """Every layer and strength of one dictionary, all layers together first. rows: as above."""
    names = ["raised by", "layer", "features", *MEASURES, "own response", "largest change of another"]
    body = [
        [
            f"{number(row['multiple'])} ×",
            "all" if row["layer"] is None else row["layer"],
            number(row["n_features"]),
            *_measures(row),
            number(row["own_response"]),
            number(row["most_change"]),
        ]
        for row in rows
    ]
    return table(names, body)


def _measures(row):
    return [with_interval(row, column, said) for column, said in MEASURES.values()]


def loudest(rows):
    """Features that move most else, with the one that each disturbs most. rows: dicts of isolation_features of one dictionary."""
    names = ("feature", "explanation", "leakage", "overlap", "most disturbed", "by", "its explanation")
    body = [
        [
            _feature(row["dict_id"], row["layer"], row["feature"]),
            visible(row["text"] or "–"),
            number(row["leakage"]),
            number(row["decoder_overlap"]),
            "–" if row["most_feature"] is None else _feature(row["dict_id"], row["most_layer"], row["most_feature"]),
            number(row["most_change"]),
            visible(row["most_text"] or "–"),
        ]
        for row in rows
    ]
    return table(names, body)


def _feature(dict_id, layer, feature):
    return html.A(f"{layer}:{feature}", href=feature_url(dict_id, layer, feature))
