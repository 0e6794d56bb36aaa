"""Attribution-graph JSON of any tool (graph_file.py) into tables graphs, nodes, edges and supernodes.

Reads: one file. Writes: an artifact `<workspace>/imports/<key>/`, the key hashing the file's content, its rows, and the graph's log of
annotations; `cltdb db rebuild` reads both again. The nodes of the file are all nodes of the graph in the database. What a file of another tool does not
say is NULL. A file has cumulative influences; a node's own is the difference to the node before. That of an edge follows from the links.
"""

import hashlib
import json
import logging
import math
import re
from datetime import UTC, datetime
from pathlib import Path

from cltdb.annotations.log import Log
from cltdb.annotations.operations import GRAPH
from cltdb.database.api import Database
from cltdb.database.artifacts import bring_in
from cltdb.engine.workspace import IMPORTS, Workspace
from cltdb.errors import DataError
from cltdb.interchange.feature_numbers import cantor_pair, cantor_unpair
from cltdb.interchange.graph_annotations import operations
from cltdb.interchange.graph_file import ROUNDING, LinkExtra, NodeExtra, PruningSettings, read_file, wrong
from cltdb.interchange.graph_ids import check_id, link_sources, nodes_by_key
from cltdb.interchange.graph_json import KIND_OF_TYPE, slug

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same file gives other rows."""
MAX_SLUG = 100
KIND_ORDER = ("feature", "error", "embedding", "logit")
OUTPUT = re.compile(r'^Output "(.*)" \(p=[^"]*\)$', re.DOTALL)


def import_graph(path, project, *, dictionary=None):
    """Brings the graph of a file into the workspace and database of a project; returns its graph_id.

    dictionary: the dict_id its features are of; default the one our own file names, where the database has it, else none.
    """
    file, content = read_file(path)
    places = node_places(file, path)
    _check_shares(file, path)
    row = _dictionary(file, places, project.database, dictionary, path)
    key = hashlib.sha256(json.dumps([VERSION, row and row["dict_id"]]).encode() + content).hexdigest()[:16]
    graph_id, workspace = f"{slug(file.metadata.slug)[:MAX_SLUG]}-{key[:8]}", Workspace(project.workspace)
    directory = workspace.store(
        IMPORTS,
        key,
        graph_frames(file, places, graph_id=graph_id, dictionary=row, path=path),
        part=graph_id,
        about={"version": VERSION, "source": str(path), "sha256": hashlib.sha256(content).hexdigest(), "graph_id": graph_id},
    )
    number = {key: node_id for node_id, key in enumerate(places)}
    if made := operations(file, number):
        Log(project.workspace, GRAPH, graph_id).append(made)
    bring_in(project, (key, directory))
    return graph_id


# Nodes of the file to rows: the order of `graphs.nodes`, integer coordinates


def node_places(file, path):
    """{key: (kind, layer, position, feature, token)} of the nodes in the order of the table's node_id; keys as of `nodes_by_key`."""
    places, taken, by_key = {}, {}, nodes_by_key(file, path)
    for number, (key, node) in enumerate(by_key.items()):
        where = f"{path} nodes[{number}] ({node.node_id})"
        place = _node_place(node, file, where)
        if place in taken:
            raise wrong(where, f"the same node as {taken[place]}", expected="each node once")
        places[key], taken[place] = place, node.node_id

    def order(key):
        kind, layer, position, feature, _ = places[key]
        return KIND_ORDER.index(kind), layer or 0, position, feature or 0, -(by_key[key].token_prob or 0.0)

    return {key: places[key] for key in sorted(places, key=order)}


def _check_shares(file, path):
    """Refuses influences and probabilities that cannot be what they are called, and tokens of another prompt."""
    n_tokens, n_positions = len(file.cltdb and file.cltdb.tokens or file.metadata.prompt_tokens), len(file.metadata.prompt_tokens)
    if n_tokens != n_positions:
        raise wrong(f"{path} cltdb tokens", f"{n_tokens} ids", expected=f"one for each of the {n_positions} prompt_tokens")
    ranked = [node.influence for node in file.nodes if node.influence is not None]
    if len(ranked) > 1 and min(ranked) == max(ranked) < 1 - ROUNDING:
        expected = "cumulative shares, which grow from node to node up to that of the last"
        raise wrong(f"{path} nodes influence", f"{ranked[0]} for every node", expected=expected)
    probability = math.fsum(node.token_prob or 0.0 for node in file.nodes if KIND_OF_TYPE.get(node.feature_type) == "logit")
    if probability > 1 + ROUNDING:
        raise wrong(f"{path} nodes token_prob", f"a sum of {probability:.6g} over the logits", expected="at most 1")


