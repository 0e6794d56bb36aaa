"""Quick proofs that nothing is wrong, for large tables: no sorting, no hashing of their rows. What is not proven is not wrong yet: the exact
question is asked then (check.py).

- Rows that lie in the rising order of their key, as stages write them, have each key once; so do rows in several such runs where these do not overlap.
- Features that are numbered without a gap, and so nodes, are there where a number is between the first and the last.
- Windows lie in the text of their harvest where the token at each peak is the text's.
"""

from cltdb.database.literals import quoted

NO_HEAD = ("'~'", "''")
"""After or before all heads, such as L3H2: where rows without one lie."""
ORDERS = {
    "windows": ("dict_id", "layer", "feature", "if(band = 'top', '', band)", "rank"),
    "edges": ("graph_id", "target_id", "source_id"),
    "feature_edges": (
        "dict_id", "source_layer", "source_feature", "target_layer", "target_feature", "coalesce(via, {no_head})",
    ),
    "input_edges": ("dict_id", "layer", "feature", "kind", "input", "coalesce(via, {no_head})"),
    "token_features": ("dict_id", "role", "token", "layer", "feature"),
}  # fmt: skip
"""{table: expressions of its key in the order in which rows lie}, where it is not that of the key."""


MOST_RUNS = 100_000
"""Rows that lie in more runs are not looked at."""
MOST_REGIONS = 100
"""Of more places where runs overlap all rows are asked."""


def keys_that_may_stand_twice(connection, table):
    """SQL of a condition that all rows of a `Table` meet whose key stands twice. Rows lie in runs of one dictionary or graph, such as what one process
    loaded at once, in which the key strictly rises: a key that stands twice is in two runs, between the ends of both."""
    order = ORDERS.get(table.name, table.key)
    orders = dict.fromkeys(tuple(column.format(no_head=no_head) for column in order) for no_head in NO_HEAD)
    fewest = None
    for columns in orders if len(order) > 1 else ():
        found = _overlaps(connection, table.name, columns)
        if found is not None and (fewest is None or len(found) < len(fewest)):
            fewest = found
        if not fewest:
            break
    if fewest is None or len(fewest) > MOST_REGIONS:
        return "true"
    group, next_column, *_ = order
    places = (f"{group} = {quoted(of)} AND {next_column} BETWEEN {quoted(low)} AND {quoted(high)}" for of, low, high in fewest)
    return " OR ".join(places) or "false"


def _overlaps(connection, table, columns):
    """Where runs overlap: values of the first column and from where to where those of the second go; None where this cannot be told."""
    named = [f"{column} AS k{number}, lag({column}) OVER () AS p{number}" for number, column in enumerate(columns)]
    keys, before = ([f"{side}{number}" for number in range(len(columns))] for side in "kp")
    rising = f"{keys[-1]} > {before[-1]}"
    for key, other in [*zip(keys, before, strict=True)][-2:0:-1]:
        rising = f"({key} > {other} OR {key} = {other} AND {rising})"
    firsts = connection.execute(
        f"SELECT {', '.join(keys + before)} FROM (SELECT {', '.join(named)} FROM {table}) WHERE NOT coalesce(k0 = p0 AND {rising}, false)"
        f" LIMIT {MOST_RUNS + 1}"
    ).fetchall()
    last = connection.execute(
        f"SELECT {', '.join(columns)} FROM {table} LIMIT 1 OFFSET (SELECT greatest(count(*) - 1, 0) FROM {table})"
    ).fetchall()
    runs = list(zip([row[: len(keys)] for row in firsts], [row[len(keys) :] for row in firsts[1:]] + last, strict=True))
    if len(firsts) > MOST_RUNS or any(None in key for run in runs for key in run):
        return None
    regions, end = set(), ()
    for begins, ends in sorted(runs):
        if begins <= end:
            regions.add((begins[0], begins[1], min(end, ends)[1]))
        end = max(end, ends)
    return regions


