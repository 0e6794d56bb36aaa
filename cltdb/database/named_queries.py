"""The named queries, which ship as .sql files in queries/, and the values of their parameters.

The opening comment of a file tells what the query finds, then `Grain:`, `Order:`, `Reads:` (tables and views), `Parameters:` with one line
each, `$name: type = default  meaning` (without `= default` it must be given), `Example:` (options of `cltdb sql`), then notes. A type is one of
TYPES or the values that the parameter may have, `a | b`. Values are passed as parameters, never pasted into SQL; the SQL casts them.
"""

import json
import numbers
import operator
import re
from collections import defaultdict
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cltdb.errors import CltdbError, nearest, shown

QUERIES = Path(__file__).parent / "queries"
TYPES = {
    "text": ("text", ("VARCHAR",)),
    "integer": ("an integer", ("INTEGER", "BIGINT")),
    "number": ("a number", ("DOUBLE",)),
    "boolean": ("true or false", ("BOOLEAN",)),
    "integers": ("a list of integers", ("INTEGER[]",)),
    "texts": ('a list of texts, such as ["Paris", "Rome"]', ("VARCHAR[]",)),
}
"""Of each type of parameter: what errors call it, and the DuckDB types that SQL casts it to."""
FILE = re.compile(r"[a-z0-9_]{1,100}\.sql")
COUNTS = ("limit", "offset", "logit")
"""Parameters that count rows."""
LARGEST = 2**31 - 2
"""Of other integers, to which queries may add one."""
PART = re.compile(r"(Grain|Order|Reads|Parameters|Example):\s*(.*)")
PARAMETER = re.compile(r"\$(\w+): (.+?)(?: = (\S+))?\s{2,}(.*)")


class Parameter(NamedTuple):
    """A parameter of a named query. default: None where it is NULL, and where `required`, since it has none."""

    type: str
    default: object
    required: bool
    meaning: str


class NamedQuery(NamedTuple):
    """A query that ships with cltdb."""

    name: str
    title: str
    grain: str
    order: str
    reads: str
    parameters: dict  # name -> Parameter
    example: str  # options for `cltdb sql --query NAME`, empty where it needs none
    notes: str  # what its opening comment says besides
    sql: str


def named_query(name):
    """The named query `name`."""
    path = QUERIES / f"{name}.sql"
    if not FILE.fullmatch(f"{name}.sql") or not path.is_file():
        names = sorted(path.stem for path in QUERIES.glob("*.sql"))
        raise CltdbError(
            "named queries",
            found=f"no query {shown(name)}",
            expected="a named query",
            do=nearest(name, names, otherwise="choose one: `cltdb sql --list` explains them"),
        )
    return _parse(name, path.read_text(encoding="utf-8"))


def list_queries():
    """All named queries by name."""
    return [named_query(path.stem) for path in sorted(QUERIES.glob("*.sql"))]


@cache
def _parse(name, text):
    """`NamedQuery` from the text of its file; its opening comment ends at the first empty line."""
    parts, part = defaultdict(list), "Title"
    for line in (line[2:].strip() for line in text.split("\n\n")[0].splitlines() if line.startswith("--")):
        if label := PART.match(line):
            part, line = label.groups()
        elif part == "Example" or part == "Parameters" and not line.startswith("$"):
            part = "Notes"
        parts[part].append(line)
    title, grain, order, reads, example, notes = (
        " ".join(parts[part]) for part in ("Title", "Grain", "Order", "Reads", "Example", "Notes")
    )
    parameters = {}
    for key, kind, default, meaning in (found.groups() for found in map(PARAMETER.match, parts["Parameters"]) if found):
        value = None if default in (None, "NULL") else _value(default, kind)
        parameters[key] = Parameter(kind, value, default is None, meaning)
    return NamedQuery(name, title, grain, order, reads, parameters, example, notes, text)


