"""What users made in the browser as rows: table annotation_events holds the events of the logs, annotations and the rows of supernodes
without artifact_key what they amount to (`cltdb.annotations.state`).

The logs of the workspace are what is true; a database may hold events of further machines besides (`cltdb db merge`). Rows about graphs and
features that are not in the database wait until these are.
"""

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES, GRAPH, STAMP, checked_event
from cltdb.annotations.state import features_state, graph_state
from cltdb.database.named_queries import named_query
from cltdb.database.store import connect, connect_current, transaction
from cltdb.database.tables import all_tables
from cltdb.errors import CltdbError, shown

MADE = {"annotations": "true", "supernodes": "artifact_key IS NULL"}
"""Tables that are made from events: which of their rows."""
COLUMNS = {
    "annotations": (
        "annotation_id", "kind", "dict_id", "layer", "feature", "graph_id", "node_id", "list", "text", "author", "created_at",
    ),
    "supernodes": ("supernode_id", "graph_id", "name", "node_ids", "created_at", "note", "author"),
}  # fmt: skip
"""Their columns that are filled."""


def save_events(path, events):
    """Brings the database at `path` up to date with `events`; returns whether there was anything to write. Where there is nothing the
    database is only read."""
    with connect_current(path) as connection:
        if not _new(connection, events) and not list(_differing(connection)):
            return False
    with connect(path, write=True) as connection, transaction(connection):
        _insert(connection, "annotation_events", [_row(event) for event in _new(connection, events)])
        make_rows(connection)
    return True


def make_rows(connection):
    """Makes the rows of the tables in MADE anew from table annotation_events."""
    for table, rows in list(_differing(connection)):
        connection.execute(f"DELETE FROM {table} WHERE {MADE[table]}")
        _insert(connection, table, [dict(zip(COLUMNS[table], row, strict=True)) for row in rows])


def stored_events(connection, *, graph_id=None, dict_id=None):
    """The events in the database, all or those of a graph or a dictionary."""
    rows = connection.execute(named_query("annotation_history").sql, {"graph_id": graph_id, "dict_id": dict_id}).fetchall()
    return [event_of(row) for row in rows]


def events_of(kind, subject, *, workspace, query):
    """The events of a graph or dictionary: from its log, or where the workspace is None from a database. kind: GRAPH or FEATURES; query: asks
    named queries."""
    if workspace is not None:
        return Log(Path(workspace), kind, subject).events()
    return [event_of(row) for row in query("annotation_history", **{kind: subject}).rows()]


def event_of(row):
    """The event of a row of table annotation_events."""
    event_id, made_at, author, graph_id, dict_id, op, content = row
    subject = {GRAPH: graph_id} if graph_id is not None else {FEATURES: dict_id}
    at = made_at.replace(tzinfo=UTC).isoformat(timespec="microseconds")
    try:
        fields = dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise CltdbError(
            f"annotation event {event_id}", found=shown(content), expected="a JSON object", do="run cltdb db rebuild"
        ) from error
    return checked_event({"id": event_id, "at": at, "author": author, **subject, "op": op, **fields})


def against_events(connection, events=()):
    """What is wrong with the rows that events make, one sentence each. events: of the logs."""
    if missing := len(_new(connection, events)):
        yield f"annotation_events: {missing:,} events of the logs in annotations/ are not in the database (cltdb db annotations)"
    logged = {event["id"]: _comparable(event) for event in events}
    try:
        stored = {event["id"]: _comparable(event) for event in stored_events(connection)}
        differing = [table for table, _ in _differing(connection)]
    except CltdbError as error:
        yield f"annotation_events: a row that is no change of a user ({error})"
        return
    if others := [event_id for event_id in logged.keys() & stored.keys() if logged[event_id] != stored[event_id]]:
        rows = "row" if len(others) == 1 else "rows"
        yield f"annotation_events: {len(others):,} {rows}, such as event_id {min(others)}; expected what the logs in annotations/ have"
    for table in differing:
        yield f"{table}: rows of users are not what annotation_events amount to (cltdb db annotations)"


def _comparable(event):
    return event | {"at": _time(event["at"])}


def _new(connection, events):
    """Those of the events that the database does not have, each id once."""
    there = (
        {event_id for (event_id,) in connection.execute("SELECT event_id FROM annotation_events").fetchall()} if events else ()
    )
    return list({event["id"]: event for event in events if event["id"] not in there}.values())


