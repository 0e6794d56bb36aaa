"""The one place that knows how addresses are spelled."""

from urllib.parse import parse_qs, quote, unquote, urlencode

OVERVIEW, SEARCH, GRAPH, FRONTIER = "/", "/features", "/graph", "/frontier"
LOCATION = "app-location"  # id of the component that holds the address
_prefix = "/"  # the path under which a proxy shows the pages; one process serves one app


def show_under(prefix):
    """Makes every address begin with `prefix`, such as /cltdb/."""
    global _prefix
    _prefix = prefix


def address(path):
    """The address of a path of the app."""
    return _prefix + path.removeprefix("/")


def feature_url(dict_id, layer, feature):
    """Address of a feature's page."""
    return address(f"/feature/{quote(dict_id, safe='')}/{layer}/{feature}")


def graph_url(graph_id):
    """Address of a graph's page."""
    return address(f"{GRAPH}/{quote(graph_id, safe='')}")


def search_url(**given):
    """Address of the search page with these fields filled in: text, dict_id, layer."""
    return address(f"{SEARCH}?{urlencode(given)}" if given else SEARCH)


def frontier_url(**given):
    """Address of the frontier page with these fields filled in: sweep, layer."""
    return address(f"{FRONTIER}?{urlencode(given)}" if given else FRONTIER)


def route(pathname):
    """(page, arguments) of a path: page is overview, search, feature, graph, frontier or None where there is no such page."""
    path = (pathname or "/").removeprefix(_prefix.rstrip("/"))
    parts = [unquote(part) for part in path.split("/") if part]
    match parts:
        case []:
            return "overview", {}
        case ["features"]:
            return "search", {}
        case ["frontier"]:
            return "frontier", {}
        case ["graph"]:
            return "graph", {"graph_id": None}
        case ["graph", graph_id]:
            return "graph", {"graph_id": graph_id}
        case ["feature", dict_id, layer, feature] if _is_index(layer) and _is_index(feature):
            return "feature", {"dict_id": dict_id, "layer": int(layer), "feature": int(feature)}
    return None, {}


def fields(search):
    """The fields of a query string (`?text=Paris`) as a dict of the first value each."""
    return {name: values[0] for name, values in parse_qs((search or "").lstrip("?")).items()}


def _is_index(text):
    return text.isascii() and text.isdigit() and len(text) < 10
