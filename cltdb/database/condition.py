"""The features of a dictionary for which an SQL condition holds."""

import json

from cltdb.database import api
from cltdb.errors import CltdbError


def features_where(path, dict_id, condition):
    """A frame (layer, feature, silent) of the features of a dictionary for which a condition on the columns of `feature_cards` holds, by
    layer and feature. silent: it never fires. The condition may ask other tables too; like all questions it cannot change anything."""
    _require_one_condition(condition)
    own = "SELECT * FROM feature_cards WHERE dict_id = $dict_id"
    chosen = f"SELECT layer, feature, density = 0 AS silent FROM ({own}) WHERE (\n{condition}\n) ORDER BY layer, feature"
    try:
        return api.open(path).sql(chosen, {"dict_id": dict_id})
    except CltdbError as error:
        raise _not_a_condition(error.found) from error


def _require_one_condition(condition):
    """CltdbError for text that is not exactly one expression, such as one that closes the bracket around it and goes on."""
    parsed = _parsed(condition)
    if parsed["error"] or not condition.strip():
        raise _not_a_condition(parsed.get("error_message", "an empty text"))
    nodes = [statement["node"] for statement in parsed["statements"]]
    expected = _parsed("true")["statements"][0]["node"]
    columns = [node.get("select_list", ()) for node in nodes]
    if [len(column) for column in columns] != [1] or nodes[0] | {"select_list": None} != expected | {"select_list": None}:
        raise _not_a_condition("more than a condition")


def _parsed(condition):
    """What DuckDB's parser makes of `SELECT (condition)`."""
    import duckdb

    with duckdb.connect() as connection:
        [row] = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT (\n{condition}\n)"]).fetchall()
    return json.loads(row[0])


def _not_a_condition(found):
    return CltdbError(
        "--where",
        found=found,
        expected='one SQL condition on columns of feature_cards, such as "layer = 3 AND density > 0.01"',
        do="correct it; cltdb sql 'DESCRIBE feature_cards' lists the columns",
    )