def _node_place(node, file, where):
    kind = KIND_OF_TYPE.get(node.feature_type)
    if kind is None:
        raise wrong(where, f"feature_type {node.feature_type!r}", expected=", ".join(KIND_OF_TYPE), do="leave such nodes out")
    if node.ctx_idx >= len(file.metadata.prompt_tokens):
        expected = f"a position of the {len(file.metadata.prompt_tokens)} prompt_tokens"
        raise wrong(where, f"ctx_idx {node.ctx_idx}", expected=expected)
    if kind == "embedding":
        if str(node.layer) != "E":
            raise wrong(where, f"layer {node.layer!r}", expected="E, the layer of embeddings")
        match = re.fullmatch(r"E_(\d{1,9})_(\d+)", node.node_id)
        if not match or int(match[2]) != node.ctx_idx:
            raise wrong(where, f"node_id {node.node_id!r}", expected=f"E_<token id>_{node.ctx_idx}")
        return kind, None, node.ctx_idx, None, int(match[1])
    layer = _layer(node, where)
    check_id(node, kind, layer, where)
    if kind == "error":
        return kind, layer, node.ctx_idx, None, None
    if node.feature is None or node.feature < 0:
        raise wrong(where, f"feature {node.feature}", expected="a number from 0")
    if kind == "logit":
        token = node.cltdb.token if node.cltdb and node.cltdb.token is not None else node.feature
        if token >= 2**31:
            raise wrong(where, f"feature {token}", expected="the id of a token")
        return kind, None, node.ctx_idx, None, None if node.cltdb and node.cltdb.is_direction else token
    paired, feature = cantor_unpair(node.feature)
    if paired != layer or feature >= 2**31:
        match = re.fullmatch(r"\d{1,9}_(\d{1,9})_\d+", node.node_id)
        pair = (
            f"{cantor_pair(layer, int(match[1]))}, the pair of its layer and index"
            if match
            else "the pair of its layer and index"
        )
        raise wrong(where, f"feature {node.feature!s:.40}, which is layer {paired!s:.20}", expected=pair)
    return kind, layer, node.ctx_idx, feature, None


def _layer(node, where):
    text = str(node.layer)
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise wrong(where, f"layer {node.layer!r}", expected="a number")
    return int(text)


def _n_layers(file, places, path):
    """The model's depth, from the logits, whose layer is n_layers + 1; None without logits."""
    height = max((place[1] for place in places.values() if place[1] is not None), default=-1)
    n_layers = None
    for number, node in enumerate(file.nodes):
        where = f"{path} nodes[{number}] ({node.node_id})"
        if KIND_OF_TYPE[node.feature_type] == "logit":
            here = _layer(node, where) - 1
            if here <= height or n_layers not in (None, here):
                expected = f"that of the other logits, {n_layers + 1}" if n_layers else f"at least {height + 2}"
                raise wrong(where, f"layer {node.layer}", expected=expected)
            n_layers = here
    return n_layers


def _dictionary(file, places, database, dict_id, path):
    """The row of table dictionaries that the graph's features are of; None where none is named or known."""
    chosen = dict_id or (file.cltdb and file.cltdb.dict_id)
    rows = Database(database).dictionaries().to_dicts() if chosen and Path(database).is_file() else []
    row = next((row for row in rows if row["dict_id"] == chosen), None)
    if row is None:
        if dict_id:
            known = ", ".join(row["dict_id"] for row in rows) or "no dictionary yet"
            raise DataError(
                "--dictionary",
                found=repr(dict_id),
                expected=f"one of {known}",
                do="list them with: cltdb sql 'SELECT dict_id FROM dictionaries'",
            )
        return None
    outside = next(
        (p for p in places.values() if p[0] == "feature" and not (p[1] < row["n_layers"] and p[3] < row["n_features"])), None
    )
    n_layers = _n_layers(file, places, path)
    if outside or n_layers not in (None, row["n_layers"]):
        found = f"feature {outside[3]} of layer {outside[1]}" if outside else f"a graph of a model of {n_layers} layers"
        raise wrong(
            path,
            found,
            expected=f"features of {chosen}, which has {row['n_layers']} layers of {row['n_features']}",
            do="name the dictionary the graph was made with",
        )
    return row


