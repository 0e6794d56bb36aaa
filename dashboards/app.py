"""The Dash app: the shell around every page, and which page a URL shows.

The process reads: every query opens the database read-only for its own duration. Everything is served from this
machine, which a Content-Security-Policy holds the browser to.
"""

import logging
import socket
from pathlib import Path

from dash import Dash, Input, Output, dcc, html
from werkzeug.serving import make_server

from cltdb.errors import CltdbError
from dashboards import feature_page, frontier_page, graph_page, overview_page, search_page
from dashboards.fragments import error_notice, notice
from dashboards.urls import FRONTIER, GRAPH, LOCATION, OVERVIEW, SEARCH, fields, route

PAGE, NAVIGATION = "app-page", "app-navigation"
PAGES = {OVERVIEW: "Overview", FRONTIER: "Frontier", SEARCH: "Features", GRAPH: "Graphs"}
TABS = {"overview": OVERVIEW, "frontier": FRONTIER, "search": SEARCH, "feature": SEARCH, "graph": GRAPH}
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'"
)


def create_app(database_path):
    """The app over one database, which may be missing still."""
    app = Dash(
        __name__, title="cltdb", update_title=None, serve_locally=True, assets_folder=str(Path(__file__).parent / "assets")
    )
    app.layout = shell(database_path)
    app.validation_layout = html.Div(
        [shell(database_path), overview_page.curves([]), search_page.layout([]), graph_page.layout([]), frontier_page.layout([])]
    )
    app.server.after_request(_with_policy)
    for page in (overview_page, search_page, graph_page, frontier_page):
        page.register(app, database_path)

    @app.callback(
        Output(PAGE, "children"), Output(NAVIGATION, "children"), Input(LOCATION, "pathname"), Input(LOCATION, "search")
    )
    def show(pathname, search):
        return render(database_path, pathname, search), navigation(pathname)

    return app


def serve(database_path, host, port):
    """Serves the app until it is interrupted; CltdbError where the address is taken."""
    try:
        with socket.create_server((host, port)):  # werkzeug would print and exit
            pass
    except (OSError, OverflowError) as error:
        where, do = f"cltdb dash {host}:{port}", "choose another with --host or --port"
        raise CltdbError(
            where, found=f"an address that cannot be used ({error})", expected="a free address of this machine", do=do
        ) from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request
    server = make_server(host, port, create_app(database_path).server, threaded=True)
    print(f"cltdb is at http://{host}:{server.port} (Ctrl+C ends it)", flush=True)
    server.serve_forever()


def shell(database_path):
    """What surrounds every page."""
    return html.Div(
        [
            dcc.Location(id=LOCATION, refresh="callback-nav"),
            html.Header(
                [
                    dcc.Link("cltdb", href=OVERVIEW, className="wordmark"),
                    html.Nav(navigation(None), id=NAVIGATION),
                    html.Span(Path(database_path).name, className="quiet", title=str(database_path)),
                ],
                className="masthead",
            ),
            html.Div(id=PAGE, className="page"),
        ]
    )


def navigation(pathname):
    """The links of the masthead, the current one marked."""
    current = TABS.get(route(pathname)[0]) if pathname else None
    return [dcc.Link(name, href=href, className="place here" if href == current else "place") for href, name in PAGES.items()]


def render(database_path, pathname, search):
    """The page a URL shows; an error a user can mend becomes a notice."""
    page, arguments = route(pathname)
    try:
        match page:
            case "overview":
                return overview_page.page(database_path)
            case "frontier":
                return frontier_page.page(database_path, fields=fields(search))
            case "search":
                return search_page.page(database_path, fields=fields(search))
            case "feature":
                return feature_page.page(database_path, **arguments)
            case "graph":
                return graph_page.page(database_path, **arguments)
    except CltdbError as error:
        return error_notice(error)
    return notice("There is no such page", "Pages are Overview, Frontier, Features and Graphs, above.")


def _with_policy(response):
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
