"""The attribute stage: one graph per prompt, checked edges, and ablations of its most influential features.

Writes: the tables of `tables.graph_tables`, one part per graph. A graph is a unit of the workspace (`cltdb.engine.units`). Its
key is a hash of all that it is made from, but not of the prompt's id. So other artifacts that ask for the same graph take it, and
a killed run goes on after the last finished one.
"""

import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jinja2 import TemplateError

from cltdb.attribution import graph as graphs
from cltdb.attribution.tables import graph_tables
from cltdb.engine.units import GRAPHS
from cltdb.engine.workspace import explain_full_disk, read_parquet, write_parquet
from cltdb.errors import CltdbError
from cltdb.log import progress, stopwatch
from cltdb.model.control_tokens import chat_tokens
from cltdb.replacement.replacement_model import computing_in, in_dtype
from cltdb.replacement.targets import FeatureTarget, LabelTarget, check_place, label_tokens, target_tokens

log = logging.getLogger(__name__)

STORED_WEIGHT = 1e-5
"""Edges of a smaller absolute weight get no row unless pruning keeps them; their sum is the target's `dropped_mass`."""
MAX_EDGES = 2_000_000
"""Edges of a graph that get a row, the strongest ones."""
EXACT, COARSE = (1e-3, 1e-3), (0.2, 0.01)
"""(a, b): a checked edge may differ from its intervention by a * max(its weight, b * the sum of its target's incoming weights),
all absolute. COARSE in bfloat16."""


def attribute_prompts(settings, prompts, lm, dictionary, *, directory, units, dict_id, seed):
    """Writes the tables of one graph per prompt into `directory`. Graphs that are among `units` (cltdb.engine.units.Units) are
    not made again.

    settings: the section of the spec (`settings.Attribute`); its own prompts are not looked at. prompts: [(`settings.Prompt`, the
    key that identifies the content of its graph)].
    """
    lm = computing_in(lm, settings.dtype)
    exact_lm = in_dtype(lm, torch.float64) if settings.check_edges else None
    entries = [prompt for prompt, _ in prompts]
    all_tokens = check_prompts(lm, entries, n_features=dictionary.n_features, constant_positions=settings.constant_positions)
    with progress("attribute", total=len(prompts), unit="prompts") as bar:
        for (prompt, key), tokens in zip(prompts, all_tokens, strict=True):
            names = {"graph_id": f"{prompt.id}-{key[:8]}", "prompt_id": prompt.id, "dict_id": dict_id}

            def write(folder, prompt=prompt, tokens=tokens, names=names):
                with stopwatch() as seconds:
                    graph = _graph(settings, prompt, lm, dictionary, tokens, graph_id=names["graph_id"])
                    graph = _checked(graph, n=settings.check_edges, seed=seed, exact_lm=exact_lm)
                    frames = graph_tables(settings, graph, prompt, dict_id=dict_id)
                    _write(folder, frames, round(seconds(), 3))

            stored, folder = units.folder(GRAPHS, key) or units.put_folder(GRAPHS, key, {"names": names}, write)
            _bring_in(folder, stored["names"], directory=directory, names=names)
            bar.advance(note=names["graph_id"])


def _graph(settings, prompt, lm, dictionary, tokens, *, graph_id):
    """The graph of a prompt; its `edge_threshold` is the absolute weight from which on its edges get rows."""
    graph = graphs.attribute(
        lm,
        dictionary,
        tokens,
        max_features=settings.max_features,
        max_edges=settings.max_edges,
        **_explained(prompt),
        keep=(settings.node_threshold, settings.edge_threshold),
        dtype=settings.dtype,
        constant_positions=settings.constant_positions,
        graph_id=graph_id,
    )
    return replace(graph, edge_threshold=max(graph.edge_threshold, _stored_weight(graph.effects.adjacency)))


def _explained(prompt):
    """What a prompt of the spec asks `attribute` to explain."""
    if prompt.target_label is not None:
        return {"target": LabelTarget(prompt.target, prompt.target_label), "position": prompt.position}
    if prompt.target_feature is None:
        return {"target": prompt.target, "foil": prompt.foil, "position": prompt.position}
    return {"target": FeatureTarget.at(prompt.target_feature)}


def check_prompts(lm, prompts, *, n_features=None, constant_positions=1):
    """Token ids of every prompt, BOS first. CltdbError, with the prompt's id, for a prompt that is wrong as far as tokens and
    sizes tell: its text or chat, targets, foil, position, target feature. n_features: of a layer, None where that is not known
    yet."""
    return [_checked_tokens(lm, prompt, n_features, constant_positions) for prompt in prompts]


