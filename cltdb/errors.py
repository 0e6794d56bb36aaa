"""What can go wrong and how it is said.

Everything a user can mend is a `CltdbError`: where it happened, what was found there, what was expected, what to do.
The command line prints it on one line and exits with status 1. What only a bug can cause is an `assert`.
"""

import difflib
import numbers
import os
import signal

MAX_SHOWN = 80
"""Characters of a value that a message shows."""
WORDS = {None: "null", True: "true", False: "false"}


class CltdbError(Exception):
    """An error that a user can mend, printed as `error: <where>: found …; expected …; do this: …`."""

    def __init__(self, where, *, found, expected, do):
        self.where, self.found, self.expected, self.do = (" ".join(str(part).split()) for part in (where, found, expected, do))
        super().__init__(f"{self.where}: found {self.found}; expected {self.expected}; do this: {self.do}")

    def __reduce__(self):
        return (_rebuild, (type(self), self.where, self.found, self.expected, self.do))


def shown(value, *, quoted=True):
    """A value as messages show it, cut at 80 characters; a string with quotes or without; true, false and null as YAML and JSON have them."""
    text = WORDS[value] if value is None or isinstance(value, bool) else repr(value) if quoted else str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def escaped(text):
    """The text on one line, with nothing that moves a terminal's cursor."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


def shown_end(status):
    """What the exit status of a process tells: the signal that ended it where one did, and what SIGKILL mostly means. A signal is a negative status of
    Python's, and reaches others as 128 and its number from a shell, as 256 less its number from a launcher."""
    number = -status if status < 0 else 256 - status if status > 192 else status - 128 if status > 128 else 0
    if number not in {*signal.Signals}:
        return f"exit status {status}"
    name = signal.Signals(number).name
    return f"{name}, mostly sent by the system as memory ran out" if name == "SIGKILL" else name


def nearest(name, known, *, otherwise):
    """What to do about a name that is not among the `known`: the one that was probably meant, or `otherwise`."""
    near = difflib.get_close_matches(str(name)[:MAX_SHOWN], known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise


def _rebuild(cls, where, found, expected, do):
    """The same error again, in another process (exceptions with keyword arguments do not travel by themselves)."""
    return cls(where, found=found, expected=expected, do=do)


def check_count(where, value):
    """The value as an int; CltdbError where it is no whole number of at least 0, or one that 63 bits do not hold."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise CltdbError(where, found=shown(value), expected="a whole number, 0 or more", do="mend it")
    return int(value)


def check_share(where, value):
    """CltdbError where the value is no number from 0 to 1."""
    if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise CltdbError(where, found=shown(value), expected="a share between 0 and 1", do="mend it")


def check_text(where, value):
    """CltdbError where the value is no text."""
    if not isinstance(value, str):
        raise CltdbError(where, found=shown(value), expected="a text", do="give one")


class SpecError(CltdbError):
    """A spec or project file, or a `--set`, that does not say something valid."""


class DataError(CltdbError):
    """Text, a cache shard or another input whose content cannot be used."""


class NonFiniteError(CltdbError):
    """A loss or gradient that is not a finite number; says at which step and in which layer."""


def not_allowed(error):
    """The error for a file or folder that may not be read, or not be written to, named itself rather than what was to be in it."""
    path = os.path.abspath(os.fsdecode(error.filename))
    path = path if os.path.exists(path) else os.path.dirname(path)
    is_folder = os.path.isdir(path)
    verb = "write to" if os.access(path, os.R_OK | os.X_OK * is_folder) else "read"
    return CltdbError(
        path,
        found=f"a {'folder' if is_folder else 'file'} one cannot {verb} ({error.strerror})",
        expected=f"permission to {verb} it",
        do="run as its owner, or give another path",
    )
