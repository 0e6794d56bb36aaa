"""Tables that are made from other tables of the database: always what schema/derived/<name>.sql says of the rows that are there.

They are made group by group, a dictionary and a layer. Whoever loads or takes out rows marks their groups as stale in the same transaction
(`mark`) and makes them anew afterwards: what they should hold is read, for which no writer's lock is needed, and put in by pieces, each in one
transaction that also says how far the group has come (`stale_pieces`). A group stays stale until its last piece is in; after a kill the next
load goes on. Meanwhile readers see of each feature the rows that were right before, or all of the new ones. No artifact holds them.

Of large dictionaries rows of IN_ORDER, which are made layer by layer, are then moved into the order by which they are looked up (`scattered_pieces`).
"""

import math
import secrets
from functools import cache, partial
from typing import NamedTuple

from cltdb.database.store import SCHEMA, transaction
from cltdb.database.tables import all_tables, derived_tables

BATCH_ROWS = 500_000
"""Rows of the tables below that are read at once, about; at least those of one layer."""
OF_SOME_ROWS = {
    "head_edges_into": "SELECT count(via) FROM feature_edges",
    "strongest_edges": "SELECT count(*) FROM strongest_edges",
}
"""{derived table that is made from few rows of a large one, or keeps few: how many these are}. Layer by layer each took twice as long."""
SMALL_FEATURES = 10_000
"""What belongs to so many features is read and put in within a fraction of a second."""
PIECE_ROWS = 491_520
"""At most so many rows are put in by one transaction, and the rest of the last feature: a third of a CPU second."""
IN_ORDER = {"token_features": "place, layer, feature"}
"""{derived table with a place: the order in which the rows of a dictionary lie}. A search for few tokens read all of the table before."""
SCATTERED_FEATURES = 100_000
"""Rows of dictionaries of fewer features lie in so few row groups that their order makes no difference."""
MOVED_ROWS, MOVED_AT_ONCE = 600_000, 2_400_000
"""About so many rows are moved by one transaction, 0.3 to 0.5 CPU seconds, and read for several."""
LAYER = 2**32
"""The place of a feature is layer * LAYER + feature."""


class Piece(NamedTuple):
    """Rows that a derived table should hold of the features of a dictionary from place `start` to before `end`."""

    name: str
    dict_id: str
    start: int
    end: int
    marks: dict
    """{layer: mark that it had when the rows were read}"""
    rows: object
    """pyarrow.Table of all columns but dict_id, in the order of the definition."""


@cache
def definition(name):
    """The SELECT that makes the rows of a derived table: of dictionary $dict_id, layers $first to $last."""
    return (SCHEMA / "derived" / f"{name}.sql").read_text(encoding="utf-8")


def mark(connection, table, rows):
    """Marks as stale what is derived from `rows`: SQL that begins with FROM, over rows of `table`. Where these do not tell the layers of a
    derived table (features may be the source of edges into any layer), all that are there."""
    columns, new, marked = all_tables()[table].column_names, secrets.token_hex(8), []
    for name, derived in derived_tables().items():
        if table in derived.derived_from:
            group, stale = ", ".join(derived.replaced_together), rows
            if not set(derived.replaced_together) <= set(columns):
                stale = f"FROM {name} WHERE dict_id IN (SELECT DISTINCT dict_id {rows})"
            marked.append(f"SELECT DISTINCT '{name}', {group}, 0, '{new}' {stale}")
    if marked:
        connection.execute(f"INSERT OR REPLACE INTO stale_groups {' UNION ALL '.join(marked)}")


def is_stale(connection):
    """True where a derived table is not what its definition says."""
    [(found,)] = connection.execute(
        "SELECT count(*) > 0 FROM stale_groups"
    ).fetchall()  # a row that is left keeps tables from being registered
    return found


def is_settled(connection):
    """True where no derived table is to be made anew or put in order."""
    return connection.execute("SELECT NOT EXISTS (FROM stale_groups) AND NOT EXISTS (FROM scattered_rows)").fetchone()[0]


def refresh(connection, *, most_features=math.inf):
    """Makes stale groups anew on one connection that writes, those of dictionaries of which at most so many features are stale; of all, it puts rows in
    order too."""
    while pieces := stale_pieces(connection, most_features=most_features):
        for put in pieces:
            put(connection)
    while most_features == math.inf and (pieces := scattered_pieces(connection)):
        for move in pieces:
            move(connection)


