"""Letters: with which letters the tokens of a model begin."""

import dash
from dash import html

from dashboards import data
from dashboards.components import notice

dash.register_page(__name__, path="/letters", name="Letters", title="Letters · cltdb", order=9)
QUERIES = ("frequent_letters",)


def layout(model="model", **_):
    rows = data.query("frequent_letters", model_id=model)
    if rows.is_empty():
        return notice("No letters", "Write a section `letters` in a spec and run it.")
    return html.Main([html.H1("Letters"), html.Ul([html.Li(f"{row['letter']}: {row['tokens']}") for row in rows.to_dicts()])])
