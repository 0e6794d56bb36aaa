"""The Dash app: the shell around every page. Which pages there are, and which one an address shows, is the registry of Dash Pages.

The process reads: every query opens the database read-only for its own duration; work is done by processes of its own (jobs.py).
Everything is served from this machine, which a Content-Security-Policy holds the browser to.
"""

import logging
import re
import socket
from pathlib import Path
from urllib.parse import unquote

import dash
from dash import Dash, Input, Output, dcc, html
from werkzeug.serving import make_server

from cltdb.errors import CltdbError
from dashboards import job_cards
from dashboards.components import error_notice
from dashboards.data import DATABASE
from dashboards.jobs import JOBS, Jobs, is_local
from dashboards.urls import LOCATION, OVERVIEW, address, path_of

NAVIGATION = "app-navigation"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'"
)


class App(Dash):
    """Dash, which would refuse an address that lacks the path of the proxy."""

    def strip_relative_path(self, path):
        return path_of(path)


def create_app(database_path, *, prefix="/", jobs=None):
    """The app over one database, which may be missing still, or over a folder that `cltdb db export` wrote.

    prefix: the path under which a proxy shows it, such as /cltdb/. jobs: `jobs.Jobs`; without them no page starts work.
    """
    app = App(
        __package__,
        title="cltdb",
        update_title=None,
        serve_locally=True,
        use_pages=True,
        include_pages_meta=False,
        suppress_callback_exceptions=True,  # a callback belongs to one page, the others lack its ids; the tests compare them
        requests_pathname_prefix=prefix,
        routes_pathname_prefix="/",
    )
    app.server.config.update({DATABASE: database_path, JOBS: jobs})
    app.server.wsgi_app = _without_prefix(app.server.wsgi_app, prefix.rstrip("/"))
    app.server.after_request(_with_policy)
    for page in dash.page_registry.values():
        page["layout"] = _guarded(page)
    app.layout = shell(database_path)

    @app.callback(Output(NAVIGATION, "children"), Input(LOCATION, "pathname"))
    def mark(pathname):
        return navigation(pathname)

    return app


def serve(project, host, port, *, database, prefix="/"):
    """Serves the app over `database` until it is interrupted; CltdbError where the address is taken or `prefix` is no path.

    project: `config.Project`; prefix: as in `create_app`. Work is started where only this machine reaches the pages, and where they show the
    project's own database, into which its results go.
    """
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
    starts_work = is_local(host) and prefix == "/" and database == project.database
    jobs = Jobs(project.workspace / "jobs", project.root) if starts_work else None
    server = make_server(host, port, create_app(database, prefix=prefix, jobs=jobs).server, threaded=True)
    print(f"cltdb is at http://{host}:{server.port}{prefix.rstrip('/')} (Ctrl+C ends it)", flush=True)
    try:
        server.serve_forever()
    finally:
        if jobs:
            jobs.close()


def shell(database_path):
    """What surrounds every page."""
    return html.Div(
        [
            html.Header(
                [
                    dcc.Link("cltdb", href=address(OVERVIEW), className="wordmark"),
                    html.Nav(navigation(None), id=NAVIGATION),
                    job_cards.badge(),
                    html.Span(Path(database_path).name, className="quiet", title=str(database_path)),
                ],
                className="masthead",
            ),
            html.Div(dash.page_container, className="page"),
        ]
    )


def navigation(pathname):
    """The links of the masthead, in the order of the pages; the one of the current page is marked."""
    current = _page_of(pathname) if pathname else {}
    here = current.get("under", current.get("path"))
    return [
        dcc.Link(page["name"], href=address(page["path"]), className="place here" if page["path"] == here else "place")
        for page in dash.page_registry.values()
        if page["supplied_path"]
    ]


def _page_of(pathname):
    """The page whose address begins as this one does; {} where there is none."""
    first = _first_part(path_of(pathname))
    pages = dash.page_registry.values()
    return next((page for page in pages if _first_part(page["path_template"] or page["path"]) == first), {})


def _first_part(path):
    return path.strip("/").partition("/")[0]


def _guarded(page):
    """The layout of a page. It is given plain text: the variables of the address unquoted, of a field that is there twice the first
    value. An error a user can mend becomes a notice."""
    layout, variables = page["layout"], re.findall("<(.*?)>", page["path_template"] or "")
    if not callable(layout):
        return layout

    def show(**given):
        given = {name: value[0] if isinstance(value, list) else value for name, value in given.items()}
        try:
            return layout(**given | {name: unquote(given[name]) for name in variables if name in given})
        except CltdbError as error:
            return error_notice(error)

    return show


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
