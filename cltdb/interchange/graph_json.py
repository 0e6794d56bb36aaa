"""Attribution graphs as JSON, schema version 1, for circuit-tracer's frontend, Neuronpedia and the attribution-graphs frontend.

Reads: tables graphs, nodes, edges, supernodes, vocabulary, view feature_cards, what users made. Writes: `{slug}.json` (metadata, qParams, nodes, links) and
`graph-metadata.json`, the index of the folder. Source: circuit_tracer/frontend/graph_models.py, utils/create_graph_files.py;
Neuronpedia's graph-schema.json, which allows further keys: what the format has no place for stands under the key `cltdb` of the graph,
its nodes and its links, so that `graph_import` gives the same graph again.

A feature (layer, feature) is one number there, its Cantor pair (feature_numbers.py).
"""

import json
import logging
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb import __version__
from cltdb.annotations.state import GraphState
from cltdb.attribution.settings import BATCH_SIZE, LOGIT_MASS, MAX_LOGITS
from cltdb.database.api import Database
from cltdb.engine.section import NAME
from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError
from cltdb.interchange.feature_numbers import cantor_pair
from cltdb.interchange.graph_annotations import extras, made_by_users, view

log = logging.getLogger(__name__)

SCHEMA_VERSION, EXTRA_VERSION = 1, 1
INDEX = "graph-metadata.json"
EXTRA = "cltdb"
FEATURE, ERROR, EMBEDDING, LOGIT = "cross layer transcoder", "mlp reconstruction error", "embedding", "logit"
KIND_OF_TYPE = {FEATURE: "feature", ERROR: "error", EMBEDDING: "embedding", LOGIT: "logit"}
SCAN = re.compile(rf"{NAME[1:-1]}(/{NAME[1:-1]})?")
MAX_UPLOAD_BYTES = 100_000_000
"""Neuronpedia takes no larger file."""
GRAPH_FACTS = (
    "dict_id",
    "model_id",
    "prompt_id",
    "tokens",
    "target",
    "foil",
    "n_features_active",
    "max_abs_error",
    "seconds",
)
NODE_FACTS = ("influence", "pre_activation", "bias", "expanded")


class StoredGraph(NamedTuple):
    """A graph as the database has it, whole and pruned. nodes: of named query graph_nodes, all of them; tokens: the prompt's, as text;
    incoming {node_id: summed absolute weight of all its stored incoming edges}; made, labels: of `made_by_users`."""

    facts: dict
    tokens: list
    nodes: list
    pruned: object
    thresholds: tuple
    incoming: dict
    n_layers: int
    vocab_size: int
    made: GraphState
    labels: dict


def read_graph(database, graph_id, *, node_threshold, edge_threshold, workspace=None):
    """The `StoredGraph` of a database (its path), pruned. workspace: where the logs of users are; without it what of them is in the
    database counts."""
    of_graph = {"graph_id": graph_id}
    facts_of_graph = (
        "SELECT g.*, a.made_at, coalesce(g.n_layers, d.n_layers, m.n_layers) AS depth, m.vocab_size FROM graphs AS g"
        " LEFT JOIN loaded_artifacts AS a USING (artifact_key) LEFT JOIN dictionaries AS d USING (dict_id)"
        " LEFT JOIN models AS m ON m.model_id = g.model_id WHERE graph_id = $graph_id LIMIT 1"
    )
    incoming = "SELECT target_id, sum(abs(weight)) AS mass FROM edges WHERE graph_id = $graph_id GROUP BY target_id"
    with Database(database).session() as db:
        pruned = db.subgraph(graph_id, node_threshold=node_threshold, edge_threshold=edge_threshold)
        facts = db.sql(facts_of_graph, of_graph).to_dicts()[0]
        nodes = db.query("graph_nodes", **of_graph).to_dicts()
        tokens = [string or "" for string in db.query("graph_tokens", **of_graph)["string"]]
        masses = dict(db.sql(incoming, of_graph).rows())
        made, labels = made_by_users(db, workspace, graph_id=graph_id, dict_id=facts["dict_id"], nodes=nodes)
    if facts["depth"] is None:
        raise CltdbError(
            f"graph {graph_id}",
            found=f"no model {facts['model_id']!r} in the database",
            expected="the model of the graph, whose depth its logits' ids need",
            do="run cltdb db rebuild where the model's artifact is",
        )
    return StoredGraph(
        facts,
        tokens,
        nodes,
        pruned,
        (node_threshold, edge_threshold),
        masses,
        facts["depth"],
        facts["vocab_size"] or 1 + max((node["token"] for node in nodes if node["token"] is not None), default=-1),
        made,
        labels,
    )


