"""The Dash app: the shell around every page. Which pages there are, and which one an address shows, is the registry of Dash Pages.

The process reads: every query opens the database read-only for its own duration; work is done by processes of its own (jobs.py).
Everything is served from this machine, which a Content-Security-Policy holds the browser to. Who may ask says security.py.
"""

import hashlib
import logging
import re
import secrets
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import dash
import flask
from dash import Dash
from werkzeug.serving import make_server

from cltdb.database import Database
from cltdb.database.instances import files_kept
from cltdb.errors import CltdbError
from dashboards import ahead, annotations, bundles, failures, job_cards, questions, security, shell
from dashboards.data import DATABASE
from dashboards.feature import served
from dashboards.jobs import JOBS, Jobs
from dashboards.runs.underway import CLOSING, WORKSPACE
from dashboards.security import is_local
from dashboards.urls import path_of

ASSETS = Path(__file__).parent / "assets"
NOT_ALONE = (
    "other machines can reach these pages. Whoever has the link below can read the whole database, and nothing on the way is "
    "encrypted. An SSH tunnel to a server on 127.0.0.1 is safer"
)


class App(Dash):
    """Dash, which would refuse an address that lacks the path of the proxy."""

    def strip_relative_path(self, path):
        return path_of(path)


def create_app(database_path, *, prefix="/", jobs=None, token=None, workspace=None, closing=None, store=None):
    """The app over one database, which may be missing still, or over a folder that `cltdb db export` wrote.

    prefix: the path under which a proxy shows it, such as /cltdb/. jobs: `jobs.Jobs`; without them no page starts work. token: what a browser must
    show; None where only this machine reaches the app (`security`). workspace: the folder whose artifacts fill the database, None where that is not
    known. closing({stage: directory}): the lines that `cltdb run` says of artifacts at its end. store: `annotations.Store`; without it
    nothing that users make is saved.
    """
    bundles.hold_back()
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
        assets_url_path=assets_path(),
        assets_ignore=r"theme\.js",  # the document loads it first
        on_error=failures.report,
    )
    app.index_string = shell.document(app.get_asset_url("theme.js"), prefix=prefix)
    app.server.config.update({DATABASE: database_path, JOBS: jobs, WORKSPACE: workspace, CLOSING: closing})
    app.server.after_request(_kept_by_browsers)
    annotations.install(app.server, store)
    questions.install(app.server, database_path)
    app.server.register_blueprint(served.ROUTES)
    app.server.wsgi_app = _without_prefix(app.server.wsgi_app, prefix.rstrip("/"))
    security.guard(app.server, token=token, path=prefix)
    for page in dash.page_registry.values():
        shell.guard(page)
    app.layout = shell.shell(database_path)

    shell.register()
    failures.register()
    job_cards.register()

    return app


def assets_path():
    """The path of what the browser runs and how it looks, a name of its contents: another cltdb has another."""
    digest = hashlib.sha256()
    for path in sorted(ASSETS.rglob("*.*")):
        digest.update(path.name.encode() + path.read_bytes())
    return f"assets/{digest.hexdigest()[:16]}"


def _kept_by_browsers(response):
    """A browser that has a file of the assets does not ask again at every page."""
    if flask.request.endpoint == "_dash_assets.static" and response.status_code == 200:
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


def serve(project, host, port, *, database, prefix="/", closing=None):
    """Serves the app over `database` until it is interrupted; CltdbError where the address is taken or `prefix` is no path.

    project: `config.Project`; prefix, closing: as in `create_app`. Work is started where only this machine reaches the pages, and where they show the
    project's own database, into which its results go. Where others may reach the pages, their link holds a token.
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
    alone = is_local(host) and prefix == "/"
    workspace = project.workspace if database.resolve() == project.database.resolve() else None
    jobs = Jobs(project.workspace / "jobs", project.root, standby=True) if alone and workspace else None
    token = None if alone else secrets.token_urlsafe(24)
    store = annotations.store_of(project) if workspace else None
    app = create_app(database, prefix=prefix, jobs=jobs, token=token, workspace=workspace, closing=closing, store=store)
    if prefix == "/":  # a proxy may change addresses on their way
        ahead.install(app.server)
    server = make_server(host, port, app.server, threaded=True)
    if not is_local(host):
        print(f"warning: {NOT_ALONE}", file=sys.stderr, flush=True)
    print(f"cltdb is at {_link(host, server.port, prefix, token)} (Ctrl+C ends it)", flush=True)
    threading.Thread(target=get_ready, args=(database,), daemon=True).start()
    try:
        with files_kept():
            server.serve_forever()
    finally:
        app.server.config[questions.QUESTIONS].close()
        if store:
            store.writer.close()
        if jobs:
            jobs.close()


def get_ready(database):
    """Loads what the first page needs, while nobody has asked for one yet: DuckDB with its instances for readers, and what writes figures."""
    import plotly.io  # noqa: F401

    with suppress(CltdbError):  # pages say what is wrong
        Database(database).query("page_dictionaries")
        with Database(database).session(threads=1):
            pass


def _link(host, port, prefix, token):
    """What to open in a browser."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}{prefix.rstrip('/')}" + (f"/?{security.TOKEN}={token}" if token else "")


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
