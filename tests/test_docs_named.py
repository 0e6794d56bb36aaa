"""What pages, notes and heads of scripts name is there: commands, programs with their options, keys, columns, calls in Python.

Snippets of the pages are run by tests/test_docs.py. A study or a benchmark takes minutes to hours: its lines are read here by the parsers of
the programs that they start.
"""

import argparse
import ast
import importlib.util
import inspect
import os
import pkgutil
import re
import runpy
import sys
import tomllib
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from unittest import mock

import pytest
from command_line import ROOT
from pages import BASE, EVERY, PAGES, commands_in, name_of, snippets, spans, text_of, usages

import cltdb
from cltdb.__main__ import build_parser
from cltdb.database.named_queries import list_queries
from cltdb.database.tables import all_tables
from cltdb.engine.section import sections_in
from cltdb.errors import CltdbError
from cltdb.spec import Experiment, ProjectPaths, load_points
from cltdb.stages import STAGES

IN_BLOCKS = [(page, words) for page, text in snippets("sh", EVERY) for words in commands_in(text)]
IN_TEXT = [
    (page, words) for page, code in spans() if re.match(r"(cltdb|python3?|pip) [a-z.-]", code) for words in commands_in(code)
]
SHOWN = [*IN_BLOCKS, *IN_TEXT, *usages()]
PLACEHOLDER = re.compile(r"[A-Z_]+|\W*")


def of_program(*names):
    """{(words after the program's name): where it is shown first}"""
    return {tuple(words[1:]): page for page, words in reversed(SHOWN) if Path(words[0]).name in names}


def test_commands_that_are_not_run_are_taken_by_their_parser():
    """Those of notes and scripts. Specs take their `--set`, and are there."""
    noted = [(page, words) for page, words in [*IN_BLOCKS, *usages()] if ROOT / page not in PAGES]
    lines = {tuple(words[1:]): page for page, words in noted if words[0] == "cltdb"}
    parser = build_parser()
    for words, page in lines.items():
        try:
            options = parser.parse_args(words)
            if getattr(options, "set", None):
                assert load_points(ROOT / options.spec, overrides=options.set)
        except CltdbError as error:
            raise AssertionError(f"{page}: cltdb {' '.join(words)}: {error}") from error
    assert len(lines) > 8


def not_known(parser, words):
    """The first word that a command does not have, of one that running text may name without its arguments; or None."""
    for word in words:
        subs = next((one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction)), {})
        if re.match(r"--?[a-z]", word):
            if not any(word in one._option_string_actions for one in (parser, *subs.values())):
                return word
        elif subs and PLACEHOLDER.fullmatch(word):
            return None
        elif subs and word not in subs:
            return word
        else:
            parser = subs.get(word, parser)
    return None


def test_commands_that_running_text_names_are_there():
    """With their options, and named queries."""
    parser, queries = build_parser(), {query.name for query in list_queries()}
    lines = {tuple(words[1:]): page for page, words in IN_TEXT if words[0] == "cltdb"}
    for words, page in lines.items():
        assert not_known(parser, words) is None, (page, words)
        for option in {"--query", "--describe"} & set(words):
            name = words[words.index(option) + 1]
            assert name in queries or PLACEHOLDER.fullmatch(name), (page, words)
    assert len(lines) > 50


def test_packages_that_are_installed_are_there():
    """Extras of cltdb."""
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    named = {extra for words in of_program("pip") for word in words for extra in re.findall(r"(?:cltdb|\.)\[(\w+)\]", word)}
    assert named == set(extras)


class Parsed(Exception):
    """A program had read its arguments."""


@contextmanager
def started_as(path, words):
    """Within the block the process is that of a script, which ends with Parsed once its arguments are read; what it changes is undone."""

    def read(parser, args=None, namespace=None):
        whole(parser, args, namespace)
        raise Parsed

    own = {file.stem: sys.modules.pop(file.stem, None) for file in path.parent.glob("*.py")}
    whole = argparse.ArgumentParser.parse_args
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", read),
        mock.patch.object(sys, "argv", [str(path), *words]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
        mock.patch.dict(os.environ),
    ):
        yield
    for name, module in own.items():
        sys.modules.pop(name, None)
        if module:
            sys.modules[name] = module


def takes(path, words):
    """Whether a script takes these words: by its own parser, or as arguments of its `main`."""
    text = text_of(path)
    if "ArgumentParser(" in text:
        with started_as(path, words), pytest.raises(Parsed):
            runpy.run_path(str(path), run_name="__main__")
        return True
    if "main(*sys.argv[1:])" in text:
        (main,) = (one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == "main")
        least, most = len(main.args.args) - len(main.args.defaults), len(main.args.args)
        return least <= len(words) and (main.args.vararg is not None or len(words) <= most)
    return not words or "sys.argv" in text


