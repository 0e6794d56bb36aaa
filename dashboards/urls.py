"""The one place that knows how addresses are spelled."""

from urllib.parse import quote, urlencode

from dash import get_relative_path

OVERVIEW, SEARCH, GRAPH, FRONTIER, ASK = "/", "/features", "/graph", "/frontier", "/ask"
ATTRIBUTE = "/attribute"  # an earlier address of ASK
SQL, RUNS, COMPARE, COMPARE_FEATURES, STARRED = "/sql", "/runs", "/compare", "/compare-features", "/starred"
GROUPS, MATCHES, ISOLATION = "/groups", "/matches", "/isolation"
RANDOM, FEATURE_JSON = "/random-feature", "/feature-json"
LOCATION = "_pages_location"  # id of Dash's own component that holds the address


def address(path):
    """The address of a path of the app; behind a proxy it begins with the path under which the proxy shows the app."""
    return get_relative_path(path)


def path_of(pathname):
    """The path of the app that an address shows, without slashes at its ends. The path of the proxy may be missing: some people open
    the server beside it."""
    return pathname.removeprefix(address("/").rstrip("/")).strip("/")


def feature_url(dict_id, layer, feature):
    """Address of a feature's page."""
    return address(f"/feature/{quote(dict_id, safe='')}/{layer}/{feature}")


def feature_json_url(dict_id, layer, feature):
    """Address of a feature as a JSON file."""
    return address(f"{FEATURE_JSON}/{quote(dict_id, safe='')}/{layer}/{feature}.json")


def random_url(dict_id):
    """Address that leads to the page of a feature that chance chooses."""
    return address(f"{RANDOM}?{urlencode({'dict_id': dict_id})}")


def graph_url(graph_id, **state):
    """Address of a graph's page; state: fields of its link, such as `sel`, the node that is selected."""
    return address(f"{GRAPH}/{quote(graph_id, safe='')}{'?' + urlencode(state) if state else ''}")


def compare_url(graph_id, other=None):
    """Address of the page that compares two graphs, a graph with the one most like it where one is given."""
    return address("/".join([COMPARE, *(quote(one, safe="") for one in (graph_id, other) if one is not None)]))


def compare_features_url(*keys):
    """Address of the comparison of two features, each (dict_id, layer, feature)."""
    return address(f"{COMPARE_FEATURES}?{urlencode(dict(zip('ab', ('/'.join(map(str, key)) for key in keys), strict=True)))}")


def starred_url(**given):
    """Address of the page of starred features with these fields filled in: list, dict_id."""
    return address(f"{STARRED}?{urlencode(given)}" if given else STARRED)


def search_url(**given):
    """Address of the search page with these fields filled in: text, dict_id, layer."""
    return address(f"{SEARCH}?{urlencode(given)}" if given else SEARCH)


def ask_url(**given):
    """Address of the page Ask with these fields filled in: dict_id, prompt, target, foil, where, and form, the one that is open (prompt,
    explain, harvest, run)."""
    return address(f"{ASK}?{urlencode(given)}" if given else ASK)


def frontier_url(**given):
    """Address of the frontier page with these fields filled in: sweep, layer."""
    return address(f"{FRONTIER}?{urlencode(given)}" if given else FRONTIER)


def groups_url(**given):
    """Address of the page of groups with these fields filled in: groups_id, label_a and label_b (a pair of labels), weighting, keyed_by, label and
    first_layer (of label features)."""
    return address(f"{GROUPS}?{urlencode(given)}" if given else GROUPS)


def matches_url(**given):
    """Address of the page of matches with these fields filled in: dict_a and dict_b, a pair of dictionaries."""
    return address(f"{MATCHES}?{urlencode(given)}" if given else MATCHES)


def isolation_url(**given):
    """Address of the page of isolation with these fields filled in: dict_a, dict_b (beside it), multiple (by which features are raised)."""
    return address(f"{ISOLATION}?{urlencode(given)}" if given else ISOLATION)


def run_url(experiment):
    """Address of an experiment's page."""
    return address(f"/run/{quote(experiment, safe='')}")


def runs_url(**given):
    """Address of the page of runs with these fields filled in: compare, names of experiments with commas between them."""
    return address(f"{RUNS}?{urlencode(given)}" if given else RUNS)


def sql_url(**fields):
    """Address of the SQL page with a question: `questions.question` says which fields."""
    return address(f"{SQL}?{urlencode(fields)}" if fields else SQL)


def index(text):
    """A number of a layer or feature in an address; None for any other text."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