def write_graph(graph, folder, *, scan=None, overwrite=False):
    """Writes `{slug}.json` of a `StoredGraph` and its entry in the index; returns its path. scan: the name the model, or its features,
    go by elsewhere, default the model's id. overwrite: also over a file that cltdb did not write."""
    document = graph_document(graph, scan=scan)
    path = Path(folder) / f"{document['metadata']['slug']}.json"
    if path.exists() and not overwrite and not _is_ours(path):
        raise CltdbError(
            str(path),
            found="a file that cltdb did not write",
            expected="none, or an earlier export",
            do="choose another folder with -o, or add --overwrite",
        )
    entries = _index(Path(folder) / INDEX)
    write_json(path, document, indent=None)
    write_json(Path(folder) / INDEX, {"graphs": _replaced(entries, document["metadata"])})
    if path.stat().st_size > MAX_UPLOAD_BYTES:
        log.warning("%s has %.0f MB; Neuronpedia takes 100 MB: lower the thresholds", path, path.stat().st_size / 1e6)
    return path


def _is_ours(path):
    """Whether a file is a graph that cltdb wrote."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and EXTRA in document


def graph_document(graph, *, scan=None, clicked=None):
    """The JSON value of a `StoredGraph`. clicked: the node_id that is selected."""
    ids = node_ids(graph)
    links = [
        {"source": ids[edge["source_id"]], "target": ids[edge["target_id"]], **_link(edge, graph)}
        for edge in graph.pruned.edges.iter_rows(named=True)
    ]
    return {
        "metadata": _metadata(graph, scan_of(graph.facts["model_id"], scan)),
        "qParams": view(graph.made, ids, clicked),
        "nodes": _nodes(graph, ids),
        "links": links,
        EXTRA: _facts(graph) | extras(graph.made, ids),
    }


def node_ids(graph):
    """{node_id: id in the file} of the kept nodes. An error's id, `0_{layer}_{position}`, can be that of a feature of layer 0: then it
    is `{layer}_-1_{position}`, as circuit-tracer's repository writes all errors since its issue 78; its releases up to 0.5.0 do not."""
    ids, kept = {}, set(graph.pruned.nodes["node_id"])
    last = len(graph.facts["tokens"]) - 1
    for node in graph.nodes:
        if node["node_id"] not in kept:
            continue
        layer, position = node["layer"], node["position"]
        ids[node["node_id"]] = {
            "feature": f"{layer}_{node['feature']}_{position}",
            "error": f"0_{layer}_{position}",
            "embedding": f"E_{node['token']}_{position}",
            "logit": f"{graph.n_layers + 1}_{_logit_index(node, graph)}_{last}",
        }[node["kind"]]
    features = {ids[node["node_id"]] for node in graph.nodes if node["kind"] == "feature" and node["node_id"] in ids}
    for node in graph.nodes:
        if node["kind"] == "error" and ids.get(node["node_id"]) in features:
            ids[node["node_id"]] = f"{node['layer']}_-1_{node['position']}"
    return ids


def _logit_index(node, graph):
    """A logit's vocabulary id; the difference of two logits, or another direction, is no token's and stands after the vocabulary."""
    return graph.vocab_size if graph.facts["foil"] is not None or node["token"] is None else node["token"]


