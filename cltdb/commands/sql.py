"""`cltdb sql`: read-only SQL on the database."""

import argparse
import sys
from pathlib import Path

from cltdb import output
from cltdb.commands.common import Command, add_source, asked_database, both_or_neither, this_project
from cltdb.errors import CltdbError


def _seconds(text):
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def add_options(parser):
    parser.add_argument("statement", nargs="?", metavar="QUERY", help="one SQL statement")
    parser.add_argument("--query", metavar="NAME", help="ask a named query, which ships with cltdb")
    parser.add_argument(
        "-p",
        action="append",
        default=[],
        dest="parameters",
        metavar="KEY=VALUE",
        help="a parameter of the query; VALUE is YAML; may stand several times",
    )
    add_source(parser)
    parser.add_argument("--list", action="store_true", help="list the named queries")
    parser.add_argument(
        "--describe", metavar="NAME", help="tell what a named query finds and reads, its parameters and an example"
    )
    parser.add_argument(
        "--format",
        choices=["table", "csv", "json", "parquet"],
        help="form of the answer (default: table on a terminal, csv in a pipe)",
    )
    parser.add_argument("-o", dest="output", metavar="FILE", help="write the answer to a new file")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace a file that is there; the database, specs and the workspace are never written to",
    )
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end the query after this time (default: no limit)")


def sql_command(options):
    from cltdb.database import sql_command as sql
    from cltdb.database.interrupts import end_at_sigterm

    if options.list:
        for name, about in sql.list_queries():
            print(f"{name:<32} {about}")
        return
    if options.describe:
        print("\n".join(sql.described(sql.named_query(options.describe))))
        return
    if (options.statement is None) == (options.query is None):
        raise CltdbError(
            "cltdb sql",
            found=f"{both_or_neither(options.query)} of QUERY and --query",
            expected="one of them",
            do='write cltdb sql "SELECT …" or cltdb sql --query NAME',
        )
    database = asked_database(options)
    if options.output:
        output.check_target(options.output, project=this_project(), overwrite=options.overwrite)
        _require_outside(options.output, database)
    statement = sql.named_query(options.query) if options.query else options.statement
    end_at_sigterm()
    sql.run_query(
        database,
        statement,
        params=_parameters(options.parameters),
        format=options.format or ("table" if sys.stdout.isatty() and not options.output else "csv"),
        output=options.output,
        timeout_s=options.timeout,
    )


def _require_outside(target, database):
    """CltdbError where a file would be written over the database or into the exported folder that is asked."""
    if Path(target).resolve().is_relative_to(database.resolve()):
        raise CltdbError(
            str(target),
            found=f"a path in {database}, which is asked",
            expected="a file elsewhere",
            do="give another path with -o",
        )


def _parameters(pairs):
    from cltdb.engine.yaml_text import read_pair

    parameters = {}
    for pair in pairs:
        name, value = read_pair(pair, option="-p", example="k=2")
        if name in parameters:
            raise CltdbError(f"cltdb sql -p {name}", found="the parameter twice", expected="each once", do="leave one out")
        parameters[name] = value
    return parameters


COMMAND = Command(
    "ask the database in SQL, which cannot change it",
    "cltdb sql --query shared_features -p k=2 --format csv",
    add_options,
    sql_command,
    asks=True,
)
