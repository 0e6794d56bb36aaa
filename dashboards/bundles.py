"""Component libraries whose scripts a page loads when it shows one of their components, not before: the tables' are 2.1 MB, the small graphs' 0.5.

Dash loads the scripts of every library that was imported with the first page. Here their scripts are only served, and assets/bundles.js stands
in for each component until its script is there.
"""

import sys
from pathlib import Path

import dash_ag_grid
import dash_cytoscape
from dash.fingerprint import build_fingerprint

LIBRARIES = (dash_ag_grid, dash_cytoscape)


def hold_back():
    """Keeps Dash from putting the libraries' main scripts into the document; they are still served."""
    for library in LIBRARIES:
        main = library._js_dist[0]
        main["async"] = "lazy"  # Dash's word for a script that something else loads


def described(prefix):
    """{namespace: {url, components}}, what assets/bundles.js needs to know of each library. prefix: under which a proxy shows the app."""
    found = {}
    for library in LIBRARIES:
        name, path = library.__name__, library._js_dist[0]["relative_package_path"]
        modified = int((Path(sys.modules[name].__file__).parent / path).stat().st_mtime)
        url = f"{prefix}_dash-component-suites/{name}/{build_fingerprint(path, library.__version__, modified)}"
        found[name] = {"url": url, "components": [one for one in library.__all__ if isinstance(getattr(library, one), type)]}
    return found
