"""Small pieces of HTML that several pages share. Dash escapes every string in them."""

from collections import Counter

import dash
from dash import dcc, html

from cltdb.database.display.figures import GRAPH_CONFIG, HEIGHT
from cltdb.database.display.words import is_number, number, visible
from cltdb.errors import nearest

SUBJECT = "data-subject"
"""An attribute of a page's `html.Main`: what the page is about, for the title of its tab. Without it that is the page's first heading."""


def named_by_prompt(graphs, limit=None):
    """{graph_id: its prompt, cut to `limit` characters, with its id where another graph has the same prompt}. graphs: frame of named query
    graph_list."""
    prompts = dict(graphs.select("graph_id", "prompt").iter_rows())
    times = Counter(prompts.values())
    return {
        graph_id: _cut(prompt or graph_id, limit) + (f" ({graph_id})" if prompt and times[prompt] > 1 else "")
        for graph_id, prompt in prompts.items()
    }


def _cut(text, limit):
    text = visible(text)
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def notice(title, do, *, tone="quiet"):
    """What is missing and what to do about it. `do`: text in which `backticks` mark commands."""
    return html.Section([html.H2(title), html.P(with_code(do))], className=f"notice {tone}")


def with_code(text):
    """The pieces of a text in which `backticks` mark commands."""
    return [html.Code(piece) if i % 2 else piece for i, piece in enumerate(text.split("`"))]


def no_such_page():
    """What an address shows that leads nowhere."""
    *names, last = [page["name"] for page in dash.page_registry.values() if page["supplied_path"]]
    return notice("There is no such page", f"Pages are {', '.join(names)} and {last}, above.")


def not_here(what, asked, known):
    """A line that says of a name in an address that it is not among the `known`, lest what the page shows instead is taken for it; None where it is,
    or where none is `asked`."""
    if not asked or asked in known:
        return None
    meant = nearest(asked, known, otherwise="")
    said = [f"There is no {what} ", html.Bdi(visible(asked)), f" in this database{'; ' + meant if meant else '.'}"]
    return html.P([*said, " Shown is what the choices on this page say."], className="error")


def error_notice(error):
    """A `CltdbError` as a notice."""
    return notice(f"{error.where}: {error.found}", f"Expected {error.expected}. To mend it: {error.do}.", tone="alarm")


def stat(label, value, *, hint=None):
    """One labelled number."""
    return html.Div([html.Dt(label), html.Dd(value)], className="stat", title=hint)


def stats(*items):
    """Labelled numbers in a row that wraps."""
    return html.Dl(list(items), className="stats")


def score_badge(score):
    """A score (0 to 1) as text with a bar behind it; nothing where there is none."""
    if not is_number(score):
        return None
    return html.Span(
        number(score), className="score", style={"--share": f"{max(0.0, min(1.0, score)):.3f}"}, title="score, 0 to 1"
    )


def table(names, rows, **options):
    """A table that scrolls by itself. rows: lists of cells, or of `html.Td`."""
    body = [html.Tr([cell if isinstance(cell, html.Td) else html.Td(cell) for cell in row]) for row in rows]
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in names]))
    return html.Div(html.Table([head, html.Tbody(body)], className="numbers", **options), className="scrolls", tabIndex=0)


def captioned(caption, figure):
    """A Plotly figure under what it shows."""
    return html.Figure([html.Figcaption(caption), dcc.Graph(figure=figure, config=GRAPH_CONFIG, style={"height": HEIGHT})])
