"""What users make, between browser and workspace: one address, `/annotations`, which assets/annotated.js asks.

GET gives what there is of a graph (`?graph_id=`) or a dictionary's features (`?dict_id=`), nothing new being status 204. POST appends
operations to their log and gives what there is then. Pages over another database, or over an exported folder, read what is in it and
save nothing.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import flask
import polars as pl
from flask import current_app

from cltdb.annotations.log import Log, all_logs
from cltdb.annotations.operations import FEATURES, GRAPH
from cltdb.annotations.state import features_state, graph_state, history, node_labels
from cltdb.database import annotated
from cltdb.errors import CltdbError, shown
from cltdb.interchange.graph_json import graph_document, read_graph
from dashboards import data
from dashboards.data import DATABASE
from dashboards.writer import Writer

ANNOTATIONS = "CLTDB_ANNOTATIONS"
"""Where an app keeps its `Store`: a key of `app.server.config`; None where nothing is saved."""
MAX_BYTES = 4_000_000
MAX_HISTORY = 10_000
"""So many changes are given at most, the last ones."""
STORED = "STORED"
"""The revision of what a database holds that nobody changes from here."""
api = flask.Blueprint("annotations", __name__)


class Store(NamedTuple):
    """Where what users make is kept: the folder of the logs, and what brings them into the database."""

    workspace: Path
    writer: Writer


def store_of(project):
    """The `Store` of a project; what an earlier server did not bring into the database is brought there."""
    store = Store(project.workspace, Writer(project.root, project.database))
    if all_logs(project.workspace):
        store.writer.wake()
    return store


def install(server, store):
    """Has a Flask app answer here. store: None where nothing is saved."""
    server.config[ANNOTATIONS] = store
    server.register_blueprint(api)


def log_of(kind, subject):
    """The `Log` of a graph or dictionary; None where nothing is saved."""
    store = current_app.config.get(ANNOTATIONS)
    return None if store is None else Log(store.workspace, kind, subject)


def events_of(kind, subject):
    """The events of a graph or dictionary, from its log or, where nothing is saved, from the database."""
    store = current_app.config.get(ANNOTATIONS)
    return annotated.events_of(kind, subject, workspace=store and store.workspace, query=data.query)


def features_of(dict_id):
    """The `FeaturesState` of a dictionary, of none where dict_id is None."""
    return features_state(events_of(FEATURES, dict_id) if dict_id is not None else [])


def labels_of(dict_id):
    """{(layer, feature): a user's own label} of a dictionary; from its log, or where nothing is saved from what the database made of it."""
    if dict_id is not None and log_of(FEATURES, dict_id) is None:
        return {
            (row["layer"], row["feature"]): row["text"]
            for row in data.query("annotation_list", dict_id=dict_id, kind="label").to_dicts()
        }
    return {place: text.text for place, text in features_of(dict_id).labels.items()}


def revision(kind, subject):
    """Changes with every change of what a graph's page or a dictionary's pages show; costs a look at one or two files."""
    log = log_of(kind, subject)
    if log is None:
        return STORED
    dict_id = _graph(subject).dict_id if kind == GRAPH else None
    return f"{log.revision}.{log_of(FEATURES, dict_id).revision if dict_id is not None else 0}"


def of_graph(graph_id):
    """What the browser gets of a graph: pins, hidden nodes, groups, labels and notes of nodes, proposals, and whether changes are saved."""
    known, version = _graph(graph_id), revision(GRAPH, graph_id)
    state = graph_state(events_of(GRAPH, graph_id))
    taken = {group.id for group in state.groups}
    return {
        GRAPH: graph_id,
        "revision": version,
        "writable": log_of(GRAPH, graph_id) is not None,
        "pinned": list(state.pinned),
        "hidden": list(state.hidden),
        "groups": [
            {"id": group.id, "name": group.name, "nodes": list(group.members), "note": group.note, "source": group.source}
            for group in state.groups
        ],
        "labels": {str(node): text for node, text in node_labels(state, features_of(known.dict_id), known.features).items()},
        "notes": {"graph" if node is None else str(node): text.text for node, text in state.notes.items()},
        "places": state.places,
        "proposals": [proposal for proposal in known.proposals if proposal["id"] not in taken],
    }


def labels_of_nodes(graph_id):
    """{node id: a user's own label} of the nodes of a graph."""
    database = current_app.config[DATABASE]
    return _labels_of_nodes(database, Path(database).stat().st_mtime_ns, revision(GRAPH, graph_id), graph_id)


@lru_cache(maxsize=32)
def _labels_of_nodes(database, _version, _revision, graph_id):
    known = _graph(graph_id)
    return node_labels(graph_state(events_of(GRAPH, graph_id)), features_of(known.dict_id), known.features)


def of_features(dict_id):
    """What the browser gets of the features of a dictionary: {"layer:feature": text} of labels and notes, and the lists of starred ones."""
    version, state = revision(FEATURES, dict_id), features_of(dict_id)
    return {
        FEATURES: dict_id,
        "revision": version,
        "writable": log_of(FEATURES, dict_id) is not None,
        **{
            name: {f"{layer}:{feature}": text.text for (layer, feature), text in getattr(state, name).items()}
            for name in ("labels", "notes")
        },
        "lists": [{"id": one.id, "name": one.name, "features": list(one.members)} for one in state.lists],
    }


@api.get("/annotations")
def give():
    try:
        kind, subject = _subject(flask.request.args)
        if flask.request.args.get("revision") == revision(kind, subject):
            return "", 204
        if "history" in flask.request.args:
            changes = [event for event in history(events_of(kind, subject)) if event["op"] != "undo"]
            limit = min(MAX_HISTORY, flask.request.args.get("history", MAX_HISTORY, type=int))
            return flask.jsonify({"n": len(changes), "changes": changes[:limit]})
        return flask.jsonify(_payload(kind, subject))
    except CltdbError as error:
        return _refused(error, 404)


@api.post("/annotations")
def change():
    store, request = current_app.config.get(ANNOTATIONS), flask.request
    try:
        if store is None:
            do = "start `cltdb dash` in the project of the database"
            raise CltdbError("annotations", found="pages over another database", expected="the project's own", do=do)
        if (request.content_length or 0) > MAX_BYTES:
            found = f"{request.content_length:,} bytes at once"
            raise CltdbError("annotations", found=found, expected=f"at most {MAX_BYTES:,}", do="send fewer changes")
        body = request.get_json(silent=True)
        if not isinstance(body, dict) or not isinstance(body.get("operations"), list):
            raise CltdbError("annotations", found=shown(body), expected="operations as JSON", do="load the page again")
        kind, subject = _subject(body)
        try:
            is_known = _known(kind, subject)
        except CltdbError as error:
            return _refused(
                error, 503
            )  # another process writes, or makes the database anew: the browser keeps its changes and tries again
        log_of(kind, subject).append(body["operations"], is_known=is_known)
    except CltdbError as error:
        return _refused(error, 507 if isinstance(error.__cause__, OSError) else 400)
    store.writer.wake()
    return flask.jsonify(_payload(kind, subject))


@api.get("/graph.json")
def graph_json():
    """A graph pruned as its page shows it, as a file for Neuronpedia and other frontends."""
    store, given = current_app.config.get(ANNOTATIONS), flask.request.args
    try:
        shares = {
            f"{name}_threshold": min(1.0, max(0.0, float(given.get(name, usual))))
            for name, usual in (("node", 0.8), ("edge", 0.98))
        }
        _, graph_id = _subject(given)
        graph = read_graph(current_app.config[DATABASE], graph_id, **shares, workspace=store and store.workspace)
    except (CltdbError, ValueError) as error:
        return _refused(error, 404)
    document = graph_document(graph, clicked=given.get("selected", type=int))
    response = flask.Response(flask.json.dumps(document, ensure_ascii=False, allow_nan=False), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{document["metadata"]["slug"]}.json"'
    return response


def _payload(kind, subject):
    return of_graph(subject) if kind == GRAPH else of_features(subject)


def _subject(given):
    """(kind, id) that fields name."""
    found = [(kind, given[kind]) for kind in (GRAPH, FEATURES) if isinstance(given.get(kind), str)]
    if len(found) != 1:
        raise CltdbError(
            "annotations", found=f"{len(found)} subjects", expected=f"{GRAPH} or {FEATURES}", do="load the page again"
        )
    return found[0]


def _refused(error, status):
    parts = {name: str(getattr(error, name, error)) for name in ("where", "found", "expected", "do")}
    return flask.jsonify(parts), status


class Known(NamedTuple):
    """What does not change of a graph: its dictionary, nodes, features as (node_id, layer, feature), and the groups that artifacts brought,
    with the ids that they have once users take them over: the same in every browser."""

    dict_id: str | None
    nodes: frozenset
    features: tuple
    proposals: tuple


def _graph(graph_id):
    """The `Known` of a graph, kept until the database changes: a graph may be made again under its id, with other proposals."""
    path = Path(current_app.config[DATABASE])
    return _known_graph(path, path.stat().st_mtime_ns if path.exists() else None, graph_id)


@lru_cache(maxsize=32)
def _known_graph(_path, _version, graph_id):
    nodes, groups = data.query("graph_members", graph_id=graph_id), data.query("supernode_list", graph_id=graph_id)
    if nodes.is_empty():
        raise CltdbError("annotations", found=f"no graph {shown(graph_id)}", expected="a graph of this database", do="choose one")
    groups = groups.filter(pl.col("source") != "user").sort(pl.col("supernode_id").str.len_bytes(), "supernode_id")
    proposals = [
        {"id": _id_of(row["supernode_id"]), "name": row["name"] or "", "nodes": row["node_ids"]}
        for row in groups.rows(named=True)
    ]
    features = nodes.filter(kind="feature").select("node_id", "layer", "feature").rows()
    return Known(nodes["dict_id"][0], frozenset(nodes["node_id"]), tuple(features), tuple(proposals))


def _id_of(supernode_id):
    """The id of a group that an artifact brought, once users take it over: of an imported file as `graph_annotations.operations` has it."""
    name, is_imported, place = supernode_id.rpartition("-group-")
    return f"import-{place}" if is_imported else f"proposal-{supernode_id.rpartition('-')[2]}"[:80]


@lru_cache(maxsize=32)
def _sizes(_database, dict_id):
    rows = data.asked().sql("SELECT n_layers, n_features FROM dictionaries WHERE dict_id = ?", [dict_id]).rows()
    if not rows:
        raise CltdbError("annotations", found=f"no dictionary {shown(dict_id)}", expected="one of this database", do="choose one")
    return rows[0]


def _known(kind, subject):
    """A function that says whether there is such a node, or (layer, feature)."""
    if kind == GRAPH:
        return _graph(subject).nodes.__contains__
    n_layers, n_features = _sizes(current_app.config[DATABASE], subject)
    return lambda place: place[0] < n_layers and place[1] < n_features
