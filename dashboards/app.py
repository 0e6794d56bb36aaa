"""The Dash app: the shell around every page, and which page a URL shows.

The process reads: every query opens the database read-only for its own duration. Everything is served from this
machine, which a Content-Security-Policy holds the browser to.
"""

import logging
import re
import socket
from pathlib import Path

from dash import Dash, Input, Output, dcc, html
from werkzeug.serving import make_server

from cltdb.errors import CltdbError
from dashboards import feature_page, frontier_page, graph_page, overview_page, search_page
from dashboards.fragments import error_notice, notice
from dashboards.urls import FRONTIER, GRAPH, LOCATION, OVERVIEW, SEARCH, address, fields, route, show_under

PAGE, NAVIGATION = "app-page", "app-navigation"
PAGES = {OVERVIEW: "Overview", FRONTIER: "Frontier", SEARCH: "Features", GRAPH: "Graphs"}
TABS = {"overview": OVERVIEW, "frontier": FRONTIER, "search": SEARCH, "feature": SEARCH, "graph": GRAPH}
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'"
)


def create_app(database_path, *, prefix="/"):
    """The app over one database, which may be missing still. prefix: the path under which a proxy shows it, such as /cltdb/."""
    show_under(prefix)
    app = Dash(
        __name__,
        title="cltdb",
        update_title=None,
        serve_locally=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        requests_pathname_prefix=prefix,
        routes_pathname_prefix="/",
    )
    app.server.wsgi_app = _without_prefix(app.server.wsgi_app, prefix.rstrip("/"))
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


def serve(database_path, host, port, *, prefix="/"):
    """Serves the app until it is interrupted; CltdbError where the address is taken or `prefix` is no path. prefix: as in `create_app`."""
    if not re.fullmatch(r"/([\w.~-]+/)*", prefix):
        raise CltdbError(
            "cltdb dash --prefix", found=repr(prefix), expected="a path such as /cltdb/, with a slash at both ends", do="mend it"
        )
    try:
        with socket.create_server((host, port)):  # werkzeug would print and exit
            pass
    except (OSError, OverflowError) as error:
        where, do = f"cltdb dash {host}:{port}", "choose another with --host or --port"
        raise CltdbError(
            where, found=f"an address that cannot be used ({error})", expected="a free address of this machine", do=do
        ) from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request
    server = make_server(host, port, create_app(database_path, prefix=prefix).server, threaded=True)
    print(f"cltdb is at http://{host}:{server.port}{prefix.rstrip('/')} (Ctrl+C ends it)", flush=True)
    server.serve_forever()


def shell(database_path):
    """What surrounds every page."""
    return html.Div(
        [
            dcc.Location(id=LOCATION, refresh="callback-nav"),
            html.Header(
                [
                    dcc.Link("cltdb", href=address(OVERVIEW), className="wordmark"),
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
    return [
        dcc.Link(name, href=address(href), className="place here" if href == current else "place") for href, name in PAGES.items()
    ]


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


def _without_prefix(application, prefix):
    """A WSGI application that takes `prefix` off the paths it is asked for: some proxies leave it there, others take it off."""

    def answer(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            environ = environ | {
                "PATH_INFO": path.removeprefix(prefix) or "/",
                "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix,
            }
        return application(environ, start_response)

    return answer


def _with_policy(response):
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
