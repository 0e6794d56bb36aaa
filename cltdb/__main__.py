"""The command line: `cltdb COMMAND`. Parses, runs one command, says errors in their one form, returns the exit status."""

import errno
import gc
import logging
import os
import sys

from cltdb import __version__, log, output
from cltdb.commands import COMMANDS
from cltdb.commands.common import Parser, add_commands, check_place
from cltdb.errors import CltdbError, not_allowed

EXAMPLES = """examples:
  cltdb run experiments/quickstart.yaml                 run what is missing, then fill the database
  cltdb plan experiments/quickstart.yaml --set 'train.l0=12'
  cltdb sql "SELECT layer, feature, text, score FROM feature_cards ORDER BY score DESC LIMIT 10"
  cltdb dash                                            browse features and circuits
"""


def build_parser(commands=COMMANDS):
    """The parser of the command line, with all options of `commands`."""
    parser = Parser(
        prog="cltdb",
        description="Declarative experiments and a feature database for mechanistic interpretability.",
        epilog=EXAMPLES,
    )
    parser.set_defaults(debug=False)
    parser.add_argument("--version", action="version", version=f"cltdb {__version__}", help="show cltdb's version")
    add_commands(parser, commands, dest="command", metavar="COMMAND")
    return parser


def main(arguments=None):
    """Runs one command; returns the exit status: 0 ok, 1 error, 130 interrupted. Without `arguments` it runs what the command line of this process
    says."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads sleep: those that spin stop another run's
    output.prepare_streams()
    if arguments is not None:
        return _run(arguments)
    command = sys.argv[1] if sys.argv[1:] else None
    if command not in COMMANDS or not COMMANDS[command].asks:
        return _run(sys.argv[1:])
    gc.disable()  # imports make many objects and no garbage: a twentieth of the time of a question
    return _run(sys.argv[1:], of_question=True) or end_process()


def end_process():
    """Ends this process, whose answer is out, without freeing all that it holds piece by piece: a sixth of the time of a question."""
    if folder := sys.modules.get("cltdb.database.folder"):
        folder.close_instances()
    os._exit(0)


def _run(arguments, *, of_question=False):
    """of_question: whether this process ends with this command, which asks the database and no more."""
    named = {name: COMMANDS[name] for name in arguments[:1] if name in COMMANDS}
    parser = build_parser(named or COMMANDS)
    try:
        check_place(arguments)
        options = parser.parse_args(arguments or ["--help"])
    except SystemExit:  # help or the version was asked for and printed
        return _ended()
    except BrokenPipeError:
        output.silence(sys.stdout)
        return 0
    except OSError as error:
        return _failed(output.refused(error))
    except CltdbError as error:
        return _failed(error)
    if COMMANDS[options.command].tells:
        log.setup(debug=options.debug, stream=sys.stdout)
    else:  # stdout is the answer, and the first line on stderr the error, unless someone looks on or wants to see how far it is
        log.setup(debug=options.debug, level=logging.INFO if log.wants_bars() or sys.stderr.isatty() else logging.WARNING)
    try:
        from cltdb.engine import revisions

        if of_question:
            from cltdb.database.native import use_compiled_part

            use_compiled_part()
        with revisions.asked_once():
            status = options.function(options)
        return _ended() or status or 0
    except KeyboardInterrupt:
        print("interrupted; run again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        output.silence(sys.stdout)
        return 0
    except CltdbError as error:
        if options.debug:
            raise
        return _failed(error)
    except Exception as error:
        if options.debug:
            raise
        return _failed(_unforeseen(error, options.command))


def _ended():
    """The exit status once what was printed is written out: 1 where stdout did not take it."""
    try:
        output.finish_streams()
    except BrokenPipeError:
        output.silence(sys.stdout)
    except CltdbError as error:
        return _failed(error)
    return 0


def _failed(error):
    """Prints the one line of an error; returns the exit status."""
    try:
        sys.stdout.flush()
    except OSError:  # it takes no more, which may be what the error says
        output.silence(sys.stdout)
    print(f"error: {error}", file=sys.stderr)
    return 1


def _unforeseen(error, command):
    """The `CltdbError` to show for an exception that no command expected."""
    if (
        isinstance(error, OSError)
        and error.filename is None
        and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
    ):
        return output.refused(error)
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return not_allowed(error)
        return CltdbError(error.filename, found=error.strerror, expected="a path that can be used", do="mend it or give another")
    from cltdb.memory import ran_out

    return ran_out(error, f"cltdb {command}") or CltdbError(
        f"cltdb {command}",
        found=f"{type(error).__name__} ({' '.join(str(error).split())[:300]})",
        expected="no such failure",
        do="run again with --debug and report the traceback; finished artifacts are kept",
    )


if __name__ == "__main__":
    sys.exit(main())
