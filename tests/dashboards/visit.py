"""What a browser asks of the app, without a browser."""

import json
from functools import cache

from dashboards.ahead import OUTPUTS, ROUTER
from dashboards.app import create_app


def opened(database, **options):
    """A test client of a new app. Its first request hands it the callbacks of its pages, which Dash keeps in one place until then."""
    client = create_app(database, **options).server.test_client()
    client.get("/_dash-layout")
    return client


client_of = cache(opened)


def show(database, url, search="", *, client=None):
    """The page at an address, as JSON, through Dash's router."""
    return answer(client or client_of(database), url, search)["_pages_content"]["children"]


def answer(client, url, search="", **request):
    """What the router answers for an address: the page and its title. request: further settings of the request."""
    inputs = [
        {"id": "_pages_location", "property": name, "value": value} for name, value in (("pathname", url), ("search", search))
    ]
    asked = {"output": ROUTER, "outputs": OUTPUTS, "inputs": inputs, "changedPropIds": ["_pages_location.pathname"]}
    given = client.post("/_dash-update-component", json=asked, **request)
    assert given.status_code == 200, f"{url}: {given.status_code}"
    return given.json["response"]


def elements(part):
    """The properties of every element of a page, depth first; `part`: elements or their JSON."""
    part = part.to_plotly_json() if hasattr(part, "to_plotly_json") else part
    if isinstance(part, dict) and "props" in part:
        yield part["props"]
        yield from elements(_children(part["props"]))
    elif isinstance(part, list | tuple):
        for child in part:
            yield from elements(child)


def texts(part):
    """All strings that a page shows, joined."""
    part = part.to_plotly_json() if hasattr(part, "to_plotly_json") else part
    if isinstance(part, list | tuple):
        return " ".join(texts(child) for child in part)
    if isinstance(part, dict):
        return texts(_children(part["props"]))
    return "" if part is None else str(part)


def _children(properties):
    """The children of an element; those of a plain one (dashboards/drawn.py) as if they were Dash's."""
    if properties.get("data-drawn") != "plain":
        return properties.get("children")
    return [_as_component(node) for node in json.loads(properties["data-of"])]


def _as_component(node):
    if isinstance(node, str):
        return node
    tag, attributes, *children = node
    style = {name: value for name, value in attributes.items() if name.startswith("--")}
    known = {"className": attributes.get("class"), "style": style, "children": [_as_component(one) for one in children]}
    return {"type": tag, "props": {**attributes, **known}}


def drawn(part, kind):
    """The data of what the browser draws of this kind (dashboards/drawn.py), in the order of the page."""
    return [json.loads(one["data-of"]) for one in elements(part) if one.get("data-drawn") == kind]


def page_text(database, url, search=""):
    return texts(show(database, url, search))


def by_id(page):
    """{id: properties} of the elements of a page that have one."""
    return {properties["id"]: properties for properties in elements(page) if properties.get("id")}