# Rows


def graph_frames(file, places, *, graph_id, dictionary, path):
    """{table: frame} of a file. places: as of `node_places`; dictionary: a row of table dictionaries, or None."""
    import polars as pl

    number = {key: row for row, key in enumerate(places)}
    edges = _edges(file, places, number, graph_id, path)
    nodes = _nodes(file, places, nodes_by_key(file, path), graph_id, has_input=set(edges["target_id"]))
    edges = _with_influence(nodes, edges)
    return {
        "graphs": _graph_row(file, nodes, edges, graph_id, dictionary, n_layers=_n_layers(file, places, path)),
        "nodes": nodes,
        "supernodes": _supernodes(file, number, graph_id, path),
        "edges": edges.select(pl.lit(graph_id).alias("graph_id"), pl.all()),
    }


def _nodes(file, places, by_key, graph_id, *, has_input):
    import polars as pl

    shares = _shares(file, by_key)
    rows = []
    for node_id, (key, (kind, layer, position, feature, token)) in enumerate(places.items()):
        node = by_key[key]
        extra = node.cltdb or NodeExtra()
        expanded = extra.expanded if node.cltdb else kind == "logit" or (kind == "feature" and node_id in has_input)
        rows.append(
            {
                "graph_id": graph_id,
                "node_id": node_id,
                "kind": kind,
                "layer": layer,
                "position": position,
                "feature": feature,
                "activation": node.activation if kind == "feature" else None,
                "pre_activation": extra.pre_activation,
                "bias": extra.bias,
                "influence": extra.influence if node.cltdb else shares.get(key),
                "token": token,
                "probability": node.token_prob if kind == "logit" else extra.probability,
                "expanded": expanded,
                "dropped_mass": extra.dropped_mass,
                "kept": True,
                "label": _label(kind, node.clerp, is_foil=file.cltdb is not None and file.cltdb.foil is not None),
            }
        )
    integers = dict.fromkeys(("node_id", "layer", "position", "feature", "token"), pl.Int32)
    floats = dict.fromkeys(("activation", "pre_activation", "bias", "dropped_mass"), pl.Float32)
    types = {
        **integers,
        **floats,
        **dict.fromkeys(("influence", "probability"), pl.Float64),
        "label": pl.String,
        "expanded": pl.Boolean,
    }
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


def _label(kind, clerp, *, is_foil):
    """A feature's name, a logit's token as text; None where the file has no label."""
    if kind == "logit":
        match = OUTPUT.match(clerp or "")
        return None if is_foil else match[1] if match else clerp or None
    return clerp or None if kind == "feature" else None


def _shares(file, by_key):
    """{key: influence}, from the cumulative influences; as shares of the whole graph's influence where that is not known.

    Nodes come in the order of falling influence, so no difference is larger than the one before it. A larger one is the sum of several
    nodes, of which all but the last were pruned.
    """
    ranked = sorted((node.influence, key) for key, node in by_key.items() if node.influence is not None)
    total = file.cltdb and file.cltdb.total_influence or 1.0
    shares, before, bound = {}, 0.0, math.inf
    for reached, key in ranked:
        bound = min(reached - before, bound)
        shares[key], before = bound * total, reached
    return shares


