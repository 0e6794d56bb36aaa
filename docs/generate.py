"""Writes the reference pages of this folder from the code that they describe.

    python docs/generate.py            # writes them
    python docs/generate.py --check    # says which one is out of step, exit status 1

Sources: the sections of a spec (`cltdb.spec.Experiment`), the schema of the database, the named queries, the parser of the command
line, the docstrings of what `import cltdb` offers. A key, table, query, command or method that is added appears here by itself.
"""

import argparse
import inspect
import json
import re
import sys
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from cltdb.__main__ import build_parser
from cltdb.database.named_queries import default_text, example, list_queries
from cltdb.database.tables import all_tables
from cltdb.engine.section import Expected, Section, documented, keyed_when, sections_in
from cltdb.spec import Experiment, ProjectPaths

FOLDER = Path(__file__).parent
HEAD = "<!-- Written by `python docs/generate.py`. Do not edit. -->\n\n"

MARKUP = re.compile(r"(\*|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown may take for emphasis."""


def cell(text):
    """A text as one cell of a Markdown table, in which nothing but backquotes is markup."""
    parts = " ".join(str(text).split()).replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"<(?=[a-z])", "&lt;", MARKUP.sub(r"\\\1", part)) for part in parts[::2]]
    return "`".join(parts)


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def paragraphs(*parts):
    return HEAD + "\n\n".join(part.strip() for part in parts if part) + "\n"


# The spec.

IN_KEY = {"always": "yes", "never": "no", "unless default": "unless it is the default"}


def spec():
    """Every key of a spec by section: type, default, meaning, whether it enters the key of its stage."""
    top = [(name, field) for name, field in documented(Experiment).items()]
    plain = [(name, field) for name, field in top if not _section(field.annotation)]
    parts = [
        "# Every key of a spec",
        "A spec is a YAML file, such as [experiments/quickstart.yaml](../experiments/quickstart.yaml). It names what differs from the defaults.\n"
        "An unknown key is an error that names the nearest valid one. `cltdb init NAME` writes a spec with these meanings beside the keys.",
        "**In the key** says whether the value is part of what the stage's artifact is known by. Where it is, another value makes the stage, and\n"
        "those that read it, anew. Where it is not, the value changes a result by no more than rounding: it may change at any time. `seed` enters the\n"
        "key of every stage that draws; `name` and `sweep` enter none.",
        "## The experiment",
        table(["key", "type", "default", "meaning"], [_row(name, field) for name, field in plain]),
    ]
    seen = {}
    for name, field in top:
        if section := _section(field.annotation):
            parts += _section_parts(name, section, field, seen)
    parts += [
        "## `cltdb.yaml`",
        "The file `cltdb.yaml` makes a folder a project. Beside the keys below it may hold any key of a spec, as a default for every experiment.\n"
        "Paths in specs are relative to its folder.",
    ]
    rows = [row for name, field in documented(ProjectPaths).items() for row in _rows_within(name, field)]
    return paragraphs(*parts, table(["key", "type", "default", "meaning"], rows))


def _rows_within(path, field):
    """The row of a key, or those of all keys of its section."""
    if section := _section(field.annotation):
        for name, inner in documented(section).items():
            yield from _rows_within(f"{path}.{name}", inner)
    else:
        yield _row(path, field)


def _section(annotation):
    """The section that an annotation names, or None."""
    return next(sections_in(annotation), None)


def _section_parts(path, section, field, seen, *, neutral=False, depth=2):
    """Heading, sentence and table of a section, then those of the sections in it (of alternatives the tables). seen: {section: its first
    path}, which this fills."""
    seen[section] = path
    own = section.__dict__.get("__doc__")
    yield f"{'#' * depth} `{path}`"
    yield " ".join(dict.fromkeys(cell(text) for text in (field.description, own) if text))
    rows, inner = [], []
    for name, entry in documented(section).items():
        key = f"{path}.{entry.alias or name}"
        keyed = "never" if neutral else keyed_when(entry)
        kinds = list(dict.fromkeys(sections_in(entry.annotation)))
        row = _row(key, entry, keyed)
        if kinds:
            known = next((seen[kind] for kind in kinds if kind in seen), None)
            row[1] += f": see [`{known or key}`](#{anchor(known or key)})"
            inner += [(key, kind, entry, keyed == "never") for kind in kinds if kind not in seen]
        rows.append(row)
    yield table(["key", "type", "default", "in the key", "meaning"], rows)
    above = None
    for key, kind, entry, out in inner:
        if kind not in seen:
            heading, *rest = _section_parts(key, kind, entry, seen, neutral=out, depth=3)
            yield from [heading, *rest] if key != above else ["or", *rest[1:]]
        above = key