def stale_pieces(connection, *, most_features=math.inf):
    """Reads what the first stale groups should hold; returns functions of a connection that put it in, each in one transaction. None where
    nothing is stale. First by name: explanation_words is made from best_explanations."""
    found = connection.execute(
        "SELECT derived, dict_id, list(struct_pack(layer, next_feature, mark) ORDER BY layer), coalesce(max(n_features), 0) * count(*)"
        " FROM stale_groups LEFT JOIN dictionaries USING (dict_id) GROUP BY derived, dict_id"
        " HAVING coalesce(max(n_features), 0) * count(*) <= $most ORDER BY derived, dict_id LIMIT 1",
        {"most": most_features},
    ).fetchall()
    if not found:
        return []
    [(name, dict_id, groups, n_features)] = found
    first, next_feature, last = groups[0]["layer"], groups[0]["next_feature"], groups[0]["layer"]
    n_layers = len(groups) if n_features <= SMALL_FEATURES else _layers_at_once(connection, name)
    for group in groups[1:n_layers]:
        if group["layer"] != last + 1 or next_feature or group["next_feature"]:
            break
        last += 1
    _, feature_column = _columns(name)
    rows = connection.sql(
        f"SELECT * EXCLUDE (dict_id) FROM ({definition(name)}) WHERE {feature_column} >= $next_feature",
        params={"dict_id": dict_id, "first": first, "last": last, "next_feature": next_feature},
    ).to_arrow_table()
    marks = {group["layer"]: group["mark"] for group in groups}
    whole = Piece(name, dict_id, first * LAYER + next_feature, (last + 1) * LAYER, marks, rows)
    return [partial(_put, piece=piece) for piece in _cut(whole)]


