"""Tables that are made from other tables of the database: always what schema/derived/<name>.sql says of the rows that are there.

They are made group by group, a dictionary and a layer. Whoever loads or takes out rows marks their groups as stale in the same
transaction (`mark`) and makes them anew afterwards (`refresh_some`); after a kill the next load does that. Meanwhile readers see the
rows that were right before. No artifact holds them.
"""

from functools import cache

from cltdb.database.store import SCHEMA, transaction
from cltdb.database.tables import all_tables, derived_tables

BATCH_ROWS = 500_000
"""Rows of the tables below that one transaction looks at, about; at least those of one layer."""


@cache
def definition(name):
    """The SELECT that makes the rows of a derived table: of dictionary $dict_id, layers $first to $last."""
    return (SCHEMA / "derived" / f"{name}.sql").read_text(encoding="utf-8")


def mark(connection, table, rows):
    """Marks as stale what is derived from `rows`: SQL that begins with FROM, over rows of `table`. Where these do not tell the layers of a
    derived table (features may be the source of edges into any layer), all that are there."""
    columns = all_tables()[table].column_names
    for name, derived in derived_tables().items():
        if table in derived.derived_from:
            group, stale = ", ".join(derived.replaced_together), rows
            if not set(derived.replaced_together) <= set(columns):
                stale = f"FROM {name} WHERE dict_id IN (SELECT DISTINCT dict_id {rows})"
            connection.execute(f"INSERT INTO stale_groups SELECT DISTINCT '{name}', {group} {stale} ON CONFLICT DO NOTHING")


def is_stale(connection):
    """True where a derived table is not what its definition says."""
    return connection.execute("SELECT count(*) > 0 FROM stale_groups").fetchone()[0]


def refresh_some(connection):
    """Makes the first stale groups anew, in one transaction; returns False where none was stale."""
    found = connection.execute(
        "SELECT derived, dict_id, list(layer ORDER BY layer) FROM stale_groups GROUP BY ALL ORDER BY ALL LIMIT 1"
    ).fetchone()
    if found is None:
        return False
    name, dict_id, layers = found
    layers = layers[: _layers_at_once(connection, name)]
    _, layer_column = derived_tables()[name].replaced_together
    within = {"dict_id": dict_id, "first": layers[0], "last": layers[-1]}
    with transaction(connection):
        connection.execute(f"DELETE FROM {name} WHERE dict_id = $dict_id AND {layer_column} BETWEEN $first AND $last", within)
        connection.execute(f"INSERT INTO {name} BY NAME {definition(name)}", within)
        connection.execute(
            "DELETE FROM stale_groups WHERE derived = $name AND dict_id = $dict_id AND layer BETWEEN $first AND $last",
            {"name": name, **within},
        )
    return True


def _layers_at_once(connection, name):
    """How many layers make up about BATCH_ROWS of the largest table that a derived table is made from."""
    n_rows, n_layers = connection.execute(
        "SELECT coalesce(max(n), 0)::BIGINT, (SELECT coalesce(max(n_layers), 1) FROM dictionaries) FROM"
        " (SELECT sum(rows) AS n FROM loaded_parts WHERE list_contains(?, split_part(part, '/', 1)) GROUP BY split_part(part, '/', 1))",
        [list(derived_tables()[name].derived_from)],
    ).fetchone()
    return max(1, BATCH_ROWS * n_layers // max(n_rows, 1))
