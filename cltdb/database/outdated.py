"""A database that an earlier cltdb made, brought up to date by whoever asks it in its project."""

import logging
import threading
from contextlib import ExitStack, contextmanager

from cltdb.database.project import naming_section
from cltdb.database.store import READ_TIMEOUT_S, Outdated, behind, connect
from cltdb.engine.locks import held
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
_updating = threading.Lock()


@contextmanager
def connect_to_ask(path, *, timeout_s=None, threads=None):
    """A reader's connection, to a database that is brought up to date first where an earlier cltdb made it. Outdated where that cannot be done, and of
    a database without a project, which is another's to change. The options are those of `connect`."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connect(path, timeout_s=timeout_s, threads=threads))
        except Outdated as outdated:
            if naming_section(path) is None:
                raise
            _bring_up_to_date(path, READ_TIMEOUT_S if timeout_s is None else timeout_s, outdated)
            connection = stack.enter_context(connect(path, timeout_s=timeout_s, threads=threads))
        else:
            if behind(path).exists() and naming_section(path) is not None:
                stack.close()
                _settle(path)
                connection = stack.enter_context(connect(path, timeout_s=timeout_s, threads=threads))
        yield connection


def _bring_up_to_date(path, timeout_s, outdated):
    """Applies the migrations that the database at `path` lacks, makes anew what is made from its tables, and says so."""
    with _updating:  # of several threads one does it
        try:
            with connect(path, timeout_s=timeout_s):
                return
        except Outdated:
            pass
        try:
            with connect(path, write=True, timeout_s=timeout_s):
                logger.warning("an earlier cltdb made %s: it is brought up to date", path)
        except CltdbError as error:
            raise Outdated(
                str(path),
                found=f"{outdated.found}, and as it was to be brought up to date, {error.found}",
                expected=outdated.expected,
                do=f"{error.do}; then ask again, which brings it up to date",
            ) from error
        _settle(path)


class _Taken(Exception):
    """Another process settles the database."""


def _settle(path):
    """Makes anew what is made from the tables of a database whose migrations were applied, unless somebody is at it. Whoever was killed at it holds the
    mark no more."""
    from cltdb.database.load import settle

    try:
        with held(behind(path), refused=_Taken()):
            settle(path)
            behind(path).unlink(missing_ok=True)
    except _Taken:
        pass