def _layers_at_once(connection, name):
    """How many layers make up about BATCH_ROWS of the largest table that a derived table is made from, or of the rows of OF_SOME_ROWS."""
    [(n_layers,)] = connection.execute("SELECT coalesce(max(n_layers), 1) FROM dictionaries").fetchall()
    if name in OF_SOME_ROWS:
        found = connection.execute(OF_SOME_ROWS[name])
    else:
        found = connection.execute(
            "SELECT coalesce(max(n), 0)::BIGINT FROM (SELECT sum(rows) AS n FROM loaded_parts"
            " WHERE list_contains(?, split_part(part, '/', 1)) GROUP BY split_part(part, '/', 1))",
            [list(derived_tables()[name].derived_from)],
        )
    [(n_rows,)] = found.fetchall()
    return max(1, BATCH_ROWS * n_layers // max(n_rows, 1))


def _columns(name):
    """Names of a derived table's columns of layer and feature; 0 in place of the second where its rows are of a whole layer."""
    table = derived_tables()[name]
    _, layer = table.replaced_together
    feature = layer.replace("layer", "feature")
    return layer, feature if feature in table.column_names else "0"


def _cut(piece):
    """The piece as several of about PIECE_ROWS rows: the rows of a feature are in one."""
    import numpy as np

    if piece.rows.num_rows <= PIECE_ROWS:
        yield piece
        return
    layer, feature = (0 if column == "0" else piece.rows[column].to_numpy().astype(np.int64) for column in _columns(piece.name))
    places = layer * LAYER + feature
    is_sorted = (places[1:] >= places[:-1]).all()
    ends = np.unique((places if is_sorted else np.sort(places))[PIECE_ROWS::PIECE_ROWS]).tolist()
    start = piece.start
    for end in [*(end for end in ends if end > start), piece.end]:
        if is_sorted:
            first, last = np.searchsorted(places, [start, end])
            rows = piece.rows.slice(first, last - first)
        else:
            rows = piece.rows.filter((places >= start) & (places < end))
        yield piece._replace(start=start, end=end, rows=rows)
        start = end


def _put(connection, piece):
    """Puts a piece in, unless one of its groups was marked or made anew meanwhile; returns 0 rows that were loaded."""
    layer, feature = _columns(piece.name)
    first, next_feature = divmod(piece.start, LAYER)
    last, end_feature = divmod(piece.end, LAYER)
    within = {"name": piece.name, "dict_id": piece.dict_id, "first": first, "last": last if end_feature else last - 1}
    expected = [(one, piece.marks[one], next_feature if one == first else 0) for one in range(first, within["last"] + 1)]
    groups = "FROM stale_groups WHERE derived = $name AND dict_id = $dict_id AND layer BETWEEN $first AND $last"
    with transaction(connection):
        if connection.execute(f"SELECT layer, mark, next_feature {groups} ORDER BY layer", within).fetchall() != expected:
            return 0
        connection.execute(
            f"DELETE FROM {piece.name} WHERE dict_id = $dict_id AND {layer} BETWEEN $first AND $last"
            f" AND {layer}::BIGINT * {LAYER} + {feature} BETWEEN {piece.start} AND {piece.end - 1}",
            {one: within[one] for one in ("dict_id", "first", "last")},
        )
        connection.register("made", piece.rows)
        connection.execute(f"INSERT INTO {piece.name} BY NAME SELECT ? AS dict_id, * FROM made", [piece.dict_id])
        connection.unregister("made")
        if piece.name in IN_ORDER:
            connection.execute(
                "INSERT OR REPLACE INTO scattered_rows SELECT $name, dict_id, 0, $mark FROM dictionaries"
                " WHERE dict_id = $dict_id AND n_features::BIGINT * n_layers >= $fewest",
                {"name": piece.name, "dict_id": piece.dict_id, "mark": secrets.token_hex(8), "fewest": SCATTERED_FEATURES},
            )
        if end_feature:
            connection.execute(
                f"UPDATE stale_groups SET next_feature = {end_feature} {groups[len('FROM stale_groups') :]}", within
            )
            within["last"] -= 1
        connection.execute(f"DELETE {groups}", within)
    return 0


# Rows that are put in order


class Moved(NamedTuple):
    """Rows of a derived table that are moved behind all others, those of a dictionary from place `start` to `end`, in their order."""

    name: str
    dict_id: str
    start: int
    end: int
    is_last: bool
    mark: str
    rows: object
    """pyarrow.Table of all columns"""


def scattered_pieces(connection):
    """Reads the next rows that are to be moved, of the first dictionary; returns functions of a connection that move them, each in one transaction.
    Readers find all rows at any time, in whatever order; after a kill the next load goes on. Asked where nothing is stale."""
    import numpy as np

    found = connection.execute("SELECT derived, dict_id, next_place, mark FROM scattered_rows ORDER BY ALL LIMIT 1").fetchall()
    if not found:
        return []
    [(name, dict_id, start, mark)] = found
    [(end, last)] = connection.execute(
        "SELECT coalesce(max(place) FILTER (n <= $most), min(place)), max(place) FROM (SELECT place, sum(count(*)) OVER (ORDER BY place) AS n"
        f" FROM {name} WHERE dict_id = $dict_id AND place >= $start GROUP BY place)",
        {"most": MOVED_AT_ONCE, "dict_id": dict_id, "start": start},
    ).fetchall()
    if end is None:
        end = last = start
    rows = connection.sql(
        f"FROM {name} WHERE dict_id = $dict_id AND place BETWEEN $start AND $end ORDER BY {IN_ORDER[name]}",
        params={"dict_id": dict_id, "start": start, "end": end},
    ).to_arrow_table()
    places, pieces = rows["place"].to_numpy(), []
    while not pieces or start <= end:
        first = int(places.searchsorted(np.uint64(start)))  # of another type both are compared as floats
        until = min(first + MOVED_ROWS, len(places)) - 1
        of_piece = int(places[until]) if until >= first else end
        after = int(places.searchsorted(np.uint64(of_piece), side="right"))
        pieces.append(Moved(name, dict_id, start, of_piece, of_piece == last, mark, rows.slice(first, after - first)))
        start = of_piece + 1
    return [partial(_move, piece=piece) for piece in pieces]


def _move(connection, piece):
    """Moves the rows of a piece, unless rows came in meanwhile; returns 0 rows that were loaded."""
    of_dictionary = {"name": piece.name, "dict_id": piece.dict_id}
    scattered = "scattered_rows WHERE derived = $name AND dict_id = $dict_id"
    with transaction(connection):
        if connection.execute(f"SELECT next_place, mark FROM {scattered}", of_dictionary).fetchall() != [
            (piece.start, piece.mark)
        ]:
            return 0
        [(n_rows,)] = connection.execute(
            f"DELETE FROM {piece.name} WHERE dict_id = ? AND place BETWEEN ? AND ?", [piece.dict_id, piece.start, piece.end]
        ).fetchall()
        assert n_rows == piece.rows.num_rows, f"{piece.name}: {n_rows} rows where {piece.rows.num_rows} were read"
        connection.register("moved", piece.rows)
        connection.execute(f"INSERT INTO {piece.name} BY NAME FROM moved")
        connection.unregister("moved")
        if piece.is_last:
            connection.execute(f"DELETE FROM {scattered}", of_dictionary)
        else:
            connection.execute(
                f"UPDATE scattered_rows SET next_place = {piece.end + 1} WHERE derived = $name AND dict_id = $dict_id",
                of_dictionary,
            )
    return 0
