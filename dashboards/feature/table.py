"""The table of features: its columns, and the part of its rows that a question asks for.

A question is what the address of the page says, all of it text: `text` (what features are about; `layer:feature` is that one), `dict_id`, `dead`
(1: with those that never fire), `sort` (a column, `-` before it: the highest first), `about` (words of the explanation), and a range like
`0.5..0.9`, `..3` or `2` for a number of RANGED.
"""

import re
from itertools import starmap
from typing import NamedTuple

import polars as pl

from cltdb.database.display.words import is_number, number, token_text, visible
from cltdb.errors import CltdbError, shown
from dashboards.urls import feature_url

RANGED = ("layer", "score", "density", "max_activation")
SORTABLE = (*RANGED, "text")
FIELDS = ("text", "dict_id", "dead", "sort", "about", *RANGED)
ONE_FEATURE = re.compile(r"\s*(\d{1,9}):(\d{1,9})\s*")
ROW_HEIGHT, HIT_HEIGHT = 34, 66
"""In pixels: a row in one line, and one with reasons in three; those of assets/features.js."""
PART_ROWS, MOST_ROWS, MOST_HITS = 100, 500, 2000
"""Rows that the table asks for at once, rows that it may ask for, hits of a text that are sorted and filtered."""
WITHOUT_NEIGHBOURS = (
    "neighbours in meaning are not known: an earlier cltdb made the words; the next `cltdb run`, or another export, mends it"
)
_THREE_DIGITS = {"function": "params.value == null ? '–' : d3.format('.3~g')(params.value)"}
_PERCENT = {"function": "params.value == null ? '–' : d3.format('.3~r')(100 * params.value) + ' %'"}
_NUMBER = {
    "filter": "agNumberColumnFilter",
    "filterParams": {"filterOptions": ["greaterThanOrEqual", "lessThanOrEqual", "inRange"], "inRangeInclusive": True, "maxNumConditions": 1},
    "type": "rightAligned",
}  # fmt: skip
_TEXT = {"filter": "agTextColumnFilter", "filterParams": {"filterOptions": ["contains"], "maxNumConditions": 1}}
COLUMNS = [
    {"field": "name", "headerName": "feature", "cellRenderer": "FeatureLink", "width": 140, "pinned": "left", "sortable": False},
    {
        "field": "text",
        "headerName": "explanation",
        "flex": 1,
        "minWidth": 240,
        "tooltipField": "text",
        "cellClass": "lines",
        **_TEXT,
    },
    {
        "field": "found_in",
        "headerName": "found by",
        "flex": 1,
        "minWidth": 240,
        "tooltipField": "found_in",
        "cellClass": "lines",
        "sortable": False,
    },
    {"field": "promotes", "headerName": "promotes", "width": 170, "tooltipField": "promotes", "sortable": False},
    {"field": "layer", "headerName": "layer", "width": 96, **_NUMBER},
    {"field": "score", "headerName": "score", "width": 104, **_NUMBER, "valueFormatter": _THREE_DIGITS},
    {"field": "density", "headerName": "density", "width": 112, **_NUMBER, "valueFormatter": _PERCENT},
    {"field": "max_activation", "headerName": "max act.", "width": 112, **_NUMBER, "valueFormatter": _THREE_DIGITS},
]


def columns(question):
    """The columns of the answer to a question: what it was found by where it has a text, else what it promotes."""
    hidden = "promotes" if is_search(question) else "found_in"
    return [column | {"hide": column["field"] == hidden} for column in COLUMNS]


def is_search(question):
    """Whether a question has a text that features are searched by."""
    text = question.get("text", "").strip()
    return bool(text) and not ONE_FEATURE.fullmatch(text)


class Part(NamedTuple):
    """rows: as the table shows them; n: of all there are; said: what there is to say of them."""

    rows: list
    n: int
    said: str


