"""Starred features of all dictionaries: what is in the lists, and the table of it. Pure functions of states and frames."""

from typing import NamedTuple

from dash import dcc, html

from cltdb.database.display.words import number, percent, visible
from dashboards.components import score_badge
from dashboards.urls import feature_url

MAX_ROWS = 500


class Starred(NamedTuple):
    """A feature with the names of the lists that it is in, when it was starred last and by whom; `label`, `note`: a user's own, or ""."""

    dict_id: str
    layer: int
    feature: int
    lists: tuple
    at: str
    author: str
    label: str
    note: str


def starred(states):
    """The `Starred` features, those that were starred last first. states: {dict_id: `FeaturesState`}."""
    found = []
    for dict_id, state in states.items():
        lists = {}
        for one in state.lists:
            for place in one.members:
                lists.setdefault(place, []).append(one)
        for place, its in lists.items():
            star = max((state.stars[one.id, place] for one in its), key=lambda text: text.at)
            label, note = (texts[place].text if place in texts else "" for texts in (state.labels, state.notes))
            found.append(Starred(dict_id, *place, tuple(one.name for one in its), star.at, star.author, label, note))
    return sorted(found, key=lambda one: (one.at, one.dict_id, one.layer, one.feature), reverse=True)


def chosen(found, name, dict_id):
    """Those in the list `name` and of the dictionary; of all lists and dictionaries where these are None."""
    return [one for one in found if (name is None or name in one.lists) and (dict_id is None or dict_id == one.dict_id)]


def table(found, known):
    """The table of `Starred` features. known: rows of named query some_features."""
    rows = {(row["dict_id"], row["layer"], row["feature"]): row for row in known}
    names = ("feature", "what it is about", "score", "density", "lists", "dictionary", "starred (UTC)")
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in names]))
    body = [_row(one, rows.get((one.dict_id, one.layer, one.feature), {})) for one in found[:MAX_ROWS]]
    more = (
        f"and {number(len(found) - MAX_ROWS)} more: cltdb sql --query annotation_list -p kind=star"
        if len(found) > MAX_ROWS
        else None
    )
    return html.Div(
        [html.Table([head, html.Tbody(body)], className="numbers starred"), html.P(more, className="quiet")],
        className="scrolls",
        tabIndex=0,
    )


def _row(one, row):
    url = feature_url(one.dict_id, one.layer, one.feature)
    said = [html.B(html.Bdi(visible(one.label))), " "] if one.label else []
    said.append(html.Bdi(visible(row.get("text") or "not explained")))
    if one.note:
        said.append(html.Small(html.Bdi(visible(one.note)), className="note"))
    return html.Tr(
        [
            html.Th(dcc.Link(f"{one.layer}:{one.feature}", href=url, className="feature-link"), scope="row"),
            html.Td(said, className="about"),
            html.Td(score_badge(row.get("score"))),
            html.Td(percent(row.get("density"))),
            html.Td(html.Bdi(visible(", ".join(one.lists)))),
            html.Td(one.dict_id, title=one.dict_id),
            html.Td(one.at[:16].replace("T", " "), title=f"by {visible(one.author)}"),
        ]
    )
