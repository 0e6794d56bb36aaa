"""Records of units as tests look at them and spoil them, past `cltdb.engine.units`."""

import sqlite3
from contextlib import closing

from cltdb.engine.units import Units


def database(workspace):
    """The SQLite file, to read and change as one likes."""
    connection = sqlite3.connect(workspace / "units/records.sqlite", isolation_level=None)
    return closing(connection)


def keys(workspace, kind):
    """The keys of all records of a kind, sorted."""
    if not (workspace / "units/records.sqlite").exists():
        return []
    with database(workspace) as connection:
        if connection.execute("PRAGMA user_version").fetchone() == (0,):  # it is being made
            return []
        return [key for (key,) in connection.execute("SELECT key FROM units WHERE kind = ? ORDER BY key", (kind,))]


def records(workspace, kind):
    """{key: record} of a kind."""
    return Units(workspace, workspace / "look/here").get_many(kind, keys(workspace, kind))


def flip(workspace, kind, key, place):
    """Changes one bit of a byte of a record as it is stored."""
    with database(workspace) as connection:
        where = "WHERE kind = ? AND key = ?"
        [content] = map(bytearray, connection.execute(f"SELECT record FROM units {where}", (kind, key)).fetchone())
        content[place] ^= 1
        connection.execute(f"UPDATE units SET record = ? {where}", (bytes(content), kind, key))


def remove(workspace, kind):
    with database(workspace) as connection:
        connection.execute("DELETE FROM units WHERE kind = ?", (kind,))
