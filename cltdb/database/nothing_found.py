"""What is said where a question finds nothing: names that the database does not have, with the nearest that it has, and tables that are empty."""

from cltdb.database.literals import quoted
from cltdb.database.query import ask, few_rows
from cltdb.errors import CltdbError, nearest, shown

NAMES = {
    **dict.fromkeys(("dict_id", "dict_a", "dict_b"), "SELECT dict_id FROM dictionaries ORDER BY ALL"),
    "graph_id": "SELECT graph_id FROM graphs ORDER BY ALL",
    "experiment": "SELECT DISTINCT experiment FROM experiments ORDER BY ALL",
}
"""{parameter of named queries: the names that it may have}"""
PLACES = {"layer": "n_layers", "feature": "n_features"}
"""{column that counts from 0: the column of table dictionaries that says up to where}"""
MOST_LISTED = 20


def why_no_rows(path, query, params, connection=None):
    """What can be known of why a named query finds nothing: which parameters were given, which of them name nothing that is there, which of the
    tables that it reads are empty."""
    tables = [table for table in query.reads.rstrip(".").split(", ") if table != "the catalog"]
    [filled] = _rows(path, "SELECT " + ", ".join(f"EXISTS (FROM {table})" for table in tables), connection) if tables else [()]
    empty = [table for table, has_rows in zip(tables, filled, strict=True) if not has_rows]
    given = {name: value for name, value in params.items() if value != query.parameters[name].default}
    said = [*([f"empty: {', '.join(empty)}"] if empty else []), *unknown_names(path, query, params, connection)]
    with_given = [f"with {', '.join(f'{name}={value}' for name, value in given.items())}"] if given else []
    return " ".join(["no rows", *with_given, *([f"({'; '.join(said)})"] if said else [])])


def unknown_names(path, query, params, connection=None):
    """What to say of those parameters of a named query that name nothing that is there."""
    said = []
    for name in filter(NAMES.get, params):
        value = params[name]
        if value != query.parameters[name].default and value not in (known := _names(path, NAMES[name], connection)):
            some = f"the database has {', '.join(known[:3]) or 'none'}{' and more' if known[3:] else ''}"
            said.append(f"no {name} {value}: {nearest(value, known, otherwise=some)}")
    return said


def known_graphs(path, connection=None):
    return _names(path, NAMES["graph_id"], connection)


def refuse_unknown(path, where, table, given, connection=None):
    """CltdbError where one of the values that rows of a table were to have is unknown: a dictionary or graph that is not there, a layer or feature
    beyond the dictionary's last one, another name that no row of the table has. Where the table has no rows at all, names may be to come."""
    if "dict_id" in given:
        known = _names(
            path, f"{NAMES['dict_id'].removesuffix('ORDER BY ALL')} UNION SELECT dict_id FROM {table} ORDER BY ALL", connection
        )
        check_known(where, "dictionary", given["dict_id"], known)
    for name in filter(given.__contains__, PLACES):
        of_one = f"dict_id = {quoted(given['dict_id'])}" if "dict_id" in given else "true"
        [end] = _names(path, f"SELECT max({PLACES[name]}) FROM dictionaries WHERE {of_one}", connection)
        if end is not None and not 0 <= given[name] < end:
            raise CltdbError(where, found=f"no {name} {given[name]}", expected=f"0 to {end - 1}", do="choose one of these")
    if "graph_id" in given:
        check_known(where, "graph", given["graph_id"], known_graphs(path, connection))
    for name in given.keys() - {"dict_id", "graph_id", *PLACES}:
        known = _names(path, f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY ALL", connection)
        if known:
            check_known(where, name, given[name], known)


def check_known(where, what, name, known):
    """CltdbError for a name that is not among the `known`."""
    known = [*dict.fromkeys(known)]
    if name not in known:
        listed = (
            f"one of {', '.join(known[:MOST_LISTED])}" + ", …" * (len(known) > MOST_LISTED)
            if known
            else f"a {what}: there is none"
        )
        raise CltdbError(
            where,
            found=f"no {what} {shown(name)}",
            expected=listed,
            do=nearest(name, known, otherwise="choose one of these" if known else "run an experiment first"),
        )


def _names(path, sql, connection):
    return [name for (name,) in _rows(path, sql, connection)]


def _rows(path, sql, connection):
    with ask(path, sql, connection=connection, answered=few_rows) as (_, rows):
        return rows