def _differing(connection):
    """(table, its rows as they ought to be) of the tables in MADE whose rows are not what the events amount to."""
    ought = _present_rows(connection, stored_events(connection))
    for table, columns in COLUMNS.items():
        there = connection.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {MADE[table]}").fetchall()
        rows = [tuple(row.get(name) for name in columns) for row in ought[table]]
        if sorted(there, key=str) != sorted(rows, key=str):
            yield table, rows


def _present_rows(connection, events):
    """{table: rows} of the events, without what is about graphs, nodes and features that the database does not have."""
    of_graphs, of_dictionaries = defaultdict(list), defaultdict(list)
    for event in events:
        of_graphs[event[GRAPH]].append(event) if GRAPH in event else of_dictionaries[event[FEATURES]].append(event)
    groups, annotations = [], []
    nodes = connection.execute(
        "SELECT graph_id, list(node_id) FROM nodes WHERE list_contains(?, graph_id) GROUP BY graph_id", [list(of_graphs)]
    ).fetchall()
    for graph_id, known in sorted(nodes):
        state = graph_state(of_graphs[graph_id])
        groups += _groups(graph_id, state, set(known))
        annotations += _of_graph(graph_id, state, {*known, None})
    of_features = [
        row for dict_id, its in sorted(of_dictionaries.items()) for row in _of_dictionary(dict_id, features_state(its))
    ]
    keys = [(row["dict_id"], row["layer"], row["feature"]) for row in of_features]
    known = set(
        connection.execute(
            "SELECT dict_id, layer, feature FROM features SEMI JOIN (SELECT unnest(?) AS dict_id, unnest(?::INTEGER[]) AS layer,"
            " unnest(?::INTEGER[]) AS feature) USING (dict_id, layer, feature)",
            [list(column) for column in zip(*keys, strict=True)],
        ).fetchall()
        if keys
        else ()
    )
    annotations += [row for row, key in zip(of_features, keys, strict=True) if key in known]
    return {"annotations": annotations, "supernodes": groups}


def _groups(graph_id, state, known):
    for group in state.groups:
        yield {
            "supernode_id": f"{graph_id}-{group.id}",
            "graph_id": graph_id,
            "name": group.name,
            "node_ids": [node for node in group.members if node in known],
            "created_at": _time(group.created_at),
            "note": group.note or None,
            "author": group.author,
        }


def _of_graph(graph_id, state, known):
    kinds = {"pin": state.pinned, "hide": state.hidden, "label": state.labels, "note": state.notes}
    for kind, texts in kinds.items():
        for node, text in texts.items():
            if node in known:
                place = "graph" if node is None else f"node {node}"
                yield _annotation(kind, f"{kind} of {place} of {graph_id}", text, graph_id=graph_id, node_id=node)


def _of_dictionary(dict_id, state):
    for kind, texts in (("label", state.labels), ("note", state.notes)):
        for (layer, feature), text in texts.items():
            place = {"dict_id": dict_id, "layer": layer, "feature": feature}
            yield _annotation(kind, f"{kind} of feature {layer}:{feature} of {dict_id}", text, **place)
    for one in state.lists:
        for layer, feature in one.members:
            place = {"dict_id": dict_id, "layer": layer, "feature": feature, "list": one.name}
            row_id = f"star of feature {layer}:{feature} of {dict_id} in {one.id}"
            yield _annotation("star", row_id, state.stars[one.id, (layer, feature)], **place)


def _annotation(kind, annotation_id, text, **about):
    said = {"text": text.text or None, "author": text.author, "created_at": _time(text.at)}
    return {"annotation_id": annotation_id, "kind": kind, **about, **said}


def _row(event):
    content = {name: value for name, value in event.items() if name not in (*STAMP, "op")}
    return {
        "event_id": event["id"],
        "made_at": _time(event["at"]),
        "author": event["author"],
        "graph_id": event.get(GRAPH),
        "dict_id": event.get(FEATURES),
        "op": event["op"],
        "content": json.dumps(content, ensure_ascii=False),
    }


def _time(text):
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _insert(connection, table, rows):
    """Inserts rows, dicts with columns of the table."""
    import pyarrow as pa

    if rows:
        columns = [column for column in all_tables()[table].columns if column.name in rows[0]]
        names = ", ".join(f"{column.name}::{column.type} AS {column.name}" for column in columns)
        frame = pa.table({column.name: [row.get(column.name) for row in rows] for column in columns})
        connection.register("incoming_rows", frame)
        connection.execute(f"INSERT INTO {table} BY NAME SELECT {names} FROM incoming_rows")
        connection.unregister("incoming_rows")
