"""What the browser makes of elements without Dash (dashboards/drawn.py) is what Dash makes of them."""

import json

import pytest
from browser import MARKS, find, wait_for
from dash import dcc, html
from plotly.utils import PlotlyJSONEncoder
from worlds import capitals_experiment as world

from dashboards import urls
from dashboards.drawn import plain
from dashboards.graph import ids

BOTH = """
const [one, other] = document.getElementById(arguments[0]).children;
const said = (node) => node.nodeType === Node.TEXT_NODE ? node.data : [
    node.tagName, [...node.attributes].filter(({name}) => !name.startsWith("data-")).map(({name, value}) => `${name}=${value}`).sort(),
    [...node.childNodes].reduce((all, child) => {  // neighbouring texts are one
        const last = all.length - 1;
        if (child.nodeType === Node.TEXT_NODE && typeof all[last] === "string") all[last] += child.data;
        else all.push(said(child));
        return all;
    }, [])];
return [said(one), said(other)];
"""


def element():
    rows = [html.Li([html.Bdi("<b>x</b> & \u202e"), 3, None, " ", html.Small(0.5)], style={"--share": "0.5"}, title='a "b"')]
    return html.Section(
        [
            "text",
            html.Ol([*rows, html.Li(["a", "b"])], className="plain"),
            html.Label(["field", html.Button("go", **{"aria-label": "Go"})], htmlFor="there", tabIndex=0),
            html.Table(html.Tbody(html.Tr([html.Td("wide", colSpan=2), html.Th("head", scope="row")]))),
            html.Details(
                [html.Summary("more"), dcc.Link(html.Bdi("elsewhere"), href=urls.SEARCH, className="button")], open=True
            ),
        ],
        className="made",
    )


@pytest.mark.browser
@MARKS[1]
def test_the_browser_makes_of_a_plain_element_what_dash_makes_of_it(browser, site):
    browser.get(site + urls.graph_url(world.GRAPH))
    find(browser, f"#{ids.DRAWING} .node")
    children = json.loads(json.dumps([element(), plain(element())], cls=PlotlyJSONEncoder))
    browser.execute_script("dash_clientside.set_props(arguments[0], {children: arguments[1]})", ids.PATHS, children)
    wait_for(browser, lambda driver: len(driver.find_elements("css selector", f"#{ids.PATHS} details")) == 2)
    by_dash, without = browser.execute_script(BOTH, ids.PATHS)
    assert by_dash == without
    browser.execute_script("document.querySelectorAll('#graph-paths a')[1].click()")
    assert find(browser, "main.search") and browser.current_url.split("?")[0] == site + urls.SEARCH


def test_what_callbacks_or_styles_need_is_no_plain_element():
    for part in (html.P("x", id="there"), dcc.Input(), html.P("x", style={"color": "red"})):
        with pytest.raises(AssertionError):
            plain(html.Div(part))
