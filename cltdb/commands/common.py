"""What commands share: their parser, the arguments that name a spec, the project, paths as they are shown."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cltdb.errors import CltdbError


class Parser(argparse.ArgumentParser):
    """argparse whose errors have cltdb's one form, with an example in the help and with --debug."""

    def __init__(self, *, example=None, **settings):
        epilog = {"epilog": f"example:\n  {example}"} if example else {}
        super().__init__(formatter_class=_HelpFormatter, **epilog | settings)
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")

    def parse_known_args(self, args=None, namespace=None):
        """Refuses here what this parser does not know, so that the error names the command whose help tells more."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message):
        message = message.replace("the following arguments are required: ", "no ")
        raise CltdbError(self.prog, found=message, expected="arguments as in its help", do=f"see {self.prog} --help")

    def _print_message(self, message, file=None):
        print(message, end="", file=file)  # argparse passes over a stream that does not take it


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog):
        super().__init__(prog)
        self._action_max_length = 15  # the names of all commands stand on the line of their help


class Command(NamedTuple):
    """What a module says of its command."""

    help: str
    """What it does: a line of `cltdb --help`."""
    example: str
    """A command line; several with two spaces before the second and the following."""
    add_options: Callable = lambda parser: None
    """add_options(parser) adds its arguments."""
    function: Callable | None = None
    """function(options) runs it; returns the exit status, or None for 0. None: the parsers that add_options adds name their own."""
    tells: bool = False
    """Whether stdout shows what it does as it goes; elsewhere stdout is the answer alone."""
    asks: bool = False
    """Whether it asks the database and no more: nothing of its process has to be ended in order once the answer is out."""


def check_place(arguments):
    """CltdbError for a command line that no command could work with."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise CltdbError(
            "the working directory", found="a folder that was removed", expected="one that is there", do="change to another one"
        ) from error
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise CltdbError(
                f"the argument {ascii(argument)}",
                found=f"bytes that are no text in {sys.getfilesystemencoding()}",
                expected="text in the encoding of the terminal",
                do="write it anew in a terminal that uses UTF-8, or rename the file it names",
            )


def add_commands(parser, commands, *, dest, metavar):
    """Adds a parser for each of `commands`, {name: Command}; options.<dest> is then the name that was given."""
    parsers = parser.add_subparsers(dest=dest, metavar=metavar, required=True)
    for name, command in commands.items():
        sub = parsers.add_parser(name, help=command.help, description=command.help, example=command.example)
        if command.function:
            sub.set_defaults(function=command.function)
        command.add_options(sub)


def add_spec(parser):
    """The arguments of a command that reads a spec."""
    parser.add_argument("spec", metavar="SPEC", help="a YAML file, such as experiments/quickstart.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a key of the spec; VALUE is YAML, quoted for the shell; may stand several times",
    )
    parser.add_argument("--point", metavar="NAME", help="of a sweep, take this point alone")


def load_spec(options, *, before=(), extra=()):
    """The experiment of `add_spec`'s arguments, with further overrides: those before --set, which it overrides, and extra ones."""
    from cltdb.spec import load

    return load(options.spec, overrides=[*before, *options.set, *extra], point=options.point)


def load_points(options):
    """The points of a sweep, or the one experiment; with --point that point alone."""
    from cltdb import spec

    return [load_spec(options)] if options.point else spec.load_points(options.spec, overrides=options.set)


@contextmanager
def option_named(options):
    """Within the block an error about a key of the spec that an option of the command line has set names the option. options: {how `where` of such an
    error begins, a regular expression: the option, in which \\1 is its first group}."""
    try:
        yield
    except CltdbError as error:
        for begins, option in options.items():
            if found := re.match(begins, error.where):
                do = re.sub(begins, option, error.do)
                raise CltdbError(found.expand(option), found=error.found, expected=error.expected, do=do) from error
        raise


def run_into_database(loaded, stage):
    """Runs a stage, with what it needs, and brings its artifact into the database, with the model's, whose vocabulary spells the tokens; returns
    the stage's directory. Where all other stages are finished, stage database is brought up to date too."""
    from cltdb.database.artifacts import bring_in, publish_records
    from cltdb.engine.plan import plan
    from cltdb.engine.run import run

    others = [item for item in plan(loaded) if item.stage not in (stage, "database")]
    has_all = all(item.action == "cached" for item in others)
    results = run(loaded, wanted=loaded.experiment.needed(stage) | ({"database"} if has_all else set()))
    made = {result.stage: result.directory for result in results}
    bring_in(loaded.project, *((made[name].name, made[name]) for name in ("model", stage) if made.get(name)))
    publish_records(loaded.project)
    return made[stage]


def both_or_neither(one):
    """Which of the two it is, of two options of which exactly one is wanted. one: the value of either of them."""
    return "neither" if one is None else "both"


def this_project():
    """The project that the working directory belongs to."""
    from cltdb.spec import find_project

    return find_project(Path.cwd())


def add_source(parser, *names):
    """The option that names another database than the project's. names: further ones of the option."""
    parser.add_argument(
        "--from",
        *names,
        dest="source",
        metavar="PATH",
        help="ask a folder that cltdb db export wrote, or a database file, in place of the project's",
    )


def asked_database(options):
    """Path of the database or exported folder that `add_source`'s option names, or of the project's database."""
    if not options.source:
        from cltdb.database.project import project_database

        return project_database(Path.cwd())
    if not Path(options.source).exists():
        expected = "a database file, or a folder that cltdb db export wrote"
        raise CltdbError(options.source, found="nothing there", expected=expected, do="mend the path")
    return Path(options.source)


def shown_path(path, root):
    """A path of the project in folder `root` as seen from the working directory."""
    return os.path.relpath(path, Path.cwd()) if Path(path).is_relative_to(root) else str(path)
