"""Parts of a page that the browser draws from data. Hundreds of tokens or bars as components of Dash would take seconds.

`drawn(kind, data)` is an element that carries its data as JSON. assets/drawn.js calls `cltdb.drawers[kind](element, data)` once the element is on
the page, and again when its data changes. Python says what is true and how it reads; JavaScript makes elements of it, every string a text node.

`plain(element)` is for what Dash's own elements say, but no callback asks for or changes: Dash looks at each of its components at every change
anywhere on the page. The children of a plain element travel as data and become elements of the document without Dash.
"""

import json

from dash import dcc, html

ATTRIBUTES = {"className": "class", "htmlFor": "for"}
"""What HTML calls properties of Dash; others are the same in small letters."""


def drawn(kind, data, *, name=None):
    """An element that the drawer `kind` fills. data: JSON values; name: what it is called to a screen reader."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    named = {"role": "group", "aria-label": name} if name else {}
    return html.Div(className=f"drawn-{kind}", **{"data-drawn": kind, "data-of": text}, **named)


def plain(element):
    """The same element, whose children the browser makes without Dash: elements of `html`, `dcc.Link`, strings and numbers."""
    properties = element.to_plotly_json()["props"]
    nodes = json.dumps(_nodes(properties.pop("children", None)), allow_nan=False, separators=(",", ":"))
    return type(element)(**properties, **{"data-drawn": "plain", "data-of": nodes})


def _nodes(part):
    """Children as JSON: strings, and elements as [tag, attributes, child, …]."""
    if part is None or isinstance(part, bool):
        return []
    if isinstance(part, list | tuple):
        return [node for one in part for node in _nodes(one)]
    if isinstance(part, str | int | float):
        return [str(part)]
    given = part.to_plotly_json()
    properties = given["props"]
    children = _nodes(properties.pop("children", None))
    if isinstance(part, dcc.Link):
        return [["a", {"data-visit": "", **_attributes(properties)}, *children]]
    assert given["namespace"] == "dash_html_components" and "id" not in properties, f"{part} is no plain element"
    return [[given["type"].lower(), _attributes(properties), *children]]


def _attributes(properties):
    """Attributes as cltdb.element of assets/drawn.js takes them: names with -- are custom properties of the style."""
    style = properties.pop("style", {})
    assert all(name.startswith("--") for name in style), f"a plain element leaves its style to the style sheet: {style}"
    return {ATTRIBUTES.get(name, name.lower()): value for name, value in properties.items() if value is not None} | style