def _row(key, field, keyed=None):
    columns = [f"`{key}`", cell(_type(field.annotation, field.metadata)), _default(field)]
    return [*columns, *([] if keyed is None else [IN_KEY[keyed]]), cell(field.description or "")]


def _type(annotation, metadata=()):
    """An annotation in words."""
    expected = next((item.text for item in metadata if isinstance(item, Expected)), None)
    if expected:
        return re.sub(r" of 1 to [\d,]+ characters$", "", re.sub(r" \([^()]*\)$", "", expected))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], arguments[1:])
    if origin is Literal:
        return _words([f"`{value}`" for value in arguments])
    if origin in (Union, UnionType):
        return _words(list(dict.fromkeys(_type(argument) for argument in arguments if argument is not NoneType)))
    if origin is list:
        return f"a list, each {_type(arguments[0])}"
    if origin is dict:
        return "keys and values"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a section"
    return {bool: "true or false", str: "text", int: "an integer", float: "a number"}[annotation]


def _words(items):
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def _default(field):
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if value is None or isinstance(value, Section):
        return "none" if value is None else ""
    return f"`{json.dumps(value)}`"


# The database.


def tables():
    """Tables and views with their keys, references and columns, from the schema."""
    every = sorted(all_tables().values())
    listed = [[f"[`{one.name}`](#{anchor(one.name)})", "view" if one.is_view else "table", cell(one.about)] for one in every]
    parts = [
        "# Tables of the database",
        "[database.md](database.md) says how to ask. The same text is in the database: `cltdb sql --query describe_tables`.\n"
        f"Views ({', '.join(f'`{one.name}`' for one in every if one.is_view)}) put together what most questions need.",
        table(["table", "kind", "what a row is"], listed),
    ]
    for one in every:
        columns = [[f"`{column.name}`", cell(column.type), cell(column.comment)] for column in one.columns]
        key = f"Key: {', '.join(f'`{name}`' for name in one.key)}"
        parts += [f"## `{one.name}`", cell(one.about), "<br>\n".join([key, *_references(one)])]
        parts += [table(["column", "type", "meaning"], columns)]
    return paragraphs(*parts)


def _references(one):
    if one.references:
        links = [
            f"[`{to.table}`](#{anchor(to.table)}) by {', '.join(f'`{name}`' for name in to.columns)}" for to in one.references
        ]
        yield f"Refers to: {'; '.join(links)}"


# The named queries.


def queries():
    """The queries that ship: what a row is, their order, what they read, their parameters, an example."""
    every = list_queries()
    parts = [
        "# Named queries",
        "A named query is an SQL file that ships with cltdb. `cltdb sql --query NAME -p KEY=VALUE` runs one; in Python\n"
        '`db.query("NAME", key=value)`. `cltdb sql --describe NAME` says the same as this page.\n'
        "Their names begin with `page_` where a page of the browser asks them.",
        table(["query", "what it tells"], [[f"[`{query.name}`](#{anchor(query.name)})", cell(query.title)] for query in every]),
    ]
    for query in every:
        rows = [
            [f"`{name}`", cell(one.type), "required" if one.required else f"`{default_text(one) or 'NULL'}`", cell(one.meaning)]
            for name, one in query.parameters.items()
        ]
        said = {"Grain": query.grain, "Order": query.order, "Reads": query.reads}
        parts += [
            f"## `{query.name}`",
            cell(query.title),
            "<br>\n".join(f"{label}: {cell(text)}" for label, text in said.items()),
        ]
        parts += [table(["parameter", "type", "default", "meaning"], rows) if rows else "", cell(query.notes)]
        parts += [f"```sh\n{example(query)}\n```"]
    return paragraphs(*parts)


# The command line.


def commands():
    """Every command with its arguments and options."""
    parser = build_parser()
    subs = list(_subparsers(parser))
    listed = [[f"[`{sub.prog}`](#{anchor(sub.prog)})", cell(about)] for sub, about in subs]
    parts = [
        "# Commands",
        "`cltdb COMMAND --help` says the same in the terminal. Exit status: 0 when all went well, 1 for an error, 130 when interrupted.\n"
        "An error is one line on stderr: `error: WHERE: found …; expected …; do this: …`.",
        table(["command", "what it does"], listed),
        "Options of `cltdb` itself:",
        _arguments(parser),
    ]
    for sub, about in subs:
        example = re.sub(r"^examples?:\n", "", sub.epilog or "")
        example = "\n".join(line.strip() for line in example.splitlines())
        parts += [f"## `{sub.prog}`", cell(about), _arguments(sub), f"```sh\n{example}\n```" if example else ""]
    return paragraphs(*parts)