NUMBERED = {
    "features": """
        SELECT dict_id, n_layers, n_features FROM dictionaries JOIN (
            SELECT dict_id, count(*) AS n, count(DISTINCT layer::BIGINT * 4294967296 + feature) AS n_distinct, min(layer) AS first_layer,
                   max(layer) AS last_layer, min(feature) AS first, max(feature) AS last
            FROM features GROUP BY dict_id) USING (dict_id)
        WHERE n = n_distinct AND n = n_layers::BIGINT * n_features AND least(first_layer, first) >= 0
          AND last_layer < n_layers AND last < n_features""",
    "nodes": """
        SELECT graph_id, count(*) AS n_nodes FROM nodes GROUP BY graph_id
        HAVING count(*) = count(DISTINCT node_id) AND min(node_id) = 0 AND max(node_id) = count(*) - 1""",
}
"""Tables that others refer to by a dictionary or graph and numbers: of which of these all numbers are there, and how many of each."""


def count_numbered(connection, large):
    """Makes temporary tables numbered_<table> of NUMBERED, where there are large tables, names."""
    for name, sql in NUMBERED.items() if large else ():
        connection.execute(f"CREATE TEMP TABLE numbered_{name} AS {sql}")


def refers_to_numbers(connection, table, reference):
    """True where all rows of a `Table` refer to rows of `reference.table`, of which all numbers are there."""
    if reference.table not in NUMBERED:
        return False
    group, *numbers = reference.columns
    of_group, *_ = reference.other_columns
    names = connection.execute(f"FROM temp.numbered_{reference.table} LIMIT 0").description
    inside = " AND ".join(f"t.{number} BETWEEN 0 AND n.{end[0]} - 1" for number, end in zip(numbers, names[1:], strict=True))
    null = " OR ".join(f"t.{column} IS NULL" for column in reference.columns)
    sql = (
        f"SELECT count(*) FROM {table.name} AS t LEFT JOIN temp.numbered_{reference.table} AS n ON n.{of_group} = t.{group}"
        f" WHERE NOT coalesce({inside}, false) AND NOT ({null})"
    )
    return connection.execute(sql).fetchone() == (0,)


def lie_in_their_text(connection):
    """True where every window whose tokens are a slice of table harvested_text ends inside its text and has peak_token at its peak."""
    return all(
        _in_text(connection, dict_id)
        for (dict_id,) in connection.execute("SELECT DISTINCT dict_id FROM windows WHERE tokens IS NULL").fetchall()
    )


def _in_text(connection, dict_id):
    import numpy as np

    text = connection.sql(
        "SELECT sequence, tokens FROM harvested_text WHERE dict_id = $dict_id AND sequence BETWEEN 0 AND 4294967295 ORDER BY sequence",
        params={"dict_id": dict_id},
    ).to_arrow_table()
    if not text.num_rows:
        return False
    tokens = text["tokens"].combine_chunks()
    flat, offsets = tokens.flatten().to_numpy(), np.cumsum([0, *tokens.value_lengths().fill_null(0).to_numpy()])
    sequences = text["sequence"].to_numpy()
    row_of = np.full(sequences[-1] + 1, -1)
    row_of[sequences] = range(len(sequences))
    for (layer,) in connection.execute("SELECT DISTINCT layer FROM windows WHERE dict_id = ?", [dict_id]).fetchall():
        windows = connection.sql(
            'SELECT sequence, "position", start, length, peak_token FROM windows WHERE dict_id = $dict_id AND layer = $layer AND tokens IS NULL',
            params={"dict_id": dict_id, "layer": layer},
        ).to_arrow_table()
        if any(column.null_count for column in windows.columns):
            return False
        sequence, position, start, length, token = (column.to_numpy().astype(np.int64) for column in windows.columns)
        if len(sequence) and not 0 <= sequence.min() <= sequence.max() < len(row_of):
            return False
        row = row_of[sequence]
        place, end = offsets[row] + position, offsets[row + 1]
        inside = (row >= 0) & (position >= 0) & (place < end) & (offsets[row] + start + length <= end)
        if not (inside.all() and (flat[place] == token).all()):
            return False
    return True