def part(question, *, first, limit, query, search, own=None):
    """The `Part` of the answer to a question that begins at row `first`. query, search: of module data. own: users' labels, {(layer, feature): text},
    which stand before explanations and are filtered and sorted with them."""
    question = {name: str(question.get(name) or "") for name in FIELDS}
    how = {"alive": question["dead"] != "1", **_order(question["sort"]), **_limits(question)}
    text, dict_id, own = question["text"].strip(), question["dict_id"], own or {}
    one = ONE_FEATURE.fullmatch(text)
    if text and not one:
        hits, unknown, lacks_neighbours = search(text, dict_id=dict_id, alive=how["alive"] or None, limit=MOST_HITS)
        chosen = _of_hits(hits, how, own)
        said = [
            _counted(chosen.height, most=hits.height == MOST_HITS),
            *starmap(_unknown, unknown),
            *([WITHOUT_NEIGHBOURS] if lacks_neighbours else []),
        ]
        return Part(rows(chosen.slice(first, limit), own), chosen.height, " · ".join(said))
    if one:
        layer, feature = map(int, one.groups())
        how |= {"alive": False, "min_layer": layer, "max_layer": layer, "min_feature": feature, "max_feature": feature}
    if own and ("about" in how or how.get("sort") == "text"):
        how["own"] = [f"{layer}:{feature} {label}" for (layer, feature), label in own.items()]
    found = query("page_features", dict_id=dict_id, **how, offset=first, limit=limit)
    n = found["n_features"].first() or 0
    if one:
        return Part(rows(found, own), n, f"feature {text}" if n else f"There is no feature {text}.")
    return Part(rows(found, own), n, _counted(n))


def rows(found, own):
    """Rows of the table from rows of feature_search or page_features; NaN becomes unknown. own: as of `part`."""
    return [
        {
            "name": f"{row['layer']}:{row['feature']}",
            "href": feature_url(row["dict_id"], row["layer"], row["feature"]),
            "text": _own_first(
                own.get((row["layer"], row["feature"])),
                visible(row["text"] or ("dead, never fires" if row["dead"] else "not explained")),
            ),
            "promotes": " · ".join(token_text(token) for token in row.get("promotes") or []),
            "found_in": visible(row.get("found_in") or ""),
            **{name: row[name] for name in RANGED},
        }
        for row in found.fill_nan(None).to_dicts()
    ]


def _own_first(label, text):
    return f"own: {visible(label)} · {text}" if label else text


def bounds(text, *, name):
    """(lowest, highest) of a range in an address, None where it is open."""
    low, dots, high = text.strip().partition("..")
    try:
        found = [float(end) if end.strip() else None for end in (low, high if dots else low)]
    except ValueError:
        found = [float("nan")]
    if any(end is not None and not is_number(end) for end in found):
        raise CltdbError(f"filter {name}", found=shown(text), expected="a range such as 0.5..0.9, 2.. or ..3", do="mend it")
    return tuple(found)


def _order(text):
    """Parameters of page_features for the field `sort`; {} where it names none."""
    name = text.removeprefix("-")
    if name not in SORTABLE:
        return {}
    return {"sort": name, "ascending": not text.startswith("-")}


def _limits(question):
    """Parameters of page_features for its filters."""
    limits = {"about": question["about"].strip()} if question["about"].strip() else {}
    for name in RANGED:
        for end, value in zip(("min", "max"), bounds(question[name], name=name), strict=True):
            if value is not None:
                limits[f"{end}_{name}"] = value
    return limits


def _of_hits(hits, how, own):
    """Hits of a text as `how` (parameters of page_features) filters and sorts them; in their own order, of relevance, without a sort."""
    hits = hits.fill_nan(None)
    places = zip(hits["layer"], hits["feature"], strict=True)
    labels = pl.Series([own.get(place, "") for place in places], dtype=pl.String).str.to_lowercase()
    words = hits["text"].str.to_lowercase()
    hits = hits.with_columns(words=pl.when(labels == "").then(words).otherwise(labels + " · " + words.fill_null("")))
    if "about" in how:
        wanted = pl.lit(how["about"].lower())
        hits = hits.filter(words.fill_null("").str.contains(wanted, literal=True) | labels.str.contains(wanted, literal=True))
    for name in RANGED:
        if (low := how.get(f"min_{name}")) is not None:
            hits = hits.filter(pl.col(name) >= low)
        if (high := how.get(f"max_{name}")) is not None:
            hits = hits.filter(pl.col(name) <= high)
    if "sort" not in how:
        return hits
    key = pl.col("words" if how["sort"] == "text" else how["sort"])
    return hits.sort(key, descending=not how["ascending"], nulls_last=True, maintain_order=True)


def _counted(n, *, most=False):
    if not n:
        return "No feature matches. Try other words, fewer filters, or dead features too."
    if most:
        return f"{f'{number(n)} of ' if n < MOST_HITS else ''}the {number(MOST_HITS)} most relevant features"
    return "1 feature" if n == 1 else f"{number(n)} features"


def _unknown(word, spelled_like):
    return f"no word is like “{word}”" + (f" (spelled like it: {', '.join(spelled_like)})" if spelled_like else "")
