"""Matches: which features of two dictionaries are the same, layer by layer, beside what chance reaches; what appeared, vanished, split and merged."""

import dash
from dash import dcc, html

from cltdb.database.display.words import number, percent, visible, with_interval
from dashboards import annotations, data
from dashboards.components import not_here, notice, table
from dashboards.drawn import plain
from dashboards.own import with_own_labels
from dashboards.urls import MATCHES, feature_url, matches_url, sql_url

dash.register_page(__name__, path=MATCHES, name="Matches", title="Matches · cltdb", order=3.6)
QUERIES = ("match_changes", "match_shares", "match_splits")

MOST = 20
MAKE_ONE = "`cltdb match DICT DICT` compares two dictionaries, and `match: {}` in a spec with a sweep every point with the first. docs/comparing.md says how."
COUNTS = ("split", "merged", "appeared", "vanished")
BY = {"decoder": "by the cosine of their decoders", "activations": "by the correlation of their activations"}


def layout(dict_a=None, dict_b=None, **_):
    """The pairs of dictionaries that were compared, and one of them at length: the one that the address names, or the first."""
    with data.session():
        known = data.query("match_shares").to_dicts()
        if not known:
            return notice("No dictionaries were compared yet", MAKE_ONE)
        pairs = list(dict.fromkeys((row["dict_a"], row["dict_b"]) for row in known))
        pair = (dict_a, dict_b) if (dict_a, dict_b) in pairs else pairs[0]
        asked = " · ".join(filter(None, (dict_a, dict_b)))
        unknown = not_here("comparison of", asked, [" · ".join(one) for one in pairs])
        return view(pair, [row for row in known if row["layer"] is None], [row for row in known if _pair(row) == pair], unknown)


def _pair(row):
    return row["dict_a"], row["dict_b"]


def view(pair, pooled, rows, unknown=None):
    """The whole page, within a session. pooled: dicts of match_shares of all pairs, of all layers together; rows: those of this pair, of each layer too;
    unknown: what there is to say of the address."""
    chance = "By chance: the first dictionary rotated at random, or its activations at other tokens. Shares are of the first one's features, with"
    how = f"Features of {visible(pair[0])} assigned one to one to those of {visible(pair[1])}, {BY[rows[0]['matched_by']]}."
    whole = sql_url(query="match_changes", **{"p.dict_a": pair[0], "p.dict_b": pair[1]})
    return html.Main(
        [
            html.H1("Matches"),
            unknown,
            html.P(f"{chance} their 95 % interval over features.", className="quiet"),
            plain(shares(pooled, "dictionaries", lambda row: _link(row, is_here=_pair(row) == pair))),
            html.H2("By layer"),
            html.P(how, className="quiet"),
            plain(shares(rows, "layer", lambda row: "all" if row["layer"] is None else row["layer"])),
            html.H2("What appeared and what vanished"),
            plain(html.Div([changes(*pair, relation) for relation in ("appeared", "vanished")], className="pair")),
            html.P(dcc.Link("All of them", href=whole)),
            html.H2("What was split, and what merged"),
            plain(html.Div([splits(*pair, relation) for relation in ("split", "merged")])),
        ],
        className="matches",
    )


def _link(row, *, is_here):
    name = " · ".join(map(visible, _pair(row)))
    if is_here:
        return html.Strong(name, className="whole-name")
    return html.A(name, href=matches_url(dict_a=row["dict_a"], dict_b=row["dict_b"]), className="whole-name")


def shares(rows, name, first):
    """Matched shares, a row each. name, first(row): the head and cells of the first column."""
    names = (name, "above 0.7", "by chance", "above 0.9", "by chance", "highest, mean", "by chance", *COUNTS)
    body = [
        [
            first(row),
            with_interval(row, "share", percent),
            percent(row["by_chance"]),
            with_interval(row, "share_strict", percent),
            percent(row["by_chance_strict"]),
            number(row["highest"]),
            number(row["highest_by_chance"]),
            *(number(row[f"n_{name}"] or 0) for name in COUNTS),
        ]
        for row in rows
    ]
    return table(names, body)


def changes(dict_a, dict_b, relation):
    """The densest features of one dictionary that the other has not."""
    alone = dict_b if relation == "appeared" else dict_a
    rows = data.query("match_changes", dict_a=dict_a, dict_b=dict_b, relation=relation, limit=MOST).to_dicts()
    rows = with_own_labels(rows, annotations.labels_of(alone))
    said = f"Features that {relation}, {visible(alone)} alone has them; the densest {MOST} at most."
    names = ("feature", "density", "highest similarity", "explanation")
    body = [
        [
            _feature(row["dict_id"], row["layer"], row["feature"]),
            number(row["density"]),
            number(row["nearest"]),
            visible(row["text"] or "–"),
        ]
        for row in rows
    ]
    return html.Section(
        [
            html.H3(f"{relation.capitalize()}"),
            html.P(said if rows else "None.", className="quiet"),
            *([table(names, body)] if rows else []),
        ]
    )


def splits(dict_a, dict_b, relation):
    """Features that are several in the other dictionary, each with these."""
    rows = data.query("match_splits", dict_a=dict_a, dict_b=dict_b, relation=relation, limit=2 * MOST).to_dicts()
    one, other = (dict_a, dict_b) if relation == "split" else (dict_b, dict_a)
    rows = with_own_labels(rows, annotations.labels_of(one), feature="one")
    rows = with_own_labels(rows, annotations.labels_of(other), text="other_text")
    said = f"Features of {visible(one)} that are several in {visible(other)}: the one that is matched, and those that are more like it than like any other."
    names = ("feature", "explanation", "of the other", "similarity", "matched", "its explanation")
    body = [
        [
            _feature(one, row["layer"], row["one"]),
            visible(row["text"] or "–"),
            _feature(other, row["layer"], row["feature"]),
            number(row["similarity"]),
            "yes" if row["is_match"] else "",
            visible(row["other_text"] or "–"),
        ]
        for row in rows
    ]
    return html.Section(
        [
            html.H3("Split" if relation == "split" else "Merged"),
            html.P(said if rows else "None.", className="quiet"),
            *([table(names, body)] if rows else []),
        ]
    )


def _feature(dict_id, layer, feature):
    return html.A(f"{layer}:{feature}", href=feature_url(dict_id, layer, feature))