def _nodes(graph, ids):
    """The nodes of the file, in the order of node_id."""
    cumulative = cumulative_influence(graph)
    kept = [node for node in graph.nodes if node["node_id"] in ids]
    aliases = {f"{node['layer']}_{node['feature']}-0" for node in kept if node["kind"] == "feature"}
    best = next((node["node_id"] for node in kept if node["kind"] == "logit"), None)
    left = dict(graph.incoming)
    for target, weight in graph.pruned.edges.select("target_id", "weight").iter_rows():
        left[target] -= abs(weight)
    return [
        {
            "node_id": ids[node["node_id"]],
            **_kind_fields(node, graph, aliases, is_best=node["node_id"] == best),
            "ctx_idx": len(graph.facts["tokens"]) - 1 if node["kind"] == "logit" else node["position"],
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "influence": cumulative.get(node["node_id"]),
            "activation": _finite(node["activation"], graph, f"activation of node {node['node_id']}"),
            EXTRA: _node_facts(node, graph, max(0.0, left.get(node["node_id"], 0.0))),
        }
        for node in kept
    ]


def _kind_fields(node, graph, aliases, *, is_best):
    """The fields of a node that its kind decides; aliases: the jsNodeIds of features."""
    layer, position = node["layer"], node["position"]
    plain = {"token_prob": 0.0, "is_target_logit": False}
    match node["kind"]:
        case "feature":
            return plain | {
                "feature": cantor_pair(layer, node["feature"]),
                "layer": str(layer),
                "feature_type": FEATURE,
                "jsNodeId": f"{layer}_{node['feature']}-0",
                "clerp": graph.labels.get(node["node_id"]) or node["text"] or "",
            }
        case "error":
            alias = f"{layer}_{position}-0"
            name = f"{layer}_-1-{position}" if alias in aliases else alias
            return plain | {"feature": -1, "layer": str(layer), "feature_type": ERROR, "jsNodeId": name, "clerp": ""}
        case "embedding":
            name = f"E_{node['token']}-{position}"
            return plain | {"feature": position, "layer": "E", "feature_type": EMBEDDING, "jsNodeId": name, "clerp": ""}
        case "logit":
            index, last = _logit_index(node, graph), len(graph.facts["tokens"]) - 1
            probability = _finite(node["probability"], graph, f"probability of node {node['node_id']}") or 0.0
            foil = "" if graph.facts["foil"] is None else f" - {graph.facts['foil']}"
            return {
                "token_prob": probability,
                "is_target_logit": is_best,
                "feature": index,
                "layer": str(graph.n_layers + 1),
                "feature_type": LOGIT,
                "jsNodeId": f"L_{index}-{last}",
                "clerp": f'Output "{node["string"] or ""}{foil}" (p={probability:.3f})',
            }
    raise AssertionError(node["kind"])


def cumulative_influence(graph):
    """{node_id: share of the whole graph's influence that it and all more influential nodes make up}; logits have none."""
    known = [(node["node_id"], _finite(node["influence"], graph, f"influence of node {node['node_id']}")) for node in graph.nodes]
    ranked = sorted(((node, value) for node, value in known if value is not None), key=lambda pair: -pair[1])
    total = graph.facts["total_influence"] or math.fsum(value for _, value in ranked)
    shares, reached = {}, 0.0
    for node, value in ranked:
        reached += value
        shares[node] = min(reached / total, 1.0) if total else 0.0
    logits = {node["node_id"] for node in graph.nodes if node["kind"] == "logit"}
    return {node: share for node, share in shares.items() if node not in logits}


def _node_facts(node, graph, left):
    """What has no field. left: the weight of the node's incoming edges that have a row and are not in the file."""
    facts = {name: _finite(node[name], graph, f"{name} of node {node['node_id']}") for name in NODE_FACTS}
    if node["dropped_mass"] is not None or left:
        facts["dropped_mass"] = _finite((node["dropped_mass"] or 0.0) + left, graph, f"dropped_mass of node {node['node_id']}")
    if node["kind"] == "logit" and graph.facts["foil"] is not None:
        facts["token"] = node["token"]
    if node["kind"] == "logit" and node["token"] is None:
        facts["is_direction"] = True
    if node["kind"] == "feature":  # of the one that is explained
        facts["probability"] = node["probability"]
    return _known(facts)


def _link(edge, graph):
    where = f"of edge {edge['source_id']} to {edge['target_id']}"
    extra = _known({name: _finite(edge[name], graph, f"{name} {where}") for name in ("influence", "measured")})
    return {"weight": _finite(edge["weight"], graph, f"weight {where}"), **({EXTRA: extra} if extra else {})}