def _checked_tokens(lm, prompt, n_features, constant_positions):
    with _naming(prompt):
        tokens = _tokens(lm, prompt)
        asked = _explained(prompt)
        target, position = asked["target"], asked.get("position")
        if isinstance(target, FeatureTarget):
            check_place(target, lm.n_layers, n_features)
            position = target.position
        elif isinstance(target, LabelTarget):
            label_tokens(lm, target)
        elif target is not None:
            target_tokens(lm, target, asked["foil"])
        graphs.up_to(tokens, position, constant_positions)
    return tokens


@contextmanager
def _naming(prompt):
    """Within the block, an error names the prompt by its id."""
    try:
        yield
    except CltdbError as error:
        part = error.where.removeprefix("attribute ")
        where = f"attribute.prompts {prompt.id}" + (f", {part}" if part != "prompt" else "")
        raise CltdbError(where, found=error.found, expected=error.expected, do=error.do) from error


def _tokens(lm, prompt):
    """Token ids of the prompt's text or chat, BOS first."""
    if prompt.text is not None:
        return lm.known_prompt(prompt.text)
    if lm.tokenizer.chat_template is None:
        raise CltdbError(
            "prompt",
            found=f"messages, for {lm.model_id}, whose tokenizer has no chat template",
            expected="a model for chats, or text",
            do="write text: instead of messages:",
        )
    try:
        return chat_tokens(lm, prompt.messages)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CltdbError(
            "prompt",
            found=f"messages that the chat template of {lm.model_id} refuses ({' '.join(str(error).split())[:200]})",
            expected="roles in an order that the template takes",
            do="mend the messages: most templates want user and assistant in turn, some know no system",
        ) from error


def _stored_weight(adjacency):
    """The absolute weight below which edges get no row."""
    weights, n_weaker = np.abs(adjacency.weight), len(adjacency) - MAX_EDGES
    return STORED_WEIGHT if n_weaker <= 0 else max(STORED_WEIGHT, float(np.partition(weights, n_weaker - 1)[n_weaker - 1]))


def _checked(graph, *, n, seed, exact_lm):
    """The graph with `n` edges measured; warns where a weight and its measurement differ."""
    if not n:
        return graph
    graph = graphs.check_edges(graph, n=n, seed=seed, exact_lm=exact_lm)
    adjacency, pairs = graph.effects.adjacency, list(graph.measured)
    weights = adjacency.weight[adjacency.places(pairs)].tolist()
    incoming = adjacency.by_target(lambda edges: np.abs(adjacency.weight[edges])).tolist()
    of_weight, of_input = COARSE if graph.replacement.lm.dtype == torch.bfloat16 else EXACT
    wrong = [
        pair
        for pair, weight in zip(pairs, weights, strict=True)
        if not abs(weight - graph.measured[pair]) <= of_weight * max(abs(weight), of_input * incoming[pair[1]])
    ]
    if wrong:
        log.warning(
            "%s: %d of %d checked edges differ from their interventions",
            graph.graph_id,
            len(wrong),
            len(graph.measured),
        )
    return graph


def _write(folder, frames, seconds):
    """Writes the tables of one graph as files of a folder."""
    import polars as pl

    frames["graphs"] = frames["graphs"].with_columns(seconds=pl.lit(seconds))
    for table, frame in frames.items():
        write_parquet(folder / f"{table}.parquet", frame)


def _bring_in(folder, stored, *, directory, names):
    """Makes the tables of a stored graph parts of an artifact, with the `names` (graph_id, prompt_id, dict_id) that it has
    there."""
    for path in sorted(folder.glob("*.parquet")):
        part = Path(directory) / "tables" / path.stem / f"{names['graph_id']}.parquet"
        if names == stored:
            _link(path, part)
        else:
            write_parquet(part, _renamed(path, stored, names))


def _link(path, part):
    """Makes `part` the same file as `path`, or a copy where the file system has no links."""
    part.parent.mkdir(parents=True, exist_ok=True)
    aside = part.with_name(f".{part.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    with explain_full_disk(part):
        try:
            os.link(path, aside)
        except OSError:
            shutil.copyfile(path, aside)
        os.replace(aside, part)
        aside.unlink(missing_ok=True)  # a rename between two names of one file does nothing


def _renamed(path, stored, names):
    """The table in a file, with its graph's other names. Ids of interventions and supernodes begin with the graph's id."""
    import polars as pl

    frame = read_parquet(path)
    old, new = stored["graph_id"], names["graph_id"]
    within = [name for name in ("graph_id", "intervention_id", "supernode_id") if name in frame.columns]
    whole = [pl.lit(names[name]).alias(name) for name in ("prompt_id", "dict_id") if name in frame.columns]
    return frame.with_columns(*((pl.lit(new) + pl.col(name).str.slice(len(old))).alias(name) for name in within), *whole)