def named_query_params(query, given, path=None):
    """All parameters of a named query as values of their types: those given (as text or values), the others by default. $glossary and $order are made of
    $text. path: what is asked, whose project may have a glossary of its own."""
    explain = f"`cltdb sql --describe {query.name}` explains them"
    for name in given:
        if name not in query.parameters:
            raise CltdbError(
                f"query {query.name}",
                found=f"unknown parameter {shown(name)}",
                expected=f"parameters {', '.join(query.parameters) or '(none)'}",
                do=nearest(name, query.parameters, otherwise=explain),
            )
    missing = [name for name, parameter in query.parameters.items() if parameter.required and given.get(name) is None]
    if missing:
        raise CltdbError(
            f"query {query.name}",
            found=f"no value for {', '.join(missing)}",
            expected=f"parameters {', '.join(query.parameters)}",
            do=f"give parameters as `-p name=value`; {explain}",
        )
    params = {
        name: _given(query, name, given[name]) if name in given else parameter.default
        for name, parameter in query.parameters.items()
    }
    if params.get("order", ()) is None:
        from cltdb.database.glossary import in_order

        params["order"] = in_order(params["text"])
    if params.get("glossary", ()) is None:
        from cltdb.database.glossary import meant

        params["glossary"] = meant(params["text"], path)
    return params


def _given(query, name, value):
    """A value that was given for a parameter as one of its type; None where that is the default."""
    parameter = query.parameters[name]
    if value is None and parameter.default is None:
        return None
    try:
        found = _value(value, parameter.type)
        least, most = (0, 2**63 - 1) if name in COUNTS else (-LARGEST, LARGEST)
        if parameter.type.startswith("integer") and not all(
            least <= one <= most for one in (found if isinstance(found, list) else [found])
        ):
            raise ValueError
        return found
    except (ValueError, TypeError) as error:
        choices = parameter.type.split(" | ")
        expected = TYPES[parameter.type][0] if parameter.type in TYPES else f"one of {', '.join(choices)}"
        expected += ", at least 0" * (name in COUNTS)
        raise CltdbError(
            f"query {query.name}, parameter {name}",
            found=shown(value),
            expected=expected,
            do=f"give another value; `cltdb sql --describe {query.name}` says what it means",
        ) from error


def _value(value, type):
    """The value, or the text of one, as the Python value of a parameter's type; ValueError or TypeError for another."""
    is_text = isinstance(value, str)
    if type == "boolean":
        if value not in (True, False, "true", "false"):
            raise ValueError
        return value in (True, "true")
    if type in ("integers", "texts"):
        items = json.loads(value) if is_text else value
        if isinstance(items, str | dict):
            raise TypeError
        return [_value(item, type[:-1]) for item in items]
    if value is None or isinstance(value, bool) and type in ("integer", "number") or not is_text and hasattr(value, "__len__"):
        raise TypeError
    if type == "integer":
        return int(value) if is_text else operator.index(value)
    if type == "number":
        number = float(value)
        if number != number:  # NaN, which DuckDB takes for larger than all
            raise ValueError
        return number
    if not isinstance(value, str | numbers.Number | date):  # as YAML reads them
        raise TypeError
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if type != "text" and text not in type.split(" | "):
        raise ValueError
    return text


def default_text(parameter):
    """The default of a parameter as one gives it to `cltdb sql`; empty where it has none or NULL."""
    return (
        ""
        if parameter.default is None
        else str(parameter.default).lower()
        if parameter.type == "boolean"
        else str(parameter.default)
    )


def example(query):
    """A command that asks the query."""
    return f"cltdb sql --query {query.name} {query.example}".rstrip()


def described(query):
    """All that is known of a named query, as lines of text."""
    rows = [
        (f"-p {name}={default_text(one)}", one.type, f"{one.meaning}{' (required)' if one.required else ''}")
        for name, one in query.parameters.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    said = {"rows": query.grain, "order": query.order, "reads": query.reads, "notes": query.notes, "example": example(query)}
    return [
        query.title,
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
        *(f"{label}: {text}" for label, text in said.items() if text),
    ]