def _subparsers(parser):
    """(parser, help) of every command, nested ones after the one that they belong to."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield sub, helps.get(name) or sub.description or ""
                yield from _subparsers(sub)


def _arguments(parser):
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.dest == "debug" and " " in parser.prog:
            continue
        choices = " | ".join(map(str, action.choices)) if action.choices else ""
        value = "" if action.nargs == 0 else action.metavar or (choices if action.option_strings else "") or action.dest.upper()
        name = f"{', '.join(action.option_strings)} {value}".strip() if action.option_strings else value
        notes, listed = [parser._get_formatter()._expand_help(action) if action.help else ""], choices.replace(" | ", ", ")
        notes += [f"one of {listed}"] if choices and value != choices and listed not in notes[0] else []
        notes += ["required"] if action.option_strings and action.required else []
        notes += [f"default {action.default}"] if _has_default(action) else []
        rows.append([cell(f"`{name}`"), cell("; ".join(note for note in notes if note))])
    return table(["argument", "meaning"], rows) if rows else ""


def _has_default(action):
    plain = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
    return plain and action.default != argparse.SUPPRESS and action.nargs != 0 and "default" not in (action.help or "")


# Python.


def python():
    """What `import cltdb` offers: signatures, docstrings, and the methods and properties of what is handed out."""
    import cltdb
    from cltdb.attribution.graph import Graph, PrunedGraph
    from cltdb.attribution.intervene import Outcome
    from cltdb.database.api import Database
    from cltdb.database.display.feature import Feature
    from cltdb.database.display.graph import Drawing
    from cltdb.database.plot import Plots

    parts = [
        "# Python",
        "What `import cltdb` offers. Examples: [database.md](database.md#from-python), [notebooks.md](notebooks.md), [graphs.md](graphs.md#in-python),\n"
        "[interventions.md](interventions.md#in-python). Frames are Polars'; their columns stand in [tables.md](tables.md).\n"
        "Everything raises `cltdb.CltdbError` for bad input, whose text says what was found, what was expected and what to do.",
    ]
    for name in ("open", "load_model", "load_dictionary", "Dictionary", "logit_lens", "attribute", "intervene"):
        parts += _callable(f"cltdb.{name}", getattr(cltdb, name))
    for name in ("FeatureTarget", "DirectionTarget", "Sampling"):
        parts += _callable(f"cltdb.{name}", getattr(cltdb, name))
    handed_out = {
        "A database: `cltdb.open(...)`": Database,
        "Figures: `db.plot`": Plots,
        "A feature in a notebook: `db.feature(...)`": Feature,
        "A graph in a notebook: `db.draw(...)`": Drawing,
        "A dictionary: `cltdb.load_dictionary(...)`": cltdb.Dictionary,
        "A graph: `cltdb.attribute(...)`": Graph,
        "A pruned graph: `graph.prune(...)`": PrunedGraph,
        "What an intervention did: `cltdb.intervene(...)`": Outcome,
    }
    for heading, kind in handed_out.items():
        parts += [f"## {heading}", *_texts(kind), table(["name", "what it is"], rows) if (rows := _members(kind)) else ""]
    return paragraphs(*parts)


def _callable(name, function):
    """Heading, signature and docstring of a function or class."""
    return [f"## `{name}`", f"```text\n{name}{_signature(function)}\n```", *_texts(function)]


def _signature(function):
    """Its parameters with their defaults, without annotations."""
    signature = inspect.signature(function)
    plain = [one.replace(annotation=one.empty) for one in signature.parameters.values() if one.name not in ("self", "cls")]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty)).replace("(None, None, None)", "(None)")


def _texts(documented):
    """The paragraphs of a docstring; lines that begin with a parameter are items of a list."""
    for text in inspect.getdoc(documented).split("\n\n"):
        first, *others = re.split(r"^(?=\w+(?:, \w+)*: )", text, flags=re.MULTILINE)
        yield "\n".join([*filter(None, [cell(first)]), *["", *(f"- {cell(other)}" for other in others)]]).strip()


def _members(kind):
    """Rows of the public methods and properties of a class that have a docstring, in the order of its file."""
    rows = []
    for name, member in vars(kind).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        shown = inspect.isfunction(function) or isinstance(function, property | cached_property)
        if shown and function.__doc__ and not name.startswith("_"):
            called = _signature(function) if inspect.isfunction(function) else ""
            rows.append([f"`{name}{called}`", cell(function.__doc__)])
    return rows


def anchor(heading):
    """The anchor that a heading gets on GitHub, without its backquotes."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


PAGES = {"spec.md": spec, "tables.md": tables, "queries.md": queries, "commands.md": commands, "python.md": python}


def main(arguments):
    """Writes the pages, or with --check names those that differ; returns the exit status."""
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(("out of step: " if "--check" in arguments else "wrote ") + ", ".join(stale))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
