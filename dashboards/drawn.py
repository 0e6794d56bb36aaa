"""Parts of a page that the browser draws from data. Hundreds of tokens or bars as components of Dash would take seconds.

`drawn(kind, data)` is an element that carries its data as JSON. assets/drawn.js calls `cltdb.drawers[kind](element, data)` once the element is on
the page, and again when its data changes. Python says what is true and how it reads; JavaScript makes elements of it, every string a text node.
"""

import json

from dash import html


def drawn(kind, data, *, name=None):
    """An element that the drawer `kind` fills. data: JSON values; name: what it is called to a screen reader."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    named = {"role": "group", "aria-label": name} if name else {}
    return html.Div(className=f"drawn-{kind}", **{"data-drawn": kind, "data-of": text}, **named)
