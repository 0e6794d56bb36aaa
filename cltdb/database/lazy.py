"""A table or view as a `polars.LazyFrame`: DuckDB reads only the columns and, as far as it can tell, only the rows that a plan needs.

Polars hands the source the plan's columns, its filter and its number of rows. The filter becomes a condition in SQL that holds wherever
the filter does; what has no such condition (a function, a cast) is left out of it. Polars then applies the whole filter to the rows that
come, so that its own rules decide in the end.
"""

import io
import json

from cltdb.database.query import ask
from cltdb.database.stream import stream

SQL_TYPES = {
    "Boolean": "BOOLEAN", "Int8": "TINYINT", "Int16": "SMALLINT", "Int32": "INTEGER", "Int64": "BIGINT", "UInt8": "UTINYINT",
    "UInt16": "USMALLINT", "UInt32": "UINTEGER", "UInt64": "UBIGINT", "Float32": "FLOAT", "Float64": "DOUBLE", "String": "VARCHAR",
}  # fmt: skip
"""Polars' types of values that conditions compare with. A plan gives a value the type of its column."""
COMPARISONS = {"Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
MIRRORED = {"Eq": "Eq", "NotEq": "NotEq", "Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
MOST_LISTED = 1000
"""Values of a list in a condition; a longer one is left to Polars."""
BETWEEN = {"Both": (">=", "<="), "Left": (">=", "<"), "Right": (">", "<="), "None": (">", "<")}


def scan(path, table, *, connection=None):
    """The `polars.LazyFrame` of `table`, the name of a table or view that is there. `connection`: an open one to ask."""
    import polars as pl
    from polars.io.plugins import register_io_source

    with ask(path, f"FROM {table} LIMIT 0", connection=connection) as reader:
        schema = pl.from_arrow(reader.read_all()).schema

    def batches(columns, predicate, n_rows, batch_size):
        sql, params = question(table, columns, predicate, n_rows)
        for batch in stream(path, sql, params, connection=connection):
            frame = pl.from_arrow(batch)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=schema, is_pure=True, explain_name=f"cltdb {table}")


def question(table, columns=None, predicate=None, n_rows=None):
    """(SQL, parameters) of the columns of a table, its first `n_rows` rows and of those the ones that may pass the filter `predicate`."""
    names = "*" if columns is None else ", ".join(map(_quoted, columns))
    source = table if n_rows is None else f"(FROM {table} LIMIT {n_rows:d})"
    params = []
    condition = None if predicate is None else _condition(json.loads(predicate.meta.serialize(format="json")), params)
    return f"SELECT {names} FROM {source}" + (f" WHERE {condition}" if condition else ""), params


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'


def _condition(node, params):
    """SQL that is true of every row of which the expression is, its values appended to `params`; None where there is none."""
    match node:
        case {"BinaryExpr": {"left": left, "op": "And" | "LogicalAnd", "right": right}}:
            parts = [part for part in (_condition(left, params), _condition(right, params)) if part]
            return f"({' AND '.join(parts)})" if parts else None
        case {"BinaryExpr": {"left": left, "op": "Or" | "LogicalOr", "right": right}}:
            given = len(params)
            parts = [_condition(left, params), _condition(right, params)]
            if None not in parts:
                return f"({' OR '.join(parts)})"
            del params[given:]
        case {"BinaryExpr": {"left": {"Column": name}, "op": op, "right": {"Literal": value}}} if op in COMPARISONS:
            return _compared(name, COMPARISONS[op], value, params)
        case {"BinaryExpr": {"left": {"Literal": value}, "op": op, "right": {"Column": name}}} if op in MIRRORED:
            return _compared(name, COMPARISONS[MIRRORED[op]], value, params)
        case {"Function": {"input": [{"Column": name}], "function": {"Boolean": "IsNull" | "IsNotNull" as function}}}:
            return f"{_quoted(name)} IS {'NULL' if function == 'IsNull' else 'NOT NULL'}"
        case {"Function": {"input": [{"Column": name}, {"Literal": low}, {"Literal": high}],
                           "function": {"Boolean": {"IsBetween": {"closed": closed}}}}} if closed in BETWEEN:  # fmt: skip
            parts = [_compared(name, op, value, params) for op, value in zip(BETWEEN[closed], (low, high), strict=True)]
            return " AND ".join(part for part in parts if part) or None
        case {"Function": {"input": [{"Column": name}, {"Literal": {"Scalar": {"List": data}}}],
                           "function": {"Boolean": {"IsIn": {"nulls_equal": False}}}}}:  # fmt: skip
            return _one_of(name, data, params)
        case {"Function": {"input": [{"Column": name}, {"Literal": value}], "function": {"StringExpr": "StartsWith"}}}:
            return _called("starts_with", name, value, params)
        case {"Function": {"input": [{"Column": name}, {"Literal": value}],
                           "function": {"StringExpr": {"Contains": {"literal": True}}}}}:  # fmt: skip
            return _called("contains", name, value, params)
    return None


def _value(literal, params):
    """The SQL of a literal as a parameter of its type; None where it has another type, or is NULL or no finite number."""
    match literal:
        case {"Scalar": dict(scalar)} if len(scalar) == 1:
            [(kind, value)] = scalar.items()
            if kind in SQL_TYPES and value is not None:
                params.append(value)
                return f"?::{SQL_TYPES[kind]}"
    return None


def _compared(name, operator, literal, params):
    value = _value(literal, params)
    return value and f"{_quoted(name)} {operator} {value}"


def _called(function, name, literal, params):
    value = _value(literal, params)
    return value and f"{function}({_quoted(name)}, {value})"


def _one_of(name, data, params):
    """data: the list as bytes of an Arrow stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(io.BytesIO(bytes(data))) as reader:
        values = reader.read_all().column(0).to_pylist()
    if len(values) > MOST_LISTED or not all(isinstance(value, str | int | float | None) for value in values):
        return None
    params += values
    return f"{_quoted(name)} IN ({', '.join('?' * len(values))})" if values else "false"