def _metadata(graph, scan):
    facts = graph.facts
    node_threshold, edge_threshold = graph.thresholds
    made_at = facts["made_at"] and datetime.fromisoformat(facts["made_at"]).replace(tzinfo=UTC)
    metadata = {
        "slug": slug(facts["graph_id"]),
        "scan": scan,
        "transcoder_list": [],
        "prompt_tokens": graph.tokens,
        "prompt": facts["prompt"] or "",
        "node_threshold": node_threshold,
        "schema_version": SCHEMA_VERSION,
        "info": {
            "creator_name": "cltdb",
            "creator_url": "",
            "source_urls": [],
            "generator": {"name": "cltdb", "version": __version__, "url": ""},
            **({"create_time_ms": int(made_at.timestamp() * 1000)} if made_at else {}),
        },
        "generation_settings": _generation_settings(graph),
        "pruning_settings": {"node_threshold": node_threshold, "edge_threshold": edge_threshold},
    }
    return metadata | _known({name: _finite(facts[name], graph, name) for name in ("replacement_score", "completeness_score")})


def _generation_settings(graph):
    """How the graph was made; of an imported one nothing is known."""
    if graph.facts["n_layers"] is not None:
        return {}
    n_logits = max(1, sum(node["kind"] == "logit" for node in graph.nodes))
    is_chosen = graph.facts["target"] is None
    logits = {"max_n_logits": MAX_LOGITS, "desired_logit_prob": LOGIT_MASS} if is_chosen else {"max_n_logits": n_logits}
    expanded = sum(node["kind"] == "feature" and bool(node["expanded"]) for node in graph.nodes)
    return logits | {"batch_size": BATCH_SIZE, "max_feature_nodes": expanded}


def _facts(graph):
    """What the database knows of the graph and metadata has no place for."""
    scores = graph.pruned.scores._asdict().items()
    values = {name: graph.facts[name] for name in GRAPH_FACTS}
    values |= {f"pruned_{name}_score": None if math.isnan(score) else score for name, score in scores}  # NaN: nothing leads there
    total = graph.facts["total_influence"] or math.fsum(node["influence"] or 0.0 for node in graph.nodes)
    known = _known({name: _finite(value, graph, name) for name, value in values.items()})
    return {"format_version": EXTRA_VERSION, "graph_id": graph.facts["graph_id"], **known, "total_influence": total}


def slug(graph_id):
    """A graph's id as the name of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", graph_id).strip("-.") or "graph"


def scan_of(model_id, scan=None):
    """The name that a model, or its features, go by in the files: `scan` where given, else the model's id, of a path the last part.

    circuit-tracer's frontend looks for features at the Hub under it, then in `features/{scan}/`; where it begins with a slash, in the
    packed files of the folder that its server is given.
    """
    if scan is not None and not SCAN.fullmatch(scan.removeprefix("/")):
        raise CltdbError("--scan", found=repr(scan), expected="a name, owner/name, or /name for packed features", do="mend it")
    name = model_id or "unknown"
    return scan or (name if SCAN.fullmatch(name) else slug(name.rstrip("/").rpartition("/")[2]))


def _index(path):
    """The entries of the folder's index, none where there is no index yet."""
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["graphs"]
    except (ValueError, KeyError, TypeError) as error:
        entries = f"{type(error).__name__}: {error}"
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CltdbError(
            str(path), found=f"no list of graphs ({entries!s:.100})", expected='{"graphs": […]}', do="choose another folder"
        )
    return entries


def _replaced(entries, metadata):
    """The entries with that of this slug replaced, or added at the end."""
    by_slug = {entry.get("slug", place): entry for place, entry in enumerate(entries)}
    return list((by_slug | {metadata["slug"]: metadata}).values())


def _finite(value, graph, what):
    """The value; CltdbError where it is NaN or infinite, which JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        raise CltdbError(
            f"graph {graph.facts['graph_id']}",
            found=f"{value} as {what}",
            expected="a finite number, for JSON has no other",
            do="attribute the prompt again; cltdb db check tells more",
        )
    return value


def _known(values):
    return {name: value for name, value in values.items() if value is not None}