PROGRAMS = of_program("python", "python3")


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{page}: {' '.join(words)}") for words, page in PROGRAMS.items()])
def test_a_program_takes_what_it_is_given(words, capsys):
    if words[0] == "-m":
        path = importlib.util.find_spec(words[1]).origin
        assert words[1].partition(".")[0] != "cltdb" or takes(Path(path), words[2:])
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    else:
        assert takes(ROOT / words[0], words[1:])


def has_key(sections, path):
    """Whether one of the sections has the key, and what is in it the rest of the path."""
    for section in sections:
        for name, field in section.model_fields.items():
            if path[0] == (field.alias or name):
                inner = list(sections_in(field.annotation))
                if len(path) == 1 or not inner or has_key(inner, path[1:]):
                    return True
    return False


def every_section(of):
    """It and all in it."""
    yield of
    for field in of.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from every_section(inner)


SPANS = {code: page for page, code in spans()}
TABLES = {name: {column.name for column in table.columns} for name, table in all_tables().items()}
DOTTED = r"([a-z]\w*)\.([a-z][\w.]*)"
FILES = ("duckdb", "json", "py", "yaml")


def test_keys_of_a_spec_are_there():
    """`l0: 4` in some section, `train.l0` in its own."""
    sections = [*every_section(Experiment), *every_section(ProjectPaths)]
    alone = [(page, found[1]) for code, page in SPANS.items() if (found := re.match(r"([a-z]\w*(?:\.\w+)*): ", code))]
    alone = [
        one for one in alone if one[0] != "docs/coming-from.md" and one[1] != "error"
    ]  # other tools' keys, the form of an error
    dotted = [
        (page, code)
        for code, page in SPANS.items()
        if code.split(".")[0] in Experiment.model_fields and re.fullmatch(DOTTED, code)
    ]
    dotted = [one for one in dotted if not one[1].endswith(FILES)]
    assert [one for one in alone if not has_key(sections, one[1].split("."))] == []
    assert [one for one in dotted if not has_key([Experiment], one[1].split("."))] == []
    assert len(alone) > 30 and len(dotted) > 30


def test_parts_of_a_spec_are_read(tmp_path):
    """`train: {l0: 4}`, unless it holds a place for something."""
    (tmp_path / "cltdb.yaml").write_text(BASE)
    parts = [code for code in SPANS if (found := re.match(r"(\w+)[\w.]*: ", code)) and found[1] in Experiment.model_fields]
    parts = [code for code in parts if not re.search(r"…|\b[A-Z]+\b", code)]
    for code in parts:
        key, _, value = code.partition(": ")
        (tmp_path / "spec.yaml").write_text("name: shown\n" if "." in key else code)
        assert load_points(tmp_path / "spec.yaml", overrides=[f"{key}={value}"] * ("." in key)), SPANS[code]
    assert len(parts) > 10


def test_columns_are_in_their_tables():
    """`nodes.influence`."""
    named = {code: found.groups() for code in SPANS if (found := re.fullmatch(r"([a-z_]+)\.([a-z_]+)", code))}
    named = {code: one for code, one in named.items() if one[0] in TABLES and one[0] not in STAGES and one[1] not in FILES}
    assert [(SPANS[code], code) for code, (table, column) in named.items() if column not in TABLES[table]] == []
    assert len(named) > 5


def test_calls_are_there():
    """`cltdb.open(path)`, `db.sql`, with the arguments that are named."""
    db, n = cltdb.open("cltdb.duckdb"), 0
    for code, page in SPANS.items():
        if (found := re.match(r"(cltdb|db)\.([a-z][\w.]*)", code)) and not found[2].endswith(FILES):
            target = pkgutil.resolve_name(found[0]) if found[1] == "cltdb" else attrgetter(found[2])(db)
            if found[0] != code:
                taken = inspect.signature(target).parameters
                rest = any(one.kind is one.VAR_KEYWORD for one in taken.values())
                assert rest or {one.arg for one in ast.parse(code, mode="eval").body.keywords} <= set(taken), (page, code)
            n += 1
    assert n > 10


def test_columns_that_tables_of_a_page_explain_are_there():
    """The first column of tables headed `column`."""
    columns = set().union(*TABLES.values())
    for page in EVERY:
        for block in re.findall(r"^\| column .*\n\|[-| ]+\n((?:\|.*\n)+)", text_of(page), re.MULTILINE):
            named = {name for line in block.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
            assert named <= columns, (name_of(page), named - columns)
