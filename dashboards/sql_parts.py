"""What the SQL page is made of: the schema beside the editor, the fields of a named query, the table of a result, and its figure."""

import html as markup
import shlex
from collections import Counter

import plotly.graph_objects as go
from dash import dcc, html

from cltdb.database.display import figures
from cltdb.database.display.words import is_number, visible
from cltdb.database.named_queries import default_text
from dashboards.drawn import plain
from dashboards.questions import PARAMETER
from dashboards.urls import sql_url

FIELD = "sql-parameter"
"""Type of the ids of the fields of a named query's parameters."""
MAX_COLOURS = 12
POINTS, LINES, BARS, HISTOGRAM = KINDS = ("points", "lines", "bars", "histogram")
OTHERS, NONE = "all others", "-"
_DIGITS = "params.value == null ? 'NULL' : d3.format('.6~g')(params.value)"
_TEXT = "params.value == null ? 'NULL' : params.value"


# The schema


def schema(tables):
    """Every table and view with its columns; a click on a name writes it into the editor. tables: named query describe_tables."""
    groups = [rows.to_dicts() for _, rows in tables.group_by("table", maintain_order=True)]
    return plain(html.Ul([html.Li(_table(*rows)) for rows in groups], className="schema", id="sql-schema"))


def _table(table, *columns):
    items = [
        html.Li(
            [
                _name(column["column"], "column"),
                html.Span(column["type"], className="type"),
                html.Span(column["comment"], className="about") if column["comment"] else None,
            ]
        )
        for column in columns
    ]
    about = html.P(table["comment"], className="about") if table["comment"] else None
    kind = html.Span(table["type"], className="type") if table["type"] != "table" else None
    return html.Details(
        [html.Summary([html.Span(table["table"], className="name"), kind]), _name(table["table"], "table"), about, html.Ul(items)]
    )


def _name(name, what):
    data = {"data-insert": name, "data-what": what, "aria-label": f"write {what} {name} into the editor"}
    return html.Button(name, className="insert", type="button", **data)


# A named query


def about(query):
    """What a named query finds, and its example as a link."""
    said = [("Rows", query.grain), ("Order", query.order), ("Reads", query.reads)]
    facts = [piece for label, text in said if text for piece in (html.Dt(label), html.Dd(text))]
    example = html.P(["Example: ", dcc.Link(query.example, href=example_url(query))]) if query.example else None
    text = html.Details([html.Summary("Its SQL"), html.Pre(query.sql, tabIndex=0)])
    return [html.P(html.B(query.title)), html.Dl(facts, className="facts"), html.P(query.notes or None), example, text]


def example_url(query):
    """Address of the page with a named query's example filled in."""
    pairs = (word.partition("=") for word in shlex.split(query.example) if word != "-p")
    return sql_url(query=query.name, **{PARAMETER + name: value for name, _, value in pairs})


def fields(query, given):
    """A labelled field for each parameter of a named query; given: {name: text}."""
    return [_field(name, parameter, given.get(name)) for name, parameter in query.parameters.items()]


def _field(name, parameter, given):
    value = default_text(parameter) if given is None else given
    choices = ["true", "false"] if parameter.type == "boolean" else parameter.type.split(" | ")
    place = {"type": FIELD, "name": name}
    if len(choices) > 1:
        options = [{"label": "any", "value": ""}] * (parameter.default is None and not parameter.required)
        options += [{"label": choice, "value": choice} for choice in choices]
        control = dcc.Dropdown(options, value if value in choices else "", id=place, placeholder="any", clearable=False)
    else:
        kind = {"type": "number", "step": "any"} if parameter.type in ("integer", "number") else {"type": "text"}
        lists = {"integers": "[1, 2]", "texts": '["Paris"]'}
        hint = "required" if parameter.required else lists.get(parameter.type, "any")
        control = dcc.Input(id=place, value=value or None, placeholder=hint, required=parameter.required, **kind)
    return html.Label([html.Span([html.Code(name), f" {parameter.meaning}"]), control], title=parameter.type)


# A result


