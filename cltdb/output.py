"""What commands print and the files they write: streams that never fail after the work, JSON without NaN, files that are never lost."""

import json
import logging
import math
import os
import sys
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
YAML_SUFFIXES = (".yaml", ".yml")


def prepare_streams():
    """Makes stdout and stderr ready for any text: characters that they cannot show are escaped. A closed stream becomes /dev/null, so
    that its number is not given to a file that is opened later."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the process ends)
        elif hasattr(stream, "reconfigure"):  # not those that tests put in their place
            stream.reconfigure(errors="backslashreplace")


def finish_streams():
    """Writes out what stdout still holds; CltdbError where it takes no more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refused(error) from error


def silence(stream):
    """Lets a stream that takes no more end without a further error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def refused(error):
    """The `CltdbError` for a stdout that takes no more."""
    return CltdbError(
        "standard output", found=error.strerror, expected="a place that takes the output", do="make room, or send it elsewhere"
    )


def say(*lines):
    """Prints lines after work that is done. A stdout that takes no more is a warning: the work has not failed."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        logger.warning("the work is done, but standard output did not take what was to be printed: %s", error.strerror)


def plain(value):
    """The value as JSON can hold it: NaN and infinities None, whole decimals integers, those of more digits than a float has text, times and intervals
    ISO 8601, bytes hexadecimal."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return number if Decimal(repr(number := float(value))) == value else f"{value:f}"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "nanoseconds"):  # an interval, as Arrow has it
        return _duration(*value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def _duration(months, days, nanoseconds):
    """An interval as ISO 8601 writes it, in the three parts that a database keeps apart: P1M2DT3.5S."""
    parts = f"{months}M" * (months != 0) + f"{days}D" * (days != 0)
    return f"P{parts}T{Decimal(nanoseconds).scaleb(-9).normalize():f}S" if nanoseconds or not parts else f"P{parts}"


def json_text(value, *, indent=None):
    """JSON that every reader takes."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def unique_names(names):
    """Column names, repeated ones numbered: a, a, a_1 become a, a_2, a_1."""
    taken, unique = set(names), []
    for name in names:
        number, wanted = 1, name
        while wanted in unique or number > 1 and wanted in taken:
            wanted, number = f"{name}_{number}", number + 1
        unique.append(wanted)
    return unique


def check_target(path, *, project, overwrite):
    """CltdbError where a command must not write a file at `path`: the database, a spec, cltdb.yaml and the workspace never, another
    file that is there only with `overwrite`, which is None where a command has no such option. project: `config.Project`."""
    path = Path(path)
    reason = _protected(path, project)
    if reason:
        raise CltdbError(str(path), found=reason, expected="a file of your own", do="give another path with -o")
    if path.is_dir():
        raise CltdbError(str(path), found="a folder", expected="a file", do="give the path of a file in it")
    if path.is_file() and not overwrite:
        do = "give another path" + ("" if overwrite is None else ", or add --overwrite")
        raise CltdbError(str(path), found="a file that is there already", expected="a new file", do=do)


def check_folder(path, *, project):
    """CltdbError where a command must not write a folder: the workspace, and what stands for the database or a file."""
    path = Path(path)
    reason = _protected(path, project) or ("a file" if path.is_file() else None)
    if reason:
        raise CltdbError(str(path), found=reason, expected="a folder of your own", do="give another one with -o")


def _protected(path, project):
    """What stands at `path` that no command writes over, or None."""
    database = project.database
    real, beside = path.resolve(), [Path(f"{database}{suffix}") for suffix in ("", ".wal", ".turn", ".lock", ".behind")]
    if any(real == other.resolve() or _same_file(path, other) for other in beside):
        return "the database or a file that belongs to it"
    if real.is_relative_to(project.workspace.resolve()):
        return "a path in the workspace, where stages alone write"
    if path.suffix.lower() in YAML_SUFFIXES and path.exists():
        return "a spec or another YAML file"
    return None


def _same_file(path, other):
    """True of two names of one file, hard links included."""
    return path.exists() and other.exists() and os.path.samefile(path, other)