def _edges(file, places, number, graph_id, path):
    import polars as pl

    n_layers = max((place[1] for place in places.values() if place[1] is not None), default=-1)
    heights = {key: {"embedding": -1, "logit": n_layers + 1}.get(place[0], place[1]) for key, place in places.items()}
    seen, rows = set(), []
    for index, (link, source) in enumerate(zip(file.links, link_sources(file, places, heights, path), strict=True)):
        where = f"{path} links[{index}] ({link.source} to {link.target})"
        for end in (source, link.target):
            if end not in number:
                raise wrong(where, f"no node {end!r}", expected="the id of a node of the file")
        _check_link(places[source], places[link.target], heights[source] < heights[link.target], where)
        if (source, link.target) in seen:
            raise wrong(where, "a second link of these nodes", expected="one")
        seen.add((source, link.target))
        extra = link.cltdb or LinkExtra()
        rows.append((number[source], number[link.target], link.weight, extra.influence, True, extra.measured))
    schema = {
        "source_id": pl.Int32,
        "target_id": pl.Int32,
        "weight": pl.Float64,
        "influence": pl.Float64,
        "kept": pl.Boolean,
        "measured": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").sort("target_id", "source_id")


def _check_link(source, target, is_upwards, where):
    """source, target: places of nodes."""
    if target[0] == "error":
        raise wrong(where, "a link that leads to an error", expected="errors as sources alone")
    if not is_upwards:
        raise wrong(where, "a link that does not lead to a later layer", expected="source upstream of target")
    if source[2] > target[2]:
        found = f"a link from position {source[2]} to position {target[2]}"
        raise wrong(where, found, expected="none that leads to an earlier position")


def _with_influence(nodes, edges):
    """The edges with their influence. Where the file does not state it, it is the edge's share of its target's input, times the target's
    influence."""
    import polars as pl

    target = nodes.select(
        pl.col("node_id").alias("target_id"),
        left=pl.col("dropped_mass").fill_null(0).cast(pl.Float64),
        reach=pl.col("influence").fill_null(0) + pl.col("probability").fill_null(0),
    )
    mass = pl.col("weight").abs().sum().over("target_id") + pl.col("left")
    found = pl.when(mass > 0).then(pl.col("weight").abs() / mass * pl.col("reach"))
    return (
        edges.join(target, on="target_id", how="left", maintain_order="left")
        .with_columns(influence=pl.coalesce("influence", found))
        .drop("left", "reach")
    )


def _graph_row(file, nodes, edges, graph_id, dictionary, *, n_layers):
    import polars as pl

    metadata, extra = file.metadata, file.cltdb
    pruning = metadata.pruning_settings or PruningSettings()
    tokens = dict(nodes.filter(kind="embedding").select("position", "token").iter_rows())
    n_positions = len(metadata.prompt_tokens)
    known = {name: getattr(extra, name) for name in type(extra).model_fields} if extra else {}
    row = {
        "graph_id": graph_id,
        "dict_id": dictionary and dictionary["dict_id"],
        "model_id": dictionary["model_id"] if dictionary else known.get("model_id") or metadata.scan,
        "prompt_id": known.get("prompt_id") or metadata.slug,
        "prompt": metadata.prompt,
        "tokens": known.get("tokens") or [tokens.get(position) for position in range(n_positions)],
        "target": known.get("target"),
        "foil": known.get("foil"),
        "n_nodes": nodes.height,
        "n_edges": edges.height,
        "n_features_active": known.get("n_features_active"),
        "node_threshold": _first(pruning.node_threshold, metadata.node_threshold),
        "edge_threshold": pruning.edge_threshold,
        "replacement_score": metadata.replacement_score,
        "completeness_score": metadata.completeness_score,
        "pruned_replacement_score": known.get("pruned_replacement_score"),
        "pruned_completeness_score": known.get("pruned_completeness_score"),
        "max_abs_error": known.get("max_abs_error"),
        "seconds": known.get("seconds"),
        "n_layers": n_layers,
        "token_strings": metadata.prompt_tokens,
        "total_influence": known.get("total_influence")
        if extra
        else 1.0
        if any(node.influence is not None for node in file.nodes)
        else None,
    }
    strings = dict.fromkeys(("dict_id", "model_id", "prompt_id", "prompt", "target", "foil"), pl.String)
    floats = {name: pl.Float64 for name in row if name.endswith(("score", "threshold", "influence", "seconds", "error"))}
    integers = {"n_nodes": pl.Int32, "n_layers": pl.Int32, "n_edges": pl.Int64, "n_features_active": pl.Int64}
    types = {**strings, **floats, **integers, "tokens": pl.List(pl.Int32), "token_strings": pl.List(pl.String)}
    return pl.DataFrame([row], schema_overrides=types)


def _first(*values):
    return next((value for value in values if value is not None), None)


def _supernodes(file, number, graph_id, path):
    import polars as pl

    rows = []
    for place, group in enumerate(file.qParams and file.qParams.supernodes or []):
        label, members = "".join(group[:1]), list(dict.fromkeys(number[member] for member in group[1:] if member in number))
        if not number.keys() >= set(group[1:]):
            log.warning("%s: the group %r names nodes that are not in the file; they are left out", path, label)
        if members:
            rows.append((f"{graph_id}-group-{place}", graph_id, label, members, _now()))
    schema = {
        "supernode_id": pl.String,
        "graph_id": pl.String,
        "name": pl.String,
        "node_ids": pl.List(pl.Int32),
        "created_at": pl.Datetime("us"),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _now():
    return datetime.now(UTC).replace(tzinfo=None)