def columns(found):
    """Columns of the table of a result. Their fields are numbers: a dot in a name would be a path."""
    return [
        {
            "field": f"c{i}",
            "headerName": visible(column["name"]) or " ",
            "headerTooltip": column["type"],
            "tooltipField": f"c{i}",
            "minWidth": 80,
            "maxWidth": 640,
            "valueFormatter": {"function": _DIGITS if column["type"] in ("float", "double") else _TEXT},
            **({"type": "rightAligned"} if column["number"] else {}),
        }
        for i, column in enumerate(found["columns"])
    ]


def rows(found):
    """Rows of the table of a result."""
    return [{f"c{i}": cell for i, cell in enumerate(row)} for row in found["rows"]]


def counted(found, seconds):
    """How many rows there are, of how many that are shown, in one sentence."""
    n = len(found["rows"])
    whole = f"the first {n:,} rows; there are more" if found["more"] else "1 row" if n == 1 else f"{n:,} rows"
    n_columns = len(found["columns"])
    return f"{whole} · {n_columns} column{'s' * (n_columns != 1)} · {seconds:.2f} s"


def choices(found):
    """Options of the choices of a figure: the columns of a result."""
    return [{"label": visible(column["name"]) or " ", "value": f"c{i}"} for i, column in enumerate(found["columns"])]


def colours(found):
    """Options of the colour: none, or a column."""
    return [{"label": "one colour", "value": NONE}, *choices(found)]


def first_choices(found):
    """(x, y, kind) of the figure that is shown first: y over x where two columns hold numbers, else a number by a text."""
    numbers = [f"c{i}" for i, column in enumerate(found["columns"]) if column["number"]]
    texts = [f"c{i}" for i, column in enumerate(found["columns"]) if not column["number"]]
    if len(numbers) > 1:
        return numbers[0], numbers[1], POINTS
    if numbers and texts:
        return texts[0], numbers[0], BARS
    return (numbers[0], None, HISTOGRAM) if numbers else (None, None, POINTS)


def plot(table, names, *, x, y, colour, kind):
    """A figure of the rows that are shown. table: rows as `rows` gives them; names: {field: name}; x, y, colour: fields or None."""
    if x not in names or y not in names and kind != HISTOGRAM:
        return figures.nothing(figures.blank(x_title="", y_title=""), "choose x and y")
    figure = figures.blank(x_title=markup.escape(names[x]), y_title="rows" if kind == HISTOGRAM else names[y])
    groups = _grouped(table, colour if colour in names else None)
    for i, (label, group) in enumerate(groups.items()):
        xs = [_shown(row.get(x)) for row in group]
        marker = {"color": figures.SHADES[i % len(figures.SHADES)]}
        name = {"name": markup.escape(label), "showlegend": len(groups) > 1}
        if kind == HISTOGRAM:
            figure.add_trace(go.Histogram(x=xs, marker=marker, **name))
            continue
        ys = [_shown(row.get(y)) for row in group]
        if kind == BARS:
            figure.add_trace(go.Bar(x=xs, y=ys, marker=marker, **name))
        else:
            mode = "lines+markers" if kind == LINES else "markers"
            dash = {"dash": figures.DASHES[i // len(figures.SHADES) % len(figures.DASHES)]}
            figure.add_trace(go.Scatter(x=xs, y=ys, mode=mode, marker={**marker, "size": 6}, line=dash, **name))
    figure.update_layout(hovermode="closest", height=figures.HEIGHT + 60)
    return figure


def _grouped(table, field):
    """{label: rows} by the values of a column, the commonest `MAX_COLOURS` of them apart."""
    if field is None:
        return {"": table}
    counts = Counter(_label(row.get(field)) for row in table)
    apart = sorted(label for label, _ in counts.most_common(MAX_COLOURS))
    groups = {label: [] for label in apart}
    for row in table:
        label = _label(row.get(field))
        groups.setdefault(label if label in apart else OTHERS, []).append(row)
    return groups


def _label(value):
    return "NULL" if value is None else str(value)[:60]


def _shown(value):
    """A value on an axis; Plotly reads text as markup."""
    if value is None or isinstance(value, int | float):
        return value if value is None or is_number(value) else None
    return markup.escape(str(value)[:60])
