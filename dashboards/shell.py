"""What surrounds every page: the document, the masthead, the navigation, the titles of tabs."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import dash
import flask
from dash import Input, Output, callback, clientside_callback, dcc, html

from cltdb.database.display.words import visible
from cltdb.errors import CltdbError
from dashboards import bundles, failures, job_cards
from dashboards.components import SUBJECT, error_notice, notice
from dashboards.data import DATABASE
from dashboards.runs import live
from dashboards.urls import LOCATION, OVERVIEW, address, path_of

NAVIGATION, PAGE, WAITED = "app-navigation", "app-page", "app-waited"
LOAD_AGAIN = "() => { if (document.querySelector('main.waits')) location.reload(); return ''; }"
MAX_TITLE_CHARS = 70
DOCUMENT = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        {%favicon%}
        <script src="THEME"></script>
        {%css%}
    </head>
    <body>
        <a class="skip" href="#app-page">Skip to the page</a>
        <div id="notices" role="alert"></div>
        {%app_entry%}
        {%config%}
        <script id="cltdb-bundles" type="application/json">BUNDLES</script>
        {%scripts%}
        {%renderer%}
    </body>
</html>"""


def document(theme_url, *, prefix):
    """The HTML document, as a template of Dash. theme_url: of assets/theme.js, which runs before anything is painted; prefix: of the app."""
    return DOCUMENT.replace("THEME", theme_url).replace("BUNDLES", json.dumps(bundles.described(prefix)))


def shell(database_path):
    """The masthead, and the place of the page."""
    path = Path(database_path).absolute()
    return html.Div(
        [
            html.Header(
                [
                    dcc.Link("cltdb", href=address(OVERVIEW), className="wordmark"),
                    html.Nav(navigation(None), id=NAVIGATION, **{"aria-label": "Pages"}),
                    job_cards.badge(),
                    html.Span(visible(f"{path.parent.name}/{path.name}"), className="quiet source", title=str(path)),
                    html.Button("Colours: ", type="button", className="button quiet theme-switch"),
                ],
                className="masthead",
            ),
            html.Div(dash.page_container, id=PAGE, className="page", tabIndex=-1),
            html.Div(id=WAITED, hidden=True),
            *failures.region(),
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


def guard(page):
    """Gives a page of the registry the layout and the title that the router asks for, in this order.

    The layout is given plain text: the variables of the address unquoted, of a field that is there twice the first value. Where it raises,
    a notice is shown. What it returns is the document's main part.
    """
    layout, named, variables = page["layout"], page["title"], re.findall("<(.*?)>", page["path_template"] or "")

    def show(**given):
        given = {name: _text(value[0] if isinstance(value, list) else value) for name, value in given.items()}
        given |= {name: unquote(given[name]) for name in variables if name in given}
        try:
            content = layout(**given)
        except Exception as error:  # whatever it is, the page says so
            content = _nothing_yet(error) or error_notice(failures.as_error(error, doing=f"the page {page['name']}"))
        name = named(**{name: given.get(name, "") for name in variables}) if callable(named) else named
        flask.g.page_title = title(content, name)
        return content if isinstance(content, html.Main) else _around(content)

    page["layout"], page["title"] = show, lambda **_: flask.g.page_title


def _nothing_yet(error):
    """What a page shows instead of the error that there is no database, while a first run will make one."""
    is_missing = isinstance(error, CltdbError) and not Path(flask.current_app.config[DATABASE]).exists()
    if not is_missing or not live.running(None):
        return None
    return notice("Nothing to show yet", "A run is under way. This page is loaded again when one of its stages begins or ends.")


def _around(shown):
    """A notice in place of a page, as the document's main part. What runs now stands above it: the rows it lacks may be on their way."""
    if not live.running(None):
        return html.Main(shown)
    return html.Main([live.section(always=True), shown], className="waits")


def register():
    """The callbacks of the shell."""

    @callback(Output(NAVIGATION, "children"), Input(LOCATION, "pathname"))
    def mark(pathname):
        return navigation(pathname)

    clientside_callback(LOAD_AGAIN, Output(WAITED, "children"), Input(live.CHANGED, "data"), prevent_initial_call=True)


def title(content, named):
    """The title of a tab: the subject of the page, then `named`, the title that the page was registered with."""
    subject, named = (_cut(visible(text)) for text in (getattr(content, SUBJECT, None) or next(_headings(content), ""), named))
    return named if not subject or named.startswith(subject) else f"{subject} · {named}"


def _cut(text):
    return text if len(text) <= MAX_TITLE_CHARS else text[: MAX_TITLE_CHARS - 1] + "…"


def _text(value):
    """A field of an address without halves of characters, which no database takes."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _headings(part):
    """The texts of the headings in a page, the first one first."""
    if isinstance(part, html.H1 | html.H2):
        pieces = part.children if isinstance(part.children, list) else [part.children]
        yield " ".join(piece for piece in pieces if isinstance(piece, str)).strip()
    children = getattr(part, "children", None) or []
    for child in children if isinstance(children, list) else [children]:
        yield from _headings(child)
