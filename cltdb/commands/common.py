"""What commands share: their parser, the arguments that name a spec, the project, paths as they are shown."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cltdb.errors import CltdbError


class Parser(argparse.ArgumentParser):
    """argparse whose errors have cltdb's one form, with --debug and examples. example: one command line or several, indented by two."""

    def __init__(self, *, example=None, **settings):
        epilog = {"epilog": f"example:\n  {example}"} if example else {}
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **epilog | settings)
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    def error(self, message):
        raise CltdbError(self.prog, found=message, expected="arguments as in its help", do=f"see {self.prog} --help")

    def _print_message(self, message, file=None):
        print(message, end="", file=file)  # argparse passes over a stream that does not take it


class Command(NamedTuple):
    """help: what `cltdb --help` says of it. add_options(parser) adds its arguments; function(options) runs it and returns the exit status,
    or None for 0."""

    help: str
    example: str
    add_options: Callable
    function: Callable


def add_spec(parser):
    """The arguments of a command that reads a spec."""
    parser.add_argument("spec", help="a YAML file, such as experiments/quickstart.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key; the value is YAML, quoted for the shell",
    )
    parser.add_argument("--point", metavar="NAME", help="of a sweep, this point alone")


def load_spec(options, *, extra=()):
    """The experiment of `add_spec`'s arguments, with further overrides."""
    from cltdb.engine.config import load

    return load(options.spec, overrides=[*options.set, *extra], point=options.point)


def load_points(options):
    """The points of a sweep, or the one experiment; with --point that point alone."""
    from cltdb.engine import config

    return [load_spec(options)] if options.point else config.load_points(options.spec, overrides=options.set)


def this_project():
    """The project that the working directory belongs to."""
    from cltdb.engine.config import find_project

    return find_project(Path.cwd())


def this_database():
    return this_project().database


def shown_path(path, root):
    """A path of the project in folder `root` as seen from the working directory."""
    return os.path.relpath(path, Path.cwd()) if Path(path).is_relative_to(root) else str(path)


def end_at_sigterm():
    """SIGTERM ends this process as an error would, so that temporary files are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
