"""Two or more experiments side by side: what differs in their specs, what was measured."""

from dash import dcc, html

from cltdb.database.display.figures import METRICS
from cltdb.database.display.words import number, seconds
from dashboards.components import table
from dashboards.urls import run_url

MAX_COMPARED = 8
UNSET = "default"
"""In place of the value of a key that a spec does not name."""


def spec_table(names, differences):
    """What differs in the specs, a column per experiment. differences: {other name: rows of named query spec_differences of the first and it}."""
    first = {row["key"]: row["value"] for rows in differences.values() for row in rows}
    if not first:
        return html.P("Their specs say the same.", className="quiet")
    others = {name: {row["key"]: row["other_value"] for row in rows} for name, rows in differences.items()}
    rows = []
    for key in sorted(first):
        values = [first[key]] + [others[name].get(key, first[key]) for name in names[1:]]
        rows.append([html.Code(key), *(_value(value) for value in values)])
    return table(["key", *map(_link, names)], rows)


def _value(value):
    return html.Span(UNSET, className="quiet") if value is None else html.Td(value, title=value)


def _link(name):
    return dcc.Link(name, href=run_url(name))


def metric_table(names, evaluations, times):
    """What evaluation measured, pooled over layers, and how long stages took, a column per experiment. evaluations: {name: {metric: value}};
    times: {name: {stage: seconds}}."""
    metrics = sorted(
        {metric for one in evaluations.values() for metric in one}, key=lambda metric: (metric not in METRICS, metric)
    )
    rows = [[METRICS.get(metric, metric), *(number(evaluations[name].get(metric)) for name in names)] for metric in metrics]
    stages = list(dict.fromkeys(stage for name in names for stage in times[name]))
    rows += [[f"time of {stage}", *(seconds(times[name].get(stage)) for name in names)] for stage in stages]
    return table(["held-out text", *map(_link, names)], rows)
